"""Locks between processes; on network file systems between machines, too, where these pass ``flock`` on."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from mmbench.errors import StoreError
from mmbench.machine import host

ADVICE = {
    errno.ENOSYS: "this file system has no locks: mount it with flock, or choose another with --results",
    errno.EOPNOTSUPP: "this file system has no locks: mount it with flock, or choose another with --results",
    errno.ENOLCK: "the lock service of the file server does not answer, or has no lock left: start it there (rpc.lockd, rpc.statd), or "
    "choose another place with --results",
    errno.EACCES: "the file server refuses locks to this user: change the export's or the file's permissions, or choose another place "
    "with --results",
    errno.ESTALE: "the file server has lost the file: mount the file system anew and run again",
}


def signature() -> str:
    """What this process writes into a lock that it holds: ``node7 process 4711``."""
    return f"{host()} process {os.getpid()}"


def signed(path: Path) -> str:
    """What the last holder wrote into a lock, ``node7 process 4711 since 2026-01-31T12:00:00+00:00``; "" if nothing can be read."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def holder_now(path: Path) -> str:
    """What is written in a lock that a process holds now, as ``signed`` has it; "unknown" if that is nothing, "" if nobody holds it.

    Nothing is made or changed by this, and a reader may ask it. Where that cannot be told, nobody holds it.
    """
    import fcntl

    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)  # for a moment; who wants to have it then will try again
        return ""
    except BlockingIOError:
        return signed(path) or "unknown"
    except OSError:
        return ""
    finally:
        os.close(handle)


@contextmanager
def lock(path: Path, wait: bool = True, sign: bool = False) -> Iterator[bool]:
    """Hold a file against other processes; the system frees it if the holder dies, so that a file that is left says nothing.

    Args:
        path: the file; it is made, and its folder, and stays.
        wait: until others free it.
        sign: write into it who holds it.

    Yields:
        Whether it is held: always, unless another process has it and ``wait`` is False.

    Raises:
        StoreError: the file cannot be written, or its file system has no locks.
    """
    import fcntl

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not "w": it would wipe out what a holder has written. On NFS only a file that can be written can be locked.
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError as error:
            advice = ADVICE.get(error.errno or 0, "--results has to be on a file system that has locks (flock)")
            raise StoreError(f"cannot lock {path}: {error.strerror}; {advice}") from error
        if sign:
            _sign(handle, path)
        _held.add(handle)
        yield True
    finally:
        _held.discard(handle)
        os.close(handle)


_held: set[int] = set()


def let_go() -> None:
    """Let go of the locks of the process that this one was forked from: they are to be free as soon as that one has ended."""
    while _held:
        os.close(_held.pop())


def _sign(handle: int, path: Path) -> None:
    """Write into a lock who holds it, since when."""
    text = f"{signature()} since {datetime.now(UTC).isoformat(timespec='seconds')}\n"
    try:
        os.ftruncate(handle, 0)
        os.pwrite(handle, text.encode(), 0)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror}") from error
