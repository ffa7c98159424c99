"""DGL: encoders learn alone, the classifier learns from what they have learnt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from mmbench.arguments import Tunable
from mmbench.baselines.concat import Concat
from mmbench.batch import Batch
from mmbench.data.split import DataSpec
from mmbench.recipe import Recipe
from mmbench.task import mean_over_present, modality_cross_entropy


class Dgl(Concat):
    """Disentangled gradient learning, on Concat (Wei, Luo, Luo, ICCV 2025, arXiv 2507.10213).

    Authors' code: https://github.com/shicaiwei123/ICCV2025-GDL (commit 2c601d8, ``main_dgl.py``, ``models/fusion_modules.py``). The
    fused loss would reach an encoder through the classifier that all modalities share, and weaker than the encoder's own loss does. So
    no gradient crosses the border between encoders and classifier in the way that fusion lets it:

        F(S) = W h + b,  h the concatenation of the features, those of modalities that are not in S zero
        L = CE(F({1 … M})) + α Σ_m CE(F({m}))
        ∂L/∂(W, b): of the first term alone;  ∂L/∂h_m: of its own term of the second sum alone

    Departures:
        1. Any number of modalities; the release has two. CE of F({m}) is the mean over samples that have m; the first term is over all
           samples, what they lack being zero.
        2. One backward pass of the sum, in which W and b are constants of the second term. The release goes back twice, and in between
           deletes what the second term has left at W and b, which comes to the same gradients.
        3. The release cuts the gradient of all parameters back to a norm of 40; here ``clip_norm`` of the recipe does that, by default
           not at all.
        4. α: 4, the default of the release, whose commands for CREMA-D have 4 and 5.
        5. Layers start as PyTorch has them; the release's from Xavier's weights and zero biases (``recipe.head_init``).

    A score of some of the modalities is F of them, with all of b, as the release takes it and as the encoders are trained; Concat's own
    has the share b / M of each.

    In the release, ``fc_auxi``, a second classifier of the same size, is made and never used.

    Cost: one forward and one backward pass of every encoder a step, as Concat; the classifier computes M + 1 products in the place of
    one.

    Args:
        alpha: α, how much more the encoders' gradients weigh than the classifier's. Adam, which divides a gradient by its size, takes
            next to no notice of it.
    """

    weighted_classes = True

    def __init__(
        self,
        spec: DataSpec,
        encoders: Mapping[str, nn.Module],
        recipe: Recipe | None = None,
        *,
        alpha: Annotated[float, Field(gt=0), Tunable(0.4, 40.0, log=True)] = 4.0,
    ) -> None:
        super().__init__(spec, encoders, recipe)
        self.alpha = alpha

    def fuse(self, features: dict[str, Tensor], present: Tensor) -> Tensor:
        """F(S), S being what is present: (B, C)."""
        return self.head(self.concatenate(features, present))

    def modality_logits(self, features: dict[str, Tensor]) -> Tensor:
        """F({m}) of every modality, through which no gradient reaches the classifier: (B, M, C)."""
        weights = self.head.weight.detach().split(list(self.dims.values()), dim=1)
        bias = self.head.bias.detach()
        return torch.stack(
            [F.linear(features[m], w, bias) for m, w in zip(self.modalities, weights, strict=True)], dim=1
        )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """L; its first term does not see the encoders, nor its second the classifier."""
        features = self.encode(batch)
        fused = self.fuse({m: feature.detach() for m, feature in features.items()}, batch.present)
        unimodal = modality_cross_entropy(self.modality_logits(features), batch.present, batch.label)  # (B, M)
        unimodal = mean_over_present(self.weighted(unimodal, batch.label, batch.present), batch.present)
        return self.cross_entropy(fused, batch.label) + self.alpha * unimodal.sum()
