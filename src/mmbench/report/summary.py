"""What a report found, in a few sentences: which methods are best, which cannot be told from them, and by how much others differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from mmbench.evidence.comparisons import Difference
from mmbench.missing import pattern_name, patterns
from mmbench.report.cells import difference_text

if TYPE_CHECKING:
    from mmbench.report.collect import Results

NOTE = "Two methods are told apart where the 95 % interval of their difference, on the same samples and seeds, does not hold zero."


def summary(results: Results) -> list[tuple[str, str]]:
    """For each data set and protocol, what accuracies with every modality say, after training on complete data: (where, sentences)."""
    table = results.table[(results.table.metric == "accuracy") & (results.table.training == "complete")]
    made = []
    for (dataset, protocol), own in table.groupby(["dataset", "protocol"], sort=False):
        every = pattern_name(patterns(results.modalities[dataset])[-1])
        ranked = own[(own.pattern == every) & own["mean"].notna()].sort_values("mean", ascending=False, kind="stable")
        if len(ranked):
            made.append((f"{dataset}, {protocol}{results.mark(dataset)}", " ".join(_sentences(results, ranked))))
    return made


def _sentences(results: Results, ranked: pd.DataFrame) -> Iterator[str]:
    """Of one data set and protocol, whose methods come the best first."""
    best = ranked.iloc[0]
    yield f"With every modality, {best.method} has the highest accuracy, {best['mean']:.1f} %."
    pairs = results.comparisons
    for name in ("dataset", "protocol", "training", "pattern"):
        pairs = pairs[pairs[name] == best[name]]
    if pairs.empty:
        return
    differences = _from_best(pairs, best.method)
    compared = [method for method in ranked.method if method in differences]
    alike = [method for method in compared if differences[method].inseparable]
    others = [f"{m} ({difference_text(differences[m])})" for m in compared if m not in alike]
    if alike:
        yield f"It cannot be told from {_listed(alike)}."
    if others:
        yield f"{_listed(others)} {'is' if len(others) == 1 else 'are'} so many points below it."
    apart = int(((pairs.ci_low > 0) | (pairs.ci_high < 0)).sum())
    yield f"Of all {len(pairs)} pairs of methods, {apart} are told apart." if len(pairs) > 1 else ""


def _from_best(pairs: pd.DataFrame, best: str) -> dict[str, Difference]:
    """What every other method differs by from the best, by its name."""
    first, second = pairs[pairs.method == best].set_index("other"), pairs[pairs.other == best].set_index("method")
    turned = pd.DataFrame({"mean": -first.difference, "ci_low": -first.ci_high, "ci_high": -first.ci_low})
    as_is = second.rename(columns={"difference": "mean"})[list(turned.columns)]
    lines = pd.concat([turned, as_is]).itertuples()
    return {str(line.Index): Difference(line.mean, line.ci_low, line.ci_high) for line in lines}


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
