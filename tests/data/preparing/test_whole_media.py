"""Media files as they are found: whole ones that seem cut off, cut ones, turned ones, and ones of sizes that nothing should have."""

import io
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from mmbench.data.demo.media import encode_sound, sound, write_sound
from mmbench.data.preparing import sound as sound_module
from mmbench.data.preparing.frames import read_frames
from mmbench.data.preparing.media import BadFile, noting
from mmbench.data.preparing.pictures import read_image
from mmbench.data.preparing.sound import read_audio


def bad(read, path, *arguments):
    """The reason why a file cannot be used."""
    with pytest.raises(BadFile) as caught:
        read(path, *arguments)
    return str(caught.value)


# Streams of different lengths

CODECS = {
    "a.flv": ("flv1", "mp3", 22_050),
    "a.mkv": ("mpeg4", "aac", 16_000),
    "bare.mkv": ("mpeg4", "aac", 16_000),
    "a.webm": ("libvpx", "libopus", 48_000),
    "a.mp4": ("mpeg4", "aac", 16_000),
    "a.avi": ("mpeg4", "mp3", 16_000),
    "a.ts": ("mpeg1video", "mp2", 16_000),
    "a.wmv": ("wmv1", "mp3", 16_000),
}


def write(path, seconds, sounds, codecs):
    """A video of ``seconds`` with ``sounds`` seconds of sound, as players' software interleaves them."""
    video_codec, audio_codec, rate = codecs
    with av.open(str(path), "w") as container:
        stream = container.add_stream(video_codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        track = container.add_stream(audio_codec, rate=rate, layout="mono")
        for i in range(int(25 * seconds)):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 2 * i, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        encode_sound(container, track, sound(0, sounds, rate, "x"), rate, av)
    if path.name.startswith("bare"):  # without the streams' own lengths, which not every writer tells
        path.write_bytes(path.read_bytes().replace(b"DURATION", b"COMMENTS"))


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize(("seconds", "sounds"), [(1, 3), (3, 1), (2, 2)])
def test_a_stream_may_be_much_shorter_than_the_other(tmp_path, name, seconds, sounds):
    write(tmp_path / name, seconds, sounds, CODECS[name])
    frames = read_frames(tmp_path / name, 2, (8, 8))
    assert abs(frames[1].mean() - 2 * (25 * seconds // 2)) < 4, "the frame in the middle"
    assert abs(len(read_audio(tmp_path / name)) / 16_000 - sounds) < 0.2


@pytest.mark.parametrize("name", ["a.flv", "bare.mkv", "a.webm", "a.mp4", "a.avi"])
@pytest.mark.parametrize("share", [0.6, 0.3])
def test_the_missing_end_of_either_stream_is_noticed(tmp_path, name, share):
    write(tmp_path / name, 3, 3, CODECS[name])
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: int(share * len(whole))])
    for read in (lambda path: read_frames(path, 2, (8, 8)), read_audio):
        assert bad(read, tmp_path / name).startswith(("is cut off", "not readable", "not a readable", "has no"))


# Sound whose heads are wrong, and sound that is cut off


@pytest.fixture
def wav(tmp_path):
    write_sound(tmp_path / "a.wav", sound(0, 0.5, 16_000, "x"), 16_000)
    return tmp_path / "a.wav"


@pytest.mark.parametrize("riff", [0, 100, 0x7FFFFFFF, 0xFFFFFFFF, "long"])
@pytest.mark.parametrize("data", [0, 0x7FFFF000, 0xFFFFFFFF, "right"])
def test_a_wav_with_all_its_samples_is_whole_whatever_its_head_says(wav, riff, data):
    content, expected = bytearray(wav.read_bytes()), read_audio(wav)
    at = content.index(b"data")
    if data != "right":
        content[at + 4 : at + 8] = data.to_bytes(4, "little")
    content[4:8] = (len(content) + 92 if riff == "long" else riff).to_bytes(4, "little")
    wav.write_bytes(content)
    assert np.array_equal(read_audio(wav), expected)


@pytest.mark.parametrize("padded", [True, False])
def test_chunks_of_odd_lengths_before_the_sound(wav, padded):
    content, expected = wav.read_bytes(), read_audio(wav)
    at = content.index(b"data")
    odd = b"note" + (5).to_bytes(4, "little") + b"abcde" + b"\0" * padded
    wav.write_bytes(content[:at] + odd + content[at:])
    if padded:
        assert np.array_equal(read_audio(wav), expected)
    wav.write_bytes(wav.read_bytes()[:-1000])
    assert bad(read_audio, wav).startswith(("is cut off", "not readable"))


@pytest.mark.parametrize("lost", [20, 4000, 15_000])
def test_a_wav_that_is_cut_off_is_noticed(wav, lost):
    content = wav.read_bytes()
    wav.write_bytes(content[:-lost])
    assert bad(read_audio, wav) == f"is cut off: it has {len(content) - lost} bytes of {len(content)}"


def test_an_ogg_that_is_cut_off_is_noticed(tmp_path):
    path = tmp_path / "a.ogg"
    write_sound(path, sound(0, 3, 48_000, "x"), 48_000, "libopus")
    content = path.read_bytes()
    assert abs(len(read_audio(path)) - 48_000) < 1600
    for share in (0.3, 0.6, 0.95):
        path.write_bytes(content[: int(share * len(content))])
        assert bad(read_audio, path).startswith("is cut off: it has ")


def test_the_head_of_an_avi_may_be_wrong(tmp_path):
    write(tmp_path / "a.avi", 1, 1, CODECS["a.avi"])
    content = bytearray((tmp_path / "a.avi").read_bytes())
    content[4:8] = (len(content) + 100).to_bytes(4, "little")
    (tmp_path / "a.avi").write_bytes(content)
    assert read_frames(tmp_path / "a.avi", 1, (8, 8)).shape == (1, 8, 8, 3)


@pytest.mark.parametrize(("name", "codec", "options"), [("a.mp3", "mp3", {"write_xing": "0"}), ("a.aac", "aac", {})])
def test_a_length_that_is_only_estimated_is_no_promise(tmp_path, name, codec, options):
    quiet = np.zeros(6 * 22_050, np.float32)
    quiet[:11_025] = np.random.default_rng(0).uniform(-1, 1, 11_025)
    with av.open(str(tmp_path / name), "w", format="adts" if codec == "aac" else "mp3", options=options) as container:
        stream = container.add_stream(codec, rate=22_050, layout="mono")
        encode_sound(container, stream, quiet, 22_050, av)
    assert abs(len(read_audio(tmp_path / name)) / 16_000 - 6) < 0.2


# Turned pictures and videos


def quarters():
    """A picture whose quarters are red, green, blue and white: what is where is seen whatever the way it was turned."""
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[:24, :32, 0] = pixels[:24, 32:, 1] = pixels[24:, :32, 2] = 255
    pixels[24:, 32:] = 255
    return pixels


TURNS = {  # EXIF's number -> what is to be seen of the pixels as they are stored
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.swapaxes(0, 1),
    6: lambda p: np.rot90(p, -1),
    7: lambda p: p[::-1, ::-1].swapaxes(0, 1),
    8: lambda p: np.rot90(p),
}


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tiff"])
@pytest.mark.parametrize("turn", TURNS)
def test_pictures_are_seen_as_their_exif_data_say(tmp_path, name, turn):
    exif = Image.Exif()
    exif[0x0112] = turn
    Image.fromarray(quarters()).save(tmp_path / name, exif=exif, **({"quality": 95} if name != "a.png" else {}))
    expected = TURNS[turn](quarters())
    got = read_image(tmp_path / name, expected.shape[:2])
    assert np.abs(got[4::8, 4::8].astype(int) - expected[4::8, 4::8]).max() < 40


@pytest.mark.parametrize("turn", [0, 9, 700])
def test_exif_data_that_say_nothing_change_nothing(tmp_path, turn):
    exif = Image.Exif()
    exif[0x0112] = turn
    Image.fromarray(quarters()).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "a.png", (48, 64)), quarters())
    Image.fromarray(quarters()).save(tmp_path / "b.png", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12")
    assert np.array_equal(read_image(tmp_path / "b.png", (48, 64)), quarters())


MATRICES = {
    1: (1, 0, 0, 1),
    2: (-1, 0, 0, 1),
    3: (-1, 0, 0, -1),
    4: (1, 0, 0, -1),
    6: (0, 1, -1, 0),
    8: (0, -1, 1, 0),
    5: (0, 1, 1, 0),
}


@pytest.mark.parametrize("turn", MATRICES)
def test_videos_are_seen_as_their_display_matrix_says(tmp_path, turn):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10, bit_rate=4_000_000)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(4):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(quarters(), format="rgb24")))
        container.mux(stream.encode(None))
    content = bytearray((tmp_path / "a.mp4").read_bytes())
    at = content.index(b"tkhd") + 44
    a, b, c, d = (value << 16 for value in MATRICES[turn])
    content[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    (tmp_path / "a.mp4").write_bytes(content)
    expected = TURNS[turn](quarters())
    got = read_frames(tmp_path / "a.mp4", 1, expected.shape[:2])[0]
    assert np.abs(got[4::8, 4::8].astype(int) - expected[4::8, 4::8]).max() < 60


# Sizes that nothing should have


def jpeg(side):
    """The bytes of a black picture."""
    stream = io.BytesIO()
    Image.new("L", (side, side)).save(stream, "JPEG")
    return stream.getvalue()


def write_mjpeg(path, sides, stated):
    """A video whose frames are pictures of these sides, and whose header tells another one."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=1)
        stream.width, stream.height, stream.pix_fmt = stated, stated, "yuvj420p"
        for i, side in enumerate(sides):
            packet = av.Packet(jpeg(side))
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, i, i, Fraction(1, 1)
            packet.is_keyframe = True
            container.mux(packet)


@pytest.mark.parametrize(("sides", "stated"), [([7000], 7000), ([7000], 64), ([64, 7000, 64], 64)])
@pytest.mark.parametrize("name", ["a.avi", "a.mkv"])
def test_frames_of_too_many_pixels_are_not_decoded(tmp_path, name, sides, stated):
    write_mjpeg(tmp_path / name, sides, stated)
    assert "at most 34 million" in bad(read_frames, tmp_path / name, 3, (8, 8))


def test_frames_may_change_their_size(tmp_path):
    write_mjpeg(tmp_path / "a.avi", [64, 200, 64], 64)
    assert read_frames(tmp_path / "a.avi", 3, (8, 8), None, "left").shape == (3, 8, 8, 3)


def stated_size(name, width, height):
    """A small picture whose head tells a large size."""
    stream = io.BytesIO()
    Image.new("RGB", (2, 2)).save(stream, name)
    content = bytearray(stream.getvalue())
    if name == "BMP":
        content[18:26] = struct.pack("<ii", width, height)
    elif name == "GIF":
        content[6:10] = struct.pack("<HH", width, height)
    elif name == "PNG":
        import zlib

        content[16:24] = struct.pack(">II", width, height)
        content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    else:
        at = content.index(b"\xff\xc0") + 5
        content[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(content)


@pytest.mark.parametrize("side", [9000, 12_000, 30_000])
@pytest.mark.parametrize("name", ["BMP", "GIF", "PNG", "JPEG"])
def test_pictures_of_too_many_pixels_are_not_decoded(tmp_path, name, side):
    (tmp_path / "a").write_bytes(stated_size(name, side, side))
    assert bad(read_image, tmp_path / "a", (8, 8)).endswith("expected at most 67 million")


@pytest.mark.parametrize(
    ("rate", "channels", "reason"), [(1, 1, "has 1 samples a second"), (16_000, 200, "has 200 channels")]
)
def test_sound_that_nothing_records_is_refused(wav, rate, channels, reason):
    content = bytearray(wav.read_bytes())
    content[22:24], content[24:28] = channels.to_bytes(2, "little"), rate.to_bytes(4, "little")
    content[28:32], content[32:34] = (rate * channels * 2).to_bytes(4, "little"), (channels * 2).to_bytes(2, "little")
    wav.write_bytes(content)
    assert reason in bad(read_audio, wav)


def test_sound_that_lasts_too_long_is_refused(wav, monkeypatch):
    monkeypatch.setattr(sound_module, "LONGEST", 0.3)
    assert bad(read_audio, wav) == "lasts more than 0.3 s, which is the most that is read"


# What is noted


def test_length_and_peak_are_noted(wav, tmp_path):
    with noting() as facts:
        peak = np.abs(read_audio(wav)).max()
    assert facts == {"seconds": 0.5, "peak": pytest.approx(float(peak))}
    write(tmp_path / "a.mp4", 2, 1, CODECS["a.mp4"])
    with noting() as facts:
        read_frames(tmp_path / "a.mp4", 1, (8, 8))
    assert facts == {"seconds": pytest.approx(2, abs=0.01)}
    with noting() as facts:
        read_frames(tmp_path / "a.mp4", 1, (8, 8), (0, 1))
    assert facts == {}
