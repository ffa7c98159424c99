"""Small convolutional networks for sounds and clips, to be trained from scratch on a CPU."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from mmbench.encoders.rebuilt import Rebuildable
from mmbench.encoders.small_cnn import SmallCNN
from mmbench.errors import UsageError

MEAN, STD = -5.081, 4.4849  # of AudioSet's log-mel energies, as CAV-MAE has them

Count = Annotated[int, Field(ge=1)]


class SmallCNNAudio(Rebuildable, nn.Module):
    """Three convolutions over time, of kernel 5 and stride 2, with batch normalisation and ReLU, then the average over time.

    The bins of the filter bank are the channels of the first convolution: were it one of pictures, with an average over the bins too,
    a tone's pitch, which is its place among the bins, would be lost.

    Args:
        bins: of the filter bank.
        width: channels of the first two convolutions; the last has twice as many.
    """

    def __init__(self, bins: Count = 128, width: Count = 32) -> None:
        super().__init__()
        self.layers = nn.Sequential()
        for before, after in pairwise([bins, width, width, 2 * width]):
            self.layers.append(nn.Conv1d(before, after, kernel_size=5, stride=2, padding=2, bias=False))
            self.layers.append(nn.BatchNorm1d(after))
            self.layers.append(nn.ReLU(inplace=True))
        self.bins = bins
        self.out_dim = 2 * width

    def forward(self, banks: Tensor) -> Tensor:
        """Encode (B, T, F) float filter banks, log-mel energies that are not normalised, as (B, out_dim).

        Raises:
            UsageError: F is not ``bins``.
        """
        if banks.shape[-1] != self.bins:
            raise UsageError(f"expected filter banks (B, T, {self.bins}), got {tuple(banks.shape)}; set bins")
        x = (banks.to(next(self.parameters()).dtype) - MEAN) / STD  # (B, T, F)
        return self.layers(x.transpose(1, 2)).mean(dim=2)  # of (B, D, T / 8)


class SmallCNNVideo(Rebuildable, nn.Module):
    """The layers of ``small_cnn`` on every frame at half its size; a clip's feature is the mean over its frames.

    Halving, by the mean of 2 × 2 pixels, makes a step take a fourth of the time.

    Args:
        in_channels: of the frames.
        width: channels of the first convolution; the others have twice and four times as many.
    """

    def __init__(self, in_channels: Count = 3, width: Count = 16) -> None:
        super().__init__()
        network = SmallCNN(in_channels, width)
        self.layers, self.out_dim = network.layers, network.out_dim

    def forward(self, clips: Tensor) -> Tensor:
        """Encode (B, T, C, H, W) uint8 clips as (B, out_dim)."""
        frames = clips.flatten(0, 1).contiguous(memory_format=torch.channels_last)  # (B T, C, H, W)
        x = functional.avg_pool2d(frames.to(next(self.parameters()).dtype), 2, ceil_mode=True)
        x = self.layers(x / 127.5 - 1)  # (B T, D, H / 16, W / 16)
        return x.mean(dim=(2, 3)).unflatten(0, clips.shape[:2]).mean(dim=1)
