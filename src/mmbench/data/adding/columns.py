"""The columns of a Hugging Face data set, by their types: what each becomes in a raw folder, or why it is not used."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from mmbench.data.adding.decoding import ENDINGS
from mmbench.data.adding.parquet import unpacked_bytes
from mmbench.data.adding.tables import MOST_BYTES
from mmbench.data.preparing.lists import within
from mmbench.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

MEDIA = {"Image": "picture", "Audio": "sound", "Video": "video"}
MAGIC = (
    (rb"\x89PNG\r\n", ".png"), (rb"\xff\xd8\xff", ".jpg"), (rb"GIF8", ".gif"), (rb"BM", ".bmp"), (rb"II\*\0|MM\0\*", ".tif"),
    (rb"RIFF....WEBP", ".webp"), (rb"RIFF....WAVE", ".wav"), (rb"RIFF....AVI ", ".avi"), (rb"fLaC", ".flac"), (rb"OggS", ".ogg"),
    (rb"ID3|\xff[\xe2-\xff]", ".mp3"), (rb"....ftypM4A", ".m4a"), (rb"....ftyp", ".mp4"), (rb"\x1aE\xdf\xa3", ".mkv"),
)  # fmt: skip
"""How files begin, as patterns, and how the names of such files end."""


@dataclass
class Rows:
    """Some rows that are written.

    Attributes:
        names: of each, unique in the data set; its files are called so.
        where: of each, for messages: where it was read.
    """

    names: Sequence[str]
    where: Callable[[int, str], str]


class Media:
    """A column of pictures, sounds or videos: a file of each.

    Attributes:
        most: how many files are written with what is in them; those after them are empty, which is enough to infer.
    """

    def __init__(self, column: str, name: str, kind: str, source: Path, target: Path) -> None:
        self.column, self.name, self.kind, self.source, self.target = column, name, kind, source, target
        self.most = sys.maxsize
        (target / name).mkdir()

    def add(self, values: pa.Array, rows: Rows) -> list[str | None]:
        """Write the files; their paths below the raw folder, None where a cell is empty."""
        contents, paths = values.field("bytes"), values.field("path").to_pylist()
        found: list[str | None] = []
        for number, (valid, path) in enumerate(zip(values.is_valid().to_pylist(), paths, strict=True)):
            content = contents[number].as_buffer() if valid and contents[number].is_valid else None
            if not valid or (content is None and not path):
                found.append(None)
                continue
            head = memoryview(content)[:16].tobytes() if content is not None else b""
            file = f"{self.name}/{rows.names[number]}{ending_of(self.kind, path or '', head)}"
            if content is not None:
                with (self.target / file).open("wb") as handle:
                    handle.write(content if self.most > 0 else b"")
                self.most -= 1
            else:
                self.copy(path, self.target / file, rows.where(number, self.column))
            found.append(file)
        return found

    def copy(self, path: str, target: Path, where: str) -> None:
        """Copy a file that is named in place of its bytes; what is not there will be counted as missing when the data are prepared.

        Raises:
            UsageError: it lies outside of the data set's folder, and is none of it.
        """
        root = self.source.absolute()
        inside = str(Path(path).relative_to(root)) if Path(path).is_relative_to(root) else path
        try:
            source = within(root, inside, where)
        except UsageError as error:
            raise UsageError(
                f"{where}: holds no bytes, and the path {path[:200]!r} is of a file outside of {self.source}; "
                "save the data set again where that file is: dataset.save_to_disk(DIR) of datasets 2.0 or newer puts it in"
            ) from error
        if source.is_file():
            shutil.copyfile(source, target)


class Classes:
    """A column of ClassLabel: the names of the classes."""

    def __init__(self, column: str, names: Sequence[str]) -> None:
        import pyarrow as pa

        self.column, self.names = column, pa.array([str(name).strip() for name in names], pa.string())

    def missing(self, values: pa.Array, rows: Rows) -> np.ndarray:
        """Which cells (N,) hold no class: they are empty, or −1.

        Raises:
            UsageError: one holds a number that no class has.
        """
        numbers = values.fill_null(-1).to_numpy(zero_copy_only=False)
        if len(wrong := np.flatnonzero((numbers < -1) | (numbers >= len(self.names)))):
            row = int(wrong[0])
            raise UsageError(
                f"{rows.where(row, self.column)}: label {numbers[row]}, expected 0 to {len(self.names) - 1}, a number for each of its "
                f"{len(self.names)} classes, or -1 where there is none"
            )
        return numbers < 0

    def add(self, values: pa.Array, rows: Rows) -> pa.Array:
        """The names, None where there is none."""
        import pyarrow as pa

        missing = self.missing(values, rows)
        return self.names.take(pa.array(values.fill_null(-1).to_numpy(zero_copy_only=False), mask=missing))


class Plain:
    """A column of texts, numbers or truth values, as it is."""

    def __init__(self, column: str, kind: pa.DataType) -> None:
        self.column, self.kind, self.size = column, kind, 0

    def add(self, values: pa.Array, rows: Rows) -> pa.Array:
        """The values, of one of three types.

        Raises:
            UsageError: they take too many bytes, as those of a dictionary may that holds a long text.
        """
        self.size += unpacked_bytes(values)
        if self.size > MOST_BYTES:
            raise UsageError(
                f"{rows.where(len(values) - 1, self.column)}: the values up to this one take {self.size:,} bytes, expected at most "
                f"{MOST_BYTES:,} in a column; leave it out, or shorten its texts"
            )
        return values.cast(self.kind)


@dataclass
class Vectors:
    """A column of vectors: one array of all rows, float32, with NaN in the rows that have none.

    Attributes:
        column: its name.
        path: of the array.
        width: of the vectors; 0 before the first.
        rows: how many were added.
        reason: why it cannot be used; "" while it can.
    """

    column: str
    path: Path
    width: int = 0
    rows: int = 0
    reason: str = ""
    stream: BinaryIO | None = field(default=None, repr=False)

    def add(self, values: pa.Array, rows: Rows) -> None:
        """Append rows to the array."""
        if self.reason:
            return
        present, vectors, wrong = vectors_of(values, self.width)
        if wrong is not None:
            self.reason = f"its vectors are of different widths ({rows.where(wrong, self.column)}); pad them, or average over time"
            self.drop()
            return
        if len(vectors) and not self.width:
            self.width = vectors.shape[1]
            self.stream = self.path.open("wb")
            self.head()
            self.stream.write(np.full((self.rows, self.width), np.nan, "<f4").tobytes())
        if self.width:
            assert self.stream is not None
            block = np.full((len(present), self.width), np.nan, "<f4")
            with np.errstate(over="ignore"):  # what is too large for float32 is told, with its row, when it is read
                block[present] = vectors
            self.stream.write(block.tobytes())
        self.rows += len(present)

    def head(self) -> None:
        """Write numpy's header, which has one length whatever the number of rows."""
        assert self.stream is not None
        shape = (self.rows, self.width)
        np.lib.format.write_array_header_1_0(self.stream, {"descr": "<f4", "fortran_order": False, "shape": shape})

    def close(self) -> None:
        """Write the number of rows into the array's header."""
        if self.stream is not None:
            self.stream.seek(0)
            self.head()
            self.stream.close()
        elif not self.reason:
            self.reason = "it is empty"

    def drop(self) -> None:
        """Take the array away."""
        if self.stream is not None:
            self.stream.close()
            self.stream = None
            self.path.unlink()


Writer = Media | Classes | Plain | Vectors


def vectors_of(values: pa.Array, width: int) -> tuple[np.ndarray, np.ndarray, int | None]:
    """Lists of numbers, or of one list of numbers each.

    Args:
        values: the column.
        width: that the vectors have to have; 0: any, but one.

    Returns:
        Which rows (N,) have a vector, the vectors (M, D) of those, and the first row of another width, or of more than one list, if
        there is one.
    """
    import pyarrow as pa
    from pyarrow import compute

    values = values.storage if isinstance(values, pa.ExtensionArray) else values
    lengths = compute.list_value_length(values).fill_null(0).to_numpy(zero_copy_only=False)
    lengths = np.where(values.is_valid().to_numpy(zero_copy_only=False), lengths, 0)
    present, rows = lengths > 0, np.flatnonzero(lengths > 0)
    inner = values.flatten()
    if pa.types.is_nested(inner.type):
        if len(wrong := np.flatnonzero(lengths > 1)):
            return present, np.empty((0, 0)), int(wrong[0])
        held, vectors, ragged = vectors_of(inner, width)
        present[rows] = held
        return present, vectors, None if ragged is None else int(rows[ragged])
    width = width or (int(lengths[rows[0]]) if len(rows) else 0)
    if len(wrong := np.flatnonzero(present & (lengths != width))):
        return present, np.empty((0, 0)), int(wrong[0])
    numbers = inner.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return present, numbers.reshape(len(rows), width or 1), None


def ending_of(kind: str, path: str, head: bytes) -> str:
    """How a file's name ends: as the path does that the data set gives, if that is one of its kind; else by how the file begins.

    What begins like no file of a known kind is called like one of its kind all the same; that it is none is found when it is decoded.
    """
    suffix = Path(path).suffix.lower()
    if suffix in ENDINGS[kind]:
        return suffix
    return next((ending for pattern, ending in MAGIC if re.match(pattern, head, re.DOTALL)), ENDINGS[kind][0])


def writer_of(column: str, name: str, feature: Any, kind: pa.DataType, source: Path, target: Path) -> Writer | str:
    """What becomes of a column, or why it is not used.

    Args:
        column: its name.
        name: the same as the name of a modality.
        feature: what the data set says of it; None where it says nothing.
        kind: its type in the table.
        source: the data set's folder.
        target: the raw folder.

    Raises:
        UsageError: the table does not hold what the data set says.
    """
    import pyarrow as pa

    types = pa.types
    what = feature.get("_type", "") if isinstance(feature, Mapping) else ""
    if what in MEDIA:
        fields = {field.name: field.type for field in kind} if types.is_struct(kind) else {}
        texts, contents = (pa.string(), pa.large_string()), (pa.binary(), pa.large_binary())
        if fields.get("bytes") not in contents or fields.get("path") not in texts:
            raise UsageError(
                f"{source}: column '{column}' is called {what}, but holds {kind}; expected bytes and a path"
            )
        return Media(column, name, MEDIA[what], source, target)
    if what == "ClassLabel":
        names = feature.get("names")
        if not isinstance(names, list) or not names or not types.is_integer(kind):
            raise UsageError(
                f"{source}: column '{column}' is called ClassLabel, but holds {kind} with the names {str(names)[:80]}"
            )
        return Classes(column, names)
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    if types.is_dictionary(kind):
        kind = kind.value_type
    if types.is_null(kind):
        return "it is empty"
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return Plain(column, pa.string()) if what in ("", "Value") else f"values of type {what}"
    if types.is_boolean(kind):
        return Plain(column, pa.bool_())
    if types.is_integer(kind):
        return Plain(column, pa.string() if kind == pa.uint64() else pa.int64())
    if types.is_floating(kind) or types.is_decimal(kind):
        return Plain(column, pa.float64())
    if types.is_temporal(kind):
        return "dates or times; cast it to string to use it"
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return "bytes of no type; say what they are: dataset.cast_column(…, Image()), Audio() or Video()"
    return of_list(column, name, feature, kind, target)


def of_list(column: str, name: str, feature: Any, kind: pa.DataType, target: Path) -> Writer | str:
    """What becomes of a column of lists, or why it is not used."""
    import pyarrow as pa

    def is_list(kind: pa.DataType) -> bool:
        return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)

    if not is_list(kind):
        return "nested values; dataset.flatten() makes columns of them"
    steps, inner = 0, kind
    while is_list(inner):
        steps, inner = steps + 1, inner.value_type
    if pa.types.is_struct(inner):
        return "lists of nested values"
    if pa.types.is_integer(inner):
        return "lists of whole numbers, such as tokens; if they are features, cast them to float32"
    if not pa.types.is_floating(inner):
        return f"lists of {inner}"
    shape = feature.get("shape") if isinstance(feature, Mapping) else None
    if steps == 1 or (steps == 2 and isinstance(shape, list) and shape[:1] == [1]):
        return Vectors(column, target / f"{name}.npy")
    told = " × ".join(map(str, shape)) if isinstance(shape, list) else "steps of vectors"
    return f"{told}; expected one vector a sample: average over time first"
