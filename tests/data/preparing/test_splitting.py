"""``mmbench data split``: the file that others train by."""

import csv
import io
from hashlib import sha256

import pytest

from mmbench.cli import main
from mmbench.data import DATASETS
from mmbench.data.base import MultimodalDataModule
from mmbench.data.sets.openclipart import OpenClipart
from mmbench.errors import UsageError
from planted import Planted2


@pytest.fixture(autouse=True)
def no_data(tmp_path, monkeypatch):
    monkeypatch.setenv("MMBENCH_DATA", str(tmp_path))


def call(capsys, *arguments):
    code = main(["data", "split", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def read(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_a_fold_has_every_id_once_with_its_split_label_and_the_hash_of_all(capsys):
    code, out, err = call(capsys, "openclipart", "--fold", 2)
    rows = read(out)
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == "id,fold,split,label,split_sha256"
    ids = OpenClipart.split_ids("clean", 2)
    assert [(row["split"], row["id"]) for row in rows] == [(s, name) for s, names in ids.items() for name in names]
    arrays = OpenClipart.read()
    known = dict(zip(arrays["source"].tolist(), arrays["label"].tolist(), strict=True))
    assert [row["label"] for row in rows] == [OpenClipart.classes[known[row["id"]]] for row in rows]
    assert {row["fold"] for row in rows} == {"2"}
    lines = sorted(f"{row['id']} {row['split']}\n" for row in rows)
    assert {row["split_sha256"] for row in rows} == {sha256("".join(lines).encode()).hexdigest()}


def test_all_folds_test_every_sample_once_and_the_one_split_has_no_fold(capsys, tmp_path):
    file = tmp_path / "split.csv"
    code, out, err = call(capsys, "openclipart", "--fold", "all", "--protocol", "legacy", "-o", file)
    assert (code, out, err) == (0, "", f"wrote {file}\n")
    tested = [row["id"] for row in read(file.read_text()) if row["split"] == "test"]
    assert sorted(tested) == sorted(OpenClipart.read()["source"].tolist())
    rows = read(call(capsys, "openclipart")[1])
    assert {row["fold"] for row in rows} == {""}
    assert {row["split"] for row in rows} == {"train", "validation", "test"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["openclipart", "--fold", 5], "openclipart: fold 5: it has 5 folds, 0 to 4"),
        (["openclipart", "--fold", "-1"], "expected the number of a fold, or all, got -1"),
        (["openclipart", "--fold", "first"], "expected the number of a fold, or all, got first"),
        (["openclipart", "--protocol", "clear"], "--protocol clear: did you mean 'clean'?"),
        (["crema_d"], "crema_d: its splits are known once the data are there; mmbench data info crema_d"),
    ],
)
def test_what_is_not_there(capsys, arguments, said):
    try:
        code = main(["data", "split", *map(str, arguments)])
    except SystemExit as end:
        code = end.code
    assert code == 2
    assert said in capsys.readouterr().err


def test_a_class_that_does_not_tell_its_ids_is_named(capsys, monkeypatch):
    monkeypatch.setattr(type(DATASETS), "__getitem__", lambda self, name: Planted2)
    with pytest.raises(
        UsageError, match=r"does not tell the ids of its samples: its class, .*Planted2, has to override"
    ):
        Planted2.split_ids()
    code, out, err = call(capsys, "planted2")
    assert (code, out) == (2, "")
    assert "has to override split_ids(protocol, fold) -> {split: ids}, in the order of load()" in err
    assert call(capsys, "planted2", "--fold", "all")[2].startswith(
        "mmbench: planted2: --fold all: it has one split and no folds"
    )


def test_ids_that_are_not_those_that_are_loaded_are_refused(capsys, monkeypatch):
    def fewer(cls, protocol="clean", fold=None):
        return {split: ids[1:] for split, ids in MultimodalDataModule.split_ids.__func__(cls, protocol, fold).items()}

    monkeypatch.setattr(OpenClipart, "split_ids", classmethod(fewer))
    code, out, err = call(capsys, "openclipart")
    assert (code, out) == (2, "")
    assert "ids of the train split, but load() gives" in err
