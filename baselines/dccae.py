"""DCCAE: DCCA whose outputs must also tell what went in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from mmbench.arguments import Tunable
from mmbench.baselines.dcca import Dcca
from mmbench.batch import Batch
from mmbench.data.split import DataSpec
from mmbench.recipe import Recipe
from mmbench.task import mean_over_present


class Dccae(Dcca):
    """Deep canonically correlated autoencoders (Wang et al., ICML 2015; extended as arXiv 1602.01024).

    As in GCNet's release (https://github.com/zeroQiaoba/GCNet, ``baseline-cca``): DCCA, and a decoder d_m for each modality,

        loss = DCCA's + λ Σ_m mean ‖d_m(o_m) − x_m‖² / D_m,  over the samples that have modality m,

    where o_m is the output of modality m's network and x_m, of D_m numbers, its input.

    Cost: that of DCCA, and the decoders.

    Departures:
        1. DCCA's own; but where no pair has two samples, the reconstruction still trains the networks.
        2. x_m is the input where the data set consists of feature vectors. Elsewhere it is the encoder's embedding, without gradient:
           from it the error goes into the decoder and into the map to o_m, and it is no reason to make embeddings small.
        3. A decoder mirrors the encoders of feature vectors: fully connected with ReLU, n → D → D → D_m, for an encoder of width D.
        4. Only inputs that exist are reconstructed; the release imputes the missing ones beforehand.

    Args:
        components: n, numbers in an output.
        regularisation: r, of the covariances.
        svm_c: C of the SVM.
        reconstruction_weight: λ.
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
        reconstruction_weight: Annotated[float, Field(ge=0), Tunable(1e-5, 1e-1, log=True)] = 1e-3,
    ) -> None:
        super().__init__(spec, encoders, recipe, components=components, regularisation=regularisation, svm_c=svm_c)
        self.reconstruction_weight = reconstruction_weight
        self.decoders = nn.ModuleDict(
            {m: decoder(components, width, self.target_dims[m]) for m, width in self.dims.items()}
        )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Minus the sum of the pairs' correlations, and the weighted errors of reconstruction."""
        features = self.encode(batch)
        outputs, targets = self.project(features), self.reconstruction_targets(batch, features)
        errors = [(self.decoders[m](outputs[m]) - targets[m]).square().mean(dim=1) for m in self.modalities]
        reconstruction = mean_over_present(torch.stack(errors, dim=1), batch.present).sum()
        return self.correlation_loss(outputs, batch.present) + self.reconstruction_weight * reconstruction


def decoder(components: int, width: int, out_dim: int) -> nn.Sequential:
    """Three fully connected layers from an output to what it is to tell."""
    return nn.Sequential(
        nn.Linear(components, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, out_dim)
    )
