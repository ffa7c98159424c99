"""PMR: draw the modality that is behind to the prototypes of its classes."""

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


class Pmr(Concat):
    """Prototypical modal rebalance, on Concat (Fan, Xu, Wang, Wang, Guo, CVPR 2023, arXiv 2211.07089).

    Authors' code: https://github.com/fanyunfeng-bit/Modal-Imbalance-PMR (commit 1e5c79b, ``main_Prototype_grad.py``). A prototype is
    the mean feature of a class; how well modality m tells classes is read off the distances to its prototypes:

        c_k^m ← ε c_k^m + (1 − ε) mean of h_m over the samples of class k           eq. 6 and 12, between epochs
        p_m = softmax_k(−‖h_m − c_k^m‖₂),  s_m = mean_i p_m,i(y_i)                  eq. 7
        ρ_m = s_m / mean of the others' scores                                      eq. 8
        β_m = clip(1 / ρ_m − 1, 0, 1),  γ_m = clip(ρ_m − 1, 0, 1)                   eq. 11: behind, and ahead
        loss = CE(z) + α Σ_m β_m mean_i −log p_m,i(y_i) − μ Σ_m γ_m mean_i H(p_m,i)  eq. 9, 10 and 13

    z are Concat's logits, H the entropy; its term, which slows down the modality that is ahead, is there in the first E_r epochs alone.
    Prototypes, β and γ have no gradient. ``recipe.class_weights`` enter both cross-entropies, but neither scores nor entropies.

    Departures:
        1. M > 2: a score is compared with the mean of the others', so that each modality is behind or ahead. Paper and release have
           two, for which ρ_1 = 1 / ρ_2 is the paper's ratio.
        2. Prototypes come from the features of all training steps of the epoch before. The paper feeds a tenth of the training data
           through the model as it is between two epochs; the release does so in the order in which its loader happens to shuffle, on
           AVE with the validation split, on coloured MNIST with the test split. Features of steps are older by half an epoch on
           average, and from networks in training mode (dropout), but are ten times as many and cost no pass.
        3. So there are no prototypes in the first epoch, which trains by CE(z); the release takes them from the untrained encoders.
           One that was not there before is the mean itself. A class of which no sample had the modality keeps its prototype, or has
           none: then its samples do not count for p_m, nor does it for others. In the release such a class is 0 / 0, and so is all.
        4. Scores are means over the samples that have the modality, not sums; one that no sample of the batch has is not compared.
        5. The release has no entropy term, and weighs the modality that is behind by α whatever the distance: ``entropy_weight: 0`` and
           ``graded: false``. It also ends the rebalancing after its epoch 100 of 150, of which the paper does not speak.
        6. E_r: 5, "the first few" in the paper, of which the first has no prototypes here. Eq. 13 has the entropy of one softmax; here
           it is the mean over samples.
        7. Layers start as PyTorch has them; the release's from Xavier's weights and zero biases (``recipe.head_init``).

    Cost: one forward and one backward pass of every encoder a step, as Concat; distances of the features to the prototypes.

    Args:
        alpha: α; 1 or 2 in the paper.
        entropy_weight: μ; 0.01 or 0.001 in the paper.
        entropy_epochs: E_r.
        momentum: ε.
        graded: False for β_m = 1 where ρ_m < 1 and γ_m = 1 where ρ_m > 1, else 0.
    """

    weighted_classes = True

    prototypes: Tensor
    known: Tensor
    sums: Tensor
    counts: Tensor

    def __init__(
        self,
        spec: DataSpec,
        encoders: Mapping[str, nn.Module],
        recipe: Recipe | None = None,
        *,
        alpha: Annotated[float, Field(ge=0), Tunable(0.1, 10.0, log=True)] = 1.0,
        entropy_weight: Annotated[float, Field(ge=0), Tunable(1e-3, 1e-1, log=True)] = 1e-2,
        entropy_epochs: Annotated[int, Field(ge=0)] = 5,
        momentum: Annotated[float, Field(ge=0, lt=1)] = 0.2,
        graded: bool = True,
    ) -> None:
        super().__init__(spec, encoders, recipe)
        self.alpha = alpha
        self.entropy_weight = entropy_weight
        self.entropy_epochs = entropy_epochs
        self.momentum = momentum
        self.graded = graded
        self.widths = list(self.dims.values())
        classes, modalities = spec.num_classes, len(self.modalities)
        self.register_buffer("prototypes", torch.zeros(classes, sum(self.widths)))  # c, the modalities side by side
        self.register_buffer("known", torch.zeros(classes, modalities, dtype=torch.bool))  # which of them there are
        self.register_buffer("sums", torch.zeros(classes, sum(self.widths)))  # of this epoch's features, by class
        self.register_buffer("counts", torch.zeros(classes, modalities, dtype=torch.long))

    def similarities(self, features: dict[str, Tensor]) -> Tensor:
        """−‖h_m − c_k^m‖₂, (B, M, C); the least number there is where there is no prototype."""
        exact = torch.promote_types(self.prototypes.dtype, torch.float)  # cdist takes nothing coarser
        own = zip(features.values(), self.prototypes.split(self.widths, dim=1), strict=True)
        mode = "donot_use_mm_for_euclid_dist"
        distances = torch.stack([torch.cdist(h.to(exact), c.to(exact), compute_mode=mode) for h, c in own], dim=1)
        return (-distances).masked_fill(~self.known.T, torch.finfo(distances.dtype).min)

    def rebalancing(self, scores: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
        """β and γ, each (M,), for the scores s (M,) of the modalities that are there (M,)."""
        rivals = there.sum() - 1
        others = (scores.sum() - scores) / rivals.clamp(min=1)
        least = torch.finfo(scores.dtype).tiny
        behind, ahead = others / scores.clamp(min=least) - 1, scores / others.clamp(min=least) - 1
        compared = there & (rivals > 0)
        if self.graded:
            return behind.clamp(0, 1) * compared, ahead.clamp(0, 1) * compared
        return (behind > 0) * compared, (ahead > 0) * compared

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss; the features on the way to the next prototypes."""
        features, label = self.encode(batch), batch.label
        fused = self.cross_entropy(self.fuse(features, batch.present), label)
        self.record(self.concatenate(features, batch.present).detach(), batch)
        counted = batch.present & self.known[label]  # (B, M)
        similarities = self.similarities(features)
        p = similarities.softmax(dim=-1)  # (B, M, C)
        correct = p.detach().gather(2, label[:, None, None].expand(-1, p.shape[1], 1)).squeeze(2)
        behind, ahead = self.rebalancing(mean_over_present(correct, counted), counted.any(dim=0))
        prototypical = self.weighted(modality_cross_entropy(similarities, counted, label), label, counted)
        loss = fused + self.alpha * (behind * mean_over_present(prototypical, counted)).sum()
        if self.current_epoch < self.entropy_epochs:
            entropies = -(p * similarities.log_softmax(dim=-1)).sum(dim=-1)
            loss = loss - self.entropy_weight * (ahead * mean_over_present(entropies, counted)).sum()
        return loss

    def record(self, joint: Tensor, batch: Batch) -> None:
        """Add features, side by side (B, Σ_m D_m), those of absent modalities zero, to the sums of their classes."""
        self.sums.index_add_(0, batch.label, joint.to(self.sums.dtype))
        self.counts.index_add_(0, batch.label, batch.present.long())

    def on_train_epoch_start(self) -> None:
        """Move the prototypes to the means of the epoch before."""
        columns = zip(*(t.split(self.widths, dim=1) for t in (self.prototypes, self.sums)), strict=True)
        for column, (prototypes, sums) in enumerate(columns):
            count, known = self.counts[:, column, None], self.known[:, column, None]
            mean = sums / count.clamp(min=1)
            moved = torch.where(known, self.momentum * prototypes + (1 - self.momentum) * mean, mean)
            prototypes.copy_(torch.where(count > 0, moved, prototypes))
        self.known |= self.counts > 0
        self.sums.zero_()
        self.counts.zero_()
