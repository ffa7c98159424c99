"""Samples that are the same, or look alike: across splits, within one, and with different labels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

SIDES = (("test", "train"), ("validation", "train"), ("test", "validation"))
"""Which splits are compared."""

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


def crossing(
    split: np.ndarray, find: Callable[[np.ndarray, np.ndarray], Pairs], does: str, link: str
) -> tuple[str, Pairs]:
    """How many samples of each split have a partner in another one, in words, "" if none has; and the pairs.

    Args:
        split: (N,) of each sample.
        find: (samples of one split, samples of another) -> those of the other that have a partner in the one, and the partners.
        does: what such a sample does, such as "share their image".
        link: leads to the name of the other split, such as "with".
    """
    parts, found = list[str](), list[Pairs]()
    for other, one in SIDES:
        second = np.flatnonzero(split == other)
        pairs = find(np.flatnonzero(split == one), second)
        if count := len(pairs[0]):
            parts.append(f"{count} of {len(second)} {other} samples {'' if parts else does + ' '}{link} {one}")
            found.append(pairs)
    none = np.empty(0, np.int64)
    return ", ".join(parts), (
        np.concatenate([none, *(p[0] for p in found)]),
        np.concatenate([none, *(p[1] for p in found)]),
    )


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
