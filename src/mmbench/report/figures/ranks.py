"""Mean ranks over data sets, with what is not separated joined."""

from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mmbench.report.collect import Results
from mmbench.report.escape import one_line
from mmbench.report.figures.base import NO_MATHS, WIDTH
from mmbench.report.ranking import by_rank

CRITICAL_AT = 2.0
"""Above the axis, in lines of methods: where the bar lies that is as long as the critical difference, which the title names."""


@matplotlib.rc_context(NO_MATHS)
def draw_ranks(results: Results) -> Figure | None:
    """A critical-difference diagram a protocol: methods by mean rank, those that Nemenyi's test does not separate joined by a bar.

    Returns:
        The figure; None where there are too few data sets.
    """
    if results.ranks is None:
        return None
    from scikit_posthocs import critical_difference_diagram

    groups = [(str(protocol), pairs) for protocol, pairs in results.ranks.groupby("protocol", sort=False)]
    heights = [0.9 + 0.16 * len(by_rank(pairs)) for _, pairs in groups]
    figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
    panels = figure.subplots(len(groups), squeeze=False, height_ratios=heights).ravel()
    for panel, (protocol, pairs) in zip(panels, groups, strict=True):
        methods = by_rank(pairs)
        names = [one_line(method) for method in methods.method]
        place = {method: k for k, method in enumerate(methods.method)}
        p = np.ones((len(names), len(names)))
        for line in pairs.itertuples():
            i, j = place[line.method], place[line.other]
            p[i, j] = p[j, i] = line.p_nemenyi
        critical_difference_diagram(
            pd.Series(methods["rank"].to_numpy(), index=names), pd.DataFrame(p, index=names, columns=names), ax=panel,
            label_fmt_left="{label}  {rank:.2f}", label_fmt_right="{rank:.2f}  {label}", label_props={"fontsize": 8},
            color_palette=["black"] * len(names), marker_props={"s": 8}, elbow_props={"linewidth": 0.8},
            crossbar_props={"color": "black", "linewidth": 2.5},
        )  # fmt: skip
        critical = float(pairs.critical.iloc[0])
        panel.plot([1, 1 + critical], [CRITICAL_AT] * 2, color="black", lw=1.2, marker="|", ms=5, clip_on=False)
        panel.set_xticks(range(1, len(names) + 1))
        panel.spines["top"].set_bounds(1, len(names))
        panel.tick_params(labelsize=7)
        title = f"{protocol}, {pairs.datasets.iloc[0]} data sets, critical difference {critical:.2f}"
        panel.set_title(title, loc="left", fontsize=9)
    return figure
