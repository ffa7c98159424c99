"""Writing of small media files whose content shows the class a little, so that a method has something to learn."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from mmbench.data.preparing.raw import digest


def rng(*names: object) -> np.random.Generator:
    """A generator that depends on nothing but the names."""
    return np.random.default_rng(digest(":".join(map(str, names))))


def picture(label: int, height: int, width: int, seed: object) -> np.ndarray:
    """Stripes whose width tells the class, at a random phase, and noise: (H, W, 3) uint8."""
    random = rng("picture", seed)
    wave = np.sin(np.arange(width) * (0.05 + 0.04 * (label % 12)) + random.uniform(0, 6))[None, :, None]
    noise = random.normal(0, 25, (height, width, 3))
    return (128 + 70 * wave * random.uniform(0.5, 1, 3) + noise).clip(0, 255).astype(np.uint8)


def sound(label: int, seconds: float, rate: int, seed: object) -> np.ndarray:
    """A tone whose pitch tells the class, and noise: (L,) float32 in [-1, 1]."""
    random = rng("sound", seed)
    time = np.arange(int(seconds * rate)) / rate
    tone = np.sin(2 * np.pi * (200 + 120 * (label % 16) + random.uniform(-20, 20)) * time)
    return (0.3 * tone + random.normal(0, 0.05, len(time))).astype(np.float32)


def write_picture(path: Path, pixels: np.ndarray) -> None:
    """Write (H, W, 3) uint8 as JPEG or PNG, by the name."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_sound(path: Path, samples: np.ndarray, rate: int, codec: str = "pcm_s16le") -> None:
    """Write (L,) float as one channel; the container is what the name says."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        add_sound(container, samples, rate, codec)


def add_sound(container, samples: np.ndarray, rate: int, codec: str) -> None:  # type: ignore[no-untyped-def]
    """Add a sound stream to an open container, and encode it."""
    import av

    stream = container.add_stream(codec, rate=rate, layout="mono")
    encode_sound(container, stream, samples, rate, av)


def encode_sound(container, stream, samples, rate, av) -> None:  # type: ignore[no-untyped-def]
    """Encode (L,) float samples into a stream."""
    frame = av.AudioFrame.from_ndarray((samples * 32767).astype(np.int16)[None], format="s16", layout="mono")
    frame.rate, frame.pts = rate, 0
    resampler = av.AudioResampler(
        stream.codec_context.format, "mono", rate, frame_size=stream.codec_context.frame_size or None
    )
    for part in [*resampler.resample(frame), *resampler.resample(None)]:
        for packet in stream.encode(part):
            container.mux(packet)
    for packet in stream.encode(None):
        container.mux(packet)


def write_video(
    path: Path,
    frames: list[np.ndarray],
    fps: float,
    codec: str,
    samples: np.ndarray | None = None,
    rate: int = 16_000,
    audio_codec: str = "aac",
) -> None:
    """Write frames (H, W, 3) uint8, and a sound track where ``samples`` are given; the container is what the name says."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        track = None if samples is None else container.add_stream(audio_codec, rate=rate, layout="mono")
        for pixels in frames:
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
        if track is not None:
            encode_sound(container, track, samples, rate, av)
