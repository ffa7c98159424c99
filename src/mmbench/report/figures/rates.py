"""Accuracy by missing rate, and what tuning came to, as curves."""

from __future__ import annotations

from collections.abc import Callable

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from mmbench.report.collect import Results
from mmbench.report.colours import Style, palette
from mmbench.report.escape import one_line
from mmbench.report.figures.base import (
    BAND,
    LINES_A_PANEL,
    NO_MATHS,
    OTHERS,
    PAPERS,
    WIDTH,
    curve,
    in_chunks,
    key,
    limits,
    methods_of,
    name_ends,
    names,
    setting_of,
    tidy,
    with_band,
)
from mmbench.report.tuning import Tuning

ALONE: dict = {"color": "0.25", "lw": 1.1, "ls": (0, (1, 1)), "label": "the best single modality, trained alone"}
FREQUENT: dict = {"color": "0.55", "lw": 1.1, "ls": (0, (7, 3)), "label": "the most frequent class"}

INTERVAL = Patch(color="0.5", alpha=0.3, lw=0, label="95 % interval of the difference")

Bound = tuple[pd.Series, dict]
"""A line that methods are held against: its heights by rate, and how it is drawn."""


@matplotlib.rc_context(NO_MATHS)
def draw_curves(results: Results, evaluation: str, training: str) -> Figure | None:
    """Accuracy against nominal missing rate, up to four methods a panel and all others in grey behind them; None if nothing was run.

    Bands are one standard deviation over seeds; dotted lines are the papers' numbers. Where a rate was not run, the line is broken.
    Lines show what the best single modality and the most frequent class would reach.
    """
    assert results.rates is not None
    every = results.rates.curves
    every = every[(every.evaluation == evaluation) & (every.training == training)]

    def bounds(values: pd.DataFrame) -> list[Bound]:
        facts = results.tests[values.dataset.iloc[0], values.protocol.iloc[0]]
        frequent = pd.Series(facts.majority, index=values.rate.unique())
        return [(line, look) for line, look in ((best_alone(values), ALONE), (frequent, FREQUENT)) if len(line)]

    styles = palette(methods_of(results))
    return _curves(with_band(every), "nominal missing rate", "accuracy, %", styles, bounds)


@matplotlib.rc_context(NO_MATHS)
def draw_rate_differences(results: Results, evaluation: str, training: str) -> Figure | None:
    """Accuracy minus that of the reference against nominal missing rate, in panels as ``draw_curves`` has them; None without one."""
    assert results.rates is not None
    every = results.rates.curves
    every = every[(every.evaluation == evaluation) & (every.training == training) & every.difference.notna()]
    lines = every.assign(
        own=every["mean"], mean=every.difference, low=every.difference_low, high=every.difference_high, reported=np.nan
    )
    reference = results.experiment.grid.reference
    zero = {"color": "0.25", "lw": 0.9, "ls": "-", "label": one_line(reference)}

    def bounds(values: pd.DataFrame) -> list[Bound]:
        by_rate = values.assign(alone=values.difference - values.gain, other=values.own - values.difference)
        by_rate = by_rate.groupby("rate")[["alone", "other"]].first()
        frequent = results.tests[values.dataset.iloc[0], values.protocol.iloc[0]].majority - by_rate.other
        frequent = frequent[frequent >= values.low.min()]  # far below all methods, it would leave them no room
        lines = ((0 * by_rate.other, zero), (by_rate.alone.dropna(), ALONE), (frequent, FREQUENT))
        return [(line, look) for line, look in lines if len(line)]

    up = f"accuracy minus that of {one_line(reference)}, points"
    return _curves(lines, "nominal missing rate", up, palette(methods_of(results)), bounds, INTERVAL)


def best_alone(values: pd.DataFrame) -> pd.Series:
    """Accuracy of the best single modality by rate, where the gains over it are known: those of one setting have the same."""
    known = values[values.gain.notna()]
    return (known["mean"] - known.gain).groupby(known.rate).first()


@matplotlib.rc_context(NO_MATHS)
def draw_tuning(tuning: Tuning, methods: list[str]) -> Figure | None:
    """The best score to be expected against the number of draws; None if no search is finished.

    Args:
        tuning: what tuning came to.
        methods: all of the report, in its order.
    """
    curves = tuning.expected.rename(columns={"draws": "rate", "score": "mean"})
    masks = curves.training.where(curves.training != "complete", "")
    every = curves.assign(mask=masks, low=np.nan, high=np.nan, reported=np.nan)
    figure = _curves(every, "draws", "validation score, %", palette(methods))
    for panel in figure.axes if figure else ():
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _curves(
    every: pd.DataFrame,
    across: str,
    up: str,
    styles: dict[str, Style],
    bounds: Callable[[pd.DataFrame], list[Bound]] = lambda _: [],
    band: Patch = BAND,
) -> Figure | None:
    """Lines of methods over ``rate``, up to four a panel; a block of panels a data set, protocol and mask."""
    groups = [g for _, g in every.groupby(["dataset", "protocol", "mask"], sort=False) if g["mean"].notna().any()]
    if not groups:
        return None
    methods = list(dict.fromkeys(every.method))
    chunks = in_chunks(methods)
    columns = min(2, len(chunks))
    rows = -(-len(chunks) // columns)
    figure = Figure(figsize=(WIDTH, 2.5 * rows * len(groups) + 0.6), layout="constrained")
    panels = figure.subplots(rows * len(groups), columns, squeeze=False, sharex=True)
    for block, values in enumerate(groups):
        axes = panels[block * rows : (block + 1) * rows].ravel()
        marks = bounds(values)
        low, high = limits(values, [line for line, _ in marks])
        for panel, chunk in zip(axes, chunks, strict=False):
            for method in methods:
                line = values[values.method == method]
                if method not in chunk:
                    panel.plot(line.rate, line["mean"], color="0.85", lw=0.8, zorder=1)
            ends = [curve(panel, values[values.method == m], names([m])[0], styles[m]) for m in chunk]
            for line, look in marks:
                if every.rate.nunique() > 1:
                    panel.plot(line.index, line, zorder=2, **look)
                else:  # of one point, there would be no line
                    panel.axhline(line.iloc[0], zorder=2, **look)
                    panel.set_xticks(line.index)
            name_ends(panel, [end for end in ends if end], low, high)
            panel.set_ylim(low, high)
            tidy(panel)
            if len(groups) > 1 or values.track.iloc[0]:
                panel.set_title(setting_of(values.iloc[0]), fontsize=8, loc="left")
        for panel in axes[len(chunks) :]:
            panel.set_visible(False)
    looks = {str(look["label"]): look for values in groups for _, look in bounds(values)}
    handles: list[Artist] = [Line2D([], [], **look) for look in looks.values()]
    handles += [band] * bool(every.low.notna().any()) + [PAPERS] * bool(every.reported.notna().any())
    key(figure, [*handles, *[OTHERS] * (len(methods) > LINES_A_PANEL)], columns=3)
    figure.supxlabel(across, fontsize=9)
    figure.supylabel(up, fontsize=9)
    return figure
