"""Figures: the table as intervals, and accuracy by missing rate as curves."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mmbench.missing import pattern_name, patterns
from mmbench.report.cells import ARTEFACT
from mmbench.report.collect import Results
from mmbench.report.escape import one_line
from mmbench.report.rates import Rates
from mmbench.report.tables import columns
from mmbench.report.tuning import Tuning

ROLE = f"{ARTEFACT} artefact of a role"


NO_MATHS: Any = {"text.parse_math": False}
"""A dollar sign in a name is a dollar sign."""


PROTOCOL_COLOURS = {
    "clean": "#0072B2",
    "peek": "#009E73",
    "legacy": "#D55E00",
}  # Okabe and Ito's, told apart by colour-blind readers


MARKERS = {"clean": "o", "peek": "s", "legacy": "D"}


@matplotlib.rc_context(NO_MATHS)
def draw(results: Results) -> Figure:
    """Draw accuracies with their 95 % intervals: a row of panels a data set, a panel a column of its table.

    Scores that are artefacts of a role are hollow.
    """
    accuracy = results.table[(results.table.metric == "accuracy") & (results.table.training == "complete")]
    methods = list(dict.fromkeys(row.method for row in results.rows))
    headings = {d: columns(m, results.experiment.grid.patterns) for d, m in results.modalities.items()}
    widest = max(len(names) for names in headings.values())
    figure = Figure(
        figsize=(min(2.3 * widest, 12.0) + 1.2, (0.32 * len(methods) + 1.3) * len(results.modalities) + 0.4),
        layout="constrained",
    )
    panels = figure.subplots(len(results.modalities), widest, squeeze=False, sharey=True, sharex="row")
    for axes, (dataset, names) in zip(panels, headings.items(), strict=True):
        here, mark = accuracy[accuracy.dataset == dataset], results.mark(dataset)
        for i, panel in enumerate(axes):
            if i >= len(names):
                panel.set_visible(False)
                continue
            pattern, title = list(names.items())[i]
            _panel(panel, here[here.pattern == pattern], methods)
            size = 10 if widest < 6 else 8
            panel.set_title(title, fontsize=size)
            if i == 0 and (len(results.modalities) > 1 or mark):  # a line above the patterns' names
                panel.set_title(f"{dataset}{mark}\n", loc="left", fontsize=size)
        _majority(axes[: len(names)], results, dataset)
        axes[0].set_yticks(range(len(methods)), [one_line(m) for m in methods])
        axes[0].set_ylim(len(methods) - 0.5, -0.5)
    named = {
        label: handle for panel in panels.flat for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    if named:
        figure.legend(
            list(named.values()),
            list(named),
            loc="outside upper center",
            ncols=min(4, len(named)),
            frameon=False,
            fontsize=9,
        )
    figure.supxlabel("accuracy, % (mean over seeds, 95 % interval)", fontsize=9)
    return figure


def _panel(panel: Axes, values: pd.DataFrame, methods: list[str]) -> None:
    protocols = list(dict.fromkeys(values.protocol))
    for j, protocol in enumerate(protocols):
        rows = values[(values.protocol == protocol) & values["mean"].notna()]
        if rows.empty:
            continue
        y = np.array([methods.index(m) for m in rows.method]) + 0.24 * (j - (len(protocols) - 1) / 2)
        spread = np.stack([rows["mean"] - rows.ci_low, rows.ci_high - rows["mean"]]).clip(min=0)
        for hollow in (False, True):
            here = (rows.artefact != "").to_numpy() == hollow
            if hollow and not here.any():
                continue
            panel.errorbar(
                rows["mean"][here],
                y[here],
                xerr=spread[:, here],
                fmt=MARKERS[protocol],
                color=PROTOCOL_COLOURS[protocol],
                mfc="white" if hollow else None,
                ms=4.5,
                lw=0.6 if hollow else 1.2,
                label=ROLE if hollow else protocol,
            )
    panel.grid(axis="x", color="0.9", lw=0.8)
    panel.set_axisbelow(True)
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.tick_params(axis="y", length=0)
    panel.tick_params(labelsize=9)


def _majority(axes: Sequence[Axes], results: Results, dataset: str) -> None:
    """A line where always answering with the most frequent class would be."""
    shares = [t.majority for (name, _), t in results.tests.items() if name == dataset]
    if shares:
        for i, panel in enumerate(axes):
            panel.axvline(
                float(np.mean(shares)), color="0.6", lw=1, ls=":", label="most frequent class" if i == 0 else None
            )


def render(figure: Figure, kind: str) -> bytes:
    """The figure as ``svg`` or ``png`` bytes; the same numbers give the same bytes."""
    buffer = io.BytesIO()
    settings: Any = {"svg.hashsalt": "mmbench", "svg.fonttype": "none", "font.family": "DejaVu Sans", **NO_MATHS}
    with matplotlib.rc_context(settings):
        figure.savefig(buffer, format=kind, dpi=160, metadata={"Date": None} if kind == "svg" else None)
    return buffer.getvalue()


COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#000000")
"""Okabe and Ito's, told apart by colour-blind readers; line styles tell them apart once more."""


STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)))


LINES_A_PANEL = 4


WIDTH = 7.0
"""Inches: the text width of a paper's page."""


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
        low, high = _limits(values)
        for panel, chunk in zip(axes, chunks, strict=False):
            for method in methods:
                line = values[values.method == method]
                if method not in chunk:
                    panel.plot(line.rate, line["mean"], color="0.85", lw=0.8, zorder=1)
            ends = [_curve(panel, values[values.method == m], m, i) for i, m in enumerate(chunk)]
            _label(panel, [end for end in ends if end], low, high)
            panel.set_ylim(low, high)
            _tidy(panel)
            if len(groups) > 1 or values.track.iloc[0]:
                panel.set_title(_where(values.iloc[0]), fontsize=8, loc="left")
        for panel in axes[len(chunks) :]:
            panel.set_visible(False)
    figure.supxlabel(across, fontsize=9)
    figure.supylabel(up, fontsize=9)
    return figure


def _curve(panel: Axes, line: pd.DataFrame, name: str, number: int) -> tuple[float, float, str, str] | None:
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


def _label(panel: Axes, ends: Sequence[tuple[float, float, str, str]], low: float, high: float) -> None:
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


def _limits(values: pd.DataFrame) -> tuple[float, float]:
    std = values["std"].fillna(0)
    everything = pd.concat([values["mean"] - std, values["mean"] + std, values.reported.dropna()])
    margin = 0.04 * (everything.max() - everything.min()) + 0.5
    return everything.min() - margin, everything.max() + margin


def _tidy(panel: Axes) -> None:
    panel.grid(axis="y", color="0.92", lw=0.7)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)
    panel.tick_params(labelsize=8)


def _where(line: pd.Series) -> str:
    """Of a line of the curves: data set, protocol and mask, and what sets its numbers apart."""
    track = line["track"].replace("made up", "MADE UP")
    return ", ".join(part for part in (*line[["dataset", "protocol", "mask"]], track) if part)


@matplotlib.rc_context(NO_MATHS)
def draw_surface(rates: Rates) -> Figure | None:
    """Accuracy by training rate (down) and test rate (across), a panel a method, one colour scale; None if nothing was run."""
    every = rates.curves[(rates.curves.evaluation == "robustness") & rates.curves["mean"].notna()]
    every = every[every.training_rate.notna()]
    cells = [
        ((_where(g.iloc[0]), key[-1]), g.pivot(index="training_rate", columns="rate", values="mean").sort_index())
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


@matplotlib.rc_context(NO_MATHS)
def draw_training(results: Results) -> Figure | None:
    """Accuracies where one modality is masked in training alone, against its rate: a column of panels a modality, a row a method."""
    masked = [
        r for r in results.rows if r.missing and r.missing.rates and r.missing.train_only and len(r.missing.rates) == 1
    ]
    if not any(row.records for row in masked):
        return None
    accuracy = results.table[results.table.metric == "accuracy"].set_index(
        ["dataset", "protocol", "method", "training", "pattern"]
    )
    across = list(
        dict.fromkeys((r.dataset, r.protocol, next(iter(r.missing.rates or {}))) for r in masked if r.missing)
    )
    methods = list(dict.fromkeys(r.method for r in masked))
    figure = Figure(figsize=(WIDTH, 2.2 * len(methods) + 0.4), layout="constrained")
    panels = figure.subplots(len(methods), len(across), squeeze=False, sharex=True, sharey=True)
    complete = {(r.dataset, r.protocol, r.method) for r in results.rows if r.missing is None and r.records}
    ends: dict[Axes, list[tuple[float, float, str, str]]] = {}
    for (dataset, protocol, modality), column in zip(across, panels.T, strict=True):
        modalities = results.modalities[dataset]
        for method, panel in zip(methods, column, strict=True):
            here = [
                (rates[modality], r.training)
                for r in masked
                if (r.dataset, r.protocol, r.method) == (dataset, protocol, method) and r.records
                and modality in (rates := (r.missing.rates if r.missing else None) or {})
            ]  # fmt: skip
            if (dataset, protocol, method) in complete:
                here.append((0.0, "complete"))
            lines = []
            for number, pattern in enumerate([*modalities, pattern_name(patterns(modalities)[-1])]):
                line = pd.DataFrame(
                    [
                        {
                            "rate": rate,
                            **accuracy.loc[(dataset, protocol, method, training, pattern)],
                            "reported": np.nan,
                        }
                        for rate, training in sorted(here)
                    ]
                )
                if len(line):
                    label = "multi" if number == len(modalities) else pattern
                    label += f" {ARTEFACT}" if line.artefact.any() else ""
                    lines.append(_curve(panel, line, label, number))
            ends[panel] = [line for line in lines if line]
            _tidy(panel)
            mark = results.mark(dataset)
            where = f"{dataset}{mark}, " if mark or len({d for d, _, _ in across}) > 1 else ""
            panel.set_title(f"{method}, {where}{modality} masked", fontsize=8, loc="left")
    for panel, labels in ends.items():  # now that the limits, which all panels share, are known
        _label(panel, labels, *panel.get_ylim())
    figure.supxlabel("share of the training samples from which the modality is taken", fontsize=9)
    figure.supylabel("accuracy, % (complete test split)", fontsize=9)
    return figure
