"""The transformer that M3AE and CAV-MAE have in common, and the fixed embeddings of places that both add to their patches."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmbench.encoders.pretrained import Pretrained, in_layers
from mmbench.errors import UsageError


def sincos(position: Tensor, width: int) -> Tensor:
    """Positions (N,) as sines, then cosines, of frequencies that fall from 1 to almost 1/10000 (Vaswani et al., 2017): (N, width)."""
    frequency = 10000 ** (-torch.arange(width // 2, dtype=torch.float64) / (width // 2))
    angle = position.double()[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=1).float()


def sincos_grid(rows: int, columns: int, width: int) -> Tensor:
    """Places in a grid, row by row, as the ``sincos`` of the column and then that of the row: (rows · columns, width)."""
    row, column = torch.arange(rows).repeat_interleave(columns), torch.arange(columns).repeat(rows)
    return torch.cat([sincos(column, width // 2), sincos(row, width // 2)], dim=1)


class Blocks(Pretrained):
    """Blocks of pre-norm attention, and a last norm; a subclass makes tokens of its input.

    Args:
        width: of a token, and of the feature.
        depth: number of blocks.
        heads: of the attention.
        eps: of the norms.
        gelu: ``tanh`` for its approximation.
        pretrained: what ``Pretrained`` takes.
    """

    def __init__(
        self, width: int, depth: int, heads: int, eps: float, gelu: Literal["none", "tanh"], **pretrained: Any
    ) -> None:
        super().__init__(**pretrained)
        from timm.models.vision_transformer import Block

        norm: Any = partial(nn.LayerNorm, eps=eps)
        activation: Any = partial(nn.GELU, approximate=gelu)
        self.out_dim = width
        self.blocks = nn.ModuleList(
            Block(width, heads, qkv_bias=True, norm_layer=norm, act_layer=activation) for _ in range(depth)
        )
        self.norm = norm(width)

    def initialise(self) -> None:
        """Xavier-uniform weights and no bias for the linear layers, as both papers' code does."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def encode(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Tokens (B, N, D) to tokens (B, N, D); mask (B, 1, 1, N) bool: True for tokens that are attended to."""
        again = self.gradient_checkpointing and torch.is_grad_enabled()
        for block in self.blocks:
            tokens = checkpoint(block, tokens, mask, use_reentrant=False) if again else block(tokens, mask)
        return self.norm(tokens)

    def layers(self) -> list[list[nn.Parameter]]:
        """What makes the tokens, each block, the last norm."""
        return in_layers(self, self.blocks, [self.norm])


def refuse_tiny(size: str, weights: str | None) -> None:
    """Refuse weights for the size that nobody published."""
    if size == "tiny" and weights:
        raise UsageError(
            f"weights '{weights}': there are none of size 'tiny', which is for trying things out; leave them out"
        )
