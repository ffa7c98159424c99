"""Methods over several data sets: mean ranks, and tests of whether they differ."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.stats import friedmanchisquare, rankdata, studentized_range

FEWEST = 6
"""Data sets; with fewer, no test over them says anything."""
DRAWS = 10_000
PRIOR = 0.5
"""Weight of the prior, in data sets: one on which two methods are the same."""


def mean_ranks(accuracies: np.ndarray) -> np.ndarray:
    """Mean over data sets of each method's rank, 1 for the best, equal accuracies sharing theirs; accuracies (D, K) give ranks (K,).

    >>> mean_ranks(np.array([[90, 80, 80], [70, 60, 50]])).tolist()
    [1.0, 2.25, 2.75]
    """
    return rankdata(-np.asarray(accuracies, float), axis=1).mean(axis=0)


def friedman(accuracies: np.ndarray) -> float:
    """The p-value of Friedman's test that K methods are the same, from accuracies (D, K); NaN of fewer than three, or all equal."""
    if accuracies.shape[1] < 3 or (accuracies == accuracies[:, :1]).all():
        return float("nan")
    return float(friedmanchisquare(*accuracies.T).pvalue)


def nemenyi(accuracies: np.ndarray) -> tuple[np.ndarray, float]:
    """Nemenyi's test of every two methods' mean ranks (Demšar 2006).

    Args:
        accuracies: (D, K).

    Returns:
        p, adjusted for all pairs: (K, K); the critical difference of mean ranks, from which on p is at most 0.05.
    """
    datasets, methods = accuracies.shape
    scale = np.sqrt(methods * (methods + 1) / (12 * datasets))
    ranks = mean_ranks(accuracies)
    p = studentized_range.sf(np.abs(ranks[:, None] - ranks) / scale, methods, np.inf)
    return p, float(studentized_range.ppf(0.95, methods, np.inf) * scale)


class SignedRank(NamedTuple):
    """Probabilities of what one method is to another on a data set to come; they sum to 1."""

    better: float
    equivalent: float
    worse: float


def signed_rank(differences: np.ndarray, rope: float = 1.0, seed: int = 0) -> SignedRank:
    """The Bayesian signed-rank test with a region of practical equivalence (Benavoli et al. 2014; JMLR 18(77), 2017).

    The data sets' weights are drawn from a Dirichlet distribution, with one more, of weight ``PRIOR``, on which the methods are the
    same. In a draw, each two data sets, and each with itself, vote by their weights for what their mean difference is: above the
    region, in it or below. A probability is the share of the draws in which it has the most votes; ties are shared.

    Args:
        differences: (D,) of two methods' accuracies, in points.
        rope: half the width of the region, in points.
        seed: of the draws.
    """
    z = np.concatenate([[0.0], differences])
    weights = np.random.default_rng(seed).dirichlet([PRIOR, *np.ones(len(differences))], DRAWS)  # (W, D + 1)
    means = np.round((z[:, None] + z) / 2, 9)  # accuracies that differ by the rope do so whatever their last digits
    voted = (means > rope, np.abs(means) <= rope, means < -rope)
    votes = np.stack([((weights @ vote) * weights).sum(axis=1) for vote in voted], axis=1)  # (W, 3)
    most = np.isclose(votes, votes.max(axis=1, keepdims=True), rtol=0, atol=1e-12)
    return SignedRank(*(float(share) for share in (most / most.sum(axis=1, keepdims=True)).mean(axis=0)))
