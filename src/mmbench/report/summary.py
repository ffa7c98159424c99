"""What a report found, in a few sentences: which methods are best, which cannot be told from them, which differ from the reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from mmbench.missing import pattern_name, patterns
from mmbench.report.cells import difference_text

if TYPE_CHECKING:
    from mmbench.report.collect import Results

CELL = ["dataset", "protocol", "training"]


def summary(results: Results) -> list[str]:
    """A sentence or two for each data set and protocol, on accuracy with every modality after training on complete data."""
    table = results.table[(results.table.metric == "accuracy") & (results.table.training == "complete")]
    return [
        " ".join(_sentences(results, own[own.pattern == _every(results, dataset)], f"{dataset}, {protocol}"))
        for (dataset, protocol), own in table.groupby(["dataset", "protocol"], sort=False)
        if own["mean"].notna().any()
    ]


def _every(results: Results, dataset: str) -> str:
    return pattern_name(patterns(results.modalities[dataset])[-1])


def _sentences(results: Results, table: pd.DataFrame, where: str) -> list[str]:
    """Of one data set and protocol: what is best, what is not separable from it, and how the others differ."""
    ranked = table[table["mean"].notna() & (table.artefact == "")].sort_values("mean", ascending=False, kind="stable")
    if ranked.empty:
        return []
    best = ranked.iloc[0]
    lines = [f"{where}{results.mark(best.dataset)}: with every modality, {best.method} has the highest accuracy, {best['mean']:.1f} %."]
    pairs = _differences(results, best)
    alike = [method for method in ranked.method if method in pairs.index and not _separated(pairs.loc[method])]
    less = [method for method in ranked.method if method in pairs.index and _separated(pairs.loc[method])]
    if alike:
        lines.append(f"It cannot be told from {_listed(alike)}: the 95 % intervals of their differences hold zero.")
    if less:
        told = [f"{method} ({difference_text(pairs.loc[method])})" for method in less]
        lines.append(f"Told apart from it {'is' if len(less) == 1 else 'are'}, in points of accuracy, {_listed(told)}.")
    return lines


def _differences(results: Results, best: pd.Series) -> pd.DataFrame:
    """Of every other method to the best: the mean and its interval, by method."""
    pairs = results.comparisons
    for name in (*CELL, "pattern"):
        pairs = pairs[pairs[name] == best[name]]
    first = pairs[pairs.method == best.method].set_index("other")
    second = pairs[pairs.other == best.method].set_index("method")
    return pd.concat(
        [
            pd.DataFrame({"mean": -first.difference, "ci_low": -first.ci_high, "ci_high": -first.ci_low}),
            pd.DataFrame({"mean": second.difference, "ci_low": second.ci_low, "ci_high": second.ci_high}),
        ]
    )


def _separated(line: pd.Series) -> bool:
    return bool(line.ci_low > 0 or line.ci_high < 0)


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
