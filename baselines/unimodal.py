"""Unimodal: a model a modality, each trained alone and kept as it was after its own best epoch."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy

import torch
from torch import Tensor, nn

from mmbench.baselines.late_fusion import LateFusion
from mmbench.batch import Batch
from mmbench.data.split import DataSpec
from mmbench.missing import pattern_name, patterns
from mmbench.recipe import Recipe
from mmbench.task import modality_cross_entropy


class Unimodal(LateFusion):
    """The best single modality, the control that papers print beside fusion; no modality learns from another, nor waits for one.

    Encoder h_m and head g_m of every modality are trained alone, over the samples that have m, side by side in one run:

        loss = Σ_m ℓ(g_m(h_m(x_m))),   ℓ the cross-entropy; no two terms share a parameter.

    At the end of each validation, a modality whose own accuracy there (over the validation samples that have it) is better than ever
    before has its encoder, batch statistics included, and its head copied: the kept model of m. At test, m shown alone is answered by
    its kept model; where several are shown, by that of the one among them whose kept accuracy in validation is the highest (of equal
    ones, the first in the data set's order). In Late Fusion one epoch is chosen for all modalities, by what they come to together.

    **What is logged as ``validation/accuracy`` is not the accuracy of an answer**: it is the mean, over the modalities that validation
    has, of the kept models' own accuracies. It never falls, and grows whenever a model is renewed, so that a trial, which chooses the
    first epoch of its maximum, ends with all of the kept models, and early stopping waits until none has been renewed for as long.
    ``validation/loss`` is the mean of the kept models' own cross-entropies. The accuracies of patterns, and all of ``test``, are those
    of answers, by the kept models.

    Cost: one forward and one backward pass of every encoder a step; in validation one forward pass of every encoder, and where
    patterns are logged in every epoch (``validates_patterns``) another one, of every kept encoder. The kept models take the memory of
    a second set of weights.

    Departures:
        1. There is no paper: papers train their unimodal models in runs of their own. Here they share a run, its batches and its
           schedule, and each gets the gradients that it would get alone, except that ``recipe.clip_norm`` is of all of them together.
        2. A modality that no validation sample has, and all of them where a trainer does not validate, keep their last weights. Such a
           modality answers only where none is shown that was validated, the first in the data set's order.
    """

    weighted_classes = True

    kept_hits: Tensor
    kept_seen: Tensor
    kept_loss: Tensor

    def __init__(self, spec: DataSpec, encoders: Mapping[str, nn.Module], recipe: Recipe | None = None) -> None:
        super().__init__(spec, encoders, recipe)
        self.kept_encoders = deepcopy(self.encoders).requires_grad_(False)
        self.kept_heads = deepcopy(self.heads).requires_grad_(False)
        none = torch.zeros(len(self.modalities), dtype=torch.int64)
        self.register_buffer("kept_hits", none.clone())  # (M,), in validation, of the kept models
        self.register_buffer("kept_seen", none.clone())  # (M,), validation samples; none: never validated
        self.register_buffer("kept_loss", none.float())  # (M,), summed over these
        self._judged: list[tuple[Tensor, ...]] = []  # of the batches of a validation

    def encode(self, batch: Batch) -> dict[str, Tensor]:
        """Features of the encoders that are trained, in training; otherwise of the kept ones."""
        return super().encode(batch) if self.training else self.embed(self.kept_encoders, batch, batch.present)

    def fuse(self, features: dict[str, Tensor], present: Tensor) -> Tensor:
        """The kept model's logits of the best modality that is present: (B, C)."""
        logits = own_logits(self.kept_heads, self.zero_absent(features, present))
        return logits.take_along_dim(self.best(present)[:, None, None], dim=1).squeeze(1)

    def best(self, present: Tensor) -> Tensor:
        """Which of the present modalities answers: (B,); 0 where none is present."""
        accuracy = torch.where(self.kept_seen > 0, self.kept_hits / self.kept_seen.clamp(min=1), -1.0)
        return torch.where(present, accuracy, -2.0).argmax(dim=1)  # the first of equal ones

    # Validation

    @property
    def _chooses(self) -> bool:
        """Whether the validation that runs decides what is kept."""
        trainer = self._trainer
        return trainer is not None and trainer.state.fn == "fit" and not trainer.sanity_checking

    def _count_hits(self, batch: Batch, every_pattern: bool) -> None:
        if self._trainer is not None and self.trainer.testing:
            super()._count_hits(batch, every_pattern)
            return
        trained = self.judge(self.encoders, self.heads, batch) if self._chooses else None
        kept = None
        if trained is None or every_pattern:
            kept = self.judge(self.kept_encoders, self.kept_heads, batch)
        self._judged.append((batch.present, batch.label, *(v for v in (trained, kept) if v is not None)))

    def judge(self, encoders: nn.ModuleDict, heads: nn.ModuleDict, batch: Batch) -> Tensor:
        """Whether each modality's model is right, 1 or 0, and its cross-entropy: (B, M, 2), zero where the modality is absent."""
        logits = own_logits(heads, self.embed(encoders, batch, batch.present))
        right = (logits.argmax(dim=-1) == batch.label.unsqueeze(1)) & batch.present
        loss = modality_cross_entropy(logits, batch.present, batch.label)
        return torch.stack([right.float(), loss.float()], dim=2)

    def _log_accuracies(self, stage: str, every_pattern: bool) -> None:
        if stage == "test":
            super()._log_accuracies(stage, every_pattern)
            return
        present, label, *judged = map(torch.cat, zip(*self._judged, strict=True))
        self._judged = []
        seen, right = present.sum(dim=0), judged[-1][:, :, 0]  # (M,), (N, M)
        hits, loss = judged[0].sum(dim=0).unbind(dim=1)
        if self._chooses:
            renewed = self.renew(hits.long(), seen, loss)
            right = torch.where(renewed, judged[0][:, :, 0], right)
            hits, seen, loss = self.kept_hits, self.kept_seen, self.kept_loss
        means = torch.stack([loss, hits]) / seen.clamp(min=1)
        names, values = ("validation/loss", "validation/accuracy"), means.sum(dim=1) / (seen > 0).sum().clamp(min=1)
        told = dict(zip(names, values.tolist(), strict=True))
        for pattern, mask in zip(patterns(self.modalities)[:-1], self.pattern_masks[:-1], strict=True):
            if every_pattern:
                visible = present & mask
                answered = right.take_along_dim(self.best(visible).unsqueeze(1), dim=1).squeeze(1)
                hit = torch.where(visible.any(dim=1), answered, (label == self.log_prior.argmax()).float())
                told[f"validation/accuracy/{pattern_name(pattern)}"] = float(hit.mean())
        self.log_epoch(told)

    # What is kept

    def renew(self, hits: Tensor, seen: Tensor, loss: Tensor) -> Tensor:
        """Keep the modalities' models that are better than their kept ones, and those of modalities that were never validated.

        Args:
            hits: (M,) int64, of the trained models in a validation.
            seen: (M,) int64, over how many samples.
            loss: (M,), summed over these.

        Returns:
            Which are better: (M,) bool.
        """
        better = (seen > 0) & ((self.kept_seen == 0) | (hits * self.kept_seen > self.kept_hits * seen))
        for kept, new in ((self.kept_hits, hits), (self.kept_seen, seen), (self.kept_loss, loss)):
            kept.copy_(torch.where(better, new, kept))
        self.keep(better | (self.kept_seen == 0))
        return better

    def keep(self, chosen: Tensor) -> None:
        """Copy the trained models of some modalities, (M,) bool, to the kept ones."""
        for modality, copied in zip(self.modalities, chosen.tolist(), strict=True):
            if copied:
                self.kept_encoders[modality].load_state_dict(self.encoders[modality].state_dict())
                self.kept_heads[modality].load_state_dict(self.heads[modality].state_dict())

    def on_train_epoch_end(self) -> None:
        """Keep the last weights of what was never validated."""
        super().on_train_epoch_end()
        self.keep(self.kept_seen == 0)


def own_logits(heads: nn.ModuleDict, features: dict[str, Tensor]) -> Tensor:
    """Each modality's logits by its own head: (B, M, C)."""
    return torch.stack([head(features[m]) for m, head in heads.items()], dim=1)
