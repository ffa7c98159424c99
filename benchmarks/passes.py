"""What a step of each method costs, beside the encoders' passes that its equations need: ``python benchmarks/passes.py [PATTERN]``.

The other side is a loop by hand that runs ResNet-18s forward and backward as often as ``tests/baselines/test_passes.py`` counts for the
method, with one linear head and the same optimiser: losses, fusion and what a method does to gradients come for nothing there. The
two take turns in this process; figures are medians over the turns of the CPU time of an epoch's steps, and of their ratio.
"""

from __future__ import annotations

import re
import statistics
import sys
from pathlib import Path
from typing import Any

import torch
from steps import SETTINGS, bare, suite
from torch.nn import functional as F

from mmbench.training import quieten

sys.path += [str(Path(__file__).parents[1] / "tests"), str(Path(__file__).parents[1] / "tests/baselines")]
from test_passes import PASSES

GOAL = "at most 1.15"


def main(pattern: str = "") -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    quieten()
    data_class, recipe, turns, _ = SETTINGS["resnet18"]
    # The last epoch is timed, of a method of two stages the second one of the last stage: what comes between them is no step.
    recipe = recipe.model_copy(update={"epochs": 4})
    data = data_class(batch_size=recipe.batch_size)
    data.setup()
    for method, passes in PASSES.items():
        if not re.search(pattern, method):
            continue
        loop = Loop(*passes)
        seconds = [(suite(method, data, recipe), bare(loop, data, recipe)) for _ in range(turns + 1)][1:]
        ratio = statistics.median(a / b for a, b in seconds)
        here, there = (
            1e3 * statistics.median(side) * recipe.batch_size / data.samples for side in zip(*seconds, strict=True)
        )
        print(
            f"a step of {method}, {passes[0]} passes forward and {passes[1]} backward: {ratio:.3f} "
            f"(goal: {GOAL}; {here:.0f} ms / {there:.0f} ms)",
            flush=True,
        )


class Loop:
    """A training loop that is nothing but so many passes forward and backward."""

    def __init__(self, forward: int, backward: int) -> None:
        self.forward, self.backward = forward, backward

    def __call__(self, encoders: Any, heads: Any, optimizer: torch.optim.Optimizer, steps: Any) -> None:
        """An epoch."""
        total = torch.zeros(())
        for inputs, label, _ in steps:
            with torch.no_grad():  # a teacher's
                for _ in range(self.forward - 1):
                    total += sum(encoders[m](x).mean() for m, x in inputs.items())
            loss = F.cross_entropy(sum(heads[m](encoders[m](x)) for m, x in inputs.items()), label)
            optimizer.zero_grad()
            for again in range(self.backward - 1, -1, -1):
                loss.backward(retain_graph=again > 0)
            optimizer.step()
            total += loss.detach()


if __name__ == "__main__":
    main(*sys.argv[1:])
