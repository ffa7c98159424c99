"""Taking out of texts what is of the machine that they were written on: folders, the user's name, the host's name."""

from __future__ import annotations

import getpass
import os
import re
import socket
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from mmbench.errors import DataError
from mmbench.record import Record
from mmbench.trial import Trial

PATH = re.compile(r"(?<![\w.:/])(?:~|[A-Za-z]:)?[/\\](?:[\w.@+ ~-]*[\w.@+~-][/\\])+[\w.@+~-]*")
"""An absolute path of at least two parts, or one below a home folder."""


@cache
def _words() -> tuple[tuple[re.Pattern[str], str], ...]:
    """What names this machine and its user, and what is put in its place; folders first, the longest of them before others."""
    folders = {str(Path.home()), os.getcwd(), sys.prefix} - {"/"}
    found = [(re.escape(folder), "<folder>") for folder in sorted(folders, key=len, reverse=True)]
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user without a name
        user = ""
    hosts = {socket.gethostname(), socket.gethostname().partition(".")[0]}
    names = [(user, "<user>"), *((host, "<host>") for host in sorted(hosts, key=len, reverse=True))]
    found += [(rf"(?<!\w){re.escape(name)}(?!\w)", what) for name, what in names if name and name != "localhost"]
    return tuple((re.compile(pattern), what) for pattern, what in found)


def scrubbed(value: Any) -> Any:
    """A value of JSON with every text in it scrubbed."""
    if isinstance(value, str):
        value = PATH.sub("<path>", value)
        for pattern, what in _words():
            value = pattern.sub(what, value)
        return value
    if isinstance(value, dict):
        return {key: scrubbed(inner) for key, inner in value.items()}
    return [scrubbed(inner) for inner in value] if isinstance(value, list) else value


def scrub(record: Record) -> Record:
    """A record as it may be given to others: without the kept model, which is not in a bundle, and without a traceback."""
    failure = record.failure
    if failure is not None:
        failure = failure.model_copy(update={"message": scrubbed(failure.message), "traceback": ""})
    environment = scrubbed(record.environment)
    if "host" in environment:  # whichever of several machines it was
        environment["host"] = "<host>"
    resumed = [went_on.model_copy(update={"host": "<host>"}) for went_on in record.resumed]
    changes = {"environment": environment, "failure": failure, "model_sha256": None, "resumed": resumed}
    return record.model_copy(update=changes)


def check_settings(trials: Sequence[Trial]) -> None:
    """Refuse settings that name a folder of this machine: they are part of a trial's key, so nothing can be taken out of them.

    Raises:
        DataError: it says where.
    """
    for trial in trials:
        for place in ("encoders", "params"):
            for where, text in _texts(getattr(trial, place), place):
                if PATH.search(text) or any(os.path.isabs(part) for part in text.split()):
                    raise DataError(
                        f"{trial.label}: {where} is '{text[:200]}', a path of this machine, and part of what names the trial, so it "
                        "cannot be left out; name files relative to the folder of weights (MMBENCH_WEIGHTS), and run it again"
                    )


def _texts(value: Any, where: str) -> list[tuple[str, str]]:
    if isinstance(value, str):
        return [(where, value)]
    if isinstance(value, dict):
        return [found for key, inner in value.items() for found in _texts(inner, f"{where}.{key}")]
    return [found for inner in value for found in _texts(inner, where)] if isinstance(value, list) else []
