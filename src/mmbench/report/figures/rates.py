"""Accuracy by missing rate, and what tuning came to, as curves."""

from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mmbench.report.figures.base import NO_MATHS, WIDTH, curve, limits, name_ends, setting_of, tidy
from mmbench.report.rates import Rates
from mmbench.report.tuning import Tuning

LINES_A_PANEL = 4


@matplotlib.rc_context(NO_MATHS)
def draw_curves(rates: Rates, evaluation: str, training: str) -> Figure | None:
    """Accuracy against nominal missing rate, up to four methods a panel and all others in grey behind them; None if nothing was run.

    Bands are one standard deviation over seeds; dotted lines are the papers' numbers. Where a rate was not run, the line is broken.
    """
    every = rates.curves[(rates.curves.evaluation == evaluation) & (rates.curves.training == training)]
    return _curves(every, "nominal missing rate", "accuracy, %")


@matplotlib.rc_context(NO_MATHS)
def draw_tuning(tuning: Tuning) -> Figure | None:
    """The best score to be expected against the number of draws; None if no search is finished."""
    curves = tuning.expected.rename(columns={"draws": "rate", "score": "mean"})
    masks = curves.training.where(curves.training != "complete", "")
    figure = _curves(curves.assign(mask=masks, std=np.nan, reported=np.nan), "draws", "validation score, %")
    for panel in figure.axes if figure else ():
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _curves(every: pd.DataFrame, across: str, up: str) -> Figure | None:
    """Lines of methods over ``rate``, up to four a panel; a block of panels a data set, protocol and mask."""
    groups = [g for _, g in every.groupby(["dataset", "protocol", "mask"], sort=False) if g["mean"].notna().any()]
    if not groups:
        return None
    methods = list(dict.fromkeys(every.method))
    chunks = np.array_split(np.array(methods), -(-len(methods) // LINES_A_PANEL))
    columns = min(2, len(chunks))
    rows = -(-len(chunks) // columns)
    figure = Figure(figsize=(WIDTH, 2.5 * rows * len(groups) + 0.3), layout="constrained")
    panels = figure.subplots(rows * len(groups), columns, squeeze=False, sharex=True)
    for block, values in enumerate(groups):
        axes = panels[block * rows : (block + 1) * rows].ravel()
        low, high = limits(values)
        for panel, chunk in zip(axes, chunks, strict=False):
            for method in methods:
                line = values[values.method == method]
                if method not in chunk:
                    panel.plot(line.rate, line["mean"], color="0.85", lw=0.8, zorder=1)
            ends = [curve(panel, values[values.method == m], m, i) for i, m in enumerate(chunk)]
            name_ends(panel, [end for end in ends if end], low, high)
            panel.set_ylim(low, high)
            tidy(panel)
            if len(groups) > 1 or values.track.iloc[0]:
                panel.set_title(setting_of(values.iloc[0]), fontsize=8, loc="left")
        for panel in axes[len(chunks) :]:
            panel.set_visible(False)
    figure.supxlabel(across, fontsize=9)
    figure.supylabel(up, fontsize=9)
    return figure
