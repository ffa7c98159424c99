"""CPM-Net: a latent vector behind every sample, from which all of its views are made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from mmbench.arguments import Tunable
from mmbench.data.split import DataSpec
from mmbench.fixed import NEVER, FixedFeatureTask
from mmbench.presence import rows_of, taken
from mmbench.recipe import Recipe


class CpmNet(FixedFeatureTask):
    """Cross partial multi-view networks (Zhang et al., NeurIPS 2019; as "Deep partial multi-view learning", arXiv 2011.06170).

    Authors' code: https://github.com/hanmenghan/CPM_Nets; as a baseline for missing modalities in https://github.com/zeroQiaoba/GCNet
    (``baseline-cpmnet``). Every training sample i has a latent vector h_i of its own, and every view a network that makes the view
    of it. Steps of the networks on L_rec alternate with steps of the latent vectors on L_rec + λ L_class:

        L_rec = Σ_i Σ_m ‖W_m h_i + b_m − x_im‖²,  over the views that sample i has
        L_class = Σ_i max(0, 1[ŷ_i ≠ y_i] + max_c s_ic − s_{i y_i}),   ŷ_i = argmax_c s_ic
        s_ic = mean of ⟨h_i, h_j⟩ over the samples j ≠ i of class c

    All samples are in every step, and an epoch is 5 steps of the networks and 5 of the latent vectors, as released.
    A new sample's h has the least L_rec, whatever its label; its logit of class c is its mean inner product with class c's h_j.

    Cost: every step is of all training samples, each of which has a latent vector. An answer is one linear solve, and
    an inner product with the mean of each class.

    Departures:
        1. As the networks are linear, that h is computed, not searched for by 1,500 steps of Adam: h = (Σ_m W_mᵀW_m + ρ I)^(−1) Σ_m
           W_mᵀ(x_m − b_m), over the views that the sample has. ρ replaces the small start and early end of the search; between
           0.1 and 10 it makes little difference. Test vectors then are about half as long as those of training.
        2. Latent vectors have 128 numbers and λ = 1, as GCNet's README runs it; the class defaults there are 512 and 10.
        3. The learning rates of Adam are not the recipe's, of which the number of epochs alone has an effect.
        4. A sample alone in its class has no s to compare with and no term in L_class. Samples without any view are left out. A class
           that does not occur in training gets the logit −10⁴.
        5. The softmax of mean inner products is no calibrated probability; the paper takes their argmax.
        6. The journal version's adversarial part, which makes imputed views look like real ones, is left out, as in GCNet's release.
        7. The networks start from PyTorch's default; in the release from Xavier weights and zero biases.

    Args:
        latent_dim: numbers in a latent vector.
        class_weight: λ.
        steps: of the networks, and of the latent vectors, in an epoch.
        net_lr: Adam's learning rate for the networks.
        latent_lr: Adam's learning rate for the latent vectors.
        ridge: ρ.
    """

    class_means: Tensor
    offset: Tensor

    def __init__(
        self,
        spec: DataSpec,
        encoders: Mapping[str, nn.Module],
        recipe: Recipe | None = None,
        *,
        latent_dim: Annotated[int, Field(ge=1)] = 128,
        class_weight: Annotated[float, Field(ge=0), Tunable(0.1, 10.0, log=True)] = 1.0,
        steps: Annotated[int, Field(ge=1)] = 5,
        net_lr: Annotated[float, Field(gt=0), Tunable(1e-4, 1e-2, log=True)] = 1e-3,
        latent_lr: Annotated[float, Field(gt=0), Tunable(1e-3, 0.1, log=True)] = 1e-2,
        ridge: Annotated[float, Field(gt=0), Tunable(0.1, 10.0, log=True)] = 1.0,
    ) -> None:
        super().__init__(spec, encoders, recipe)
        self.class_weight, self.steps, self.ridge = class_weight, steps, ridge
        self.net_lr, self.latent_lr = net_lr, latent_lr
        self.nets = nn.ModuleDict({m: nn.Linear(latent_dim, d) for m, d in self.dims.items()})
        self.latents = nn.Parameter(nn.init.xavier_uniform_(torch.empty(spec.num_train, latent_dim)))  # (N, L)
        self.register_buffer("class_means", torch.zeros(spec.num_classes, latent_dim))  # of the latent vectors, (C, L)
        self.register_buffer("offset", torch.zeros(spec.num_classes))  # very low for classes without samples

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Adam for the networks, and Adam for the latent vectors."""
        return [
            torch.optim.Adam(self.nets.parameters(), lr=self.net_lr),
            torch.optim.Adam([self.latents], lr=self.latent_lr),
        ]

    def learn(self, features: dict[str, Tensor], present: Tensor, label: Tensor, index: Tensor) -> Tensor:
        """Steps of the networks, steps of the latent vectors, and then the class means; returns the last loss a sample."""
        nets, latents = self.optimizers()  # type: ignore[attr-defined]
        for _ in range(self.steps):
            nets.zero_grad()
            self.manual_backward(self.reconstruction_loss(self.latents.detach()[index], features, present))
            nets.step()
        for _ in range(self.steps):
            latents.zero_grad()
            h = self.latents[index]
            loss = self.reconstruction_loss(h, features, present) + self.class_weight * self.class_loss(h, label)
            self.manual_backward(loss)
            latents.step()
        one_hot = F.one_hot(label, self.spec.num_classes).to(h)
        sums = one_hot.T @ self.latents.detach()[index]  # (C, L)
        self.class_means.copy_(sums / one_hot.sum(dim=0).clamp(min=1)[:, None])
        self.offset.copy_(torch.where(one_hot.any(dim=0), 0.0, NEVER))
        return loss.detach() / max(1, len(label))

    def reconstruction_loss(self, h: Tensor, features: dict[str, Tensor], present: Tensor) -> Tensor:
        """L_rec of latent vectors (N, L)."""
        errors = [self.nets[m](h) - features[m] for m in self.modalities]  # (N, D)
        return torch.stack(
            [taken(e, rows).square().sum() for e, rows in zip(errors, rows_of(present), strict=True)]
        ).sum()

    def class_loss(self, h: Tensor, label: Tensor) -> Tensor:
        """L_class of latent vectors (N, L) and labels (N,)."""
        one_hot = F.one_hot(label, self.spec.num_classes).to(h)  # (N, C)
        others = one_hot.sum(dim=0) - one_hot  # how many the mean is over
        products = h @ (one_hot.T @ h).T - one_hot * h.square().sum(dim=1, keepdim=True)
        scores = (products / others.clamp(min=1)).masked_fill(others == 0, NEVER)  # s, (N, C)
        best, predicted = scores.max(dim=1)
        own, has_own = (table.gather(1, label[:, None]).squeeze(1) for table in (scores, others > 0))
        return (best - own + (predicted != label)).clamp(min=0)[has_own].sum()

    def latent(self, features: dict[str, Tensor], present: Tensor) -> Tensor:
        """The latent vectors (B, L) that reconstruct best what is present; zero where nothing is."""
        nets: dict[str, nn.Linear] = dict(self.nets.items())  # type: ignore[arg-type]
        weights = {m: net.weight.double() for m, net in nets.items()}  # (D, L)
        grams = torch.stack([w.T @ w for w in weights.values()])  # (M, L, L)
        right = torch.zeros(len(present), grams.shape[1], dtype=grams.dtype, device=grams.device)
        for column, (m, net) in enumerate(nets.items()):
            right += torch.where(present[:, column : column + 1], features[m] - net.bias, 0.0).double() @ weights[m]
        patterns, which = present.unique(dim=0, return_inverse=True)  # (P, M), (B,)
        h, ridge = (
            torch.zeros_like(right),
            self.ridge * torch.eye(grams.shape[1], dtype=grams.dtype, device=grams.device),
        )
        for number, pattern in enumerate(patterns):
            rows = which == number
            with self.factorising():
                root = torch.linalg.cholesky(grams[pattern].sum(dim=0) + ridge)
            h[rows] = torch.cholesky_solve(right[rows].T, root).T
        return h.to(self.latents.dtype)

    def fuse(self, features: dict[str, Tensor], present: Tensor) -> Tensor:
        """Mean inner products with the latent vectors of each class: (B, C)."""
        return self.latent(features, present) @ self.class_means.T + self.offset
