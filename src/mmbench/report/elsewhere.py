"""Rows of predictions that other code made and ``mmbench add-predictions`` keeps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from mmbench.data.prepared import MADE_UP
from mmbench.elsewhere.entries import Elsewhere, Entry
from mmbench.experiment.plan import Experiment
from mmbench.metrics import summary
from mmbench.missing import pattern_name, patterns
from mmbench.record import Predictions, Record
from mmbench.report.rows import Row, Run, Tried, run_of
from mmbench.store import CorruptRecord
from mmbench.trial import Trial

MARK = " ‡"
"""What the label of a method ends with whose predictions were made elsewhere, in all tables and figures."""
TRACK = "made elsewhere"
NOTE = (
    "‡: made elsewhere: predictions of other code, of the same test samples, added by mmbench add-predictions. How they came about is "
    "not known here."
)


@dataclass(frozen=True)
class Made:
    """What was made elsewhere, of an experiment.

    Attributes:
        rows: one a data set, protocol and label, in the order of the experiment's data sets, and the runs of its whole seeds.
        trials: of each row, a trial of its data set and protocol that it stands beside.
        damaged: what cannot be read, a line each.
    """

    rows: list[tuple[Row, list[Run]]]
    trials: list[Trial]
    damaged: list[str]


def made_elsewhere(experiment: Experiment, elsewhere: Elsewhere) -> Made:
    """Read all that was added for the data sets and protocols of an experiment."""
    entries, damaged = elsewhere.entries()
    cells: dict[tuple[str, str], list[Trial]] = {}
    for trial in experiment.trials:
        cells.setdefault((experiment.labels_of(trial).dataset, trial.protocol), []).append(trial)
    rows, beside = [], []
    for (dataset, protocol), trials in cells.items():
        here = [entry for entry in entries if (entry.dataset, entry.protocol) == (trials[0].dataset, protocol)]
        for label in dict.fromkeys(entry.label for entry in here):
            own = [entry for entry in here if entry.label == label]
            rows.append(_row(dataset, own, trials, elsewhere))
            beside.append(trials[0])
    return Made(rows, beside, damaged)


def _row(
    dataset: str, entries: Sequence[Entry], trials: Sequence[Trial], elsewhere: Elsewhere
) -> tuple[Row, list[Run]]:
    """The row of one label, beside trials of its data set and protocol; entries are its seeds."""
    like = trials[0]
    folds = sorted({trial.fold for trial in trials if trial.fold is not None})
    row = Row(dataset, like.protocol, None, entries[0].label + MARK, like.dataset, len(folds), elsewhere=True)
    row.made_up = like.data.startswith(MADE_UP)
    cut: list[int | None] = [*folds] or [None]
    read: dict[int, list[tuple[Trial, Entry, Predictions]]] = {}
    for entry in entries:
        for fold in cut:
            trial = like.model_copy(
                update={"method": entry.label, "params": {}, "missing": None, "seed": entry.seed, "fold": fold}
            )
            predictions, reason = _read(entry, fold, trial, elsewhere)
            if predictions is not None:
                read.setdefault(entry.seed, []).append((trial, entry, predictions))
                continue
            where = "" if fold is None else f"fold {fold} "
            row.gaps.append(f"{where}seed {entry.seed}: {reason}")
            row.trials.append(Tried(trial, None, "not given", reason))
    every = [predictions for parts in read.values() for _, _, predictions in parts]
    names = [pattern_name(pattern) for pattern in patterns(tuple(like.encoders))]
    given = np.all([p.given for p in every], axis=0) if every else np.ones(len(names), bool)
    row.not_given = tuple(name for name, there in zip(names, given, strict=True) if not there)
    runs = []
    for seed, parts in read.items():
        told = [(_record(trial, entry, p), _blank(p, given)) for trial, entry, p in parts]
        row.trials += [Tried(r.trial, r, TRACK, samples=len(p.label)) for r, p in told]
        if len(told) == max(1, len(folds)):
            runs.append(run_of(seed, told))
    row.count(runs)
    return row, runs


def _read(entry: Entry, fold: int | None, trial: Trial, elsewhere: Elsewhere) -> tuple[Predictions | None, str]:
    """The predictions of a fold under the patterns of a trial's modalities; or why there are none."""
    if (part := entry.part(fold)) is None:
        return None, "no predictions were given"
    if entry.data != trial.data:
        return None, f"made for other data, of hash {entry.data[:12]}, than the trials', of {trial.data[:12]}"
    try:
        held = elsewhere.predictions(entry, part)
        if lacking := set(trial.encoders) - set(held.modalities.tolist()):
            return None, f"damaged (its predictions know nothing of {', '.join(sorted(lacking))})"
        return narrowed(held, tuple(trial.encoders)), ""
    except CorruptRecord as error:
        return None, f"damaged ({error})"


def narrowed(p: Predictions, modalities: tuple[str, ...]) -> Predictions:
    """The predictions as they are of a subset of the modalities: under the patterns that show no other."""
    if tuple(p.modalities.tolist()) == modalities:
        return p
    names, held = p.pattern_names, p.modalities.tolist()
    rows = [names.index(pattern_name(pattern)) for pattern in patterns(modalities)]
    columns = [held.index(modality) for modality in modalities]
    return replace(
        p,
        modalities=np.array(modalities),
        present=p.present[:, columns],
        predicted=p.predicted[rows],
        log_probs=p.log_probs[rows],
    )


def _blank(p: Predictions, given: np.ndarray) -> Predictions:
    """The predictions without those under patterns that other folds or seeds lack, so that all have the same."""
    if p.given.tolist() == given.tolist():
        return p
    log_probs, predicted = p.log_probs.copy(), p.predicted.copy()
    log_probs[~given], predicted[~given] = np.nan, -1
    return replace(p, log_probs=log_probs, predicted=predicted)


def _record(trial: Trial, entry: Entry, p: Predictions) -> Record:
    """What stands for a trial's record: its metrics."""
    part = entry.part(trial.fold)
    assert part is not None
    metrics = {
        name: summary(p.label, p.predicted[i], p.log_probs[i], p.attack)
        for i, name in enumerate(p.pattern_names)
        if p.given[i]
    }
    return Record(
        key=entry.key,
        trial=trial,
        status="done",
        started=part.added,
        finished=part.added,
        environment={},
        metrics=metrics,
    )


def is_elsewhere(method: str) -> bool:
    """Whether a label is that of a method whose predictions were made elsewhere."""
    return method.endswith(MARK)


def add_track(frame: pd.DataFrame) -> None:
    """Note in the track of a frame's lines that their method, or the one that it is compared with, was made elsewhere."""
    if not len(frame) or "method" not in frame:
        return
    made = frame.method.map(is_elsewhere)
    if "other" in frame:
        made |= frame.other.map(is_elsewhere)
    frame.loc[made, "track"] = [", ".join(filter(None, (track, TRACK))) for track in frame.track[made]]


def notes(rows: Iterable[Row]) -> list[str]:
    """What the readers of a table should know of its rows that were made elsewhere; nothing where there are none."""
    own = [row for row in rows if row.elsewhere]
    lacking: dict[tuple[str, ...], list[str]] = {}
    for row in own:
        if row.not_given:
            lacking.setdefault(row.not_given, []).append(row.method)
    reasons = [
        f"{', '.join(methods)}: no predictions were given under {', '.join(names)} (–)."
        for names, methods in lacking.items()
    ]
    return [NOTE, *reasons] if own else []
