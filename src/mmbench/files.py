"""Files: written whole or not at all, and where the data of this machine lie."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from mmbench.errors import StoreError, UsageError
from mmbench.machine import host

MOST_OF_NAME, MOST_OF_PATH = 255, 4095
"""Bytes that a file's name, and a whole path, may have."""


def user_path(text: str | os.PathLike[str]) -> Path:
    """A path that a user gave, with ``~`` and variables such as ``$HOME`` replaced, which a shell does not do everywhere.

    Raises:
        UsageError: it is empty, or names a home folder or a variable that there is not.
    """
    given = os.fspath(text)
    path = os.path.expandvars(os.path.expanduser(given))
    if not path.strip() or "\0" in path:
        raise UsageError(f"expected a path, got {given[:200]!r}")
    if too_long := over_long(path):
        raise UsageError(too_long)
    if path.startswith("~"):
        raise UsageError(f"{given}: there is no home folder {Path(path).parts[0]}; a folder of that name is ./{path}")
    if unset := re.search(r"\$(\w+|\{[^}]*\})", path):
        raise UsageError(f"{given}: the variable {unset[0]} is not set")
    return Path(path)


def over_long(path: str) -> str:
    """Why no system has a file of this path: a name that is too long, or letters that no name can have; "" where it may have one."""
    try:
        longest = max(len(os.fsencode(part)) for part in path.split("/"))
    except UnicodeEncodeError:
        return f"expected a path, got {path[:100]!r}, which has a letter that no text can have"
    if longest > MOST_OF_NAME or len(os.fsencode(path)) > MOST_OF_PATH:
        return (
            f"expected a path, got {len(path)} letters, {path[:60]!r} …: a file's name has {MOST_OF_NAME} bytes at most"
        )
    return ""


def data_root() -> Path:
    """The folder of prepared data: what the environment variable MMBENCH_DATA names (default: ``data``)."""
    return user_path(os.environ.get("MMBENCH_DATA") or "data")


def check_folder(path: Path, what: str, write: bool = False) -> None:
    """Refuse what cannot be a folder, or not be written to, before any work is done for it.

    Args:
        path: a folder, or where one can be made.
        what: whose path it is, for the message.
        write: whether files will be written there.

    Raises:
        UsageError: it, or what is above it, is a file, a link that leads nowhere, or not for this user.
    """
    place = next(p for p in (path, *path.absolute().parents) if os.path.lexists(p))
    if not place.exists():
        raise UsageError(f"{what} {path}: {place} is a link to {os.readlink(place)}, which is not there")
    if not place.is_dir():
        raise UsageError(f"{what} {path}: {place} is a file; expected a folder")
    needed = os.R_OK | os.X_OK | (os.W_OK if write else 0)
    if not os.access(place, needed):
        raise UsageError(f"{what} {path}: {place} cannot be {'written to' if write else 'read'} by this user")


def atomic_write(path: Path, data: bytes) -> None:
    """Write a file so that readers, and a crash, see the old content or the new, never a part.

    Raises:
        StoreError: it cannot be written.
    """
    with atomically(path) as handle:
        handle.write(data)


@contextmanager
def atomically(path: Path) -> Iterator[IO[bytes]]:
    """What is written while this is open becomes the file, in one moment, when it is left; nothing does if an error leaves it.

    Raises:
        StoreError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{host()}.{os.getpid()}.tmp")  # others may write it, on other machines
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        hint = "; free some space and run again" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        raise StoreError(f"cannot write {path}: {error.strerror}{hint}") from error


def check_writable(folder: Path) -> None:
    """Write some bytes into a folder and remove them again.

    Raises:
        StoreError: that does not work.
    """
    probe = folder / "probe"
    atomic_write(probe, bytes(2**16))
    with suppress(OSError):
        probe.unlink()


def disk_error(error: BaseException | None) -> int | None:
    """The number of the system's error if a file could not be written, anywhere in what led to an exception; else None."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG):
            return error.errno
        cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if isinstance(error, StoreError) and isinstance(cause, OSError):
            return cause.errno
        error = cause
    return None
