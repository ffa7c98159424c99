"""The store: one folder a trial, written so that a kill at any moment leaves either a whole result or none."""

from __future__ import annotations

import os
import shutil
import stat
import zipfile
import zlib
from contextlib import AbstractContextManager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Literal, Protocol, TypeVar

from pydantic import ValidationError

from mmbench.errors import StoreError
from mmbench.files import atomic_write
from mmbench.locks import holder_now, lock, signed
from mmbench.record import Arrays, Code, Features, Predictions, Record

MOST_BYTES = {
    "record.json": 64 * 2**20,
    "predictions.npz": 16 * 2**30,
    "features.npz": 16 * 2**20,
    "model.json": 64 * 2**20,
}
"""Larger files are not read: a record of 10,000 epochs has 3 MB."""
MODEL = ("model.safetensors", "encoders")
"""What lies beside ``model.json``: weights, and files of encoders."""


Kind = TypeVar("Kind", bound=Arrays)
Stamp = tuple[int, ...]


class CorruptRecord(RuntimeError):
    """A record or its predictions cannot be read; the message says which file and why."""


def read_file(path: Path, most: int) -> bytes | None:
    """A file's content; None if there is none.

    Args:
        path: the file.
        most: bytes; a larger one is refused.

    Raises:
        CorruptRecord: it cannot be read, or is no file that mmbench would have written.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise CorruptRecord(f"{path}: is not a file")
        if found.st_size > most:
            raise CorruptRecord(f"{path}: holds {found.st_size:,} bytes, more than any that mmbench writes")
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CorruptRecord(f"{path}: cannot be read: {error.strerror}") from error


def read_arrays(path: Path, digest: str | None, kind: type[Kind], most: int) -> Kind:
    """What a file holds that a record vouches for.

    Args:
        path: the file.
        digest: the SHA-256 that the record has of it.
        kind: of arrays.
        most: bytes; a larger one is refused.

    Raises:
        CorruptRecord: it is missing, or not the bytes that the record vouches for.
    """
    if (data := read_file(path, most)) is None:
        raise CorruptRecord(f"{path}: is missing")
    if sha256(data).hexdigest() != digest:
        raise CorruptRecord(f"{path}: not the file that the record was written with")
    try:
        return kind.from_bytes(data)
    except (EOFError, KeyError, OSError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise CorruptRecord(f"{path}: {error}") from error


class Vouching(Protocol):
    """What says which model was kept: a record, or what an index knows of it."""

    @property
    def key(self) -> str:
        """Of the trial."""

    @property
    def model_sha256(self) -> str | None:
        """Of its ``model.json``; None if none was kept."""


class Store:
    """Results under a folder: ``<root>/<key>/{record.json, predictions.npz, features.npz, log.txt}``, and the model if it is kept."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)

    def folder(self, key: str) -> Path:
        """The folder of a trial."""
        return self.root / key

    def log(self, key: str) -> Path:
        """What the trial's process printed."""
        return self.folder(key) / "log.txt"

    def checkpoint(self, key: str) -> Path:
        """What a trial goes on from whose process has ended before there was a record."""
        return self.folder(key) / "last.ckpt"

    def keys(self) -> list[str]:
        """The keys of all trials that have a record, whole or not.

        Raises:
            StoreError: the folder cannot be read.
        """
        return self._having("record.json")

    def begun(self) -> list[str]:
        """The keys of all trials that have a record, or a lock that a process has held.

        Raises:
            StoreError: the folder cannot be read.
        """
        return self._having("record.json", "lock")

    def _having(self, *files: str) -> list[str]:
        """The keys of trials that have one of these files, at least."""
        try:
            root = os.fspath(self.root)
            return sorted(
                name for name in os.listdir(root) if any(os.path.lexists(f"{root}/{name}/{file}") for file in files)
            )
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise StoreError(f"cannot read {self.root}: {error.strerror}") from error

    def find(self, prefix: str) -> list[str]:
        """The keys that begin like this."""
        return [key for key in self.keys() if key.startswith(prefix)]

    def record(self, key: str) -> Record | None:
        """The record of a trial, or None if there is none.

        Raises:
            CorruptRecord: there is a file, but it cannot be read as a record of this trial.
        """
        path = self.folder(key) / "record.json"
        try:
            if (data := read_file(path, MOST_BYTES[path.name])) is None:
                return None
            record = Record.from_bytes(data)
        except ValidationError as error:
            raise CorruptRecord(f"{path}: {error.error_count()} errors, first: {error.errors()[0]['msg']}") from error
        except ValueError as error:
            raise CorruptRecord(f"{path}: {error}") from error
        if record.key != key:
            raise CorruptRecord(f"{path}: the record is of trial {record.key}")
        if record.trial.key != key:
            raise CorruptRecord(
                f"{path}: its settings are those of trial {record.trial.key}: edited, or of another version"
            )
        return record

    def predictions(self, record: Record) -> Predictions:
        """The predictions that belong to a record.

        Raises:
            CorruptRecord: they are missing, or not the bytes that the record vouches for.
        """
        path = self.folder(record.key) / "predictions.npz"
        return read_arrays(path, record.predictions_sha256, Predictions, MOST_BYTES[path.name])

    def features(self, record: Record) -> Features | None:
        """The features that belong to a record; None if it has none.

        Raises:
            CorruptRecord: they are missing, or not the bytes that the record vouches for.
        """
        if record.features_sha256 is None:
            return None
        path = self.folder(record.key) / "features.npz"
        return read_arrays(path, record.features_sha256, Features, MOST_BYTES[path.name])

    def model(self, record: Vouching) -> Path | None:
        """The folder of the model that belongs to a record; None if none was kept. Only its ``model.json`` is looked at.

        Raises:
            CorruptRecord: that file is missing, or not the bytes that the record vouches for.
        """
        if record.model_sha256 is None:
            return None
        path = self.folder(record.key) / "model.json"
        if (data := read_file(path, MOST_BYTES[path.name])) is None:
            raise CorruptRecord(f"{path}: is missing")
        if sha256(data).hexdigest() != record.model_sha256:
            raise CorruptRecord(f"{path}: not the file that the record was written with")
        return path.parent

    def done(self, key: str) -> Record | None:
        """The record if the trial is done and its predictions are whole, else None. One that tunes has none, and must not have any.

        Raises:
            CorruptRecord: the trial was done, but its files are damaged.
        """
        record = self.record(key)
        if record is None or record.status != "done":
            return None
        self.check(record)
        return record

    def check(self, record: Record) -> None:
        """Whether what a done record vouches for is there.

        Raises:
            CorruptRecord: it is not.
        """
        folder = self.folder(record.key)
        if not record.trial.tuning:
            self.predictions(record)
        elif record.predictions_sha256 or record.metrics or os.path.lexists(folder / "predictions.npz"):
            raise CorruptRecord(f"{folder}: predictions or metrics of a test, of a trial that tunes and has none")

    def finished(self, key: str, code: Code | None = None, model: bool = False) -> bool:
        """Whether the trial is done, by this code if one is given, and with its model if that is asked for.

        Raises:
            CorruptRecord: the trial was done, but its files are damaged.
        """
        record = self.done(key)
        if record is None or (model and self.model(record) is None):
            return False
        return code is None or code.gives_the_same(record.code)

    def write(self, record: Record, predictions: Predictions | None = None, features: Features | None = None) -> None:
        """Write the predictions and the features, then the record that vouches for them.

        Raises:
            StoreError: the disk is full or not writable.
        """
        if predictions is not None:
            data = predictions.to_bytes()
            record.predictions_sha256 = sha256(data).hexdigest()
            atomic_write(self.folder(record.key) / "predictions.npz", data)
        if features is not None:
            data = features.to_bytes()
            record.features_sha256 = sha256(data).hexdigest()
            atomic_write(self.folder(record.key) / "features.npz", data)
        atomic_write(self.folder(record.key) / "record.json", record.to_bytes())

    def stamp(self, key: str) -> Stamp:
        """What tells one record's file from another that takes its place, without reading it; empty if there is none."""
        with suppress(OSError):
            found = os.stat(self.folder(key) / "record.json")
            return found.st_mtime_ns, found.st_ino, found.st_size
        return ()

    def discard(
        self, key: str, code: Code | None = None, model: bool = False, known: Stamp | None = None
    ) -> Literal["free", "busy", "done"]:
        """Forget what is left of a trial that is about to run again, unless it is done or another process is at it.

        Args:
            key: the trial.
            code: what it is about to run; a result of other code is forgotten too. None: whatever ran counts.
            model: its model will be kept; a result without one is forgotten too.
            known: the record that there was when the run began; another one that says that the trial failed is an answer too. None: no
                failure is.
        """
        with self.lock(key, wait=False) as mine:
            if not mine:
                return "busy"
            if self.is_over(key, code, model, known):
                return "done"
            self.clear(key)
            return "free"

    def is_over(self, key: str, code: Code | None, model: bool, known: Stamp | None) -> bool:
        """Whether there is a record that need not be made again; what the arguments say is in ``discard``."""
        with suppress(CorruptRecord):
            if self.finished(key, code, model):
                return True
            return known is not None and self.stamp(key) != known and self._failed(key, code)
        return False

    def _failed(self, key: str, code: Code | None) -> bool:
        """Whether the trial has failed, by this code if one is given."""
        record = self.record(key)
        return record is not None and record.status == "failed" and (code is None or code.gives_the_same(record.code))

    def clear(self, key: str) -> None:
        """Remove all that is kept of a trial, but for its log and its checkpoint; the caller holds its lock.

        The checkpoint is of no result. Whether it is of use, the trial's process finds out, and removes it if it is not.
        """
        for torn in self.folder(key).glob(".*.tmp"):  # of a process that was killed while it wrote
            torn.unlink(missing_ok=True)
        for path in (self.folder(key) / name for name in (*MOST_BYTES, *MODEL)):
            if path.is_dir() and not path.is_symlink():  # encoders, or something else that was put in a file's place
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def lock(self, key: str, wait: bool = True, sign: bool = False) -> AbstractContextManager[bool]:
        """Hold the trial against other processes, as ``locks.lock`` says."""
        return lock(self.folder(key) / "lock", wait, sign)

    def holder_now(self, key: str) -> str:
        """Who is at the trial now, in words, "unknown" if it does not say; "" if nobody is."""
        return holder_now(self.folder(key) / "lock")

    def holder(self, key: str) -> str:
        """Who said last that it holds the trial, in words, whether or not it still does; "" if nobody has."""
        return signed(self.folder(key) / "lock")
