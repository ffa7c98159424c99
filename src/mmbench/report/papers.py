"""The papers' numbers, and beside which trials they may stand."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import pandas as pd

from mmbench.arguments import resolve_arguments
from mmbench.data import DATASETS
from mmbench.encoders import ENCODERS
from mmbench.evidence.accuracy import MEAN
from mmbench.trial import Trial

SAME = ("model", "size", "weights", "freeze", "frames", "standardise")
"""Settings of an encoder that a paper's number depends on."""


CLIP_WEIGHTS = "clip-vit-base-patch32"


def papers_setting(trial: Trial, classes: int | None = None) -> str | None:
    """Which of the papers' settings a trial has: "clip" with CLIP's published encoders, "" with the data set's own; None with others.

    Encoders are the data set's own if what ``SAME`` lists is; weights may have been converted. Cached features are only CLIP's setting,
    and neither has SpecAugment, or another view of the data than the first.

    Args:
        trial: to compare.
        classes: how many it told apart, if it ran; a variant of the data set may have others.
    """
    if trial.dataset not in DATASETS or trial.spec_augment:
        return None
    data, encoders = DATASETS[trial.dataset], trial.encoders
    if trial.views != data.default_views() or classes not in (None, len(data.classes)):
        return None
    if all(c["name"].startswith("clip_") and c.get("weights") == CLIP_WEIGHTS for c in encoders.values()):
        return "clip"
    for modality, own in data.encoders.items():
        given = {"name": own} if isinstance(own, str) else dict(own)
        name, chosen = given.pop("name"), encoders[modality]
        resolved = resolve_arguments(ENCODERS[name], given)[0]
        chosen = {**resolved, **chosen, "weights": _unconverted(chosen.get("weights", resolved.get("weights")))}
        resolved["weights"] = _unconverted(resolved.get("weights"))
        if trial.cached or chosen["name"] != name or any(chosen.get(k) != resolved.get(k) for k in SAME):
            return None
    return ""


def _unconverted(weights: str | None) -> str | None:
    """The name of a file of weights without its ending, which converting changes."""
    return weights and Path(weights).stem


def read_reported(folder: Path) -> dict[tuple[str, str, str, str, str], float]:
    """What the papers print of models trained on complete data, in percent: (data set, track, method, pattern, metric) -> value.

    The track is "clip" for CLIP's encoders, else "". A pattern is one modality, "multi" for all of them, or "mean" for the mean over
    all patterns.
    """
    values: dict[tuple[str, str, str, str, str], float] = {}
    for name, track in (("mla_table5.csv", ""), ("mla_table7.csv", "clip")):
        if (path := folder / name).is_file():
            values |= {
                (r.dataset, track, r.method, r.modalities, "accuracy"): float(r.accuracy) for r in frame_of(path)
            }
    if (path := folder / "dmrnet_summary.csv").is_file():
        values |= {(r.dataset, "", r.method, MEAN, r.metric): float(r.value) for r in frame_of(path)}
    return values


def frame_of(path: Path) -> Iterable[Any]:
    """The rows of a CSV file, as named tuples."""
    return pd.read_csv(path).itertuples()


def read_rates(folder: Path | None) -> dict[tuple[str, str, float], float]:
    """The papers' accuracies where training and test lack modalities at the same rate: (data set, method, rate) -> percent.

    They are measured on pre-extracted features, so what is printed for IEMOCAP stands beside ``iemocap_features``.
    """
    path = folder / "mla_table6.csv" if folder else None
    if path is None or not path.is_file():
        return {}
    return {
        (f"{r.dataset}_features", str(r.method), float(cast(float, r.missing_rate))): float(cast(float, r.accuracy))
        for r in pd.read_csv(path).itertuples()
    }
