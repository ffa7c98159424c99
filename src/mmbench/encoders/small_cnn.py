"""A small convolutional network for small pictures."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from mmbench.encoders.rebuilt import Rebuildable


class SmallCNN(Rebuildable, nn.Module):
    """Three 3×3 convolutions of stride 2 with batch normalisation and ReLU, then a global average.

    Strides instead of max-pooling take a third of the time on a CPU and cost about a point on the embedded set: alone, trained by SGD
    at 0.1 for 25 epochs, 38.6 instead of 39.5 % on the clean validation split (three seeds), 43.8 instead of 45.0 % on legacy (two).

    Args:
        in_channels: of the picture.
        width: channels of the first convolution; the others have twice and four times as many.
    """

    def __init__(self, in_channels: int = 3, width: int = 16) -> None:
        super().__init__()
        self.layers = nn.Sequential()
        for before, after in pairwise([in_channels, width, 2 * width, 4 * width]):
            self.layers.append(nn.Conv2d(before, after, kernel_size=3, stride=2, padding=1, bias=False))
            self.layers.append(nn.BatchNorm2d(after))
            self.layers.append(nn.ReLU(inplace=True))
        self.layers.to(memory_format=torch.channels_last)  # faster on CPUs
        self.out_dim = 4 * width

    def forward(self, images: Tensor) -> Tensor:
        """Encode (B, C, H, W) uint8 pictures as (B, out_dim)."""
        x = images.to(next(self.parameters()).dtype) / 127.5 - 1  # (B, C, H, W) in [-1, 1]
        x = self.layers(x.contiguous(memory_format=torch.channels_last))  # (B, D, H / 8, W / 8)
        return x.mean(dim=(2, 3))
