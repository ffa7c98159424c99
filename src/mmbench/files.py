"""Files: written whole or not at all, and where the data of this machine lie."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

from mmbench.errors import StoreError


def data_root() -> Path:
    """The folder of prepared data: what the environment variable MMBENCH_DATA names (default: ``data``)."""
    return Path(os.environ.get("MMBENCH_DATA") or "data")


def atomic_write(path: Path, data: bytes) -> None:
    """Write a file so that readers, and a crash, see the old content or the new, never a part.

    Raises:
        StoreError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        hint = "; free some space and run again" if error.errno == errno.ENOSPC else ""
        raise StoreError(f"cannot write {path}: {error.strerror}{hint}") from error
