"""What the tuning trials in a store come to: the setting that is chosen for each fold, and what is still to be run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeGuard

from mmbench.evidence.tuning import ranking, score
from mmbench.experiment.searches import Search
from mmbench.index import Index, Summary
from mmbench.record import Record
from mmbench.store import CorruptRecord, Store
from mmbench.trial import Trial

NAN = float("nan")
Outcome = Record | Summary
"""What came of a trial: its record, or what an index knows of that."""


@dataclass
class Choice:
    """What a search has come to.

    Attributes:
        search: of one method, in one fold.
        records: of its tuning trials, a draw; None where there is none, or none that says what the draw is worth.
        scores: of the draws, in percent of the validation part; NaN where there is none.
        chosen: the draw that is tested; None where that is not known yet, or no draw is left.
        passed_over: draws that were better, but diverged when they were tested.
        gap: why nothing is chosen; empty where something is.
    """

    search: Search
    records: list[Outcome | None]
    scores: list[float]
    chosen: int | None = None
    passed_over: list[int] = field(default_factory=list)
    gap: str = ""

    @property
    def finals(self) -> list[Trial]:
        """The trials that test what was chosen."""
        return [] if self.chosen is None else self.search.finals(self.chosen)


def choose(search: Search, store: Store | Index, holds: Callable[[Outcome], bool] = lambda outcome: True) -> Choice:
    """The best of a search's draws, by the store: of those that no seed is known to diverge with.

    A draw that diverged while it was tuned has no score. Nothing is chosen while a draw has not been run, or has failed in another way:
    what a machine lacked is no property of a setting.

    Args:
        search: whose draws.
        store: the results; with an index, records are not read for it.
        holds: whether it still counts that a trial diverged.
    """
    found = [_record(store, draw.trial) for draw in search.draws]
    records = [record if is_outcome(record) else None for record in found]
    choice = Choice(search, records, [NAN if record is None else score_of(record) for record in records])
    if None in records:
        number = records.index(None)
        failed = found[number]
        what = f"draw {number} failed: {failed.failure.message}" if failed and failed.failure else ""
        choice.gap = f"not chosen: {what or f'{records.count(None)} of {len(records)} draws not run'}"
        return choice
    for draw in ranking(choice.scores, [draw.trial.recipe.lr for draw in search.draws]):
        tests = (_record(store, trial) for trial in search.finals(draw))
        if any(has_diverged(record) and holds(record) for record in tests):
            choice.passed_over.append(draw)
        else:
            choice.chosen = draw
            return choice
    choice.gap = f"not chosen: all {len(records)} draws diverged"
    return choice


def score_of(record: Outcome) -> float:
    """What a tuning trial's draw is worth; NaN for one that diverged."""
    if record.status != "done":
        return NAN
    return score(record.validation)


def has_diverged(record: Outcome | None) -> TypeGuard[Outcome]:
    """Whether a trial left the numbers that can be computed with, which it would do again."""
    return record is not None and record.failure is not None and record.failure.kind == "diverged"


def is_outcome(record: Outcome | None) -> bool:
    """Whether a record says what a draw is worth: it is done, or it has diverged."""
    return record is not None and (record.status == "done" or has_diverged(record))


def distinct(trials: Iterable[Trial], known: Collection[str] = ()) -> list[Trial]:
    """The trials, each once, without those that are known by their keys: draws may come to the same setting."""
    seen, kept = set(known), []
    for trial in trials:
        if trial.key not in seen:
            seen.add(trial.key)
            kept.append(trial)
    return kept


def tuning_trials(searches: Sequence[Search]) -> list[Trial]:
    """All trials that tune, draw by draw, so that a search that is cut off has tried some of everything."""
    rounds = max((len(search.draws) for search in searches), default=0)
    return distinct(s.draws[number].trial for number in range(rounds) for s in searches if number < len(s.draws))


def _record(store: Store | Index, trial: Trial) -> Outcome | None:
    """What came of a trial; a damaged record is none, and is told of where trials are run."""
    try:
        return store.look(trial.key) if isinstance(store, Index) else store.record(trial.key)
    except CorruptRecord:
        return None
