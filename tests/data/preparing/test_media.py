"""Decoding: the right pixels, frames and samples out of real files, and a reason for every file that cannot be used."""

import math
import shutil
import wave
from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest
from PIL import Image

from mmbench.data.demo.media import picture, sound, write_picture, write_sound, write_video
from mmbench.data.preparing import frames as frames_module
from mmbench.data.preparing import media
from mmbench.data.preparing import sound as sound_module
from mmbench.data.preparing.frames import read_frames
from mmbench.data.preparing.media import BadFile, decoders
from mmbench.data.preparing.pictures import read_image
from mmbench.data.preparing.sound import read_audio, read_audio_at

# Pictures

SIZE = (8, 12)


def save(path, array, mode=None, **options):
    Image.fromarray(array, mode).save(path, **options) if mode is None else Image.fromarray(array).convert(mode).save(
        path, **options
    )
    return path


def block(*colour):
    return np.broadcast_to(np.array(colour, np.uint8), (*SIZE, len(colour))).copy()


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.webp", "a.tiff"])
def test_colours_keep_their_order_and_rows_their_place(tmp_path, name):
    pixels = block(200, 100, 50)
    pixels[:4] = (10, 20, 220)
    write_picture(tmp_path / name, pixels)
    got = read_image(tmp_path / name, SIZE)
    assert (got.shape, got.dtype) == ((*SIZE, 3), np.uint8)
    assert np.abs(got[6, 6].astype(int) - (200, 100, 50)).max() <= 8
    assert np.abs(got[1, 6].astype(int) - (10, 20, 220)).max() <= 8


@pytest.mark.parametrize("palette", [False, True])
def test_transparent_parts_are_white(tmp_path, palette):
    pixels = block(200, 0, 0, 255)
    pixels[:4, :, 3] = 0
    image = Image.fromarray(pixels)
    (image.quantize(4) if palette else image).save(tmp_path / "a.png")
    got = read_image(tmp_path / "a.png", SIZE)
    assert (got[:4] == 255).all()
    assert np.abs(got[5, 5].astype(int) - (200, 0, 0)).max() <= 2


def test_grey_sixteen_bit_bilevel_and_four_colours(tmp_path):
    save(tmp_path / "grey.png", np.full(SIZE, 90, np.uint8))
    save(tmp_path / "deep.png", np.full(SIZE, 90 * 257, np.uint16))
    save(tmp_path / "deep.tiff", np.full(SIZE, 90 * 257, np.uint16))
    save(tmp_path / "wide.tiff", np.full(SIZE, 90 * 257, np.int32))
    save(tmp_path / "cmyk.jpg", block(90, 90, 90), "CMYK", quality=95)
    for name in ("grey.png", "deep.png", "deep.tiff", "wide.tiff", "cmyk.jpg"):
        got = read_image(tmp_path / name, SIZE)
        assert got.shape == (*SIZE, 3)
        assert np.abs(got.astype(int) - 90).max() <= 3, name
    Image.fromarray(np.full(SIZE, 255, np.uint8)).convert("1").save(tmp_path / "bilevel.png")
    assert (read_image(tmp_path / "bilevel.png", SIZE) == 255).all()


def test_a_wide_picture_loses_its_sides_alike(tmp_path):
    pixels = np.zeros((20, 100, 3), np.uint8)
    pixels[:, 40:60] = 255
    write_picture(tmp_path / "a.png", pixels)
    got = read_image(tmp_path / "a.png", (10, 10))
    assert (got[:, 1:9] == 255).all(), "the middle 20 columns"
    assert (got[:, [0, 9]] > 200).all()
    got = read_image(tmp_path / "a.png", (10, 20))
    assert (got[5] == got[5, ::-1]).all()
    assert (got[5, 6:14] == 255).all()
    assert not got[5, :4].any()


def bad(read, path, *arguments, **options):
    """The reason why a file cannot be used."""
    with pytest.raises(BadFile) as caught:
        read(path, *arguments, **options)
    return str(caught.value)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp"])
def test_broken_pictures(tmp_path, name):
    write_picture(tmp_path / name, picture(0, 64, 64, "x"))
    whole = (tmp_path / name).read_bytes()
    for content in (whole[:-200], whole[:20], b"\0" * 500, b"<html>not found</html>"):
        (tmp_path / name).write_bytes(content)
        assert bad(read_image, tmp_path / name, SIZE).startswith(("not a readable picture", "is cut off"))


def test_what_is_no_picture_file(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "pointer.png").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    assert bad(read_image, tmp_path / "empty.png", SIZE) == "is empty"
    assert bad(read_image, tmp_path / "no.png", SIZE) == "is missing"
    assert bad(read_image, tmp_path, SIZE) == "is not a file"
    assert "git lfs pull" in bad(read_image, tmp_path / "pointer.png", SIZE)


def test_programs_and_bombs_are_not_opened(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    assert "of none of the kinds" in bad(read_image, tmp_path / "a.jpg", SIZE), "not handed to Ghostscript"
    Image.new("1", (10_000, 10_000)).save(tmp_path / "b.png")
    assert bad(read_image, tmp_path / "b.png", SIZE) == "has 10000 × 10000 pixels, expected at most 67 million"


# Videos: the number of a frame is its brightness

COUNT, FPS = 25, 12.5
VIDEOS = {
    "a.flv": "flv1",
    "a.mp4": "libx264",
    "a.avi": "mpeg4",
    "b.avi": "libx264",
    "a.mkv": "libx264",
    "sound.flv": "flv1",
    "sound.mp4": "libx264",
}
TRACKS = {"sound.flv": ("mp3", 22_050), "sound.mp4": ("aac", 16_000)}


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    root = tmp_path_factory.mktemp("videos")
    frames = [np.full((48, 64, 3), 20 + 8 * i, np.uint8) for i in range(COUNT)]
    for frame in frames:
        frame[:, 32:] = 255 - frame[:, 32:]  # the right half gets darker
    for name, codec in VIDEOS.items():
        track, rate = TRACKS.get(name, ("", 16_000))
        tone = sound(3, COUNT / FPS, rate, "tone") if track else None
        write_video(root / name, frames, FPS, codec, tone, rate, track)
    return root


def numbers(frames, right=False):
    """Which frames these are."""
    means = frames.mean(axis=(1, 2, 3))
    return [round((255 - mean if right else mean) / 8 - 2.5) for mean in means]


@pytest.mark.parametrize("name", VIDEOS)
def test_the_frames_that_are_asked_for_come_out(videos, name):
    path, size = videos / name, (24, 16)
    assert read_frames(path, 1, size, half="left").shape == (1, 24, 16, 3)
    assert numbers(read_frames(path, 1, size, half="left")) == [12]
    assert numbers(read_frames(path, 3, size, half="left")) == [0, 8, 16]
    assert numbers(read_frames(path, 5, size, half="right"), right=True) == [0, 5, 10, 15, 20]
    assert numbers(read_frames(path, 25, size, half="left")) == list(range(25))
    assert numbers(read_frames(path, 30, size, half="left")) == [i * 25 // 30 for i in range(30)]


@pytest.mark.parametrize("name", sorted(VIDEOS.keys() - {"b.avi"}))  # its frames have no times that could be relied on
def test_a_span_is_of_seconds_from_the_beginning(videos, name):
    with av.open(str(videos / name)) as container:
        times = [frame.time for frame in container.decode(video=0)]
    for begin, end in ((0.0, 0.5), (1.0, 1.6), (1.7, 9.0)):
        inside = [i for i, time in enumerate(times) if begin <= time < end]
        got = read_frames(videos / name, len(inside), (24, 16), (begin, min(end, 2.0)), "left")
        assert numbers(got) == inside
    assert bad(read_frames, videos / name, 1, (8, 8), (5.0, 6.0)) == "has no frame between 5 and 6 s"


def pixels(frames):
    return [frame.to_ndarray(format="rgb24") for frame in frames]


@pytest.mark.parametrize("name", VIDEOS)
@pytest.mark.parametrize("span", [None, (0.5, 1.7)])
@pytest.mark.parametrize("count", [1, 3, 7])
def test_frames_are_the_same_by_time_and_by_number(videos, name, span, count):
    by_number = frames_module.frames_by_number(videos / name, count, span)
    by_time = frames_module.frames_by_time(videos / name, count, span)
    if name in ("b.avi", "a.mkv"):
        assert by_time is None, "B-frames with times in the order of decoding, or with none"
    else:
        assert np.array_equal(pixels(by_time), pixels(by_number))


def encode(path, frames, rate, options, drop=0):
    """Write a video without its first packets."""
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "10", "g": "12"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        packets = [p for f in [*map(av.VideoFrame.from_ndarray, frames), None] for p in stream.encode(f)]
        for packet in packets[drop:]:
            container.mux(packet)
    return path


@pytest.mark.parametrize("rate", [Fraction(24000, 1001), Fraction(30000, 1001), 25])
@pytest.mark.parametrize(
    ("name", "options"), [("a.mp4", {"use_editlist": "0"}), ("a.ts", {}), ("a.mp4", {"movflags": "frag_keyframe"})]
)
def test_the_first_frame_counts_whatever_its_time(tmp_path, rate, name, options):
    frames = [np.full((48, 64, 3), 20 + 8 * i, np.uint8) for i in range(COUNT)]
    path = encode(tmp_path / name, frames, rate, options)
    assert numbers(read_frames(path, 3, (24, 16))) == [0, 8, 16]
    assert numbers(read_frames(path, 2, (24, 16), (0.0, 1.0))) == [0, min(math.ceil(rate), COUNT) // 2]


def test_a_video_that_begins_in_the_middle_is_read_by_number(tmp_path):
    frames = [np.full((48, 64, 3), 20 + 8 * i, np.uint8) for i in range(COUNT)]
    path = encode(tmp_path / "a.flv", frames, 25, {}, drop=3)
    assert frames_module.frames_by_time(path, 1, None) is None
    assert np.array_equal(read_frames(path, 1, (48, 64))[0], pixels(frames_module.frames_by_number(path, 1, None))[0])


def test_what_comes_after_the_last_frame_wanted_is_not_decoded(videos, tmp_path):
    with av.open(str(videos / "a.flv")) as container:
        places = [packet.pos for packet in container.demux(video=0) if packet.size]
    content = bytearray((videos / "a.flv").read_bytes())
    content[places[20] + 20 : places[21] - 20] = bytes(places[21] - places[20] - 40)  # frame 20 is spoilt
    (tmp_path / "a.flv").write_bytes(content)
    assert numbers(read_frames(tmp_path / "a.flv", 3, (24, 16), half="left")) == [0, 8, 16]


def test_long_videos_are_decoded_twice_instead_of_being_held(videos, monkeypatch):
    """Where time stamps do not tell which frames are wanted."""
    expected = read_frames(videos / "a.mp4", 4, (24, 16))
    monkeypatch.setattr(frames_module, "frames_by_time", lambda *a: None)
    calls = []
    decode = frames_module.decode_frames
    monkeypatch.setattr(frames_module, "decode_frames", lambda *a: calls.append(a) or decode(*a))
    monkeypatch.setattr(frames_module, "HELD", 10 * 48 * 64)
    assert np.array_equal(read_frames(videos / "a.mp4", 4, (24, 16)), expected)
    assert len(calls) == 2


@pytest.mark.parametrize("name", VIDEOS)
@pytest.mark.parametrize("share", [0.7, 0.4, 0.05])
def test_the_missing_end_of_a_video_is_noticed(videos, tmp_path, name, share):
    whole = (videos / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: int(share * len(whole))])
    assert bad(read_frames, tmp_path / name, 3, (8, 8)).startswith(("is cut off", "not a readable video", "has no"))


def test_a_short_video_without_durations_is_whole(tmp_path):
    for count in (1, 2, 5):
        write_video(tmp_path / "a.flv", [np.full((48, 64, 3), 99, np.uint8)] * count, 15, "flv1")
        assert read_frames(tmp_path / "a.flv", 1, (8, 8)).shape == (1, 8, 8, 3)


def test_what_is_no_video(videos, tmp_path):
    write_sound(tmp_path / "a.wav", sound(0, 0.2, 16_000, "x"), 16_000)
    assert bad(read_frames, tmp_path / "a.wav", 1, (8, 8)) == "has no video stream"
    (tmp_path / "a.flv").write_bytes(np.random.default_rng(0).bytes(5000))
    assert bad(read_frames, tmp_path / "a.flv", 1, (8, 8)).startswith("not a readable video (Invalid data")
    (tmp_path / "b.flv").write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{videos / 'a.mp4'}\n#EXT-X-ENDLIST\n"
    )
    assert bad(read_frames, tmp_path / "b.flv", 1, (8, 8)).startswith("not a readable video"), "no playlists"
    (tmp_path / "c.flv").write_text("ffconcat version 1.0\nfile a.mp4\n")
    shutil.copy(videos / "a.mp4", tmp_path)
    assert bad(read_frames, tmp_path / "c.flv", 1, (8, 8)).startswith("not a readable video"), "no playlists"


# Sound


def write_wav(path, channels, rate=16_000):
    """Write (L, channels) float."""
    with wave.open(str(path), "wb") as out:
        out.setnchannels(channels.shape[1])
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes((channels * 32767).round().astype("<i2").tobytes())
    return path


def tone(frequency, seconds, rate):
    return 0.5 * np.sin(2 * np.pi * frequency * np.arange(int(seconds * rate)) / rate)


def pitch(samples, rate):
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return np.fft.rfftfreq(len(samples), 1 / rate)[spectrum.argmax()]


def test_samples_of_the_same_rate_are_those_of_the_file(tmp_path):
    samples = np.random.default_rng(0).uniform(-1, 1, (5000, 1))
    got = read_audio(write_wav(tmp_path / "a.wav", samples))
    assert got.dtype == np.float32
    assert np.abs(got - samples[:, 0]).max() < 2 / 32768


@pytest.mark.parametrize(("rate", "wanted"), [(44_100, 16_000), (16_000, 22_050), (8_000, 16_000)])
def test_another_rate_keeps_pitch_length_and_loudness(tmp_path, rate, wanted):
    got = read_audio(write_wav(tmp_path / "a.wav", tone(1000, 1.0, rate)[:, None], rate), wanted)
    assert abs(len(got) - wanted) <= 32
    assert abs(pitch(got, wanted) - 1000) < 2
    middle = got[wanted // 4 : 3 * wanted // 4]
    assert abs(np.sqrt(2 * np.square(middle).mean()) - 0.5) < 0.005


def test_channels_are_averaged(tmp_path):
    left, right = tone(500, 0.5, 16_000), np.full(8000, 0.3)
    got = read_audio(write_wav(tmp_path / "a.wav", np.stack([left, right], axis=1)))
    assert np.abs(got - (left + right) / 2).max() < 2 / 32768
    got = read_audio(write_wav(tmp_path / "b.wav", np.stack([left] * 2, axis=1)), 22_050)
    assert abs(np.abs(got[2000:9000]).max() - 0.5) < 0.01


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.wav", "pcm_s16le"),
        ("b.wav", "pcm_f32le"),
        ("a.ogg", "flac"),
        ("a.m4a", "aac"),
        ("a.mp3", "mp3"),
        ("a.flac", "flac"),
    ],
)
def test_other_containers_hold_the_same_tone(tmp_path, name, codec):
    write_sound(tmp_path / name, tone(1000, 1.0, 16_000).astype(np.float32), 16_000, codec)
    got = read_audio(tmp_path / name)
    assert abs(len(got) - 16_000) < 1200
    assert abs(pitch(got, 16_000) - 1000) < 2
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    assert bad(read_audio, tmp_path / name).startswith(("is cut off", "not readable sound"))


def test_the_sound_of_a_video(videos):
    for name in TRACKS:
        got = read_audio(videos / name)
        assert abs(len(got) / 16_000 - COUNT / FPS) < 0.1
        assert abs(pitch(got, 16_000) - pitch(sound(3, 2.0, 16_000, "tone"), 16_000)) < 2


def test_what_is_no_sound(videos, tmp_path):
    assert bad(read_audio, videos / "a.mp4") == "has no sound"
    assert bad(read_audio, write_wav(tmp_path / "a.wav", np.zeros((0, 1)))).startswith(
        ("holds no sound", "not readable")
    )
    (tmp_path / "b.wav").write_text("This is a text.\n" * 100)
    assert bad(read_audio, tmp_path / "b.wav").startswith(("not readable sound", "has no sound"))
    (tmp_path / "c.wav").touch()
    assert bad(read_audio, tmp_path / "c.wav") == "is empty"
    assert bad(read_audio, tmp_path / "d.wav") == "is missing"
    write_sound(tmp_path / "e.wav", sound(0, 0.1, 16_000, "x"), 16_000, "pcm_f32le")
    content = bytearray((tmp_path / "e.wav").read_bytes())
    content[-4:] = np.array([np.nan], "<f4").tobytes()
    (tmp_path / "e.wav").write_bytes(content)
    assert bad(read_audio, tmp_path / "e.wav") == "holds values that are not finite"


def test_sound_too_short_for_a_word(tmp_path):
    few = bad(read_audio, write_wav(tmp_path / "few.wav", np.zeros((3, 1))), 8_000)
    assert few in ("holds no sound: its length is zero", "lasts 0.000 s, expected at least 0.1 s")
    assert (
        bad(read_audio, write_wav(tmp_path / "a.wav", np.zeros((1590, 1)))) == "lasts 0.099 s, expected at least 0.1 s"
    )
    assert len(read_audio(write_wav(tmp_path / "b.wav", np.zeros((1600, 1))))) == 1600


@pytest.mark.parametrize("layouts", [("stereo", "mono"), ("mono", "stereo")])
def test_sound_whose_channels_change_is_refused(tmp_path, layouts):
    for layout in layouts:
        with av.open(str(tmp_path / f"{layout}.aac"), "w", format="adts") as container:
            stream = container.add_stream("aac", rate=16_000, layout=layout)
            samples = np.full((1 + (layout == "stereo"), 8192), 0.25, np.float32)
            frame = av.AudioFrame.from_ndarray(samples, "fltp", layout)
            frame.sample_rate = 16_000
            for packet in [*stream.encode(frame), *stream.encode()]:
                container.mux(packet)
    joined = b"".join((tmp_path / f"{layout}.aac").read_bytes() for layout in layouts)
    (tmp_path / "joined.aac").write_bytes(joined)
    assert bad(read_audio, tmp_path / "joined.aac") == f"changes its channels from {layouts[0]} to {layouts[1]}"


def test_long_sound_is_the_same_in_pieces(tmp_path, monkeypatch):
    path = write_wav(tmp_path / "a.wav", np.random.default_rng(0).uniform(-0.5, 0.5, (30_000, 2)))
    whole = read_audio_at(path, [16_000, 22_050])
    monkeypatch.setattr(sound_module, "PIECE", 5000)
    assert all(
        np.array_equal(one, other) for one, other in zip(whole, read_audio_at(path, [16_000, 22_050]), strict=True)
    )


def test_two_rates_of_one_decoding_are_those_of_two(videos):
    for name in TRACKS:
        both = read_audio_at(videos / name, [16_000, 22_050])
        assert np.array_equal(both[0], read_audio(videos / name))
        assert np.array_equal(both[1], read_audio(videos / name, 22_050))


def test_a_wav_of_unknown_length_and_one_that_overstates_by_its_head_are_whole(tmp_path):
    path = write_wav(tmp_path / "a.wav", tone(1000, 0.2, 16_000)[:, None])
    content = path.read_bytes()
    for stated in (0xFFFFFFFF, len(content)):
        path.write_bytes(content[:4] + stated.to_bytes(4, "little") + content[8:])
        assert len(read_audio(path)) == 3200
    path.write_bytes(content[:-20])
    assert bad(read_audio, path) == f"is cut off: it has {len(content) - 20} bytes of {len(content)}"


def test_versions_are_told():
    assert decoders()["pyav"] == av.__version__
    assert decoders().keys() == {"pyav", "ffmpeg", "pillow"}


def test_lengths_that_no_header_tells():
    container = SimpleNamespace(duration=None, format=SimpleNamespace(name="flv"))
    stream = SimpleNamespace(duration=None, time_base=None, metadata={})
    assert media.stated_length(container, stream, {}) == float("inf")
    media.check_length(1.0, float("inf"))
