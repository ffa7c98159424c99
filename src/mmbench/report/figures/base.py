"""What figures are made of."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmbench.report.escape import one_line

NO_MATHS: Any = {"text.parse_math": False}
"""A dollar sign in a name is a dollar sign."""


WIDTH = 7.0
"""Inches: the text width of a paper's page."""


COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#000000")
"""Okabe and Ito's, told apart by colour-blind readers; line styles tell them apart once more."""


STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)))


def render(figure: Figure, kind: str) -> bytes:
    """The figure as ``svg`` or ``png`` bytes; the same numbers give the same bytes."""
    buffer = io.BytesIO()
    settings: Any = {"svg.hashsalt": "mmbench", "svg.fonttype": "none", "font.family": "DejaVu Sans", **NO_MATHS}
    with matplotlib.rc_context(settings):
        figure.savefig(buffer, format=kind, dpi=160, metadata={"Date": None} if kind == "svg" else None)
    return buffer.getvalue()


def curve(panel: Axes, line: pd.DataFrame, name: str, number: int) -> tuple[float, float, str, str] | None:
    """Draw one method; where its label belongs: (x, y, text, colour)."""
    colour, style = COLOURS[number % len(COLOURS)], STYLES[number % len(STYLES)]
    x, y, std = line.rate.to_numpy(), line["mean"].to_numpy(), line["std"].fillna(0).to_numpy()
    if line.reported.notna().any():
        panel.plot(x, line.reported, color=colour, ls=":", lw=0.9, zorder=2)
    done = np.flatnonzero(~np.isnan(y))
    if not len(done):
        return None
    panel.fill_between(x, y - std, y + std, color=colour, alpha=0.15, lw=0, zorder=2)
    panel.plot(x, y, color=colour, ls=style, lw=1.5, marker="o", ms=2.5, zorder=3)
    return float(x[done[-1]]), float(y[done[-1]]), one_line(name), colour


def name_ends(panel: Axes, ends: Sequence[tuple[float, float, str, str]], low: float, high: float) -> None:
    """Names at the lines' ends, pushed apart where they would cover each other."""
    gap = 0.085 * (high - low)
    left, right = panel.get_xlim()
    aside = (right - left) / 22
    ordered = sorted(ends, key=lambda end: end[1])
    places: list[float] = []
    for _, y, _, _ in ordered:
        places.append(max(y, places[-1] + gap) if places else y)
    excess = max(0.0, (places[-1] if places else low) - (high - gap / 2))
    for (x, y, text, colour), place in zip(ordered, places, strict=True):
        panel.annotate(
            text, (x, y), (x + aside, place - excess), color=colour, fontsize=7.5, va="center", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.4, "shrinkA": 0, "shrinkB": 1},
        )  # fmt: skip


def limits(values: pd.DataFrame) -> tuple[float, float]:
    """The range of an axis that shows the lines, with their bands and the papers' numbers."""
    std = values["std"].fillna(0)
    everything = pd.concat([values["mean"] - std, values["mean"] + std, values.reported.dropna()])
    margin = 0.04 * (everything.max() - everything.min()) + 0.5
    return everything.min() - margin, everything.max() + margin


def tidy(panel: Axes) -> None:
    """No frame; a faint grid."""
    panel.grid(axis="y", color="0.92", lw=0.7)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)
    panel.tick_params(labelsize=8)


def setting_of(line: pd.Series) -> str:
    """Of a line of the curves: data set, protocol and mask, and what sets its numbers apart."""
    track = line["track"].replace("made up", "MADE UP")
    return ", ".join(part for part in (*line[["dataset", "protocol", "mask"]], track) if part)
