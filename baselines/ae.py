"""AE: an autoencoder fills in the views that are not there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from mmbench.arguments import Tunable
from mmbench.batch import Batch
from mmbench.data.split import DataSpec
from mmbench.recipe import Recipe
from mmbench.task import MultimodalTask, mean_where


class Ae(MultimodalTask):
    """Autoencoder imputation (Bengio et al., NIPS 2006), as the missing-modality papers have it for a baseline.

    As in GCNet's release (https://github.com/zeroQiaoba/GCNet, ``baseline-mmin/models/mmin_AE_model.py``). With h_m zero where
    modality m is not visible:

        r = A([h_1; …; h_M])             widths D, 256, 128, 256, D with D = Σ_m D_m
        z = C(r)                         the classifier, widths D, 128, 128, classes
        x̂_m = F_m(r)                     a decoder a modality, widths D, 128, 128, those of x_m
        loss = CE(z) + w · mean over hidden cells (a sample's modality) of ‖x̂_m − x_m‖² / dim(x_m)

    As in the release, decoders read all of r, and A ends with ReLU.

    Cost: one forward and one backward pass of every encoder a step; the autoencoder, the classifier and the decoders work on features.

    Departures:
        1. The release reconstructs the true values of views that are missing in training. Here what is missing does not exist: each
           step hides views among the present ones (uniform over the non-empty subsets of what a sample has), x_m are the hidden but
           known ones, and the classifier learns from what stays visible.
        2. The release adds the reconstruction error up over the batch; here it is the mean over the hidden cells, so that w does not
           depend on the batch size. A w of the release is this w divided by its number of hidden cells: its README's 0.2 in batches of
           256 weighs far more than ours, the 0.002 to 0.01 of its script about 1.
        3. x_m is the raw input where that is a feature vector, as in the release, and else the encoder's embedding of it, which has no
           counterpart there; neither gets a gradient from the error.
        4. Encoders are the task's; a modality that is not visible is a zero embedding, not the embedding of a zero input.
        5. A's weights are initialised as He et al. do (ICCV 2015). Encoders, A and C are ten layers without a shortcut, and with
           PyTorch's default little of the input arrives at their end: on ``openclipart_features`` it costs more than a quarter of the
           validation accuracy. The release draws all weights from a normal distribution of standard deviation 0.02.
        6. The release clips the gradients of each of its networks at a norm of 5; here ``clip_norm`` of the recipe clips all of them
           together, by default not at all.
        7. A sample that has nothing is an input of zeros, and the cross-entropy of the answer to it is part of the loss. Where every
           sample has one view or none, there is nothing to hide, and no error of reconstruction ever.

    Args:
        weight: w.
        dropout: after every hidden layer of classifier and decoders.
    """

    weighted_classes = True

    def __init__(
        self,
        spec: DataSpec,
        encoders: Mapping[str, nn.Module],
        recipe: Recipe | None = None,
        *,
        weight: Annotated[float, Field(ge=0), Tunable(0.02, 2.0, log=True)] = 0.2,
        dropout: Annotated[float, Field(ge=0, lt=1), Tunable(0.0, 0.7)] = 0.5,
    ) -> None:
        super().__init__(spec, encoders, recipe)
        self.weight = weight
        width = sum(self.dims.values())
        self.autoencoder = fully_connected(width, 256, 128, 256, width, activation=nn.LeakyReLU).append(nn.ReLU())
        for layer in self.autoencoder:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
        self.classifier = fully_connected(width, 128, 128, spec.num_classes, dropout=dropout)
        self.decoders = nn.ModuleDict(
            {m: fully_connected(width, 128, 128, self.target_dims[m], dropout=dropout) for m in self.modalities}
        )

    def reconstruct(self, features: dict[str, Tensor], visible: Tensor) -> Tensor:
        """The joint representation r (B, D) of the visible views, (B, M) bool."""
        return self.autoencoder(self.concatenate(features, visible))

    def fuse(self, features: dict[str, Tensor], present: Tensor) -> Tensor:
        """Classify the reconstruction from the present modalities: (B, C)."""
        return self.classifier(self.reconstruct(features, present))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Cross-entropy from the visible views, and the error of the hidden ones."""
        features = self.encode(batch)
        visible = self.draw_visible(batch.present)
        joint = self.reconstruct(features, visible)  # (B, D)
        decoded = [self.decoders[m](joint) for m in self.modalities]  # of (B, dim(x_m))
        targets = self.reconstruction_targets(batch, features).values()
        error = mean_squared_error(decoded, targets, batch.present & ~visible)
        return self.cross_entropy(self.classifier(joint), batch.label) + self.weight * error


def fully_connected(*widths: int, activation: type[nn.Module] = nn.ReLU, dropout: float = 0.0) -> nn.Sequential:
    """Linear layers between these widths, with an activation and dropout in between."""
    layers = nn.Sequential()
    for before, after in pairwise(widths):
        layers.extend([nn.Linear(before, after), activation(), nn.Dropout(dropout)])
    return layers[:-2]


def mean_squared_error(views: Iterable[Tensor], targets: Iterable[Tensor], cells: Tensor) -> Tensor:
    """The squared error of views, averaged over their numbers and then over cells.

    Args:
        views: a modality's (B, D_m) each.
        targets: of the same shapes.
        cells: (B, M) bool, what counts.

    Returns:
        A scalar; zero where nothing counts.
    """
    errors = [(view - target).square().mean(dim=1) for view, target in zip(views, targets, strict=True)]
    return mean_where(torch.stack(errors, dim=1), cells)
