"""Errors that the command line prints as one message, without a traceback, and the nearest name to a misspelt one."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from signal import Signals


class UsageError(ValueError):
    """A mistake in what the user wrote (a key, a name, a value). The command line exits with 2."""


class StoreError(RuntimeError):
    """The store cannot be written; the message says which file and why."""


class Interrupted(Exception):
    """The run was asked to end, by this signal."""

    def __init__(self, signum: int) -> None:
        super().__init__(Signals(signum).name)
        self.signum = signum


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """The end of an error message: the nearest known name if one is near, else all of them.

    >>> did_you_mean("concatt", ["sum", "concat"])
    "did you mean 'concat'?"
    >>> did_you_mean("x", ["sum", "concat"])
    'known: concat, sum'
    """
    known = sorted(known)
    near = get_close_matches(str(name), known, n=1)
    return f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known) or 'none'}"
