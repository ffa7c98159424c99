"""``mmbench run --backend slurm``: an experiment whose trials are run by runners elsewhere."""

from __future__ import annotations

import argparse
import sys

from mmbench.runner.slurm import submit
from mmbench.running import Running, counts, tell_of_failures


def run_array(running: Running, arguments: argparse.Namespace) -> bool | None:
    """Submit runners, if anything is left to run, and wait for them.

    Args:
        running: the experiment.
        arguments: of the command.

    Returns:
        Whether a trial failed or was not run; None if it is not waited for.
    """
    experiment, store = running.experiment, running.store
    done, todo = running.split(running.first)
    print(
        f"{experiment.name}: {counts(running.first, done, todo)}{running.budget()}{running.room(todo)}", file=sys.stderr
    )
    if not (todo or running.searches):
        return False
    array = submit(arguments, experiment.name, running.codes.modules(running.first))
    print(f"{array.words}; `mmbench status {arguments.experiment}` tells how far they are", file=sys.stderr)
    if arguments.no_wait:
        return None

    def tell(runners: int) -> None:
        there = sum((store.folder(trial.key) / "record.json").exists() for trial in running.first)
        print(
            f"{there}/{len(running.first)} trials, {runners} of {len(array.jobs)} runners",
            file=sys.stderr,
            flush=True,
        )

    for line in array.wait(tell):
        print(line, file=sys.stderr)
    done, todo = running.split(running.first)
    records = (store.record(trial.key) for trial in todo)
    failed = [record for record in records if record is not None and record.status == "failed"]
    more = f", {len(failed)} failed" if failed else ""
    print(f"{len(done) + len(failed)}/{len(running.first)} trials{more}", file=sys.stderr)
    tell_of_failures(failed, experiment)
    return bool(todo)
