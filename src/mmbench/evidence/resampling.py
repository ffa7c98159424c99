"""The bootstrap that all intervals come from: seeds are resampled, and groups of test samples."""

from __future__ import annotations

from functools import cache

import numpy as np

RESAMPLES = 2000
INTERVAL = (2.5, 97.5)
"""The ends of an interval, in percent of the draws."""


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
    return summarise_all(values[None], draws[None])[0]


def summarise_all(values: np.ndarray, draws: np.ndarray) -> list[tuple[float, float, float, float]]:
    """The same of K quantities at once: values (K, S), draws (K, R)."""
    means = values.mean(axis=1)
    deviations = values.std(axis=1, ddof=1) if values.shape[1] > 1 else np.full(len(values), np.nan)
    ends = intervals(draws)
    return list(zip(means.tolist(), deviations.tolist(), ends[:, 0].tolist(), ends[:, 1].tolist(), strict=True))


def intervals(draws: np.ndarray) -> np.ndarray:
    """The 95 % percentile intervals of K quantities, (K, 2), of their draws (K, R) that have a value; NaN where none has."""
    ends = np.full((len(draws), 2), np.nan)
    holes = np.isnan(draws).any(axis=1)
    if not holes.all():
        ends[~holes] = np.percentile(draws[~holes], INTERVAL, axis=1).T
    for i in np.flatnonzero(holes):
        if len(own := draws[i][~np.isnan(draws[i])]):
            ends[i] = np.percentile(own, INTERVAL)
    return ends


def means(sums: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means over samples and seeds of K quantities.

    Args:
        sums: (S, K, G), each seed's sum over the samples of each group.
        sizes: (G,) samples of the groups; (K, G) where each quantity is a mean over samples of its own.

    Returns:
        The means (K,), and the bootstrap's draws of them (K, R); NaN where a resample has no samples to take the mean of.
    """
    weights, chosen = resamples(sizes.shape[-1], len(sums))
    drawn = (sums.reshape(-1, sums.shape[-1]) @ weights.T).reshape(*sums.shape[:2], -1)  # (S, K, R)
    draws = np.zeros(drawn.shape[1:])
    for of_seed, share in zip(drawn, chosen.T, strict=True):
        draws += of_seed * share
    with np.errstate(invalid="ignore"):
        return sums.sum(axis=2).mean(axis=0) / sizes.sum(axis=-1), draws / (sizes @ weights.T)
