"""The loop of a run above a back end without processes, where what becomes of each job is played."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from test_local import MakeTrial, Watcher

from mmbench.errors import Interrupted, StoreError
from mmbench.record import Failure, Record
from mmbench.runner.backend import Capacity, Ended, Request
from mmbench.runner.child import Job
from mmbench.runner.loop import LONGEST_PAUSE, LOST, RETRIES, run_trials
from mmbench.runner.turns import Times
from mmbench.store import Store
from mmbench.trial import Trial

Play = Callable[[Job], Ended]


def record(trial: Trial, status: str = "done", kind: str = "exception", **more: object) -> Record:
    failure = Failure(kind=kind, message="broken") if status == "failed" else None
    content = {"status": status, "started": "", "finished": "", "environment": {"host": "here"}, "failure": failure}
    return Record.model_validate({"key": trial.key, "trial": trial, **content, **more})


def works(job: Job) -> Ended:
    Store(job.root).write(record(job.trial))
    return Ended(job, "ended")


class Played:
    """A back end on which a job ends as soon as it is waited for."""

    def __init__(self, play: Play = works, jobs: int = 1) -> None:
        self.play, self.jobs = play, jobs
        self.submitted: list[tuple[int, Request]] = []  # the trials' seeds
        self.over: list[Ended] = []
        self.waits: list[float] = []

    def capacity(self) -> Capacity:
        return Capacity(self.jobs, 1)

    def start(self) -> None:
        pass

    def has_room(self, request: Request) -> bool:
        return len(self.over) < self.jobs

    def submit(self, job: Job, request: Request) -> None:
        self.submitted.append((job.trial.seed, request))
        self.over.append(self.play(job))

    def wait(self, timeout: float) -> Sequence[Ended]:
        self.waits.append(timeout)
        over, self.over = self.over, []
        if not over:
            time.sleep(timeout)
        return over

    def stop(self) -> None:
        raise AssertionError("nobody asked")

    def cancel(self) -> None:
        self.over = []

    @property
    def seeds(self) -> list[int]:
        return [seed for seed, _ in self.submitted]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


@pytest.fixture
def trials(tiny: MakeTrial) -> list[Trial]:
    """Four, which tune, so that a record is a result without predictions."""
    return [tiny(seed=seed).model_copy(update={"tuning": True}) for seed in range(4)]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that have passed; sleeping takes none."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: now.__setitem__(0, now[0] + max(seconds, 1e-4)))
    return now


def test_what_another_runner_is_at_waits_until_nothing_else_does_and_is_taken_over_if_that_dies(
    store: Store, trials: list[Trial], clock: list[float]
) -> None:
    with ExitStack() as held:
        assert held.enter_context(store.lock(trials[1].key, sign=True))

        def play(job: Job) -> Ended:
            if job.trial.seed == 3:
                held.close()  # the other runner dies
            return works(job)

        backend, view = Played(play), Watcher()
        records = run_trials(trials, store, backend, view)
    assert backend.seeds == [0, 2, 3, 1]
    assert [r.trial.seed for r in records] == [0, 2, 3, 1]
    assert view.events.count(("busy", trials[1].label)) == 1


def test_a_trial_that_is_given_up_while_something_still_has_its_lock_is_not_started_again(
    store: Store, trials: list[Trial], clock: list[float]
) -> None:
    """As when a method forks a process that outlives the trial's."""
    with ExitStack() as held:

        def play(job: Job) -> Ended:
            if len(backend.seeds) > RETRIES:
                held.enter_context(store.lock(job.trial.key))
            return Ended(job, "killed", "killed by SIGKILL")

        backend, view = Played(play), Watcher(on_busy=lambda trial: held.close())
        (failed,) = run_trials(trials[:1], store, backend, view)
    assert backend.seeds == [0] * (RETRIES + 1)
    assert failed.failure is not None
    assert failed.failure.message == f"killed by SIGKILL, {RETRIES + 1} times"
    assert view.events[-2:] == [("busy", trials[0].label), ("failed", trials[0].label)]


def test_a_run_that_stops_counts_what_other_runners_have_done_meanwhile(
    store: Store, trials: list[Trial], clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first trial is cut off before it has a checkpoint; of the others one is done elsewhere, one is run there, one waits."""

    def play(job: Job) -> Ended:
        store.write(record(trials[1]))
        held.enter_context(store.lock(trials[2].key, sign=True))
        clock[0] += 60
        return Ended(job, "stopped", "it was asked to end")

    backend, view, asked = Played(play), Watcher(), []
    wait = backend.wait
    monkeypatch.setattr(backend, "stop", lambda: asked.append(True))
    monkeypatch.setattr(backend, "wait", lambda timeout: wait(timeout) if asked else [])
    with ExitStack() as held, pytest.raises(Interrupted) as ends:
        run_trials(trials, store, backend, view, times=Times(until=clock[0] + 60))
    assert str(ends.value) == (
        "stopped, as its time is over: 1 trial ended, 1 stopped without a checkpoint, to begin anew, 1 not run, 1 at other runners"
    )
    assert view.events[-1] == ("done elsewhere", trials[1].label)


def test_a_run_whose_time_is_over_when_others_have_done_the_rest_is_not_interrupted(
    store: Store, trials: list[Trial], clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    def play(job: Job) -> Ended:
        for trial in trials[1:]:
            store.write(record(trial))
        clock[0] += 60
        return works(job)

    backend = Played(play)
    monkeypatch.setattr(backend, "stop", lambda: None)
    assert len(run_trials(trials, store, backend, Watcher(), times=Times(until=clock[0] + 60))) == 4
    assert backend.seeds == [0]


def test_what_another_runner_finishes_is_not_run_and_its_record_is_returned(
    store: Store, trials: list[Trial], clock: list[float]
) -> None:
    theirs = record(trials[1], environment={"host": "there"})
    with ExitStack() as held:
        held.enter_context(store.lock(trials[1].key))

        def play(job: Job) -> Ended:
            if job.trial.seed == 3:
                store.write(theirs)
                held.close()
            return works(job)

        backend, view = Played(play), Watcher()
        records = run_trials(trials, store, backend, view)
    assert backend.seeds == [0, 2, 3]
    assert records[-1] == theirs
    assert view.events[-1] == ("done elsewhere", trials[1].label)


def test_waiting_for_others_is_no_busy_waiting(
    store: Store, trials: list[Trial], clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock that is held for ten minutes is looked at some hundreds of times, at last every three seconds."""
    looks: list[float] = []
    discard = store.discard
    with ExitStack() as held:
        held.enter_context(store.lock(trials[0].key))

        def look(*arguments: Any) -> str:
            looks.append(clock[0])
            if clock[0] > 1600:
                held.close()
            return discard(*arguments)

        monkeypatch.setattr(store, "discard", look)
        backend = Played()
        run_trials(trials[:1], store, backend, Watcher())
    pauses = [after - before for before, after in pairwise(looks)]
    assert len(looks) < 230
    assert pauses[0] < 0.2
    assert max(pauses) == pytest.approx(LONGEST_PAUSE, abs=0.01)
    assert len(backend.waits) < 1600
    assert backend.seeds == [0]


def test_a_process_that_finds_the_lock_taken_gives_its_trial_back_and_the_runner_goes_on_elsewhere(
    store: Store, trials: list[Trial], clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("random.SystemRandom.randrange", lambda self, stop: stop - 1)
    collided: Counter[int] = Counter()

    def play(job: Job) -> Ended:
        collided[job.trial.seed] += 1
        return Ended(job, "busy") if job.trial.seed == 0 and collided[0] == 1 else works(job)

    backend, view = Played(play), Watcher()
    records = run_trials(trials, store, backend, view)
    assert backend.seeds == [0, 2, 3, 1, 0]
    assert len(records) == 4
    assert view.events[:2] == [("started", trials[0].label), ("busy", trials[0].label)]


def test_a_failure_counts_if_another_runner_had_it_since_this_one_began(
    store: Store, trials: list[Trial], clock: list[float]
) -> None:
    store.write(record(trials[1], "failed", started="before"))

    def play(job: Job) -> Ended:
        if job.trial.seed == 0:
            store.write(record(trials[2], "failed", started="meanwhile"))
        return works(job)

    backend = Played(play)
    records = run_trials(trials, store, backend, Watcher())
    assert backend.seeds == [0, 1, 3]
    assert [r.started for r in records] == ["", "", "meanwhile", ""]


@pytest.mark.parametrize(("how", "starts"), [("killed", RETRIES + 1), ("lost", LOST + 1)])
def test_a_killed_trial_has_three_starts_and_one_whose_node_goes_away_more(
    store: Store, trials: list[Trial], clock: list[float], how: str, starts: int
) -> None:
    backend = Played(lambda job: Ended(job, how, "the node went away"))  # type: ignore[arg-type]
    (given_up,) = run_trials(trials[:1], store, backend, Watcher())
    assert len(backend.submitted) == starts
    assert given_up.failure is not None
    assert (given_up.failure.kind, given_up.failure.message) == ("killed", f"the node went away, {starts} times")


def test_a_trial_that_cannot_be_given_up_because_another_runner_has_begun_it_is_left_to_that(
    store: Store, trials: list[Trial], clock: list[float]
) -> None:
    with ExitStack() as held:
        starts = []

        def play(job: Job) -> Ended:
            starts.append(job)
            if len(starts) == RETRIES + 1:
                held.enter_context(store.lock(job.trial.key))
            return Ended(job, "killed", "killed by SIGKILL")

        def finish(trial: Trial) -> None:
            store.write(record(trial, environment={"host": "there"}))
            held.close()

        (theirs,) = run_trials(trials[:1], store, Played(play), Watcher(on_busy=finish))
    assert theirs.environment == {"host": "there"}


# Locks


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (
            errno.ENOSYS,
            "Function not implemented; this file system has no locks: mount it with flock, or choose another",
        ),
        (errno.EOPNOTSUPP, "not supported; this file system has no locks"),
        (errno.ENOLCK, "No locks available; the lock service of the file server does not answer"),
        (errno.EACCES, "Permission denied; the file server refuses locks to this user"),
        (errno.ESTALE, "file handle; the file server has lost the file: mount the file system anew"),
        (errno.EIO, "--results has to be on a file system that has locks"),
    ],
)
def test_a_file_system_without_locks_ends_the_run_and_says_what_to_do(
    store: Store, trials: list[Trial], monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    backend = Played()
    with pytest.raises(StoreError, match=words):
        run_trials(trials, store, backend, Watcher())
    assert not backend.submitted


def test_a_lock_that_is_left_behind_is_nothing_and_one_that_is_held_keeps_its_holders_name(
    store: Store, trials: list[Trial]
) -> None:
    key = trials[0].key
    store.folder(key).mkdir(parents=True)
    (store.folder(key) / "lock").write_text("a machine that is gone process 1 since 2001-01-01T00:00:00+00:00\n")
    assert store.discard(key) == "free"
    with store.lock(key, wait=False, sign=True) as mine:
        assert mine
        assert store.discard(key) == "busy"
        with store.lock(key, wait=False, sign=True) as second:
            assert not second
        assert f" process {os.getpid()} since 20" in store.holder(key)
    assert run_trials(trials[:1], store, Played(), Watcher())[0].status == "done"
