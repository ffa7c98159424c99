"""A model that is kept answers in a new process as its trial did, to the last bit."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mmbench import load_model
from mmbench.arguments import resolve_arguments
from mmbench.baselines import METHODS
from mmbench.baselines.concat import Concat
from mmbench.data import DATASETS
from mmbench.encoders import ENCODERS
from mmbench.errors import UsageError
from mmbench.missing import Missing
from mmbench.models.model import Model
from mmbench.packing import NotPlain, packed, unpacked
from mmbench.recipe import Recipe
from mmbench.runner.child import Job, execute
from mmbench.store import Store
from mmbench.trial import Trial
from plugin.mmbench_testing import Tiny

ASK = """
import sys
import numpy as np
from pathlib import Path
from mmbench import load_model

for folder in map(Path, sys.argv[1:]):
    given = np.load(folder / "asked.npz")
    model = load_model(folder)
    rows = [{m: given[m][i] if given[f"has {m}"][i] else None for m in model.modalities} for i in range(len(given["count"]))]
    split = model.inputs.split(rows, lambda number, name: name)
    chosen = [model.classes.index(prediction.label) for prediction in model.predict(rows)]
    np.savez(folder / "answers.npz", log_probs=model.log_probs(split, every_pattern=True).numpy(), chosen=chosen)
"""
REGISTERED = sorted(METHODS)


class Remembers(Concat):
    """A method with a state of its own, in its checkpoint and in its state dict, without which it answers the other way round."""

    def __init__(self, spec: Any, encoders: Any, recipe: Any = None) -> None:
        super().__init__(spec, encoders, recipe)
        self.sign = torch.ones(1)
        self.seen: dict[Any, Any] = {}

    def fuse(self, features: Any, present: Any) -> torch.Tensor:
        return self.sign * super().fuse(features, present)

    def on_train_end(self) -> None:
        self.sign = -torch.ones(1)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["memory"] = {"sign": -torch.ones(1), 3: ("a", [1.5, None]), "seen": {"b": True}}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.seen = checkpoint["memory"]
        self.sign = self.seen["sign"]

    def get_extra_state(self) -> dict[str, Any]:
        return {"length": 7}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.length = state["length"]


@pytest.fixture(autouse=True, scope="module")
def tables() -> Any:
    list(DATASETS), list(ENCODERS), list(METHODS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(DATASETS._targets, "tiny", "plugin.mmbench_testing:Tiny")
        patch.setitem(ENCODERS._targets, "tiny_linear", "plugin.mmbench_testing:TinyLinear")
        patch.setitem(METHODS._targets, "remembers", "test_kept:Remembers")
        patch.setattr("torch.utils.deterministic.fill_uninitialized_memory", True)  # a trial's process changes it
        yield


def tiny(method: str = "concat", **changes: Any) -> Trial:
    params, wrong = resolve_arguments(METHODS[method], {}, ("spec", "encoders", "recipe"))
    assert not wrong
    return Trial(**{
        "dataset": "tiny", "data": Tiny.manifest(), "protocol": "clean", "method": method, "seed": 0, "params": params,
        "missing": Missing(rate=0.3), "encoders": {m: {"name": "tiny_linear", "width": 8} for m in Tiny.modalities},
        "recipe": Recipe(epochs=2, batch_size=16, lr=0.05), **changes,
    })  # fmt: skip


def kept(store: Store, trial: Trial) -> Path:
    """Run a trial and keep its model."""
    store.folder(trial.key).mkdir(parents=True)
    record = execute(Job(trial, str(store.root), 1, "cpu", keep_model=True), store)
    assert record.status == "done", record.failure
    assert store.model(store.done(trial.key)) == store.folder(trial.key)
    return store.folder(trial.key)


def asked() -> dict[str, np.ndarray]:
    """The test split as vectors, and which of them there are."""
    test = Tiny().splits.test
    given = {m: test.inputs[m].numpy() for m in Tiny.modalities}
    return {
        **given,
        **{f"has {m}": test.present[:, i].numpy() for i, m in enumerate(Tiny.modalities)},
        "count": test.label,
    }


def rows() -> list[dict[str, np.ndarray]]:
    given = asked()
    return [{m: given[m][i] for m in Tiny.modalities if given[f"has {m}"][i]} for i in range(len(given["count"]))]


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, dict[str, Path]]:
    """A model of every method, moved away from its record, and its answers from one new process."""
    store, away = Store(tmp_path_factory.mktemp("runs")), tmp_path_factory.mktemp("elsewhere")
    folders = {}
    for method in REGISTERED:
        folder = kept(store, tiny(method))
        folders[method] = away / method
        folders[method].mkdir()
        for name in ("model.json", "model.safetensors"):
            shutil.copy(folder / name, folders[method])
        np.savez(folders[method] / "asked.npz", **asked())
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "plugin"), "MMBENCH_DATA": os.devnull}
    command = [sys.executable, "-c", ASK, *map(str, folders.values())]
    done = subprocess.run(command, env=environment, cwd=away, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return store, folders


@pytest.mark.parametrize("method", REGISTERED)
def test_a_new_process_answers_as_the_trial_did_to_the_last_bit(
    method: str, every: tuple[Store, dict[str, Path]]
) -> None:
    store, folders = every
    stored = store.predictions(store.done(tiny(method).key))
    with np.load(folders[method] / "answers.npz") as answers:
        np.testing.assert_array_equal(answers["log_probs"].astype(np.float16), stored.log_probs)
        np.testing.assert_array_equal(answers["log_probs"].argmax(axis=-1), stored.predicted)
        np.testing.assert_array_equal(answers["chosen"], stored.predicted[-1])


def test_a_record_of_a_trial_without_a_model_is_as_it_was_before_there_were_models(tmp_path: Path) -> None:
    store, trial = Store(tmp_path), tiny()
    store.folder(trial.key).mkdir(parents=True)
    record = execute(Job(trial, str(store.root), 1, "cpu"), store)
    assert b"model_sha256" not in (store.folder(trial.key) / "record.json").read_bytes()
    assert store.model(record) is None
    assert sorted(p.name for p in store.folder(trial.key).iterdir()) == [
        "features.npz",
        "predictions.npz",
        "record.json",
    ]


def test_keeping_changes_no_prediction(tmp_path: Path, every: tuple[Store, dict[str, Path]]) -> None:
    store, trial = Store(tmp_path), tiny("mla")
    store.folder(trial.key).mkdir(parents=True)
    execute(Job(trial, str(store.root), 1, "cpu"), store)
    both = [(s.folder(trial.key) / "predictions.npz").read_bytes() for s in (store, every[0])]
    assert both[0] == both[1]


def test_a_trial_that_tunes_keeps_none(tmp_path: Path) -> None:
    store, trial = Store(tmp_path), tiny(tuning=True)
    store.folder(trial.key).mkdir(parents=True)
    record = execute(Job(trial, str(store.root), 1, "cpu", keep_model=True), store)
    assert (record.status, record.model_sha256) == ("done", None)
    assert not list(store.folder(trial.key).glob("model*"))


def test_a_model_goes_with_its_trial(tmp_path: Path) -> None:
    store = Store(tmp_path)
    folder = kept(store, tiny())
    store.discard(tiny().key, model=True)
    assert (folder / "model.json").exists(), "it is done"
    (folder / "record.json").unlink()
    (folder / "encoders").mkdir()
    store.discard(tiny().key)
    assert [path.name for path in folder.iterdir()] == ["lock"]


def test_a_result_without_a_model_makes_way_for_one_with_it(tmp_path: Path) -> None:
    store, trial = Store(tmp_path), tiny()
    store.folder(trial.key).mkdir(parents=True)
    execute(Job(trial, str(store.root), 1, "cpu"), store)
    assert store.finished(trial.key)
    assert not store.finished(trial.key, model=True)
    store.discard(trial.key)
    assert store.done(trial.key)
    store.discard(trial.key, model=True)
    assert store.record(trial.key) is None


def test_a_method_with_a_state_of_its_own(tmp_path: Path) -> None:
    store = Store(tmp_path)
    trial = tiny("remembers")
    model = load_model(kept(store, trial))
    answers = model.log_probs(model.inputs.split(rows(), lambda n, m: m), every_pattern=True).numpy()
    stored = store.predictions(store.done(trial.key))
    np.testing.assert_array_equal(answers.astype(np.float16), stored.log_probs)
    memory = {name: value for name, value in model.task.seen.items() if name != "sign"}
    assert memory == {3: ("a", [1.5, None]), "seen": {"b": True}}
    assert model.task.length == 7


def test_what_a_checkpoint_may_hold_beside_tensors() -> None:
    tensors: dict[str, torch.Tensor] = {}
    value = {"a": [torch.ones(2), (1, "x")], "b": {2: None, "c": {}}}
    again = unpacked(json.loads(json.dumps(packed(value, "extra", tensors))), tensors)
    assert torch.equal(again["a"].pop(0), torch.ones(2))
    assert again == {"a": [(1, "x")], "b": {2: None, "c": {}}}
    with pytest.raises(NotPlain, match="a set, as seen"):
        packed({"seen": {1, 2}}, "extra", {})


def test_a_frozen_encoder_that_ran_before_training_is_part_of_the_model(tmp_path: Path, monkeypatch: Any) -> None:
    class Frozen(nn.Module):
        freeze = True

        def __init__(self) -> None:
            super().__init__()
            self.layer, self.out_dim = nn.Linear(4, 5), 5

        def forward(self, vector: torch.Tensor) -> torch.Tensor:
            return self.layer(vector)

    monkeypatch.setenv("MMBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setattr("test_kept.Frozen", Frozen, raising=False)
    monkeypatch.setitem(ENCODERS._targets, "frozen", "test_kept:Frozen")
    store = Store(tmp_path / "runs")
    trial = tiny(
        "concat", cached=True, encoders={"left": {"name": "tiny_linear", "width": 8}, "right": {"name": "frozen"}}
    )
    folder = kept(store, trial)
    monkeypatch.setenv("MMBENCH_DATA", os.devnull)
    model = load_model(folder)
    assert model.card.cached == {"right": 5}
    answers = model.log_probs(model.inputs.split(rows(), lambda n, m: m), every_pattern=True).numpy()
    np.testing.assert_array_equal(answers.astype(np.float16), store.predictions(store.done(trial.key)).log_probs)


def test_bfloat16_is_of_the_model(tmp_path: Path) -> None:
    store, trial = Store(tmp_path), tiny(recipe=Recipe(epochs=1, batch_size=16, lr=0.05, precision="bf16"))
    model = load_model(kept(store, trial))
    answers = model.log_probs(model.inputs.split(rows(), lambda n, m: m)).numpy()
    np.testing.assert_array_equal(answers.astype(np.float16), store.predictions(store.done(trial.key)).log_probs[-1])


# Asking


@pytest.fixture(scope="module")
def model(every: tuple[Store, dict[str, Path]]) -> Model:
    return load_model(every[1]["mla"])


def test_one_sample_or_several(model: Model) -> None:
    some = rows()[:3]
    one, several = model.predict(some[0]), model.predict(some)
    assert several[0].label == one.label
    assert several[0].probabilities == pytest.approx(one.probabilities)
    assert list(one.probabilities) == ["a", "b", "c"]
    assert sum(one.probabilities.values()) == pytest.approx(1)
    assert max(one.probabilities, key=one.probabilities.get) == one.label
    assert model.predict([]) == []
    columns = {"left": [row["left"] for row in some], "right": [row.get("right") for row in some]}
    assert model.predict(columns) == several
    assert model.predict({"left": some[0]["left"].tolist(), "right": None}).seen == ("left",)
    with pytest.raises(UsageError, match="expected as many values of each modality, left has 3, right has 2"):
        model.predict({**columns, "right": columns["right"][1:]})


def test_what_is_absent_has_no_part_in_the_answer(model: Model) -> None:
    whole = next(row for row in rows() if len(row) == 2)
    alone = model.predict({"left": whole["left"]})
    assert alone.seen == ("left",)
    assert model.predict(whole).seen == ("left", "right")
    for nothing in (None, "", float("nan")):
        assert model.predict({"left": whole["left"], "right": nothing}) == alone
    assert model.predict({"left": whole["left"].tolist(), "right": None}) == alone
    assert model.predict(whole) != alone


def test_of_nothing_the_answer_is_how_frequent_classes_were(model: Model) -> None:
    counts = np.array(model.card.spec.class_counts)
    answer = model.predict({})
    assert answer.seen == ()
    assert list(answer.probabilities.values()) == pytest.approx(counts / counts.sum())


def test_asking_leaves_the_threads_and_the_random_numbers_alone(every: tuple[Store, dict[str, Path]]) -> None:
    torch.manual_seed(5)
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    model = load_model(every[1]["sum"])
    model.threads = threads + 1
    model.predict(rows()[0])
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.is_inference_mode_enabled()


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ({"left": [1.0, 2.0]}, r"^left: expected float32 of shape \(4,\), got float64 of shape \(2,\)"),
        ({"lefft": [1.0] * 4}, "^lefft: unknown modality; did you mean 'left'"),
        ({"left": [1.0, 2.0, float("nan"), 3.0]}, "^left: .*got NaN or an infinite value"),
        ({"left": [1.0, 2.0, 1e300, 3.0]}, "^left: .*got NaN or an infinite value"),
        ({"left": np.array(["a"] * 4)}, r"^left: .*got <U1 of shape \(4,\)"),
        ({"left": "none.npy"}, "^left: none.npy is missing"),
        ({"left": "12.5"}, r"^left: expected float32 of shape \(4,\), got float64 of shape \(\)"),
        ({"left": object()}, r"^left: expected float32 of shape \(4,\), got object of shape \(\)"),
        ([{"left": [1.0] * 4}, {"right": [1.0]}], r"^sample 1, right: expected float32 of shape \(4,\)"),
        (["left"], "^sample 0: expected a mapping, modality: value, got str"),
    ],
)
def test_what_is_no_sample(model: Model, sample: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        model.predict(sample)


def test_vectors_may_lie_in_files(model: Model, tmp_path: Path) -> None:
    vector = rows()[0]["left"]
    np.save(tmp_path / "a.npy", vector)
    assert model.predict({"left": tmp_path / "a.npy"}) == model.predict({"left": vector})
    np.save(tmp_path / "b.npy", np.array([print], dtype=object), allow_pickle=True)
    with pytest.raises(UsageError, match=r"b.npy holds no vector"):
        model.predict({"left": str(tmp_path / "b.npy")})
