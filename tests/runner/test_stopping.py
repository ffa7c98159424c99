"""Trials whose processes end before their time go on from their checkpoints; runs that are asked to stop leave such ones."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from test_local import MakeTrial, Watcher, cpu

from mmbench import errors
from mmbench.durations import EACH
from mmbench.errors import Interrupted, NotedSignals
from mmbench.packing import read_head
from mmbench.record import Record
from mmbench.runner.backend import Request
from mmbench.runner.child import Job
from mmbench.runner.loop import run_trials
from mmbench.runner.turns import Times
from mmbench.store import Store
from mmbench.trial import Trial

EVERY = Times(checkpoint_every=EACH)


def run(trial: Trial, store: Store, times: Times = EVERY, view: Watcher | None = None) -> Record:
    (record,) = run_trials([trial], store, cpu(1), view or Watcher(), times=times)
    return record


def epochs_of(store: Store, trial: Trial) -> int:
    return (read_head(store.checkpoint(trial.key)) or {"epochs": 0})["epochs"]


def log_of(store: Store, trial: Trial) -> str:
    log = store.log(trial.key)
    return log.read_text() if log.exists() else ""


def soon(condition: Callable[[], bool], act: Callable[[], object]) -> None:
    """Do something in a thread as soon as something is so."""

    def wait() -> None:
        deadline = time.monotonic() + 60
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.005)
        act()

    threading.Thread(target=wait, daemon=True).start()


@pytest.fixture(scope="module")
def sleepy(tiny: MakeTrial) -> Trial:
    """Six epochs of four steps of 0.05 s."""
    return tiny("tiny_sleeps", epochs=6)


@pytest.fixture(scope="module")
def whole(sleepy: Trial, tmp_path_factory: pytest.TempPathFactory) -> tuple[Record, bytes]:
    """The trial's record and its predictions if nothing is done to it."""
    store = Store(tmp_path_factory.mktemp("whole"))
    record = run(sleepy, store, Times())
    return record, store.predictions(record).to_bytes()


def same(record: Record, store: Store, whole: tuple[Record, bytes]) -> None:
    """The record is that of the undisturbed trial, and there is no checkpoint any more."""
    assert record.status == "done"
    assert (record.curves, record.metrics, record.best_epoch) == (
        whole[0].curves,
        whole[0].metrics,
        whole[0].best_epoch,
    )
    assert store.predictions(record).to_bytes() == whole[1]
    assert not store.checkpoint(record.key).exists()


def test_a_trial_that_is_killed_after_every_epoch(sleepy: Trial, tmp_path: Path, whole: tuple[Record, bytes]) -> None:
    store, backend = Store(tmp_path), cpu(1)
    kills: list[int] = []

    def kill() -> None:
        kills.append(epochs_of(store, sleepy))
        for running in list(backend.running.values()):
            os.kill(running.process.pid or 0, signal.SIGKILL)

    def on_started(trial: Trial) -> None:
        if len(kills) < 5:
            soon(lambda: epochs_of(store, trial) > (kills[-1] if kills else 0), kill)

    view = Watcher(on_started)
    (record,) = run_trials([sleepy], store, backend, view, times=EVERY)
    same(record, store, whole)
    assert [r.epoch for r in record.resumed] == kills == [1, 2, 3, 4, 5], (
        "started again more often than a trial that stays"
    )
    assert view.reasons[0] == "killed by SIGKILL (the system does this when memory runs out); goes on after 1 epoch"
    log = log_of(store, record.trial)
    assert log.count(f"({sleepy.key})") == 6, "of all processes"
    assert "goes on from its checkpoint after 5 of 6 epochs" in log
    assert record.seconds["fit"] > 6 * 4 * 0.05, "of all of them"


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_a_run_that_is_asked_to_stop(
    sleepy: Trial, tiny: MakeTrial, tmp_path: Path, whole: tuple[Record, bytes], name: str
) -> None:
    store, number = Store(tmp_path), getattr(signal, name)
    before = signal.getsignal(number)
    other = tiny("tiny_good", 5)

    def ask(trial: Trial) -> None:
        soon(lambda: "epoch 1" in log_of(store, trial), lambda: os.kill(os.getpid(), number))

    view = Watcher(ask)
    with pytest.raises(Interrupted) as interrupt:
        run_trials(
            [sleepy, other], store, cpu(1), view, times=Times()
        )  # a checkpoint in ten minutes, or if it is asked to stop
    assert interrupt.value.signum == number
    words = f"stopped by {name}: 0 trials ended, 1 interrupted, with a checkpoint from which they go on, 1 not run"
    assert str(interrupt.value) == words
    assert view.events == [("started", sleepy.label), ("stops", f"stopped by {name}")]
    assert signal.getsignal(number) == before
    assert 2 <= epochs_of(store, sleepy) < 6
    assert store.record(sleepy.key) is None
    record = run(sleepy, store)
    same(record, store, whole)
    assert len(record.resumed) == 1


def test_a_run_whose_time_is_over(sleepy: Trial, tmp_path: Path, whole: tuple[Record, bytes]) -> None:
    store, backend = Store(tmp_path), cpu(1)
    backend.start()
    found: list[Record] = []
    ends: list[Interrupted] = []
    while not found and len(ends) < 20:
        try:
            found = run_trials([sleepy], store, backend, Watcher(), times=Times(until=time.monotonic() + 1.0))
        except Interrupted as interrupt:
            ends.append(interrupt)
    assert {end.signum for end in ends} == {signal.SIGTERM}
    assert all(str(end).startswith("stopped, as its time is over: 0 trials ended, 1 ") for end in ends)
    (record,) = found
    same(record, store, whole)
    with pytest.raises(Interrupted, match="its time is over: 0 trials ended, 1 not run"):
        run_trials([sleepy], Store(tmp_path / "late"), backend, Watcher(), times=Times(until=time.monotonic()))


def test_without_checkpoints_a_stop_ends_at_once(tiny: MakeTrial, tmp_path: Path) -> None:
    store, trial = Store(tmp_path), tiny("tiny_sleeps", epochs=1000)
    view = Watcher(lambda _: soon(lambda: "epoch 0" in log_of(store, trial), lambda: os.kill(os.getpid(), 15)))
    with pytest.raises(
        Interrupted, match="stopped by SIGTERM: 0 trials ended, 1 stopped without a checkpoint, to begin anew"
    ):
        run_trials([trial], store, cpu(1), view, times=Times(checkpoint_every=0))
    assert not store.checkpoint(trial.key).exists()
    assert "stopped after" not in log_of(store, trial)


def test_a_stop_that_meets_a_trial_which_has_just_ended(tiny: MakeTrial, tmp_path: Path) -> None:
    """Its process is gone and its end is not yet told of."""
    backend, trial = cpu(1), tiny("sum", epochs=1)
    backend.start()
    backend.submit(Job(trial, str(tmp_path)), Request())
    (running,) = backend.running.values()
    running.process.join()
    backend.stop()
    (end,) = backend.wait(60)
    assert (end.job.trial, end.how) == (trial, "ended")


def test_a_trial_that_takes_longer_than_it_may(sleepy: Trial, tmp_path: Path, whole: tuple[Record, bytes]) -> None:
    store = Store(tmp_path)
    record = run(sleepy, store, Times(trial=0.45))
    assert (record.status, record.failure and record.failure.kind) == ("failed", "time_limit")
    assert record.failure is not None
    epochs = epochs_of(store, sleepy)
    assert 0 < epochs < 6
    assert record.failure.message == (
        f"the time limit of 0.45s has passed after {epochs} of 6 epochs; a larger limit goes on from there"
    )
    again = run(sleepy, store, Times(trial=0.45))
    assert again.failure is not None
    assert again.failure.message == record.failure.message, "it needs no epoch to know that"
    assert epochs_of(store, sleepy) == epochs
    same(run(sleepy, store, Times(trial=60)), store, whole)


def test_a_time_limit_without_checkpoints(sleepy: Trial, tmp_path: Path) -> None:
    record = run(sleepy, Store(tmp_path), Times(checkpoint_every=0, trial=0.1))
    assert record.failure is not None
    assert record.failure.message.endswith("after 1 of 6 epochs; there is no checkpoint")


@pytest.mark.parametrize(
    ("signals", "stop", "at_once"),
    [
        (["SIGUSR1"], "SIGUSR1", None),
        (["SIGTERM"], "SIGTERM", None),
        (["SIGUSR1", "SIGUSR1"], "SIGUSR1", None),
        (["SIGUSR1", "SIGTERM"], "SIGUSR1", None),
        (["SIGTERM", "SIGTERM"], "SIGTERM", "SIGTERM"),
        (["SIGUSR1", "SIGTERM", "SIGTERM"], "SIGUSR1", "SIGTERM"),
        (["SIGTERM", "SIGINT"], "SIGTERM", "SIGINT"),
        (["SIGINT"], None, "SIGINT"),
    ],
)
def test_which_signals_stop_and_which_end(
    signals: list[str], stop: str | None, at_once: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(100))
    monkeypatch.setattr(errors, "monotonic", lambda: next(clock))
    noted, ended = sent(signals)
    assert noted.stop == (stop and getattr(signal, stop))
    assert ended == getattr(signal, at_once or stop or "")


def test_sigterm_twice_in_a_moment_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes to a process and to its group."""
    monkeypatch.setattr(errors, "monotonic", lambda: 1.0)
    noted, _ = sent(["SIGTERM", "SIGTERM"])
    noted.check()
    assert noted.stop == signal.SIGTERM


def sent(names: list[str]) -> tuple[NotedSignals, int]:
    """What is noted of signals, and which of them a run ends with."""
    noted = NotedSignals()
    with pytest.raises(Interrupted) as interrupt, noted:  # noqa: PT012  the signals come into it
        for name in names:
            os.kill(os.getpid(), getattr(signal, name))
    return noted, interrupt.value.signum
