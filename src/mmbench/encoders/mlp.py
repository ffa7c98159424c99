"""Fully connected layers on a feature vector: the encoder of the missing-modality tables."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from mmbench.encoders.rebuilt import Rebuildable


class Mlp(Rebuildable, nn.Sequential):
    """Fully connected layers, each followed by ReLU, and dropout at the end.

    The MLA paper (arXiv 2311.10707, appendix A.3.2) encodes every pre-extracted feature vector by three layers of 128.

    Args:
        in_dim: width of the feature vector.
        width: of every layer.
        layers: how many.
        dropout: applied to the last layer's output.
    """

    def __init__(
        self,
        in_dim: Annotated[int, Field(ge=1)] = 128,
        width: Annotated[int, Field(ge=1)] = 128,
        layers: Annotated[int, Field(ge=1, le=1000)] = 3,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    ) -> None:
        super().__init__()
        for layer in range(layers):
            self.append(nn.Linear(width if layer else in_dim, width))
            self.append(nn.ReLU())
        self.append(nn.Dropout(dropout))
        self.out_dim = width

    def forward(self, vectors: Tensor) -> Tensor:
        """Encode (B, in_dim) float vectors as (B, width)."""
        return super().forward(vectors)
