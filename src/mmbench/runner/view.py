"""What a run shows: a live grid in a terminal, a line a trial elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mmbench.record import Record
from mmbench.trial import Trial


class GridView:
    """Progress of a grid: trials finished, running, elapsed and remaining time.

    Args:
        total: trials to run.
        console: where to; a terminal gets a live view, anything else one line a trial.
    """

    def __init__(self, total: int, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self.total = total
        self.ended = 0
        self.began = time.monotonic()
        self.live = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
            speed_estimate_period=24 * 3600,
        )
        self.bar = self.live.add_task("trials", total=total)
        self.rows: dict[str, tuple[object, float]] = {}

    def __enter__(self) -> GridView:
        self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.live.stop()

    def started(self, trial: Trial) -> None:
        """Add a row for the trial."""
        task = self.live.add_task(f"  {trial.label}", total=None)
        self.rows[trial.key] = (task, time.monotonic())

    def retried(self, trial: Trial, reason: str) -> None:
        """Say that the trial starts again."""
        self._drop(trial)
        self.console.print(f"again {trial.label}: {reason}", markup=False)

    def finished(self, trial: Trial, record: Record) -> None:
        """Say how the trial ended."""
        seconds = self._drop(trial)
        self.ended += 1
        self.live.update(self.bar, completed=self.ended)
        elapsed = time.monotonic() - self.began
        left = elapsed / self.ended * (self.total - self.ended)
        if record.status == "done":
            outcome = f"{list(record.metrics.values())[-1]['accuracy']:5.1f} %"
        else:
            outcome = f"FAILED {record.failure.message if record.failure else ''} (mmbench show {record.key})"
        times = "" if self.console.is_terminal else f", {clock(elapsed)} elapsed, about {clock(left)} left"
        width = len(str(self.total))
        self.console.print(
            f"[{self.ended:{width}}/{self.total}] {trial.label}: {outcome}  ({seconds:.1f} s{times})", markup=False
        )

    def _drop(self, trial: Trial) -> float:
        task, began = self.rows.pop(trial.key)
        self.live.remove_task(task)  # type: ignore[arg-type]
        return time.monotonic() - began


def clock(seconds: float) -> str:
    """Minutes and seconds.

    >>> clock(75)
    '1:15'
    """
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
