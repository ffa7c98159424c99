"""IEMOCAP features: a tiny copy in the layout that the user makes, its splits and standardisation, and every mistake in it."""

import pickle
import shutil
from functools import partial
from io import BytesIO

import numpy as np
import pytest
import torch

from folding import check_folds, check_module
from mmbench.data.sets.iemocap_features import WIDTHS, IemocapFeatures
from mmbench.encoders.mlp import Mlp
from mmbench.errors import UsageError
from planted import RECIPE, World, trainer

CLASSES = IemocapFeatures.classes
FIRST = "Ses01F_impro01_F000"


def tiny_utterances() -> dict[str, str]:
    """Utterance -> label: five sessions of two dialogues of eight utterances, two of each class."""
    dialogues = [f"Ses0{s}{d}" for s in range(1, 6) for d in ("F_impro01", "F_impro02")]
    return {f"{dialogue}_{'FM'[i % 2]}{i:03}": CLASSES[i % 4] for dialogue in dialogues for i in range(8)}


def write_labels(folder, labels: dict[str, str]) -> None:
    rows = "".join(f"{utterance},{label}\n" for utterance, label in labels.items())
    (folder / "labels.csv").write_text("utterance,label\n" + rows)


def write_tiny(root) -> None:
    """The tiny copy in ``root``, the class planted in the first hundred dimensions of every modality."""
    folder, generator = root / "iemocap_features", np.random.default_rng(0)
    labels = tiny_utterances()
    for modality, width in WIDTHS.items():
        (folder / modality).mkdir(parents=True)
        for i, (utterance, label) in enumerate(labels.items()):
            vector = generator.normal(3, 2, width).astype(np.float32)
            vector[25 * CLASSES.index(label) :][:25] += 4
            vector[-1] = 0.1  # constant
            np.save(folder / modality / f"{utterance}.npy", vector if i % 2 else vector[None])
    write_labels(folder, labels)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("tiny")
    write_tiny(root)
    return root


@pytest.fixture
def folder(written, tmp_path, monkeypatch):
    """A copy that a test may change."""
    shutil.copytree(written, tmp_path / "root")
    monkeypatch.setenv("MMBENCH_DATA", str(tmp_path / "root"))
    return tmp_path / "root" / "iemocap_features"


@pytest.fixture
def whole(written, monkeypatch):
    """The copy that no test changes."""
    monkeypatch.setenv("MMBENCH_DATA", str(written))


def splits(protocol="clean"):
    return IemocapFeatures(protocol, batch_size=8).splits


def rows_of(split) -> set[tuple]:
    """Samples by what they hold; noise tells them apart."""
    return {tuple(row[200:204].tolist()) for row in split.inputs["audio"]}


# Splits


def test_clean_splits_are_disjoint_by_session_and_dialogue(whole):
    got = splits()
    names = sorted({name.rpartition("_")[0] for name in tiny_utterances()})
    sessions = [{names[g][3:5] for g in s.group.tolist()} for s in (got.train, got.validation, got.test)]
    assert sessions == [{"01", "02", "03"}, {"04"}, {"05"}]
    assert [len(s) for s in (got.train, got.validation, got.test)] == [48, 16, 16]
    assert IemocapFeatures().spec.class_counts == (12, 12, 12, 12)


def test_legacy_splits_ignore_sessions_and_leave_the_middle_out(whole):
    got = splits("legacy")
    assert got.validation is None
    assert [len(got.train), len(got.test)] == [48, 16]
    assert not rows_of(got.train) & rows_of(got.test)
    assert set(got.train.group.tolist()) & set(got.test.group.tolist())
    assert {len(s.label.unique()) for s in (got.train, got.test)} == {4}


def test_the_real_number_of_utterances_is_cut_as_the_paper_does():
    names = [f"Ses01F_impro01_F{i:04}" for i in range(5531)]
    train, validation, test = IemocapFeatures("legacy").cut(names)
    assert (len(train), len(validation), len(test)) == (3318, 0, 1107)


@pytest.mark.parametrize("protocol", ["clean", "legacy"])
def test_rows_belong_together_and_come_out_the_same_every_time(folder, protocol):
    labels = tiny_utterances()
    one = splits(protocol)
    write_labels(folder, dict(reversed(labels.items())))
    other = splits(protocol)  # whatever the order of the rows
    for split, again in [(one.train, other.train), (one.test, other.test)]:
        assert torch.equal(split.label, again.label)
        assert torch.equal(split.group, again.group)
        assert all(torch.equal(split.inputs[m], again.inputs[m]) for m in WIDTHS)
        assert split.present.all()
    names = sorted(labels)
    files = np.stack([np.load(folder / "text" / f"{name}.npy").reshape(-1) for name in names])
    train = IemocapFeatures(protocol).cut(names)[0]
    expected = (files[train, :-1] - files[train, :-1].mean(0)) / files[train, :-1].std(0)
    assert one.train.inputs["text"][:, :-1].numpy() == pytest.approx(expected, abs=1e-4)
    assert one.train.label.tolist() == [CLASSES.index(labels[names[i]]) for i in train]


@pytest.mark.usefixtures("whole")
def test_folds_are_sessions():
    names = sorted(tiny_utterances())
    check_folds(IemocapFeatures.parts(), [name[:5] for name in names])
    check_module(partial(IemocapFeatures, batch_size=8), len(names))
    data = IemocapFeatures(fold=4, batch_size=8, modalities=("text", "audio"))
    dialogues = sorted({name.rpartition("_")[0] for name in names})
    sessions = [{dialogues[g][3:5] for g in s.group.tolist()} for s in vars(data.splits).values()]
    assert sessions == [{"02", "03", "04"}, {"01"}, {"05"}]
    assert data.splits.train.inputs["audio"].mean(dim=0).abs().max() < 1e-5, (
        "standardised by the fold's own training part"
    )
    assert set(data.spec.feature_dims) == {"audio", "text"}


# Features


@pytest.mark.parametrize("protocol", ["clean", "legacy"])
def test_features_are_standardised_over_the_training_split(whole, protocol):
    train = splits(protocol).train
    for modality, width in WIDTHS.items():
        vectors = train.inputs[modality]
        assert vectors.shape == (len(train), width)
        assert vectors.dtype == torch.float32
        assert vectors.mean(dim=0).abs().max() < 1e-5
        assert vectors[:, :-1].std(dim=0, correction=0).sub(1).abs().max() < 1e-4
        assert vectors[:, -1].abs().max() < 1e-6  # constant, so divided by 1


def test_nothing_of_the_other_splits_enters_the_training_features(folder):
    before = splits()
    for path in folder.glob("*/Ses0[45]*.npy"):
        np.save(path, 100 * np.load(path))
    after = splits()
    assert all(torch.equal(before.train.inputs[m], after.train.inputs[m]) for m in WIDTHS)
    assert not torch.equal(before.test.inputs["audio"], after.test.inputs["audio"])


def test_encoders_are_as_wide_as_the_features(whole):
    data = IemocapFeatures()
    assert data.spec.feature_dims == {m: data.encoders[m]["in_dim"] for m in data.modalities}
    assert data.spec.conditioning in data.modalities


def test_late_fusion_learns(whole):
    data = IemocapFeatures(batch_size=8)
    world = World(data, lambda: {m: Mlp(in_dim=w, width=16) for m, w in WIDTHS.items()})
    task, run = world.task("late_fusion", recipe=RECIPE.model_copy(update={"epochs": 3})), trainer(epochs=3)
    run.fit(task, datamodule=data)
    batch = data.splits.test.__getitems__(range(16))
    with torch.no_grad():
        logits = task.eval().fuse(task.encode(batch), batch.present)
    assert (logits.argmax(dim=1) == batch.label).float().mean() > 0.5


# The manifest


def test_the_manifest_is_of_the_labels_and_of_the_features_that_they_name(folder):
    before = IemocapFeatures.manifest()
    assert IemocapFeatures.manifest() == before
    np.save(folder / "audio" / "Ses01F_impro99_F000.npy", np.zeros(3))
    assert IemocapFeatures.manifest() == before
    path = folder / "text" / f"{FIRST}.npy"
    np.save(path, np.load(path) + np.float32(0.01))
    changed = IemocapFeatures.manifest()
    write_labels(folder, tiny_utterances() | {FIRST: "sad"})
    assert len({before, changed, IemocapFeatures.manifest()}) == 3


def test_features_without_a_label_are_counted(folder, capsys):
    splits()
    assert capsys.readouterr().out == ""
    for name in ("Ses01F_impro99_F000", "Ses01F_impro99_F001"):
        np.save(folder / "audio" / f"{name}.npy", np.zeros(3))
    splits()
    assert capsys.readouterr().out == ("iemocap_features: 2 feature files of utterances without a label (not used)\n")


# What is refused


def refused(match, *, prepared=True):
    """``load`` names the mistake, and so does ``prepared`` unless only the content of a feature shows it."""
    with pytest.raises(UsageError, match=match) as caught:
        IemocapFeatures().load()
    assert IemocapFeatures.prepared() == (None if prepared else str(caught.value))


def test_nothing_there(tmp_path, monkeypatch):
    monkeypatch.delenv("MMBENCH_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    refused(
        r"data/iemocap_features/labels\.csv is missing; .* \(columns utterance,label\), audio/<utterance>\.npy \(512 floats\)"
        r".* into data/iemocap_features, or set MMBENCH_DATA",
        prepared=False,
    )


def test_a_whole_copy_is_prepared(whole):
    assert IemocapFeatures.prepared() is None


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (b"", r"labels\.csv: expected the columns utterance,label, got an empty file"),
        (b"name;label\n", r"labels\.csv: expected the columns utterance,label, got \['name;label'\]"),
        (b"utterance,label\n\xff", r"labels\.csv: expected comma-separated values in UTF-8"),
        (b"utterance,label\nSes\rx,sad\n", r"labels\.csv, line 2: no session can be read"),
        (f'text,utterance,label\n"a,{FIRST},sad\nb",{FIRST},sad\n'.encode(), r"labels\.csv, line 2: no session can be read"),
        (f"utterance,label\n{FIRST},\xe9\n".encode("latin-1"), r"labels\.csv: expected comma-separated values"),
        (f"utterance,label\n{FIRST},hapy\n".encode(), r"labels\.csv, line 2: unknown label 'hapy': did you mean 'happy'"),
        (f"utterance,label\n{FIRST}\n".encode(), r"labels\.csv, line 2: unknown label ''"),
        (f"utterance,label\n{FIRST},sad\n{FIRST},sad\n".encode(), rf"line 3: utterance '{FIRST}' is given twice"),
        *(
            (f"label,utterance\nsad,{name}\n".encode(), r"labels\.csv, line 2: no session can be read from")
            for name in ("", "Ses06F_impro01_F000", "Ses01F", "../x", "/etc/x", "Ses01F_../../x_F000", "Ses01F_a\\b_F0")
        ),
        (f"\ufeffutterance,label\r\n{FIRST},sad\r\n".encode(), r"labels\.csv: no utterance of session 2; expected all"),
    ],
)  # fmt: skip
def test_labels(folder, text, match):
    (folder / "labels.csv").write_bytes(text)
    refused(match, prepared=False)


def test_an_empty_session(folder):
    write_labels(folder, {u: label for u, label in tiny_utterances().items() if not u.startswith("Ses04")})
    refused(r"labels\.csv: no utterance of session 4", prepared=False)


def test_missing_features(folder):
    (folder / "image" / f"{FIRST}.npy").unlink()
    (folder / "text" / f"{FIRST}.npy").unlink()
    first = rf"2 feature files .* missing, the first of them image/{FIRST}\.npy; delete the row or extract the feature"
    refused(first, prepared=False)
    shutil.rmtree(folder / "audio")
    refused(r"82 feature files", prepared=False)


OBJECTS = np.array([{}, None], dtype=object)


def header(shape):
    """The beginning of a file of this many float32, whose values are missing."""
    content = BytesIO()
    np.lib.format.write_array_header_1_0(content, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return content.getvalue() + bytes(64)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (np.zeros(511, np.float32), r"got float32 of shape \(511,\)"),
        (np.zeros((512, 1)), r"got float64 of shape \(512, 1\)"),
        (np.zeros((0, 512)), r"got float64 of shape \(0, 512\)"),
        (np.zeros(512, np.int64), r"got int64 of shape \(512,\)"),
        (np.zeros((7, 512)), r"got 7 steps of 512; average over time first"),
        (np.full(512, np.nan), r"got NaN or an infinite value"),
        (np.full(512, np.inf), r"got NaN or an infinite value"),
        (np.full(512, 1e300), r"got NaN or an infinite value"),
        (OBJECTS, r"got no such array \(Array can't be memory-mapped: Python objects"),
        (pickle.dumps(OBJECTS), r"got no such array"),
        (b"", r"got no such array"),
        (b"\x93NUMPY\x01\x00\x06\x00{'a':\n", r"got no such array"),
        (header((1 << 40,)), r"got no such array \(mmap length is greater than file size"),
    ],
)  # fmt: skip
def test_content_of_a_feature(folder, content, match):
    path = folder / "audio" / f"{FIRST}.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content, allow_pickle=True)
    refused(rf"audio/{FIRST}\.npy: expected 512 floats as np\.save writes them, {match}")


@pytest.mark.parametrize("name", ["labels.csv", "audio", f"audio/{FIRST}.npy"])
def test_links_may_lead_about_the_folder_but_not_out_of_it(folder, tmp_path, name):
    path, inside, outside = folder / name, folder / "elsewhere", tmp_path / "outside"
    path.rename(inside)
    path.symlink_to(inside)
    assert splits()
    inside.rename(outside)
    path.unlink()
    path.symlink_to(outside)
    refused(rf"{name} is a link to .*outside; expected the file itself", prepared=False)


def test_a_file_that_the_system_does_not_let_us_read(folder, monkeypatch):
    def denied(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("pathlib.Path.read_bytes", denied)
    refused(r"labels\.csv: expected a readable file, got 'Permission denied'", prepared=False)


@pytest.mark.usefixtures("whole")
@pytest.mark.parametrize(("protocol", "fold"), [("clean", None), ("legacy", None), ("clean", 3), ("legacy", 3)])
def test_the_ids_of_its_splits_are_those_of_what_is_loaded(written, protocol, fold):
    ids, loaded = IemocapFeatures.split_ids(protocol, fold), IemocapFeatures(protocol, fold=fold).load()
    files = {
        split: np.stack([np.load(written / f"iemocap_features/text/{name}.npy").reshape(-1) for name in names])[:, :-1]
        for split, names in ids.items()
    }
    assert ("validation" in ids) == (loaded.validation is not None) == (protocol == "clean")
    for split, vectors in files.items():
        expected = (vectors - files["train"].mean(0)) / files["train"].std(0)
        assert getattr(loaded, split).inputs["text"][:, :-1].numpy() == pytest.approx(expected, abs=1e-4)
