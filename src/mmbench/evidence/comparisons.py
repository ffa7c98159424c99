"""Differences of two methods, or of two protocols, with intervals.

What two methods get right on the same samples goes up and down together: an easy resample is easy for both. So the interval of their
difference, from the same resamples, is much narrower than those of the two accuracies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mmbench.evidence.resampling import resamples
from mmbench.record import Predictions


@dataclass(frozen=True)
class Difference:
    """A difference of accuracies, in points, and its 95 % percentile interval."""

    mean: float
    low: float
    high: float

    @property
    def separable(self) -> bool:
        """Whether the interval leaves out zero."""
        return not self.low <= 0 <= self.high


def difference(
    one: Sequence[Predictions], other: Sequence[Predictions], pattern: int = -1, paired: bool = True
) -> Difference:
    """The accuracy of ``one`` minus that of ``other``, resampled over groups of test samples and over seeds.

    Args:
        one: predictions, one a seed.
        other: those that they are compared with; if paired, of the same samples and of as many seeds, in the same order.
        pattern: number of the presence pattern; the last one has every modality.
        paired: resample both alike. False for other samples, of which each is resampled by itself.

    Raises:
        ValueError: paired, of other samples or of another number of seeds.
    """
    first, second = (_sums(predictions, pattern) for predictions in (one, other))
    if paired and not (len(one) == len(other) and np.array_equal(first[1], second[1])):
        raise ValueError("a paired difference is of the same samples and of as many seeds")
    draws = _draws(*first, stream=0) - _draws(*second, stream=0 if paired else 1)
    low, high = np.percentile(draws, [2.5, 97.5])
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
