"""IMDer: missing embeddings are drawn by diffusion, given those that are there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from mmbench.arguments import Tunable
from mmbench.baselines.ae import fully_connected
from mmbench.baselines.diffusion import ScoreNetwork, matching_loss, sample
from mmbench.baselines.mmin import frozen_embeddings
from mmbench.batch import Batch
from mmbench.data.split import DataSpec
from mmbench.presence import on_host, placed, rows_of, taken
from mmbench.recipe import Recipe
from mmbench.task import MultimodalTask, mean_over_present, mean_where


class Imder(MultimodalTask):
    """Incomplete multimodality-diffused emotion recognition (Wang, Li and Cui, NeurIPS 2023).

    Authors' code: https://github.com/mdswyz/IMDer (commit 1901a92, ``trains/singleTask``). With x_m = LayerNorm(P_m h_m) the embedding
    of modality m, D wide and zero where it is not shown, there are two stages:

        1. z = C([x_1; …; x_M]),   loss = CE(z) from all that is present. Encoders and P are frozen from then on.
        2. c = what is visible of [x_1; …; x_M]
           u_m ~ s_m(· | c)        drawn in N steps by the score network of each modality that is not visible (see ``diffusion``)
           x̂_m = R_m(u_m)          refined, by two layers
           z = C([…; x_m if visible, else x̂_m; …]),   C(x) = V(x + B(x)) + v with B of two layers
           loss = CE(z) + w_s Σ_m mean ‖√v(t) s_m(x_m + √v(t) ε, t | c) + ε‖² + w_r Σ_m mean ‖x̂_m − x_m‖² / D

    The means are over the samples in which modality m is known but hidden. No gradient passes through a draw: cross-entropy and
    reconstruction train R, B and V, the score loss alone trains s. The process is the release's: variance exploding, σ = 25.

    Cost: one forward pass of every encoder a step, and one backward pass in the first stage; N passes of a score network, without
    gradient, for every cell that is not visible, in training and at test, and one with gradient for those with a target.

    Departures:
        1. The paper's text was not at hand; this is the release and the paper's abstract.
        2. For one vector a modality, a score network is two hidden layers with the time's Fourier features, a linear layer on c and the
           score of a standard normal vector to start from, not a U-Net with attention to sequences; R two layers, not twenty blocks
           with channel attention; C reads the vectors side by side, not through transformers across pairs of modalities.
        3. The release conditions on x_m, or on a linear map of two of them, one for each pair; here it is one linear layer on all M,
           zero where not visible, so that any M will do. LayerNorm, which the release has not, gives every x_m the size that σ is for.
        4. The release adds noise to the condition: in training the same ε as to x_m, in a draw an own one. For standard normal x and c
           of correlation ρ the score that minimises the loss is then −(x + c) / (1 + ρ + 2v), whatever ρ: it draws x away from c. Here
           the condition is left as it is.
        5. The release draws by 100 Euler–Maruyama steps that end at t = 0.001, with no corrector. Here it is N steps by the variance
           between two times (ancestral sampling), which does not overshoot where steps are long, and ends at 0. Few steps leave too
           little spread: with the exact score of normal data of standard deviation 0.7, 16 give 0.57, 100 give 0.67.
           And what a score expects a vector to be is cut back to a norm of √D, which all x_m have, so that an exact score never
           exceeds it; without that, as in the release, the second stage's loss leapt from 12 to 10^22 where Adam's rate was 0.01.
        6. At test all samples share their noise, a table made with the weights, so that a prediction is always the same and does not
           depend on the batch; the release draws anew. In training noise is new for each sample here too.
        7. The release hides the same modalities in a whole batch, how many by the batch's number in the epoch; at a missing rate of 0
           it hides two of three in nearly every batch (its ``miss_2[int(mr * 10 - 1)]`` is then ``miss_2[-1]``, which is 1). Here
           each sample shows one of the non-empty subsets of what it has, uniformly, whatever the rate; what is missing is drawn too,
           but is never a target, and a sample that has nothing takes no part.
        8. The release starts from weights trained on complete data, by a script that is not part of it; its encoders and projections
           run without gradient. Here ``pretraining`` is the share of that stage, which sees what is present; encoders are frozen after
           it, their dropout off and their statistics fixed.
        9. Gradients are cut back by the recipe's ``clip_norm``, not by value at 1 or 0.6. The configured ``use_finetune`` and
           ``weight_decay`` do nothing in the release.

    Args:
        score_weight: w_s, 0.1 in the release as is w_r.
        reconstruction_weight: w_r.
        steps: N.
        width: D.
        dropout: inside B, 0 in the release.
        pretraining: the share of the epochs that the first stage gets.
    """

    weighted_classes = True

    noise: Tensor

    def __init__(
        self,
        spec: DataSpec,
        encoders: Mapping[str, nn.Module],
        recipe: Recipe | None = None,
        *,
        score_weight: Annotated[float, Field(ge=0), Tunable(0.01, 1.0, log=True)] = 0.1,
        reconstruction_weight: Annotated[float, Field(ge=0), Tunable(0.01, 1.0, log=True)] = 0.1,
        steps: Annotated[int, Field(ge=1, le=1000)] = 16,
        width: Annotated[int, Field(ge=1)] = 128,
        dropout: Annotated[float, Field(ge=0, lt=1), Tunable(0.0, 0.7)] = 0.0,
        pretraining: Annotated[float, Field(gt=0, lt=1)] = 0.5,
    ) -> None:
        super().__init__(spec, encoders, recipe, pretraining=pretraining)
        self.score_weight = score_weight
        self.reconstruction_weight = reconstruction_weight
        names, joint = self.modalities, len(self.modalities) * width
        self.projections = nn.ModuleDict({m: nn.Linear(d, width) for m, d in self.dims.items()})  # P_m
        self.scores = nn.ModuleDict({m: ScoreNetwork(width, joint) for m in names})  # s_m
        self.refinements = nn.ModuleDict({m: fully_connected(width, 2 * width, width) for m in names})  # R_m
        self.block = fully_connected(joint, joint, joint, dropout=dropout)
        self.classifier = nn.Linear(joint, spec.num_classes)
        self.register_buffer("noise", torch.randn(steps, len(names), width))  # of the samples' draws at test

    def project(self, features: dict[str, Tensor], present: Tensor) -> Tensor:
        """The embeddings x_m, (B, M, D), zero where a modality is absent."""
        x = torch.stack([self.projections[m](features[m]) for m in self.modalities], dim=1)
        return F.layer_norm(x, x.shape[2:]).masked_fill(~present.unsqueeze(2), 0.0)

    def fill(self, x: Tensor, visible: Tensor) -> Tensor:
        """Put refined draws in the place of what is not visible, in samples that show anything.

        Args:
            x: (B, M, D), zero where not visible.
            visible: (B, M) bool.

        Returns:
            (B, M, D).
        """
        shown = on_host(visible)
        missing = rows_of(placed(~shown & shown.any(dim=1, keepdim=True), visible.device))
        filled = list(x.unbind(dim=1))
        for column, (m, rows) in enumerate(zip(self.modalities, missing, strict=True)):
            if rows is not None and not len(rows):
                continue
            with torch.no_grad():
                score = self.scores[m].given(taken(x, rows).flatten(1))  # type: ignore[operator]
                size = (len(self.noise), len(x) if rows is None else len(rows), x.shape[2])
                noise = (
                    torch.randn(size, dtype=x.dtype, device=x.device)
                    if self.training
                    else self.noise[:, [column]].expand(size)
                )
                drawn = sample(score, noise, radius=x.shape[2] ** 0.5)  # of what LayerNorm puts out
            refined = self.refinements[m](drawn)
            filled[column] = refined if rows is None else filled[column].index_copy(0, rows, refined)
        return torch.stack(filled, dim=1)

    def classify(self, x: Tensor) -> Tensor:
        """Logits (B, C) of embeddings (B, M, D)."""
        joint = x.flatten(1)
        return self.classifier(joint + self.block(joint))

    def fuse(self, features: dict[str, Tensor], present: Tensor) -> Tensor:
        """Classify what is present and what is drawn in the place of the rest: (B, C)."""
        return self.classify(self.fill(self.project(features, present), present))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of the current stage."""
        if self.is_pretraining:
            known = self.project(self.encode(batch), batch.present)
            return self.class_loss(self.classify(known), batch.label, batch.present)
        visible = self.draw_visible(batch.present)
        hidden = placed(on_host(batch.present) & ~on_host(visible), visible.device)
        with torch.no_grad():
            known = self.project(frozen_embeddings(self, self.encoders, batch, batch.present), batch.present)
        shown = known.masked_fill(~visible.unsqueeze(2), 0.0)
        filled = self.fill(shown, visible)
        error = (filled - known).square().mean(dim=2)  # (B, M)
        return (
            self.class_loss(self.classify(filled), batch.label, visible)
            + self.score_weight * self.score_loss(known, shown, hidden)
            + self.reconstruction_weight * mean_over_present(error, hidden).sum()
        )

    def class_loss(self, logits: Tensor, label: Tensor, visible: Tensor) -> Tensor:
        """The mean cross-entropy over the samples that show anything."""
        rows = visible.any(dim=1)
        losses = F.cross_entropy(logits, label, reduction="none")
        return mean_where(self.weighted(losses, label, rows), rows)

    def score_loss(self, known: Tensor, shown: Tensor, hidden: Tensor) -> Tensor:
        """The sum over modalities of the mean loss of their scores, over the samples in which they are hidden.

        Args:
            known: all embeddings that there are, (B, M, D).
            shown: the same, zero where not visible.
            hidden: (B, M) bool, which of the known ones are not visible.
        """
        total = known.new_zeros(())
        for column, (m, rows) in enumerate(zip(self.modalities, rows_of(hidden), strict=True)):
            if rows is None or len(rows):
                score = self.scores[m].given(taken(shown, rows).flatten(1))  # type: ignore[operator]
                total = total + matching_loss(score, taken(known[:, column], rows)).mean()
        return total
