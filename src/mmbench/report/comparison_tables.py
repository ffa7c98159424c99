"""What tables say of differences between methods: which are the best, how far each is from the reference, how many are told apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from mmbench.evidence.comparisons import Difference
from mmbench.report.cells import DASH, STAR, Cell, difference_text
from mmbench.report.collect import Results
from mmbench.report.comparing import against
from mmbench.report.rows import Row

CERTAIN = 0.95
"""Probability from which on two methods are called equivalent."""
LEVEL = 0.05
"""Adjusted p-values below it are starred."""
NAMED = 10
"""Pairs, and methods, that a sentence names."""
FEW = 50
"""Groups of test samples, of fewer of which percentile intervals are too narrow."""


@dataclass(frozen=True)
class Pair:
    """A comparison of two methods, as ``Results.comparisons`` has it."""

    difference: Difference
    equivalent: float
    p_holm: float
    n: int
    tested: bool

    def turned(self) -> Pair:
        """The second method compared with the first."""
        d = self.difference
        return Pair(
            Difference(0.0 - d.mean, 0.0 - d.high, 0.0 - d.low), self.equivalent, self.p_holm, self.n, self.tested
        )


class Pairs:
    """The comparisons of a data set and protocol, looked up in either order."""

    def __init__(self, results: Results, dataset: str, protocol: str) -> None:
        frame = results.comparisons
        frame = frame[(frame.dataset == dataset) & (frame.protocol == protocol)]
        self._found = {
            (line.training, line.pattern, line.method, line.other): Pair(
                Difference(line.difference, line.ci_low, line.ci_high), line.p_equivalent, line.p_holm, line.n, not line.artefact
            )
            for line in frame.itertuples()
        }  # fmt: skip

    def between(self, one: Row, other: Row, pattern: str) -> Pair | None:
        """The first method minus the second, trained alike; None where they cannot be compared."""
        if one.training != other.training:
            return None
        pair = self._found.get((one.training, pattern, one.method, other.method))
        turned = self._found.get((one.training, pattern, other.method, one.method))
        return turned.turned() if turned else pair

    def best(self, rows: Sequence[Row], means: Sequence[float], pattern: str) -> list[bool]:
        """Which methods of a column are the best among those trained alike, or not separable from it.

        Args:
            rows: of the table.
            means: their accuracies; NaN for one that is not ranked.
            pattern: of the column.
        """
        found = [False] * len(rows)
        for training in dict.fromkeys(row.training for row in rows):
            own = [i for i, row in enumerate(rows) if row.training == training and not np.isnan(means[i])]
            first = max(own, key=lambda i: means[i], default=None)
            for i in own:
                pair = None if first is None else self.between(rows[first], rows[i], pattern)
                found[i] = i == first or (pair is not None and pair.difference.inseparable)
        return found


def to_reference(pairs: Pairs, rows: Sequence[Row], reference: str, every: str) -> tuple[str, list[Cell], str] | None:
    """The column of differences to the reference: its head, a cell a row, and what it means; None where there is nothing in it.

    Args:
        pairs: the comparisons.
        rows: of the table.
        reference: label of the reference.
        every: the pattern with every modality.
    """  # fmt: skip
    cells = []
    for row in rows:
        label = against(row, reference)
        other = next((r for r in rows if r.method == label and r.training == row.training), None)
        pair = pairs.between(row, other, every) if other else None
        cells.append(Cell(difference_text(pair.difference, pair.p_holm < LEVEL) if pair else DASH))
    if all(cell.text == DASH for cell in cells):
        return None
    tuned = ", tuned where they are" if any(row.tuned for row in rows) else ""
    trained = "trained alike, " if len({row.training for row in rows}) > 1 else ""
    note = (
        f"− {reference}: accuracy with every modality minus that of {reference}{tuned}, {trained}on the same test samples and "
        f"seeds, in points, with 95 % intervals. {STAR}: p < {LEVEL:g}, adjusted (Holm) for the number of methods that are compared."
    )
    return f"− {reference}", cells, note


def told_apart(pairs: Pairs, rows: Sequence[Row], every: str) -> list[str]:
    """How many pairs of methods are separated with every modality, and which are equivalent for practical purposes."""
    counts, equivalent = [], []
    fewer: dict[str, int] = {}
    sets = dict.fromkeys((row.training, row.tuned) for row in rows)
    for training, tuned in sets:
        own = [row for row in rows if (row.training, row.tuned) == (training, tuned)]
        found = [(one, other, pairs.between(one, other, every)) for one, other in combinations(own, 2)]
        known = [(one, other, pair) for one, other, pair in found if pair is not None and pair.tested]
        if not known:
            continue
        where = [training] * (len({t for t, _ in sets}) > 1) + ["tuned" if tuned else "default"] * (
            len({t for _, t in sets}) > 1
        )
        separated = sum(pair.difference.separable for _, _, pair in known)
        single = separated == 1 or len(known) == 1
        counts.append(
            f"{separated} of {len(known)} pair{'s' * (len(known) > 1)} of methods{''.join(f' ({w})' for w in where)}"
        )
        equivalent += [f"{one.method} and {other.method}" for one, other, pair in known if pair.equivalent >= CERTAIN]
        for one, other, pair in known:
            if pair.n < min(one.runs, other.runs):
                fewer[f"{one.method} and {other.method}"] = pair.n
    if not counts:
        return []
    alike = f"Practically equivalent, at most one point apart with a probability of {CERTAIN:g} or more: {_named(equivalent)}."
    verb = "is" if single and len(counts) == 1 else "are"
    notes = [
        f"{'; '.join(counts)} {verb} separated with every modality: the paired 95 % interval of their difference leaves out zero. "
        + (
            alike
            if equivalent
            else f"None is practically equivalent (at most one point apart with a probability of {CERTAIN:g})."
        )
    ]
    if fewer:
        notes.append(
            f"Compared over the seeds that both have: {_named([f'{pair} ({n})' for pair, n in fewer.items()])}."
        )
    return notes


def few_groups(groups: int) -> list[str]:
    """That intervals are too narrow, where test samples are of few groups."""
    if groups >= FEW:
        return []
    if groups < 2:
        return ["All test samples are one group, so nothing can be said of others: differences have no interval."]
    return [
        f"Intervals are of {groups} groups alone: of so few they are too narrow, and cover less than 95 % (see results/README.md)."
    ]


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
