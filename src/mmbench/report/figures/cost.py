"""What a method costs against what it reaches."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mmbench.missing import pattern_name, patterns
from mmbench.report.collect import Results, Row
from mmbench.report.colours import palette
from mmbench.report.figures.base import (
    NO_MATHS,
    WIDTH,
    first_cells,
    fitting,
    heading,
    key,
    methods_of,
    names,
    plain_ticks,
    sample,
    tidy,
)

PUBLISHED: dict[str, Callable[[Row], float]] = {"trainable parameters": lambda row: row.parameters or np.nan}
OWN: dict[str, Callable[[Row], float]] = {
    "seconds of training": lambda row: row.seconds,
    "peak memory, MB": lambda row: float(
        np.mean([r.memory_mb for r in row.records if r.memory_mb is not None] or [np.nan])
    ),
}
"""What differs from run to run, and so is in no report that is published."""

NARROW = 5.0
"""Costs that differ by a smaller factor are drawn on a linear axis: a logarithmic one would have no ticks."""


@matplotlib.rc_context(NO_MATHS)
def draw_cost(results: Results, published: bool) -> Figure | None:
    """Accuracy with every modality and its interval against the cost, a row a data set, a column a cost; None if nothing was run.

    Args:
        results: what to draw.
        published: leave out seconds and memory.
    """
    cells = {dataset: rows for dataset, rows in first_cells(results).items() if any(row.seeds for row in rows)}
    measures = PUBLISHED if published else PUBLISHED | OWN
    measures = {
        name: cost for name, cost in measures.items() if any(cost(row) > 0 for rows in cells.values() for row in rows)
    }
    if not cells or not measures:
        return None
    accuracy = results.table[results.table.metric == "accuracy"].set_index(
        ["dataset", "protocol", "training", "method", "pattern"]
    )
    styles = palette(methods_of(results))
    shown = dict.fromkeys(row.method for rows in cells.values() for row in rows)
    width = 4.2 if len(measures) == 1 and len(shown) <= 12 else WIDTH
    abreast = fitting(names(list(shown)), 3 if width < WIDTH else 5, width)
    figure = Figure(figsize=(width, 2.1 * len(cells) + 0.5 + 0.16 * -(-len(shown) // abreast)), layout="constrained")
    panels = figure.subplots(len(cells), len(measures), squeeze=False, sharey="row")
    for axes, (dataset, rows) in zip(panels, cells.items(), strict=True):
        every = pattern_name(patterns(results.modalities[dataset])[-1])
        for panel, cost in zip(axes, measures.values(), strict=True):
            known = {row.method: x for row in rows if row.seeds and (x := cost(row)) > 0}
            for method, x in side_by_side(known).items():
                line, style = accuracy.loc[(*key_of(rows[0]), method, every)], styles[method]
                panel.plot([x, x], [line.ci_low, line.ci_high], color=style.colour, lw=0.9, alpha=0.7)
                panel.plot([x], [line["mean"]], color=style.colour, marker=style.marker, ms=5.5, mec="white", mew=0.5)
            _scale(panel, list(known.values()))
            tidy(panel)
        axes[0].set_ylabel("accuracy, % (95 % interval)", fontsize=8)
        axes[0].set_title(heading(results, dataset, rows[0].protocol, rows[0].training), fontsize=8, loc="left")
    for panel, name in zip(panels[-1], measures, strict=True):
        panel.set_xlabel(name, fontsize=8)
    key(figure, [sample(names([m])[0], styles[m], line=False) for m in shown], columns=abreast)
    return figure


def key_of(row: Row) -> tuple[str, str, str]:
    """Of which data set, protocol and way of training a row is."""
    return row.dataset, row.protocol, row.training


def side_by_side(costs: Mapping[str, float]) -> dict[str, float]:
    """Where methods are drawn: at what they cost, but those that would cover each other one beside the other, in their order.

    >>> side_by_side({"a": 100.0, "b": 100.0, "c": 200.0})
    {'a': 100.0, 'b': 102.0, 'c': 200.0}
    """
    if not costs:
        return {}
    low, high = min(costs.values()), max(costs.values())
    many = high > NARROW * low
    places: dict[str, float] = {}
    last = -np.inf
    for method, cost in sorted(costs.items(), key=lambda item: item[1]):
        aside = last * (high / low) ** 0.02 if many else last + 0.02 * ((high - low) or high)
        places[method] = last = max(cost, aside) if places else cost
    return places


def _scale(panel: Axes, costs: list[float]) -> None:
    """A logarithmic axis where costs differ much."""
    if max(costs, default=0) > NARROW * min(costs, default=0):
        panel.set_xscale("log")
        plain_ticks(panel.xaxis, logarithmic=True)
    else:
        panel.xaxis.set_major_locator(MaxNLocator(3))
        plain_ticks(panel.xaxis)
