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
    """Sums over the samples of each of G groups, of one prediction; of several, as under P patterns, with a further axis: (G, P, …).

    Attributes:
        counts: (G, 3, C): hits, samples and predictions of each class; whole numbers.
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
        predicted: (N,) predicted classes; or (P, N).
        log_probs: (N, C) log-probabilities; or (P, N, C).
        group: (N,) group numbers, any integers.
        attack: (N,) types of attack, 0 for bona fide; None or empty where attacks are not the task.

    Raises:
        ValueError: bona fide samples of several classes, or none at all; a negative type of attack.
    """
    groups, member = np.unique(group, return_inverse=True)
    several = np.atleast_2d(predicted)  # (P, N)
    probs = log_probs.reshape(*several.shape, -1)
    classes = probs.shape[-1]
    hit = several == label
    confidence = np.exp(largest(probs).astype(np.float64))
    # Bins are open on the left, (k/15, (k+1)/15], as in Guo et al. 2017.
    which = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    counts = np.empty((len(groups), len(several), 3, classes), np.int64)
    bins = np.empty((len(groups), len(several), BINS, 3))
    counts[:, :, 1] = _by_group(member, label, None, len(groups), classes)[:, None]
    for i, own in enumerate(several):
        counts[:, i, 0] = _by_group(member[hit[i]], label[hit[i]], None, len(groups), classes)
        counts[:, i, 2] = _by_group(member, own, None, len(groups), classes)
        for j, weights in enumerate((None, hit[i], confidence[i])):
            bins[:, i, :, j] = _by_group(member, which[i], weights, len(groups), BINS)
    attacks = np.stack([_attack_sums(label, own, member, attack, len(groups)) for own in several], axis=1)
    if predicted.ndim == 1:
        return Statistics(counts[:, 0], bins[:, 0], attacks[:, 0])
    return Statistics(counts, bins, attacks)


def _by_group(
    member: np.ndarray, place: np.ndarray, weights: np.ndarray | None, groups: int, places: int
) -> np.ndarray:
    """Sums by group and place, (groups, places); without weights, how many there are."""
    return np.bincount(member * places + place, weights, groups * places).reshape(groups, places)


def largest(values: np.ndarray) -> np.ndarray:
    """The largest along the last axis, which is short: to go through the values place by place takes a fraction of the time.

    Of half precision it is in the next one, which has the same numbers and is many times as fast.
    """
    kind = np.float32 if values.dtype == np.float16 else values.dtype
    return np.maximum.reduce(np.moveaxis(values, -1, 0).astype(kind, order="C"), axis=0)


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


def evaluate(sums: Statistics, weights: np.ndarray, whole: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Compute the metrics, in percent, of W weightings of the groups.

    Args:
        sums: of G groups.
        weights: (W, G), how often each group counts.
        whole: the same in float32, for sums of whole numbers: in half the time, and as exact where it holds all of them.

    Returns:
        metric -> (W,), or (P, W); ``ATTACK_METRICS`` too where attacks are the task.
    """
    counts = _weighted(weights, whole, sums.counts[..., ::2, :])  # (…, 2, C, W)
    hits, predicted = counts[..., 0, :, :], counts[..., 1, :, :]
    true = sums.counts.reshape(len(sums.counts), -1, *sums.counts.shape[-2:])[
        :, 0, 1
    ]  # (G, C), of each pattern the same
    samples = _weighted(weights, whole, true)
    total = samples.sum(axis=0)
    places = predicted + samples
    # A class that neither occurs nor is predicted has no F1 and is left out of the mean.
    f1 = 2 * hits / np.maximum(places, 1)
    gaps = _weighted(weights, None, sums.bins[..., 1] - sums.bins[..., 2])  # (…, 15, W)
    values = {
        "accuracy": 100 * hits.sum(axis=-2) / total,
        "macro_f1": 100 * f1.sum(axis=-2) / np.count_nonzero(places, axis=-2),
        "ece": 100 * np.abs(gaps, out=gaps).sum(axis=-2) / total,
    }
    if sums.attacks.shape[-2]:
        presented, wrong = np.moveaxis(_weighted(weights, None, sums.attacks), -2, 0)  # (…, K + 1, W) each
        # A type of attack that a resample does not hold has no rate; without any attack, or without bona fide, nor has the resample.
        with np.errstate(invalid="ignore"):
            rates = 100 * wrong / presented
        attacks = np.where(np.isnan(rates[..., 1:, :]), -np.inf, rates[..., 1:, :]).max(axis=-2, initial=-np.inf)
        values["apcer"] = np.where(np.isinf(attacks), np.nan, attacks)
        values["bpcer"] = rates[..., 0, :]
        values["acer"] = (values["apcer"] + values["bpcer"]) / 2
    return values


def _weighted(weights: np.ndarray, whole: np.ndarray | None, sums: np.ndarray) -> np.ndarray:
    """The sums (G, …) of each weighting of the groups, (…, W), in float64; nothing is done for those that are 0 throughout."""
    columns = sums.reshape(len(sums), -1).T
    some = columns.any(axis=1)
    if whole is None:
        product = columns[some].astype(float) @ weights.T
    else:
        product = (columns[some].astype(np.float32) @ whole.T).astype(float)
    if not some.all():
        used, product = product, np.zeros((len(columns), len(weights)))
        product[some] = used
    return product.reshape(*sums.shape[1:], len(weights))


def summary(
    label: np.ndarray, predicted: np.ndarray, log_probs: np.ndarray, attack: np.ndarray | None = None
) -> dict[str, float]:
    """The metrics, in percent, of N predictions: labels (N,), classes (N,), log-probabilities (N, C), types of attack (N,) or None."""
    sums = statistics(label, predicted, log_probs, np.zeros_like(label), attack)
    return {name: float(value[0]) for name, value in evaluate(sums, np.ones((1, 1))).items()}
