"""Decoding of sound, by FFmpeg's libraries, which PyAV carries."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mmbench.data.preparing.media import (
    BadFile,
    check_file,
    check_length,
    note,
    open_media,
    packets,
    reason,
    stated_length,
)

if TYPE_CHECKING:
    import av

RATE = 16_000
SHORTEST, LONGEST = 0.1, 1800.0  # seconds of sound; a window of the spectrograms here is up to 25 ms
RATES = (
    1_000,
    768_000,
)  # samples a second that sound may have: the memory that another rate takes grows with their ratio
CHANNELS = 64
PIECE = 1 << 20  # values of sound that are joined before they are resampled


def read_audio(path: Path, rate: int = RATE) -> np.ndarray:
    """The sound of a file as one channel (L,) float32 at ``rate``: see ``read_audio_at``."""
    return read_audio_at(path, [rate])[0]


def read_audio_at(path: Path, rates: Sequence[int]) -> list[np.ndarray]:
    """The sound of a file as one channel (L,) float32 at each of some rates; decoded once. Channels are averaged.

    Values are within [-1, 1], but for what codecs and the change of the rate overshoot. Length and peak are noted.

    Raises:
        BadFile: it cannot be decoded, holds less than 0.1 s or more than 30 minutes of sound, or ends before 80 % of the length that
            its header tells; or its rate or its channels are beyond ``RATES`` and ``CHANNELS``.
    """
    import av

    check_file(path)
    ends = dict[int, float]()
    try:
        with open_media(path) as container:
            if not container.streams.audio:
                raise BadFile("has no sound")
            stream = container.streams.audio[0]
            if stream.codec_context is None:
                raise BadFile("has sound of a codec that FFmpeg does not know")
            sounds = resample(container, stream, ends, rates)
            stated = stated_length(container, stream, ends, (container.start_time or 0) / av.time_base)
    except (av.FFmpegError, OSError, ValueError, IndexError) as error:
        raise BadFile(f"not readable sound ({reason(error)})") from error
    if not all(map(len, sounds)):
        raise BadFile("holds no sound: its length is zero")
    check_length(lasts := len(sounds[0]) / rates[0], stated)
    if lasts < SHORTEST:
        raise BadFile(f"lasts {lasts:.3f} s, expected at least {SHORTEST} s")
    if not all(np.isfinite(sound).all() for sound in sounds):
        raise BadFile("holds values that are not finite")
    note(seconds=lasts, peak=float(max(sounds[0].max(), -sounds[0].min())))
    return sounds


def resample(
    container: av.container.InputContainer,
    stream: av.audio.stream.AudioStream,
    ends: dict[int, float],
    rates: Sequence[int],
) -> list[np.ndarray]:
    """Decode a stream: one channel (L,) float32 at each of some rates. ``ends`` are those of ``packets``."""
    import av

    resamplers = [Resampler(rate) for rate in rates]
    joined, kind, seconds = (
        av.AudioFifo(),
        None,
        0.0,
    )  # frames are short: to resample each would cost more than to decode it
    for frame in (frame for packet in packets(container, stream, ends) for frame in packet.decode()):
        assert isinstance(frame, av.AudioFrame)
        if kind is None:
            check_kind(frame.sample_rate, len(frame.layout.channels))
        elif kind != (frame.layout.name, frame.sample_rate):  # the fifo would read beyond the frame
            changes = [
                f"from {a} to {b}" for a, b in zip(kind, (frame.layout.name, frame.sample_rate), strict=True) if a != b
            ]
            what = "channels" if kind[0] != frame.layout.name else "sampling rate"
            raise BadFile(f"changes its {what} {changes[0]}")
        kind = frame.layout.name, frame.sample_rate
        seconds += frame.samples / frame.sample_rate
        if seconds > LONGEST:
            raise BadFile(f"lasts more than {LONGEST:g} s, which is the most that is read")
        frame.pts = None
        joined.write(frame)
        if joined.samples * len(frame.layout.channels) >= PIECE:
            piece = joined.read()
            for resampler in resamplers:
                resampler.take(piece)
    rest = joined.read()
    return [resampler.end(rest) for resampler in resamplers]


def check_kind(rate: int, channels: int) -> None:
    """Refuse sound whose rate or channels no recording has."""
    if not RATES[0] <= rate <= RATES[1]:
        raise BadFile(f"has {rate} samples a second, expected {RATES[0]} to {RATES[1]}")
    if channels > CHANNELS:
        raise BadFile(f"has {channels} channels, expected at most {CHANNELS}")


class Resampler:
    """Takes sound piece by piece: the mean of its channels at another rate, (L,) float32."""

    def __init__(self, rate: int) -> None:
        import av

        # Not layout="mono": FFmpeg adds channels up, at 0.71 each.
        self.resampler = av.AudioResampler(format="fltp", rate=rate)
        self.parts = [np.empty(0, np.float32)]

    def take(self, piece: av.AudioFrame | None) -> None:
        """Take a piece; None: it was the last."""
        self.parts += [part.to_ndarray().mean(axis=0) for part in self.resampler.resample(piece)]

    def end(self, piece: av.AudioFrame | None) -> np.ndarray:
        """Take the last piece, if there is one, and give the whole."""
        if piece is not None:
            self.take(piece)
        self.take(None)
        return np.concatenate(self.parts)
