"""Accuracy by group of test samples: whether a model is as good for the many small groups, and for the worst of the large ones."""

from __future__ import annotations

import numpy as np

from mmbench.evidence.resampling import resamples

LARGE = 20
"""Samples of a group whose accuracy by itself is told."""


def group_accuracy(right: np.ndarray, group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean over groups of the group's accuracy, in percent: every group counts once, whatever its size (WILDS).

    Args:
        right: (S, N) bool, of S runs.
        group: (N,) numbers of the samples' groups.

    Returns:
        Of each run (S,), and the bootstrap's draws of the mean over runs (R,): groups and runs are resampled.
    """
    groups, member = np.unique(group, return_inverse=True)
    rates = np.stack([np.bincount(member, r, len(groups)) for r in right]) / np.bincount(member)  # (S, G)
    weights, chosen = resamples(len(groups), len(right))
    return 100 * rates.mean(axis=1), 100 * (weights @ rates.T / len(groups) * chosen).sum(axis=1)


def worst_group(right: np.ndarray, group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The accuracy, in percent, of the group of at least ``LARGE`` samples that is the worst by its mean over runs.

    Args:
        right: (S, N) bool, of S runs.
        group: (N,) numbers of the samples' groups; one of them at least is as large.

    Returns:
        Of each run (S,), and the draws of the mean over runs (R,). The group stays what it is, and its own samples are resampled:
        another draw of groups would have another worst one, of which those that there are say nothing.
    """
    groups, member, sizes = np.unique(group, return_inverse=True, return_counts=True)
    means = np.bincount(member, right.mean(axis=0), len(groups)) / sizes
    worst = np.where(sizes >= LARGE, means, np.inf).argmin()
    own = right[:, member == worst]  # (S, n)
    weights, chosen = resamples(own.shape[1], len(own))
    return 100 * own.mean(axis=1), 100 * (weights @ own.T / own.shape[1] * chosen).sum(axis=1)
