"""Differences of two methods, or of two protocols, with intervals.

What two methods get right on the same samples goes up and down together: an easy resample is easy for both. So the interval of their
difference, from the same resamples, is much narrower than those of the two accuracies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations

import numpy as np

from mmbench.evidence.accuracy import twins
from mmbench.evidence.resampling import RESAMPLES, resamples
from mmbench.record import Predictions

EQUIVALENT = 1.0
"""Points of accuracy: a difference of no more makes none in practice."""
ROUNDING = 9
"""Digits of a difference that are more than how its sums were taken: equal accuracies differ by nothing."""


@dataclass(frozen=True)
class Difference:
    """A difference of accuracies, in points, and its 95 % percentile interval."""

    mean: float
    low: float
    high: float

    @property
    def separable(self) -> bool:
        """Whether the interval leaves out zero."""
        return bool(self.low > 0 or self.high < 0)

    @property
    def inseparable(self) -> bool:
        """Whether the interval holds zero; without an interval it is neither."""
        return bool(self.low <= 0 <= self.high)


def difference(
    one: Sequence[Predictions], other: Sequence[Predictions], pattern: int = -1, paired: bool = True
) -> Difference:
    """The accuracy of ``one`` minus that of ``other``, resampled over groups of test samples and over seeds.

    Args:
        one: predictions, one a seed.
        other: those that they are compared with; if paired, of the same samples and of as many seeds, in the same order.
        pattern: number of the presence pattern; the last one has every modality.
        paired: resample both alike. False for other samples, of which each is resampled by itself.

    Returns:
        The difference; of a single group of samples, which says nothing of others, the interval is NaN.

    Raises:
        ValueError: paired, of other samples or of another number of seeds.
    """
    first, second = (_sums(predictions, pattern) for predictions in (one, other))
    if paired and not (len(one) == len(other) and np.array_equal(first[1], second[1])):
        raise ValueError("a paired difference is of the same samples and of as many seeds")
    draws = _draws(*first, stream=0) - _draws(*second, stream=0 if paired else 1)
    low, high = np.percentile(draws, [2.5, 97.5]) if min(len(first[1]), len(second[1])) > 1 else (np.nan, np.nan)
    means = [100 * hits.sum() / (len(hits) * sizes.sum()) for hits, sizes in (first, second)]
    return Difference(float(means[0] - means[1]), float(low), float(high))


def _sums(predictions: Sequence[Predictions], pattern: int) -> tuple[np.ndarray, np.ndarray]:
    """Hits (S, G) by seed and group, and the groups' sizes (G,), in the order of their numbers."""
    groups, member = np.unique(predictions[0].group, return_inverse=True)
    hits = [np.bincount(member, p.predicted[pattern] == p.label, len(groups)) for p in predictions]
    return np.stack(hits), np.bincount(member)


def _draws(hits: np.ndarray, sizes: np.ndarray, stream: int) -> np.ndarray:
    """The accuracy, in percent, of each resample: (R,)."""
    weights, chosen = resamples(len(sizes), len(hits), stream)
    return 100 * (((weights @ hits.T) / (weights @ sizes)[:, None]) * chosen).sum(axis=1)


@dataclass(frozen=True)
class Hits:
    """What one method got right, which is all that a comparison needs of its predictions.

    Attributes:
        patterns: P names.
        seeds: S, of its runs.
        twins: for each of them the position of the first with the same predictions.
        counts: (S, P, G) hits by seed, pattern and group of test samples.
        groups: (G,) numbers of the groups.
        sizes: (G,) how many samples they have.
        given: (P,) bool, whether there are predictions under the pattern.
    """

    patterns: list[str]
    seeds: list[int]
    twins: list[int]
    counts: np.ndarray
    groups: np.ndarray
    sizes: np.ndarray
    given: np.ndarray

    @classmethod
    def of(cls, seeds: Sequence[int], predictions: Sequence[Predictions]) -> Hits:
        """From predictions, one a seed, of the same samples; at least one."""
        groups, member = np.unique(predictions[0].group, return_inverse=True)
        sizes = np.bincount(member)
        counts = [[np.bincount(member, right, len(groups)) for right in p.predicted == p.label] for p in predictions]
        small = np.array(counts).astype(np.min_scalar_type(int(sizes.max())))  # they are kept for all methods at once
        first = predictions[0]
        return cls(first.pattern_names, list(seeds), twins(predictions), small, groups, sizes, first.given)

    def samples_of(self, other: Hits) -> bool:
        """Whether both are of the same test samples, as far as groups tell."""
        return np.array_equal(self.groups, other.groups) and np.array_equal(self.sizes, other.sizes)


def shared_seeds(one: Hits, other: Hits) -> tuple[int, ...]:
    """The seeds that two methods are compared over: those that both have.

    Seeds for which each of the two predicts what it predicted for an earlier one say nothing new, and are left out.
    """
    kept: dict[tuple[int, int], int] = {}
    for seed in one.seeds:
        if seed in other.seeds:
            kept.setdefault((one.twins[one.seeds.index(seed)], other.twins[other.seeds.index(seed)]), seed)
    return tuple(kept.values())


@dataclass(frozen=True)
class Comparisons:
    """Pairs of methods, under P patterns and, last, in the mean over them: accuracy of the first minus that of the second, in points.

    Attributes:
        pairs: (Q, 2) positions of the methods, the first before the second.
        difference: (Q, P + 1).
        low: (Q, P + 1), of its 95 % percentile interval.
        high: (Q, P + 1), of the same.
        better: (Q, P + 1) share of the resamples in which the first is better.
        equivalent: (Q, P + 1) share of them in which they differ by one point at most.
        p: (Q, P + 1), two-sided, at least one in so many resamples: twice the share that is on the wrong side of zero.
        n: (Q,) how many seeds it is over.

    Of a single group of test samples, which says nothing of others, all but the difference is NaN; all of it is where one of the two
    has no predictions under the pattern.
    """

    pairs: np.ndarray
    difference: np.ndarray
    low: np.ndarray
    high: np.ndarray
    better: np.ndarray
    equivalent: np.ndarray
    p: np.ndarray
    n: np.ndarray


def compare_all(methods: Sequence[Hits | None]) -> Comparisons:
    """Compare every two methods, resampled alike over groups of test samples and over seeds.

    A method's accuracies are resampled once; what a pair adds is a subtraction.

    Args:
        methods: of one data set and protocol; None for one without a run. Pairs without a common seed, or of other samples, are
            left out.
    """

    @cache
    def by_seed(method: int) -> np.ndarray:
        """Accuracies: of all samples, and of each resample of the groups: (R + 1, S, P)."""
        hits = methods[method]
        assert hits is not None
        weights = resamples(len(hits.sizes), 1)[0]
        weights = np.concatenate([np.ones((1, weights.shape[1])), weights])
        counts = hits.counts.reshape(-1, len(hits.sizes)).astype(float)
        right = weights @ counts.T / (weights @ hits.sizes)[:, None]
        return np.where(hits.given, 100 * right.reshape(len(weights), *hits.counts.shape[:2]), np.nan)

    @cache
    def over(method: int, seeds: tuple[int, ...]) -> np.ndarray:
        """The same, over seeds, which are resampled too, and with the mean over patterns: (P + 1, R + 1)."""
        hits = methods[method]
        assert hits is not None
        chosen = resamples(len(hits.sizes), len(seeds))[1]
        chosen = np.concatenate([np.full((1, len(seeds)), 1 / len(seeds)), chosen])
        own = by_seed(method)[:, [hits.seeds.index(seed) for seed in seeds]]
        drawn = np.einsum("rsp,rs->pr", own, chosen)
        return np.concatenate([drawn, drawn.mean(axis=0, keepdims=True)])

    pairs, lines, n = [], [], []
    for i, j in combinations(range(len(methods)), 2):
        one, other = methods[i], methods[j]
        if one is None or other is None or not one.samples_of(other) or not (seeds := shared_seeds(one, other)):
            continue
        pairs.append((i, j))
        lines.append(_summary(over(i, seeds) - over(j, seeds), len(one.sizes)))
        n.append(len(seeds))
    width = next((hits.counts.shape[1] for hits in methods if hits is not None), 0) + 1
    values = np.array(lines).reshape(len(pairs), 6, width)
    named = dict(
        zip(("difference", "low", "high", "better", "equivalent", "p"), values.transpose(1, 0, 2), strict=True)
    )
    return Comparisons(pairs=np.array(pairs, int).reshape(-1, 2), n=np.array(n, int), **named)


def _summary(d: np.ndarray, groups: int) -> np.ndarray:
    """Difference, interval, and the shares of resamples, of differences (P, R + 1) of which the first is no resample: (6, P)."""
    d = np.round(d, ROUNDING) + 0.0  # no −0.0
    point, draws = d[:, 0], d[:, 1:]
    if groups < 2:
        return np.stack([point, *np.full((5, len(point)), np.nan)])
    low, high = np.percentile(draws, [2.5, 97.5], axis=1)
    better, worse = (draws > 0).mean(axis=1), (draws < 0).mean(axis=1)
    equivalent = (np.abs(draws) <= EQUIVALENT).mean(axis=1)
    p = np.clip(2 * (1 - np.maximum(better, worse)), 1 / RESAMPLES, 1)
    return np.where(np.isnan(point), np.nan, np.stack([point, low, high, better, equivalent, p]))


def best(means: Sequence[float], draws: Sequence[np.ndarray]) -> list[bool]:
    """Which methods are the best, or not separable from it by the 95 % interval of their difference.

    Args:
        means: one a method; NaN for one that is not ranked.
        draws: (R,) of each, from the same resamples.

    >>> best([3, np.nan, 1], [np.full(9, 3.0), np.empty(0), np.ones(9)])
    [True, False, False]
    """
    ranked = [i for i, mean in enumerate(means) if not np.isnan(mean)]
    first = max(ranked, key=lambda i: means[i], default=None)
    found = [False] * len(means)
    for i in ranked:
        d = np.round(draws[first] - draws[i], ROUNDING)  # type: ignore[index]  # something is ranked
        found[i] = i == first or bool(np.percentile(d, 2.5) <= 0)
    return found


def holm(p: np.ndarray) -> np.ndarray:
    """p-values (N,) adjusted for their number, by Holm's step-down procedure; NaN is no test and stays.

    >>> holm(np.array([0.01, np.nan, 0.04, 0.03])).tolist()
    [0.03, nan, 0.06, 0.06]
    """
    adjusted = np.full(len(p), np.nan)
    order = np.argsort(p)[: np.count_nonzero(~np.isnan(p))]
    scaled = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1)
    return adjusted
