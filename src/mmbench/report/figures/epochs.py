"""Training by epoch: losses and accuracy of the methods, and how hard each encoder is pulled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, NullLocator

from mmbench.protocol import SELECTION_METRIC
from mmbench.record import Record
from mmbench.report.collect import Results, Row
from mmbench.report.colours import Style, palette
from mmbench.report.escape import one_line
from mmbench.report.figures.base import (
    LINES_A_PANEL,
    NO_MATHS,
    OTHERS,
    WIDTH,
    End,
    first_cells,
    heading,
    in_chunks,
    key,
    methods_of,
    name_ends,
    names,
    plain_ticks,
    short,
    tidy,
)
from mmbench.report.lean import column

LOSS = "train/loss"
QUANTITIES = {
    LOSS: "training loss",
    "validation/loss": "validation loss",
    SELECTION_METRIC: "validation accuracy, %",
}
Curves = dict[str, tuple[np.ndarray, np.ndarray]]
"""Method -> mean and standard deviation by epoch."""

SPREAD = Patch(color="0.5", alpha=0.3, lw=0, label="± 1 standard deviation over seeds and folds")
STEEP = 20.0
"""Training losses of which some are further apart than by this factor are drawn on a logarithmic axis."""

BEFORE_FIRST = 0.5
"""Where the axis of epochs begins: there is no epoch 0."""


def numbered(values: np.ndarray) -> np.ndarray:
    """The epochs' numbers, from 1."""
    return np.arange(1, len(values) + 1)


def by_epoch(records: Sequence[Record], name: str) -> np.ndarray | None:
    """What the records' curves have of a quantity: (trials, epochs), NaN after the end of one; None if none has it."""
    curves = [column(record, name) for record in records]
    longest = max(map(len, curves), default=0)
    values = np.array([curve + [np.nan] * (longest - len(curve)) for curve in curves])
    return values if longest and np.isfinite(values).any() else None


def mean_and_spread(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean over the trials (rows) that got so far, and their standard deviation, zero of a single one; infinities are left out."""
    values = np.where(np.isfinite(values), values, np.nan)
    counts = np.isfinite(values).sum(axis=0)
    mean = np.where(counts > 0, np.nansum(values, axis=0) / np.maximum(counts, 1), np.nan)
    squares = np.nansum((values - mean) ** 2, axis=0)
    return mean, np.sqrt(squares / np.maximum(counts - 1, 1))


def _curves(rows: Sequence[Row]) -> dict[str, Curves]:
    """Of each quantity that any record has, the curves of the methods that have it; accuracy in percent."""
    found: dict[str, Curves] = {}
    for quantity in QUANTITIES:
        for row in rows:
            if (values := by_epoch(row.records, quantity)) is not None:
                scale = 100 if quantity == SELECTION_METRIC else 1
                found.setdefault(quantity, {})[row.method] = mean_and_spread(scale * values)
    return found


@matplotlib.rc_context(NO_MATHS)
def draw_epochs(results: Results) -> Figure | None:
    """Losses and validation accuracy by epoch, a column a quantity, up to four methods a row; None if no record has curves."""
    cells = {dataset: (rows, _curves(rows)) for dataset, rows in first_cells(results).items()}
    cells = {dataset: (rows, found) for dataset, (rows, found) in cells.items() if found}
    if not cells:
        return None
    quantities = [q for q in QUANTITIES if any(q in found for _, found in cells.values())]
    blocks = [(d, chunk) for d, (_, found) in cells.items() for chunk in in_chunks(_methods(found))]
    figure = Figure(figsize=(WIDTH + 0.5, 1.75 * len(blocks) + 0.7), layout="constrained")
    sharey: Any = "col" if len(cells) == 1 else False
    panels = figure.subplots(len(blocks), len(quantities), squeeze=False, sharex=True, sharey=sharey)
    styles = palette(methods_of(results))
    ends: dict[Axes, list[End]] = {}
    for axes, (dataset, chunk) in zip(panels, blocks, strict=True):
        rows, found = cells[dataset]
        for panel, quantity in zip(axes, quantities, strict=True):
            ends[axes[-1]] = _panel(
                panel, found.get(quantity, {}), [row for row in rows if row.method in chunk], styles
            )
            if quantity == LOSS:
                _scale(panel, list(found.get(quantity, {}).values()))
            panel.xaxis.set_major_locator(MaxNLocator(3, integer=True))
            tidy(panel)
        axes[0].set_ylabel(heading(results, dataset, rows[0].protocol, rows[0].training), fontsize=7.5)
    for panel, quantity in zip(panels[0], quantities, strict=True):
        panel.set_title(QUANTITIES[quantity], fontsize=8.5)
    panels[0, 0].set_xlim(left=BEFORE_FIRST)
    for panel, labels in ends.items():  # now that the limits, which rows may share, are known
        name_ends(panel, labels, *panel.get_ylim(), share=0.11)
    chosen = Line2D([], [], color="0.3", ls="", marker="o", ms=5, label="chosen epoch (median)")
    several = any(len(row.records) > 1 for rows, _ in cells.values() for row in rows)
    behind = any(len(_methods(found)) > LINES_A_PANEL for _, found in cells.values())
    key(figure, [chosen, *[SPREAD] * several, *[OTHERS] * behind])
    figure.supxlabel("epoch", fontsize=9)
    return figure


def _methods(found: dict[str, Curves]) -> list[str]:
    """The methods that have any curve."""
    return list(dict.fromkeys(method for curves in found.values() for method in curves))


def _panel(panel: Axes, curves: Curves, rows: Sequence[Row], styles: dict[str, Style]) -> list[End]:
    """The curves of some rows, over those of all others in grey; where their names belong."""
    own = {row.method: row for row in rows}
    for method, (mean, _) in curves.items():
        if method not in own:
            panel.plot(numbered(mean), mean, color="0.85", lw=0.8, zorder=1)
    ends: list[End] = []
    for method, row in own.items():
        if method not in curves:
            continue
        (mean, spread), style = curves[method], styles[method]
        if spread.any():
            panel.fill_between(numbered(mean), mean - spread, mean + spread, color=style.colour, alpha=0.12, lw=0)
        panel.plot(numbered(mean), mean, color=style.colour, ls=style.dash, lw=1.2, zorder=3)
        epochs = [record.best_epoch for record in row.records if record.best_epoch is not None]
        if epochs and (chosen := int(np.median(epochs))) < len(mean):
            panel.plot(
                [chosen + 1], [mean[chosen]], color=style.colour, marker=style.marker, ms=5, mec="white", mew=0.6,
                zorder=4,
            )  # fmt: skip
        last = int(np.flatnonzero(np.isfinite(mean))[-1])
        ends.append((last + 1.0, float(mean[last]), names([method])[0], style.ink))
    return ends


def _scale(panel: Axes, curves: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
    """A logarithmic axis where losses fall far, or those of some methods are sums of many."""
    heights = np.concatenate([mean for mean, _ in curves]) if curves else np.ones(1)
    low, high = np.nanmin(heights), np.nanmax(heights)
    if low > 0 and high > STEEP * low:
        panel.set_yscale("log")
        plain_ticks(panel.yaxis, logarithmic=True)
    elif low <= 0 and high - low > STEEP:  # some losses are correlations, and fall below zero
        panel.set_yscale("symlog", linthresh=1.0)
        panel.yaxis.set_major_formatter(lambda value, _: short(value))
        panel.yaxis.set_minor_locator(NullLocator())


@matplotlib.rc_context(NO_MATHS)
def draw_gradients(results: Results) -> Figure | None:
    """The log norm of each encoder's gradient by epoch, before and after the method changes it; None if no record has any."""
    cells = [(d, row, found) for d, rows in first_cells(results).items() for row in rows if (found := _gradients(row))]
    if not cells:
        return None
    columns = min(4, len(cells))
    lines = -(-len(cells) // columns)
    figure = Figure(figsize=(WIDTH, 1.5 * lines + 0.8), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True).ravel()
    modalities = list(dict.fromkeys(m for d, _, _ in cells for m in results.modalities[d]))
    styles = palette(modalities)
    several = len({d for d, _, _ in cells}) > 1
    for panel, (dataset, row, found) in zip(panels, cells, strict=False):
        for (modality, after), (mean, _) in found.items():
            style, often = styles[modality], max(1, len(mean) // 5)
            if after:
                panel.plot(numbered(mean), mean, color=style.colour, ls="--", lw=0.9)
            else:
                panel.plot(numbered(mean), mean, color=style.colour, lw=1.3, marker=style.marker, ms=3, markevery=often)
        tidy(panel)
        panel.xaxis.set_major_locator(MaxNLocator(3, integer=True))
        where = f"{heading(results, dataset, row.protocol, row.training)}\n" if several else ""
        panel.yaxis.set_major_locator(MaxNLocator(4))
        panel.set_title(f"{where}{names([row.method])[0]}", fontsize=8)
    for panel in panels[len(cells) :]:
        panel.set_visible(False)
    panels[0].set_xlim(left=BEFORE_FIRST)
    changed = any(after for _, _, found in cells for _, after in found)
    dashed = Line2D([], [], color="0.3", ls="--", lw=0.9, label="after the method modulated it")
    marks = [Line2D([], [], color=s.colour, marker=s.marker, ms=4, label=one_line(m)) for m, s in styles.items()]
    key(figure, [*marks, *[dashed] * changed])
    figure.supxlabel("epoch", fontsize=9)
    figure.supylabel("log of the gradient's norm", fontsize=9)
    return figure


def _gradients(row: Row) -> dict[tuple[str, bool], tuple[np.ndarray, np.ndarray]]:
    """(modality, whether modulated) -> mean and spread by epoch; modulated ones only where they differ."""
    found = {}
    modalities = list(row.records[0].trial.encoders)
    for modality in modalities:
        before = by_epoch(row.records, f"gradient/{modality}")
        after = by_epoch(row.records, f"gradient/{modality}/modulated")
        if before is not None:
            found[modality, False] = mean_and_spread(before)
        if after is not None and (before is None or not np.allclose(before, after, equal_nan=True)):
            found[modality, True] = mean_and_spread(after)
    return found
