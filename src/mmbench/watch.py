"""What a trial keeps beside its losses: the learning rate, the size of each encoder's gradient, and how far modalities lie apart."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Optimizer

from mmbench.batch import Batch
from mmbench.optimised import Optimised
from mmbench.record import Features

STEPS = 4
"""Of an epoch, evenly spread: those in which gradients are measured."""
POINTS = 500
"""Test samples, evenly spread, whose features a figure shows."""


class Training(pl.Callback):
    """Logs, an epoch, ``train/lr``, and ``gradient/<modality>`` of each encoder that has one: ln ‖g_m‖, the mean over some steps.

    g_m is the gradient of all of the encoder's parameters, as the loss gives it, before a method changes it and before it is cut back.
    Of a method that changes gradients in ``on_before_optimizer_step``, ``gradient/<modality>/modulated`` is that of what it makes of
    g_m, not cut back either. Where a batch is several steps, as in MLA, the mean is over those in which the encoder has a gradient
    other than zero.
    """

    def __init__(self) -> None:
        self._rate: float | None = None
        self._sums: dict[str, tuple[Tensor | float, Tensor | int]] = {}
        self._measured: set[int] = set()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Go around the hook in which a method changes gradients."""
        pl_module.on_before_optimizer_step = partial(  # type: ignore[method-assign]
            self._around, trainer, pl_module, pl_module.on_before_optimizer_step
        )

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the learning rate before a schedule changes it."""
        self._rate = trainer.optimizers[0].param_groups[0]["lr"] if trainer.optimizers else None
        self._measured = {round(i * int(trainer.num_training_batches) / STEPS) for i in range(STEPS)}

    def _around(self, trainer: pl.Trainer, task: Any, hook: Callable[[Optimizer], None], optimizer: Optimizer) -> None:
        measured = trainer.fit_loop.epoch_loop.batch_idx in self._measured
        if measured:
            self._measure(task, "")
        hook(optimizer)
        if measured and type(task).on_before_optimizer_step is not Optimised.on_before_optimizer_step:
            self._measure(task, "/modulated")

    def _measure(self, task: Any, ending: str) -> None:
        for modality, encoder in task.encoders.items():
            if gradients := [p.grad for p in encoder.parameters() if p.grad is not None]:
                name = f"gradient/{modality}{ending}"
                size = torch.nn.utils.get_total_norm(gradients)
                some = size > 0
                total, count = self._sums.get(name, (0.0, 0))
                self._sums[name] = total + torch.where(some, size.log(), 0.0), count + some

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log what was measured."""
        values = {name: float(total / count) for name, (total, count) in self._sums.items() if count > 0}
        self._sums = {}
        if self._rate is not None:
            values["train/lr"] = self._rate
        if values:
            pl_module.log_epoch(values)  # type: ignore[operator]

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let go of the hook."""
        del pl_module.on_before_optimizer_step


class Gap:
    """The modality gap (Liang et al., NeurIPS 2022, arXiv 2203.02053), and where the features of some samples lie.

    Of modalities a, b whose features have the same width, ‖mean ĥ_a − mean ĥ_b‖ with ĥ = h / ‖h‖, and the means over the samples that
    have the modality: 0 for means that are the same, at most 2. It is of the features that ``encode`` returns.

    Args:
        samples: N, of the split.
    """

    def __init__(self, samples: int) -> None:
        self.stride = -(-samples // POINTS)
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._some: dict[str, list[Tensor]] = {}

    @torch.no_grad()
    def add(self, features: dict[str, Tensor], batch: Batch) -> None:
        """Take the features (B, D_m) of a batch."""
        chosen = batch.index % self.stride == 0
        for column, (modality, rows) in enumerate(features.items()):
            here = batch.present[:, column]
            unit = F.normalize(rows.double(), dim=1).masked_fill(~here[:, None], 0.0)
            self._sums[modality] = self._sums.get(modality, 0.0) + unit.sum(dim=0)
            self._counts[modality] = self._counts.get(modality, 0) + int(here.sum())
            self._some.setdefault(modality, []).append(unit.masked_fill(~here[:, None], torch.nan)[chosen].cpu())

    def values(self) -> dict[str, float]:
        """The gap of each two modalities of one width that both occur, ``"image+title"`` -> gap."""
        means = {m: total / self._counts[m] for m, total in self._sums.items() if self._counts[m]}
        pairs = [(a, b) for a, b in combinations(means, 2) if len(means[a]) == len(means[b])]
        return {f"{a}+{b}": float((means[a] - means[b]).norm()) for a, b in pairs}

    def features(self) -> Features | None:
        """The chosen samples' ĥ in the plane of their first two principal components, all modalities together.

        None where widths differ, or a feature is not a finite number. The sign of an axis is such that its largest entry is positive.
        """
        widths = {len(total) for total in self._sums.values()}
        if len(widths) != 1 or min(widths) < 2:
            return None
        rows = np.stack([torch.cat(parts).numpy() for parts in self._some.values()])  # (M, n, D)
        seen = ~np.isnan(rows).all(axis=2)
        if seen.sum() < 3 or not np.isfinite(rows[seen]).all():
            return None
        centred = rows - rows[seen].mean(axis=0)
        axes = np.linalg.svd(centred[seen], full_matrices=False)[2][:2]  # (2, D)
        largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], axis=1)
        points = centred @ (axes * np.sign(largest)).T
        return Features(np.array(list(self._some)), points.astype(np.float32))
