"""The store: one folder a trial, written so that a kill at any moment leaves either a whole result or none."""

from __future__ import annotations

import errno
import io
import os
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from mmbench.errors import StoreError
from mmbench.missing import Pattern, pattern_name, patterns
from mmbench.trial import Trial


class CorruptRecord(RuntimeError):
    """A record or its predictions cannot be read; the message says which file and why."""


@dataclass
class Predictions:
    """What a trial predicted for the N test samples under each of the P = 2^M − 1 presence patterns.

    Attributes:
        modalities: (M,) names; they give the patterns and their order (``missing.patterns``).
        label: (N,) int64 true classes.
        group: (N,) int64; samples of one group are resampled together in confidence intervals.
        present: (N, M) bool, the modalities that each sample has.
        predicted: (P, N) int16 classes, from the full-precision logits.
        log_probs: (P, N, C) float16.
        log_prior: (C,) float32, log class frequencies of the training split: the answer where a mask leaves nothing to see.
        attack: (N,) int16, where the task is to detect presentation attacks: 0 for bona fide, k for an attack of type k. Empty (0,)
            where it is not.
    """

    modalities: np.ndarray
    label: np.ndarray
    group: np.ndarray
    present: np.ndarray
    predicted: np.ndarray
    log_probs: np.ndarray
    log_prior: np.ndarray
    attack: np.ndarray

    @property
    def patterns(self) -> list[Pattern]:
        """The patterns, in the order of the first axis of ``predicted`` and ``log_probs``."""
        return patterns(self.modalities.tolist())

    @property
    def pattern_names(self) -> list[str]:
        """The patterns' names, in the same order."""
        return [pattern_name(p) for p in self.patterns]

    def to_bytes(self) -> bytes:
        """The arrays as a compressed ``.npz``; equal predictions give equal bytes."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **{f.name: getattr(self, f.name) for f in fields(self)})
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Predictions:
        """Read what ``to_bytes`` wrote; nothing in it is ever executed."""
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return cls(**{f.name: arrays[f.name] for f in fields(cls)})


class Failure(BaseModel):
    """Why a trial failed."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["exception", "diverged", "out_of_memory", "killed"]
    message: str
    traceback: str = ""


class Record(BaseModel):
    """``record.json``: a trial and what came of it. Only a record that says ``done`` is a result."""

    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="constants")

    key: str
    trial: Trial
    status: Literal["done", "failed"]
    started: str
    finished: str
    environment: dict[str, Any]
    seconds: dict[str, float] = {}
    memory_mb: float | None = None
    parameters: int | None = None
    best_epoch: int | None = None
    stages: dict[str, int] = {}
    realised: dict[str, dict[str, float]] = {}
    metrics: dict[str, dict[str, float]] = {}
    curves: list[dict[str, float]] = []
    predictions_sha256: str | None = None
    failure: Failure | None = None


class Store:
    """Results under a folder: ``<root>/<key>/{record.json, predictions.npz, log.txt}``."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)

    def folder(self, key: str) -> Path:
        """The folder of a trial."""
        return self.root / key

    def log(self, key: str) -> Path:
        """What the trial's process printed."""
        return self.folder(key) / "log.txt"

    def scratch(self, key: str) -> Path:
        """Where the trial's process keeps checkpoints while it runs."""
        return self.folder(key) / "scratch"

    def keys(self) -> list[str]:
        """The keys of all trials that have a record."""
        return sorted(p.parent.name for p in self.root.glob("*/record.json"))

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
            record = Record.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise CorruptRecord(f"{path}: {error.error_count()} errors, first: {error.errors()[0]['msg']}") from error
        if record.key != key:
            raise CorruptRecord(f"{path}: the record is of trial {record.key}")
        return record

    def predictions(self, record: Record) -> Predictions:
        """The predictions that belong to a record.

        Raises:
            CorruptRecord: they are missing, or not the bytes that the record vouches for.
        """
        path = self.folder(record.key) / "predictions.npz"
        try:
            data = path.read_bytes()
            if sha256(data).hexdigest() != record.predictions_sha256:
                raise CorruptRecord(f"{path}: not the file that the record was written with")
            return Predictions.from_bytes(data)
        except (FileNotFoundError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise CorruptRecord(f"{path}: {error}") from error

    def done(self, key: str) -> Record | None:
        """The record if the trial is done and its predictions are whole, else None.

        Raises:
            CorruptRecord: the trial was done, but its files are damaged.
        """
        record = self.record(key)
        if record is None or record.status != "done":
            return None
        self.predictions(record)
        return record

    def write(self, record: Record, predictions: Predictions | None = None) -> None:
        """Write the predictions, then the record that vouches for them.

        Raises:
            StoreError: the disk is full or not writable.
        """
        if predictions is not None:
            data = predictions.to_bytes()
            record.predictions_sha256 = sha256(data).hexdigest()
            atomic_write(self.folder(record.key) / "predictions.npz", data)
        atomic_write(self.folder(record.key) / "record.json", record.model_dump_json(indent=1).encode())

    def discard(self, key: str) -> None:
        """Forget what is left of a trial that is about to run again, unless it is done or another process is at it."""
        with self.lock(key, wait=False) as mine:
            if not mine:
                return
            with suppress(CorruptRecord):
                if self.done(key) is not None:
                    return
            for torn in self.folder(key).glob(".*.tmp"):  # of a process that was killed while it wrote
                torn.unlink(missing_ok=True)
            shutil.rmtree(self.scratch(key), ignore_errors=True)
            (self.folder(key) / "record.json").unlink(missing_ok=True)

    @contextmanager
    def lock(self, key: str, wait: bool = True) -> Iterator[bool]:
        """Hold the trial against other processes; the system frees it if the holder dies.

        Yields:
            Whether the trial is held: always, unless another process has it and ``wait`` is False.

        Raises:
            StoreError: the folder cannot be written.
        """
        import fcntl

        path = self.folder(key) / "lock"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = path.open("w")
        except OSError as error:
            raise StoreError(f"cannot write {path}: {error.strerror}") from error
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True


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
