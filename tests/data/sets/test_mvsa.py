"""MVSA-Single: the demo copy in both readings of the labels, encodings of tweets, lists, splits, and mistakes in the raw folder."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from folding import check_ids
from mmbench.data import DATASETS
from mmbench.data.preparing.audit import audit
from mmbench.data.preparing.prepare import prepare
from mmbench.data.sets.mvsa import Mvsa, MvsaMerged, read_tweet
from mmbench.encoders.hashed_text import HashedText
from mmbench.errors import DataError, UsageError
from toy import reseal

BOTH = pytest.mark.parametrize("data", [Mvsa, MvsaMerged])
TOKENIZERS = {"text": HashedText(buckets=64).tokenize}
LABELS = {4: "positive,positive", 7: "negative,negative", 9: "neutral,positive", 12: "negative,positive"}
HEADER = "ID\ttext,image"


def quietly(data, raw, **arguments):
    return prepare(data, raw, say=lambda text: None, **arguments)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The demo copy, prepared as both data sets: the raw folder, and the root of the prepared data."""
    root = tmp_path_factory.mktemp("mvsa")
    Mvsa.write_demo(root / "raw")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMBENCH_DATA", str(root))
        for data in (Mvsa, MvsaMerged):
            quietly(data, root / "raw")
    return root / "raw", root


@pytest.fixture
def raw(made, monkeypatch):
    monkeypatch.setenv("MMBENCH_DATA", str(made[1]))
    return made[0]


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Four tweets, one of each kind of labels, for a test to change; pictures are of one colour each."""
    monkeypatch.setenv("MMBENCH_DATA", str(tmp_path / "data"))
    write_labels(tmp_path / "raw", [HEADER, *(f"{i}\t{pair}" for i, pair in LABELS.items())])
    for i in LABELS:
        (tmp_path / f"raw/data/{i}.txt").write_text(f"tweet {i}\n")
        Image.new("RGB", (30, 20), (10 * i, 40, 200)).save(tmp_path / f"raw/data/{i}.jpg")
    return tmp_path / "raw"


def write_labels(raw, lines):
    (raw / "data").mkdir(parents=True, exist_ok=True)
    (raw / "labelResultAll.txt").write_text("".join(line + "\n" for line in lines))


def write_lists(raw, **lists):
    (raw / "lists").mkdir(exist_ok=True)
    for name, entries in lists.items():
        lines = [
            json.dumps({"id": str(i), "label": label, "text": "", "img": f"data/{i}.jpg"})
            for i, label in entries.items()
        ]
        (raw / f"lists/{name}.jsonl").write_text("".join(line + "\n" for line in lines))


def naive_class(text, image, merged):
    """The rule of the papers, spelled out."""
    if text == image:
        return text
    if merged and text == "neutral":
        return image
    if merged and image == "neutral":
        return text
    return None


# The demo copy, prepared


@BOTH
def test_samples_and_classes(raw, data):
    rows = [re.split(r"[\t,]", line) for line in (raw / "labelResultAll.txt").read_text().splitlines()[1:]]
    expected = {i: label for i, *pair in rows if (label := naive_class(*pair, data is MvsaMerged))}
    assert len(rows) == 60
    assert len(expected) == {Mvsa: 45, MvsaMerged: 55}[data]
    table = data.table()
    assert {r.id: data.classes[r.label] for r in table.itertuples()} == expected
    assert (table["skipped"] == "").all()
    texts = table.set_index("id")["text_text"]
    assert all("… “" in text for text in texts)  # whatever the encoding
    assert texts["1"].startswith("RT @user0: ")
    assert any("texts are GB18030" in note for note in data.read_manifest()["notes"])


@BOTH
def test_clean_splits_share_no_tweet_and_no_picture(raw, data):
    table = data.table()
    table["tweet"] = [
        re.sub(r"\W+", " ", re.sub(r"^RT @\w+: |http\S+", "", text)).strip().lower() for text in table["text_text"]
    ]
    assert table["tweet"].nunique() == len(table) - 1
    parts = {name: part for name, part in table.groupby("clean")}
    assert set(parts) == {"train", "validation", "test"}
    for one in parts:
        assert set(parts[one]["label"]) == {0, 1, 2}
        for other in set(parts) - {one}:
            for key in ("tweet", "group", "sha256_image"):
                assert not set(parts[one][key]) & set(parts[other][key])
    assert [len(parts[name]) / len(table) for name in ("test", "validation")] == pytest.approx([0.2, 0.2], abs=0.05)
    assert audit(data).violations["clean"] == []


def test_legacy_is_as_qmfs_lists_say(raw):
    table = Mvsa.table().set_index("id")
    for split, name in (("train", "train"), ("validation", "dev"), ("test", "test")):
        lines = [json.loads(line) for line in (raw / f"lists/{name}.jsonl").read_text().splitlines()]
        assert {line["id"] for line in lines} == set(table.index[table["legacy"] == split])
        for line in lines:  # the lists hold the bytes as Latin-1, the table holds what they say
            assert line["text"].encode("latin-1").decode("gb18030").split() == table["text_text"][line["id"]].split()
    assert "27 samples, published 1555" in audit(Mvsa).violations["legacy"][0]


def test_merged_has_no_legacy(raw):
    assert set(MvsaMerged.table()["legacy"]) == {""}
    with pytest.raises(UsageError, match="mvsa_merged: no legacy splits; it has no published lists"):
        MvsaMerged("legacy", tokenizers=TOKENIZERS).splits  # noqa: B018


@pytest.mark.parametrize("protocol", ["clean", "legacy"])
def test_loading(raw, protocol):
    data = Mvsa(protocol, tokenizers=TOKENIZERS, image_sizes={"image": 32})
    assert [len(s) for s in (data.splits.train, data.splits.validation, data.splits.test)] == [27, 9, 9]
    batch = data.splits.test[0]
    assert list(batch.inputs) == ["text", "image"]
    assert batch.inputs["image"].shape == (1, 3, 256, 256)
    assert data.evaluated(batch).inputs["image"].shape == (1, 3, 32, 32)


def test_pictures_keep_colour_and_place(tiny):
    image = np.zeros((20, 30, 3), np.uint8)
    image[:10, :, 0] = 255  # red above
    image[10:, :, 2] = 255  # blue below
    Image.fromarray(image).save(tiny / "data/4.jpg", quality=95, subsampling=0)
    quietly(Mvsa, tiny)
    row = np.load(Mvsa.folder() / "picture.npy")[0].astype(float)
    assert row[:100].mean(axis=(0, 1)) == pytest.approx([254, 0, 0], abs=12)
    assert row[-100:].mean(axis=(0, 1)) == pytest.approx([0, 0, 254], abs=12)


def test_audit_reports_planted_leaks(made, tmp_path, monkeypatch):
    (tmp_path / "mvsa").mkdir()
    (tmp_path / "mvsa/manifest.json").write_bytes((made[1] / "mvsa/manifest.json").read_bytes())
    (tmp_path / "mvsa/picture.npy").symlink_to(made[1] / "mvsa/picture.npy")
    table = pd.read_parquet(made[1] / "mvsa/samples.parquet")
    first, second = (table["id"].tolist().index(i) for i in ("1", "10"))  # one tweet
    assert table["clean"][first] == table["clean"][second]
    table.loc[second, "clean"] = next(s for s in ("test", "train") if s != table["clean"][first])
    reseal(tmp_path / "mvsa", table)
    monkeypatch.setenv("MMBENCH_DATA", str(tmp_path))
    assert "group" in audit(Mvsa).violations["clean"][0]


def test_demo_is_the_same_every_time(made, tmp_path):
    DATASETS["mvsa_merged"].write_demo(tmp_path)
    files = [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 2 * 60 + 1 + 3 + 2
    assert all((tmp_path / f).read_bytes() == (made[0] / f).read_bytes() for f in files)


# The clean split


def test_clean_is_stratified_and_keeps_copies_together():
    random = np.random.default_rng(0)
    rows = [
        (str(i), random.choice(3, p=[0.1, 0.3, 0.6]), f"t{random.integers(900)}", f"p{random.integers(3000)}")
        for i in range(1500)
    ]
    table = pd.DataFrame(rows, columns=["id", "label", "group", "sha256_image"])
    table["split"] = Mvsa.clean(table)
    for key in ("group", "sha256_image"):
        assert (table.groupby(key)["split"].nunique() == 1).all()
    for name, share in (("train", 0.6), ("validation", 0.2), ("test", 0.2)):
        assert ((table["split"] == name).groupby(table["label"]).mean() - share).abs().max() < 0.03
    assert Mvsa.clean(table) == table["split"].tolist()


# Tweets


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b" plain \r\n ascii ", ("plain ascii", "UTF-8")),
        ("“naïve”…".encode(), ("“naïve”…", "UTF-8")),
        ("marked".encode("utf-8-sig"), ("marked", "UTF-8")),
        ("“加油了”…".encode("gb18030"), ("“加油了”…", "GB18030")),
        (b"5 \x80 or so", ("5 � or so", "neither UTF-8 nor GB18030")),
        (b"", ("", "UTF-8")),
    ],
)
def test_encodings(tmp_path, content, expected):
    (tmp_path / "1.txt").write_bytes(content)
    assert read_tweet(tmp_path / "1.txt") == expected


def test_undecodable_tweets_are_told_of(tiny):
    (tiny / "data/7.txt").write_bytes(b"5 \x80 or so")
    listing = Mvsa.scan(tiny)
    assert "1 texts are neither UTF-8 nor GB18030, such as those of 7" in listing.notes
    assert len(listing.samples) == 2


def test_groups_are_equal_tweets(tiny):
    tweets = [
        "RT @one: A storm is coming http://t.co/a",
        "a storm, is coming! https://t.co/b htt…",
        "http://t.co/a",
        "http://t.co/b",
        "",
        "",
    ]
    write_labels(tiny, [f"{i}\tneutral,neutral" for i in range(len(tweets))])
    for i, tweet in enumerate(tweets):
        (tiny / f"data/{i}.txt").write_text(tweet, encoding="utf-8")
    samples = Mvsa.scan(tiny).samples
    groups = [sample.group for sample in samples]
    assert groups[0] == groups[1]
    assert len(set(groups)) == 5
    assert [sample.text["text"] for sample in samples] == tweets


def test_a_tweet_without_text_has_no_text(tiny):
    (tiny / "data/7.txt").write_bytes(b" \n")
    quietly(Mvsa, tiny)
    assert Mvsa.table()["present_text"].tolist() == [True, False]


# Lists


@pytest.mark.parametrize("data", [Mvsa, MvsaMerged])
def test_lists_of_qmf(tiny, data):
    write_lists(tiny, train={4: "positive"}, dev={}, test={7: "negative", 99: "neutral"})
    listing = data.scan(tiny)
    if data is MvsaMerged:
        assert [(s.id, data.classes[s.label]) for s in listing.samples] == [
            ("4", "positive"),
            ("7", "negative"),
            ("9", "positive"),
        ]
        assert {s.legacy for s in listing.samples} == {""}
        return
    assert [(s.id, s.legacy) for s in listing.samples] == [("4", "train"), ("7", "test")]
    assert [path for _, path, _ in listing.skipped] == ["data/99.jpg"]


def test_lists_of_mla(tiny):
    (tiny / "lists").mkdir()
    (tiny / "lists/my_train_mvsa.txt").write_text("7.jpg negative\n")
    (tiny / "lists/my_test_mvsa.txt").write_text("4.jpg positive\n")
    assert [(s.id, s.legacy) for s in Mvsa.scan(tiny).samples] == [("4", "test"), ("7", "train")]


def test_no_lists(tiny):
    assert "no published lists, so no legacy protocol" in Mvsa.scan(tiny).notes


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"train": {4: "positive"}}, "dev.jsonl is missing"),
        ({"train": {4: "happy"}, "dev": {}, "test": {}}, "unknown class 'happy'"),
        ({"train": {4: "positive"}, "dev": {4: "positive"}, "test": {}}, "given as positive for validation"),
        ({"train": {"../../x": "positive"}, "dev": {}, "test": {}}, "leads out of"),
    ],
)
def test_mistakes_in_lists(tiny, lists, message):
    write_lists(tiny, **lists)
    with pytest.raises(UsageError, match=message):
        Mvsa.scan(tiny)


def test_a_list_with_another_class_costs_the_sample(tiny):
    write_lists(tiny, train={4: "neutral"}, dev={}, test={7: "negative"})
    listing = Mvsa.scan(tiny)
    assert [s.id for s in listing.samples] == ["7"]
    assert "is positive by the data set, neutral by" in listing.skipped[0][2]


# The raw folder


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["4 positive"], "line 1: expected 'ID<tab>label,label'"),
        ([HEADER, "4\tpositive,positive\tneutral,neutral\tpositive,positive"], "line 2: expected .*MVSA-Multiple"),
        (["../4\tpositive,positive"], "line 1: expected 'ID<tab>label,label'"),
        ([HEADER, "4\tpositive,happy"], "line 2: unknown label 'happy'"),
        ([HEADER, "4\tneutral,neutral", "4\tneutral,neutral"], "line 3: ID 4 is given twice"),
        ([HEADER], "no sample found"),
    ],
)
def test_mistakes_in_labels(tiny, lines, message):
    write_labels(tiny, lines)
    with pytest.raises(UsageError, match=message):
        quietly(Mvsa, tiny)


def test_labels_that_are_no_text(tiny):
    (tiny / "labelResultAll.txt").write_bytes(b"ID\ttext,image\n4\tpositive,\xe9\n")
    with pytest.raises(UsageError, match="line 2: expected 'ID<tab>label,label'"):
        Mvsa.scan(tiny)


def test_what_systems_leave_behind_does_not_count(tiny):
    before = Mvsa.scan(tiny)
    for name in ("._4.jpg", ".DS_Store", "Thumbs.db"):
        (tiny / "data" / name).touch()
    assert Mvsa.scan(tiny) == before


@pytest.mark.parametrize("gone", ["data", "labelResultAll.txt"])
def test_wrong_layout(tiny, gone):
    (tiny / gone).rename(tiny / "elsewhere")
    with pytest.raises(UsageError, match=f"{gone} is missing"):
        Mvsa.scan(tiny)


def test_a_missing_tweet_is_counted(tiny):
    (tiny / "data/7.txt").unlink()
    listing = Mvsa.scan(tiny)
    assert [s.id for s in listing.samples] == ["4"]
    assert listing.skipped == [("7", "data/7.txt", "cannot be read (No such file or directory)")]


def test_links_out_of_the_folder_are_refused(tiny, tmp_path):
    (tmp_path / "secret.txt").write_text("not for the table")
    (tiny / "data/7.txt").unlink()
    (tiny / "data/7.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(UsageError, match="is a link to"):
        Mvsa.scan(tiny)


def test_pictures_that_no_label_names_are_unlisted(tiny):
    (tiny / "data/55.jpg").write_bytes((tiny / "data/4.jpg").read_bytes())
    assert Mvsa.scan(tiny).unlisted == ["data/55.jpg"]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.unlink(), "is missing"),
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.write_bytes(path.read_bytes()[:300]), "not a readable picture"),
        (lambda path: path.write_text("a tweet"), "not a readable picture"),
    ],
)
def test_pictures_that_cannot_be_used_are_named(tiny, damage, reason):
    damage(tiny / "data/7.jpg")
    with pytest.raises(DataError, match=rf"1 of 2 samples cannot be used(.|\n)*data/7.jpg {reason}"):
        quietly(Mvsa, tiny)
    assert quietly(Mvsa, tiny, allow_bad=True)["samples"] == 1


def test_classes_are_registered():
    assert DATASETS["mvsa"] is Mvsa
    assert DATASETS["mvsa_merged"] is MvsaMerged


def test_the_ids_of_its_splits_are_those_of_what_is_loaded(raw):
    check_ids(Mvsa)
    check_ids(MvsaMerged)
