"""Whether a method is as often right as it is sure, by how much it is shown."""

from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mmbench.report.collect import Results
from mmbench.report.colours import Style, palette
from mmbench.report.figures.base import (
    LINES_A_PANEL,
    NO_MATHS,
    OTHERS,
    WIDTH,
    first_cells,
    heading,
    in_chunks,
    key,
    methods_of,
    names,
    sample,
    tidy,
)

RARE = 0.005
"""Share of the samples: bins with fewer say nothing, and are left out."""
MOST_COLUMNS = 4
"""Panels side by side; of more modalities, as many numbers of them are drawn, evenly spread."""


@matplotlib.rc_context(NO_MATHS)
def draw_reliability(results: Results) -> Figure | None:
    """Accuracy against confidence, a column a number of modalities shown, up to four methods a row; None without predictions."""
    bins = results.reliability[results.reliability.share >= RARE]
    blocks = []
    for dataset, rows in first_cells(results, elsewhere=True).items():
        first = rows[0]
        here = bins[(bins.dataset == dataset) & (bins.protocol == first.protocol) & (bins.training == first.training)]
        methods = list(dict.fromkeys(here.method))
        here = here[here.shown.isin(drawn_numbers(here.shown.unique()))]
        blocks += (
            [(heading(results, dataset, first.protocol, first.training), here, c) for c in in_chunks(methods)]
            if methods
            else []
        )
    if not blocks:
        return None
    columns = max(here.shown.nunique() for _, here, _ in blocks)
    figure = Figure(figsize=(min(WIDTH, 2.2 * columns + 2.2), 1.9 * len(blocks) + 0.8), layout="constrained")
    panels = figure.subplots(len(blocks), columns, squeeze=False, sharex=True, sharey=True)
    styles = palette(methods_of(results))
    for axes, (title, here, chunk) in zip(panels, blocks, strict=True):
        for i, (panel, (shown, values)) in enumerate(zip(axes, here.groupby("shown"), strict=False)):
            _panel(panel, values, chunk, styles)
            panel.set_xticks([0, 0.5, 1])
            panel.set_yticks([0, 0.5, 1])
            tidy(panel)
            panel.set_title(
                f"{title}\n" * (i == 0) + f"{shown} of {here.shown.max()} modalities shown", fontsize=7.5, loc="left"
            )
        for panel in axes[here.shown.nunique() :]:
            panel.set_visible(False)
        handles = [sample(names([m])[0], styles[m]) for m in chunk]
        axes[here.shown.nunique() - 1].legend(
            handles=handles, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=7
        )
    right = Line2D([], [], color="0.5", lw=0.8, ls=":", label="as often right as it is sure")
    size = Line2D([], [], color="0.3", ls="", marker="o", ms=4, label="larger: more of the samples")
    behind = any(len(dict.fromkeys(here.method)) > LINES_A_PANEL for _, here, _ in blocks)
    key(figure, [right, size, *[OTHERS] * behind])
    figure.supxlabel("confidence", fontsize=9)
    figure.supylabel("accuracy", fontsize=9)
    return figure


def drawn_numbers(shown: np.ndarray) -> np.ndarray:
    """Which numbers of modalities have a column: all, or some of them with the first and the last.

    >>> drawn_numbers(np.arange(1, 7)).tolist()
    [1, 3, 4, 6]
    """
    numbers = np.sort(shown)
    spread = np.linspace(0, len(numbers) - 1, min(len(numbers), MOST_COLUMNS)).round().astype(int)
    return numbers[spread]


def _panel(panel: Axes, values: pd.DataFrame, chunk: list[str], styles: dict[str, Style]) -> None:
    """The methods of the chunk, over all others in grey."""
    panel.plot([0, 1], [0, 1], color="0.5", lw=0.8, ls=":", zorder=1)
    for method, line in values.groupby("method", sort=False):
        style = styles[str(method)]
        if method not in chunk:
            panel.plot(line.confidence, line.accuracy, color="0.85", lw=0.8, zorder=1)
            continue
        panel.plot(line.confidence, line.accuracy, color=style.colour, ls=style.dash, lw=1.2, zorder=3)
        size = 45 * np.sqrt(line.share)
        panel.scatter(line.confidence, line.accuracy, size, color=style.colour, marker=style.marker, lw=0, zorder=4)
