"""The main table as intervals."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmbench.report.cells import ARTEFACT, columns
from mmbench.report.collect import Results
from mmbench.report.escape import one_line
from mmbench.report.figures.base import NO_MATHS, fitting

ROLE = f"{ARTEFACT} artefact of a role"


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
            ncols=fitting(list(named), 4, figure.get_figwidth(), size=9),
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
    """Lines where always answering with the most frequent class would be: one in grey, or each protocol's own where they differ."""
    shares: dict[float, list[str]] = {}
    for (name, protocol), facts in results.tests.items():
        if name == dataset:
            shares.setdefault(facts.majority, []).append(protocol)
    for share, protocols in shares.items():
        alike = len(shares) == 1
        colour = "0.6" if alike else PROTOCOL_COLOURS[protocols[0]]
        label = "most frequent class" if alike else f"most frequent class, {' and '.join(protocols)}"
        for i, panel in enumerate(axes):
            panel.axvline(share, color=colour, lw=1, ls=":", label=label if i == 0 else None)
