"""CRA: a cascade of residual autoencoders fills in the views that are not there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from mmbench.arguments import Tunable
from mmbench.baselines.ae import Ae, fully_connected
from mmbench.data.split import DataSpec
from mmbench.recipe import Recipe


class Cra(Ae):
    """Missing modalities imputation via cascaded residual autoencoder (Tran et al., CVPR 2017).

    The authors released no code; as in GCNet's release (https://github.com/zeroQiaoba/GCNet,
    ``baseline-mmin/models/mmin_CRA_model.py``), this is ``ae`` with another autoencoder A, of K blocks with widths
    D, 256, 128, 64, 128, 256, D, each of which corrects what the ones before it left:

        Δ_k = A_k(x + Σ_{j<k} Δ_j),   r = T(x + Σ_k Δ_k),   x = [h_1; …; h_M], zero where a modality is not visible.

    Cost: that of ``ae``, with K autoencoders in the place of one.

    Departures:
        1. Those of ``ae`` but for He initialisation: all weights start from PyTorch's default, where the release draws them from a
           normal distribution of standard deviation 0.02. The README's w is 0.8 here, in the same sum over the batch.
        2. The paper trains block after block and then all together, without labels, on data with known values; the release trains all
           at once together with the classifier, and so does this.
        3. T, two linear layers with ReLU in between, is the release's, not the paper's.

    Args:
        weight: w.
        blocks: K.
        dropout: after every hidden layer of classifier and decoders; the autoencoders have none.
    """

    def __init__(
        self,
        spec: DataSpec,
        encoders: Mapping[str, nn.Module],
        recipe: Recipe | None = None,
        *,
        weight: Annotated[float, Field(ge=0), Tunable(0.05, 5.0, log=True)] = 0.8,
        blocks: Annotated[int, Field(ge=1, le=1000)] = 2,
        dropout: Annotated[float, Field(ge=0, lt=1), Tunable(0.0, 0.7)] = 0.5,
    ) -> None:
        super().__init__(spec, encoders, recipe, weight=weight, dropout=dropout)
        self.autoencoder = ResidualAutoencoder(sum(self.dims.values()), blocks=blocks)

    def reconstruct(self, features: dict[str, Tensor], visible: Tensor) -> Tensor:
        """The joint representation r (B, D) of the visible views, (B, M) bool."""
        return super().reconstruct(features, visible)[0]


class ResidualAutoencoder(nn.Module):
    """A cascade of residual autoencoders on vectors of one width.

    Args:
        width: D.
        hidden: the widths of a block's encoder; its decoder mirrors them.
        blocks: K.
    """

    def __init__(self, width: int, hidden: Sequence[int] = (256, 128, 64), blocks: int = 5) -> None:
        super().__init__()
        self.latent_dim = blocks * hidden[-1]
        down = (width, *hidden)
        self.encoders = nn.ModuleList(fully_connected(*down, activation=nn.LeakyReLU) for _ in range(blocks))
        self.decoders = nn.ModuleList(fully_connected(*down[::-1]) for _ in range(blocks))
        self.transition = fully_connected(width, width, width)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Correct x (B, D) block by block.

        Returns:
            The reconstruction (B, D) and the blocks' latents, concatenated: (B, latent_dim).
        """
        latents = []
        for encoder, decoder in zip(self.encoders, self.decoders, strict=True):
            latents.append(encoder(x))
            x = x + decoder(latents[-1])
        return self.transition(x), torch.cat(latents, dim=1)


class GuidedAutoencoder(ResidualAutoencoder):
    """A cascade of the same layers in which a block sees the output of the one before it, and a guide."""

    def forward(self, x: Tensor, guide: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Pass x (B, D) from block to block, the guide (B, D) added to the input of each.

        Returns:
            The reconstruction (B, D) and the blocks' latents, concatenated: (B, latent_dim).
        """
        latents = []
        for encoder, decoder in zip(self.encoders, self.decoders, strict=True):
            latents.append(encoder(x + guide))
            x = decoder(latents[-1])
        return self.transition(x), torch.cat(latents, dim=1)
