"""The array of runners: what is submitted, what a runner does when its time is over, and an array on this machine."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import submitit
from test_local import MakeTrial

from mmbench import submitted
from mmbench.cli import main, parser
from mmbench.errors import RunnerError, UsageError
from mmbench.record import Failure, Record
from mmbench.runner.slurm import Array, Runner, runner_arguments, submit, what_failed
from mmbench.runner.values import pairs, seconds_of
from mmbench.store import Store
from mmbench.trial import Trial

TWO = """
title: Two methods
datasets: {openclipart_features: {recipe: {epochs: 1, lr: 0.05}}}
methods: {concat: , sum: }
seeds: [0, 1]
"""


def arguments(folder: Path, *options: str) -> Any:
    argv = ["run", "two", "--results", str(folder), "--backend", "slurm", *options]
    given = parser().parse_args(argv)
    given.argv = argv
    return given


# What is submitted


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 5400), ("2:30", 150), ("12:00:00", 43200), ("1-12", 129600), ("1-0:30", 88200), ("7-00:00:01", 604801)],
)
def test_times_are_read_as_slurm_does(text: str, seconds: int) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "12h", "-1", "1-", "1:2:3:4", "0", "0:00:00", "1.5"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=f"--time {text}: expected"):
        seconds_of(text)


def test_more_options_of_sbatch(tmp_path: Path) -> None:
    given = ["account=me", "mem_per_cpu=4G", "export=ALL,MMBENCH_DATA=/x"]
    assert pairs(given) == {"account": "me", "mem-per-cpu": "4G", "export": "ALL,MMBENCH_DATA=/x"}
    for wrong, words in {
        "mem": "expected KEY=VALUE",
        "=1": "expected KEY=VALUE",
        "time=5": "an option of its own",
    }.items():
        with pytest.raises(UsageError, match=f"--slurm {wrong}: .*{words}"):
            pairs([wrong])


def test_a_runner_is_told_what_is_not_about_the_array() -> None:
    kept = ["--results r run table1", "--filter method=mla seed=0", "--jobs 2 --keep-models", "--set seeds=[0]"]
    array = [
        "--backend slurm --time 1:00:00",
        "--slurm mem=1G account=a --array 3",
        "--data-dir /d --no-wait",
        "--partition=p",
    ]
    argv = " ".join(part for parts in zip(kept, array, strict=True) for part in parts).split()
    assert runner_arguments(argv) == [*" ".join(kept).split(), "--no-report"]


def test_the_job_file_says_it_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slurm is a script here that keeps what it is given."""
    for name in ("sbatch", "srun"):
        (tmp_path / name).write_text(f'#!/bin/sh\ncp "$1" {tmp_path}/job.sh\necho Submitted batch job 123\n')
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    options = "--partition gpu --time 12:00:00 --array 8 --gpus-per-task 2 --cpus-per-task 16 --slurm account=me"
    array = submit(arguments(tmp_path, *options.split()), "two", {})
    lines = (tmp_path / "job.sh").read_text().splitlines()
    assert {
        "#SBATCH --array=0-7%8", "#SBATCH --partition=gpu", "#SBATCH --time=720", "#SBATCH --gpus-per-task=2", "#SBATCH --requeue",
        "#SBATCH --cpus-per-task=16", "#SBATCH --account=me", "#SBATCH --signal=USR2@600", "#SBATCH --job-name=mmbench-two",
    } <= set(lines)  # fmt: skip
    logs = tmp_path / "slurm" / "two"
    assert array.words == f"submitted 8 runners as job 123; logs: {logs}/*_log.out; `scancel 123` ends them"
    runner = submitit.core.utils.DelayedSubmission.load(array.jobs[7].paths.submitted_pickle).function
    assert list(runner.command[:3]) == [sys.executable, "-m", "mmbench"]
    assert runner.command[3:] == ["run", "two", "--results", str(tmp_path), "--no-report"]


def test_what_slurm_refuses_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sbatch", "srun"):
        (tmp_path / name).write_text("#!/bin/sh\necho sbatch: error: invalid partition specified: gpu >&2\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(UsageError, match=r"cannot be submitted: .*invalid partition specified: gpu"):
        submit(arguments(tmp_path, "--time", "5", "--array", "1"), "two", {})


@pytest.mark.parametrize("dry", ["", "--dry-run"])
@pytest.mark.parametrize(
    ("options", "mistakes"),
    [
        ("--array 2", ["--backend slurm: --time missing"]),
        ("", ["--backend slurm: --time and --array missing"]),
        ("--array 2 --time 0:00:00", ["--time 0:00:00: expected some time"]),
        (
            "--address auto --time soon --slurm foo mem=1G time=5",
            [
                "--address is an option of --backend ray",
                "--array missing",
                "--time soon: expected a time",
                "--slurm foo: expected KEY=VALUE",
                "--slurm time=5: --time is an option of its own",
            ],
        ),
    ],
)
def test_all_mistakes_are_told_before_anything_else(
    options: str, mistakes: list[str], dry: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(f"run table1 --backend slurm {options} {dry}".split()) == 2
    *told, page = capsys.readouterr().err.splitlines()
    assert "how_to/many_gpus" in page
    assert len(told) == len(mistakes)
    assert all(mistake in line for mistake, line in zip(mistakes, told, strict=True))


def test_what_is_not_installed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    given = arguments(tmp_path, "--array", "2", "--time", "5")
    with pytest.raises(UsageError, match="there is no sbatch on this machine"):
        submit(given, "two", {})
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UsageError, match=r"submitit is not installed; pip install 'mmbench\[slurm\]'"):
        submit(given, "two", {})


def test_when_the_runners_have_ended_trials_are_counted_once_more(
    tiny: MakeTrial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last count of those that are told once a minute is an old one."""
    trials, store = [tiny(seed=seed) for seed in range(3)], Store(tmp_path)
    done: list[Trial] = []

    def wait(array: Array, tell: Callable[[int], None]) -> list[str]:
        tell(1)
        done.append(trials[0])
        failure = Failure(kind="exception", message="broken")
        store.write(
            Record(
                key=trials[1].key,
                trial=trials[1],
                status="failed",
                started="",
                finished="",
                environment={},
                failure=failure,
            )
        )
        return []

    monkeypatch.setattr(Array, "wait", wait)
    monkeypatch.setattr(submitted, "submit", lambda *_: Array([SimpleNamespace(job_id="7")], tmp_path, True))
    running = SimpleNamespace(
        experiment=SimpleNamespace(name="tiny", describe=lambda trial: trial.label), store=store, first=trials, searches=[],
        codes=SimpleNamespace(modules=lambda trials: {}), budget=str, room=lambda todo: "",
        split=lambda trials: ([(trial, None) for trial in done], [trial for trial in trials if trial not in done]),
    )  # fmt: skip
    assert submitted.run_array(running, arguments(tmp_path)) is True  # type: ignore[arg-type]
    said = capsys.readouterr().err.splitlines()
    assert said[2:4] == ["0/3 trials, 1 of 1 runners", "2/3 trials, 1 failed"]
    assert said[4].startswith(f"failed: {trials[1].label}: broken")


# A runner


@pytest.mark.parametrize("code", [0, 1])
def test_a_runner_gives_back_the_exit_code(code: int, tmp_path: Path) -> None:
    assert Runner([sys.executable, "-c", f"raise SystemExit({code})"], str(tmp_path), {})() == code


def test_a_runner_that_fails_is_told(tmp_path: Path) -> None:
    with pytest.raises(RunnerError, match="ended with exit code 3 on "):
        Runner([sys.executable, "-c", "raise SystemExit(3)"], str(tmp_path), {})()


def test_a_runner_with_other_code_refuses(tmp_path: Path) -> None:
    runner = Runner([sys.executable, "-c", "open('ran', 'w')"], str(tmp_path), {"mmbench.trial": "0"})
    with pytest.raises(RunnerError, match=r"has other code than the trials were planned with \(mmbench.trial\)"):
        runner()
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (None, ""),
        (
            "trace:\nTraceback:\n  File\nmmbench.errors.RunnerError: node1 has other code: install it\n---",
            "node1 has other code: install it",
        ),
        ("Job 7 has not produced any output", "left no result, and is CANCELLED"),
    ],
)
def test_why_a_runner_failed_is_one_line(error: str | None, words: str) -> None:
    job = SimpleNamespace(exception=lambda: None if error is None else RuntimeError(error), state="CANCELLED")
    assert what_failed(job) == words


SLEEPS = """
import pathlib, signal, time
signal.signal(signal.SIGUSR1, lambda *_: exit(138))
pathlib.Path("up").touch()
time.sleep(60)
"""


def test_a_runner_whose_time_is_over_stops_and_is_submitted_again(tmp_path: Path) -> None:
    """The signal that says so may reach the runner's own processes, and is not to end them."""
    runner = Runner([sys.executable, "-c", SLEEPS], str(tmp_path), {})
    again: list[Any] = []

    def over(signum: int, frame: object) -> None:
        assert runner.process is not None
        os.kill(runner.process.pid, signal.SIGUSR2)
        time.sleep(0.2)
        assert runner.process.poll() is None
        again.append(runner.checkpoint())
        raise KeyboardInterrupt

    def signals() -> None:
        while not (tmp_path / "up").exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGUSR2)

    before = signal.signal(signal.SIGUSR2, over)
    thread = threading.Thread(target=signals)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            runner()
    finally:
        signal.signal(signal.SIGUSR2, before)
        thread.join()
    assert runner.process is not None
    assert runner.process.returncode == 138
    assert again[0].function == Runner(runner.command, runner.folder, {})


STOPS_ONCE = """
import pathlib
there = pathlib.Path("there").exists()
pathlib.Path("there").touch()
raise SystemExit(0 if there else 138)
"""


@pytest.mark.slow
def test_a_runner_that_was_stopped_is_requeued(tmp_path: Path) -> None:
    executor = submitit.LocalExecutor(tmp_path / "jobs", max_num_timeout=100)
    executor.update_parameters(timeout_min=5)
    job = executor.submit(Runner([sys.executable, "-c", STOPS_ONCE], str(tmp_path), {}, settle=0.0))
    assert Array([job], tmp_path, local=True).wait(print) == []
    assert job.result() == 0
    assert "Requeued job" in job.stdout() + job.stderr()


@pytest.mark.slow
def test_an_array_of_two_shares_a_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "two.yaml").write_text(TWO)
    monkeypatch.chdir(tmp_path)
    command = "run two.yaml --backend slurm --cluster local --time 30 --array 2 --jobs 1 --devices cpu --no-report"
    assert main(command.split()) == 0
    said = capsys.readouterr()
    assert said.err.endswith("\n4/4 trials\n")
    assert "two: 4 trials, 0 done, 4 to do\nsubmitted 2 runners on this machine; logs: " in said.err
    assert "report:" not in said.err
    store = Store(tmp_path / "results" / "runs")
    keys = list(store.keys())
    assert len(keys) == 4
    logs = [path.read_text() for path in (tmp_path / "results/slurm/two").glob("*_log.out")]
    assert len(logs) == 2
    assert all("4/4 trials" in log for log in logs)
    for key in keys:
        assert store.done(key) is not None
        assert store.log(key).read_text().count(f"({key})") == 1, "begun once"
