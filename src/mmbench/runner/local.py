"""The local runner: a pool of slots, one process a trial, forked from a server that has the imports done."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.context import ForkServerProcess
from typing import Any, Protocol

from mmbench.errors import NotedSignals, RunnerError, StoreError, UsageError
from mmbench.machine import cores
from mmbench.provenance import Codes
from mmbench.record import Code, Failure, Record
from mmbench.runner.child import CANNOT_WRITE, WORDS, Job, main, now
from mmbench.store import CorruptRecord, Store
from mmbench.tracking import WandbSettings
from mmbench.trial import Trial

RETRIES = 2
"""How often a trial is started again after its process was killed. One that fails by itself is not: it would fail again."""

UNFORESEEN = 1
"""The exit code of a Python process that an exception ended."""

SERVER_DIED = 255
"""What multiprocessing says of a process whose fork server is gone; the process itself may go on."""

WHAT_TO_DO = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "Free some space and run again. "),
    **dict.fromkeys((errno.EACCES, errno.EPERM), "Change its permissions and run again. "),
}

GRACE_SECONDS = 3.0


class View(Protocol):
    """What a runner tells about its progress."""

    def started(self, trial: Trial) -> None:
        """A process has begun on the trial."""

    def retried(self, trial: Trial, reason: str) -> None:
        """Its process was killed, and it will be started again."""

    def finished(self, trial: Trial, record: Record) -> None:
        """The trial is done or has failed."""

    def tick(self) -> None:
        """Time has passed; this comes about twice a second."""


@dataclass(frozen=True)
class Slot:
    """A share of the machine: "cpu" or a GPU, as CUDA_VISIBLE_DEVICES names it, and CPU threads."""

    device: str
    threads: int


@dataclass
class _Running:
    process: ForkServerProcess
    trial: Trial
    slot: Slot
    attempt: int
    started: str
    code: Code | None


def plan_slots(devices: str, jobs: int | None, threads: int | None) -> list[Slot]:
    """Share out the machine.

    Args:
        devices: "auto", "cpu", or GPU numbers such as "0,1".
        jobs: trials at a time; by default one a GPU, or one a CPU core.
        threads: CPU threads a trial; by default the cores divided by the trials at a time.

    Raises:
        UsageError: a device that is not there.
    """
    names = [name.strip() for name in devices.split(",")]
    wanted = devices in ("auto", "cpu") or all(name.isdigit() for name in names)
    gpus = visible_gpus() if wanted and devices != "cpu" else {}
    if devices == "auto":
        names = list(gpus) or ["cpu"]
    elif names != ["cpu"] and not (wanted and set(names) <= set(gpus)):
        here = f"; GPUs here: {', '.join(gpus) or 'none'}" if wanted else ""
        raise UsageError(f"--devices {devices}: expected auto, cpu, or numbers of GPUs, such as 0,1{here}")
    jobs = jobs or (cores() if names == ["cpu"] else len(names))
    threads = threads or max(1, cores() // jobs)
    return [Slot(gpus.get(names[i % len(names)], "cpu"), threads) for i in range(jobs)]


def visible_gpus() -> dict[str, str]:
    """The number of each GPU that torch sees -> its name for CUDA_VISIBLE_DEVICES.

    Where the user, or a cluster, shows only some GPUs, numbers count within those, as in torch.
    """
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return {str(i): visible[i] if i < len(visible) and visible[i] else str(i) for i in range(torch.cuda.device_count())}


def start_server() -> Any:
    """Start the fork server, which imports what trials need while the caller goes on; if it has died, start it again."""
    from multiprocessing import forkserver, resource_tracker

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mmbench.runner.preload"])
    resource_tracker.ensure_running()  # the server needs it, and starting it lets SIGINT through again
    # Ctrl-C reaches the whole process group. The server and what it starts leave it to the runner, from their first moment on.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


def run_trials(
    trials: Sequence[Trial],
    store: Store,
    slots: Sequence[Slot],
    view: View,
    wandb: WandbSettings | None = None,
    source: dict[str, Any] | None = None,
    codes: Codes | None = None,
    labels: Callable[[Trial], tuple[str, str]] = lambda trial: (trial.dataset, trial.method),
    keep_models: bool = False,
) -> list[Record]:
    """Run trials, each in a process of its own, and return their records in the order in which they ended.

    A trial whose process is killed, or whose fork server is, is started again, at most twice; one that raises is recorded as failed.
    Neither stops the others.

    Args:
        trials: what to run; each is run, whatever the store holds, unless another run has finished it meanwhile.
        store: where records go.
        slots: one trial runs in each at a time.
        view: is told of every event.
        wandb: tracking.
        source: commit of the code, for the records.
        codes: the code that is here, for the records; results of other code are replaced.
        labels: what tracking calls a trial's data set and its method.
        keep_models: leave the trained models, but for those of trials that tune.

    Raises:
        Interrupted: SIGINT or SIGTERM came. What was finished is in the store; what was running is ended.
        StoreError: the disk is full or not writable.
        RunnerError: the fork server cannot be started, or would now start other code.
    """
    pool = _Pool(trials, store, slots, view, wandb or WandbSettings(), source or {}, codes, labels, keep_models)
    with pool.signals:
        try:
            while pool.waiting or pool.running:
                while pool.waiting and pool.free:
                    pool.start()
                for sentinel in connection.wait(list(pool.running), timeout=0.5):
                    pool.take(sentinel)
                view.tick()
                pool.signals.check()
        finally:
            _end([r.process for r in pool.running.values()])
    return pool.records


class _Pool:
    """The trials that wait and those that run, and the server that their processes are forked from."""

    def __init__(
        self,
        trials: Sequence[Trial],
        store: Store,
        slots: Sequence[Slot],
        view: View,
        wandb: WandbSettings,
        source: dict[str, Any],
        codes: Codes | None,
        labels: Callable[[Trial], tuple[str, str]],
        keep_models: bool,
    ) -> None:
        self.keep_models = keep_models
        self.store, self.view, self.wandb, self.source, self.labels = store, view, wandb, source, labels
        self.context = start_server()
        self.code = {trial.key: codes.of(trial) if codes else None for trial in trials}  # now, as the server loads it
        self.waiting = deque((trial, 1) for trial in trials)
        self.free = deque(slots)
        self.running: dict[Any, _Running] = {}  # by the process's sentinel
        self.records: list[Record] = []
        self.failed_starts = 0
        self.signals = NotedSignals()

    def start(self) -> None:
        """Start a process on the trial that waits longest."""
        (trial, attempt), slot = self.waiting.popleft(), self.free.popleft()
        code, root = self.code[trial.key], str(self.store.root)
        keep = self.keep_models and not trial.tuning
        self.store.discard(trial.key, code, keep)
        wandb = self.wandb.labelled(*self.labels(trial))
        job = Job(trial, root, slot.threads, slot.device, self.source, wandb, code, keep)
        process = self.context.Process(target=main, args=(job,))
        begun = _Running(process, trial, slot, attempt, now(), code)
        self.signals.check()
        self.signals.waiting = True  # for the server, which may still be importing
        try:
            process.start()
        except (EOFError, OSError) as error:
            self.view.started(trial)
            self.free.append(slot)
            self.failed_starts += 1
            if self.failed_starts > RETRIES:
                raise RunnerError(
                    f"the fork server, from which trials are started, died {self.failed_starts} times in a row, the last time with "
                    f"{type(error).__name__}; what it said is above, `{sys.executable} -m mmbench.runner.preload` may say more"
                ) from error
            time.sleep(self.failed_starts / 2)  # for the system, to end it and to free its memory
            self._again(begun, "the fork server died when it was to start")
            return
        finally:
            self.signals.waiting = False
        self.failed_starts = 0
        self.running[process.sentinel] = begun
        self.view.started(trial)

    def take(self, sentinel: Any) -> None:
        """Take the record of a process that has ended, or start its trial again."""
        ended = self.running.pop(sentinel)
        ended.process.join()
        self.free.append(ended.slot)
        code = ended.process.exitcode or 0
        record = _record_of(self.store, ended.trial)
        if record is None and CANNOT_WRITE < code < SERVER_DIED:
            raise StoreError(_cannot_write(self.store, ended.trial, code - CANNOT_WRITE))
        if record is None and code != UNFORESEEN:
            self._again(ended, _cause(code))
        else:
            self._finish(ended, record or _record_without_end(self.store, ended, _cause(code), self.source))

    def _again(self, ended: _Running, reason: str) -> None:
        """Let a trial whose process was killed wait for its next turn, or give it up."""
        if ended.attempt > RETRIES:
            self._finish(ended, _record_without_end(self.store, ended, f"{reason}, {ended.attempt} times", self.source))
            return
        self.view.retried(ended.trial, reason)
        self.waiting.append((ended.trial, ended.attempt + 1))
        if ended.process.exitcode in (None, SERVER_DIED):
            self.context = start_server()
            now_here, trials = Codes(), [trial for trial, _ in self.waiting]
            if changed := [t for t in trials if (code := self.code[t.key]) and not now_here.of(t).gives_the_same(code)]:
                raise RunnerError(
                    f"the fork server died, and the code of {changed[0].label} has changed since it was started: run again"
                )

    def _finish(self, ended: _Running, record: Record) -> None:
        self.records.append(record)
        self.view.finished(ended.trial, record)


def _record_of(store: Store, trial: Trial) -> Record | None:
    try:
        return store.record(trial.key)
    except CorruptRecord:
        return None


def _cause(code: int) -> str:
    """How a process ended that left no record."""
    if code == SERVER_DIED:
        return "the fork server that started it was killed (the system does this when memory runs out)"
    if code < 0:
        name = signal.Signals(-code).name
        return f"killed by {name}" + (" (the system does this when memory runs out)" if name == "SIGKILL" else "")
    return f"ended with exit code {code} and left no record"


def _cannot_write(store: Store, trial: Trial, number: int) -> str:
    """What to say of a process that could not write."""
    said = _end_of_log(store, trial).rstrip().rpartition("\n")[2]
    where = (
        said.removeprefix(WORDS)
        if said.startswith(WORDS)
        else f"{trial.label}: a file in {store.root}, or a temporary one"
    )
    return (
        f"no trial can be run: {os.strerror(number)} ({where}). {WHAT_TO_DO.get(number, '')}What was finished is kept"
    )


def _end_of_log(store: Store, trial: Trial) -> str:
    with suppress(OSError):
        return store.log(trial.key).read_text(errors="replace")[-4000:]
    return ""


def _record_without_end(store: Store, ended: _Running, cause: str, source: dict[str, Any]) -> Record:
    """Write the record that the trial's process could not write, unless one that outlived its server still does."""
    with store.lock(ended.trial.key):
        if (record := _record_of(store, ended.trial)) is not None:
            return record
        record = Record(
            key=ended.trial.key,
            trial=ended.trial,
            status="failed",
            started=ended.started,
            finished=now(),
            environment={**source, "device": ended.slot.device, "threads": ended.slot.threads},
            code=ended.code,
            failure=Failure(
                kind="exception" if ended.process.exitcode == UNFORESEEN else "killed",
                message=cause,
                traceback=_end_of_log(store, ended.trial),
            ),
        )
        store.write(record)
    return record


def _end(processes: Sequence[ForkServerProcess]) -> None:
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + GRACE_SECONDS
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
        if process.is_alive():
            process.kill()
            process.join()
