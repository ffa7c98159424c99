"""``mmbench experiments``: those that come with the package, and those in the current folder."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mmbench.errors import UsageError
from mmbench.files import check_folder
from mmbench.options import given_path, places
from mmbench.places import EXPERIMENTS, Found, comes_with_package, experiment_path, experiments


def add_commands(group: argparse.ArgumentParser) -> None:
    """The commands and their options."""
    commands = group.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, function: Any, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", parents=[places()])
        sub.set_defaults(command=function)
        return sub

    command("list", list_experiments, "list those in experiments/ and those that come with mmbench")
    named = "a YAML file, or a name of `mmbench experiments list`"
    command("show", show, "print an experiment's file").add_argument("name", metavar="NAME", help=named)
    copying = command("copy", copy, "copy an experiment's file, to edit it")
    copying.add_argument("name", metavar="NAME", help=named)
    copying.add_argument(
        "target",
        metavar="DEST",
        nargs="?",
        type=given_path,
        default=EXPERIMENTS,
        help="a folder, or the file to write (default: experiments/)",
    )


def list_experiments(arguments: argparse.Namespace) -> int:
    """``mmbench experiments list`` and ``mmbench list experiments``: name, where it is from, title."""
    found = experiments()
    width = max((len(one.name) for one in found), default=0)
    for one in found:
        print(f"{one.name:{width}}  {f'{EXPERIMENTS}/' if one.own else 'mmbench':12} {title(one.path)}{hiding(one)}")
    return 0


def title(path: Path) -> str:
    """What an experiment's file says it is, or why that cannot be told."""
    from mmbench.experiment.settings import read_yaml

    try:
        content = read_yaml(path)
    except UsageError as error:
        return f"({error})".replace("\n", " ")
    return str(content.get("title", "")) if isinstance(content, dict) else ""


def hiding(one: Found) -> str:
    """What an experiment hides, or what hides it, in brackets; nothing where it is the only one of its name."""
    if one.other is None:
        return ""
    if not one.own:
        return f" [hidden by {one.other}]"
    return f" [hides the one of mmbench{', which says the same' if comes_with_package(one.path) else ''}]"


def show(arguments: argparse.Namespace) -> int:
    """``mmbench experiments show``."""
    print(text_of(experiment_path(arguments.name)), end="")
    return 0


def copy(arguments: argparse.Namespace) -> int:
    """``mmbench experiments copy``.

    Raises:
        UsageError: something is there already, or it cannot be written.
    """
    source, target = experiment_path(arguments.name), arguments.target
    text = text_of(source)
    if target.suffix not in (".yaml", ".yml"):
        target /= f"{source.stem}.yaml"
    check_folder(target.parent, "folder", write=True)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise UsageError(
            f"{target} is there already; name another: `mmbench experiments copy {arguments.name} FILE.yaml`"
        ) from error
    except OSError as error:
        raise UsageError(f"cannot write {target}: {error.strerror}") from error
    by_name = target.parent.absolute() == EXPERIMENTS.absolute() and target.suffix == ".yaml"
    print(f"{target} is a copy of {source}; edit it, and `mmbench run {target.stem if by_name else target}`")
    return 0


def text_of(path: Path) -> str:
    """The text of an experiment's file.

    Raises:
        UsageError: it cannot be read, or is not text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
