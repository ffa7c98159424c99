"""Arrays of a ``.npz`` that others made: looked at before they are unpacked, so that none can execute code or exhaust the machine."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
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
    data = archive.read(entry)  # of no more bytes than the entry says
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        if version not in HEADERS:
            raise ValueError(f"its format {version} is unknown")
        shape, _, kind = HEADERS[version](stream)
    except ValueError as error:
        raise ValueError(f"array '{name}' is not as np.savez writes it ({error})") from error
    if kind.hasobject:
        raise ValueError(f"array '{name}' holds Python objects, which are never read; save it as numbers or as texts")
    if prod(shape) * kind.itemsize != len(data) - stream.tell():
        raise ValueError(f"array '{name}' has not as many bytes as its shape {shape} takes")
    stream.seek(0)
    return np.lib.format.read_array(stream, allow_pickle=False)


HEADERS: Mapping[tuple[int, int], Any] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
"""Version of the format -> what reads its header. Version 3 differs in names of fields alone, which no array here has."""
