"""The commands that write and compare reports. Imports that take time stay inside the commands that need them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mmbench.errors import DataError, UsageError
from mmbench.files import check_folder
from mmbench.opening import FAILED, OK, load_experiment, open_store
from mmbench.places import carried, experiment_path, published, published_table, results_folders

if TYPE_CHECKING:
    from mmbench.experiment.plan import Experiment
    from mmbench.index import Index
    from mmbench.provenance import Codes
    from mmbench.report.collect import Results
    from mmbench.store import Store
    from mmbench.tracking import WandbSettings
    from mmbench.trial import Trial


def report(arguments: argparse.Namespace) -> int:
    """``mmbench report``."""
    from mmbench.elsewhere.entries import Elsewhere
    from mmbench.provenance import Codes
    from mmbench.report.elsewhere import made_elsewhere
    from mmbench.report.terminal import print_report

    if arguments.publish and (arguments.settings or arguments.quick or arguments.datasets):
        raise UsageError("--publish is of the experiment as its file says; leave --set, --quick and --dataset out")
    experiment = load_experiment(arguments, imported=True)
    store = open_store(arguments, write=True)
    made = made_elsewhere(experiment, Elsewhere.beside(store))
    trials = trials_of(experiment, store)
    if not any(store.stamp(trial.key) for trial in trials) and not made.rows:
        raise DataError(
            f"nothing of {experiment.name} has been run, so there is nothing to report: no result of its {len(trials)} trials in "
            f"{store.root}; `mmbench run {arguments.experiment}` runs them"
        )
    if arguments.publish and made.rows:
        labels = ", ".join(dict.fromkeys(row.method for row, _ in made.rows))
        print(f"not in what is published, since nothing here can make it again: {labels}", file=sys.stderr)
    collected = write_report(experiment, store, arguments.results, Codes(), arguments.publish)
    print_report(collected, None if arguments.publish else compared_with(experiment, arguments))
    return OK


def write_report(
    experiment: Experiment,
    store: Store,
    results: Path,
    codes: Codes,
    publish: bool = False,
    wandb: WandbSettings | None = None,
    keep: bool = False,
) -> Results:
    """Write the tables and the figures of an experiment; says where.

    Args:
        experiment: what to report.
        store: where its trials are.
        results: the folder of results; a report of one's own goes to ``local/<experiment>`` in it.
        codes: today's code; what came from other code is noted in the report.
        publish: write to ``<experiment>`` instead, which git keeps.
        wandb: where it is tracked besides, if it is.
        keep: leave files that were made of the same, by the same code, as they are.

    Raises:
        UsageError: ``publish``, of a report that is not fit for it.
    """
    from mmbench.index import Index
    from mmbench.report.collect import collect
    from mmbench.report.committed import LOCAL, unfit
    from mmbench.report.fresh import files_of, made_of, note
    from mmbench.report.page import write

    reported = published(results, "reported")
    with Index(store) as index:
        trials = trials_of(experiment, index)
    made = made_of(experiment, trials, store, reported)
    collected = collect(experiment, store, reported, codes, elsewhere=not publish)
    if publish and (reasons := unfit(collected)):
        raise UsageError("\n  ".join([f"--publish: {experiment.name} cannot be published", *reasons]))
    folder = results / experiment.name if publish else results / LOCAL / experiment.name
    check_folder(folder, "report folder", write=True)
    made += "".join([*collected.stale, *collected.not_run])  # code of other packages says what is stale
    written = files_of(folder, made) if keep else []
    if not written:
        written = write(collected, folder, None if publish else store.root)
        if not publish:
            note(folder, written, made)
    figures = ", ".join(path.name for path in written if path.suffix == ".png")
    print(f"report: {folder}/table.html, .md, .csv, .tex; {figures}", file=sys.stderr)
    if wandb is not None and wandb.mode != "off":
        from mmbench.tracked_report import Report, track

        track(Report(experiment=experiment.name, title=experiment.grid.title, files=written, settings=wandb))
    return collected


def compared_with(experiment: Experiment, arguments: argparse.Namespace) -> Path | None:
    """The table that a report is compared with, if there is one; says so where it is that of another file of the same name."""
    file = experiment_path(arguments.experiment)
    table = published_table(experiment.name, file, arguments.results)
    if table is None and experiment.name == file.stem and carried(f"results/{file.stem}/table.csv").is_file():
        print(f"{file} is not the {file.stem} that comes with mmbench: not compared with its report", file=sys.stderr)
    return table


def trials_of(experiment: Experiment, source: Store | Index) -> list[Trial]:
    """The trials of an experiment: of the default settings, those that tune, and of the settings that are chosen by now."""
    from mmbench.tuning import choose, distinct, tuning_trials

    finals = [trial for search in experiment.searches for trial in choose(search, source).finals]
    return distinct([*experiment.trials, *tuning_trials(experiment.searches), *finals])


def compare_results(arguments: argparse.Namespace) -> int:
    """``mmbench compare``."""
    from mmbench.report.committed import compare, read_table, table_of
    from mmbench.report.escape import one_line

    paths = [table_of(name, results_folders(arguments.results)) for name in (arguments.one, arguments.other)]
    try:
        one, other = map(read_table, paths)
    except DataError as error:  # 1 says that they differ
        raise UsageError(str(error)) from error
    agreement = compare(one, other, str(paths[1]))
    print(one_line(agreement.line))
    return OK if agreement.agrees else FAILED


def write_ledger(arguments: argparse.Namespace) -> int:
    """``mmbench ledger``."""
    from mmbench.files import atomic_write
    from mmbench.report.ledger import ledger, to_csv
    from mmbench.report.ledger_page import to_markdown

    check_folder(arguments.results, "results folder", write=True)
    made = ledger(arguments.results, published(arguments.results, "reported"))
    for name, text in (("ledger.csv", to_csv(made)), ("ledger.md", to_markdown(made))):
        atomic_write(arguments.results / name, text.encode())
    ours = sum(entry.ours is not None for entry in made.entries)
    print(f"wrote {arguments.results}/ledger.csv and .md: {len(made.entries)} reported numbers, {ours} with ours")
    return OK
