"""Long trials through the command line: killed with all that belongs to the run, asked to stop, out of time."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mmbench.packing import read_head
from mmbench.record import Record
from mmbench.store import Store
from test_cli import COMMAND, alive, descendants, environment, workplace

LONG = """\
title: Long
datasets: {tiny: {recipe: {epochs: 5, lr: 0.1, batch_size: 16}}}
methods: {tiny_sleeps: }
seeds: [0]
"""
WAIT = 120.0


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = workplace(tmp_path_factory.mktemp("long"))
    (folder / "experiments" / "long.yaml").write_text(LONG)
    return folder


def start(place: Path, results: str, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, "--results", results, "run", "long", "--jobs", "1", "--devices", "cpu", *options],
        cwd=place,
        env=environment(MMBENCH_TESTING_SLEEP="0.1"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def end(run: subprocess.Popen[str]) -> str:
    """Wait for a run; what it said. Nothing of it is left."""
    try:
        return run.communicate(timeout=WAIT)[1]
    finally:
        for pid in [run.pid, *descendants(run.pid)]:
            if alive(pid):
                os.kill(pid, signal.SIGKILL)


def epochs(place: Path, results: str) -> int:
    """Of the trial's checkpoint."""
    found = [read_head(path) for path in (place / results / "runs").glob("*/last.ckpt")]
    return found[0]["epochs"] if found and found[0] else 0


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.01)


def record_of(place: Path, results: str) -> tuple[Record, bytes]:
    store = Store(place / results / "runs")
    (key,) = store.keys()
    record = store.done(key)
    assert record is not None
    assert not store.checkpoint(key).exists()
    return record, store.predictions(record).to_bytes()


@pytest.fixture(scope="module")
def whole(place: Path) -> tuple[Record, bytes]:
    end(start(place, "whole"))
    return record_of(place, "whole")


@pytest.mark.slow
def test_a_run_that_is_killed_after_every_epoch(place: Path, whole: tuple[Record, bytes]) -> None:
    for epoch in range(1, 5):
        run = start(place, "killed", "--checkpoint-every", "epoch")
        until(lambda: epochs(place, "killed") >= epoch)  # noqa: B023
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        end(run)
    end(start(place, "killed"))
    record, predictions = record_of(place, "killed")
    assert predictions == whole[1]
    assert (record.curves, record.best_epoch, record.metrics) == (
        whole[0].curves,
        whole[0].best_epoch,
        whole[0].metrics,
    )
    assert len(record.resumed) >= 3
    assert [r.epoch for r in record.resumed] == sorted({r.epoch for r in record.resumed})


@pytest.mark.slow
@pytest.mark.parametrize(("name", "group"), [("SIGTERM", True), ("SIGUSR1", True), ("SIGUSR1", False)])
def test_a_run_that_is_asked_to_stop(place: Path, whole: tuple[Record, bytes], name: str, group: bool) -> None:
    """By a signal to the run, or to all of its processes, as clusters send it."""
    results = f"{name}{group}"
    run = start(place, results)
    until(lambda: any("epoch 0" in path.read_text() for path in (place / results / "runs").glob("*/log.txt")))
    (os.killpg if group else os.kill)(run.pid, getattr(signal, name))
    said = end(run)
    assert run.returncode == 128 + getattr(signal, name)
    assert (
        f"mmbench: stopped by {name}: 0 trials ended, 1 interrupted, with a checkpoint from which they go on;" in said
    )
    assert "Traceback" not in said
    status = subprocess.run(
        [*COMMAND, "--results", results, "status", "long"], cwd=place, env=environment(), capture_output=True, text=True
    )
    assert status.stdout.splitlines()[-1] == "1 trials, 1 interrupted"
    end(start(place, results))
    record, predictions = record_of(place, results)
    assert predictions == whole[1]
    assert [bool(r.host) for r in record.resumed] == [True]


@pytest.mark.slow
def test_limits(place: Path, whole: tuple[Record, bytes]) -> None:
    run = start(place, "limits", "--time-limit", "0.5s")
    said = end(run)
    assert run.returncode == 1
    assert re.search(
        r"the time limit of 0.5s has passed after [1-4] of 5 epochs; a larger limit goes on from there", said
    )
    run = start(place, "limits", "--stop-after", "1ms")
    assert "mmbench: stopped, as its time is over: 0 trials ended, 1 interrupted" in end(run)
    assert run.returncode == 143
    assert "1/1 trials" in end(start(place, "limits", "--time-limit", "1h"))
    assert record_of(place, "limits")[1] == whole[1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ["--checkpoint-every", "often"],
            "expected a length of time, such as 600, 10m or 11h50m, got 'often'; `epoch` means",
        ),
        (["--time-limit", "0"], "expected more than no time, got '0'"),
        (["--checkpoint-every", "-5m"], "got '-5m'; `epoch` means after each one, 0 never"),
        (["--stop-after", "-5m"], "expected a length of time, such as 600, 10m or 11h50m, got '-5m'"),
        (["--stop-after", "1y"], "expected a length of time"),
        (["--stop-after", "10001d"], "expected ten years at most"),
    ],
)
def test_lengths_of_time_that_are_none(options: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    from mmbench.cli import main

    with pytest.raises(SystemExit) as ended:
        main(["run", "table1", *options])
    assert ended.value.code == 2
    assert words in capsys.readouterr().err
