"""Feature vectors as people keep them: arrays by row, vectors by id, a file a sample, columns of numbers. Nothing is executed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch

from mmbench.data.adding.declaration import WIDEST, Modality
from mmbench.data.adding.metadata import Metadata
from mmbench.data.preparing.lists import within
from mmbench.data.preparing.media import BadFile
from mmbench.data.preparing.raw import Vectors
from mmbench.encoders.pretrained import refuse_expansion
from mmbench.errors import UsageError, did_you_mean

ARRAYS = (".npy", ".pt", ".pth", ".safetensors")
BLOCK = 1 << 16  # rows that are looked at or written at once


def read_vectors(name: str, modality: Modality, metadata: Metadata, ids: Sequence[str]) -> Vectors:
    """The vectors of a modality that is not one file a sample.

    Args:
        name: of the modality, for messages.
        modality: with one of the keys ``array``, ``column`` and ``columns``.
        metadata: the samples.
        ids: theirs.

    Raises:
        UsageError: the file or a column cannot be read, or does not fit the samples; a value is not finite.
    """
    if modality.columns is not None:
        return of_columns(name, modality, metadata)
    if modality.column is not None:
        vectors = of_lists(metadata, metadata.need(modality.column, f"modalities.{name}.column"))
    else:
        assert modality.array is not None
        vectors = of_array(
            within(metadata.root, modality.array, f"modalities.{name}.array"), modality.key, metadata, ids
        )
    check_finite(name, modality, vectors, metadata)
    return vectors


def of_columns(name: str, modality: Modality, metadata: Metadata) -> Vectors:
    """Columns of numbers, (N, D) float64; a sample has all of them, or none."""
    assert modality.columns is not None
    columns = named_columns(name, modality.columns, metadata)
    values = np.stack([metadata.numbers(column) for column in columns], axis=1)
    empty = np.isnan(values)
    some = empty.any(axis=1) & ~empty.all(axis=1)
    if wrong := np.flatnonzero(some).tolist():
        column = columns[int(empty[wrong[0]].argmax())]
        raise UsageError(
            f"{metadata.where(wrong[0], column)}: is empty, while other columns of '{name}' have a number there ({len(wrong)} rows are "
            "such); fill it, leave all of them empty, or make the column a modality of its own in dataset.yaml"
        )
    return Vectors(values, ~empty.any(axis=1), hashed=modality.kind == "features")


def named_columns(name: str, asked: Sequence[str], metadata: Metadata) -> list[str]:
    """The columns of a modality; ``x_*`` stands for all that are called ``x_`` and a number."""
    columns: list[str] = []
    for column in asked:
        if column.endswith("*") and column not in metadata.columns:
            found = [c for c in metadata.columns if c.startswith(column[:-1]) and c[len(column) - 1 :].isdigit()]
            if not found:
                raise UsageError(
                    f"modalities.{name}.columns: {metadata.tables} has no columns {column[:-1]}0, {column[:-1]}1, …"
                )
            columns += found
        else:
            columns.append(metadata.need(column, f"modalities.{name}.columns"))
    return columns


def of_lists(metadata: Metadata, column: str) -> Vectors:
    """A column with a list of numbers in every cell."""
    cells = metadata.table.column(column).to_pylist()
    rows: list[np.ndarray | None] = []
    width = None
    for row, cell in enumerate(cells):
        given = parse_list(cell) if isinstance(cell, str) else cell
        if given is None or given == "":
            rows.append(None)
            continue
        try:
            vector = np.asarray(given, np.float64)
        except (TypeError, ValueError):
            vector = np.empty((0, 0))
        if vector.ndim != 1 or not len(vector):
            raise UsageError(f"{metadata.where(row, column)}: expected a list of numbers, got {str(cell)[:60]!r}")
        if width is not None and len(vector) != width:
            raise UsageError(
                f"{metadata.where(row, column)}: has {len(vector)} numbers, the rows before have {width}; expected as many in all"
            )
        width = len(vector)
        rows.append(vector)
    if width is None:
        raise UsageError(f"{metadata.tables}: the column '{column}' is empty")
    values = np.stack([np.zeros(width) if vector is None else vector for vector in rows])
    return Vectors(values, np.array([vector is not None for vector in rows]))


def parse_list(cell: str) -> Any:
    """The list that a text of JSON is; the text itself if it is none."""
    try:
        return json.loads(cell) if cell.strip().startswith("[") else cell.strip()
    except (ValueError, RecursionError):
        return cell


def of_array(path: Path, key: str | None, metadata: Metadata, ids: Sequence[str]) -> Vectors:
    """The vectors of a file, or of the array of this name in it: (N, D) by row, or one by each id."""
    content = read_array(path, key)
    if isinstance(content, np.ndarray):
        if len(content) != len(metadata):
            raise UsageError(
                f"{path}: has {len(content):,} rows, {metadata.tables} has {len(metadata):,} samples; expected a row a sample, in the "
                "same order (or, in a .pt or .safetensors file, a vector an id)"
            )
        present = ~rows_of_nan(content)
        lacking = int((~present).sum())
        told = f"{path.name}: {lacking} of {len(content)} rows are NaN throughout: absent there"
        return Vectors(content, present, notes=[told] * (lacking > 0))
    widths = {len(vector) for vector in content.values()}
    if len(widths) > 1:
        by_width = {len(vector): name for name, vector in content.items()}
        some = ", ".join(f"{name}: {width}" for width, name in sorted(by_width.items())[:4])
        raise UsageError(f"{path}: its vectors are of different widths ({some}); expected one")
    width, known = widths.pop(), set(ids)
    if not known & content.keys():
        raise UsageError(
            f"{path}: none of its {len(content):,} names, such as '{next(iter(content))}', is the id of a sample, such as '{ids[0]}'; "
            "expected a vector an id (id: in dataset.yaml names the column of ids)"
        )
    values, present, notes = np.zeros((len(ids), width), np.float32), np.zeros(len(ids), bool), []
    for row, name in enumerate(ids):
        if (vector := content.get(name)) is not None:
            with np.errstate(over="ignore"):
                values[row] = vector
            present[row] = True
    if lacking := int((~present).sum()):
        notes.append(f"{path.name}: {lacking} of {len(ids)} samples have no vector in it: absent there")
    if others := len(content.keys() - known):
        notes.append(f"{path.name}: {others} vectors are of no sample: not used")
    return Vectors(values, present & ~rows_of_nan(values), notes=notes)


def rows_of_nan(values: np.ndarray) -> np.ndarray:
    """(N,) bool: rows without any number, which is how arrays say that there is none."""
    if not np.issubdtype(values.dtype, np.floating):
        return np.zeros(len(values), bool)
    blocks = (np.isnan(values[i : i + BLOCK]).all(axis=1) for i in range(0, len(values), BLOCK))
    return np.concatenate(list(blocks))


def check_finite(name: str, modality: Modality, vectors: Vectors, metadata: Metadata) -> None:
    """Refuse vectors with a value that is no finite number in float32."""
    for start in range(0, len(vectors.values), BLOCK):
        wrong = np.flatnonzero(~np.isfinite(vectors.block(slice(start, start + BLOCK))).all(axis=1))
        if len(wrong):
            source = modality.array or f"column '{modality.column}'"
            raise UsageError(
                f"{metadata.root}: {source}: the vector of {name} in {metadata.where(start + int(wrong[0]))} has a value that is NaN, "
                "infinite or too large; mend it, or make all of its values NaN where there is none"
            )


def read_array(path: Path, key: str | None = None) -> np.ndarray | dict[str, np.ndarray]:
    """What a file of vectors holds: (N, D), or name -> (D,).

    Args:
        path: the file.
        key: the name of one array in it, by row.

    Raises:
        UsageError: it is missing, damaged, of another format, or holds other things than vectors of numbers.
    """
    content = read_file(path)
    if key is not None:
        names = list(content) if isinstance(content, Mapping) else []
        if key not in names:
            raise UsageError(f"{path}: holds no array '{key}'; {did_you_mean(key, map(str, names))}")
        content, path = content[key], Path(f"{path}, '{key}'")
    if isinstance(content, Mapping):
        content = unwrapped(content)
    if isinstance(content, Mapping):
        if not content:
            raise UsageError(f"{path}: holds no array")
        if len({str(name) for name in content}) < len(content):
            raise UsageError(f"{path}: two of its names are the same but for their type, such as 1 and '1'")
        return {
            str(name): single(f"{path}, '{name}'", as_array(f"{path}, '{name}'", value))
            for name, value in content.items()
        }
    return table_of(str(path), as_array(str(path), content))


def read_file(path: Path) -> Any:
    """What a file of arrays holds, as it is; nothing in it is executed.

    Raises:
        UsageError: it is missing, damaged or of another format.
    """
    if not path.is_file():
        raise UsageError(f"{path}: there is no such file")
    try:
        return READERS[path.suffix.lower()](path)
    except KeyError as error:
        raise UsageError(f"{path}: expected {', '.join(ARRAYS[:-1])} or {ARRAYS[-1]}") from error
    except UsageError:
        raise
    except Exception as error:  # damaged files fail in many ways; nothing of them was executed
        raise UsageError(f"{path}: expected vectors of numbers in a {path.suffix} file; {reason_of(error)}") from error


def reason_of(error: Exception) -> str:
    """Why a file could not be read, in words of ours where torch would tell how to have the file executed."""
    if isinstance(error, UnpicklingError) or "weights_only" in str(error):
        return "it is damaged, or holds other things than arrays, which are not loaded"
    return str(error).partition("\n")[0][:200]


def _read_npy(path: Path) -> Any:
    np.lib.format.open_memmap(path, mode="r")  # refuses a shape that the file does not fill, and objects
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _read_pt(path: Path) -> Any:
    refuse_expansion(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def _read_safetensors(path: Path) -> Any:
    from safetensors.torch import load_file

    return load_file(path)


READERS = {".npy": _read_npy, ".pt": _read_pt, ".pth": _read_pt, ".safetensors": _read_safetensors}


def unwrapped(content: Any) -> Any:
    """The one array of all samples where a dictionary holds nothing else."""
    if isinstance(content, Mapping) and len(content) == 1:
        (only,) = content.values()
        return only if getattr(only, "ndim", 0) == 2 and len(only) > 1 else content
    return content


def as_array(where: str, value: Any) -> np.ndarray:
    """Numbers as an array of a type that numpy has."""
    if isinstance(value, list) and value and all(isinstance(item, torch.Tensor) for item in value):
        if len({tuple(item.shape) for item in value}) > 1:
            raise UsageError(f"{where}: its vectors are of different shapes; expected one")
        value = torch.stack(value)
    if isinstance(value, torch.Tensor):
        if value.layout != torch.strided or value.is_quantized or value.is_complex() or value.is_meta:
            raise UsageError(f"{where}: expected a plain tensor of numbers")
        if value.nbytes > value.untyped_storage().nbytes():
            raise UsageError(f"{where}: repeats the bytes it has; expected a tensor that holds all of its values")
        try:
            value = (value.float() if value.is_floating_point() else value).detach().resolve_neg().numpy()
        except (TypeError, RuntimeError) as error:
            raise UsageError(f"{where}: {value.dtype} values cannot be read; save them as float32") from error
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiub":
        kind = f"{value.dtype} values" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
        raise UsageError(f"{where}: expected numbers, got {kind}")
    return value


def single(where: str, value: np.ndarray) -> np.ndarray:
    """(D,), of that or (1, D)."""
    if value.ndim == 2 and len(value) == 1:
        value = value[0]
    if value.ndim == 2:
        raise UsageError(f"{where}: has {value.shape[0]} steps of {value.shape[1]} numbers; average over time first")
    if value.ndim != 1 or not 1 <= len(value) <= WIDEST:
        raise UsageError(f"{where}: expected one vector of 1 to {WIDEST:,} numbers, got the shape {value.shape}")
    return value


def table_of(where: str, value: np.ndarray) -> np.ndarray:
    """(N, D), of that, (N,) or (N, 1, D)."""
    if value.ndim == 1:
        value = value[:, None]
    if value.ndim == 3 and value.shape[1] == 1:
        value = value[:, 0]
    if value.ndim == 3:
        raise UsageError(
            f"{where}: has {value.shape[1]} steps of {value.shape[2]} numbers a sample; average over time first"
        )
    if value.ndim != 2 or not 1 <= value.shape[1] <= WIDEST:
        raise UsageError(
            f"{where}: expected (samples, numbers), with 1 to {WIDEST:,} numbers, got the shape {value.shape}"
        )
    return value


def read_vector(path: Path, width: int | None) -> np.ndarray:
    """The vector (D,) float32 of a sample's own file.

    Raises:
        BadFile: there is none of this width in it, or it is not finite.
    """
    if not os.path.isfile(path):  # False of names that no file can have, too
        raise BadFile("is missing")
    try:
        content = READERS[path.suffix.lower()](path) if path.suffix.lower() in READERS else None
        if content is None:
            raise BadFile(f"expected {', '.join(ARRAYS[:-1])} or {ARRAYS[-1]}")
        if isinstance(content, Mapping):
            if len(content) != 1:
                raise BadFile(f"holds {len(content)} arrays, expected one")
            (content,) = content.values()
        vector = single("it", as_array("it", content))
    except BadFile:
        raise
    except UsageError as error:
        raise BadFile(str(error)) from error
    except Exception as error:
        raise BadFile(f"holds no vector ({reason_of(error)})") from error
    if width is not None and len(vector) != width:
        raise BadFile(f"has {len(vector)} numbers, expected {width}, as others have")
    with np.errstate(over="ignore"):
        vector = vector.astype(np.float32)
    if not np.isfinite(vector).all():
        raise BadFile("has a value that is NaN, infinite or too large")
    return vector
