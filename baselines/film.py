"""FiLM: one modality scales and shifts the features of the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mmbench.data.split import DataSpec
from mmbench.recipe import Recipe
from mmbench.task import MultimodalTask


class Film(MultimodalTask):
    """Feature-wise linear modulation (Perez et al., AAAI 2018, arXiv 1709.07871) as a fusion layer.

    As the MLA paper describes its baseline (arXiv 2311.10707, appendix) and OGM-GE's release has it
    (https://github.com/GeWu-Lab/OGM-GE_CVPR2022, ``models/fusion_modules.py``), with conditioning modality c:

        [γ; β] = A h_c + a,   z = W (γ ⊙ h_m + β) + b.

    An absent modality's feature is zero and the layer runs forward. The conditioning modality alone gives W β + b: it was never trained
    to answer by itself, and its score is no measure of it.

    Cost: one forward and one backward pass of every encoder a step.

    Departures:
        1. γ multiplies as it is, as in the release, not 1 + γ.
        2. Unimodal scores, undefined in the release, follow the "zero the other feature" reading of its authors (issue 21 there).
        3. M > 2, undefined in both: each of the other modalities has its own A and is modulated by the same h_c; the modulated
           features are concatenated before W.
        4. Layers start as PyTorch has them; the release's from Xavier's weights and zero biases (``recipe.head_init``).

    Args:
        conditioning: the modality that modulates the others; the data set's own choice if None.
    """

    linear_heads = True

    @classmethod
    def artefact_patterns(cls, params: Mapping[str, Any], conditioning: str) -> tuple[str, ...]:
        """The conditioning modality alone: all it has is the shift that it gave the others."""
        return (params.get("conditioning") or conditioning,)

    def __init__(
        self,
        spec: DataSpec,
        encoders: Mapping[str, nn.Module],
        recipe: Recipe | None = None,
        *,
        conditioning: str | None = None,
    ) -> None:
        super().__init__(spec, encoders, recipe)
        self.conditioning, self.others = self.split_modalities(conditioning)
        width = self.dims[self.conditioning]
        self.condition = nn.ModuleDict({m: self.linear(width, 2 * self.dims[m]) for m in self.others})
        self.head = self.linear(sum(self.dims[m] for m in self.others), spec.num_classes)

    def fuse(self, features: dict[str, Tensor], present: Tensor) -> Tensor:
        """Modulate the other modalities' features by the conditioning one's: (B, C)."""
        features = self.zero_absent(features, present)
        modulated = []
        for m in self.others:
            gamma, beta = self.condition[m](features[self.conditioning]).chunk(2, dim=1)  # (B, D_m) each
            modulated.append(gamma * features[m] + beta)
        return self.head(torch.cat(modulated, dim=1))
