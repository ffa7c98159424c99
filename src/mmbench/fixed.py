"""Features as they are given: the base of methods that do not train encoders, and what they fit in closed form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmbench.batch import Batch
from mmbench.data.split import DataSpec
from mmbench.errors import UsageError
from mmbench.presence import on_host, placed, row_numbers, taken
from mmbench.recipe import Recipe
from mmbench.task import DivergedError, MultimodalTask

NEVER = -1e4
"""The logit of a class that training did not have."""


@contextmanager
def evaluation(*modules: nn.Module) -> Iterator[None]:
    """Modules in evaluation mode for the while, with all that is in them."""
    modes = [(inner, inner.training) for module in modules for inner in module.modules()]
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for inner, mode in modes:
            inner.training = mode


class FixedFeatureTask(MultimodalTask):
    """A method whose encoders are not trained.

    Where the data set consists of feature vectors, the method works on these and its encoders are not even run; elsewhere, it works
    on the embeddings of the encoders *as they are given*: pass pretrained ones, as what random ones see is poor. They are
    run in evaluation mode and never move: what they make of inputs that are not augmented is kept from one epoch to the next.

    With features that do not change, there is nothing to gain from small batches: an epoch's rows are collected, and ``learn`` gets
    all of them in its last step, before the validation of that epoch; without the samples that have nothing. Where modality dropout
    hides modalities anew in every epoch, it has done so in these rows.

    Args:
        spec: the data set's modalities and classes.
        encoders: modality -> module that maps its raw input (B, …) to (B, out_dim) and has an ``out_dim``.
        recipe: its epochs; optimiser, learning rate and batch size have no effect. One that asks for ``adamw``, another schedule,
            warm-up or ``clip_norm`` is refused.
    """

    gradient_exempt = ("encoders",)
    recipe_optimizer = False
    data_parallel = False

    def __init__(self, spec: DataSpec, encoders: Mapping[str, nn.Module], recipe: Recipe | None = None) -> None:
        super().__init__(spec, encoders, recipe)
        self.automatic_optimization = False
        self.encoders.requires_grad_(False)
        self.dims = self.target_dims
        self._collected: list[tuple[dict[str, Tensor], Tensor, Tensor, Tensor]] = []
        self._kept: dict[str, Kept] = {}  # of a fit, by split

    @torch.no_grad()
    def encode(self, batch: Batch) -> dict[str, Tensor]:
        """The feature vectors of the present samples: modality -> (B, dims[modality]), zero where absent, without gradient."""
        if set(self.modalities) <= set(self.spec.feature_dims):
            return self.reconstruction_targets(batch, {})
        with evaluation(self.encoders):
            return self.reconstruction_targets(batch, self._embedded(batch))

    def _embedded(self, batch: Batch) -> dict[str, Tensor]:
        """The embeddings of a batch, of epochs before this one if they were computed there."""
        if (kept := self._kept_for(batch)) is None:
            return super().encode(batch)
        if (embedded := kept.find(batch)) is None:
            embedded = super().encode(batch)
            kept.add(batch, embedded)
        return embedded

    def _kept_for(self, batch: Batch) -> Kept | None:
        """Where the embeddings of a batch are kept; None if they would not be the same in another epoch.

        A CPU computes the last digits of a sample's in an order that depends on the rest of its batch, which in training is another one
        every time. So there, they are kept of validation alone, whose batches are the same, and no number depends on whether they are.
        """
        trainer = self._trainer
        if trainer is None or trainer.state.fn != "fit" or not (trainer.training or trainer.validating):
            return None
        if trainer.training:
            data, run = getattr(trainer, "datamodule", None), set(self.modalities) - set(self.spec.feature_dims)
            if batch.present.device.type == "cpu" or not (data is None or all(map(data.keeps, run))):
                return None
        return self._kept.setdefault("train" if trainer.training else "validation", Kept(len(self.modalities)))

    def learn(self, features: dict[str, Tensor], present: Tensor, label: Tensor, index: Tensor) -> Tensor:
        """Learn from all training samples of an epoch.

        Args:
            features: modality -> (N, dims[modality]), zero where absent.
            present: (N, M) bool.
            label: (N,).
            index: (N,), the samples' numbers in the training split.

        Returns:
            The loss to report, a scalar.
        """
        raise NotImplementedError

    def setup(self, stage: str) -> None:
        """Refuse several processes, each of which would learn from its share of the rows alone.

        Raises:
            UsageError: there are several.
        """
        self._kept = {}
        if self.trainer.world_size > 1:
            raise UsageError(
                f"{type(self).__name__} learns from the whole split in one process; use devices: 1 (got {self.trainer.world_size})"
            )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Collect the batch; in the epoch's last step, learn from all of them."""
        if batch_idx == 0:
            self._collected = []  # also what an epoch that was broken off has left
        features, present = self.zero_absent(self.encode(batch), batch.present), on_host(batch.present)
        here, device = present.any(dim=1), batch.present.device
        rows = row_numbers(here, device)
        vectors = {m: taken(f, rows) for m, f in features.items()}
        self._collected.append((vectors, present[here], taken(batch.label, rows), taken(batch.index, rows)))
        if not self.trainer.is_last_batch:
            return torch.zeros((), device=device)
        parts, presents, label, index = zip(*self._collected, strict=True)
        self._collected = []
        features = {m: torch.cat([part[m] for part in parts]) for m in self.modalities}
        for modality, whole in features.items():
            if not whole.isfinite().all():
                raise UsageError(
                    f"the encoder of {modality} gives features that are not finite numbers; check its weights"
                )
        return self.learn(features, placed(torch.cat(presents), device), torch.cat(label), torch.cat(index))

    def on_train_end(self) -> None:
        """Let go of what was kept from epoch to epoch."""
        super().on_train_end()
        self._kept = {}

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Take the loss of the one step that had one."""
        if self.trainer.is_last_batch:
            super().on_train_batch_end(outputs, batch, batch_idx)


class Kept:
    """Embeddings of the samples of a split, by their numbers.

    Args:
        modalities: M.
    """

    def __init__(self, modalities: int) -> None:
        self.known = torch.zeros(0, modalities, dtype=torch.bool)  # (N, M), on the host; N grows
        self.vectors: dict[str, Tensor] = {}  # (N, D_m)

    def find(self, batch: Batch) -> dict[str, Tensor] | None:
        """The embeddings (B, D_m) of a batch, zero where absent; None if not all of them are known."""
        index, cells = on_host(batch.index), on_host(batch.present)
        if int(index.max()) >= len(self.known) or (cells & ~self.known[index]).any():
            return None
        found = {}
        for column, (modality, vectors) in enumerate(self.vectors.items()):
            found[modality] = torch.where(batch.present[:, column : column + 1], vectors[batch.index], 0.0)
        return found

    def add(self, batch: Batch, embedded: dict[str, Tensor]) -> None:
        """Take the embeddings of a batch."""
        index, cells = on_host(batch.index), on_host(batch.present)
        more = (0, 0, 0, max(0, int(index.max()) + 1 - len(self.known)))
        self.known = functional.pad(self.known, more)
        self.known[index] |= cells
        for column, (modality, rows) in enumerate(embedded.items()):
            vectors = functional.pad(self.vectors.get(modality, rows[:0]), more)
            here = batch.present[:, column : column + 1]
            vectors[batch.index] = torch.where(here, rows, vectors[batch.index])
            self.vectors[modality] = vectors


class Centring(nn.Module):
    """Vectors minus their mean over the samples that have the modality; zero where it is absent.

    That is imputation by the mean: an imputed vector lies on it.

    Args:
        dims: modality -> its width D_m, in the data set's order, as all dictionaries of vectors have to be.
    """

    mean: Tensor

    def __init__(self, dims: Mapping[str, int]) -> None:
        super().__init__()
        self.widths = list(dims.values())
        self.register_buffer("mean", torch.zeros(sum(self.widths)))  # of all modalities, one after the other

    def fit(self, features: dict[str, Tensor], present: Tensor) -> None:
        """Take the means of (N, D_m) vectors over the rows in which they are present; zero where there are none."""
        sums = [torch.where(present[:, c : c + 1], f, 0.0).sum(dim=0) for c, f in enumerate(features.values())]
        counts = present.sum(dim=0).clamp(min=1)  # (M,)
        self.mean.copy_(torch.cat([total / count for total, count in zip(sums, counts, strict=True)]))

    def forward(self, features: dict[str, Tensor], present: Tensor) -> dict[str, Tensor]:
        """The centred vectors (B, D_m), zero where absent."""
        means = self.mean.split(self.widths)
        return {m: torch.where(present[:, c : c + 1], f - means[c], 0.0) for c, (m, f) in enumerate(features.items())}


class LinearSvm(nn.Module):
    """scikit-learn's linear support vector machine, one class against the rest, as two buffers.

    Args:
        in_dim: F, width of what is classified.
        classes: C.
        c: the weight of the squared hinge losses against the norm of the weights.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, in_dim: int, classes: int, c: float) -> None:
        super().__init__()
        self.c = c
        self.register_buffer("weight", torch.zeros(classes, in_dim))
        self.register_buffer("bias", torch.zeros(classes))

    def forward(self, rows: Tensor) -> Tensor:
        """Decision values (B, C) of rows (B, F)."""
        return rows @ self.weight.T + self.bias

    def fit(self, rows: Tensor, label: Tensor) -> None:
        """Fit to rows (N, F) and their labels (N,); the classes that do not occur get a constant, very low value.

        Raises:
            DivergedError: the rows are not finite numbers.
        """
        from sklearn.svm import LinearSVC

        if not rows.isfinite().all():
            raise DivergedError(
                "what the support vector machine is to learn from is not a finite number; a lower recipe.lr is the "
                "usual remedy, or features of a smaller scale"
            )
        self.weight.zero_()
        self.bias.fill_(NEVER)
        seen = label.unique()
        if len(seen) < 2:  # no question to answer
            self.bias[seen] = 0.0
            return
        svm = LinearSVC(C=self.c, dual=False).fit(rows.double().cpu().numpy(), label.cpu().numpy())
        weight, bias = torch.from_numpy(svm.coef_), torch.from_numpy(svm.intercept_)
        if len(seen) == 2:  # one row, which speaks for the second of them
            weight, bias = torch.cat([-weight, weight]), torch.cat([-bias, bias])
        self.weight[seen] = weight.to(self.weight)
        self.bias[seen] = bias.to(self.bias)
