"""Decoding of the frames of videos, by FFmpeg's libraries, which PyAV carries."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mmbench.data.preparing.media import (
    FRAME_PIXELS,
    BadFile,
    check_file,
    check_length,
    note,
    open_media,
    packets,
    reason,
    stated_length,
)
from mmbench.data.preparing.pictures import cover

if TYPE_CHECKING:
    import av

# Pixels of frames that are held until it is known which are wanted; a longer clip is decoded a second time.
HELD = 1 << 27


def read_frames(
    path: Path,
    count: int,
    size: tuple[int, int],
    span: tuple[float, float] | None = None,
    half: str | None = None,
) -> np.ndarray:
    """Frames of a video, (count, H, W, 3) uint8, upright, as ``cover`` scales them.

    Frame i of ``count`` is the one numbered ⌊i n / count⌋ of the n there are; of a single frame, the middle one. Where the container
    tells the time of every frame, those after the last one wanted are counted but not decoded. The length is noted, unless there is a
    span.

    Args:
        path: the video.
        count: how many frames.
        size: (H, W).
        span: the seconds, from the file's beginning, from which and to which the video is read (default: all of it).
        half: "left" or "right", of the picture.

    Raises:
        BadFile: it cannot be decoded, ends before 80 % of the length that its header tells (or of the span), or has a frame of more
            than ``FRAME_PIXELS`` pixels, which is not decoded.
    """
    import av

    check_file(path)
    try:
        frames = frames_by_time(path, count, span) or frames_by_number(path, count, span)
        return np.stack([cover(half_of(upright(frame), half), size) for frame in frames])
    except av.FFmpegError as error:
        hint = f"; a frame may have at most {FRAME_PIXELS / 1e6:.0f} million pixels" if error.errno == 22 else ""
        raise BadFile(f"not a readable video ({reason(error)}{hint})") from error
    except (OSError, ValueError, IndexError) as error:
        raise BadFile(f"not a readable video ({reason(error)})") from error


def half_of(pixels: np.ndarray, half: str | None) -> np.ndarray:
    """The left or right half of a picture (H, W, 3), or all of it."""
    middle = pixels.shape[1] // 2
    return pixels[:, {"left": slice(middle), "right": slice(middle, None), None: slice(None)}[half]]


def upright(frame: av.VideoFrame) -> np.ndarray:
    """The pixels of a frame as its display matrix says that it is to be seen, (H, W, 3) uint8; turns are rounded to right angles.

    The matrix takes a point (x, y) to (a x + c y, b x + d y), with y downwards.
    """
    pixels = frame.reformat(format="rgb24", threads=1).to_ndarray()  # preparing runs one process a core
    try:
        matrix = memoryview(frame.side_data["DISPLAYMATRIX"])  # type: ignore[typeddict-item]  # PyAV's types name another class
    except KeyError:
        return pixels
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].astype(float)
    if abs(b) > abs(a):
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    return np.ascontiguousarray(pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def spread(count: int, total: int) -> list[int]:
    """The numbers of ``count`` frames out of ``total``.

    >>> spread(3, 75), spread(1, 75), spread(3, 2)
    ([0, 25, 50], [37], [0, 0, 1])
    """
    return [total // 2] if count == 1 else [i * total // count for i in range(count)]


def frames_by_time(path: Path, count: int, span: tuple[float, float] | None) -> list[av.VideoFrame] | None:
    """Frames found by the time stamps of their packets; None where stamps do not tell which is which.

    That is, not every packet has one or gives a frame, or frames are not shown in their order (as of H.264 in AVI).
    """
    begin, end = span or (0.0, float("inf"))
    stamps, until, ends = [], begin, dict[int, float]()
    with open_video(path, begin) as (container, stream, zero):
        if not stream.time_base:
            return None
        tick, each = float(stream.time_base), 1 / float(stream.average_rate or 25)
        for packet in packets(container, stream, ends):
            if packet.size == 0 or packet.is_discard:  # the last one is empty
                continue
            if packet.pts is None or packet.dts is None or packet.is_corrupt:
                return None
            if packet.dts * tick - zero >= end:
                until = end
                break
            time = packet.pts * tick - zero
            if begin <= time < end:
                stamps.append(packet.pts)
            lasts = packet.duration * tick if packet.duration else each  # FLV does not say
            until = max(until, min(end, time + lasts))
        check_length(until - begin, min(end, stated_length(container, stream, ends, zero)) - begin)
    if not stamps or len(set(stamps)) < len(stamps):
        return None
    if span is None:
        note(seconds=until)
    stamps.sort()
    wanted = spread(count, len(stamps))
    found: dict[int, av.VideoFrame] = {}
    with open_video(path, begin) as (container, stream, _):
        frames = (frame for frame in container.decode(stream) if frame.pts is None or frame.pts >= stamps[0])
        for number, (frame, stamp) in enumerate(zip(frames, stamps, strict=False)):
            if frame.pts != stamp:
                return None
            if number in wanted:
                found[number] = frame
            if number == wanted[-1]:
                return [found[number] for number in wanted]
    return None


def frames_by_number(path: Path, count: int, span: tuple[float, float] | None) -> list[av.VideoFrame]:
    """Frames found by decoding them all; held until it is known which are wanted, or decoded twice if they are too many for that."""
    held: dict[int, av.VideoFrame] = {}
    total = pixels = 0
    for frame in decode_frames(path, span):
        pixels += frame.width * frame.height
        if pixels <= HELD:
            held[total] = frame
        total += 1
    if not total:
        raise BadFile("has no frame" + (f" between {span[0]:g} and {span[1]:g} s" if span else ""))
    wanted = spread(count, total)
    if not held.keys() >= set(wanted):
        held = {i: frame for i, frame in enumerate(decode_frames(path, span)) if i in wanted}
    return [held[number] for number in wanted]


def decode_frames(path: Path, span: tuple[float, float] | None) -> Iterator[av.VideoFrame]:
    """The frames of a video, or of a part of it.

    Raises:
        BadFile: there is no video, or less than its header tells.
    """
    begin, end = span or (0.0, float("inf"))
    with open_video(path, begin) as (container, stream, zero):
        until, ends = begin, dict[int, float]()
        frames = (frame for packet in packets(container, stream, ends) for frame in packet.decode())
        for frame in frames:
            time = until if frame.time is None else frame.time - zero
            if time >= end:
                until = end
                break
            lasts = frame.duration and frame.time_base and frame.duration * frame.time_base  # FLV does not say
            until = time + float(lasts or 1 / (stream.average_rate or 25))
            if time >= begin:
                yield frame
        check_length(until - begin, min(end, stated_length(container, stream, ends, zero)) - begin)
    if span is None:
        note(seconds=until)


@contextmanager
def open_video(
    path: Path, begin: float
) -> Iterator[tuple[av.container.InputContainer, av.video.stream.VideoStream, float]]:
    """A container, its video stream, and the time at which it starts, in seconds; at the last key frame before ``begin``.

    FFmpeg rounds that time to a microsecond. It is told a microsecond too early, lest the first frame be before it.
    """
    import av

    with open_media(path) as container:
        if not container.streams.video:
            raise BadFile("has no video stream")
        stream = container.streams.video[0]
        if stream.codec_context is None:
            raise BadFile("has video of a codec that FFmpeg does not know")
        width, height = stream.codec_context.width, stream.codec_context.height
        if width * height > FRAME_PIXELS:
            raise BadFile(
                f"has frames of {width} × {height} pixels, expected at most {FRAME_PIXELS / 1e6:.0f} million in one"
            )
        stream.codec_context.options = {"max_pixels": str(FRAME_PIXELS)}  # frames may be larger than the header says
        stream.thread_type = "NONE"  # preparing runs one process a core
        zero = ((container.start_time or 0) - 1) / av.time_base
        if begin > 0 and stream.time_base:
            container.seek(int((begin + zero) / stream.time_base), stream=stream)
        yield container, stream, zero
