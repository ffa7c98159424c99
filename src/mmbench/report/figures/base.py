"""What figures are made of."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import Formatter, LogLocator, NullLocator

from mmbench.report.collect import Results, Row
from mmbench.report.colours import Style
from mmbench.report.elsewhere import MARK, is_elsewhere
from mmbench.report.escape import one_line

NO_MATHS: Any = {"text.parse_math": False}
"""A dollar sign in a name is a dollar sign."""

WIDTH = 7.0
"""Inches: the text width of a paper's page."""

LINES_A_PANEL = 4

End = tuple[float, float, str, str]
"""Where a line's name belongs: (x, y, name, colour)."""

BAND = Patch(color="0.5", alpha=0.3, lw=0, label="± 1 standard deviation over seeds")
OTHERS = Line2D([], [], color="0.85", lw=1, label="the other methods")
PAPERS = Line2D([], [], color="0.3", lw=0.9, ls=":", label="the paper's number")


def render(figure: Figure, kind: str) -> bytes:
    """The figure as ``svg`` or ``png`` bytes; the same numbers give the same bytes.

    Letters that the font lacks are boxes, with no warning of each in the terminal.

    Its parts are given their places once: that takes longer than drawing them, and savefig would do so every time.
    """
    buffer = io.BytesIO()
    settings: Any = {"svg.hashsalt": "mmbench", "svg.fonttype": "none", "font.family": "DejaVu Sans", **NO_MATHS}
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph .* missing from font", UserWarning)
        if (engine := figure.get_layout_engine()) is not None:
            engine.execute(figure)
            figure.set_layout_engine(None)
        figure.savefig(buffer, format=kind, dpi=160, metadata={"Date": None} if kind == "svg" else None)
    return buffer.getvalue()


def first_cells(results: Results, elsewhere: bool = False) -> dict[str, list[Row]]:
    """Data set -> the rows of its first protocol and way of training of which anything is done, without those that are not.

    For figures that would be too many if there were one for each protocol.

    Args:
        results: what to draw.
        elsewhere: with the rows that were made elsewhere, of which there are predictions, and nothing of their training.
    """
    cells: dict[str, list[Row]] = {}
    for row in results.rows:
        if row.records or (elsewhere and row.seeds):
            cells.setdefault(row.dataset, []).append(row)
    return {
        dataset: [r for r in rows if (r.protocol, r.training) == (rows[0].protocol, rows[0].training)]
        for dataset, rows in cells.items()
    }


def names(methods: Sequence[str]) -> list[str]:
    """The methods' names as a figure shows them: on one line, and a long one shortened."""
    return [_shortened(one_line(method)) for method in methods]


def _shortened(text: str) -> str:
    """At most 24 letters, of which the mark of what was made elsewhere is none."""
    mark = MARK if is_elsewhere(text) else ""
    name = text.removesuffix(mark)
    return text if len(name) <= 24 else f"{name[:23]}…{mark}"


def methods_of(results: Results) -> list[str]:
    """All methods of a report, in its order: that of their colours."""
    return list(dict.fromkeys(row.method for row in results.rows))


def heading(results: Results, dataset: str, protocol: str, training: str = "complete") -> str:
    """What a panel is of: a data set, what sets its numbers apart, a protocol and, if anything was missing, the training."""
    where = f"{dataset}{results.mark(dataset)}, {protocol}"
    return one_line(where if training == "complete" else f"{where}, {training}")


def in_chunks(methods: Sequence[str]) -> list[list[str]]:
    """Up to four methods a panel, as evenly as may be."""
    return [list(map(str, chunk)) for chunk in np.array_split(np.array(methods), -(-len(methods) // LINES_A_PANEL))]


def curve(panel: Axes, line: pd.DataFrame, name: str, style: Style) -> End | None:
    """Draw one method's ``mean`` over ``rate``, with a band from ``low`` to ``high``; where its name belongs."""
    x, y = line.rate.to_numpy(), line["mean"].to_numpy()
    if line.reported.notna().any():
        panel.plot(x, line.reported, color=style.colour, ls=":", lw=0.9, zorder=2)
    done = np.flatnonzero(~np.isnan(y))
    if not len(done):
        return None
    if line.low.notna().any():
        panel.fill_between(x, line.low, line.high, color=style.colour, alpha=0.15, lw=0, zorder=2)
    panel.plot(x, y, color=style.colour, ls=style.dash, lw=1.5, marker=style.marker, ms=3, zorder=3)
    return float(x[done[-1]]), float(y[done[-1]]), name, style.ink


def with_band(values: pd.DataFrame) -> pd.DataFrame:
    """The lines with a band of one standard deviation, ``low`` to ``high``; NaN of a single run."""
    return values.assign(low=values["mean"] - values["std"], high=values["mean"] + values["std"])


def name_ends(panel: Axes, ends: Sequence[End], low: float, high: float, share: float = 0.085) -> None:
    """Names at the lines' ends, pushed apart where they would cover each other: by a share of the panel's height."""
    gap = share * (high - low)
    left, right = panel.get_xlim()
    aside = (right - left) / 22
    ordered = sorted(ends, key=lambda end: end[1])
    places: list[float] = []
    for _, y, _, _ in ordered:
        places.append(max(y, places[-1] + gap) if places else y)
    ceiling = high - gap / 2
    for i in reversed(range(len(places))):
        places[i] = min(places[i], ceiling)
        ceiling = places[i] - gap
    for (x, y, text, colour), place in zip(ordered, places, strict=True):
        panel.annotate(
            text, (x, y), (x + aside, place), color=colour, fontsize=7.5, va="center", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.4, "shrinkA": 0, "shrinkB": 1},
        )  # fmt: skip


def key(figure: Figure, handles: Sequence[Artist], columns: int = 4) -> None:
    """What the marks, bands and colours mean, above the panels."""
    if not handles:
        return
    labels = [str(handle.get_label()) for handle in handles]
    figure.legend(
        handles=list(handles),
        loc="outside upper center",
        ncols=fitting(labels, columns, figure.get_figwidth()),
        frameon=False,
        fontsize=7.5,
        handlelength=2.6,
        columnspacing=1.4,
    )


def fitting(labels: Sequence[str], columns: int, width: float, size: float = 7.5) -> int:
    """Into how many columns of a key, at most, labels go that are not to be cut.

    Args:
        labels: in their order; the first column is filled first.
        columns: no more than these.
        width: of the figure, in inches.
        size: of the letters, in points.
    """
    for count in range(min(columns, len(labels)), 1, -1):
        longest = [max(map(len, part)) for part in np.array_split(np.array(labels, object), count)]
        if sum(0.58 * length + 4.8 for length in longest) * size / 72 <= width:  # letters, and a mark with its margins
            return count
    return 1


def sample(name: str, style: Style, line: bool = True) -> Line2D:
    """A method in the key."""
    return Line2D(
        [], [], color=style.colour, ls=style.dash if line else "", lw=1.5, marker=style.marker, ms=4, label=name
    )


def limits(values: pd.DataFrame, others: Sequence[pd.Series] = ()) -> tuple[float, float]:
    """The range of an axis that shows the lines, with their bands, the papers' numbers and other lines."""
    columns = [values[name].dropna() for name in ("mean", "low", "high", "reported")]
    everything = pd.concat([column for column in (*columns, *others) if len(column)])
    margin = 0.04 * (everything.max() - everything.min()) + 0.5
    return everything.min() - margin, everything.max() + margin


def tidy(panel: Axes, axis: Any = "y") -> None:
    """No frame; a faint grid."""
    panel.grid(axis=axis, color="0.92", lw=0.7)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)
    panel.tick_params(labelsize=7)


def short(value: float, digits: int = 1) -> str:
    """A number as an axis has room for it.

    >>> [short(v) for v in (0.25, 12.0, 642.5, 558254.0, 2_000_000.0, -10.0)]
    ['0.25', '12', '642.5', '558.3k', '2M', '−10']
    >>> short(152_480.0, digits=2)
    '152.48k'
    """
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.{digits}f}".rstrip("0").rstrip(".") + unit
    return f"{value:.{digits + 3}g}".replace("-", "\N{MINUS SIGN}")


class Short(Formatter):
    """Labels of ticks by ``short``, with as many digits as tell them apart."""

    def __call__(self, value: float, pos: int | None = None) -> str:
        """The label of one tick by itself."""
        return short(value)

    def format_ticks(self, values: Sequence[float]) -> list[str]:
        """The labels of all ticks of an axis."""
        for digits in range(1, 8):
            labels = [short(value, digits) for value in values]
            if len(set(labels)) == len(labels):
                break
        return labels if len(values) else []


def plain_ticks(axis: Axis, logarithmic: bool = False) -> None:
    """Numbers as they are said: matplotlib's own are formulas on a logarithmic axis, and formulas are not set here."""
    if logarithmic:
        axis.set_major_locator(LogLocator(subs=(1, 3)))
        axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(Short())


def write_cell(panel: Axes, row: int, column: int, text: str, ink: str, size: float) -> None:
    """A number in a cell of a matrix: it takes no part in the layout, which would cost more than all else."""
    panel.text(column, row, text, ha="center", va="center", fontsize=size, color=ink, in_layout=False)


def setting_of(line: pd.Series) -> str:
    """Of a line of the curves: data set, protocol and mask, and what sets its numbers apart."""
    track = line["track"].replace("made up", "MADE UP")
    return one_line(", ".join(part for part in (*line[["dataset", "protocol", "mask"]], track) if part))
