"""What decoding pictures, sound and video has in common: files that are not whole, lengths, bounds, and what is noted on the way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    import av

WHOLE = 0.8  # the share of its stated length that a file must hold: headers are not exact, and a cut-off file decodes without an error
FRAME_PIXELS = 1 << 25  # that a frame may have: 8K is 33 million
# What FFmpeg may take a file for. Playlists, which name other files, are not among it.
CONTAINERS = "aac,aiff,asf,avi,flac,flv,matroska,webm,mov,mp4,mp3,mpeg,mpegts,mpegvideo,ogg,wav"
OWN_LENGTHS = {
    "aiff",
    "avi",
    "flac",
    "mov",
    "mp3",
    "ogg",
    "wav",
}  # containers whose header tells the length of each stream
UNKNOWN = 0x7FFFF000  # lengths of chunks from here on, and 0, are what is written where the length was not known yet
NOTED: ContextVar[dict[str, float] | None] = ContextVar("NOTED", default=None)


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


@contextmanager
def noting() -> Iterator[dict[str, float]]:
    """Collect what decoders note while the context lasts: ``seconds`` of sound or video, ``peak`` of sound (1 is full scale)."""
    facts: dict[str, float] = {}
    token = NOTED.set(facts)
    try:
        yield facts
    finally:
        NOTED.reset(token)


def note(**facts: float) -> None:
    """Note something about the file that is being decoded, for whoever collects it."""
    noted = NOTED.get()
    if noted is not None:
        noted.update(facts)


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


# Lengths


def packets(
    container: av.container.InputContainer, stream: av.stream.Stream, ends: dict[int, float]
) -> Iterator[av.Packet]:
    """The packets of a stream.

    Args:
        container: an open file.
        stream: one of its streams.
        ends: takes, for the streams whose packets were seen, the seconds at which the last one ends. All streams are looked at where
            the header does not tell the length of this one.
    """
    alone = own_length(container, stream) is not None
    for packet in container.demux(stream) if alone else container.demux():
        if packet.size and packet.pts is not None and packet.time_base:
            end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
            ends[packet.stream.index] = max(end, ends.get(packet.stream.index, end))
        if packet.stream.index == stream.index:
            yield packet


def own_length(container: av.container.InputContainer, stream: av.stream.Stream) -> float | None:
    """The seconds that this stream lasts by the file's header; None where it tells, at most, the length of the longest stream."""
    name = container.format.name.split(",")[0]
    if name in OWN_LENGTHS and stream.duration and stream.time_base and not (name == "mp3" and estimated(container)):
        return float(stream.duration * stream.time_base)
    told = next((value for key, value in stream.metadata.items() if key.upper().startswith("DURATION")), "")
    try:  # Matroska: 00:01:02.500000000
        hours, minutes, seconds = map(float, told.split(":"))
    except ValueError:
        return None
    lasts = 3600 * hours + 60 * minutes + seconds
    return min(lasts, whole_length(container)) if lasts > 0 else None


def whole_length(container: av.container.InputContainer) -> float:
    """The seconds that a file lasts by its header, which is as long as its longest stream; infinity if it does not say."""
    import av

    if container.duration is None or container.format.name == "aac" or estimated(container):
        return float("inf")
    return container.duration / av.time_base


def estimated(container: av.container.InputContainer) -> bool:
    """Whether the length of an MP3 file is no more than what the first frames' bit rate makes it, since no header tells it."""
    if container.format.name != "mp3":
        return False
    with open(container.name, "rb") as file:
        head = file.read(10)
        if head[:3] == b"ID3":  # a tag, of a length in seven bits a byte, comes before the first frame
            file.seek(10 + sum((byte & 0x7F) << (7 * i) for i, byte in enumerate(reversed(head[6:10]))))
            head = b""
        first = head + file.read(4096)
    return not any(mark in first for mark in (b"Xing", b"Info", b"VBRI"))


def stated_length(
    container: av.container.InputContainer, stream: av.stream.Stream, ends: dict[int, float], zero: float = 0
) -> float:
    """The seconds that a stream ought to last, infinity if nothing tells.

    Where the header tells the length of the longest stream alone, and any stream reaches it, nothing is missing: then it is that of the
    stream's packets.

    Args:
        container: an open file.
        stream: one of its streams.
        ends: what ``packets`` saw.
        zero: the time at which the file starts.
    """
    own = own_length(container, stream)
    if own is not None:
        return own
    whole = whole_length(container)
    reached = max(ends.values(), default=zero) - zero >= WHOLE * whole
    return ends.get(stream.index, zero) - zero if reached else whole


def check_length(decoded: float, stated: float) -> None:
    """Refuse a file of which the end is missing; decoders say nothing of it. Both lengths are in seconds."""
    if 0 < stated < float("inf") and decoded < WHOLE * stated:
        raise BadFile(f"is cut off: {max(0, decoded):.2f} s could be decoded of {stated:.2f} s")


# Files that are not whole


def check_file(path: Path) -> None:
    """Refuse what is no file, empty ones, and WAV, AVI, WebP and Ogg files that end before what they hold does."""
    if not path.is_file():
        raise BadFile("is missing" if not path.exists() else "is not a file")
    size = path.stat().st_size
    if not size:
        raise BadFile("is empty")
    try:
        with path.open("rb") as stream:
            head = stream.read(12)
            end = riff_end(stream, size) if head[:4] == b"RIFF" else ogg_end(stream, size) if head[:4] == b"OggS" else 0
    except OSError as error:
        raise BadFile(f"cannot be read ({error.strerror})") from error
    if end > size:
        raise BadFile(f"is cut off: it has {size} bytes of {end}")
    if (head + b" ").startswith(b"version "):
        raise BadFile("is no media file but a git-lfs pointer (`git lfs pull` gets the files)")


def riff_end(stream: BinaryIO, size: int) -> int:
    """Where the sound of a WAV, the frames of an AVI or the picture of a WebP file end by their chunk's length; 0 if nothing tells.

    The length in the file's head is not looked at: it is often wrong, and what it counts after those chunks is not needed.
    """
    at = 12
    while at + 8 <= size:
        stream.seek(at)
        head = stream.read(12)
        name, length = head[:4], int.from_bytes(head[4:8], "little")
        end = at + 8 + length
        if name in (b"data", b"VP8 ", b"VP8L") or (name == b"LIST" and head[8:] == b"movi"):
            return end if 0 < length < UNKNOWN else 0
        at = end + length % 2
        if length % 2:  # some writers leave the byte out that makes lengths even
            stream.seek(end)
            beyond = stream.read(5)
            at -= beyond[:4].isalnum() and not beyond[1:].strip().isalnum()
    return 0


def ogg_end(stream: BinaryIO, size: int) -> int:
    """Where the last page of an Ogg file ends by its head; nothing else tells that the file is cut off."""
    start = max(0, size - (1 << 17))  # a page has at most 65,307 bytes
    stream.seek(start)
    rest = stream.read()
    at = rest.rfind(b"OggS")
    page = rest[at:] if at >= 0 else b""
    if len(page) < 27 or len(page) < 27 + page[26]:
        return size + 1 if page else 0
    return start + at + 27 + page[26] + sum(page[27 : 27 + page[26]])
