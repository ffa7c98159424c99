"""TATE: a transformer that is told by a tag which modalities it sees, taught by one that sees all."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from itertools import combinations
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from mmbench.arguments import Tunable
from mmbench.baselines.mmin import frozen_embeddings
from mmbench.batch import Batch
from mmbench.data.split import DataSpec
from mmbench.recipe import Recipe
from mmbench.task import MultimodalTask, mean_where

HEADS = 4


class Tate(MultimodalTask):
    """Tag-assisted transformer encoder (Zeng, Liu, Zhou, SIGIR 2022, arXiv 2204.13707).

    Authors' code: https://github.com/JaydenZeng/TATE (TensorFlow 1). With h_m the embedding of modality m, ``layer`` a transformer
    layer of 4 heads and a feed-forward part of 4 D, t the tag, one bit a modality:

        x_m = layer_m(P_m h_m), zero if m is absent;  c_mn = [W_mn x_m; W_mn x_n] for each pair of modalities
        E = encoder([c_mn; t] for all pairs),  e = mean of E,  z = V e + v;  D = decoder(E),  t̂ = σ(T mean(D))
        stage one: CE(z), with everything present visible. A copy of the network is kept as teacher (c*, e*) and never changes again
        stage two: CE(z) + λ [KL(e* ‖ e) + KL(c* ‖ D) + |t̂ − t|],  with some of what is present hidden, but not from the teacher

    Divergences are between softmaxes over the D numbers of a vector; tags and the decoder's term are means over bits and pairs.

    Cost: one forward and one backward pass of every encoder a step; in stage two also one forward pass of the teacher, encoders
    and all.

    Departures:
        1. Every modality is one vector here, a sequence of length one: attention within it is a linear layer, and attention proper
           runs over the pairs. All is 128 wide (300 in the paper); pairs without any of their modalities are not attended to.
        2. The release adds the tag's bits to the width; here a linear layer brings them back to it, as heads have to divide it.
        3. The tag really is the pattern. In the release a comparison of a tensor with −1 is never true, so that it is constant.
        4. Both stages are one run: the pretrained network goes on as the student; the release has a model trained beforehand.
        5. The release compares the decoder's output with the encoder's own tagged input, and the encoder's with the teacher's position
           by position, each by the KL divergence in both directions. Here both targets are the teacher's (its pairs, those that the
           sample has; its pooled e), one direction.
        6. What a sample shows is drawn uniformly among the non-empty subsets of what it has, and its teacher sees what it has and no
           more. The release takes one modality or two from a share of the samples, once; its teacher reads the same incomplete ones.
        7. Dropout is off at test, where the release leaves it on. Its L2 penalty of 1e-4, on the last layer, is
           the recipe's weight decay here, on all.
        8. A sample that has nothing takes no part in training; at test it attends to all pairs, which are constant then.
        9. Tokens are pairs; the release's are modalities, [W_mn x_m; W_mk x_m]. E and D are averaged, over pairs that are not attended
           to as well, where it has a learned attention; the tag is predicted from D, where it reads the encoder's output. Its tag has
           four numbers, "complete" and one for each missing modality. With M = 2 there is one pair, and attention has nothing to
           choose from.
        10. The release sums cross-entropy and divergences over the batch; here every term is a mean over the samples.

    Args:
        width: D.
        dropout: of all transformer layers.
        auxiliary_weight: λ.
        pretraining: share of the epochs that go to stage one.
    """

    weighted_classes = True

    def __init__(
        self,
        spec: DataSpec,
        encoders: Mapping[str, nn.Module],
        recipe: Recipe | None = None,
        *,
        width: Annotated[int, Field(ge=8, multiple_of=8)] = 128,
        dropout: Annotated[float, Field(ge=0, lt=1), Tunable(0.0, 0.5)] = 0.2,
        auxiliary_weight: Annotated[float, Field(ge=0), Tunable(0.01, 1.0, log=True)] = 0.1,
        pretraining: Annotated[float, Field(gt=0, lt=1)] = 0.3,
    ) -> None:
        super().__init__(spec, encoders, recipe, pretraining=pretraining)
        self.auxiliary_weight = auxiliary_weight
        self.network = Network(self.dims, spec.num_classes, width, dropout)
        self.teacher_encoders = deepcopy(self.encoders).requires_grad_(False)
        self.teacher_network = deepcopy(self.network).requires_grad_(False)

    def fuse(self, features: dict[str, Tensor], present: Tensor) -> Tensor:
        """Classify the encoder's output: (B, C)."""
        return self.network.classifier(self.network(self.zero_absent(features, present), present)[1])

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Cross-entropy; in stage two also nearness to the teacher, and recovery of what is hidden and of the tag."""
        visible = batch.present if self.is_pretraining else self.draw_visible(batch.present)
        features = self.zero_absent(self.encode(batch), visible)
        _, embedding, decoded, tag = self.network(features, visible)
        rows = batch.present.any(dim=1)
        loss = F.cross_entropy(self.network.classifier(embedding), batch.label, reduction="none")  # (B,)
        loss = self.weighted(loss, batch.label, rows)
        if not self.is_pretraining:
            target_pairs, target = self.teach(batch)
            here = batch.present[:, self.network.pairs].any(dim=2)  # (B, pairs)
            backward = (divergence(target_pairs, decoded) * here).sum(dim=1) / here.sum(dim=1).clamp(min=1)
            auxiliary = divergence(target, embedding) + backward + (tag - visible.float()).abs().mean(dim=1)
            loss = loss + self.auxiliary_weight * auxiliary
        return mean_where(loss, rows)

    @torch.no_grad()
    def teach(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The teacher's pair vectors (B, pairs, D) and embedding (B, D) of everything that is present."""
        features = frozen_embeddings(self, self.teacher_encoders, batch, batch.present)
        return self.teacher_network.eval()(features, batch.present)[:2]

    def on_train_epoch_start(self) -> None:
        """Keep the pretrained network as teacher when stage one is over."""
        if self.current_epoch == self.pretraining_epochs:
            self.teacher_encoders.load_state_dict(self.encoders.state_dict())
            self.teacher_network.load_state_dict(self.network.state_dict())


class Network(nn.Module):
    """All of TATE behind the encoders, whose widths are ``dims``."""

    pairs: Tensor

    def __init__(self, dims: Mapping[str, int], num_classes: int, width: int, dropout: float) -> None:
        super().__init__()

        def layer() -> nn.Module:
            return nn.TransformerEncoderLayer(width, HEADS, 4 * width, dropout, batch_first=True)

        self.register_buffer("pairs", torch.tensor(list(combinations(range(len(dims)), 2))), persistent=False)
        self.project = nn.ModuleDict({m: nn.Linear(d, width) for m, d in dims.items()})
        self.unimodal = nn.ModuleDict({m: layer() for m in dims})
        self.common = nn.ModuleList([nn.Linear(width, width // 2) for _ in self.pairs])  # W_mn
        self.tagged = nn.Linear(width + len(dims), width)
        self.encoder, self.decoder = layer(), layer()
        self.tag = nn.Linear(width, len(dims))
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, features: dict[str, Tensor], present: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Encode and decode features (B, D_m) of which some are present, (B, M) bool.

        Returns:
            Pair vectors c (B, pairs, D), embedding e (B, D), decoder output (B, pairs, D) and predicted tag (B, M).
        """
        single = torch.cat([self.unimodal[m](self.project[m](f).unsqueeze(1)) for m, f in features.items()], dim=1)
        single = single.masked_fill(~present.unsqueeze(-1), 0.0)  # (B, M, D)
        common = [project(single[:, pair]).flatten(1) for project, pair in zip(self.common, self.pairs, strict=True)]
        joint = torch.stack(common, dim=1)  # (B, pairs, D)
        tag = present.to(joint.dtype).unsqueeze(1).expand(-1, len(self.pairs), -1)
        ignored = ~present[:, self.pairs].any(dim=2) & present.any(dim=1, keepdim=True)  # (B, pairs)
        encoded = self.encoder(self.tagged(torch.cat([joint, tag], dim=2)), src_key_padding_mask=ignored)
        decoded = self.decoder(encoded, src_key_padding_mask=ignored)
        return joint, encoded.mean(dim=1), decoded, self.tag(decoded.mean(dim=1)).sigmoid()


def divergence(target: Tensor, predicted: Tensor) -> Tensor:
    """KL divergence (…) of the softmax of predicted (…, D) from that of target."""
    log_target, log_predicted = target.log_softmax(dim=-1), predicted.log_softmax(dim=-1)
    return (log_target.exp() * (log_target - log_predicted)).sum(dim=-1)
