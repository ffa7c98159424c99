"""Samples that are the same, or look alike: across splits, within one, and with different labels."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np

Pairs = tuple[np.ndarray, np.ndarray]
"""Numbers of samples, and of one partner for each."""


def partners(keys: np.ndarray, one: np.ndarray, other: np.ndarray) -> Pairs:
    """The samples of ``other`` whose key is one of ``one``'s, and the first such sample of ``one``; "" is no key."""
    first: dict[object, int] = {}
    for row in one.tolist():
        first.setdefault(keys[row], row)
    first.pop("", None)
    found = [(row, first[keys[row]]) for row in other.tolist() if keys[row] in first]
    both = np.array(found, np.int64).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def near_partners(pairs: np.ndarray, one: np.ndarray, other: np.ndarray) -> Pairs:
    """The samples of ``other`` that are in a pair (P, 2) with one of ``one``, and the first such sample."""
    both = np.concatenate([pairs, pairs[:, ::-1]])
    both = both[np.isin(both[:, 0], other) & np.isin(both[:, 1], one)]
    both = both[np.lexsort((both[:, 1], both[:, 0]))]
    rows, first = np.unique(both[:, 0], return_index=True)
    return rows, both[first, 1]


def across(split: np.ndarray, names: tuple[str, ...]) -> Iterator[tuple[str, np.ndarray, str, np.ndarray]]:
    """(name, samples, name, samples) of every two splits."""
    parts = {name: np.flatnonzero(split == name) for name in names}
    for (one, first), (other, second) in combinations(parts.items(), 2):
        yield one, first, other, second


def within(keys: np.ndarray, split: np.ndarray) -> Pairs:
    """The samples whose key an earlier sample of the same split has, and that sample. "" is no key, and no split."""
    first: dict[object, int] = {}
    found = []
    for row, (key, name) in enumerate(zip(keys.tolist(), split.tolist(), strict=True)):
        if key != "" and name != "" and first.setdefault((key, name), row) != row:
            found.append((row, first[key, name]))
    both = np.array(found, np.int64).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def clipped(keys: np.ndarray, clips: np.ndarray) -> np.ndarray:
    """Keys of files together with which part of the file a sample is; "" stays."""
    if not len(clips):
        return keys
    both = np.empty(len(keys), object)
    both[:] = [(key, clip) if key else "" for key, clip in zip(keys, clips, strict=True)]
    return both


def conflicts(keys: np.ndarray, label: np.ndarray) -> Pairs:
    """The samples that are the same as one of another label, and the first such sample."""
    groups: dict[object, dict[int, int]] = {}  # key -> label -> the first sample that has both
    for row, (key, number) in enumerate(zip(keys.tolist(), label.tolist(), strict=True)):
        if key != "":
            groups.setdefault(key, {}).setdefault(number, row)
    found = []
    for row, (key, number) in enumerate(zip(keys.tolist(), label.tolist(), strict=True)):
        if key != "" and len(groups[key]) > 1:
            found.append((row, next(first for other, first in groups[key].items() if other != number)))
    both = np.array(found, np.int64).reshape(-1, 2)
    return both[:, 0], both[:, 1]
