"""What this machine offers, and what this process is for."""

import os
import platform
import sys
from functools import cache
from importlib.metadata import version
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


def plan_only() -> None:
    """Say that this process plans trials and will run none itself; without effect once Lightning has been imported."""
    global _plans_only
    _plans_only = "mmbench.lightning" not in sys.modules and "pytorch_lightning" not in sys.modules


def plans_only() -> bool:
    """Whether this process will run no trial itself, so that it can do without Lightning."""
    return _plans_only
