"""Samples to ask a model about, from the columns of a table: those that the data were added by, or called after the modalities."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmbench.data.adding.declaration import Modality
from mmbench.data.adding.metadata import Metadata, expected_tables, find_tables, has_table, read_metadata
from mmbench.data.adding.samples import elsewhere, ids_of, path_of
from mmbench.data.adding.tables import TABLES
from mmbench.data.adding.vectors import ARRAYS, read_vectors
from mmbench.data.preparing.lists import within
from mmbench.errors import UsageError, did_you_mean
from mmbench.files import over_long
from mmbench.models.inputs import CLIP, Inputs

UNKNOWN = -1
"""The label of a row that has none."""


@dataclass
class Asked:
    """The samples of a table.

    Attributes:
        metadata: the table.
        ids: their names; numbers of rows where no column has them.
        samples: modality -> value, of each.
        columns: modality -> the column that it was read from, for messages.
        labels: (N,) numbers of their classes, ``UNKNOWN`` where a cell is empty; None where no column has them.
    """

    metadata: Metadata
    ids: list[str]
    samples: list[dict[str, Any]]
    columns: dict[str, str]
    labels: np.ndarray | None

    def where(self, number: int, modality: str) -> str:
        """Where a value stands, for messages."""
        return self.metadata.where(number, self.columns.get(modality, modality))


def read_asked(path: Path, inputs: Inputs) -> Asked:
    """Read the samples of a metadata file, or of a folder that holds one.

    Args:
        path: the file or the folder.
        inputs: of the model.

    Raises:
        UsageError: there is no table, it has no column of a modality, or a cell is not what it has to be.
    """
    if not (has_table(path) if path.is_dir() else path.is_file() and path.suffix.lower() in TABLES):
        what = "has no table of samples" if path.is_dir() else "is no table" if path.exists() else "is not there"
        raise UsageError(f"{path} {what}; expected {expected_tables()}, or a folder with one: one row a sample")
    tables = find_tables(path)
    metadata = read_metadata(path.parent if path.is_file() else path, tables)
    declared = getattr(inputs.data, "declared", None)
    places = {modality: place_of(modality, inputs, metadata) for modality in inputs.card.modalities}
    found = {modality: place for modality, place in places.items() if place is not None}
    if not found:
        expected = "; ".join(f"{modality}: {expected_of(modality, inputs)}" for modality in inputs.card.modalities)
        raise UsageError(f"{metadata.tables}: no column of any modality; expected some of: {expected}")
    own_id, own_label = (declared.id, declared.label) if declared else (None, "label")
    ids = ids_of(metadata, next((c for c in (own_id, "id") if c in metadata.columns), None))
    samples: list[dict[str, Any]] = [{} for _ in ids]
    for modality, place in found.items():
        for row, value in enumerate(values_of(modality, place, metadata, ids)):
            if value is not None:
                samples[row][modality] = value
    if CLIP in metadata.columns:
        for row, cell in enumerate(metadata.texts(CLIP)):
            if cell:
                samples[row][CLIP] = clip_of(cell, metadata.where(row, CLIP))
    label = next((c for c in (own_label, "label") if c in metadata.columns), None)
    columns = {m: place.file or place.column or place.array or (place.columns or [m])[0] for m, place in found.items()}
    return Asked(metadata, ids, samples, columns, labels_of(metadata, label, inputs.card.classes) if label else None)


def place_of(modality: str, inputs: Inputs, metadata: Metadata) -> Modality | None:
    """Where a table has a modality: where the declaration of added data says, or in columns of its name; None if it has not."""
    declared = getattr(inputs.data, "declared", None)
    own: Modality | None = declared.modalities[modality] if declared else None
    if own is not None and is_there(own, metadata):
        return own
    file = f"{modality}_file_name"
    if modality in inputs.card.texts:
        return Modality(kind="text", column=modality) if modality in metadata.columns else None
    if modality in inputs.sources:
        column = next((name for name in (file, modality) if name in metadata.columns), None)
        return Modality(kind="picture", file=column) if column else None
    if file in metadata.columns:
        return Modality(kind="features", file=file)
    if modality in metadata.columns:
        return Modality(kind="features", column=modality)
    numbered = Modality(kind="features", columns=[f"{modality}_*"])
    arrays = [f"{modality}{ending}" for ending in ARRAYS if (metadata.root / f"{modality}{ending}").is_file()]
    if is_there(numbered, metadata):
        return numbered
    return Modality(kind="features", array=arrays[0]) if arrays else None


def is_there(place: Modality, metadata: Metadata) -> bool:
    """Whether the columns, or the file, of a modality are there."""
    if place.array is not None:
        return (metadata.root / place.array).is_file()
    if place.columns is None:
        return (place.file or place.column) in metadata.columns
    patterns = [
        re.escape(column[:-1]) + r"\d+" if column.endswith("*") else re.escape(column) for column in place.columns
    ]
    return all(any(re.fullmatch(pattern, column) for column in metadata.columns) for pattern in patterns)


def expected_of(modality: str, inputs: Inputs) -> str:
    """What a modality's column may be called, in words."""
    declared = getattr(inputs.data, "declared", None)
    own: Modality | None = declared.modalities[modality] if declared else None
    if own is not None and own.columns is not None:
        return f"{', '.join(repr(column) for column in own.columns)} (numbers)"
    if own is not None and own.array is not None:
        return f"a file {own.array}, or '{modality}' (lists of numbers)"
    if own is not None:
        what = {"text": "texts", "features": "files of vectors" if own.file else "lists of numbers"}.get(
            own.kind, "paths"
        )
        return f"'{own.file or own.column}' ({what})"
    if modality in inputs.card.texts:
        return f"'{modality}' (texts)"
    if modality in inputs.sources:
        return f"'{modality}_file_name' (paths)"
    return f"'{modality}_file_name' (files of vectors), '{modality}' (lists of numbers), '{modality}_0', … or a file {modality}.npy"


def values_of(modality: str, place: Modality, metadata: Metadata, ids: list[str]) -> list[Any]:
    """The value of a modality in each row; None where it is absent.

    Raises:
        UsageError: a file is not there, lies elsewhere, or holds no vectors; a cell is no number.
    """
    if place.kind == "text":
        return [text or None for text in metadata.texts(str(place.column))]
    if place.file is None:
        vectors = read_vectors(modality, place, metadata, ids)
        rows = vectors.block(slice(None))
        return [row if here else None for row, here in zip(rows, vectors.present.tolist(), strict=True)]
    paths: list[Any] = []
    for row, (cell, folder) in enumerate(zip(metadata.texts(place.file), metadata.folders, strict=True)):
        if why := over_long(cell):
            raise UsageError(f"{metadata.where(row, place.file)}: {why}")
        path = below(metadata, cell, folder, metadata.where(row, place.file)) if cell else None
        if path is not None and not path.is_file():
            hint = elsewhere(metadata.root, cell)
            raise UsageError(
                f"{metadata.where(row, place.file)}: {path} is no file{hint}; leave the cell empty where there is none"
            )
        paths.append(path)
    return paths


def below(metadata: Metadata, cell: str, folder: str, where: str) -> Path:
    """The path that a cell names, below the table's folder, also where links lead out of it.

    Raises:
        UsageError: it is not below.
    """
    relative = path_of(metadata.root, cell, folder)
    real = Path(os.path.realpath(metadata.root / relative))
    plain = not os.path.isabs(relative) and ".." not in relative.split("/")
    if plain and not real.is_relative_to(os.path.realpath(metadata.root)):
        raise UsageError(
            f"{where}: {cell!r} leads to {real}, outside of {metadata.root}; expected a file below the table's folder, also where it "
            "is a link: copy it there"
        )
    return within(metadata.root, relative, where)


def labels_of(metadata: Metadata, column: str, classes: list[str]) -> np.ndarray:
    """The number of each row's class, by its name or its number; ``UNKNOWN`` where the cell is empty.

    Raises:
        UsageError: a cell is no class that the model knows.
    """
    import pyarrow as pa

    cells = metadata.texts(column)
    if pa.types.is_floating(metadata.table.column(column).type):  # whole numbers, beside empty cells
        cells = ["" if cell == "nan" else cell.removesuffix(".0") for cell in cells]
    numbers: Mapping[str, int] = {name: number for number, name in enumerate(classes)}
    if not any(name.lstrip("-").isdigit() for name in classes) and all(cell.isdigit() for cell in cells if cell):
        numbers = {str(number): number for number in range(len(classes))}
    labels = np.full(len(cells), UNKNOWN)
    for row, cell in enumerate(cells):
        if cell and cell not in numbers:
            raise UsageError(
                f"{metadata.where(row, column)}: the model knows no class '{cell[:60]}'; {did_you_mean(cell, classes)}; leave the cell "
                "empty if the class is not known"
            )
        labels[row] = numbers.get(cell, UNKNOWN)
    return labels


def clip_of(cell: str, where: str) -> dict[str, Any]:
    """The mapping in a cell."""
    try:
        clip = json.loads(cell)
    except (ValueError, RecursionError):
        clip = None
    if not isinstance(clip, dict):
        raise UsageError(f'{where}: expected a JSON object, such as {{"start": 1.5, "end": 3}}, got {cell[:80]!r}')
    return clip
