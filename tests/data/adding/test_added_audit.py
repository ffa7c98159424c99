"""The audit of a data set that was added without code: everything that people get wrong, planted into one folder."""

import csv
import io

import numpy as np
import pytest
from PIL import Image

from mmbench.cli import main
from mmbench.data.sets.openclipart import OpenClipart

COLUMNS = ("id", "picture_file_name", "title", "height", "price", "seller", "kind", "split")


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """120 samples of three classes with a picture, a title, two numbers and a vector; and what their rows and vectors are."""
    monkeypatch.setenv("MMBENCH_DATA", str(tmp_path / "data"))
    rng, pictures = np.random.default_rng(0), OpenClipart.read()["image"][::13]
    (tmp_path / "shop").mkdir()
    rows = []
    for i in range(120):
        Image.fromarray(pictures[i]).resize((48, 48)).save(tmp_path / f"shop/{i}.png")
        split = "train" if i < 80 else "validation" if i < 100 else "test"
        height, price = f"{rng.normal():.4f}", f"{rng.normal(2e5, 1e5):.0f}"
        rows.append([f"p{i}", f"{i}.png", f"thing {i}", height, price, f"s{i}", ("hat", "shoe", "coat")[i % 3], split])
    return tmp_path / "shop", rows, rng.normal(0, 1, (120, 16)).astype(np.float32)


def audited(shop, capsys, *options):
    """Add the folder, and the exit code and the lines of its audit."""
    folder, rows, vectors = shop
    with (folder / "metadata.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([COLUMNS, *rows])
    np.save(folder / "emb.npy", vectors)
    assert main(["data", "add", str(folder), "--label", "kind", "--jobs", "1", *options]) == 0
    capsys.readouterr()
    code = main(["data", "audit", "shop"])
    return code, capsys.readouterr().out.splitlines()


def test_a_sound_folder_has_no_notes_but_of_groups_and_legacy(shop, capsys):
    code, lines = audited(shop, capsys)
    assert code == 0
    assert [line for line in lines if line.startswith(("note", "VIOLATION"))] == [
        "note: no groups were given: clean is only stratified by class",
        "note: legacy has the splits of clean: what differs is where the epoch is chosen, and nothing else",
    ]


def test_what_people_get_wrong(shop, capsys):
    folder, rows, vectors = shop
    rows[115][1] = "5.png"  # the file of a sample of another class, in training
    stream = io.BytesIO()
    with Image.open(folder / "30.png") as picture:
        picture.convert("RGB").resize((90, 90)).save(stream, "JPEG", quality=80)
    (folder / "117.jpg").write_bytes(stream.getvalue())
    rows[117][1] = "117.jpg"
    for row in rows[:108]:
        row[2] = "" if row[6] == "hat" else row[2]
    rows[110][2] = "A red SHOE"  # a coat
    for i in (1, 4, 7, 10):
        rows[i][2] = f"shoe of {i}"
    vectors[:, 3] = 7
    vectors[:, 9] *= 1e5
    vectors[[20, 21]] = 0
    vectors[118] = vectors[41]
    code, lines = audited(shop, capsys)
    assert code == 0
    text = "\n".join(lines)
    for line in (
        "clean: 2 samples are in no split; 2 of them share a file, text or vector with one that is",
        "note: 2 samples share the file of picture with a sample of another label: p5 and p115",
        "note: 2 samples share the vector of emb with a sample of another label: p41 and p118",
        "note: legacy: 1 of 20 test samples share their picture with train: p115 and p5",
        "note: legacy: 1 of 20 test samples share their emb with train: p118 and p41",
        "note: clean: 1 of 20 test samples have a look-alike (picture) in train: p117 and p30",
        "note: emb is 0 throughout in 2 samples: p20, p21; if that means absent, leave it out there",
        "absent in 36 of 40 hat, 0 of 40 coat, 0 of 40 shoe",
        "note: title names the class of its sample in 4 of 84 texts (5%)",
    ):
        assert line in text
    assert "differ in scale" not in text  # they are standardised


def test_groups_on_two_sides_of_the_given_split_leave_clean_without_any(shop, capsys):
    _, rows, vectors = shop
    rows[110][5] = rows[3][5]
    vectors[:, 3] = 7
    code, lines = audited(shop, capsys, "--group", "seller")
    assert code == 1
    assert lines[-2:] == ["VIOLATION: clean: there are no splits", "shop: protocol clean is broken in 1 way"]
    text = "\n".join(lines)
    assert "clean: no splits; seller is on two sides of the given split; cut folds instead" in text
    assert "note: legacy: 1 of 20 test samples share their group with train: s3" in text
    assert "note: emb: 1 of 16 columns are constant over the training samples: column 3" in text


def test_scales_and_classes_that_are_hardly_there(shop, capsys):
    folder, rows, vectors = shop
    vectors[:, 9] *= 1e5
    for row in rows[:75]:
        row[6] = "hat" if row[6] == "coat" else row[6]
    audited(shop, capsys)
    declared = (folder / "dataset.yaml").read_text().replace("standardise: true", "standardise: false")
    (folder / "dataset.yaml").write_text(declared)
    _, lines = audited(shop, capsys)
    text = "\n".join(lines)
    assert "note: emb: its columns differ in scale, from a standard deviation of " in text
    assert " (column 9); standardise them" in text
    assert "note: numbers: its columns differ in scale" in text
    assert "(height) to " in text
    assert "note: clean: 1 classes have fewer than 5 training samples: coat 1" in text
