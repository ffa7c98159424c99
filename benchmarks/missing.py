"""What missing-rate experiments cost: ``python benchmarks/missing.py``. Ratios are of work done in turns in this process, one thread.

1. A robustness curve, 7 rates × 100 masks, from stored predictions.
2. A training step in which half of the cells are missing, against a complete one: absent rows are not encoded.
3. Training all seeds of a small model as one batched model (``torch.func``), against one after the other.
4. Starting a process and loading the data, as a share of a trial: what grouping trials in one process could save.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn import functional as F

from mmbench.baselines.late_fusion import LateFusion
from mmbench.batch import Batch
from mmbench.data.sets.openclipart_features import OpenClipartFeatures
from mmbench.data.split import DataSpec
from mmbench.encoders.mlp import Mlp
from mmbench.evidence.rates import robustness
from mmbench.missing import Missing
from mmbench.record import Predictions

TURNS = 15
SEEDS = 3
NAMES = ("image", "title", "tags")
RATES = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]


def seconds(work: Callable[[], object], repeats: int = 20) -> float:
    """Mean time of a call."""
    started = time.perf_counter()
    for _ in range(repeats):
        work()
    return (time.perf_counter() - started) / repeats


def compare(one: Callable[[], object], other: Callable[[], object]) -> tuple[float, float, float]:
    """Median ratio of two ways of working, taken in turns, and their median seconds."""
    one(), other()
    times = [(seconds(one), seconds(other)) for _ in range(TURNS)]
    return (
        statistics.median(a / b for a, b in times),
        statistics.median(a for a, _ in times),
        statistics.median(b for _, b in times),
    )


def curve(samples: int) -> float:
    """Seconds for a robustness curve over 7 rates × 100 masks of one trial."""
    rng = np.random.default_rng(0)
    log_probs = rng.normal(size=(7, samples, 10)).astype(np.float16)
    stored = Predictions(
        modalities=np.array(NAMES),
        label=rng.integers(0, 10, samples),
        group=np.arange(samples),
        present=np.ones((samples, 3), bool),
        predicted=log_probs.argmax(axis=-1).astype(np.int16),
        log_probs=log_probs,
        log_prior=np.zeros(10, np.float16),
        attack=np.empty(0, np.int16),
    )
    return seconds(lambda: robustness(stored, "benchmark", RATES), repeats=1)


def model(width: int = 128) -> LateFusion:
    """Late fusion on feature vectors."""
    spec = DataSpec(NAMES, (10,) * 10, "title", dict.fromkeys(NAMES, 128))
    return LateFusion(spec, {m: Mlp(width=width) for m in NAMES})


def batch(rate: float, size: int = 64) -> Batch:
    """Random feature vectors under an anchor mask."""
    keep = Missing(rate=rate).mask("benchmark", "train", NAMES, size)
    inputs: dict = {m: torch.randn(size, 128) for m in NAMES}
    return Batch(inputs, torch.from_numpy(keep), torch.randint(0, 10, (size,)), torch.arange(size))


def present_rows(width: int, size: int) -> tuple[float, float, float]:
    """A training step at missing rate 0.5 / a complete one."""
    task = model(width)
    half, whole = batch(0.5, size), batch(0.0, size)

    def step(of: Batch) -> None:
        task.zero_grad()
        task.training_step(of, 0).backward()

    return compare(lambda: step(half), lambda: step(whole))


class Joint(nn.Module):
    """Late fusion's networks as one plain module: what a batched version would have to be written as."""

    def __init__(self) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(Mlp() for _ in NAMES)
        self.heads = nn.ModuleList(nn.Linear(128, 10) for _ in NAMES)

    def forward(self, vectors: Tensor) -> Tensor:
        """Logits (M, B, C) of vectors (M, B, 128)."""
        return torch.stack([h(e(x)) for e, h, x in zip(self.encoders, self.heads, vectors, strict=True)])


def batched_seeds() -> tuple[float, float, float]:
    """A step of all seeds one after the other / as one batched model."""
    models = [Joint() for _ in range(SEEDS)]
    vectors, label = torch.randn(SEEDS, 3, 64, 128), torch.randint(0, 10, (SEEDS, 64))
    optimizers = [torch.optim.Adam(m.parameters(), lr=1e-3) for m in models]
    stacked, _ = stack_module_state(models)  # type: ignore[arg-type]
    stacked = {name: value.detach() for name, value in stacked.items()}
    together = torch.optim.Adam(stacked.values(), lr=1e-3)

    def loss(parameters: dict, x: Tensor, y: Tensor) -> Tensor:
        logits = functional_call(models[0], (parameters, {}), (x,))
        return F.cross_entropy(logits.flatten(0, 1), y.repeat(3))

    def one_by_one() -> None:
        for m, optimizer, x, y in zip(models, optimizers, vectors, label, strict=True):
            optimizer.zero_grad()
            F.cross_entropy(m(x).flatten(0, 1), y.repeat(3)).backward()
            optimizer.step()

    gradients = vmap(grad(loss))

    def at_once() -> None:
        found = gradients(stacked, vectors, label)
        for name, value in stacked.items():
            value.grad = found[name]
        together.step()

    return compare(one_by_one, at_once)


def main() -> None:
    """Print all figures."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    for samples in (282, 5531, 57710):
        print(f"robustness curve, 7 rates x 100 masks, {samples} samples: {curve(samples):.2f} s")
    for width, size in ((128, 64), (1024, 256)):
        ratio, a, b = present_rows(width, size)
        print(f"step at rate 0.5 / complete, width {width}, batch {size}: {ratio:.2f} ({1e3 * a:.1f}/{1e3 * b:.1f} ms)")
    ratio, a, b = batched_seeds()
    print(f"{SEEDS} seeds one after the other / as one batched model: {ratio:.2f} ({1e3 * a:.1f} / {1e3 * b:.1f} ms)")
    OpenClipartFeatures().setup()  # imports scikit-learn, as the fork server has
    print(f"loading the features: {seconds(lambda: OpenClipartFeatures().setup(), repeats=3):.2f} s a trial")


if __name__ == "__main__":
    main()
