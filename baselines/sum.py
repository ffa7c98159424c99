"""Sum: one linear classifier a modality, outputs added."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mmbench.data.split import DataSpec
from mmbench.recipe import Recipe
from mmbench.task import MultimodalTask


class Sum(MultimodalTask):
    """Summation of per-modality logits, trained jointly.

    As the MLA paper describes its baseline (arXiv 2311.10707, appendix) and OGM-GE's release has it
    (https://github.com/GeWu-Lab/OGM-GE_CVPR2022, ``models/fusion_modules.py``):

        z = Σ_m W_m h_m + b_m,  over the modalities that are present,

    trained by the cross-entropy of z. A modality's own score is its own classifier, W_m h_m + b_m.

    Cost: one forward and one backward pass of every encoder a step.

    Departures:
        1. OGM-GE's release halves the biases of the unimodal scores in validation only, which its authors call a bug
           (issue 33 there). Here a modality's score always has its full bias.
        2. Layers start as PyTorch has them; the release's from Xavier's weights and zero biases (``recipe.head_init``).
    """

    linear_heads = True

    def __init__(self, spec: DataSpec, encoders: Mapping[str, nn.Module], recipe: Recipe | None = None) -> None:
        super().__init__(spec, encoders, recipe)
        self.heads = nn.ModuleDict({m: self.linear(self.dims[m], spec.num_classes) for m in self.modalities})

    def modality_logits(self, features: dict[str, Tensor]) -> Tensor:
        """Each modality's own prediction, (B, M, C)."""
        return torch.stack([self.heads[m](features[m]) for m in self.modalities], dim=1)

    def fuse(self, features: dict[str, Tensor], present: Tensor) -> Tensor:
        """Add the logits of the present modalities: (B, C)."""
        return (self.modality_logits(features) * present.unsqueeze(-1)).sum(dim=1)
