"""SimMLM: a gate mixes the modalities' own predictions, and showing more must not hurt."""

from __future__ import annotations

from collections.abc import Mapping
from math import comb
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from mmbench.arguments import Tunable
from mmbench.batch import Batch
from mmbench.data.split import DataSpec
from mmbench.presence import on_host, placed
from mmbench.recipe import Recipe
from mmbench.task import MultimodalTask, mean_over_present, mean_where, modality_cross_entropy


class Simmlm(MultimodalTask):
    """A simple framework for multimodal learning with missing modality (Li, Chen, Han, ICCV 2025, arXiv 2507.19264).

    Authors' code: https://github.com/LezJ/SimMLM, read in the copy Tony-Khor/simmlm (``models/dmome.py`` at 3b7e77a,
    ``loss/blended_loss.py`` and ``dataset/processors.py`` at aa1aea2): segmentation of BraTS alone, nothing of its classification.
    With S the set of modalities that a sample shows, and products class by class:

        o_m = W_m h_m + b_m                                                       the experts
        w = softmax over m in S of G([h_1; …; h_M]), h_m zero outside of S        the gate, M × C numbers
        f(S) = Σ_{m in S} w_m o_m                                                 dynamic mixture of modality experts
        stage one: Σ_m CE(o_m), each expert alone, as ``late_fusion``
        stage two: mean of CE(f(S⁺)) and CE(f(S⁻)) + α mean of max(0, CE_i(f(S⁺)) − CE_i(f(S⁻)))      more against fewer (MoFe)

    S⁺ is a part of what the sample has, and S⁻ a proper part of S⁺. As in the release, two non-empty subsets are drawn independently
    until one lies within the other and the first is not everything: a pair is as probable as any other, and half as probable where
    S⁺ is everything. That is drawn here in closed form: a random order of what there is, and how many of it S⁺ and S⁻ take.

    Without a gate this is late fusion. With one it can represent XOR, though each expert sees one modality: an expert that always says
    yes and one that always says no are enough, if the gate, which sees all, chooses between them. With one weight a modality such
    experts do harm where they are alone, and in the planted tests they are not learnt (51 to 65 % after 25 epochs). With weights for
    each class they are (85 to 99 %): where all logits of an expert are high, or all low, it gives even odds alone.

    Departures:
        1. The gate is a network of one hidden layer on the features, and its gradient goes on to the encoders. The release's is one
           of its own on the input, of five convolutions.
        2. Both stages are one run with one optimiser. The release trains experts for 500 epochs and all together for 300 at a tenth of
           the learning rate; its README says that the first may be left out (``pretraining: 0``) at a small loss.
        3. The two halves of a pair are the same features. In the release they are two random crops of the sample, so that a part of
           the difference between their losses is that between crops.
        4. Samples that have one modality show it, without a pair; means are taken over what there is. A sample that has nothing takes
           no part in training.
        5. The released losses are Dice's and the binary cross-entropy of three overlapping regions, for which weights a class are
           weights a region; with a softmax over classes, class-wise weights also shift experts against each other.

    Cost: one forward and one backward pass of the encoders. In stage two gate and experts run twice, on features.

    Args:
        ranking_weight: α.
        class_wise: whether each class has its weights, as in the release's mixture of outputs; if not, M numbers are weights of all
            classes, as in its mixture of features.
        gate_width: of the gate's hidden layer.
        pretraining: share of the epochs that go to stage one.
    """

    linear_heads = True
    weighted_classes = True

    def __init__(
        self,
        spec: DataSpec,
        encoders: Mapping[str, nn.Module],
        recipe: Recipe | None = None,
        *,
        ranking_weight: Annotated[float, Field(ge=0), Tunable(0.01, 1.0, log=True)] = 0.1,
        class_wise: bool = True,
        gate_width: Annotated[int, Field(ge=1)] = 128,
        pretraining: Annotated[float, Field(ge=0, lt=1)] = 0.3,
    ) -> None:
        super().__init__(spec, encoders, recipe, pretraining=pretraining)
        self.ranking_weight = ranking_weight
        count = len(self.modalities)
        self.experts = nn.ModuleDict({m: self.linear(d, spec.num_classes) for m, d in self.dims.items()})
        self.gate = nn.Sequential(
            self.linear(sum(self.dims.values()), gate_width),
            nn.ReLU(),
            self.linear(gate_width, count * (spec.num_classes if class_wise else 1)),
        )
        self._sizes = pair_sizes(count)  # (M + 1, M + 1, M + 1), on the host

    def outputs(self, features: dict[str, Tensor]) -> Tensor:
        """The experts' predictions o_m, (B, M, C)."""
        return torch.stack([self.experts[m](features[m]) for m in self.modalities], dim=1)

    def fuse(self, features: dict[str, Tensor], present: Tensor) -> Tensor:
        """Mix what the experts of the present modalities say: (B, C)."""
        shown = self.zero_absent(features, present)
        scores = self.gate(torch.cat(list(shown.values()), dim=1)).unflatten(1, (len(self.modalities), -1))
        left_out = ~present & present.any(dim=1, keepdim=True)  # (B, M); where nothing is shown, the answer is not used
        weights = scores.masked_fill(left_out.unsqueeze(-1), -torch.inf).softmax(dim=1)  # (B, M, C), or (B, M, 1)
        return (weights * self.outputs(shown)).sum(dim=1)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Each expert's cross-entropy in stage one; in stage two that of the mixture of more and of fewer, and their ranking."""
        features = self.encode(batch)
        if self.is_pretraining:
            losses = modality_cross_entropy(self.outputs(features), batch.present, batch.label)
            return mean_over_present(self.weighted(losses, batch.label, batch.present), batch.present).sum()
        pair = self.draw_pair(batch.present)
        logits = torch.cat([self.fuse(features, visible) for visible in pair])  # (2 B, C)
        label, shown = batch.label.repeat(2), pair.any(dim=2).flatten()  # (2 B,)
        losses = F.cross_entropy(logits, label, reduction="none")
        more, fewer = losses.chunk(2)
        ranking = mean_where((more - fewer).clamp(min=0), pair[1].any(dim=1))
        return mean_where(self.weighted(losses, label, shown), shown) + self.ranking_weight * ranking

    def draw_pair(self, present: Tensor) -> Tensor:
        """S⁺ and S⁻ for each sample: (2, B, M) bool. S⁻ is empty where a sample has less than two modalities."""
        host = on_host(present)
        place = (
            torch.rand(host.shape).masked_fill(~host, 2.0).argsort(dim=1).argsort(dim=1)
        )  # in a random order, what is there first
        drawn = torch.multinomial(self._sizes[host.sum(dim=1)].flatten(1), 1).squeeze(1)
        sizes = torch.stack([drawn // len(self._sizes), drawn % len(self._sizes)])  # of S⁺ and S⁻, (2, B)
        return placed(place < sizes.unsqueeze(-1), present.device)


def pair_sizes(modalities: int) -> Tensor:
    """How probable it is that of k modalities S⁺ gets s and S⁻ gets t: (M + 1, M + 1, M + 1), up to a factor for each k.

    Of one modality S⁺ gets it and S⁻ nothing.
    """
    table = torch.zeros(modalities + 1, modalities + 1, modalities + 1)
    table[0, 0, 0] = table[1, 1, 0] = 1
    for k in range(2, modalities + 1):
        for s in range(2, k + 1):
            for t in range(1, s):
                table[k, s, t] = comb(k, s) * comb(s, t) * (1 if s == k else 2)
    return table
