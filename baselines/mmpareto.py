"""MMPareto: of a fused and a unimodal loss, the direction that helps both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from mmbench.arguments import Tunable
from mmbench.baselines.multi_loss import MultiLoss
from mmbench.batch import Batch
from mmbench.data.split import DataSpec
from mmbench.recipe import Recipe

TINY = 1e-30
"""The smallest norm that a norm is divided by; 0 / TINY is 0."""


class MMPareto(MultiLoss):
    """Pareto integration of the fused and the unimodal losses' gradients, on Multi-loss (Wei & Hu, ICML 2024, arXiv 2405.17730).

    Authors' code: https://github.com/GeWu-Lab/MMPareto_ICML2024 (read at cc923ec). In every step, with the losses ℓ(f) and ℓ(g_m) of
    ``multi_loss``, for all parameters of encoder m together:

        a = ∇ℓ(f),  b = ∇ℓ(g_m)
        α = ½                                if cos(a, b) > 0: they agree
        α = b·(b − a) / ‖a − b‖²             otherwise: αa + (1 − α)b is the shortest vector between a and b
        h = 2αa + 2(1 − α)b
        h ← h max(1, ‖a + b‖ / ‖h‖)          for each tensor of the encoder by itself
        ∇ = γ h

    so that a direction that helps both losses is followed no more timidly than their sum would be. The heads f and g_m get the plain
    gradients of ℓ(f) + Σ_m ℓ(g_m). Where a is zero, α is 0.999, and where b is zero, it is 0.001, so that the other one still shows the
    way (its length is restored by the fourth line).

    Cost: one forward pass of every encoder and two backward passes, of ℓ(f) and of Σ_m ℓ(g_m), as no loss of another modality's head
    reaches encoder m; beside these, some sums over gradients. The release goes back four times (three losses and their sum).

    Departures:
        1. Any number of modalities; the paper and its release have two.
        2. A modality that no sample of the batch has leaves its encoder as it is.
        3. The released learning-rate schedule is made (``StepLR``, every 30 epochs) and never stepped: as released, the rate does not
           fall. Here it is the recipe's.
        4. What is shown alone is answered by its own head (``multi_loss``).

    Args:
        gamma: γ; 1.5 in the release, where it is written into the code. Adam, which divides a gradient by its size, takes next to no
            notice of it.
    """

    linear_heads = True
    weighted_classes = True

    def __init__(
        self,
        spec: DataSpec,
        encoders: Mapping[str, nn.Module],
        recipe: Recipe | None = None,
        *,
        gamma: Annotated[float, Field(gt=0), Tunable(1.0, 3.0, log=True)] = 1.5,
    ) -> None:
        super().__init__(spec, encoders, recipe)
        self.automatic_optimization = False
        self.gamma = gamma

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """A backward pass of each kind of loss, and a step by what is made of the two; returns the sum of all losses."""
        optimizer = self.optimizers()
        fused, unimodal = self.losses(self.encode(batch), batch)
        optimizer.zero_grad()
        self.manual_backward(fused, retain_graph=True)
        driven = [[p for p in encoder.parameters() if p.grad is not None] for encoder in self.encoders.values()]
        kept: list[list[Tensor]] = [[p.grad for p in parameters] for parameters in driven]
        self.encoders.zero_grad()  # the heads add up
        self.manual_backward(unimodal.sum())
        for parameters, a in zip(driven, kept, strict=True):
            if parameters:
                integrate(a, [p.grad for p in parameters], self.gamma)
        optimizer.step()
        return (fused + unimodal.sum()).detach()

    def on_train_epoch_end(self) -> None:
        """Decay the learning rate, which Lightning leaves to manual optimisation."""
        super().on_train_epoch_end()
        self.lr_schedulers().step()


def integrate(a: list[Tensor], b: list[Tensor], gamma: float) -> None:
    """Put γh in the place of b, given the gradients of an encoder's tensors by the fused (a) and by its own loss (b)."""
    aa, ab, bb = products(a, a), products(a, b), products(b, b)
    alpha = pareto_weight(aa.sum(), ab.sum(), bb.sum())
    torch._foreach_lerp_(b, a, [alpha] * len(a))
    together = (aa + 2 * ab + bb).clamp(min=0).sqrt()  # ‖a + b‖ of each tensor
    norms = 2 * torch.stack(torch._foreach_norm(b))  # ‖h‖
    stretch = torch.where(alpha == 0.5, 1.0, (together / norms.clamp(min=TINY)).clamp(min=1))
    torch._foreach_mul_(b, (2 * gamma * stretch).unbind())


def products(x: list[Tensor], y: list[Tensor]) -> Tensor:
    """The inner product of each tensor with its counterpart: (T,)."""
    return torch.stack([torch.dot(one.flatten(), other.flatten()) for one, other in zip(x, y, strict=True)])


def pareto_weight(aa: Tensor, ab: Tensor, bb: Tensor) -> Tensor:
    """α, by the products a·a, a·b and b·b."""
    between = (bb - ab) / (aa - 2 * ab + bb)
    conflict = torch.where(ab >= aa, 0.999, torch.where(ab >= bb, 0.001, between))
    return torch.where(ab > 0, 0.5, conflict)
