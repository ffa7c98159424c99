"""Whatever is killed, and however: nothing is lost, nothing runs twice, and the predictions are those of an undisturbed run.

    MMBENCH_KILLS=600 MMBENCH_KILL_SECONDS=7200 pytest -m slow tests/robustness/test_kills.py
    python tests/robustness/test_kills.py --kills 600 --seed 1          the same, with its figures and other draws

Runs are started as ``mmbench run`` starts them, by processes forked from this one, so that no time goes into imports; the fork server
of a run is forked from it too. What is killed is drawn: a trial, the fork server, the runner, or the whole process group.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import util
from pathlib import Path

import numpy as np
import pytest

COUNT = int(os.environ.get("MMBENCH_KILLS", "60"))
SECONDS = float(
    os.environ.get("MMBENCH_KILL_SECONDS", "600")
)  # after which no more kills come; the rounds are brought to their end
PLUGIN = Path(__file__).parents[1] / "plugin"
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
TARGETS = ("trial", "server", "runner", "group")
METHODS = ("tiny_good", "sum", "mla", "qmf")
SEEDS = 5  # of a round: 20 trials
MEMORY = 6 * 2**30  # of a process's data
OUTSIDE = "outside the command line:"  # the words of this test's own process, for signals that come too early

GRID = """\
title: Kills
datasets: {{tiny: {{recipe: {{epochs: 3, lr: 0.1, batch_size: 16}}}}}}
methods: {{{methods}}}
seeds: [{seeds}]
"""


@dataclass
class Tally:
    """What happened.

    Attributes:
        kills: by target and signal.
        ends: how runs ended: their exit codes.
        at_stake: kills times the trials that were done when they came.
        wrong: what must not happen, a line each.
    """

    kills: Counter[str] = field(default_factory=Counter)
    ends: Counter[int] = field(default_factory=Counter)
    rounds: int = 0
    finished: int = 0
    at_stake: int = 0
    again: int = 0
    peak_mb: float = 0.0
    wrong: list[str] = field(default_factory=list)


# A run, forked from this process


def fork(name: str, body: Callable[[], None]) -> int:
    """Run a function in a child of this process, which the kernel knows by a name, and which ends without coming back."""
    sys.stdout.flush()
    sys.stderr.flush()
    if pid := os.fork():
        return pid
    try:
        Path("/proc/self/comm").write_text(name)
        body()
    except SystemExit:  # how a fork server ends that is not needed any more
        os._exit(0)
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
    os._exit(99)


def fork_instead_of_starting(path: bytes, arguments: list[str], kept: list[int]) -> int:
    """What multiprocessing starts an interpreter for (the fork server, the tracker of resources), in a fork that has the imports."""

    def body() -> None:
        keep = {0, 1, 2, *kept}
        for descriptor in map(int, os.listdir("/proc/self/fd")):
            if descriptor not in keep:
                with suppress(OSError):
                    os.close(descriptor)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        exec(arguments[-1], {"__name__": "server"})

    return fork("mm-tracker" if "resource_tracker" in arguments[-1] else "mm-server", body)


def start_run(folder: Path, grid: Path, log: Path) -> int:
    """Start ``mmbench run`` on a grid, in a session of its own."""

    def body() -> None:
        from mmbench.cli import main
        from mmbench.errors import Interrupted, raise_on_signals

        os.setsid()
        with log.open("a") as handle:
            os.dup2(handle.fileno(), 1)
            os.dup2(handle.fileno(), 2)
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        util.spawnv_passfds = fork_instead_of_starting  # type: ignore[assignment]
        code = 99
        try:
            with raise_on_signals():
                signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
                code = main(
                    [
                        "--results",
                        str(folder),
                        "run",
                        str(grid),
                        "--jobs",
                        "2",
                        "--devices",
                        "cpu",
                        "--checkpoint-every",
                        "epoch",
                    ]
                )
        except Interrupted as interrupt:  # while the command line does not have its hands on signals: before, and after
            print(f"{OUTSIDE} {interrupt}")
            code = 128 + interrupt.signum
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        return fork("mm-runner", body)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def session(leader: int) -> dict[str, list[int]]:
    """The processes of a run, by what they are: runner, server, trial."""
    found: dict[str, list[int]] = {"runner": [], "server": [], "trial": [], "tracker": []}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            name, _, rest = (entry / "stat").read_text().partition(" (")[2].rpartition(") ")
        except OSError:
            continue
        state, _, _, leads = rest.split()[:4]
        if int(leads) == leader and state != "Z":
            what = "runner" if int(entry.name) == leader else name.removeprefix("mm-")
            found.setdefault(what, []).append(int(entry.name))
    servers = found["server"]
    found["trial"] = [pid for pid in servers if has_threads(pid)]
    found["server"] = [pid for pid in servers if pid not in found["trial"]]
    return found


def has_threads(pid: int) -> bool:
    """Whether a process has begun a trial: those have a thread that watches the runner; the server has none."""
    try:
        return len(os.listdir(f"/proc/{pid}/task")) > 1
    except OSError:
        return False


# Killing


def done(folder: Path) -> dict[str, tuple[int, int]]:
    """The trials that are done, and which file says so."""
    found = {}
    for path in (folder / "runs").glob("*/record.json"):
        if b'"status": "done"' in path.read_bytes():
            found[path.parent.name] = (path.stat().st_ino, path.stat().st_mtime_ns)
    return found


def disturb(folder: Path, pid: int, pace: float, rng: np.random.Generator, tally: Tally, kills: int) -> int:
    """Kill parts of a run at random moments until it has ended; returns its exit code."""
    while True:
        time.sleep(rng.uniform(0.0, 3 * pace))
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if tally.kills.total() >= kills:
            continue
        target, number = TARGETS[rng.integers(4)], SIGNALS[rng.integers(3)]
        victims = {"group": [-pid], **session(pid)}[target]
        if not victims:
            continue
        before = done(folder)
        try:
            os.kill(victims[rng.integers(len(victims))], number)
        except ProcessLookupError:
            continue
        tally.kills[f"{target} {number.name}"] += 1
        tally.at_stake += len(before)
        time.sleep(rng.uniform(0.0, pace / 2))
        after = done(folder)
        tally.wrong += [
            f"{key} was lost or run again after {number.name} to the {target}"
            for key in before
            if after.get(key) != before[key]
        ]


def check_words(log: Path, code: int, tally: Tally) -> None:
    """A run ends in words, whatever came over it."""
    said = log.read_text()
    if "Traceback" in said or "Exception ignored" in said:
        tally.wrong.append(f"no answer in words (exit code {code}):\n{said[-3000:]}")
    if code not in (0, 1, 130, 143, -9):
        tally.wrong.append(f"a run ended with exit code {code}")
    if code in (130, 143) and not re.search("mmbench: (ended|stopped) by SIG", said) and OUTSIDE not in said:
        tally.wrong.append(f"an ended run does not say so:\n{said[-500:]}")


def run_to_the_end(folder: Path, grid: Path) -> None:
    """Run a grid undisturbed."""
    log = folder / "undisturbed.log"
    _, status = os.waitpid(start_run(folder, grid, log), 0)
    assert os.waitstatus_to_exitcode(status) == 0, log.read_text()


def attack(folder: Path, kills: int, seconds: float, seed: int) -> Tally:
    """Kill so many times, or for so long; new rounds of trials begin as old ones are done."""
    from mmbench.store import Store

    rng, tally, until = np.random.default_rng(seed), Tally(), time.monotonic() + seconds
    calm = folder / "calm"
    calm.mkdir()
    pace = 1.0  # seconds that a trial takes here, measured in the first round
    kept: dict[str, tuple[int, int]] = {}
    while tally.kills.total() < kills and time.monotonic() < until:
        seeds = ", ".join(str(tally.rounds * SEEDS + i) for i in range(SEEDS))
        grid = folder / f"round{tally.rounds}.yaml"
        grid.write_text(GRID.format(methods=", ".join(f"{m}: " for m in METHODS), seeds=seeds))
        if tally.rounds == 0:
            began = time.monotonic()
            run_to_the_end(calm, grid)
            pace = (time.monotonic() - began) / (SEEDS * len(METHODS))
        tally.rounds += 1
        code = 99
        while code != 0:
            log = folder / "log.txt"
            log.write_text("")
            before, so_far = done(folder), tally.kills.total()
            most = kills if time.monotonic() < until else 0
            code = disturb(folder, start_run(folder, grid, log), pace, rng, tally, most)
            tally.ends[code] += 1
            tally.again += log.read_text().count("\nagain ")
            check_words(log, code, tally)
            after = done(folder)
            tally.wrong += [f"{key} was lost or run again" for key in before if after.get(key) != before[key]]
            if code not in (0, *(-s for s in SIGNALS)) and tally.kills.total() == so_far:
                raise SystemExit(f"a run that nothing was done to ended with exit code {code}:\n{log.read_text()}")
        kept = done(folder)
        print(f"{tally.kills.total()} kills, {len(kept)} trials done, {tally.ends.total()} runs", flush=True)
        expected = tally.rounds * SEEDS * len(METHODS)
        if len(kept) != expected:
            tally.wrong.append(f"{len(kept)} of {expected} trials are done though the run says that all are")
    tally.finished = len(kept)
    tally.peak_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    for grid in sorted(folder.glob("round*.yaml")):
        run_to_the_end(calm, grid)
    disturbed, undisturbed = Store(folder / "runs"), Store(calm / "runs")
    for key in kept:
        one, other = disturbed.done(key), undisturbed.done(key)
        assert one is not None
        assert other is not None
        if one.predictions_sha256 != other.predictions_sha256:
            tally.wrong.append(f"{one.trial.label} predicts otherwise than undisturbed")
    return tally


def prepare() -> None:
    """Import all that runs need, once, and know the plugin."""
    sys.path.insert(0, str(PLUGIN))
    os.environ["MMBENCH_TESTING_MARKER"] = os.devnull
    # Threads of this process are not in its forks.
    from threadpoolctl import threadpool_limits

    import mmbench.report.figures.gallery
    import mmbench.report.page
    import mmbench.runner.preload  # noqa: F401

    threadpool_limits(1)


def main() -> int:
    """Attack in a folder of its own and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=COUNT)
    parser.add_argument("--seconds", type=float, default=24 * 3600.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    prepare()
    with tempfile.TemporaryDirectory(prefix="mmbench-kills-") as folder:
        tally = attack(Path(folder), arguments.kills, arguments.seconds, arguments.seed)
    print(f"{tally.kills.total()} kills: {dict(sorted(tally.kills.items()))}")
    print(
        f"{tally.ends.total()} runs, by exit code: {dict(tally.ends)}; trials started again: {tally.again}; peak {tally.peak_mb:.0f} MB"
    )
    print(
        f"{tally.finished} trials done in {tally.rounds} rounds; {tally.at_stake / max(1, tally.kills.total()):.0f} at stake on average"
    )
    print(f"{len(tally.wrong)} wrong", *tally.wrong, sep="\n")
    return 1 if tally.wrong else 0


@pytest.mark.slow
def test_kills_lose_nothing_and_change_nothing() -> None:
    """In a process of its own, which may fork as it likes."""
    import subprocess

    command = [sys.executable, __file__, "--kills", str(COUNT), "--seconds", str(SECONDS)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "\n0 wrong\n" in answer.stdout
    assert "trials done" in answer.stdout


if __name__ == "__main__":
    sys.exit(main())
