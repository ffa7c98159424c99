"""What the loop of a run asks of the machines that trials run on: one machine, a cluster, or what a test makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from mmbench.runner.child import Job


@dataclass(frozen=True)
class Request:
    """What a trial asks for.

    Attributes:
        devices: GPUs; on the CPU, processes.
        share: of each GPU, where it is not told by memory.
        cores: CPU threads of each process.
        memory_mb: of the host, at its peak; None: not known.
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
