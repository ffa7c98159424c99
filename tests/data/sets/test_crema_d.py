"""CREMA-D: names, published lists in both formats, splits by actor, and a demo prepared from real files."""

import shutil
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from folding import check_folds, check_ids, check_module
from mmbench.data.demo.crema_d import CAST
from mmbench.data.folds import assignment_hash
from mmbench.data.preparing.audit import audit
from mmbench.data.preparing.prepare import prepare
from mmbench.data.sets.crema_d import ACTORS, EMOTIONS, PARTS, TEST, VALIDATION, CremaD
from mmbench.errors import UsageError

NAMES = [
    f"{actor}_{sentence}_{emotion}_XX" for actor in (1001, 1091) for sentence in ("DFA", "IEO") for emotion in EMOTIONS
]


@pytest.fixture
def raw(tmp_path):
    """The layout, with empty files: a scan decodes nothing."""
    for folder, ending in (("AudioWAV", "wav"), ("VideoFlash", "flv")):
        (tmp_path / folder).mkdir()
        for name in NAMES:
            (tmp_path / folder / f"{name}.{ending}").touch()
    (tmp_path / "lists").mkdir()
    return tmp_path


MLAS = {"NEU": "Neutral", "HAP": "Happy", "SAD": "Sad", "FEA": "Fear", "DIS": "Disgust", "ANG": "Anger"}


def write_lists(raw, train="train.csv", test="test.csv", numbers=False):
    """Every fourth clip is for testing."""
    for name, part in ((test, NAMES[::4]), (train, [n for n in NAMES if n not in NAMES[::4]])):
        rows = [(n, str(EMOTIONS[n.split("_")[2]]) if numbers else n.split("_")[2]) for n in part]
        if name.endswith("txt"):
            (raw / "lists" / name).write_text("".join(f"{n}.flv {MLAS[code]}\n" for n, code in rows))
        else:
            (raw / "lists" / name).write_text("".join(f"{n},{label}\n" for n, label in rows))


# Splits


def test_the_clean_actors_are_these():
    assert sorted(TEST) == PINNED_TEST
    assert sorted(VALIDATION) == PINNED_VALIDATION
    assert not TEST & VALIDATION
    assert sorted(ACTORS) == list(range(1001, 1092))


def test_the_folds_actors_are_these():
    assert assignment_hash(PARTS, PARTS.values()) == "8a9e2293b9c86dfe27ccdf8e9bf3f3dad9a42c3e64bfe8563d2aa6abcf988aa0"
    assert Counter(PARTS.values()) == {0: 18, 1: 18, 2: 18, 3: 18, 4: 19}
    assert {actor for actor, part in PARTS.items() if part == 0} == TEST, (
        "the first fold tests whom the one split tests"
    )
    samples = pd.DataFrame({"group": ["1091", "1001", "1044"]})
    assert CremaD.part_of(samples) == [PARTS[1091], PARTS[1001], PARTS[1044]], "whoever else is there"


PINNED_TEST = [
    1008,
    1010,
    1011,
    1022,
    1035,
    1040,
    1041,
    1050,
    1052,
    1054,
    1066,
    1074,
    1076,
    1077,
    1083,
    1084,
    1089,
    1091,
]
PINNED_VALIDATION = [1002, 1004, 1014, 1024, 1028, 1033, 1055, 1065, 1072]


def test_every_actor_is_in_one_split():
    frame = pd.DataFrame({"group": [str(actor) for actor in ACTORS for _ in range(2)]})
    split = CremaD.clean(frame)
    of = {}
    for actor, name in zip(frame["group"], split, strict=True):
        assert of.setdefault(actor, name) == name
    assert [list(of.values()).count(s) for s in ("train", "validation", "test")] == [64, 9, 18]


# Scanning


def test_names_tell_label_actor_and_files(raw):
    listing = CremaD.scan(raw)
    assert [s.id for s in listing.samples] == sorted(NAMES)
    sample = next(s for s in listing.samples if s.id == "1091_IEO_ANG_XX")
    assert (CremaD.classes[sample.label], sample.group, sample.legacy) == ("anger", "1091", "")
    assert sample.files == {"audio": "AudioWAV/1091_IEO_ANG_XX.wav", "video": "VideoFlash/1091_IEO_ANG_XX.flv"}
    assert listing.notes == ["no published lists, so no legacy protocol"]
    assert not listing.skipped
    assert not listing.unlisted


@pytest.mark.parametrize(
    ("train", "test", "numbers"),
    [("train.csv", "test.csv", False), ("train.csv", "test.csv", True), ("my_train_cre.txt", "my_test_cre.txt", False)],
)
def test_published_lists_in_their_formats(raw, train, test, numbers):
    write_lists(raw, train, test, numbers)
    listing = CremaD.scan(raw)
    assert {s.id: s.legacy for s in listing.samples} == {n: "test" if n in NAMES[::4] else "train" for n in NAMES}
    assert not listing.notes


def test_a_clip_of_one_kind_of_file_is_listed_with_both(raw):
    (raw / f"VideoFlash/{NAMES[0]}.flv").unlink()
    (raw / f"AudioWAV/{NAMES[1]}.wav").unlink()
    assert len(CremaD.scan(raw).samples) == len(NAMES)


def test_what_systems_leave_behind_does_not_count(raw):
    before = CremaD.scan(raw)
    for name in (
        "AudioWAV/._1019_DFA_FEA_XX.wav",
        "VideoFlash/._1001_DFA_NEU_XX.flv",
        "AudioWAV/.DS_Store",
        "AudioWAV/Thumbs.db",
    ):
        (raw / name).touch()
    assert CremaD.scan(raw) == before


def test_endings_may_be_in_capitals(raw):
    (raw / f"AudioWAV/{NAMES[0]}.wav").rename(raw / f"AudioWAV/{NAMES[0]}.WAV")
    listing = CremaD.scan(raw)
    assert len(listing.samples) == len(NAMES)
    [sample] = [sample for sample in listing.samples if sample.id == NAMES[0]]
    assert sample.files == {"audio": f"AudioWAV/{NAMES[0]}.WAV", "video": f"VideoFlash/{NAMES[0]}.flv"}


def test_files_in_no_list_and_lines_without_a_file(raw):
    write_lists(raw)
    (raw / "AudioWAV/1002_DFA_ANG_XX.wav").touch()
    lines = (raw / "lists/test.csv").read_text() + "1003_DFA_SAD_XX,SAD\n"
    (raw / "lists/test.csv").write_text(lines)
    listing = CremaD.scan(raw)
    assert listing.unlisted == ["AudioWAV/1002_DFA_ANG_XX.wav"]
    assert [s.legacy for s in listing.samples if s.id.startswith(("1002", "1003"))] == ["", "test"]


def test_a_label_that_the_name_contradicts_is_skipped_and_counted(raw):
    write_lists(raw)
    path = raw / "lists/test.csv"
    path.write_text(path.read_text().replace("1001_DFA_NEU_XX,NEU", "1001_DFA_NEU_XX,SAD"))
    listing = CremaD.scan(raw)
    assert listing.skipped == [
        ("1001_DFA_NEU_XX", "AudioWAV/1001_DFA_NEU_XX.wav", "has emotion 0 by its name, 2 by the list")
    ]
    assert "1001_DFA_NEU_XX" not in {s.id for s in listing.samples}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("test.csv", "1001_DFA_ANG_XX,ANG,1\n", r"test\.csv, line 1: expected 2 columns, got 3"),
        ("test.csv", "1001_DFA_ANG_XX,MAD\n", "line 1: unknown label 'MAD'"),
        ("test.csv", "1001_DFA_ANG_XX,6\n", "line 1: unknown label '6'"),
        ("test.csv", "1001_DFA_ANG_XX," + "1" * 5000 + "\n", "line 1: unknown label '1"),
        ("test.csv", "1001_DFA_ANG_XX,ANG\n1001_DFA_ANG_XX,ANG\n", "line 2: clip '1001_DFA_ANG_XX' is given twice"),
        ("test.csv", "999_DFA_ANG_XX,ANG\n", "'999_DFA_ANG_XX' is no clip"),
        ("test.csv", "../../x,ANG\n", "'../../x' is no clip"),
        ("my_test_cre.txt", "1001_DFA_ANG_XX 5 5\n", "expected a name and a label"),
        ("my_test_cre.txt", "1001_DFA_ANG_XX.flv Angry\n", "line 1: unknown label 'Angry'"),
        ("my_test_cre.txt", "1001_DFA_ANG_XX\n", "expected a name and a label"),
    ],
)
def test_mistakes_in_lists_are_named_by_file_and_line(raw, name, content, message):
    (raw / "lists" / name).write_text(content)
    (raw / "lists" / name.replace("test", "train")).write_text("")
    with pytest.raises(UsageError, match=message):
        CremaD.scan(raw)


@pytest.mark.parametrize(("there", "missing"), [("train.csv", "test.csv"), ("my_test_cre.txt", "my_train_cre.txt")])
def test_one_list_of_two(raw, there, missing):
    (raw / "lists" / there).touch()
    with pytest.raises(UsageError, match=f"{missing} is missing, but .*{there} is there"):
        CremaD.scan(raw)


@pytest.mark.parametrize(
    ("name", "message"),
    [("1001_DFA_ANGRY_XX", "unknown emotion 'ANGRY'"), ("copy of x", "is no clip"), ("1001_DFA_ANG", "is no clip")],
)
def test_files_of_other_names_are_refused(raw, name, message):
    (raw / f"AudioWAV/{name}.wav").touch()
    with pytest.raises(UsageError, match=message):
        CremaD.scan(raw)


def test_another_layout(raw):
    shutil.rmtree(raw / "VideoFlash")
    with pytest.raises(UsageError, match="VideoFlash is missing"):
        CremaD.scan(raw)


def test_names_that_lead_out_of_the_folder(raw, monkeypatch):
    monkeypatch.setenv("MMBENCH_DATA", str(raw / "data"))
    write_lists(raw)
    with (raw / "lists/test.csv").open("a") as stream:
        stream.write("1001_../../../x_ANG_XX,ANG\n")
    with pytest.raises(UsageError, match="leads out of"):
        prepare(CremaD, raw, say=lambda text: None)


# The demo


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """Nine actors, written and prepared once."""
    root = tmp_path_factory.mktemp("crema_d")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMBENCH_DATA", str(root))
        CremaD.write_demo(root / "raw")
        (root / f"raw/VideoFlash/{CAST[0]}_DFA_SAD_XX.flv").write_bytes(b"")
        prepare(CremaD, root / "raw", allow_bad=True, say=lambda text: None)
        yield root


@pytest.mark.slow
def test_the_demo_holds_what_it_should(demo):
    found = audit(CremaD)
    assert found.violations["clean"] == []
    table = CremaD.table()
    assert table.loc[table["skipped"] != "", ["id", "skipped"]].to_numpy().tolist() == [
        [f"{CAST[0]}_DFA_SAD_XX", "is empty"]
    ]
    usable = table[table["skipped"] == ""]
    actors = {split: set(part["group"]) for split, part in usable.groupby("clean")}
    assert {k: len(v) for k, v in actors.items()} == {"train": 5, "validation": 2, "test": 2}
    manifest = CremaD.read_manifest()
    fbank, spectrogram = (CremaD.array(name, manifest) for name in ("fbank", "spectrogram"))
    frames = CremaD.array("frames", manifest)
    assert frames.shape == (54, 3, 256, 342, 3)
    rows = usable.index.to_numpy()
    # Tones get higher from class to class: so does the loudest bin, and stripes get narrower.
    loudest = [np.median(spectrogram[i].astype(float).mean(axis=1).argmax()) for i in rows]
    of_class = [np.mean([x for x, y in zip(loudest, usable["label"], strict=True) if y == k]) for k in range(6)]
    assert of_class == sorted(of_class)
    assert (fbank[rows, :70].astype(float).std(axis=(1, 2)) > 0.5).all()
    assert not fbank[rows, 80:].any(), "0.8 s are 78 windows"
    assert (frames[rows].std(axis=(2, 3, 4)) > 20).all()
    legacy = CremaD(protocol="legacy").splits
    assert len(legacy.train) + len(legacy.test) == 53


@pytest.mark.slow
def test_the_folds_of_the_demo(demo):
    table = CremaD.table()
    usable = table[table["skipped"] == ""]
    check_folds(CremaD.parts(), usable["group"].tolist())
    assert CremaD.lacks_folds() is None
    check_module(CremaD, 53)


@pytest.mark.slow
def test_the_ids_of_its_splits_are_those_of_what_is_loaded(demo):
    check_ids(CremaD)
