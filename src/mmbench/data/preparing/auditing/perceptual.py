"""Pictures that look alike although their files differ: copies that were scaled, stored anew, or made a little brighter.

A hash of 63 bits finds the pairs that may be alike, small copies of the pictures decide. The limits were chosen by measurement on the
1,632 pictures of Open Clip Art (32 × 32; one is blank) and the 703 of Tux Paint (128 × 128). Of copies (JPEG of quality 75 and 40;
scaled to 20, 24 and 64 pixels and back; 32 colours; 15 % darker; 10 % brighter; 15 % less contrast) 98.7 % and 99.8 % are found, the
fewest of small pictures in JPEG of quality 40 (94 %) and where brightening cuts off (95 %). Of the pairs of different pictures, 31 of
1,330,896 and 10 of 246,753 are called alike: flags, signs and stamps that differ in a detail. The hash alone would call 2,446 and 124
of them alike.

What is not found: pictures that are mirrored, turned or cropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

BITS = 5  # hashes that differ in more bits are not compared any further
ALIKE = 0.97  # the least correlation of two small copies
SHADE = 40  # of 256 levels: how far apart the mean colours may be
CONTRAST = 4  # levels; the standard deviation of a small copy below which nothing can be said
MOST = 10  # small copies that are compared for each picture and sixth, on average
NOISE = 8  # levels
SIDE = 16  # of the small copies, in pixels
WINDOW = 256  # hashes that one is compared with among those that share one sixth of their bits with it
DEADBAND = 0.2  # a frequency is noted where it is above this share of the root mean square: noise around zero is not


@dataclass(frozen=True)
class Looks:
    """What n pictures look like.

    Attributes:
        codes: (n,) uint64, the perceptual hashes.
        small: (n, 3, 256) uint8, the small copies.
        contrast: (n,) levels, the standard deviation within each small copy, over its colours.
    """

    codes: np.ndarray
    small: np.ndarray
    contrast: np.ndarray

    @classmethod
    def of(cls, pictures: Tensor) -> Looks:
        """The looks of pictures (n, 1 or 3, H, W) uint8."""
        pictures = pictures.expand(-1, 3, -1, -1)
        medium = F.interpolate(pictures, (32, 32), mode="bilinear", antialias=True)
        small = F.interpolate(medium, (SIDE, SIDE), mode="bilinear", antialias=True)
        contrast = small.flatten(2).float().var(dim=2, correction=0).mean(dim=1).sqrt()
        return cls(hashed(medium.numpy()), small.flatten(2).numpy(), contrast.numpy())

    @classmethod
    def joined(cls, parts: Sequence[Looks]) -> Looks:
        """The looks of several blocks as one; of none, those of no picture."""
        none = cls(np.empty(0, np.uint64), np.empty((0, 3, SIDE**2), np.uint8), np.empty(0, np.float32))
        return cls(*(np.concatenate([getattr(p, f.name) for p in (none, *parts)]) for f in fields(cls)))


def hashed(pictures: np.ndarray) -> np.ndarray:
    """The perceptual hashes (n,) uint64 of pictures (n, 3, 32, 32): a bit for each of the 63 lowest frequencies of the grey picture.

    A bit tells whether the coefficient of the discrete cosine transform is clearly positive. Against the median, as is common, the many
    coefficients that are zero in symmetric drawings give bits of noise: up to 38 of them differ in a picture that is stored anew.
    """
    grey = np.tensordot(
        pictures.astype(np.float32), np.array([0.299, 0.587, 0.114], np.float32), axes=([1], [0])
    )  # (n, 32, 32)
    place, frequency = np.arange(32), np.arange(8)[:, None]
    cosines = np.cos(np.pi * (2 * place + 1) * frequency / 64).astype(np.float32)  # (8, 32)
    waves = (cosines @ grey @ cosines.T).reshape(len(grey), 64)[:, 1:]  # without the mean
    bits = waves > DEADBAND * np.sqrt(np.square(waves).mean(axis=1, keepdims=True))
    packed = np.packbits(np.pad(bits, ((0, 0), (1, 0))), axis=1)  # (n, 8)
    return packed.view(">u8")[:, 0].astype(np.uint64)


def near_pairs(looks: Looks) -> np.ndarray:
    """The pairs of pictures that look alike: (P, 2) numbers of pictures, sorted, the smaller one first.

    Pictures almost without contrast are in no pair: all of them would be. Hashes that differ in at most five bits are equal in one of
    six parts, so only those that share a part are compared. Where very many do (frames of one camera, say), only neighbours in the
    order of their hashes are: then not all pairs are found, and the work grows with the number of pictures, not with its square.
    """
    rows = np.flatnonzero(looks.contrast >= CONTRAST)
    codes = looks.codes[rows]
    found = [np.empty((0, 2), np.int64)]
    edges = np.linspace(0, 63, BITS + 2).astype(int).tolist()
    parts = [(1 << high) - (1 << low) for low, high in pairwise(edges)]  # masks of bits
    for number, mask in enumerate(parts):
        part = codes & np.uint64(mask)
        order = np.lexsort((codes, part))
        part, code, row = part[order], codes[order], rows[order]
        compared = 0
        for step in range(1, min(WINDOW, len(order) - 1) + 1):
            same = np.flatnonzero(part[step:] == part[:-step])
            if not len(same) or compared > MOST * len(order):
                break
            differs = code[same] ^ code[same + step]
            close = np.bitwise_count(differs) <= BITS
            for earlier in parts[:number]:  # in which the pair has been met
                close &= (differs & np.uint64(earlier)) != 0
            compared += int(close.sum())
            one, other = row[same[close]], row[same[close] + step]
            found += alike(looks.small, np.sort(np.stack([one, other], axis=1), axis=1))
    pairs = np.concatenate(found)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def alike(small: np.ndarray, pairs: np.ndarray) -> list[np.ndarray]:
    """Those of the pairs (P, 2) whose small copies are alike, in blocks."""
    kept = []
    for block in np.array_split(pairs, -(-len(pairs) // 4096)) if len(pairs) else ():
        one, other = (small[block[:, side]].astype(np.float32) for side in (0, 1))  # (p, 3, 256)
        shades = [copy.mean(axis=2, keepdims=True) for copy in (one, other)]
        one, other = one - shades[0], other - shades[1]
        norms = np.sqrt(np.square(one).sum(axis=(1, 2)) * np.square(other).sum(axis=(1, 2)))
        near = (one * other).sum(axis=(1, 2)) >= ALIKE * norms
        near &= np.abs(shades[0] - shades[1]).max(axis=(1, 2)) <= SHADE
        kept.append(block[near])
    return kept


def pictures_of(values: Tensor) -> Tensor | None:
    """The pictures (n, C, H, W) in a block of values, of clips (n, T, C, H, W) the frame in the middle; None if there are none."""
    if values.dtype != torch.uint8 or values.dim() not in (4, 5) or values.shape[-3] not in (1, 3):
        return None
    return values[:, values.shape[1] // 2] if values.dim() == 5 else values


def blank(pictures: Tensor) -> np.ndarray:
    """Which pictures (n, C, H, W) uint8 are of one colour, but for the noise that storing leaves: (n,) bool."""
    least, most = pictures.amin(dim=(2, 3)), pictures.amax(dim=(2, 3))
    return (most - least <= NOISE).all(dim=1).numpy()
