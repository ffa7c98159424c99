"""Masked Transformer: a token a modality, and attention that leaves out those that are absent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from mmbench.arguments import Tunable
from mmbench.batch import Batch
from mmbench.data.split import DataSpec
from mmbench.recipe import Recipe
from mmbench.task import MultimodalTask, mean_where

HEADS = 4


class MaskedTransformer(MultimodalTask):
    """SimBaMM, the simple baseline of "Fusion or confusion?" (Rheude et al., 2025, arXiv 2512.22991), on one vector a modality.

    Authors' code: https://github.com/TillmannRheude/simple_mml_baseline (``codefiles/transformer.py`` at 03edfc1). h_m is the
    feature of modality m, s a learned start token, and ``layer_l`` a Transformer layer in which no token attends to absent modalities:

        z_m = P_m h_m + p_m
        X^0 = [s, z_1, …, z_M],  X^l = layer_l(X^{l−1}) for l = 1 … L
        logits = W x^L_s + w,  x^L_s the start token's row of X^L;  loss = CE(logits)

    With ``drop_visible`` each training sample shows one of the non-empty subsets of what it has, drawn uniformly: modality
    dropout, the control for methods that hide modalities in training.

    Departures:
        1. p_m is the bias of P_m, and learned. The release adds a fixed sinusoid of the token's position, which the bias of the
           encoder's last layer can make up for or cancel: with one token a modality both tell modalities apart, and no more.
        2. L is 2. The release's first setting (fbcbe70) has 8 layers; its width of 128, its feed-forward part of 4 widths, its four
           heads and its dropout of 0.2 are kept. A later one (278f094) has 4 layers of 512, 256 in the feed-forward part, and 8 heads.
        3. The release makes its layers as copies of one, so that all start from the same weights; here each has its own.
        4. Absent modalities are not encoded, nor are those that ``drop_visible`` hides. The release encodes zeros in their place.
        5. Of the last layer the start token's row alone is computed, since nothing reads the others. Keys have no bias, which would
           add the same to all scores of a query.
        6. A sample that has nothing takes no part in training; its start token attends to itself.
        7. Optimiser and schedule are the recipe's; the release has schedule-free AdamW with a warm-up, at 1e-4 first, 1e-3 later.
           Linear layers start as PyTorch has them; in the release W does so from He's normal distribution.

    Cost: one forward and one backward pass of the encoders, of what is visible.

    Args:
        width: of tokens.
        layers: L.
        dropout: of attention weights, of what layers add to a token, and within their feed-forward part.
        drop_visible: whether to hide modalities in training.
    """

    weighted_classes = True

    def __init__(
        self,
        spec: DataSpec,
        encoders: Mapping[str, nn.Module],
        recipe: Recipe | None = None,
        *,
        width: Annotated[int, Field(ge=8, multiple_of=8)] = 128,
        layers: Annotated[int, Field(ge=1), Tunable(1, 4)] = 2,
        dropout: Annotated[float, Field(ge=0, lt=1), Tunable(0.0, 0.5)] = 0.2,
        drop_visible: bool = False,
    ) -> None:
        super().__init__(spec, encoders, recipe)
        self.drop_visible = drop_visible
        self.project = nn.ModuleDict({m: nn.Linear(d, width) for m, d in self.dims.items()})  # P_m, p_m
        self.start = nn.Parameter(0.02 * torch.randn(width))  # s
        self.layers = nn.ModuleList([TransformerLayer(width, dropout) for _ in range(layers)])
        self.classifier = nn.Linear(width, spec.num_classes)

    def sequence(self, features: dict[str, Tensor], present: Tensor) -> tuple[Tensor, Tensor]:
        """The tokens X^0 (B, T, D), of which the start token is the first, and which of them are attended to, (B, T) bool."""
        embedded = [self.project[m](f) for m, f in self.zero_absent(features, present).items()]
        tokens = torch.stack([self.start.expand(len(present), -1), *embedded], dim=1)  # (B, 1 + M, D)
        return tokens, torch.cat([torch.ones_like(present[:, :1]), present], dim=1)

    def fuse(self, features: dict[str, Tensor], present: Tensor) -> Tensor:
        """Classify what the layers make of the start token: (B, C)."""
        tokens, attended = self.sequence(features, present)
        *inner, last = self.layers
        for layer in inner:
            tokens = layer(tokens, tokens, attended)
        return self.classifier(last(tokens[:, :1], tokens, attended).squeeze(1))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Cross-entropy from what is visible."""
        visible = self.draw_visible(batch.present) if self.drop_visible else batch.present
        logits = self.fuse(self.embed(self.encoders, batch, visible), visible)
        rows = visible.any(dim=1)
        losses = F.cross_entropy(logits, batch.label, reduction="none")  # (B,)
        return mean_where(self.weighted(losses, batch.label, rows), rows)


class TransformerLayer(nn.Module):
    """A layer of the Transformer's encoder (Vaswani et al., 2017, arXiv 1706.03762), normalised after each of its two parts.

        y = norm(x + O [a_1; …; a_H]),  a_h = Σ_t softmax_t(q_h · k_ht / √d) v_ht,  x' = norm(y + W_2 max(0, W_1 y + w_1) + w_2)

    q, k and v are linear in x and in the tokens that it attends to, d numbers in each of H heads. It computes what torch's own does;
    but that one chooses between implementations that differ in their last digits, and knows no tokens that are not read.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.query, self.value, self.out = (nn.Linear(width, width) for _ in range(3))
        self.key = nn.Linear(width, width, bias=False)
        self.attention_norm, self.norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, 4 * width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(4 * width, width)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, read: Tensor, tokens: Tensor, attended: Tensor) -> Tensor:
        """What the layer makes of the tokens that are read on.

        Args:
            read: (B, R, D).
            tokens: (B, T, D), all of them.
            attended: (B, T) bool, those that may be attended to; at least one a sample.

        Returns:
            (B, R, D).
        """
        query, key, value = (
            part.unflatten(2, (HEADS, -1)).transpose(1, 2)  # (B, H, R or T, d)
            for part in (self.query(read), self.key(tokens), self.value(tokens))
        )
        scores = query @ key.transpose(2, 3) / query.shape[-1] ** 0.5  # (B, H, R, T)
        weights = scores.masked_fill(~attended[:, None, None], -torch.inf).softmax(dim=3)
        heads = (self.dropout(weights) @ value).transpose(1, 2).flatten(2)  # (B, R, D)
        read = self.attention_norm(read + self.dropout(self.out(heads)))
        return self.norm(read + self.dropout(self.feed_forward(read)))
