"""What is kept of predictions that were made elsewhere: a folder a method, data set, protocol and seed, written whole or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mmbench.errors import StoreError
from mmbench.files import atomic_write
from mmbench.record import Predictions, sealed, unsealed
from mmbench.store import MOST_BYTES, CorruptRecord, Store, read_arrays, read_file

FOLDER = "elsewhere"
"""Among the results, beside ``runs``."""
LARGEST_SEED = 2**32 - 1
"""As of the seeds of experiments."""


class Part(BaseModel):
    """The predictions of one fold, or of the one split.

    Attributes:
        fold: its number; None: the data set's one split.
        split_sha256: ``splitting.split_hash`` of the fold.
        predictions_sha256: of the file that holds them, which is named by it.
        patterns: under which there are predictions.
        source: the name of the file that they came from, without its folder.
        source_sha256: its hash.
        added: when.
    """

    model_config = ConfigDict(extra="forbid")

    fold: int | None
    split_sha256: str
    predictions_sha256: str
    patterns: list[str]
    source: str
    source_sha256: str
    added: str

    @property
    def file(self) -> str:
        """The name of the file that holds the predictions: another one where they differ, so that none is ever half replaced."""
        return f"{self.predictions_sha256[:16]}.npz"

    @property
    def name(self) -> str:
        """Which part it is, in words."""
        return "one split" if self.fold is None else f"fold {self.fold}"


class Entry(BaseModel):
    """``record.json``: what a method made elsewhere predicted with one seed, on a data set, under a protocol.

    Attributes:
        label: what the method is called.
        dataset: the data set's own name.
        data: the hash of its manifest when the predictions were checked.
    """

    model_config = ConfigDict(extra="forbid")

    label: Annotated[str, Field(min_length=1)]
    dataset: str
    data: str
    protocol: str
    seed: Annotated[int, Field(ge=0, le=LARGEST_SEED)]
    parts: list[Part]

    @property
    def key(self) -> str:
        """The name of its folder."""
        name = json.dumps([self.dataset, self.protocol, self.label, self.seed])
        return sha256(name.encode()).hexdigest()[:16]

    def part(self, fold: int | None) -> Part | None:
        """The part of this fold."""
        return next((part for part in self.parts if part.fold == fold), None)

    def __str__(self) -> str:
        return f"{self.label} on {self.dataset}, {self.protocol}, seed {self.seed}"


class Elsewhere:
    """Entries under a folder: ``<root>/<key>/{record.json, <hash>.npz, …}``."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        self._store = Store(root)

    @classmethod
    def beside(cls, store: Store) -> Elsewhere:
        """Those that belong to the reports of a store."""
        return cls(store.root.with_name(FOLDER))

    def entries(self) -> tuple[list[Entry], list[str]]:
        """All that can be read, in the order of data sets, protocols, labels and seeds; and why others cannot, a line each.

        Raises:
            StoreError: the folder cannot be read.
        """
        found, damaged, keys = [], [], self.keys()
        for key in keys:
            try:
                if (entry := self.entry(key)) is not None:
                    found.append(entry)
            except CorruptRecord as error:
                damaged.append(f"{error}; `mmbench add-predictions --remove {key}` forgets it")
        return sorted(found, key=lambda e: (e.dataset, e.protocol, e.label, e.seed)), damaged

    def entry(self, key: str) -> Entry | None:
        """The entry of this key, None if there is none.

        Raises:
            CorruptRecord: it cannot be read as one.
        """
        path = self.root / key / "record.json"
        if (data := read_file(path, MOST_BYTES["record.json"])) is None:
            return None
        try:
            entry = Entry.model_validate_json(unsealed(data))
        except ValidationError as error:
            raise CorruptRecord(f"{path}: {error.error_count()} errors, first: {error.errors()[0]['msg']}") from error
        except ValueError as error:
            raise CorruptRecord(f"{path}: {error}") from error
        if entry.key != key:
            raise CorruptRecord(f"{path}: it is of another folder, {entry.key}")
        return entry

    def predictions(self, entry: Entry, part: Part) -> Predictions:
        """The predictions of a part.

        Raises:
            CorruptRecord: they are missing, not the bytes that the entry vouches for, or no predictions.
        """
        path = self.root / entry.key / part.file
        found = read_arrays(path, part.predictions_sha256, Predictions, MOST_BYTES["predictions.npz"])
        try:
            found.check()
        except ValueError as error:
            raise CorruptRecord(f"{path}: {error}") from error
        return found

    def write(self, entry: Entry, predictions: Mapping[str, bytes]) -> None:
        """Write an entry in place of what there was of it.

        Args:
            entry: with all of its parts, also those that are there already.
            predictions: names of the new parts' files -> their bytes.

        Raises:
            StoreError: the disk is full or not writable.
        """
        folder = self.root / entry.key
        for name, data in predictions.items():
            atomic_write(folder / name, data)
        atomic_write(folder / "record.json", sealed(entry.model_dump_json(indent=1).encode()))
        kept = {part.file for part in entry.parts}
        for path in folder.glob("*.npz"):
            if path.name not in kept:
                with suppress(OSError):  # it is no part of the entry any more
                    path.unlink(missing_ok=True)

    def remove(self, key: str) -> None:
        """Forget an entry, its record first, so that none is ever without its predictions.

        Raises:
            StoreError: it cannot be removed.
        """
        folder = self.root / key
        try:
            (folder / "record.json").unlink(missing_ok=True)
            shutil.rmtree(folder)
        except OSError as error:
            raise StoreError(f"cannot remove {folder}: {error.strerror}") from error

    def keys(self) -> list[str]:
        """The keys of all entries, whole or not."""
        return self._store.keys()

    @contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """Hold an entry against other processes."""
        with self._store.lock(key):
            yield
