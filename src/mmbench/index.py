"""The index of a store: what its trials came to, so that a command need not read all of them to tell how far an experiment is.

It is a file in the store's folder. It may be missing, torn or old, and is made again from the records whenever it is of no use. What
it says of a trial is believed while the record and the predictions are the files that they were when both were read and found whole:
of the same size, time of modification, time of change and inode number, as git and make believe it. Otherwise they are read anew. So
it trusts that a file whose four numbers are the same has the same content. That is true of all that is written, moved or copied there,
but not of a bit that the disk loses. ``mmbench report``, which reads what it reports, finds that; so does ``mmbench status --verify``.

- Damage is never noted, so that it is told every time.
- A file that was written or changed less than ``RACY`` before it was read, whatever its time of modification says (a copy may have
  that of the original), is not noted: a second write may leave it with the same times.
- It has the checksum of its own content, and a hash of the code that judges records (``JUDGES``): with other code all is read anew.
- It is written whole, by whoever has read anything anew, in place of what is there, from which entries are taken over. Of several that
  write at once the last one wins; what the others have read is then read again. Nothing is locked, and nothing waits.
- Where it cannot be written, nothing is said, and nothing else changes. Where a folder, a pipe or the like is in its place, that is
  said, and left alone; there is no index then.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from contextlib import suppress
from functools import cache, cached_property
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, NamedTuple

from mmbench.errors import StoreError
from mmbench.files import atomic_write
from mmbench.machine import installed_version
from mmbench.record import Code, Failure, Record, sealed, unsealed
from mmbench.store import CorruptRecord, Store, read_file
from mmbench.trial import Parts

NAME = ".index"
MOST_BYTES = 2**28
RACY = 2 * 10**9
"""Nanoseconds: twice what the coarsest file systems round times to."""
JUDGES = ("index.py", "store.py", "record.py", "trial.py", "recipe.py", "missing.py")
"""The files that decide whether a record is one, and what it says."""

Stamps = tuple[tuple[int, ...] | None, tuple[int, ...] | None]
"""Of a record and its predictions: size, times of modification and change in nanoseconds, inode; None for no file, () for no answer."""


class Summary(NamedTuple):
    """What a record says, in short.

    Attributes:
        parts: the names of the trial's method, data set and encoders.
        label: the trial in a line of a log, where it failed.
        seconds: that it took.
        epochs: how many were trained.
        validation: of a trial that tunes, ``Record.validation``.
        model_sha256: as in the record, like what follows.
        devices: that trained it together.
    """

    key: str
    status: Literal["done", "failed"]
    parts: Parts
    code: Code | None
    failure: Failure | None
    label: str
    seconds: float
    epochs: int
    validation: list[float]
    model_sha256: str | None
    memory_mb: float | None
    gpu_memory_mb: float | None
    devices: int

    @classmethod
    def of(cls, record: Record) -> Summary:
        """Of a record that is whole."""
        failure = record.failure and record.failure.model_copy(update={"traceback": ""})
        return cls(
            record.key, record.status, record.parts, record.code, failure, record.trial.label if failure else "",
            sum(record.seconds.values()), record.epochs, record.validation if record.trial.tuning else [], record.model_sha256,
            record.memory_mb, record.gpu_memory_mb, record.devices,
        )  # fmt: skip


class Index:
    """What the trials of a store came to, from its index as far as that holds, else from their files.

    Args:
        store: whose.
        anew: read all files, whatever the index says.
    """

    def __init__(self, store: Store, anew: bool = False) -> None:
        self.store = store
        self._path = store.root / NAME
        self._known: dict[str, tuple[Stamps, Summary]] = {} if anew else load(self._path)
        self._new: dict[str, tuple[Stamps, Summary]] = {}

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *_: object) -> None:
        self.save()

    def look(self, key: str) -> Summary | None:
        """What came of a trial; None if it has no record. One that is done is whole, as ``Store.done`` has it.

        Raises:
            CorruptRecord: its files are damaged.
        """
        folder = f"{self.store.root}{os.sep}{key}{os.sep}"
        stamps = stamp_of(folder + "record.json"), stamp_of(folder + "predictions.npz")
        if stamps[0] is None:
            return None
        known = self._new.get(key) or self._known.get(key)
        if known is not None and known[0] == stamps:
            return known[1]
        began = self._began  # before anything is read
        record = self.store.record(key)
        if record is None:
            return None
        if record.status == "done":
            self.store.check(record)
        summary = Summary.of(record)
        times = [time for stamp in stamps if stamp for time in stamp[1:3]]  # of modification and of change
        if () not in stamps and max(times) < began - RACY:
            self._new[key] = stamps, summary
        return summary

    @cached_property
    def _began(self) -> int:
        """What time it was, by the clock of the store's file system, before any file was read; 0 if nothing can be written there."""
        try:
            with tempfile.TemporaryFile(dir=self.store.root) as probe:
                return os.fstat(probe.fileno()).st_mtime_ns
        except OSError:
            return 0

    def save(self) -> None:
        """Write what was read anew, if anything was, with what is known of other trials that are there."""
        if not self._new or not has_room(self._path):
            return
        entries = {**load(self._path), **self._new}
        with suppress(OSError, StoreError):
            there = set(os.listdir(self.store.root))
            atomic_write(self._path, to_bytes({key: entries[key] for key in sorted(there & entries.keys())}))
        self._known |= self._new
        self._new = {}


def has_room(path: Path) -> bool:
    """Whether nothing but a file is in the index's place; what else is there is told."""
    if os.path.isfile(path) or not os.path.exists(path):
        return True
    tell_of(path)
    return False


@cache
def tell_of(path: Path) -> None:
    """Say, once in a process, that something is in the place of an index."""
    told = "is not a file, so all records are read each time; remove it, and the store's index is kept there again"
    print(f"{path} {told}", file=sys.stderr)


def stamp_of(path: str) -> tuple[int, ...] | None:
    """What tells a file from another in its place, and from itself after a change; as in ``Stamps``."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return () if os.path.lexists(path) else None
    except OSError:
        return ()
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


@cache
def made_by() -> str:
    """A hash of the code that judges records; without its files, the version."""
    try:
        return sha256(b"".join((files("mmbench") / name).read_bytes() for name in JUDGES)).hexdigest()
    except OSError:
        return installed_version("mmbench")


def to_bytes(entries: dict[str, tuple[Stamps, Summary]]) -> bytes:
    """The index's file. What many trials share, their names and their code, is written once."""
    kinds: dict[str, int] = {}
    trials: dict[str, list[Any]] = {}
    text: dict[int, str] = {}  # of a code: many entries have the same object
    for key, (stamps, of) in entries.items():
        if id(of.code) not in text:
            text[id(of.code)] = "null" if of.code is None else of.code.model_dump_json()
        kind = kinds.setdefault(f"[{json.dumps(of.parts)}, {text[id(of.code)]}]", len(kinds))
        failure = of.failure and [of.failure.kind, of.failure.message, of.label]
        rest = of.seconds, of.epochs, of.validation, of.model_sha256, of.memory_mb, of.gpu_memory_mb, of.devices
        trials[key] = [*stamps, kind, of.status, failure, *rest]
    shared = ",\n".join(kinds)
    content = f'"made_by": "{made_by()}",\n"kinds": [\n{shared}],\n"trials": {json.dumps(trials)}}}'
    return sealed(b"{\n" + content.encode())


def load(path: Path) -> dict[str, tuple[Stamps, Summary]]:
    """What an index's file says; nothing where there is none, or none that this code has written whole."""
    try:
        data = read_file(path, MOST_BYTES)
        content = json.loads(unsealed(data)) if data is not None else {}
        if content.get("made_by") != made_by():
            return {}
        kinds = [
            (Parts(method, dataset, tuple(encoders)), None if code is None else Code.model_validate(code))
            for (method, dataset, encoders), code in content["kinds"]
        ]
        found: dict[str, tuple[Stamps, Summary]] = {}
        for key, (record, predictions, kind, status, failed, *rest) in content["trials"].items():
            stamps = tuple(record), None if predictions is None else tuple(predictions)
            failure, label = (Failure(kind=failed[0], message=failed[1]), failed[2]) if failed else (None, "")
            parts, code = kinds[kind]
            found[key] = stamps, Summary(key, status, parts, code, failure, label, *rest)
        return found
    except (CorruptRecord, ValueError, TypeError, LookupError, AttributeError):  # a record's errors are ValueErrors
        return {}
