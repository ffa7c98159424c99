"""A data set that was added is one like ours: prepared, cut, folded, standardised, found by its name, run and reported."""

import argparse
import json
import pickle

import numpy as np
import pandas as pd
import pytest
import torch

from mmbench.data import DATASETS
from mmbench.data.adding.commands import add_data
from mmbench.data.adding.declaration import declared
from mmbench.data.demo.added import write
from mmbench.data.preparing.audit import audit
from mmbench.data.preparing.manifest import verify
from mmbench.data.sets.added import AddedDataModule, added_class, parts_of
from mmbench.encoders.building import build_encoder
from mmbench.errors import UsageError
from mmbench.provenance import Codes

EVERY = {
    "name": "every-kind",
    "metadata": ["metadata.csv"],
    "id": "id",
    "label": "label",
    "classes": ["a", "b", "c"],
    "group": "speaker",
    "modalities": {
        "image": {"kind": "picture", "file": "image_file_name", "size": 16},
        "voice": {"kind": "sound", "file": "voice_file_name", "seconds": 0.5},
        "clip": {"kind": "video", "file": "clip_file_name", "size": 16, "frames": 2},
        "title": {"kind": "text", "column": "title"},
        "emb": {"kind": "features", "array": "emb.pt", "width": 5, "standardise": True},
        "own": {"kind": "features", "file": "own_file_name", "width": 4},
        "sizes": {"kind": "numbers", "columns": ["height", "weight"], "width": 2, "standardise": True},
    },
    "conditioning": "title",
    "folds": 5,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A raw folder of every kind, and the folder of data to which it was added."""
    root = tmp_path_factory.mktemp("added")
    write(declared(EVERY, "x"), root / "raw")
    table = pd.read_csv(root / "raw/metadata.csv", dtype=str, keep_default_na=False)
    table.loc[0, ["height", "weight"]] = ""
    table.to_csv(root / "raw/metadata.csv", index=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMBENCH_DATA", str(root / "data"))
        assert add_data(arguments(root / "raw", name="every-kind")) == 0
    return root / "raw", root / "data"


@pytest.fixture
def every(folders, monkeypatch):
    monkeypatch.setenv("MMBENCH_DATA", str(folders[1]))
    return DATASETS["every-kind"]


def arguments(folder, **given):
    nothing = dict.fromkeys(("name", "id", "label", "group", "split", "data_dir"))
    return argparse.Namespace(
        **{
            "folder": folder,
            "metadata": [],
            "also_from": [],
            "dry_run": False,
            "allow_bad": False,
            "jobs": 1,
            "hf": False,
            "replace": False,
            **nothing,
            **given,
        }
    )


def module(data, **settings):
    encoders = {m: build_encoder({"name": e} if isinstance(e, str) else dict(e)) for m, e in data.encoders.items()}
    return data(tokenizers={m: encoders[m].tokenize for m in data.text_modalities}, **settings), encoders


def test_it_is_inferred_and_found_by_its_name(every, folders):
    assert "every-kind" in DATASETS
    assert "every-kind" in list(DATASETS)
    assert issubclass(every, AddedDataModule)
    kinds = {name: one.kind for name, one in every.declared.modalities.items()}
    assert kinds == {  # the names of modalities are those of columns and files
        "image": "picture", "voice": "sound", "clip": "video", "title": "text", "own": "features", "numbers": "numbers",
        "emb": "features",
    }  # fmt: skip
    assert every.feature_dims == {"own": 4, "numbers": 2, "emb": 5}
    assert every.prepared() is None
    assert verify(every) == []
    assert (folders[0] / "dataset.yaml").read_text().startswith("# How mmbench reads this folder")


def test_a_class_travels_to_other_processes(every):
    again = pickle.loads(pickle.dumps(every))
    assert again is not every
    assert (again.declared, again.name, again.folder()) == (every.declared, every.name, every.folder())


@pytest.mark.parametrize("protocol", ["clean", "peek", "legacy"])
@pytest.mark.parametrize("fold", [None, 0, 4])
def test_splits_are_of_whole_groups_and_vectors_standardised(every, folders, protocol, fold):
    data, _ = module(every, protocol=protocol, fold=fold)
    data.setup()
    train, test = data.splits.train, data.splits.test
    if protocol != "legacy":
        assert not set(train.group.tolist()) & set(test.group.tolist())
    assert train.present.float().mean(dim=0).min() > 0.7
    column = data.modalities.index("numbers")
    raw = pd.read_csv(folders[0] / "metadata.csv").set_index("id")[["height", "weight"]]
    table = every.table()
    split = data.split_names(table)
    wanted = raw.loc[table["id"]].to_numpy()
    fitted = wanted[(split == "train") & ~np.isnan(wanted).any(axis=1)].astype(np.float32).astype(float)
    expected = (wanted.astype(np.float32) - fitted.mean(axis=0)) / fitted.std(axis=0)
    for name, part in (("train", train), ("test", test)):
        own = expected[split == name]
        there = part.present[:, column].numpy()
        np.testing.assert_array_equal(there, ~np.isnan(own).any(axis=1))
        np.testing.assert_allclose(part.inputs["numbers"].numpy()[there], own[there], atol=1e-5)
        assert (part.inputs["numbers"].numpy()[~there] == 0).all()


def test_kinds_arrive_as_their_encoders_take_them(every):
    data, encoders = module(every)
    batch = data.splits.train.__getitems__([0, 1, 2])
    shapes = {m: tuple(v.shape[1:]) for m, v in batch.inputs.items() if isinstance(v, torch.Tensor)}
    assert shapes == {
        "image": (3, 64, 64), "voice": (48, 128), "clip": (3, 3, 64, 64), "own": (4,), "numbers": (2,), "emb": (5,),
    }  # fmt: skip
    assert set(batch.inputs["title"]) == {"token", "word"}
    for name, encoder in encoders.items():
        assert encoder.eval()(batch.inputs[name]).shape == (3, encoder.out_dim)
    for name, (shape, kind) in ((m, every.sample_shape(m, data.views.get(m), encoders[m])) for m in shapes):
        assert (shape, kind) == (shapes[name], str(batch.inputs[name].dtype).removeprefix("torch."))


def test_what_it_declares_is_in_the_hash(every, folders, monkeypatch, tmp_path):
    other = every.declared.model_copy(update={"conditioning": "clip"})
    manifest = json.loads((every.folder() / "manifest.json").read_text())
    assert manifest["declaration"]["conditioning"] == "title"
    before, folder = every.manifest(), tmp_path / "every-kind"
    folder.mkdir()
    manifest["declaration"]["conditioning"] = other.conditioning
    (folder / "manifest.json").write_text(json.dumps(manifest))
    monkeypatch.setenv("MMBENCH_DATA", str(tmp_path))
    with pytest.raises(UsageError, match="has changed since it was prepared"):
        DATASETS["every-kind"].manifest()
    assert len(before) == 64


def test_audit_and_code(every):
    assert audit(every).violations["clean"] == []
    assert "mmbench.data.sets.added" in Codes().of_class(DATASETS.target("every-kind"))


def test_the_same_data_give_the_same_hash_whatever_the_order_of_columns(every, folders, tmp_path, monkeypatch):
    raw = tmp_path / "raw"
    raw.mkdir()
    for path in folders[0].iterdir():
        (raw / path.name).symlink_to(path)
    monkeypatch.setenv("MMBENCH_DATA", str(tmp_path / "data"))
    with pytest.raises(UsageError, match=r"is a link to .*also-from"):
        add_data(arguments(raw))
    assert add_data(arguments(raw, also_from=[folders[0]])) == 0
    assert DATASETS["every-kind"].manifest() == every.manifest()


def test_a_dry_run_writes_nothing(folders, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MMBENCH_DATA", str(tmp_path / "data"))
    raw = tmp_path / "some toys"
    write(declared({**EVERY, "modalities": {"title": EVERY["modalities"]["title"]}}, "x"), raw)
    before = sorted(raw.rglob("*"))
    assert add_data(arguments(raw, dry_run=True)) == 0
    assert sorted(raw.rglob("*")) == before
    assert not (tmp_path / "data").exists()
    assert "nothing was written" in capsys.readouterr().out


def test_options_may_not_contradict_the_file(folders, monkeypatch, tmp_path):
    monkeypatch.setenv("MMBENCH_DATA", str(tmp_path))
    with pytest.raises(UsageError, match=r"--label speaker: .*dataset.yaml says label: label"):
        add_data(arguments(folders[0], label="speaker"))


def test_names_of_ours_are_taken(tmp_path):
    write(declared({**EVERY, "modalities": {"title": EVERY["modalities"]["title"]}}, "x"), tmp_path / "raw")
    for name in ("openclipart", "crema_d"):
        with pytest.raises(UsageError, match=f"'{name}' is one of mmbench's own data sets"):
            add_data(arguments(tmp_path / "raw", name=name))
    with pytest.raises(UsageError, match="--name: expected a name of up to 40 letters"):
        add_data(arguments(tmp_path / "raw", name="a/b"))


def test_another_folder_does_not_take_a_data_sets_place(tmp_path, monkeypatch):
    monkeypatch.setenv("MMBENCH_DATA", str(tmp_path / "data"))
    one, other = small("same", tmp_path / "one"), small("same", tmp_path / "other")
    add_data(arguments(one))
    add_data(arguments(one))  # the same folder again, with what was changed in it
    with pytest.raises(
        UsageError, match=r"there is a data set 'same' already, added from .*/one/raw, another folder; choose another"
    ):
        add_data(arguments(other))
    assert add_data(arguments(other, replace=True)) == 0
    content = json.loads((other / "dataset.yaml").read_text())
    (other / "dataset.yaml").write_text(json.dumps({**content, "name": "Same"}))
    with pytest.raises(UsageError, match="'Same' differs from the data set 'same' by capitals alone"):
        add_data(arguments(other))


@pytest.mark.parametrize(
    ("encoder", "told"),
    [("resnet18x", "unknown encoder 'resnet18x'"), ({"name": "small_cnn", "out": 3}, "out: unknown key")],
)
def test_encoders_are_checked_before_anything_is_decoded(tmp_path, monkeypatch, encoder, told):
    monkeypatch.setenv("MMBENCH_DATA", str(tmp_path / "data"))
    raw = small("named", tmp_path)
    content = json.loads((raw / "dataset.yaml").read_text())
    content["modalities"]["title"]["encoder"] = encoder
    (raw / "dataset.yaml").write_text(json.dumps(content))
    with pytest.raises(UsageError, match=f"modalities.title.encoder: .*{told}"):
        add_data(arguments(raw))


def test_a_class_within_one_group_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MMBENCH_DATA", str(tmp_path / "data"))
    raw = small("lonely", tmp_path)
    table = pd.read_csv(raw / "metadata.csv", dtype=str)
    table.loc[table["label"] == "a", "speaker"] = "one"
    table.to_csv(raw / "metadata.csv", index=False)
    add_data(arguments(raw))
    assert (
        "lonely: all samples of a class are in one group (a): clean then trains without that class"
        in capsys.readouterr().err
    )


def small(name, tmp_path, **changes):
    """A data set of texts, added."""
    content = {**EVERY, "name": name, "modalities": {"title": EVERY["modalities"]["title"]}, **changes}
    write(declared(content, "x"), tmp_path / "raw")
    (tmp_path / "raw/dataset.yaml").write_text(json.dumps(content))
    return tmp_path / "raw"


def test_a_given_split_is_taken_and_groups_on_two_sides_leave_clean_to_folds(tmp_path, monkeypatch):
    monkeypatch.setenv("MMBENCH_DATA", str(tmp_path / "data"))
    raw = small("given", tmp_path, split="part")
    table = pd.read_csv(raw / "metadata.csv", dtype=str)
    add_data(arguments(raw))
    clean, _ = module(DATASETS["given"])
    assert [len(s) for s in (clean.splits.train, clean.splits.validation, clean.splits.test)] == [36, 12, 12]
    table.loc[0, "part"] = "test"  # its group is in training
    table.to_csv(raw / "metadata.csv", index=False)
    add_data(arguments(raw))
    data = DATASETS["given"]
    assert data.lacks("clean") == (
        "speaker is on two sides of the given split; cut folds instead (folds: in dataset.yaml), or use legacy"
    )
    assert data.lacks("legacy") is None
    assert audit(data).violations["clean"] == []  # its folds hold
    folds, _ = module(data, fold=0)
    assert not set(folds.splits.train.group.tolist()) & set(folds.splits.test.group.tolist())


def test_groups_of_one_class_each_are_in_every_split(tmp_path, monkeypatch):
    """Patients, say, who are ill or not: with four of each class, ten parts would leave classes out of validation and test."""
    monkeypatch.setenv("MMBENCH_DATA", str(tmp_path / "data"))
    raw = small("pure", tmp_path)
    table = pd.read_csv(raw / "metadata.csv", dtype=str)
    table["speaker"] = [f"{label}{row % 4}" for row, label in enumerate(table["label"])]
    table.to_csv(raw / "metadata.csv", index=False)
    add_data(arguments(raw))
    clean, _ = module(DATASETS["pure"])
    for split in (clean.splits.train, clean.splits.validation, clean.splits.test):
        assert set(split.label.tolist()) == {0, 1, 2}


def test_a_rare_class_does_not_make_the_parts_coarse():
    labels = [0] * 500 + [1] * 500 + [2] * 4
    assert parts_of([str(i) for i in range(1004)], labels, 10, 3) == 10
    assert parts_of(["one", "two"], [0, 1], 10, 3) == 3


def test_encoders_are_equally_wide_as_methods_with_one_head_need(every):
    choices = [{"name": choice} if isinstance(choice, str) else choice for choice in every.encoders.values()]
    widths = {build_encoder(choice).out_dim for choice in choices}
    assert widths == {64}
    alone = declared({**EVERY, "modalities": {"emb": EVERY["modalities"]["emb"]}, "conditioning": "emb"}, "x")
    assert added_class(alone).encoders["emb"] == {"name": "mlp", "in_dim": 5, "dropout": 0.5}


def test_equal_texts_are_kept_together_where_texts_are_distinct(tmp_path, monkeypatch):
    monkeypatch.setenv("MMBENCH_DATA", str(tmp_path / "data"))
    raw = small("texts", tmp_path, group=None, distinct_texts=True)
    table = pd.read_csv(raw / "metadata.csv", dtype=str)
    table.loc[::3, "title"] = "The same words!"
    table.loc[1::3, "title"] = [f"own words {i}" for i in range(len(table[1::3]))]
    table.to_csv(raw / "metadata.csv", index=False)
    add_data(arguments(raw))
    data = DATASETS["texts"]
    parts, rows = data.parts(), data.table()
    assert len(set(parts.clean[rows["text_title"] == "The same words!"])) == 1
    assert set(data.table()["group"]) == set(rows["id"])


def test_a_bad_file_is_counted_and_named(tmp_path, monkeypatch):
    monkeypatch.setenv("MMBENCH_DATA", str(tmp_path / "data"))
    content = {**EVERY, "name": "bad", "modalities": {"image": EVERY["modalities"]["image"]}, "conditioning": "image"}
    write(declared(content, "x"), tmp_path / "raw")
    (tmp_path / "raw/dataset.yaml").write_text(json.dumps(content))
    (tmp_path / "raw/image/0003.png").write_bytes(b"no picture")
    with pytest.raises(
        Exception,
        match=r"1 of 60 samples cannot be used, more than 1%(.|\n)*made_up_0003: image/0003.png not a readable picture",
    ):
        add_data(arguments(tmp_path / "raw"))
    assert add_data(arguments(tmp_path / "raw", allow_bad=True)) == 0
    assert (DATASETS["bad"].table()["skipped"] != "").sum() == 1


def test_added_class_is_like_one_written_by_hand():
    data = added_class(declared(EVERY, "x"))
    assert data.name == "every-kind"
    assert data.text_modalities == ("title",)
    assert data.folds == 5
    assert data.encoders["emb"] == {"name": "mlp", "in_dim": 5, "dropout": 0.5, "width": 64}
