"""MyEncoder: two layers on a feature vector, and a way around them."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn


class MyEncoder(nn.Module):
    """Vectors x, normalised to x̂, as y = W x̂ + V gelu(U x̂). Here goes the paper, if there is one.

    What comes in is the modality's raw input: a vector of numbers here; a picture comes as (B, 3, H, W) uint8, and is made numbers of
    here. One that reads texts has ``tokenize(texts) -> {name: (B, …)}`` besides, and ``forward`` gets what it returns.

    Args:
        in_dim: width of x.
        width: of y, and of the layer between.
    """

    def __init__(self, in_dim: Annotated[int, Field(ge=1)] = 128, width: Annotated[int, Field(ge=1)] = 64) -> None:
        super().__init__()
        self.out_dim = width  # what methods ask for
        self.norm = nn.LayerNorm(in_dim)
        self.around = nn.Linear(in_dim, width)
        self.hidden = nn.Linear(in_dim, width)
        self.back = nn.Linear(width, width, bias=False)

    def forward(self, vectors: Tensor) -> Tensor:
        """Encode (B, in_dim) float vectors as (B, width)."""
        x = self.norm(vectors)
        return self.around(x) + self.back(torch.nn.functional.gelu(self.hidden(x)))
