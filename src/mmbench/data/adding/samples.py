"""From tables to samples: ids, labels, groups, splits and files, each checked, each mistake told with its row and its column."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from difflib import get_close_matches
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from mmbench.data.adding.declaration import MEDIA, Declared, Modality
from mmbench.data.adding.metadata import Metadata, read_metadata
from mmbench.data.adding.vectors import read_vectors
from mmbench.data.preparing.lists import Below, file_names, find_files, plain
from mmbench.data.preparing.raw import Listing, Sample, carve
from mmbench.errors import UsageError, did_you_mean

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "development"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
"""What splits are called -> what they are called here."""
TURNING = frozenset("\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that turn the direction of the text behind them."""
TEST = 0.2
"""The share of the samples that a random split tests, where none is given."""


def read_samples(declared: Declared, root: Path) -> Listing:
    """The samples of a folder, as its declaration says.

    Args:
        declared: what ``dataset.yaml`` says.
        root: the folder.

    Raises:
        UsageError: a column is not there, or a cell is not what it has to be; it names row and column.
    """
    metadata = read_metadata(root, declared.metadata)
    ids = ids_of(metadata, declared.id)
    labels = labels_of(metadata, declared.label, declared.classes)
    groups = groups_of(metadata, declared.group, ids)
    splits = splits_of(metadata, declared)
    texts, files, vectors = {}, {}, {}
    for name, modality in declared.modalities.items():
        if modality.kind == "text":
            assert modality.column is not None
            texts[name] = metadata.texts(metadata.need(modality.column, f"modalities.{name}.column"))
        elif modality.file is not None:
            files[name] = files_of(metadata, name, modality)
        else:
            vectors[name] = read_vectors(name, modality, metadata, ids)
            check_width(name, modality, vectors[name].width)
    if not splits:
        salt = f"{declared.name} legacy"
        splits = np.where(carve(ids, labels, TEST, salt), "test", "train").tolist()
    samples = [
        Sample(
            ids[row],
            labels[row],
            groups[row],
            {name: paths[row] or None for name, paths in files.items()},
            {name: column[row] for name, column in texts.items()},
            legacy=splits[row],
        )
        for row in range(len(ids))
    ]
    notes = [*metadata.notes, *(note for given in vectors.values() for note in given.notes)]
    if len(declared.modalities) == 1:
        notes.append("there is one modality alone: methods fuse two at least, so that no experiment can run on it")
    if declared.group is None:
        notes.append("no groups were given: clean is only stratified by class")
    elif declared.split or declared.several_tables:
        notes += crossing(groups, splits, declared.group)
    return Listing(samples, notes=notes, vectors=vectors)


def check_width(name: str, modality: Modality, width: int) -> None:
    """Refuse vectors of another width than the declaration's."""
    if modality.width is not None and modality.width != width:
        raise UsageError(
            f"modalities.{name}.width: {modality.width}, but its vectors have {width} numbers; leave width out, or mend the data"
        )


def ids_of(metadata: Metadata, column: str | None) -> list[str]:
    """The name of each sample, unique; numbers of rows where no column has them."""
    if column is None:
        return [str(row) for row in range(len(metadata))]
    ids = metadata.texts(metadata.need(column, "id"))
    first: dict[str, int] = {}
    for row, name in enumerate(ids):
        if not name:
            raise UsageError(f"{metadata.where(row, column)}: the id is empty; every sample needs one of its own")
        check_printable(metadata, row, column, name)
        if len(name) > 500:
            raise UsageError(f"{metadata.where(row, column)}: an id of {len(name):,} characters, expected at most 500")
        if first.setdefault(name, row) != row:
            raise UsageError(
                f"{metadata.where(row, column)}: the id '{name[:60]}' is that of row {metadata.where(first[name]).rpartition(' ')[2]} "
                "too; every sample needs one of its own (or leave id out: rows are then numbered)"
            )
    return ids


def labels_of(metadata: Metadata, column: str, classes: Sequence[str]) -> list[int]:
    """The number of each sample's class: cells hold its name, or, where no class is called by a number, its number from 0 on."""
    cells = label_cells(metadata, column, classes)
    numbers = {name: number for number, name in enumerate(classes)}
    by_number = not any(map(is_whole, classes)) and all(map(is_whole, cells))
    labels = []
    for row, cell in enumerate(cells):
        if by_number:
            if not 0 <= (label := int(cell)) < len(classes):
                raise UsageError(
                    f"{metadata.where(row, column)}: label {cell}, expected 0 to {len(classes) - 1}, a number for each of the "
                    f"{len(classes)} classes"
                )
        elif cell in numbers:
            label = numbers[cell]
        else:
            raise UsageError(
                f"{metadata.where(row, column)}: unknown class '{cell[:60]}'; {did_you_mean(cell, classes)} (classes: in dataset.yaml)"
            )
        labels.append(label)
    return labels


def is_whole(text: str) -> bool:
    """Whether a text is a whole number of up to 18 digits."""
    return re.fullmatch(r"-?[0-9]{1,18}", text) is not None


def label_cells(metadata: Metadata, column: str, classes: Sequence[str] = ()) -> list[str]:
    """The labels as they are written; those that are among the classes are well spelt, whatever they look like.

    Raises:
        UsageError: one is missing, is a fraction, or two of them are one in two spellings.
    """
    import pyarrow as pa

    cells = metadata.texts(metadata.need(column, "label"))
    if pa.types.is_floating(metadata.table.column(column).type):  # whole numbers, beside empty cells
        cells = [cell.removesuffix(".0") if cell not in ("", "nan") else "" for cell in cells]
    if empty := [row for row, cell in enumerate(cells) if not cell]:
        raise UsageError(
            f"{metadata.where(empty[0], column)}: the label is empty ({len(empty)} rows have none); give every sample one, or take the "
            "row out"
        )
    for row, cell in enumerate(cells):
        if re.fullmatch(r"[+-]?\d*\.\d+(e[+-]?\d+)?", cell, re.IGNORECASE):
            raise UsageError(
                f"{metadata.where(row, column)}: the label is {cell}, expected the name of a class, or a whole number: mmbench "
                "classifies, it does not regress"
            )
    first: dict[str, int] = {}
    for row, cell in enumerate(cells):
        first.setdefault(cell, row)
    for cell, row in first.items():
        check_printable(metadata, row, column, cell)
    known = {spelt(name): name for name in classes}
    twice = [
        (row, cell, one)
        for cell, row in first.items()
        if cell not in classes and (one := known.setdefault(spelt(cell), cell)) != cell
    ]
    if twice:
        row, cell, one = twice[0]
        whose = (
            f"'{one}' of row {metadata.where(first[one]).rpartition(' ')[2]}" if one in first else f"the class '{one}'"
        )
        more = "".join(
            f"; '{other}' (row {metadata.where(at).rpartition(' ')[2]}) is '{of}'" for at, other, of in twice[1:6]
        )
        raise UsageError(
            f"{metadata.where(row, column)}: the label '{cell}' is {whose} in another spelling{more}; make them one, or list both in "
            "classes: of dataset.yaml"
        )
    return cells


def spelt(label: str) -> str:
    """What two spellings of one label have in common: all but case, and whether words are joined by blanks, ``_`` or ``-``.

    >>> spelt("Full Moon") == spelt("full_moon"), spelt("-1") == spelt("1"), spelt("C++") == spelt("C#")
    (True, False, False)
    """
    if is_whole(label):
        return label
    return re.sub(r"(?<=\w)[\s_-]+(?=\w)", " ", unicodedata.normalize("NFKC", label).casefold())


def check_printable(metadata: Metadata, row: int, column: str, text: str) -> None:
    """Refuse control characters, line ends and marks that turn the direction of text: names go to terminals and tables."""
    if wrong := next((c for c in text if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") or c in TURNING), None):
        raise UsageError(
            f"{metadata.where(row, column)}: has the character {wrong!a}, which no name needs; take it out"
        )


def groups_of(metadata: Metadata, column: str | None, ids: Sequence[str]) -> list[str]:
    """The group of each sample: the sample itself, where none was given."""
    if column is None:
        return list(ids)
    groups = metadata.texts(metadata.need(column, "group"))
    if empty := [row for row, group in enumerate(groups) if not group]:
        raise UsageError(
            f"{metadata.where(empty[0], column)}: the group is empty ({len(empty)} rows have none); name what the sample shares with "
            "others, or give it a name of its own"
        )
    for group, number in {group: row for row, group in reversed(list(enumerate(groups)))}.items():
        check_printable(metadata, number, column, group)
    return groups


def splits_of(metadata: Metadata, declared: Declared) -> list[str]:
    """The given split of each sample; none, where none was given."""
    if declared.split is not None:
        cells = metadata.texts(metadata.need(declared.split, "split"))
        column = declared.split
    elif declared.several_tables:
        cells, column = [folder.split("/")[0] for folder in metadata.folders], ""
    else:
        return []
    for row, cell in enumerate(cells):
        if cell.casefold() not in SPLIT_NAMES:
            hint = f"'{cell[:40]}'" if cell else "nothing"
            raise UsageError(
                f"{metadata.where(row, column)}: expected the split train, validation or test, got {hint}; mend it, or set split: null "
                "in dataset.yaml, so that splits are cut here"
            )
    splits = [SPLIT_NAMES[cell.casefold()] for cell in cells]
    if lacking := [name for name in ("train", "test") if name not in splits]:
        raise UsageError(
            f"{metadata.tables}: no sample is in the split '{lacking[0]}'; name some, or set split: null in dataset.yaml, so that "
            "splits are cut here"
        )
    return splits


def crossing(groups: Sequence[str], splits: Sequence[str], column: str) -> list[str]:
    """A line that names groups on two sides of the given split, if there are any."""
    where: dict[str, set[str]] = {}
    for group, split in zip(groups, splits, strict=True):
        where.setdefault(group, set()).add(split)
    both = sorted(group for group, parts in where.items() if len(parts) > 1)
    if not both:
        return []
    some = ", ".join(f"'{group[:40]}'" for group in both[:3])
    return [
        f"{len(both)} of {len(where)} groups ({column}) are on two sides of the given split, such as {some}: it holds for legacy "
        "alone; clean needs folds, which keep groups together"
    ]


def files_of(metadata: Metadata, name: str, modality: Modality) -> list[str]:
    """The path of each sample's file below the folder; "" where there is none.

    Raises:
        UsageError: a path leads out of the folder, or no sample has a file.
    """
    assert modality.file is not None
    column = metadata.need(modality.file, f"modalities.{name}.file")
    cells, paths, below = metadata.texts(column), [], Below(metadata.root)
    root = str(metadata.root)
    for row, (cell, folder) in enumerate(zip(cells, metadata.folders, strict=True)):
        path = cell and path_of(metadata.root, cell, folder)
        if path:
            below.check(path, partial(metadata.where, row, column))
        paths.append(path)
    if not any(paths):
        raise UsageError(
            f"{metadata.tables}: the column '{column}' is empty; expected the files of {name}, or leave {name} out"
        )
    missing = [row for row, path in enumerate(paths) if path and not os.path.isfile(os.path.join(root, path))]
    if len(missing) == sum(map(bool, paths)):
        raise UsageError(
            f"{metadata.where(missing[0], column)}: {paths[missing[0]]!r} is no file below {metadata.root}, and neither is any other "
            f"of the column{elsewhere(metadata.root, paths[missing[0]])}; paths are relative to the table's folder"
        )
    return paths


def path_of(root: Path, cell: str, folder: str) -> str:
    """A path as a table gives it, relative to the root; an absolute one that lies below the root is so too."""
    path = plain(cell)
    if path.startswith("/") and PurePosixPath(path).is_relative_to(root.absolute()):
        return str(PurePosixPath(path).relative_to(root.absolute()))
    return path if path.startswith("/") or not folder else f"{folder}/{path}"


def elsewhere(root: Path, path: str) -> str:
    """Where there is a file of the same name instead, as a part of a sentence."""
    name = PurePosixPath(path).name
    found = find_files(root, PurePosixPath(name).suffix.lower(), deep=True)
    names = {file.name: file for file in found}
    if name in names:
        return f" (there is {names[name].relative_to(root)})"
    close = get_close_matches(name, names, 1)
    return f" (there is {names[close[0]].relative_to(root)})" if close else ""


def unlisted(declared: Declared, root: Path, samples: Sequence[Sample]) -> list[str]:
    """The files of the modalities' kinds that no row names."""
    from mmbench.data.adding.decoding import ENDINGS

    kinds = declared.of_kind(*MEDIA)
    named = {path for sample in samples for path in sample.files.values() if path}
    endings = tuple({ending for name in kinds for ending in ENDINGS[declared.modalities[name].kind]})
    if not endings:
        return []
    start = len(os.path.join(root, ""))
    found = sorted(file[start:] for file in file_names(root, endings, deep=True))
    return [path for path in found if path not in named]


def classes_of(metadata: Metadata, column: str) -> list[str]:
    """The names of the classes that a column has: whole numbers in their order, names in that of the alphabet."""
    found = Counter(label_cells(metadata, column))
    if len(found) < 2:
        raise UsageError(f"{metadata.tables}: column '{column}': expected two classes at least, got {', '.join(found)}")
    numbers = all(map(is_whole, found))
    return sorted(found, key=int) if numbers else sorted(found)
