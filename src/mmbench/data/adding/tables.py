"""The formats of tables: CSV and its relatives, JSON lines, Parquet; each read whole, or refused with the place of the mistake."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmbench.data.preparing.lists import read_text
from mmbench.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

TABLES = (".csv", ".tsv", ".jsonl", ".parquet")
MOST_BYTES = 1 << 32
"""Of a table's file, and of what it unpacks to."""
MOST_ROWS = 20_000_000
MOST_COLUMNS = 100_000


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
