"""What two predictions tell of the class, taken apart: shared, each one's own, and what only both together tell.

The partial information decomposition of Bertschinger, Rauh, Olbrich, Jost and Ay (Quantifying unique information, Entropy 16, 2014;
arXiv 1311.2839). It needs the least information that any joint distribution Q has whose pairs (X1, Y) and (X2, Y) are the data's::

    I* = min over Q of I_Q(Y; X1, X2)
    redundancy = I(Y; X1) + I(Y; X2) − I*       unique to 1 = I* − I(Y; X2)
    synergy    = I(Y; X1, X2) − I*              unique to 2 = I* − I(Y; X1)

That is a convex programme. I_Q(Y; X1, X2) is H(Y) plus f(Q) = Σ Q log Q(x1, x2, y) / Q(x1, x2), the minimum over all r(x1, x2) of the
divergence of Q from r. So it is minimised by turns (Csiszár and Tusnády, 1984), as Blahut and Arimoto do: r becomes the
(x1, x2)-margin of Q; then Q becomes, class by class, the distribution closest to r among those with the given margins, which has
the form r(x1, x2) a(x1, y) b(x2, y). A turn makes one step of the scaling of a and b, from where the last turn left them.

All a and b with Σ_y a b ≤ 1 in every (x1, x2) bound the minimum from below (the dual programme): f(Q) is at least Σ p(x1, y) log a +
Σ p(x2, y) log b. That tells when to stop.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MOST_CLASSES = 20
"""In a table of predictions; rarer ones are taken together (``few_classes``)."""
PRECISION = 1e-4
"""Nats: how far the minimum may lie below what is found."""
MOST_TURNS = 3000
CHECK = 20
"""Turns between two looks at the bound."""


@dataclass(frozen=True)
class Decomposition:
    """Parts of the information of B pairs of predictions, in nats, (B,) each. Together they are I(Y; X1, X2)."""

    redundancy: np.ndarray
    first: np.ndarray
    second: np.ndarray
    synergy: np.ndarray


def few_classes(label: np.ndarray, classes: int) -> np.ndarray:
    """A number below ``MOST_CLASSES`` for each of C classes: its own where there are few; else the most frequent ones have one each.

    Args:
        label: (N,) true classes, which decide what is frequent; of two alike, the first.
        classes: C.

    Returns:
        (C,); the last number stands for all classes but the ``MOST_CLASSES`` − 1 most frequent ones.

    >>> few_classes(np.array([0, 2, 2]), 3)
    array([0, 1, 2])
    """
    if classes <= MOST_CLASSES:
        return np.arange(classes)
    frequent = np.argsort(-np.bincount(label, minlength=classes), kind="stable")
    numbers = np.full(classes, MOST_CLASSES - 1)
    numbers[frequent[: MOST_CLASSES - 1]] = np.arange(MOST_CLASSES - 1)
    return numbers


def joint_table(first: np.ndarray, second: np.ndarray, label: np.ndarray, classes: int) -> np.ndarray:
    """How often two predictions (N,) and the true class (N,) are what they are: (C, C, C) counts, in this order."""
    cells = (first.astype(np.int64) * classes + second) * classes + label
    return np.bincount(cells, minlength=classes**3).reshape(classes, classes, classes)


def decompose(tables: np.ndarray) -> Decomposition:
    """Take the information of B pairs of variables about a third apart.

    Args:
        tables: (B, X1, X2, Y) counts or shares, none of them empty.
    """
    p = tables / tables.sum(axis=(1, 2, 3), keepdims=True)
    first, second = mutual_information(p.sum(axis=2)), mutual_information(p.sum(axis=1))
    both = mutual_information(p.reshape(len(p), -1, p.shape[-1]))
    least = least_information(p)
    return Decomposition(first + second - least, least - second, least - first, both - least)


def mutual_information(p: np.ndarray) -> np.ndarray:
    """I(X; Y), in nats, of distributions (B, X, Y): (B,)."""
    apart = p.sum(axis=2, keepdims=True) * p.sum(axis=1, keepdims=True)
    return (p * _log(np.divide(p, apart, out=np.zeros_like(p), where=apart > 0))).sum(axis=(1, 2))


def least_information(p: np.ndarray) -> np.ndarray:
    """I*, in nats, for distributions (B, X1, X2, Y): (B,), to ``PRECISION``.

    In tables of few samples the best a and b may lie at infinity, where the bound is slow to follow. Then what is found after
    ``MOST_TURNS`` is taken: its error falls at least as one by the number of turns does.
    """
    found = np.empty(len(p))
    open_yet = np.arange(len(p))
    first, second = p.sum(axis=2), p.sum(axis=1)  # (B, X1, Y), (B, X2, Y)
    given = _over(second, second.sum(axis=1, keepdims=True))  # p(x2 | y)
    r, b = first @ given.transpose(0, 2, 1), given  # to begin with: independent, given the class
    for turn in range(1, MOST_TURNS + 1):
        a = _over(first, r @ b)
        b = _over(second, r.transpose(0, 2, 1) @ a)
        ratio = a @ b.transpose(0, 2, 1)  # Σ_y a b: what r is multiplied by
        if turn % CHECK == 0:
            value, bound = _value_and_bound(first, second, r, a, b, ratio)
            found[open_yet] = value
            more = value - bound > PRECISION
            if not more.any():
                break
            open_yet = open_yet[more]
            first, second, r, b, ratio = (array[more] for array in (first, second, r, b, ratio))
        r = r * ratio
    classes = p.sum(axis=(1, 2))
    return found - (classes * _log(classes)).sum(axis=1)  # H(Y)


def _value_and_bound(
    first: np.ndarray, second: np.ndarray, r: np.ndarray, a: np.ndarray, b: np.ndarray, ratio: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """F of Q = r a b, and a bound from below of the minimum: (B,) each."""
    log_ratio = _log(ratio)
    first_here = a * (r @ b)  # the (x1, y)-margin of Q, which the step of b has moved a little
    value = (first_here * _log(a)).sum(axis=(1, 2)) + (second * _log(b)).sum(axis=(1, 2))
    value -= (r * ratio * log_ratio).sum(axis=(1, 2))
    bound = (first * _log(a)).sum(axis=(1, 2)) + (second * _log(b)).sum(axis=(1, 2))
    # Where Σ_y a b is above 1, a(x1, ·) or b(x2, ·) is made smaller by the largest of its row, whichever costs less.
    log_ratio = np.where(ratio > 0, log_ratio, -np.inf)
    excess = [
        (margin * np.where(margin > 0, log_ratio.max(axis=axis), 0)).sum(axis=1)
        for margin, axis in ((first.sum(axis=2), 2), (second.sum(axis=2), 1))
    ]
    return value, bound - np.minimum(*excess)


def _over(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """The quotient; 0 where nothing is above."""
    return np.divide(above, below, out=np.zeros(np.broadcast_shapes(above.shape, below.shape)), where=above > 0)


def _log(values: np.ndarray) -> np.ndarray:
    """The natural logarithm; 0 of 0, which it is always multiplied by here."""
    return np.log(values, out=np.zeros_like(values), where=values > 0)
