"""ARL: let the certain modality, and the one that is leant on least, learn faster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from mmbench.arguments import Tunable
from mmbench.baselines.concat import Concat
from mmbench.baselines.mla import entropy
from mmbench.batch import Batch
from mmbench.data.split import DataSpec
from mmbench.recipe import Recipe
from mmbench.task import mean_over_present, modality_cross_entropy


class Arl(Concat):
    """Asymmetric representation learning, on Concat (Wei, Luo, Luo, ICCV 2025, arXiv 2507.10203).

    Authors' code: https://github.com/shicaiwei123/ICCV2025-ARL (MIT; read at 51a9de3, ``main_arl_variance.py``, and
    ``models/backbone.py`` at 0e851af). The one head of Concat also gives each modality's own logits, so that nothing is added:

        f = W h + b,   u_m = W_m h_m + b
        loss = ℓ(f) + γ Σ_m ℓ(u_m)
        H_m = mean_i entropy of softmax(u_m,i),       a_m = mean_i Σ_c |u_m,ic|
        v_m = max(H_m / Σ_n H_n, floor / M),          q_m = (1 / v_m) / Σ_n (1 / v_n)       how certain it is
        d_m = 1 − a_m / Σ_n a_n                                                             how far the others are leant on
        ω = softmax over modalities of T d_m q_m,     encoder m's gradient × (1 + ω_m)

    from the epoch ``start_epoch`` on; before it, γ is 1 and no gradient is changed. By the paper's analysis the error is least if the
    modalities are leant on in inverse proportion to their variances, for which the entropies stand here.

    Cost: one forward and one backward pass of every encoder a step, as Concat.

    Departures:
        1. Any number of modalities; the release has two, whose d_m is the other's share of a. Its bound of 0.3 on a share of the
           entropies is 0.6 of an equal share, which is what ``floor`` is for any number.
        2. ω is that of the batch whose gradients it scales. The release's encoders read it before it is computed: that of the batch
           before.
        3. The commit that released all files (adfc58c) computes ω and assigns it to nothing, so that every encoder's gradient would be
           × 1.5; it raises an error before it trains, though, and its scaling would in the backward pass. 51a9de3 assigns it.
        4. The release does not modulate in an epoch before which both unimodal accuracies, on the *test* split, are 0; they never are.
        5. The released means are over all samples, here over those that have the modality. One that no sample of the batch has takes no
           part.
        6. The release cuts the gradient back to a norm of 40; here the recipe's ``clip_norm`` does that, by default not at all.
        7. Layers start as PyTorch has them; the release's from Xavier's weights and zero biases (``recipe.head_init``).

    A score of some of the modalities is that of the head on them, with all of b, as u_m is trained; Concat's own has b / M of each.

    Args:
        gamma: γ; released commands: 4 on CREMA-D, 3 on Kinetics-Sounds, 5 on AVE.
        temperature: T; 8 on CREMA-D, 4 on the others.
        floor: the smallest share of the summed entropies that counts as such, in equal shares.
        start_epoch: first modulated epoch, counted from 0.
    """

    weighted_classes = True

    def __init__(
        self,
        spec: DataSpec,
        encoders: Mapping[str, nn.Module],
        recipe: Recipe | None = None,
        *,
        gamma: Annotated[float, Field(ge=0), Tunable(0.5, 10.0, log=True)] = 4.0,
        temperature: Annotated[float, Field(ge=0), Tunable(1.0, 16.0, log=True)] = 8.0,
        floor: Annotated[float, Field(gt=0, le=1)] = 0.6,
        start_epoch: Annotated[int, Field(ge=0)] = 6,
    ) -> None:
        super().__init__(spec, encoders, recipe)
        self.gamma = gamma
        self.temperature = temperature
        self.floor = floor
        self.start_epoch = start_epoch
        self.coefficients = torch.ones(len(self.modalities))

    def fuse(self, features: dict[str, Tensor], present: Tensor) -> Tensor:
        """The head on what is present: (B, C)."""
        return self.head(self.concatenate(features, present))

    def modality_logits(self, features: dict[str, Tensor]) -> Tensor:
        """u_m, the head on each modality alone: (B, M, C)."""
        return super().modality_logits(features) + self.head.bias * (1 - 1 / len(self.modalities))

    @property
    def is_modulating(self) -> bool:
        """Whether the current epoch is one in which gradients are scaled."""
        return self.current_epoch >= self.start_epoch

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The fused and the unimodal losses; the coefficients 1 + ω on the way."""
        features = self.encode(batch)
        own = self.modality_logits(features)
        losses = modality_cross_entropy(own, batch.present, batch.label)  # (B, M)
        unimodal = mean_over_present(self.weighted(losses, batch.label, batch.present), batch.present)
        if self.is_modulating:
            self.coefficients = 1 + self.shares(own.detach(), batch.present)
        weight = self.gamma if self.is_modulating else 1.0
        return self.cross_entropy(self.fuse(features, batch.present), batch.label) + weight * unimodal.sum()

    def shares(self, own: Tensor, present: Tensor) -> Tensor:
        """ω (M,), of the modalities' own logits (B, M, C); 0 where no sample has the modality."""
        here = present.any(dim=0)  # (M,)
        uncertain = normalised(mean_over_present(entropy(own), present))  # H as shares
        certain = 1 / torch.maximum(uncertain, self.floor / here.sum())
        certain = normalised(certain * here)  # q
        leant_on = normalised(mean_over_present(own.abs().sum(dim=2), present))
        scores = self.temperature * (1 - leant_on) * certain
        return scores.masked_fill(~here, -torch.inf).softmax(dim=0).nan_to_num() * here

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Scale the encoders' gradients by 1 + ω."""
        if self.is_modulating:
            scale_gradients(self.encoders, self.coefficients)


def normalised(values: Tensor) -> Tensor:
    """Values (M,) as shares of their sum; zeros if that is zero."""
    return values / values.sum().clamp(min=1e-12)


def scale_gradients(encoders: nn.ModuleDict, factors: Tensor) -> None:
    """Multiply all of an encoder's gradients by a factor, in place.

    Args:
        encoders: modality -> encoder.
        factors: (M,), one an encoder, in their order.
    """
    for encoder, factor in zip(encoders.values(), factors, strict=True):
        gradients = [p.grad for p in encoder.parameters() if p.grad is not None]
        if gradients:
            torch._foreach_mul_(gradients, factor)  # all at once, where a GPU has a kernel for that
