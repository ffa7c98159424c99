"""CSV files that people write: their lines, with errors that say file, line, column, what was got and what is expected."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mmbench.errors import DataError, did_you_mean


@dataclass(frozen=True)
class Line:
    """A line of a file, whose cells are checked as they are asked for."""

    path: Path
    number: int
    cells: Mapping[str, str]

    def error(self, column: str, expected: str) -> DataError:
        """That a cell is not what it has to be."""
        where = f"{self.path}, line {self.number}, column {column}"
        return DataError(f"{where}: got '{self.cells[column]}', expected {expected}")

    def text(self, column: str) -> str:
        """A cell that may not be empty."""
        if not self.cells[column]:
            raise self.error(column, "a text")
        return self.cells[column]

    def one_of(self, column: str, known: Iterable[str]) -> str:
        """A cell that has one of a few values."""
        known = list(known)
        if self.cells[column] not in known:
            raise self.error(column, f"a known name; {did_you_mean(self.cells[column], known)}")
        return self.cells[column]

    def name(self, column: str, text: str) -> str:
        """The name of a method or a paper, in a cell."""
        if not re.fullmatch(r"[a-z][a-z0-9_]*", text):
            raise self.error(column, "a name of lower-case letters, digits and underscores, such as ogm_ge")
        return text

    def between(self, column: str, low: float, high: float, what: str) -> float:
        """A cell with a number."""
        try:
            value = float(self.cells[column])
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise self.error(column, what)
        return value

    def optional(self, column: str, low: float, high: float, what: str) -> float | None:
        """A cell with a number, or nothing."""
        return self.between(column, low, high, f"{what}, or nothing") if self.cells[column] else None


def lines_of(path: Path, columns: tuple[str, ...]) -> list[Line]:
    """The lines of a file, below its header.

    Raises:
        DataError: it is not there or no CSV file in UTF-8, has other columns, or a line that has not as many cells.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            rows = [(reader.line_num, cells) for cells in reader if cells]
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path} is no CSV file in UTF-8: {error}") from error
    if tuple(header) != columns:
        raise DataError(f"{path}, line 1: got the columns {', '.join(header) or 'none'}, expected {', '.join(columns)}")
    for number, cells in rows:
        if len(cells) != len(columns):
            told = f"got {len(cells)} cells, expected {len(columns)}; a text with a comma stands in double quotes"
            raise DataError(f"{path}, line {number}: {told}")
    return [Line(path, n, dict(zip(columns, (cell.strip() for cell in cells), strict=True))) for n, cells in rows]
