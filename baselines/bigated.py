"""BiGated: one modality's hidden state gates those of the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mmbench.data.split import DataSpec
from mmbench.recipe import Recipe
from mmbench.task import MultimodalTask


class BiGated(MultimodalTask):
    """Bilinear gated fusion (Kiela et al., AAAI 2018, arXiv 1802.02892).

    As the MLA paper describes its baseline (arXiv 2311.10707, appendix) and OGM-GE's release has it
    (https://github.com/GeWu-Lab/OGM-GE_CVPR2022, ``models/fusion_modules.py``), with gating modality c:

        z = W (σ(U_c h_c + u_c) ⊙ (U_m h_m + u_m)) + b.

    All hidden states are as wide as the gating modality's feature (512 for all of them in the release). An absent modality's feature is
    zero and the layer runs forward. The gating modality alone gates u_m, which are constants: its score is no measure of it.

    Cost: one forward and one backward pass of every encoder a step.

    Departures:
        1. Unimodal scores, undefined in the release, follow the "zero the other feature" reading of its authors (issue 21 there). The
           MLA paper's own are of another kind: none of its modalities is near chance.
        2. M > 2, undefined in both: the same gate acts on each of the other modalities' hidden states, which are concatenated
           before W.
        3. Layers start as PyTorch has them; the release's from Xavier's weights and zero biases (``recipe.head_init``).

    Args:
        conditioning: the modality that gates the others; the data set's own choice if None.
    """

    linear_heads = True

    @classmethod
    def artefact_patterns(cls, params: Mapping[str, Any], conditioning: str) -> tuple[str, ...]:
        """The conditioning modality alone: its gate opens and closes on constants."""
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
        self.hidden = nn.ModuleDict({m: self.linear(self.dims[m], width) for m in self.modalities})
        self.head = self.linear(width * len(self.others), spec.num_classes)

    def fuse(self, features: dict[str, Tensor], present: Tensor) -> Tensor:
        """Gate the other modalities' hidden states by the conditioning one's: (B, C)."""
        features = self.zero_absent(features, present)
        gate = self.hidden[self.conditioning](features[self.conditioning]).sigmoid()  # (B, H)
        return self.head(torch.cat([gate * self.hidden[m](features[m]) for m in self.others], dim=1))
