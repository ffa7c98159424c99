"""QMF: fuse by confidence, and teach the confidence to rank."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from mmbench.arguments import Tunable
from mmbench.baselines.sum import Sum
from mmbench.batch import Batch
from mmbench.data.split import DataSpec
from mmbench.presence import rows_of, taken
from mmbench.recipe import Recipe
from mmbench.task import mean_over_present, modality_cross_entropy


class Qmf(Sum):
    """Quality-aware multimodal fusion (Zhang et al., ICML 2023, arXiv 2306.02050).

    Authors' code: https://github.com/QingyangZhang/QMF (``text-image-classification``). Late fusion's architecture, with
    z_m = W_m h_m + b_m and, over the modalities that are present:

        c_m = logsumexp(z_m) / 10                                           confidence, from the energy score
        z = Σ_m c_m z_m                                                     c_m without gradient
        loss = CE(z) + Σ_m CE(z_m) + λ Σ_m rank_m
        rank_m = mean over pairs (i, j) of max(0, t (c_i − c_j) − |κ_i − κ_j|),  t = sign(κ_i − κ_j)

    κ is the running sum of a sample's cross-entropy by modality m, min–max normalised over the training split and updated before it
    is used; a pair is a sample and its successor in the batch (cyclic): more loss so far should mean less confidence. κ is no loss:
    ``recipe.class_weights`` do not enter it.

    Cost: one forward and one backward pass of every encoder a step.

    Departures:
        1. The rank term is the released one, in which |κ_i − κ_j| is slack: only violations larger than it are penalised. As a
           margin it would have the other sign.
        2. Pairs are formed, and means taken, over the samples that have the modality. κ is normalised over all training samples; one
           that was not seen yet, or lacks the modality, stands at zero.
        3. The ranking weight is 1, as in the text–image release; the RGB-D release and MLA's CREMA-D runs have 0.1.
        4. Nothing keeps an energy confidence positive. Where it is negative it turns that modality's vote around, here as there,
           also when the modality is alone.

    Args:
        rank_weight: λ.
        temperature: the divisor of the energy score.
    """

    weighted_classes = True

    history: Tensor

    def __init__(
        self,
        spec: DataSpec,
        encoders: Mapping[str, nn.Module],
        recipe: Recipe | None = None,
        *,
        rank_weight: Annotated[float, Field(ge=0), Tunable(0.05, 5.0, log=True)] = 1.0,
        temperature: Annotated[float, Field(gt=0), Tunable(3.0, 30.0, log=True)] = 10.0,
    ) -> None:
        super().__init__(spec, encoders, recipe)
        self.rank_weight = rank_weight
        self.temperature = temperature
        self.register_buffer(
            "history", torch.zeros(spec.num_train, len(self.modalities))
        )  # κ before normalising, (N, M)

    def confidence(self, logits: Tensor) -> Tensor:
        """Energy confidence (B, M) of each modality's logits (B, M, C)."""
        return logits.logsumexp(dim=-1) / self.temperature

    def weighted_sum(self, logits: Tensor, present: Tensor) -> Tensor:
        """The fused logits (B, C) of the modalities' logits (B, M, C)."""
        weights = self.confidence(logits).detach() * present  # (B, M)
        return (logits * weights.unsqueeze(-1)).sum(dim=1)

    def fuse(self, features: dict[str, Tensor], present: Tensor) -> Tensor:
        """Add the present modalities' logits, weighted by their confidence: (B, C)."""
        return self.weighted_sum(self.modality_logits(features), present)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Fused and per-modality cross-entropy and the rank regulariser."""
        logits = self.modality_logits(self.encode(batch))  # (B, M, C)
        unimodal = modality_cross_entropy(logits, batch.present, batch.label)  # (B, M)
        self.history[batch.index] += unimodal.detach()
        fused = self.cross_entropy(self.weighted_sum(logits, batch.present), batch.label)
        unimodal = self.weighted(unimodal, batch.label, batch.present)
        rank = self.rank_loss(self.confidence(logits), batch)
        return fused + mean_over_present(unimodal, batch.present).sum() + self.rank_weight * rank

    def rank_loss(self, confidence: Tensor, batch: Batch) -> Tensor:
        """Σ_m rank_m for confidences (B, M)."""
        low, high = self.history.aminmax(dim=0)
        kappa = (self.history[batch.index] - low) / (high - low).clamp(min=1e-12)  # (B, M)
        loss = confidence.new_zeros(())
        for column, rows in enumerate(rows_of(batch.present)):
            c, k = taken(confidence[:, column], rows), taken(kappa[:, column], rows)
            if len(c):
                difference = k - k.roll(-1)
                loss = loss + (difference.sign() * (c - c.roll(-1)) - difference.abs()).clamp(min=0).mean()
        return loss
