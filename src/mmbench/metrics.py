"""Accuracy, macro F1, calibration error and the errors of presentation attack detection, from stored predictions.

Each metric is a function of sums over samples, so that a bootstrap over groups of samples is a matrix product: ``statistics``
gives the sums of each group, and any weighting of the groups gives the metric of that resample.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BINS = 15
METRICS = ("accuracy", "macro_f1", "ece")
"""In percent: accuracy; unweighted mean of the classes' F1; expected calibration error over 15 equal bins of confidence."""
ATTACK_METRICS = ("apcer", "bpcer", "acer")
"""In percent, of presentation attack detection (ISO/IEC 30107-3): the share of attacks taken for bona fide, of the worst type;
the share of bona fide samples taken for attacks; the mean of the two. With one type of attack, APCER is over all attacks."""


@dataclass
class Statistics:
    """Sums over the samples of each of G groups.

    Attributes:
        counts: (G, 3, C): hits, samples and predictions of each class.
        bins: (G, 15, 3): samples, hits and summed confidence by bin of confidence.
        attacks: (G, K + 1, 2), for K types of attack: samples, and those taken for the other side; type 0 is bona fide. (G, 0, 2)
            where attacks are not the task.
    """

    counts: np.ndarray
    bins: np.ndarray
    attacks: np.ndarray


def statistics(
    label: np.ndarray,
    predicted: np.ndarray,
    log_probs: np.ndarray,
    group: np.ndarray,
    attack: np.ndarray | None = None,
) -> Statistics:
    """Add up what the metrics need, by group.

    Args:
        label: (N,) true classes.
        predicted: (N,) predicted classes.
        log_probs: (N, C) log-probabilities.
        group: (N,) group numbers, any integers.
        attack: (N,) types of attack, 0 for bona fide; None or empty where attacks are not the task.

    Raises:
        ValueError: bona fide samples of several classes, or none at all; a negative type of attack.
    """
    groups, member = np.unique(group, return_inverse=True)
    counts = np.zeros((len(groups), 3, log_probs.shape[1]))
    hit = label == predicted
    np.add.at(counts[:, 0], (member[hit], label[hit]), 1)
    np.add.at(counts[:, 1], (member, label), 1)
    np.add.at(counts[:, 2], (member, predicted), 1)
    confidence = np.exp(log_probs.max(axis=1).astype(np.float64))
    # Bins are open on the left, (k/15, (k+1)/15], as in Guo et al. 2017.
    which = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    bins = np.zeros((len(groups), BINS, 3))
    np.add.at(bins, (member, which), np.stack([np.ones_like(confidence), hit, confidence], axis=1))
    return Statistics(counts, bins, _attack_sums(label, predicted, member, attack, len(groups)))


def _attack_sums(
    label: np.ndarray, predicted: np.ndarray, member: np.ndarray, attack: np.ndarray | None, groups: int
) -> np.ndarray:
    if attack is None or not len(attack):
        return np.zeros((groups, 0, 2))
    if attack.min() < 0:
        raise ValueError(f"types of attack are 0 (bona fide) and above, got {attack.min()}")
    classes = np.unique(label[attack == 0])
    if len(classes) != 1 or (label[attack > 0] == classes[0]).any():
        raise ValueError(
            f"presentation attacks: bona fide samples (attack 0) must be one class and attacks others, got classes {classes}"
        )
    sums = np.zeros((groups, int(attack.max()) + 1, 2))
    wrong = (predicted == classes[0]) != (attack == 0)
    np.add.at(sums, (member, attack), np.stack([np.ones(len(label)), wrong], axis=1))
    return sums


def evaluate(sums: Statistics, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Compute the metrics, in percent, of W weightings of the groups.

    Args:
        sums: of G groups.
        weights: (W, G), how often each group counts.

    Returns:
        metric -> (W,); ``ATTACK_METRICS`` too where attacks are the task.
    """
    hits, true, predicted = np.moveaxis(np.tensordot(weights, sums.counts, axes=1), 1, 0)  # (W, C) each
    bins = np.tensordot(weights, sums.bins, axes=1)  # (W, 15, 3)
    total = true.sum(axis=1)
    # A class that neither occurs nor is predicted has no F1 and is left out of the mean.
    occurs = (true + predicted) > 0
    f1 = np.divide(2 * hits, true + predicted, out=np.zeros_like(hits), where=occurs)
    values = {
        "accuracy": 100 * hits.sum(axis=1) / total,
        "macro_f1": 100 * f1.sum(axis=1) / occurs.sum(axis=1),
        "ece": 100 * np.abs(bins[:, :, 1] - bins[:, :, 2]).sum(axis=1) / total,
    }
    if sums.attacks.shape[1]:
        samples, wrong = np.moveaxis(np.tensordot(weights, sums.attacks, axes=1), 2, 0)  # (W, K + 1) each
        # A type of attack that a resample does not hold has no rate; without any attack, or without bona fide, nor has the resample.
        with np.errstate(invalid="ignore"):
            rates = 100 * wrong / samples
        attacks = np.where(np.isnan(rates[:, 1:]), -np.inf, rates[:, 1:]).max(axis=1, initial=-np.inf)
        values["apcer"] = np.where(np.isinf(attacks), np.nan, attacks)
        values["bpcer"] = rates[:, 0]
        values["acer"] = (values["apcer"] + values["bpcer"]) / 2
    return values


def summary(
    label: np.ndarray, predicted: np.ndarray, log_probs: np.ndarray, attack: np.ndarray | None = None
) -> dict[str, float]:
    """The metrics, in percent, of N predictions: labels (N,), classes (N,), log-probabilities (N, C), types of attack (N,) or None."""
    sums = statistics(label, predicted, log_probs, np.zeros_like(label), attack)
    return {name: float(value[0]) for name, value in evaluate(sums, np.ones((1, 1))).items()}
