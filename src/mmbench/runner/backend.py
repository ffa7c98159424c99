"""What the loop of a run asks of the machines that trials run on: one machine, a cluster, or what a test makes of it."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, Protocol

from mmbench.locks import ADVICE
from mmbench.runner.child import BUSY, CANNOT_WRITE, STOPPED, WORDS, Job
from mmbench.store import Store

UNFORESEEN = 1
"""The exit code of a Python process that an exception ended."""

SERVER_DIED = 255
"""What multiprocessing says of a process whose fork server is gone; the process itself may go on."""

WHAT_TO_DO = {
    **{number: f"{advice[0].upper()}{advice[1:]}. " for number, advice in ADVICE.items()},
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "Free some space and run again. "),
    **dict.fromkeys((errno.EACCES, errno.EPERM), "Change its permissions and run again. "),
}


@dataclass(frozen=True)
class Request:
    """What a trial asks for.

    Attributes:
        devices: GPUs; on the CPU, processes.
        share: of each GPU, where it is not told by memory.
        cores: CPU threads of each process.
        memory_mb: of the host, that each of its processes takes at its peak; None: not known.
        gpu_memory_mb: of each GPU, likewise.
        alone: nothing else may run on its devices, or on the CPU, at the same time.
    """

    devices: int = 1
    share: float = 1.0
    cores: int = 1
    memory_mb: float | None = None
    gpu_memory_mb: float | None = None
    alone: bool = False


@dataclass(frozen=True)
class Capacity:
    """What there is.

    Attributes:
        jobs: trials at a time, at most.
        cores: CPU threads of each process of a trial.
        gpus: 0: trials run on the CPU.
    """

    jobs: int
    cores: int
    gpus: int = 0

    @property
    def share(self) -> float:
        """The part of a GPU that a trial has if as many run as may."""
        return 1 / max(1, -(-self.jobs // max(1, self.gpus)))


How = Literal["ended", "killed", "lost", "busy", "stopped", "unwritable"]
"""What became of a job:

- ended: by itself; its record says how, and without a record it has failed
- killed: it may work if it is started again
- lost: its node or its worker went away; as killed, but no fault of the trial's
- busy: another runner has, or had, its lock
- stopped: it was asked to, and may be resumed
- unwritable: the store cannot be written, so nothing else can run either
"""


@dataclass(frozen=True)
class Ended:
    """What became of a job.

    Attributes:
        job: as it ran, with its device.
        how: see ``How``.
        cause: why, in words.
        shared: another trial ran on its device, or on the CPU, at some time.
    """

    job: Job
    how: How
    cause: str = ""
    shared: bool = False


class Backend(Protocol):
    """Where trials run. One serves one run, which may call the loop several times."""

    def capacity(self) -> Capacity:
        """What there is; cheap, and starts nothing."""

    def start(self) -> None:
        """Begin what takes time, such as imports, while the caller goes on; a second call does nothing."""

    def has_room(self, request: Request) -> bool:
        """Whether a job that asks for this can be submitted now."""

    def submit(self, job: Job, request: Request) -> None:
        """Start a job, for which there is room; what it runs on is set in it here, and is in the ``Ended`` that tells its end.

        Raises:
            RunnerError: nothing can be started any more, or it would run other code than ``job.code``.
        """

    def wait(self, timeout: float) -> Sequence[Ended]:
        """The jobs that have ended since the last call; waits for one for at most so many seconds, also where none runs."""

    def stop(self) -> None:
        """Ask all that runs to end after its epoch's checkpoint; ``wait`` tells when it has."""

    def cancel(self) -> None:
        """End all that runs, and return when it has ended; nothing is told of it. Does nothing if nothing runs."""

    def close(self) -> None:
        """End what ``start`` began, or leave it; nothing will be submitted any more."""


def ended(job: Job, code: int | None, shared: bool = False) -> Ended:
    """What became of a job, by the exit code of the process that ran ``child.main`` for it.

    Args:
        job: as it ran.
        code: as multiprocessing has it: below 0 for a signal.
        shared: see ``Ended``.
    """
    if code == BUSY:
        return Ended(job, "busy", shared=shared)
    if code == STOPPED:
        return Ended(job, "stopped", "it was asked to end", shared)
    if code is not None and CANNOT_WRITE < code < SERVER_DIED:
        return Ended(job, "unwritable", _cannot_write(job, code - CANNOT_WRITE), shared)
    by_itself = code == UNFORESEEN or (
        code == 0 and Store(job.root).stamp(job.trial.key)
    )  # Lightning answers SIGTERM with 0
    return Ended(job, "ended" if by_itself else "killed", _cause(code or 0), shared)


def _cause(code: int) -> str:
    """How a process ended that left no record."""
    if code == SERVER_DIED:
        return "the fork server that started it was killed (the system does this when memory runs out)"
    if code < 0:
        name = signal.Signals(-code).name
        return f"killed by {name}" + (" (the system does this when memory runs out)" if name == "SIGKILL" else "")
    return f"ended with exit code {code} and left no record"


def _cannot_write(job: Job, number: int) -> str:
    """What to say of a process that could not write."""
    said = end_of_log(job).rstrip().rpartition("\n")[2]
    where = (
        said.removeprefix(WORDS)
        if said.startswith(WORDS)
        else f"{job.trial.label}: a file in {job.root}, or a temporary one"
    )
    return (
        f"no trial can be run: {os.strerror(number)} ({where}). {WHAT_TO_DO.get(number, '')}What was finished is kept"
    )


def end_of_log(job: Job) -> str:
    """The last of what a job has printed."""
    with suppress(OSError):
        return Store(job.root).log(job.trial.key).read_text(errors="replace")[-4000:]
    return ""
