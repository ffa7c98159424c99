"""What a report found, in a few sentences: which methods are best, which cannot be told from them, and by how much others differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from mmbench.evidence.comparisons import Difference
from mmbench.experiment.space import TUNED
from mmbench.missing import pattern_name, patterns
from mmbench.report.comparison_tables import Pairs
from mmbench.report.ranking import by_rank
from mmbench.report.rows import Row

if TYPE_CHECKING:
    from mmbench.report.collect import Results

NOTE = (
    "Two methods are told apart where the 95 % interval of their difference (in square brackets), on the same samples and seeds, does "
    "not hold zero."
)


def summary(results: Results) -> list[tuple[str, str]]:
    """What accuracies with every modality say, data set by data set, then over all of them: (where, sentences).

    Methods are compared with those that are trained alike: on complete data where there are such, else in each way there is; and those
    of default settings and tuned ones each among themselves.
    """
    found = []
    for dataset, protocol in dict.fromkeys((row.dataset, row.protocol) for row in results.rows):
        rows = [row for row in results.rows if (row.dataset, row.protocol) == (dataset, protocol)]
        where = f"{dataset}, {protocol}{results.mark(dataset)}"
        shown = [row for row in rows if row.missing is None] or [r for r in rows if r.missing and r.missing.train_only]
        trained = shown and {row.training for row in rows} != {"complete"}
        for training, tuned in dict.fromkeys((row.training, row.tuned) for row in shown):
            own = [row for row in shown if (row.training, row.tuned) == (training, tuned)]
            setting = f", trained: {training}" if trained else ""
            if any(row.tuned for row in shown):
                setting += ", tuned" if tuned else ", default"
            found.append((where + setting, " ".join(_sentences(results, own))))
        matched = [row for row in rows if row.missing and not row.missing.train_only and row.seeds]
        masks = dict.fromkeys(row.missing.family for row in matched if row.missing)
        tables = [f"“{where}, missing rates ({mask}), matched”" for mask in masks]
        if tables:
            found.append(
                (where, f"What is trained at missing rates is in the table{'s' * (len(tables) > 1)} {_listed(tables)}.")
            )
    return [*found, *_over_data_sets(results)]


def _sentences(results: Results, rows: Sequence[Row]) -> Iterator[str]:
    """Of methods of one data set and protocol that may be compared with each other."""
    first = rows[0]
    every = pattern_name(patterns(results.modalities[first.dataset])[-1])
    table = results.table[(results.table.metric == "accuracy") & (results.table.pattern == every)]
    for name in ("dataset", "protocol", "training"):
        table = table[table[name] == getattr(first, name)]
    means = table.set_index("method")["mean"]
    done = [row for row in rows if not np.isnan(means[row.method]) and every not in row.artefacts]
    ranked = sorted(done, key=lambda row: -means[row.method])
    if len(ranked) == 1:
        yield f"With every modality, {_name(ranked[0])} has an accuracy of {means[ranked[0].method]:.1f} %."
    elif ranked:
        best = ranked[0]
        yield f"With every modality, {_name(best)} has the highest accuracy, {means[best.method]:.1f} %."
        yield from _compared(Pairs(results, first.dataset, first.protocol), ranked, every)
    without: dict[str, list[str]] = {}
    for row in rows:
        if not row.seeds:
            reasons = dict.fromkeys(tried.status for tried in row.trials if tried.status != "done")
            without.setdefault(" or ".join(reasons) or "not run", []).append(_name(row))
    if without:
        yield f"Without a result: {'; '.join(f'{_listed(names)} ({why})' for why, names in without.items())}."


def _compared(pairs: Pairs, ranked: Sequence[Row], every: str) -> Iterator[str]:
    """How methods, the best first, differ with every modality."""
    best, *others = ranked
    to_best = [(_name(row), pair.difference) for row in others if (pair := pairs.between(best, row, every))]
    alike = [name for name, difference in to_best if difference.inseparable]
    below = [f"{name} ({_points(difference)})" for name, difference in to_best if not difference.inseparable]
    if alike:
        yield f"It cannot be told from {_listed(alike)}."
    if below:
        yield f"{_listed(below)} {'is' if len(below) == 1 else 'are'} so many points below it."
    found = [pairs.between(one, other, every) for one, other in combinations(ranked, 2)]
    known = [pair for pair in found if pair is not None and pair.tested]
    apart = sum(pair.difference.separable for pair in known)
    if len(known) > 1:
        yield f"Of all {len(known)} pairs of methods, {apart} {'is' if apart == 1 else 'are'} told apart."


def _over_data_sets(results: Results) -> Iterator[tuple[str, str]]:
    """Mean ranks, where there are data sets enough."""
    if results.ranks is None:
        return
    mark = "".join(dict.fromkeys(results.mark(dataset) for dataset in results.modalities))
    for protocol, pairs in results.ranks.groupby("protocol", sort=False):
        methods, line = by_rank(pairs), pairs.iloc[0]
        tuned = TUNED if methods.method.str.endswith(TUNED).all() else ""
        ranks = [f"{line.method.removesuffix(tuned)} ({line.rank:.2f})" for line in methods.itertuples()]
        test = (
            "" if np.isnan(line.p_friedman) else f" Friedman's test that all are the same: p = {line.p_friedman:.2g}."
        )
        yield (
            f"{line.datasets} data sets, {protocol}{mark}{tuned}",
            f"Mean ranks by accuracy with every modality, 1 for the best: {_listed(ranks)}.{test}",
        )


def _name(row: Row) -> str:
    """Of a method among others that are tuned, if it is."""
    return row.method.removesuffix(TUNED) if row.tuned else row.method


def _points(d: Difference) -> str:
    interval = "" if np.isnan(d.low) else f" [{d.low:.1f}, {d.high:.1f}]"
    return f"{d.mean:.1f}{interval}".replace("-", "−")


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
