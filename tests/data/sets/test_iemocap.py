"""IEMOCAP: a tiny copy in the layout of the release, prepared, and every mistake in it."""

import shutil
import wave
from collections import Counter
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch

from folding import check_folds, check_ids, check_module
from mmbench.data.demo.iemocap import EMOTIONS, FRAMES, TURN, write, write_divx
from mmbench.data.demo.iemocap6 import write as write6
from mmbench.data.preparing.audio import fbank
from mmbench.data.preparing.audit import audit
from mmbench.data.preparing.media import BadFile
from mmbench.data.preparing.prepare import prepare
from mmbench.data.preparing.raw import Sample
from mmbench.data.sets.iemocap import (
    EVALUATION,
    RELEASE,
    SOUND,
    TRANSCRIPTIONS,
    VIDEO,
    Iemocap,
    Iemocap6,
    decode_audio,
    decode_image,
    read_evaluation,
)
from mmbench.encoders.hashed_text import HashedText
from mmbench.errors import DataError, UsageError
from toy import reseal

FIRST = "Ses01F_impro01"
NAMES = [f"{FIRST}_{turn}" for turn in ("F000", "M000", "F001", "M001", "F002", "M002")]  # in the order of their times


def test_folds_are_sessions(data):
    table = Iemocap.table()
    check_folds(Iemocap.parts(), table["group"].tolist())
    assert Iemocap.parts().clean.tolist() == [int(name[4]) - 1 for name in table["id"]]
    make = partial(Iemocap, tokenizers={"text": lambda texts: {"token": torch.zeros(len(texts), 1)}})
    check_module(make, len(table))
    rows = make(fold=4).splits.validation.inputs["audio"].rows
    assert set(table["id"].str[3:5].iloc[rows]) == {"01"}, "the session after the last is the first"
    shuffled = table.sample(frac=1, random_state=0)
    assert Iemocap.part_of(shuffled) == Iemocap6.part_of(shuffled) == [int(name[4]) - 1 for name in shuffled["id"]]
    assert Iemocap6.folds == 5


def folder_of(raw: Path, session: int = 1) -> Path:
    return raw / RELEASE / f"Session{session}"


def rated(name: str, emotion: str, start: float = 0.0, end: float = 1.0) -> str:
    return f"[{start:.4f} - {end:.4f}]\t{name}\t{emotion}\t[2.5000, 2.5000, 2.5000]\n"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    raw = tmp_path_factory.mktemp("raw")
    write(raw)
    return raw


@pytest.fixture(scope="module")
def prepared(written, tmp_path_factory):
    """The tiny copy, prepared once; nothing in it may be changed."""
    root = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMBENCH_DATA", str(root))
        prepare(Iemocap, written, say=lambda text: None)
        yield root


@pytest.fixture
def data(prepared, monkeypatch):
    monkeypatch.setenv("MMBENCH_DATA", str(prepared))


@pytest.fixture
def raw(written, tmp_path):
    """The lists alone, in a copy that a test may change: scanning decodes nothing."""
    shutil.copytree(written, tmp_path / "raw", ignore=shutil.ignore_patterns("*.avi", "*.wav"))
    return tmp_path / "raw"


@pytest.fixture
def media(written, tmp_path):
    """The first dialogue's sound and video, in a copy that a test may change."""
    for part in (f"{SOUND}/{FIRST}", VIDEO):
        shutil.copytree(folder_of(written) / part, tmp_path / part)
    return tmp_path


def sample(start: float = 0.0, end: float = 0.18, half: str = "left") -> Sample:
    return Sample("x", 0, "d", clip={"start": start, "end": end, "half": half})


def module(data_class=Iemocap, **arguments):
    return data_class(tokenizers={"text": HashedText().tokenize}, **arguments)


# Samples


def test_samples_are_the_utterances_of_four_emotions(written):
    listing = Iemocap.scan(written)
    naive = {}
    for path in sorted(written.glob(f"{RELEASE}/Session*/{EVALUATION}/*.txt")):
        for line in path.read_text().splitlines():
            if line.startswith("["):
                times, name, emotion, _ = line.split("\t")
                naive[name] = (emotion, *map(float, times.strip("[]").split(" - ")))
    expected = {"neu": "neutral", "ang": "angry", "sad": "sad", "hap": "happy", "exc": "happy"}
    assert [s.id for s in listing.samples] == sorted(
        name for name, (emotion, *_) in naive.items() if emotion in expected
    )
    for s in listing.samples:
        emotion, start, end = naive[s.id]
        assert Iemocap.classes[s.label] == expected[emotion]
        assert (s.clip["start"], s.clip["end"]) == (start, end)
        assert (s.clip["half"] == "left") == (s.id.split("_")[-1][0] == s.group[5])
        assert s.id.startswith(f"{s.group}_")
        assert all((written / file).is_file() for file in s.files.values())
    assert listing.notes == ["15 utterances have other emotions and are not in the set: fru 10, xxx 5"]
    assert listing.skipped == listing.unlisted == []


def test_six_emotions(raw):
    shutil.rmtree(raw / "lists")
    listing = Iemocap6.scan(raw)
    names = {"hap": "happy", "sad": "sad", "neu": "neutral", "ang": "angry", "exc": "excited", "fru": "frustrated"}
    assert [names[emotion] for emotion in Iemocap6.emotions] == list(Iemocap6.classes)
    assert list(Iemocap6.emotions.values()) == list(range(6))
    assert Counter(s.label for s in listing.samples) == dict.fromkeys(range(6), 10)
    assert Counter(s.legacy for s in listing.samples) == {"train": 36, "validation": 12, "test": 12}
    assert listing.notes[0].endswith("not in the set: xxx 5")
    assert "7,380 are expected" in listing.notes[-1]
    assert (Iemocap6.sources, Iemocap6.encoders) == (Iemocap.sources, Iemocap.encoders)


def test_texts_are_those_of_the_transcription(raw):
    path = folder_of(raw) / TRANSCRIPTIONS / f"{FIRST}.txt"
    lines = path.read_text().splitlines()
    lines = [line for line in lines if not line.startswith(NAMES[1])]
    path.write_bytes("\r\n".join([*lines, f"{NAMES[1]} [000.1-000.2]:  Yes: [LAUGHTER] no. ", ""]).encode("utf-8-sig"))
    texts = {s.id: s.text["text"] for s in Iemocap.scan(raw).samples}
    assert texts[NAMES[1]] == "Yes: [LAUGHTER] no."
    assert texts[NAMES[0]] == next(line for line in lines if line.startswith(NAMES[0])).split("]: ")[1]


def test_the_release_may_be_the_raw_folder(raw):
    shutil.copytree(raw / "lists", raw / RELEASE / "lists")
    inner, outer = Iemocap.scan(raw / RELEASE), Iemocap.scan(raw)
    assert [s.id for s in inner.samples] == [s.id for s in outer.samples]
    assert [f"{RELEASE}/{s.files['image']}" for s in inner.samples] == [s.files["image"] for s in outer.samples]


def test_utterances_that_are_too_long_are_told_of(raw):
    path = folder_of(raw) / EVALUATION / f"{FIRST}.txt"
    names = [s.id for s in Iemocap.scan(raw).samples if s.group == FIRST][:3]
    rest = [line for line in path.read_text().splitlines() if not any(name in line for name in names)]
    ends = (10.0, 10.1, 12.3)
    path.write_text("\n".join([*rest, *(rated(name, "neu", 0, end) for name, end in zip(names, ends, strict=True))]))
    notes = Iemocap.scan(raw).notes
    assert (
        "2 utterances last longer than the waveform's 10 s, 1 than the fbank's 10.255 s (the longest 12.3 s)"
        in notes[1]
    )


def test_hidden_files_and_annotators_files_are_left_alone(raw):
    before = Iemocap.scan(raw)
    (folder_of(raw) / EVALUATION / f"._{FIRST}.txt").write_bytes(b"\0\xff")
    (folder_of(raw) / EVALUATION / "Categorical").mkdir()
    (folder_of(raw) / EVALUATION / "Categorical" / f"{FIRST}_e1_cat.txt").write_bytes(b"[\xff")
    assert Iemocap.scan(raw) == before


def test_recordings_that_no_file_rates_are_listed(raw):
    path = folder_of(raw, 3) / SOUND / "Ses03F_impro01" / "Ses03F_impro01_F777.wav"
    path.write_bytes(b"RIFF")
    assert Iemocap.scan(raw).unlisted == [str(path.relative_to(raw))]


# Splits


def test_clean_is_by_session(data):
    splits = module().splits
    table = Iemocap.table()
    assert [len(s) for s in (splits.train, splits.validation, splits.test)] == [30, 10, 10]
    for split, sessions in (("train", {"1", "2", "3"}), ("validation", {"4"}), ("test", {"5"})):
        part = table[table["clean"] == split]
        assert {name[4] for name in part["id"]} == sessions
        assert set(part["label"]) == {0, 1, 2, 3}
        assert set(part["group"]) == {dialogue for dialogue in table["group"] if dialogue[4] in sessions}


def test_the_audit_finds_clean_as_promised(data):
    found = audit(Iemocap)
    assert found.violations["clean"] == []
    assert "samples: 50, published 5531" in found.findings


def test_legacy_by_lists(raw):
    given = {split: (raw / f"lists/{file}.txt").read_text().split() for split, file in
             (("train", "train"), ("validation", "dev"), ("test", "test"))}  # fmt: skip
    listing = Iemocap.scan(raw)
    for split, names in given.items():
        assert [s.id for s in listing.samples if s.legacy == split] == names
    assert [len(names) for names in given.values()] == [30, 10, 10]


def test_legacy_without_the_list_that_mla_does_not_release(raw):
    dev = (raw / "lists/dev.txt").read_text().split()
    (raw / "lists/dev.txt").unlink()
    listing = Iemocap.scan(raw)
    assert [s.id for s in listing.samples if not s.legacy] == dev
    assert sorted(Path(file).stem for file in listing.unlisted) == dev
    assert listing.skipped == []


WORD = {0: "Neutral", 1: "Angry", 2: "Sad", 3: "Happy"}


def write_release(raw):
    """Lists of the listing's samples as MLA's release has them; the last ten are in neither."""
    samples = Iemocap.scan(raw).samples
    shutil.rmtree(raw / "lists")
    (raw / "lists").mkdir()
    for name, part in (("train", samples[:30]), ("test", samples[30:40])):
        lines = [f"{s.id}.mp4 [split|sign] {s.text['text']} [split|sign] {WORD[s.label]}" for s in part]
        (raw / f"lists/my_{name}_iemo.txt").write_text("\n".join(lines))
    return [s.id for s in samples]


def test_legacy_by_the_lists_of_mlas_release(raw):
    names = write_release(raw)
    got = {s.id: s.legacy for s in Iemocap.scan(raw).samples}
    assert got == {n: "train" if i < 30 else "test" if i < 40 else "" for i, n in enumerate(names)}


@pytest.mark.parametrize(
    ("line", "match"),
    [
        (f"{NAMES[0]} [split|sign] x [split|sign] Happy", "line 1: expected '<utterance>.mp4"),
        (f"{NAMES[0]}.mp4 x Happy", "line 1: expected '<utterance>.mp4"),
        (f"{NAMES[0]}.mp4 [split|sign] x [split|sign] Glad", "one of Neutral, Angry, Sad, Happy"),
        ("../x.mp4 [split|sign] x [split|sign] Happy", "is no utterance"),
    ],
)
def test_mistakes_in_the_lists_of_mlas_release(raw, line, match):
    write_release(raw)
    (raw / "lists/my_test_iemo.txt").write_text(line)
    refused(raw, match)


def test_lists_of_two_kinds_are_refused(raw):
    (raw / "lists/my_train_iemo.txt").touch()
    refused(raw, "lists of names and of MLA; expected one kind")


def test_legacy_without_lists_is_that_of_the_features(raw):
    shutil.rmtree(raw / "lists")
    listing = Iemocap.scan(raw)
    assert "no published lists; legacy is random by the hashes of the names, 60/20/20" in listing.notes
    order = sorted((s.id for s in listing.samples), key=lambda name: sha256(name.encode()).digest())
    for split, names in (("train", order[:30]), ("validation", order[30:40]), ("test", order[40:])):
        assert {s.id for s in listing.samples if s.legacy == split} == set(names)


def test_published_counts_agree_with_each_other():
    sessions = (1085, 1023, 1151, 1031, 1241)
    assert Iemocap.published["clean"] == {"train": sum(sessions[:3]), "validation": sessions[3], "test": sessions[4]}
    assert Iemocap.published["all"]["samples"] == sum(sessions) == sum(Iemocap.published["legacy"].values()) == 5531


def test_names_in_lists_that_are_no_samples_are_counted(raw):
    (raw / "lists/dev.txt").write_text(f"{FIRST}_F003\nSes05F_impro09_F000\n")  # rated xxx; of no dialogue there is
    where = raw / "lists/dev.txt"
    assert Iemocap.scan(raw).skipped == [
        (f"{FIRST}_F003", f"{where}, line 1", "has the emotion xxx, not in the set"),
        ("Ses05F_impro09_F000", f"{where}, line 2", "is in no file of dialog/EmoEvaluation"),
    ]


# Arrays


def test_arrays_are_what_the_files_hold(data, written):
    table, arrays = (
        Iemocap.table(),
        {name: Iemocap.array(name, Iemocap.read_manifest()) for name in ("fbank", "waveform", "frame")},
    )
    assert (arrays["fbank"].dtype, arrays["fbank"].shape) == (np.float16, (50, 1024, 128))
    assert (arrays["waveform"].dtype, arrays["waveform"].shape) == (np.int16, (50, 160_000))
    assert (arrays["frame"].dtype, arrays["frame"].shape) == (np.uint8, (50, 256, 256, 3))
    for row in (0, 17, 49):
        name, group = table["id"][row], table["group"][row]
        with wave.open(str(folder_of(written, int(name[4])) / SOUND / group / f"{name}.wav")) as stream:
            assert (stream.getframerate(), stream.getnchannels()) == (16_000, 1)
            samples = np.frombuffer(stream.readframes(10**6), "<i2")
        assert (arrays["waveform"][row][: len(samples)] == samples).all()
        assert not arrays["waveform"][row][len(samples) :].any()
        expected = fbank(torch.from_numpy(samples / 32768.0)).numpy()
        assert np.abs(arrays["fbank"][row] - expected).max() < 0.02
    assert table["present_text"].all()


def test_the_pitch_and_the_stripes_tell_the_class(data):
    """So the right file and the right half are read: the other actor's stripes are those of a tenth class."""
    table, manifest = Iemocap.table(), Iemocap.read_manifest()
    sound, frame = Iemocap.array("waveform", manifest), Iemocap.array("frame", manifest)
    label_of = {"neu": (0,), "ang": (1,), "sad": (2,), "hap": (3, 4)}
    labels = [label_of[("neu", "ang", "sad", "hap")[label]] for label in table["label"]]
    for row, wanted in enumerate(labels):
        pitch = np.abs(np.fft.rfft(sound[row][:2800], 16_000)).argmax()
        assert min(abs(pitch - (200 + 120 * label)) for label in wanted) < 25
        profile = frame[row][20:-20].mean(axis=(0, 2))
        waves = [abs((profile - profile.mean()) @ np.exp(1j * np.arange(256) * (0.05 + 0.04 * n))) for n in range(10)]
        assert np.argmax(waves) in wanted


def test_batches(data):
    batch = module(image_sizes={"image": 224}, views={"audio": "waveform"})
    got = batch.evaluated(batch.splits.test.__getitems__([0, 3]))
    assert got.inputs["audio"].shape == (2, 160_000)
    assert (got.inputs["image"].shape, got.inputs["image"].dtype) == ((2, 3, 224, 224), torch.uint8)
    assert set(got.inputs["text"]) == set(HashedText().tokenize(["a"]))
    assert got.present.all()


@pytest.mark.parametrize(("half", "at"), [("left", 0), ("right", 360)])
@pytest.mark.parametrize("number", [0, 4, 11])
def test_the_picture_is_of_the_half_and_of_the_time(tmp_path, half, at, number):
    """Every still is a tone of grey with a red corner on top and a green one at the left of the part that is kept."""
    stills = [np.full((480, 720, 3), 10 + 18 * i, np.uint8) for i in range(12)]
    for still in stills:
        still[:, 360:] += 8
        still[:, :360][112:176, 52:308] = (250, 0, 0)
        still[:, 360:][112:176, 52:308] = (0, 0, 250)
        still[304:368, 52:116] = still[304:368, 412:476] = (0, 250, 0)
    write_divx(tmp_path / "d.avi", stills)
    got = decode_image(tmp_path / "d.avi", sample(float(number * TURN), float((number + 1) * TURN), half))["frame"]
    assert (got.shape, got.dtype) == ((256, 256, 3), np.uint8)
    mean = got[80:180, 20:-20].mean()
    assert abs(mean - (10 + 18 * number + (8 if at else 0))) < 4
    red, green = got[8:56, 8:-8].mean(axis=(0, 1)), got[200:248, 8:56].mean(axis=(0, 1))
    assert red.argmax() == (2 if at else 0)
    assert green.argmax() == 1
    assert red.max() > 180
    assert green.max() > 180


def test_the_frame_is_the_middle_one(tmp_path):
    """Of frames that grow lighter, the one nearest to the middle of the utterance."""
    write_divx(
        tmp_path / "d.avi", [np.full((480, 720, 3), 5 * i, np.uint8) for i in range(40)]
    )  # each for FRAMES frames
    assert pytest.approx(float(TURN), rel=1e-3) == FRAMES / 29.97
    for first, last in ((0, 10), (4, 31), (30, 39)):
        got = decode_image(tmp_path / "d.avi", sample(first * float(TURN), (last + 1) * float(TURN)))["frame"]
        assert abs(got.mean() - 5 * (first + last) / 2) < 3.5


def write_wav(path: Path, samples: np.ndarray, rate: int = 16_000) -> None:
    with wave.open(str(path), "wb") as stream:
        stream.setnchannels(1)
        stream.setsampwidth(2)
        stream.setframerate(rate)
        stream.writeframes(samples.astype("<i2").tobytes())


@pytest.mark.parametrize("length", [1600, 159_999, 160_000, 164_080, 190_000])
def test_sound_is_filled_up_and_cut(tmp_path, length):
    samples = np.random.default_rng(0).integers(-32768, 32768, length)
    write_wav(tmp_path / "a.wav", samples)
    got = decode_audio(tmp_path / "a.wav", sample(0, length / 16_000))
    kept = min(length, 160_000)
    assert (got["waveform"][:kept] == samples[:kept]).all()
    assert not got["waveform"][kept:].any()
    rows = min(1 + (length - 400) // 160, 1024)
    assert (got["fbank"][:rows] != 0).any(axis=1).all()
    assert not got["fbank"][rows:].any()


# What is refused


def refused(raw, match, data_class=Iemocap):
    with pytest.raises(UsageError, match=match):
        data_class.scan(raw)


def test_nothing_there(tmp_path):
    refused(tmp_path, r"Session1 is missing: expected the five sessions of IEMOCAP_full_release")


@pytest.mark.parametrize(
    ("part", "match"),
    [
        ("", r"Session4 is missing: expected the five sessions"),
        (EVALUATION, r"Session4/dialog/EmoEvaluation is missing: expected the emotions"),
        (TRANSCRIPTIONS, r"Session4/dialog/transcriptions is missing: expected the texts"),
        (SOUND, r"Session4/sentences/wav is missing: expected the utterances' sound"),
        (VIDEO, r"Session4/dialog/avi/DivX is missing: .* which the release without videos lacks"),
    ],
)
def test_missing_folders(raw, part, match):
    shutil.rmtree(folder_of(raw, 4) / part)
    refused(raw, match)


def test_a_folder_without_evaluations(raw):
    for path in (folder_of(raw, 2) / EVALUATION).iterdir():
        path.unlink()
    refused(raw, r"Session2/dialog/EmoEvaluation: no file; expected <dialogue>\.txt")


@pytest.mark.parametrize("name", ["Ses02F_impro01", "Ses1F_impro01", "Ses01X_impro01", "Ses01F", "Ses01F_im pro"])
def test_names_of_dialogues(raw, name):
    (folder_of(raw) / EVALUATION / f"{name}.txt").write_text("")
    refused(raw, rf"{name}\.txt: expected the name of a dialogue of this session, such as Ses01F_impro01")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("[0.1 - 0.2] neu\n", r"impro01\.txt, line 1: expected \[start - end\] utterance emotion \[V, A, D\], got"),
        ("\n[a - 0.2]\tx\tneu\t[1, 1, 1]\n", r"line 2: expected \[start - end\]"),
        ("[-1.0 - 0.2]\tx\tneu\t[1, 1, 1]\n", r"line 1: expected \[start - end\]"),
        (
            rated("Ses01F_impro02_F000", "neu"),
            r"'Ses01F_impro02_F000' is no utterance of this dialogue; .* such as Ses01F_impro01_F000",
        ),
        (rated(f"{FIRST}_X000", "neu"), r"is no utterance of this dialogue"),
        (rated(f"{FIRST}_F/../../x", "neu"), r"is no utterance of this dialogue"),
        (rated("../../x_F000", "neu"), r"is no utterance of this dialogue"),
        (2 * rated(NAMES[0], "neu"), rf"line 2: utterance '{NAMES[0]}' is given twice, expected once"),
        (rated(NAMES[0], "angy"), r"line 1: unknown emotion 'angy'; did you mean 'ang'"),
        (rated(NAMES[0], "neu", 2, 2), rf"'{NAMES[0]}' ends at 2 s, expected after its start at 2 s"),
        (rated(NAMES[0], "xxx", 3, 2), r"ends at 2 s"),
    ],
)
def test_evaluations(raw, text, match):
    (folder_of(raw) / EVALUATION / f"{FIRST}.txt").write_text(text)
    refused(raw, match)


@pytest.mark.parametrize("folder", [EVALUATION, TRANSCRIPTIONS])
def test_text_that_is_not_utf8_is_counted(raw, folder):
    before, path = Iemocap.scan(raw), folder_of(raw) / folder / f"{FIRST}.txt"
    path.write_bytes(path.read_bytes() + b"caf\xe9\n")
    after = Iemocap.scan(raw)
    assert after.samples == before.samples
    [note] = set(after.notes) - set(before.notes)
    assert f"{FIRST}.txt: 1 line with bytes that are not UTF-8" in note


def test_utterances_without_a_text_or_with_two_are_counted(raw):
    path = folder_of(raw) / TRANSCRIPTIONS / f"{FIRST}.txt"
    names = [s.id for s in Iemocap.scan(raw).samples if s.group == FIRST]
    lines = path.read_text().splitlines(keepends=True)
    lines = [line for line in lines if not line.startswith(names[0])]
    path.write_text("".join([*lines, f"{names[1]} [0-1]: Again.\n"]))
    listing = Iemocap.scan(raw)
    shown = str(path.relative_to(raw))
    assert listing.skipped == [
        (names[0], shown, "has 0 lines of it, expected one"),
        (names[1], shown, "has 2 lines of it, expected one"),
    ]
    assert {s.id for s in listing.samples if s.group == FIRST} == set(names[2:])
    path.unlink()
    assert len(Iemocap.scan(raw).skipped) == len(names) == 5


@pytest.mark.parametrize(
    ("file", "text", "match"),
    [
        (
            "train",
            "../../etc/passwd\n",
            r"train\.txt, line 1: '\.\./\.\./etc/passwd' is no utterance; expected a name such as",
        ),
        ("train", "Ses06F_impro01_F000\n", r"is no utterance"),
        ("train", f"{NAMES[0]},1\n", r"is no utterance"),
        (
            "train",
            f"{NAMES[0]}\n\n{NAMES[0]}\n",
            r"train\.txt, line 3: utterance .* is given twice, expected once in all lists",
        ),
        (
            "test",
            f"{NAMES[0]}\n{NAMES[1]}\n{NAMES[2]}\n{NAMES[3]}\n{NAMES[5]}\n",
            r"is given twice, expected once in all lists",
        ),
        ("test", None, r"lists/test\.txt is missing, but .*lists/train\.txt is there"),
        ("train", None, r"lists/train\.txt is missing, but .*lists/dev\.txt is there"),
        ("dev", b"\xff\n", r"dev\.txt, line 1: .* is no utterance"),
    ],
)
def test_lists(raw, file, text, match):
    path = raw / f"lists/{file}.txt"
    if text is None:
        path.unlink()
    else:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    refused(raw, match)


@pytest.mark.parametrize(
    "file", ["lists/train.txt", *(f"{RELEASE}/Session1/{f}/{FIRST}.txt" for f in (EVALUATION, TRANSCRIPTIONS))]
)
def test_links_that_lead_out(raw, tmp_path, file):
    (tmp_path / "outside.txt").write_text("")
    (raw / file).unlink()
    (raw / file).symlink_to(tmp_path / "outside.txt")
    refused(raw, r"is a link to .*outside\.txt; expected a file in")


def test_a_recording_that_is_a_link_that_leads_out(raw, tmp_path, monkeypatch):
    monkeypatch.setenv("MMBENCH_DATA", str(tmp_path / "data"))
    (tmp_path / "outside.wav").write_bytes(b"")
    (folder_of(raw) / SOUND / FIRST / f"{NAMES[0]}.wav").symlink_to(tmp_path / "outside.wav")
    with pytest.raises(UsageError, match=r"is a link to .*outside\.wav"):
        prepare(Iemocap, raw, say=lambda text: None)


# Media that cannot be used


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (None, "is missing"),
        (b"", "is empty"),
        (b"this is a text, not a recording\n" * 20, "not readable"),
        ("header", "zero|no sound|empty"),
        ("half", "cut off"),
        ("short", r"lasts 0\.050 s, expected at least 0\.1 s"),
    ],
)
def test_sound_that_cannot_be_used(media, content, match):
    path = media / SOUND / FIRST / f"{NAMES[0]}.wav"
    if content is None:
        path.unlink()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "half":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        write_wav(path, np.zeros(0 if content == "header" else 800))
    with pytest.raises(BadFile, match=match):
        decode_audio(path, sample())


@pytest.mark.parametrize("content", [None, b"", b"this is a text, not a video\n" * 20, "cut", "sound"])
def test_video_that_cannot_be_used(media, content):
    path = media / VIDEO / f"{FIRST}.avi"
    assert decode_image(path, sample(0.82, 0.98))["frame"].shape == (256, 256, 3)
    if content is None:
        path.unlink()
    elif content == "cut":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 8])
    elif content == "sound":
        path.write_bytes((media / SOUND / FIRST / f"{NAMES[0]}.wav").read_bytes())
    else:
        path.write_bytes(content)
    with pytest.raises(BadFile):
        decode_image(path, sample(0.82, 0.98))


def test_an_utterance_beyond_the_end_of_the_video(media):
    with pytest.raises(BadFile):
        decode_image(media / VIDEO / f"{FIRST}.avi", sample(100, 101))


def test_bad_files_are_counted(written, tmp_path, monkeypatch):
    monkeypatch.setenv("MMBENCH_DATA", str(tmp_path / "data"))
    shutil.copytree(written, tmp_path / "raw")
    (folder_of(tmp_path / "raw") / SOUND / FIRST / f"{NAMES[1]}.wav").write_bytes(b"")
    (folder_of(tmp_path / "raw", 5) / VIDEO / "Ses05M_script01_1.avi").unlink()
    with pytest.raises(
        DataError, match=rf"6 of 50 samples cannot be used(.|\n)*{NAMES[1]}: .*{NAMES[1]}\.wav is empty"
    ):
        prepare(Iemocap, tmp_path / "raw", say=lambda text: None)
    manifest = prepare(Iemocap, tmp_path / "raw", allow_bad=True, say=lambda text: None)
    assert manifest["samples"] == 44
    assert sorted(reason for _, _, reason in manifest["skipped"]) == ["is empty", *["is missing"] * 5]


# The audit


def test_planted_leaks_are_found(prepared, tmp_path, monkeypatch):
    shutil.copytree(prepared / "iemocap", tmp_path / "iemocap")
    monkeypatch.setenv("MMBENCH_DATA", str(tmp_path))
    table = Iemocap.table()
    one, other = (table.index[table["clean"] == split][0] for split in ("train", "test"))
    table.loc[one, ["group", "sha256_audio"]] = table.loc[other, ["group", "sha256_audio"]]
    reseal(tmp_path / "iemocap", table)
    found = audit(Iemocap).violations["clean"]
    assert any("share their group with train" in line for line in found)
    assert any("share their audio with train" in line for line in found)


# The copy


def test_the_copy_is_the_same_every_time_but_for_the_lists(written, tmp_path):
    write6(tmp_path)
    files = sorted(path.relative_to(written) for path in written.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    changed = {str(file) for file in files if (written / file).read_bytes() != (tmp_path / file).read_bytes()}
    mla = {"lists-mla/my_train_iemo.txt", "lists-mla/my_test_iemo.txt"}
    assert changed == {"lists/train.txt", "lists/dev.txt", "lists/test.txt", *mla}
    listing = Iemocap6.scan(tmp_path)
    assert Counter(s.legacy for s in listing.samples) == {"train": 36, "validation": 12, "test": 12}
    assert listing.skipped == []


def test_the_copy_is_coded_as_the_original(written):
    import av

    with av.open(str(folder_of(written) / VIDEO / f"{FIRST}.avi")) as container:
        stream = container.streams.video[0]
        assert (container.format.name, stream.codec_context.name, stream.codec_context.codec_tag) == (
            "avi",
            "mpeg4",
            "DX50",
        )
        assert (stream.width, stream.height, float(stream.average_rate)) == (720, 480, pytest.approx(29.97, abs=0.01))
    assert len(read_evaluation(folder_of(written) / EVALUATION / f"{FIRST}.txt", [])) == len(EMOTIONS) + 1


def test_the_ids_of_its_splits_are_those_of_what_is_loaded(data):
    check_ids(Iemocap)
