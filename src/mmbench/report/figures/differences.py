"""Differences of methods, where they are the question: to the reference, and of all pairs."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from mmbench.experiment.space import TUNED
from mmbench.missing import pattern_name, patterns
from mmbench.report.collect import Results
from mmbench.report.colours import Style, palette
from mmbench.report.comparing import against
from mmbench.report.figures.base import NO_MATHS, WIDTH, heading, key, methods_of, names, tidy, write_cell

EQUIVALENT = 1.0
"""Points: methods that differ by less are practically equivalent."""

BETTER, WORSE = "#0072B2", "#F5C396"
"""Dark and pale, so that they are told apart in grey."""

NUMBERS_UP_TO = 16
"""Methods; of more, the matrix's cells are too small for numbers."""


@matplotlib.rc_context(NO_MATHS)
def draw_differences(results: Results) -> Figure | None:
    """Each method's accuracy minus the reference's, a panel a data set and protocol; None if there is nothing to compare.

    Tuned methods are compared with the tuned reference, as in the tables.
    """
    panels_of = {}
    for (dataset, protocol), pairs in _complete(results).items():
        here = [r for r in results.rows if (r.dataset, r.protocol, r.training) == (dataset, protocol, "complete")]
        found = to_references(pairs, {row.method: against(row, results.experiment.grid.reference) for row in here})
        if found["difference"].notna().any():
            panels_of[dataset, protocol] = found
    if not panels_of:
        return None
    shown = {method for found in panels_of.values() for method in found.method}
    methods, styles = [m for m in methods_of(results) if m in shown], palette(methods_of(results))
    columns = min(3, len(panels_of))
    rows = -(-len(panels_of) // columns)
    figure = Figure(figsize=(WIDTH, (0.2 * len(methods) + 0.75) * rows + 0.5), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True, sharex=True).ravel()
    for panel, ((dataset, protocol), found) in zip(panels, panels_of.items(), strict=False):
        _forest(panel, found, methods, styles)
        minus = [f"{'tuned: ' * name.endswith(TUNED)}minus {names([name])[0]}" for name in dict.fromkeys(found.other)]
        panel.set_title("\n".join([heading(results, dataset, protocol), *minus]), fontsize=8)
    for panel in panels[len(panels_of) :]:
        panel.set_visible(False)
    for panel in panels[max(0, len(panels_of) - columns) : len(panels_of)]:  # the last of each column
        panel.tick_params(labelbottom=True)
    panels[0].set_yticks(range(len(methods)), names(methods))
    panels[0].set_ylim(len(methods) - 0.5, -0.5)
    key(
        figure,
        [
            Line2D([], [], color="0.3", marker="o", ms=4.5, label="separable: the 95 % interval leaves out zero"),
            Line2D([], [], color="0.3", marker="o", ms=4.5, lw=0.8, mfc="white", label="not separable"),
            Patch(color="0.9", label=f"practically equivalent: within ± {EQUIVALENT:g} point"),
        ],
        columns=3,
    )
    figure.supxlabel("difference of accuracies, points", fontsize=9)
    return figure


def _complete(results: Results) -> dict[tuple[str, str], pd.DataFrame]:
    """The pairs of complete training with every modality, by data set and protocol."""
    every = {dataset: pattern_name(patterns(modalities)[-1]) for dataset, modalities in results.modalities.items()}
    pairs = results.comparisons
    pairs = pairs[(pairs.training == "complete") & (pairs.pattern == pairs.dataset.map(every))]
    return {(str(d), str(p)): found for (d, p), found in pairs.groupby(["dataset", "protocol"], sort=False)}


def to_references(pairs: pd.DataFrame, references: Mapping[str, str | None]) -> pd.DataFrame:
    """The difference of each method to its reference: columns ``method``, ``other``, ``difference``, ``ci_low``, ``ci_high``.

    Args:
        pairs: of one cell, each once, as ``Results.comparisons`` has them.
        references: what each method is compared with; None for one that is a reference itself.
    """
    columns = ["method", "other", "difference", "ci_low", "ci_high"]
    after = pairs[pairs.method.map(references) == pairs.other]
    before = pairs[pairs.other.map(references) == pairs.method]
    turned = pd.DataFrame(
        {
            "method": before.other,
            "other": before.method,
            "difference": -before.difference,
            "ci_low": -before.ci_high,
            "ci_high": -before.ci_low,
        }
    )
    return pd.concat([after[columns], turned], ignore_index=True)


def _forest(panel: Axes, found: pd.DataFrame, methods: list[str], styles: dict[str, Style]) -> None:
    panel.axvspan(-EQUIVALENT, EQUIVALENT, color="0.9", lw=0, zorder=0)
    panel.axvline(0, color="0.3", lw=0.8, zorder=1)
    for line in found.itertuples():
        separable = not line.ci_low <= 0 <= line.ci_high
        style, y = styles[line.method], methods.index(line.method)
        panel.plot([line.ci_low, line.ci_high], [y, y], color=style.colour, lw=1.4 if separable else 0.8)
        fill = style.colour if separable else "white"
        panel.plot([line.difference], [y], color=style.colour, marker=style.marker, ms=5, mfc=fill, ls="")
    tidy(panel, "x")
    panel.xaxis.set_major_locator(MaxNLocator(4))
    panel.spines["left"].set_visible(False)
    panel.tick_params(axis="y", length=0)


@matplotlib.rc_context(NO_MATHS)
def draw_pairs(results: Results) -> Figure | None:
    """The difference of every method (row) to every other (column), a panel a data set and protocol; None where there are no pairs."""
    cells = {where: pairs for where, pairs in _complete(results).items() if pairs["difference"].notna().any()}
    if not cells:
        return None
    most = max(len({*pairs.method, *pairs.other}) for pairs in cells.values())
    numbers = most <= NUMBERS_UP_TO
    width, height = (0.33 * most, 0.22 * most) if numbers else (0.14 * most, 0.14 * most)
    columns = max(1, min(len(cells), int(10.5 // (width + 0.3))))
    rows = -(-len(cells) // columns)
    longer = 0.07 * max(
        0, max(len(name) for name in names(methods_of(results))) - 12
    )  # than the names there is room for
    size = (max((width + 0.3) * columns + 1.0, 5.5) + longer, (height + 1.1 + longer) * rows + 0.5)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    for number, (panel, ((dataset, protocol), pairs)) in enumerate(zip(panels.flat, cells.items(), strict=False)):
        methods = [m for m in methods_of(results) if m in {*pairs.method, *pairs.other}]
        _matrix(panel, pairs, methods, numbers)
        panel.set_yticks(*((range(len(methods)), names(methods)) if number % columns == 0 else ([], [])))
        panel.set_title(heading(results, dataset, protocol), fontsize=8)
    for panel in panels.flat[len(cells) :]:
        panel.set_visible(False)
    key(
        figure,
        [
            Patch(fc=BETTER, label="row is better"),
            Patch(fc=WORSE, label="row is worse"),
            Patch(fc="white", ec="0.7", label="not separable: the 95 % interval has zero"),
        ],
    )
    figure.supxlabel("accuracy of the row minus that of the column, points", fontsize=9)
    return figure


def number_text(value: float) -> str:
    """A difference, with a sign that is a sign; none of what rounds to zero.

    >>> number_text(1.26), number_text(-0.31), number_text(-0.04)
    ('+1.3', '−0.3', '0.0')
    """
    return "0.0" if abs(value) < 0.05 else f"{value:+.1f}".replace("-", "\N{MINUS SIGN}")


def _matrix(panel: Axes, pairs: pd.DataFrame, methods: list[str], numbers: bool) -> None:
    """Row minus column; what is separable is coloured by its sign."""
    size = len(methods)
    sign, colours = np.zeros((size, size)), ListedColormap([WORSE, "white", BETTER])
    for line in pairs.itertuples():
        i, j = methods.index(line.method), methods.index(line.other)
        sign[i, j] = 0 if line.ci_low <= 0 <= line.ci_high else np.sign(line.difference)
        sign[j, i] = -sign[i, j]
        for row, column, value in ((i, j, line.difference), (j, i, -line.difference)) if numbers else ():
            ink = {1: "white", 0: "0.45", -1: "black"}[int(sign[row, column])]
            write_cell(panel, row, column, number_text(value), ink, 6.5)
    edges = np.arange(size + 1) - 0.5
    panel.pcolormesh(edges, edges, sign, cmap=colours, vmin=-1, vmax=1, edgecolors="0.9", lw=0.5)
    panel.plot(edges[[0, -1]], edges[[0, -1]], color="0.8", lw=0.5)
    panel.set_ylim(size - 0.5, -0.5)
    panel.set_xticks(range(size), names(methods), rotation=90)
    panel.tick_params(length=0, labelsize=7 if numbers else 5.5)
    panel.spines[:].set_visible(False)
