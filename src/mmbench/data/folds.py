"""Folds: a data set in parts of whole groups, each of which is the test split of one fold."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from math import lcm
from typing import Literal

import numpy as np

from mmbench.data.preparing.raw import digest
from mmbench.errors import UsageError


def balanced(groups: Sequence[Hashable], labels: Sequence[int], count: int, salt: str) -> np.ndarray:
    """Deal whole groups out to parts that are alike in size and in every class, as nearly as the groups allow: (N,) numbers of parts.

    The largest groups come first, those of equal size in the order of the hashes of their names; each goes to the part that has the
    least of what it brings, a class's samples counted as shares of that class, and all samples as if they were one class more. All of
    it is done in whole numbers, so that the parts depend on nothing but names, labels and the salt: neither on the order of samples
    nor on any library.

    Args:
        groups: of each sample.
        labels: of each sample.
        count: of parts, K.
        salt: another salt is another order of equally large groups.
    """
    content: dict[str, dict[int, int]] = {}  # group -> its samples in all (0), and of each class that it has
    columns = {label: column for column, label in enumerate(sorted(set(labels)), start=1)}
    totals = [0] * (1 + len(columns))
    for group, label in zip(map(str, groups), labels, strict=True):
        counts = content.setdefault(group, {})
        for column in (0, columns[label]):
            counts[column] = counts.get(column, 0) + 1
            totals[column] += 1
    weights = [lcm(*totals) // total for total in totals]  # a share of a class, in whole numbers
    have = [[0] * len(totals) for _ in range(count)]
    part_of = {}
    for group in sorted(content, key=lambda group: (-content[group][0], digest(f"{salt}:{group}"))):
        brought = [(column, weights[column] * number) for column, number in content[group].items()]
        part = min(range(count), key=lambda part: sum(b * have[part][column] for column, b in brought))
        for column, number in content[group].items():
            have[part][column] += number
        part_of[group] = part
    return np.array([part_of[str(group)] for group in groups], np.int64)


@dataclass(frozen=True)
class Parts:
    """The K parts of a data set under both splits; fold k tests part k.

    Attributes:
        count: K.
        names: of the N samples.
        clean: (N,) the part of each, 0 to K − 1; a group is in one part.
        legacy: (N,) likewise, at random; part k is as large as ``clean``'s.
    """

    count: int
    names: tuple[str, ...]
    clean: np.ndarray
    legacy: np.ndarray

    @classmethod
    def of(cls, names: Sequence[str], clean: Sequence[int] | np.ndarray, count: int, salt: str) -> Parts:
        """The parts, with the random ones drawn: by the hashes of salt and name, whatever the order of the samples.

        Args:
            names: of the samples.
            clean: the part of each.
            count: of parts, K.
            salt: another salt is another draw.

        Raises:
            UsageError: a sample has no part, or one that there is not.
        """
        clean = np.asarray(clean, np.int64)
        if clean.shape != (len(names),):
            raise UsageError(f"folds: expected a part for each of {len(names)} samples, got {len(clean)}")
        if wrong := np.flatnonzero((clean < 0) | (clean >= count)).tolist():
            raise UsageError(
                f"folds: sample '{names[wrong[0]]}' is in part {clean[wrong[0]]}, expected 0 to {count - 1}"
            )
        order = sorted(range(len(names)), key=lambda row: digest(f"{salt}:{names[row]}"))
        legacy = np.empty_like(clean)
        legacy[order] = np.repeat(np.arange(count), np.bincount(clean, minlength=count))
        return cls(count, tuple(names), clean, legacy)

    def rows(self, split: Literal["clean", "legacy"], fold: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The numbers of a fold's samples of training, validation and test.

        Part ``fold`` is for testing, the next one for validation, the rest for training. ``legacy`` has no validation: it leaves the
        next part out, so that it has as many training samples as ``clean``.
        """
        parts = getattr(self, split)
        after = (fold + 1) % self.count
        train, validation, test = (
            np.flatnonzero(chosen) for chosen in ((parts != fold) & (parts != after), parts == after, parts == fold)
        )
        return train, validation[:0] if split == "legacy" else validation, test

    def lacks(self) -> str | None:
        """Which part has no sample, so that its fold cannot be tested; None if all have some."""
        sizes = np.bincount(self.clean, minlength=self.count).tolist()
        return None if min(sizes) else f"too few samples: part {sizes.index(0)} of the {self.count} has none"

    def hash_of(self, split: Literal["clean", "legacy"]) -> str:
        """What a split's parts are published by (``assignment_hash``)."""
        return assignment_hash(self.names, getattr(self, split))


def assignment_hash(names: Sequence[Hashable], parts: Sequence[Hashable] | np.ndarray) -> str:
    """The SHA-256 of the sorted lines "name part": it publishes which name is in which part."""
    lines = sorted(f"{name} {part}\n" for name, part in zip(names, parts, strict=True))
    return sha256("".join(lines).encode()).hexdigest()


def checked_fold(name: str | None, folds: int, fold: int | None) -> int | None:
    """The fold, if the data set of this name has it; else a UsageError."""
    if fold is None or (folds > 1 and fold in range(folds)):
        return fold
    if folds == 1:
        raise UsageError(f"{name}: fold {fold}: it has one split and no folds; leave fold out")
    raise UsageError(f"{name}: fold {fold}: it has {folds} folds, 0 to {folds - 1}")
