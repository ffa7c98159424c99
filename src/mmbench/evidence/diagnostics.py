"""What a model makes of its modalities, from what it predicts under every pattern of them.

Patterns are numbered as ``missing.patterns`` orders them; one more, the last, shows nothing: there the answer is the class frequencies
of the training split. M modalities have P = 2^M − 1 patterns and that one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmbench.metrics import largest
from mmbench.missing import pattern_matrix

FLOOR = 2.0**-24
"""The smallest probability that float16 keeps: a class that has less counts as having it, so that no sample's surprise is endless."""


@dataclass(frozen=True)
class Scores:
    """How well N samples are answered under each pattern, (P + 1, N) each.

    Attributes:
        hits: bool, whether the predicted class is the true one.
        surprise: −log p(true class), in nats; at most −log ``FLOOR``.
        brier: Σ over classes of (p − 1 if it is the true one, else p)², from 0 to 2.
        confidence: the largest probability.
    """

    hits: np.ndarray
    surprise: np.ndarray
    brier: np.ndarray
    confidence: np.ndarray


def score(label: np.ndarray, predicted: np.ndarray, log_probs: np.ndarray, log_prior: np.ndarray) -> Scores:
    """Score stored predictions.

    Args:
        label: (N,) true classes.
        predicted: (P, N) classes.
        log_probs: (P, N, C).
        log_prior: (C,), or (N, C) where it is each sample's own.
    """
    samples = np.arange(len(label))
    answered = np.concatenate([predicted, np.broadcast_to(log_prior.argmax(axis=-1), (1, len(label)))])
    surprise, brier, confidence = (np.empty(answered.shape) for _ in range(3))
    for i in range(len(answered)):
        last = np.broadcast_to(log_prior, log_probs.shape[1:]) if i == len(predicted) else log_probs[i]
        p = np.exp(last.astype(np.float32))  # (N, C)
        true = p[samples, label]
        surprise[i] = -np.log(np.maximum(true, FLOOR))
        brier[i] = np.einsum("nc,nc->n", p, p) - 2 * true + 1
        confidence[i] = largest(p)
    return Scores(answered == label, surprise, brier, confidence)


def equity(contributions: np.ndarray) -> np.ndarray:
    """How evenly M modalities contribute: 1 if all do alike, 0 if one does all.

    The entropy of the positive parts of the contributions as shares of their sum, divided by ln M.

    Args:
        contributions: (M, …).

    Returns:
        (…); NaN where no modality contributes.
    """
    positive = np.maximum(contributions, 0)
    total = positive.sum(axis=0)
    shares = np.divide(positive, total, out=np.zeros_like(positive), where=total > 0)
    entropy = (shares * -np.log(shares, out=np.zeros_like(shares), where=shares > 0)).sum(axis=0)
    return np.where(total > 0, entropy / np.log(len(contributions)), np.nan)


def lost(hits: np.ndarray, modalities: int) -> np.ndarray:
    """Which samples are right under a pattern, and wrong under one that shows all that it shows and more.

    Args:
        hits: (P + 1, N) bool, or (P, N).
        modalities: M.

    Returns:
        (P + 1, N) bool; the last row: under any of the patterns that show something.
    """
    shows = pattern_matrix([str(m) for m in range(modalities)])
    number = {tuple(row): i for i, row in enumerate(shows)}
    wrong_with_more = np.zeros((len(shows), hits.shape[1]), bool)
    for i, row in reversed(list(enumerate(shows))):  # the larger ones first
        for m in np.flatnonzero(~np.array(row)):
            wider = number[(*row[:m], True, *row[m + 1 :])]
            wrong_with_more[i] |= ~hits[wider] | wrong_with_more[wider]
    found = wrong_with_more & hits[: len(shows)]
    return np.concatenate([found, found.any(axis=0, keepdims=True)])


def effective_robustness(own: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """What a method keeps over a reference as modalities go missing, beyond its lead where nothing is.

    Σ over rates η > 0 of a(η) − (a_ref(η) + a(0) − a_ref(0)).

    Args:
        own: (1 + K, …) accuracies at rate 0, then at K rates above it.
        reference: likewise.
    """
    lead = own - reference
    return (lead[1:] - lead[0]).sum(axis=0)


def gradient_variation(logs: np.ndarray) -> float:
    """How unevenly the encoders are driven: the coefficient of variation of their gradients' norms, mean over epochs.

    An encoder's norm in an epoch is the geometric mean over the steps that were measured, since records hold the mean of logarithms. Of
    each epoch: the standard deviation over the M encoders (with M, not M − 1, below) by their mean. 0: all alike; sqrt(M − 1): one
    has it all.

    Args:
        logs: (E, M) natural logarithms of the norms; −inf for a gradient that was zero.

    Returns:
        NaN without an epoch in which any encoder has a gradient; others count not.
    """
    norms = np.exp(logs)
    means = norms.mean(axis=1)
    driven = means > 0
    return float((norms.std(axis=1)[driven] / means[driven]).mean()) if driven.any() else float("nan")
