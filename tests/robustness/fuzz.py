"""What the tests of this folder share: how much they try, from which seed, and for how long.

MMBENCH_FUZZ=10 MMBENCH_FUZZ_SEED=1 python -m pytest -m slow tests/robustness     ten times as much, of other inputs
"""

import os
import time
from collections.abc import Iterator
from zlib import crc32

import numpy as np


def count(usual: int) -> int:
    """How many inputs to try: the usual number times MMBENCH_FUZZ."""
    return round(usual * float(os.environ.get("MMBENCH_FUZZ", "1")))


def draws(name: str) -> np.random.Generator:
    """Random numbers that depend on a test's name and on MMBENCH_FUZZ_SEED alone."""
    return np.random.default_rng([crc32(name.encode()), int(os.environ.get("MMBENCH_FUZZ_SEED", "0"))])


def within(usual_seconds: float, usual: int) -> Iterator[int]:
    """Count to ``count(usual)``, and stop where that takes far longer than it usually does; at least a tenth is done."""
    until, number = time.monotonic() + count(1000) / 1000 * usual_seconds, count(usual)
    for i in range(number):
        if time.monotonic() > until and i >= number / 10:
            return
        yield i
