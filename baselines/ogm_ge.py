"""OGM-GE: slow down the modality that is ahead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from mmbench.arguments import Tunable
from mmbench.baselines.concat import Concat
from mmbench.batch import Batch
from mmbench.data.split import DataSpec
from mmbench.errors import UsageError
from mmbench.recipe import Recipe


class OgmGe(Concat):
    """On-the-fly gradient modulation with generalisation enhancement, on Concat (Peng et al., CVPR 2022, arXiv 2203.15332).

    Authors' code: https://github.com/GeWu-Lab/OGM-GE_CVPR2022. In every step, with z_m the modality's part of Concat's logits:

        s_m = mean_i softmax(z_m,i)[y_i]          the modality's score, the mean over samples that have it
        ρ_m = s_m / mean of the others' scores    the discrepancy ratio
        k_m = 1 − tanh(α ρ_m) if ρ_m > 1 else 1   the coefficient
        g ← k_m g + ε,  ε ~ N(0, std(g) + 1e-8)   for the weights of encoder m, std(g) of the unscaled gradient

    while the epoch lies between ``start_epoch`` and ``end_epoch``, both included. Noise is added for every modality, also where
    k_m = 1, as in the release.

    Cost: one forward and one backward pass of every encoder a step, as Concat; a random number for each weight that gets noise.

    Departures:
        1. M > 2: a score is compared with the mean of the others', and any number of modalities may be ahead. The paper and its release
           have two. MLA's release has three, for IEMOCAP: ρ_m = s_m / (s_j + s_k); the second or the third is slowed if its ρ
           exceeds 1, else always the first (its audio), by its own ρ, however small; only weights of four dimensions are modulated, so
           of its transformers the layer that cuts patches. ``three="mla"`` is that; α is 0.3 by default there.
        2. "The weights of an encoder" are all its parameters of two or more dimensions. Of the release's ResNet-18 these are the
           convolutions, which is all it modulates; of other encoders, undefined there, they are the matrices, those of embeddings
           included: noise reaches every row (for MLA's reading of three, see 1).
        3. At exactly ρ = 1 nothing is modulated; the release then slows the audio.
        4. Scores are means, not sums, so that a modality is not ahead merely because fewer samples lack it; one that no sample of the
           batch has is not compared.

    Args:
        alpha: strength of the modulation (released commands: 0.8 on CREMA-D, 0.1 on VGGSound).
        noise: generalisation enhancement; without it the method is OGM.
        start_epoch: first modulated epoch.
        end_epoch: last modulated epoch.
        three: "mean", or "mla" for what departure 1 tells of MLA's release.

    Raises:
        UsageError: "mla" with other than three modalities.
    """

    weighted_classes = True

    def __init__(
        self,
        spec: DataSpec,
        encoders: Mapping[str, nn.Module],
        recipe: Recipe | None = None,
        *,
        alpha: Annotated[float, Field(ge=0), Tunable(0.1, 2.0, log=True)] = 0.8,
        noise: bool = True,
        start_epoch: Annotated[int, Field(ge=0)] = 0,
        end_epoch: Annotated[int, Field(ge=0)] = 50,
        three: Literal["mean", "mla"] = "mean",
    ) -> None:
        super().__init__(spec, encoders, recipe)
        if three == "mla" and len(self.modalities) != 3:
            raise UsageError(f"three: mla is for three modalities, got {list(self.modalities)}; leave it out")
        self.three = three
        self.alpha = alpha
        self.noise = noise
        self.start_epoch = start_epoch
        self.end_epoch = end_epoch
        self.coefficients = torch.ones(len(self.modalities))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Concat's loss; the unimodal scores on the way."""
        parts = self.modality_logits(self.encode(batch))  # (B, M, C)
        label = batch.label[:, None, None].expand(-1, parts.shape[1], 1)
        correct = parts.detach().softmax(dim=-1).gather(2, label).squeeze(2)  # (B, M)
        total = (correct * batch.present).sum(dim=0)
        count = batch.present.sum(dim=0, dtype=total.dtype)
        self.coefficients = self.modulation(total / count.clamp(min=1))
        return self.cross_entropy((parts * batch.present.unsqueeze(-1)).sum(dim=1), batch.label)

    def modulation(self, scores: Tensor) -> Tensor:
        """The coefficients k (M,) for the modalities' scores s (M,); a score of zero is a modality that no sample has."""
        if self.three == "mla":
            ratio = scores / (scores.sum() - scores).clamp(min=1e-12)
            ahead = ratio > 1  # of three, one at most
            ahead[0] = ~ahead[1:].any()
            return torch.where(ahead, 1 - torch.tanh(self.alpha * ratio), torch.ones_like(ratio))
        rivals = (scores > 0).sum() - 1
        ratio = scores * rivals / (scores.sum() - scores)
        ahead = (ratio > 1) & (rivals > 0)
        return torch.where(ahead, 1 - torch.tanh(self.alpha * ratio), torch.ones_like(ratio))

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Modulate the encoders' gradients."""
        if not self.start_epoch <= self.current_epoch <= self.end_epoch:
            return
        for k, modality in zip(self.coefficients, self.modalities, strict=True):
            weights = modulated_weights(self.encoders[modality])
            gradients = [w.grad for w in weights if w.grad is not None and (self.three != "mla" or w.dim() == 4)]
            if not gradients:
                continue
            noise = noise_for(gradients) if self.noise else []
            torch._foreach_mul_(gradients, k)  # all at once, where a GPU has a kernel for that
            if noise:
                torch._foreach_add_(gradients, noise)


def noise_for(gradients: list[Tensor]) -> list[Tensor]:
    """ε for each gradient, as large as it spreads."""
    noise = [torch.randn_like(gradient) for gradient in gradients]
    torch._foreach_mul_(noise, (torch.stack([gradient.std() for gradient in gradients]) + 1e-8).unbind())
    return noise


def modulated_weights(encoder: nn.Module) -> list[nn.Parameter]:
    """All of the encoder's parameters of two or more dimensions, its convolutions and matrices above all."""
    return [p for p in encoder.parameters() if p.dim() >= 2]
