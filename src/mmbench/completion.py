"""``mmbench completion``: a script by which a shell completes commands, options, names and files."""

from __future__ import annotations

import argparse
from typing import Any

from mmbench.guide import parsers

SHELLS = ("bash", "zsh", "tcsh")
NAMES = {"experiment": "experiments", "one": "experiments", "other": "experiments", "datasets": "datasets"}
"""What an argument is called -> what `mmbench list` has names of; a ``name`` is an experiment's or a data set's, by its command."""
FOLDERS, FILES = ("DIR", "MODEL"), ("FILE", "INPUT", "BUNDLE", "PICKLE", "SAFETENSORS", "DEST")
"""What help calls arguments that are paths."""
BASH = """
_mmbench_names() {
  compgen -W "$("${COMP_WORDS[0]:-mmbench}" list "$1" --names 2>/dev/null)" -- "$2"
}
_mmbench_datasets() { _mmbench_names datasets "$1"; }
_mmbench_experiments() {
  _mmbench_names experiments "$1"
  compgen -f -X '!*.yaml' -- "$1"
  compgen -d -- "$1"
}"""


def add_options(sub: argparse.ArgumentParser, top: argparse.ArgumentParser) -> None:
    """The options of the command.

    Args:
        sub: its parser.
        top: that of all commands, which is completed.
    """
    sub.add_argument("shell", choices=SHELLS, metavar="|".join(SHELLS), help="the shell")
    sub.epilog = 'For bash, put eval "$(mmbench completion bash)" into ~/.bashrc; for other shells, the script says where it goes.'
    sub.set_defaults(top=top)


def completion(arguments: argparse.Namespace) -> int:
    """``mmbench completion``: print the script."""
    import shtab

    for command, parser in parsers(arguments.top):
        for action in parser._actions:
            if (found := completed_by(command, action)) is not None:
                action.complete = found  # type: ignore[attr-defined]
    print(shtab.complete(arguments.top, arguments.shell, preamble=BASH if arguments.shell == "bash" else ""))
    return 0


def completed_by(command: str, action: argparse.Action) -> Any:
    """What shtab is told of an argument: names, folders or files; None: nothing."""
    import shtab

    kind = NAMES.get(action.dest)
    if action.dest == "name" and command.startswith(("data ", "experiments ")) and not action.option_strings:
        kind = "datasets" if command.startswith("data ") else "experiments"
    if action.dest == "dataset":
        kind = "datasets"
    if kind is not None:
        names = f"mmbench list {kind} --names"
        return {"bash": f"_mmbench_{kind}", "zsh": f"($({names}))", "tcsh": f"`{names}`"}
    return shtab.DIRECTORY if action.metavar in FOLDERS else shtab.FILE if action.metavar in FILES else None
