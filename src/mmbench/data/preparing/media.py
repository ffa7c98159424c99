"""Decoding of media files: pictures by Pillow, sound and video by FFmpeg's libraries, which PyAV carries."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    import av
    from PIL import Image

RATE = 16_000
SHORTEST = 0.1  # seconds of sound; a window of the spectrograms here is up to 25 ms
HELD = (
    1 << 27
)  # pixels of frames that are held until it is known which are wanted; a longer clip is decoded a second time
PIECE = 1 << 20  # samples of sound that are joined before they are resampled
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
    """A picture as (H, W, 3) uint8: transparent parts white, scaled to cover (H, W), what sticks out cut off on both sides alike.

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
                opaque = image.convert("RGB")
                return contain(opaque, size) if pad else cover(np.array(opaque), size)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadFile(f"not a readable picture ({error})") from error


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


def read_frames(
    path: Path,
    count: int,
    size: tuple[int, int],
    span: tuple[float, float] | None = None,
    half: str | None = None,
) -> np.ndarray:
    """Frames of a video, (count, H, W, 3) uint8, as ``cover`` scales them.

    Frame i of ``count`` is the one numbered ⌊i n / count⌋ of the n there are; of a single frame, the middle one. Where the container
    tells the time of every frame, those after the last one wanted are counted but not decoded.

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
    try:
        frames = frames_by_time(path, count, span) or frames_by_number(path, count, span)
        pictures = [frame.to_ndarray(format="rgb24") for frame in frames]
    except (av.FFmpegError, OSError, ValueError, IndexError) as error:
        raise BadFile(f"not a readable video ({reason(error)})") from error
    middle = pictures[0].shape[1] // 2
    part = {"left": slice(middle), "right": slice(middle, None), None: slice(None)}[half]
    return np.stack([cover(picture[:, part], size) for picture in pictures])


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
    stamps, until = [], begin
    with open_video(path, begin) as (container, stream, zero):
        if not stream.time_base:
            return None
        tick, each = float(stream.time_base), 1 / float(stream.average_rate or 25)
        for packet in container.demux(stream):
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
            until = max(
                until, min(end, time + (packet.duration * tick if packet.duration else each))
            )  # FLV does not say
        check_length(until - begin, min(end, stated_length(container, stream)) - begin)
    if not stamps or len(set(stamps)) < len(stamps):
        return None
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
    total = 0
    for frame in decode_frames(path, span):
        if (total + 1) * frame.width * frame.height <= HELD:
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
        stream.thread_type = "NONE"  # preparing runs one process a core
        zero = ((container.start_time or 0) - 1) / av.time_base
        if begin > 0 and stream.time_base:
            container.seek(int((begin + zero) / stream.time_base), stream=stream)
        yield container, stream, zero


def read_audio(path: Path, rate: int = RATE) -> np.ndarray:
    """The sound of a file as one channel (L,) float32 at ``rate``: see ``read_audio_at``."""
    return read_audio_at(path, [rate])[0]


def read_audio_at(path: Path, rates: Sequence[int]) -> list[np.ndarray]:
    """The sound of a file as one channel (L,) float32 at each of some rates; decoded once. Channels are averaged.

    Values are within [-1, 1], but for what codecs and the change of the rate overshoot.

    Raises:
        BadFile: it cannot be decoded, holds less than 0.1 s of sound, or ends before 80 % of the length that its header tells.
    """
    import av

    check_file(path)
    try:
        with open_media(path) as container:
            if not container.streams.audio:
                raise BadFile("has no sound")
            stream = container.streams.audio[0]
            resamplers = [Resampler(rate) for rate in rates]
            joined, layout = av.AudioFifo(), ""  # frames are short: to resample each would cost more than to decode it
            for frame in container.decode(stream):
                if layout not in ("", frame.layout.name):  # the fifo would read beyond the frame
                    raise BadFile(f"changes its channels from {layout} to {frame.layout.name}")
                frame.pts, layout = None, frame.layout.name
                joined.write(frame)
                if joined.samples >= PIECE:
                    piece = joined.read()
                    for resampler in resamplers:
                        resampler.take(piece)
            rest = joined.read()
            sounds = [resampler.end(rest) for resampler in resamplers]
            stated = stated_length(container, stream)
    except (av.FFmpegError, OSError, ValueError, IndexError) as error:
        raise BadFile(f"not readable sound ({reason(error)})") from error
    if not all(map(len, sounds)):
        raise BadFile("holds no sound: its length is zero")
    check_length(lasts := len(sounds[0]) / rates[0], stated)
    if lasts < SHORTEST:
        raise BadFile(f"lasts {lasts:.3f} s, expected at least {SHORTEST} s")
    if not all(np.isfinite(sound).all() for sound in sounds):
        raise BadFile("holds values that are not finite")
    return sounds


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


def reason(error: Exception) -> str:
    """What an error says, without its number and the file's name."""
    return str(getattr(error, "strerror", None) or error)


def open_media(path: Path) -> av.container.InputContainer:
    """Open a file that FFmpeg is to decode; nothing that it says leads to another file, or to the network."""
    import av

    options = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}
    with path.open("rb") as stream:
        if stream.read(4) == b"RIFF" and stream.read(8)[4:] == b"WAVE":
            # Else PCM is searched for other codecs in disguise, for three times as long as decoding it takes.
            options["probesize"] = "4096"
    return av.open(str(path), options=options)


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
