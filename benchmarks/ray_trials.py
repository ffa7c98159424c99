"""What a trial costs on Ray beside its own work, and beside the local back end: ``python benchmarks/ray_trials.py``.

Short trials run one after the other, on a cluster that is started for them and by the local back end. The cost of one is the time from
the end of the trial before it, as the loop hears of it, to its own end, less what its record says that building, fitting and testing
took: so starting its process, reading data, and writing and reading its record. The first one waits for imports and is told apart.
Most of what the local back end takes is that its processes import this script first; ``mmbench`` itself is quicker to import.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from mmbench import machine

machine.plan_only()

from mmbench.experiment.plan import expand  # noqa: E402
from mmbench.provenance import Codes  # noqa: E402
from mmbench.record import Record  # noqa: E402
from mmbench.runner.backend import Backend  # noqa: E402
from mmbench.runner.local import LocalBackend  # noqa: E402
from mmbench.runner.loop import run_trials  # noqa: E402
from mmbench.runner.ray import RayBackend  # noqa: E402
from mmbench.store import Store  # noqa: E402
from mmbench.trial import Trial  # noqa: E402

TRIALS = 16
GRID = {
    "title": "",
    "datasets": {"openclipart_features": {"recipe": {"epochs": 1, "lr": 0.05}}},
    "methods": {"concat": None},
    "seeds": list(range(TRIALS)),
}


class Ends:
    """A view that notes when each trial ended, and what it cost."""

    def __init__(self) -> None:
        self.costs: list[float] = []
        self.last = time.monotonic()

    def finished(self, trial: Trial, record: Record) -> None:
        now = time.monotonic()
        self.costs.append(now - self.last - sum(record.seconds.values()))
        self.last = now

    def started(self, trial: Trial) -> None: ...
    def retried(self, trial: Trial, reason: str) -> None: ...
    def elsewhere(self, trial: Trial, record: Record | None) -> None: ...
    def tick(self) -> None: ...


def costs(backend: Backend, store: Store, trials: list[Trial]) -> list[float]:
    """What each trial cost, in seconds."""
    view = Ends()
    try:
        run_trials(trials, store, backend, view)
    finally:
        backend.close()
    return view.costs


def main() -> None:
    trials = expand(GRID).trials
    with tempfile.TemporaryDirectory() as folder:
        stores = {name: Store(Path(folder, name)) for name in ("local", "ray")}
        local = costs(LocalBackend(1), stores["local"], trials)
        modules = Codes().modules(trials)
        ray = costs(RayBackend(None, "cpu", 1, 1, stores["ray"].root, modules), stores["ray"], trials)
    print(
        f"a trial on Ray, beside its own work: {statistics.median(ray[1:]):.2f} s after the first (goal: at most 1 s)"
    )
    for name, values in {"local": local, "ray": ray}.items():
        rest = values[1:]
        print(
            f"  {name}: first {values[0]:.1f} s, median of the others {statistics.median(rest):.2f} s, most {max(rest):.2f} s"
        )


if __name__ == "__main__":
    main()
