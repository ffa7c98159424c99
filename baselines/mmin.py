"""MMIN: imagine what a teacher would see in the views that are not there."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from mmbench.arguments import Tunable
from mmbench.baselines.ae import fully_connected, mean_squared_error
from mmbench.baselines.cra import ResidualAutoencoder
from mmbench.batch import Batch
from mmbench.data.split import DataSpec
from mmbench.presence import on_host, placed
from mmbench.recipe import Recipe
from mmbench.task import MultimodalTask


class Mmin(MultimodalTask):
    """Missing modality imagination network (Zhao, Li and Jin, ACL 2021).

    Authors' code: https://github.com/AIM3-RUC/MMIN. Two stages, with h_m zero where modality m is not visible:

        1. z = C_0([h_1; …; h_M]),   loss = CE(z) from all that is present. The encoders as they then are become the teacher.
        2. ĥ, l = A([h_1; …; h_M])    imagination: a cascade of residual autoencoders (see ``cra``); l is all blocks' latents
           z = C(l)
           h̄, _ = A'(ĥ)               back to where it came from: a second cascade
           loss = CE(z) + w_i · mean over hidden cells of ‖ĥ_m − t_m‖² / D_m + w_c · mean over visible cells of ‖h̄_m − h_m‖² / D_m

    with t_m the frozen teacher's embedding of modality m, and h_m without gradient in the last term.

    Cost: one forward and one backward pass of every encoder a step; in stage two also one forward pass of the teacher's encoders,
    of what is hidden, and two cascades on features.

    Departures:
        1. The release trains on complete samples, from which it hides views, and its teacher on complete samples too. Here what is
           missing in training does not exist: the first stage learns from what is present, the second hides views among the present
           ones (uniform over the non-empty subsets of what a sample has, the complete one among them), and only hidden but known
           views are targets.
        2. The released errors are means over all of ĥ and h̄; where nothing is to be imagined, the target is the teacher's embedding of
           a zero input. Here they are means over the cells that the paper speaks of.
        3. A modality that is not visible is a zero embedding, not the embedding of a zero input.
        4. The stages share one optimiser and its schedule. As the encoders are trained on from the teacher's weights, they keep their
           momentum. The release's scripts give 20 epochs to the teacher and 60 to the rest; ``pretraining`` is that share.
        5. C_0 has the same dropout as C; 0.3 in the release.
        6. Weights start from PyTorch's default; the release initialises them as He et al. do (ICCV 2015), GCNet's copy of it from a
           normal distribution of standard deviation 0.02, and both set biases to zero.
        7. The release clips the gradients of each of its networks, at a norm of 0.5 in the first stage and of 1 in the second, GCNet's
           copy of it at 5 in both; here ``clip_norm`` of the recipe clips all of them together, by default not at all.
        8. A sample that has nothing is an input of zeros, and the cross-entropy of the answer to it is part of both stages' loss. Where
           every sample has one view or none, nothing is ever hidden, and nothing imagined has a target.

    Args:
        imagination_weight: w_i.
        cycle_weight: w_c.
        blocks: autoencoders of a cascade.
        dropout: after every hidden layer of C and C_0.
        pretraining: the share of the epochs that the first stage gets.
    """

    weighted_classes = True

    def __init__(
        self,
        spec: DataSpec,
        encoders: Mapping[str, nn.Module],
        recipe: Recipe | None = None,
        *,
        imagination_weight: Annotated[float, Field(ge=0), Tunable(0.4, 40.0, log=True)] = 4.0,
        cycle_weight: Annotated[float, Field(ge=0), Tunable(0.2, 20.0, log=True)] = 2.0,
        blocks: Annotated[int, Field(ge=1, le=1000)] = 5,
        dropout: Annotated[float, Field(ge=0, lt=1), Tunable(0.0, 0.7)] = 0.5,
        pretraining: Annotated[float, Field(gt=0, lt=1)] = 0.25,
    ) -> None:
        super().__init__(spec, encoders, recipe, pretraining=pretraining)
        self.imagination_weight = imagination_weight
        self.cycle_weight = cycle_weight
        self.widths = list(self.dims.values())
        self.teacher = deepcopy(self.encoders).requires_grad_(False)
        self.pretraining_classifier = fully_connected(sum(self.widths), 128, 128, spec.num_classes, dropout=dropout)
        self.imagination = ResidualAutoencoder(sum(self.widths), blocks=blocks)
        self.cycle = ResidualAutoencoder(sum(self.widths), blocks=blocks)
        self.classifier = fully_connected(self.imagination.latent_dim, 128, 128, spec.num_classes, dropout=dropout)

    def fuse(self, features: dict[str, Tensor], present: Tensor) -> Tensor:
        """Classify the latents of imagining from the present modalities: (B, C)."""
        return self.classifier(self.imagination(self.concatenate(features, present))[1])

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of the current stage."""
        features = self.encode(batch)
        if self.is_pretraining:
            logits = self.pretraining_classifier(self.concatenate(features, batch.present))
            return self.cross_entropy(logits, batch.label)
        visible = self.draw_visible(batch.present)
        hidden = placed(on_host(batch.present) & ~on_host(visible), visible.device)
        joint = self.concatenate(features, visible)  # (B, Σ D_m)
        imagined, latents = self.imagination(joint)
        returned, _ = self.cycle(imagined)
        targets = frozen_embeddings(self, self.teacher, batch, hidden)
        imagination = mean_squared_error(imagined.split(self.widths, dim=1), targets.values(), hidden)
        cycle = mean_squared_error(
            returned.split(self.widths, dim=1), joint.detach().split(self.widths, dim=1), visible
        )
        return (
            self.cross_entropy(self.classifier(latents), batch.label)
            + self.imagination_weight * imagination
            + self.cycle_weight * cycle
        )

    def on_train_epoch_start(self) -> None:
        """Make the teacher when the second stage begins."""
        if self.current_epoch == self.pretraining_epochs:
            self.teacher.load_state_dict(self.encoders.state_dict())


@torch.no_grad()
def frozen_embeddings(task: MultimodalTask, encoders: nn.ModuleDict, batch: Batch, cells: Tensor) -> dict[str, Tensor]:
    """Embed cells of a batch, (B, M) bool, by a teacher's encoders: no gradient, no dropout, no change of any statistic.

    Returns:
        modality -> (B, D_m); zero outside the cells.
    """
    encoders.eval()
    return task.embed(encoders, batch, cells)
