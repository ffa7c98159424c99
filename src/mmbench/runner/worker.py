"""What runs trials on a node of a Ray cluster, one at a time: the local back end, in a process that Ray starts and watches."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mmbench import machine

if TYPE_CHECKING:
    from mmbench.runner.backend import Ended, Request
    from mmbench.runner.child import Job

MOST_NAMED = 5
"""Modules that a refusal names."""


@dataclass(frozen=True)
class Arrival:
    """What a worker says once it is up: on which host, and why it cannot run trials, in words; "" if it can."""

    host: str
    mistake: str = ""


class Worker:
    """Runs trials, each in a process that is forked from a server with the imports done.

    Args:
        folders: variable -> the folder of data or of weights that it names, where this node does not set it.
    """

    def __init__(self, folders: Mapping[str, str]) -> None:
        machine.plan_only()  # before all else is imported; trials are run by others
        import ray

        from mmbench.runner.local import LocalBackend

        for variable, folder in folders.items():
            os.environ.setdefault(variable, folder)
        # A trial's process begins with the file that its parent runs, which is Ray's: to import that takes longer than all else.
        vars(sys.modules["__main__"]).pop("__file__", None)
        self._local = LocalBackend(1, devices=ray.get_runtime_context().get_accelerator_ids()["GPU"] or ["cpu"])

    def arrive(self, modules: Mapping[str, str], proof: str, token: str) -> Arrival:
        """Get ready; when this returns, a trial begins at once.

        Args:
            modules: module -> hash, of what trials run, where they were planned.
            proof: a file in the store.
            token: what it says.
        """
        from mmbench.provenance import Codes

        self._local.start()
        if differing := Codes().differing(modules):
            return Arrival(machine.host(), other_code(differing))
        try:
            there = Path(proof).read_text() == token
        except OSError:
            there = False
        if not there:
            return Arrival(
                machine.host(),
                f"does not see this run's {Path(proof).parent}: --results has to be on a file system that all nodes share",
            )
        process = self._local.context.Process(target=nothing)  # begins when the server has all its imports done
        process.start()
        process.join()
        return Arrival(machine.host())

    def run(self, job: Job, request: Request) -> tuple[Ended, bool]:
        """Run a trial; what became of it, and whether there is a record."""
        from mmbench.store import Store

        self._local.submit(job, request)
        while not (over := self._local.wait(60.0)):
            pass
        return over[0], (Store(job.root).folder(job.trial.key) / "record.json").exists()

    def stop(self) -> None:
        """Ask the trial to end after its epoch's checkpoint."""
        self._local.stop()

    def cancel(self) -> None:
        """End the trial now."""
        self._local.cancel()


def other_code(differing: list[str]) -> str:
    """Why trials are refused that were planned with other code, in words."""
    more = f" and {len(differing) - MOST_NAMED} more" if len(differing) > MOST_NAMED else ""
    named = ", ".join(differing[:MOST_NAMED]) + more
    return f"has other code than the trials were planned with ({named}): install the same mmbench, and the same methods, everywhere"


def nothing() -> None:
    """What a process does that only has to begin."""
