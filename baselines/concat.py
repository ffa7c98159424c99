"""Concat: one linear classifier on the concatenated features."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmbench.data.split import DataSpec
from mmbench.recipe import Recipe
from mmbench.task import MultimodalTask


class Concat(MultimodalTask):
    """Concatenation of the features and one linear layer.

    As the MLA paper describes its baseline (arXiv 2311.10707, appendix) and OGM-GE's release has it
    (https://github.com/GeWu-Lab/OGM-GE_CVPR2022, ``models/fusion_modules.py``):

        z = W [h_1; …; h_M] + b = Σ_m (W_m h_m + b / M),

    W_m the columns of W that belong to modality m. The second form says what a modality's own score is, and what is left when
    modalities are absent: the sum over the present ones, so that a pattern's logits are the sum of its parts.

    Cost: one forward and one backward pass of every encoder a step.

    Departures:
        1. Layers start as PyTorch has them; the release's from Xavier's weights and zero biases (``recipe.head_init``).
    """

    linear_heads = True

    def __init__(self, spec: DataSpec, encoders: Mapping[str, nn.Module], recipe: Recipe | None = None) -> None:
        super().__init__(spec, encoders, recipe)
        self.head = self.linear(sum(self.dims.values()), spec.num_classes)

    def modality_logits(self, features: dict[str, Tensor]) -> Tensor:
        """Each modality's part of the prediction, W_m h_m + b / M: (B, M, C)."""
        weights = self.head.weight.split(list(self.dims.values()), dim=1)
        share = self.head.bias / len(self.modalities)
        return torch.stack(
            [F.linear(features[m], w, share) for m, w in zip(self.modalities, weights, strict=True)], dim=1
        )

    def fuse(self, features: dict[str, Tensor], present: Tensor) -> Tensor:
        """Add the parts of the present modalities: (B, C)."""
        return (self.modality_logits(features) * present.unsqueeze(-1)).sum(dim=1)
