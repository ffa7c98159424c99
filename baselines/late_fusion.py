"""Late fusion: modalities trained alone, logits averaged."""

from __future__ import annotations

from torch import Tensor

from mmbench.baselines.sum import Sum
from mmbench.batch import Batch
from mmbench.task import mean_over_present, modality_cross_entropy


class LateFusion(Sum):
    """Sum's architecture, every encoder and classifier trained on its own modality alone.

    As the MLA paper describes its baseline (arXiv 2311.10707, appendix): the fused prediction is the average of the present
    modalities' logits W_m h_m + b_m; modality m is trained by the cross-entropy of its own logits, over the samples that have it.

    Cost: one forward and one backward pass of every encoder a step.

    Departures:
        1. The modalities are trained side by side in one run. Their losses are added and share no parameter, so each gets the
           gradients that it would get alone. But one epoch is chosen for all of them, by the fused accuracy, as for every method.
    """

    weighted_classes = True

    def fuse(self, features: dict[str, Tensor], present: Tensor) -> Tensor:
        """Average the logits of the present modalities: (B, C)."""
        return super().fuse(features, present) / present.sum(dim=1, keepdim=True).clamp(min=1)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Σ_m of modality m's own cross-entropy."""
        losses = modality_cross_entropy(self.modality_logits(self.encode(batch)), batch.present, batch.label)
        return mean_over_present(self.weighted(losses, batch.label, batch.present), batch.present).sum()
