"""What a bundle is: a zip of records and predictions, and a manifest that vouches for every entry; reading one that others made."""

from __future__ import annotations

import re
import stat
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mmbench.errors import DataError
from mmbench.record import sealed, unsealed
from mmbench.store import MOST_BYTES

MANIFEST, EXPERIMENT = "manifest.json", "experiment.yaml"
ENTRY = re.compile(r"runs/([0-9a-f]{16})/(record\.json|predictions\.npz|features\.npz)")
"""All other entries that a bundle may have: no name of another kind is ever read, and none can lead out of a folder."""
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_ .+-]{0,99}")
"""Of an experiment, as it names files."""
MOST = {
    MANIFEST: 64 * 2**20,
    EXPERIMENT: 2**20,
    **{name: MOST_BYTES[name] for name in ("record.json", "features.npz")},
}
MOST["predictions.npz"] = 2 * 2**30
"""Bytes of an entry, by the end of its name."""
MOST_ENTRIES = 200_000
MOST_RATIO = 200
"""How many times as large as the bundle its entries may be, all together."""
SMALL = 64 * 2**20
"""Bytes that entries may have, whatever the ratio."""


class Entry(BaseModel):
    """An entry of a bundle."""

    model_config = ConfigDict(extra="forbid")

    size: Annotated[int, Field(ge=0)]
    sha256: str


class DatasetFacts(BaseModel):
    """What an experiment needs to know of a data set that is not there: for its report elsewhere.

    Attributes:
        dataset: the data set's own name.
        data: the hash of its manifest.
        weights: modality -> the hash of the files that its encoder reads.
        protocols: those under which there are trials.
        folds: those of which there are trials; None is the one split.
        splits: "clean fold 0" -> ``split_hash``, of data that were there and whose class tells ids.
    """

    model_config = ConfigDict(extra="forbid")

    dataset: str
    data: str
    weights: dict[str, str]
    protocols: list[str]
    folds: list[int | None]
    splits: dict[str, str]


class Manifest(BaseModel):
    """``manifest.json``.

    Attributes:
        format: raised when the layout changes.
        experiment: its name.
        mmbench: version and commit of the suite that wrote the bundle.
        datasets: label of a data set -> facts.
        done: trials that the bundle has.
        planned: trials that the experiment stands for.
        entries: name -> size and hash of all other entries.
    """

    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    experiment: str
    mmbench: dict[str, Any]
    datasets: dict[str, DatasetFacts]
    done: int
    planned: int
    entries: dict[str, Entry]

    def to_bytes(self) -> bytes:
        """As JSON, with its own checksum."""
        return sealed(self.model_dump_json(indent=1).encode())

    @classmethod
    def from_bytes(cls, data: bytes) -> Manifest:
        """Read what ``to_bytes`` wrote.

        Raises:
            ValueError: it is not what was written, or no manifest.
        """
        return cls.model_validate_json(unsealed(data))


def write_entry(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    """Add an entry of which nothing depends on the machine or the hour; predictions are compressed already."""
    info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    info.external_attr, info.create_system = (stat.S_IFREG | 0o644) << 16, 3
    archive.writestr(info, data, zipfile.ZIP_STORED)


class Bundle:
    """A bundle that others made, opened: its entries are known, and none is larger than it may be.

    Attributes:
        path: the file.
        manifest: what vouches for the entries.
    """

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self.path, self._archive = path, archive
        self._entries = self._checked_entries()
        try:
            self.manifest = Manifest.from_bytes(self._read(MANIFEST, MOST[MANIFEST]))
        except ValidationError as error:
            first = error.errors()[0]
            raise self.damaged(f"{MANIFEST}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
        except ValueError as error:
            raise self.damaged(f"{MANIFEST}: {error}") from error
        if not NAME.fullmatch(self.manifest.experiment):
            raise self.damaged(f"{MANIFEST}: '{self.manifest.experiment[:100]}' is no name of an experiment")
        told, there = set(self.manifest.entries), set(self._entries) - {MANIFEST}
        if told != there:
            what, name = (
                ("is missing", min(told - there)) if told - there else ("is not in its manifest", min(there - told))
            )
            raise self.damaged(f"{name[:200]} {what}")

    def damaged(self, why: str) -> DataError:
        """That the bundle cannot be used."""
        return DataError(f"{self.path}: {why}; it is damaged, or not a bundle of `mmbench export`: get it anew")

    def _checked_entries(self) -> dict[str, zipfile.ZipInfo]:
        """The entries by name, if all are of the kinds that a bundle has, and no larger."""
        entries = self._archive.infolist()
        if len(entries) > MOST_ENTRIES:
            raise self.damaged(f"it has {len(entries):,} entries, more than {MOST_ENTRIES:,}")
        found: dict[str, zipfile.ZipInfo] = {}
        for entry in entries:
            name = entry.orig_filename
            if name not in (MANIFEST, EXPERIMENT) and not ENTRY.fullmatch(name):
                raise self.damaged(f"entry '{name[:200]}' is none that a bundle has")
            if name in found:
                raise self.damaged(f"entry '{name}' is there twice")
            mode = entry.external_attr >> 16
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG) or entry.flag_bits & 1:
                raise self.damaged(f"entry '{name}' is a link, another special file, or encrypted")
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise self.damaged(f"entry '{name}' is compressed in a way that bundles are not")
            if entry.file_size > (most := MOST[name.rpartition("/")[2]]):
                raise self.damaged(f"entry '{name}' has {entry.file_size:,} bytes, expected {most:,} at most")
            found[name] = entry
        size = self.path.stat().st_size
        if (total := sum(entry.file_size for entry in entries)) > max(SMALL, MOST_RATIO * size):
            raise self.damaged(f"its entries have {total:,} bytes, more than {MOST_RATIO} times its own {size:,}")
        if MANIFEST not in found:
            raise self.damaged(f"it has no {MANIFEST}")
        return found

    @property
    def size(self) -> int:
        """Bytes of all entries."""
        return sum(entry.file_size for entry in self._entries.values())

    @property
    def trials(self) -> Mapping[str, list[str]]:
        """Key of a trial -> the names of its files."""
        found: dict[str, list[str]] = {}
        for name in self._entries:
            if match := ENTRY.fullmatch(name):
                found.setdefault(match[1], []).append(match[2])
        return found

    def _read(self, name: str, most: int) -> bytes:
        try:
            with self._archive.open(self._entries[name]) as stream:
                return stream.read(most + 1)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
            raise self.damaged(f"{name}: {error}") from error

    def read(self, name: str) -> bytes:
        """An entry's content.

        Raises:
            DataError: it is not what the manifest vouches for.
        """
        expected = self.manifest.entries.get(name)
        if expected is None:
            raise self.damaged(f"{name} is missing")
        data = self._read(name, MOST[name.rpartition("/")[2]])
        if len(data) != expected.size or sha256(data).hexdigest() != expected.sha256:
            raise self.damaged(f"{name} is not what its manifest vouches for")
        return data


@contextmanager
def opened(path: Path) -> Iterator[Bundle]:
    """Open a bundle that others made.

    Raises:
        DataError: it is none, or has entries that no bundle has.
    """
    try:
        with path.open("rb") as stream, zipfile.ZipFile(stream) as archive:
            yield Bundle(path, archive)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    except zipfile.BadZipFile as error:
        raise DataError(f"{path}: is no zip file, or was cut off ({error}); get the bundle anew") from error
