"""``mmbench data split``: which sample is in which split, for those who train with code of their own."""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from mmbench.errors import UsageError
from mmbench.files import atomic_write

if TYPE_CHECKING:
    from mmbench.data.base import MultimodalDataModule

COLUMNS = ("id", "fold", "split", "label", "split_sha256")
"""Of the file. The hash is ``split_hash``, the same in all rows of a fold; ``mmbench add-predictions`` checks it where it is given."""


def one_or_all(text: str) -> int | str:
    """Which fold is asked for: its number, or "all"."""
    if text == "all" or text.isdecimal():
        return text if text == "all" else int(text)
    raise argparse.ArgumentTypeError(f"expected the number of a fold, or all, got {text[:100]}")


def split_hash(ids: Mapping[str, Sequence[str]]) -> str:
    """What a fold, or the one split, is published by: the SHA-256 of the sorted lines "id split" of all its splits.

    Args:
        ids: split -> ids, as ``MultimodalDataModule.split_ids`` tells them.
    """
    from mmbench.data.folds import assignment_hash

    pairs = [(name, split) for split, names in ids.items() for name in names]
    return assignment_hash([name for name, _ in pairs], [split for _, split in pairs])


def write_split(arguments: argparse.Namespace) -> int:
    """``mmbench data split``."""
    from mmbench.data import DATASETS

    data = DATASETS[arguments.name]
    if (missing := data.prepared()) is not None:
        raise UsageError(f"{arguments.name}: its splits are known once the data are there; {missing}")
    if arguments.fold == "all" and data.folds == 1:
        raise UsageError(f"{arguments.name}: --fold all: it has one split and no folds; leave --fold out")
    folds: Iterable[int | None] = range(data.folds) if arguments.fold == "all" else [arguments.fold]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    for fold in folds:
        writer.writerows(lines(data, arguments.protocol, fold))
    if arguments.output is None:
        sys.stdout.write(buffer.getvalue())
        return 0
    atomic_write(arguments.output, buffer.getvalue().encode())
    print(f"wrote {arguments.output}", file=sys.stderr)
    return 0


def lines(data: type[MultimodalDataModule], protocol: str, fold: int | None) -> Iterator[tuple[str, ...]]:
    """The rows of one fold, with the columns ``COLUMNS``.

    Raises:
        UsageError: there is no such fold, or the class does not tell the ids of what it loads.
    """
    ids, module = data.split_ids(protocol, fold), data.textless(protocol, fold)
    digest, loaded = split_hash(ids), module.load()
    for split, names in ids.items():
        label = getattr(loaded, split).label.tolist()
        if len(label) != len(names):
            raise UsageError(
                f"{data.name}: split_ids() tells {len(names)} ids of the {split} split, but load() gives {len(label)} samples; mend "
                f"{data.__module__}"
            )
        for name, number in zip(names, label, strict=True):
            yield name, "" if fold is None else str(fold), split, module.classes[number], digest
