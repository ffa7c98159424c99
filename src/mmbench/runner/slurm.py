"""Runners as an array of Slurm jobs, through submitit: each is ``mmbench run`` on its node, and they share the store."""

from __future__ import annotations

import argparse
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mmbench.errors import RunnerError, UsageError
from mmbench.machine import host
from mmbench.provenance import Codes
from mmbench.runner.choosing import add_options
from mmbench.runner.values import pairs, seconds_of
from mmbench.runner.worker import other_code

FOR_EVER = 1_000_000
"""How often a runner is requeued when its time is over."""
STOP_SECONDS = 600
"""Before its time is over, a runner is asked to stop so many seconds early, or a tenth of its time if that is less."""
SETTLE_SECONDS = 60.0
"""After a signal of the cluster's, until a runner requeues itself; if it was preempted, the cluster has done so by then."""
LOOK_SECONDS = 2.0
TELL_SECONDS = 60.0
"""How often it is looked whether runners have ended, and told how far they are."""
STOPPED = (128 + signal.SIGTERM, 128 + signal.SIGUSR1)
"""Exit codes of ``mmbench run`` that was asked to stop; with others it has failed, but for 0 and 1."""


@dataclass
class Runner:
    """One of the array: starts ``mmbench run``, and passes on that its time is over.

    Attributes:
        command: what it starts.
        folder: where.
        modules: module -> hash, of what trials ran where they were planned.
        settle: seconds after it has stopped by itself until it requeues itself.
    """

    command: Sequence[str]
    folder: str
    modules: Mapping[str, str]
    settle: float = SETTLE_SECONDS
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def __call__(self) -> int:
        """Run until nothing is left; the exit code, 1 if trials failed.

        Raises:
            RunnerError: the code here is not that of the trials, or the command failed.
        """
        if differing := Codes().differing(self.modules):
            raise RunnerError(f"{host()} {other_code(differing)}")
        from submitit import JobEnvironment

        over = JobEnvironment._usr_sig()
        # Slurm may send it to all processes of a job; one that is started with it ignored, ignores it, and so do its own.
        process = subprocess.Popen(
            self.command, cwd=self.folder, preexec_fn=lambda: signal.signal(over, signal.SIG_IGN)
        )
        self.process = process
        try:
            code = wait(process)
        finally:
            if process.poll() is None:
                process.terminate()
        if code in STOPPED:
            time.sleep(self.settle)
            os.kill(os.getpid(), over)  # as the cluster does when time is over, so that it is requeued
        if code not in (0, 1):
            raise RunnerError(f"`mmbench run` ended with exit code {code} on {host()}; what it said is above")
        return code

    def checkpoint(self) -> Any:
        """Stop when the epochs that run are over: submitit calls this when time is, or the job makes way.

        Returns:
            What is run when the job is requeued.
        """
        from submitit.helpers import DelayedSubmission

        if self.process is not None:
            self.process.send_signal(signal.SIGUSR1)
            wait(self.process)
        return DelayedSubmission(replace(self))


def wait(process: subprocess.Popen[bytes]) -> int:
    """Wait for a process. Unlike ``Popen.wait``, a handler of signals may call this while it is called already."""
    with suppress(ChildProcessError):
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    return process.wait()


@dataclass(frozen=True)
class Array:
    """Runners that were submitted.

    Attributes:
        jobs: as submitit has them.
        folder: where their logs are.
        local: they run on this machine.
    """

    jobs: Sequence[Any]
    folder: Path
    local: bool

    @property
    def words(self) -> str:
        """What was submitted, where its logs are, and how to end it."""
        number = self.jobs[0].job_id.partition("_")[0]
        what = (
            f"{len(self.jobs)} runners on this machine" if self.local else f"{len(self.jobs)} runners as job {number}"
        )
        end = "" if self.local else f"; `scancel {number}` ends them"
        return f"submitted {what}; logs: {self.folder}/*_log.out{end}"

    def wait(self, tell: Any) -> list[str]:
        """Wait until all have ended.

        Args:
            tell: is called with the number of those at work, once a minute.

        Returns:
            What went wrong, a line each.
        """
        due = time.monotonic() + TELL_SECONDS
        try:
            while there := [job for job in self.jobs if not job.done()]:
                time.sleep(LOOK_SECONDS)
                if time.monotonic() >= due:
                    tell(len(there))
                    due += TELL_SECONDS
        except BaseException:
            for job in self.jobs if self.local else ():
                job.cancel()
            raise
        return [f"runner {job.job_id}: {why} ({job.paths.stdout})" for job in self.jobs if (why := what_failed(job))]


def what_failed(job: Any) -> str:
    """Why a runner failed, in a line; nothing if it did not."""
    error = job.exception()
    if error is None:
        return ""
    raised = [line for line in str(error).splitlines() if re.match(r"[\w.]+Error: ", line)]
    return raised[-1].partition(": ")[2] if raised else f"left no result, and is {job.state}"


def submit(arguments: argparse.Namespace, name: str, modules: Mapping[str, str]) -> Array:
    """Submit the runners of ``mmbench run --backend slurm``.

    Args:
        arguments: of the command, as ``check_options`` lets them pass; ``argv`` is the command itself.
        name: the experiment's.
        modules: module -> hash, of what trials run.

    Raises:
        UsageError: submitit or Slurm is missing, or Slurm refuses.
    """
    seconds, folder = seconds_of(arguments.time), (arguments.results / "slurm" / name).absolute()
    runner = Runner([sys.executable, "-m", "mmbench", *runner_arguments(arguments.argv)], os.getcwd(), dict(modules))
    executor = executor_of(arguments, name, seconds, folder)
    try:
        with executor.batch():
            jobs = [executor.submit(runner) for _ in range(arguments.array)]
    except Exception as error:  # of submitit, which shows what sbatch says
        raise UsageError(f"--backend slurm: cannot be submitted: {error}") from error
    return Array(jobs, folder, arguments.cluster == "local")


def executor_of(arguments: argparse.Namespace, name: str, seconds: int, folder: Path) -> Any:
    """What submits: submitit, with what the arguments say."""
    try:
        import submitit
    except ImportError as error:
        raise UsageError("--backend slurm: submitit is not installed; pip install 'mmbench[slurm]'") from error
    notice = min(STOP_SECONDS, seconds // 10)
    more = pairs(arguments.slurm or [])
    if arguments.cluster == "local":
        local = submitit.LocalExecutor(folder, max_num_timeout=FOR_EVER)
        local.update_parameters(
            timeout_min=seconds / 60,
            signal_delay_s=notice,
            gpus_per_node=arguments.gpus_per_task or 0,
            stderr_to_stdout=True,
        )
        return local
    if shutil.which("sbatch") is None or shutil.which("srun") is None:
        raise UsageError(
            "--backend slurm: there is no sbatch on this machine; submit on a login node of the cluster, or try it with --cluster local"
        )
    slurm = submitit.SlurmExecutor(folder, max_num_timeout=FOR_EVER)
    given = {
        "partition": arguments.partition,
        "gpus_per_task": arguments.gpus_per_task,
        "cpus_per_task": arguments.cpus_per_task,
    }
    slurm.update_parameters(
        job_name=f"mmbench-{name}",
        time=math.ceil(seconds / 60),
        array_parallelism=arguments.array,
        signal_delay_s=notice,
        stderr_to_stdout=True,
        additional_parameters={"requeue": True, **more},
        **{key: value for key, value in given.items() if value is not None},
    )
    return slurm


def runner_arguments(argv: Sequence[str]) -> list[str]:
    """What a runner is told: the command, without what is about the array, and without a report.

    The folder of data is left out too: the environment has it, where a node may say otherwise.
    """
    own = argparse.ArgumentParser(add_help=False)
    add_options(own)
    own.add_argument("--data-dir")
    return [*own.parse_known_args(list(argv))[1], "--no-report"]
