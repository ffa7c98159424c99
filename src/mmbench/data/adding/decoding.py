"""How a modality of each kind becomes arrays, by its declaration."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch

from mmbench.data.adding.declaration import Modality
from mmbench.data.adding.vectors import read_vector
from mmbench.data.preparing.audio import BINS, SHIFT, WINDOW, fbank
from mmbench.data.preparing.frames import read_frames
from mmbench.data.preparing.pictures import read_image
from mmbench.data.preparing.raw import Sample, Source
from mmbench.data.preparing.sound import read_audio

ENDINGS: Mapping[str, tuple[str, ...]] = {
    "picture": (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"),
    "sound": (".wav", ".mp3", ".flac", ".ogg", ".oga", ".opus", ".m4a", ".aac", ".aiff", ".aif", ".wma"),
    "video": (".mp4", ".avi", ".mkv", ".webm", ".mov", ".flv", ".mpg", ".mpeg", ".m4v", ".wmv"),
    "features": (".npy", ".pt", ".pth", ".safetensors"),
}
"""Kind -> how the names of its files end."""


def source_of(name: str, modality: Modality) -> Source | None:
    """How a modality is decoded; None of texts, which are not."""
    side = modality.size
    if modality.kind == "picture":
        fit = "scaled to fit, padded with white" if modality.pad else "scaled and cut"
        return Source(
            {name: ((side, side, 3), "uint8")},
            partial(decode_picture, name, side, modality.pad),
            f"upright, transparent parts white, {fit} to {side} × {side}",
        )
    if modality.kind == "video":
        return Source(
            {name: ((modality.frames, side, side, 3), "uint8")},
            partial(decode_video, name, modality.frames, side),
            f"{modality.frames} frames, evenly spread, upright, scaled and cut to {side} × {side}",
        )
    if modality.kind == "sound":
        frames = frames_of(modality.seconds)
        fields = {
            f"{name}_fbank": ((frames, BINS), "float16"),
            f"{name}_waveform": ((samples_of(frames),), "int16"),
        }
        return Source(
            fields,
            partial(decode_sound, name, frames),
            f"one channel at 16 kHz, peak at most 1, the first {modality.seconds:g} s; fbank: {BINS} mel, {frames} frames",
        )
    if modality.kind in ("features", "numbers"):
        assert modality.width is not None
        return Source(
            {name: ((modality.width,), "float32")}, partial(decode_vector, name, modality.width), "as given, float32"
        )
    return None


def frames_of(seconds: float) -> int:
    """The frames of a filter bank that hold so much sound."""
    return max(1, round(seconds * 100) - 2)


def samples_of(frames: int) -> int:
    """The samples of sound that so many frames are made of."""
    return WINDOW + (frames - 1) * SHIFT


def decode_picture(name: str, side: int, pad: bool, path: Path, sample: Sample) -> Mapping[str, np.ndarray]:
    """The picture."""
    return {name: read_image(path, (side, side), pad=pad)}


def decode_video(name: str, frames: int, side: int, path: Path, sample: Sample) -> Mapping[str, np.ndarray]:
    """Some of its frames."""
    return {name: read_frames(path, frames, (side, side))}


def decode_sound(name: str, frames: int, path: Path, sample: Sample) -> Mapping[str, np.ndarray]:
    """The filter bank and the waveform of the beginning; a recording beyond full scale is brought down to it, not clipped."""
    sound = read_audio(path)
    sound = sound / max(1.0, float(np.abs(sound).max()))
    waveform = np.zeros(samples_of(frames), np.int16)
    kept = sound[: len(waveform)]
    waveform[: len(kept)] = np.round(kept * 32767)
    return {f"{name}_fbank": fbank(torch.from_numpy(sound), frames).numpy(), f"{name}_waveform": waveform}


def decode_vector(name: str, width: int, path: Path, sample: Sample) -> Mapping[str, np.ndarray]:
    """The vector."""
    return {name: read_vector(path, width)}
