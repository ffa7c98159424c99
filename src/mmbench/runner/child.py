"""The life of one trial's process."""

from __future__ import annotations

import os
import resource
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing import connection, parent_process
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Literal

from mmbench.durations import CHECKPOINT_EVERY
from mmbench.errors import Stopped, StoreError
from mmbench.files import check_writable, disk_error
from mmbench.gpus import forget_peak, peak_memory
from mmbench.lightning import Logger
from mmbench.locks import signature
from mmbench.machine import installed_version, thread_pools
from mmbench.record import Code, Failure, Predictions, Record
from mmbench.runner.environment import describe_environment
from mmbench.runner.team import RankFailed, Team
from mmbench.store import Stamp, Store
from mmbench.tracked_trial import WandbLogger
from mmbench.tracking import WandbSettings
from mmbench.trial import SCHEMA, Trial

if TYPE_CHECKING:
    from mmbench.models.keeping import Kept
    from mmbench.resuming import Checkpoint
    from mmbench.training import Outcome


@dataclass(frozen=True)
class Job:
    """A trial and where it runs.

    Attributes:
        trial: what to run.
        root: the store's folder.
        threads: CPU threads that the process may use.
        device: "cpu", or what CUDA_VISIBLE_DEVICES says; the back end sets it, and the threads, when it starts the job.
        source: the commit of the code, for the record.
        wandb: where to track it.
        code: what the trial runs, for the record.
        keep_model: leave the trained model beside the record.
        checkpoint_every: seconds between two checkpoints, from which the trial goes on if its process ends; 0: it writes none.
        time_limit: seconds that the trial may take, in all its processes; None: as many as it needs.
        devices: GPUs, or processes on the CPU, that train it together.
    """

    trial: Trial
    root: str
    threads: int = 1
    device: str = "cpu"
    source: dict[str, Any] = field(default_factory=dict)
    wandb: WandbSettings = field(default_factory=WandbSettings)
    code: Code | None = None
    keep_model: bool = False
    checkpoint_every: float = CHECKPOINT_EVERY
    time_limit: float | None = None
    devices: int = 1


BUSY, STOPPED = 32, 33
"""Exit codes of a process that leaves no record because another has, or had, the trial's lock; because it was asked to stop."""

ASKING = (signal.SIGTERM, signal.SIGUSR1)
"""The signals that ask it to."""

CANNOT_WRITE = 64
"""A process that cannot write, and so leaves no record, exits with this code and the number of the system's error."""

WORDS = "mmbench: "
"""What its log's last line begins with, if that could be written."""


def now() -> str:
    """The time, in UTC, as records have it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def main(job: Job) -> None:
    """Run a trial and write its record. The record is the outcome, not the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole process group; the runner decides
    for asks in ASKING:
        signal.signal(asks, lambda *_: os._exit(STOPPED))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ASKING)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    # A trial on the CPU sees no GPU: Adam asks in every step whether there is one, and to look for it takes a tenth of the step.
    os.environ["CUDA_VISIBLE_DEVICES"] = "" if job.device == "cpu" else job.device
    os.environ.pop("NVIDIA_TF32_OVERRIDE", None)  # whether there is TF32 is the recipe's
    import torch

    torch.set_num_threads(job.threads)
    thread_pools().limit(
        limits=job.threads
    )  # NumPy's and SciPy's linear algebra would take every core, in every process
    store, key = Store(job.root), job.trial.key
    try:
        with store.lock(key, wait=False, sign=True) as mine:
            # The runner has cleared the trial's folder: a record that is there now is of a process that was faster.
            if not mine or store.stamp(key):
                sys.exit(BUSY)
            _redirect_output(store, job.trial)
            execute(job, store)
    except Overtaken as error:
        print(f"{WORDS}{error}", flush=True)
        sys.exit(BUSY)
    except Stopped:
        os._exit(STOPPED)  # at once: nothing waits for what else the process may have to do
    except (OSError, StoreError) as error:
        if (number := disk_error(error)) is None:
            raise
        with suppress(OSError):
            print(f"{WORDS}{error}", flush=True)
        os._exit(CANNOT_WRITE + number)  # at once: what was printed, or its end, may be impossible to write


class Overtaken(RuntimeError):
    """While the trial ran, a process whose lock this one does not see has written its record."""


def check_alone(store: Store, key: str, before: Stamp) -> None:
    """Refuse to replace a record that was not there before the trial ran.

    That happens where locks are not passed on to other machines: then two of them hold the same one.

    Raises:
        Overtaken: there is one.
    """
    holder = store.holder(key)
    other = f"; its lock names {holder}" if holder and not holder.startswith(f"{signature()} ") else ""
    if store.stamp(key) != before:
        raise Overtaken(
            f"another machine has written the record of this trial meanwhile, which stays{other}. The file system of {store.root} does "
            "not pass locks (flock) on: mount it so that it does (for NFS, without local_lock), or use one runner"
        )
    if other:
        print(
            f"{WORDS}the trial's lock is no longer this process's{other}: locks do not reach other machines", flush=True
        )


def execute(job: Job, store: Store) -> Record:
    """Run the trial in this process and write its record to the store.

    Raises:
        Stopped: it was asked to end, and has done so; there is no record.
        StoreError: the disk is full or not writable; there is no record.
        Overtaken: another process has written one meanwhile.
    """
    started, before = now(), store.stamp(job.trial.key)
    several = f", {job.devices} processes together" if job.devices > 1 else ""
    print(f"{started} {job.trial.label} ({job.trial.key}), {job.threads} threads on {job.device}{several}", flush=True)
    if several:
        print("(that torch warns of find_unused_parameters is nothing: a batch may lack a modality)", flush=True)
    team = _team(job, store, started) if job.devices > 1 else None  # before CUDA, and what has threads
    forget_peak()
    environment = describe_environment(job.device, job.threads, job.devices, job.trial.recipe.precision) | job.source
    wandb = WandbLogger(job.trial, job.wandb, environment) if job.wandb.mode != "off" else None
    checkpoint = checkpoint_of(job, store, started)
    end_when_asked(checkpoint)
    record, outcome = _outcome(job, store, environment, [wandb] if wandb else [], checkpoint, team)
    check_alone(store, record.key, before)
    if outcome is None:
        store.write(record)
    else:
        if outcome.model is not None:
            record.model_sha256 = _write_model(outcome.model, record, store)
        store.write(record, outcome.predictions, outcome.features)  # before W&B, which may hang
    if record.failure is None or record.failure.kind not in ("time_limit", "out_of_memory"):
        checkpoint.remove()
    print(f"{record.finished} {record.status}", flush=True)
    if wandb is not None:
        wandb.finish(record)
    return record


def checkpoint_of(job: Job, store: Store, started: str) -> Checkpoint:
    """The checkpoint of a job."""
    from mmbench.resuming import Checkpoint

    versions = {name: installed_version(name) for name in ("torch", "pytorch-lightning")}
    code = job.code.model_dump(mode="json") if job.code else None
    return Checkpoint(
        store.checkpoint(job.trial.key),
        of={"key": job.trial.key, "schema": SCHEMA, "code": code, **versions},
        every=job.checkpoint_every,
        limit=job.time_limit,
        started=started,
    )


def end_when_asked(checkpoint: Checkpoint) -> None:
    """From now on this process ends after an epoch, with its state written, when it is asked to; at once while that loses nothing."""

    def ask(signum: int, frame: FrameType | None) -> None:
        checkpoint.asked = True
        if not checkpoint.training:
            os._exit(STOPPED)

    for number in ASKING:
        signal.signal(number, ask)


def _outcome(
    job: Job,
    store: Store,
    environment: dict[str, Any],
    loggers: Sequence[Logger],
    checkpoint: Checkpoint,
    team: Team | None,
) -> tuple[Record, Outcome | None]:
    """Run the trial; whatever happens becomes a record. Of a trial that failed there is no more than that.

    Raises:
        Stopped: it was asked to end.
    """
    from mmbench.training import run

    trial = job.trial
    common: dict[str, Any] = {"key": trial.key, "trial": trial, "environment": environment, "code": job.code}
    try:
        outcome = run(trial, loggers, accelerator(job), job.code, job.keep_model, checkpoint, job.devices)
        predictions = outcome.predictions
        metrics = _metrics(predictions) if predictions is not None else {}
    except Exception as error:
        if isinstance(error, StoreError) or disk_error(error) is not None:
            raise StoreError(f"{trial.label}: {error}") from error  # no fault of the trial's, and no record of it
        check_writable(store.folder(trial.key))
        failure = _failure(team.cause(error) if team else error)
        told = {**common, **checkpoint.told, **peak_memory()}
        return Record(**told, status="failed", finished=now(), failure=failure), None
    finally:
        if team:
            team.end()
    record = Record(
        **common,
        **checkpoint.told,
        status="done",
        finished=now(),
        seconds=outcome.seconds,
        memory_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 + (team.memory_mb if team else 0.0),
        **peak_memory(),
        parameters=outcome.parameters,
        best_epoch=outcome.best_epoch,
        stages=outcome.stages,
        stopped_epoch=outcome.stopped_epoch,
        realised=outcome.realised,
        gap=outcome.gap,
        curves=outcome.curves,
        metrics=metrics,
    )
    return record, outcome


def accelerator(job: Job) -> Literal["cpu", "gpu"]:
    """What Lightning calls the kind of device that a job runs on."""
    return "cpu" if job.device == "cpu" else "gpu"


def _team(job: Job, store: Store, started: str) -> Team:
    """Fork the processes that train the trial with this one."""

    def work() -> None:
        from mmbench.training import run

        for number in ASKING:
            signal.signal(number, signal.SIG_IGN)  # rank 0 is asked, and all end with it
        run(
            job.trial,
            (),
            accelerator(job),
            job.code,
            checkpoint=checkpoint_of(job, store, started),
            devices=job.devices,
        )

    def give_up(failed: RankFailed) -> None:
        environment = {**job.source, "device": job.device, "threads": job.threads, "devices": job.devices}
        about: dict[str, Any] = {"key": job.trial.key, "trial": job.trial, "code": job.code, "environment": environment}
        store.write(Record(**about, status="failed", started=started, finished=now(), failure=_failure(failed)))

    return Team(job.devices, accelerator(job) == "gpu", work, _kind, give_up)


def _failure(error: Exception) -> Failure:
    """Why the trial failed, as a record says it; to be called where the error is handled."""
    if (kind := _kind(error)) == "time_limit":
        return Failure(kind=kind, message=str(error))
    traceback.print_exc()
    if isinstance(error, RankFailed):
        return Failure(kind=error.kind, message=str(error), traceback=error.trace)
    return Failure(kind=kind, message=f"{type(error).__name__}: {error}", traceback=traceback.format_exc())


def _write_model(model: Kept, record: Record, store: Store) -> str:
    """Write the model of a trial; the hash by which its record vouches for it."""
    return model.write(
        store.folder(record.key),
        parameters=record.parameters,
        best_epoch=record.best_epoch,
        accuracy={pattern: values["accuracy"] for pattern, values in record.metrics.items()},
        environment={name: value for name, value in record.environment.items() if name != "host"},
    )


def _metrics(predictions: Predictions) -> dict[str, dict[str, float]]:
    """Pattern -> metric -> value."""
    from mmbench.metrics import summary

    return {
        name: summary(predictions.label, predictions.predicted[i], predictions.log_probs[i], predictions.attack)
        for i, name in enumerate(predictions.pattern_names)
    }


def _kind(error: Exception) -> Literal["exception", "diverged", "out_of_memory", "time_limit"]:
    import torch

    from mmbench.resuming import OutOfTime
    from mmbench.task import DivergedError

    if isinstance(error, DivergedError | OutOfTime):
        return "diverged" if isinstance(error, DivergedError) else "time_limit"
    cpu = isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    return "out_of_memory" if cpu or isinstance(error, MemoryError | torch.OutOfMemoryError) else "exception"


def _redirect_output(store: Store, trial: Trial) -> None:
    """Send all that the process prints, Python's and libraries', to the trial's log; of a trial that goes on, to the log's end."""
    begin = os.O_APPEND if store.checkpoint(trial.key).exists() else os.O_TRUNC
    log = os.open(store.log(trial.key), os.O_WRONLY | os.O_CREAT | begin, 0o644)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)


def orphaned(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Show an exception of the fork server, but for what comes of a runner that ended while it handed over a trial.

    The runner has said how it ended, or was killed; that its server reads the end of a pipe is no news.
    """
    if not issubclass(kind, EOFError | ConnectionError):
        sys.__excepthook__(kind, error, trace)


def _die_with_parent() -> None:
    """End at once when the runner is gone, however it went."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
