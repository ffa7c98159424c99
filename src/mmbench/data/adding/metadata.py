"""Tables of samples, as people have them: CSV and its relatives, JSON lines, Parquet; read whole, or refused with the place."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmbench.data.preparing.lists import read_text, within
from mmbench.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

TABLES = (".csv", ".tsv", ".jsonl", ".parquet")
MOST_BYTES = 1 << 32
"""Of a table's file, and of what it unpacks to."""
MOST_ROWS = 20_000_000
MOST_COLUMNS = 100_000
SPLIT_FOLDERS = ("train", "training", "validation", "valid", "val", "dev", "test", "testing", "eval", "evaluation")


@dataclass
class Metadata:
    """The tables of a data set, one after the other.

    Attributes:
        root: the folder of the data set.
        paths: of the tables, below it.
        lengths: their rows.
        first: the number of the first row in messages: 2 where there is a header.
        table: the columns; texts where the file has texts, else numbers or lists of numbers.
        notes: what the user should know.
    """

    root: Path
    paths: list[str]
    lengths: list[int]
    first: list[int]
    table: pa.Table
    notes: list[str]

    def __len__(self) -> int:
        return self.table.num_rows

    @property
    def columns(self) -> list[str]:
        """The names of the columns."""
        return self.table.column_names

    def where(self, row: int, column: str = "") -> str:
        """Where a cell is, for messages; rows are counted as a spreadsheet does, from 0 here."""
        for path, length, first in zip(self.paths, self.lengths, self.first, strict=True):
            if row < length:
                return f"{self.root / path}, row {row + first}" + (f", column '{column}'" if column else "")
            row -= length
        raise IndexError(row)

    @cached_property
    def folders(self) -> list[str]:
        """Of each row, the folder that its paths are relative to, below the root; "" is the root itself."""
        folders = (str(Path(path).parent) for path in self.paths)
        return [
            "" if folder == "." else folder
            for folder, length in zip(folders, self.lengths, strict=True)
            for _ in range(length)
        ]

    def need(self, column: str, key: str) -> str:
        """The column, if there is one of this name.

        Raises:
            UsageError: there is none; ``key`` says what of the declaration names it.
        """
        if column not in self.columns:
            raise UsageError(f"{key}: {self.tables} has no column '{column}'; {did_you_mean(column, self.columns)}")
        return column

    @property
    def tables(self) -> str:
        """The tables, in words."""
        return ", ".join(str(self.root / path) for path in self.paths)

    def texts(self, column: str) -> list[str]:
        """A column as texts without blanks around them; "" where a cell is empty."""
        import pyarrow as pa

        values = self.table.column(column)
        if not pa.types.is_string(values.type):
            return ["" if value is None else as_text(value) for value in values.to_pylist()]
        return [value.strip() for value in values.to_pylist()]

    def numbers(self, column: str) -> np.ndarray:
        """A column as (N,) float64; NaN where a cell is empty.

        Raises:
            UsageError: a cell is no finite number.
        """
        import pyarrow as pa

        values = self.table.column(column)
        if pa.types.is_integer(values.type) or pa.types.is_floating(values.type) or pa.types.is_boolean(values.type):
            given = values.to_pandas().to_numpy(np.float64, na_value=np.nan)
            empty = np.asarray(values.is_null(nan_is_null=True))
        else:
            texts = self.texts(column)
            given, empty = np.full(len(texts), np.nan), np.array([not text for text in texts], bool)
            for row, text in enumerate(texts):
                if text:
                    given[row] = number(text)
        if wrong := np.flatnonzero(~np.isfinite(given) & ~empty).tolist():
            got = as_text(values[wrong[0]].as_py())
            raise UsageError(
                f"{self.where(wrong[0], column)}: expected a number, got {got[:40]!r} ({len(wrong)} cells of the column are none); "
                "leave the cell empty where there is no value"
            )
        return given

    @cached_property
    def frame(self) -> pd.DataFrame:
        """All columns as texts; "" where a cell is empty."""
        import pandas as pd

        return pd.DataFrame({name: pd.Series(self.texts(name), dtype=object) for name in self.columns})


def as_text(value: Any) -> str:
    """A value of a table as a CSV file would have it."""
    return value.strip() if isinstance(value, str) else str(value)


def number(text: str) -> float:
    """The number that a text is; NaN if it is none. Commas are no decimal points, and underscores no digits."""
    try:
        return float(text) if "_" not in text else np.nan
    except ValueError:
        return np.nan


def find_tables(folder: Path) -> list[str]:
    """The tables of a folder: its ``metadata`` file, its only table, or one in each folder of a split.

    Raises:
        UsageError: there is none, or more than one that could be meant.
    """
    if folder.is_file() and folder.suffix.lower() in TABLES:
        return [folder.name]
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder; expected one with a table of samples ({expected_tables()})")
    here = tables_in(folder)
    if len(named := [name for name in here if Path(name).stem.lower() == "metadata"]) == 1:
        return named
    if len(named) > 1:
        raise UsageError(f"{folder} has {' and '.join(named)}; expected one of them, or name it with --metadata FILE")
    below = {name: tables_in(folder / name) for name in SPLIT_FOLDERS if (folder / name).is_dir()}
    found = {name: [t for t in tables if Path(t).stem.lower() == "metadata"] for name, tables in below.items()}
    if any(found.values()):
        if lacking := [name for name, tables in found.items() if len(tables) != 1]:
            raise UsageError(
                f"{folder / lacking[0]}: expected one table, metadata.csv, as in the other splits' folders"
            )
        return [f"{name}/{tables[0]}" for name, tables in found.items()]
    if len(here) == 1:
        return here
    if here:
        raise UsageError(
            f"{folder} has the tables {', '.join(here)}; call the one of the samples metadata{Path(here[0]).suffix}, or name it with "
            "--metadata FILE"
        )
    raise UsageError(
        f"{folder} has no table of samples; expected {expected_tables()}: one row a sample, with its label"
    )


def expected_tables() -> str:
    """What is looked for, in words."""
    return "metadata" + ", ".join(TABLES[:-1]) + f" or {TABLES[-1]}"


def tables_in(folder: Path) -> list[str]:
    """The names of the tables in a folder, without what systems leave behind."""
    return sorted(
        p.name
        for p in folder.iterdir()
        if p.suffix.lower() in TABLES and not p.name.startswith((".", "~")) and p.is_file()
    )


def read_metadata(root: Path, paths: Sequence[str]) -> Metadata:
    """Read the tables of a data set.

    Args:
        root: its folder.
        paths: of the tables, below it.

    Raises:
        UsageError: a table cannot be read, has no rows, or the tables' columns differ.
    """
    import pyarrow as pa

    notes: list[str] = []
    tables, first = [], []
    for path in paths:
        table, start = read_table(within(root, path), notes)
        tables.append(table)
        first.append(start)
    for path, table in zip(paths[1:], tables[1:], strict=True):
        if other := sorted(set(table.column_names) ^ set(tables[0].column_names)):
            raise UsageError(
                f"{root / path}: its columns differ from those of {root / paths[0]}: {', '.join(other[:10])}"
            )
    try:
        whole = pa.concat_tables(tables, promote_options="permissive") if len(tables) > 1 else tables[0]
    except pa.ArrowException as error:
        raise UsageError(f"{root}: the columns of {', '.join(paths)} are of different types: {error}") from error
    if not len(whole):
        raise UsageError(f"{', '.join(str(root / path) for path in paths)}: no row; expected one a sample")
    return Metadata(root, list(paths), [table.num_rows for table in tables], first, whole, notes)


def read_table(path: Path, notes: list[str]) -> tuple[pa.Table, int]:
    """A table, and the number of its first row in messages.

    Raises:
        UsageError: it cannot be read.
    """
    if not path.is_file():
        raise UsageError(f"{path}: there is no such table")
    if (size := path.stat().st_size) > MOST_BYTES:
        raise UsageError(
            f"{path}: has {size:,} bytes, expected a table of at most {MOST_BYTES:,}; keep vectors in .npy files"
        )
    readers = {".csv": read_separated, ".tsv": read_separated, ".jsonl": read_json_lines, ".parquet": read_parquet}
    table, first = readers[path.suffix.lower()](path, notes)
    names = [str(name).strip() for name in table.column_names]
    if len(names) > MOST_COLUMNS:
        raise UsageError(
            f"{path}: has {len(names):,} columns, expected at most {MOST_COLUMNS:,}; keep vectors in .npy files"
        )
    names = [name or f"unnamed_{number}" for number, name in enumerate(names, start=1)]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise UsageError(f"{path}: two columns are called '{twice[0]}', blanks aside; rename one of them")
    return table.rename_columns(names), first


def read_separated(path: Path, notes: list[str]) -> tuple[pa.Table, int]:
    """A table whose cells are separated by commas, semicolons, tabs or bars: all columns as texts."""
    import pyarrow as pa
    from pyarrow import csv as arrow

    text = read_text(path, notes).lstrip("\n")
    if not text.strip():
        raise UsageError(f"{path}: it is empty; expected a header and one row a sample")
    delimiter = "\t" if path.suffix.lower() == ".tsv" else delimiter_of(text)
    if text.count('"') % 2:
        raise UsageError(f"{path}: a quotation mark is not closed{unclosed(text, delimiter)}")
    header = next(csv.reader(io.StringIO(text), delimiter=delimiter))
    while text.endswith("\n\n"):
        text = text[:-1]
    try:
        table = arrow.read_csv(
            io.BytesIO(text.encode()),
            read_options=arrow.ReadOptions(
                column_names=[str(i) for i in range(len(header))], skip_rows=0, block_size=1 << 26
            ),
            parse_options=arrow.ParseOptions(delimiter=delimiter, newlines_in_values=True, ignore_empty_lines=False),
            convert_options=arrow.ConvertOptions(
                column_types={str(i): pa.string() for i in range(len(header))}, strings_can_be_null=False
            ),
        )
    except pa.ArrowException as error:
        raise UsageError(f"{path}: {mistake_of(text, delimiter, len(header)) or str(error)[:200]}") from error
    if len(table) > MOST_ROWS:
        raise UsageError(f"{path}: has {len(table):,} rows, expected at most {MOST_ROWS:,}")
    return table.slice(1).rename_columns(unique(header)), 2


def unique(names: Sequence[str]) -> list[str]:
    """Names of columns; of several without a name, each gets one, so that only real doubles are refused."""
    return [name.strip() or f"unnamed_{number}" for number, name in enumerate(names, start=1)]


def delimiter_of(text: str) -> str:
    """What separates the cells of the first line: of four candidates, the one that is in it most often, outside quotation marks."""
    line = text.partition("\n")[0]
    outside = "".join(line.split('"')[::2])
    counts = {candidate: outside.count(candidate) for candidate in ",;\t|"}
    return max(counts, key=lambda candidate: counts[candidate])


def unclosed(text: str, delimiter: str) -> str:
    """Where a quotation mark that is not closed was opened, as the end of a sentence."""
    rows = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True)
    begun = 1
    try:
        for _ in rows:
            begun = rows.line_num + 1
    except csv.Error:
        return f" in the row that begins in line {begun}"
    return ""


def mistake_of(text: str, delimiter: str, columns: int) -> str:
    """Which row has another number of cells than the header; "" if none has."""
    rows = csv.reader(io.StringIO(text), delimiter=delimiter)
    for count, row in enumerate(rows, start=1):
        if row and len(row) != columns:
            return (
                f"row {count} (line {rows.line_num}) has {len(row)} cells, the header has {columns}: {delimiter.join(row)[:80]!r}; "
                "quote a cell that holds the separator"
            )
    return ""


def read_json_lines(path: Path, notes: list[str]) -> tuple[pa.Table, int]:
    """A table of one JSON object a line."""
    import pyarrow as pa

    rows: list[dict[str, Any]] = []
    names: dict[str, None] = {}
    for line, text in enumerate(read_text(path, notes).split("\n"), start=1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{path}, line {line}: expected a JSON object, got {text[:80]!r} ({error})") from error
        if not isinstance(row, dict):
            raise UsageError(f"{path}, line {line}: expected a JSON object, got {text[:80]!r}")
        rows.append(row)
        names.update(dict.fromkeys(row))
    try:
        return pa.table({name: column_of(row.get(name) for row in rows) for name in names}), 1
    except (pa.ArrowException, OverflowError) as error:
        raise UsageError(f"{path}: a column holds what no table can: {error}") from error


def column_of(values: Iterable[Any]) -> pa.Array:
    """The values of a column of JSON as the narrowest type that all of them have; else as texts."""
    import pyarrow as pa

    found = list(values)
    kinds = {type(value) for value in found} - {type(None)}
    if kinds <= {int, float} or kinds <= {bool}:
        return pa.array(found)
    if kinds == {list} and all(type(x) in (int, float) for value in found if value for x in value):
        return pa.array(found, pa.list_(pa.float64()))
    return pa.array(
        ["" if v is None else v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for v in found]
    )


def read_parquet(path: Path, notes: list[str]) -> tuple[pa.Table, int]:
    """A table of a Parquet file."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            head = file.metadata
            size = sum(head.row_group(i).total_byte_size for i in range(head.num_row_groups))
            if size > MOST_BYTES or head.num_rows > MOST_ROWS:
                raise UsageError(
                    f"{path}: has {head.num_rows:,} rows of {size:,} bytes in all, expected at most {MOST_ROWS:,} and {MOST_BYTES:,}"
                )
            table = file.read()
    except UsageError:
        raise
    except Exception as error:  # of a damaged file, pyarrow's errors are of many kinds
        raise UsageError(f"{path}: not a readable Parquet file ({str(error)[:200]})") from error
    return pa.table({name: plain_column(table.column(name)) for name in table.column_names}), 1


def plain_column(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column as texts, numbers or lists of numbers, where it is any of these in another clothing."""
    import pyarrow as pa

    kind = values.type
    if pa.types.is_dictionary(kind):
        values = values.cast(kind.value_type)
        kind = values.type
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return values.cast(pa.string()).fill_null("")
    if pa.types.is_string(kind):
        return values.fill_null("")
    if pa.types.is_decimal(kind):
        return values.cast(pa.float64())
    return values
