"""The base of every method."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmbench.batch import Batch
from mmbench.checkpoint import BUILT_FROM
from mmbench.data.split import DataSpec
from mmbench.encoding import Encoding
from mmbench.errors import UsageError, did_you_mean
from mmbench.missing import pattern_matrix, pattern_name, patterns
from mmbench.presence import on_host, placed
from mmbench.recipe import Recipe


class DivergedError(RuntimeError):
    """The training loss, or what the trained model predicts, is not a finite number."""


class MultimodalTask(Encoding):
    """A method: a function of features and of which modalities are present.

    A method overrides ``fuse``, and ``training_step`` (or an optimisation hook) where its paper trains by something other than
    the cross-entropy of the fused prediction.

    Args:
        spec: the data set's modalities and classes.
        encoders: modality -> module that maps its raw input (B, …) to (B, out_dim) and has an ``out_dim``.
        recipe: optimiser and schedule.
        pretraining: the share of the recipe's epochs that a method of two stages spends on the first one. No epoch of it is ever
            chosen as the best.

    Raises:
        UsageError: fewer than two modalities, encoders that do not match them, too few epochs for two stages, or a recipe with
            settings that the method cannot honour.
    """

    #: Prefixes of the parameters that a training step may leave without gradient (none, for most methods).
    gradient_exempt: tuple[str, ...] = ()

    #: Whether validation counts the hits of every pattern; if not, of all that is there alone, by which the epoch is chosen.
    validates_patterns: bool = True

    #: Whether a trial may be shared out over several devices. A method that learns from the whole split at once may not.
    data_parallel: bool = True

    weighted_classes = True  # by the training step below

    pattern_masks: Tensor

    @classmethod
    def artefact_patterns(cls, params: Mapping[str, Any], conditioning: str) -> tuple[str, ...]:
        """Names of the presence patterns whose score follows from a role in the method, and is no measure of the modalities.

        A method in which one modality only steers what is done with the others names that modality: alone, it has nothing to steer.
        Reports mark such scores, and do not compare them.

        Args:
            params: the method's own arguments, as a trial stores them; what is left out has its default.
            conditioning: the data set's conditioning modality.

        Returns:
            Names as ``missing.pattern_name`` gives them; none, for most methods.
        """
        return ()

    def __init__(
        self,
        spec: DataSpec,
        encoders: Mapping[str, nn.Module],
        recipe: Recipe | None = None,
        *,
        pretraining: float = 0.0,
    ) -> None:
        super().__init__()
        if len(spec.modalities) < 2:
            raise UsageError(f"fusion needs at least two modalities, got {list(spec.modalities)}")
        if set(encoders) != set(spec.modalities):
            raise UsageError(f"encoders must be given for {list(spec.modalities)}, got {list(encoders)}")
        self.save_hyperparameters(ignore=list(BUILT_FROM), logger=False)
        self.spec = spec
        self.follow(recipe or Recipe(), spec.class_counts)
        if pretraining and self.recipe.epochs < 2:
            raise UsageError(f"pretraining and training need an epoch each, recipe.epochs is {self.recipe.epochs}")
        most = self.recipe.epochs - 1
        self.pretraining_epochs = min(max(1, round(pretraining * self.recipe.epochs)), most) if pretraining else 0
        self.modalities = spec.modalities
        self.encoders = nn.ModuleDict({m: encoders[m] for m in spec.modalities})
        self.dims: dict[str, int] = {m: int(encoders[m].out_dim) for m in spec.modalities}  # type: ignore[arg-type]
        self.target_dims: dict[str, int] = {m: spec.feature_dims.get(m, self.dims[m]) for m in spec.modalities}

        counts = torch.tensor(spec.class_counts, dtype=torch.float)
        self.register_buffer("log_prior", (counts / counts.sum()).log())  # (C,)
        self._shown = torch.tensor(pattern_matrix(spec.modalities))  # (P, M), on the host
        self.register_buffer("pattern_masks", self._shown.clone(), persistent=False)
        self._hits: Tensor | float = 0.0
        self._nats: Tensor | float = 0.0
        self._seen = 0
        self._loss_sum: Tensor | float = 0.0
        self._loss_count = 0

    # What a method is made of

    def fuse(self, features: dict[str, Tensor], present: Tensor) -> Tensor:
        """Predict from the present modalities.

        Args:
            features: as ``encode`` returns them.
            present: (B, M) bool; features of modalities that are absent by it must have no effect.

        Returns:
            Logits (B, C).
        """
        raise NotImplementedError

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Cross-entropy of the fused prediction."""
        return self.cross_entropy(self.fuse(self.encode(batch), batch.present), batch.label)

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B, C) from all that is present in the batch."""
        return self.fuse(self.encode(batch), batch.present)

    def zero_absent(self, features: dict[str, Tensor], present: Tensor) -> dict[str, Tensor]:
        """The features with the rows of absent modalities set to zero."""
        return {
            m: features[m].masked_fill(~present[:, column : column + 1], 0.0)
            for column, m in enumerate(self.modalities)
        }

    def concatenate(self, features: dict[str, Tensor], present: Tensor) -> Tensor:
        """The features side by side, (B, Σ_m D_m), those of absent modalities zero."""
        return torch.cat(list(self.zero_absent(features, present).values()), dim=1)

    def split_modalities(self, conditioning: str | None) -> tuple[str, tuple[str, ...]]:
        """The conditioning modality of an asymmetric method (the data set's own if None), and the others."""
        chosen = conditioning or self.spec.conditioning
        if chosen not in self.modalities:
            raise UsageError(f"unknown conditioning modality '{chosen}'; {did_you_mean(chosen, self.modalities)}")
        return chosen, tuple(m for m in self.modalities if m != chosen)

    # Missing modalities

    def reconstruction_targets(self, batch: Batch, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """What imputation methods reconstruct: feature vectors, without gradient.

        Args:
            batch: of B samples.
            features: their embeddings, as ``encode`` returns them.

        Returns:
            modality -> (B, target_dims[modality]): the raw input where the data set itself consists of feature vectors, the
            encoder's embedding otherwise; zero where the modality is absent.
        """
        raw = {m: batch.inputs[m] if m in self.spec.feature_dims else features[m] for m in self.modalities}
        return {m: v.detach() for m, v in self.zero_absent(raw, batch.present).items()}  # type: ignore[arg-type]

    def draw_visible(self, present: Tensor) -> Tensor:
        """Hide modalities at random, as training for missing ones does: (B, M) bool.

        Each sample gets one of the non-empty subsets of what it has, the complete one among them, uniformly.
        """
        host, shown = on_host(present), self._shown  # drawn there, where what is left has to be known
        subset = ~(shown & ~host.unsqueeze(1)).any(dim=2)  # (B, P)
        subset |= ~host.any(dim=1, keepdim=True)  # nothing to choose from: any, and then none of it
        return placed(shown[torch.multinomial(subset.float(), 1).squeeze(1)] & host, present.device)

    # Evaluation: one encoding, every pattern

    def fuse_patterns(self, features: dict[str, Tensor], present: Tensor) -> Tensor:
        """Predict under each of the P = 2^M − 1 presence patterns.

        A sample that has none of a pattern's modalities is answered by the class frequencies of the training split.

        Returns:
            Logits (P, B, C), in the order of ``missing.patterns``.
        """
        return torch.stack([self.answer(features, present & mask) for mask in self.pattern_masks])

    def answer(self, features: dict[str, Tensor], visible: Tensor) -> Tensor:
        """Logits (B, C) from what is visible, (B, M); the class frequencies where that is nothing."""
        fused = self.fuse(features, visible)
        return torch.where(visible.any(dim=1, keepdim=True), fused, self.log_prior.to(fused.dtype))

    def predict_step(self, batch: Batch, batch_idx: int = 0) -> Tensor:
        """Log-probabilities (P, B, C) under every pattern, in float32 or what the trainer has that is finer."""
        features = self.encode(batch)
        self.watch_features(features, batch)
        logits = self.fuse_patterns(features, batch.present)
        return logits.to(torch.promote_types(logits.dtype, torch.float)).log_softmax(dim=-1)

    def watch_features(self, features: dict[str, Tensor], batch: Batch) -> None:
        """Called with the features of each batch of a test; a trial keeps some of them."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Count hits under every pattern, or with all that is there alone (``validates_patterns``)."""
        self._count_hits(batch, self.validates_patterns)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Count hits under every pattern."""
        self._count_hits(batch, every_pattern=True)

    def on_validation_epoch_end(self) -> None:
        """Log the accuracies that were counted."""
        self._log_accuracies("validation", self.validates_patterns)

    def on_test_epoch_end(self) -> None:
        """Log the accuracy of every pattern."""
        self._log_accuracies("test", every_pattern=True)

    def _count_hits(self, batch: Batch, every_pattern: bool) -> None:
        features, present = self.encode(batch), batch.present
        logits = self.fuse_patterns(features, present) if every_pattern else self.answer(features, present)[None]
        self._hits = self._hits + (logits.argmax(dim=-1) == batch.label).sum(dim=1)  # (P,), or (1,)
        self._nats = self._nats + F.cross_entropy(logits[-1], batch.label, reduction="sum")
        self._seen += len(batch)

    def _log_accuracies(self, stage: str, every_pattern: bool) -> None:
        shown = patterns(self.modalities) if every_pattern else [self.modalities]
        names = [f"{stage}/accuracy" + ("" if p == self.modalities else f"/{pattern_name(p)}") for p in shown]
        hits, nats, seen = self._hits, self._nats, torch.tensor(self._seen, device=self.device)  # of all devices' rows
        self._hits, self._nats, self._seen = 0.0, 0.0, 0
        accuracies = dict(zip(names, (hits / seen).tolist(), strict=True))
        self.log_epoch({f"{stage}/loss": float(nats / seen), **accuracies})

    def log_epoch(self, values: dict[str, float]) -> None:
        """Log what has become known at the end of an epoch."""
        self.log_dict(values)

    # Training

    def on_train_end(self) -> None:
        """Warn where training was stopped before the second of two stages."""
        if self.pretraining_epochs and self.current_epoch <= self.pretraining_epochs and not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            warnings.warn(
                f"training was stopped after {self.current_epoch} epochs, and the first {self.pretraining_epochs} of the recipe are "
                f"pretraining: what {type(self).__name__} predicts by has learnt nothing yet",
                stacklevel=2,
            )

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Add up the loss (``self.log`` in every step would cost more than the rest of Lightning)."""
        self._loss_sum = self._loss_sum + outputs["loss"].detach()
        self._loss_count += 1

    def on_train_epoch_end(self) -> None:
        """Log the epoch's mean loss.

        Raises:
            DivergedError: it is not finite.
        """
        loss = float(self._loss_sum) / max(1, self._loss_count)
        self._loss_sum, self._loss_count = 0.0, 0
        if not math.isfinite(loss):
            raise self.diverged(f"the training loss is {loss}")
        stage = {"train/pretraining": float(self.is_pretraining)} if self.pretraining_epochs else {}
        self.log_epoch({"train/loss": loss, **stage})

    def diverged(self, what: str) -> DivergedError:
        """The error to raise where training has left the numbers that can be computed with."""
        return DivergedError(
            f"{what} in epoch {self.current_epoch} (lr {self.recipe.lr:g}); a lower recipe.lr is the usual remedy, or features "
            "of a smaller scale"
        )

    @contextmanager
    def factorising(self) -> Iterator[None]:
        """Call a matrix that cannot be factorised what it is: of numbers that are too large, or none.

        Raises:
            DivergedError: in the place of torch's error.
        """
        try:
            yield
        except torch.linalg.LinAlgError as error:
            raise self.diverged("a matrix cannot be factorised") from error

    def evaluated(self, batch: Batch) -> Batch:
        """A batch that the method read from a split itself, as the data module gives batches for evaluation."""
        if self._trainer is None:
            return batch
        batch = self.trainer.precision_plugin.convert_input(batch)
        data = getattr(self.trainer, "datamodule", None)
        return batch if data is None else data.evaluated(batch)


def modality_cross_entropy(logits: Tensor, present: Tensor, label: Tensor) -> Tensor:
    """Cross-entropy of each modality's own prediction.

    Args:
        logits: (B, M, C).
        present: (B, M) bool.
        label: (B,).

    Returns:
        (B, M); zero where the modality is absent.
    """
    size, modalities, classes = logits.shape
    loss = F.cross_entropy(logits.reshape(-1, classes), label.repeat_interleave(modalities), reduction="none")
    return loss.view(size, modalities).masked_fill(~present, 0.0)


def mean_over_present(values: Tensor, present: Tensor) -> Tensor:
    """The mean of (B, M) values over the samples in which each modality is present: (M,); zero where there are none."""
    return (values * present).sum(dim=0) / present.sum(dim=0).clamp(min=1)


def mean_where(values: Tensor, mask: Tensor) -> Tensor:
    """The mean of the values that a mask of their shape selects; zero where it selects none."""
    return (values * mask).sum() / mask.sum().clamp(min=1)
