"""Lengths of time, as users write and read them."""

from __future__ import annotations

import argparse
import re

UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
LONGEST = 10 * 365 * UNITS["d"]
PARTS = re.compile(r"(?P<number>\d+(?:\.\d+)?|\.\d+)(?P<unit>ms|[dhms])")
EACH = 1e-6
"""Less than any epoch takes."""
CHECKPOINT_EVERY = 600.0
"""Seconds between two checkpoints of a trial, unless something else is asked for."""


def duration(text: str) -> float:
    """Seconds: ``600``, ``10m``, ``11h50m``, ``1.5h``; 0 at least.

    >>> duration("11h50m"), duration("600"), duration("0.5s")
    (42600.0, 600.0, 0.5)
    """
    written = text.strip().lower()
    if re.fullmatch(r"\d+(\.\d+)?|\.\d+", written):
        seconds = float(written)
    elif written and not PARTS.sub("", written):
        seconds = sum(float(part["number"]) * UNITS[part["unit"]] for part in PARTS.finditer(written))
    else:
        raise argparse.ArgumentTypeError(f"expected a length of time, such as 600, 10m or 11h50m, got {text[:100]!r}")
    if seconds > LONGEST:
        raise argparse.ArgumentTypeError(f"expected ten years at most, got {text[:100]!r}")
    return seconds


def some_time(text: str) -> float:
    """Seconds, more than none."""
    if (seconds := duration(text)) <= 0:
        raise argparse.ArgumentTypeError(f"expected more than no time, got {text[:100]!r}")
    return seconds


def interval(text: str) -> float:
    """Seconds between two checkpoints; ``epoch``: as few as there are between two epochs; 0: there are none."""
    if text.strip().lower() == "epoch":
        return EACH
    try:
        return duration(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}; `epoch` means after each one, 0 never") from error


def in_words(seconds: float) -> str:
    """The length of time, as it would be written.

    >>> in_words(42600), in_words(90), in_words(0.5), in_words(7200)
    ('11h50m', '1m30s', '0.5s', '2h')
    """
    if seconds < UNITS["m"]:
        return f"{seconds:g}s"
    rest, found = round(seconds), ""
    for unit in "dhms":
        count, rest = divmod(rest, int(UNITS[unit]))
        found += f"{count}{unit}" if count else ""
    return found
