"""The local back end: this machine's CPU or GPUs, one process a trial, forked from a server that has the imports done."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing import connection
from multiprocessing.context import ForkServerProcess
from types import ModuleType
from typing import Any

from mmbench.errors import RunnerError, UsageError
from mmbench.gpus import free_mb
from mmbench.machine import available_mb, children, cores, resident_mb
from mmbench.provenance import Codes
from mmbench.runner.backend import SERVER_DIED, Capacity, Ended, Request, ended
from mmbench.runner.child import ASKING, Job, main

FAILED_STARTS = 2
"""How often in a row a process may fail to start."""
ASSUMED_MB = 2048.0
"""The memory that is set aside for a trial of a kind of which none has ended yet."""


def local_backend(devices: str, jobs: int | None, threads: int | None) -> LocalBackend:
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
    return LocalBackend(jobs, threads or max(1, cores() // jobs), [gpus.get(name, "cpu") for name in names])


def visible_gpus() -> dict[str, str]:
    """The number of each GPU that torch sees -> its name for CUDA_VISIBLE_DEVICES.

    Where the user, or a cluster, shows only some GPUs, numbers count within those, as in torch.
    """
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return {str(i): visible[i] if i < len(visible) and visible[i] else str(i) for i in range(torch.cuda.device_count())}


def start_server() -> Any:
    """Start the fork server, which imports what trials need while the caller goes on; if it has died, start it again.

    Trials have the server's variables; where a script has named other folders since, another server takes its place.
    """
    from multiprocessing import forkserver, resource_tracker

    folders = {name: os.environ.get(name) for name in FOLDERS}
    if server_pid() is not None and folders != _folders:
        forkserver._forkserver._stop()  # type: ignore[attr-defined]
    _folders.update(folders)

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mmbench.runner.preload"])
    # Ctrl-C reaches the whole process group, and so may what a cluster sends. The server and what it starts leave that to the runner,
    # from their first moment on; a trial's process takes the signals of a cluster again once it knows what to do with them.
    group = {signal.SIGINT, *ASKING}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, group)
    try:
        resource_tracker.ensure_running()  # the server needs it, and starting it lets some signals through again
        signal.pthread_sigmask(signal.SIG_BLOCK, group)
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


FOLDERS = ("MMBENCH_DATA", "MMBENCH_WEIGHTS")
"""Variables that name the folders that trials read."""
_folders: dict[str, str | None] = {}
"""Theirs when the fork server was started."""


@contextmanager
def without_main() -> Iterator[None]:
    """For the while, a process that is started does not run the caller's script first: a trial needs nothing of it."""
    main_module = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main_module


@contextmanager
def other_server(**variables: str) -> Iterator[None]:
    """For the while, what is run is forked from a server of its own, which has these environment variables from its start on."""
    from multiprocessing import forkserver

    server: Any = forkserver._forkserver
    before = {name: os.environ.get(name) for name in variables}
    server._stop()
    os.environ.update(variables)
    try:
        yield
    finally:
        server._stop()
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def server_pid() -> int | None:
    """The fork server's process."""
    from multiprocessing import forkserver

    return getattr(forkserver._forkserver, "_forkserver_pid", None)


def _host_mb(request: Request, shared: float) -> float:
    """What the processes of a job, one a device, take together at their peaks, without what they share with others."""
    each = ASSUMED_MB if request.memory_mb is None else max(0.0, request.memory_mb - shared)
    return request.devices * each


@dataclass
class _Running:
    process: ForkServerProcess
    job: Job
    request: Request
    devices: Sequence[str]
    shared: bool


class LocalBackend:
    """Processes on this machine.

    A GPU is shared by trials that fit into its memory together, by what others of their kinds took; the first of a kind has it alone.
    On the machine itself a trial is started while what is available, less what those that run are still to take, is enough for it.
    Of a kind that nobody has measured that is 2 GB, so where there is so much for each of the trials at a time, none has to wait.

    Args:
        jobs: trials at a time, at most.
        threads: CPU threads of each process of a trial.
        devices: ``["cpu"]``, or GPUs as CUDA_VISIBLE_DEVICES names them.
    """

    def __init__(self, jobs: int, threads: int = 1, devices: Sequence[str] = ("cpu",)) -> None:
        self.jobs, self.threads, self.devices = jobs, threads, list(devices)
        self.on_cpu = self.devices == ["cpu"]
        self.context: Any = None
        self.codes: Codes | None = None  # what a server loads that was started anew
        self.failed_starts = 0
        self.running: dict[Any, _Running] = {}  # by the process's sentinel
        self.over: list[Ended] = []
        self.gpu_mb: dict[str, float | None] = {}  # what each GPU had free before anything ran here

    def capacity(self) -> Capacity:
        """As many trials as were asked for."""
        return Capacity(self.jobs, self.threads, 0 if self.on_cpu else len(self.devices))

    def start(self) -> None:
        """Start the fork server."""
        self.context = start_server()
        if not self.on_cpu and not self.running:
            self.gpu_mb = {device: free_mb(device) for device in self.devices}

    def has_room(self, request: Request) -> bool:
        """Whether enough devices have room."""
        return not self.over and self._place(request) is not None

    def submit(self, job: Job, request: Request) -> None:
        """Fork a process for the job; waits for the server if that still imports.

        Raises:
            RunnerError: the fork server cannot be started, or would now start other code.
        """
        if self.codes and job.code and not self.codes.of(job.trial).gives_the_same(job.code):
            raise RunnerError(
                f"the fork server died, and the code of {job.trial.label} has changed since it was started: run again"
            )
        devices = self._place(request) or []
        neighbours = [running for device in devices for running in self._on(device)]
        job = replace(job, device=",".join(devices), threads=request.cores)
        process = self.context.Process(target=main, args=(job,))
        try:
            with without_main():
                process.start()
        except (EOFError, OSError) as error:
            self._not_started(job, error)
            return
        self.failed_starts = 0
        for neighbour in neighbours:
            neighbour.shared = True
        self.running[process.sentinel] = _Running(process, job, request, devices, bool(neighbours))

    def wait(self, timeout: float) -> Sequence[Ended]:
        """The jobs whose processes have ended."""
        over, self.over = self.over, []
        for sentinel in connection.wait(list(self.running), 0 if over else timeout):
            run = self.running.pop(sentinel)
            run.process.join()
            over.append(ended(run.job, run.process.exitcode, run.shared))
            if run.process.exitcode == SERVER_DIED:
                self._restart()
        return over

    def stop(self) -> None:
        """Send SIGUSR1 to every process; one that has ended since the last wait is told of by the next."""
        for run in self.running.values():
            if run.process.pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(run.process.pid, signal.SIGUSR1)

    def cancel(self) -> None:
        """Send SIGKILL to every process: SIGTERM would ask it to end with its epoch."""
        processes = [run.process for run in self.running.values()]
        for process in processes:
            process.kill()
        for process in processes:
            process.join()
        self.running.clear()

    def close(self) -> None:
        """Leave the fork server: other runs of this process may use it."""

    def _on(self, device: str) -> list[_Running]:
        return [run for run in self.running.values() if device in run.devices]

    def _place(self, request: Request) -> list[str] | None:
        """The devices that a job gets, those with the fewest trials first; None if there is no room now.

        Raises:
            UsageError: there are not as many devices.
        """
        count = 1 if self.on_cpu else request.devices
        if count > len(self.devices):
            raise UsageError(f"a trial asks for {count} devices; --devices has {len(self.devices)}")
        if self.running and (len(self.running) >= self.jobs or not self._fits_host(request)):
            return None
        free = [device for device in self.devices if self._fits(device, request)]
        free.sort(key=lambda device: len(self._on(device)))
        return free[:count] if len(free) >= count else None

    def _fits(self, device: str, request: Request) -> bool:
        """Whether a job can run on a device beside what runs there: on a GPU, and on the CPU for each process, it takes a place."""
        there = self._on(device)
        if not there:
            return True
        if request.alone or any(run.request.alone for run in there):
            return False
        places = -(-self.jobs // len(self.devices))
        if sum(self._places(run.request) for run in there) + self._places(request) > places:
            return False
        if self.on_cpu or (most := self.gpu_mb.get(device)) is None:
            return True
        needs = [run.request.gpu_memory_mb for run in there] + [request.gpu_memory_mb]
        return None not in needs and sum(need or 0.0 for need in needs) <= most

    def _fits_host(self, request: Request) -> bool:
        """Whether the machine has the memory for one more process, once those that run have taken all that they will."""
        if (available := available_mb()) is None:
            return True
        shared = resident_mb(server_pid(), "RssFile")  # of libraries: all processes have the same
        left = available
        for run in self.running.values():
            processes = [run.process.pid, *children(run.process.pid)]  # one a device
            left -= max(0.0, _host_mb(run.request, shared) - sum(map(resident_mb, processes)))
        return _host_mb(request, shared) <= left

    def _places(self, request: Request) -> int:
        return request.devices if self.on_cpu else 1

    def _restart(self) -> None:
        self.context, self.codes = start_server(), Codes()

    def _not_started(self, job: Job, error: Exception) -> None:
        """Start the server again, for another try."""
        self.failed_starts += 1
        if self.failed_starts > FAILED_STARTS:
            raise RunnerError(
                f"the fork server, from which trials are started, died {self.failed_starts} times in a row, the last time with "
                f"{type(error).__name__}; what it said is above, `{sys.executable} -m mmbench.runner.preload` may say more"
            ) from error
        time.sleep(self.failed_starts / 2)  # for the system, to end it and to free its memory
        self._restart()
        self.over.append(
            Ended(job, "killed", "the process from which trials are started died before it had started this one")
        )
