"""What a run shows of its progress: a live grid in a terminal, a line a minute elsewhere."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from rich.console import Console, ConsoleOptions
from rich.measure import Measurement
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from mmbench.errors import counted
from mmbench.protocol import SELECTION_METRIC
from mmbench.record import Record
from mmbench.runner import forecast
from mmbench.runner.forecast import Forecast, Kind
from mmbench.trial import Trial

TAIL = 32 * 1024
"""Bytes of a log's end that are read; an epoch's line has all its metrics."""
LIVE_SECONDS, LINE_SECONDS = 1.0, 60.0
"""How often a live view is brought up to date, and how often a line is printed where there is none."""


@dataclass
class Running:
    """A trial that runs, as far as its log tells.

    Attributes:
        trial: which.
        kind: how long such trials take.
        began: when, on the monotonic clock.
        task: its row.
        cold: it waits for the first imports, so that its time says little of others'.
        log: its log, if there is one to read.
        changed: when the log was written to; at first what an earlier run of the trial left.
        epochs: how many have ended.
        measured: seconds until the last of these was seen.
        metrics: of that epoch.
        old: how many the log told of when the process began, of one before it.
        before: how many of the epochs were that one's.
        begun: its process has written to the log; until then it, or what is to start it, is still coming up.
    """

    trial: Trial
    kind: Kind
    began: float
    task: TaskID
    cold: bool
    log: Path | None = None
    changed: int = 0
    epochs: int = 0
    measured: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)
    old: int = 0
    before: int = 0
    begun: bool = True

    def look(self, now: float) -> forecast.Progress:
        """Read what its log says by now."""
        written = last_write(self.log)
        if self.log is not None and written != self.changed:
            self.changed, self.begun = written, True
            epochs, metrics = last_epoch(self.log)
            if epochs not in (self.epochs, self.old):
                self.before, self.old = (epochs - 1 if self.old else self.before), 0
                self.epochs, self.metrics, self.measured = epochs, metrics, now - self.began
        earlier = self.before * self.measured / max(1, self.epochs - self.before)  # seconds that those epochs took
        return forecast.Progress(self.kind, now - self.began + earlier, self.epochs, self.measured + earlier)

    @property
    def words(self) -> str:
        """``epoch 12/30  loss 0.812  val 46.2 %``; accuracies are those with every modality that is there."""
        if not self.begun:
            return "starts"
        told = [f"epoch {self.epochs}/{self.trial.recipe.epochs}"]
        if (loss := self.metrics.get("train/loss")) is not None:
            told.append(f"loss {loss:.3g}")
        if (accuracy := self.metrics.get(SELECTION_METRIC)) is not None:
            told.append(f"val {100 * accuracy:.1f} %")
        return "  ".join(told)


@dataclass
class Label:
    """A name of which a narrow terminal shows the end, by which trials differ."""

    name: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        width = options.max_width
        yield Text(self.name if len(self.name) <= width else f"…{self.name[len(self.name) - width + 1 :]}", end="")

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(min(10, len(self.name)), len(self.name))


class Labels(ProgressColumn):
    """The names of rows; it has the room that other columns leave."""

    def render(self, task: Task) -> Label:
        """The name of a row."""
        return Label(task.description)


class GridView:
    """Progress of a run: which trials have ended, which are running and how far they are, and the time that is left.

    A terminal has all of this live, and a line for each trial that ends. Elsewhere there is a line a minute, one for each trial that
    took a minute or more, and at the end a last one. Failures have a line everywhere, at once.

    Args:
        slots: how many trials run at a time.
        log: the key of a trial -> its log.
        console: where to.
        describe: what to call a trial.
    """

    def __init__(
        self,
        slots: int = 1,
        log: Callable[[str], Path] | None = None,
        console: Console | None = None,
        describe: Callable[[Trial], str] = lambda trial: trial.label,
    ) -> None:
        self.console = console or Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)
        self.slots, self.log, self.describe = slots, log, describe
        self.forecast = Forecast()
        self.waiting: dict[str, Kind] = {}
        self.later: list[Kind] = []
        self.rows: dict[str, Running] = {}
        self.others: set[str] = set()  # trials that other runners are at
        self.starts = self.ended = self.failed = self.foreign = 0
        self.began = time.monotonic()
        self.due = self.began + self.pause
        self.live = Progress(
            Labels(Column(ratio=1, no_wrap=True)),
            BarColumn(bar_width=10),
            TextColumn("{task.fields[words]}", markup=False),
            TextColumn("{task.fields[left]}", markup=False, justify="right"),
            console=self.console,
            expand=True,
            disable=not self.console.is_terminal,
        )
        self.bar = self.live.add_task("", total=0, words="", left="")

    @property
    def pause(self) -> float:
        """Seconds between two looks."""
        return LIVE_SECONDS if self.console.is_terminal else LINE_SECONDS

    def plan(
        self, todo: Sequence[Trial], done: Iterable[tuple[Trial, float]] = (), later: Sequence[Trial] = ()
    ) -> None:
        """Take in what is about to run, after all that was planned before.

        Args:
            todo: trials, in the order in which they start.
            done: what is there already, which counts; and how many seconds each took, 0 where that says nothing of others.
            later: what is to come after these, as far as that can be foreseen; of each, a trial like it.
        """
        for trial, seconds in done:
            self.ended += 1
            if seconds:
                self.forecast.learn(Kind.of(trial), seconds)
        self.waiting |= {trial.key: Kind.of(trial) for trial in todo}
        self.later = [Kind.of(trial) for trial in later]
        self._show()

    @property
    def total(self) -> int:
        """How many trials there are in all."""
        return self.ended + len(self.rows) + len(self.waiting) + len(self.later)

    def __enter__(self) -> GridView:
        self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._show()
        self.live.stop()
        if not self.console.is_terminal:
            self._say(f"{self.counts}, {self.elapsed}")

    def started(self, trial: Trial) -> None:
        """Add a row for the trial."""
        kind = self.waiting.pop(trial.key, None) or Kind.of(trial)
        self.others.discard(trial.key)
        log = self.log(trial.key) if self.log else None
        task = self.live.add_task(f"  {self.describe(trial)}", total=trial.recipe.epochs, words="starts", left="")
        self.rows[trial.key] = Running(
            trial, kind, time.monotonic(), task, self.starts < self.slots, log, last_write(log), begun=log is None
        )
        self.rows[trial.key].old = last_epoch(log)[0] if log else 0
        self.starts += 1

    def retried(self, trial: Trial, reason: str) -> None:
        """Say that the trial starts again."""
        self.waiting[trial.key] = self._drop(trial).kind
        self._say(f"again {self.describe(trial)}: {reason}")

    def finished(self, trial: Trial, record: Record) -> None:
        """Say how the trial ended."""
        row = self._drop(trial)
        seconds = time.monotonic() - row.began
        self.ended += 1
        if record.status == "done":
            spent = sum(record.seconds.values()) if row.cold or record.resumed else 0.0
            self.forecast.learn(row.kind, spent or seconds)
        else:
            self.failed += 1
        self._show()
        if record.status != "done" or self.console.is_terminal or seconds >= LINE_SECONDS:
            width = len(str(self.total))
            told = f"{self.describe(trial)}: {outcome(record)}  ({seconds:.1f} s)"
            self._say(f"[{self.ended:{width}}/{self.total}] {told}")

    def elsewhere(self, trial: Trial, record: Record | None) -> None:
        """Count a trial that another runner is at, or has run; the latter says how long such trials take."""
        if trial.key in self.rows:
            self.waiting[trial.key] = self._drop(trial).kind
        if record is None:
            self.others.add(trial.key)
            return
        self.others.discard(trial.key)
        self.waiting.pop(trial.key, None)
        self.foreign += 1
        self.ended += 1
        if record.status != "done":
            self.failed += 1
            self._say(f"{self.describe(trial)}: {outcome(record)}, run elsewhere")
        elif record.seconds:
            self.forecast.learn(Kind.of(trial), sum(record.seconds.values()))
        self._show()

    def stops(self, reason: str) -> None:
        """Say that the run comes to an end before its time."""
        running = counted(len(self.rows), "running trial")
        self._say(f"{reason}: {running} asked to end, after the epoch if one trains by now; no more are started")

    def tick(self) -> None:
        """Bring what is shown up to date, if it is time; the runner calls this often."""
        now = time.monotonic()
        if now < self.due:
            return
        self.due = now + self.pause
        running = [row.look(now) for row in self.rows.values()]
        if self.console.is_terminal:
            for row, progress in zip(self.rows.values(), running, strict=True):
                total = self.forecast.total(progress)
                left = f"{clock(progress.elapsed)} so far" if total is None else to_go(total - progress.elapsed)
                self.live.update(row.task, completed=row.epochs, words=row.words, left=left)
        rest = self.forecast.left(running, [*self.waiting.values(), *self.later], self.slots)
        self._show("" if rest is None else to_go(rest))
        if not self.console.is_terminal:
            about = "" if rest is None else f", about {to_go(rest)}"
            at = f", {len(self.others)} running elsewhere" if self.others else ""
            self._say(f"{self.counts}, {self.states}{at}, {self.elapsed}{about}")

    @property
    def counts(self) -> str:
        """``12/200 trials, 3 run elsewhere, 1 failed``."""
        elsewhere = f", {self.foreign} run elsewhere" if self.foreign else ""
        failed = f", {self.failed} failed" if self.failed else ""
        return f"{self.ended}/{self.total} trials{elsewhere}{failed}"

    @property
    def states(self) -> str:
        """``3 running, 2 starting``."""
        starting = sum(not row.begun for row in self.rows.values())
        running = len(self.rows) - starting
        parts = [f"{running} running"] if running or not starting else []
        return ", ".join([*parts, f"{starting} starting"] if starting else parts)

    @property
    def elapsed(self) -> str:
        """``1:03 elapsed``."""
        return f"{clock(time.monotonic() - self.began)} elapsed"

    def _show(self, left: str | None = None) -> None:
        """The row of the whole run."""
        more = {} if left is None else {"left": left}
        at = f"{len(self.others)} running elsewhere, " if self.others else ""
        fields = {"total": self.total, "description": self.counts, "words": at + self.elapsed, **more}
        self.live.update(self.bar, completed=self.ended, **fields)  # type: ignore[arg-type]

    def _say(self, line: str) -> None:
        self.console.print(line, markup=False)

    def _drop(self, trial: Trial) -> Running:
        row = self.rows.pop(trial.key)
        self.live.remove_task(row.task)
        return row


def last_write(log: Path | None) -> int:
    """When a log was last written to; 0 where there is none."""
    with suppress(OSError):
        return log.stat().st_mtime_ns if log else 0
    return 0


def last_epoch(log: Path) -> tuple[int, dict[str, float]]:
    """How many epochs a trial has finished, by the end of its log, and the metrics of the last one."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - TAIL))
            tail = file.read().decode(errors="replace")
    except OSError:
        return 0, {}
    found = re.findall(r"^epoch (\d{1,9})((?: \S+ \S+)+)\n", tail, re.MULTILINE)
    if not found:
        return 0, {}
    epoch, told = found[-1]
    words, metrics = told.split(), {}
    for name, value in zip(words[::2], words[1::2], strict=True):
        with suppress(ValueError):
            metrics[name] = float(value)
    return int(epoch) + 1, metrics


def outcome(record: Record) -> str:
    """What came of a trial, in words."""
    if record.status != "done":
        return f"FAILED {record.failure.message if record.failure else ''} (mmbench show {record.key})"
    if record.trial.tuning:
        return f"{100 * max(row[SELECTION_METRIC] for row in record.curves):5.1f} % in validation"
    # Tables show the accuracy at the rate of training, which is not this one.
    more = "" if record.trial.missing is None else " with nothing missing in the test"
    return f"{list(record.metrics.values())[-1]['accuracy']:5.1f} %{more}"


def to_go(seconds: float) -> str:
    """``15:20 left``."""
    return f"{clock(seconds)} left"


def clock(seconds: float) -> str:
    """Minutes and seconds, and hours if there are any.

    >>> clock(75), clock(3675)
    ('1:15', '1:01:15')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
