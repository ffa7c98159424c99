"""Accuracy by missing rate, from stored predictions: no model is run.

A test sample under a mask is a look-up: the prediction that was stored for the pattern that the mask leaves of it. So one trial answers
for every mask of every rate, and what a curve costs is counting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import numpy as np
import pandas as pd

from mmbench.missing import Missing, pattern_numbers, patterns, realised
from mmbench.report.resampling import resamples, summarise
from mmbench.store import Predictions, Record
from mmbench.task import SELECTION_METRIC

DRAWS = 100
"""Test masks that a robustness curve is the mean of."""

REFERENCE = "late_fusion"
"""Its modalities are trained alone: their own predictions are the unimodal models that others are held against."""

RateKind = Literal["anchor", "bernoulli"]

CURVE_COLUMNS = (
    "dataset", "protocol", "evaluation", "training", "method", "rate", "mean", "std", "ci_low", "ci_high", "n", "reported",
)  # fmt: skip
AREA_COLUMNS = (
    "dataset", "protocol", "evaluation", "training", "method", "area", "area_low", "area_high", "gain", "gain_low", "gain_high", "n",
    "reported",
)  # fmt: skip


@dataclass
class Outcomes:
    """What one method's trials, one a seed, got right on the test split.

    Attributes:
        missing: what training lacked; None: nothing.
        modalities: (M,) names.
        hits: (S, P + 1, N) bool, by pattern; the last row is the answer to a sample that shows nothing.
        present: (N, M) bool, what the samples have by nature.
        group: (N,) group numbers from 0 on.
        unimodal: (S, M) accuracy of each modality alone where the epoch was chosen; NaN where the record does not have it.
    """

    dataset: str
    protocol: str
    missing: Missing | None
    method: str
    modalities: list[str]
    hits: np.ndarray
    present: np.ndarray
    group: np.ndarray
    unimodal: np.ndarray

    @classmethod
    def of(
        cls,
        dataset: str,
        protocol: str,
        missing: Missing | None,
        method: str,
        records: Sequence[Record],
        predictions: Sequence[Predictions],
    ) -> Outcomes:
        """From the records and predictions of the trials that are done, one a seed."""
        if not predictions:
            empty = np.zeros(0)
            return cls(dataset, protocol, missing, method, [], np.zeros((0, 1, 0), bool), empty, empty, empty)
        first = predictions[0]
        names = first.modalities.tolist()
        alone = [[_selected(record).get(f"{SELECTION_METRIC}/{name}", np.nan) for name in names] for record in records]
        group = np.unique(first.group, return_inverse=True)[1]
        hits = np.stack([hits_of(p) for p in predictions])
        return cls(dataset, protocol, missing, method, names, hits, first.present, group, np.array(alone))

    @property
    def training(self) -> str:
        """What training lacked, in words."""
        return str(self.missing) if self.missing else "complete"

    @property
    def kind(self) -> RateKind | None:
        """The kind of mask, if training and test lack modalities at the same rate (the papers' protocol)."""
        m = self.missing
        return None if m is None or m.train_only or m.kind == "per_modality" else m.kind


@dataclass
class Rates:
    """Accuracies by missing rate.

    Attributes:
        curves: with ``CURVE_COLUMNS``. ``evaluation`` is "matched" (trained and tested at the rate, one fixed test mask) or
            "robustness" (trained as ``training`` says, tested at every rate, mean over 100 masks).
        areas: with ``AREA_COLUMNS``: the area under each curve over its rates above zero, divided by their range, so a mean accuracy in
            percent; and what it gains over the best single modality under the same masks.
        unimodal: (data set, protocol, training) -> the modality that is the best alone, by the split on which epochs are chosen.
        tests: (data set, rate) -> what the fixed test mask comes to: shares of cells masked, of cells missing by the mask or by
            nature, and of samples with nothing left.
    """

    curves: pd.DataFrame
    areas: pd.DataFrame
    unimodal: dict[tuple[str, str, str], str]
    tests: dict[tuple[str, float], dict[str, float]]


def hits_of(p: Predictions) -> np.ndarray:
    """Whether each stored prediction is right: (P + 1, N) bool; the last row answers with training's most frequent class."""
    return np.concatenate([p.predicted == p.label, (p.log_prior.argmax() == p.label)[None]])


def shown(masks: np.ndarray) -> np.ndarray:
    """How often each sample shows each pattern: (P + 1, N) shares of the masks (D, N, M), the last row of those that show nothing."""
    numbers = pattern_numbers(masks)  # (D, N)
    count = 2 ** masks.shape[-1]
    return np.stack([(numbers == p).mean(axis=0) for p in [*range(count - 1), -1]])


def robustness(
    predictions: Predictions, dataset: str, rates: Sequence[float], kind: RateKind = "anchor", draws: int = DRAWS
) -> np.ndarray:
    """Accuracy, in percent, of one trial at test missing rates: the mean over masks.

    Args:
        predictions: of the trial, under every pattern.
        dataset: its data set; it decides the masks, with ``draws``, so that all methods meet the same.
        rates: missing rates η.
        kind: of mask.
        draws: how many masks.

    Returns:
        (len(rates),).
    """
    hits, names = hits_of(predictions), predictions.modalities.tolist()
    shares = [shown(masks_of_test(dataset, names, len(predictions.label), rate, kind, draws)) for rate in rates]
    return np.array([100 * (share * hits).sum(axis=0).mean() for share in shares])


def masks_of_test(
    dataset: str, modalities: Sequence[str], size: int, rate: float, kind: RateKind, draws: int = DRAWS
) -> np.ndarray:
    """The masks (draws, size, M) of a test split; the first is the fixed one of the matched protocol."""
    return np.stack(
        [Missing(kind=kind, rate=rate, seed=seed).mask(dataset, "test", modalities, size) for seed in range(draws)]
    )


def collect_rates(outcomes: Sequence[Outcomes], reported: Path | None = None) -> Rates | None:
    """The curves of an experiment; None if it trains at no missing rate that a test split could have too.

    Args:
        outcomes: one a data set, protocol, way of training and method.
        reported: a folder with the papers' numbers.
    """
    if not any(o.kind for o in outcomes):
        return None
    printed = _read_reported(reported)
    curves: list[tuple] = []
    areas: list[tuple] = []
    unimodal: dict[tuple[str, str, str], str] = {}
    tests: dict[tuple[str, float], dict[str, float]] = {}
    for dataset, protocol, kind in dict.fromkeys((o.dataset, o.protocol, o.kind) for o in outcomes if o.kind):
        here = [o for o in outcomes if (o.dataset, o.protocol) == (dataset, protocol)]
        here = [o for o in here if o.kind == kind or o.missing is None or (o.missing.redraw and o.missing.kind == kind)]
        rates = sorted({0.0} | {o.missing.rate for o in here if o.kind and o.missing and o.missing.rate is not None})
        done = next((o for o in here if len(o.hits)), None)
        masks = _Masks(done, rates, kind) if done and kind else None
        references = {o.missing: o for o in here if o.method == REFERENCE and len(o.hits)}
        for method in dict.fromkeys(o.method for o in here):
            own = [o for o in here if o.method == method]
            at = {o.missing.rate if o.missing else 0.0: o for o in own if o.kind or o.missing is None}
            for evaluation, training, trained in (
                ("matched", "at each rate", {rate: at[rate] for rate in rates if rate in at}),
                *(("robustness", o.training, dict.fromkeys(rates, o)) for o in own),
            ):
                head = (dataset, protocol, evaluation, training, method)
                paper = {r: printed.get((dataset, method, r)) for r in rates} if evaluation == "matched" else {}
                points = {rate: _point(o, rate, masks, evaluation, references) for rate, o in trained.items()}
                for rate, point in points.items():
                    curves.append((*head, rate, *point.summary, point.seeds, paper.get(rate)))
                areas.append((*head, *_areas(points, [r for r in rates if r > 0], paper)))
        unimodal |= {(dataset, protocol, o.training): o.modalities[_best_alone(o)] for o in references.values()}
        if masks is not None:
            tests |= {(dataset, rate): realised(masks.fixed[rate], masks.present) for rate in rates}
    return Rates(
        pd.DataFrame(curves, columns=list(CURVE_COLUMNS)).astype({"reported": float}),
        pd.DataFrame(areas, columns=list(AREA_COLUMNS)).astype({"reported": float}),
        unimodal,
        tests,
    )


class _Masks:
    """The masks of one test split: the fixed ones, and how often each sample shows each pattern over many."""

    def __init__(self, example: Outcomes, rates: Sequence[float], kind: RateKind) -> None:
        self.modalities, self.present = example.modalities, example.present
        drawn = {r: masks_of_test(example.dataset, self.modalities, len(self.present), r, kind) for r in rates}
        self.fixed = {rate: masks[0] for rate, masks in drawn.items()}
        self._shares = {
            "matched": {rate: shown(masks[:1]) for rate, masks in drawn.items()},
            "robustness": {rate: shown(masks) for rate, masks in drawn.items()},
        }

    def shares(self, evaluation: str, rate: float, modality: int | None = None) -> np.ndarray:
        """How often each sample shows each pattern, (P + 1, N); with ``modality``: to a model that sees nothing but that one."""
        share = self._shares[evaluation][rate]
        if modality is None:
            return share
        sees = np.array([self.modalities[modality] in p for p in patterns(self.modalities)] + [False])
        alone = np.zeros_like(share)
        alone[modality], alone[-1] = share[sees].sum(axis=0), share[~sees].sum(axis=0)
        return alone


@dataclass
class _Point:
    """Accuracy at one rate: of each seed (S,), the bootstrap's draws (R,), and the gain over the best modality alone, likewise."""

    accuracy: np.ndarray
    draws: np.ndarray
    gain: float = float("nan")
    gain_draws: np.ndarray | None = None

    @property
    def seeds(self) -> int:
        return len(self.accuracy)

    @property
    def summary(self) -> tuple[float, float, float, float]:
        return summarise(self.accuracy, self.draws) if self.seeds else (np.nan,) * 4


def _point(
    o: Outcomes,
    rate: float,
    masks: _Masks | None,
    evaluation: str,
    references: Mapping[Missing | None, Outcomes],
) -> _Point:
    if masks is None or not len(o.hits):
        return _Point(np.zeros(0), np.zeros(0))
    point = _Point(*_accuracy(o, masks.shares(evaluation, rate)))
    if reference := references.get(o.missing):
        alone, draws = _accuracy(reference, masks.shares(evaluation, rate, _best_alone(reference)))
        point.gain, point.gain_draws = float(point.accuracy.mean() - alone.mean()), point.draws - draws
    return point


def _areas(points: Mapping[float, _Point], rates: Sequence[float], paper: Mapping[float, float | None]) -> tuple:
    """The columns of ``AREA_COLUMNS`` after the first five; NaN where a rate was not run, or there is only one."""
    chosen = [points[rate] for rate in rates if rate in points and points[rate].seeds]
    printed = [value for rate in rates if (value := paper.get(rate)) is not None]
    x = np.array(rates)
    whole = len(rates) > 1
    reported = float(_area(x, np.array(printed))) if whole and len(printed) == len(rates) else None
    if not whole or len(chosen) < len(rates):
        return (*(np.nan,) * 6, 0, reported)
    area = float(_area(x, np.array([p.accuracy.mean() for p in chosen])))
    low, high = np.percentile(_area(x, np.stack([p.draws for p in chosen])), [2.5, 97.5])
    gains = [p.gain_draws for p in chosen if p.gain_draws is not None]
    gain = gain_low = gain_high = np.nan
    if len(gains) == len(rates):
        gain = float(_area(x, np.array([p.gain for p in chosen])))
        gain_low, gain_high = np.percentile(_area(x, np.stack(gains)), [2.5, 97.5])
    return area, low, high, gain, gain_low, gain_high, min(p.seeds for p in chosen), reported


def _accuracy(o: Outcomes, share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy in percent of each seed (S,), and the draws of its mean over seeds (R,)."""
    right = (o.hits * share).sum(axis=1)  # (S, N): the share of the masks under which the sample is answered rightly
    groups = int(o.group.max()) + 1
    weights, chosen = resamples(groups, len(right))
    sums = np.zeros((len(right), groups))
    for seed, values in enumerate(right):
        sums[seed] = np.bincount(o.group, values, groups)
    sizes = np.bincount(o.group, minlength=groups)
    draws = 100 * (weights @ sums.T) / (weights @ sizes)[:, None]  # (R, S)
    return 100 * right.mean(axis=1), (draws * chosen).sum(axis=1)


def _best_alone(o: Outcomes) -> int:
    """The modality that is the best alone where epochs are chosen, by its mean over seeds."""
    return int(o.unimodal.mean(axis=0).argmax())


def _area(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The mean height of curves y (len(x), …) over x, by the trapezoidal rule."""
    return np.trapezoid(y, x, axis=0) / (x[-1] - x[0])


def _selected(record: Record) -> dict[str, float]:
    """The metrics of the epoch that was chosen."""
    return record.curves[record.best_epoch] if record.curves and record.best_epoch is not None else {}


def _read_reported(folder: Path | None) -> dict[tuple[str, str, float], float]:
    """The papers' accuracies where training and test lack modalities at the same rate: (data set, method, rate) -> percent."""
    path = folder / "mla_table6.csv" if folder else None
    if path is None or not path.is_file():
        return {}
    return {
        (str(r.dataset), str(r.method), float(cast(float, r.missing_rate))): float(cast(float, r.accuracy))
        for r in pd.read_csv(path).itertuples()
    }
