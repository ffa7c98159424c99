"""Tables of samples, as people have them: CSV and its relatives, JSON lines, Parquet; read whole, or refused with the place."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmbench.data.adding.tables import TABLES, read_table
from mmbench.data.preparing.lists import within
from mmbench.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

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
            try:
                found = values.to_pylist()
            except (OverflowError, ValueError) as error:  # a time beyond those that Python knows
                if pa.types.is_nested(values.type):
                    raise UsageError(
                        f"{self.tables}: column '{column}' holds values that cannot be read ({error}); leave it out"
                    ) from error
                found = values.cast(pa.string()).to_pylist()
            return [as_text(value) for value in found]
        return [value.strip() for value in values.to_pylist()]

    def numbers(self, column: str) -> np.ndarray:
        """A column as (N,) float64; NaN where a cell is empty.

        Raises:
            UsageError: a cell is no finite number.
        """
        import pyarrow as pa

        values = self.table.column(column)
        if pa.types.is_integer(values.type) or pa.types.is_floating(values.type) or pa.types.is_boolean(values.type):
            given = values.to_pandas(use_threads=False).to_numpy(np.float64, na_value=np.nan)
            empty = np.asarray(values.is_null(nan_is_null=True))
        else:
            texts = self.texts(column)
            given, empty = np.full(len(texts), np.nan), np.array([not text for text in texts], bool)
            for row, text in enumerate(texts):
                if text:
                    given[row] = number(text)
        if wrong := np.flatnonzero(~np.isfinite(given) & ~empty).tolist():
            got = as_text(values[wrong[0]].as_py())
            comma = "write 12.5 for 12,5, and " if re.fullmatch(r"[+-]?\d+,\d+", got) else ""
            raise UsageError(
                f"{self.where(wrong[0], column)}: expected a number, got {got[:40]!r} ({len(wrong)} cells of the column are none); "
                f"{comma}leave the cell empty where there is no value"
            )
        return given

    @cached_property
    def frame(self) -> pd.DataFrame:
        """All columns as texts; "" where a cell is empty."""
        import pandas as pd

        return pd.DataFrame({name: pd.Series(self.texts(name), dtype=object) for name in self.columns})


def as_text(value: Any) -> str:
    """A value of a table as a CSV file would have it: "" where there is none."""
    if value is None or value != value:
        return ""
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
    if any((folder / name).is_file() for name in ("dataset_dict.json", "state.json")):
        raise UsageError(
            f"{folder} is what dataset.save_to_disk(DIR) wrote; add it with --hf: mmbench data add --hf {folder}"
        )
    raise UsageError(
        f"{folder} has no table of samples; expected {expected_tables()}: one row a sample, with its label"
    )


def has_table(folder: Path) -> bool:
    """Whether a folder, or that of a split below it, has a table of samples."""
    return any(tables_in(place) for place in (folder, *(folder / s for s in SPLIT_FOLDERS)) if place.is_dir())


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
