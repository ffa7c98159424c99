"""What a run shows: a live grid in a terminal, a line a trial elsewhere."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from mmbench.protocol import SELECTION_METRIC
from mmbench.record import Record
from mmbench.trial import Trial


class Count(ProgressColumn):
    """How far a row is: trials of the grid, or the epochs that the log of a running trial tells of."""

    max_refresh = 1.0

    def render(self, task: Task) -> Text:
        """``3/8``, or ``epoch 12/30``."""
        log: Path | None = task.fields.get("log")
        if log is None:
            return Text(f"{int(task.completed)}/{int(task.total or 0)}")
        return Text(f"epoch {epochs_done(log)}/{task.fields['epochs']}")


def epochs_done(log: Path) -> int:
    """How many epochs a trial has finished, by the last lines of its log."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - 8192))
            found = re.findall(rb"^epoch (\d+) ", file.read(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[-1]) + 1 if found else 0


class GridView:
    """Progress of a grid: trials finished, running, elapsed and remaining time.

    Args:
        total: trials of the grid.
        done: how many of them were done before.
        log: the key of a trial -> its log, of which a live view tells the epoch.
        console: where to; a terminal gets a live view, anything else one line a trial.
        describe: what to call a trial.
    """

    def __init__(
        self,
        total: int,
        done: int = 0,
        log: Callable[[str], Path] | None = None,
        console: Console | None = None,
        describe: Callable[[Trial], str] = lambda trial: trial.label,
    ) -> None:
        self.describe = describe
        self.console = console or Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)
        self.total = total
        self.before = self.ended = done
        self.log = log
        self.began = time.monotonic()
        self.live = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            Count(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
            speed_estimate_period=24 * 3600,
        )
        self.bar = self.live.add_task("trials", total=total, completed=done)
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
        log = self.log(trial.key) if self.log else None
        task = self.live.add_task(f"  {self.describe(trial)}", total=None, log=log, epochs=trial.recipe.epochs)
        self.rows[trial.key] = (task, time.monotonic())

    def retried(self, trial: Trial, reason: str) -> None:
        """Say that the trial starts again."""
        self._drop(trial)
        self.console.print(f"again {self.describe(trial)}: {reason}", markup=False)

    def finished(self, trial: Trial, record: Record) -> None:
        """Say how the trial ended."""
        seconds = self._drop(trial)
        self.ended += 1
        self.live.update(self.bar, completed=self.ended)
        elapsed = time.monotonic() - self.began
        left = elapsed / (self.ended - self.before) * (self.total - self.ended)
        if record.status == "done" and trial.tuning:
            outcome = f"{100 * max(row[SELECTION_METRIC] for row in record.curves):5.1f} % in validation"
        elif record.status == "done":
            outcome = f"{list(record.metrics.values())[-1]['accuracy']:5.1f} %"
            if trial.missing is not None:  # tables show the accuracy at the rate of training, which is not this one
                outcome += " with nothing missing in the test"
        else:
            outcome = f"FAILED {record.failure.message if record.failure else ''} (mmbench show {record.key})"
        times = "" if self.console.is_terminal else f", {clock(elapsed)} elapsed, about {clock(left)} left"
        width = len(str(self.total))
        self.console.print(
            f"[{self.ended:{width}}/{self.total}] {self.describe(trial)}: {outcome}  ({seconds:.1f} s{times})",
            markup=False,
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
