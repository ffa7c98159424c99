"""What an audit costs, as ratios against reading the same arrays: vectors, pictures, and pictures that are very many or very alike.

Run with nothing else on the machine. Takes about 1.3 GB of disk for a minute.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from mmbench.data.preparing.auditing.material import Material
from mmbench.data.preparing.auditing.perceptual import Looks, near_pairs
from mmbench.data.preparing.auditing.values import look
from mmbench.data.sets.openclipart import OpenClipart
from mmbench.data.split import Mapped


def seconds(function: Callable[[], object]) -> float:
    """The least CPU time of three runs."""
    taken = []
    for _ in range(3):
        start = time.process_time()
        function()
        taken.append(time.process_time() - start)
    return min(taken)


def own_memory() -> float:
    """MB of memory that is this process's own; pages of files are not counted."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def mixed(count: int, clipart: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Pictures (1000, 32, 32, 3), each of two drawings laid over each other, until there are enough."""
    for _ in range(count // 1000):
        one, other = (clipart[rng.integers(len(clipart), size=1000)].astype(np.float32) for _ in range(2))
        share = rng.uniform(0, 1, (1000, 1, 1, 1)).astype(np.float32)
        yield (share * one + (1 - share) * other).astype(np.uint8)


def material(array: np.ndarray) -> Material:
    """The samples of one modality."""
    count = len(array)
    ids = np.arange(count).astype(str).astype(object)
    there = {"x": np.ones(count, bool)}
    return Material(("a", "b"), ids, np.arange(count) % 2, ids, there, {"x": [Mapped(array, np.arange(count))]}, {}, {})


def audit(path: Path, what: str) -> None:
    """Print what one pass over an array costs."""
    array = np.load(path, mmap_mode="r")
    samples, everything = material(array), np.ones(len(array), bool)
    reading = seconds(lambda: [int(array[i : i + 4096].view(np.uint8).sum()) for i in range(0, len(array), 4096)])
    before = own_memory()
    taken = seconds(lambda: look(samples, "x", everything))
    print(
        f"{what}: {taken:.2f} s, {taken / reading:.1f} times as long as adding up their bytes; {own_memory() - before:.0f} MB of memory"
    )


def main() -> None:
    torch.set_num_threads(1)
    rng, clipart = np.random.default_rng(0), OpenClipart.read()["image"]
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "x.npy"
        array = np.lib.format.open_memmap(path, "w+", np.float32, (100_000, 512))
        for start in range(0, len(array), 10_000):
            array[start : start + 10_000] = rng.standard_normal((10_000, 512), np.float32)
        audit(path, "100,000 vectors of 512 numbers")
        array = np.lib.format.open_memmap(path, "w+", np.uint8, (20_000, 128, 128, 3))
        for start, block in zip(range(0, len(array), 1000), mixed(20_000, clipart, rng), strict=True):
            array[start : start + 1000] = block.repeat(4, axis=1).repeat(4, axis=2)
        audit(path, "20,000 pictures of 128 × 128")
    noisy = (
        np.clip(clipart[500] + rng.integers(-6, 7, (1000, 32, 32, 3)), 0, 255).astype(np.uint8) for _ in range(100)
    )
    for blocks, what in ((mixed(100_000, clipart, rng), "that differ"), (noisy, "of one thing")):
        looks = Looks.joined([Looks.of(torch.from_numpy(block).movedim(-1, 1)) for block in blocks])
        taken = seconds(lambda looks=looks: near_pairs(looks))
        print(f"the pairs that look alike among 100,000 pictures {what}: {taken:.1f} s")


if __name__ == "__main__":
    main()
