"""The bootstrap that all intervals come from: seeds are resampled, and groups of test samples."""

from __future__ import annotations

from functools import cache

import numpy as np

RESAMPLES = 2000


@cache
def resamples(groups: int, seeds: int, stream: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The weights of a hierarchical bootstrap.

    Args:
        groups: G, of test samples.
        seeds: S.
        stream: another one is independent of this, for samples that are compared with others than their own.

    Returns:
        How often each group counts, (R, G), the same for every method; the share of each seed, (R, S).
    """
    generator = np.random.default_rng(stream)
    weights = generator.multinomial(groups, np.full(groups, 1 / groups), size=RESAMPLES).astype(float)
    chosen = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=RESAMPLES) / seeds
    weights.flags.writeable = chosen.flags.writeable = False  # they are shared
    return weights, chosen


def summarise(values: np.ndarray, draws: np.ndarray) -> tuple[float, float, float, float]:
    """Mean and standard deviation (n − 1) over seeds (S,), and the 95 % percentile interval of draws (R,).

    Draws in which the metric has no value (nothing to count) are left out. The deviation of a single seed is NaN.
    """
    draws = draws[~np.isnan(draws)]
    low, high = np.percentile(draws, [2.5, 97.5]) if len(draws) else (np.nan, np.nan)
    std = float(values.std(ddof=1)) if len(values) > 1 else float("nan")
    return float(values.mean()), std, float(low), float(high)


def means(sums: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means over samples and seeds of K quantities.

    Args:
        sums: (S, K, G), each seed's sum over the samples of each group.
        sizes: (G,) samples of the groups; (K, G) where each quantity is a mean over samples of its own.

    Returns:
        The means (K,), and the bootstrap's draws of them (K, R); NaN where a resample has no samples to take the mean of.
    """
    weights, chosen = resamples(sizes.shape[-1], len(sums))
    draws = np.zeros((sums.shape[1], len(weights)))
    for of_seed, share in zip(sums, chosen.T, strict=True):
        draws += of_seed @ weights.T * share
    with np.errstate(invalid="ignore"):
        return sums.sum(axis=2).mean(axis=0) / sizes.sum(axis=-1), draws / (sizes @ weights.T)
