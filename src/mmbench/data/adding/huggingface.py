"""``mmbench data add --hf DIR``: what ``save_to_disk`` of Hugging Face's datasets wrote becomes a raw folder in the plain layout."""

from __future__ import annotations

import json
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmbench.data.adding.columns import Classes, Media, Rows, Vectors, Writer, writer_of
from mmbench.data.adding.decoding import ENDINGS
from mmbench.data.adding.guesses import GROUPS, LABELS, MOST, SPLITS, slug
from mmbench.data.adding.samples import SPLIT_NAMES
from mmbench.data.adding.saved import Part, read_parts
from mmbench.errors import StoreError, UsageError, did_you_mean
from mmbench.files import atomic_write

if TYPE_CHECKING:
    import pyarrow as pa

DECLARATION, TABLE, NOTE = "dataset.yaml", "metadata.parquet", "exported.json"
VERSION = 1  # raised when what is written changes
STEP = 256  # rows that are written at once
PATIENCE = 5.0  # seconds between two lines of progress
SUFFIX = "_file_name"
HIDDEN = "hf_split"  # the column of splits that are none of ours


@dataclass(frozen=True)
class Exported:
    """What became of a data set.

    Attributes:
        declaration: what its types say of ``dataset.yaml``: ``label`` and ``classes`` where a ClassLabel is the label, and ``split``.
        unused: (column, why it is not used).
        notes: what the user should know.
    """

    declaration: dict[str, Any]
    unused: list[tuple[str, str]]
    notes: list[str]


def export(
    folder: Path,
    into: Path,
    label: str | None,
    say: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True),
    most: int = sys.maxsize,
) -> Exported:
    """Write a raw folder: a table of samples, a file for every picture, sound and video, an array for every column of vectors.

    What was exported before is left as it is, if neither the data set nor the label has changed. The folder is whole, or not there.

    Args:
        folder: what ``save_to_disk`` wrote.
        into: the raw folder.
        label: the column of the label, where the user named it.
        say: takes lines of progress.
        most: how many files of each modality are written with what is in them; the others are empty, which is enough to infer.

    Raises:
        UsageError: the folder is none of ``save_to_disk``'s, or is damaged.
        StoreError: the raw folder cannot be written.
    """
    parts = read_parts(folder)
    stamp = stamp_of(folder, parts, label)
    if before := exported_before(into, stamp):
        say(f"{into} has all of {folder} already")
        return before
    partial = into.with_name(f"{into.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        result = Export(folder, parts, partial, label, most).write(say)
        atomic_write(partial / NOTE, json.dumps({"stamp": stamp, "exported": asdict(result)}, indent=1).encode())
        if into.exists():
            keep(into, partial)
            shutil.rmtree(into)
        partial.rename(into)
    except OSError as error:
        raise StoreError(f"cannot write {partial}: {error.strerror or error}") from error
    return result


def keep(before: Path, after: Path) -> None:
    """Take the declaration over, which may have been changed by hand."""
    if (before / DECLARATION).exists():
        shutil.copyfile(before / DECLARATION, after / DECLARATION)


def stamp_of(folder: Path, parts: Sequence[Part], label: str | None) -> dict[str, Any]:
    """What a data set is known by, without reading it: its files with their sizes and times."""
    files = [path for part in parts for path in (*part.shards, *part.folder.glob("*.json"))]
    stats = {path.relative_to(folder).as_posix(): path.stat() for path in files}
    return {
        "version": VERSION,
        "folder": str(folder.resolve()),
        "label": label,
        "files": {name: [stat.st_size, stat.st_mtime_ns] for name, stat in sorted(stats.items())},
    }


def exported_before(into: Path, stamp: Mapping[str, Any]) -> Exported | None:
    """What an earlier call wrote; None if there is nothing of this data set.

    Raises:
        UsageError: there is a folder that no such call wrote.
    """
    if not into.exists():
        return None
    try:
        note = json.loads((into / NOTE).read_bytes())
        one = note["exported"]
        before = Exported(one["declaration"], [tuple(line) for line in one["unused"]], one["notes"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UsageError(f"{into} is there, and is not what --hf wrote; move it away") from error
    return before if note.get("stamp") == stamp else None


class Export:
    """Writes one data set.

    Args:
        folder: what ``save_to_disk`` wrote.
        parts: its parts.
        target: the raw folder, empty.
        label: the column of the label, where the user named it.
        most: how many files of each modality are written with what is in them.
    """

    def __init__(self, folder: Path, parts: Sequence[Part], target: Path, label: str | None, most: int) -> None:
        self.folder, self.parts, self.target = folder, parts, target
        first = parts[0]
        names = {column: name for column, name in zip(first.schema.names, names_of(first.schema.names), strict=True)}
        self.writers: dict[str, Writer] = {}
        self.unused: list[tuple[str, str]] = []
        for column in first.schema.names:
            kind = first.schema.field(column).type
            writer = writer_of(column, names[column], first.features.get(column), kind, folder, target)
            if isinstance(writer, str):
                self.unused.append((column, writer))
            else:
                self.writers[column] = writer
            if isinstance(writer, Media):
                writer.most = most
        self.label = self.label_of(label)
        self.split = next(name for name in (*SPLITS, HIDDEN) if name not in first.schema.names)
        self.kept: dict[str, int] = {}
        self.without: list[str] = []

    def label_of(self, given: str | None) -> str | None:
        """The column of the label; None where the types do not say it.

        Raises:
            UsageError: there is no such column, or several could be meant.
        """
        columns = self.parts[0].schema.names
        if given is not None:
            if given not in columns:
                raise UsageError(f"--label: {self.folder} has no column '{given}'; {did_you_mean(given, columns)}")
            return given
        called = [column for name in LABELS for column in columns if slug(column) == name]
        if called:
            return called[0] if isinstance(self.writers.get(called[0]), Classes) else None
        classes = [c for c, w in self.writers.items() if isinstance(w, Classes) and slug(c) not in (*GROUPS, *SPLITS)]
        if len(likely := [c for c in classes if slug(c).endswith(("_label", "_class"))]) == 1:
            return likely[0]
        if len(classes) > 1:
            raise UsageError(
                f"{self.folder}: {', '.join(classes)} are columns of classes; name the label: --label {classes[0]}"
            )
        return classes[0] if classes else None

    def write(self, say: Callable[[str], None]) -> Exported:
        """Write all rows.

        Args:
            say: takes lines of progress.
        """
        import pyarrow as pa
        from pyarrow import parquet

        total, done, tables, told = sum(part.rows for part in self.parts), 0, [], time.monotonic()
        for part in self.parts:
            for first, rows in slices(part):
                tables.append(self.add(part, first, rows))
                done += len(rows)
                if time.monotonic() - told > PATIENCE:
                    told = time.monotonic()
                    say(f"{self.folder}: {done:,} of {total:,} rows read")
        vectors = [writer for writer in self.writers.values() if isinstance(writer, Vectors)]
        for writer in vectors:
            writer.close()
        self.unused += [(writer.column, writer.reason) for writer in vectors if writer.reason]
        if not sum(self.kept.values()):
            lack = f"of its {total:,} rows none has a label" if total else "it has no rows"
            raise UsageError(f"{self.folder}: {lack}; expected samples with a class")
        table = pa.concat_tables(tables)
        for column in [name for name in table.column_names if name in self.writers and are_paths(table.column(name))]:
            self.unused.append(
                (column, "paths of files, which are not in it; cast it to Image, Audio or Video, and save it again")
            )
            table = table.drop_columns(column)
        result = self.told()
        if len(self.parts) > 1 and "split" not in result.declaration:
            table = table.rename_columns([HIDDEN if name == self.split else name for name in table.column_names])
        parquet.write_table(table, self.target / TABLE)
        return result

    def add(self, part: Part, first: int, batch: pa.RecordBatch) -> pa.Table:
        """Write some rows of a part; what the table has of them."""
        import pyarrow as pa

        numbers = np.arange(first, first + len(batch))

        def where(row: int, column: str) -> str:
            return f"{part.folder}, row {numbers[row]} (from 0), column '{column}'"

        labels = self.writers.get(self.label or "")
        if isinstance(labels, Classes):
            missing = labels.missing(batch.column(labels.column), Rows([], where))
            if missing.any():
                self.without += [where(row, labels.column) for row in np.flatnonzero(missing).tolist()]
                batch, numbers = batch.filter(pa.array(~missing)), numbers[~missing]
        digits, prefix = len(str(part.rows - 1)), f"{part.split}-" * bool(part.split)
        rows = Rows([f"{prefix}{number:0{digits}}" for number in numbers], where)
        self.kept[part.split] = self.kept.get(part.split, 0) + len(batch)
        table: dict[str, Any] = {}
        for column, writer in self.writers.items():
            values = writer.add(batch.column(column), rows)
            if isinstance(writer, Media):
                table[f"{writer.name}{SUFFIX}"] = pa.array(values, pa.string())
            elif values is not None:
                table[column] = values
        if len(self.parts) > 1:
            table[self.split] = pa.array([part.split] * len(batch), pa.string())
        return pa.table(table)

    def told(self) -> Exported:
        """What the types say, and what was left out."""
        notes: list[str] = []
        declaration: dict[str, Any] = {}
        labels = self.writers.get(self.label or "")
        if isinstance(labels, Classes):
            declaration |= {"label": self.label, "classes": labels.names.to_pylist()}
        if self.without:
            notes.append(f"{len(self.without):,} rows have no label, such as {self.without[0]}: left out")
        if len(self.parts) > 1:
            given = [split for split, count in self.kept.items() if count]
            called = {SPLIT_NAMES.get(split.casefold(), split) for split in given}
            if {"train", "test"} <= called <= set(SPLIT_NAMES.values()):
                declaration["split"] = self.split
            else:
                notes.append(
                    f"its splits are {', '.join(given)}, expected train, test and perhaps validation: splits are cut here, from all "
                    f"samples (column '{HIDDEN}' of {TABLE} has the given ones)"
                )
        return Exported(declaration, self.unused, notes)


def slices(part: Part) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The rows of a part, few at a time, with the number of the first."""
    first = 0
    for batch in part.batches():
        for start in range(0, len(batch), STEP):
            yield first + start, batch.slice(start, STEP)
        first += len(batch)


def are_paths(values: pa.ChunkedArray) -> bool:
    """Whether a column holds paths of pictures, sounds and the like, by the ends of its texts."""
    import pyarrow as pa
    from pyarrow import compute

    if not pa.types.is_string(values.type):
        return False
    endings = sorted({ending for kind in ENDINGS.values() for ending in kind})
    pattern = rf"\S({'|'.join(map(re.escape, endings))})\s*$"
    found = compute.sum(compute.match_substring_regex(values, pattern, ignore_case=True)).as_py() or 0
    filled = compute.sum(compute.not_equal(values, "")).as_py() or 0
    return found >= MOST * max(1, filled)


def names_of(columns: Sequence[str]) -> list[str]:
    """Columns -> names that modalities and files may have, each another one."""
    found: list[str] = []
    for column in columns:
        name = slug(column) or "column"
        taken = {*found, *columns} - {column}
        while name in taken or f"{name}{SUFFIX}" in taken:
            match = re.fullmatch(r"(.*)_(\d+)", name)
            name = f"{match[1]}_{int(match[2]) + 1}" if match else f"{name[:36]}_2"
        found.append(name)
    return found
