"""Parts of ``gpu.py``: the card, methods in deterministic mode and against the CPU, and what the precisions are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytorch_lightning as pl
import torch
from gpu import NO_GPU, Machine, Row, first_line
from pytorch_lightning.plugins.environments import LightningEnvironment
from torch import Tensor
from torch.nn import functional as F

from mmbench.baselines import METHODS
from mmbench.gpus import describe_gpu
from mmbench.machine import cores
from mmbench.precision import computing
from mmbench.provenance import source_state
from mmbench.task import MultimodalTask
from mmbench.testing import with_noise
from mmbench.testing.planted import Planted2, Planted3, StopAfter, World, batch_of, gappy, loader, planted_world, stages
from mmbench.training import quieten

TOLERANCE = 1e-4
"""How far probabilities of one model, computed on the CPU and on a GPU in float32, may lie apart."""


def card(machine: Machine) -> Iterator[Row]:
    """What there is. The first row names the card, whose name the file gets."""
    found = describe_gpu()
    if machine.on_gpu and "gpu" not in found:
        yield NO_GPU
        return
    yield Row("GPU", str(found["gpu"])) if machine.on_gpu else Row("CPU", "CPU, no GPU")
    source = source_state()
    rest = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in found.items() if name != "gpu")
    count = f"{torch.cuda.device_count()} of them, {rest}, " if machine.on_gpu else ""
    changed = ", with changes" if source.get("dirty") else ""
    code = f"mmbench {source['mmbench']}, commit {source.get('commit', 'unknown')}{changed}"
    yield Row("with", f"{count}torch {torch.__version__}, {cores()} CPU cores; {code}")


# Methods


def methods(machine: Machine) -> Iterator[Row]:
    """Every method trains, twice alike, under deterministic algorithms; sees nothing that is absent; and answers as on the CPU."""
    quieten()
    worlds = [planted_world(data) for data in ([Planted3] if machine.tiny else [Planted2, Planted3])]
    wrong: list[Row] = []
    held = dict.fromkeys(("trains", "twice alike", "blind"), 0)
    total, furthest = 0, 0.0
    for name in METHODS:
        for world in worlds:
            total += 1
            where = f"{name}, {len(world.data.modalities)} modalities"
            try:
                found, distance = method(world, METHODS[name], machine)
            except Exception as error:
                wrong.append(Row(where, f"{type(error).__name__}: {first_line(error)}", ok=False))
                continue
            for what, ok in found.items():
                held[what] += ok
                if not ok:
                    wrong.append(Row(where, f"not {what}", ok=False))
            furthest = max(furthest, distance)
            if not distance <= TOLERANCE:
                wrong.append(
                    Row(f"{name}, CPU against {machine.device}", f"{distance:.1e}", f"at most {TOLERANCE:g}", False)
                )
    texts = {
        "trains": "methods that train in deterministic mode, losses and predictions finite",
        "twice alike": "methods whose training, repeated, gives the same weights to the last bit",
        "blind": "methods that noise under a missing mask changes nothing for",
    }
    for what, count in held.items():
        yield Row(texts[what], f"{count} of {total}", f"{total}", count == total)
    text = f"probabilities of trained models, CPU against {machine.device}, float32: largest distance"
    yield Row(text, f"{furthest:.1e}", f"at most {TOLERANCE:g}", furthest <= TOLERANCE)
    yield from wrong


def method(world: World, kind: type[MultimodalTask], machine: Machine) -> tuple[dict[str, bool], float]:
    """Train a method twice and ask it: what holds, and the largest distance between its probabilities here and on the CPU."""
    with computing("32-true"):
        (task, weights), (_, again) = (trained(world, kind, machine) for _ in range(2))
        split = gappy(world.test)
        batch, noisy = batch_of(split, len(split)), batch_of(with_noise(split), len(split))
        task = task.to(machine.device).eval()
        with torch.no_grad():
            here = task.predict_step(batch.to(machine.device)).cpu()
            hidden = task.predict_step(noisy.to(machine.device)).cpu()
            there = task.cpu().predict_step(batch)
    finite = all(bool(value.isfinite().all()) for value in weights.values() if value.is_floating_point())
    found = {
        "trains": finite and bool(here.isfinite().all()),
        "twice alike": all(torch.equal(value, again[name]) for name, value in weights.items()),
        "blind": torch.equal(here, hidden),
    }
    return found, float((here.exp() - there.exp()).abs().max())


def trained(world: World, kind: type[MultimodalTask], machine: Machine) -> tuple[MultimodalTask, dict[str, Tensor]]:
    """A method after three batches a stage, and its weights."""
    task = world.build(kind)
    torch.manual_seed(0)
    trainer = pl.Trainer(
        accelerator="gpu" if machine.on_gpu else "cpu",
        devices=1,
        max_epochs=task.recipe.epochs,
        deterministic=True,
        callbacks=[StopAfter(stages(task))],
        plugins=[LightningEnvironment()],  # one process, whatever cluster this is
        limit_train_batches=3,
        limit_val_batches=0,
        log_every_n_steps=0,
        **dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False),
    )
    trainer.fit(task, loader(world.complete), loader(world.complete))
    return task, {name: value.detach().cpu().clone() for name, value in task.state_dict().items()}


# Precisions


def precisions(machine: Machine) -> Iterator[Row]:
    """What a product and a convolution lose, against float64: nothing in 32-true, and in TF32 what ten bits lose."""
    size = 256 if machine.tiny else 2048
    generator = torch.Generator().manual_seed(0)
    one, other = torch.randn(size, size, generator=generator), torch.randn(size, size, generator=generator)
    pictures, kernels = torch.randn(16, 64, 28, 28, generator=generator), torch.randn(64, 64, 3, 3, generator=generator)
    operations: dict[str, Any] = {
        "product": (lambda a, b: a @ b, one, other),
        "convolution": (lambda a, b: F.conv2d(a, b, padding=1), pictures, kernels),
    }
    has_tf32 = machine.on_gpu and torch.cuda.get_device_capability() >= (8, 0)
    exactly, roughly = (0.0, 1e-5), (1e-5, 3e-3)
    for what, (operation, *factors) in operations.items():
        a, b = (factor.to(machine.device) for factor in factors)
        exact = operation(a.double(), b.double())
        for precision in ("32-true", "tf32"):
            least, most = roughly if precision == "tf32" and has_tf32 else exactly
            with computing(precision):
                lost = float((operation(a, b).double() - exact).norm() / exact.norm())
            least = 0.0 if what == "convolution" else least  # cuDNN may have found another algorithm faster
            goal = f"{least:g} to {most:g}" if least else f"at most {most:g}"
            yield Row(f"a {what} in {precision}: relative error", f"{lost:.1e}", goal, least <= lost <= most)
