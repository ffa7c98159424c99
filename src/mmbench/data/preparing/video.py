"""What the data sets of videos with sound share: how frames become an array."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mmbench.data.preparing.frames import read_frames
from mmbench.data.preparing.raw import Sample, Source

FRAMES, SIZE = 3, (256, 342)


def decode_video(path: Path, sample: Sample) -> Mapping[str, np.ndarray]:
    """Three frames."""
    return {"frames": read_frames(path, FRAMES, SIZE)}


VIDEO = Source(
    {"frames": ((FRAMES, *SIZE, 3), "uint8")},
    decode_video,
    "frames at 0, 1/3, 2/3, upright; scaled and cut to 256 × 342",
)
