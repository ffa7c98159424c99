"""Errors that the command line prints as one message, without a traceback, and the nearest name to a misspelt one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from signal import SIG_IGN, SIGINT, SIGTERM, Signals, signal
from types import FrameType


class UsageError(ValueError):
    """A mistake in what the user wrote (a key, a name, a value). The command line exits with 2."""


class DataError(RuntimeError):
    """Data that cannot be used as they are; the message says which and what to do. The command line exits with 1."""


class StoreError(RuntimeError):
    """The store cannot be written; the message says which file and why."""


class NeedsLightning(Exception):
    """What was asked for needs Lightning, for which this process has stand-ins (``mmbench.lightning``)."""


class RunnerError(RuntimeError):
    """Trials cannot be started; the message says why and what to do."""


class Interrupted(BaseException):
    """The run was asked to end, by this signal; a BaseException, so that nothing takes it for a failure and goes on."""

    def __init__(self, signum: int) -> None:
        super().__init__(Signals(signum).name)
        self.signum = signum


@contextmanager
def raise_on_signals() -> Iterator[None]:
    """Turn SIGINT and SIGTERM into Interrupted. A second one is ignored, so that what the first began is brought to an end.

    Interrupted is raised even where the code that the signal came into made something else of it, or nothing: an import that is cut off
    may raise any error.
    """
    came: list[int] = []

    def handler(signum: int, frame: FrameType | None) -> None:
        for s in (SIGINT, SIGTERM):
            signal(s, SIG_IGN)
        came.append(signum)
        raise Interrupted(signum)

    before = {s: signal(s, handler) for s in (SIGINT, SIGTERM)}
    try:
        yield
    except Interrupted:
        raise
    except BaseException as error:
        if came:
            raise Interrupted(came[0]) from error
        raise
    else:
        if came:
            raise Interrupted(came[0])
    finally:
        for s, old in before.items():
            signal(s, old)


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
