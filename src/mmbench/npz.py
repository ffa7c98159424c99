"""Arrays of a ``.npz`` that others made: looked at before they are unpacked, so that none can execute code or exhaust the machine."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

MOST_ENTRIES = 64


def read_npz(source: Path | bytes, most: int) -> dict[str, np.ndarray]:
    """The arrays of a ``.npz``, by name.

    Args:
        source: the file, or its bytes.
        most: bytes that all arrays together may take.

    Raises:
        ValueError: it is none, holds objects or more than it may, or is damaged; the message says which.
        OSError: it cannot be read.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(source) if isinstance(source, bytes) else source) as archive:
            entries = archive.infolist()
            if len(entries) > MOST_ENTRIES:
                raise ValueError(f"it has {len(entries)} arrays, expected {MOST_ENTRIES} at most")
            if (size := sum(entry.file_size for entry in entries)) > most:
                raise ValueError(f"its arrays take {size:,} bytes, expected {most:,} at most")
            return {entry.filename.removesuffix(".npy"): _read(archive, entry) for entry in entries}
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"it is no .npz as np.savez writes them, or was cut off ({error})") from error


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> np.ndarray:
    """One array, if its header asks for no more than its entry has."""
    name = entry.filename.removesuffix(".npy")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"array '{name}' is compressed in a way that np.savez does not use")
    return array_of(archive.read(entry), name)  # of no more bytes than the entry says


def array_of(data: bytes, name: str) -> np.ndarray:
    """An array from the bytes of its ``.npy``; objects are never read.

    Args:
        data: all of them.
        name: what messages call the array.

    Raises:
        ValueError: they are none, hold objects, or are not as many as the header says.
    """
    try:
        size = _header_size(data)
        shape, fortran, kind = _header(data[:size])
    except ValueError as error:
        raise ValueError(f"array '{name}' is not as np.savez writes it ({error})") from error
    if kind.hasobject:
        raise ValueError(f"array '{name}' holds Python objects, which are never read; save it as numbers or as texts")
    if prod(shape) * kind.itemsize != len(data) - size:
        raise ValueError(f"array '{name}' has not as many bytes as its shape {shape} takes")
    values = np.ndarray(shape, kind, data, size, order="F" if fortran else "C")
    return values.copy(order="K")  # which may be written to


def _header_size(data: bytes) -> int:
    """How many bytes the header takes, with what stands before it."""
    version = np.lib.format.read_magic(io.BytesIO(data[: np.lib.format.MAGIC_LEN]))
    if version not in HEADERS:
        raise ValueError(f"its format {version} is unknown")
    start = np.lib.format.MAGIC_LEN + (2 if version == (1, 0) else 4)
    return start + int.from_bytes(data[np.lib.format.MAGIC_LEN : start], "little")


@lru_cache(maxsize=256)
def _header(data: bytes) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, order and type; those of a store's trials are mostly the same, and it takes longer to read them than their numbers."""
    stream = io.BytesIO(data)
    return HEADERS[np.lib.format.read_magic(stream)](stream)


HEADERS: Mapping[tuple[int, int], Any] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
"""Version of the format -> what reads its header. Version 3 differs in names of fields alone, which no array here has."""
