"""From stored predictions to numbers: a tidy table with confidence intervals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from mmbench.data.prepared import MADE_UP
from mmbench.evidence.accuracy import SplitFacts, describe_test, estimate
from mmbench.experiment.plan import Experiment
from mmbench.missing import Missing, pattern_name, patterns, training_name
from mmbench.record import Record
from mmbench.report.papers import papers_setting, read_reported
from mmbench.report.rates import Outcomes, Rates, collect_rates
from mmbench.store import CorruptRecord, Store
from mmbench.trial import Trial

COLUMNS = (
    "dataset", "protocol", "training", "method", "pattern", "metric", "mean", "std", "ci_low", "ci_high", "n", "reported",
    "track",
)  # fmt: skip


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


def _tracks(experiment: Experiment, rows: Sequence[Row], dataset: str) -> list[str]:
    made_up = any(row.made_up for row in rows if row.dataset == dataset)
    cached = experiment.grid.datasets[dataset].cached
    return ["made up"] * made_up + ["cached features"] * cached


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
