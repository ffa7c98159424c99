"""How often the host waits for a GPU in a training step of each method: ``python benchmarks/waiting.py [PATTERN]``.

There need not be one: the device is simulated, and counts. The table is in ``docs/devices.md``.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from mmbench.baselines import METHODS
from mmbench.training import quieten
from simulated import DEVICE, fitted


def main(pattern: str = "") -> None:
    torch.set_num_threads(1)
    quieten()
    print("| method | waits: complete | with gaps | copies: complete | with gaps |\n|---|---|---|---|---|")
    for method in METHODS:
        if re.search(pattern, method):
            complete, gaps = (fitted(method, DEVICE, whole)[0] for whole in (True, False))
            figures = [str(max(count[kind] for count in counts)) for kind in (0, 1) for counts in (complete, gaps)]
            print(f"| {method} | {' | '.join(figures)} |", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
