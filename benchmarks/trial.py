"""What a trial costs, beside what it cost at another commit: ``python benchmarks/trial.py [COMMIT]``.

CPU time (user and system) of a trial's process, as the runner starts it: forked from a server that has the imports done, up to its
record. Each of the two trees has a server of its own, and they take turns, so that both see the same machine. The first trial of each
is told apart: it may fill a cache that the others read.
"""

from __future__ import annotations

import io
import os
import resource
import statistics
import subprocess
import sys
import tarfile
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

BEFORE = "8de0a20"  # patterns were all validated every epoch, and features fitted by every trial
TURNS = 9
ROOT = Path(__file__).parents[1]
EXPERIMENT = """
title: ""
datasets: {openclipart_features: {recipe: {optimizer: adam, epochs: 30, lr: 0.001, step_size: 20}}}
methods: {late_fusion: }
seeds: [0]
"""
"""As experiments/missing_rates.yaml has it."""


def main(commit: str = BEFORE) -> None:
    with tempfile.TemporaryDirectory() as folder:
        trees = {"before": Path(folder, "before"), "now": Path(folder, "now")}
        lay_out(tree_of(commit), trees["before"])
        lay_out(None, trees["now"])
        servers = {name: start(tree) for name, tree in trees.items()}
        seconds: dict[str, list[float]] = {name: [] for name in trees}
        for _ in range(TURNS + 1):
            for name, server in servers.items():
                seconds[name].append(trial(server))
        for server in servers.values():
            server.communicate()
    ratio = statistics.median(
        now / before for now, before in zip(seconds["now"][1:], seconds["before"][1:], strict=True)
    )
    print(f"a trial of late_fusion on openclipart_features: now / at {commit}: {ratio:.2f} (goal: at most 0.6)")
    for name, values in seconds.items():
        print(
            f"  {name}: first {values[0]:.2f} s of CPU time, median of the others {statistics.median(values[1:]):.2f} s"
        )


def tree_of(commit: str) -> bytes:
    """The package at a commit, as a tar file."""
    command = ["git", "archive", commit, "src/mmbench", "baselines"]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout


def lay_out(archive: bytes | None, folder: Path) -> None:
    """Make a folder from which ``mmbench`` is imported: of an archive's files, or of links to those that are here."""
    folder.mkdir()
    source = folder / "source" if archive else ROOT
    if archive:
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            files.extractall(source, filter="data")
    (folder / "runs").mkdir()
    (folder / "mmbench").mkdir()
    for path in (source / "src" / "mmbench").iterdir():
        (folder / "mmbench" / path.name).symlink_to(path)
    (folder / "mmbench" / "baselines").symlink_to(source / "baselines")


def start(tree: Path) -> subprocess.Popen[str]:
    """Start a runner of one tree's code that runs a trial whenever it gets a line."""
    variables = {**os.environ, "PYTHONPATH": str(tree), "MMBENCH_DATA": str(tree / "data")}
    command = [sys.executable, __file__, "--serve", str(tree / "runs")]
    return subprocess.Popen(command, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def trial(server: subprocess.Popen[str]) -> float:
    """CPU seconds of one trial."""
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write("\n")
    server.stdin.flush()
    return float(server.stdout.readline())


def serve(folder: str) -> None:
    """Run trials as the runner does, one for every line of the input, and print what each has cost."""
    from mmbench.experiment.plan import load
    from mmbench.runner.child import Job
    from mmbench.runner.local import start_server

    file = Path(folder, "experiment.yaml")
    file.write_text(EXPERIMENT)
    context, (planned,) = start_server(), load(file).trials
    for number, _ in enumerate(sys.stdin):
        here, there = context.Pipe()
        process = context.Process(target=measured, args=(Job(planned, f"{folder}/{number}", 1, "cpu"), there))
        process.start()
        there.close()  # so that the end of the process is noticed
        print(here.recv(), flush=True)
        process.join()


def measured(job: Any, there: Connection) -> None:
    """In a trial's process: run it, and send its CPU time."""
    from mmbench.runner.child import main as run_trial
    from mmbench.store import Store

    run_trial(job)
    if Store(job.root).done(job.trial.key) is None:
        raise RuntimeError(f"the trial failed, see {job.root}")
    used = resource.getrusage(resource.RUSAGE_SELF)
    there.send(used.ru_utime + used.ru_stime)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2])
    else:
        main(*sys.argv[1:])
