"""ShaSpec: what modalities share stands in for those that are missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from mmbench.arguments import Tunable
from mmbench.batch import Batch
from mmbench.data.split import DataSpec
from mmbench.recipe import Recipe
from mmbench.task import MultimodalTask, mean_over_present, mean_where


class Shaspec(MultimodalTask):
    """Shared–specific feature modelling (Wang et al., CVPR 2023, arXiv 2307.14126).

    Authors' code: https://github.com/billhhh/ShaSpec (segmentation only). With h_m the embedding of modality m:

        r_m = shared(P_m h_m),  s_m = S_m h_m                               shared and specific feature, D wide
        f_m = r_m + F [r_m; s_m]                                            residual fusion, if m is present
        f_m = mean of r_k over the modalities k that are present            if m is missing
        z = V [f_1; …; f_M] + v
        loss = CE(z) + α Σ_m mean |r_m − r_{m+1}| + β CE(domain(s_m), m)

    The alignment goes round the ring of the modalities, the last one's neighbour being the first; each of its M terms is a mean over
    the samples that show both and the D numbers. The domain term, a linear classifier that tells from s_m which modality it is, is a
    mean over what is present.

    Cost: one forward and one backward pass of every encoder a step.

    Departures:
        1. The classification code was never released and the paper's sizes are for other encoders: P_m and S_m are linear layers on
           the one encoder that a modality has here (the paper has an own and a shared network on raw input), shared(x) is
           ReLU, linear, ReLU; F is one linear layer for all modalities; V is linear. D is the width of the missing-modality tables.
        2. A missing modality's shared feature is the mean of those present, as in the paper; the release takes the first one's.
        3. The ring and its sum are the release's (with M = 2 it has the one pair twice). There a batch shows one combination, and every
           term is over the whole of it.
        4. The released schedule, 80 of 260 thousand iterations with everything and then random combinations, is kept as a share of the
           epochs. The release draws once a batch, first how many modalities it shows, uniformly from 1 to M, and then which. Here every
           sample shows one of the non-empty subsets of what it has, uniformly: with M = 3, all three in 1 of 7 cases, not 1 of 3.
           What is hidden enters no term.
        5. The prediction is additive in the modalities under any one pattern, as nothing after their fusion is non-linear.
        6. A sample that has nothing takes no part in training.

    Args:
        width: D.
        alignment_weight: α.
        domain_weight: β.
        complete_share: share of the epochs, at the start, in which nothing is hidden.
    """

    weighted_classes = True

    def __init__(
        self,
        spec: DataSpec,
        encoders: Mapping[str, nn.Module],
        recipe: Recipe | None = None,
        *,
        width: Annotated[int, Field(ge=1)] = 128,
        alignment_weight: Annotated[float, Field(ge=0), Tunable(0.01, 1.0, log=True)] = 0.1,
        domain_weight: Annotated[float, Field(ge=0), Tunable(0.002, 0.2, log=True)] = 0.02,
        complete_share: Annotated[float, Field(ge=0, lt=1)] = 80 / 260,
    ) -> None:
        super().__init__(spec, encoders, recipe)
        self.alignment_weight = alignment_weight
        self.domain_weight = domain_weight
        self.complete_epochs = round(complete_share * self.recipe.epochs)
        self.project = nn.ModuleDict({m: nn.Linear(d, width) for m, d in self.dims.items()})  # P_m
        self.specific = nn.ModuleDict({m: nn.Linear(d, width) for m, d in self.dims.items()})  # S_m
        self.shared = nn.Sequential(nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.residual = nn.Linear(2 * width, width)  # F
        self.domain = nn.Linear(width, len(self.modalities))
        self.classifier = nn.Linear(len(self.modalities) * width, spec.num_classes)

    def split_features(self, features: dict[str, Tensor], present: Tensor) -> tuple[Tensor, Tensor]:
        """The shared and the specific features, (B, M, D) each, zero where the modality is absent."""
        shared = torch.stack([self.shared(self.project[m](features[m])) for m in self.modalities], dim=1)
        specific = torch.stack([self.specific[m](features[m]) for m in self.modalities], dim=1)
        absent = ~present.unsqueeze(-1)
        return shared.masked_fill(absent, 0.0), specific.masked_fill(absent, 0.0)

    def classify(self, shared: Tensor, specific: Tensor, present: Tensor) -> Tensor:
        """Logits (B, C) of shared and specific features (B, M, D) by residual fusion, with stand-ins for absent ones."""
        fused = shared + self.residual(torch.cat([shared, specific], dim=2))  # (B, M, D)
        stand_in = shared.sum(dim=1) / present.sum(dim=1, keepdim=True).clamp(min=1)  # (B, D)
        fused = torch.where(present.unsqueeze(-1), fused, stand_in.unsqueeze(1))
        return self.classifier(fused.flatten(1))

    def fuse(self, features: dict[str, Tensor], present: Tensor) -> Tensor:
        """Predict, with the mean shared feature in the place of what is absent: (B, C)."""
        return self.classify(*self.split_features(features, present), present)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Cross-entropy, alignment of the shared and classification of the specific features."""
        complete = self.current_epoch < self.complete_epochs
        visible = batch.present if complete else self.draw_visible(batch.present)
        shared, specific = self.split_features(self.encode(batch), visible)
        losses = F.cross_entropy(self.classify(shared, specific, visible), batch.label, reduction="none")
        rows = visible.any(dim=1)
        task = mean_where(self.weighted(losses, batch.label, rows), rows)
        domain = self.domain_loss(specific, visible)
        return task + self.alignment_weight * self.alignment_loss(shared, visible) + self.domain_weight * domain

    def alignment_loss(self, shared: Tensor, visible: Tensor) -> Tensor:
        """The sum, round the ring of modalities, of the mean L1 distance between neighbours' shared features.

        Args:
            shared: (B, M, D).
            visible: (B, M) bool; a distance counts where both of its modalities are visible.
        """
        distance = (shared - shared.roll(-1, dims=1)).abs().mean(dim=2)  # (B, M)
        return mean_over_present(distance, visible & visible.roll(-1, dims=1)).sum()

    def domain_loss(self, specific: Tensor, visible: Tensor) -> Tensor:
        """Mean cross-entropy of telling visible modalities (B, M) from their specific features (B, M, D)."""
        own = torch.arange(len(self.modalities), device=specific.device).expand(len(specific), -1)  # (B, M)
        losses = F.cross_entropy(self.domain(specific).transpose(1, 2), own, reduction="none")  # (B, M)
        return mean_where(losses, visible)
