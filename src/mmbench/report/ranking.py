"""Methods over the data sets of an experiment."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from mmbench.evidence.ranks import FEWEST, friedman, mean_ranks, nemenyi, signed_rank
from mmbench.experiment.space import TUNED
from mmbench.missing import pattern_name, patterns
from mmbench.report.rows import Row

RANK_COLUMNS = (
    "protocol", "method", "other", "rank", "other_rank", "accuracy", "other_accuracy", "p_nemenyi", "p_better", "p_equivalent",
    "p_worse", "p_friedman", "critical", "datasets",
)  # fmt: skip


def accuracies_over(
    table: pd.DataFrame, rows: Sequence[Row], modalities: dict[str, tuple[str, ...]]
) -> dict[str, pd.DataFrame]:
    """Protocol -> accuracy with every modality, by data set (down) and method (across), of models trained on complete data.

    Data sets of which nothing was run are left out, and then methods that were not run on all others. Where settings are tuned, methods
    are compared as tuned: with equal budgets.

    Args:
        table: ``Results.table``.
        rows: ``Results.rows``.
        modalities: of the data sets.
    """
    every = {dataset: pattern_name(patterns(names)[-1]) for dataset, names in modalities.items()}
    tuned = {(row.protocol, row.tuned) for row in rows}
    found = {}
    lines = table[(table.metric == "accuracy") & (table.training == "complete")]
    lines = lines[lines.pattern == lines.dataset.map(every)]
    for protocol in dict.fromkeys(row.protocol for row in rows):
        here = lines[(lines.protocol == protocol) & (lines.method.str.endswith(TUNED) == ((protocol, True) in tuned))]
        wide = here.pivot(index="dataset", columns="method", values="mean").dropna(how="all").dropna(axis=1)
        found[protocol] = wide[[method for method in dict.fromkeys(here.method) if method in wide]]
    return {protocol: wide for protocol, wide in found.items() if len(wide) and wide.shape[1] > 1}


def rank_methods(
    table: pd.DataFrame, rows: Sequence[Row], modalities: dict[str, tuple[str, ...]]
) -> pd.DataFrame | None:
    """Every two methods over the data sets of a protocol, with the columns ``RANK_COLUMNS``; None where there are too few data sets."""
    lines = []
    for protocol, wide in accuracies_over(table, rows, modalities).items():
        if len(wide) < FEWEST:
            continue
        values = wide.to_numpy()
        ranks, means, overall = mean_ranks(values), values.mean(axis=0), friedman(values)
        p, critical = nemenyi(values)
        for i, j in zip(*np.triu_indices(len(ranks), 1), strict=True):
            pair = (wide.columns[i], wide.columns[j], ranks[i], ranks[j], means[i], means[j])
            lines.append(
                (protocol, *pair, p[i, j], *signed_rank(values[:, i] - values[:, j]), overall, critical, len(wide))
            )
    return pd.DataFrame(lines, columns=list(RANK_COLUMNS)) if lines else None


def by_rank(pairs: pd.DataFrame) -> pd.DataFrame:
    """The methods of one protocol's pairs, the best first: method, rank and accuracy."""
    sides = [
        pairs[["method", "rank", "accuracy"]],
        pairs[["other", "other_rank", "other_accuracy"]].set_axis(["method", "rank", "accuracy"], axis=1),
    ]
    return pd.concat(sides).drop_duplicates("method").sort_values("rank", kind="stable", ignore_index=True)
