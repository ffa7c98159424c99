"""The metrics of each epoch, for a trial's record."""

from __future__ import annotations

from typing import Any

from mmbench.lightning import Logger


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
