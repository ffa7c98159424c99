"""``mmbench add-predictions``: what it takes, what it keeps, and what it refuses."""

import os
import re
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from small import NAMES, Small, every_pattern, rows_of

from mmbench.cli import main
from mmbench.data import DATASETS
from mmbench.data.preparing.splitting import split_hash
from mmbench.elsewhere.entries import Elsewhere
from mmbench.store import CorruptRecord


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    monkeypatch.setattr(type(DATASETS), "__getitem__", lambda self, name: Small)
    monkeypatch.chdir(tmp_path)


def call(capsys, *arguments):
    """The exit code, and what was printed and said."""
    code = main(["add-predictions", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def add(capsys, file="p.csv", *more):
    return call(capsys, file, "--dataset", "small", "--method", "mine", *more)


def kept():
    (entry,), damaged = Elsewhere("results/elsewhere").entries()
    assert damaged == []
    return entry, {part.fold: Elsewhere("results/elsewhere").predictions(entry, part) for part in entry.parts}


def expected(frame, fold=None):
    """What the store is to hold, written out sample by sample."""
    ids = Small.split_ids("clean", fold)["test"]
    log_probs = np.full((3, 6, 3), np.nan)
    for line in frame.to_dict("records"):
        names = every_pattern()[-1] if line["pattern"] == "all" else line["pattern"].replace("other+one", "one+other")
        row = every_pattern().index(names), ids.index(line["id"])
        log_probs[row] = [np.log(line[name]) for name in Small.classes]
    return log_probs


# What it takes


def write_csv(frame):
    frame.to_csv("p.csv", index=False)
    return "p.csv"


def write_parquet(frame):
    frame.assign(fold=pd.to_numeric(frame.fold)).to_parquet("p.parquet")  # NaN where there are none
    return "p.parquet"


def write_npz(frame, **more):
    order = ["b", "c d", "a"]
    words = {name: frame[name].to_numpy(str) for name in ("id", "pattern", "fold")}
    np.savez("p.npz", **(words | {"probabilities": frame[order].to_numpy(), "classes": np.array(order)} | more))
    return "p.npz"


@pytest.mark.parametrize("write", [write_csv, write_parquet, write_npz])
@pytest.mark.parametrize("fold", [None, 1])
def test_rows_in_any_order_become_what_a_trial_would_have_left(capsys, write, fold):
    frame = rows_of(fold).replace({"pattern": {"one+other": "other+one"}}).sample(frac=1, random_state=0)
    code, out, err = add(capsys, write(frame))
    assert (code, err) == (0, "")
    assert ("not given" in out) is False
    entry, found = kept()
    assert (entry.label, entry.dataset, entry.data, entry.protocol, entry.seed) == ("mine", "small", "data", "clean", 0)
    (part,), p, test = entry.parts, found[fold], Small.rows(fold)[2]
    assert part.patterns == every_pattern()
    assert part.split_sha256 == split_hash(Small.split_ids("clean", fold))
    assert p.log_probs == pytest.approx(expected(frame, fold), rel=1e-3)
    assert p.log_probs.dtype == np.float16
    assert p.predicted.tolist() == expected(frame, fold).argmax(-1).tolist()
    assert p.label.tolist() == [i % 3 for i in test]
    assert p.group.tolist() == [i // 2 for i in test]
    assert p.present.all()
    assert np.exp(p.log_prior).tolist() == pytest.approx([1 / 3] * 3)


def test_patterns_that_are_not_given_are_nan_and_told(capsys):
    frame = rows_of(names=["all", "other"])
    code, out, _ = add(capsys, write_csv(frame))
    assert code == 0
    assert "not given, so – in reports: one\n" in out
    p = kept()[1][None]
    assert p.given.tolist() == [False, True, True]
    assert np.isnan(p.log_probs[0]).all()
    assert p.log_probs[1:] == pytest.approx(expected(frame)[1:], rel=1e-3)
    (tmp,) = [part.patterns for part in kept()[0].parts]
    assert tmp == ["other", "one+other"]


def test_without_a_pattern_it_is_all_and_probabilities_of_zero_stay(capsys):
    frame = rows_of(names=["all"]).drop(columns=["pattern", "fold"])
    frame.loc[0, list(Small.classes)] = [0.0, 1.0, 0.0]
    assert add(capsys, write_csv(frame))[0] == 0
    p = kept()[1][None]
    assert p.given.tolist() == [False, False, True]
    row = Small.split_ids()["test"].index(frame.id[0])
    assert p.log_probs[2, row].tolist() == [-np.inf, 0, -np.inf]


def test_what_data_split_writes_may_stay_in_the_file(capsys):
    frame = rows_of(0)
    labels = [Small.classes[NAMES.index(name) % 3] for name in frame.id]
    ids = Small.split_ids("clean", 0)
    assert add(capsys, write_csv(frame.assign(split="test", label=labels, split_sha256=split_hash(ids))))[0] == 0


def test_folds_come_one_by_one_or_together_and_what_lacks_is_told(capsys):
    code, out, _ = add(capsys, write_csv(rows_of(1)))
    assert code == 0
    assert "fold 0 is not there yet" in out
    code, out, _ = add(capsys, write_csv(rows_of(0)))
    assert code == 0
    assert "not there yet" not in out
    assert [part.fold for part in kept()[0].parts] == [0, 1]
    code, _, err = add(capsys, write_csv(pd.concat([rows_of(0, seed=1), rows_of(1, seed=1)])))
    assert code == 1
    assert "fold 0, fold 1 is there already; --replace puts the file in its place" in err
    assert kept()[1][0].log_probs == pytest.approx(expected(rows_of(0), 0), rel=1e-3)
    assert add(capsys, "p.csv", "--replace")[0] == 0
    assert kept()[1][0].log_probs == pytest.approx(expected(rows_of(0, seed=1), 0), rel=1e-3)
    folder = Elsewhere("results/elsewhere").root / kept()[0].key
    assert len(list(folder.glob("*.npz"))) == 2, "what was replaced is gone"


def test_seeds_are_entries_of_their_own_and_can_be_listed_and_removed(capsys):
    for seed in (0, 3):
        assert add(capsys, write_csv(rows_of(seed=seed)), "--seed", seed)[0] == 0
    code, out, _ = call(capsys, "--list")
    assert code == 0
    assert [line.split("  ")[1] for line in out.splitlines()] == [
        f"mine on small, clean, seed {seed}: one split; one, other, one+other; from p.csv" for seed in (0, 3)
    ]
    assert main(["status"]) == 0
    assert "2 predictions made elsewhere: mmbench add-predictions --list" in capsys.readouterr().out
    assert call(capsys, "--remove", "mine", "--seed", 3)[2] == "removed mine on small, clean, seed 3\n"
    assert kept()[0].seed == 0
    code, _, err = call(capsys, "--remove", "other")
    told, page = err.splitlines()
    assert (code, told) == (2, "mmbench: --remove other: nothing of it; there is mine")
    assert "how_to/my_predictions" in page
    assert call(capsys, "--remove", kept()[0].key)[0] == 0
    assert call(capsys, "--list")[1].startswith("no predictions made elsewhere in ")


@pytest.mark.parametrize("name", ["record.json", "*.npz"])
def test_damage_is_found_and_what_is_damaged_can_be_removed(capsys, name):
    add(capsys, write_csv(rows_of()))
    elsewhere = Elsewhere("results/elsewhere")
    entry = kept()[0]
    (path,) = (elsewhere.root / entry.key).glob(name)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    if name == "record.json":
        assert elsewhere.entries()[0] == []
        code, out, _ = call(capsys, "--list")
        assert (code, out.startswith("damaged: ")) == (1, True)
        assert f"--remove {entry.key}` forgets it" in out
    else:
        with pytest.raises(CorruptRecord, match="not the file that the record was written with"):
            elsewhere.predictions(entry, entry.parts[0])
    assert call(capsys, "--remove", entry.key)[0] == 0
    assert elsewhere.keys() == []


# What it refuses


def changed(row, column, value):
    def change(frame):
        frame = frame.astype(object)
        frame.loc[row, column] = value
        return frame

    return change


def twice(frame):
    return pd.concat([frame, frame])


HASH = "0" * 64


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (changed(2, "a", 0.9), r"row 3 below the header: its probabilities add up to .*, expected 1 within 0.001 \(1 of 18 rows\)"),
        (changed(2, "a", -0.1), "row 3 below the header: the probability of 'a' is -0.1, expected a number from 0 to 1"),
        (changed(2, "c d", 1.5), "the probability of 'c d' is 1.5, .*of logits take the softmax first"),
        (changed(4, "b", "nan"), "row 5 below the header: b is 'nan', expected a probability"),
        (changed(4, "b", "inf"), "row 5 below the header: the probability of 'b' is inf"),
        (changed(4, "b", "high"), "row 5 below the header: b is 'high', expected a probability"),
        (changed(4, "b", ""), "row 5 below the header: b is '', expected a probability"),
        (changed(3, "id", "s00"), r"row 4 below the header: id 's00' is not in the test split: it is in the train split \(1 such row"),
        (lambda f: changed(3, "id", "s00")(f.drop(columns="fold")), "no column fold, so its rows are held to the one split"),
        (changed(3, "id", "t99"), "id 't99' is not in the test split: there is no such sample"),
        (lambda f: f.drop(index=7), r"1 of the 6 ids of the test split are missing under other, the first of them 's13'"),
        (changed(3, "id", "s12"), r"row 4 below the header: id 's12' is there twice under one \(1 ids are\)"),
        (twice, "36 rows; the test split under all patterns has no more than|id 's12' is there twice .*is the split in the file twice"),
        (changed(5, "pattern", "another"), "row 6 below the header: pattern 'another': no modality is called 'another'; did you"),
        (changed(5, "pattern", "one+one"), r"pattern 'one\+one': one is twice; expected names joined by"),
        (changed(5, "pattern", ""), "row 6 below the header: pattern '': no modality is called ''"),
        (changed(5, "fold", "1"), "row 1 below the header: no fold, but other rows have one"),
        (changed(5, "fold", "first"), "row 6 below the header: fold is 'first', expected a number"),
        (lambda f: f.assign(fold="2"), "fold 2: small has folds 0 to 1"),
        (lambda f: f.assign(fold="0", split_sha256=HASH), r"row 1 below the header: split_sha256 is '0+', expected '\w+' of fold 0"),
        (lambda f: f.assign(split="train"), r"split is 'train', expected 'test' \(18 rows\): leave out what is not of the test split"),
        (lambda f: f.assign(label="a"), r"row 2 below the header: label is 'a', but 's13' is 'b'"),
        (lambda f: f.drop(columns="b"), "no column of class 'b'; expected the columns id, pattern, fold and one a class: a, b, c d"),
        (lambda f: f.drop(columns="id"), "no column id"),
        (lambda f: f.assign(patern="one"), "unknown column 'patern': did you mean 'pattern'"),
        (lambda f: f.set_axis([*f.columns[:-1], "a"], axis=1), "column 'a' is there twice"),
        (lambda f: f[:0], "it has no rows"),
    ],
)  # fmt: skip
def test_bad_rows_are_named(capsys, change, said):
    write_csv(change(rows_of()))
    code, out, err = add(capsys)
    assert (code, out) == (1, "")

    assert re.search(said, err), err
    assert Elsewhere("results/elsewhere").keys() == []


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda: Path("p.csv").write_bytes(b"\xff\xfe\x00"), "p.csv: expected comma-separated values in UTF-8"),
        (lambda: Path("p.csv").write_text("id,a,b,c d\ns12,1,0,0,0,0\n"), "p.csv, row 1 below the header: 6 cells"),
        (lambda: os.mkdir("p.csv"), "p.csv: is no file"),
        (lambda: Path("p.csv").write_text("x" * (2**21)), r"p.csv: holds 2,097,152 bytes; \d+ rows"),
        (lambda: None, "p.csv: there is no such file"),
    ],
)
def test_files_that_are_none(capsys, write, said):
    write()
    code, _, err = add(capsys)

    assert code == 1
    assert re.search(said, err), err


def bomb():
    with zipfile.ZipFile("p.npz", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("id.npy", "w") as stream:
        for _ in range(64):
            stream.write(bytes(2**20))


def lying():
    header = {"descr": "<f8", "fortran_order": False, "shape": (2**40,)}
    with zipfile.ZipFile("p.npz", "w") as archive, archive.open("id.npy", "w") as stream:
        np.lib.format.write_array_header_1_0(stream, header)


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (bomb, "its arrays take 67,108,864 bytes, expected"),
        (lying, "array 'id' has not as many bytes as its shape (1099511627776,) takes"),
        (lambda: write_npz(rows_of(), id=np.array([{}], object)), "array 'id' holds Python objects, which are never read"),
        (lambda: Path("p.npz").write_bytes(b"PK\x03\x04"), "it is no .npz as np.savez writes them, or was cut off"),
        (lambda: np.savez("p.npz", id=np.zeros(3)), "no array probabilities, classes; expected the arrays id"),
        (lambda: write_npz(rows_of(), classes=np.array(["b", "c", "a"])), "classes are not those of the data set, a, b, c d; 'c'"),
        (lambda: write_npz(rows_of(), probabilities=np.zeros((18, 2))), "probabilities are float64 of shape (18, 2), expected"),
        (lambda: write_npz(rows_of(), pattern=np.array(["one"] * 3)), "pattern has 3 values, expected 18, one a row, or one for all"),
        (lambda: write_npz(rows_of(), other=np.zeros(3)), "unknown array 'other'"),
    ],
)  # fmt: skip
def test_npz_files_that_are_none(capsys, write, said):
    write()
    code, _, err = add(capsys, "p.npz")
    assert code == 1
    assert said in err


def test_a_parquet_file_that_is_none_or_holds_words(capsys):
    Path("p.parquet").write_bytes(b"PAR1")
    assert "it is no parquet file, or was cut off" in add(capsys, "p.parquet")[2]
    rows_of().astype({"a": str}).to_parquet("p.parquet")
    assert "column 'a' holds" in add(capsys, "p.parquet")[2]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "expected one of FILE, --list and --remove LABEL"),
        (["p.csv", "--list"], "expected one of FILE, --list and --remove LABEL"),
        (["p.csv", "--dataset", "small"], "--method: expected with a file"),
        (["p.csv", "--dataset", "small", "--method", "concat"], "--method concat: is a method of mmbench"),
        (["p.csv", "--dataset", "small", "--method", "mine ‡"], "printable letters without ‡"),
        (["p.csv", "--dataset", "small", "--method", "mi\x1bne"], "expected 1 to 60 printable letters"),
        (["p.csv", "--dataset", "small", "--method", "mine", "--seed", "-1"], "--seed -1: expected 0 to 2^32 − 1"),
    ],
)
def test_mistakes_in_the_command(capsys, arguments, said):
    write_csv(rows_of())
    code, _, err = call(capsys, *arguments)
    assert code == 2
    assert said in err


def test_ids_that_lost_their_zeros_are_told(capsys, monkeypatch):
    ids = {"test": [f"{i:03}" for i in range(6)]}
    monkeypatch.setattr(Small, "split_ids", classmethod(lambda cls, protocol="clean", fold=None: ids))
    frame = rows_of()
    write_csv(frame.assign(id=frame.id.map({name: i for i, name in enumerate(sorted(set(frame.id)))})))
    said = (
        "id '0' is not in the test split: there is no such sample; ids are texts, and this one is '000', with its zeros"
    )
    assert said in add(capsys)[2]


def test_a_file_of_another_ending_and_other_data_than_before(capsys, monkeypatch):
    assert "expected a file that ends in .csv, .parquet, .npz" in add(capsys, "p.txt")[2]
    assert add(capsys, write_csv(rows_of(0)))[0] == 0
    monkeypatch.setattr(Small, "manifest", classmethod(lambda cls: "other"))
    assert "was made for other data than there are now; --replace" in add(capsys, write_csv(rows_of(1)))[2]


@pytest.mark.parametrize("seed", [-1, 2**32, 10**30])
def test_a_seed_is_as_those_of_experiments(capsys, seed):
    code, out, err = add(capsys, write_csv(rows_of()), "--seed", seed)
    assert (code, out) == (2, "")
    assert f"--seed {seed}: expected 0 to 2^32 − 1" in err
    assert add(capsys, "p.csv", "--seed", 2**32 - 1)[0] == 0


def test_parquet_words_that_are_no_utf8_name_the_row(capsys):
    import pyarrow as pa
    import pyarrow.parquet as pq

    frame = rows_of()
    table, ids = pa.Table.from_pandas(frame), [name.encode() for name in frame["id"]]
    ids[3] = b"s\xff3"
    broken = pa.array(ids, pa.binary()).view(pa.string())
    pq.write_table(table.set_column(table.column_names.index("id"), "id", broken), "p.parquet")
    code, _, err = add(capsys, "p.parquet")
    assert (code, "p.parquet, row 4, column 'id': got b's\\xff3', which is no UTF-8" in err) == (1, True)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda line: line + ",0.5", "row 2 below the header: 7 cells, expected 6, as the header has"),
        (lambda line: '"' + line, "row 2 below the header: its quotes are wrong"),
    ],
)
def test_a_row_of_a_csv_that_cannot_be_read_is_named(capsys, spoil, message):
    lines = Path(write_csv(rows_of())).read_text().splitlines()
    lines[2] = spoil(lines[2])
    Path("p.csv").write_text("\n".join(lines) + "\n")
    code, _, err = add(capsys)
    assert (code, f"p.csv, {message}" in err) == (1, True), err
