"""Errors that the command line prints as one message, without a traceback, and the nearest name to a misspelt one."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from signal import ITIMER_REAL, SIG_IGN, SIGALRM, SIGINT, SIGTERM, SIGUSR1, Signals, setitimer, signal
from time import monotonic
from types import FrameType

ENDING = (SIGINT, SIGTERM, SIGUSR1)
"""The signals that ask a command to end."""
TWICE_SECONDS = 0.1
"""SIGTERM that comes twice within this time is one, which was sent to the process as well as to its group."""


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
    """The run was asked to end, by this signal; a BaseException, so that nothing takes it for a failure and goes on.

    Args:
        signum: the signal, or the one that the exit code is to name.
        how: how it ended, in words; empty: by the signal.
    """

    def __init__(self, signum: int, how: str = "") -> None:
        super().__init__(how or f"ended by {Signals(signum).name}")
        self.signum = signum


class Stopped(BaseException):
    """A trial was asked to end, and has done so at the end of an epoch; a BaseException, so that nothing takes it for a failure."""


@contextmanager
def raise_on_signals() -> Iterator[None]:
    """Turn SIGINT, SIGTERM and SIGUSR1 into Interrupted. A second one is ignored, so that what the first began is brought to an end.

    Interrupted is raised even where the code that the signal came into made something else of it, or nothing: an import that is cut off
    may raise any error, and what is raised in a destructor is dropped.
    """
    came: list[int] = []

    def handler(signum: int, frame: FrameType | None) -> None:
        for s in ENDING:
            signal(s, SIG_IGN)
        came.append(signum)
        raise Interrupted(signum)

    def again(signum: int, frame: FrameType | None) -> None:
        raise Interrupted(came[0])

    def dropped(hint: sys.UnraisableHookArgs) -> None:
        if isinstance(hint.exc_value, Interrupted):
            setitimer(ITIMER_REAL, 0.05)  # raise it again in a moment
        else:
            hook(hint)

    before = {**{s: signal(s, handler) for s in ENDING}, SIGALRM: signal(SIGALRM, again)}
    hook, sys.unraisablehook = sys.unraisablehook, dropped
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
        setitimer(ITIMER_REAL, 0)
        sys.unraisablehook = hook
        for s, old in before.items():
            signal(s, old)


class NotedSignals:
    """Notes the signals that ask a run to end, for a loop that has more to do than that.

    SIGTERM and SIGUSR1 ask it to stop when it can: ``stop``. SIGINT, and SIGTERM once more, ask it to end at once: ``check`` raises
    them, and so does leaving the loop, which raises the others too.

    Attributes:
        stop: the first signal that came that asks to stop; None: none has.
        waiting: while this is set, a signal that asks to end at once is raised at once: for calls that wait for others.
    """

    def __init__(self) -> None:
        self.waiting = False
        self.stop: int | None = None
        self._at_once: int | None = None
        self._terminated: float | None = None  # when SIGTERM came first, on the monotonic clock

    def __enter__(self) -> NotedSignals:
        self._before = {s: signal(s, self._note) for s in ENDING}
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for s, old in self._before.items():
            signal(s, old)
        if kind is None:
            self.check()
            if self.stop is not None:
                raise Interrupted(self.stop)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        now = monotonic()
        again = signum == SIGTERM and self._terminated is not None and now - self._terminated > TWICE_SECONDS
        if signum == SIGINT or again:
            self._at_once = signum
        else:
            self.stop = self.stop or signum
        if signum == SIGTERM and self._terminated is None:
            self._terminated = now
        if self.waiting and self._at_once is not None:
            self.waiting = False
            self.check()

    def check(self) -> None:
        """Raise Interrupted if a signal came that asks to end at once."""
        if self._at_once is not None:
            raise Interrupted(self._at_once)


def printable(text: str) -> str:
    r"""A text for the terminal that others may have written, without what a terminal would act upon; its lines stay.

    >>> printable("a\x1b[2Jb")
    'a�[2Jb'
    """
    return "".join(
        c if c.isprintable() or c in "\n\t" else " " if c.isspace() else "\N{REPLACEMENT CHARACTER}" for c in text
    )


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """The end of an error message: the nearest known name if one is near, else all of them.

    >>> did_you_mean("concatt", ["sum", "concat"])
    "did you mean 'concat'?"
    >>> did_you_mean("x", ["sum", "concat"])
    'known: concat, sum'
    """
    known = sorted(name if name.isprintable() else printable(" ".join(name.split())) for name in known)
    near = get_close_matches(str(name), known, n=1)
    return f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known) or 'none'}"


def counted(count: int, noun: str) -> str:
    """So many of something, in words.

    >>> counted(1, "group"), counted(2, "group")
    ('1 group', '2 groups')
    """
    return f"{count} {noun}{'' if count == 1 else 's'}"
