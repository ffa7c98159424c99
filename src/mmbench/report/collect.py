"""From stored predictions to numbers: a tidy table with confidence intervals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from mmbench.baselines import METHODS
from mmbench.data import DATASETS
from mmbench.data.prepared import MADE_UP
from mmbench.evidence.accuracy import SplitFacts, describe_test, distinct_runs, estimate, fingerprint
from mmbench.experiment.plan import Experiment
from mmbench.missing import Missing, pattern_name, patterns, training_name
from mmbench.provenance import Codes, grouped, why_stale
from mmbench.record import Predictions, Record
from mmbench.report.papers import Printed, differences, read_printed, setting
from mmbench.report.rates import Outcomes, Rates, collect_rates
from mmbench.store import CorruptRecord, Store
from mmbench.trial import Trial

COLUMNS = (
    "dataset", "protocol", "training", "method", "pattern", "metric", "mean", "std", "ci_low", "ci_high", "n", "reported",
    "track", "artefact",
)  # fmt: skip


@dataclass
class Row:
    """One method under one protocol on one data set, trained in one way: what its trials, one a seed, came to.

    Attributes:
        missing: what training lacked; None: nothing.
        made_up: the data are a demo copy.
        artefacts: patterns whose score follows from a role in the method (``MultimodalTask.artefact_patterns``).
        unlike: what the trials do otherwise than a paper that has numbers of this method and data set; nothing, if they stand beside.
        records: of the trials that are done.
        predicted: hashes of the predictions, one a record.
        runs: how many of the trials predicted something of their own; seeds that change nothing are one run.
        gaps: why the others are not done.
    """

    dataset: str
    protocol: str
    missing: Missing | None
    method: str
    made_up: bool = False
    artefacts: tuple[str, ...] = ()
    unlike: tuple[str, ...] = ()
    records: list[Record] = field(default_factory=list)
    predicted: list[str] = field(default_factory=list)
    runs: int = 0
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
            are a demo copy, "cached features" where frozen encoders ran once; both, with a comma; else empty. The artefact is "role"
            where the score follows from the modality's role in the method, else empty.
        rates: accuracy by missing rate, where the experiment trains at missing rates.
        rows: one a data set, protocol, way of training and method.
        modalities: by data set.
        tests: the test split of a (data set, protocol) of which anything was run.
        commits: of the code that produced the trials.
        stale: how many of the trials other code produced, and which; empty where that was not asked.
    """

    experiment: Experiment
    table: pd.DataFrame
    rates: Rates | None
    rows: list[Row]
    modalities: dict[str, tuple[str, ...]]
    tests: dict[tuple[str, str], SplitFacts]
    commits: list[str]
    stale: list[str]

    def mark(self, dataset: str) -> str:
        """What every title has to say of where a data set's numbers come from: ``", MADE UP"`` or nothing, for one."""
        return "".join(
            f", {track.replace('made up', 'MADE UP')}" for track in _tracks(self.experiment, self.rows, dataset)
        )

    @property
    def not_run(self) -> list[str]:
        """What trials are missing and why, a line each."""
        return gaps(self.rows)


def collect(experiment: Experiment, store: Store, reported: Path | None = None, codes: Codes | None = None) -> Results:
    """Read an experiment's trials from the store and compute its table.

    Intervals are 95 % percentile intervals of a hierarchical bootstrap: seeds are resampled, and groups of test samples. Within a
    data set and protocol all methods see the same resamples of the groups.

    Args:
        experiment: what to report; trials that are not in the store leave gaps, with reasons.
        store: the results.
        reported: a folder with the papers' numbers.
        codes: the code that is here; what came from other code is then noted.
    """
    printed = read_printed(reported)
    by_cell: dict[tuple[str, str, Missing | None, str], list[Trial]] = {}
    for trial in experiment.trials:
        by_cell.setdefault((trial.dataset, trial.protocol, trial.missing, trial.method), []).append(trial)
    rows, lines, modalities, tests, outcomes = [], [], {}, {}, []
    for trials in by_cell.values():
        row, predictions = _read_row(trials, store)
        rows.append(row)
        modalities[row.dataset] = tuple(trials[0].encoders)
        if predictions:
            tests[row.dataset, row.protocol] = describe_test(predictions[0])
        unlike = differences(trials[0], len(predictions[0].log_prior) if predictions else None)
        if printed.has(trials[0]) and not row.made_up:
            row.unlike = unlike
        comparable = not (row.made_up or unlike)
        lines += _lines(row, trials[0], predictions, printed if comparable else Printed())
        outcome = Outcomes.of(row.dataset, row.protocol, row.missing, row.method, row.records, predictions)
        outcomes.append(replace(outcome, comparable=comparable))
    table = pd.DataFrame(lines, columns=list(COLUMNS)).astype({"reported": float})
    commits = sorted({_commit(r) for row in rows for r in row.records})
    rates = collect_rates(outcomes, experiment.grid.test_rates, printed.rates)
    for frame in (table, *((rates.curves, rates.areas) if rates else ())):
        frame["track"] = [", ".join(_tracks(experiment, rows, dataset)) for dataset in frame.dataset]
    reasons = [why_stale(record, codes) for row in rows for record in row.records] if codes else []
    stale = grouped(filter(None, reasons), "of other code than this")
    return Results(experiment, table, rates, rows, modalities, tests, commits, stale)


def _read_row(trials: Sequence[Trial], store: Store) -> tuple[Row, list[Predictions]]:
    """A row of its trials, one a seed, and the predictions of those that are done."""
    first, predictions = trials[0], []
    row = Row(first.dataset, first.protocol, first.missing, first.method, first.data.startswith(MADE_UP))
    conditioning = DATASETS[first.dataset].conditioning if first.dataset in DATASETS else ""
    row.artefacts = METHODS[first.method].artefact_patterns(first.params, conditioning)
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
    row.predicted, row.runs = [fingerprint(p) for p in predictions], len(distinct_runs(predictions))
    return row, predictions


def _lines(row: Row, trial: Trial, predictions: Sequence[Predictions], printed: Printed) -> list[tuple]:
    """The table's lines of a row, with the columns ``COLUMNS``; the track is still empty."""
    names = [pattern_name(p) for p in patterns(tuple(trial.encoders))]
    lines = []
    for (name, metric), values in estimate(predictions, names).items():
        artefact = name in row.artefacts
        alias = "multi" if name == names[-1] else name  # as the papers call it
        value = None
        if row.missing is None and not artefact:  # the papers scored what is an artefact here in another way
            value = printed.complete.get((row.dataset, setting(trial), row.method, alias, metric))
        line = (row.dataset, row.protocol, row.training, row.method, name, metric)
        lines.append((*line, *values, row.runs, value, "", "role" if artefact else ""))
    return lines


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
