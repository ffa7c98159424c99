"""How far off the time left is that a run shows: recorded runs, played again against the clock.

    python benchmarks/eta.py --results results table1 missing_rates:quick
    python benchmarks/eta.py elsewhere/runs            # all that a store has, in the order in which it was run

Trials take again the seconds that their records have, in the order of the plan, so many at a time, and epochs pass evenly within
``fit``. At 200 moments the time left that the view would show is compared with what then really was left. Printed for each experiment:
the mean relative error from a third of the run to nine tenths of it (of the little that is left then, a trial is a large part), that
at the third itself, that of the plain rule that the rest goes on as fast, in trials, as those that are done; and how much longer trials
of the same data and method took after the third than before, which nobody could have foreseen. The tuned part of an experiment
that tunes is left out, its draws are played. A store that was filled while the machine did other things as well shows that.

Of records of two trials at a time on two cores, where the machine stayed as fast as it was (0.99 to 1.11 in the last column): table1,
ablation and ablation_dmrnet 5 %, missing_rates:quick 9 %; where it became half as fast after the third: missing_rates 28 %.
"""

import argparse
import heapq
from itertools import pairwise
from pathlib import Path

import numpy as np

from mmbench.experiment.plan import load
from mmbench.places import experiment_path
from mmbench.record import Record
from mmbench.runner.forecast import Forecast, Kind, Progress
from mmbench.store import Store
from mmbench.tuning import distinct, tuning_trials

MOMENTS = 200
BETWEEN_TRIALS = 0.1  # seconds that a process takes to start and to end


class Replay:
    """A run on a clock of its own.

    Args:
        records: of the trials, in the order in which they start.
        slots: how many run at a time.
    """

    def __init__(self, records: list[Record], slots: int) -> None:
        self.records, self.slots = records, slots
        self.kinds = [Kind.of(record.trial) for record in records]
        self.seconds = [sum(record.seconds.values()) + BETWEEN_TRIALS for record in records]
        self.starts: list[float] = []
        free = [0.0] * slots
        for seconds in self.seconds:
            self.starts.append(free[0])
            heapq.heapreplace(free, free[0] + seconds)
        self.ends = [start + seconds for start, seconds in zip(self.starts, self.seconds, strict=True)]
        self.whole = max(free)

    def progress(self, number: int, now: float) -> Progress:
        """What the log of a running trial tells."""
        record, elapsed = self.records[number], now - self.starts[number]
        each = record.seconds["fit"] / record.trial.recipe.epochs
        epochs = min(record.trial.recipe.epochs, max(0, int((elapsed - record.seconds["build"]) / each)))
        return Progress(self.kinds[number], elapsed, epochs, record.seconds["build"] + epochs * each if epochs else 0.0)

    def errors(self) -> tuple[np.ndarray, np.ndarray]:
        """Relative errors at each moment: of the forecast, and of the plain rule; NaN where nothing is known."""
        forecast, numbers, moments = Forecast(), range(len(self.records)), np.arange(MOMENTS) / MOMENTS * self.whole
        by_end = sorted(numbers, key=lambda number: self.ends[number])
        found, before = [], 0.0
        for before, now in pairwise([-1.0, *moments]):
            for number in by_end:
                if before < self.ends[number] <= now:
                    forecast.learn(self.kinds[number], self.seconds[number])
            running = [self.progress(n, now) for n in numbers if self.starts[n] <= now < self.ends[n]]
            waiting = [self.kinds[n] for n in numbers if self.starts[n] > now]
            done, left = sum(end <= now for end in self.ends), forecast.left(running, waiting, self.slots)
            plain = now / done * (len(self.records) - done) if done else np.nan
            found.append((np.nan if left is None else left, plain))
        real = self.whole - moments
        ours, plain = np.abs(np.array(found).T - real) / real
        return ours, plain

    def drift(self) -> float:
        """By what factor trials of the same data and method took longer after a third of the run than before; NaN if there are none."""
        early: dict[tuple[str, str], list[float]] = {}
        late: dict[tuple[str, str], list[float]] = {}
        for kind, seconds, end in zip(self.kinds, self.seconds, self.ends, strict=True):
            (early if end <= self.whole / 3 else late).setdefault((kind.data, kind.method), []).append(seconds)
        both = [like for like in early if like in late]
        return sum(np.mean(late[b]) for b in both) / sum(np.mean(early[b]) for b in both) if both else float("nan")


def recorded(name: str, results: Path) -> list[Record]:
    """The records of what is done of an experiment, in the order of its plan; or of all in a folder of runs, as they were started."""
    if Path(name).is_dir():
        store = Store(name)
        found = (record for key in store.find("") if (record := store.record(key)) is not None)
        return sorted((record for record in found if record.status == "done"), key=lambda record: record.started)
    stem, _, quick = name.partition(":")
    experiment, store = load(experiment_path(stem), quick=bool(quick)), Store(results / "runs")
    trials = distinct([*experiment.trials, *tuning_trials(experiment.searches)])
    return [r for trial in trials if (r := store.record(trial.key)) is not None and r.status == "done"]


def main() -> None:
    """Print a line an experiment."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("experiments", nargs="+", metavar="EXPERIMENT[:quick]|RUNS")
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    print("experiment                trials      run  mean error  at a third  plain rule  late/early")
    for name in arguments.experiments:
        records = recorded(name, arguments.results)
        if len(records) < 8:
            print(f"{name[-24:]:24}  {len(records):6}  too few")
            continue
        replay = Replay(records, arguments.jobs)
        ours, plain = replay.errors()
        late = slice(MOMENTS // 3, MOMENTS * 9 // 10)
        print(
            f"{name[-24:]:24}  {len(records):6}  {replay.whole:5.0f} s  {np.nanmean(ours[late]):10.1%}  {ours[MOMENTS // 3]:10.1%}  "
            f"{np.nanmean(plain[late]):10.1%}  {replay.drift():10.2f}"
        )


if __name__ == "__main__":
    main()
