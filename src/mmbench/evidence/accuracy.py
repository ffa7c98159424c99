"""The metrics of trials, with intervals, under every pattern."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from hashlib import sha256

import numpy as np

from mmbench.evidence.groups import LARGE, group_accuracy, worst_group
from mmbench.evidence.resampling import RESAMPLES, resamples, summarise_all
from mmbench.metrics import ATTACK_METRICS, METRICS, evaluate, statistics
from mmbench.record import Predictions

MEAN = "mean"
"""What tables call the mean over all patterns."""
GROUP_ACCURACY = "group_accuracy"
WORST_GROUP = "worst_group"


@dataclass
class SplitFacts:
    """What the reader of a section should know of its test split.

    Attributes:
        size: samples.
        groups: of samples that stand or fall together.
        largest: percent of the samples that are in the two largest groups; intervals are wide where it is large.
        majority: percent of the samples that are of the most frequent class.
        imbalance: how many times as large the largest class is as the smallest that occurs.
        absent: modality -> the share of the samples that lack it.
        classes: how many there are.
        samples: a hash of the samples, whatever their order, by what is stored of them; two splits that share it are one.
    """

    size: int
    groups: int
    largest: float
    majority: float
    imbalance: float
    absent: dict[str, float]
    classes: int
    samples: str


def join(folds: Sequence[Predictions]) -> Predictions:
    """The predictions of the folds of one seed as one prediction of the whole set.

    Folds learn from different samples, so the class frequencies that they answer with where nothing is shown are each sample's own:
    ``log_prior`` is (N, C) then. Groups are numbered over the whole set, so one that lies in several folds stays one.
    """
    if len(folds) == 1:
        return folds[0]
    side_by_side = {"predicted": 1, "log_probs": 1}
    joined = {
        f.name: np.concatenate([getattr(p, f.name) for p in folds], axis=side_by_side.get(f.name, 0))
        for f in fields(Predictions)
    }
    priors = [np.broadcast_to(p.log_prior, (len(p.label), len(p.log_prior))) for p in folds]
    return Predictions(**{**joined, "modalities": folds[0].modalities, "log_prior": np.concatenate(priors)})


def fingerprint(p: Predictions) -> str:
    """A hash of everything that a run predicted."""
    arrays = (np.ascontiguousarray(getattr(p, f.name)) for f in fields(p))
    return sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


EXACT = 2**24
"""Whole numbers below it are exact in float32."""
ROUNDING = 2.0**-9
"""How far two log-probabilities of one run may lie apart, relatively or as they are: two units of the last place of float16."""


def same_run(one: Predictions, other: Predictions) -> bool:
    """Whether two runs gave the same predictions, but for sums that were taken in another order."""
    alike = all(
        np.array_equal(getattr(one, f.name), getattr(other, f.name)) for f in fields(one) if f.name != "log_probs"
    )
    if not alike or one.log_probs.shape != other.log_probs.shape:
        return False
    first, second = (p.log_probs.astype(np.float32) for p in (one, other))
    return np.allclose(first, second, ROUNDING, ROUNDING, equal_nan=True)


def twins(predictions: Sequence[Predictions]) -> list[int]:
    """For each of the seeds' predictions the position of the first that is the same run."""
    first: list[int] = []
    for position, p in enumerate(predictions):
        known = (k for k in dict.fromkeys(first) if same_run(p, predictions[k]))
        first.append(next(known, position))
    return first


def distinct_runs(predictions: Sequence[Predictions]) -> list[int]:
    """Which of the seeds' predictions are runs of their own.

    A method that draws nothing at random gives the same predictions for every seed. Those are one run, told several times: to count it
    once a seed would show a deviation of zero, and intervals that are narrower than one run allows. The seed still shuffles the
    samples, so the last digits may differ.

    Returns:
        The positions of the first of each set of the same predictions, in order.
    """
    return list(dict.fromkeys(twins(predictions)))


def estimate(
    predictions: Sequence[Predictions], names: Sequence[str]
) -> dict[tuple[str, str], tuple[float, float, float, float]]:
    """Mean and standard deviation over seeds, and a 95 % interval, of each metric under each pattern and of its mean over patterns.

    Beside those of single predictions, the metrics are ``group_accuracy``, the mean over groups of test samples of the group's
    accuracy, and ``worst_group``, the lowest accuracy of a group of at least 20 samples, where there is one.

    Args:
        predictions: one a seed, of the same test samples. Identical ones count as one run.
        names: of the patterns.

    Returns:
        (pattern, metric) -> (mean, std, low, high), in percent; NaN where there are too few seeds, and of a pattern that has no
        predictions. The last pattern is "mean"; it is NaN where any other is.
    """
    if not predictions:
        return {(name, metric): (np.nan,) * 4 for name in [*names, MEAN] for metric in (*METRICS, GROUP_ACCURACY)}
    predictions = [predictions[i] for i in distinct_runs(predictions)]
    first, given = predictions[0], predictions[0].given
    sizes = np.unique(first.group, return_counts=True)[1]
    weights, chosen = resamples(len(sizes), len(predictions))
    whole = weights.astype(np.float32) if len(sizes) * sizes.max() < EXACT else None
    by_group = (GROUP_ACCURACY, *([WORST_GROUP] if sizes.max() >= LARGE else []))
    metrics = (*METRICS, *(ATTACK_METRICS if len(first.attack) else ()))
    point = {metric: np.full((len(names), len(predictions)), np.nan) for metric in (*metrics, *by_group)}  # (P, S)
    draws = {metric: np.full((len(names), RESAMPLES), np.nan) for metric in (*metrics, *by_group)}  # (P, R)
    for metric in metrics:
        draws[metric][given] = 0
    for seed, p in enumerate(predictions):
        sums = statistics(p.label, p.predicted[given], p.log_probs[given], p.group, p.attack)
        for metric, value in evaluate(sums, np.ones((1, len(sizes)))).items():
            point[metric][given, seed] = value[:, 0]
        for metric, values in evaluate(sums, weights, whole).items():
            draws[metric][given] += values * chosen[:, seed]
    for i in np.flatnonzero(given).tolist():
        right = np.stack([p.predicted[i] == p.label for p in predictions])
        for metric in by_group:
            statistic = group_accuracy if metric == GROUP_ACCURACY else worst_group
            point[metric][i], draws[metric][i] = statistic(right, first.group)
    result = {}
    for metric in (*metrics, *by_group):
        every = (
            np.vstack([point[metric], point[metric].mean(axis=0)]),
            np.vstack([draws[metric], draws[metric].mean(axis=0)]),
        )
        for name, found in zip([*names, MEAN], summarise_all(*every), strict=True):
            result[name, metric] = found
    return {(name, metric): result[name, metric] for name in [*names, MEAN] for metric in (*metrics, *by_group)}


def describe_test(p: Predictions) -> SplitFacts:
    """Size, majority class and natural gaps of a test split."""
    absent = {m: float(1 - p.present[:, i].mean()) for i, m in enumerate(p.modalities.tolist())}
    sizes, classes = (np.unique(values, return_counts=True)[1] for values in (p.group, p.label))
    samples = np.column_stack([p.label, p.group, p.present]).astype(np.int64)
    samples = samples[np.lexsort(samples.T)]
    return SplitFacts(
        size=len(p.label),
        groups=len(sizes),
        largest=100 * float(np.sort(sizes)[-2:].sum() / sizes.sum()),
        majority=100 * float(classes.max() / len(p.label)),
        imbalance=float(classes.max() / classes.min()),
        absent={m: share for m, share in absent.items() if share > 0},
        classes=p.log_probs.shape[-1],
        samples=sha256(samples.tobytes()).hexdigest(),
    )
