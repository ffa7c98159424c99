"""MyMethod: the mean of the modalities' predictions, each trusted as much as training finds it worth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from mmbench.arguments import Tunable
from mmbench.baselines.sum import Sum
from mmbench.batch import Batch
from mmbench.data.split import DataSpec
from mmbench.recipe import Recipe
from mmbench.task import mean_over_present, modality_cross_entropy


class MyMethod(Sum):
    """A trusted mean. Here goes the paper: authors, venue and year, arXiv number, and a link to the authors' code with its commit.

    With one linear classifier z_m = W_m h_m + b_m and one number a_m a modality, and over the modalities that are present (beside each
    equation goes its number in the paper):

        w_m = softplus(a_m)                              trust, alike in all modalities at first
        z = Σ_m w_m z_m / Σ_m w_m
        loss = CE(z) + β Σ_m CE(z_m)

    Departures:
        1. Here goes what is done otherwise than in the paper, and why, one number each.

    Args:
        auxiliary: β.
    """

    weighted_classes = True  # the loss below follows recipe.class_weights

    def __init__(
        self,
        spec: DataSpec,
        encoders: Mapping[str, nn.Module],
        recipe: Recipe | None = None,
        *,
        auxiliary: Annotated[float, Field(ge=0), Tunable(0.03, 3.0, log=True)] = 0.3,
    ) -> None:
        super().__init__(spec, encoders, recipe)
        self.auxiliary = auxiliary
        self.trust = nn.Parameter(torch.zeros(len(self.modalities)))  # a, (M,)

    def trusted_mean(self, logits: Tensor, present: Tensor) -> Tensor:
        """The fused logits (B, C) of the modalities' logits (B, M, C), where present (B, M); zero where nothing is."""
        weights = F.softplus(self.trust) * present  # (B, M)
        weights = weights / weights.sum(dim=1, keepdim=True).clamp(min=1e-12)
        return (logits * weights.unsqueeze(-1)).sum(dim=1)

    def fuse(self, features: dict[str, Tensor], present: Tensor) -> Tensor:
        """Logits (B, C) of features, modality -> (B, D_m), where present (B, M): what is tested, under every pattern."""
        return self.trusted_mean(self.modality_logits(features), present)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss. Leave this method out where it is the cross-entropy of ``fuse`` alone."""
        logits = self.modality_logits(self.encode(batch))  # (B, M, C)
        fused = self.cross_entropy(self.trusted_mean(logits, batch.present), batch.label)
        unimodal = modality_cross_entropy(logits, batch.present, batch.label)  # (B, M)
        unimodal = self.weighted(unimodal, batch.label, batch.present)
        return fused + self.auxiliary * mean_over_present(unimodal, batch.present).sum()
