"""What runners lose between trials, as ratios measured in one run.

Several runners on one store: how many times as fast two are as one, on two cores, with trials that train. And slots: how much of the
time eight of them are busy, with trials that sleep. Runners have their imports done before the clock starts.
"""

from __future__ import annotations

import heapq
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mmbench.record import Record
from mmbench.runner.child import Job, now
from mmbench.store import Store

if TYPE_CHECKING:  # trials' processes import this file: above is only what they have already
    from mmbench.runner.view import GridView
    from mmbench.trial import Trial

TURNS = 3
TRIALS, EPOCHS = 16, 4
SLOTS, SLEEPS = 8, 32


def main() -> None:
    """Print both ratios."""
    print(
        f"{SLOTS} slots of {SLEEPS} trials that sleep {seconds_of(0)} to {seconds_of(5)} s: {ideal() / asleep():.1%} as fast as if "
        "their starts took no time (goal: at least 97 %)",
        flush=True,
    )
    command = [sys.executable, __file__, "--serve"]
    runners = [  # of a session each, as users' are: Linux shares out the time of cores by session first
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
        for _ in range(2)
    ]
    for runner in runners:
        answer(runner)
    one, two = [], []
    for _ in range(TURNS):
        one.append(together(runners[:1]))
        two.append(together(runners))
        print(
            f"one runner: {one[-1]:.1f} s, two on one store: {two[-1]:.1f} s, {one[-1] / two[-1]:.2f} times as fast",
            flush=True,
        )
    for runner in runners:
        runner.communicate()
    ratio = statistics.median(a / b for a, b in zip(one, two, strict=True))
    print(f"two runners on one store: {ratio:.2f} times as fast as one (goal: at least 1.85; {TRIALS} trials)")


def trials(count: int) -> list[Trial]:
    """Trials on the embedded data, which differ in their seeds."""
    from mmbench.experiment.plan import expand

    raw = {
        "title": "",
        "datasets": {"openclipart": {"recipe": {"epochs": EPOCHS}}},
        "methods": {"concat": None},
        "seeds": list(range(count)),
    }
    return list(expand(raw).trials)


def quiet() -> GridView:
    """A view that shows nothing."""
    from rich.console import Console

    from mmbench.runner.view import GridView

    return GridView(console=Console(quiet=True))


def together(runners: Sequence[subprocess.Popen[str]]) -> float:
    """The seconds that runners, of one trial at a time, take for all trials."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        for runner in runners:
            assert runner.stdin is not None
            runner.stdin.write(f"{folder}\n")
            runner.stdin.flush()
        for runner in runners:
            answer(runner)
        seconds = time.perf_counter() - began
        assert len(Store(folder).keys()) == TRIALS
    return seconds


def answer(runner: subprocess.Popen[str]) -> None:
    """Wait until a runner is ready for the next turn."""
    assert runner.stdout is not None
    assert runner.stdout.readline() == "ready\n", "the runner has died"


def serve() -> None:
    """One runner: for every folder that it is given, runs there what there is to run."""
    from mmbench.runner.local import LocalBackend
    from mmbench.runner.loop import run_trials

    backend, todo = LocalBackend(1), trials(TRIALS)
    with tempfile.TemporaryDirectory() as folder:
        run_trials(todo[:1], Store(folder), backend, quiet())  # the server has done its imports
    print("ready", flush=True)
    for line in sys.stdin:
        run_trials(todo, Store(line.strip()), backend, quiet())
        print("ready", flush=True)


def asleep() -> float:
    """The seconds that trials take that sleep, in slots of this process."""
    from mmbench.runner import local
    from mmbench.runner.loop import run_trials

    local.main = sleep
    todo = [trial.model_copy(update={"tuning": True}) for trial in trials(SLEEPS + SLOTS)]
    backend = local.LocalBackend(SLOTS)
    with tempfile.TemporaryDirectory() as folder:
        run_trials(todo[:SLOTS], Store(folder), backend, quiet())
        began = time.perf_counter()
        run_trials(todo[SLOTS:], Store(folder), backend, quiet())
        return time.perf_counter() - began


def seconds_of(seed: int) -> int:
    """How long a trial sleeps: not all the same, so that slots do not become free together."""
    return 5 + seed % 6


def ideal() -> int:
    """The seconds that all take, each in the slot that is free first."""
    free = [0] * SLOTS
    for seed in range(SLOTS, SLOTS + SLEEPS):
        heapq.heapreplace(free, free[0] + seconds_of(seed))
    return max(free)


def sleep(job: Job) -> None:
    """In a trial's process: no work, and a record."""
    began, store = now(), Store(job.root)
    with store.lock(job.trial.key, wait=False, sign=True):
        time.sleep(seconds_of(job.trial.seed))
        store.write(
            Record(key=job.trial.key, trial=job.trial, status="done", started=began, finished=now(), environment={})
        )


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    if sys.argv[1:2] == ["--serve"]:
        serve()
    else:
        main()
