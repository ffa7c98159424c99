"""Accuracy where one modality is masked in training alone."""

from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmbench.missing import pattern_name, patterns
from mmbench.report.cells import ARTEFACT
from mmbench.report.collect import Results
from mmbench.report.figures.base import NO_MATHS, WIDTH, curve, name_ends, tidy


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
                    lines.append(curve(panel, line, label, number))
            ends[panel] = [line for line in lines if line]
            tidy(panel)
            mark = results.mark(dataset)
            where = f"{dataset}{mark}, " if mark or len({d for d, _, _ in across}) > 1 else ""
            panel.set_title(f"{method}, {where}{modality} masked", fontsize=8, loc="left")
    for panel, labels in ends.items():  # now that the limits, which all panels share, are known
        name_ends(panel, labels, *panel.get_ylim())
    figure.supxlabel("share of the training samples from which the modality is taken", fontsize=9)
    figure.supylabel("accuracy, % (complete test split)", fontsize=9)
    return figure
