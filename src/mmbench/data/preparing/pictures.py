"""Decoding of pictures, by Pillow."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

from mmbench.data.preparing.media import BadFile, check_file

if TYPE_CHECKING:
    from PIL import Image

# What Pillow may take a file for. PostScript, which is a program, is not among it.
PICTURES = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
PIXELS = 1 << 26  # that a picture may have: 67 million
BYTES = 1 << 29  # that its file may have
ORIENTATION = 0x0112  # the EXIF tag that tells how the camera was held


def read_image(path: Path, size: tuple[int, int], pad: bool = False) -> np.ndarray:
    """A picture as (H, W, 3) uint8: upright, transparent parts white, scaled to cover (H, W), what sticks out cut off at both sides.

    With ``pad`` it is scaled to fit into (H, W) instead, and nothing is cut off: see ``contain``. Of several frames it is the first.

    Raises:
        BadFile: it cannot be decoded, or has more than ``PIXELS`` pixels by its head; such a picture is not decoded.
    """
    with opened(path) as picture:
        opaque = opaque_of(picture)
        return contain(opaque, size) if pad else cover(np.array(opaque), size)


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """A picture, decoded and upright, while the context lasts.

    Raises:
        BadFile: as ``read_image``; also where what is done with it in the context fails.
    """
    from PIL import Image, UnidentifiedImageError

    check_file(path)
    if path.stat().st_size > BYTES:
        raise BadFile(f"has {path.stat().st_size} bytes, expected at most {BYTES} in a picture's file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow about EXIF data, and about sizes, which are looked at here
            # From memory: a length that the file only states takes none of it.
            with Image.open(io.BytesIO(path.read_bytes()), formats=PICTURES) as image:
                if image.width * image.height > PIXELS:
                    raise BadFile(too_large(f"{image.width} × {image.height} pixels"))
                warnings.simplefilter("error", Image.DecompressionBombWarning)  # of a tile
                image.load()
                yield upright(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadFile(too_large("more pixels")) from error
    except BadFile:
        raise
    except MemoryError:
        raise
    except UnidentifiedImageError as error:  # it would name the place in memory
        raise BadFile(f"not a readable picture (of none of the kinds {', '.join(PICTURES)})") from error
    except Exception as error:  # Pillow's errors about damaged files are of many kinds
        raise BadFile(f"not a readable picture ({error})") from error


def too_large(what: str) -> str:
    """What is said of a picture that is not decoded."""
    return f"has {what}, expected at most {PIXELS / 1e6:.0f} million"


def upright(image: Image.Image) -> Image.Image:
    """A picture as its EXIF data say that it is to be seen; as it is, where they say nothing that can be read."""
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    try:
        turn = turns.get(image.getexif().get(ORIENTATION, 1))
    except Exception:  # the data are damaged, in one of many ways; the picture need not be
        turn = None
    return image if turn is None else image.transpose(turn)


def opaque_of(image: Image.Image) -> Image.Image:
    """A picture in 8-bit colours, on white where it is transparent."""
    from PIL import Image

    if image.mode.startswith("I"):  # 16 bit; Pillow would cut off what is above 255
        image = Image.fromarray((np.asarray(image) // 257).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        ground = Image.new("RGBA", image.size, "white")
        ground.alpha_composite(image.convert("RGBA"))
        image = ground
    return image.convert("RGB")


def cover(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The middle of a picture, as large as the ratio of (H, W) allows, scaled to (H, W), antialiased: (H, W, 3) uint8.

    Args:
        pixels: (height, width, 3) uint8, of any size.
        size: (H, W).
    """
    height, width = pixels.shape[:2]
    scale = min(height / size[0], width / size[1])
    kept = max(1, round(scale * size[0])), max(1, round(scale * size[1]))
    top, left = (height - kept[0]) // 2, (width - kept[1]) // 2
    window = pixels[top : top + kept[0], left : left + kept[1]]
    if kept == size:
        return window
    planes = torch.from_numpy(window)[None].permute(0, 3, 1, 2)
    return F.interpolate(planes, size, mode="bilinear", antialias=True)[0].permute(1, 2, 0).numpy()


def contain(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """The whole picture scaled by one factor to fit into (H, W), antialiased, in the middle of white: (H, W, 3) uint8."""
    from PIL import Image, ImageOps

    height, width = size
    fitted = ImageOps.pad(image, (width, height), Image.Resampling.BILINEAR, color="white")
    return np.asarray(fitted)
