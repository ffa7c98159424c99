"""Whether a model is as often right as it says: reliability by confidence, and the risk of answering the surest samples first."""

from __future__ import annotations

import numpy as np

from mmbench.metrics import BINS


def reliability(confidence: np.ndarray, hits: np.ndarray) -> np.ndarray:
    """Sums by bin of confidence, the bins of ``metrics.statistics``: ((k − 1) / 15, k / 15].

    Args:
        confidence: (N,) probabilities of the predicted classes.
        hits: (N,) bool, whether they are right.

    Returns:
        (15, 3): samples, hits, summed confidence.
    """
    which = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    sums = [np.bincount(which, weights, BINS) for weights in (None, hits, confidence)]
    return np.stack(sums, axis=1).astype(float)


def expected_error(bins: np.ndarray) -> float:
    """The expected calibration error, in percent: ``|accuracy − confidence|`` of the bins of ``reliability``, by their samples."""
    return 100 * float(np.abs(bins[:, 1] - bins[:, 2]).sum() / bins[:, 0].sum())


def risk_coverage(confidence: np.ndarray, hits: np.ndarray) -> float:
    """The area under the curve of risk against coverage, in percent: the smaller, the better a model knows what it does not know.

    Of N samples the k surest are answered, for k from 1 to N; the risk is the share of wrong ones among them; the area is the mean
    over k (Geifman and El-Yaniv, arXiv 1705.08500). Equally sure samples come in no order: it is the mean over all orders of theirs.

    Args:
        confidence: (N,).
        hits: (N,) bool.
    """
    levels, block, sizes = np.unique(-confidence, return_inverse=True, return_counts=True)
    wrong = np.bincount(block, ~hits, len(levels)) / sizes  # the share of each level, which any order has on average
    errors = np.repeat(wrong, sizes).cumsum()
    return 100 * float((errors / np.arange(1, len(errors) + 1)).mean())
