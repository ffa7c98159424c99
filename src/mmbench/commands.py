"""What the commands do. Imports that take time stay inside the commands that need them."""

from __future__ import annotations

import argparse
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from mmbench.errors import DataError, UsageError, printable
from mmbench.experiment_commands import list_experiments
from mmbench.files import check_folder
from mmbench.places import bands_file, carried, experiment_path, published, published_table, results_folders
from mmbench.runner.choosing import backend_of, check_options

if TYPE_CHECKING:
    from mmbench.experiment.plan import Experiment
    from mmbench.index import Index
    from mmbench.provenance import Codes
    from mmbench.record import Record
    from mmbench.report.collect import Results
    from mmbench.runner.backend import Backend
    from mmbench.store import Store
    from mmbench.tracking import WandbSettings
    from mmbench.trial import Trial

REGRESSION = "regression"

OK, FAILED, USAGE = 0, 1, 2


def load_experiment(arguments: argparse.Namespace, imported: bool = False) -> Experiment:
    """The experiment that the arguments name, with their settings.

    Args:
        arguments: of a command.
        imported: nothing will be run, so what a bundle told of an imported experiment's data sets stands for them.
    """
    from mmbench.bundles.importing import known_of
    from mmbench.experiment.plan import left_out, load

    path = experiment_path(arguments.experiment)
    settings, quick = getattr(arguments, "settings", []), getattr(arguments, "quick", False)
    known = known_of(path) if imported else None
    experiment = load(path, settings, quick, getattr(arguments, "datasets", []), known)
    if datasets := getattr(arguments, "datasets", []):
        from mmbench.experiment.substitute import few_steps

        for line in few_steps(experiment.grid, datasets):
            print(line, file=sys.stderr)
    for dataset, reason in experiment.unprepared.items():
        print(f"{dataset} is left out, {left_out(reason)}", file=sys.stderr)
    return experiment


def open_store(arguments: argparse.Namespace, write: bool = False) -> Store:
    """The store of the results folder.

    Raises:
        UsageError: there cannot be one, or it cannot be written to although it will be.
    """
    from mmbench.store import Store

    check_folder(arguments.results / "runs", "results folder", write)
    return Store(arguments.results / "runs")


def run_experiment(arguments: argparse.Namespace) -> int:
    """``mmbench run``."""
    from mmbench.experiment.filters import check_filters

    check_filters(arguments.filters)
    check_options(arguments)
    experiment, store = load_experiment(arguments), open_store(arguments, write=not arguments.dry_run)
    from mmbench.provenance import Codes
    from mmbench.report.terminal import print_report
    from mmbench.running import Running, dry_run

    codes = Codes()
    backend = backend_of(arguments, store.root, lambda: codes.modules(experiment.trials))
    running = Running(experiment, store, arguments, backend, codes)
    strict = FAILED if arguments.strict and experiment.unprepared else OK
    if arguments.dry_run:
        dry_run(running)
        return strict
    if arguments.backend == "slurm":
        from mmbench.submitted import run_array

        failed = run_array(running, arguments)
    else:
        with closing(backend):
            failed = running.run()
    if arguments.no_report or failed is None:
        return max(FAILED if failed else OK, strict)
    collected = write_report(experiment, store, arguments.results, running.codes, wandb=running.wandb, keep=True)
    print_report(collected, compared_with(experiment, arguments), running.unselected())
    for line in running.kept():
        print(line, file=sys.stderr)
    return max(FAILED if failed else OK, strict)


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


def compared_with(experiment: Experiment, arguments: argparse.Namespace) -> Path | None:
    """The table that a report is compared with, if there is one; says so where it is that of another file of the same name."""
    file = experiment_path(arguments.experiment)
    table = published_table(experiment.name, file, arguments.results)
    if table is None and experiment.name == file.stem and carried(f"results/{file.stem}/table.csv").is_file():
        print(f"{file} is not the {file.stem} that comes with mmbench: not compared with its report", file=sys.stderr)
    return table


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


def trials_of(experiment: Experiment, source: Store | Index) -> list[Trial]:
    """The trials of an experiment: of the default settings, those that tune, and of the settings that are chosen by now."""
    from mmbench.tuning import choose, distinct, tuning_trials

    finals = [trial for search in experiment.searches for trial in choose(search, source).finals]
    return distinct([*experiment.trials, *tuning_trials(experiment.searches), *finals])


def check_regression(arguments: argparse.Namespace) -> int:
    """``mmbench check``."""
    from mmbench import regression
    from mmbench.runner.local import local_backend, other_server

    path = bands_file(experiment_path(arguments.experiment), arguments.results, arguments.update)
    held = None if arguments.update else regression.read(path)
    experiment = load_experiment(arguments)
    if experiment.searches:
        raise UsageError(f"{experiment.name} tunes; bands are of settings that stay as they are, so leave tune out")
    threads = arguments.threads or 1
    backend = local_backend(arguments.devices, arguments.jobs, threads)
    records = run_anew(experiment, arguments, backend)
    if records is None:
        return FAILED
    measured = regression.accuracies(records, experiment)
    if held is None:
        # Half as many at a time: more threads than cores are many times slower.
        fewer = local_backend(arguments.devices, max(1, backend.capacity().jobs // 2), threads + 1)
        with other_server(**regression.OTHER_SUMS):
            again = run_anew(experiment, arguments, fewer)
        if again is None:
            return FAILED
        regression.write(path, regression.bands(measured, regression.accuracies(again, experiment)))
        print(f"wrote {path}")
        return OK
    wrong = regression.violations(held, measured)
    for line in wrong:
        print(line)
    print(f"{path}: {len(held)} accuracy bands, {len(wrong)} violated")
    return FAILED if wrong else OK


def run_anew(experiment: Experiment, arguments: argparse.Namespace, backend: Backend) -> list[Record] | None:
    """Run an experiment in a store of its own, since results of other code must not be re-used; None if a trial failed."""
    import tempfile

    from mmbench.provenance import Codes
    from mmbench.running import run_all, view_of
    from mmbench.store import Store

    with tempfile.TemporaryDirectory(prefix="mmbench-check-") as folder:
        store = Store(folder)
        view = view_of(experiment, store, backend)
        view.plan(experiment.trials)
        records = run_all(experiment.trials, store, experiment, backend, Codes(), view)
    failures = [record for record in records if record.failure is not None]
    for record in failures:  # in full: the store, and with it the log, is gone
        assert record.failure is not None
        print(f"failed: {record.trial.label}: {record.failure.message}\n{record.failure.traceback}", file=sys.stderr)
    return None if failures else records


def dashboard(arguments: argparse.Namespace) -> int:
    """``mmbench dashboard``."""
    from mmbench.dashboard import save, specification

    experiment = load_experiment(arguments)
    print(specification(experiment) if arguments.print else save(experiment))
    return OK


def list_names(arguments: argparse.Namespace) -> int:
    """``mmbench list``."""
    if arguments.what == "experiments":
        return list_experiments(arguments)
    from mmbench.baselines import METHODS
    from mmbench.data import DATASETS
    from mmbench.encoders import ENCODERS

    for name in {"methods": METHODS, "datasets": DATASETS, "encoders": ENCODERS}[arguments.what]:
        print(name)
    return OK


def convert_weights(arguments: argparse.Namespace) -> int:
    """``mmbench convert``."""
    from mmbench.encoders.checkpoints import to_safetensors

    to_safetensors(arguments.source, arguments.target)
    print(f"wrote {arguments.target}")
    return OK


def predict_samples(arguments: argparse.Namespace) -> int:
    """``mmbench predict``."""
    from mmbench.models.asking import predict

    return predict(arguments, open_store(arguments))


def show_trial(arguments: argparse.Namespace) -> int:
    """``mmbench show``."""
    import yaml

    from mmbench.store import CorruptRecord

    store = open_store(arguments)
    keys = store.find(arguments.key)
    if len(keys) != 1:
        found = "no trial" if not keys else f"{len(keys)} trials ({', '.join(keys[:5])} …)"
        raise UsageError(f"{found} in {store.root} with a key that begins with '{arguments.key}'")
    try:
        record = store.record(keys[0])
    except CorruptRecord as error:
        print(f"damaged: {printable(str(error))}", file=sys.stderr)
        return FAILED
    assert record is not None
    hidden = {"metrics", "curves", "failure", *([] if record.resumed else ["resumed"])}
    content = record.model_dump(mode="json", exclude=hidden, exclude_none=True)
    print(printable(yaml.safe_dump(content, sort_keys=False, allow_unicode=True)))
    for pattern, values in record.metrics.items():
        print(
            f"{printable(pattern):32}" + "".join(f"  {printable(name)} {value:6.2f}" for name, value in values.items())
        )
    if record.failure is not None:
        print(f"{record.failure.kind}: {printable(record.failure.message)}")
    log = store.log(record.key)
    print(f"\n{log}:")
    try:
        print(printable(log.read_text(errors="replace")))
    except FileNotFoundError:
        print("(no log)")
    except OSError as error:
        print(f"(cannot be read: {error.strerror})")
    return OK
