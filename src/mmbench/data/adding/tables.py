"""The formats of tables: CSV and its relatives, JSON lines, Parquet; each read whole, or refused with the place of the mistake."""

from __future__ import annotations

import codecs
import csv
import json
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmbench.data.adding.parquet import AT_ONCE, check_width, unpacked_table
from mmbench.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

TABLES = (".csv", ".tsv", ".jsonl", ".parquet")
MOST_BYTES = 1 << 31
"""Of a Parquet file, and of what it unpacks to."""
MOST_TEXT_BYTES = 1 << 29
"""Of a table in a text format."""
MOST_ROWS = 20_000_000
MOST_CELLS = 1 << 28
MOST_CELL = 1 << 24
"""Characters of a cell in a text format."""
MOST_NAME = 255
"""Characters of a column's name."""
LOST = "\udcff"
"""Stands for bytes that are no text, while a file is read; no text can hold it."""

codecs.register_error("mmbench.lost", lambda error: (LOST, error.end))  # type: ignore[attr-defined]


def read_table(path: Path, notes: list[str]) -> tuple[pa.Table, int]:
    """A table, and the number of its first row in messages.

    Raises:
        UsageError: it cannot be read.
    """
    readers = {".csv": read_separated, ".tsv": read_separated, ".jsonl": read_json_lines, ".parquet": read_parquet}
    ending = path.suffix.lower()
    if ending not in readers:
        raise UsageError(f"{str(path)[:300]}: expected a table whose name ends in {', '.join(TABLES)}")
    try:
        size = path.stat().st_size if path.is_file() else None
    except OSError as error:  # its name may be too long
        raise UsageError(f"{str(path)[:300]}: cannot be read ({error.strerror})") from error
    if size is None:
        raise UsageError(f"{path}: there is no such table")
    if size > (most := MOST_BYTES if ending == ".parquet" else MOST_TEXT_BYTES):
        raise UsageError(
            f"{path}: has {size:,} bytes, expected a table of at most {most:,}; keep vectors in .npy files, long texts in Parquet"
        )
    table, first = readers[ending](path, notes)
    check_width(path, table.num_columns)
    names = [name_of(name, number, path, notes) for number, name in enumerate(table.column_names, start=1)]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise UsageError(f"{path}: two columns are called '{twice[0]}', blanks aside; rename one of them")
    return table.rename_columns(names), first


def name_of(given: str, number: int, path: Path, notes: list[str]) -> str:
    """The name of a column: without blanks around it, and without what does not print; one without a name gets one.

    Args:
        given: the name in the file.
        number: of the column, from 1.
        path: of the table.
        notes: get a line where a name is changed.
    """
    if len(given) > MOST_NAME:
        raise UsageError(
            f"{path}: the name of column {number} has {len(given):,} characters, expected at most {MOST_NAME}; is the first row "
            "a header?"
        )
    name = given.strip()
    if not name.isprintable():
        name = " ".join("".join(c if c.isprintable() else " " * c.isspace() for c in name).split())
        notes.append(f"{path}: column {number} is called '{name}' here; its name has characters that do not print")
    return name or f"unnamed_{number}"


def lines_of(path: Path, notes: list[str]) -> Iterator[str]:
    """The lines of a file in UTF-8, or in UTF-16 where its first bytes say so, with a newline at the end of each.

    Bytes that are not in this encoding become U+FFFD; a line of ``notes`` tells how many lines have such.

    Raises:
        UsageError: it cannot be read.
    """
    count = first = 0
    try:
        with path.open("rb") as file:
            encoding = "utf-16" if file.read(2) in (BOM_UTF16_LE, BOM_UTF16_BE) else "utf-8-sig"
        with path.open(encoding=encoding, errors="mmbench.lost") as stream:
            for number, line in enumerate(stream, start=1):
                if not line.isascii() and LOST in line:
                    count, first = count + 1, first or number
                    line = line.replace(LOST, "\ufffd")
                yield line
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
    if count:
        notes.append(
            f"{path}: {count} line{'s' * (count > 1)} with bytes that are not {encoding.removesuffix('-sig').upper()}, read as "
            f"\ufffd; the first is line {first}"
        )


@contextmanager
def long_cells() -> Iterator[None]:
    """Let cells have ``MOST_CELL`` characters while the context lasts; by default the csv module bears 131,072."""
    before = csv.field_size_limit(MOST_CELL)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def read_separated(path: Path, notes: list[str]) -> tuple[pa.Table, int]:
    """A table whose cells are separated by commas, semicolons, tabs or bars: all columns as texts.

    It is read line by line, in this thread: pyarrow's reader of CSV starts threads of its own, and takes a stray quotation mark in
    silence, with the rows up to the next.
    """
    import pyarrow as pa

    lines, skipped, head = lines_of(path, notes), 0, ""
    for head in lines:
        if head.strip():
            break
        skipped += 1
    if not head.strip():
        raise UsageError(f"{path}: it is empty; expected a header and one row a sample")
    delimiter = "\t" if path.suffix.lower() == ".tsv" else delimiter_of(head)
    with long_cells():
        rows = rows_of(path, chain([head], lines), delimiter, skipped, notes)
        header = next(rows)
        schema = pa.schema([(name, pa.string()) for name in header])
        batches, block = [], []
        for row in rows:
            block.append(row)
            if len(block) * len(header) >= AT_ONCE:
                batches.append(batch_of(block, schema))
                block = []
    if block:
        batches.append(batch_of(block, schema))
    return pa.Table.from_batches(batches, schema), 2 + skipped


def batch_of(rows: list[list[str]], schema: pa.Schema) -> pa.RecordBatch:
    """Rows of texts as columns."""
    import pyarrow as pa

    return pa.record_batch([pa.array(cells, pa.string()) for cells in zip(*rows, strict=True)], schema=schema)


def rows_of(path: Path, lines: Iterable[str], delimiter: str, skipped: int, notes: list[str]) -> Iterator[list[str]]:
    """The header, and the rows, which have as many cells; a blank line is a row of empty cells, but for those at the end.

    Args:
        path: of the table.
        lines: of it, from the header on.
        delimiter: what separates cells.
        skipped: how many blank lines are above the header.
        notes: get a line where quotation marks may be stray.

    Raises:
        UsageError: a row has another number of cells than the header, or a quotation mark that is neither closed nor doubled.
    """
    rows = csv.reader(lines, delimiter=delimiter, strict=True)
    width, blank, number, begun, stray = 0, 0, skipped, 1 + skipped, ""
    try:
        for row in rows:
            number += 1
            end = rows.line_num + skipped
            if not width:
                width = len(row)
                check_width(path, width)
            elif not row:
                blank += 1
                begun = end + 1
                continue
            if len(row) != width:
                raise UsageError(
                    f"{path}: row {number} (line {end}) has {len(row)} cells, the header has {width}: {delimiter.join(row)[:80]!r}; "
                    "quote a cell that holds the separator"
                )
            if (count := number - skipped - 1) > MOST_ROWS or count * width > MOST_CELLS:  # blank lines may be many
                raise UsageError(
                    f"{path}: has {count:,} rows of {width:,} columns by line {end}, expected at most {MOST_ROWS:,} rows and "
                    f"{MOST_CELLS:,} cells"
                )
            if end > begun and not stray and holds_rows(row, delimiter):
                stray = f"{path}: row {number} has a cell in quotation marks, over lines {begun} to {end}, that looks like rows"
                notes.append(f"{stray} of its own; double a quotation mark that belongs to the text")
            for _ in range(blank):
                yield [""] * width
            blank = 0
            yield row
            begun = end + 1
    except csv.Error as error:
        raise UsageError(f"{path}: {mistake_of(str(error), begun, rows.line_num + skipped)}") from error


def mistake_of(told: str, begun: int, end: int) -> str:
    """What the csv module found wrong, in words.

    Args:
        told: by it.
        begun: the line in which the row begins.
        end: the line up to which it was read.
    """
    if "end of data" in told:
        return f"a quotation mark is not closed in the row that begins in line {begun}"
    if "expected after" in told:
        return (
            f"a quotation mark in line {end} closes a cell of the row that begins in line {begun}, but text follows; if it belongs to "
            'the text, double it (""), and if the one that opens the cell does, double it and put the cell in quotation marks'
        )
    if "field larger" in told:
        return f"a cell of the row that begins in line {begun} has more than {MOST_CELL:,} characters; is a quotation mark not closed?"
    return f"the row that begins in line {begun}: {told}"


def holds_rows(row: list[str], delimiter: str) -> bool:
    """Whether a cell of several lines looks like what a stray quotation mark swallows: the rest of a row, and rows.

    Separators before a blank are those of a text.
    """
    for column, cell in enumerate(row):
        first, *others = cell.split("\n")
        expected = [len(row) - 1] * (len(others) - 1) + [column]
        if others and delimiter not in first and sum(expected):
            counts = [line.count(delimiter) for line in others]
            if counts == expected and not any(delimiter + " " in line for line in others):
                return True
    return False


def delimiter_of(line: str) -> str:
    """What separates the cells of the first line: of four candidates, the one that is in it most often, outside quotation marks."""
    outside = "".join(line.split('"')[::2])
    counts = {candidate: outside.count(candidate) for candidate in ",;\t|"}
    return max(counts, key=lambda candidate: counts[candidate])


def read_json_lines(path: Path, notes: list[str]) -> tuple[pa.Table, int]:
    """A table of one JSON object a line."""
    import pyarrow as pa

    columns: dict[str, list[Any]] = {}
    count = 0
    for line, text in enumerate(lines_of(path, notes), start=1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
            if "\\u" in text:  # halves of characters
                json.dumps(row, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:
            raise UsageError(
                f"{path}, line {line}: expected a JSON object, got {text.strip()[:80]!r} ({str(error)[:200]})"
            ) from error
        if not isinstance(row, dict):
            raise UsageError(f"{path}, line {line}: expected a JSON object, got {text.strip()[:80]!r}")
        for name, value in row.items():
            column = columns.setdefault(name, [])
            column.extend([None] * (count - len(column)))
            column.append(value)
        count += 1
        check_width(path, len(columns))
        if count > MOST_ROWS or count * len(columns) > MOST_CELLS:
            raise UsageError(
                f"{path}, line {line}: {count:,} rows of {len(columns):,} keys by here, expected at most {MOST_ROWS:,} rows and "
                f"{MOST_CELLS:,} cells"
            )
    for name, column in columns.items():
        column.extend([None] * (count - len(column)))
        try:
            columns[name] = column_of(column)
        except (pa.ArrowException, OverflowError, RecursionError) as error:
            large = [row for row, value in enumerate(column, start=1) if type(value) is int and abs(value) >= 1 << 53]
            where = f"{path}, row {large[0]}" if large else str(path)
            raise UsageError(
                f"{where}, column {name[:60]!r}: holds what no table can ({str(error)[:200]}); write a number of so many digits as text"
            ) from error
    return pa.table(columns), 1


def column_of(found: list[Any]) -> pa.Array:
    """The values of a column of JSON as the narrowest type that all of them have; else as texts."""
    import pyarrow as pa

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
    return unpacked_table(path, MOST_BYTES, MOST_ROWS), 1
