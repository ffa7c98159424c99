"""A model's folder that was tampered with, or is damaged, is refused with the file's name; nothing in it runs or fills the memory."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch

from mmbench import load_model
from mmbench.arguments import resolve_arguments
from mmbench.baselines import METHODS
from mmbench.checkpoint import KEY
from mmbench.cli import main
from mmbench.data.base import MultimodalDataModule
from mmbench.data.split import DataSpec
from mmbench.encoders.hashed_text import HashedText
from mmbench.encoders.mlp import Mlp
from mmbench.errors import UsageError
from mmbench.models.keeping import keep
from mmbench.models.loading import Frugal
from mmbench.recipe import Recipe
from mmbench.record import sealed, unsealed
from mmbench.trial import Trial

Change = Callable[[dict[str, Any]], None]


class Described(MultimodalDataModule):
    """As much of a data module as keeping a model asks for."""

    name = "described"
    modalities = ("left", "words")
    text_modalities = ("words",)
    classes = ("a", "b")
    spec = DataSpec(("left", "words"), (3, 4), "left", {"left": 4})
    example = {"left": torch.zeros(1, 4), "words": {name: torch.zeros(1, 9).int() for name in ("token", "word")}}  # type: ignore[assignment]

    def __init__(self) -> None:
        self.features, self.statistics, self.evaluation = {}, {}, {}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that was never trained."""
    arguments = [(Mlp, {"in_dim": 4, "width": 8}), (HashedText, {"buckets": 32, "out_dim": 8})]
    encoders = {
        m: {"name": name, **resolve_arguments(kind, own)[0]}
        for m, name, (kind, own) in zip(("left", "words"), ("mlp", "hashed_text"), arguments, strict=True)
    }
    params = resolve_arguments(METHODS["qmf"], {}, ("spec", "encoders", "recipe"))[0]
    trial = Trial(
        dataset="described",
        data="d",
        protocol="clean",
        method="qmf",
        seed=0,
        encoders=encoders,
        params=params,
        recipe=Recipe(),
    )
    built = {"left": Mlp(**arguments[0][1]), "words": HashedText(**arguments[1][1])}
    task = METHODS["qmf"](Described.spec, built, trial.recipe, **params)
    folder = tmp_path_factory.mktemp("kept")
    model = keep(trial, Described(), {"state_dict": task.state_dict(), KEY: {}})
    model.write(folder, parameters=1, best_epoch=0, accuracy={"left": 50.0}, environment={"threads": 1})
    return folder


@pytest.fixture
def folder(kept: Path, tmp_path: Path) -> Path:
    return shutil.copytree(kept, tmp_path / "model")


def reseal(folder: Path, change: Change) -> None:
    """Change what the card says, with all the hashes that vouch for it."""
    path = folder / "model.json"
    content = json.loads(unsealed(path.read_bytes()))
    change(content)
    weights = (folder / "model.safetensors").read_bytes()
    if "model.safetensors" in content.get("files", {}):
        content["files"]["model.safetensors"] |= {"bytes": len(weights), "sha256": sha256(weights).hexdigest()}
    if isinstance(content.get("trial"), dict):
        with suppress(ValueError):
            content["key"] = Trial.model_validate(content["trial"]).key
    path.write_bytes(sealed(json.dumps(content, indent=1).encode()))


def refused(folder: Path, message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        load_model(folder)
    assert str(folder) in str(error.value)


def test_a_model_that_is_whole(folder: Path) -> None:
    assert load_model(folder).predict({"left": [1.0] * 4, "words": "a few words"}).seen == ("left", "words")
    moved = folder.rename(folder.with_name("moved elsewhere"))
    link = folder.with_name("link")
    link.symlink_to(moved)
    assert load_model(str(link)).classes == ("a", "b")


# Files


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("at", [20, 100, -1])
def test_a_changed_bit_is_noticed(folder: Path, at: int) -> None:
    card = (folder / "model.json").read_bytes()
    flip(folder / "model.json", at)
    refused(folder, r"model\.json: ")
    (folder / "model.json").write_bytes(card)
    flip(folder / "model.safetensors", at)
    refused(folder, r"model\.safetensors: not the file that the model was kept with")


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_files_that_are_gone_cut_off_or_elsewhere(folder: Path, name: str) -> None:
    path, away = folder / name, folder.with_name("away")
    content = path.read_bytes()
    path.unlink()
    refused(folder, "no model.json|model.safetensors: cannot be read: No such file")
    away.write_bytes(content)
    path.symlink_to(away)
    refused(folder, f"{name} is a link to {away}; expected the file itself")
    path.unlink()
    path.mkdir()
    refused(folder, f"{name}: expected a file")
    path.rmdir()
    path.write_bytes(content[:-10])
    refused(folder, f"{name}: (its checksum is wrong|expected .* bytes, got)")
    path.write_bytes(content + b" ")
    refused(folder, f"{name}: (its checksum is wrong|expected at most .* bytes, got)")
    path.write_bytes(b"")
    refused(folder, f"{name}: (its checksum is wrong|expected .* bytes, got 0)")


def test_a_fifo_is_not_waited_for(folder: Path) -> None:
    (folder / "model.json").unlink()
    os.mkfifo(folder / "model.json")
    refused(folder, "model.json: expected a file")


def test_what_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no model\.json; expected the folder of a model"):
        load_model(tmp_path)
    (tmp_path / "model.ckpt").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"no model\.json; expected the folder of a model"):
        load_model(tmp_path / "model.ckpt")


class Trap:
    def __reduce__(self) -> Any:
        return (print, ("executed",))


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps(Trap()),
        (2**60).to_bytes(8, "little") + b"{}",
        (99_000_000).to_bytes(8, "little") + b"{}",
        (60).to_bytes(8, "little") + b'{"state/log_prior":{"dtype":"F32","shape":[2],"data_offsets":[0,80000000000]}}',
        (4).to_bytes(8, "little") + b"[[[[",
        b"",
    ],
)
def test_weights_that_are_none(folder: Path, content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "model.safetensors").write_bytes(content)
    reseal(folder, lambda card: None)
    refused(folder, r"model\.safetensors: expected a \.safetensors file")
    assert "executed" not in capsys.readouterr().out


# What the card says


def put(*keys: Any, value: Any) -> Change:
    def change(card: dict[str, Any]) -> None:
        at = card
        for key in keys[:-1]:
            at = at[key]
        at[keys[-1]] = value

    return change


WHERE_ENCODERS = ("trial", "encoders")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("format", value=2), "expected format 1, got 2"),
        (put("more", value=2), "more: unknown key"),
        (put("trial", "method", value="os.system"), "unknown method 'os.system'"),
        (put("trial", "method", value="qmff"), "did you mean 'qmf'"),
        (put("trial", "params", value={"rank": 1}), "rank: unknown key"),
        (put(*WHERE_ENCODERS, "left", value={"name": "builtins:eval"}), "unknown encoder 'builtins:eval'"),
        (put(*WHERE_ENCODERS, "left", value={"in_dim": 4}), "unknown encoder 'None'"),
        (put(*WHERE_ENCODERS, "left", "width", value=10**9), "many times as large as its weights"),
        (put(*WHERE_ENCODERS, "left", "width", value=10**12), "width: at most 1,000,000,000"),
        (put(*WHERE_ENCODERS, "left", "width", value=16), "size mismatch"),
        (put(*WHERE_ENCODERS, "left", "layers", value=999), "left"),
        (put(*WHERE_ENCODERS, "words", "buckets", value=10**9), "many times as large as its weights"),
        (
            put(*WHERE_ENCODERS, "words", value={"name": "m3ae_text", "size": "tiny", "max_length": 10**9}),
            "many times as large as its weights",
        ),
        (
            put(*WHERE_ENCODERS, "left", value={"name": "timm_image", "model": "vit_giant_patch14_224"}),
            "many times as large as its weights",
        ),
        (
            put(*WHERE_ENCODERS, "left", value={"name": "timm_image", "model": "hf-hub:x/y"}),
            "timm has no model 'hf-hub:x/y'",
        ),
        (
            put(*WHERE_ENCODERS, "words", value={"name": "bert", "weights": "../../../x"}),
            "tokenizer has to name a folder",
        ),
        (put(*WHERE_ENCODERS, value={}), r"trial\.encoders: expected the modalities left, words"),
        (put("spec", "class_counts", value=[10**9 - 1, 1]), "many times as large as its weights"),
        (put("spec", "class_counts", value=[-1, 5]), "spec.class_counts: expected the training samples"),
        (put("spec", "class_counts", value=[1, 1, 1]), "expected a name of its own for each of 3 classes, got 2"),
        (put("spec", "modalities", value=[f"m{i}" for i in range(40)]), "expected 2 to 16 different names"),
        (put("spec", "modalities", value=["left", "left"]), "expected 2 to 16 different names"),
        (put("spec", "feature_dims", value={"left": 10**15}), "expected widths of feature vectors"),
        (put("spec", "conditioning", value="up"), "spec.conditioning: up is none of the modalities"),
        (put("classes", value=["a", "a"]), "expected a name of its own"),
        (put("texts", value=["left"]), "inputs.left: expected the tensors of a text"),
        (put("texts", value=[]), None),
        (put("inputs", "left", value={"shape": [2**20, 2**20], "dtype": "float32"}), "more than 268,435,456 numbers"),
        (put("inputs", "left", value={"shape": [4], "dtype": "object"}), "inputs.left"),
        (put("sizes", value={"left": 64}), "sizes.left: expected a modality of pictures"),
        (put("standardised", value=["left"]), "mean/left"),
        (put("cached", value={"left": 4}), "Missing key"),
        (put("extra", value={"tensor": "nothing"}), "nothing"),
        (put("extra", value=7), "cannot be built"),
        (put("files", value={}), "files: model.safetensors is missing"),
        (put("files", "encoders/../../x/y", value={"bytes": 0, "sha256": "0" * 64}), "is no file of a model"),
        (put("files", "/etc/passwd", value={"bytes": 0, "sha256": "0" * 64}), "is no file of a model"),
        (
            put("files", "encoders/words/bert/vocab.txt", value={"bytes": 3, "sha256": "0" * 64}),
            "vocab.txt: cannot be read",
        ),
        (put("trial", "recipe", value={"epochs": 10**30}), "trial.recipe.epochs"),
    ],
)
def test_a_card_that_was_changed_and_sealed_again(folder: Path, change: Change, message: str | None) -> None:
    reseal(folder, change)
    if message is None:
        with pytest.raises(UsageError, match="words: the model takes several tensors of it"):
            load_model(folder).predict({"words": "a"})
    else:
        refused(folder, message)


@pytest.mark.parametrize(
    "content", [b"{}", b"[" * 100_000, b'"x"', b"\xff", b"{" * 100_000, b'{"format": ' + b"9" * 10_000 + b"}"]
)
def test_a_card_that_is_no_json(folder: Path, content: bytes) -> None:
    (folder / "model.json").write_bytes(content)
    refused(folder, r"model\.json: ")
    (folder / "model.json").write_bytes(sealed(b"{\n" + content))
    refused(folder, r"model\.json: ")


def test_a_card_of_another_trial(folder: Path) -> None:
    path = folder / "model.json"
    content = json.loads(unsealed(path.read_bytes()))
    content["trial"]["seed"] = 7
    path.write_bytes(sealed(json.dumps(content, indent=1).encode()))
    refused(folder, "its settings are those of trial")


def test_what_makes_tensors_is_counted() -> None:
    with Frugal(100):
        torch.zeros(5, 10)
        torch.nn.Linear(3, 4)
        with pytest.raises(UsageError, match="many times as large"):
            torch.nn.Linear(10**6, 10**6)
    for make in (
        lambda: torch.arange(10**12), lambda: torch.eye(10**6), lambda: torch.full((10**6, 10**6), 1.0), lambda: torch.rand(10**12),
        lambda: torch.empty(size=(10**6, 10**6)), lambda: torch.linspace(0, 1, 10**12), lambda: torch.arange(0, 1, 1e-12),
        lambda: torch.ones([10**6, 10**6]), lambda: torch.randint(0, 2, (10**6, 10**6)),
    ):  # fmt: skip
        with Frugal(100), pytest.raises(UsageError, match="many times as large"):
            make()


def test_the_command_answers_in_words(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "asked.csv").write_text("words\na few\n")
    flip(folder / "model.safetensors", 300)
    assert main(["predict", str(folder), str(tmp_path / "asked.csv")]) == 2
    assert "model.safetensors: not the file that the model was kept with" in capsys.readouterr().err
    assert main(["predict", "0123", str(tmp_path / "asked.csv"), "--results", str(tmp_path)]) == 2
    assert "0123: no such folder, and no trial in" in capsys.readouterr().err


def test_a_device_that_is_not_there(folder: Path) -> None:
    with pytest.raises(UsageError, match="device 'tpu9': expected cpu, cuda, cuda:N with the number of a GPU, or mps"):
        load_model(folder, device="tpu9")


@pytest.mark.parametrize("name", ["encoders/left/a\0b", "encoders/left/" + 300 * "a", "encoders/left/a\nb"])
def test_a_file_that_no_folder_can_have(folder: Path, name: str) -> None:
    file = {"bytes": 1, "sha256": "0" * 64}
    reseal(folder, lambda card: card["files"].update({name: file}))
    refused(folder, "is no file of a model")


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (5, "expected a sample, modality: value, or a list of samples, got int '5'"),
        (None, "got NoneType"),
        ("words", "got str"),
        ({"words": "a \ud800 b"}, r"words: expected a text, got half a letter, '\\ud800', at character 3"),
        ([{"left": [1.0] * 4}, {"words": "\udcff"}], "sample 1, words: expected a text"),
        ({"left": "\ud800.npy"}, "a letter that no text can have"),
        ({"left": 5000 * "a"}, "expected a path, got 5000 letters"),
    ],
)
def test_what_is_no_sample_is_refused_in_words(folder: Path, samples: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_model(folder).predict(samples)


def test_a_name_of_a_model_that_no_file_can_have(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", 5000 * "a", "x.csv"]) == 2
    assert "expected a path, got 5000 letters" in capsys.readouterr().err


@pytest.mark.parametrize("device", ["meta", "cuda:-1", "xpu", "cpu:0", "", 5, "cuda\n"])
def test_devices_are_of_few_kinds(folder: Path, device: Any) -> None:
    with pytest.raises(UsageError, match="expected cpu, cuda, cuda:N with the number of a GPU, or mps"):
        load_model(folder, device=device)


@pytest.mark.parametrize("name", ["surplus", "mean/left", "frozen/left/x", "extra/none"])
def test_tensors_that_the_model_does_not_know_are_named(folder: Path, name: str) -> None:
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    save_file({**load_file(path), name: torch.zeros(3)}, path)
    reseal(folder, lambda card: None)
    refused(folder, f"has tensors that are none of the model's: {name}")


def test_names_of_classes_that_a_terminal_would_act_upon(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reseal(folder, lambda card: card.update(classes=["a\x1b[2J\u202e", "b\nmmbench: done"]))
    (tmp_path / "asked.csv").write_text("words,label\nhello,zzzzzz\n")
    assert main(["predict", str(folder), str(tmp_path / "asked.csv")]) == 2
    err = capsys.readouterr().err
    assert "known: a\ufffd[2J\ufffd, b mmbench: done" in err
    assert {c for c in err if not c.isprintable()} == {"\n"}
    assert err.count("\n") == 2, "the mistake and its page"
