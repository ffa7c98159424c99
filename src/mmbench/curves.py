"""The metrics of each epoch, for a trial's record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from mmbench.lightning import Logger


def told(rows: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Rows of metrics as a state has them: their values in a tensor, and their names once, since there may be 100,000 rows."""
    kinds: dict[tuple[str, ...], int] = {}
    return {
        "of": torch.tensor([kinds.setdefault(tuple(row), len(kinds)) for row in rows], dtype=torch.int64),
        "values": torch.tensor([value for row in rows for value in row.values()], dtype=torch.float64),
        "kinds": [list(names) for names in kinds],
    }


def rows_of(state: Mapping[str, Any]) -> list[dict[str, float]]:
    """The rows that ``told`` was given, with their names in the same order.

    >>> rows_of(told([{"loss": 0.5}, {}, {"rate": 0.25, "loss": 0.125}]))
    [{'loss': 0.5}, {}, {'rate': 0.25, 'loss': 0.125}]
    """
    values = iter(state["values"].tolist())
    return [{name: next(values) for name in state["kinds"][kind]} for kind in state["of"].tolist()]


class CurveLogger(Logger):
    """Keeps one row of metrics an epoch, for the record, and prints it, for the log."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict[str, float]] = []

    @property
    def name(self) -> str:
        """Lightning asks for one."""
        return "curves"

    @property
    def version(self) -> str:
        """Lightning asks for one."""
        return ""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: the record holds the trial."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add metrics to the row of their epoch."""
        values = dict(metrics)
        epoch = int(values.pop("epoch"))
        while len(self.rows) <= epoch:
            self.rows.append({})
        self.rows[epoch].update(values)
        if "train/loss" in values:  # Lightning's last word on an epoch
            print(f"epoch {epoch}", *(f"{name} {value:.4f}" for name, value in self.rows[epoch].items()), flush=True)
