"""Every two methods of a report compared on the same test samples and seeds."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd

from mmbench.evidence.accuracy import MEAN
from mmbench.evidence.comparisons import Hits, compare_all, holm
from mmbench.experiment.space import TUNED
from mmbench.report.cells import columns
from mmbench.report.rows import Row, Run

CELL = ("dataset", "protocol", "training")
VALUES = ("difference", "ci_low", "ci_high", "p_better", "p_equivalent", "p")
TRAINED_ALONE = ("unimodal", "late_fusion")
COMPARISON_COLUMNS = (*CELL, "pattern", "method", "other", *VALUES, "p_holm", "n", "artefact")


def hits_of_runs(runs: Sequence[Run]) -> Hits | None:
    """What a comparison needs of a row's runs; None where there are none."""
    return Hits.of([run.seed for run in runs], [run.predictions for run in runs]) if runs else None


def compare_rows(rows: Sequence[Row], hits: Sequence[Hits | None], reference: str) -> pd.DataFrame:
    """Every two rows of a data set, protocol and way of training, with the columns ``COMPARISON_COLUMNS``.

    Args:
        rows: in the order of the tables.
        hits: of each.
        reference: label of the method that the others are compared with.
    """
    cells: dict[tuple[str, ...], list[int]] = {}
    for number, row in enumerate(rows):
        cells.setdefault((row.dataset, row.protocol, row.training), []).append(number)
    frames = [_compare(cell, [rows[i] for i in own], [hits[i] for i in own], reference) for cell, own in cells.items()]
    frames = [frame for frame in frames if len(frame)]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=list(COMPARISON_COLUMNS))


def _compare(cell: tuple[str, ...], rows: Sequence[Row], hits: Sequence[Hits | None], reference: str) -> pd.DataFrame:
    """The lines of one data set, protocol and way of training, one pattern after the other; of many, those that tables show."""
    names = [*next((h.patterns for h in hits if h is not None), []), MEAN]
    found = compare_all(hits)
    methods, count = np.array([row.method for row in rows], object), len(names)
    first, second = found.pairs.T
    frame = pd.DataFrame(dict(zip(CELL, cell, strict=True)), index=range(len(first) * count))
    frame["pattern"] = np.repeat(np.array(names, object), len(first))
    frame["method"], frame["other"] = np.tile(methods[first], count), np.tile(methods[second], count)
    values = (found.difference, found.low, found.high, found.better, found.equivalent, found.p)
    frame[list(VALUES)] = np.stack([value.T.ravel() for value in values], axis=1)
    others = [against(row, reference) for row in rows]
    to_reference = [others[i] == methods[j] or others[j] == methods[i] for i, j in found.pairs]
    artefact = np.array([[name in row.artefacts for row in rows] for name in names], bool)
    role = artefact[:, first] | artefact[:, second]  # (P + 1, Q)
    tests = np.where(np.array(to_reference, bool) & ~role, found.p.T, np.nan)
    frame["p_holm"] = np.concatenate([holm(p) for p in tests])
    frame["n"], frame["artefact"] = np.tile(found.n, count), np.where(role.ravel(), "role", "")
    shown = columns(tuple(names[-2].split("+")), "all") if len(names) > 1 else names
    return frame[frame.difference.notna() & frame.pattern.isin(shown)]


def trained_alone(row: Row, methods: Collection[str]) -> str | None:
    """Of a table's methods, the one whose modalities were trained alone: the control ``unimodal``, else late fusion.

    It is the tuned one where the row is tuned. None for that one itself, or where there is none.
    """
    labels = [name + TUNED if row.tuned else name for name in TRAINED_ALONE]
    label = next((label for label in labels if label in methods), None)
    return None if row.method == label else label


def against(row: Row, reference: str) -> str | None:
    """What a row is compared with: the reference, tuned where the row is, so that budgets are equal; the reference itself with none."""
    label = reference + TUNED if row.tuned else reference
    return None if row.method == label else label
