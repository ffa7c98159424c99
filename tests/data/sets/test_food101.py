"""UPMC Food-101: the demo copy through preparing and loading, published lists, the clean split, and mistakes in the raw folder."""

import csv
import hashlib
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
from mmbench.data.sets.food101 import VALIDATION, Food101
from mmbench.encoders.hashed_text import HashedText
from mmbench.errors import DataError, UsageError
from toy import reseal

TOKENIZERS = {"text": HashedText(buckets=64).tokenize}
ROWS = {
    "train": [("apple_pie_0.jpg", "Apple pie", "apple_pie"), ("sushi_1.jpg", "Sushi, fresh", "sushi")],
    "test": [("sushi_2.jpg", "Sushi", "sushi")],
}


def quietly(raw, **arguments):
    return prepare(Food101, raw, say=lambda text: None, **arguments)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The demo copy, prepared: the raw folder, and the root of the prepared data."""
    root = tmp_path_factory.mktemp("food101")
    Food101.write_demo(root / "raw")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMBENCH_DATA", str(root))
        quietly(root / "raw")
    return root / "raw", root


@pytest.fixture
def raw(made, monkeypatch):
    monkeypatch.setenv("MMBENCH_DATA", str(made[1]))
    return made[0]


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Three samples without pictures, for a test to change."""
    monkeypatch.setenv("MMBENCH_DATA", str(tmp_path / "data"))
    for split, rows in ROWS.items():
        write_table(tmp_path / "raw", split, rows)
    return tmp_path / "raw"


def write_table(raw, split, rows, encoding="utf-8"):
    (raw / "images" / split).mkdir(parents=True, exist_ok=True)
    (raw / "texts").mkdir(exist_ok=True)
    with (raw / f"texts/{split}_titles.csv").open("w", encoding=encoding, newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows(rows)


def write_picture(raw, sample_id, colour=(200, 30, 30)):
    path = raw / "images" / sample_id
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30), colour).save(path)
    return path


def write_list(raw, name, lines):
    (raw / "lists").mkdir(exist_ok=True)
    (raw / "lists" / name).write_text(
        "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    )


def entry(split, name, label):
    return {"id": f"{label}_{name}", "label": label, "text": "", "img": f"images/{split}/{label}/{name}"}


def legacy(listing) -> dict[str, str]:
    return {sample.id: sample.legacy for sample in listing.samples}


# The demo copy, prepared


def test_samples_are_those_of_the_tables(raw):
    table = Food101.table().set_index("id")
    expected = {}
    for split in ("train", "test"):
        rows = pd.read_csv(
            raw / f"texts/{split}_titles.csv", header=None, names=["name", "title", "label"], na_filter=False
        )
        for name, title, label in rows.itertuples(index=False):
            expected[f"{split}/{label}/{name}"] = (label, re.sub(r"\s+", " ", title))
    assert list(table.index) == sorted(expected)
    assert {i: (Food101.classes[r.label], r.text_text) for i, r in table.iterrows()} == expected
    assert (table["skipped"] == "").all()
    assert table.index[~table["present_text"]].tolist() == ["train/waffles/waffles_101.jpg"]


def test_clean_splits_share_no_title_and_no_picture(raw):
    table = Food101.table()
    table["title"] = [re.sub(r"[^a-z0-9]+", " ", text.lower()).strip() for text in table["text_text"]]
    table["picture"] = [hashlib.md5((raw / "images" / i).read_bytes()).hexdigest() for i in table["id"]]
    parts = {name: part for name, part in table.groupby("clean") if name}
    for one in parts:
        assert set(parts[one]["label"]) == set(range(101)), one
        for other in set(parts) - {one}:
            for key in ("title", "picture", "group"):
                assert not (set(parts[one][key]) - {""}) & set(parts[other][key])
    assert set(parts["test"]["id"]) == {i for i in table["id"] if i.startswith("test/")}
    assert table["id"][table["clean"] == ""].tolist() == ["train/waffles/waffles_100.jpg"]
    assert audit(Food101).violations["clean"] == []


def test_pictures_are_scaled_to_cover_and_upright(raw):
    table, pictures = Food101.table(), np.load(Food101.folder() / "picture.npy", mmap_mode="r")
    assert pictures.shape == (len(table), 256, 256, 3)
    assert pictures.dtype == np.uint8
    for row in (0, 200):
        with Image.open(raw / "images" / table["id"][row]) as image:
            wide = np.asarray(image.resize((341, 256), Image.Resampling.BILINEAR)).astype(float)  # of 64 × 48
        assert np.abs(wide[:, 42:298] - pictures[row]).mean() < 3


@pytest.mark.parametrize(("protocol", "sizes"), [("clean", (203, 101, 101)), ("legacy", (203, 102, 101))])
def test_loading(raw, protocol, sizes):
    data = Food101(protocol, tokenizers=TOKENIZERS, image_sizes={"image": 32})
    splits = data.splits
    assert tuple(map(len, (splits.train, splits.validation, splits.test))) == sizes
    batch = splits.train[3]
    assert batch.inputs["image"].shape == (1, 3, 256, 256)
    assert batch.present.shape == (1, 2)
    assert data.evaluated(batch).inputs["image"].shape == (1, 3, 32, 32)
    assert data.augmentations["image"](splits.train[4].inputs["image"]).shape == (1, 3, 32, 32)


def test_audit_reports_planted_leaks(made, tmp_path, monkeypatch):
    folder = tmp_path / "food101"
    folder.mkdir()
    (folder / "manifest.json").write_bytes((made[1] / "food101/manifest.json").read_bytes())
    (folder / "picture.npy").symlink_to(made[1] / "food101/picture.npy")
    table = pd.read_parquet(made[1] / "food101/samples.parquet")
    table.loc[table["id"] == "train/waffles/waffles_100.jpg", "clean"] = "train"
    table.loc[table["id"] == "train/sushi/sushi_0.jpg", ["clean", "sha256_image"]] = ["train", table["sha256_image"][0]]
    reseal(folder, table)
    monkeypatch.setenv("MMBENCH_DATA", str(tmp_path))
    assert table["clean"][0] == "test"
    text = "\n".join(audit(Food101).violations["clean"])
    assert re.search("1 of 101 test samples.*group", text)
    assert re.search("1 of 101 test samples.*image", text)


def test_class():
    assert DATASETS["food101"] is Food101
    assert len(set(Food101.classes)) == 101
    assert sorted(Food101.classes) == list(Food101.classes)


# The clean split


def frame(rows) -> pd.DataFrame:
    """Rows (id, label, title, picture), as ``clean`` gets them; equal titles are a group."""
    table = pd.DataFrame(rows, columns=["id", "label", "group", "sha256_image"])
    return table.sort_values("id", ignore_index=True)


def test_clean_takes_about_the_published_share_and_keeps_copies_together():
    random = np.random.default_rng(0)
    rows = [
        (
            f"{'test' if i % 4 == 0 else 'train'}/{i}",
            i % 5,
            f"title {random.integers(3000)}",
            f"picture {random.integers(3000)}",
        )
        for i in range(4000)
    ]
    table = frame(rows)
    table["split"] = Food101.clean(table)
    test = table[table["id"].str.startswith("test/")]
    assert (test["split"] == "test").all()
    rest = table.drop(test.index)
    leaks = rest["group"].isin(test["group"]) | rest["sha256_image"].isin(test["sha256_image"])
    assert (rest["split"] == "").equals(leaks)
    used = rest[~leaks]
    for key in ("group", "sha256_image"):
        assert (used.groupby(key)["split"].nunique() == 1).all()
    share = (used["split"] == "validation").groupby(used["label"]).mean()
    assert share.between(VALIDATION - 0.03, VALIDATION + 0.03).all()
    assert Food101.clean(table) == table["split"].tolist()


@pytest.mark.parametrize(("size", "expected"), [(1, 0), (2, 1), (5, 1), (68, 5)])
def test_clean_leaves_training_samples_of_small_classes(size, expected):
    table = frame([(f"train/{c}_{i:02}", c, f"{c} {i}", f"{c} {i}") for c in range(3) for i in range(size)])
    split = pd.Series(Food101.clean(table))
    assert (split == "validation").groupby(table["label"]).sum().tolist() == [expected] * 3


# The published lists


def test_without_lists_legacy_is_the_official_split(tiny):
    listing = Food101.scan(tiny)
    assert legacy(listing) == {s.id: s.id.split("/")[0] for s in listing.samples}
    assert "legacy: the official splits" in listing.notes
    assert "legacy train: 2 samples, published 67972" in listing.notes


def test_lists_of_qmf(tiny):
    write_list(tiny, "train.jsonl", [entry("train", "apple_pie_0.jpg", "apple_pie")])
    write_list(tiny, "dev.jsonl", [entry("train", "sushi_1.jpg", "sushi")])
    write_list(tiny, "test.jsonl", [entry("test", "sushi_2.jpg", "sushi")] * 2)  # as the real one repeats a line
    listing = Food101.scan(tiny)
    assert legacy(listing) == {
        "test/sushi/sushi_2.jpg": "test",
        "train/apple_pie/apple_pie_0.jpg": "train",
        "train/sushi/sushi_1.jpg": "validation",
    }
    assert listing.skipped == []
    assert "QMF's lists repeat 1 lines" in listing.notes
    assert "legacy validation: 1 samples, published 5000" in listing.notes


def test_lists_of_mla(tiny):
    write_list(tiny, "my_train_food.txt", ["sushi_1.jpg sushi"])
    write_list(tiny, "my_test_food.txt", ["sushi_2.jpg sushi", "sushi_9.jpg sushi"])
    listing = Food101.scan(tiny)
    assert [sample.legacy for sample in listing.samples] == ["test", "", "train"]
    ((where, path, reason),) = listing.skipped
    assert where.endswith("my_test_food.txt, line 2")
    assert path == "images/test/sushi/sushi_9.jpg"
    assert "no sample" in reason


def test_a_list_with_another_class_costs_the_sample(tiny):
    write_list(tiny, "train.jsonl", [{**entry("train", "sushi_1.jpg", "sushi"), "label": "pizza"}])
    write_list(tiny, "dev.jsonl", [])
    write_list(tiny, "test.jsonl", [entry("test", "sushi_2.jpg", "sushi")])
    listing = Food101.scan(tiny)
    assert [s.id for s in listing.samples] == ["test/sushi/sushi_2.jpg", "train/apple_pie/apple_pie_0.jpg"]
    assert "is sushi by the data set, pizza by" in listing.skipped[0][2]
    assert listing.unlisted == []


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"train.jsonl": []}, "dev.jsonl is missing"),
        ({"my_test_food.txt": []}, "my_train_food.txt is missing"),
        ({"train.jsonl": [], "my_train_food.txt": []}, "of QMF and of MLA"),
        (
            {"my_train_food.txt": ["a.jpg sushi x"], "my_test_food.txt": []},
            "line 1: expected a file's name and its class",
        ),
        ({"my_train_food.txt": ["a.jpg sushy"], "my_test_food.txt": []}, "did you mean 'sushi'"),
        ({"my_train_food.txt": ["../../../x.jpg sushi"], "my_test_food.txt": []}, "leads out of"),
        ({"train.jsonl": ["", "{"], "dev.jsonl": [], "test.jsonl": []}, "line 2: expected a JSON object"),
        ({"train.jsonl": ["[" * 100_000], "dev.jsonl": [], "test.jsonl": []}, "line 1: expected a JSON object"),
        ({"train.jsonl": [{"img": 3, "label": "sushi"}], "dev.jsonl": [], "test.jsonl": []}, "expected a JSON object"),
        (
            {"train.jsonl": [{"img": "\ud800", "label": "sushi"}], "dev.jsonl": [], "test.jsonl": []},
            "expected a JSON object",
        ),
        ({"train.jsonl": [{"img": "../x", "label": "sushi"}], "dev.jsonl": [], "test.jsonl": []}, "leads out of"),
        (
            {
                "train.jsonl": [entry("train", "x.jpg", "sushi")],
                "dev.jsonl": [entry("train", "x.jpg", "sushi")],
                "test.jsonl": [],
            },
            "given as sushi for validation, otherwise by .*train.jsonl, line 1",
        ),
    ],
)
def test_mistakes_in_lists(tiny, lists, message):
    for name, lines in lists.items():
        write_list(tiny, name, lines)
    with pytest.raises(UsageError, match=message):
        Food101.scan(tiny)


# The raw folder


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_titles_with_marks_commas_quotes_and_line_breaks(tiny, encoding):
    title = 'Crème "brûlée",\n  the\u2028best'
    write_table(tiny, "train", [("path", "text", "label"), ("b.jpg", title, "sushi"), ("c.jpg", "", "sushi")], encoding)
    samples = Food101.scan(tiny).samples
    assert [(s.id, s.text["text"]) for s in samples[1:]] == [
        ("train/sushi/b.jpg", 'Crème "brûlée", the best'),
        ("train/sushi/c.jpg", ""),
    ]


def test_groups_are_titles_without_case_and_punctuation(tiny):
    titles = ["Best Sushi!", "best sushi", "???", "?!", "", ""]
    write_table(tiny, "train", [(f"{i}.jpg", title, "sushi") for i, title in enumerate(titles)])
    groups = [s.group for s in Food101.scan(tiny).samples[1:]]
    assert groups[0] == groups[1]
    assert len(set(groups)) == 5


def test_a_row_given_twice_is_counted(tiny):
    write_table(tiny, "test", [*ROWS["test"], ("sushi_2.jpg", "another title", "sushi")])
    listing = Food101.scan(tiny)
    assert len(listing.samples) == 3
    assert listing.samples[0].text["text"] == "Sushi"
    assert [path for _, path, _ in listing.skipped] == ["images/test/sushi/sushi_2.jpg"]


def test_pictures_without_a_title_are_unlisted(tiny):
    write_picture(tiny, "train/sushi/sushi_1.jpg")
    write_picture(tiny, "train/sushi/sushi_77.jpg")
    assert Food101.scan(tiny).unlisted == ["images/train/sushi/sushi_77.jpg"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"a title\n", "line 1: expected picture,title,class, got 'a title'"),
        (b"a.jpg,title,sushi\nb.jpg,title,susi\n", "line 2: unknown class 'susi'; did you mean 'sushi'"),
        (b"../../../../a.jpg,title,sushi\n", "line 1: expected the name of a picture"),
        (b",title,sushi\n", "line 1: expected picture,title,class"),
    ],
)
def test_mistakes_in_tables(tiny, text, message):
    (tiny / "texts/train_titles.csv").write_bytes(text)
    with pytest.raises(UsageError, match=message):
        Food101.scan(tiny)


def titles_of(raw, text: bytes) -> dict[str, str]:
    (raw / "texts/train_titles.csv").write_bytes(text)
    return {s.id.rpartition("/")[2]: s.text["text"] for s in Food101.scan(raw).samples if s.legacy == "train"}


def test_quotation_marks_that_are_not_closed_swallow_no_row(tiny):
    text = b'sushi_0.jpg,"Sushi at home,sushi\nsushi_1.jpg,My "best" sushi,sushi\nsushi_2.jpg,""Hi"" there,sushi\n'
    assert titles_of(tiny, text) == {
        "sushi_0.jpg": '"Sushi at home',
        "sushi_1.jpg": 'My "best" sushi',
        "sushi_2.jpg": '""Hi"" there',
    }


def test_titles_quoted_properly_with_commas_and_line_breaks(tiny):
    text = (
        b'"image","title","label"\r\n"sushi_0.jpg","One, ""two"":\r\n\r\nthree","sushi"\r\n'
        b"sushi_1.jpg,a, b,sushi \r\nsushi_2.jpg,,sushi\r\n./sushi_3.jpg,\xe9 x,sushi"
    )
    assert titles_of(tiny, text) == {
        "sushi_0.jpg": 'One, "two": three',
        "sushi_1.jpg": "a, b",
        "sushi_2.jpg": "",
        "sushi_3.jpg": "\ufffd x",
    }
    [note] = [note for note in Food101.scan(tiny).notes if "UTF-8" in note]
    assert "train_titles.csv: 1 line with bytes that are not UTF-8" in note
    assert note.endswith("line 7")


def test_what_is_no_row_is_counted(tiny):
    text = b"sushi_0.jpg,title,sushi\nsushi_1.jpg,sushi\nsushi_2.jpg,title,sushi\nsome words\nsushi_3.jpg,title,sushi"
    assert titles_of(tiny, text).keys() == {"sushi_0.jpg", "sushi_3.jpg"}
    lost = [(where[-6:], reason) for where, _, reason in Food101.scan(tiny).skipped]
    assert lost == [
        ("line 2", "is not picture,title,class: 'sushi_1.jpg,sushi'"),
        ("line 3", "is not picture,title,class: 'sushi_2.jpg,title,sushi\\nsome words'"),
    ]


@pytest.mark.parametrize("gone", ["images/test", "texts/test_titles.csv"])
def test_wrong_layout(tiny, gone):
    (tiny / gone).rename(tiny / "elsewhere")
    with pytest.raises(UsageError, match=f"{gone} is missing"):
        quietly(tiny)


def test_a_link_out_of_the_folder_is_refused(tiny, tmp_path):
    outside = write_picture(tmp_path / "outside", "x.jpg")
    (tiny / "images/train/sushi").mkdir()
    (tiny / "images/train/sushi/sushi_1.jpg").symlink_to(outside)
    with pytest.raises(UsageError, match="is a link to"):
        quietly(tiny)


def test_pictures_that_cannot_be_used_are_named(tiny):
    write_picture(tiny, "test/sushi/sushi_2.jpg")
    write_picture(tiny, "train/sushi/sushi_1.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"2 of 3 samples cannot be used") as error:
        quietly(tiny)
    assert "train/apple_pie/apple_pie_0.jpg: images/train/apple_pie/apple_pie_0.jpg is missing" in str(error.value)
    assert "images/train/sushi/sushi_1.jpg is empty" in str(error.value)
    whole = write_picture(tiny, "train/apple_pie/apple_pie_0.jpg").read_bytes()
    (tiny / "images/train/apple_pie/apple_pie_0.jpg").write_bytes(whole[: len(whole) // 2])
    (tiny / "images/train/sushi/sushi_1.jpg").write_text("no picture")
    manifest = quietly(tiny, allow_bad=True)
    assert manifest["samples"] == 1
    assert ["not a readable picture" in reason for _, _, reason in manifest["skipped"]] == [True, True]


def test_the_ids_of_its_splits_are_those_of_what_is_loaded(raw):
    check_ids(Food101)
