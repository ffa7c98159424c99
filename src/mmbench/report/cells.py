"""What tables for readers are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mmbench.data import DATASETS
from mmbench.evidence.accuracy import MEAN
from mmbench.evidence.comparisons import Difference
from mmbench.missing import pattern_name, patterns
from mmbench.record import Record
from mmbench.report.rows import Row

DASH = "–"
ARTEFACT = "†"
ARTEFACT_NOTE = (
    f"{ARTEFACT}: an artefact of the modality's role in the method, where it only steers what is done with the others: alone, it has "
    "nothing to steer. Such a score is not ranked, and no sign of a modality that training left lazy."
)
BEST = "Bold: the best, and every method that is not separable from it."
STAR = "*"
PAPER_NOTE = "In brackets: the paper's number."
MOST_PATTERNS = 15
"""That one can read side by side: all of four modalities."""


@dataclass(frozen=True)
class Cell:
    """A table's cell: its text, and its rank in the column (1: best, or not separable from it; 0: neither)."""

    text: str
    rank: int = 0


@dataclass(frozen=True)
class Section:
    """A table with its title and the sentences that belong to it.

    Attributes:
        seconds: the wall time of training, a row; for the terminal alone, since it differs every time.
        caption: what its numbers are, for a paper, where the whole report is not beside it.
        words: its cells are words and not numbers, the last one sentences, which wrap.
        records: of the trials behind each row; for the page, which leads to them.
    """

    title: str
    notes: list[str]
    header: list[str]
    body: list[list[Cell]]
    seconds: Sequence[str] = ()
    words: bool = False
    caption: str = ""
    records: Sequence[Sequence[Record]] = ()


def columns(modalities: tuple[str, ...], shown: str = "single") -> dict[str, str]:
    """The columns of a table for readers: pattern -> heading; each modality alone, then all; or every pattern and their mean.

    Of more than ``MOST_PATTERNS``, "every" is each modality alone, all but each, and all.
    """
    every = [pattern_name(p) for p in patterns(modalities)]
    single = {m: m for m in modalities}
    if shown == "all" and len(every) > MOST_PATTERNS:
        without = {pattern_name(tuple(n for n in modalities if n != m)): f"without {m}" for m in modalities}
        return {**single, **without, every[-1]: "multi", MEAN: MEAN}
    if shown == "all":
        return {**{name: name for name in every[:-1]}, every[-1]: "multi", MEAN: MEAN}
    return {**single, every[-1]: "multi"}


def folds_of(dataset: str) -> int:
    """How many folds a data set has."""
    return DATASETS[dataset].folds if dataset in DATASETS else 1


def value_text(line: pd.Series, artefact: bool = False) -> str:
    """Mean and deviation, marked if it is an artefact, and the paper's number."""
    if np.isnan(line["mean"]):
        text = DASH
    else:
        text = f"{line['mean']:.1f}" + ("" if np.isnan(line["std"]) else f" ± {line['std']:.1f}")
        text += f" {ARTEFACT}" if artefact else ""
    return text if np.isnan(line["reported"]) else f"{text} ({line['reported']:.2f})"


def interval_text(line: pd.Series, name: str, form: str = ".1f") -> str:
    """A value with its interval, and the paper's number beside an area."""
    if np.isnan(line[name]):
        text = DASH
    else:
        text = f"{line[name]:{form}} [{line[f'{name}_low']:{form}}, {line[f'{name}_high']:{form}}]"
    return f"{text} ({line['reported']:.2f})" if name == "area" and not np.isnan(line["reported"]) else text


def difference_text(d: Difference, star: bool = False) -> str:
    """A difference with its interval, if it has one, and a star if it is to have one."""
    interval = "" if np.isnan(d.low) else f" [{d.low:+.1f}, {d.high:+.1f}]"
    return f"{d.mean:+.1f}{interval}" + f" {STAR}" * star


def marked(cell: Cell, before: str, after: str) -> str:
    """The cell's text, between the marks if it is among the best."""
    return f"{before}{cell.text}{after}" if cell.rank else cell.text


def run_notes(rows: Sequence[Row]) -> list[str]:
    """A note if seeds gave identical predictions."""
    alike = {r.method: f"{r.method} ({len(r.seeds)} seeds, n {r.runs})" for r in rows if r.runs < len(r.seeds)}
    if not alike:
        return []
    return [
        f"Seeds with identical predictions are one run: {', '.join(alike.values())}. A single run has no deviation, and its interval "
        "is over groups of test samples alone."
    ]


def paper_notes(rows: Sequence[Row], shown: bool) -> list[str]:
    """What the numbers in brackets are, and why there is none beside some methods.

    Args:
        rows: of the table.
        shown: whether it has any.
    """
    notes = [PAPER_NOTE] if shown else []
    methods: dict[tuple[str, ...], list[str]] = {}
    for row in rows:
        if row.unlike:
            methods.setdefault(row.unlike, []).append(row.method)
    for unlike, named in methods.items():
        notes.append(f"No paper's number beside {', '.join(dict.fromkeys(named))}: {'; '.join(unlike)}.")
    return notes
