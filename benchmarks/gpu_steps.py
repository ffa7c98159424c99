"""Parts of ``gpu.py``: what a training step costs, and how much of a GPU's time a trial uses."""

from __future__ import annotations

import gc
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from statistics import mean
from tempfile import TemporaryFile
from typing import Any
from unittest.mock import patch

import numpy as np
import pytorch_lightning as pl
import torch
from gpu import Machine, Row, first_line

from mmbench.baselines import METHODS
from mmbench.batch import Batch
from mmbench.data.augment import RandomResizedCrop
from mmbench.data.base import MultimodalDataModule, transformed
from mmbench.data.split import Loaded, Mapped, Split
from mmbench.encoders.building import build_encoder
from mmbench.gpus import MEGABYTE
from mmbench.precision import computing
from mmbench.recipe import Recipe
from mmbench.task import MultimodalTask
from mmbench.training import lean_trainer, put_channels_last, quieten

CLASSES = 6
DISTINCT = 512
"""Samples of a split that differ; so many of CREMA-D's shapes are half a gigabyte."""
FEATURES = 1e-3
"""How far features, computed on the CPU and on a GPU in float32, may lie apart, as a share of the largest."""


AHEAD = "batches gathered ahead"


class Shapes(MultimodalDataModule):
    """Random samples of given shapes, in memory, read and gathered as those of a prepared data set are."""

    name = "shapes"
    classes = tuple("abcdef")
    samples: int
    shapes: dict[str, tuple[tuple[int, ...], str]]

    def load(self) -> Loaded:
        """Splits of the given shapes."""
        _ = self.protocol
        return Loaded(self.draw(self.samples, 0), self.draw(8, 1), self.draw(8, 2))

    def draw(self, size: int, number: int) -> Split:
        """A split: rows of arrays, the same again after ``DISTINCT`` samples; of tokens, tensors."""
        generator, rows = np.random.default_rng(number), np.arange(size) % DISTINCT
        inputs: dict[str, Any] = {}
        for modality, (shape, dtype) in self.shapes.items():
            values = generator.integers(0, 256, (min(size, DISTINCT), *shape), dtype=np.uint8)
            if dtype == "token":
                token = torch.from_numpy(values[rows]).int() + 1000
                inputs[modality] = {"token": token, "mask": torch.ones_like(token)}
            else:
                inputs[modality] = Mapped(values.astype(dtype), rows)
        present = torch.ones(size, len(self.modalities), dtype=torch.bool)
        label = torch.arange(size) % CLASSES
        return Split(inputs, present, label, 1_000_000 * number + torch.arange(size))


@dataclass(frozen=True)
class Workload:
    """What is measured: shapes of the modalities, encoders, samples a step.

    Attributes:
        cropped: modality -> the side to which its pictures are cut, at random, on the device.
    """

    title: str
    shapes: dict[str, tuple[tuple[int, ...], str]]
    encoders: dict[str, dict[str, Any]]
    cropped: dict[str, int]
    batch_size: int = 64

    def data(self, steps: int, recipe: Recipe) -> Shapes:
        """So many steps an epoch of it."""
        names = tuple(self.shapes)
        attributes = {
            "modalities": names,
            "conditioning": names[0],
            "encoders": self.encoders,
            "samples": steps * recipe.batch_size,
            "shapes": self.shapes,
            "augmentations": {m: RandomResizedCrop(side) for m, side in self.cropped.items()},
            "feature_dims": {
                m: shape[0] for m, (shape, kind) in self.shapes.items() if kind == "float32" and len(shape) == 1
            },
        }
        data = type("Shapes", (Shapes,), attributes)(batch_size=recipe.batch_size)
        data.setup()
        return data

    def task(self, data: Shapes, recipe: Recipe) -> MultimodalTask:
        """Concat on the encoders, with random weights."""
        torch.manual_seed(0)
        return METHODS["concat"](data.spec, {m: build_encoder(choice) for m, choice in self.encoders.items()}, recipe)


FRAMES = ((3, 256, 342, 3), "uint8")
FILTER_BANK = ((1024, 128), "float16")
RESNET = Workload(
    "ResNet-18, CREMA-D's shapes",
    {"audio": FILTER_BANK, "video": FRAMES},
    {"audio": {"name": "resnet18_audio"}, "video": {"name": "resnet18"}},
    {"video": 224},
)
WORKLOADS = {
    "resnet18": RESNET,
    "m3ae": Workload(
        "M3AE base, Food-101's shapes",
        {"image": ((256, 256, 3), "uint8"), "text": ((64,), "token")},
        {"image": {"name": "m3ae_image"}, "text": {"name": "m3ae_text"}},
        {"image": 256},
    ),
    "cav_mae": Workload(
        "CAV-MAE base, beside a vector",
        {"audio": FILTER_BANK, "vector": ((128,), "float32")},
        {"audio": {"name": "cav_mae"}, "vector": {"name": "mlp"}},
        {},
    ),
}
SMALL = {
    "resnet18": Workload(
        RESNET.title,
        {"audio": ((128, 32), "float16"), "video": ((2, 48, 64, 3), "uint8")},
        RESNET.encoders,
        {"video": 32},
        CLASSES,
    ),
    "m3ae": Workload(
        "M3AE tiny",
        {"image": ((256, 256, 3), "uint8"), "text": ((16,), "token")},
        {m: {"name": f"m3ae_{m}", "size": "tiny"} for m in ("image", "text")},
        {"image": 256},
        CLASSES,
    ),
    "cav_mae": Workload(
        "CAV-MAE tiny, beside a vector",
        {"audio": FILTER_BANK, "vector": ((128,), "float32")},
        {"audio": {"name": "cav_mae", "size": "tiny"}, "vector": {"name": "mlp"}},
        {},
        CLASSES,
    ),
}
"""The same on shapes that a CPU can do."""


def workloads(machine: Machine) -> dict[str, Workload]:
    """By the name of their encoder."""
    return SMALL if machine.tiny else WORKLOADS


# Steps of batches that are on the device


def loaded(split: Split, size: int, machine: Machine) -> Batch:
    """The first samples of a split, on the device."""
    return split.__getitems__(np.arange(size)).to(machine.device)  # type: ignore[arg-type]


def prepared(task: MultimodalTask, machine: Machine) -> MultimodalTask:
    """As a trial does it."""
    if machine.on_gpu:
        put_channels_last(task)
    return task


class Steps:
    """Training steps by a loop that is written by hand, on a batch that is on the device; augmented anew each time, as in a trial."""

    def __init__(self, workload: Workload, recipe: Recipe, machine: Machine) -> None:
        self.data = workload.data(1, recipe)
        self.task = prepared(workload.task(self.data, recipe), machine).to(machine.device).train()
        (self.optimizer,), _ = self.task.configure_optimizers()
        self.batch, self.machine = loaded(self.data.splits.train, recipe.batch_size, machine), machine

    def step(self) -> None:
        """One of them."""
        inputs = transformed(self.batch.inputs, self.data.augmentations)
        batch = Batch(inputs=inputs, present=self.batch.present, label=self.batch.label, index=self.batch.index)
        loss = self.task.training_step(batch, 0)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def milliseconds(self, count: int, before: int = 3) -> float:
        """The mean of so many steps, after some that are not counted."""
        for _ in range(before):
            self.step()
        synchronise(self.machine)
        began = time.perf_counter()
        for _ in range(count):
            self.step()
        synchronise(self.machine)
        return 1e3 * (time.perf_counter() - began) / count


def synchronise(machine: Machine) -> None:
    """Wait until all that was asked of the GPU is done."""
    if machine.on_gpu:
        torch.cuda.synchronize()


def encoders(machine: Machine) -> Iterator[Row]:
    """Time and memory of a step in each precision, and that features are those of the CPU."""
    torch.use_deterministic_algorithms(True)  # as in a trial
    quieten()
    for workload in workloads(machine).values():
        for precision in ("32-true", "tf32", "bf16"):
            recipe = Recipe(epochs=1, batch_size=workload.batch_size, precision=precision)
            what = f"a step of {workload.batch_size}, {workload.title}, {precision}"
            try:
                with computing(precision):
                    yield Row(what, cost(Steps(workload, recipe, machine), machine))
            except torch.OutOfMemoryError as error:
                yield Row(what, f"no memory: {first_line(error)}")
            gc.collect()
            if machine.on_gpu:
                torch.cuda.empty_cache()
        with computing("32-true"):
            distance = features_apart(workload, machine)
        goal = f"at most {FEATURES:g}"
        yield Row(
            f"features, CPU against {machine.device}, {workload.title}: largest distance",
            f"{distance:.1e}",
            goal,
            distance <= FEATURES,
        )


def cost(steps: Steps, machine: Machine) -> str:
    """Milliseconds and memory of a step."""
    if not machine.on_gpu:
        return f"{steps.milliseconds(2, 1):.1f} ms"
    torch.cuda.reset_peak_memory_stats()
    milliseconds = steps.milliseconds(10)
    peaks = torch.cuda.max_memory_allocated() / MEGABYTE, torch.cuda.max_memory_reserved() / MEGABYTE
    return f"{milliseconds:.1f} ms, {peaks[0]:,.0f} MB of tensors, {peaks[1]:,.0f} MB taken"


def features_apart(workload: Workload, machine: Machine) -> float:
    """The largest distance between features of a few samples, here and on the CPU, as a share of the largest feature."""
    recipe = Recipe(epochs=1, batch_size=CLASSES)
    data = workload.data(1, recipe)
    task = workload.task(data, recipe).eval()
    batch = loaded(data.splits.train, CLASSES, Machine("cpu"))
    torch.manual_seed(0)
    batch.inputs = transformed(batch.inputs, data.augmentations)
    with torch.no_grad():
        there = task.encode(batch)
        here = task.to(machine.device).encode(batch.to(machine.device))
    return max(float((here[m].cpu() - value).abs().max() / value.abs().max()) for m, value in there.items())


def compiled(machine: Machine) -> Iterator[Row]:
    """A step with ``compile: true``, and that it computes the same."""
    quieten()
    workload = workloads(machine)["cav_mae" if machine.tiny else "resnet18"]
    recipe = Recipe(epochs=1, batch_size=workload.batch_size, precision="tf32")
    count, before = (1, 1) if machine.tiny else (10, 3)
    with computing(recipe.precision):
        steps = Steps(workload, recipe, machine)
        plain = steps.milliseconds(count, before)
        expected = features(steps)
        for encoder in steps.task.encoders.values():
            encoder.compile()
        began = time.perf_counter()
        found = features(steps)
        took = time.perf_counter() - began
        apart = max(float((found[m] - value).abs().max() / value.abs().max()) for m, value in expected.items())
        what = "features, compiled against not, tf32: largest distance"
        yield Row(what, f"{apart:.1e} (compiling took {took:.0f} s)", "at most 0.01", apart <= 0.01)
        if machine.on_gpu:
            fast = steps.milliseconds(count, before)
            what = f"a step of {workload.batch_size}, {workload.title}, tf32, compiled"
            yield Row(what, f"{fast:.1f} ms (not compiled {plain:.1f} ms)")


def features(steps: Steps) -> dict[str, torch.Tensor]:
    """Of the batch, cropped alike each time."""
    torch.manual_seed(0)
    inputs = transformed(steps.batch.inputs, steps.data.augmentations)
    batch = Batch(inputs=inputs, present=steps.batch.present, label=steps.batch.label, index=steps.batch.index)
    steps.task.eval()
    with torch.no_grad():
        found = steps.task.encode(batch)
    steps.task.train()
    return found


# Feeding


class Watch(pl.Callback):
    """The wall time of each epoch's training, from its first batch on."""

    def __init__(self, machine: Machine) -> None:
        self.machine, self.seconds = machine, list[float]()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin."""
        synchronise(self.machine)
        self.began = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End."""
        synchronise(self.machine)
        self.seconds.append(time.perf_counter() - self.began)


def feeding(machine: Machine) -> Iterator[Row]:
    """A step of a trial against one of a batch that is there already: what is between them, the GPU waits."""
    quieten()
    workload, count = workloads(machine)["resnet18"], 2 if machine.tiny else 105  # as many as CREMA-D has
    for precision in ("tf32",) if machine.tiny else ("tf32", "bf16"):
        recipe = Recipe(epochs=3, batch_size=workload.batch_size, precision=precision)
        with computing(precision):
            torch.use_deterministic_algorithms(True)
            there = Steps(workload, recipe, machine).milliseconds(
                10 if machine.on_gpu else 2, 3 if machine.on_gpu else 1
            )
            data = workload.data(count, recipe)
            for how, ahead in ways().items():
                with ahead, used(machine) as use:
                    step = in_a_trial(workload, data, recipe, machine) / count
                share = f"the GPU works {100 * there / step:.0f} % of the time" if machine.on_gpu else "no GPU"
                told = f"; nvidia-smi says {mean(use):.0f} %" if use else ""
                what = f"a step of a trial, {workload.title}, {precision}, {how}"
                figure = f"{step:.1f} ms, by hand on a batch that is there {there:.1f} ms: {share}{told}"
                yield Row(what, figure, "at least 95 %" if machine.on_gpu and how == AHEAD else "")


def ways() -> dict[str, Any]:
    """How batches come: as a trial has them, and one after the other."""
    return {AHEAD: nullcontext(), "one after the other": patch.object(MultimodalDataModule, "gathers_ahead", False)}


def in_a_trial(workload: Workload, data: Shapes, recipe: Recipe, machine: Machine) -> float:
    """Milliseconds of an epoch's training in the trainer of a trial; the first epoch is not counted."""
    watch = Watch(machine)
    trainer = lean_trainer(recipe, "gpu" if machine.on_gpu else "cpu", [], [watch], limit_val_batches=0)
    trainer.fit(prepared(workload.task(data, recipe), machine), datamodule=data)
    return 1e3 * mean(watch.seconds[1:])


@contextmanager
def used(machine: Machine) -> Iterator[list[float]]:
    """The use of the first GPU in percent, as NVIDIA's tool says five times a second; nothing where there is no such tool."""
    found: list[float] = []
    if not machine.on_gpu:
        yield found
        return
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0] or "0"
    command = ["nvidia-smi", "-i", first, "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "200"]
    with TemporaryFile("w+") as out:
        try:
            process = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL)
        except OSError:
            yield found
            return
        try:
            yield found
        finally:
            process.kill()
            process.wait()
            out.seek(0)
            said = [float(line) for line in out.read().split("\n") if line.strip().isdigit()]
            found += said[len(said) // 2 :]  # the first half has the building and the first epoch
