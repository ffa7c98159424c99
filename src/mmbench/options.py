"""Options that all commands share, and the types of their values."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path
from typing import Any, NoReturn

from mmbench.errors import UsageError, did_you_mean
from mmbench.files import user_path

MOST_PROCESSES = 1024
CHOICES = re.compile(r"argument (.*): invalid choice: '(.*)' \(choose from (.+)\)", re.DOTALL)


class Parser(argparse.ArgumentParser):
    """Of a command: a mistake in what is typed is answered with the nearest valid word, and where the examples are."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """As argparse does; what it does not know is answered here, where the command's own options are known."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown and unknown[0].startswith("-"):
            options = [option for action in self._actions for option in action.option_strings]
            self.error(f"{unknown[0]}: no such option; {did_you_mean(unknown[0].partition('=')[0], options)}")
        if unknown:
            self.error(f"{unknown[0]}: not expected here")
        return found, unknown

    def error(self, message: str) -> NoReturn:
        """Say it, and exit with 2."""
        if choice := CHOICES.fullmatch(message):
            option, name, known = choice[1], choice[2], choice[3].replace("'", "").split(", ")
            given = f"{option} {name}" if option.startswith("-") else name
            message = f"{given}: {did_you_mean(name, known)}"
        elif message.endswith(": EXPERIMENT"):
            message += "; `mmbench list experiments` names those there are"
        self.exit(2, f"{self.prog}: {message}\nexamples: {self.prog} --help\n")


def places(top: bool = False) -> Parser:
    """Where results and data lie: a parent of every parser, so that these options stand before a command as well as after it.

    Args:
        top: of the parser before all commands, which alone has defaults; those of the others would replace what it was given.
    """
    parser = Parser(add_help=False)
    results = os.environ.get("MMBENCH_RESULTS") or "results"
    parser.add_argument(
        "--results",
        type=given_path,
        default=results if top else argparse.SUPPRESS,
        metavar="DIR",
        help="where results are kept (default: $MMBENCH_RESULTS, or results)",
    )
    parser.add_argument(
        "--data-dir",
        type=given_path,
        default=None if top else argparse.SUPPRESS,
        metavar="DIR",
        help="where prepared data lie (default: $MMBENCH_DATA, or data)",
    )
    return parser


def given_path(text: str) -> Path:
    """A path, as ``files.user_path`` reads it."""
    try:
        return user_path(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


MOST_DEVICES = 64
"""Of a trial, as in an experiment's file."""


def several(text: str) -> int:
    """How many devices train a trial: a whole number from 1 to ``MOST_DEVICES``."""
    return positive(text, MOST_DEVICES)


def positive(text: str, most: int = MOST_PROCESSES) -> int:
    """How many processes or threads: a whole number from 1 on."""
    try:
        value = int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected a whole number, got {text[:100]}") from error
    if not 1 <= value <= most:
        raise argparse.ArgumentTypeError(f"must be at least 1 and at most {most}, got {text[:100]}")
    return value
