"""Prepared data: rows read when they are asked for, splits, gaps, and folders that are not as they should be."""

import resource
from functools import partial
from hashlib import sha256
from itertools import chain

import numpy as np
import pandas as pd
import pytest
import torch

from folding import check_folds, check_module
from mmbench.data import DATASETS
from mmbench.data.augment import RandomResizedCrop, Resize, SpecAugment
from mmbench.data.prepared import MADE_UP, SPLITS, Mapped, PreparedDataModule
from mmbench.data.preparing.prepare import prepare
from mmbench.data.preparing.raw import Source
from mmbench.data.preparing.vouching import hash_table
from mmbench.encoders.hashed_text import HashedText
from mmbench.errors import UsageError
from mmbench.files import data_root
from mmbench.recipe import Recipe
from mmbench.training import build
from mmbench.trial import Trial
from toy import FoldedToy, Toy, change, reseal, write_toy


@pytest.fixture
def raw(tmp_path, monkeypatch):
    monkeypatch.setenv("MMBENCH_DATA", str(tmp_path / "data"))
    write_toy(tmp_path / "raw")
    return tmp_path / "raw"


def quietly(raw):
    prepare(Toy, raw, say=lambda text: None)


def tokens(texts):
    return {"token": torch.tensor([[int(t.split()[1]) if t else -1] for t in texts])}


def module(**arguments):
    return Toy(tokenizers={"text": tokens}, **arguments)


# Rows on disk


def test_mapped_rows_are_those_of_the_whole_array(tmp_path):
    whole = np.random.default_rng(0).normal(size=(50, 3, 2)).astype(np.float16)
    np.save(tmp_path / "a.npy", whole)
    rows = np.array([4, 9, 9, 30, 2, 49])
    mapped = Mapped(np.load(tmp_path / "a.npy", mmap_mode="r"), rows)
    index = torch.tensor([5, 0, 0, 2])
    assert len(mapped) == 6
    got = mapped[index]
    assert got.dtype == torch.float16
    assert np.array_equal(got.numpy(), whole[rows][index.numpy()])
    fewer = mapped.select(torch.tensor([1, 3, 5]))
    assert np.array_equal(fewer[torch.tensor([2, 0])].numpy(), whole[rows][[1, 3, 5]][[2, 0]])
    got += 1  # a copy: neither an error, nor a change of the file
    assert np.array_equal(np.load(tmp_path / "a.npy"), whole)


def test_only_the_rows_asked_for_are_read(tmp_path):
    array = np.lib.format.open_memmap(tmp_path / "a.npy", "w+", np.uint8, (100_000, 1_000_000))  # 100 GB, a sparse file
    array[70_000] = 7
    mapped = Mapped(np.load(tmp_path / "a.npy", mmap_mode="r"), np.arange(100_000)[::-1])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    got = mapped.select(torch.arange(29_000, 31_000))[torch.tensor([999, 998])]
    assert (got[0] == 7).all()
    assert not got[1].any()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


# Splits


def test_clean_and_legacy_splits_hold_their_samples(raw):
    quietly(raw)
    clean, legacy = module().splits, module(protocol="legacy").splits
    split = ["train", "train", "train", "validation", "test"]
    for name in ("train", "validation", "test"):
        expected = [i for i in range(100) if split[i // 10 % 5] == name]
        part = getattr(clean, name)
        batch = part.__getitems__(range(len(part)))
        assert batch.inputs["number"][:, 0, 0].tolist() == expected
        assert batch.inputs["text"]["token"][:, 0].tolist() == expected
        assert batch.label.tolist() == [i % 2 for i in expected]
        assert part.group.tolist() == [i // 10 for i in expected]
        assert batch.present.all()
    peek = module(protocol="peek").splits
    assert all(
        np.array_equal(getattr(clean, n).inputs["number"].rows, getattr(peek, n).inputs["number"].rows)
        for n in ("train", "test")
    )
    assert legacy.validation is None
    assert [len(legacy.train), len(legacy.test)] == [60, 40]
    assert legacy.train.attack is None


def test_a_fold_tests_its_part_validates_on_the_next_and_trains_on_the_rest(raw):
    (raw / "002.txt").write_text("bad")
    quietly(raw)
    check_folds(FoldedToy.parts(), [str(i // 10) for i in range(100) if i != 2])
    check_module(partial(FoldedToy, tokenizers={"text": tokens}), 99)
    data = FoldedToy(tokenizers={"text": tokens}, fold=4).splits
    values = {
        n: getattr(data, n).__getitems__(range(len(getattr(data, n)))).inputs["number"][:, 0, 0].int().tolist()
        for n in SPLITS
    }
    assert values["test"] == [*range(40, 50), *range(90, 100)]
    assert values["validation"] == [0, 1, *range(3, 10), *range(50, 60)], (
        "the part after the last is the first; 2 is not readable"
    )
    assert sorted(chain(*values.values())) == [i for i in range(100) if i != 2]
    assert FoldedToy.lacks_folds() is None


def test_a_part_without_samples(raw, monkeypatch):
    quietly(raw)
    monkeypatch.setattr(FoldedToy, "part_of", classmethod(lambda cls, samples: [0] * 100))
    assert FoldedToy.lacks_folds() == "too few samples: part 1 of the 5 has none"
    with pytest.raises(UsageError, match="toy: no folds; too few samples: part 1 of the 5"):
        FoldedToy(tokenizers={"text": tokens}, fold=0).setup()


def test_natural_gaps_and_skipped_samples(raw):
    change(raw, 0, file="")
    change(raw, 1, text="")
    (raw / "002.txt").write_text("bad")
    quietly(raw)
    batch = module().splits.train.__getitems__([0, 1, 2])
    assert batch.present.tolist() == [[False, True], [True, False], [True, True]]
    assert batch.inputs["number"][:, 0, 0].tolist() == [0, 1, 3], "the bad one is left out"
    assert batch.inputs["text"]["token"][:, 0].tolist() == [0, -1, 3]


def test_texts_go_through_the_encoders_tokenizer(raw):
    change(raw, 1, text="")
    quietly(raw)
    tokenize = HashedText(buckets=64).tokenize
    batch = Toy(tokenizers={"text": tokenize}).splits.train.__getitems__([0, 1])
    expected = tokenize([f"text {i}" if i != 1 else "" for i in range(100)])
    assert all(torch.equal(batch.inputs["text"][key], expected[key][:2]) for key in expected)


def test_views_choose_the_field(raw):
    quietly(raw)
    assert module().splits.train.inputs["number"].array.dtype == np.float32
    assert module(views={"number": "small"}).splits.train.inputs["number"].array.dtype == np.uint8
    with pytest.raises(UsageError, match="unknown view 'smal' of number; did you mean 'small'"):
        module(views={"number": "smal"})
    with pytest.raises(UsageError, match="no views of 'text'"):
        module(views={"text": "big"})


class Heard(PreparedDataModule):
    name, modalities, classes, conditioning, encoders = "heard", ("audio", "sight"), ("x",), "audio", {}
    sources = {
        "audio": Source({"fbank": ((60, 20), "float16"), "waveform": ((900,), "int16")}, lambda path, sample: {}, ""),
        "sight": Source({"pixels": ((8, 8, 3), "uint8")}, lambda path, sample: {}, ""),
    }


def test_parts_of_the_filter_bank_are_hidden_in_training_if_asked_for():
    assert Heard().augmentations == {}
    assert Heard(spec_augment={"audio": {"time": 9, "frequency": 4}}).augmentations == {"audio": SpecAugment(9, 4)}


@pytest.mark.parametrize(
    ("limits", "views", "message"),
    [
        ({"audio": {"time": 61, "frequency": 4}}, {}, r"audio\.time is 61, the filter bank has only 60"),
        ({"audio": {"time": 9, "frequency": 21}}, {}, r"audio\.frequency is 21, the filter bank has only 20"),
        ({"audio": {"time": 9, "frequency": 4}}, {"audio": "waveform"}, "audio is read as 'waveform'"),
        ({"sight": {"time": 9, "frequency": 4}}, {}, "no filter bank of 'sight'"),
    ],
)
def test_what_cannot_be_hidden_is_refused(limits, views, message):
    with pytest.raises(UsageError, match=message):
        Heard(spec_augment=limits, views=views)


def test_the_sizes_that_encoders_take():
    class Pictures(PreparedDataModule):
        name, modalities, classes, conditioning, encoders = "pictures", ("a", "b"), ("x",), "a", {}
        pictures = {"a": {"scale": (0.5, 1.0)}, "b": {}}
        sources = {m: Source({f"{m}_field": ((8, 8, 3), "uint8")}, lambda path, sample: {}, "") for m in "ab"}

    data = Pictures(image_sizes={"a": 4})
    assert data.augmentations == {"a": RandomResizedCrop(4, scale=(0.5, 1.0))}
    assert data.resizing == {"a": Resize(4)}
    assert data.views == {"a": "a_field", "b": "b_field"}
    assert Pictures().augmentations == {}


def test_a_trial_hides_what_it_says(raw, monkeypatch):
    quietly(raw)
    monkeypatch.setattr(Toy, "check_spec_augment", lambda *arguments: None)
    monkeypatch.setitem(DATASETS._targets, "toy", "toy:Toy")
    monkeypatch.setattr("mmbench.training.build_encoder", lambda choice: HashedText())
    trial = Trial(
        dataset="toy", data=Toy.manifest(), protocol="clean", method="sum", seed=0, params={}, recipe=Recipe(),
        encoders={m: {"name": "hashed_text"} for m in ("number", "text")}, spec_augment={"number": {"time": 2, "frequency": 1}},
    )  # fmt: skip
    assert build(trial)[1].augmentations == {"number": SpecAugment(2, 1)}


@pytest.mark.parametrize(("fixed", "side"), [(True, 32), (False, 24)])
def test_a_data_set_has_its_size_for_encoders_that_take_any(raw, monkeypatch, fixed, side):
    class Any(torch.nn.Linear):
        image_size, fixed_size, out_dim = 32, fixed, 1

        def __init__(self):
            super().__init__(1, 1)

    quietly(raw)
    monkeypatch.setattr(Toy, "pictures", {"number": {}})
    monkeypatch.setattr(Toy, "sides", {"number": 24})
    monkeypatch.setitem(DATASETS._targets, "toy", "toy:Toy")
    monkeypatch.setattr(
        "mmbench.training.build_encoder", lambda choice: Any() if choice["name"] == "any" else HashedText()
    )
    monkeypatch.setattr("mmbench.training.weights_of", lambda encoders: {})
    trial = Trial(
        dataset="toy", data=Toy.manifest(), protocol="clean", method="sum", seed=0, params={}, recipe=Recipe(),
        encoders={"number": {"name": "any"}, "text": {"name": "hashed_text"}},
    )  # fmt: skip
    assert build(trial)[1].resizing == {"number": Resize(side)}


# Folders that are not as they should be


def test_what_is_not_prepared_says_what_to_do(raw):
    assert Toy.prepared() == "mmbench data info toy"
    quietly(raw)
    assert Toy.prepared() is None


def test_legacy_without_lists_is_a_clear_error(raw):
    for i in range(100):
        change(raw, i, legacy="")
    quietly(raw)
    assert len(module().splits.train) == 60
    with pytest.raises(UsageError, match="toy: no legacy splits; the legacy protocol needs lists"):
        _ = module(protocol="legacy").splits
    assert Toy.lacks("legacy") == "the legacy protocol needs lists"
    assert Toy.lacks("clean") is Toy.lacks("peek") is None


def test_too_few_samples_for_the_clean_splits(raw):
    (raw / "list.csv").write_text("s000,0,0,,000.txt,text 0\n")
    quietly(raw)
    with pytest.raises(UsageError, match="toy: no clean splits; too few samples"):
        _ = module().splits


def test_a_split_to_choose_the_epoch_on_is_missed_where_a_protocol_needs_it(raw):
    for i in range(100):
        if i // 10 in (3, 8):  # the groups of the validation split
            change(raw, i, group="0")
    quietly(raw)
    assert "no validation split, on which the best epoch is chosen" in Toy.lacks("clean")
    assert Toy.lacks("peek") is Toy.lacks("legacy") is None
    with pytest.raises(UsageError, match="toy: no clean splits; there is no validation split"):
        _ = module().splits
    assert module(protocol="peek").splits.validation is None


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "shape", "type", "pickle", "unknown"])
def test_a_damaged_array_is_named(raw, damage):
    quietly(raw)
    path = Toy.folder() / "big.npy"
    if damage == "missing":
        path.unlink()
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    elif damage == "unknown":
        reseal(Toy.folder(), arrays={"small": Toy.read_manifest()["arrays"]["small"]})
    else:
        array = {"shape": np.zeros((99, 2, 3), "f4"), "type": np.zeros((100, 2, 3)), "pickle": np.array([print])}
        np.save(path, array[damage])
    message = Toy.prepared()
    assert message.startswith(str(path))
    assert message.endswith("prepare the data anew: mmbench data info toy")
    with pytest.raises(UsageError, match=r"big\.npy"):
        _ = module().splits


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is damaged"),
        ("{", "is damaged"),
        ("[]", "is damaged"),
        ("{}", "is damaged"),
        ('{"format": 0, "version": 1}', "another version"),
        ('{"format": 1, "version": 0}', "another version"),
    ],
)
def test_a_damaged_or_old_manifest(raw, text, message):
    quietly(raw)
    (Toy.folder() / "manifest.json").write_text(text)
    assert message in Toy.prepared()


def test_a_damaged_table(raw):
    quietly(raw)
    (Toy.folder() / "samples.parquet").write_bytes(b"PAR1")
    with pytest.raises(UsageError, match=r"samples\.parquet cannot be read"):
        _ = module().splits


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.assign(label=1 - t["label"]),
        lambda t: t.assign(label=t["label"].to_numpy()[::-1]),
        lambda t: t.assign(clean=t["clean"].replace({"train": "test", "test": "train"})),
        lambda t: t.assign(clean=t["clean"].replace({"validation": "train"})),
        lambda t: t.assign(group="one"),
        lambda t: t.assign(text_text=t["text_text"].str.upper()),
        lambda t: t.assign(present_text=False),
        lambda t: t[::-1],
        lambda t: t[:-1],
        lambda t: t.drop(columns="attack"),
        lambda t: t.assign(more=0),
        lambda t: t.rename(columns={"clean": "legacy", "legacy": "clean"}),
    ],
)
def test_a_table_that_is_not_the_one_that_the_manifest_vouches_for(raw, change):
    quietly(raw)
    before, path = Toy.manifest(), Toy.folder() / "samples.parquet"
    change(Toy.table()).to_parquet(path, index=False)
    assert Toy.manifest() == before, "the key of a trial does not tell"
    with pytest.raises(
        UsageError, match=r"samples\.parquet has changed since it was prepared; prepare the data anew: mmbench"
    ):
        module().setup()


def test_a_table_in_another_file_of_the_same_values(raw):
    quietly(raw)
    Toy.table().to_parquet(Toy.folder() / "samples.parquet", index=False, compression="gzip", row_group_size=7)
    module().setup()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples": "3"}, r"manifest\.json is damaged \(samples: input should be a valid integer\)"),
        ({"splits": {"clean": {"train": 60}}}, r"manifest\.json is damaged \(splits\.clean\.train: "),
        ({"arrays": {"big": {"shape": [100, -2, 3]}}}, r"manifest\.json is damaged \(arrays\.big\.shape\.1: "),
        ({"classes": []}, r"manifest\.json is damaged \(classes: "),
        ({"more": 1}, r"manifest\.json is damaged \(more: "),
    ],
)  # fmt: skip
def test_a_manifest_of_another_form(raw, changes, message):
    quietly(raw)
    reseal(Toy.folder(), **changes)
    with pytest.raises(UsageError, match=message):
        module().setup()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="clean"), r"damaged \(expected the column clean, of type text\)"),
        (lambda t: t.assign(label=t["label"].astype(float)), r"damaged \(expected the column label, of type int\)"),
        (lambda t: t.assign(present_text=1), r"damaged \(expected the column present_text, of type bool\)"),
        (lambda t: t.assign(text_text=None), r"damaged \(expected the column text_text, of type text\)"),
        (lambda t: t[:99], r"damaged \(it has 99 rows, big\.npy has the shape \[100, 2, 3\]\)"),
    ],
)
def test_a_table_of_another_form(raw, change, message):
    quietly(raw)
    reseal(Toy.folder(), change(Toy.table()))
    with pytest.raises(UsageError, match=message):
        module().setup()


def test_labels_of_a_table_are_those_of_classes(raw):
    quietly(raw)
    reseal(Toy.folder(), Toy.table().assign(label=lambda t: t["label"] + 1))
    with pytest.raises(UsageError, match="toy, train split: label of sample 1 is 2, expected 0 to 1"):
        module().setup()


def test_a_manifest_that_was_edited(raw):
    quietly(raw)
    path = Toy.folder() / "manifest.json"
    path.write_text(path.read_text().replace('"samples": 100', '"samples": 101', 1))
    assert "manifest.json has changed since it was prepared" in Toy.prepared()


def test_the_hash_of_a_table_is_of_its_values_as_texts(raw):
    frame = pd.DataFrame({"a": [1, 2], "b": ["é", '"'], "c": [True, False]})
    lines = b'["a", "b", "c"]\n["1", "\xc3\xa9", "True"]\n["2", "\\"", "False"]\n'
    assert hash_table(frame) == sha256(lines).hexdigest()


def test_the_hash_tells_data_and_splits_apart(raw):
    quietly(raw)
    one = Toy.manifest()
    quietly(raw)
    assert Toy.manifest() == one
    change(raw, 0, legacy="test")
    quietly(raw)
    two = Toy.manifest()
    (raw / "000.txt").write_text("1000")
    quietly(raw)
    assert len({one, two, Toy.manifest()}) == 3
    (raw / MADE_UP).touch()
    quietly(raw)
    assert Toy.manifest().startswith(MADE_UP)


def test_the_root_is_what_the_environment_names(monkeypatch, tmp_path):
    monkeypatch.setenv("MMBENCH_DATA", str(tmp_path))
    assert data_root() == tmp_path
    monkeypatch.setenv("MMBENCH_DATA", "")
    assert str(data_root()) == "data"
