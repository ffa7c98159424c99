"""What a report costs: ``python benchmarks/report.py RESULTS [EXPERIMENT] [--trials 2000]``.

CPU time of reading the trials, computing and writing every file, after imports, and the process's largest memory, imports included.
With ``--trials`` the report is of so many: the experiment's own under further seeds, each with one prediction in fifty changed, so that
no two seeds are one run. Goals: 6 s for the 200 trials of Table 1, 60 s and 1 GB for 2,000.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

import numpy as np

from mmbench import machine

machine.plan_only()  # as the command line does, before anything else is imported

from mmbench.experiment.plan import Experiment, load  # noqa: E402
from mmbench.places import experiment_path  # noqa: E402
from mmbench.provenance import Codes  # noqa: E402
from mmbench.record import Predictions  # noqa: E402
from mmbench.report.collect import collect  # noqa: E402
from mmbench.report.page import write  # noqa: E402
from mmbench.store import Store  # noqa: E402
from mmbench.trial import Trial  # noqa: E402

LATER = ("mmbench.report.figures.gallery", "mmbench.report.html", "matplotlib.backends.backend_svg", "vl_convert")
"""What is imported while a report is written."""


def more(experiment: Experiment, most: int) -> list[tuple[Trial, Trial]]:
    """Make the experiment ask for so many trials: its own, and copies of them under further seeds; returns (own, copy) of each."""
    own, seeds = list(experiment.trials), 1 + max(trial.seed for trial in experiment.trials)
    pairs = []
    for number in range(most):
        turn, place = divmod(number, len(own))
        copy = own[place].model_copy(update={"seed": own[place].seed + turn * seeds})
        experiment.labels[copy.key] = experiment.labels_of(own[place])
        pairs.append((own[place], copy))
    experiment.trials[:] = [copy for _, copy in pairs]
    return pairs


def write_copies(pairs: list[tuple[Trial, Trial]], source: Store, target: Store) -> None:
    """Write the trials' results under their copies' keys."""
    rng = np.random.default_rng(0)
    for trial, copy in pairs:
        record = source.record(trial.key)
        if record is None or record.status != "done":
            sys.exit(f"{trial.label} ({trial.key}) is not done in {source.root}; run the experiment first")
        predictions = source.predictions(record)
        changes = {"key": copy.key, "trial": copy, "features_sha256": None}
        target.write(record.model_copy(update=changes), predictions if copy == trial else shaken(predictions, rng))


def shaken(p: Predictions, rng: np.random.Generator) -> Predictions:
    """The predictions with one in fifty exchanged for a neighbour's."""
    rows = rng.permutation(len(p.label))[: max(2, len(p.label) // 50)]
    predicted, log_probs = p.predicted.copy(), p.log_probs.copy()
    predicted[:, rows], log_probs[:, rows] = predicted[:, np.roll(rows, 1)], log_probs[:, np.roll(rows, 1)]
    return Predictions(**{**vars(p), "predicted": predicted, "log_probs": log_probs})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("experiment", nargs="?", default="table1")
    parser.add_argument("--trials", type=int)
    arguments = parser.parse_args()
    experiment, store = load(experiment_path(arguments.experiment)), Store(arguments.results / "runs")
    with tempfile.TemporaryDirectory() as folder:
        if arguments.trials:
            source, store = store, Store(Path(folder, "runs"))
            write_copies(more(experiment, arguments.trials), source, store)
        for name in LATER:
            import_module(name)
        began = time.process_time()
        results = collect(experiment, store, arguments.results / "reported", Codes())
        collected = time.process_time()
        write(results, Path(folder, "report"))
        written = time.process_time()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{len(experiment.trials)} trials of {experiment.name}: {written - began:.1f} s of CPU time ({collected - began:.1f} s to "
        f"collect, {written - collected:.1f} s to draw and write), at most {memory:.0f} MB"
    )


if __name__ == "__main__":
    main()
