"""AGM: slow down a modality in batches in which it is further ahead than it usually is."""

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
from mmbench.missing import shapley
from mmbench.recipe import Recipe
from mmbench.task import mean_over_present

MOST_SURPRISE = 18.420680743952367
"""−ln 1e-8: a probability below 1e-8 counts as 1e-8."""

MOST_BEHIND = 10.0
"""The largest difference between the usual lead and the batch's that counts."""


class Agm(Concat):
    """Adaptive gradient modulation (Li et al., ICCV 2023, arXiv 2308.07686).

    Authors' code: https://github.com/lihong2303/AGM (read at 77670a4, UR-FUNNY at 6b4f444, ``model/`` at b8b3a43). The prediction is
    split into what each modality contributes, its Shapley value, and the gradient that comes back through a contribution is scaled:

        φ_m = Σ over S without m of |S|! (M − |S| − 1)! / M! (f(S ∪ m) − f(S)),  f(∅) = 0,  so that Σ_m φ_m = f({1 … M})
        s_m = mean_i −log max(softmax(φ_m,i)[y_i], 1e-8)           over the samples that have m
        r_m = exp(mean over the others of s_j, minus s_m)          how far it is ahead in this batch
        τ_m likewise of the running means ŝ over all batches before
        κ_m = exp(α min(τ_m − r_m, 10))
        ∂loss/∂φ_m ← κ_m ∂loss/∂φ_m

    while the epoch lies between ``start_epoch`` and ``end_epoch``, both included. For M = 2, φ_a = ½ (f(av) − f(v) + f(a)).

    f is Concat's head. As this adds up modalities, φ_m is exactly its part there, W_m h_m + b / M, and what is scaled is the gradient
    of encoder m and of W_m. With ``hidden``, f has a hidden layer, in which modalities interact (the paper's early fusion).

    Cost: one forward and one backward pass of every encoder a step, as Concat. f of all 2^M − 1 subsets is computed from the features:
    what comes before its first non-linearity is a sum over modalities, and a product of matrices gives it for all subsets.

    Departures:
        1. Features of modalities outside S are zero. The release sets their inputs to zero and runs all encoders for every S, those of
           fewer modalities in evaluation mode.
        2. Any number of modalities; the release has two, and on UR-FUNNY three, with the φ and the r of above.
        3. The bound of 10 is that of the release's CREMA-D; on UR-FUNNY it is 7, on AV-MNIST, MOSEI and AVE there is none. The 1e-8 is
           not there on UR-FUNNY.
        4. A sample that lacks a modality counts as one in which it contributes nothing (φ_m = 0), and not in s_m. A modality that no
           sample of the batch has is not compared, and its running mean stays.
        5. The release cuts the gradient back to a norm of 1 where one of the head's exceeds 1 (5 on UR-FUNNY, never on AVE); here
           ``clip_norm`` of the recipe does that, by default not at all.
        6. Its early fusion has two maxout layers with batch normalisation and dropout; here it is one layer with a rectifier, the bias
           of which modalities share out as they do Concat's.
        7. Layers start as PyTorch has them; the release's, on CREMA-D, from Xavier's weights and zero biases (``recipe.head_init``).

    In the release, f(∅) is computed and enters nothing that is learnt by (``C`` on MOSEI, ``m_a_mc`` and the like on UR-FUNNY).
    BalanceBenchmark's version has r and τ inverted, and so speeds up a modality that is ahead.

    Args:
        alpha: α; 1 by default in the release, 2.5 in its command for AV-MNIST.
        hidden: width of a hidden layer between the features and the prediction; none by default.
        start_epoch: first modulated epoch.
        end_epoch: last modulated epoch; by the release's default it is the 20th.
    """

    linear_heads = True
    weighted_classes = True

    usual: Tensor
    batches: Tensor
    orders: Tensor

    def __init__(
        self,
        spec: DataSpec,
        encoders: Mapping[str, nn.Module],
        recipe: Recipe | None = None,
        *,
        alpha: Annotated[float, Field(ge=0), Tunable(0.1, 5.0, log=True)] = 1.0,
        hidden: Annotated[int, Field(ge=1)] | None = None,
        start_epoch: Annotated[int, Field(ge=0)] = 0,
        end_epoch: Annotated[int, Field(ge=0)] = 19,
    ) -> None:
        super().__init__(spec, encoders, recipe)
        self.alpha = alpha
        self.start_epoch = start_epoch
        self.end_epoch = end_epoch
        self.top: nn.Module = nn.Identity()
        if hidden is not None:
            self.head = self.linear(sum(self.dims.values()), hidden)
            self.top = nn.Sequential(nn.ReLU(), self.linear(hidden, spec.num_classes))
        count = len(self.modalities)
        self.register_buffer("usual", torch.zeros(count))  # ŝ
        self.register_buffer("batches", torch.zeros(count))  # of how many it is the mean
        weights = torch.tensor(shapley(count)[:, :-1], dtype=torch.float)  # without the empty set
        self.register_buffer("orders", weights, persistent=False)  # (M, P)

    def fuse(self, features: dict[str, Tensor], present: Tensor) -> Tensor:
        """f(S), S being what is present: (B, C)."""
        return self.top(super().fuse(features, present))

    def contributions(self, features: dict[str, Tensor], present: Tensor) -> Tensor:
        """φ of every modality: (M, B, C); zero where it is absent."""
        parts = self.modality_logits(features) * present.unsqueeze(-1)  # (B, M, H) of the first layer
        sums = torch.einsum("pm,bmh->pbh", self.pattern_masks.to(parts.dtype), parts)
        empty = ~(self.pattern_masks.unsqueeze(1) & present).any(dim=2, keepdim=True)  # (P, B, 1)
        predictions = self.top(sums).masked_fill(empty, 0.0)  # (P, B, C)
        return torch.einsum("mp,pbc->mbc", self.orders.to(parts.dtype), predictions)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The cross-entropy of Σ φ_m; its gradient is scaled on the way back through each of them."""
        contributions = self.contributions(self.encode(batch), batch.present)
        factors = self.coefficients(contributions.detach(), batch)  # (M,)
        if self.start_epoch <= self.current_epoch <= self.end_epoch:
            contributions.register_hook(lambda gradient: gradient * factors.view(-1, 1, 1).to(gradient))
        return self.cross_entropy(contributions.sum(dim=0), batch.label)

    def coefficients(self, contributions: Tensor, batch: Batch) -> Tensor:
        """κ (M,), and the batch's scores enter the running means."""
        losses = F.cross_entropy(
            contributions.transpose(1, 2), batch.label.expand(len(contributions), -1), reduction="none"
        )
        scores = mean_over_present(losses.clamp(max=MOST_SURPRISE).T, batch.present)  # s
        here = batch.present.any(dim=0)
        lead, usual_lead = leads(scores, here), leads(self.usual, here & (self.batches > 0))
        self.batches += here
        self.usual += here * (scores - self.usual) / self.batches.clamp(min=1)
        return torch.exp(self.alpha * (usual_lead - lead).clamp(max=MOST_BEHIND))


def leads(scores: Tensor, counted: Tensor) -> Tensor:
    """exp(mean of the others' scores − one's own), (M,), among those that are counted; 1 where there is nothing to compare."""
    others = counted.sum() - 1
    behind = (scores * counted).sum() - (others + 1) * scores  # Σ_j (s_j − s_m)
    return torch.where(counted & (others > 0), torch.exp(behind / others.clamp(min=1)), 1.0)
