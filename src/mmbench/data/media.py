"""Decoding of media files: pictures by Pillow, sound and video by FFmpeg's libraries, which PyAV carries."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import av
    from PIL import Image

RATE = 16_000
HELD = (
    1 << 27
)  # pixels of frames that are held until it is known which are wanted; a longer clip is decoded a second time
WHOLE = 0.8  # the share of its stated length that a file must hold: headers are not exact, and a cut-off file decodes without an error
# What FFmpeg and Pillow may take a file for. Playlists (which name other files), and PostScript (which is a program), are not among it.
CONTAINERS = "aac,aiff,asf,avi,flac,flv,matroska,webm,mov,mp4,mp3,mpeg,mpegts,mpegvideo,ogg,wav"
PICTURES = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")


class BadFile(Exception):
    """A source file that cannot be used; the message is the reason."""


def decoders() -> dict[str, str]:
    """The versions of what decodes; they are part of a manifest."""
    import av
    import PIL

    return {
        "pyav": av.__version__,
        "ffmpeg": ".".join(map(str, av.library_versions["libavcodec"])),
        "pillow": PIL.__version__,
    }


def read_image(path: Path, size: tuple[int, int], pad: bool = False) -> np.ndarray:
    """A picture as (3, H, W) uint8: transparent parts white, scaled to cover (H, W), what sticks out cut off on both sides alike.

    With ``pad`` it is scaled to fit into (H, W) instead, and nothing is cut off: see ``contain``.
    """
    from PIL import Image

    check_file(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.filterwarnings("ignore", category=UserWarning)  # of Pillow about EXIF data, which is not used
            with Image.open(path, formats=PICTURES) as image:
                image.load()
                if image.mode.startswith("I"):  # 16 bit; Pillow would cut off what is above 255
                    image = Image.fromarray((np.asarray(image) // 257).clip(0, 255).astype(np.uint8))  # type: ignore[assignment]
                if image.has_transparency_data:
                    ground = Image.new("RGBA", image.size, "white")
                    image = Image.alpha_composite(ground, image.convert("RGBA"))  # type: ignore[assignment]
                return (contain if pad else cover)(image.convert("RGB"), size)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadFile(f"not a readable picture ({error})") from error


def cover(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """The picture scaled by one factor to cover (H, W), antialiased, and the middle of it: (3, H, W) uint8."""
    from PIL import Image, ImageOps

    height, width = size
    fitted = image if image.size == (width, height) else ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)
    return np.asarray(fitted).transpose(2, 0, 1)


def contain(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """The whole picture scaled by one factor to fit into (H, W), antialiased, in the middle of white: (3, H, W) uint8."""
    from PIL import Image, ImageOps

    height, width = size
    fitted = ImageOps.pad(image, (width, height), Image.Resampling.BILINEAR, color="white")
    return np.asarray(fitted).transpose(2, 0, 1)


def read_frames(
    path: Path,
    count: int,
    size: tuple[int, int],
    span: tuple[float, float] | None = None,
    half: str | None = None,
) -> np.ndarray:
    """Frames of a video, (count, 3, H, W) uint8, as ``cover`` scales them.

    Frame i of ``count`` is the one numbered ⌊i n / count⌋ of the n there are; of a single frame, the middle one.

    Args:
        path: the video.
        count: how many frames.
        size: (H, W).
        span: the seconds, from the file's beginning, from which and to which the video is read (default: all of it).
        half: "left" or "right", of the picture.

    Raises:
        BadFile: it cannot be decoded, or ends before 80 % of the length that its header tells (or of the span).
    """
    import av

    check_file(path)
    held: dict[int, av.VideoFrame] = {}
    try:
        total = 0
        for frame in decode_frames(path, span):
            if (total + 1) * frame.width * frame.height <= HELD:
                held[total] = frame
            total += 1
        if not total:
            raise BadFile("has no frame" + (f" between {span[0]:g} and {span[1]:g} s" if span else ""))
        chosen = [total // 2] if count == 1 else [i * total // count for i in range(count)]
        if not held.keys() >= set(chosen):
            held = {i: frame for i, frame in enumerate(decode_frames(path, span)) if i in chosen}
        pictures = [held[i].to_image() for i in chosen]
    except (av.FFmpegError, OSError, ValueError, IndexError) as error:
        raise BadFile(f"not a readable video ({reason(error)})") from error
    if half is not None:
        middle = pictures[0].width // 2
        box = (
            (0, 0, middle, pictures[0].height) if half == "left" else (middle, 0, pictures[0].width, pictures[0].height)
        )
        pictures = [picture.crop(box) for picture in pictures]
    return np.stack([cover(picture, size) for picture in pictures])


def decode_frames(path: Path, span: tuple[float, float] | None) -> Iterator[av.VideoFrame]:
    """The frames of a video, or of a part of it.

    Raises:
        BadFile: there is no video, or less than its header tells.
    """
    import av

    with open_media(path) as container:
        if not container.streams.video:
            raise BadFile("has no video stream")
        stream = container.streams.video[0]
        stream.thread_type = "NONE"  # preparing runs one process a core
        zero = (container.start_time or 0) / av.time_base
        begin, end = span or (0.0, float("inf"))
        if begin > 0 and stream.time_base:
            container.seek(int((begin + zero) / stream.time_base), stream=stream)
        until = begin
        for frame in container.decode(stream):
            time = until if frame.time is None else frame.time - zero
            if time >= end:
                until = end
                break
            lasts = frame.duration and frame.time_base and frame.duration * frame.time_base  # FLV does not say
            until = time + float(lasts or 1 / (stream.average_rate or 25))
            if time >= begin:
                yield frame
        check_length(until - begin, min(end, stated_length(container, stream)) - begin)


def read_audio(path: Path, rate: int = RATE) -> np.ndarray:
    """The sound of a file as one channel (L,) float32 at ``rate``; channels are averaged.

    Values are within [-1, 1], but for what codecs and the change of the rate overshoot.

    Raises:
        BadFile: it cannot be decoded, holds no sound, or ends before 80 % of the length that its header tells.
    """
    import av

    check_file(path)
    parts: list[np.ndarray] = []
    try:
        with open_media(path) as container:
            if not container.streams.audio:
                raise BadFile("has no sound")
            stream = container.streams.audio[0]
            # Not layout="mono": FFmpeg adds channels up, at 0.71 each.
            resampler = av.AudioResampler(format="fltp", rate=rate)
            for frame in [*container.decode(stream), None]:
                parts += [out.to_ndarray().mean(axis=0) for out in resampler.resample(frame)]
            stated = stated_length(container, stream)
    except (av.FFmpegError, OSError, ValueError, IndexError) as error:
        raise BadFile(f"not readable sound ({reason(error)})") from error
    sound = np.concatenate(parts) if parts else np.empty(0, np.float32)
    if not len(sound):
        raise BadFile("holds no sound: its length is zero")
    check_length(len(sound) / rate, stated)
    if not np.isfinite(sound).all():
        raise BadFile("holds values that are not finite")
    return sound


def reason(error: Exception) -> str:
    """What an error says, without its number and the file's name."""
    return str(getattr(error, "strerror", None) or error)


def open_media(path: Path) -> av.container.InputContainer:
    """Open a file that FFmpeg is to decode; nothing that it says leads to another file, or to the network."""
    import av

    return av.open(str(path), options={"format_whitelist": CONTAINERS, "protocol_whitelist": "file"})


def stated_length(container: av.container.InputContainer, stream: av.stream.Stream) -> float:
    """The seconds that a stream lasts by the file's header; infinity if it does not say."""
    import av

    if stream.duration is not None and stream.time_base:
        return float(stream.duration * stream.time_base)
    return float("inf") if container.duration is None else container.duration / av.time_base


def check_length(decoded: float, stated: float) -> None:
    """Refuse a file of which the end is missing; decoders say nothing of it. Both lengths are in seconds."""
    if 0 < stated < float("inf") and decoded < WHOLE * stated:
        raise BadFile(f"is cut off: {max(0, decoded):.2f} s could be decoded of {stated:.2f} s")


def check_file(path: Path) -> None:
    """Refuse what is no file, empty ones, and WAV, AVI and WebP files that are shorter than they say."""
    if not path.is_file():
        raise BadFile("is missing" if not path.exists() else "is not a file")
    size = path.stat().st_size
    if not size:
        raise BadFile("is empty")
    try:
        with path.open("rb") as stream:
            head = stream.read(8)
    except OSError as error:
        raise BadFile(f"cannot be read ({error.strerror})") from error
    stated = int.from_bytes(head[4:], "little")
    if head[:4] == b"RIFF" and size < stated < 0xFFFFFFFF:  # all bits set: written to a pipe, of unknown length
        raise BadFile(f"is cut off: it has {size} bytes of {stated + 8}")
    if (head + b" ").startswith(b"version "):
        raise BadFile("is no media file but a git-lfs pointer (`git lfs pull` gets the files)")
