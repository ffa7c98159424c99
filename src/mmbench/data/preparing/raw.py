"""What a raw download comes to before anything is decoded: a list of samples, and what is wrong with it."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from mmbench.errors import UsageError


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
class Listing:
    """What scanning a raw folder found.

    Attributes:
        samples: in the order of their ids.
        skipped: (sample or line, file, reason) of what the lists name and cannot be used.
        unlisted: files of the data set's kind that no list names.
        notes: what the user should know (lists that are not there, say).
        classes: by number, where the raw folder names its own in place of the data set's.
    """

    samples: list[Sample]
    skipped: list[tuple[str, str, str]] = field(default_factory=list)
    unlisted: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    classes: Sequence[str] | None = None


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


def within(root: Path, relative: str, where: str = "") -> Path:
    """The path below ``root``.

    Args:
        root: the raw folder.
        relative: a path that a list gives.
        where: the list and line, for the message.

    Raises:
        UsageError: it leads out of the folder, by ``..``, as an absolute path or through a symbolic link.
    """
    path = Path(os.path.normpath(root / relative))
    prefix = f"{where}: " if where else ""
    if Path(relative).is_absolute() or ".." in Path(relative).parts or "\0" in relative:
        raise UsageError(f"{prefix}the path {relative!r} leads out of {root}; expected one below it")
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)):
        raise UsageError(f"{prefix}{path} is a link to {os.path.realpath(path)}; expected a file in {root}")
    return path


def need(root: Path, relative: str, what: str) -> Path:
    """A file or folder that a raw data set cannot do without.

    Raises:
        UsageError: it is not there.
    """
    path = within(root, relative)
    if not path.exists():
        raise UsageError(f"{path} is missing: {what}")
    return path


def read_text(path: Path, encoding: str = "utf-8-sig") -> str:
    """The text of a file, line ends as newlines.

    Raises:
        UsageError: it is not in this encoding, or cannot be read.
    """
    try:
        return path.read_bytes().decode(encoding).replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise UsageError(
            f"{path}, line {line}: expected text in {encoding.removesuffix('-sig')} ({error.reason})"
        ) from error
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error


def read_lines(path: Path) -> Iterator[tuple[str, str]]:
    """The lines of a list that are not blank, each with where it stands, for messages."""
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            yield f"{path}, line {number}", line.strip()


def read_rows(path: Path, columns: int, delimiter: str = ",") -> Iterator[tuple[str, list[str]]]:
    """The rows of a table without a header, each with where it stands.

    Raises:
        UsageError: a row has another number of columns, or a quotation mark is not closed.
    """
    reader = csv.reader(read_text(path).split("\n"), delimiter=delimiter, strict=True)
    try:
        for row in reader:
            if not row:
                continue
            where = f"{path}, line {reader.line_num}"
            if len(row) != columns:
                raise UsageError(f"{where}: expected {columns} columns, got {len(row)}: {delimiter.join(row)[:80]!r}")
            yield where, [cell.strip() for cell in row]
    except csv.Error as error:
        raise UsageError(f"{path}, line {reader.line_num}: {error}") from error


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
