"""Where the features of the modalities lie: the modality gap, in a plane."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mmbench.record import Features
from mmbench.report.collect import Results
from mmbench.report.colours import Style, palette
from mmbench.report.escape import one_line
from mmbench.report.figures.base import NO_MATHS, WIDTH

ACROSS = 2
"""Panels side by side."""


@matplotlib.rc_context(NO_MATHS)
def draw_gap(results: Results) -> Figure | None:
    """Features of up to 500 test samples, a panel a row, a colour and a marker a modality; None where none are kept.

    The points are those of a row's first trial, in a plane of its own. The gap in the title is the mean over all trials of the row.
    """
    if not results.points:
        return None
    down = -(-len(results.points) // ACROSS)
    figure = Figure(figsize=(WIDTH, 3.2 * down + 0.4), layout="constrained")
    panels = figure.subplots(down, ACROSS, squeeze=False).ravel()
    styles = palette([m for features in results.points.values() for m in features.modalities.tolist()])
    gaps = results.diagnostics[results.diagnostics.diagnostic == "modality_gap"]
    for panel, (key, features) in zip(panels, results.points.items(), strict=False):
        dataset, protocol, training, method = key
        of_row = [g for g in gaps.itertuples() if (g.dataset, g.protocol, g.training, g.method) == key]
        where = ", ".join([dataset + results.mark(dataset), protocol, *[training] * (training != "complete")])
        titles = [f"{where}: {method}", f"gap {', '.join(f'{g.of} {g.value:.2f}' for g in of_row)}"]
        panel.set_title("\n".join(map(one_line, titles)), fontsize=7.5, loc="left")
        _scatter(panel, features, styles)
    for panel in panels[len(results.points) :]:
        panel.set_visible(False)
    handles = [
        Line2D([], [], color=s.colour, marker=s.marker, ls="", ms=5, label=one_line(m)) for m, s in styles.items()
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), frameon=False, fontsize=8)
    return figure


def _scatter(panel: Axes, features: Features, styles: dict[str, Style]) -> None:
    """The modalities' points, and their means, joined."""
    seen = [points[~np.isnan(points).any(axis=1)] for points in features.points]
    means = [points.mean(axis=0) for points in seen if len(points)]
    panel.plot(*np.transpose([*means, means[0]]), color="0.2", lw=0.9, zorder=3)
    for modality, points in zip(features.modalities.tolist(), seen, strict=True):
        look: Any = {"color": styles[modality].colour, "marker": styles[modality].marker}
        # As a picture: thousands of marks would make a large file.
        panel.scatter(points[:, 0], points[:, 1], 7, **look, alpha=0.5, lw=0, zorder=2, rasterized=True)
        if len(points):
            x, y = points.mean(axis=0)
            panel.scatter(x, y, 70, **look, edgecolor="white", lw=1.2, zorder=4)
    panel.set_aspect("equal", adjustable="datalim")
    panel.tick_params(labelsize=7)
    panel.spines[["top", "right"]].set_visible(False)
