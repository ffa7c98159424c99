"""What leaking splits and peeking at the test split add."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mmbench.evidence.accuracy import SplitFacts, same_run
from mmbench.evidence.comparisons import difference
from mmbench.report.rows import Row, Run

INFLATION = {"leakage": ("legacy", "peek"), "peeking": ("peek", "clean"), "inflation": ("legacy", "clean")}
"""What a habit adds: the accuracy under the first protocol minus that under the second."""
INFLATION_COLUMNS = ("dataset", "method", "pattern", "part", "mean", "ci_low", "ci_high", "n", "paired", "artefact")


def inflation_of(
    cells: Mapping[str, tuple[Row, list[Run]]], tests: Mapping[tuple[str, str], SplitFacts]
) -> list[tuple]:
    """What leaking and peeking add for one method: lines with the columns ``INFLATION_COLUMNS``, of the seeds that protocols share.

    None where all protocols gave the same predictions: they are then one under several names.
    """
    compared: dict[str, tuple[list[Run], list[Run]]] = {}
    for part, (more, less) in INFLATION.items():
        if more not in cells or less not in cells:
            continue
        (row, one), (other_row, other) = cells[more], cells[less]
        shared = [seed for seed in row.seeds if seed in other_row.seeds]
        if shared:
            compared[part] = [run for run in one if run.seed in shared], [run for run in other if run.seed in shared]
    if all(_same(*both) for both in compared.values()):
        return []
    lines = []
    for part, (one, other) in compared.items():
        more, less = INFLATION[part]
        row = cells[more][0]
        facts = [tests[row.dataset, protocol].samples for protocol in (more, less)]
        paired = facts[0] == facts[1]
        for number, pattern in enumerate(one[0].predictions.pattern_names):
            if row.lacks([pattern]) or cells[less][0].lacks([pattern]):
                continue
            d = difference([run.predictions for run in one], [run.predictions for run in other], number, paired)
            artefact = "role" if pattern in row.artefacts else ""
            where = row.dataset, row.method, pattern, part
            lines.append((*where, d.mean, d.low, d.high, len(one), paired, artefact))
    return lines


def _same(one: Sequence[Run], other: Sequence[Run]) -> bool:
    """Whether two protocols gave the same predictions for every seed."""
    return all(same_run(a.predictions, b.predictions) for a, b in zip(one, other, strict=True))
