"""What the other commands do. Imports that take time stay inside the commands that need them."""

from __future__ import annotations

import argparse
import sys
from contextlib import closing
from typing import TYPE_CHECKING

from mmbench.errors import UsageError, printable
from mmbench.experiment_commands import list_experiments
from mmbench.opening import FAILED, OK, load_experiment, open_store
from mmbench.places import bands_file, experiment_path, experiments
from mmbench.report_commands import compared_with, write_report
from mmbench.runner.choosing import backend_of, check_options

if TYPE_CHECKING:
    from mmbench.experiment.plan import Experiment
    from mmbench.record import Record
    from mmbench.runner.backend import Backend

REGRESSION = "regression"


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
    if arguments.what == "experiments" and not arguments.names:
        return list_experiments(arguments)
    from mmbench.baselines import METHODS
    from mmbench.data import DATASETS
    from mmbench.encoders import ENCODERS

    tables = {"methods": METHODS, "datasets": DATASETS, "encoders": ENCODERS}
    named = (
        dict.fromkeys(one.name for one in experiments()) if arguments.what == "experiments" else tables[arguments.what]
    )
    for name in named:
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
