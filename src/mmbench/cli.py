"""The command line. Imports that take time stay inside the commands that need them."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmbench import machine
from mmbench.commands import (
    FAILED,
    REGRESSION,
    USAGE,
    check_regression,
    convert_weights,
    list_names,
    report,
    run_experiment,
    show_trial,
    status,
)
from mmbench.data.preparing.commands import add_commands
from mmbench.errors import DataError, Interrupted, NeedsLightning, StoreError, UsageError, raise_on_signals


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0 done, 1 something failed, 2 a mistake in the command, 128 + n ended by signal n."""
    if argv is None:  # a process of its own, which starts others for trials
        machine.plan_only()
    arguments = parser().parse_args(argv)
    try:
        with raise_on_signals():
            return arguments.command(arguments)
    except NeedsLightning:
        again = "import sys; from mmbench.cli import main; sys.exit(main(sys.argv[1:]))"
        os.execv(sys.executable, [sys.executable, "-c", again, *sys.argv[1:]])
    except UsageError as error:
        print(f"mmbench: {error}", file=sys.stderr)
        return USAGE
    except (DataError, StoreError) as error:
        print(f"mmbench: {error}", file=sys.stderr)
        return FAILED
    except Interrupted as interrupt:
        print(
            f"mmbench: ended by {interrupt}; what was finished is kept, the same command goes on from there",
            file=sys.stderr,
        )
        return 128 + interrupt.signum
    except BrokenPipeError:  # `mmbench list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    top = argparse.ArgumentParser(prog="mmbench", description="A benchmark suite for multimodal fusion.")
    top.add_argument(
        "--results",
        type=Path,
        default=Path(os.environ.get("MMBENCH_RESULTS", "results")),
        metavar="DIR",
        help="where results are kept (default: results, or $MMBENCH_RESULTS)",
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, function: Any, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        sub.set_defaults(command=function)
        return sub

    def pairs(sub: argparse.ArgumentParser, flag: str, name: str, text: str) -> None:
        sub.add_argument(flag, dest=name, metavar="KEY=VALUE", nargs="+", action="extend", default=[], help=text)

    def experiment(sub: argparse.ArgumentParser, **options: Any) -> None:
        text = "a YAML file, or the name of one in experiments/"
        sub.add_argument("experiment", metavar="EXPERIMENT", help=text, **options)

    def settings(sub: argparse.ArgumentParser) -> argparse.ArgumentParser:
        pairs(sub, "--set", "settings", "change a value of the file, e.g. datasets.openclipart.recipe.epochs=2")
        return sub

    def quick(sub: argparse.ArgumentParser) -> argparse.ArgumentParser:
        sub.add_argument("--quick", action="store_true", help="the smaller grid that the file itself describes")
        return sub

    def machine(sub: argparse.ArgumentParser) -> None:
        sub.add_argument(
            "--jobs", type=positive, metavar="N", help="trials at a time (default: one a GPU, or one a CPU core)"
        )
        sub.add_argument("--threads", type=positive, metavar="N", help="CPU threads a trial (default: cores / jobs)")
        sub.add_argument(
            "--devices",
            default="auto",
            metavar="auto|cpu|0,1,…",
            help="where trials run (default: all GPUs, or the CPU)",
        )

    run = command("run", run_experiment, "run what is missing of an experiment, and report it")
    experiment(quick(settings(run)))
    pairs(run, "--filter", "filters", "run only trials with this dataset, protocol, training, method or seed")
    run.add_argument(
        "--strict", action="store_true", help="fail where a data set or an encoder's weights are not on this machine"
    )
    run.add_argument(
        "--keep-stale", action="store_true", help="use results of other method, encoder or data code as they are"
    )
    run.add_argument("--dry-run", action="store_true", help="print the trials and how many are done")
    machine(run)
    run.add_argument(
        "--wandb", choices=["off", "offline", "online"], default="off", help="track in Weights & Biases (default: off)"
    )

    text = "tell what is done of an experiment, or of all in the store"
    experiment(quick(settings(command("status", status, text))), nargs="?")
    reports = command("report", report, "write an experiment's tables and figures from the store")
    experiment(quick(settings(reports)))
    reports.add_argument("--publish", action="store_true", help="write the report that git keeps, results/EXPERIMENT")
    check = command("check", check_regression, "run a small grid anew and compare it with its accuracy bands")
    experiment(check, nargs="?", default=REGRESSION)
    check.add_argument("--update", action="store_true", help="write the bands instead")
    machine(check)

    add_commands(command("data", None, "data sets: list, info, prepare, verify, audit, demo"))
    convert = command("convert", convert_weights, "write M3AE's published pickle as safetensors, without executing it")
    convert.add_argument("source", type=Path, metavar="PICKLE", help="m3ae_small.pkl, m3ae_base.pkl or m3ae_large.pkl")
    convert.add_argument("target", type=Path, metavar="SAFETENSORS", help="the file to write")
    lists = command("list", list_names, "list what there is")
    lists.add_argument("what", choices=["methods", "datasets", "encoders", "experiments"])
    show = command("show", show_trial, "show one trial: its settings, its metrics, its log")
    show.add_argument("key", metavar="KEY", help="a trial's key, or its beginning")
    return top


def positive(text: str) -> int:
    """A whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return value
