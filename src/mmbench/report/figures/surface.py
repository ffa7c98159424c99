"""Accuracy by training rate and test rate."""

from __future__ import annotations

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from mmbench.report.figures.base import NO_MATHS, WIDTH, setting_of
from mmbench.report.rates import Rates


@matplotlib.rc_context(NO_MATHS)
def draw_surface(rates: Rates) -> Figure | None:
    """Accuracy by training rate (down) and test rate (across), a panel a method, one colour scale; None if nothing was run."""
    every = rates.curves[(rates.curves.evaluation == "robustness") & rates.curves["mean"].notna()]
    every = every[every.training_rate.notna()]
    cells = [
        ((setting_of(g.iloc[0]), key[-1]), g.pivot(index="training_rate", columns="rate", values="mean").sort_index())
        for key, g in every.groupby(["dataset", "protocol", "mask", "method"], sort=False)
    ]
    cells = [(key, grid) for key, grid in cells if len(grid) > 1]
    if not cells:
        return None
    low = min(np.nanmin(grid.to_numpy()) for _, grid in cells)
    high = max(np.nanmax(grid.to_numpy()) for _, grid in cells)
    columns = min(4, len(cells))
    rows = -(-len(cells) // columns)
    figure = Figure(figsize=(WIDTH, 1.75 * rows + 0.7), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    several = len({where for (where, _), _ in cells}) > 1 or any(every.track)
    for panel, ((where, method), grid) in zip(panels, cells, strict=False):
        image = panel.imshow(grid, vmin=low, vmax=high, cmap="cividis", aspect="auto", origin="lower")
        panel.set_title(f"{where}\n{method}" if several else method, fontsize=8)
        panel.set_xticks(range(len(grid.columns)), [f"{r:g}" for r in grid.columns], fontsize=6)
        panel.set_yticks(range(len(grid)), [f"{r:g}" for r in grid.index], fontsize=6)
        panel.tick_params(length=0)
    for panel in panels[len(cells) :]:
        panel.set_visible(False)
    bar = figure.colorbar(image, ax=list(panels), shrink=0.6, aspect=30)
    bar.set_label("accuracy, %", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    figure.supxlabel("test missing rate", fontsize=9)
    figure.supylabel("training missing rate", fontsize=9)
    return figure
