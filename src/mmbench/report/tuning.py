"""What tuning came to: the draws, what of them was chosen, and what so many draws may be expected to give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mmbench.evidence.comparisons import Difference
from mmbench.evidence.tuning import expected_best
from mmbench.experiment.space import in_short
from mmbench.missing import training_name
from mmbench.record import Record
from mmbench.tuning import Choice, has_diverged

CELL = ("dataset", "protocol", "training", "method")
DRAW_COLUMNS = (*CELL, "fold", "draw", "settings", "score", "epochs", "chosen", "note")
EXPECTED_COLUMNS = (*CELL, "draws", "score")
GAIN_COLUMNS = (*CELL, "mean", "ci_low", "ci_high")

Cell = tuple[str, str, str, str]
"""Data set, protocol, way of training and method, by their labels; the method's is that of its default setting."""


@dataclass
class Tuning:
    """What tuning came to.

    Attributes:
        choices: one a data set, protocol, way of training, method and fold.
        draws: a line a draw, with the columns ``DRAW_COLUMNS``: the score in percent of the validation part, NaN where there is none;
            epochs is how many were trained for it; the note says what became of a draw that is no choice.
        expected: the best score that may be expected of so many draws, mean over the folds, with the columns ``EXPECTED_COLUMNS``.
        gains: accuracy with every modality of the chosen settings minus that of the default, with the columns ``GAIN_COLUMNS``.

    All of them have a track beside, as ``Results.table``.
    """

    choices: list[Choice]
    draws: pd.DataFrame
    expected: pd.DataFrame
    gains: pd.DataFrame

    @property
    def frames(self) -> tuple[pd.DataFrame, ...]:
        """The tables."""
        return self.draws, self.expected, self.gains

    @property
    def records(self) -> list[Record]:
        """Those of the trials that tuned."""
        return [record for choice in self.choices for record in choice.records if isinstance(record, Record)]


def cell_of(choice: Choice) -> Cell:
    """Where a choice belongs."""
    like = choice.search.like
    return choice.search.dataset, like.protocol, training_name(like.missing), choice.search.method


def collect_tuning(choices: Sequence[Choice], gains: Mapping[Cell, Difference]) -> Tuning | None:
    """The tables of tuning; None where nothing is tuned.

    Args:
        choices: of all searches.
        gains: the differences of those cells of which both settings are done.
    """
    if not choices:
        return None
    draws = pd.DataFrame([line for choice in choices for line in _draws(choice)], columns=list(DRAW_COLUMNS))
    by_cell: dict[Cell, list[np.ndarray]] = {}
    for choice in choices:
        if all(record is not None for record in choice.records):
            by_cell.setdefault(cell_of(choice), []).append(expected_best(choice.scores))
    expected = [
        (*cell, number + 1, score)
        for cell, folds in by_cell.items()
        for number, score in enumerate(np.mean(folds, axis=0))
    ]
    lines = [(*cell, gain.mean, gain.low, gain.high) for cell, gain in gains.items()]
    return Tuning(
        list(choices),
        draws,
        pd.DataFrame(expected, columns=list(EXPECTED_COLUMNS)),
        pd.DataFrame(lines, columns=list(GAIN_COLUMNS)),
    )


def _draws(choice: Choice) -> list[tuple]:
    """A line a draw, with the columns ``DRAW_COLUMNS``."""
    lines = []
    fold = choice.search.like.fold
    for number, (record, score) in enumerate(zip(choice.records, choice.scores, strict=True)):
        note = "not run" if record is None else "diverged" if has_diverged(record) else ""
        note = "diverged when tested" if number in choice.passed_over else note
        epochs = 0 if record is None else record.epochs
        where = (*cell_of(choice), "" if fold is None else fold, number)
        lines.append((*where, settings_of(choice, number) or "default", score, epochs, number == choice.chosen, note))
    return lines


def settings_of(choice: Choice, number: int) -> str:
    """What a draw changes, in words; nothing for the default."""
    return in_short(choice.search.draws[number].drawn)
