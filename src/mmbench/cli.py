"""The command line. Imports that take time stay inside the commands that need them."""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Sequence
from typing import Any

from mmbench import completion, demo, experiment_commands, guide, machine, new, pages, where
from mmbench.bundles.commands import add_export, add_import, export_experiment, import_bundle
from mmbench.commands import (
    REGRESSION,
    check_regression,
    convert_weights,
    dashboard,
    list_names,
    predict_samples,
    run_experiment,
    show_trial,
)
from mmbench.data.preparing.commands import add_commands
from mmbench.durations import CHECKPOINT_EVERY, in_words, interval, some_time
from mmbench.elsewhere.commands import add_options, add_predictions
from mmbench.errors import (
    DataError,
    Interrupted,
    NeedsLightning,
    RunnerError,
    StoreError,
    UsageError,
    printable,
    raise_on_signals,
)
from mmbench.models import asking
from mmbench.opening import FAILED, USAGE
from mmbench.options import Parser, given_path, places, positive, several
from mmbench.report_commands import compare_results, report, write_ledger
from mmbench.runner import choosing
from mmbench.status import status


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0 done, 1 something failed, 2 a mistake in the command, 128 + n ended by signal n."""
    if argv is None:  # a process of its own, which starts others for trials
        machine.plan_only()
    arguments = parser().parse_args(argv)
    arguments.argv = sys.argv[1:] if argv is None else argv
    if arguments.data_dir is not None:
        os.environ["MMBENCH_DATA"] = str(arguments.data_dir)  # also for the processes of trials
    try:
        with raise_on_signals():
            return arguments.command(arguments)
    except NeedsLightning:
        again = "import sys; from mmbench.cli import main; sys.exit(main(sys.argv[1:]))"
        os.execv(sys.executable, [sys.executable, "-c", again, *sys.argv[1:]])
    except (UsageError, DataError, RunnerError, StoreError) as error:
        print(
            f"mmbench: {printable(str(error))}\n{pages.more(pages.page_of(error, arguments.name_of_command))}",
            file=sys.stderr,
        )
        return USAGE if isinstance(error, UsageError) else FAILED
    except Interrupted as interrupt:
        print(
            f"mmbench: {interrupt}; what was finished is kept, the same command goes on from there",
            file=sys.stderr,
        )
        return 128 + interrupt.signum
    except BrokenPipeError:  # `mmbench list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    text = "A benchmark suite for multimodal fusion."
    top = Parser(prog="mmbench", description=text, parents=[places(top=True)])
    top.add_argument("--version", action=Version, nargs=0, help="print the version, and end")
    top.set_defaults(command=guide.print_tasks, name_of_command="")
    commands = top.add_subparsers(metavar="COMMAND")

    def command(name: str, function: Any, text: str) -> argparse.ArgumentParser:
        description = text[0].upper() + text[1:] + "."
        sub = commands.add_parser(name, help=text, description=description, parents=[places()])
        sub.set_defaults(command=function, name_of_command=name)
        return sub

    run = command("run", run_experiment, "run what is missing of an experiment, and report it")
    add_experiment(run)
    add_pairs(run, "--filter", "filters", "run only trials with this dataset, protocol, training, method or seed")
    run.add_argument(
        "--strict", action="store_true", help="fail where a data set or an encoder's weights are not on this machine"
    )
    run.add_argument(
        "--keep-stale", action="store_true", help="use results of other method, encoder or data code as they are"
    )
    run.add_argument(
        "--keep-models",
        action="store_true",
        help="leave every trained model beside its record, as `keep: best` in the file does",
    )
    run.add_argument("--dry-run", action="store_true", help="print the trials and how many are done")
    add_machine(run)
    choosing.add_options(run)
    run.add_argument("--no-report", action="store_true", help="write no report, as for one of several runners")
    text = "GPUs, or processes on the CPU, that train a trial together (default: as the file says, or one)"
    run.add_argument("--devices-per-trial", type=several, metavar="N", help=text)
    add_times(run)
    run.add_argument(
        "--wandb", choices=["off", "offline", "online"], default="off", help="track in Weights & Biases (default: off)"
    )

    demo.add_options(
        command("demo", demo.demo, "a first result: two methods on data that come with mmbench, in sentences"), run
    )
    told = command("status", status, "tell what is done of an experiment, or of all in the store")
    told.epilog = "Exits with 1 where a trial is damaged, else with 0, whatever has failed or is missing."
    add_experiment(told, nargs="?")
    told.add_argument(
        "--verify", action="store_true", help="read every file, also those that have not changed since they were read"
    )
    reports = command("report", report, "write an experiment's tables and figures from the store")
    add_experiment(reports)
    reports.add_argument("--publish", action="store_true", help="write the report that git keeps, results/EXPERIMENT")
    board = command("dashboard", dashboard, "make a workspace in Weights & Biases that shows an experiment's runs")
    add_experiment(board)
    board.add_argument(
        "--print", action="store_true", help="print its specification instead; needs no login and no network"
    )
    compare = command(
        "compare", compare_results, "tell whether two results agree, within what other seeds would differ by"
    )
    compare.epilog = "Exits with 0 where they agree, 1 where they do not, 2 where one is not there or is damaged."
    text = "a report's folder, its table.csv, or the name of an experiment whose report comes with mmbench"
    compare.add_argument("one", metavar="A", help=text)
    compare.add_argument("other", metavar="B", help=f"{text}; its deviations are the measure")
    text = "write what papers report beside what was measured: ledger.csv and ledger.md, in the folder of results"
    command("ledger", write_ledger, text)
    exports = command("export", export_experiment, "bundle an experiment's results in one file, for another machine")
    add_experiment(exports)
    add_export(exports)
    add_import(command("import", import_bundle, "read a bundle into this store"))
    add_options(command("add-predictions", add_predictions, "make a row of reports of what other code predicted"))
    check = command("check", check_regression, "run a small grid anew and compare it with its accuracy bands")
    check.add_argument("experiment", metavar="EXPERIMENT", nargs="?", default=REGRESSION, help=EXPERIMENT)
    check.add_argument("--update", action="store_true", help="write the bands instead")
    add_machine(check)

    add_commands(command("data", None, "data sets: list, info, add, prepare, verify, audit, split, demo"))
    convert = command("convert", convert_weights, "write M3AE's published pickle as safetensors, without executing it")
    convert.add_argument(
        "source", type=given_path, metavar="PICKLE", help="m3ae_small.pkl, m3ae_base.pkl or m3ae_large.pkl"
    )
    convert.add_argument("target", type=given_path, metavar="SAFETENSORS", help="the file to write")
    experiment_commands.add_commands(command("experiments", None, "experiments: list, show, copy"))
    command("where", where.where, "tell which folders are in use and why, and where mmbench itself lies")
    new.add_options(command("new", new.new, "write a package of your own: a method, a data set or an encoder"))
    asking.add_options(command("predict", predict_samples, "ask a model that was kept about the samples of a table"))
    lists = command("list", list_names, "list what there is")
    lists.add_argument("what", choices=["methods", "datasets", "encoders", "experiments"])
    lists.add_argument("--names", action="store_true", help="of experiments too the names alone")
    show = command("show", show_trial, "show one trial: its settings, its metrics, its log")
    show.add_argument("key", metavar="KEY", help="a trial's key, or its beginning")
    completion.add_options(
        command(
            "completion", completion.completion, "print a script by which a shell completes commands, names and files"
        ),
        top,
    )
    guide.add_examples(top)
    return top


class Version(argparse.Action):
    """``--version``; the version is looked up only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Print it, and end."""
        print(f"mmbench {machine.installed_version('mmbench')}")
        parser.exit()


EXPERIMENT = "a YAML file, or the name of one in experiments/ or of mmbench's own"


def add_experiment(sub: argparse.ArgumentParser, **options: Any) -> None:
    """An experiment, and changes of it."""
    sub.add_argument("experiment", metavar="EXPERIMENT", help=EXPERIMENT, **options)
    add_pairs(sub, "--set", "settings", "change a value of the file, e.g. datasets.openclipart.recipe.epochs=2")
    sub.add_argument("--quick", action="store_true", help="the smaller grid that the file itself describes")
    sub.add_argument(
        "--dataset",
        dest="datasets",
        metavar="N",
        nargs="+",
        action="extend",
        default=[],
        help="run it on these data sets instead of the file's, with the settings of its first one",
    )


def add_pairs(sub: argparse.ArgumentParser, flag: str, name: str, text: str) -> None:
    """An option that takes one or more KEY=VALUE, and may be given more than once."""
    sub.add_argument(flag, dest=name, metavar="KEY=VALUE", nargs="+", action="extend", default=[], help=text)


def add_times(sub: argparse.ArgumentParser) -> None:
    """How long things may take, and how much is lost where they are ended."""
    sub.set_defaults(began=time.monotonic())
    sub._negative_number_matcher = re.compile(r"-\.?\d")  # -5m is a bad length of time, and no unknown option
    sub.add_argument(
        "--checkpoint-every",
        type=interval,
        default=CHECKPOINT_EVERY,
        metavar="TIME",
        help="how often a trial writes its state, at the end of an epoch, and goes on from there if it is ended before its time "
        f"(default: {in_words(CHECKPOINT_EVERY)}; epoch: after each; 0: never)",
    )
    sub.add_argument(
        "--time-limit",
        type=some_time,
        metavar="TIME",
        help="what a trial may take, such as 2h; it ends as failed after the epoch in which that is over, and goes on from there in a "
        "run with a larger limit",
    )
    sub.add_argument(
        "--stop-after",
        type=some_time,
        metavar="TIME",
        help="when the run ends, such as 11h50m: no more trials are started, and those that run end with their epoch's checkpoint; "
        "SIGTERM and SIGUSR1 do the same at any time",
    )


def add_machine(sub: argparse.ArgumentParser) -> None:
    """What of the machine trials may use."""
    sub.add_argument(
        "--jobs", type=positive, metavar="N", help="trials at a time (default: one a GPU, or one a CPU core)"
    )
    sub.add_argument("--threads", type=positive, metavar="N", help="CPU threads a trial (default: cores / jobs)")
    text = "where trials run (default: all GPUs, or the CPU)"
    sub.add_argument("--devices", default="auto", metavar="auto|cpu|0,1,…", help=text)
