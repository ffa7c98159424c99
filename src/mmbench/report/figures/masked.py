"""Accuracy where one modality is masked in training alone."""

from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mmbench.missing import pattern_name, patterns
from mmbench.report.cells import ARTEFACT
from mmbench.report.collect import Results, Row
from mmbench.report.colours import palette
from mmbench.report.escape import one_line
from mmbench.report.figures.base import BAND, NO_MATHS, WIDTH, End, curve, key, name_ends, names, tidy, with_band
from mmbench.report.figures.rates import FREQUENT

MULTI = "multi"


def masked_alone(row: Row) -> dict[str, float] | None:
    """The one modality that a row's training lacks, and its rate; None of another row."""
    missing = row.missing
    return missing.rates if missing and missing.train_only and missing.rates and len(missing.rates) == 1 else None


@matplotlib.rc_context(NO_MATHS)
def draw_training(results: Results) -> Figure | None:
    """Accuracies where one modality is masked in training alone, against its rate: a column of panels a modality, a row a method."""
    masked = [(row, rates) for row in results.rows if (rates := masked_alone(row))]
    if not any(row.records for row, _ in masked):
        return None
    across = list(dict.fromkeys((row.dataset, row.protocol, next(iter(rates))) for row, rates in masked))
    methods = list(dict.fromkeys(row.method for row, _ in masked))
    figure = Figure(figsize=(WIDTH, 2.2 * len(methods) + 0.7), layout="constrained")
    panels = figure.subplots(len(methods), len(across), squeeze=False, sharex=True, sharey=True)
    ends: dict[Axes, list[End]] = {}
    bands = False
    for (dataset, protocol, modality), column in zip(across, panels.T, strict=True):
        mark = results.mark(dataset)
        where = f"{dataset}{mark}, " if mark or len({d for d, _, _ in across}) > 1 else ""
        for method, panel in zip(methods, column, strict=True):
            lines = _lines(results, dataset, protocol, method, modality)
            styles = palette(list(lines))
            drawn = [curve(panel, line, one_line(name), styles[name]) for name, line in lines.items()]
            ends[panel] = [end for end in drawn if end]
            bands |= any(line.low.notna().any() for line in lines.values())
            if (dataset, protocol) in results.tests:
                panel.axhline(results.tests[dataset, protocol].majority, zorder=1, **FREQUENT)
            tidy(panel)
            panel.set_title(f"{names([method])[0]}, {one_line(where)}{modality} masked", fontsize=8, loc="left")
    for panel, labels in ends.items():  # now that the limits, which all panels share, are known
        name_ends(panel, labels, *panel.get_ylim())
    key(figure, [Line2D([], [], **FREQUENT), *[BAND] * bands])
    figure.supxlabel("share of the training samples from which the modality is taken", fontsize=9)
    figure.supylabel("accuracy, % (complete test split)", fontsize=9)
    return figure


def _lines(results: Results, dataset: str, protocol: str, method: str, modality: str) -> dict[str, pd.DataFrame]:
    """Accuracy by rate of each modality alone and of all, by what the line is called; nothing if nothing was run."""
    trainings = {
        0.0 if row.missing is None else rates[modality]: row.training
        for row in results.rows
        if (row.dataset, row.protocol, row.method) == (dataset, protocol, method) and row.records
        and (row.missing is None or modality in (rates := masked_alone(row) or {}))
    }  # fmt: skip
    table = results.table
    here = table[
        (table.metric == "accuracy") & (table.dataset == dataset) & (table.protocol == protocol)
        & (table.method == method) & table.training.isin(trainings.values())
    ]  # fmt: skip
    rate_of = {training: rate for rate, training in trainings.items()}
    here = here.assign(rate=here.training.map(rate_of), reported=np.nan).sort_values("rate")
    modalities = results.modalities[dataset]
    lines = {}
    for name, pattern in [*((m, m) for m in modalities), (MULTI, pattern_name(patterns(modalities)[-1]))]:
        line = with_band(here[here.pattern == pattern])
        if len(line):
            lines[f"{name} {ARTEFACT}" if line.artefact.any() else name] = line
    return lines
