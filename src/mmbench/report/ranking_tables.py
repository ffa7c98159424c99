"""Methods over several data sets, as tables."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from mmbench.evidence.ranks import FEWEST
from mmbench.experiment.space import TUNED
from mmbench.report.cells import DASH, Cell, Section
from mmbench.report.collect import Results
from mmbench.report.ranking import accuracies_over, by_rank


def of_ranks(results: Results) -> Iterator[Section]:
    """For each protocol under which there are data sets enough: mean ranks, and every method against the reference."""
    if results.ranks is None:
        return
    for protocol, pairs in results.ranks.groupby("protocol", sort=False):
        methods, count = by_rank(pairs), int(pairs.datasets.iloc[0])
        reference = results.experiment.grid.reference
        if methods.method.str.endswith(TUNED).all():
            reference += TUNED
        chances = {
            line.method: (line.p_better, line.p_equivalent, line.p_worse)
            for line in pairs[pairs.other == reference].itertuples()
        }
        chances |= {
            line.other: (line.p_worse, line.p_equivalent, line.p_better)
            for line in pairs[pairs.method == reference].itertuples()
        }
        body = [
            [
                Cell(line.method),
                Cell(f"{line.rank:.2f}"),
                Cell(f"{line.accuracy:.1f}"),
                *(Cell(DASH if line.method not in chances else f"{chances[line.method][k]:.2f}") for k in range(3 * bool(chances))),
            ]
            for line in methods.itertuples()
        ]  # fmt: skip
        header = ["method", "mean rank", "mean accuracy", *(["better", "equivalent", "worse"] if chances else [])]
        mark = "".join(dict.fromkeys(results.mark(dataset) for dataset in results.modalities))
        yield Section(
            f"{count} data sets, {protocol}{mark}, mean ranks",
            _notes(results, pairs, reference, bool(chances)),
            header,
            body,
        )


def _notes(results: Results, pairs: pd.DataFrame, reference: str, compared: bool) -> list[str]:
    """What the ranks are, and how many pairs they separate."""
    line = pairs.iloc[0]
    apart = int((pairs.p_nemenyi < 0.05).sum())
    friedman = (
        "" if np.isnan(line.p_friedman) else f" Friedman's test that all are the same: p = {line.p_friedman:.2g}."
    )
    notes = [
        f"Rank by accuracy with every modality, 1 for the best, mean over data sets.{friedman} Two methods are separated "
        f"(Nemenyi's test) where their mean ranks differ by more than {line.critical:.2f}: {apart} of {len(pairs)} pairs."
    ]
    if compared:
        notes.append(
            "better, equivalent, worse: the probabilities that on a data set to come its accuracy is more than one point above "
            f"that of {reference}, within one point of it, or more than one below (Bayesian signed-rank test, Benavoli et al. 2017)."
        )
    wide = accuracies_over(results.table, results.rows, results.modalities)[line.protocol]
    if len({results.experiment.grid.dataset_of(label) for label in wide.index}) < len(wide):
        notes.append("Some are variants of one data set, which say less than as many data sets.")
    return notes


def too_few(results: Results) -> list[str]:
    """That several data sets are too few for tests over them, where that is so."""
    counts = [len(wide) for wide in accuracies_over(results.table, results.rows, results.modalities).values()]
    most = max(counts, default=0)
    if not 1 < most < FEWEST:
        return []
    return [
        f"{most} data sets are too few to test methods over data sets, which takes {FEWEST}: compare them within each."
    ]
