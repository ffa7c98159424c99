"""``mmbench where``: which folders are in use and why, and where mmbench itself lies."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
from pathlib import Path

from mmbench.errors import UsageError
from mmbench.files import check_folder, user_path
from mmbench.machine import installed_version
from mmbench.places import EXPERIMENTS, PACKAGE, carried, experiments

FOLDERS = {"results": "MMBENCH_RESULTS", "data": "MMBENCH_DATA", "weights": "MMBENCH_WEIGHTS"}
"""Folder, as it is called by default in the current one -> the variable that names another."""


def where(arguments: argparse.Namespace) -> int:
    """Print it; 1 if a folder cannot be used."""
    found = experiments()
    own = sum(one.own for one in found)
    told(f"mmbench {installed_version('mmbench')}", PACKAGE, f"Python {platform.python_version()}, {sys.executable}")
    told("experiments", carried("experiments"), f"{len(found) - own} that come with mmbench")
    if own or not EXPERIMENTS.is_dir():
        told(
            "",
            EXPERIMENTS,
            f"{own} of your own, which come first" if own else "where those of your own would be; not there",
        )
    told("published", carried("results"), "numbers of reports and papers, accuracy bands; README.md explains them")
    return max(tell_of(name, option) for name, option in options(arguments).items())


def options(arguments: argparse.Namespace) -> dict[str, Path | None]:
    """Folder -> what an option names, where one was given."""
    results = arguments.results
    by_default = results == user_path(os.environ.get(FOLDERS["results"]) or "results")
    return {"results": None if by_default else results, "data": arguments.data_dir, "weights": None}


def told(name: str, place: Path, text: str) -> None:
    """Print a line, and below it the words."""
    print(f"{name:14} {place.absolute()}\n{'':14} {text}")


def tell_of(name: str, option: Path | None) -> int:
    """Print which folder is in use, why, and in what state it is; 1 if it cannot be used."""
    variable = FOLDERS[name]
    why = f"by {variable}" if os.environ.get(variable) else "by default"
    if option is not None:
        why = "by --data-dir" if name == "data" else f"by --{name}"
    try:
        path = option or user_path(os.environ.get(variable) or name)
        check_folder(path, f"{name} folder")
    except UsageError as error:
        print(f"{name:14} cannot be used, {why}: {error}")
        return 1
    place = next(p for p in (path, *path.absolute().parents) if p.exists())
    state = "there" if path.is_dir() else "not there yet"
    writable = "writable" if os.access(place, os.W_OK) else "not writable"
    told(name, path, f"{why}; {state}, {writable}, {shutil.disk_usage(place).free / 2**30:.1f} GiB free")
    return 0
