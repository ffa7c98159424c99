"""DCCA: networks whose outputs correlate, and a linear classifier on these."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from mmbench.arguments import Tunable
from mmbench.baselines.cca import whiten
from mmbench.batch import Batch
from mmbench.data.split import EVALUATION_BATCH, DataSpec, Split
from mmbench.fixed import Centring, LinearSvm, evaluation
from mmbench.presence import on_host, row_numbers, taken
from mmbench.recipe import Recipe
from mmbench.task import MultimodalTask

FLOOR = 1e-9
"""Of a squared correlation, below which it has no gradient."""


class Dcca(MultimodalTask):
    """Deep canonical correlation analysis (Andrew et al., ICML 2013) of every pair of modalities, and a linear SVM.

    As a baseline for missing modalities in GCNet's release (Lian et al., TPAMI 2023, arXiv 2203.02177;
    https://github.com/zeroQiaoba/GCNet, ``baseline-cca``). o_m = W_m h_m is the output of modality m's network, of n numbers. A batch's
    loss is, over the samples that have both modalities of a pair, with their outputs centred in the rows of O_1 and O_2,

        S_11 = O_1ᵀO_1 / (B − 1) + r I,   S_22 likewise,   S_12 = O_1ᵀO_2 / (B − 1),   T = S_11^(−1/2) S_12 S_22^(−1/2)
        loss = −Σ over pairs of tr (TᵀT)^(1/2), the sum of all n canonical correlations

    No label enters it. At the end of every epoch a linear SVM learns to tell classes by the outputs of all modalities.

    Cost: one forward and one backward pass of every encoder a step; at the end of an epoch one more forward pass over the
    training split, and an SVM.

    Departures:
        1. The release sends text through the network of the *video* modality. Here every modality has its own: its encoder, and a
           linear map to n numbers without a bias, which centring would take away.
        2. Batches are the recipe's (64; the release has 1,024, the paper the whole split). n = 20 stays well below them, as B samples
           in B − 1 or more dimensions correlate perfectly whatever the networks do. Where modalities are missing, a pair has fewer
           samples; it counts from two on (leaving out those with few was worse).
        3. Dropout within the encoders is off: the paper's networks have none, and its noise, drawn for each modality by itself, is
           what correlation is spoilt by.
        4. S^(−1/2) is an inverse Cholesky factor instead of the symmetric root: the correlations are the same, and their gradient stays
           finite where eigenvalues of S coincide. The eigenvalues of TᵀT are floored at 1e-9, as released, but the release adds r I to
           TᵀT before it takes them; here all is in double precision. r = 1e-3.
        5. The SVM (C = 0.01) is fitted to the whole training split in evaluation mode, in one more pass an epoch: without
           augmentation and without modality dropout. A missing output is imputed by the mean of the training outputs that exist;
           the release imputes inputs, by a mean over all splits. Outputs are centred. Samples that have nothing are among those that it
           is fitted to, at zero. Logits are as in ``Cca``: not calibrated.
        6. The release's networks are fully connected with batch normalisation; here they are the encoders that are given. It keeps the
           last epoch; here the epoch is chosen by the validation accuracy, as for every method.
        7. A batch in which no pair has two samples moves no parameter. At the highest anchor rate no batch has such a pair: what is
           evaluated is an SVM on the outputs of networks that were never trained.

    Args:
        components: n.
        regularisation: r.
        svm_c: C of the SVM.
    """

    def __init__(
        self,
        spec: DataSpec,
        encoders: Mapping[str, nn.Module],
        recipe: Recipe | None = None,
        *,
        components: Annotated[int, Field(ge=1)] = 20,
        regularisation: Annotated[float, Field(gt=0), Tunable(1e-5, 1e-1, log=True)] = 1e-3,
        svm_c: Annotated[float, Field(gt=0), Tunable(1e-4, 1.0, log=True)] = 0.01,
    ) -> None:
        super().__init__(spec, encoders, recipe)
        self.regularisation = regularisation
        self.heads = nn.ModuleDict({m: nn.Linear(d, components, bias=False) for m, d in self.dims.items()})
        self.centring = Centring(dict.fromkeys(self.modalities, components))
        self.svm = LinearSvm(len(self.modalities) * components, spec.num_classes, svm_c)
        kinds = nn.modules.dropout._DropoutNd
        self.dropouts = [module for module in self.encoders.modules() if isinstance(module, kinds)]

    def encode(self, batch: Batch) -> dict[str, Tensor]:
        """Encode the present samples of each modality, without dropout: modality -> (B, out_dim)."""
        with evaluation(*self.dropouts):
            return super().encode(batch)

    def project(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """The networks' outputs: modality -> (B, n)."""
        return {m: self.heads[m](features[m]) for m in self.modalities}

    def fuse(self, features: dict[str, Tensor], present: Tensor) -> Tensor:
        """Classify the outputs of all modalities, those of absent ones imputed: (B, C)."""
        return self.svm(torch.cat(list(self.centring(self.project(features), present).values()), dim=1))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Minus the sum of the pairs' correlations."""
        return self.correlation_loss(self.project(self.encode(batch)), batch.present)

    def correlation_loss(self, outputs: dict[str, Tensor], present: Tensor) -> Tensor:
        """Minus the sum of the pairs' correlations, of outputs (B, n).

        Where no pair has two samples it is zero, and a leaf of its own: no parameter gets a gradient from it, not even one of zero,
        with which weight decay and momentum would move what nothing teaches.
        """
        if not torch.stack([o.isfinite().all() for o in outputs.values()]).all():  # there is nothing to factorise
            raise self.diverged("the networks' outputs are nan")
        correlations, host = [], on_host(present)
        for (i, one), (j, other) in combinations(enumerate(self.modalities), 2):
            both = row_numbers(host[:, i] & host[:, j], present.device)
            # Views: gradients are added up by pair.
            rows, others = (taken(outputs[m].view_as(outputs[m]), both) for m in (one, other))
            if len(rows) > 1:
                with self.factorising():
                    value = total_correlation(rows, others, self.regularisation)
                correlations.append(value)
        if not correlations:
            return torch.zeros((), device=present.device, requires_grad=True)
        return -torch.stack(correlations).sum()

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """At the end of an epoch, before its validation, fit the classifier."""
        super().on_train_batch_end(outputs, batch, batch_idx)
        if self.trainer.is_last_batch:
            self.fit_classifier(self.trainer.train_dataloader.dataset)  # type: ignore[union-attr]

    @torch.no_grad()
    def fit_classifier(self, split: Split) -> None:
        """Fit means and classifier to the outputs of a whole split."""
        with evaluation(self):
            batches = (split.__getitems__(r.numpy()) for r in torch.arange(len(split)).split(EVALUATION_BATCH))
            parts = [self.project(self.encode(self.evaluated(batch.to(self.device)))) for batch in batches]
        outputs = {m: torch.cat([part[m] for part in parts]) for m in self.modalities}
        present = split.present.to(self.device)
        self.centring.fit(outputs, present)
        self.svm.fit(torch.cat(list(self.centring(outputs, present).values()), dim=1), split.label)


def total_correlation(one: Tensor, other: Tensor, regularisation: float) -> Tensor:
    """The sum of the canonical correlations, a scalar, of rows (B, n) and (B, n)."""
    rows, others = ((x - x.mean(dim=0)).double() for x in (one, other))
    matrix, _, _ = whiten(rows, others, regularisation)
    return torch.linalg.eigvalsh(matrix.T @ matrix).clamp(min=FLOOR).sqrt().sum().to(one.dtype)
