"""Models of every kind of data answer about raw files, in a new process and without the prepared data, as their trials did."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import wave
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import BertConfig, BertModel

import mmbench
from mmbench.arguments import resolve_arguments
from mmbench.baselines import METHODS
from mmbench.cli import main
from mmbench.data import DATASETS
from mmbench.data.demo.media import picture, sound, write_picture, write_sound, write_video
from mmbench.data.prepared import PreparedDataModule
from mmbench.data.preparing.prepare import prepare
from mmbench.data.preparing.raw import Sample
from mmbench.encoders import ENCODERS
from mmbench.encoders.bert import Bert
from mmbench.encoders.building import weights_of
from mmbench.errors import UsageError
from mmbench.models.card import Array
from mmbench.models.inputs import Inputs
from mmbench.recipe import Recipe
from mmbench.runner.child import Job, execute
from mmbench.store import Store
from mmbench.trial import Trial

COUNT = 36
CLASSES = ("bird", "cat", "dog")
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "bird", "cat", "dog", "very", "##s", "small"]
SMALL = {"size": "tiny", "weights": None}
CHEAP = {  # in place of encoders that are dear, or have no weights here
    "resnet18": {"name": "small_cnn"},
    "resnet18_audio": {"name": "small_cnn_audio"},
    "cav_mae": {"name": "cav_mae", **SMALL},
    "m3ae_image": {"name": "m3ae_image", **SMALL},
    "m3ae_text": {"name": "hashed_text", "out_dim": 64},
}


def write_raw(folder: Path) -> None:
    """A folder with a table and every kind of modality, some of them missing."""
    random = np.random.default_rng(0)
    folder.mkdir(parents=True)
    rows = []
    for i in range(COUNT):
        label, gone = i % 3, i % 7
        row = {
            "sku": f"item {i}",
            "category": CLASSES[label],
            "size_0": label + random.normal(),
            "size_1": 100.0 * i,
            "note": "",
        }
        if gone != 1:
            row["photo_file_name"] = f"photos/{i}.png"
            write_picture(folder / row["photo_file_name"], picture(label, 40, 50 + i % 3, i))
        if gone != 2:
            row["title"] = " ".join(["a", *["very"] * (i % 4), CLASSES[label]])
        if gone != 3:
            row["voice_file_name"] = f"voices/{i}.wav"
            write_sound(folder / row["voice_file_name"], sound(label, 0.4, 16_000, i), 16_000)
        if gone != 4:
            row["clip_file_name"] = f"clips/{i}.avi"
            frames = [picture(label, 32, 32, (i, t)) for t in range(4)]
            write_video(folder / row["clip_file_name"], frames, 4, "mpeg4")
        if gone == 5:
            row["size_0"] = row["size_1"] = ""
        rows.append(row)
    pd.DataFrame(rows).to_csv(folder / "metadata.csv", index=False)
    np.save(folder / "emb.npy", 5 + random.normal(size=(COUNT, 6)) * np.arange(1, 7))


def write_bert(folder: Path) -> None:
    """A folder of weights with a tiny model of twelve words."""
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=len(WORDS), max_position_embeddings=16, **Bert.tiny)).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS))


DECLARED = """
name: everything
metadata: [metadata.csv]
id: sku
label: category
classes: [bird, cat, dog]
conditioning: title
folds: 1
modalities:
  photo: {kind: picture, file: photo_file_name, size: 32}
  title: {kind: text, column: title}
  voice: {kind: sound, file: voice_file_name, seconds: 0.5}
  clip: {kind: video, file: clip_file_name, frames: 2, size: 32}
  emb: {kind: features, array: emb.npy, standardise: true}
  size: {kind: numbers, columns: [size_0, size_1], standardise: true}
"""


def trial(name: str, method: str = "mla", encoders: dict[str, Any] | None = None, **changes: Any) -> Trial:
    """A short trial of a data set that is prepared, with cheap encoders."""
    data = DATASETS[name]
    chosen = {m: {"name": e} if isinstance(e, str) else dict(e) for m, e in data.encoders.items()}
    if name != "casia_surf":  # whose pictures evaluation makes smaller for its own encoders
        chosen = {m: CHEAP.get(choice["name"], choice) for m, choice in chosen.items()}
    if "video" in chosen:
        chosen["video"] = {"name": "small_cnn_video"}
    chosen |= encoders or {}
    resolved = {}
    for modality, choice in chosen.items():
        arguments, wrong = resolve_arguments(ENCODERS[choice["name"]], {k: v for k, v in choice.items() if k != "name"})
        assert not wrong
        resolved[modality] = {"name": choice["name"], **arguments}
    params, _ = resolve_arguments(METHODS[method], {}, ("spec", "encoders", "recipe"))
    return Trial(**{
        "dataset": name, "data": data.manifest(), "protocol": "clean", "method": method, "seed": 0, "encoders": resolved,
        "params": params, "recipe": Recipe(epochs=1, batch_size=16, lr=0.05), "views": data.default_views(),
        "weights": weights_of(resolved), **changes,
    })  # fmt: skip


def kept(store: Store, of: Trial) -> Path:
    """Run a trial and keep its model."""
    store.folder(of.key).mkdir(parents=True)
    record = execute(Job(of, str(store.root), 1, "cpu", keep_model=True), store)
    assert record.status == "done", record.failure
    return store.folder(of.key)


def agrees(output: Path, store: Store, key: str, classes: Sequence[str]) -> None:
    """Hold what ``mmbench predict`` wrote to what the trial stored, to the last bit of both."""
    stored = store.predictions(store.done(key))
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    with np.errstate(divide="ignore"):
        found = np.log([[line["probabilities"][name] for name in classes] for line in lines]).astype(np.float32)
    np.testing.assert_array_equal(found.astype(np.float16), stored.log_probs[-1])
    assert [classes.index(line["class"]) for line in lines] == stored.predicted[-1].tolist()
    names = stored.modalities.tolist()
    assert [line["seen"] for line in lines] == [
        [m for m, here in zip(names, row, strict=True) if here] for row in stored.present
    ]


def ask(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """``mmbench predict`` in a process of its own, which finds neither data nor weights."""
    environment = {**os.environ, "MMBENCH_DATA": os.devnull, "MMBENCH_WEIGHTS": os.devnull}
    command = [sys.executable, "-m", "mmbench", "predict", *map(str, arguments)]
    return subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Store, Trial, Path]:
    """Data of every kind, added without code; the model of a trial on them, and a table of the test split beside the raw files."""
    root = tmp_path_factory.mktemp("everything")
    write_raw(root / "raw")
    (root / "raw" / "dataset.yaml").write_text(DECLARED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMBENCH_DATA", str(root / "data"))
        patch.setenv("MMBENCH_WEIGHTS", str(root / "weights"))
        patch.setattr("torch.utils.deterministic.fill_uninitialized_memory", True)  # a trial's process changes it
        write_bert(root / "weights" / "bert")
        assert main(["data", "add", str(root / "raw"), "--jobs", "1"]) == 0
        sixteen = {"name": "mlp", "width": 32}
        encoders = {
            "photo": {"name": "small_cnn", "width": 8},
            "title": {"name": "bert", "weights": "bert", "max_length": 16},
            "voice": {"name": "small_cnn_audio", "width": 16},
            "clip": {"name": "small_cnn_video", "width": 8},
            "emb": {**sixteen, "in_dim": 6},
            "size": {**sixteen, "in_dim": 2},
        }
        store = Store(root / "runs")
        of = trial("everything", encoders=encoders)
        away = shutil.copytree(kept(store, of), root / "away" / "model")
        ids = DATASETS["everything"].split_ids("clean")["test"]
    (away / "record.json").unlink()
    raw = shutil.copytree(root / "raw", root / "asked")
    table = pd.read_csv(raw / "metadata.csv", dtype=str, keep_default_na=False)
    rows = [table["sku"].tolist().index(name) for name in ids]
    table.iloc[rows].to_csv(raw / "metadata.csv", index=False)
    np.save(raw / "emb.npy", np.load(raw / "emb.npy")[rows])
    (raw / "dataset.yaml").unlink()
    shutil.rmtree(root / "data")
    shutil.rmtree(root / "weights")
    return away, store, of, raw


def test_every_kind_of_data_in_a_new_process(everything: tuple[Path, Store, Trial, Path], tmp_path: Path) -> None:
    away, store, of, raw = everything
    assert (away / "encoders" / "title" / "bert" / "vocab.txt").is_file()
    assert not list(away.glob("**/bert/*.safetensors"))
    done = ask(away, raw, "-o", "out.jsonl", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    agrees(tmp_path / "out.jsonl", store, of.key, CLASSES)
    accuracy = store.done(of.key).metrics["photo+title+voice+clip+emb+size"]["accuracy"]
    assert f"accuracy {accuracy:.1f} %" in done.stderr
    assert [json.loads(line)["id"] for line in (tmp_path / "out.jsonl").read_text().splitlines()] == pd.read_csv(
        raw / "metadata.csv"
    )["sku"].tolist()


def test_a_single_sample_from_python_and_values_of_all_sorts(
    everything: tuple[Path, Store, Trial, Path], tmp_path: Path
) -> None:
    from PIL import Image

    model = mmbench.load_model(everything[0])
    raw = everything[3]
    photo = sorted((raw / "photos").iterdir())[0]
    answers = [
        model.predict({"photo": value, "title": "a very small cat", "size": [1.0, 300.0]})
        for value in (photo, str(photo), Image.open(photo), np.array(Image.open(photo)))
    ]
    assert answers[0].seen == ("photo", "title", "size")
    assert answers == [answers[0]] * 4
    assert model.predict({"title": "a very small cat"}) != answers[0]
    turned = Image.open(photo).convert("RGB")
    exif = turned.getexif()
    exif[0x0112] = 6  # upright once it is turned by 90°
    for mode in ("RGB", "CMYK"):
        turned.convert(mode).save(tmp_path / f"{mode}.jpg", exif=exif)
        answer = model.predict({"photo": tmp_path / f"{mode}.jpg"})
        assert model.predict({"photo": Image.open(tmp_path / f"{mode}.jpg")}) == answer
        assert answer != model.predict({"photo": photo})
    longest = " ".join(["very"] * 40)
    assert sum(model.predict({"title": longest}).probabilities.values()) == pytest.approx(1)


def test_sound_from_python_is_taken_as_from_its_file(everything: tuple[Path, Store, Trial, Path]) -> None:
    model, raw = mmbench.load_model(everything[0]), everything[3]
    path = sorted((raw / "voices").iterdir())[0]
    with wave.open(str(path)) as file:
        assert (file.getframerate(), file.getsampwidth(), file.getnchannels()) == (16_000, 2, 1)
        whole = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    floats = whole / np.float32(32768)
    given = [path, (whole, 16_000), (floats, 16_000), (torch.from_numpy(floats), 16_000)]
    given.append({"array": floats.astype(np.float64), "sampling_rate": 16_000})
    answers = [model.predict({"voice": value}) for value in given]
    assert answers == [answers[0]] * 5
    assert answers[0].seen == ("voice",)
    assert model.predict({"voice": (floats, 8_000)}) != answers[0]
    expected = r"^voice: expected sound as \(array, rate\): one channel \(L,\) of floats from -1 to 1, or of int16, "
    for value, got in (
        ((np.zeros((2, 9000)), 16_000), r"got an array of float64 of shape \(2, 9000\)"),
        ((np.zeros(9000, np.int32), 16_000), "got an array of int32"),
        ((floats, 16), "and a rate from 1,000 to 768,000, got the rate int '16'"),
    ):
        with pytest.raises(UsageError, match=expected + got):
            model.predict({"voice": value})
    with pytest.raises(
        UsageError,
        match=r"^voice: expected a path, a waveform with its rate, \(array, rate\), or an array .*got object$",
    ):
        model.predict({"voice": object()})
    with pytest.raises(UsageError, match=r"^photo: expected a path, a picture of PIL"):
        model.predict({"photo": (floats, 16_000)})


def test_a_plain_number_is_a_vector_of_one() -> None:
    card = SimpleNamespace(trial=SimpleNamespace(dataset="goods"))
    inputs, array = Inputs(SimpleNamespace(card=card)), Array(shape=[1], dtype="float32")
    for value in (12.5, "12.5", [12.5], [[12.5]], np.float64(12.5), torch.tensor(12.5)):
        assert inputs.vector("price", value, array, "price").tolist() == [12.5], value


def test_a_model_says_what_it_is(everything: tuple[Path, Store, Trial, Path]) -> None:
    of, told = everything[2], repr(mmbench.load_model(everything[0]))
    assert told == (
        f"<Model {of.dataset} clean {of.method} seed 0: of photo, title, voice, clip, emb, size; classes bird, cat, dog>"
    )


@pytest.mark.parametrize(
    ("column", "cell", "message"),
    [
        ("photo_file_name", "photos/none.png", r"metadata.csv, row 2, column 'photo_file_name': .*none.png is no file"),
        ("photo_file_name", "../away/model/model.json", "row 2, column 'photo_file_name': .*leads out of"),
        ("photo_file_name", 300 * "a" + ".png", "row 2, column 'photo_file_name': expected a path, got 304 letters"),
        ("photo_file_name", "link.png", "row 2, column 'photo_file_name': 'link.png' leads to .*copy it there\n"),
        ("photo_file_name", "bad.png", "row 2, column 'photo_file_name': .*bad.png not a readable picture \\(of none"),
        ("category", "bire", "row 2, column 'category': the model knows no class 'bire'; did you mean 'bird'"),
        ("size_0", "large", "row 2, column 'size_0': expected a number, got 'large'"),
        ("sku", "", "row 2, column 'sku': the id is empty"),
    ],
)
def test_a_cell_that_is_wrong_is_named(
    everything: tuple[Path, Store, Trial, Path], column: str, cell: str, message: str, tmp_path: Path, capsys: Any
) -> None:
    away, _, _, raw = everything
    folder = shutil.copytree(raw, tmp_path / "raw")
    (folder / "bad.png").write_bytes(b"no picture")
    (folder / "link.png").symlink_to(away / "model.json")
    table = pd.read_csv(folder / "metadata.csv", dtype=str, keep_default_na=False)
    table.loc[0, column] = cell
    table.to_csv(folder / "metadata.csv", index=False)
    assert main(["predict", str(away), str(folder), "-o", str(tmp_path / "out.csv")]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "out.csv").exists()


def test_any_subset_of_the_modalities_in_columns_called_after_them(
    everything: tuple[Path, Store, Trial, Path], tmp_path: Path, capsys: Any
) -> None:
    away, _, _, raw = everything
    photo = next((raw / "photos").iterdir())
    shutil.copy(photo, tmp_path / "x.png")
    rows = [{"photo": "x.png", "title": "a cat"}, {"photo": "", "title": ""}, {"title": "a dog", "label": "dog"}]
    (tmp_path / "asked.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert main(["predict", str(away), str(tmp_path / "asked.jsonl")]) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert [line.split()[-1] for line in lines] == ["seen", "photo+title", "nothing", "title"]
    assert "1 sample has no modality" in printed.err
    assert "of 1 sample with a label" in printed.err
    (tmp_path / "asked.jsonl").write_text(json.dumps({"picture": "x.png"}))
    assert main(["predict", str(away), str(tmp_path / "asked.jsonl")]) == 2
    told = capsys.readouterr().err
    assert "no column of any modality; expected some of: photo: 'photo_file_name' (paths)" in told
    assert "size: 'size_0', 'size_1' (numbers)" in told


@pytest.mark.parametrize(
    ("name", "what"), [("x.png", "is no table"), ("none", "is not there"), ("", "has no table of samples")]
)
def test_what_is_no_table(
    everything: tuple[Path, Store, Trial, Path], name: str, what: str, tmp_path: Path, capsys: Any
) -> None:
    (tmp_path / "x.png").touch()
    (tmp_path / "dataset_info.json").touch()
    assert main(["predict", str(everything[0]), str(tmp_path / name)]) == 2
    told, page = capsys.readouterr().err.splitlines()
    assert told.endswith(
        f"{what}; expected metadata.csv, .tsv, .jsonl or .parquet, or a folder with one: one row a sample"
    )
    assert "how_to/models" in page


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_files_of_predictions(everything: tuple[Path, Store, Trial, Path], ending: str, tmp_path: Path) -> None:
    away, _, _, raw = everything
    output = tmp_path / f"out.{ending}"
    assert main(["predict", str(away), str(raw), "-o", str(output)]) == 0
    table = pd.read_csv(output) if ending == "csv" else pd.read_parquet(output)
    assert list(table.columns) == ["id", "class", "seen", *(f"p_{name}" for name in CLASSES)]
    assert table[[f"p_{name}" for name in CLASSES]].sum(axis=1).to_numpy() == pytest.approx(1)
    assert table["id"].tolist() == pd.read_csv(raw / "metadata.csv")["sku"].tolist()


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("out.xlsx", "expected a name that ends in .csv, .parquet or .jsonl"),
        ("none/out.csv", "there is no folder"),
        ("metadata.csv", "is the table that is read"),
    ],
)
def test_where_predictions_cannot_go(
    everything: tuple[Path, Store, Trial, Path], output: str, message: str, capsys: Any
) -> None:
    away, _, _, raw = everything
    before = (raw / "metadata.csv").read_bytes()
    assert main(["predict", str(away), str(raw), "-o", str(raw / output)]) == 2
    assert message in capsys.readouterr().err
    assert (raw / "metadata.csv").read_bytes() == before


# Our own data sets


def test_the_embedded_pictures_from_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.utils.deterministic.fill_uninitialized_memory", True)
    data, store = DATASETS["openclipart"], Store(tmp_path / "results" / "runs")
    of = trial("openclipart", "late_fusion", views={})
    kept(store, of)
    arrays = data.read()
    test = np.flatnonzero(arrays["split_clean"] == 2)
    raw = tmp_path / "raw"
    rows = []
    for i in test:
        write_picture(raw / f"{i}.png", arrays["image"][i])
        rows.append(
            {
                "image_file_name": f"{i}.png",
                "title": arrays["title"][i],
                "tags": arrays["tags"][i],
                "label": arrays["label"][i],
            }
        )
    pd.DataFrame(rows).to_csv(raw / "metadata.csv", index=False)
    arguments = ["predict", of.key[:10], str(raw), "-o", str(tmp_path / "out.jsonl")]
    assert main([*arguments, "--results", str(tmp_path / "results")]) == 0
    agrees(tmp_path / "out.jsonl", store, of.key, data.classes)
    model = mmbench.load_model(store.folder(of.key))
    big = np.full((64, 48, 4), 0, np.uint8)
    big[20:40, 10:30] = (200, 30, 30, 255)
    new = model.predict({"image": big, "title": "A RED clipart.svg Square", "tags": "Shapes, red"})
    same = model.predict(
        {"image": np.tile(np.uint8([200, 30, 30]), (32, 32, 1)), "title": "a red square", "tags": "red"}
    )
    assert new == same, "a picture is cut to its content, generic words and folders' names go"
    assert model.predict({"title": "a red square", "tags": "shape"}).seen == ("image", "title", "tags")[1:2]


def test_the_embedded_features_from_vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.utils.deterministic.fill_uninitialized_memory", True)
    monkeypatch.setenv("MMBENCH_DATA", str(tmp_path / "data"))
    data, store = DATASETS["openclipart_features"], Store(tmp_path / "runs")
    of = trial("openclipart_features", "cpm_net", views={})
    model = mmbench.load_model(kept(store, of))
    test = data("clean").splits.test
    rows = [
        {
            m: test.inputs[m][i].numpy()
            for m, here in zip(data.modalities, test.present[i].tolist(), strict=True)
            if here
        }
        for i in range(len(test))
    ]
    found = model.log_probs(model.inputs.split(rows, lambda n, m: m)).numpy()
    np.testing.assert_array_equal(found.astype(np.float16), store.predictions(store.done(of.key)).log_probs[-1])


def write_iemocap_features(folder: Path) -> None:
    """Two utterances of each session and class, as vectors."""
    random = np.random.default_rng(0)
    names = [(f"Ses0{s}F_impro0{c}_F00{u}", c) for s in range(1, 6) for c in range(4) for u in range(2)]
    folder.mkdir(parents=True)
    with (folder / "labels.csv").open("w") as stream:
        csv.writer(stream).writerows(
            [("utterance", "label"), *((n, ("neutral", "angry", "sad", "happy")[c]) for n, c in names)]
        )
    for modality, width in (("audio", 512), ("image", 1024), ("text", 1024)):
        (folder / modality).mkdir()
        for name, label in names:
            np.save(folder / modality / f"{name}.npy", random.normal(label, 3, width).astype(np.float32))


def test_vectors_are_standardised_as_in_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.utils.deterministic.fill_uninitialized_memory", True)
    monkeypatch.setenv("MMBENCH_DATA", str(tmp_path / "data"))
    folder = tmp_path / "data" / "iemocap_features"
    write_iemocap_features(folder)
    store = Store(tmp_path / "results" / "runs")
    of = trial("iemocap_features", "cca", views={})
    kept(store, of)
    names = DATASETS["iemocap_features"].split_ids("clean")["test"]
    table = pd.DataFrame(
        {"id": names, **{f"{m}_file_name": [f"{m}/{n}.npy" for n in names] for m in ("audio", "image", "text")}}
    )
    table.to_csv(folder / "metadata.csv", index=False)
    arguments = ["predict", of.key, str(folder / "metadata.csv"), "-o", str(tmp_path / "out.jsonl")]
    assert main([*arguments, "--results", str(tmp_path / "results")]) == 0
    agrees(tmp_path / "out.jsonl", store, of.key, DATASETS["iemocap_features"].classes)


OURS = [name for name in DATASETS if issubclass(DATASETS[name], PreparedDataModule) and name in DATASETS.registered]


@pytest.mark.slow
@pytest.mark.parametrize("name", OURS)
def test_raw_files_of_our_data_sets(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.utils.deterministic.fill_uninitialized_memory", True)
    monkeypatch.setenv("MMBENCH_DATA", str(tmp_path / "data"))
    data, raw, store = DATASETS[name], tmp_path / "raw", Store(tmp_path / "results" / "runs")
    data.write_demo(raw)
    prepare(data, raw, allow_bad=True, say=lambda text: None)
    of = trial(name, "late_fusion")
    kept(store, of)
    known: dict[str, Sample] = {sample.id: sample for sample in data.scan(raw).samples}
    classes, rows = data.class_names(), []
    for sample in (known[i] for i in data.split_ids("clean")["test"]):
        files = {f"{m}_file_name": path or "" for m, path in sample.files.items()}
        rows.append(
            {"id": sample.id, **files, **sample.text, "clip": json.dumps(dict(sample.clip)) if sample.clip else ""}
        )
    pd.DataFrame(rows).to_csv(raw / "metadata.csv", index=False)
    monkeypatch.setenv("MMBENCH_DATA", os.devnull)
    arguments = ["predict", of.key, str(raw / "metadata.csv"), "-o", str(tmp_path / "out.jsonl")]
    assert main([*arguments, "--results", str(tmp_path / "results")]) == 0
    agrees(tmp_path / "out.jsonl", store, of.key, classes)


@pytest.mark.slow
def test_frozen_encoders_that_ran_once_see_raw_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.utils.deterministic.fill_uninitialized_memory", True)
    for name in ("MMBENCH_DATA", "MMBENCH_WEIGHTS"):
        monkeypatch.setenv(name, str(tmp_path / name))
    data, store = DATASETS["mvsa"], Store(tmp_path / "runs")
    data.write_demo(tmp_path / "raw")
    prepare(data, tmp_path / "raw", allow_bad=True, say=lambda text: None)
    write_bert(tmp_path / "MMBENCH_WEIGHTS" / "bert")
    bert = {"name": "bert", "weights": "bert", "max_length": 16, "freeze": True}
    of = trial("mvsa", "concat", {"text": bert, "image": {"name": "resnet18", "freeze": True}}, cached=True)
    folder = kept(store, of)
    table = data.table().set_index("id").loc[data.split_ids("clean")["test"]]
    files = {sample.id: sample.files["image"] for sample in data.scan(tmp_path / "raw").samples}
    rows = [{"text": row.text_text, "image": tmp_path / "raw" / files[row.Index]} for row in table.itertuples()]
    for name in ("MMBENCH_DATA", "MMBENCH_WEIGHTS"):
        monkeypatch.setenv(name, os.devnull)
    model = mmbench.load_model(folder)
    assert (model.card.cached, model.card.sizes) == ({"text": 32, "image": 512}, {"image": 224})
    found = model.log_probs(model.inputs.split(rows, lambda n, m: m), every_pattern=True).numpy()
    np.testing.assert_array_equal(found.astype(np.float16), store.predictions(store.done(of.key)).log_probs)
