"""Accuracy by training rate and test rate."""

from __future__ import annotations

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mmbench.report.collect import Results
from mmbench.report.figures.base import NO_MATHS, WIDTH, key, names, setting_of

BELOW: dict = {"color": "white", "mec": "0.2", "mew": 0.4, "marker": "v", "ms": 4.5, "ls": ""}


@matplotlib.rc_context(NO_MATHS)
def draw_surface(results: Results) -> Figure | None:
    """Accuracy by training rate (down) and test rate (across), a panel a method, one colour scale; None if nothing was run.

    Where a method is below the best single modality, its cell is marked; the scale begins at the most frequent class.
    """
    assert results.rates is not None
    every = results.rates.curves
    every = every[(every.evaluation == "robustness") & every["mean"].notna() & every.training_rate.notna()]
    cells = [
        (
            setting_of(g.iloc[0]),
            key[-1],
            *(g.pivot(index="training_rate", columns="rate", values=v) for v in ("mean", "gain")),
        )
        for key, g in every.groupby(["dataset", "protocol", "mask", "method"], sort=False)
    ]
    cells = [cell for cell in cells if len(cell[2]) > 1]
    if not cells:
        return None
    majorities = {results.tests[where].majority for where in zip(every.dataset, every.protocol, strict=True)}
    low = min(*majorities, *(float(np.nanmin(grid.to_numpy())) for _, _, grid, _ in cells))
    high = max(float(np.nanmax(grid.to_numpy())) for _, _, grid, _ in cells)
    columns = min(4, len(cells))
    rows = -(-len(cells) // columns)
    figure = Figure(figsize=(WIDTH, 1.75 * rows + 0.9), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    several = len({where for where, *_ in cells}) > 1 or any(every.track)
    for panel, (where, method, grid, gain) in zip(panels, cells, strict=False):
        image = panel.imshow(grid, vmin=low, vmax=high, cmap="cividis", aspect="auto", origin="lower")
        down, across = np.nonzero(gain.to_numpy() < 0)
        panel.plot(across, down, **BELOW)
        name = names([method])[0]
        panel.set_title(f"{where}\n{name}" if several else name, fontsize=8)
        panel.set_xticks(range(len(grid.columns)), [f"{r:g}" for r in grid.columns], fontsize=6)
        panel.set_yticks(range(len(grid)), [f"{r:g}" for r in grid.index], fontsize=6)
        panel.tick_params(length=0)
    for panel in panels[len(cells) :]:
        panel.set_visible(False)
    bar = figure.colorbar(image, ax=list(panels), shrink=0.6, aspect=30)
    bar.set_label("accuracy, %", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    for majority in majorities:
        bar.ax.axhline(majority, color="black", lw=2)
    handles = [Line2D([], [], color="black", lw=2, label="on the scale: the most frequent class")]
    if any((gain.to_numpy() < 0).any() for *_, gain in cells):
        handles.append(Line2D([], [], **BELOW, label="below the best single modality, trained alone"))
    key(figure, handles)
    figure.supxlabel("test missing rate", fontsize=9)
    figure.supylabel("training missing rate", fontsize=9)
    return figure
