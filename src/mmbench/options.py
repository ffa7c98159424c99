"""Options that all commands share, and the types of their values."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from mmbench.errors import UsageError
from mmbench.files import user_path

MOST_PROCESSES = 1024


def places(top: bool = False) -> argparse.ArgumentParser:
    """Where results and data lie: a parent of every parser, so that these options stand before a command as well as after it.

    Args:
        top: of the parser before all commands, which alone has defaults; those of the others would replace what it was given.
    """
    parser = argparse.ArgumentParser(add_help=False)
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
