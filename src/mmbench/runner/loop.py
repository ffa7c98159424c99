"""The loop of a run: trials that wait, that run, that are started again, and that other runners are at."""

from __future__ import annotations

import random
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from signal import SIGTERM, Signals
from typing import Any, Literal

from mmbench.errors import Interrupted, NotedSignals, StoreError, counted
from mmbench.provenance import Codes
from mmbench.record import Failure, Record
from mmbench.runner.backend import Backend, Ended, Request, end_of_log
from mmbench.runner.child import Job, now
from mmbench.runner.memory import Memory
from mmbench.runner.turns import Times, Turn, View
from mmbench.store import CorruptRecord, Store
from mmbench.tracking import WandbSettings
from mmbench.trial import Trial

RETRIES = 2
"""How often a trial is started again after its process was killed. One that fails by itself is not: it would fail again."""
LOST = 10
"""How often after its node, or its worker, went away."""
KEPT = "interrupted, with a checkpoint from which they go on"
LOST_ALL = "stopped without a checkpoint, to begin anew"
NOT_RUN, ELSEWHERE = "not run", "at other runners"
LEFT = (KEPT, LOST_ALL, NOT_RUN, ELSEWHERE)
"""How trials are left by a run that stops."""
TICK_SECONDS = 0.5
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 3.0
"""Seconds until trials that other runners are at are looked at again: few at first, if nothing else is left to run."""


def run_trials(
    trials: Sequence[Trial],
    store: Store,
    backend: Backend,
    view: View,
    wandb: WandbSettings | None = None,
    source: dict[str, Any] | None = None,
    codes: Codes | None = None,
    labels: Callable[[Trial], tuple[str, str]] = lambda trial: (trial.dataset, trial.method),
    keep_models: bool = False,
    devices_of: Callable[[Trial], int] = lambda trial: 1,
    memory: Memory | None = None,
    times: Times | None = None,
) -> list[Record]:
    """Run trials, each in a process of its own, and return their records in the order in which they ended.

    A trial whose process is killed, or whose fork server is, is started again, and goes on from its checkpoint; at most twice without
    getting on. One that raises is recorded as failed. Neither stops the others. A trial that another runner is at is left to that, and
    taken over if it ends without a record.

    Args:
        trials: what to run; each is run, whatever the store holds, unless another run finishes it meanwhile.
        store: where records go.
        backend: where trials run.
        view: is told of every event.
        wandb: tracking.
        source: commit of the code, for the records.
        codes: the code that is here, for the records; results of other code are replaced.
        labels: what tracking calls a trial's data set and its method.
        keep_models: leave the trained models, but for those of trials that tune.
        devices_of: how many devices a trial takes.
        memory: what trials of earlier runs took; it learns from those of this one.
        times: how long things may take.

    Raises:
        Interrupted: the time of the run is over, or a signal came: SIGTERM or SIGUSR1, upon which the trials that run end with their
            epochs' checkpoints, or SIGINT, or SIGTERM once more, upon which they end at once. What was finished is in the store.
        StoreError: the disk is full or not writable, or has no locks.
        RunnerError: trials cannot be started, or would now be of other code.
    """
    backend.start()
    loop = _Loop(trials, store, backend, view, wandb or WandbSettings(), source or {}, codes, labels, keep_models)
    loop.devices_of, loop.memory, loop.times = devices_of, memory or Memory(), times or Times()
    with loop.signals:
        try:
            while loop.goes_on():
                loop.fill()
                for ended in backend.wait(loop.pause()):
                    loop.take(ended)
                view.tick()
                loop.signals.check()
            loop.tell_what_is_left()
        finally:
            backend.cancel()
    return loop.records


class _Loop:
    """The trials of a run that are not over, and the records of those that are."""

    def __init__(
        self,
        trials: Sequence[Trial],
        store: Store,
        backend: Backend,
        view: View,
        wandb: WandbSettings,
        source: dict[str, Any],
        codes: Codes | None,
        labels: Callable[[Trial], tuple[str, str]],
        keep_models: bool,
    ) -> None:
        self.store, self.backend, self.view = store, backend, view
        self.wandb, self.source, self.labels, self.keep_models = wandb, source, labels, keep_models
        self.code = {trial.key: codes.of(trial) if codes else None for trial in trials}  # now, as it is loaded
        self.known = {trial.key: store.stamp(trial.key) for trial in trials}  # records that are no answer
        self.capacity = backend.capacity()
        self.devices_of: Callable[[Trial], int] = lambda trial: 1
        self.memory = Memory()
        self.waiting = deque(Turn(trial) for trial in trials)
        self.running: dict[str, tuple[Turn, str]] = {}  # by the trial's key: when it was started, too
        self.busy: deque[Turn] = deque()  # other runners are at these
        self.looked, self.patience = 0.0, FIRST_PAUSE  # when, on the monotonic clock; seconds until the next time
        self.records: list[Record] = []
        self.signals = NotedSignals()
        self.times = Times()
        self.stopped = ""  # why no more trials are started, in words
        self.cut: set[str] = set()  # keys of trials that ran then

    def goes_on(self) -> bool:
        """Whether there is something to wait for. Asks all that runs to end, once the run is asked to, or its time is over."""
        if not self.stopped:
            if self.signals.stop is not None:
                self.stopped = f"stopped by {Signals(self.signals.stop).name}"
            elif self.times.until is not None and time.monotonic() >= self.times.until:
                self.stopped = "stopped, as its time is over"
            if self.stopped:
                self.view.stops(self.stopped)
                self.backend.stop()
        return bool(self.running or (not self.stopped and (self.waiting or self.busy)))

    def tell_what_is_left(self) -> None:
        """Say how a run ended that has stopped.

        Raises:
            Interrupted: it has.
        """
        if not self.stopped or not (self.waiting or self.busy or self.signals.stop is not None):
            return
        left = Counter(self.left_as(turn.trial) for turn in (*self.waiting, *self.busy))
        told = [f"{left[state]} {state}" for state in LEFT if left[state]]
        if self.signals.stop is not None or told:
            words = ", ".join([f"{counted(len(self.records), 'trial')} ended", *told])
            raise Interrupted(self.signals.stop or SIGTERM, f"{self.stopped}: {words}")

    def left_as(self, trial: Trial) -> str:
        """What has become of a trial that has not ended here, one of ``LEFT``; "" if another runner has ended it."""
        key = trial.key
        if self.store.stamp(key) not in ((), self.known[key]) and self.is_over(trial):
            return ""
        if self.store.holder_now(key):
            return ELSEWHERE
        if self.store.checkpoint(key).exists():
            return KEPT
        return LOST_ALL if key in self.cut else NOT_RUN

    def fill(self) -> None:
        """Start trials while there is room."""
        if self.stopped:
            return
        if self.busy and time.monotonic() >= self.looked + self.between:
            self.look()
        while self.waiting and self.backend.has_room(self.request(self.waiting[0])):
            self.begin(self.waiting.popleft())

    @property
    def between(self) -> float:
        """Seconds between two looks at what other runners are at: few, and then more, once nothing else is left to run."""
        return LONGEST_PAUSE if self.waiting or self.running else self.patience

    def look(self) -> None:
        """Look at the trials that other runners are at: what they have finished is done, what they have left is to be run."""
        before = len(self.busy)
        for turn in [self.busy.popleft() for _ in range(before)]:
            if (state := self.ask(turn.trial)) == "busy":
                self.busy.append(turn)
            elif state == "free":
                self.waiting.append(turn)
        self.looked = time.monotonic()
        self.patience = FIRST_PAUSE if len(self.busy) < before else min(1.5 * self.patience, LONGEST_PAUSE)

    def pause(self) -> float:
        """Seconds to wait for something to end."""
        if self.waiting or self.running:
            return TICK_SECONDS
        return min(TICK_SECONDS, max(0.0, self.looked + self.patience - time.monotonic())) if self.busy else 0.0

    def ask(self, trial: Trial) -> Literal["free", "busy", "done"]:
        """Whether a trial is to be run here; if another runner has run it, its record is kept."""
        self.signals.check()
        state = self.store.discard(trial.key, self.code[trial.key], self.keeps(trial), self.known[trial.key])
        return "free" if state == "done" and not self.keep_theirs(trial) else state

    def is_over(self, trial: Trial) -> bool:
        """Whether another runner has run a trial; its record is kept then."""
        known = self.known[trial.key]
        over = self.store.is_over(trial.key, self.code[trial.key], self.keeps(trial), known)
        return over and self.keep_theirs(trial)

    def keep_theirs(self, trial: Trial) -> bool:
        """Keep the record that another runner has made of a trial, if it is still there."""
        if (record := self.record_of(trial)) is None:
            return False
        self.records.append(record)
        self.memory.learn(record)
        self.view.elsewhere(trial, record)
        return True

    def keeps(self, trial: Trial) -> bool:
        """Whether its model is kept."""
        return self.keep_models and not trial.tuning

    def request(self, turn: Turn) -> Request:
        """What a trial asks for; the first of a kind has its GPU alone."""
        devices = self.devices_of(turn.trial)
        gpu = self.memory.of_gpu(turn.trial, devices) if self.capacity.gpus else None
        return Request(
            devices=devices,
            share=1.0 if gpu is None or turn.alone else self.capacity.share,
            cores=self.capacity.cores,
            memory_mb=self.memory.of_host(turn.trial),
            gpu_memory_mb=gpu,
            alone=turn.alone,
        )

    def begin(self, turn: Turn) -> None:
        """Start a process on a trial, unless another runner is at it or has run it."""
        trial = turn.trial
        if (state := self.ask(trial)) != "free":
            if state == "busy":
                self.leave(turn)
            return
        if turn.verdict is not None:
            self.settle(turn)
            return
        wandb = self.wandb.labelled(*self.labels(trial))
        request = self.request(turn)
        job = Job(
            trial,
            str(self.store.root),
            source=self.source,
            wandb=wandb,
            code=self.code[trial.key],
            keep_model=self.keeps(trial),
            devices=request.devices,
            checkpoint_every=self.times.checkpoint_every,
            time_limit=self.times.trial,
        )
        self.signals.check()
        self.signals.waiting = True  # for the back end, which may still be importing
        try:
            self.backend.submit(job, request)
        finally:
            self.signals.waiting = False
        self.running[trial.key] = turn, now()
        self.view.started(trial)

    def take(self, ended: Ended) -> None:
        """Take the record of a job that has ended, or let its trial wait for another turn."""
        turn, started = self.running.pop(ended.job.trial.key)
        record = self.record_of(turn.trial)
        if ended.how == "busy":
            # Another runner was faster by a moment, and goes through the same trials in the same order: go on elsewhere.
            self.waiting.rotate(random.SystemRandom().randrange(len(self.waiting) or 1))
            self.leave(turn)
        elif record is not None and ran_out(record) and ended.shared and not turn.alone:
            # What it lacked, others had. Its record goes at once, so that no other runner takes it for an answer.
            self.known[record.key] = self.store.stamp(record.key)
            self.store.discard(record.key, self.code[record.key], known=self.known[record.key])
            self.again(turn, "out of memory beside others: now without them", alone=True)
        elif record is not None:
            self.finish(turn, record)
        elif ended.how == "unwritable":
            raise StoreError(ended.cause)
        elif ended.how == "ended":
            self.fail(turn, ended, started, ended.cause)
        elif self.stopped or self.signals.stop is not None:
            self.cut.add(turn.trial.key)
            self.waiting.append(turn)
        elif (epochs := self.epochs_of(turn.trial)) > turn.epochs:
            self.view.retried(turn.trial, f"{ended.cause}; goes on after {counted(epochs, 'epoch')}")
            self.waiting.append(replace(turn, attempt=1, epochs=epochs))
        elif turn.attempt > (LOST if ended.how == "lost" else RETRIES):
            self.fail(turn, ended, started, f"{ended.cause}, {turn.attempt} times")
        else:
            # What the system kills may have taken too much memory: the last time nothing runs beside it.
            last = ended.how == "killed" and ended.shared and turn.attempt == RETRIES
            self.again(turn, ended.cause, alone=turn.alone or last)

    def again(self, turn: Turn, reason: str, alone: bool) -> None:
        """Let a trial wait for another start."""
        self.view.retried(turn.trial, reason)
        self.waiting.append(replace(turn, attempt=turn.attempt + 1, alone=alone))

    def leave(self, turn: Turn) -> None:
        """Leave a trial to the runner that is at it, and look at it again at the end."""
        self.busy.append(turn)
        self.view.elsewhere(turn.trial, None)

    def finish(self, turn: Turn, record: Record) -> None:
        """Keep the record of a trial that ran here."""
        self.records.append(record)
        self.memory.learn(record)
        self.view.finished(turn.trial, record)

    def fail(self, turn: Turn, ended: Ended, started: str, cause: str) -> None:
        """Give up a trial whose process could not write a record."""
        job = ended.job
        record = Record(
            key=turn.trial.key,
            trial=turn.trial,
            status="failed",
            started=started,
            finished=now(),
            environment={**self.source, "device": job.device, "threads": job.threads},
            code=job.code,
            failure=Failure(
                kind="exception" if ended.how == "ended" else "killed", message=cause, traceback=end_of_log(job)
            ),
        )
        self.settle(replace(turn, verdict=record))

    def settle(self, turn: Turn) -> None:
        """Write the record of a trial that was given up, unless there is one by now; later, if a process still has its lock."""
        assert turn.verdict is not None
        with self.store.lock(turn.trial.key, wait=False) as mine:
            if not mine:
                self.leave(turn)
                return
            if (record := self.record_of(turn.trial)) is None:
                self.store.write(record := turn.verdict)
        self.finish(turn, record)

    def epochs_of(self, trial: Trial) -> int:
        """How many epochs the checkpoint of a trial has; 0 where there is none."""
        from mmbench.packing import Damaged, read_head

        with suppress(Damaged, OSError, KeyError, TypeError, ValueError):
            return int((read_head(self.store.checkpoint(trial.key)) or {"epochs": 0})["epochs"])
        return 0

    def record_of(self, trial: Trial) -> Record | None:
        """The record of a trial, if there is a whole one."""
        try:
            return self.store.record(trial.key)
        except CorruptRecord:
            return None


def ran_out(record: Record) -> bool:
    """Whether a trial failed of memory."""
    return record.failure is not None and record.failure.kind == "out_of_memory"
