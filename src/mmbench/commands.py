"""What the commands do. Imports that take time stay inside the commands that need them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmbench.errors import DataError, UsageError, did_you_mean
from mmbench.files import check_folder, user_path

if TYPE_CHECKING:
    from mmbench.experiment.plan import Experiment
    from mmbench.provenance import Codes
    from mmbench.record import Record
    from mmbench.report.collect import Results
    from mmbench.runner.local import Slot
    from mmbench.store import Store
    from mmbench.trial import Trial

EXPERIMENTS = Path("experiments")
REGRESSION = "regression"

OK, FAILED, USAGE = 0, 1, 2


def experiment_path(name: str) -> Path:
    """The file of an experiment given by its path or, if it is in ``experiments/``, its name."""
    path = user_path(name)
    named = EXPERIMENTS / f"{name}.yaml"
    if path.is_file() or path.suffix in (".yaml", ".yml") or path.parent != Path("."):
        return path
    if not named.is_file():
        known = [p.stem for p in EXPERIMENTS.glob("*.yaml")]
        raise UsageError(f"no experiment '{name}' in {EXPERIMENTS}/: {did_you_mean(name, known)}")
    return named


def load_experiment(arguments: argparse.Namespace) -> Experiment:
    """The experiment that the arguments name, with their settings."""
    from mmbench.experiment.plan import left_out, load

    path = experiment_path(arguments.experiment)
    experiment = load(path, getattr(arguments, "settings", []), getattr(arguments, "quick", False))
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


def split_done(
    trials: Sequence[Trial], store: Store, codes: Codes, keep_stale: bool
) -> tuple[list[Record], list[Trial]]:
    """The results that the store has, and the trials still to be run.

    Results that are damaged, or of other code, are named and run again; with ``keep_stale`` those of other code are kept.
    """
    from mmbench.provenance import grouped, why_stale
    from mmbench.store import CorruptRecord

    done: list[Record] = []
    todo: list[Trial] = []
    reasons: list[str] = []
    for trial in trials:
        try:
            record = store.done(trial.key)
        except CorruptRecord as error:
            print(f"damaged, will be run again: {error}", file=sys.stderr)
            record = None
        if record is not None and (reason := why_stale(record, codes)) is not None:
            reasons.append(reason)
            record = record if keep_stale else None
        if record is None:
            todo.append(trial)
        else:
            done.append(record)
    for line in grouped(reasons, "kept, of other code than this" if keep_stale else "run again"):
        print(line, file=sys.stderr)
    tell_of_code(done, codes)
    return done, todo


def tell_of_code(done: Sequence[Record], codes: Codes) -> None:
    """Say what is no reason to run trials again, but has to be known."""
    if other := sum(record.code is not None and record.code.core != codes.core for record in done):
        print(
            f"{other} of the done trials ran with another core of mmbench than this, which is no reason to run them again; "
            "delete them to run them anew",
            file=sys.stderr,
        )
    if codes.unreadable:
        print(f"edits of {', '.join(codes.unreadable)} cannot be seen: there is no file of its source", file=sys.stderr)


def run_experiment(arguments: argparse.Namespace) -> int:
    """``mmbench run``."""
    from mmbench.experiment.plan import check_filters, select

    check_filters(arguments.filters)
    experiment, store = load_experiment(arguments), open_store(arguments, write=not arguments.dry_run)
    from mmbench.provenance import Codes
    from mmbench.runner.local import plan_slots

    slots = plan_slots(arguments.devices, arguments.jobs, arguments.threads)
    chosen = select(experiment, arguments.filters)
    codes = Codes()
    done, todo = split_done(chosen, store, codes, arguments.keep_stale)
    strict = arguments.strict and bool(experiment.unprepared)
    if arguments.dry_run:
        finished = {record.key for record in done}
        for trial in chosen:
            print(f"{trial.key}  {'done' if trial.key in finished else 'to do'}  {experiment.describe(trial)}")
        print(f"{len(chosen)} trials, {len(done)} done, {len(todo)} to do")
        return FAILED if strict else OK
    print(f"{experiment.name}: {len(chosen)} trials, {len(done)} done, {len(todo)} to do", file=sys.stderr)
    records = run_all(todo, store, arguments, experiment, slots, codes, len(done)) if todo else []
    collected = write_report(experiment, store, arguments.results, codes)
    unselected = {experiment.describe(trial) for trial in experiment.trials} - set(map(experiment.describe, chosen))
    print_report(collected, committed_table(experiment, arguments.results), unselected)
    return max(exit_code(records, experiment), FAILED if strict else OK)


def run_all(
    trials: Sequence[Trial],
    store: Store,
    arguments: argparse.Namespace,
    experiment: Experiment,
    slots: Sequence[Slot],
    codes: Codes,
    done: int = 0,
) -> list[Record]:
    """Run trials as the arguments say, showing their progress; ``done`` of the same grid are done already."""
    from mmbench.runner.local import run_trials, start_server

    start_server()  # it imports what trials need while this process goes on
    import mmbench.report.figures  # noqa: F401  imported now, while trials run, and not when they have ended
    from mmbench.provenance import source_state
    from mmbench.runner.view import GridView
    from mmbench.tracking import WandbSettings, usable_mode

    mode, message = usable_mode(getattr(arguments, "wandb", "off"))
    if message:
        print(message, file=sys.stderr)
    folder = (arguments.results / "wandb").resolve()
    wandb = WandbSettings(mode=mode, group=experiment.name, folder=str(folder))
    with GridView(done + len(trials), done, store.log, describe=experiment.describe) as view:
        records = run_trials(trials, store, slots, view, wandb, source_state(), codes)
    if mode == "offline":
        print(f"W&B: runs are in {folder}; `wandb sync {folder}/wandb/offline-run-*` uploads them", file=sys.stderr)
    return records


def exit_code(records: Sequence[Record], experiment: Experiment) -> int:
    """Name the trials that failed; 1 if there are any."""
    failed = [record for record in records if record.status == "failed"]
    for record in failed:
        reason = " ".join(record.failure.message.split()) if record.failure else "unknown"
        print(f"failed: {experiment.describe(record.trial)}: {reason} (`mmbench show {record.key}`)", file=sys.stderr)
    return FAILED if failed else OK


def write_report(experiment: Experiment, store: Store, results: Path, codes: Codes, publish: bool = False) -> Results:
    """Write the tables and the figures of an experiment; says where.

    Args:
        experiment: what to report.
        store: where its trials are.
        results: the folder of results; a report of one's own goes to ``own/<experiment>`` in it.
        codes: today's code; what came from other code is noted in the report.
        publish: write to ``<experiment>`` instead, which git keeps.

    Raises:
        UsageError: ``publish``, of a report that is not fit for it.
    """
    from threadpoolctl import threadpool_limits

    from mmbench.report.collect import collect
    from mmbench.report.committed import OWN, unfit
    from mmbench.report.page import write

    with threadpool_limits(1):  # small matrices: more threads only get in each other's way
        collected = collect(experiment, store, results / "reported", codes)
    if publish and (reasons := unfit(collected)):
        raise UsageError("\n  ".join([f"--publish: {experiment.name} cannot be published", *reasons]))
    folder = results / experiment.name if publish else results / OWN / experiment.name
    check_folder(folder, "report folder", write=True)
    written = write(collected, folder)
    figures = ", ".join(path.name for path in written if path.suffix == ".png")
    print(f"report: {folder}/table.html, .md, .csv, .tex; {figures}", file=sys.stderr)
    return collected


def print_report(results: Results, committed: Path | None = None, unselected: Collection[str] = ()) -> None:
    """Print the tables, and how they compare with the ``table.csv`` that git keeps, if there is one.

    Trials, by their labels, that were not selected to be run are counted and not listed.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from mmbench.report.committed import compare
    from mmbench.report.escape import one_line
    from mmbench.report.tables import header_notes, sections

    console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = 200  # a file has no width to fit in
    for section in sections(results):
        title = Text(one_line(section.title), style="bold")
        table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
        for i, head in enumerate([*section.header, *(["training, s"] if section.seconds else [])]):
            table.add_column(Text(one_line(head)), justify="right" if i else "left", no_wrap=True)
        for i, row in enumerate(section.body):
            cells = [Text(one_line(cell.text), style=("", "bold", "underline")[cell.rank]) for cell in row]
            table.add_row(*cells, *section.seconds[i : i + 1])
        console.print(table)
        for note in section.notes:
            console.print(one_line(note))
        console.print()
    left_out = {f"{label}: not run" for label in unselected} & set(results.not_run)
    listed = [gap for gap in results.not_run if gap not in left_out]
    count = [f"–: {len(left_out)} trials that --filter leaves out: not run"] if left_out else []
    for note in [*header_notes(results), *(f"–: {gap}" for gap in listed), *count]:
        console.print(one_line(note))
    comparison = compare(results.table, committed) if committed else []
    if comparison:
        console.print()
    for line in comparison:
        console.print(one_line(line))


def report(arguments: argparse.Namespace) -> int:
    """``mmbench report``."""
    from mmbench.provenance import Codes

    if arguments.publish and (arguments.settings or arguments.quick):
        raise UsageError("--publish is of the experiment as its file says; leave --set and --quick out")
    experiment = load_experiment(arguments)
    store = open_store(arguments, write=True)
    if not {trial.key for trial in experiment.trials} & set(store.keys()):
        raise DataError(
            f"nothing of {experiment.name} has been run, so there is nothing to report: no result of its "
            f"{len(experiment.trials)} trials in {store.root}; `mmbench run {arguments.experiment}` runs them"
        )
    collected = write_report(experiment, store, arguments.results, Codes(), arguments.publish)
    print_report(collected, None if arguments.publish else committed_table(experiment, arguments.results))
    return OK


def committed_table(experiment: Experiment, results: Path) -> Path:
    """The table that git keeps of an experiment."""
    return results / experiment.name / "table.csv"


def status(arguments: argparse.Namespace) -> int:
    """``mmbench status``."""
    from mmbench.provenance import Codes, grouped, why_stale
    from mmbench.store import CorruptRecord

    store = open_store(arguments)
    if (arguments.settings or arguments.quick) and not arguments.experiment:
        raise UsageError("status --set, --quick: name the experiment that they change")
    planned = load_experiment(arguments).trials if arguments.experiment else None
    counts: dict[str, int] = {}
    codes, stale = Codes(), []
    for key in [trial.key for trial in planned] if planned is not None else store.keys():
        try:
            record = store.record(key)
            state: str = "not run" if record is None else record.status
            if record is not None and state == "done":
                store.done(key)
                if (reason := why_stale(record, codes)) is not None:
                    state = "stale"
                    stale.append(reason)
        except CorruptRecord as error:
            state, record = "damaged", None
            print(f"damaged: {error}")
        counts[state] = counts.get(state, 0) + 1
        if record is not None and record.failure is not None:
            print(f"failed: {record.trial.label} ({key}): {record.failure.message}")
    for line in grouped(stale, "stale"):
        print(line)
    total = sum(counts.values())
    print(f"{total} trials" + "".join(f", {count} {state}" for state, count in sorted(counts.items())))
    return OK


def check_regression(arguments: argparse.Namespace) -> int:
    """``mmbench check``."""
    from mmbench import regression
    from mmbench.runner.local import plan_slots

    path = arguments.results / "regression" / f"{experiment_path(arguments.experiment).stem}.csv"
    held = None if arguments.update else regression.read(path)
    experiment = load_experiment(arguments)
    threads = arguments.threads or 1
    slots = plan_slots(arguments.devices, arguments.jobs, threads)
    records = run_anew(experiment, arguments, slots)
    if records is None:
        return FAILED
    measured = regression.accuracies(records, experiment)
    if held is None:
        # Half as many at a time: more threads than cores are many times slower.
        again = run_anew(experiment, arguments, plan_slots(arguments.devices, max(1, len(slots) // 2), threads + 1))
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


def run_anew(experiment: Experiment, arguments: argparse.Namespace, slots: Sequence[Slot]) -> list[Record] | None:
    """Run an experiment in a store of its own, since results of other code must not be re-used; None if a trial failed."""
    import tempfile

    from mmbench.provenance import Codes
    from mmbench.store import Store

    with tempfile.TemporaryDirectory(prefix="mmbench-check-") as folder:
        records = run_all(experiment.trials, Store(folder), arguments, experiment, slots, Codes())
    failures = [record for record in records if record.failure is not None]
    for record in failures:  # in full: the store, and with it the log, is gone
        assert record.failure is not None
        print(f"failed: {record.trial.label}: {record.failure.message}\n{record.failure.traceback}", file=sys.stderr)
    return None if failures else records


def list_names(arguments: argparse.Namespace) -> int:
    """``mmbench list``."""
    if arguments.what == "experiments":
        from mmbench.experiment.settings import read_yaml

        for path in sorted(EXPERIMENTS.glob("*.yaml")):
            try:
                content = read_yaml(path)
                print(f"{path.stem:16} {content.get('title', '') if isinstance(content, dict) else ''}")
            except UsageError as error:
                print(f"{path.stem:16} ({error})".replace("\n", " "))
        return OK
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
        print(f"damaged: {error}", file=sys.stderr)
        return FAILED
    assert record is not None
    content = record.model_dump(mode="json", exclude={"metrics", "curves", "failure"}, exclude_none=True)
    print(yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    for pattern, values in record.metrics.items():
        print(f"{pattern:32}" + "".join(f"  {name} {value:6.2f}" for name, value in values.items()))
    if record.failure is not None:
        print(f"{record.failure.kind}: {record.failure.message}")
    log = store.log(record.key)
    print(f"\n{log}:")
    try:
        print(log.read_text(errors="replace"))
    except FileNotFoundError:
        print("(no log)")
    except OSError as error:
        print(f"(cannot be read: {error.strerror})")
    return OK
