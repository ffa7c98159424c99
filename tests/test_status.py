"""What ``mmbench status`` says of trials that run, wherever they do, and of what others left."""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack

import pytest

from mmbench.cli import main
from mmbench.locks import holder_now
from mmbench.machine import host
from mmbench.store import Store
from mmbench.trial import Trial
from test_provenance import OURS, here  # noqa: F401  a fixture


@pytest.fixture
def store(here: list[Trial], monkeypatch: pytest.MonkeyPatch) -> Store:  # noqa: F811
    """Of four trials that are done nothing is left but the first."""
    monkeypatch.setattr("mmbench.provenance.read_module", OURS)
    store = Store("results/runs")
    for trial in here[1:]:
        shutil.rmtree(store.folder(trial.key))
    return store


def last_line(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert main(["status", *arguments]) == 0
    return capsys.readouterr().out.splitlines()[-1]


def test_trials_that_run_are_counted_by_their_host(
    here: list[Trial],  # noqa: F811
    store: Store,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of what no process holds any more the lock is left, which says nothing."""
    keys = [trial.key for trial in here]
    assert last_line(capsys, "grid.yaml") == "4 trials, 1 done, 3 not run"
    with ExitStack() as held:
        held.enter_context(store.lock(keys[1], sign=True))
        expected = f"4 trials, 1 done, 2 not run, 1 running ({host()})"
        assert last_line(capsys, "grid.yaml") == expected
        assert last_line(capsys) == f"2 trials, 1 done, 1 running ({host()})"
        for key in keys[2:]:
            held.enter_context(store.lock(key))
            (store.folder(key) / "lock").write_text("node7 process 12 since 2026-01-01T00:00:00+00:00\n")
        assert last_line(capsys, "grid.yaml") == f"4 trials, 1 done, 3 running (2 on node7, 1 on {host()})"
    store.checkpoint(keys[2]).touch()
    assert last_line(capsys, "grid.yaml") == "4 trials, 1 done, 1 interrupted, 2 not run"
    assert last_line(capsys) == "2 trials, 1 done, 1 interrupted"


def test_to_ask_who_holds_a_lock_changes_nothing(store: Store) -> None:
    lock = store.folder("beef") / "lock"
    assert holder_now(lock) == ""
    assert not lock.parent.exists()
    with store.lock("beef", sign=True):
        assert holder_now(lock) == store.holder("beef") != ""
        lock.write_text("")
        assert holder_now(lock) == "unknown"
        with store.lock("beef", wait=False) as mine:
            assert not mine
    os.chmod(lock, 0o444)
    assert holder_now(lock) == ""
    with store.lock("beef", wait=False) as mine:
        assert mine, "nothing holds it after it was asked"


def test_who_is_at_trials_that_have_records_is_not_asked(
    here: list[Trial],  # noqa: F811
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mmbench.provenance.read_module", OURS)

    def refuse(*_: object) -> str:
        raise AssertionError("asked")

    monkeypatch.setattr(Store, "holder_now", refuse)
    assert last_line(capsys, "grid.yaml") == "4 trials, 4 done"
