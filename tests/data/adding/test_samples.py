"""From a folder to samples: every mistake is told with its file, row and column, and what to do."""

import numpy as np
import pytest

from mmbench.data.adding.declaration import declared
from mmbench.data.adding.metadata import read_metadata
from mmbench.data.adding.samples import classes_of, labels_of, read_samples
from mmbench.errors import UsageError

GOOD = {
    "name": "toys", "metadata": ["metadata.csv"], "id": "id", "label": "label", "classes": ["cat", "dog"], "group": "who",
    "modalities": {"title": {"kind": "text", "column": "title"}, "image": {"kind": "picture", "file": "image_file_name"}},
    "conditioning": "title",
}  # fmt: skip
HEADER = "id,label,who,split,title,image_file_name"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "toys/pictures").mkdir(parents=True)
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / "toys/pictures" / name).write_bytes(b"x")
    (tmp_path / "outside.png").write_bytes(b"x")
    return tmp_path / "toys"


def scan(folder, *rows, **changes):
    (folder / "metadata.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    return read_samples(declared({**GOOD, **changes}, "dataset.yaml"), folder)


def test_samples(folder):
    listing = scan(folder, "1,cat,x,train,One,pictures/a.png", "2,dog,y,test,,pictures/b.png", "3,dog,y,test,Three,")
    one, two, three = listing.samples
    assert (one.id, one.label, one.group, dict(one.files), dict(one.text)) == (
        "1", 0, "x", {"image": "pictures/a.png"}, {"title": "One"},
    )  # fmt: skip
    assert (two.label, two.text["title"], three.files["image"]) == (1, "", None)
    assert {sample.legacy for sample in listing.samples} <= {"train", "test"}  # drawn, as none was given
    given = scan(
        folder, "1,cat,x,Train,One,pictures/a.png", "2,dog,y,VAL,,pictures/b.png", "3,dog,z,eval,T,", split="split"
    )
    assert [sample.legacy for sample in given.samples] == ["train", "validation", "test"]


def test_without_a_column_of_ids_rows_are_numbered_and_without_groups_it_is_said(folder):
    listing = scan(folder, *["1,cat,x,train,One,pictures/a.png"] * 11, id=None, group=None)
    assert [sample.id for sample in listing.samples][:2] == ["0", "1"]
    assert [sample.group for sample in listing.samples] == [sample.id for sample in listing.samples]
    assert "no groups were given: clean is only stratified by class" in listing.notes


def test_labels_may_be_numbers_of_classes(folder):
    assert [s.label for s in scan(folder, "1,1,x,train,One,pictures/a.png", "2,0,y,test,,pictures/b.png").samples] == [
        1,
        0,
    ]
    rows = ["1,7,x,train,One,pictures/a.png", "2,9,y,test,,pictures/b.png"]
    assert [s.label for s in scan(folder, *rows, classes=[9, 7]).samples] == [1, 0]


A, B = "1,cat,x,train,One,pictures/a.png", "2,dog,y,test,Two,pictures/b.png"


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("3,,y,test,T,", r"row 4, column 'label': the label is empty \(1 rows have none\)"),
        ("3,1.5,y,test,T,", "row 4, column 'label': the label is 1.5, expected the name of a class, or a whole number"),
        ("3,bird,y,test,T,", r"row 4, column 'label': unknown class 'bird'; .*classes: in dataset.yaml"),
        (
            "3,Dog ,y,test,T,",
            "row 4, column 'label': the label 'Dog' is 'dog' of row 3 in another spelling",
        ),
        ("1,dog,y,test,T,", "row 4, column 'id': the id '1' is that of row 2 too"),
        (",dog,y,test,T,", "row 4, column 'id': the id is empty"),
        ("3,dog,,test,T,", r"row 4, column 'who': the group is empty \(1 rows have none\)"),
        ("3,dog,y,holdout,T,", "row 4, column 'split': expected the split train, validation or test, got 'holdout'"),
        ("3,dog,y,,T,", "row 4, column 'split': expected the split train, validation or test, got nothing"),
        ("3,dog,y,test,T,../outside.png", r"row 4, column 'image_file_name': the path '../outside.png' leads out of"),
        ("3,dog,y,test,T,/etc/passwd", r"row 4, column 'image_file_name': the path '/etc/passwd' leads out of"),
        ("3,dog,y,test,T,pictures/link.png", r"row 4, column 'image_file_name': .*link.png is a link to .*outside.png"),
    ],
)
def test_a_bad_row_is_named(folder, row, told):
    (folder / "pictures/link.png").symlink_to(folder.parent / "outside.png")
    with pytest.raises(UsageError, match=told):
        scan(folder, A, B, row, split="split")


def test_labels_out_of_range_are_named(folder):
    with pytest.raises(
        UsageError, match="row 3, column 'label': label 2, expected 0 to 1, a number for each of the 2 classes"
    ):
        scan(folder, A.replace("cat", "0"), B.replace("dog", "2"))


@pytest.mark.parametrize(
    "names", [["-1", "1"], ["-1", "0", "1"], ["<=50K", ">50K"], ["C", "C++", "C#"], ["v1.0", "v2.0"], ["²", "2b"]]
)
def test_labels_that_differ_by_signs_are_different(folder, names):
    rows = [f"{i},{name},x{i},train,One,pictures/a.png" for i, name in enumerate(names)]
    (folder / "metadata.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    metadata = read_metadata(folder, ["metadata.csv"])
    assert sorted(classes_of(metadata, "label")) == sorted(names)
    assert labels_of(metadata, "label", names) == list(range(len(names)))


def test_all_spellings_are_told_at_once_and_classes_may_list_both(folder):
    rows = [
        f"{i},{name},x,train,One,pictures/a.png"
        for i, name in enumerate(["full moon", "Full_Moon", "CAT", "cat", "full-moon"])
    ]
    with pytest.raises(
        UsageError, match=r"row 3.*'Full_Moon' is 'full moon' of row 2 .*; 'CAT' \(row 4\) is 'cat'; 'full-moon'"
    ):
        scan(folder, *rows, classes=["cat", "dog"])
    listing = scan(folder, A, "3,Cat,x,train,T,pictures/a.png", classes=["cat", "Cat"])
    assert [sample.label for sample in listing.samples] == [0, 1]


@pytest.mark.parametrize("character", ["\x1b", "\u202e", "\x07"])
def test_names_that_would_upset_a_terminal_are_refused(folder, character):
    for row in (f"3,do{character}g,y,test,T,", f"3,dog,y{character},test,T,", f"3{character},dog,y,test,T,"):
        with pytest.raises(
            UsageError, match=r"row 4, column '(label|who|id)': has the character .*, which no name needs"
        ):
            scan(folder, A, B, row)


def test_splits_need_training_and_test(folder):
    with pytest.raises(UsageError, match="no sample is in the split 'test'; name some, or set split: null"):
        scan(folder, A, B.replace("test", "val"), split="split")


def test_groups_on_two_sides_of_a_given_split_are_told(folder):
    listing = scan(folder, A, B.replace(",y,", ",x,"), "3,dog,z,test,T,", split="split")
    assert listing.notes == [
        "1 of 2 groups (who) are on two sides of the given split, such as 'x': it holds for legacy alone; clean needs folds, which "
        "keep groups together"
    ]


def test_a_column_of_which_no_file_is_there(folder):
    with pytest.raises(
        UsageError, match=r"row 2, .*'a.png' is no file below .*\(there is pictures/a.png\); paths are relative"
    ):
        scan(folder, A.replace("pictures/", ""), B.replace("pictures/", ""))
    with pytest.raises(UsageError, match="the column 'image_file_name' is empty; expected the files of image"):
        scan(folder, A.replace("pictures/a.png", ""), B.replace("pictures/b.png", ""))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"label": "lable"}, "label: .* has no column 'lable'; did you mean 'label'"),
        ({"group": "speaker"}, "group: .* has no column 'speaker'"),
        ({"colour": 1}, "colour: unknown key; "),
        ({"folds": 2}, r"folds: expected 1 \(none\) or at least 3"),
        ({"conditioning": "titel"}, "conditioning: expected one of title, image, got 'titel'"),
        ({"classes": ["a", "a"]}, "a class is given twice"),
        ({"name": "a/b"}, "expected a name of up to 40 letters"),
        ({"modalities": {"x": {"kind": "sond", "file": "f"}}}, "modalities.x.kind: .*'sound'"),
        ({"modalities": {"x": {"kind": "sound", "column": "f"}}}, "sound: expected the key file, got column"),
        (
            {"modalities": {"x": {"kind": "text", "column": "title", "size": 3}}},
            "text has no size|greater than or equal",
        ),
        ({"modalities": {"a+b": {"kind": "text", "column": "title"}}}, r"modalities.a\+b: a name of up to 40"),
        (
            {"modalities": {"x": {"kind": "text", "column": "tilte"}}, "conditioning": "x"},
            "modalities.x.column: .* no column 'tilte'",
        ),
    ],
)
def test_a_bad_declaration_is_named(folder, changes, told):
    with pytest.raises(UsageError, match=told):
        scan(folder, A, B, **changes)


def test_random_splits_do_not_depend_on_the_order_of_rows(folder):
    rows = [f"{i},{'cat' if i % 3 else 'dog'},g{i},,t,pictures/a.png" for i in range(60)]
    splits = {s.id: s.legacy for s in scan(folder, *rows).samples}
    again = {s.id: s.legacy for s in scan(folder, *rows[::-1]).samples}
    assert splits == again
    assert np.isclose(list(splits.values()).count("test") / 60, 0.2, atol=0.05)
