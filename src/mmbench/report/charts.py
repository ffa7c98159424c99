"""Charts of the page that answer to the reader: their numbers, and how Vega draws them.

What others named is data, and never part of an expression.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from mmbench.report.cells import columns
from mmbench.report.colours import Style
from mmbench.report.comparing import against
from mmbench.report.lean import column

if TYPE_CHECKING:
    from mmbench.report.collect import Results

WHERE = {"dataset": "data set", "protocol": "protocol", "training": "training"}
"""What the reader chooses, where there are several: column -> what it is called."""
EPOCH = "epoch"
MOST_EPOCHS = 100
BANDS = "Bands are drawn where at most four methods are shown."
MEASURES = {
    "validation/accuracy": "validation accuracy, %",
    "validation/loss": "validation loss",
    "train/loss": "training loss",
}
SHAPES = {
    "o": "circle", "s": "square", "^": "triangle-up", "v": "triangle-down", "D": "diamond", "P": "cross", "<": "triangle-left",
    ">": "triangle-right", "X": "M-1,-.5L-.5,-1L0,-.5L.5,-1L1,-.5L.5,0L1,.5L.5,1L0,.5L-.5,1L-1,.5L-.5,0Z",
}  # fmt: skip
"""matplotlib's markers as Vega's."""


@dataclass(frozen=True)
class Chart:
    """A chart with a panel for each of several things, of which the reader chooses the data set, and which methods are shown.

    Attributes:
        name: what its element is called.
        kind: intervals in rows, a method each; or lines.
        measure: what the numbers are.
        spread: what ``low`` and ``high`` are.
        rows: with the columns of ``WHERE`` that there are, ``panel``, ``method``, ``value``, ``low``, ``high``, ``n``; lines have
            ``at`` too, and intervals may have a ``mark``: where it is not empty, the point is hollow.
        across: what ``at`` is.
        panels: what the panels are.
        shared: all panels have one scale.
        zero: a line at zero, with the region of practical equivalence.
        still: the figure that stands for it where scripts do not run.
    """

    name: str
    title: str
    caption: str
    kind: Literal["intervals", "lines"]
    measure: str
    spread: str
    rows: pd.DataFrame = field(repr=False)
    across: str = ""
    panels: str = "shown"
    shared: bool = True
    zero: bool = False
    still: str = ""

    def data(self) -> dict[str, Any]:
        """What the page's script needs to know, for JSON."""
        chosen = {name: label for name, label in WHERE.items() if self.rows[name].nunique() > 1}
        names = [*chosen, *(name for name in self.rows.columns if name not in WHERE)]
        return {
            "kind": self.kind, "measure": self.measure, "spread": self.spread, "across": self.across, "panels": self.panels,
            "shared": self.shared, "choices": chosen, "columns": {name: _column(self.rows[name]) for name in names},
        }  # fmt: skip


def _column(values: pd.Series) -> dict[str, list]:
    """A column, short: numbers of four digits, None for NaN; texts as numbers of a list."""
    if pd.api.types.is_numeric_dtype(values):
        return {"values": [None if np.isnan(value) else float(f"{value:.4g}") for value in values]}
    codes, levels = pd.factorize(values)
    return {"codes": codes.tolist(), "levels": list(levels)}


def charts(results: Results) -> list[Chart]:
    """The charts of a report that have anything to show."""
    made = [*_accuracy(results), *_differences(results), *_rates(results), *_curves(results)]
    return [chart for chart in made if chart.rows["value"].notna().any()]


def _accuracy(results: Results) -> Iterator[Chart]:
    table = results.table[(results.table.metric == "accuracy") & results.table["mean"].notna()]
    rows = pd.DataFrame(
        {
            **{name: table[name] for name in WHERE}, "panel": _headings(results, table.dataset, table.pattern), "method": table.method,
            "value": table["mean"], "low": table.ci_low, "high": table.ci_high, "n": table.n, "mark": table.artefact,
        }
    )  # fmt: skip
    yield Chart(
        "accuracy", "Accuracy", "Mean over runs, with its 95 % interval; hollow: an artefact of the modality's role in the method. "
        "Intervals of two methods may overlap although their difference is certain: that is paired.",
        "intervals", "accuracy, %", "95 % interval", rows[rows.panel.notna()],
        still="" if any(row.missing for row in results.rows) else "figure",
    )  # fmt: skip


def _headings(results: Results, datasets: pd.Series, patterns: pd.Series) -> list[str | None]:
    """What the table calls each pattern; None for one that it has no column of."""
    headings = {
        dataset: columns(modalities, results.experiment.grid.patterns)
        for dataset, modalities in results.modalities.items()
    }
    return [headings[dataset].get(pattern) for dataset, pattern in zip(datasets, patterns, strict=True)]


def _differences(results: Results) -> Iterator[Chart]:
    reference = results.experiment.grid.reference
    others = {(r.dataset, r.protocol, r.training, r.method): against(r, reference) for r in results.rows}
    lines = []
    for line in results.comparisons.itertuples():
        where = line.dataset, line.protocol, line.training
        own = {"panel": line.pattern, "n": line.n, "mark": line.artefact, **dict(zip(WHERE, where, strict=True))}
        if others.get((*where, line.method)) == line.other:
            lines.append(
                {**own, "method": line.method, "value": line.difference, "low": line.ci_low, "high": line.ci_high}
            )
        elif others.get((*where, line.other)) == line.method:
            lines.append(
                {**own, "method": line.other, "value": -line.difference, "low": -line.ci_high, "high": -line.ci_low}
            )
    if not lines:
        return
    place = {row.method: number for number, row in enumerate(results.rows)}
    rows = pd.DataFrame(lines).sort_values("method", key=lambda names: names.map(place), kind="stable")
    rows["panel"] = _headings(results, rows.dataset, rows.panel)
    yield Chart(
        "differences", f"Differences to {reference}", f"Accuracy minus that of {reference} on the same samples and seeds, with its "
        "95 % interval: the two are told apart where it does not touch zero. Grey: one point either way, in practice no difference.",
        "intervals", "difference, points", "95 % interval", rows[rows.panel.notna()], zero=True, still="differences",
    )  # fmt: skip


def _rates(results: Results) -> Iterator[Chart]:
    if results.rates is None:
        return
    curves = results.rates.curves
    # Trained at one rate and tested at others: that is the surface, in rates.csv.
    curves = curves[((curves.evaluation == "matched") | ~(curves.training_rate > 0)) & curves["mean"].notna()]
    trained = np.where(curves.evaluation == "matched", "trained at each rate", "trained: " + curves.training)
    rows = pd.DataFrame(
        {
            "dataset": curves.dataset, "protocol": curves.protocol, "training": curves["mask"], "panel": trained,
            "method": curves.method, "at": curves.rate, "value": curves["mean"], "low": curves.ci_low, "high": curves.ci_high,
            "n": curves.n,
        }
    )  # fmt: skip
    yield Chart(
        "rates", "Accuracy by missing rate", f"Mean over runs. {BANDS}", "lines", "accuracy, %",
        "95 % interval", rows, across="missing rate of the test split", panels="training", still="figure",
    )  # fmt: skip


def _curves(results: Results) -> Iterator[Chart]:
    lines = []
    for row in results.rows:
        where = {"dataset": row.dataset, "protocol": row.protocol, "training": row.training, "method": row.method}
        for measure, name in MEASURES.items():
            scale = 100 if measure.endswith("accuracy") else 1
            values = scale * _by_epoch([column(record, measure) for record in row.records])
            n = (~np.isnan(values)).sum(axis=0)
            epochs = np.flatnonzero(n)
            for epoch in epochs[:: -(-len(epochs) // MOST_EPOCHS) or 1]:
                own = values[:, epoch]
                mean, deviation = np.nanmean(own), np.nanstd(own, ddof=1) if n[epoch] > 1 else np.nan
                numbers = {
                    "at": epoch + 1,
                    "value": mean,
                    "low": mean - deviation,
                    "high": mean + deviation,
                    "n": n[epoch],
                }
                lines.append({**where, "panel": name, **numbers})
    if lines:
        yield Chart(
            "curves", "Training by epoch", "Mean over trials, seeds and folds alike; bands are one standard deviation. Validation is "
            f"with every modality, on the part on which the epoch is chosen. {BANDS}",
            "lines", "value", "± one standard deviation", pd.DataFrame(lines), across=EPOCH, panels="measure", shared=False,
            still="curves",
        )  # fmt: skip


def _by_epoch(trials: Sequence[Sequence[float]]) -> np.ndarray:
    """One row a trial, NaN where it has ended."""
    values = np.full((len(trials), max(map(len, trials), default=0)), np.nan)
    for row, trial in zip(values, trials, strict=True):
        row[: len(trial)] = trial
    return values


# How they are drawn: Vega-Lite, whose data the page's script puts in, panel by panel.


def specification(chart: Chart, styles: dict[str, Style]) -> dict[str, Any]:
    """A panel of a chart, as Vega-Lite has it. Names of methods are in the scales, as data."""
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "data": {"name": "rows"},
        "params": [{"name": "from", "value": 0}, {"name": "to", "value": 1}, {"name": "band", "value": 0}],
        "width": 300,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "config": CONFIG,
        **(_intervals if chart.kind == "intervals" else _lines)(chart, styles),
    }


INK = "currentColor"
CONFIG = {
    "background": None,
    "font": "system-ui, sans-serif",
    "aria": False,  # the page's script reads points to those who do not see them
    "axis": {
        "labelColor": INK, "titleColor": INK, "domainColor": INK, "tickColor": INK, "gridColor": INK, "gridOpacity": 0.12,
        "domainOpacity": 0.4, "tickOpacity": 0.4, "titleFontWeight": "normal", "labelFontSize": 11, "titleFontSize": 11,
        "labelLimit": 130,
    },
    "view": {"stroke": None},
}  # fmt: skip


def _scales(styles: dict[str, Style]) -> dict[str, Any]:
    """Colour, dash and marker by method; colours are the page's, which has them for dark and for light."""
    methods = list(styles)
    own = {
        "color": [f"var(--m{number})" for number in range(len(methods))],
        "strokeDash": [[2 * length for length in style.dash[1]] or [1, 0] for style in styles.values()],
        "shape": [SHAPES[style.marker] for style in styles.values()],
    }
    return {
        channel: {"field": "method", "type": "nominal", "scale": {"domain": methods, "range": values}, "legend": None}
        for channel, values in own.items()
    }


def _number(name: str, title: str = "", bounds: bool = False) -> dict[str, Any]:
    scale: dict[str, Any] = {"zero": False, "nice": False}
    if bounds:
        scale |= {"domainMin": {"expr": "from"}, "domainMax": {"expr": "to"}}
    return {"field": name, "type": "quantitative", "title": title or None, "scale": scale}


def _cursor(encoding: dict[str, Any]) -> dict[str, Any]:
    """A ring about the point that the keyboard is at."""
    mark = {"type": "point", "size": 220, "filled": False, "stroke": INK, "strokeWidth": 2}
    return {"name": "cursor", "data": {"name": "cursor"}, "mark": mark, "encoding": encoding}


def _intervals(chart: Chart, styles: dict[str, Style]) -> dict[str, Any]:
    scales, told = _scales(styles), {"content": "data"}
    y = {"field": "method", "type": "nominal", "sort": None, "title": None, "axis": {"domain": False, "ticks": False}}
    x, low = ({**_number(name, chart.measure, bounds=True), "axis": {"tickCount": 6}} for name in ("value", "low"))
    hollow = {"condition": {"test": "datum.mark", "value": 0}, "value": 1}
    colours = {"fill": scales["color"], "stroke": scales["color"]}
    point = {"y": y, "x": x, **colours, "shape": scales["shape"], "fillOpacity": hollow}
    interval = {"y": y, "x": low, "x2": {"field": "high"}, "color": scales["color"]}
    layers = [
        {"mark": {"type": "rule", "strokeWidth": 2, "tooltip": told}, "encoding": interval},
        {"mark": {"type": "point", "strokeWidth": 1.5, "size": 60, "opacity": 1, "tooltip": told}, "encoding": point},
        _cursor({"y": y, "x": x}),
    ]
    if chart.zero:
        equal = {"data": {"values": [{"low": -1, "high": 1}]}, "mark": {"type": "rect", "color": INK, "opacity": 0.08}}
        zero = {"data": {"values": [{"low": 0}]}, "mark": {"type": "rule", "color": INK, "opacity": 0.6}}
        layers = [
            {**equal, "encoding": {"x": low, "x2": {"field": "high"}}},
            {**zero, "encoding": {"x": low}},
            *layers,
        ]
    return {"height": {"step": 22}, "layer": layers}


def _lines(chart: Chart, styles: dict[str, Style]) -> dict[str, Any]:
    scales = _scales(styles)
    axis = {"format": "~g", "tickCount": 8, **({"tickMinStep": 1} if chart.across == EPOCH else {})}
    x = {**_number("at", chart.across), "axis": axis}
    y = {**_number("value", "", bounds=True), "axis": {"labelFlush": True}}  # no label stands out: panels are as high
    band = {"x": x, "y": _number("low", "", bounds=True), "y2": {"field": "high"}, "color": scales["color"]}
    line = {"x": x, "y": y, "color": scales["color"], "strokeDash": scales["strokeDash"]}
    point = {"x": x, "y": y, "color": scales["color"], "shape": scales["shape"]}
    clear = 1 if chart.shared else 0  # curves by epoch have too many points to draw, but each has its tooltip
    mark = {"type": "point", "filled": True, "size": 40, "opacity": clear, "tooltip": {"content": "data"}}
    return {
        "height": 220,
        "layer": [
            {"mark": {"type": "area", "clip": True, "opacity": {"expr": "band"}}, "encoding": band},
            {"mark": {"type": "line", "strokeWidth": 2}, "encoding": line},
            {"mark": mark, "encoding": point},
            _cursor({"x": x, "y": y}),
        ],
    }
