"""The local runner: a pool of slots, one process a trial, forked from a server that has the imports done."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.context import ForkServerProcess
from typing import Any, Protocol

from mmbench.errors import UsageError, raise_on_signals
from mmbench.machine import cores
from mmbench.provenance import Codes
from mmbench.record import Code, Failure, Record
from mmbench.runner.child import Job, main, now
from mmbench.store import CorruptRecord, Store
from mmbench.tracking import WandbSettings
from mmbench.trial import Trial

RETRIES = 2
"""How often a trial is started again after its process was killed. One that fails by itself is not: it would fail again."""

UNFORESEEN = 1
"""The exit code of a Python process that an exception ended."""

GRACE_SECONDS = 3.0


class View(Protocol):
    """What a runner tells about its progress."""

    def started(self, trial: Trial) -> None:
        """A process has begun on the trial."""

    def retried(self, trial: Trial, reason: str) -> None:
        """Its process was killed, and it will be started again."""

    def finished(self, trial: Trial, record: Record) -> None:
        """The trial is done or has failed."""


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
    """Start the fork server, which imports what trials need while the caller goes on."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mmbench.runner.preload"])
    from multiprocessing import forkserver

    forkserver.ensure_running()
    return context


def run_trials(
    trials: Sequence[Trial],
    store: Store,
    slots: Sequence[Slot],
    view: View,
    wandb: WandbSettings | None = None,
    source: dict[str, Any] | None = None,
    codes: Codes | None = None,
) -> list[Record]:
    """Run trials, each in a process of its own, and return their records in the order in which they ended.

    A trial whose process is killed is started again, at most twice; one that raises is recorded as failed. Neither stops the others.

    Args:
        trials: what to run; each is run, whatever the store holds, unless another run has finished it meanwhile.
        store: where records go.
        slots: one trial runs in each at a time.
        view: is told of every event.
        wandb: tracking.
        source: commit of the code, for the records.
        codes: the code that is here, for the records; results of other code are replaced.

    Raises:
        Interrupted: SIGINT or SIGTERM came. What was finished is in the store; what was running is ended.
    """
    context = start_server()
    code = {trial.key: codes.of(trial) if codes else None for trial in trials}  # now, as the server has it loaded
    waiting = deque((trial, 1) for trial in trials)
    free, records = deque(slots), []
    running: dict[Any, _Running] = {}  # by the process's sentinel
    with raise_on_signals():
        try:
            while waiting or running:
                while waiting and free:
                    trial, attempt = waiting.popleft()
                    slot = free.popleft()
                    store.discard(trial.key, code[trial.key])
                    job = Job(
                        trial,
                        str(store.root),
                        slot.threads,
                        slot.device,
                        source or {},
                        wandb or WandbSettings(),
                        code[trial.key],
                    )
                    process = context.Process(target=main, args=(job,))
                    process.start()
                    running[process.sentinel] = _Running(process, trial, slot, attempt, now(), code[trial.key])
                    view.started(trial)
                for sentinel in connection.wait(list(running), timeout=0.5):
                    ended = running.pop(sentinel)
                    ended.process.join()
                    free.append(ended.slot)
                    record = _record_of(store, ended)
                    if record is None and ended.attempt <= RETRIES and ended.process.exitcode != UNFORESEEN:
                        view.retried(ended.trial, _cause(ended.process))
                        waiting.append((ended.trial, ended.attempt + 1))
                        continue
                    record = record or _record_without_end(store, ended, source or {})
                    records.append(record)
                    view.finished(ended.trial, record)
        finally:
            _end([r.process for r in running.values()])
    return records


def _record_of(store: Store, ended: _Running) -> Record | None:
    try:
        return store.record(ended.trial.key)
    except CorruptRecord:
        return None


def _cause(process: ForkServerProcess) -> str:
    code = process.exitcode
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        return f"killed by {name}" + (" (the system does this when memory runs out)" if name == "SIGKILL" else "")
    return f"ended with exit code {code} and left no record"


def _record_without_end(store: Store, ended: _Running, source: dict[str, Any]) -> Record:
    """Write the record that the trial's process could not write."""
    log = store.log(ended.trial.key)
    tail = log.read_text(errors="replace")[-4000:] if log.exists() else ""
    killed = ended.process.exitcode != UNFORESEEN
    failure = Failure(
        kind="killed" if killed else "exception",
        message=_cause(ended.process) + (f", {ended.attempt} times" if killed else ""),
        traceback=tail,
    )
    record = Record(
        key=ended.trial.key,
        trial=ended.trial,
        status="failed",
        started=ended.started,
        finished=now(),
        environment={**source, "device": ended.slot.device, "threads": ended.slot.threads},
        code=ended.code,
        failure=failure,
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
