"""DMRNet: a distribution for each combination of modalities, and more weight for the hard ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from mmbench.arguments import Tunable
from mmbench.batch import Batch
from mmbench.data.split import DataSpec
from mmbench.errors import UsageError
from mmbench.presence import on_host, row_numbers, taken
from mmbench.recipe import Recipe
from mmbench.task import MultimodalTask


class Dmrnet(MultimodalTask):
    """Decoupled multimodal representation network (Wei, Luo, Wang, Luo, ECCV 2024, arXiv 2407.04458).

    Authors' code: https://github.com/shicaiwei123/ECCV2024-DMRNet (``audio-visual classification``). In training each sample
    shows one of its combinations of modalities; h is the concatenation of their features, absent ones zero, W wide:

        μ = BN(A h + a),  log σ² = BN(B h + b)                           each W wide
        e = μ + ε σ, ε ~ N(0, I) in training;  e = μ at test;  z = V e + v
        loss = CE(z) + λ KL(N(μ, σ²) ‖ N(0, I)) + β L_hard
        KL = batch mean of Σ_d ½ (σ_d² + μ_d² − log σ_d² − 1),  L_hard = 1/B Σ_i CE_i [i's combination is hard]

    By ``recipe.class_weights``, CE_i is weighted and both means of it, the second over the hard samples alone, divide by the weights of
    all B samples in the place of B; KL knows no classes.

    Through a warm-up the mean σ² of every combination is recorded; afterwards those of the largest are the hard ones.

    Cost: one forward and one backward pass of every encoder a step.

    Departures:
        1. A sample's combination is drawn uniformly among the non-empty ones of what it has; the release has complete data.
        2. How many are hard: half of the 2^M − 2 incomplete combinations, which gives the released numbers, 1 for M = 2 and 3 for
           M = 3 (for which the release names three by hand). The complete one never is, nor one that no sample showed.
        3. The warm-up is the release's epochs 0 to 5, but at most half of the recipe's. σ² is averaged over all samples that showed a
           combination; the release averages batch means, not a number where a batch has none.
        4. β: 0.3, the release's for Kinetics-Sounds; it has 0.2 for CREMA-D, 0.5 as its parser's default, and calls it sensitive.
        5. In the release, shapes that broadcast make L_hard (Σ_i CE_i)(Σ_i [i is hard]) / B, which re-weights every sample;
           ``literal_hard_loss`` computes that.
        6. A sample that has nothing takes no part in training. A batch of one sample is normalised as at test.
        7. No modality is hidden where the epoch is chosen; the release goes on hiding some there.
        8. Layers start as PyTorch has them; the release's from Xavier's weights and zero biases (``recipe.head_init``).

    Args:
        kl_weight: λ.
        hard_weight: β.
        warmup: epochs before combinations are ranked; with 0 none is ever recorded, hence none hard, which switches L_hard off.
        literal_hard_loss: True for what departure 5 describes.
        decoupled: False for an ablation of the first part: one vector a combination, e = μ in training too. There is no σ² then, so
            no combination can be hard.

    Raises:
        UsageError: a weight for hard combinations without σ².
    """

    linear_heads = True
    weighted_classes = True

    variance_sum: Tensor
    variance_count: Tensor
    hard: Tensor

    def __init__(
        self,
        spec: DataSpec,
        encoders: Mapping[str, nn.Module],
        recipe: Recipe | None = None,
        *,
        kl_weight: Annotated[float, Field(ge=0), Tunable(1e-4, 1e-2, log=True)] = 1e-3,
        hard_weight: Annotated[float, Field(ge=0), Tunable(0.03, 3.0, log=True)] = 0.3,
        warmup: Annotated[int, Field(ge=0)] = 6,
        literal_hard_loss: bool = False,
        decoupled: bool = True,
    ) -> None:
        super().__init__(spec, encoders, recipe)
        if hard_weight and not decoupled:
            raise UsageError(
                "hard combinations are those of the largest variance; decoupled: false needs hard_weight: 0"
            )
        self.kl_weight = kl_weight
        self.hard_weight = hard_weight
        self.warmup = min(warmup, self.recipe.epochs // 2)
        self.literal_hard_loss = literal_hard_loss
        width, patterns = sum(self.dims.values()), len(self.pattern_masks)
        self.mean = nn.Sequential(self.linear(width, width), BatchNorm(width))
        self.log_variance = nn.Sequential(self.linear(width, width), BatchNorm(width)) if decoupled else None
        self.classifier = self.linear(width, spec.num_classes)
        self.register_buffer("variance_sum", torch.zeros(patterns))  # of the warm-up, in the order of missing.patterns
        self.register_buffer("variance_count", torch.zeros(patterns))
        self.register_buffer("hard", torch.zeros(patterns, dtype=torch.bool))

    def distribution(self, features: dict[str, Tensor], present: Tensor) -> tuple[Tensor, Tensor | None]:
        """μ and log σ² of the fused embedding, each (B, W)."""
        joint = self.concatenate(features, present)  # (B, W)
        return self.mean(joint), self.log_variance(joint) if self.log_variance else None

    def fuse(self, features: dict[str, Tensor], present: Tensor) -> Tensor:
        """Classify the mean of the embedding: (B, C)."""
        return self.classifier(self.distribution(features, present)[0])

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Cross-entropy of a sampled embedding, the divergence from a normal distribution, and the hard combinations."""
        rows = row_numbers(on_host(batch.present).any(dim=1), batch.present.device)
        visible, label = taken(self.draw_visible(batch.present), rows), taken(batch.label, rows)  # (B', M), (B',)
        mean, log_variance = self.distribution({m: taken(f, rows) for m, f in self.encode(batch).items()}, visible)
        combination = (visible.unsqueeze(1) == self.pattern_masks).all(dim=2)  # (B', P), one True a row
        embedding, kl = mean, mean.new_zeros(len(mean))
        if log_variance is not None:
            variance = log_variance.exp()
            if self.current_epoch < self.warmup:
                self.record(variance.detach(), combination)
            embedding = mean + torch.randn_like(mean) * variance.sqrt()
            kl = 0.5 * (variance + mean.square() - log_variance - 1).sum(dim=1)
        logits = self.classifier(embedding)
        losses = F.cross_entropy(logits, label, reduction="none")  # (B',)
        losses = self.weighted(losses, label, torch.ones_like(losses, dtype=torch.bool))
        hard = (combination & self.hard).any(dim=1)
        weighted = losses.sum() * hard.sum() if self.literal_hard_loss else (losses * hard).sum()
        return (losses.sum() + self.kl_weight * kl.sum() + self.hard_weight * weighted) / max(1, len(losses))

    def record(self, variance: Tensor, combination: Tensor) -> None:
        """Add σ² (B, W) of samples to the sums of the combinations (B, P) that they showed."""
        self.variance_sum += (variance.mean(dim=1, keepdim=True) * combination).sum(dim=0)
        self.variance_count += combination.sum(dim=0).float()

    def on_train_epoch_start(self) -> None:
        """Rank the combinations when the warm-up is over: half of the incomplete ones become hard."""
        if self.current_epoch == self.warmup:
            incomplete = (self.variance_sum / self.variance_count)[:-1].nan_to_num(-1.0)  # −1 where none was seen
            top = incomplete.topk(len(incomplete) // 2)
            self.hard[top.indices] = top.values >= 0


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation that takes a single row, which has no statistics, as it would at test."""

    def forward(self, rows: Tensor) -> Tensor:
        """Normalise (B, D)."""
        if len(rows) > 1:
            return super().forward(rows)
        return F.batch_norm(rows, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
