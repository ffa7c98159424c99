"""From stored predictions to numbers: a tidy table with confidence intervals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from mmbench.experiment import Experiment
from mmbench.metrics import METRICS, evaluate, statistics
from mmbench.missing import pattern_name, patterns
from mmbench.store import CorruptRecord, Predictions, Record, Store
from mmbench.trial import Trial

RESAMPLES = 2000
COLUMNS = ("dataset", "protocol", "method", "pattern", "metric", "mean", "std", "ci_low", "ci_high", "n", "reported")


@dataclass
class Row:
    """One method under one protocol on one data set: what its trials, one a seed, came to.

    Attributes:
        records: of the trials that are done.
        gaps: why the others are not.
    """

    dataset: str
    protocol: str
    method: str
    records: list[Record] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)

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
    """What the reader of a section should know of its test split."""

    size: int
    groups: int
    majority: float
    absent: dict[str, float]


@dataclass
class Results:
    """An experiment's numbers.

    Attributes:
        table: one row a data set, protocol, method, pattern and metric, with the columns ``COLUMNS``; values in percent, NaN where
            nothing was run.
        rows: one a data set, protocol and method.
        modalities: by data set.
        tests: the test split of a (data set, protocol) of which anything was run.
        commits: of the code that produced the trials.
    """

    experiment: Experiment
    table: pd.DataFrame
    rows: list[Row]
    modalities: dict[str, tuple[str, ...]]
    tests: dict[tuple[str, str], SplitFacts]
    commits: list[str]


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
    rows: dict[tuple[str, str, str], Row] = {}
    lines, modalities, tests = [], {}, {}
    by_cell: dict[tuple[str, str, str], list[Trial]] = {}
    for trial in experiment.trials:
        by_cell.setdefault((trial.dataset, trial.protocol, trial.method), []).append(trial)
    for cell, trials in by_cell.items():
        row = rows[cell] = Row(*cell)
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
        for index, pattern in enumerate(patterns(modalities[row.dataset])):
            name = pattern_name(pattern)
            estimates = estimate(predictions, index)
            for metric in METRICS:
                alias = "multi" if len(pattern) == len(modalities[row.dataset]) else name  # as the papers call it
                value = printed.get((row.dataset, row.method, alias)) if metric == "accuracy" else None
                lines.append((*cell, name, metric, *estimates[metric], len(predictions), value))
    table = pd.DataFrame(lines, columns=list(COLUMNS)).astype({"reported": float})
    commits = sorted({_commit(r) for row in rows.values() for r in row.records})
    return Results(experiment, table, list(rows.values()), modalities, tests, commits)


def estimate(predictions: Sequence[Predictions], pattern: int) -> dict[str, tuple[float, float, float, float]]:
    """Mean and standard deviation over seeds, and a 95 % interval, of each metric.

    Args:
        predictions: one a seed, of the same test samples.
        pattern: the pattern's number.

    Returns:
        metric -> (mean, std, low, high), in percent; NaN where there are too few seeds.
    """
    if not predictions:
        return dict.fromkeys(METRICS, (np.nan,) * 4)
    generator = np.random.default_rng(0)
    groups = len(np.unique(predictions[0].group))
    weights = generator.multinomial(groups, np.full(groups, 1 / groups), size=RESAMPLES).astype(float)  # (R, G)
    seeds = len(predictions)
    chosen = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=RESAMPLES) / seeds  # (R, S)
    point, resampled = [], []
    for p in predictions:
        sums = statistics(p.label, p.predicted[pattern], p.log_probs[pattern], p.group)
        point.append(evaluate(sums, np.ones((1, groups))))
        resampled.append(evaluate(sums, weights))
    result = {}
    for metric in METRICS:
        values = np.array([p[metric][0] for p in point])
        draws = (np.stack([r[metric] for r in resampled], axis=1) * chosen).sum(axis=1)
        low, high = np.percentile(draws, [2.5, 97.5])
        std = float(values.std(ddof=1)) if seeds > 1 else float("nan")
        result[metric] = (float(values.mean()), std, float(low), float(high))
    return result


def describe_test(p: Predictions) -> SplitFacts:
    """Size, majority class and natural gaps of a test split."""
    absent = {m: float(1 - p.present[:, i].mean()) for i, m in enumerate(p.modalities.tolist())}
    return SplitFacts(
        size=len(p.label),
        groups=len(np.unique(p.group)),
        majority=100 * float(np.bincount(p.label).max() / len(p.label)),
        absent={m: share for m, share in absent.items() if share > 0},
    )


def read_reported(folder: Path) -> dict[tuple[str, str, str], float]:
    """The papers' accuracies with complete modalities: (data set, method, modality or "multi") -> percent."""
    path = folder / "mla_table5.csv"
    if not path.is_file():
        return {}
    frame = pd.read_csv(path)
    return {(r.dataset, r.method, r.modalities): float(r.accuracy) for r in frame.itertuples()}


def _failure(record: Record) -> str:
    return f"failed: {record.failure.message}" if record.failure else record.status


def _commit(record: Record) -> str:
    return str(record.environment.get("commit", "unknown")) + ("+changes" if record.environment.get("dirty") else "")


def gaps(rows: Iterable[Row]) -> list[str]:
    """What is missing and why, a line a trial."""
    return [" ".join(f"{row.dataset} {row.protocol} {row.method} {gap}".split()) for row in rows for gap in row.gaps]
