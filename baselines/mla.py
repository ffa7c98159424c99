"""MLA: one modality at a time, one head for all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from mmbench.arguments import Tunable
from mmbench.batch import Batch
from mmbench.data.split import DataSpec
from mmbench.errors import UsageError
from mmbench.presence import rows_of, taken
from mmbench.recipe import Recipe
from mmbench.task import MultimodalTask


class Mla(MultimodalTask):
    """Multimodal learning with alternating unimodal adaptation (Zhang et al., CVPR 2024, arXiv 2311.10707).

    Authors' code: https://github.com/Cecile-hi/Multimodal-Learning-with-Alternating-Unimodal-Adaptation. A batch is M optimiser
    steps, one a modality in the data set's order, each on the samples that have the modality, all through one head g = (W, b):

        eq. 1–2  step t descends the cross-entropy of g(h_m), m = t mod M: encoder m and the head move
        eq. 3    the head's weight gradient becomes P_t ∇W from the second step of a run on
        eq. 4–5  q_t = P_{t−1} h̄ / (α + h̄ᵀ P_{t−1} h̄),  P_t = P_{t−1} − q_t h̄ᵀ P_{t−1},  P_0 = I,  h̄ the batch mean of h_m
        eq. 6–8  e_m = entropy of softmax(g(h_m)),  λ_m = exp(max_v e_v − e_m) / Σ_v exp(max_u e_u − e_v),  z = Σ_m λ_m g(h_m)

    with λ per sample, over the modalities that are present.

    Cost: one forward and one backward pass of every encoder a step, and M optimiser steps; products with P, which is D × D.

    Departures:
        1. α: in the paper a constant, of which it gives no value. The release lets it fall from 0.1 to 0.01 within every epoch,
           0.1^(1 + batch / batches), and so does this unless ``decay`` is False.
        2. h̄ is the mean of the step's own modality, and P is updated before it is applied, as in eq. 4–5 and the release. The sentence
           above eq. 3 speaks of the *previous* modality's feature.
        3. The released gradient modification never runs (it looks for a parameter by the wrong name), and what it would compute is not
           eq. 4–5: it divides element by element and normalises P by its Frobenius norm. ``"literal"`` computes that, and
           as its divisions come near 0 / 0, it does not reproduce across machines; the default is the equations.
        4. The released fusion takes entropies over the batch axis, which gives one weight a batch; here, as in the paper, it is per
           sample. Without dynamic fusion the logits are averaged (the release has fixed weights per data set).
        5. A sample that lacks a modality is left out of that modality's step; the release feeds zeros.
        6. Encoders do not move in other modalities' steps. In the release's PyTorch (1.8), an encoder that has had its step in a batch
           still moves in the steps of the modalities after it, by momentum and weight decay.
        7. With both mechanisms off, this is alternation through one shared head; the paper's table has late fusion in that row.
        8. The head starts as PyTorch has it; the release's from Xavier's weights and zero biases (``recipe.head_init``).

    P is never reset, here as in the paper and the release: it shrinks in every direction that features take, so that the head all but
    stands still after some epochs (figures in ``baselines/README.md``, by ``benchmarks/projection.py``). That is so under SGD alone.
    Adam divides a gradient by a running mean of its size, which gives the head back the step that P took: eq. 3 does not hold then.

    Args:
        head_gradient_modification: True for eq. 3–5, False for plain alternation, "literal" for what departure 3 describes.
        dynamic_fusion: True for eq. 6–8, False for the average.
        alpha: α, at the start of an epoch if it decays.
        decay: whether α falls to a tenth within every epoch.

    Raises:
        UsageError: the encoders' widths differ, so that no head fits all of them.
    """

    linear_heads = True
    weighted_classes = True

    projection: Tensor

    def __init__(
        self,
        spec: DataSpec,
        encoders: Mapping[str, nn.Module],
        recipe: Recipe | None = None,
        *,
        head_gradient_modification: bool | Literal["literal"] = True,
        dynamic_fusion: bool = True,
        alpha: Annotated[float, Field(gt=0), Tunable(0.01, 1.0, log=True)] = 0.1,
        decay: bool = True,
    ) -> None:
        super().__init__(spec, encoders, recipe)
        self.automatic_optimization = False
        self.head_gradient_modification = head_gradient_modification
        self.dynamic_fusion = dynamic_fusion
        self.alpha = alpha
        self.decay = decay
        widths = set(self.dims.values())
        if len(widths) > 1:
            raise UsageError(f"MLA shares one head, so all encoders need the same out_dim; got {self.dims}")
        width = widths.pop()
        self.head = self.linear(width, spec.num_classes)
        self.register_buffer("projection", torch.eye(width))  # P, (D, D)

    def fuse(self, features: dict[str, Tensor], present: Tensor) -> Tensor:
        """Average the present modalities' logits, by certainty or plainly: (B, C)."""
        logits = torch.stack([self.head(features[m]) for m in self.modalities], dim=1)  # (B, M, C)
        weights = torch.exp(-entropy(logits)) if self.dynamic_fusion else torch.ones_like(logits[..., 0])
        weights = weights * present  # (B, M); eq. 7 with exp(max e) cancelled
        weights = weights / weights.sum(dim=1, keepdim=True).clamp(min=1e-12)
        return (logits * weights.unsqueeze(-1)).sum(dim=1)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """M optimiser steps; returns the sum of their losses."""
        optimizer = self.optimizers()
        passed = batch_idx / self.trainer.num_training_batches if self.decay else 0.0  # share of the epoch
        features = self.encode(batch)
        total = torch.zeros((), device=self.device)
        for modality, rows in zip(self.modalities, rows_of(batch.present), strict=True):
            feature, label = taken(features[modality], rows), taken(batch.label, rows)  # (B', D), (B',)
            if not len(label):
                continue
            loss = self.cross_entropy(self.head(feature), label)
            optimizer.zero_grad()  # type: ignore[union-attr]
            self.manual_backward(loss)
            if self.head_gradient_modification and self.global_step > 0:
                self.modify_head_gradient(feature.detach().mean(dim=0), self.alpha * 0.1**passed)
            optimizer.step()  # type: ignore[union-attr]
            total += loss.detach()
        return total

    def on_train_epoch_end(self) -> None:
        """Decay the learning rate, which Lightning leaves to manual optimisation."""
        super().on_train_epoch_end()
        self.lr_schedulers().step()  # type: ignore[union-attr]

    def modify_head_gradient(self, mean: Tensor, alpha: float) -> None:
        """Update P by the batch mean h̄ (D,) and project the gradient of the head's weight (C, D)."""
        weight, p = self.head.weight, self.projection
        assert weight.grad is not None
        with torch.autocast(weight.device.type, enabled=False):  # P's own precision, whatever the trainer computes in
            mean = mean.to(p)
            q = p @ mean  # P h̄
            if self.head_gradient_modification == "literal":
                p = p - torch.outer(q, q) / (alpha + torch.outer(q, mean))
                self.projection = p / p.norm()
            else:
                self.projection = p - torch.outer(q, mean @ p) / (alpha + mean @ q)
            weight.grad = weight.grad @ self.projection.T


def entropy(logits: Tensor) -> Tensor:
    """Entropy (…) in nats of the distributions that logits (…, C) stand for."""
    log_p = logits.log_softmax(dim=-1)
    return -(log_p.exp() * log_p).sum(dim=-1)
