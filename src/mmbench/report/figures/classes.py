"""What is taken for what, and how often each class is found."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmbench.data import DATASETS
from mmbench.report.collect import Results, Row
from mmbench.report.figures.base import NO_MATHS, first_cells, heading, names, write_cell

NUMBERS_UP_TO = 12
"""Classes: of more, a cell is too small for a number, and only some are named."""

NUMBERS_FROM = 9.5
"""Percent: smaller cells have no number, so that the eye finds the others."""

PANELS_UP_TO = 12


def _counts(results: Results, dataset: str) -> tuple[list[Row], list[np.ndarray]]:
    """The rows of a data set's first cell of which there are confusions, and these."""
    rows = first_cells(results, elsewhere=True).get(dataset, [])
    every = [(row, results.confusions.get((row.dataset, row.protocol, row.training, row.method))) for row in rows]
    found = [(row, counts) for row, counts in every if counts is not None]
    return [row for row, _ in found], [counts for _, counts in found]


def shares(counts: np.ndarray) -> np.ndarray:
    """Percent of each true class (rows): (C, C), NaN where the test split has none of a class."""
    totals = counts.sum(axis=1, keepdims=True)
    return np.where(totals > 0, 100 * counts / np.maximum(totals, 1), np.nan)


def _classes(row: Row, number: int) -> list[str]:
    """Names of the classes, or their numbers where the data set has no such names."""
    known = DATASETS[row.data].classes if row.data in DATASETS else ()
    return names(known) if len(known) == number else [str(i) for i in range(number)]


def _some(labels: Sequence[str]) -> tuple[list[int], list[str]]:
    """Places and names of so many classes as there is room for."""
    step = -(-len(labels) // NUMBERS_UP_TO)
    return list(range(0, len(labels), step)), list(labels[::step])


@matplotlib.rc_context(NO_MATHS)
def draw_confusion(results: Results, dataset: str) -> Figure | None:
    """Which class (row) is taken for which (column) with every modality, a panel a method up to twelve; None without predictions."""
    rows, counts = _counts(results, dataset)
    if not rows:
        return None
    shown = list(zip(rows, counts, strict=True))[:PANELS_UP_TO]
    columns = min(4, len(shown))
    lines = -(-len(shown) // columns)
    figure = Figure(figsize=(max(2.3 * columns + 1.0, 4.5), 2.2 * lines + 1.5), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False)
    for panel, (row, counted) in zip(panels.flat, shown, strict=False):
        panel.set_title(names([row.method])[0], fontsize=8)
        _matrix(panel, shares(counted))
    for panel in panels.flat[len(shown) :]:
        panel.set_visible(False)
    places, labels = _some(_classes(rows[0], len(counts[0])))
    for number, panel in enumerate(panels.flat):
        leftmost, lowest = number % columns == 0, number + columns >= len(shown)
        panel.set_yticks(*((places, labels) if leftmost else ([], [])), fontsize=6.5)
        panel.set_xticks(*((places, labels) if lowest else ([], [])), fontsize=6.5, rotation=90)
    rest = len(rows) - len(shown)
    more = f"; {rest} more method{'s' * (rest > 1)} not shown" if rest else ""
    figure.suptitle(f"{heading(results, dataset, rows[0].protocol, rows[0].training)}{more}", fontsize=8.5)
    numbers = "; numbers from 10 on" if len(counts[0]) <= NUMBERS_UP_TO else ""
    figure.supxlabel(f"predicted class, % of the true class{numbers}", fontsize=9)
    figure.supylabel("true class", fontsize=9)
    return figure


def _matrix(panel: Axes, percent: np.ndarray) -> None:
    size = len(percent)
    panel.imshow(percent, cmap="Greys", vmin=0, vmax=100, interpolation="nearest", aspect="auto")
    panel.tick_params(length=0)
    panel.spines[:].set_color("0.7")
    if size <= NUMBERS_UP_TO:
        for i, j in zip(*np.nonzero(percent >= NUMBERS_FROM), strict=True):
            ink = "white" if percent[i, j] > 55 else "black"
            write_cell(panel, i, j, f"{percent[i, j]:.0f}", ink, 5.5)


@matplotlib.rc_context(NO_MATHS)
def draw_recall(results: Results) -> Figure | None:
    """The share of each class that each method finds with every modality, a panel a data set; None without predictions."""
    cells = {d: found for d in results.modalities if (found := _counts(results, d))[0]}
    if not cells:
        return None
    heights = [0.2 * len(rows) + 1.5 for rows, _ in cells.values()]
    widest = max(min(len(counts[0]), 60) for _, counts in cells.values())
    figure = Figure(
        figsize=(max(0.36 * widest + 2.2, 5.0) if widest <= 24 else 9.0, sum(heights) + 0.3), layout="constrained"
    )
    panels = figure.subplots(len(cells), 1, squeeze=False, height_ratios=heights)[:, 0]
    for panel, (dataset, (rows, counts)) in zip(panels, cells.items(), strict=True):
        recall = np.array([np.diag(shares(counted)) for counted in counts])
        image = panel.imshow(recall, cmap="cividis", vmin=0, vmax=100, interpolation="nearest", aspect="auto")
        size = recall.shape[1]
        totals = counts[0].sum(axis=1) / counts[0].sum()
        labels = [f"{name} ({100 * share:.0f} %)" for name, share in zip(_classes(rows[0], size), totals, strict=True)]
        places, labels = (list(range(size)), labels) if size <= 24 else _some(labels)
        panel.set_xticks(places, labels, fontsize=6.5, rotation=90)
        panel.set_yticks(range(len(rows)), names([row.method for row in rows]), fontsize=7)
        panel.tick_params(length=0)
        panel.set_title(heading(results, dataset, rows[0].protocol, rows[0].training), fontsize=8, loc="left")
        for i, j in zip(*np.nonzero(np.isfinite(recall)), strict=True) if size <= 24 else ():
            ink = "black" if recall[i, j] > 55 else "white"
            write_cell(panel, i, j, f"{recall[i, j]:.0f}", ink, 6.5)
    bar = figure.colorbar(image, ax=list(panels), shrink=0.8, aspect=25)
    bar.set_label("recall, %", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    figure.supxlabel("class (its share of the test split)", fontsize=9)
    return figure
