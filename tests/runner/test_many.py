"""Several runners on one store, through real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections import Counter
from pathlib import Path

import pytest
from test_local import MakeTrial, Watcher, cpu

from mmbench.machine import host
from mmbench.runner.loop import run_trials
from mmbench.store import Store
from test_cli import COMMAND, environment, mmbench, wait_until, workplace
from test_tuned_run import FAIR

GRID = """\
title: trials that take a second each, and are counted
datasets:
  tiny:
    recipe: {epochs: 2, lr: 0.1, batch_size: 16}
methods: {tiny_noted: }
seeds: [SEEDS]
"""


def test_locks_and_records_say_where_a_trial_ran(tiny: MakeTrial, tmp_path: Path) -> None:
    store, trial = Store(tmp_path), tiny()
    (record,) = run_trials([trial], store, cpu(1), Watcher())
    assert record.environment["host"] == host()
    assert store.holder(trial.key).startswith(f"{host()} process ")
    assert not store.holder(trial.key).startswith(f"{host()} process {os.getpid()} "), "the trial's, not the runner's"


def test_a_record_that_another_machine_wrote_meanwhile_stays(tiny: MakeTrial, tmp_path: Path) -> None:
    """As where locks do not reach other machines: two hold the same one."""
    trial, store = tiny("tiny_sleeps", epochs=4), Store(tmp_path / "runs")
    (theirs,) = run_trials([trial], Store(tmp_path / "theirs"), cpu(1), Watcher())
    predictions = Store(tmp_path / "theirs").predictions(theirs)
    theirs.environment = {"host": "node7"}

    def write() -> None:
        log = store.log(trial.key)
        wait_until(lambda: log.exists() and "asleep" in log.read_text(), 30)
        (store.folder(trial.key) / "lock").write_text("node7 process 12 since 2026-01-01T00:00:00+00:00\n")
        store.write(theirs, predictions)

    other, view = threading.Thread(target=write), Watcher()
    other.start()
    (record,) = run_trials([trial], store, cpu(1), view)
    other.join()
    assert record == theirs
    assert store.done(trial.key) == theirs
    assert [kind for kind, _ in view.events] == ["started", "busy", "done elsewhere"]
    said = store.log(trial.key).read_text()
    assert "another machine has written the record of this trial meanwhile, which stays; its lock names node7" in said
    assert "does not pass locks (flock) on" in said


def start(folder: Path, name: str, variables: dict[str, str]) -> subprocess.Popen[str]:
    """A runner of one trial at a time."""
    return subprocess.Popen(
        [*COMMAND, "run", name, "--jobs", "1"],
        cwd=folder, env=variables, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
    )  # fmt: skip


def records(folder: Path) -> int:
    return len(list((folder / "results" / "runs").glob("*/record.json")))


@pytest.mark.slow
def test_three_runners_that_are_killed_in_turn_run_everything_once(tmp_path: Path) -> None:
    seeds = 24
    folder = workplace(tmp_path, grid=GRID.replace("SEEDS", ", ".join(map(str, range(seeds)))))
    variables = environment(MMBENCH_TESTING_MARKER=str(tmp_path / "marker"), MMBENCH_TESTING_SLEEP="0.1")
    runners = [start(folder, "grid", variables) for _ in range(3)]
    try:
        for runner, count in zip(runners[:2], (3, 9), strict=True):
            assert wait_until(lambda count=count: records(folder) >= count, 200)  # type: ignore[misc]
            os.kill(runner.pid, signal.SIGKILL)
        _, said = runners[2].communicate(timeout=200)
    finally:
        for runner in runners:
            runner.kill()
            runner.wait()
            assert runner.stderr is not None
            runner.stderr.close()
    assert runners[2].returncode == 0, said
    store = Store(folder / "results" / "runs")
    keys = store.keys()
    assert len(keys) == seeds
    assert all(store.done(key) for key in keys)
    noted = Counter((tmp_path / "marker-noted").read_text().split())
    assert set(noted) == {str(seed) for seed in range(seeds)}
    again = sum(count - 1 for count in noted.values())
    assert again <= 2, "only what a runner was at when it was killed, after the training, has been trained twice"
    assert " run elsewhere" in said
    assert f"{seeds} trials, {seeds} done, 0 to do" in mmbench(folder, "run", "grid").stderr


@pytest.mark.slow
def test_two_runners_tune_together(tmp_path: Path) -> None:
    """The second stage begins in both when the trials of the first are done, whoever ran them; both choose the same."""
    folder = workplace(tmp_path, fair=FAIR.replace("late_fusion", "tiny_noted"))
    variables = environment(MMBENCH_TESTING_MARKER=str(tmp_path / "marker"), MMBENCH_TESTING_SLEEP="0.05")
    runners = [start(folder, "fair", variables) for _ in range(2)]
    said = [runner.communicate(timeout=250)[1] for runner in runners]
    assert [runner.returncode for runner in runners] == [0, 0], said
    store = Store(folder / "results" / "runs")
    found = [record for record in map(store.record, store.keys()) if record and record.status == "done"]
    noted = [record for record in found if record.trial.method == "tiny_noted"]
    assert len(noted) > 10, "five draws and the default in two folds, and what was chosen of them"
    assert len((tmp_path / "marker-noted").read_text().split()) == len(noted), "none has been trained twice"
    for one in said:
        assert "fair, chosen settings: 4 trials" in one
        assert " run elsewhere" in one
