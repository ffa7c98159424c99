"""Multi-loss: Concat, and a head a modality with a loss of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from mmbench.arguments import Tunable
from mmbench.baselines.concat import Concat
from mmbench.batch import Batch
from mmbench.data.split import DataSpec
from mmbench.recipe import Recipe
from mmbench.task import mean_over_present, modality_cross_entropy


class MultiLoss(Concat):
    """Joint training with a loss for every modality beside the fused one.

    What G-Blending (Wang, Tran, Feiszli, CVPR 2020, arXiv 1905.12681) and MMPareto (Wei and Hu, ICML 2024, arXiv 2405.17730) start from
    and compare themselves with. With f Concat's logits and g_m a linear head on modality m's feature alone:

        loss = ℓ(f) + w Σ_m ℓ(g_m),   ℓ the cross-entropy, of g_m over the samples that have m.

    What is shown is answered by f; where it is one modality alone, by that modality's head g_m.

    Cost: one forward and one backward pass of every encoder a step.

    Departures:
        1. The papers weigh all losses alike; w is an argument here, 1 by default.
        2. The papers have complete data. Here f adds up what is there, as in ``concat``, and a single modality is left to g_m,
           which was trained for just that; in the papers g_m serves to look at a modality and does not answer.
        3. Layers start as PyTorch has them (``recipe.head_init``).

    Args:
        unimodal_weight: w.
    """

    linear_heads = True
    weighted_classes = True

    def __init__(
        self,
        spec: DataSpec,
        encoders: Mapping[str, nn.Module],
        recipe: Recipe | None = None,
        *,
        unimodal_weight: Annotated[float, Field(ge=0), Tunable(0.1, 10.0, log=True)] = 1.0,
    ) -> None:
        super().__init__(spec, encoders, recipe)
        self.unimodal_weight = unimodal_weight
        self.heads = nn.ModuleDict({m: self.linear(self.dims[m], spec.num_classes) for m in self.modalities})

    def unimodal_logits(self, features: dict[str, Tensor]) -> Tensor:
        """g_m of every modality: (B, M, C)."""
        return torch.stack([self.heads[m](features[m]) for m in self.modalities], dim=1)

    def fuse(self, features: dict[str, Tensor], present: Tensor) -> Tensor:
        """Concat's logits of the present modalities, or those of the only one's head: (B, C)."""
        own = (self.unimodal_logits(features) * present.unsqueeze(-1)).sum(dim=1)
        return torch.where(present.sum(dim=1, keepdim=True) == 1, own, super().fuse(features, present))

    def losses(self, features: dict[str, Tensor], batch: Batch) -> tuple[Tensor, Tensor]:
        """ℓ(f), and ℓ(g_m) of every modality (M,), which is zero where no sample has it."""
        fused = self.cross_entropy(super().fuse(features, batch.present), batch.label)
        unimodal = modality_cross_entropy(self.unimodal_logits(features), batch.present, batch.label)
        return fused, mean_over_present(self.weighted(unimodal, batch.label, batch.present), batch.present)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """ℓ(f) + w Σ_m ℓ(g_m)."""
        fused, unimodal = self.losses(self.encode(batch), batch)
        return fused + self.unimodal_weight * unimodal.sum()
