"""How many pairs of methods an experiment tells apart: paired 95 % intervals of the difference, from the stored predictions.

    python benchmarks/separation.py table1 --protocol clean

A pair is separated where the interval of the difference in accuracy, with every modality, leaves out zero. Nothing is trained: the
experiment's trials have to be in the store.
"""

from __future__ import annotations

import argparse
from itertools import combinations
from pathlib import Path

import numpy as np

from mmbench.commands import experiment_path
from mmbench.evidence.accuracy import join
from mmbench.evidence.comparisons import difference
from mmbench.experiment.plan import Experiment, load
from mmbench.record import Predictions
from mmbench.store import Store


def predictions(experiment: Experiment, store: Store, dataset: str, protocol: str) -> dict[str, list[Predictions]]:
    """Label of a method -> its predictions, one a seed, of models that were trained on complete data."""
    found: dict[str, dict[int, list[Predictions]]] = {}
    for trial in sorted(experiment.trials, key=lambda trial: trial.fold or 0):
        labels = experiment.labels_of(trial)
        if (labels.dataset, trial.protocol, trial.missing) != (dataset, protocol, None):
            continue
        record = store.done(trial.key)
        if record is None:
            raise SystemExit(f"not run: {experiment.describe(trial)}")
        found.setdefault(labels.method, {}).setdefault(trial.seed, []).append(store.predictions(record))
    return {method: [join(folds) for folds in seeds.values()] for method, seeds in found.items()}


def main() -> None:
    """Print every pair's difference, and how many of them are separated."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment")
    parser.add_argument("--dataset", default="openclipart")
    parser.add_argument("--protocol", default="clean")
    parser.add_argument("--results", type=Path, default=Path("results"))
    arguments = parser.parse_args()
    experiment, store = load(experiment_path(arguments.experiment)), Store(arguments.results / "runs")
    methods = predictions(experiment, store, arguments.dataset, arguments.protocol)
    pairs = [(a, b, difference(methods[a], methods[b])) for a, b in combinations(methods, 2)]
    for a, b, d in pairs:
        print(f"{a:>14} − {b:14} {d.mean:+5.1f} [{d.low:+5.1f}, {d.high:+5.1f}]{'  separated' if d.separable else ''}")
    print(f"median width {np.median([d.high - d.low for _, _, d in pairs]):.1f} points")
    print(f"{sum(d.separable for _, _, d in pairs)} of {len(pairs)} pairs separated")


if __name__ == "__main__":
    main()
