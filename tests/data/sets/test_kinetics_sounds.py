"""Kinetics-Sounds: a tiny copy in the real layout, its splits and arrays, OGM-GE's lists, and every mistake in them."""

import json
import re
import shutil
from functools import wraps
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest
import torch

from folding import check_ids
from mmbench.baselines import METHODS
from mmbench.data.demo import kinetics_sounds as demo
from mmbench.data.demo.media import sound, write_sound, write_video
from mmbench.data.preparing.audit import audit
from mmbench.data.preparing.lists import links_into
from mmbench.data.preparing.manifest import verify
from mmbench.data.preparing.media import BadFile
from mmbench.data.preparing.prepare import check_listing, prepare
from mmbench.data.preparing.video import decode_video
from mmbench.data.sets.kinetics_sounds import KineticsSounds, decode_audio
from mmbench.encoders.building import build_encoder
from mmbench.errors import UsageError
from mmbench.experiment.plan import expand
from mmbench.recipe import Recipe
from toy import reseal

CLASSES = KineticsSounds.classes
KEPT = CLASSES[7:13]  # the folders that are decoded here
CLIP = "videos/tickling/0a1B2c3D4e5_000012_000022.mp4"


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """The tiny copy."""
    raw = tmp_path_factory.mktemp("kinetics_sounds")
    demo.write(raw)
    return raw


@pytest.fixture(scope="module")
def part(whole, tmp_path_factory) -> Path:
    """A few classes of it, prepared; the folder that MMBENCH_DATA has to name."""
    raw, root = tmp_path_factory.mktemp("part"), tmp_path_factory.mktemp("root")
    for name in KEPT:
        shutil.copytree(whole / "videos" / name, raw / "videos" / name)
    shutil.copytree(whole / "lists", raw / "lists")
    clips = {clip_of(path) for path in raw.rglob("*.mp4")}
    for path in raw.glob("lists/my_*.txt"):
        path.write_text("".join(line for line in path.read_text().splitlines(True) if clip_in(line) in clips))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMBENCH_DATA", str(root))
        prepare(KineticsSounds, raw, say=lambda text: None)
    return root


@pytest.fixture
def raw(tmp_path) -> Path:
    """A layout of empty files, enough for scanning."""
    lay(tmp_path, CLIP, "videos/bowling/ZZZZZZZZZZZ_000000_000010.mp4")
    return tmp_path


def lay(root: Path, *files: str) -> None:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()


def lists(raw: Path, train: str, test: str, classes=CLASSES) -> None:
    (raw / "lists").mkdir(exist_ok=True)
    (raw / "lists/my_train.txt").write_text(train)
    (raw / "lists/my_test.txt").write_text(test)
    (raw / "lists/classes.txt").write_text("".join(f"{name}\n" for name in classes))


def clip_of(path: Path) -> str:
    """By the places of the characters: 0a1B2c3D4e5_000012_000022.mp4."""
    return f"{path.name[:11]}_{int(path.name[12:18])}"


def clip_in(line: str) -> str:
    """Of a line of a list: 0a1B2c3D4e5_12,10,3, or 0a1B2c3D4e5_000012_000022,10,3."""
    return f"{line[:11]}_{int(line[12:].split(',')[0].split('_')[0])}"


def table(samples) -> pd.DataFrame:
    """What ``clean`` is given, without a file being read."""
    columns = {"id": [s.id for s in samples], "label": [s.label for s in samples], "group": [s.group for s in samples]}
    return pd.DataFrame({**columns, "sha256_audio": columns["id"], "sha256_video": columns["id"]})


def frame(groups, labels, hashes=None) -> pd.DataFrame:
    hashes = [f"h{i}" for i in range(len(groups))] if hashes is None else hashes
    return pd.DataFrame({"group": groups, "label": labels, "sha256_audio": hashes, "sha256_video": hashes})


# The tiny copy


def test_demo_is_laid_out_and_encoded_as_the_original(whole):
    assert {path.name for path in (whole / "videos").iterdir()} == set(CLASSES)
    files = sorted(whole.rglob("*.mp4"))
    assert len(files) == 6 * 31
    with av.open(str(files[0])) as container:
        assert "mp4" in container.format.name
        assert [(s.type, s.codec_context.name) for s in container.streams] == [("video", "h264"), ("audio", "aac")]


def test_demo_is_the_same_each_time(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(KineticsSounds, "classes", CLASSES[:1])
    demo.write(tmp_path)
    for path in (tmp_path / "videos").rglob("*.mp4"):
        assert path.read_bytes() == (whole / path.relative_to(tmp_path)).read_bytes()


def test_samples_are_told_by_folders_and_lists(whole):
    listing = KineticsSounds.scan(whole)
    assert not listing.skipped
    assert not listing.unlisted
    assert not listing.notes
    assert [s.id for s in listing.samples] == sorted(clip_of(path) for path in whole.rglob("*.mp4"))
    for sample in listing.samples:
        path = whole / sample.files["video"]
        assert sample.files["audio"] == sample.files["video"]
        assert path.is_file()
        assert (clip_of(path), path.parent.name, path.name[:11]) == (sample.id, CLASSES[sample.label], sample.group)
    for split in ("train", "test"):
        names = {clip_in(line) for line in (whole / f"lists/my_{split}.txt").read_text().split()}
        assert {s.id for s in listing.samples if s.legacy == split} == names
    names = [name.strip().replace("_", " ") for name in (whole / "lists/class.txt").read_text().split(",")]
    assert names != list(CLASSES), "the order has to matter"
    assert sorted(names) == sorted(CLASSES)


def test_demo_has_the_formats_of_the_releases(whole):
    train, test = ((whole / f"lists/my_{split}.txt").read_bytes().decode() for split in ("train", "test"))
    assert re.fullmatch(r"(-[\w-]{9}_?_\d{6}_\d{6},10,\d+\r\n)+", train), (
        "id, start and end; ids may begin with - and hold _"
    )
    assert re.fullmatch(r"(-[\w-]{9}_?_\d{1,2},10,\d+\r\n)+", test), "id and start"
    assert re.fullmatch(r"[a-z ,_]+", (whole / "lists/class.txt").read_text()), "one line"


def test_clean_of_the_demo_has_every_class_in_every_split(whole):
    samples = KineticsSounds.scan(whole).samples
    split = KineticsSounds.clean(table(samples))
    for name in ("train", "validation", "test"):
        assert {s.label for s, where in zip(samples, split, strict=True) if where == name} == set(range(31))
    for group in {s.group for s in samples}:
        assert len({where for s, where in zip(samples, split, strict=True) if s.group == group}) == 1


# Clean splits


def test_clean_has_the_shares_and_keeps_videos_together():
    random = np.random.default_rng(0)
    labels = np.arange(9300) % 31
    groups = [
        f"{label}:{i}" for label, i in zip(labels, random.integers(0, 200, 9300), strict=True)
    ]  # often several clips
    split = np.array(KineticsSounds.clean(frame(groups, labels)))
    for label in range(31):
        shares = {name: (split[labels == label] == name).mean() for name in ("train", "validation", "test")}
        assert shares == pytest.approx({"train": 0.8, "validation": 0.1, "test": 0.1}, abs=0.015)
    where: dict[str, set] = {}
    for group, name in zip(groups, split, strict=True):
        where.setdefault(group, set()).add(name)
    assert all(len(names) == 1 for names in where.values())


def test_clean_depends_on_names_not_on_their_order():
    samples = frame([f"v{i}" for i in range(310)], np.arange(310) % 31)
    samples.loc[5, ["sha256_audio", "sha256_video"]] = "h100"  # as another's
    shuffled = samples.sample(frac=1, random_state=0).reset_index(drop=True)
    first = dict(zip(samples["group"], KineticsSounds.clean(samples), strict=True))
    assert first == dict(zip(shuffled["group"], KineticsSounds.clean(shuffled), strict=True))


def test_clean_keeps_equal_files_together():
    hashes = [f"h{i % 310}" for i in range(620)]  # each file twice, under two names
    split = KineticsSounds.clean(frame([f"v{i}" for i in range(620)], np.arange(620) % 31, hashes))
    assert split[:310] == split[310:]
    assert set(split) == {"train", "validation", "test"}


# Arrays


def test_prepared_splits(part, monkeypatch):
    monkeypatch.setenv("MMBENCH_DATA", str(part))
    for protocol, counts in {"clean": (24, 6, 6), "legacy": (30, 0, 6)}.items():
        splits = KineticsSounds(protocol).splits
        got = [s for s in (splits.train, splits.validation, splits.test) if s]
        assert [len(s) for s in got] == [count for count in counts if count]
        assert all({CLASSES[label] for label in s.label.tolist()} == set(KEPT) and s.present.all() for s in got)
    batch = KineticsSounds("clean").splits.train.__getitems__([0, 5])
    assert {m: tuple(v.shape) for m, v in batch.inputs.items()} == {
        "audio": (2, 1024, 128),
        "video": (2, 3, 3, 256, 342),
    }


def test_spectrograms_show_the_pitch_of_the_class(part, monkeypatch):
    monkeypatch.setenv("MMBENCH_DATA", str(part))
    train = KineticsSounds("clean", views={"audio": "spectrogram"}).splits.train
    assert train.inputs["audio"][torch.arange(24)].shape == (24, 129, 626)
    for i, label in enumerate(train.label.tolist()):
        peak = train[i].inputs["audio"][0].float().mean(dim=1).argmax().item() * 16_000 / 256
        assert abs(peak - (200 + 120 * (label % 16))) < 20 + 16_000 / 256


def test_filter_banks_are_padded_after_the_sound(part, monkeypatch):
    monkeypatch.setenv("MMBENCH_DATA", str(part))
    train = KineticsSounds("clean").splits.train
    bank = train.inputs["audio"][torch.arange(24)]
    rows = 1 + (16_000 - 400) // 160  # of one second, to which AAC may add a frame of 1,024 samples
    assert (bank[:, :rows] != 0).all()
    assert (bank[:, rows + 7 :] == 0).all()


def test_pictures_show_the_stripes_of_the_class(part, monkeypatch):
    monkeypatch.setenv("MMBENCH_DATA", str(part))
    train = KineticsSounds("clean").splits.train
    for i, label in enumerate(train.label.tolist()):
        rows = train[i].inputs["video"][0].float().mean(dim=(1, 2)).numpy()  # (3, 342)
        cycles = np.abs(np.fft.rfft(rows - rows.mean(axis=1, keepdims=True), axis=1)).mean(axis=0).argmax()
        assert abs(cycles - 96 * (0.05 + 0.04 * (label % 12)) / (2 * np.pi)) < 1


def test_frames_are_spread_evenly_and_scaled_to_cover(tmp_path):
    path = tmp_path / "clip.mp4"  # upright: above and below are cut off
    levels = [20 * i for i in range(12)]
    pixels = [np.full((256, 128, 3), level, np.uint8) for level in levels]
    for picture in pixels:
        picture[:60] = picture[-60:] = 255
    write_video(path, pixels, 12, "libx264", sound(0, 1, 16_000, 0))
    frames = decode_video(path, None)["frames"]
    assert frames.shape == (3, 256, 342, 3)
    assert frames.dtype == np.uint8
    assert frames.mean(axis=(1, 2, 3)) == pytest.approx([levels[0], levels[4], levels[8]], abs=4)


# Files that cannot be used


def test_bad_media(tmp_path):
    picture = [np.full((64, 64, 3), 9, np.uint8)] * 4
    whole = tmp_path / "whole.mp4"
    write_video(whole, picture, 4, "libx264", sound(0, 1, 16_000, 0))
    write_video(tmp_path / "silent.mp4", picture, 4, "libx264")
    write_video(tmp_path / "short.mp4", picture, 4, "libx264", sound(0, 0.05, 16_000, 0)[:300])
    write_sound(tmp_path / "blind.mp4", sound(0, 1, 16_000, 0), 16_000, "aac")
    (tmp_path / "text.mp4").write_text("no clip\n" * 99)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "cut.mp4").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    (tmp_path / "folder.mp4").mkdir()
    decode_audio(whole, None), decode_video(whole, None)
    for name, message in {
        "text": "not readable|not a readable",
        "empty": "is empty",
        "cut": "not readable|not a readable",
        "folder": "not a file",
        "gone": "is missing",
    }.items():
        for decode in (decode_audio, decode_video):
            with pytest.raises(BadFile, match=message):
                decode(tmp_path / f"{name}.mp4", None)
    with pytest.raises(BadFile, match="has no sound"):
        decode_audio(tmp_path / "silent.mp4", None)
    with pytest.raises(BadFile, match=r"expected at least 0\.1 s|length is zero"):
        decode_audio(tmp_path / "short.mp4", None)
    with pytest.raises(BadFile, match="no video stream"):
        decode_video(tmp_path / "blind.mp4", None)


# Layout


def test_without_lists_there_is_no_legacy(raw):
    listing = KineticsSounds.scan(raw)
    assert listing.notes == ["no published lists, so no legacy protocol"]
    assert not listing.unlisted
    assert [(s.id, CLASSES[s.label], s.group, s.legacy) for s in listing.samples] == [
        ("0a1B2c3D4e5_12", "tickling", "0a1B2c3D4e5", ""),
        ("ZZZZZZZZZZZ_0", "bowling", "ZZZZZZZZZZZ", ""),
    ]


def test_folders_may_be_named_with_underscores_and_hidden_files_do_not_count(raw):
    lay(
        raw, "videos/playing_bass_guitar/ab_defghij-_000300_000310.mp4", "videos/.DS_Store", "videos/tickling/.DS_Store"
    )
    samples = KineticsSounds.scan(raw).samples
    assert [(s.id, CLASSES[s.label]) for s in samples if s.group[0] == "a"] == [
        ("ab_defghij-_300", "playing bass guitar")
    ]
    assert len(samples) == 3


@pytest.mark.parametrize(
    "name", ["0a1B2c3D4e5.mp4", "0a1B2c3D4e5_1_2.mkv", "tooshort_1_2.mp4", "0a1B2c3D4e5_x_2.mp4", "notes.txt"]
)
def test_files_of_other_names_are_skipped_and_counted(raw, name):
    lay(raw, f"videos/tickling/{name}")
    listing = KineticsSounds.scan(raw)
    assert len(listing.samples) == 2
    assert listing.skipped == [
        (Path(name).stem, f"videos/tickling/{name}", "is not named <YouTube id of 11 characters>_<start>_<end>.mp4")
    ]


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("finger snapping", "'finger snapping' is none of the classes; other variants .* 32 .*, 33 .* or 34"),
        ("clapping", "remove what is of another class, or name the classes in lists/classes.txt"),
        ("playing guitars", "did you mean 'playing guitar'. other variants"),
        ("train", "'train' is none of the classes"),
    ],
)
def test_folders_of_no_class_are_refused(raw, folder, message):
    (raw / "videos" / folder).mkdir()
    with pytest.raises(UsageError, match=f"videos/{folder}: .*{message}"):
        KineticsSounds.scan(raw)
    lists(raw, "", "", CLASSES[::-1])  # the same 31 are no variant
    with pytest.raises(UsageError, match=f"videos/{folder}: .*{message}"):
        KineticsSounds.scan(raw)


def test_a_layout_without_folders_is_refused(tmp_path):
    with pytest.raises(UsageError, match="videos is missing: expected a folder with one folder for each class"):
        KineticsSounds.scan(tmp_path)
    (tmp_path / "videos").touch()
    with pytest.raises(UsageError, match="videos: expected a folder"):
        KineticsSounds.scan(tmp_path)
    (tmp_path / "videos").unlink()
    lay(tmp_path, "videos/tickling")
    with pytest.raises(UsageError, match="videos/tickling: expected a folder"):
        KineticsSounds.scan(tmp_path)
    (tmp_path / "videos/tickling").unlink()
    (tmp_path / "videos/tickling").mkdir()
    assert KineticsSounds.scan(tmp_path).samples == [], "which prepare refuses"


def test_a_clip_given_twice_is_refused(raw):
    lay(raw, "videos/bowling/0a1B2c3D4e5_12_22.mp4")
    with pytest.raises(
        UsageError, match=r"tickling/0a1B2c3D4e5.*'0a1B2c3D4e5_12' is in videos/bowling/.* too, expected it once"
    ):
        KineticsSounds.scan(raw)


@pytest.mark.parametrize("folder", [False, True])
def test_links_out_of_the_folder_are_refused(raw, tmp_path_factory, monkeypatch, folder):
    outside = tmp_path_factory.mktemp("outside")
    lay(outside, "0a1B2c3D4e5_000001_000011.mp4")
    if folder:
        (raw / "videos/laughing").symlink_to(outside)
    else:
        (raw / "videos/tickling/0a1B2c3D4e5_000001_000011.mp4").symlink_to(outside / "0a1B2c3D4e5_000001_000011.mp4")
    monkeypatch.setenv("MMBENCH_DATA", str(raw / "root"))
    with pytest.raises(UsageError, match=r"is a link to .*outside"):
        prepare(KineticsSounds, raw, say=lambda text: None)


# Lists


def test_class_folders_may_be_links_where_the_user_says_so(raw, tmp_path_factory):
    kinetics = tmp_path_factory.mktemp("kinetics400")
    lay(kinetics, "train/singing/AAAAAAAAAAA_000000_000010.mp4")
    (raw / "videos/singing").symlink_to(kinetics / "train/singing")
    listing = KineticsSounds.scan(raw)
    assert "videos/singing/AAAAAAAAAAA_000000_000010.mp4" in {s.files["video"] for s in listing.samples}
    with pytest.raises(UsageError, match=r"is a link to .*--also-from DIR"):
        check_listing(KineticsSounds, raw, listing)
    with links_into([kinetics]):
        check_listing(KineticsSounds, raw, listing)


def test_what_systems_leave_behind_does_not_count(raw):
    before = KineticsSounds.scan(raw)
    lay(
        raw,
        "videos/.DS_Store",
        "videos/__MACOSX/._x",
        "videos/Thumbs.db",
        "videos/tickling/desktop.ini",
        "videos/bowling/._b.mp4",
    )
    assert KineticsSounds.scan(raw) == before


def test_lists_give_splits_and_name_what_is_not_there(raw):
    lay(raw, "videos/playing_organ/AAAAAAAAAAA_000000_000010.mp4")
    classes = CLASSES[::-1]
    organ, tickling, tapping = (classes.index(name) for name in ("playing organ", "tickling", "tapping pen"))
    gone = f"BBBBBBBBBBB_1234567,10,{organ}\nCCCCCCCCCCC_7,10,{tapping}\n"
    lists(raw, f"0a1B2c3D4e5_12,10,{tickling}\r\n\n", f"AAAAAAAAAAA_0,10,{organ}\n{gone}", classes)
    listing = KineticsSounds.scan(raw)
    assert {s.id: (CLASSES[s.label], s.legacy, s.files["video"], s.group) for s in listing.samples} == {
        "0a1B2c3D4e5_12": ("tickling", "train", CLIP, "0a1B2c3D4e5"),
        "AAAAAAAAAAA_0": ("playing organ", "test", "videos/playing_organ/AAAAAAAAAAA_000000_000010.mp4", "AAAAAAAAAAA"),
        "BBBBBBBBBBB_1234567": (
            "playing organ",
            "test",
            "videos/playing_organ/BBBBBBBBBBB_1234567_1234577.mp4",
            "BBBBBBBBBBB",
        ),
        "CCCCCCCCCCC_7": ("tapping pen", "test", "videos/tapping pen/CCCCCCCCCCC_000007_000017.mp4", "CCCCCCCCCCC"),
        "ZZZZZZZZZZZ_0": ("bowling", "", "videos/bowling/ZZZZZZZZZZZ_000000_000010.mp4", "ZZZZZZZZZZZ"),
    }
    assert listing.unlisted == ["videos/bowling/ZZZZZZZZZZZ_000000_000010.mp4"]
    assert [s.id for s in listing.samples] == sorted(s.id for s in listing.samples)


def test_both_formats_of_lines_are_read_in_both_lists(raw):
    lay(raw, "videos/singing/--4-0ihtnBU_000058_000068.mp4", "videos/singing/-3Mwkq-7TV4_000002_000012.mp4")
    train = "--4-0ihtnBU_000058_000068,10,4\n0a1B2c3D4e5_12,10,4\n"
    lists(raw, train, "-3Mwkq-7TV4_2,10,4\nA_A_A_A_A_A_000100_000107,10,4\n", ["x"] * 4)
    names = ["bowling", "tickling", "tap dancing", "tapping pen", "singing", *(c for c in CLASSES)]
    (raw / "lists/classes.txt").write_text("\n".join(dict.fromkeys(names)))
    listing = KineticsSounds.scan(raw)
    assert {s.id: (s.legacy, s.files["video"]) for s in listing.samples if s.legacy} == {
        "--4-0ihtnBU_58": ("train", "videos/singing/--4-0ihtnBU_000058_000068.mp4"),
        "-3Mwkq-7TV4_2": ("test", "videos/singing/-3Mwkq-7TV4_000002_000012.mp4"),
        "A_A_A_A_A_A_100": ("test", "videos/singing/A_A_A_A_A_A_000100_000107.mp4"),
    }
    assert [name for name, _, _ in listing.skipped] == ["0a1B2c3D4e5_12"], "its folder says tickling"


@pytest.mark.parametrize(
    "text", ["bowling, tickling,tying_tie", "bowling,\ntickling\r\n tying_tie ,", "bowling\ntickling\ntying tie"]
)
@pytest.mark.parametrize("name", ["class.txt", "classes.txt"])
def test_names_of_classes_are_parted_by_commas_or_lines(raw, text, name):
    lay(raw, "videos/tying tie/AAAAAAAAAAA_000000_000010.mp4", f"lists/{name}")
    (raw / "lists" / name).write_text(text)
    assert KineticsSounds.scan(raw).classes == ("bowling", "tickling", "tying tie")


def test_two_files_of_classes_are_refused(raw):
    lay(raw, "lists/class.txt", "lists/classes.txt")
    with pytest.raises(UsageError, match=r"holds classes\.txt and class\.txt; expected one"):
        KineticsSounds.scan(raw)


def test_a_list_that_contradicts_the_folder_is_counted(raw):
    lists(raw, f"0a1B2c3D4e5_12,10,{CLASSES.index('singing')}\n", "ZZZZZZZZZZZ_0,10,2\n")
    listing = KineticsSounds.scan(raw)
    assert listing.skipped == [("0a1B2c3D4e5_12", CLIP, "is 'singing' by the list and lists/classes.txt")]
    assert [s.id for s in listing.samples] == ["ZZZZZZZZZZZ_0"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0a1B2c3D4e5_12,10", "expected 3 columns, got 2"),
        ("0a1B2c3D4e5,10,3", "expected a YouTube id of 11 characters, _ and the second"),
        ("../../etc/passwd_1,10,3", "expected a YouTube id"),
        ("/abs/path/x_1,10,3", "expected a YouTube id"),
        ("0a1B2c3D4e5_12,10,31", "unknown class number 31, expected 0 to 30; other variants"),
        ("0a1B2c3D4e5_12,10,-1", "expected the clip's seconds and the class's number, got '10' and '-1'"),
        ("0a1B2c3D4e5_12,10,tickling", "got '10' and 'tickling'"),
        ("0a1B2c3D4e5_12,ten,3", "got 'ten' and '3'"),
        ("ZZZZZZZZZZZ_0,10,2", "clip 'ZZZZZZZZZZZ_0' is given twice, expected once in both lists"),
    ],
)
def test_bad_lines(raw, line, message):
    lists(raw, "ZZZZZZZZZZZ_0,10,2\n", f"0a1B2c3D4e5_1,10,30\n{line}\n")
    with pytest.raises(UsageError, match=f"my_test.txt, line 2: .*{message}"):
        KineticsSounds.scan(raw)


def test_lists_that_are_not_text(raw):
    lists(raw, "", "")
    (raw / "lists/my_train.txt").write_bytes(b"0a1B2c3D4e5_12,10,3\n\xff\xfe")
    with pytest.raises(UsageError, match=r"my_train.txt, line 2: expected 3 columns, got 1"):
        KineticsSounds.scan(raw)


@pytest.mark.parametrize("name", ["my_train.txt", "my_test.txt"])
def test_one_list_of_two_is_refused(raw, name):
    lists(raw, "", "")
    (raw / "lists" / name).unlink()
    with pytest.raises(UsageError, match=rf"{name} is missing, but .*my_t"):
        KineticsSounds.scan(raw)


def test_numbers_without_their_names_are_refused(raw):
    lists(raw, "", "")
    (raw / "lists/classes.txt").unlink()
    with pytest.raises(
        UsageError, match=r"my_train.txt gives classes as numbers, whose order is not published, and .*classes.txt"
    ):
        KineticsSounds.scan(raw)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (
            CLASSES[:-1],
            "classes.txt, line 1: 'blowing nose' has no folder in .*videos.* .with other classes than the 31",
        ),
        (("tickling", "bowling", "boling"), "line 3: 'boling' has no folder in .*videos; did you mean 'bowling'"),
        (("0,tickling", "1,bowling"), "line 1: '0' has no folder in .*videos"),
        (("tickling", "bowling", "../tickling"), "line 3: '../tickling' has no folder"),
        ((*CLASSES, CLASSES[0]), "classes.txt, line 32: 'blowing nose' is given twice"),
        ((*CLASSES, "tap_dancing"), "classes.txt, line 32: 'tap dancing' is given twice"),
        (("tickling",), "classes.txt: expected the names of the classes, a line each, got 1"),
        ((), "classes.txt: expected the names of the classes, a line each, got 0"),
    ],
)
@pytest.mark.parametrize("listed", [True, False])
def test_bad_class_maps(raw, classes, message, listed):
    lists(raw, "", "", classes)
    if not listed:
        for path in raw.glob("lists/my_*.txt"):
            path.unlink()
    with pytest.raises(UsageError, match=message):
        KineticsSounds.scan(raw)


def test_a_class_map_that_is_not_text(raw):
    (raw / "lists").mkdir()
    (raw / "lists/classes.txt").write_bytes(b"tickling\n\xff\xfe")
    with pytest.raises(UsageError, match=r"classes.txt, line 2: '.+' has no folder"):
        KineticsSounds.scan(raw)


# Variants


def test_the_31_in_another_order_are_no_variant(raw):
    without = KineticsSounds.scan(raw)
    lists(raw, "", "", CLASSES[::-1])
    for path in raw.glob("lists/my_*.txt"):
        path.unlink()
    listing = KineticsSounds.scan(raw)
    assert listing == without
    assert listing.classes is None


def test_the_lists_of_a_variant_are_by_its_numbers(raw):
    lay(raw, "videos/finger_snapping/AAAAAAAAAAA_000000_000010.mp4", "videos/clapping/0a1B2c3D4e5_000012_000022.mp4")
    lists(raw, "AAAAAAAAAAA_0,10,1\n", "0a1B2c3D4e5_12,10,2\n", ["bowling", "finger snapping", "tickling"])
    listing = KineticsSounds.scan(raw)
    assert [(s.id, s.label, s.legacy) for s in listing.samples] == [
        ("0a1B2c3D4e5_12", 2, "test"),  # what is left out may hold it too
        ("AAAAAAAAAAA_0", 1, "train"),
        ("ZZZZZZZZZZZ_0", 0, ""),
    ]
    assert (raw / "lists/my_test.txt").write_text("0a1B2c3D4e5_12,10,3\n")
    with pytest.raises(UsageError, match=r"my_test.txt, line 1: unknown class number 3, expected 0 to 2"):
        KineticsSounds.scan(raw)


OTHERS = ("tapping_pen", "finger snapping", "clapping")


@pytest.fixture(scope="module")
def variant(whole, tmp_path_factory) -> Path:
    """Three classes, of which two are none of the 31, prepared; the folder that MMBENCH_DATA has to name."""
    raw, root = tmp_path_factory.mktemp("variant"), tmp_path_factory.mktemp("root")
    for name, to in zip(CLASSES[-2:-7:-1], (*OTHERS, "yawning", "whistling"), strict=True):
        shutil.copytree(whole / "videos" / name, raw / "videos" / to)
    (raw / "lists").mkdir()
    (raw / "lists/classes.txt").write_text("".join(f"{name}\n" for name in OTHERS))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMBENCH_DATA", str(root))
        prepare(KineticsSounds, raw, say=lambda text: None)
    return root


def test_a_variant_is_what_the_class_map_names(variant, monkeypatch):
    monkeypatch.setenv("MMBENCH_DATA", str(variant))
    names = ("tapping pen", "finger snapping", "clapping")
    assert KineticsSounds.class_names() == names
    assert KineticsSounds.classes == CLASSES
    data = KineticsSounds("clean")
    assert data.classes == names
    assert data.spec.class_counts == (4, 4, 4)
    train = data.splits.train
    for i, label in enumerate(train.label.tolist()):  # the tones of the folders that were copied
        shown = train[i].inputs["video"][0].float().mean(dim=(1, 2)).numpy()
        cycles = np.abs(np.fft.rfft(shown - shown.mean(axis=1, keepdims=True), axis=1)).mean(axis=0).argmax()
        assert abs(cycles - 96 * (0.05 + 0.04 * ((29 - label) % 12)) / (2 * np.pi)) < 1
    with pytest.raises(UsageError, match="no legacy splits; the published lists are those of another variant"):
        KineticsSounds("legacy").setup()


def test_a_variant_is_other_data(variant, tmp_path, monkeypatch):
    shutil.copytree(variant, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("MMBENCH_DATA", str(tmp_path))
    assert not verify(KineticsSounds)
    path = tmp_path / "kinetics_sounds/manifest.json"
    whole, known = path.read_text(), KineticsSounds.manifest()
    others = ["tapping pen", "clapping", "finger snapping"]
    path.write_text(json.dumps({**json.loads(whole), "classes": others}))
    assert verify(KineticsSounds)
    reseal(path.parent, classes=others)
    assert KineticsSounds.manifest() != known
    assert KineticsSounds.class_names() == tuple(others)
    reseal(path.parent, classes=None)
    assert KineticsSounds.manifest() != known
    assert KineticsSounds.class_names() == CLASSES
    path.unlink()
    assert KineticsSounds.class_names() == CLASSES


def test_the_manifest_of_the_31_names_no_classes(part, monkeypatch):
    monkeypatch.setenv("MMBENCH_DATA", str(part))
    assert "classes" not in KineticsSounds.read_manifest()
    assert KineticsSounds.class_names() == KineticsSounds("clean").classes == CLASSES


def test_audit_of_a_variant(variant, monkeypatch):
    monkeypatch.setenv("MMBENCH_DATA", str(variant))
    found = audit(KineticsSounds)
    assert found.facts[0] == "18 samples, 3 classes, 15 groups"
    assert "a variant with classes of its own: what was published of that with 31 is not held against it" in found.facts
    assert "legacy: no splits; the published lists are those of another variant" in found.facts
    assert any(line.endswith("tapping pen 4, finger snapping 4, clapping 4") for line in found.facts)
    assert (
        "left out: 2 folders of videos/ that lists/classes.txt does not name, such as whistling, yawning"
        in found.findings
    )
    assert "a variant of 3 classes, by lists/classes.txt" in found.findings
    assert found.violations == {"clean": [], "legacy": ["there are no splits"]}
    assert not any("published 14799" in line for line in (*found.facts, *found.findings))


def test_legacy_counts_are_not_held_against_a_variant(variant, tmp_path, monkeypatch):
    shutil.copytree(variant, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("MMBENCH_DATA", str(tmp_path))
    rows = pd.read_parquet(tmp_path / "kinetics_sounds/samples.parquet")
    rows["legacy"] = ["test" if i % 3 else "train" for i in range(len(rows))]
    splits = KineticsSounds.read_manifest()["splits"]
    reseal(tmp_path / "kinetics_sounds", rows, splits={**splits, "legacy": splits["clean"]})
    assert audit(KineticsSounds).violations["legacy"] == []


def test_methods_are_planned_and_built_for_a_variant(variant, monkeypatch):
    monkeypatch.setenv("MMBENCH_DATA", str(variant))
    concat, planned = METHODS["concat"], []
    build = concat.__init__

    @wraps(build)
    def noted(self, spec, *arguments, **others):
        planned.append(spec.num_classes)
        build(self, spec, *arguments, **others)

    monkeypatch.setattr(concat, "__init__", noted)
    grid = {"title": "a variant", "datasets": {"kinetics_sounds": {}}, "methods": {"concat": {}}, "seeds": [0]}
    experiment = expand(grid)
    assert (planned, len(experiment.trials), experiment.unprepared) == ([3], 1, {})
    data = KineticsSounds("clean", batch_size=2)
    encoders = {modality: build_encoder({"name": name}) for modality, name in KineticsSounds.encoders.items()}
    method = concat(data.spec, encoders, Recipe())
    assert planned == [3, 3]
    features = {modality: torch.zeros(2, encoder.out_dim) for modality, encoder in encoders.items()}
    assert method.fuse(features, torch.ones(2, 2, dtype=torch.bool)).shape == (2, 3)


# Audit


@pytest.fixture
def audited(part, tmp_path, monkeypatch):
    """The audit of the prepared table after a change."""
    monkeypatch.setenv("MMBENCH_DATA", str(tmp_path))
    folder = tmp_path / "kinetics_sounds"
    folder.mkdir()
    shutil.copy(part / "kinetics_sounds/manifest.json", folder)
    for array in (part / "kinetics_sounds").glob("*.npy"):
        (folder / array.name).symlink_to(array)

    def changed(change):
        rows = pd.read_parquet(part / "kinetics_sounds/samples.parquet")
        change(rows)
        reseal(folder, rows)
        return audit(KineticsSounds)

    return changed


def test_audit_of_the_part(audited):
    found = audited(lambda rows: None)
    # Each split lacks the 25 classes that were not decoded; nothing else is wrong.
    assert len(found.violations["clean"]) == 3
    assert all("has no sample of" in line for line in found.violations["clean"])
    assert "train has 30 samples, published 14799" in found.violations["legacy"]
    assert any("6 of 6 test samples share their group with train" in line for line in found.findings)


@pytest.mark.parametrize("column", ["group", "sha256_video"])
def test_audit_finds_planted_leaks(audited, column):
    def plant(rows):
        train, test = ((rows["clean"] == split).idxmax() for split in ("train", "test"))
        rows.loc[test, column] = rows.loc[train, column]

    assert any(
        "of 6 test samples share their" in line and "with train" in line for line in audited(plant).violations["clean"]
    )


def test_the_ids_of_its_splits_are_those_of_what_is_loaded(part, monkeypatch):
    monkeypatch.setenv("MMBENCH_DATA", str(part))
    check_ids(KineticsSounds)
