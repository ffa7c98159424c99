"""What this machine offers, and what this process is for."""

import os
import platform
import sys
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

_plans_only = False


installed_version = cache(version)
"""The version of an installed package. To look it up takes milliseconds, so that the fork server does it for its trials."""


@cache
def thread_pools() -> Any:
    """What holds the threads of the libraries that are loaded, such as NumPy's linear algebra; the fork server looks for them, too."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def cores() -> int:
    """The CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def host() -> str:
    """What this machine is called."""
    return platform.node() or "unknown"


def available_mb() -> float | None:
    """The MB of memory that new processes can have: the system's estimate, or what a container or a batch system leaves of its limit.

    None where the system does not say.
    """
    found = [left for folder in _control_groups() if (left := _left_of(folder)) is not None]
    with suppress(OSError, StopIteration, ValueError), open("/proc/meminfo") as lines:
        found.append(next(float(line.split()[1]) / 1024 for line in lines if line.startswith("MemAvailable")))
    return min(found, default=None)


@cache
def _control_groups() -> list[Path]:
    """The folders of the control groups that limit this process's memory, up to the root; of versions 1 and 2."""
    root, names = Path("/sys/fs/cgroup"), ["/"]
    with suppress(OSError, ValueError), open("/proc/self/cgroup") as lines:
        for line in lines:
            _, controllers, name = line.rstrip("\n").split(":", 2)
            if not controllers or "memory" in controllers.split(","):
                names.append(name)
    places = [top / folder.lstrip("/") for top in (root, root / "memory") for folder in names]
    return list(
        dict.fromkeys(folder for place in places for folder in (place, *place.parents) if folder.is_relative_to(root))
    )


def _left_of(folder: Path) -> float | None:
    """What a control group leaves of its limit, in MB; None where it has none. The files that it has cached can be given up."""
    for limit, usage, cached in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        with suppress(OSError, ValueError):  # "max": no limit
            left = int((folder / limit).read_text()) - int((folder / usage).read_text())
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            return (left + int(stat.get(cached, 0))) / 2**20
    return None


def resident_mb(pid: int | None, kind: str = "RssAnon") -> float:
    """The MB of memory that a process has now: of its own (``RssAnon``), or mapped from files, which others share (``RssFile``)."""
    with suppress(OSError, StopIteration, ValueError), open(f"/proc/{pid}/status") as lines:
        return next(float(line.split()[1]) / 1024 for line in lines if line.startswith(f"{kind}:"))
    return 0.0


def children(pid: int | None) -> list[int]:
    """The processes that a process has started and that have not ended; none where the system does not say."""
    found: list[int] = []
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += map(int, thread.read_text().split())
    return found


def plan_only() -> None:
    """Say that this process plans trials and will run none itself; without effect once Lightning has been imported."""
    global _plans_only
    _plans_only = "mmbench.lightning" not in sys.modules and "pytorch_lightning" not in sys.modules


def plans_only() -> bool:
    """Whether this process will run no trial itself, so that it can do without Lightning."""
    return _plans_only
