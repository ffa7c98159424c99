"""What a training step costs, beside a loop that is written by hand for one method: ``python benchmarks/steps.py [PATTERN]``.

Both sides have the same encoders, the same batches, augmented alike, and the same optimiser. The loops know nothing of missing
modalities, records or other methods, as released code mostly does not. The two take turns in this process; figures are medians over the
turns of the CPU time (user and system) of an epoch's training steps, and of their ratio. Validation is not part of it.
"""

from __future__ import annotations

import re
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn import functional as F

from mmbench.baselines import METHODS
from mmbench.curves import CurveLogger
from mmbench.data.augment import RandomCropFlip
from mmbench.data.base import MultimodalDataModule
from mmbench.data.split import Loaded, Split
from mmbench.encoders.building import build_encoder
from mmbench.recipe import Recipe
from mmbench.training import lean_trainer, quieten

CLASSES = 6
METHOD_NAMES = ("sum", "ogm_ge", "qmf", "mla")


class Random(MultimodalDataModule):
    """Random numbers as samples, all of them complete."""

    classes = tuple("abcdef")
    samples: int
    shapes: dict[str, tuple[int, ...]]

    def load(self) -> Loaded:
        """Splits of the given shapes."""
        _ = self.protocol
        return Loaded(self.draw(self.samples, 0), self.draw(16, 1), self.draw(16, 2))

    def draw(self, size: int, number: int) -> Split:
        """A split: bytes where a sample has several dimensions, else normal numbers."""
        generator = torch.Generator().manual_seed(number)
        inputs: dict[str, Any] = {
            m: torch.randint(0, 256, (size, *shape), generator=generator, dtype=torch.uint8)
            if len(shape) > 1
            else torch.randn(size, *shape, generator=generator)
            for m, shape in self.shapes.items()
        }
        present = torch.ones(size, len(self.modalities), dtype=torch.bool)
        label = torch.randint(0, CLASSES, (size,), generator=generator)
        return Split(inputs, present, label, 1_000_000 * number + torch.arange(size))


class Pictures(Random):
    """Two pictures a sample, cropped and mirrored at random."""

    name = "pictures"
    modalities = ("first", "second")
    conditioning = "first"
    encoders = {"first": "resnet18", "second": "resnet18"}
    augmentations = {"first": RandomCropFlip(padding=4), "second": RandomCropFlip(padding=4)}
    samples, shapes = 64, {"first": (3, 64, 64), "second": (3, 64, 64)}


class Vectors(Random):
    """Three feature vectors a sample."""

    name = "vectors"
    modalities = ("first", "second", "third")
    conditioning = "first"
    encoders = {m: {"name": "mlp", "dropout": 0.5} for m in modalities}
    feature_dims = dict.fromkeys(modalities, 128)
    samples, shapes = 6400, dict.fromkeys(modalities, (128,))


SETTINGS: dict[str, tuple[type[Random], Recipe, int, str]] = {  # data, recipe, turns, goal
    "resnet18": (Pictures, Recipe(epochs=1, batch_size=16, lr=0.001), 5, "at most 1.05"),
    "mlp": (Vectors, Recipe(epochs=1, batch_size=64, lr=0.001, optimizer="adam"), 9, "at most 1.15"),
}


def main(pattern: str = "") -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)  # as in a trial, and as quick
    quieten()
    for name, (data_class, recipe, turns, goal) in SETTINGS.items():
        for method in METHOD_NAMES:
            if not re.search(pattern, f"{name} {method}"):
                continue
            data = data_class(batch_size=recipe.batch_size)
            data.setup()
            seconds = [(suite(method, data, recipe), bare(LOOPS[method], data, recipe)) for _ in range(turns + 1)][1:]
            steps = data.samples // recipe.batch_size
            ratio = statistics.median(a / b for a, b in seconds)
            here, there = (1e3 * statistics.median(side) / steps for side in zip(*seconds, strict=True))
            print(
                f"a step of {method} with {name}: {ratio:.3f} (goal: {goal}; {here:.2f} ms / {there:.2f} ms)",
                flush=True,
            )


def encoders_of(data: Random) -> dict[str, nn.Module]:
    """The same encoders for both sides."""
    torch.manual_seed(0)
    choices = {m: {"name": e} if isinstance(e, str) else dict(e) for m, e in data.encoders.items()}
    return {m: build_encoder(choice) for m, choice in choices.items()}


# The suite


class Watch(pl.Callback):
    """The CPU time of an epoch's training."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.began = time.process_time()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.seconds = time.process_time() - self.began


def suite(method: str, data: Random, recipe: Recipe) -> float:
    """CPU seconds of an epoch as a trial has it."""
    task, watch = METHODS[method](data.spec, encoders_of(data), recipe), Watch()
    trainer = lean_trainer(recipe, "cpu", [CurveLogger()], [watch], limit_val_batches=0)
    with redirect_stdout(StringIO()):  # the epoch's line
        trainer.fit(task, datamodule=data)
    return watch.seconds


# Loops by hand


def bare(loop: Callable[..., None], data: Random, recipe: Recipe) -> float:
    """CPU seconds of an epoch of a loop."""
    encoders = nn.ModuleDict(encoders_of(data)).train()
    width = int(encoders[data.modalities[0]].out_dim)  # type: ignore[arg-type]
    heads = nn.ModuleDict({m: nn.Linear(width, CLASSES) for m in data.modalities})
    if loop is mla_loop:
        heads = nn.ModuleDict({"shared": nn.Linear(width, CLASSES)})
    parameters = [*encoders.parameters(), *heads.parameters()]
    optimizer: torch.optim.Optimizer
    if recipe.optimizer == "sgd":
        optimizer = torch.optim.SGD(parameters, recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay)
    else:
        optimizer = torch.optim.Adam(parameters, recipe.lr, weight_decay=recipe.weight_decay, fused=True)
    began = time.process_time()
    loop(encoders, heads, optimizer, batches(data, recipe))
    return time.process_time() - began


def batches(data: Random, recipe: Recipe) -> Any:
    """An epoch's batches: their inputs, augmented, labels and numbers."""
    train = data.splits.train
    for rows in torch.randperm(len(train)).split(recipe.batch_size):
        inputs = {m: train.inputs[m][rows] for m in data.modalities}  # type: ignore[index]
        yield (
            {m: data.augmentations[m](x) if m in data.augmentations else x for m, x in inputs.items()},
            train.label[rows],
            rows,
        )


def sum_loop(encoders: Any, heads: Any, optimizer: torch.optim.Optimizer, steps: Any) -> None:
    """Logits added, one loss."""
    total = torch.zeros(())
    for inputs, label, _ in steps:
        loss = F.cross_entropy(sum(heads[m](encoders[m](x)) for m, x in inputs.items()), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.detach()


def ogm_ge_loop(encoders: Any, heads: Any, optimizer: torch.optim.Optimizer, steps: Any, alpha: float = 0.8) -> None:
    """The encoders' gradients scaled by who is ahead, and noise added."""
    total = torch.zeros(())
    for inputs, label, _ in steps:
        logits = {m: heads[m](encoders[m](x)) for m, x in inputs.items()}
        loss = F.cross_entropy(sum(logits.values()), label)
        optimizer.zero_grad()
        loss.backward()
        scores = {m: z.detach().softmax(dim=1)[range(len(label)), label].mean() for m, z in logits.items()}
        for m, score in scores.items():
            ratio = score * (len(scores) - 1) / (sum(scores.values()) - score)
            k = 1 - torch.tanh(alpha * ratio) if ratio > 1 else 1.0
            for weight in encoders[m].parameters():
                if weight.dim() > 1:
                    noise = torch.randn_like(weight.grad) * (weight.grad.std() + 1e-8)
                    weight.grad = weight.grad * k + noise
        optimizer.step()
        total += loss.detach()


def qmf_loop(encoders: Any, heads: Any, optimizer: torch.optim.Optimizer, steps: Any) -> None:
    """Logits weighted by their energy, losses of their own, and a rank loss on the energies."""
    total, seen = torch.zeros(()), {m: torch.zeros(10_000) for m in encoders}
    for inputs, label, rows in steps:
        fused, loss = torch.zeros(()), torch.zeros(())
        for m, x in inputs.items():
            z = heads[m](encoders[m](x))
            own = F.cross_entropy(z, label, reduction="none")
            confidence = z.logsumexp(dim=1) / 10
            seen[m][rows] += own.detach()
            kappa = (seen[m][rows] - seen[m].min()) / (seen[m].max() - seen[m].min())
            difference = kappa - kappa.roll(-1)
            rank = F.relu(difference.sign() * (confidence - confidence.roll(-1)) - difference.abs()).mean()
            fused = fused + z * confidence.detach().unsqueeze(1)
            loss = loss + own.mean() + rank
        loss = loss + F.cross_entropy(fused, label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.detach()


def mla_loop(encoders: Any, heads: Any, optimizer: torch.optim.Optimizer, steps: Any) -> None:
    """A step a modality through one head, whose gradient is projected."""
    head, total, first = heads["shared"], torch.zeros(()), True
    p = torch.eye(head.in_features)
    for inputs, label, _ in steps:
        for m, x in inputs.items():
            feature = encoders[m](x)
            loss = F.cross_entropy(head(feature), label)
            optimizer.zero_grad()
            loss.backward()
            if not first:
                mean = feature.detach().mean(dim=0)
                q = p @ mean
                p = p - torch.outer(q, mean @ p) / (0.1 + mean @ q)
                head.weight.grad = head.weight.grad @ p.T
            optimizer.step()
            first = False
            total += loss.detach()


LOOPS = {"sum": sum_loop, "ogm_ge": ogm_ge_loop, "qmf": qmf_loop, "mla": mla_loop}


if __name__ == "__main__":
    main(*sys.argv[1:])
