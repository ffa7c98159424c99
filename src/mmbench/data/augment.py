"""Augmentation of whole batches on their device; randomness comes from torch's global generator."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mmbench.batch import Input


@dataclass(frozen=True)
class RandomCropFlip:
    """Shift each picture by up to ``padding`` pixels, and mirror half of them.

    Args:
        padding: border, in pixels, filled with ``fill`` before a window of the old size is cut out.
        fill: value of the border (255: white paper).
        flip: the probability of mirroring left and right.
    """

    padding: int
    fill: int = 255
    flip: float = 0.5

    def __call__(self, images: Input) -> Tensor:
        """Augment (B, C, H, W) uint8 pictures."""
        assert isinstance(images, Tensor)
        size, _, height, width = images.shape
        device = images.device
        padded = F.pad(images, [self.padding] * 4, value=self.fill)
        span = 2 * self.padding + 1
        rows = torch.randint(span, (size, 1), device=device) + torch.arange(height, device=device)  # (B, H)
        columns = torch.randint(span, (size, 1), device=device) + torch.arange(width, device=device)  # (B, W)
        mirrored = torch.rand(size, 1, device=device) < self.flip
        columns = torch.where(mirrored, columns.flip(1), columns)
        sample = torch.arange(size, device=device)
        cropped = padded[sample[:, None, None], :, rows[:, :, None], columns[:, None, :]]  # (B, H, W, C)
        return cropped.permute(0, 3, 1, 2)


@dataclass(frozen=True)
class WordDropout:
    """Hide each word of a text, with all tokens that were made of it, with probability ``p``.

    A text that would lose every word keeps all of them.
    """

    p: float

    def __call__(self, text: Input) -> dict[str, Tensor]:
        """Drop words of ``{"token": (B, L), "word": (B, L)}``: tokens of dropped words become 0, the padding."""
        assert isinstance(text, dict)
        token, word = text["token"], text["word"]
        kept = torch.rand(token.shape, device=token.device) >= self.p  # (B, L): column w decides on word w
        keep = kept.gather(1, word.long()) & (token != 0)
        keep |= ~keep.any(dim=1, keepdim=True)
        return {"token": token * keep, "word": word}
