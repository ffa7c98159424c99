"""The values of back ends' options: times, addresses, and options of sbatch."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mmbench.errors import UsageError

OWN = {
    "ray": ("--address",),
    "slurm": (
        "--partition",
        "--time",
        "--array",
        "--gpus-per-task",
        "--cpus-per-task",
        "--slurm",
        "--cluster",
        "--no-wait",
    ),
}
"""Back end -> the options that only it has."""


def head_of(address: str) -> tuple[str, int] | None:
    """Host and port of a Ray cluster's head; None for ``auto``.

    >>> head_of("node7:6379"), head_of("auto")
    (('node7', 6379), None)

    Raises:
        UsageError: it is no address.
    """
    if address == "auto":
        return None
    found = re.fullmatch(r"([^\s/]+):([0-9]{1,5})", address)
    if found is None or not 0 < int(found[2]) < 2**16:
        here = "; run on a machine of the cluster" if "://" in address else ""
        raise UsageError(f"--address {address}: expected HOST:PORT of the cluster's head, or auto{here}")
    return found[1], int(found[2])


def seconds_of(text: str) -> int:
    """A time limit as Slurm writes it: minutes, M:S, H:M:S, D-H, D-H:M or D-H:M:S.

    >>> seconds_of("90"), seconds_of("12:00:00"), seconds_of("1-12"), seconds_of("2:30")
    (5400, 43200, 129600, 150)

    Raises:
        UsageError: it is none.
    """
    if not re.fullmatch(r"(\d{1,3}-)?\d{1,6}(:\d{1,2}){0,2}", text):
        raise UsageError(
            f"--time {text}: expected a time as Slurm writes it, such as 12:00:00, 90 (minutes) or 1-12 (days-hours)"
        )
    days, dash, rest = text.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if dash or len(parts) == 3:
        hours, minutes, seconds = [*parts, 0, 0][:3]
    else:
        hours, (minutes, seconds) = 0, [*parts, 0][:2]
    total = int(days or 0) * 86400 + hours * 3600 + minutes * 60 + seconds
    if total < 1:
        raise UsageError(f"--time {text}: expected some time")
    return total


def pairs(given: Sequence[str]) -> dict[str, str]:
    """Options of sbatch, from KEY=VALUE.

    Raises:
        UsageError: one is not of this form, or is an option of mmbench's own.
    """
    found: dict[str, str] = {}
    for pair in given:
        key, equals, value = pair.lstrip("-").partition("=")
        key = key.replace("_", "-")
        if not equals or not re.fullmatch(r"[a-z][a-z0-9-]*", key):
            raise UsageError(f"--slurm {pair}: expected KEY=VALUE, an option of sbatch such as account=me")
        if f"--{key}" in OWN["slurm"]:
            raise UsageError(f"--slurm {pair}: --{key} is an option of its own")
        found[key] = value
    return found
