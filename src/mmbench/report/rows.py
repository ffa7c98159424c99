"""One method under one protocol on one data set: what its trials left in the store, read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from mmbench.baselines import METHODS
from mmbench.data import DATASETS
from mmbench.data.prepared import MADE_UP
from mmbench.evidence.accuracy import distinct_runs, fingerprint, join
from mmbench.experiment.plan import Labels
from mmbench.missing import Missing, split_name, training_name
from mmbench.record import Features, Predictions, Record
from mmbench.store import CorruptRecord, Store
from mmbench.trial import Trial


class Tried(NamedTuple):
    """A trial of a row and its record, if there is one; "done", "failed", "not run" or "damaged", and why; its test samples."""

    trial: Trial
    record: Record | None
    status: str
    reason: str = ""
    samples: int | None = None


Key = tuple[str, str, str, str]
"""Of a row: data set, protocol, training, method."""


@dataclass
class Row:
    """One method under one protocol on one data set, trained in one way: what its trials, one a seed and fold, came to.

    Attributes:
        dataset: what the experiment calls the data set.
        method: what it calls the method.
        data: the data set's own name.
        missing: what training lacked; None: nothing.
        folds: how many of the data set's folds there are trials of; 0: it is not cut into folds.
        tuned: its settings were chosen, fold by fold.
        made_up: the data are a demo copy.
        artefacts: patterns whose score follows from a role in the method (``MultimodalTask.artefact_patterns``).
        unlike: what the trials do otherwise than a paper that has numbers of this method and data set; nothing, if they stand beside.
        trials: all of them, and what they came to.
        records: of the trials that are done.
        seeds: those of which every fold is done.
        predicted: hashes of the predictions, one a seed.
        runs: how many of the seeds predicted something of their own; seeds that change nothing are one run.
        gaps: why the others are not done.
        elsewhere: the predictions were made by other code and added; ``trials`` stand for them, and there are no records.
        not_given: patterns under which some of them have no predictions, so that none counts.
    """

    dataset: str
    protocol: str
    missing: Missing | None
    method: str
    data: str
    folds: int = 0
    tuned: bool = False
    made_up: bool = False
    artefacts: tuple[str, ...] = ()
    unlike: tuple[str, ...] = ()
    trials: list[Tried] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)
    predicted: list[str] = field(default_factory=list)
    runs: int = 0
    gaps: list[str] = field(default_factory=list)
    elsewhere: bool = False
    not_given: tuple[str, ...] = ()

    def count(self, runs: Sequence[Run]) -> None:
        """Note what the seeds of which every fold is done came to."""
        self.seeds, self.predicted = [run.seed for run in runs], [fingerprint(run.predictions) for run in runs]
        self.runs = len(distinct_runs([run.predictions for run in runs]))

    def lacks(self, names: Iterable[str]) -> bool:
        """Whether any of these patterns is one without predictions."""
        return not set(self.not_given).isdisjoint(names)

    @property
    def key(self) -> Key:
        """What tells the row from all others."""
        return self.dataset, self.protocol, self.training, self.method

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


def read_features(row: Row, store: Store) -> Features | None:
    """Where the features of the row's first trial lie; None if nothing is done, or modalities have features of different widths."""
    try:
        return store.features(row.records[0]) if row.records else None
    except CorruptRecord as error:
        row.gaps.append(f"features of its first trial: damaged ({error})")
        return None


@dataclass
class Run:
    """What one seed came to: the records of its folds, in their order, and their predictions as one of the whole set.

    Attributes:
        parts: name of each fold's test split -> its size.
    """

    seed: int
    records: list[Record]
    predictions: Predictions
    parts: dict[str, int]


def read_row(labels: Labels, defaults: Sequence[Trial], trials: Sequence[Trial], store: Store) -> tuple[Row, list[Run]]:
    """A row of its trials, one a seed and fold, and the runs of the seeds of which every fold is done.

    Args:
        labels: what the row is called.
        defaults: the trials of the default setting, of every seed and fold.
        trials: those of the row: the same, or of settings that were chosen.
        store: the results.
    """
    first = defaults[0]
    folds = sorted({trial.fold for trial in defaults if trial.fold is not None})
    row = Row(labels.dataset, first.protocol, first.missing, labels.method, first.dataset, len(folds))
    row.made_up = first.data.startswith(MADE_UP)
    conditioning = DATASETS[first.dataset].conditioning if first.dataset in DATASETS else ""
    row.artefacts = METHODS[first.method].artefact_patterns(first.params, conditioning)
    done: dict[int, list[tuple[Record, Predictions]]] = {}
    for trial in trials:
        fold = "" if trial.fold is None else f"fold {trial.fold} "
        tried, predictions = _try(trial, store)
        row.trials.append(tried)
        if tried.record is not None and predictions is not None:
            done.setdefault(trial.seed, []).append((tried.record, predictions))
            row.records.append(tried.record)
        else:
            row.gaps.append(f"{fold}seed {trial.seed}: {tried.reason or tried.status}")
    runs = [run_of(seed, parts) for seed, parts in done.items() if len(parts) == max(1, len(folds))]
    row.count(runs)
    return row, runs


def _try(trial: Trial, store: Store) -> tuple[Tried, Predictions | None]:
    """What a trial came to, and its predictions if it is done."""
    try:
        record = store.record(trial.key)
        if record is not None:
            record.trial = trial  # equal to its own, but kept anyway
        if record is not None and record.status == "done":
            predictions = store.predictions(record)
            return Tried(trial, record, "done", samples=len(predictions.label)), predictions
    except CorruptRecord as error:
        return Tried(trial, None, "damaged", f"damaged ({error})"), None
    if record is None:
        return Tried(trial, None, "not run"), None
    return Tried(trial, record, record.status, f"failed: {record.failure.message}" if record.failure else ""), None


def commit_of(record: Record) -> str:
    """The commit of the code that a trial ran, and whether it was changed."""
    return str(record.environment.get("commit", "unknown")) + ("+changes" if record.environment.get("dirty") else "")


def run_of(seed: int, parts: Sequence[tuple[Record, Predictions]]) -> Run:
    """What a seed came to, of the records and the predictions of all of its folds."""
    parts = sorted(parts, key=lambda part: part[0].trial.fold or 0)
    sizes = {split_name("test", record.trial.fold): len(p.label) for record, p in parts}
    return Run(seed, [record for record, _ in parts], join([p for _, p in parts]), sizes)


def gaps(rows: Iterable[Row]) -> list[str]:
    """What is missing and why, a line a trial."""
    lines = []
    for row in rows:
        training = f" {row.training}" if row.missing else ""
        lines += [" ".join(f"{row.dataset} {row.protocol}{training} {row.method} {gap}".split()) for gap in row.gaps]
    return lines
