"""Choosing among draws of a setting by their validation accuracy, and what so many draws may be expected to give."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb

import numpy as np

SPAN = 3
"""Epochs in a row that a draw is judged by: the best single one of a small validation split is as much luck as merit."""
DIGITS = 4
"""Of a score in percent: draws whose scores agree to them are tied."""


def score(accuracies: Sequence[float]) -> float:
    """What a draw is judged by: the mean over its best three consecutive epochs, or over all of them where there are fewer.

    Args:
        accuracies: on the validation split, shares of 1, one an epoch; without those of pretraining.

    Returns:
        Percent, to ``DIGITS`` digits.

    >>> score([0.1, 0.5, 0.6, 0.1, 0.9])
    53.3333
    """
    values = np.asarray(accuracies, float)
    if not len(values):
        raise ValueError("expected the accuracy of at least one epoch, got none")
    spans = np.lib.stride_tricks.sliding_window_view(values, min(SPAN, len(values)))
    return round(100 * float(spans.mean(axis=1).max()), DIGITS)


def ranking(scores: Sequence[float], rates: Sequence[float]) -> list[int]:
    """The draws from the best one on: by their score; where it is equal, by the smaller learning rate, then in their order.

    Args:
        scores: of the draws; NaN for one that failed, which is no choice.
        rates: their learning rates.

    Returns:
        The numbers of the draws that have a score.

    >>> ranking([50, 60, float("nan"), 60], [0.1, 0.2, 0.01, 0.05])
    [3, 1, 0]
    """
    numbered = enumerate(zip(scores, rates, strict=True))
    return [draw for _, _, draw in sorted((-s, rate, draw) for draw, (s, rate) in numbered if not np.isnan(s))]


def expected_best(scores: Sequence[float]) -> np.ndarray:
    """The best score that n draws of the D that were made may be expected to have, for n from 1 to D.

    It is the mean over all sets of n of them, without replacement, of the best one's score; sets in which every draw failed have none
    and are left out. With the scores of the K draws that did not fail in ascending order, s_1 ≤ … ≤ s_K, C(D−K + i − 1, n − 1) of the
    sets have s_i as their best one.

    Args:
        scores: of the draws; NaN for one that failed.

    Returns:
        (D,); NaN where no draw has a score.
    """
    whole = sorted(float(s) for s in scores if not np.isnan(s))
    failed = len(scores) - len(whole)
    best = np.full(len(scores), np.nan)
    for n in range(1, len(scores) + 1) if whole else ():
        ways = [comb(failed + i, n - 1) for i in range(len(whole))]  # integers, so that nothing is rounded away
        if total := sum(ways):
            best[n - 1] = sum(w / total * s for w, s in zip(ways, whole, strict=True))
    return best
