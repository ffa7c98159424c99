"""From stored predictions to numbers: a tidy table with confidence intervals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mmbench.arguments import resolve_arguments
from mmbench.data.prepared import MADE_UP
from mmbench.experiment import Experiment
from mmbench.metrics import ATTACK_METRICS, METRICS, evaluate, statistics
from mmbench.missing import Missing, pattern_name, patterns, training_name
from mmbench.report.rates import Outcomes, Rates, collect_rates
from mmbench.report.resampling import RESAMPLES, resamples, summarise
from mmbench.store import CorruptRecord, Predictions, Record, Store
from mmbench.trial import Trial

MEAN = "mean"
"""What tables call the mean over all patterns."""
COLUMNS = (
    "dataset", "protocol", "training", "method", "pattern", "metric", "mean", "std", "ci_low", "ci_high", "n", "reported",
    "track",
)  # fmt: skip


SAME = ("model", "size", "weights", "freeze", "frames", "standardise")
"""Settings of an encoder that a paper's number depends on."""
CLIP_WEIGHTS = "clip-vit-base-patch32"


@dataclass
class Row:
    """One method under one protocol on one data set, trained in one way: what its trials, one a seed, came to.

    Attributes:
        missing: what training lacked; None: nothing.
        made_up: the data are a demo copy.
        records: of the trials that are done.
        gaps: why the others are not.
    """

    dataset: str
    protocol: str
    missing: Missing | None
    method: str
    made_up: bool = False
    records: list[Record] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)

    @property
    def training(self) -> str:
        """What training lacked, in words."""
        return training_name(self.missing)

    @property
    def seconds(self) -> float:
        """Mean wall time of training, in seconds; NaN without trials."""
        return float(np.mean([r.seconds["fit"] for r in self.records])) if self.records else float("nan")

    @property
    def parameters(self) -> int | None:
        """Trainable parameters."""
        return self.records[0].parameters if self.records else None


@dataclass
class SplitFacts:
    """What the reader of a section should know of its test split.

    Attributes:
        size: samples.
        groups: of samples that stand or fall together.
        largest: percent of the samples that are in the two largest groups; intervals are wide where it is large.
        majority: percent of the samples that are of the most frequent class.
        absent: modality -> the share of the samples that lack it.
        classes: how many there are.
    """

    size: int
    groups: int
    largest: float
    majority: float
    absent: dict[str, float]
    classes: int


@dataclass
class Results:
    """An experiment's numbers.

    Attributes:
        table: one row a data set, protocol, way of training, method, pattern and metric, with the columns ``COLUMNS``; values in
            percent, NaN where nothing was run. The pattern "mean" is the mean over all patterns. The track is "made up" where the data
            are a demo copy, "cached features" where frozen encoders ran once; both, with a comma; else empty.
        rates: accuracy by missing rate, where the experiment trains at missing rates.
        rows: one a data set, protocol, way of training and method.
        modalities: by data set.
        tests: the test split of a (data set, protocol) of which anything was run.
        commits: of the code that produced the trials.
    """

    experiment: Experiment
    table: pd.DataFrame
    rates: Rates | None
    rows: list[Row]
    modalities: dict[str, tuple[str, ...]]
    tests: dict[tuple[str, str], SplitFacts]
    commits: list[str]

    def mark(self, dataset: str) -> str:
        """What every title has to say of where a data set's numbers come from: ``", MADE UP"`` or nothing, for one."""
        return "".join(
            f", {track.replace('made up', 'MADE UP')}" for track in _tracks(self.experiment, self.rows, dataset)
        )

    @property
    def not_run(self) -> list[str]:
        """What trials are missing and why, a line each."""
        return gaps(self.rows)


def collect(experiment: Experiment, store: Store, reported: Path | None = None) -> Results:
    """Read an experiment's trials from the store and compute its table.

    Intervals are 95 % percentile intervals of a hierarchical bootstrap: seeds are resampled, and groups of test samples. Within a
    data set and protocol all methods see the same resamples of the groups.

    Args:
        experiment: what to report; trials that are not in the store leave gaps, with reasons.
        store: the results.
        reported: a folder with the papers' numbers.
    """
    printed = read_reported(reported) if reported else {}
    rows = []
    lines, modalities, tests, outcomes = [], {}, {}, []
    by_cell: dict[tuple[str, str, Missing | None, str], list[Trial]] = {}
    for trial in experiment.trials:
        by_cell.setdefault((trial.dataset, trial.protocol, trial.missing, trial.method), []).append(trial)
    for cell, trials in by_cell.items():
        row = Row(*cell, made_up=trials[0].data.startswith(MADE_UP))
        rows.append(row)
        modalities[row.dataset] = tuple(trials[0].encoders)
        predictions = []
        for trial in trials:
            try:
                record = store.record(trial.key)
                reason = f"seed {trial.seed}: not run" if record is None else f"seed {trial.seed}: {_failure(record)}"
                if record is not None and record.status == "done":
                    predictions.append(store.predictions(record))
                    row.records.append(record)
                    continue
            except CorruptRecord as error:
                reason = f"seed {trial.seed}: damaged ({error})"
            row.gaps.append(reason)
        if predictions:
            tests[row.dataset, row.protocol] = describe_test(predictions[0])
        classes = len(predictions[0].log_prior) if predictions else None
        setting = None if row.made_up else papers_setting(trials[0], classes)
        outcomes.append(replace(Outcomes.of(*cell, row.records, predictions), comparable=setting == ""))
        names = [pattern_name(p) for p in patterns(modalities[row.dataset])]
        for (name, metric), values in estimate(predictions, names).items():
            alias = "multi" if name == names[-1] else name  # as the papers call it
            value = (
                printed.get((row.dataset, setting, row.method, alias, metric))
                if row.missing is None and setting is not None
                else None
            )
            line = (row.dataset, row.protocol, row.training, row.method, name, metric)
            lines.append((*line, *values, len(predictions), value, ""))
    table = pd.DataFrame(lines, columns=list(COLUMNS)).astype({"reported": float})
    commits = sorted({_commit(r) for row in rows for r in row.records})
    rates = collect_rates(outcomes, experiment.grid.test_rates, reported)
    for frame in (table, *((rates.curves, rates.areas) if rates else ())):
        frame["track"] = [", ".join(_tracks(experiment, rows, dataset)) for dataset in frame.dataset]
    return Results(experiment, table, rates, rows, modalities, tests, commits)


def estimate(
    predictions: Sequence[Predictions], names: Sequence[str]
) -> dict[tuple[str, str], tuple[float, float, float, float]]:
    """Mean and standard deviation over seeds, and a 95 % interval, of each metric under each pattern and of its mean over patterns.

    Args:
        predictions: one a seed, of the same test samples.
        names: of the patterns.

    Returns:
        (pattern, metric) -> (mean, std, low, high), in percent; NaN where there are too few seeds. The last pattern is "mean".
    """
    if not predictions:
        return {(name, metric): (np.nan,) * 4 for name in [*names, MEAN] for metric in METRICS}
    weights, chosen = resamples(len(np.unique(predictions[0].group)), len(predictions))
    metrics = METRICS + (ATTACK_METRICS if len(predictions[0].attack) else ())
    point = {metric: np.empty((len(names), len(predictions))) for metric in metrics}  # (P, S)
    draws = {metric: np.empty((len(names), RESAMPLES)) for metric in metrics}  # (P, R)
    for i in range(len(names)):
        drawn = []
        for seed, p in enumerate(predictions):
            sums = statistics(p.label, p.predicted[i], p.log_probs[i], p.group, p.attack)
            for metric, value in evaluate(sums, np.ones((1, weights.shape[1]))).items():
                point[metric][i, seed] = value[0]
            drawn.append(evaluate(sums, weights))
        for metric in metrics:
            draws[metric][i] = (np.stack([d[metric] for d in drawn], axis=1) * chosen).sum(axis=1)
    result = {}
    for i, name in enumerate([*names, MEAN]):
        for metric in metrics:
            over = slice(None) if name == MEAN else slice(i, i + 1)
            result[name, metric] = summarise(point[metric][over].mean(axis=0), draws[metric][over].mean(axis=0))
    return result


def describe_test(p: Predictions) -> SplitFacts:
    """Size, majority class and natural gaps of a test split."""
    absent = {m: float(1 - p.present[:, i].mean()) for i, m in enumerate(p.modalities.tolist())}
    sizes = np.unique(p.group, return_counts=True)[1]
    return SplitFacts(
        size=len(p.label),
        groups=len(sizes),
        largest=100 * float(np.sort(sizes)[-2:].sum() / sizes.sum()),
        majority=100 * float(np.bincount(p.label).max() / len(p.label)),
        absent={m: share for m, share in absent.items() if share > 0},
        classes=len(p.log_prior),
    )


def papers_setting(trial: Trial, classes: int | None = None) -> str | None:
    """Which of the papers' settings a trial has: "clip" with CLIP's published encoders, "" with the data set's own; None with others.

    Encoders are the data set's own if what ``SAME`` lists is; weights may have been converted. Cached features are only CLIP's setting,
    and neither has SpecAugment, or another view of the data than the first.

    Args:
        trial: to compare.
        classes: how many it told apart, if it ran; a variant of the data set may have others.
    """
    from mmbench.data import DATASETS
    from mmbench.encoders import ENCODERS

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


def _tracks(experiment: Experiment, rows: Sequence[Row], dataset: str) -> list[str]:
    made_up = any(row.made_up for row in rows if row.dataset == dataset)
    cached = experiment.grid.datasets[dataset].cached
    return ["made up"] * made_up + ["cached features"] * cached


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


def _failure(record: Record) -> str:
    return f"failed: {record.failure.message}" if record.failure else record.status


def _commit(record: Record) -> str:
    return str(record.environment.get("commit", "unknown")) + ("+changes" if record.environment.get("dirty") else "")


def gaps(rows: Iterable[Row]) -> list[str]:
    """What is missing and why, a line a trial."""
    lines = []
    for row in rows:
        training = f" {row.training}" if row.missing else ""
        lines += [" ".join(f"{row.dataset} {row.protocol}{training} {row.method} {gap}".split()) for gap in row.gaps]
    return lines
