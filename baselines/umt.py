"""UMT: a multimodal model whose encoders are held to those of unimodal teachers."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from mmbench.arguments import Tunable
from mmbench.baselines.concat import Concat
from mmbench.baselines.mmin import frozen_embeddings
from mmbench.batch import Batch
from mmbench.data.split import DataSpec
from mmbench.recipe import Recipe
from mmbench.task import mean_over_present, modality_cross_entropy


class Umt(Concat):
    """Uni-modal teacher (Du et al., "On uni-modal feature learning in supervised multi-modal learning", ICML 2023, arXiv 2305.01233).

    Joint training learns too little of each modality's own features. Two stages, f being Concat's logits:

        1. z_m = G_m h_m        loss = Σ_m ℓ(z_m), ℓ the cross-entropy: every encoder alone, as in ``late_fusion``.
                                What the encoders then are become the teachers h*_m, which are never changed again.
        2. z = f(h_1, …, h_M)   loss = ℓ(z) + λ Σ_m mean over the samples that have m of ‖h_m − h*_m‖² / D_m,
                                with encoders and a head that begin anew, from what the seed made of them.

    Until the first stage is over, the teachers' place holds the encoders as they were made; then the two change places. The fresh
    encoders also begin without momentum. The paper's other proposal, UME, averages the unimodal models' predictions: ``late_fusion``.

    The code that was read is BalanceBenchmark's (https://github.com/GeWu-Lab/BalanceBenchmark, commit c7d2ae5,
    ``balancemm/trainer/UMT_trainer.py``), and of the paper its abstract.

    Cost: a step of stage one is one forward and one backward pass of every encoder; one of stage two is two forward passes (encoder and
    teacher) and one backward pass.

    Departures:
        1. Both stages are one run, with one optimiser and its schedule, which goes on over the change. BalanceBenchmark loads models
           that were trained beforehand, for as many epochs as the student. Here the student gets more of them: with half of 30 on
           ``openclipart_features`` it is still on its way to its teachers when training ends, and with three quarters it is there.
        2. The teachers are those of the first stage's last epoch; BalanceBenchmark's are what its unimodal training kept.
        3. Teachers are in evaluation mode. BalanceBenchmark never switches them to it, so that their dropout is active, and batch
           normalisation goes by the batch and moves its running statistics.
        4. The student's loss has the distillation from its first to its last step. BalanceBenchmark can confine it to some epochs.
        5. Distances are means over the cells that are present. BalanceBenchmark has complete data, where that is its mean over all.
        6. A sample that has nothing is answered by zero logits, whose cross-entropy is part of the second stage's loss.

    Args:
        distillation_weight: λ.
        pretraining: the share of the epochs that the first stage gets.
    """

    weighted_classes = True

    def __init__(
        self,
        spec: DataSpec,
        encoders: Mapping[str, nn.Module],
        recipe: Recipe | None = None,
        *,
        distillation_weight: Annotated[float, Field(ge=0), Tunable(0.1, 100.0, log=True)] = 10.0,
        pretraining: Annotated[float, Field(gt=0, lt=1)] = 0.25,
    ) -> None:
        super(Concat, self).__init__(spec, encoders, recipe, pretraining=pretraining)  # Concat itself has one stage
        self.distillation_weight = distillation_weight
        self.teacher = deepcopy(self.encoders).requires_grad_(False)
        self.teacher_heads = nn.ModuleDict({m: self.linear(self.dims[m], spec.num_classes) for m in self.modalities})
        self.head = self.linear(sum(self.dims.values()), spec.num_classes)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of the current stage."""
        features = self.encode(batch)
        if self.is_pretraining:
            return self.unimodal_loss(features, batch)
        fused = self.cross_entropy(self.fuse(features, batch.present), batch.label)
        return fused + self.distillation_weight * self.distance(features, batch)

    def unimodal_loss(self, features: dict[str, Tensor], batch: Batch) -> Tensor:
        """Σ_m of modality m's own cross-entropy."""
        logits = torch.stack([self.teacher_heads[m](features[m]) for m in self.modalities], dim=1)
        losses = modality_cross_entropy(logits, batch.present, batch.label)
        return mean_over_present(self.weighted(losses, batch.label, batch.present), batch.present).sum()

    def distance(self, features: dict[str, Tensor], batch: Batch) -> Tensor:
        """Σ_m of the mean squared difference between modality m's features and its teacher's."""
        taught = frozen_embeddings(self, self.teacher, batch, batch.present)
        squared = [(features[m] - taught[m]).square().mean(dim=1) for m in self.modalities]
        return mean_over_present(torch.stack(squared, dim=1), batch.present).sum()

    def on_train_epoch_start(self) -> None:
        """When the second stage begins, make the trained encoders teachers, and begin with fresh ones."""
        if self.current_epoch != self.pretraining_epochs:
            return
        trained = deepcopy(self.encoders.state_dict())
        self.encoders.load_state_dict(self.teacher.state_dict())
        self.teacher.load_state_dict(trained)
        for optimizer in self.trainer.optimizers:
            for parameter in self.encoders.parameters():
                optimizer.state.pop(parameter, None)
