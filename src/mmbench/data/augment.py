"""Augmentation of whole batches on their device; randomness comes from torch's global generator."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mmbench.batch import Input
from mmbench.errors import UsageError
from mmbench.presence import sent

CPU = torch.device("cpu")
CHUNK = 8
"""Samples that are resampled at once: in between, pictures are floats, many times as large as what goes in and comes out."""


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
class RandomResizedCrop:
    """Cut a random box out of each picture, squash it to a square, and mirror some of them.

    Boxes are drawn as torchvision's RandomResizedCrop draws them: an area and the logarithm of a ratio, both uniform, up to ten times
    until the box fits into the picture; else the largest centred box whose ratio is allowed. (Szegedy et al., 2015, section 6.)

    Args:
        size: height and width of the result.
        scale: least and greatest area of a box, as a share of the picture's.
        ratio: least and greatest width over height of a box.
        flip: the probability of mirroring left and right.
    """

    size: int
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5

    def __call__(self, images: Input) -> Tensor:
        """Augment uint8 pictures (B, C, H, W), or clips (B, T, C, H, W) whose T frames share one box: (B, …, size, size) uint8."""
        assert isinstance(images, Tensor)
        count, height, width = len(images), *images.shape[-2:]
        boxes = self.boxes(count, height, width, images.device)
        mirrored = torch.rand(count, device=images.device) < self.flip
        return resized_crop(images, boxes, mirrored, self.size)

    def boxes(self, count: int, height: int, width: int, device: torch.device = CPU) -> Tensor:
        """Draw boxes in pictures of this size: (count, 4), whole numbers as floats: top, left, height and width."""
        tries = (count, 10)
        area = height * width * torch.empty(tries, device=device).uniform_(*self.scale)
        ratio = torch.empty(tries, device=device).uniform_(*map(math.log, self.ratio)).exp()
        heights, widths = (area / ratio).sqrt().round(), (area * ratio).sqrt().round()  # (B, 10)
        fits = (heights >= 1) & (heights <= height) & (widths >= 1) & (widths <= width)
        first = fits.int().argmax(dim=1, keepdim=True)
        drawn = torch.cat([heights.gather(1, first), widths.gather(1, first)], dim=1)  # (B, 2)
        room = sent(torch.tensor([height, width]), device) - drawn
        corner = (torch.rand(count, 2, device=device) * (room + 1)).floor()
        centred = sent(torch.tensor(self.centred(height, width), dtype=area.dtype), device)
        return torch.where(fits.any(dim=1, keepdim=True), torch.cat([corner, drawn], dim=1), centred)

    def centred(self, height: int, width: int) -> tuple[int, int, int, int]:
        """The box taken when none of the ten fits."""
        least, greatest = self.ratio
        h = min(height, round(width / least))
        w = min(width, round(height * greatest))
        return (height - h) // 2, (width - w) // 2, h, w


@dataclass(frozen=True)
class Resize:
    """Squash pictures to a square, whatever their shape; for evaluation.

    Args:
        size: height and width of the result.
    """

    size: int

    def __call__(self, images: Input) -> Tensor:
        """Resize uint8 pictures (B, C, H, W) or clips (B, T, C, H, W): (B, …, size, size) uint8, the same tensor if so already."""
        assert isinstance(images, Tensor)
        count, height, width = len(images), *images.shape[-2:]
        if height == width == self.size:
            return images
        boxes = sent(torch.tensor([0.0, 0.0, height, width]), images.device).expand(count, 4)
        return resized_crop(images, boxes, torch.zeros(count, dtype=torch.bool, device=images.device), self.size)


def resized_crop(images: Tensor, boxes: Tensor, mirrored: Tensor, size: int) -> Tensor:
    """Cut one box out of each picture and resize it to a square, by antialiased bilinear interpolation.

    What torchvision's ``resized_crop(…, antialias=True)`` does picture by picture. On the CPU so it is done here, in integers;
    elsewhere it is two batched matrix products. Results differ by one grey level at most: integers are rounded in between.

    Args:
        images: (B, …, H, W) uint8.
        boxes: (B, 4) whole numbers as floats: top, left, height, width; inside the picture.
        mirrored: (B,) bool: turn left and right.
        size: height and width of the result.

    Returns:
        (B, …, size, size) uint8.
    """
    assert images.dtype == torch.uint8, f"expected uint8 pictures, got {images.dtype}"
    if images.device.type == "cpu":
        result = images.new_empty(*images.shape[:-3], size, size, images.shape[-3]).movedim(-1, -3)  # as maps hold them
        for i, (box, turned) in enumerate(zip(boxes.int().tolist(), mirrored.tolist(), strict=True)):
            result[i] = cut(images[i], box, turned, size)
        return result
    return resample(images, boxes, mirrored, size)


def cut(image: Tensor, box: Sequence[int], mirrored: bool, size: int) -> Tensor:
    """``resized_crop`` of one sample (…, C, H, W)."""
    top, left, height, width = box
    window = image[..., top : top + height, left : left + width]
    frames = window.reshape(-1, *window.shape[-3:])
    dense = (
        frames.flip(-1) if mirrored else frames.contiguous(memory_format=torch.channels_last)
    )  # else it takes longer
    small = F.interpolate(dense, (size, size), mode="bilinear", antialias=True)
    return small.reshape(*image.shape[:-2], size, size)


def resample(images: Tensor, boxes: Tensor, mirrored: Tensor, size: int) -> Tensor:
    """``resized_crop`` as matrix products, rows @ picture @ columnsᵀ, a few samples at a time."""
    parts = zip(images.split(CHUNK), boxes.split(CHUNK), mirrored.split(CHUNK), strict=True)
    return torch.cat([resample_few(*part, size) for part in parts])


def resample_few(images: Tensor, boxes: Tensor, mirrored: Tensor, size: int) -> Tensor:
    """``resample`` in one go."""
    top, left, heights, widths = boxes.float().unbind(dim=1)
    count, height, width = len(images), *images.shape[-2:]
    rows = triangles(top, heights, size, height)  # (B, size, H)
    columns = triangles(left, widths, size, width)  # (B, size, W)
    columns = torch.where(mirrored[:, None, None], columns.flip(1), columns)
    pixels = images.reshape(count, -1, width).float()  # (B, …·H, W)
    across = columns @ pixels.mT  # (B, size, …·H)
    both = across.view(count, -1, height) @ rows.mT  # (B, size·…, size): columns of the result, channels, rows
    levels = both.round_().clamp_(0, 255).to(torch.uint8)
    return levels.view(count, size, -1, size).permute(0, 2, 3, 1).reshape(*images.shape[:-2], size, size)


def triangles(start: Tensor, length: Tensor, size: int, pixels: int) -> Tensor:
    """Weights that resample ``length`` pixels from ``start`` on to ``size``: a triangle about each new pixel's place.

    A triangle reaches as far as the next new pixel when shrinking, and as the next old one when enlarging.

    Args:
        start: (B,) the first pixel.
        length: (B,) pixels, at least 1.
        size: new pixels.
        pixels: pixels of the whole row.

    Returns:
        (B, size, pixels), 0 outside the box; each row sums to 1.
    """
    step = (length / size)[:, None]  # (B, 1)
    place = torch.arange(pixels, device=start.device) + 0.5 - start[:, None]  # (B, pixels): from the box's edge
    centre = step * (torch.arange(size, device=start.device) + 0.5)  # (B, size)
    distance = (place[:, None, :] - centre[:, :, None]).abs() / step.clamp(min=1)[:, :, None]  # (B, size, pixels)
    inside = (place > 0) & (place < length[:, None])
    weight = (1 - distance).clamp(min=0) * inside[:, None, :]
    return weight / weight.sum(dim=2, keepdim=True)


@dataclass(frozen=True)
class SpecAugment:
    """Hide one span of frames and one band of frequencies in each spectrogram (Park et al., 2019, without time warping).

    As in the released code of AST and CAV-MAE, which call torchaudio: a span's length is uniform below its limit and rounded down, its
    place is uniform (the last frame and the last bin are never reached), frames of padding count like others, and what is hidden
    becomes 0. Both do so **before** they normalise, so that 0 stands for a sound and not for silence; apply it to filter banks that
    are not normalised.

    Args:
        time: a span's length is less than this many frames; CAV-MAE's fine-tuning on VGGSound takes 192 of 1024.
        frequency: a band's width is less than this many bins; CAV-MAE's takes 48 of 128.
    """

    time: int
    frequency: int

    def __call__(self, spectrograms: Input) -> Tensor:
        """Augment (B, T, F) floats. Raises UsageError if there are fewer frames than ``time`` or bins than ``frequency``."""
        assert isinstance(spectrograms, Tensor)
        count, frames, bins = spectrograms.shape
        if self.time > frames or self.frequency > bins:
            raise UsageError(
                f"SpecAugment(time={self.time}, frequency={self.frequency}): the spectrograms have {frames} frames and {bins} bins; "
                "lower the limits"
            )
        hidden = spans(count, self.time, frames, spectrograms.device)[:, :, None]  # (B, T, 1)
        hidden = hidden | spans(count, self.frequency, bins, spectrograms.device)[:, None, :]  # (B, T, F)
        return spectrograms.masked_fill(hidden, 0)


def spans(count: int, limit: int, length: int, device: torch.device) -> Tensor:
    """(count, length) bool: one span of True in each row, shorter than ``limit`` and possibly empty."""
    extent = limit * torch.rand(count, 1, device=device)
    start = ((length - extent) * torch.rand(count, 1, device=device)).floor()
    place = torch.arange(length, device=device)
    return (place >= start) & (place < start + extent.floor())


@dataclass(frozen=True)
class WordDropout:
    """Hide each word of a text, with all tokens that were made of it, with probability ``p``.

    A text that would lose every word keeps all of them. Texts whose tokenizer does not tell words (those of pretrained encoders) are
    left as they are.
    """

    p: float

    def __call__(self, text: Input) -> dict[str, Tensor]:
        """Drop words of ``{"token": (B, L), "word": (B, L)}``: tokens of dropped words become 0, the padding."""
        assert isinstance(text, dict)
        if "word" not in text:
            return text
        token, word = text["token"], text["word"]
        kept = torch.rand(token.shape, device=token.device) >= self.p  # (B, L): column w decides on word w
        keep = kept.gather(1, word.long()) & (token != 0)
        keep |= ~keep.any(dim=1, keepdim=True)
        return {"token": token * keep, "word": word}
