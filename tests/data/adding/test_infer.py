"""What is inferred of a folder, as people have them: messy headers, arrays beside a table, columns that must not be used."""

import numpy as np
import pytest
import torch
from PIL import Image

from mmbench.data.adding.arrays import table_of_arrays, write_table
from mmbench.data.adding.guesses import Line, name_of_media
from mmbench.data.adding.infer import infer
from mmbench.data.adding.metadata import read_metadata
from mmbench.errors import UsageError

NOBODY = {"id": None, "label": None, "group": None, "split": None}


def table(folder, header, rows, **given):
    (folder / "metadata.csv").write_text("\n".join([header, *rows]) + "\n")
    return infer("toys", read_metadata(folder, ["metadata.csv"]), {**NOBODY, **given})


def reasons(found):
    return {line.what: line.why for line in found.unused}


def test_messy_headers(tmp_path):
    (tmp_path / "pics").mkdir()
    for i in range(12):
        Image.fromarray(np.full((20, 30, 3), i, np.uint8)).save(tmp_path / f"pics/{i}.PNG")
    rows = [
        f"{i};pics\\{i}.PNG;A text of {i} words;{'ab'[i % 2]};{i % 2};sp {i % 4};2024-01-0{1 + i % 9};http://x/{i};const"
        for i in range(12)
    ]
    found = table(tmp_path, "Unnamed: 0; Image Path ;Long Description;Class;class_nr;Speaker ID;date;url;source", rows)
    assert found.open == []
    content = found.content
    assert (content["label"], content["group"], content["id"], content["split"]) == ("Class", "Speaker ID", None, None)
    assert content["classes"] == ["a", "b"]
    assert content["modalities"] == {
        "image": {"kind": "picture", "file": "Image Path", "size": 32},
        "long_description": {"kind": "text", "column": "Long Description"},
    }
    assert content["conditioning"] == "long_description"
    assert (content["folds"], content["distinct_texts"]) == (4, True)
    assert reasons(found) == {
        "Unnamed: 0": "it numbers the rows",
        "class_nr": "each of its values has one class: it would give 'Class' away",
        "date": "dates",
        "url": "addresses; download the files, and give their paths",
        "source": "it is always 'const'",
    }


def test_arrays_beside_the_table(tmp_path):
    random = np.random.default_rng(0)
    np.save(tmp_path / "audio_features.npy", random.normal(size=(6, 4)))
    torch.save(torch.randn(6, 3) * 1000, tmp_path / "face.pt")
    torch.save({f"s{i}": torch.randn(2) for i in range(5)}, tmp_path / "words_emb.pt")
    np.save(tmp_path / "labels.npy", np.arange(6))
    np.save(tmp_path / "other.npy", np.zeros((5, 4)))
    found = table(
        tmp_path, "sample_id,target,x0,x1,x2,height", [f"s{i},{i % 2},{i},{i + 1},.5,{i * 7}" for i in range(6)]
    )
    assert found.content["modalities"] == {
        "x": {"kind": "features", "columns": ["x*"]},
        "numbers": {"kind": "numbers", "columns": ["height"], "standardise": True},
        "audio": {"kind": "features", "array": "audio_features.npy"},
        "face": {"kind": "features", "array": "face.pt", "standardise": True},
        "words": {"kind": "features", "array": "words_emb.pt"},
    }
    assert found.content["id"] == "sample_id"
    assert reasons(found) == {
        "labels.npy": "one number a sample: rather labels or ids",
        "other.npy": "5 rows, the table has 6",
    }


def test_a_folder_of_arrays_alone(tmp_path):
    with pytest.raises(UsageError, match=r"no table of samples, metadata.csv, and no array called labels"):
        table_of_arrays(tmp_path)
    torch.save({"audio": torch.randn(6, 4), "label": torch.tensor([0, 1] * 3)}, tmp_path / "data.pt")
    np.save(tmp_path / "speaker.npy", np.array(["x", "y", "x", "z", "z", "z"]))
    columns, files = table_of_arrays(tmp_path)
    assert columns == {"label": [0, 1] * 3, "speaker": ["x", "y", "x", "z", "z", "z"]}
    assert files == ["data.pt", "speaker.npy"]
    write_table(tmp_path, columns)
    found = infer("toys", read_metadata(tmp_path, ["metadata.csv"]), NOBODY)
    assert found.content["modalities"] == {"audio": {"kind": "features", "array": "data.pt", "key": "audio"}}
    assert (found.content["label"], found.content["group"]) == ("label", "speaker")
    np.save(tmp_path / "speaker.npy", np.arange(5))
    with pytest.raises(UsageError, match="of different lengths: label 6, speaker 5"):
        table_of_arrays(tmp_path)


def test_what_looks_like_a_role_and_is_none_is_told(tmp_path):
    rows = [f"s{i % 19},{i / 7:.3f},a text of {i},{i},{i % 7}" for i in range(20)]
    found = table(tmp_path, "id;label;text;price;brand".replace(";", ","), rows)
    told = {line.what: line.why for line in found.lines}
    assert told["id"] == "'id' is called like one, but has 's0' twice: rows are numbered"
    assert told["label"] == "'label' is called like one, but has 20 different values in 20 rows"
    assert told["group"] == "called 'brand'; 7 groups"


def test_numbers_that_are_not_written_as_such_are_no_texts(tmp_path):
    rows = [f"{i},5{i};€ {i}.50;{'ab'[i % 2]};text {i}" for i in range(30)]
    found = table(tmp_path, "price;cost;label;text", rows)
    assert reasons(found) == dict.fromkeys(
        ("price", "cost"),
        "numbers that are not written as such; write 12.5 for 12,5, and leave out signs of currencies",
    )
    with pytest.raises(
        UsageError, match=r"expected a number, got '0,50' .* write 12.5 for 12,5, and leave the cell empty"
    ):
        read_metadata(tmp_path, ["metadata.csv"]).numbers("price")


def test_what_cannot_be_inferred_is_said(tmp_path):
    found = table(tmp_path, "text,value", ["one two,a", "three four,b", "five six,a"])
    assert found.open == ["the column of the label: name it with --label COLUMN"]
    found = table(tmp_path, "text,value", ["one two,a", "three four,b", "five six,a"], label="value")
    assert (found.open, found.content["classes"]) == ([], ["a", "b"])
    with pytest.raises(UsageError, match=r"--label: .* has no column 'vale'; did you mean 'value'"):
        table(tmp_path, "text,value", ["one,a"], label="vale")
    found = table(tmp_path, "label,kind", ["a,x", "b,x", "a,x"])
    assert found.open == [
        "a modality: no column holds paths, texts or numbers, and no file beside the table holds vectors"
    ]


def test_a_split_is_one_only_with_names_of_splits(tmp_path):
    rows = [f"t {i},{'ab'[i % 2]},{('train', 'val', 'test')[i % 3]},{('x', 'y')[i % 2]}" for i in range(6)]
    found = table(tmp_path, "text,label,partition,set", rows)
    assert (found.content["split"], found.content["folds"]) == ("partition", 1)


@pytest.mark.parametrize(
    ("column", "kind", "name"),
    [("image_file_name", "picture", "image"), ("file_name", "sound", "audio"), ("path", "picture", "image"),
     ("voice_path", "sound", "voice"), ("file_name", "video", "video"), ("frontal_view", "picture", "frontal_view")],
)  # fmt: skip
def test_names_of_modalities(column, kind, name):
    assert name_of_media(column, kind) == name


def test_what_does_not_print_is_replaced_in_what_is_printed():
    assert Line("a.npz: \x1b[2J", "not used", "rows\u202e").what == "a.npz: \ufffd[2J"
