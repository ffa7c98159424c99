"""Accuracy at missing rates, from stored predictions: no model is run.

A test sample under a mask is a look-up: the prediction that was stored for the pattern that the mask leaves of it. So one trial answers
for every mask of every rate, and what a curve costs is counting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from mmbench.evidence.resampling import resamples
from mmbench.missing import Missing, pattern_numbers
from mmbench.record import Predictions

DRAWS = 100
"""Test masks that a robustness curve is the mean of."""


def hits_of(p: Predictions) -> np.ndarray:
    """Whether each stored prediction is right: (P + 1, N) bool; the last row answers with training's most frequent class."""
    return np.concatenate([p.predicted == p.label, (p.log_prior.argmax(axis=-1) == p.label)[None]])


def shown(masks: np.ndarray) -> np.ndarray:
    """How often each sample shows each pattern: (P + 1, N) shares of the masks (D, N, M), the last row of those that show nothing."""
    numbers = pattern_numbers(masks)  # (D, N)
    count = 2 ** masks.shape[-1]
    return np.stack([(numbers == p).mean(axis=0) for p in [*range(count - 1), -1]])


def robustness(
    predictions: Predictions,
    dataset: str,
    rates: Sequence[float],
    kind: Literal["anchor", "bernoulli"] = "anchor",
    draws: int = DRAWS,
) -> np.ndarray:
    """Accuracy, in percent, of one trial at test missing rates: the mean over masks.

    Args:
        predictions: of the trial, under every pattern.
        dataset: its data set; it decides the masks, with ``draws``, so that all methods meet the same.
        rates: missing rates η.
        kind: of mask.
        draws: how many masks.

    Returns:
        (len(rates),).
    """
    hits, names, parts = hits_of(predictions), predictions.modalities.tolist(), {"test": len(predictions.label)}
    shares = [shown(masks_of_test(dataset, names, parts, Missing(kind=kind, rate=rate), draws)) for rate in rates]
    return np.array([100 * (share * hits).sum(axis=0).mean() for share in shares])


def masks_of_test(
    dataset: str, modalities: Sequence[str], parts: Mapping[str, int], missing: Missing, draws: int = DRAWS
) -> np.ndarray:
    """The masks (draws, N, M) of a test split; the first is the fixed one of the matched protocol.

    Args:
        dataset: its name; it decides the masks.
        modalities: M names.
        parts: the split's name -> its size; of folds, each one's, in their order.
        missing: what is to be missing.
        draws: how many masks.
    """
    seeds = [missing.model_copy(update={"seed": s}) for s in range(missing.seed, missing.seed + draws)]
    return np.stack(
        [np.concatenate([m.mask(dataset, name, modalities, size) for name, size in parts.items()]) for m in seeds]
    )


def accuracy(hits: np.ndarray, group: np.ndarray, share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy at a missing rate, in percent.

    Args:
        hits: (S, P + 1, N) bool of S seeds, as ``hits_of`` gives them.
        group: (N,) group numbers from 0 on.
        share: (P + 1, N), as ``shown`` gives it.

    Returns:
        Of each seed (S,), and the bootstrap's draws of the mean over seeds (R,).
    """
    right = (hits * share).sum(axis=1)  # (S, N): the share of the masks under which the sample is answered rightly
    groups = int(group.max()) + 1
    weights, chosen = resamples(groups, len(right))
    sums = np.stack([np.bincount(group, values, groups) for values in right])  # (S, G)
    sizes = np.bincount(group, minlength=groups)
    draws = 100 * (weights @ sums.T) / (weights @ sizes)[:, None]  # (R, S)
    return 100 * right.mean(axis=1), (draws * chosen).sum(axis=1)


def interval(draws: np.ndarray | None) -> tuple[float, float]:
    """The 95 % percentile interval."""
    if draws is None:
        return np.nan, np.nan
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def mean_height(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The area under curves y (len(x), …) over x, by the trapezoidal rule, divided by the range of x."""
    return np.trapezoid(y, x, axis=0) / (x[-1] - x[0])
