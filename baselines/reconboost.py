"""ReconBoost: modalities learn in turn, each what the others do not yet know, and then all together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from mmbench.arguments import Tunable
from mmbench.baselines.late_fusion import LateFusion
from mmbench.baselines.sum import Sum
from mmbench.batch import Batch
from mmbench.data.split import DataSpec
from mmbench.errors import UsageError
from mmbench.recipe import Recipe
from mmbench.task import mean_where


class ReconBoost(LateFusion):
    """ReconBoost (Hua et al., ICML 2024, arXiv 2405.09321).

    Authors' code: https://github.com/huacong/ReconBoost, commit 441eb51 (no licence). φ_m = W_m h_m + b_m is the learner of modality m,
    p_m = softmax φ_m, and the prediction is Φ = b Σ_m φ_m over what is there, b a learned number that begins at 1. Every learner is
    first trained alone (``pretraining``). Then they take turns, in the data set's order and round again. The turn of modality k:

        T epochs     loss = mean of −(w_1 − w_2 q_i) log p_k(y_i) + α mean of ‖p_k − sg p_{k−1}‖²,  by φ_k and its encoder alone,
                     q_i = softmax(b Σ_{j≠k} φ_j)(y_i) without gradient: what the others know counts less
        R epochs     global rectification: the cross-entropy of Φ, by all learners and b

    sg is without gradient; k − 1 is the modality whose turn it was before, of the first one the last. A modality's learner is always
    its newest: φ_j and φ_{k−1} are what they are at that step, and nothing of earlier turns is kept.

    The paper reconciles by a KL divergence, which makes a learner fit the residual of gradient boosting. Indeed w_1 times the
    cross-entropy less w_2 KL(q ‖ p_k) is −Σ_c (w_1 [c = y] − w_2 q_c) log p_k(c) and a constant, and for w_1 = w_2 = 1 its gradient is
    q − y, less the residual: ``reconcilement="kl"``. It has no lower bound, since it goes on to reward that classes in which the others
    wrongly believe become less likely. The release keeps the label's part of the sum, as above: a cross-entropy with positive weights.

    Turns are fitted to ``recipe.epochs``. Of what pretraining leaves, all turns get the same number of epochs, in the proportion T to
    R, so many that whole rounds come out, as near to T + R as can be. Where that is less than one round needs, one round is made of
    it, and turns may then change within an epoch. Parts are left out only where there are fewer steps than parts.

    What of the release does nothing: the agreement of p_k and p_{k−1} (``train.py``, line 349, and ``train_MSA.py``), since both are
    detached. Here p_{k−1} alone is; ``agreement_weight=0`` is the release. ``train_MSA.py``, for three modalities, ends in an error at
    its first turn, as ``schedule.py`` has no order for what it calls its data set, "MSA".

    Cost: one forward pass of every encoder a step, and one backward pass: of one encoder in a turn's T epochs, else of all.

    Departures:
        1. The paper's full text was not at hand: what is said of it is in its abstract, the rest is the release's. The agreement is
           taken for what the abstract calls memory consolidation.
        2. Pretraining is the release's ``--use_pretrain``, which its README gives for CREMA-D, AVE and ModelNet40: it loads learners
           that were trained beforehand. Here that is part of the run. Without it, the release sums up those that have had a turn.
        3. The release trains for up to 1,001 turns of 8 epochs and decays its rate every 30 turns (CREMA-D); here ``recipe.epochs``
           and the recipe's schedule hold, and one optimiser for all: what it remembers of a parameter stays until its next step, where
           the release begins every part with a new one. Who does not learn has no gradient, and does not move.
        4. Every learner has a linear head of its own. The release's is shared by all, of two layers (one in ``train_MSA.py``), and is
           trained in every turn, so that the other learners change with it.
        5. A turn's terms are sums over the classes. The release takes means, so that its loss is this one divided by their number.
        6. The release chooses its epoch after rectifications only, and on the test data. It has no agreement in its very first turn.
        7. Means are over the samples that have k, and in the agreement both; q is of what else a sample has, all classes alike if
           nothing. In rectification a sample that has nothing is answered by zero logits, whose cross-entropy counts.

    In both, the others' encoders run in training mode in k's turn: their dropout is active, and their batch statistics go on.

    Args:
        label_weight: w_1.
        reconcilement_weight: w_2.
        agreement_weight: α.
        reconcilement: "label" for the released term, "kl" for the sum over all classes.
        turn_epochs: T.
        rectification_epochs: R.
        pretraining: the share of the epochs in which every modality is trained alone.

    Raises:
        UsageError: w_2 is greater than w_1, so that what the others know would be unlearnt.
    """

    weighted_classes = True
    gradient_exempt = ("boost_rate",)  # it learns in rectification only

    def __init__(
        self,
        spec: DataSpec,
        encoders: Mapping[str, nn.Module],
        recipe: Recipe | None = None,
        *,
        label_weight: Annotated[float, Field(gt=0), Tunable(1.0, 25.0, log=True)] = 5.0,
        reconcilement_weight: Annotated[float, Field(ge=0)] = 1.0,
        agreement_weight: Annotated[float, Field(ge=0), Tunable(0.05, 5.0, log=True)] = 0.5,
        reconcilement: Literal["label", "kl"] = "label",
        turn_epochs: Annotated[int, Field(ge=1, le=1000)] = 4,
        rectification_epochs: Annotated[int, Field(ge=1, le=1000)] = 4,
        pretraining: Annotated[float, Field(gt=0, lt=1)] = 0.25,
    ) -> None:
        super(Sum, self).__init__(spec, encoders, recipe, pretraining=pretraining)  # Sum itself has one stage
        if reconcilement_weight > label_weight:
            raise UsageError(
                f"reconcilement_weight is {reconcilement_weight:g} and label_weight {label_weight:g}, so that a modality would unlearn "
                "the samples that the others know; give a reconcilement_weight of at most label_weight"
            )
        self.label_weight = label_weight
        self.reconcilement_weight = reconcilement_weight
        self.agreement_weight = agreement_weight
        self.reconcilement = reconcilement
        self.turn_epochs = turn_epochs
        self.rectification_epochs = rectification_epochs
        self.heads = nn.ModuleDict({m: self.linear(self.dims[m], spec.num_classes) for m in self.modalities})
        self.boost_rate = nn.Parameter(torch.ones(()))  # b

    def fuse(self, features: dict[str, Tensor], present: Tensor) -> Tensor:
        """Add the present modalities' logits, and multiply by b: (B, C)."""
        return self.boost_rate * Sum.fuse(self, features, present)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of the modality whose turn it is, or of all."""
        if self.is_pretraining:
            return super().training_step(batch, batch_idx)
        features, column = self.encode(batch), self.learning(batch_idx)
        if column is None:
            return self.cross_entropy(self.fuse(features, batch.present), batch.label)
        return self.turn_loss(features, batch, column)

    def learning(self, batch_idx: int) -> int | None:
        """Which modality learns in a step of the current epoch, as its column; None where all do."""
        turn = self.turn_epochs + self.rectification_epochs
        a_round = len(self.modalities) * turn
        epochs = self.recipe.epochs - self.pretraining_epochs
        planned = max(1, round(epochs / a_round)) * a_round  # whole rounds, for which the epochs that there are stand
        batches = int(self.trainer.num_training_batches)
        step = (self.current_epoch - self.pretraining_epochs) * batches + batch_idx
        turns, epoch = divmod(step * planned // (epochs * batches), turn)
        return turns % len(self.modalities) if epoch < self.turn_epochs else None

    def turn_loss(self, features: dict[str, Tensor], batch: Batch, column: int) -> Tensor:
        """The loss by which the modality of a column learns what the others do not know yet."""
        modality, here = self.modalities[column], batch.present[:, column]
        own = self.heads[modality](features[modality])  # φ_k, (B, C)
        with torch.no_grad():
            logits = self.modality_logits(features) * batch.present.unsqueeze(-1)  # (B, M, C)
            others = torch.stack([z for j, z in enumerate(logits.unbind(dim=1)) if j != column]).sum(dim=0)
            known = (self.boost_rate * others).softmax(dim=1)  # q
            previous = logits[:, column - 1].softmax(dim=1)
        losses = F.cross_entropy(own, batch.label, reduction="none")  # (B,)
        if self.reconcilement == "label":
            at_label = known.gather(1, batch.label.unsqueeze(1)).squeeze(1)
            losses = (self.label_weight - self.reconcilement_weight * at_label) * losses
        else:
            expected = (known * own.log_softmax(dim=1)).sum(dim=1)
            losses = self.label_weight * losses + self.reconcilement_weight * expected
        distance = (own.softmax(dim=1) - previous).square().sum(dim=1)
        agreement = mean_where(distance, here & batch.present[:, column - 1])
        return mean_where(self.weighted(losses, batch.label, here), here) + self.agreement_weight * agreement
