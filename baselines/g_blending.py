"""G-Blending: losses weighed by how much of what they learn generalises."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from mmbench.baselines.concat import Concat
from mmbench.baselines.multi_loss import MultiLoss
from mmbench.baselines.unimodal import own_logits
from mmbench.batch import Batch
from mmbench.data.split import EVALUATION_BATCH, DataSpec, Split
from mmbench.fixed import evaluation
from mmbench.presence import on_host, placed
from mmbench.recipe import Recipe
from mmbench.task import mean_over_present, modality_cross_entropy


class GBlending(MultiLoss):
    """Gradient blending, offline (Wang, Tran and Feiszli, CVPR 2020, arXiv 1905.12681).

    On ``multi_loss``: losses ℓ_0 = ℓ(f) and ℓ_m = ℓ(g_m) of M + 1 heads, of which each overfits at a pace of its own. Two stages:

        1. Every head k, with encoders of its own, is trained alone by ℓ_k for n epochs, all from the same initial state; V, a part of
           the training split, is held out. With L^T_k and L^V_k the mean losses over the rest of training and over V,
               G_k = L^V_k(0) − L^V_k(n)                                   what was gained that generalises
               O_k = (L^V_k(n) − L^T_k(n)) − (L^V_k(0) − L^T_k(0))         what the two have come apart by: overfitting
               w_k = (1/Z) G_k / O_k²,  Σ_k w_k = 1
        2. A fresh model, from the same initial state, is trained by Σ_k w_k ℓ_k on all of training.

    If the heads' overfitting is uncorrelated, these weights minimise the expected squared ratio of overfitting to generalisation of the
    blended step, Σ w_k² O_k² / (Σ w_k G_k)². What is shown is answered as in ``multi_loss``.

    The authors' repository (https://github.com/facebookresearch/VMZ, commit 45b04d6, ``c2/tutorials/gradient_blending.md``) takes
    weights as given numbers (for ip-CSN on Kinetics: audio 0.009, visual 0.485, both 0.506), and nothing that was read there
    estimates them (issue 133 asks for it). BalanceBenchmark (https://github.com/GeWu-Lab/BalanceBenchmark, commit 01458a1,
    ``balancemm/trainer/GBlending_trainer.py``) has |G|, so that a head that gets worse weighs like one that gets better by as much;
    losses that are sums over the batches of loaders of different lengths, so that O measures these lengths; training losses of
    models that move meanwhile; L(0) after the first epoch; and a "unimodal" model that is the fused head on features of which the
    others are zero.

    Cost: a step of stage one is two forward and two backward passes of every encoder (one set of encoders for f, one for all g_m), one
    of stage two is one of each. Between the stages there are three forward passes over the training split. The models of stage one,
    two sets of encoders and one of heads, are frozen then, and stay in memory.

    Departures:
        1. Both stages are one run with one optimiser and its schedule, which goes on over the change; ``pretraining`` of one half gives
           them the same number of epochs, as the paper's offline version has it. Its online version, which estimates the weights anew
           every few epochs, from the state that training has reached, is not built.
        2. The paper's weights are for G > 0. Here a head whose loss on V did not fall has G = 0, which is the minimum among weights
           that are not negative; then none is less than ``floor`` times the largest, so that every head learns: g_m alone answers
           where m is shown alone. Where no G is above zero, all weigh the same. O² is at least 1e-12.
        3. A loss without a sample in V, or in the rest of training, has no G: it gets the mean of the others' weights, and if that goes
           for all of them (V is empty), all weigh the same.
        4. V is made of whole groups (an artist's pictures, a speaker's clips), so that what a head learns of a group does not count as
           generalisation: drawn in a random order that no seed changes, each that still fits into the share ``held_out`` of the
           samples. Share and drawing are ours. Means are over samples (by class weights, where the recipe has some), in evaluation
           mode, of data that are not augmented; those of g_m are over the samples that have m.
        5. The authors' f has two hidden layers; here it is Concat's, as in ``multi_loss``.

    Args:
        held_out: the share of the training split that is V.
        floor: the smallest weight, as a share of the largest; 0 for the paper's weights.
        pretraining: the share of the epochs that the first stage gets.
    """

    weighted_classes = True
    trained_encoders = ("encoders", "joint_encoders", "alone_encoders")

    loss_weights: Tensor

    def __init__(
        self,
        spec: DataSpec,
        encoders: Mapping[str, nn.Module],
        recipe: Recipe | None = None,
        *,
        held_out: Annotated[float, Field(gt=0, lt=1)] = 0.1,
        floor: Annotated[float, Field(ge=0, le=1)] = 0.01,
        pretraining: Annotated[float, Field(gt=0, lt=1)] = 0.5,
    ) -> None:
        super(Concat, self).__init__(spec, encoders, recipe, pretraining=pretraining)  # Concat itself has one stage
        self.held_out = held_out
        self.floor = floor
        self.head = self.linear(sum(self.dims.values()), spec.num_classes)
        self.heads = nn.ModuleDict({m: self.linear(self.dims[m], spec.num_classes) for m in self.modalities})
        self.joint_encoders, self.joint_head = deepcopy(self.encoders), deepcopy(self.head)
        self.alone_encoders, self.alone_heads = deepcopy(self.encoders), deepcopy(self.heads)
        losses = 1 + len(self.modalities)
        self.register_buffer("loss_weights", torch.full((losses,), 1 / losses))  # of f, then of each g_m
        self._held = torch.zeros(spec.num_train, dtype=torch.bool)  # by the sample's number, on the host

    def on_train_start(self) -> None:
        """Hold V out."""
        self.hold_out(self.trainer.train_dataloader.dataset)

    def hold_out(self, split: Split) -> None:
        """Draw the groups of a split that are V."""
        groups, sizes = split.group.unique(return_counts=True)
        drawn, room = [], round(self.held_out * len(split))
        for number in torch.randperm(len(groups), generator=torch.Generator().manual_seed(0)).tolist():
            if sizes[number] <= room:
                drawn.append(number)
                room -= int(sizes[number])
        self._held = torch.isin(split.group, groups[drawn])

    def is_held(self, batch: Batch) -> Tensor:
        """Which samples of a batch are in V: (B,) bool, on the host."""
        return self._held[on_host(batch.index)]

    # Stage one

    def sample_losses(
        self,
        joint: tuple[nn.Linear, dict[str, Tensor]],
        alone: tuple[nn.ModuleDict, dict[str, Tensor]],
        present: Tensor,
        label: Tensor,
    ) -> Tensor:
        """ℓ(f) and each ℓ(g_m) of every sample: (B, 1 + M), those of absent modalities zero.

        Args:
            joint: the head f, and the features that it reads.
            alone: the heads g_m, and the features that they read.
            present: (B, M) bool.
            label: (B,).
        """
        head, features = joint
        share = present.sum(dim=1, keepdim=True) / len(self.modalities)  # of the bias, as Concat has it
        logits = F.linear(self.concatenate(features, present), head.weight) + share * head.bias
        fused = F.cross_entropy(logits, label, reduction="none")
        return torch.cat([fused.unsqueeze(1), modality_cross_entropy(own_logits(*alone), present, label)], dim=1)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The sum of all heads' losses in stage one, each of models of its own; then the blended loss."""
        if self.is_pretraining:
            learnt = ~self.is_held(batch).unsqueeze(1)
            cells = placed(on_host(batch.present) & learnt, batch.present.device)
            counted = torch.cat([placed(learnt, cells.device), cells], dim=1)
            joint = self.joint_head, self.embed(self.joint_encoders, batch, cells)
            alone = self.alone_heads, self.embed(self.alone_encoders, batch, cells)
            losses = self.sample_losses(joint, alone, cells, batch.label)
            return mean_over_present(self.weighted(losses, batch.label, counted), counted).sum()
        fused, unimodal = self.losses(self.encode(batch), batch)
        return (self.loss_weights * torch.cat([fused.unsqueeze(0), unimodal])).sum()

    # Between the stages

    def on_train_epoch_start(self) -> None:
        """Estimate the weights when the second stage begins."""
        if self.current_epoch == self.pretraining_epochs:
            losses, counts = self.measure(self.trainer.train_dataloader.dataset)
            generalisation = losses[0, 1] - losses[1, 1]
            gaps = losses[:, 1] - losses[:, 0]
            known = (counts > 0).all(dim=0)
            self.loss_weights.copy_(blend(generalisation, gaps[1] - gaps[0], known, self.floor))
            for part in (self.joint_encoders, self.joint_head, self.alone_encoders, self.alone_heads):
                part.requires_grad_(False)

    @torch.no_grad()
    def measure(self, split: Split) -> tuple[Tensor, Tensor]:
        """The mean losses of a split's rest and of its V, before and after stage one.

        Returns:
            (2, 2, 1 + M): before or after; in the rest or in V; by head. And how much counts in each mean: (2, 1 + M).
        """
        heads = 1 + len(self.modalities)
        sums, counts = torch.zeros(2, 2, heads, dtype=torch.double), torch.zeros(2, heads, dtype=torch.double)
        with evaluation(self):
            for rows in torch.arange(len(split)).split(EVALUATION_BATCH):
                batch = self.evaluated(split.__getitems__(rows.numpy()).to(self.device))
                features, present, label = self.encode(batch), batch.present, batch.label
                joint, alone = (self.embed(e, batch, present) for e in (self.joint_encoders, self.alone_encoders))
                before = self.sample_losses((self.head, features), (self.heads, features), present, label)
                after = self.sample_losses((self.joint_head, joint), (self.alone_heads, alone), present, label)
                held = placed(self.is_held(batch), self.device)
                counted = F.pad(present, (1, 0), value=True)  # f answers every sample
                weights = counted * (1.0 if self.class_weights is None else self.class_weights[label].unsqueeze(1))
                for part, chosen in enumerate((~held, held)):
                    own = weights * chosen.unsqueeze(1)
                    counts[part] += own.sum(dim=0).cpu()
                    sums[:, part] += (torch.stack([before, after]) * own).sum(dim=1).cpu()
        return sums / counts.clamp(min=1e-12), counts


def blend(generalisation: Tensor, overfitting: Tensor, known: Tensor, floor: float) -> Tensor:
    """The weights of losses that minimise Σ w_k² O_k² / (Σ w_k G_k)² among those that are not negative and add up to 1.

    Args:
        generalisation: G (K,).
        overfitting: O (K,).
        known: (K,) bool; the others get the mean weight.
        floor: the smallest weight, as a share of the largest.
    """
    ratio = generalisation.clamp(min=0) / overfitting.square().clamp(min=1e-12)
    ratio = torch.where(known, ratio, ratio[known].mean() if known.any() else 0.0)
    if not ratio.any():
        ratio = torch.ones_like(ratio)
    ratio = ratio.clamp(min=floor * float(ratio.max()))
    return ratio / ratio.sum()
