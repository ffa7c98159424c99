"""What a raw download comes to before anything is decoded: a list of samples, how they are grouped, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Sample:
    """One sample of a raw data set.

    Attributes:
        id: its name, unique in the data set.
        label: the number of its class.
        group: actor, session, subject: what must not be in two splits.
        files: modality -> path of its file below the raw folder; None where the sample has none by nature.
        text: text modality -> text; "" where there is none.
        legacy: its split by the published lists: "train", "validation", "test", or "" for none.
        attack: the type of a presentation attack, 0 for a bona fide sample.
        clip: what a decoder has to know beside the file: times, say. JSON values.
    """

    id: str
    label: int
    group: str
    files: Mapping[str, str | None] = field(default_factory=dict)
    text: Mapping[str, str] = field(default_factory=dict)
    legacy: str = ""
    attack: int = 0
    clip: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Vectors:
    """The vectors of N samples.

    Attributes:
        values: (N, D), of any type of numbers; perhaps on disk. Rows of samples without one hold anything.
        present: (N,) bool.
        hashed: an equal vector is the same sample twice; not so of a few numbers, which are equal by chance.
        notes: what the user should know.
    """

    values: np.ndarray
    present: np.ndarray
    hashed: bool = True
    notes: list[str] = field(default_factory=list)

    @property
    def width(self) -> int:
        """D."""
        return self.values.shape[1]

    def block(self, rows: slice) -> np.ndarray:
        """Some rows as float32, zero where there is no vector."""
        with np.errstate(over="ignore"):
            values = np.asarray(self.values[rows]).astype(np.float32)
        values[~self.present[rows]] = 0
        return values


@dataclass
class Listing:
    """What scanning a raw folder found.

    Attributes:
        samples: in the order of their ids.
        skipped: (sample or line, file, reason) of what the lists name and cannot be used.
        unlisted: files of the data set's kind that no list names.
        notes: what the user should know (lists that are not there, say).
        classes: by number, where the raw folder names its own in place of the data set's.
        vectors: modality -> its vectors, of those that are not decoded file by file.
    """

    samples: list[Sample]
    skipped: list[tuple[str, str, str]] = field(default_factory=list)
    unlisted: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    classes: Sequence[str] | None = None
    vectors: Mapping[str, Vectors] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """How a modality's file becomes arrays.

    Attributes:
        fields: array name -> (shape of a sample, dtype).
        decode: (file, sample) -> array name -> array; raises BadFile. Of the sample it may use ``id``, ``files`` and ``clip``: when
            only other attributes change (new lists, say), nothing is decoded again.
        transform: what it does, in words, for the manifest.
    """

    fields: Mapping[str, tuple[tuple[int, ...], str]]
    decode: Callable[[Path, Sample], Mapping[str, np.ndarray]]
    transform: str


@dataclass(frozen=True)
class Info:
    """What a user has to know to get a data set.

    Attributes:
        title: its full name.
        source: where it comes from.
        licence: its terms, as far as known.
        layout: the raw folder, a line each: (path, what it is).
        disk: raw and prepared size, in words.
    """

    title: str
    source: str
    licence: str
    layout: Sequence[tuple[str, str]]
    disk: str


def digest(text: str) -> int:
    """A number that a text is ordered by at random, yet the same everywhere."""
    return int.from_bytes(sha256(text.encode()).digest()[:8])


def carve(groups: Sequence[str], strata: Sequence[int], share: float, salt: str) -> np.ndarray:
    """Choose whole groups that hold about ``share`` of the samples of every stratum: (N,) bool.

    Groups are taken in the order of the hashes of their names, as long as they bring the strata's shares nearer to ``share``. So the
    choice depends on nothing but names, labels and the salt.

    Args:
        groups: of each sample.
        strata: of each sample; its class.
        share: of the samples to choose.
        salt: another salt is another choice.
    """
    names, group = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)
    classes, stratum = np.unique(np.asarray(strata), return_inverse=True)
    counts = np.zeros((len(names), len(classes)), np.int64)
    np.add.at(counts, (group, stratum), 1)
    wanted, have, chosen = share * counts.sum(axis=0), np.zeros(len(classes)), np.zeros(len(names), bool)
    for g in sorted(range(len(names)), key=lambda g: digest(f"{salt}:{names[g]}")):
        before, after = ((np.square(have + add - wanted) / np.maximum(wanted, 1)).sum() for add in (0, counts[g]))
        if after < before:
            chosen[g], have = True, have + counts[g]
    return chosen[group]


def merge(*keys: Iterable[str]) -> list[str]:
    """One group for all samples that are linked by an equal value of any key, directly or through others; "" links nothing.

    A group is called by the number of its first sample. Name it by something of the samples' own before ``carve`` orders the names,
    or one sample more changes the whole choice.

    >>> merge(["a", "b", "c"], ["x", "y", "x"])
    ['0', '1', '0']
    """
    columns = [list(key) for key in keys]
    parent = list(range(len(columns[0])))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for column in columns:
        first: dict[str, int] = {}
        for i, value in enumerate(column):
            if value:
                a, b = sorted((root(i), root(first.setdefault(value, i))))
                parent[b] = a
    return [str(root(i)) for i in range(len(parent))]
