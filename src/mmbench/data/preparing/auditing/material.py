"""The samples of any data set as an audit looks at them, read block by block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mmbench.data.base import MultimodalDataModule
from mmbench.data.prepared import SPLITS, PreparedDataModule
from mmbench.data.preparing.texts import words
from mmbench.data.sets.added import AddedDataModule
from mmbench.data.split import Mapped
from mmbench.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

FEW = 3  # names that a line tells
BLOCK = 1 << 23  # bytes that are read at once

Values = Sequence[Tensor | Mapped]
"""N rows (N, …) one after the other, in memory or on disk; pictures are (…, C, H, W) when they are read."""


@dataclass(frozen=True)
class Material:
    """N samples.

    Attributes:
        classes: by number.
        ids: (N,) what a sample is called.
        label: (N,) the number of its class.
        group: (N,) what must not be in two splits.
        present: modality -> (N,) bool.
        values: modality -> what its encoder gets, where that is not a text.
        keys: modality -> (N,) what two samples are the same by, "" where they are not compared; none where values are to be hashed.
        texts: text modality -> (N,) texts.
        clips: (N,) which part of a file a sample is.
        columns: modality -> the names of its columns, where they have any.
        standardised: modalities whose columns are brought to one scale when they are loaded.
        own_ids: whether the ids are the data set's own, so that a list of them can be published by its hash.
    """

    classes: Sequence[str]
    ids: np.ndarray
    label: np.ndarray
    group: np.ndarray
    present: Mapping[str, np.ndarray]
    values: Mapping[str, Values]
    keys: Mapping[str, np.ndarray]
    texts: Mapping[str, Sequence[str]]
    clips: np.ndarray = field(default_factory=lambda: np.empty(0, object))
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)
    standardised: frozenset[str] = frozenset()
    own_ids: bool = True

    def some(self, rows: Sequence[int] | np.ndarray) -> str:
        """How many samples these are, and the first few of them by name."""
        return f"{len(rows)} sample{'s' * (len(rows) != 1)}: {listed([self.ids[row] for row in rows])}"


def listed(names: Sequence[Any], most: int = FEW) -> str:
    """The first few names, and how many more there are."""
    more = len(names) - most
    return ", ".join(map(str, names[:most])) + (f" and {more} more" if more > 0 else "")


def blocks(values: Values) -> Iterator[tuple[np.ndarray, Tensor]]:
    """(numbers of rows, those rows) of all values, a few megabytes at a time."""
    start = 0
    for part in values:
        sample = part.array[:1] if isinstance(part, Mapped) else part[:1]
        step = max(1, BLOCK // max(1, sample.nbytes))
        for first in range(0, len(part), step):
            index = torch.arange(first, min(first + step, len(part)))
            yield start + index.numpy(), part[index]
        start += len(part)


def of_prepared(data: type[PreparedDataModule], manifest: Mapping[str, Any], table: pd.DataFrame) -> Material:
    """The samples of a prepared data set that can be used; files are told apart by their SHA-256."""
    rows = np.flatnonzero(table["skipped"] == "")
    usable = table.iloc[rows]
    classes = data.class_names()
    if len(wrong := usable[~usable["label"].between(0, len(classes) - 1)]):
        raise UsageError(
            f"{data.folder() / 'samples.parquet'}: sample '{wrong['id'].iloc[0]}' has label {wrong['label'].iloc[0]}, expected 0 to "
            f"{len(classes) - 1} ({len(wrong)} samples have such labels); prepare the data anew: mmbench data info {data.name}"
        )
    keys = {m: usable[f"sha256_{m}"].to_numpy(object) for m in data.modalities if m not in data.text_modalities}
    keys = {m: column for m, column in keys.items() if (column != "").any()}  # numbers have no file
    texts = {m: usable[f"text_{m}"].tolist() for m in data.text_modalities}
    declared = data.declared.modalities if issubclass(data, AddedDataModule) else {}
    return Material(
        classes=classes,
        ids=usable["id"].to_numpy(object),
        label=usable["label"].to_numpy(np.int64),
        group=usable["group"].to_numpy(object),
        present={m: usable[f"present_{m}"].to_numpy(bool) for m in data.modalities},
        values={m: [Mapped(data.array(view, manifest), rows)] for m, view in data.default_views().items()},
        keys=keys | {m: np.array(list(map(data.text_key, column)), object) for m, column in texts.items()},
        texts=texts,
        clips=usable["clip"].to_numpy(object),
        columns={m: one.columns for m, one in declared.items() if one.columns},
        standardised=frozenset(m for m, one in declared.items() if one.standardise),
    )


class Numbered:
    """A tokenizer that keeps the texts as they are: equal ones get one number."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def __call__(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """The numbers of texts, in the order in which they first came: ``{"number": (N,)}``."""
        return {"number": torch.tensor([self.numbers.setdefault(text, len(self.numbers)) for text in texts])}

    def texts(self, numbers: Tensor) -> list[str]:
        """The texts of numbers (N,)."""
        known = list(self.numbers)
        return [known[number] for number in numbers.tolist()]


def of_protocol(data: type[MultimodalDataModule], protocol: str) -> tuple[Material, np.ndarray, list[str]]:
    """What a data set of any class loads under a protocol: the samples of its splits, the split (N,) of each, and what it printed.

    Raises:
        UsageError: there are no such splits, or they are refused (``data.checks``).
    """
    tokenizers, printed = {m: Numbered() for m in data.text_modalities}, StringIO()
    with redirect_stdout(printed):
        module = data(protocol=protocol, batch_size=1, tokenizers=tokenizers)
        loaded = module.splits
    parts = {name: part for name in SPLITS if (part := getattr(loaded, name)) is not None}
    split = np.repeat(np.array(list(parts), object), list(map(len, parts.values())))
    texts, values = dict[str, list[str]](), dict[str, list[Any]]()
    for modality in data.modalities:
        inputs = [part.inputs[modality] for part in parts.values()]
        if all(isinstance(value, Tensor | Mapped) for value in inputs):
            values[modality] = inputs
        elif modality in tokenizers and all(value.keys() == {"number"} for value in inputs):
            texts[modality] = [text for value in inputs for text in tokenizers[modality].texts(value["number"])]
    present = torch.cat([part.present for part in parts.values()]).numpy()
    ids, own = names_of(data, protocol, {name: len(part) for name, part in parts.items()})
    material = Material(
        classes=data.classes,
        ids=ids,
        label=torch.cat([part.label for part in parts.values()]).numpy(),
        group=torch.cat([part.group for part in parts.values()]).numpy(),
        present={m: present[:, column] for column, m in enumerate(data.modalities)},
        values=values,
        keys={m: np.array(list(map(words, column)), object) for m, column in texts.items()},
        texts=texts,
        own_ids=own,
    )
    lines = (line.removeprefix(f"{data.name}: ") for line in printed.getvalue().splitlines())
    return material, split, list(lines)


def names_of(data: type[MultimodalDataModule], protocol: str, sizes: Mapping[str, int]) -> tuple[np.ndarray, bool]:
    """What the samples of splits of these sizes are called (N,): as ``split_ids`` says, and True; else by split and position."""
    try:
        ids = data.split_ids(protocol)
    except UsageError:
        ids = {}
    if own := {name: len(names) for name, names in ids.items()} == sizes:
        return np.array([name for split in sizes for name in ids[split]], object), own
    return np.array([f"{split}[{row}]" for split, size in sizes.items() for row in range(size)], object), own


def part_of(data: type[MultimodalDataModule], material: Material) -> np.ndarray | None:
    """The part (N,) of each sample, of those that folds test; None where there are no folds, or its class does not tell them."""
    if data.folds == 1 or (parts := data.parts()) is None:
        return None
    known = dict(zip(parts.names, parts.clean.tolist(), strict=True))
    if not known.keys() >= set(material.ids.tolist()):
        return None
    return np.array([known[name] for name in material.ids], np.int64)
