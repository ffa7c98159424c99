"""Files of class probabilities that others made: csv, parquet or npz, read as columns. Nothing in them is executed."""

from __future__ import annotations

import csv
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmbench.data.adding.parquet import unpacked_table
from mmbench.errors import DataError, UsageError, did_you_mean
from mmbench.npz import read_npz

if TYPE_CHECKING:
    import pandas as pd

ENDINGS = (".csv", ".parquet", ".npz")
WORDS = ("id", "pattern", "fold", "split_sha256", "split", "label")
"""Columns beside those of the classes; id alone has to be there. The last two are those of ``mmbench data split``, and are checked."""
INDEX = re.compile(r"__index_level_\d+__")
"""What pandas calls an index that it writes to a parquet file: none of ours."""
HEADER = 2**20
"""Bytes of a csv's first line."""


@dataclass(frozen=True)
class Given:
    """What a file gives, a row a sample under a pattern.

    Attributes:
        words: name of a column -> (R,) its texts; of ``WORDS``, those that there are.
        probabilities: (R, C) float64, in the order of the data set's classes.
        source: the file.
        first: the number that its first row has in messages.
    """

    words: dict[str, np.ndarray]
    probabilities: np.ndarray
    source: Path
    first: int = 1

    def __len__(self) -> int:
        return len(self.probabilities)

    def where(self, row: int) -> str:
        """Which row of the file it is, for a message."""
        return f"{self.source}, row {row + self.first}" + ("" if self.source.suffix == ".npz" else " below the header")


def read(path: Path, classes: Sequence[str], most_rows: int) -> Given:
    """Read a file of probabilities.

    Args:
        path: it.
        classes: of the data set, in its order.
        most_rows: more than these are refused, before they are read.

    Raises:
        DataError: it cannot be read, has other columns than it may, or a value that is none; the message says where.
    """
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise DataError(f"{path}: expected a file that ends in {', '.join(ENDINGS)}; the ending says what it is")
    if not path.is_file():
        raise DataError(f"{path}: {'is no file' if path.exists() else 'there is no such file'}")
    most_bytes = 2**20 + most_rows * (
        400 + 32 * len(classes)
    )  # of ids, patterns and hashes, and of a number of 17 digits
    try:
        if (size := path.stat().st_size) > most_bytes:
            raise DataError(
                f"{path}: holds {size:,} bytes; {most_rows:,} rows, which is all that the test split has under all patterns, take no "
                f"more than {most_bytes:,}"
            )
        if ending == ".npz":
            return _of_npz(path, classes, most_rows, most_bytes)
        frame = (_of_csv if ending == ".csv" else _of_parquet)(path, classes, most_rows, most_bytes)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    words = {name: frame[name].to_numpy(object) for name in WORDS if name in frame and name not in classes}
    return _bounded(Given(words, frame[list(classes)].to_numpy(np.float64), path), most_rows)


def _bounded(given: Given, most_rows: int) -> Given:
    if len(given) > most_rows:
        raise DataError(_too_many(given.source, len(given), most_rows))
    if not len(given):
        raise DataError(f"{given.source}: it has no rows")
    return given


def _too_many(path: Path, rows: int, most: int) -> str:
    return (
        f"{path}: {rows:,} rows; the test split under all patterns has no more than {most:,}: is a fold or an id twice?"
    )


def _check_columns(path: Path, columns: Sequence[str], classes: Sequence[str]) -> None:
    """Refuse a table that has not the id and exactly the classes."""
    known = [*WORDS, *classes]
    if twice := sorted({name for name in columns if columns.count(name) > 1}):
        raise DataError(f"{path}: column '{twice[0]}' is there twice")
    if hidden := [name for name in classes if name in WORDS[:4]]:
        raise DataError(f"{path}: class '{hidden[0]}' is called like a column; give an .npz, whose `classes` are apart")
    if missing := [name for name in classes if name not in columns]:
        raise DataError(
            f"{path}: no column of class {_listed(missing)}; expected the columns id, pattern, fold and one a class: "
            f"{', '.join(classes)}"
        )
    if "id" not in columns:
        raise DataError(
            f"{path}: no column id, which says whose probabilities a row has (mmbench data split writes the ids)"
        )
    if unknown := [name for name in columns if name not in known]:
        raise DataError(f"{path}: unknown column '{unknown[0]}': {did_you_mean(unknown[0], known)}")


def _listed(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(f"'{name}'" for name in names[:most]) + more


def _of_csv(path: Path, classes: Sequence[str], most_rows: int, most_bytes: int) -> pd.DataFrame:
    import pandas as pd

    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            columns = next(csv.reader([stream.readline(HEADER)]), [])
        _check_columns(path, columns, classes)
        kinds: dict[str, Any] = {name: np.float64 if name in classes else str for name in columns}
        options: Any = {"encoding": "utf-8-sig", "keep_default_na": False, "nrows": most_rows + 1}
        try:
            with path.open("rb") as stream, warnings.catch_warnings():
                warnings.simplefilter("error", pd.errors.ParserWarning)  # too many cells in a row
                return pd.read_csv(stream, dtype=kinds, index_col=False, **options)
        except (ValueError, pd.errors.ParserWarning) as error:
            wrong = _wrong_number(path, classes, options) or _wrong_row(path, len(columns)) or f"{path}: {error}"
            raise DataError(wrong) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: expected comma-separated values in UTF-8 ({error})") from error


def _wrong_number(path: Path, classes: Sequence[str], options: dict[str, Any]) -> str | None:
    """Which cell of a class is no number, if that is what is wrong."""
    import pandas as pd

    try:
        with pd.read_csv(path, dtype=str, chunksize=10_000, index_col=False, **options) as chunks:
            for chunk, name in ((chunk, name) for chunk in chunks for name in classes):
                values = chunk[name].fillna("")
                wrong = pd.to_numeric(values, errors="coerce").isna()
                if wrong.any():
                    row = wrong.idxmax()
                    found = f"{name} is '{values[row][:40]}', expected a probability from 0 to 1"
                    return f"{path}, row {row + 1} below the header: {found}"
    except (ValueError, Warning):  # it is not the cells that are wrong
        pass
    return None


def _wrong_row(path: Path, columns: int) -> str | None:
    """Which row has more cells than the header, or quotes that do not close, if that is what is wrong."""
    row = -1
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(stream, strict=True)
        try:
            for row, cells in enumerate(filter(None, reader)):
                if len(cells) > columns:
                    return (
                        f"{path}, row {row} below the header: {len(cells)} cells, expected {columns}, as the header has; a cell with "
                        "a comma has to stand in quotes"
                    )
        except csv.Error as error:
            return f"{path}, row {row + 1} below the header: its quotes are wrong ({error}); close each, and write two of them for one"
    return None


def _of_parquet(path: Path, classes: Sequence[str], most_rows: int, most_bytes: int) -> pd.DataFrame:
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        columns = [name for name in file.schema_arrow.names if not INDEX.fullmatch(name)]
        _check_columns(path, columns, classes)
        if (rows := file.metadata.num_rows) > most_rows:
            raise DataError(_too_many(path, rows, most_rows))
        groups = (file.metadata.row_group(i).total_byte_size for i in range(file.metadata.num_row_groups))
        if (size := sum(groups)) > most_bytes:
            raise DataError(f"{path}: {size:,} bytes when unpacked, expected {most_bytes:,} at most")
        kinds = {name: file.schema_arrow.field(name).type for name in columns}
        for name in classes:
            if not (pa.types.is_floating(kinds[name]) or pa.types.is_integer(kinds[name])):
                raise DataError(f"{path}: column '{name}' holds {kinds[name]}, expected probabilities from 0 to 1")
        table = unpacked_table(path, most_bytes, most_rows).select(columns)
        frame = table.to_pandas(ignore_metadata=True, use_threads=False)
    except UsageError as error:
        raise DataError(str(error)) from error
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"{path}: it is no parquet file, or was cut off ({error})") from error
    words = {name: frame[name].map(_text) for name in columns if name not in classes}
    return pd.DataFrame({**words, **{name: frame[name] for name in classes}})


def _text(value: Any) -> str:
    """A value of a column of words, as a csv would have it."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return ""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _of_npz(path: Path, classes: Sequence[str], most_rows: int, most_bytes: int) -> Given:
    try:
        arrays = read_npz(path, 4 * most_bytes)  # a text takes four bytes a character
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error
    expected = (
        "expected the arrays id (R,), pattern, fold (where there are folds), probabilities (R, C) and classes (C,)"
    )
    if missing := [name for name in ("id", "probabilities", "classes") if name not in arrays]:
        raise DataError(f"{path}: no array {', '.join(missing)}; {expected}")
    if unknown := [name for name in arrays if name not in (*WORDS, "probabilities", "classes")]:
        raise DataError(f"{path}: unknown array '{unknown[0]}'; {expected}")
    named = [str(name) for name in arrays["classes"].ravel()]
    if sorted(named) != sorted(classes):
        wrong = [name for name in named if name not in classes]
        hint = f"'{wrong[0]}' is none: {did_you_mean(wrong[0], classes)}" if wrong else f"got {len(named)} names"
        raise DataError(f"{path}: classes are not those of the data set, {', '.join(classes)}; {hint}")
    values, rows = arrays["probabilities"], arrays["id"].size
    if values.shape != (rows, len(classes)) or values.dtype.kind not in "fiu":
        raise DataError(
            f"{path}: probabilities are {values.dtype} of shape {values.shape}, expected floats of shape ({rows}, {len(classes)}): a "
            "row an id, a column a class"
        )
    words = {}
    for name in (name for name in WORDS if name in arrays):
        array = arrays[name]
        if array.size not in (1, rows):
            raise DataError(f"{path}: {name} has {array.size} values, expected {rows}, one a row, or one for all")
        words[name] = np.broadcast_to([_text(value) for value in array.ravel().tolist()], (rows,)).astype(object)
    order = [named.index(name) for name in classes]
    return _bounded(Given(words, values[:, order].astype(np.float64), path), most_rows)


FOLD = re.compile(r"(\d{1,6})(\.0*)?")
"""A fold's number, also as a column of floats has it."""


def folds_of(given: Given) -> np.ndarray:
    """(R,) the fold of each row; −1 where there is none.

    Raises:
        DataError: a value is no number.
    """
    texts = given.words.get("fold")
    if texts is None:
        return np.full(len(given), -1)
    known: dict[str, int] = {}
    for text in dict.fromkeys(texts.tolist()):
        found = FOLD.fullmatch(text.strip())
        if text.strip() and not found:
            row = texts.tolist().index(text)
            raise DataError(
                f"{given.where(row)}: fold is '{text[:40]}', expected a number, or nothing of the one split"
            )
        known[text] = int(found[1]) if found else -1
    return np.array([known[text] for text in texts.tolist()])
