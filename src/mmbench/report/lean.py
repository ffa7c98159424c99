"""A store whose records are small once they are read: a report has all of an experiment's at hand at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, overload

import numpy as np

from mmbench.record import Code, Record
from mmbench.store import Store

Row = dict[str, float]


class Curves(Sequence[Row]):
    """A record's curves as an array: a tenth of the memory, and the same rows.

    Args:
        rows: one an epoch; they may differ in what they have.
        known: names of columns of other curves, which are then shared.
    """

    def __init__(self, rows: Sequence[Row], known: dict[tuple[str, ...], dict[str, int]]) -> None:
        names = tuple(dict.fromkeys(name for row in rows for name in row))
        self._place = known.setdefault(names, {name: i for i, name in enumerate(names)})
        self._values = np.array([[row.get(name, np.nan) for name in names] for row in rows], float).reshape(
            len(rows), len(names)
        )
        gaps = [(i, name) for i, row in enumerate(rows) if len(row) < len(names) for name in names if name not in row]
        self._gaps = frozenset(gaps)

    def column(self, name: str) -> list[float]:
        """A quantity by epoch, NaN where there is none."""
        place = self._place.get(name)
        return [np.nan] * len(self) if place is None else self._values[:, place].tolist()

    def rows_with(self, names: Sequence[str]) -> list[list[float]]:
        """Quantities by epoch, of those epochs that have all of them."""
        if not all(name in self._place for name in names):
            return []
        rows = self._values[:, [self._place[name] for name in names]].tolist()
        return [row for i, row in enumerate(rows) if not any((i, name) in self._gaps for name in names)]

    def __len__(self) -> int:
        return len(self._values)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        """The row of an epoch."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        row = zip(self._place, self._values[number].tolist(), strict=True)
        return {name: value for name, value in row if not self._gaps or (number, name) not in self._gaps}

    def __iter__(self) -> Iterator[Row]:
        return (self[i] for i in range(len(self)))


def column(record: Record, name: str) -> list[float]:
    """A quantity of a record's curves by epoch, NaN where there is none."""
    if isinstance(record.curves, Curves):
        return record.curves.column(name)
    return [row.get(name, np.nan) for row in record.curves]


def rows_with(record: Record, names: Sequence[str]) -> list[list[float]]:
    """Quantities of a record's curves by epoch, of those epochs that have all of them."""
    if isinstance(record.curves, Curves):
        return record.curves.rows_with(names)
    return [[row[name] for name in names] for row in record.curves if all(name in row for name in names)]


class Lean(Store):
    """A store to read from: records share what is equal in them, and have their curves as arrays."""

    @cached_property
    def _shared(self) -> dict[str, Any]:
        return {}

    @cached_property
    def _names(self) -> dict[tuple[str, ...], dict[str, int]]:
        return {}

    def record(self, key: str) -> Record | None:
        """As of any store."""
        record = super().record(key)
        if record is not None:
            code: Code | None = record.code
            record.environment = self._shared.setdefault(repr(record.environment), record.environment)
            record.code = code and self._shared.setdefault(code.model_dump_json(), code)
            record.curves = Curves(record.curves, self._names)  # type: ignore[assignment]  # which it stands for
            given = (
                record.model_fields_set
            )  # pydantic's note of what was given takes 2 kB a record, and is the same of most
            record.__pydantic_fields_set__ = self._shared.setdefault(repr(sorted(given)), given)
        return record
