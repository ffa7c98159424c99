"""A trial, run in this process: which epoch it answers with, and what it notes of stages and masks."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mmbench.training
from mmbench.arguments import resolve_arguments
from mmbench.baselines import METHODS
from mmbench.baselines.concat import Concat
from mmbench.batch import Batch
from mmbench.cli import main
from mmbench.curves import CurveLogger
from mmbench.data import DATASETS
from mmbench.encoders import ENCODERS
from mmbench.missing import Missing
from mmbench.recipe import Recipe
from mmbench.runner.child import Job, execute
from mmbench.store import Store
from mmbench.training import Outcome, run
from mmbench.trial import Trial
from plugin.mmbench_testing import Tiny


class Forgets(Concat):
    """A method of two stages that knows the answer after the first and nothing after the second."""

    def __init__(self, spec: Any, encoders: Any, recipe: Any = None) -> None:
        super().__init__(spec, encoders, recipe)
        self.pretraining_epochs = recipe.epochs // 2

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        super().on_train_batch_end(outputs, batch, batch_idx)
        if not self.is_pretraining:
            with torch.no_grad():
                self.head.weight.zero_()
                self.head.bias.copy_(torch.tensor([0.0, 1.0, 0.0]))


@pytest.fixture(autouse=True)
def tables(monkeypatch: pytest.MonkeyPatch) -> None:
    list(DATASETS), list(ENCODERS), list(METHODS)
    monkeypatch.setitem(DATASETS._targets, "tiny", "plugin.mmbench_testing:Tiny")
    monkeypatch.setitem(ENCODERS._targets, "tiny_linear", "plugin.mmbench_testing:TinyLinear")
    monkeypatch.setitem(METHODS._targets, "forgets", "test_trial:Forgets")
    monkeypatch.setattr("torch.utils.deterministic.fill_uninitialized_memory", True)  # a trial's process changes it


def trial(method: str = "concat", missing: Missing | None = None, protocol: str = "clean", epochs: int = 4) -> Trial:
    return Trial(
        dataset="tiny",
        data=Tiny.manifest(),
        protocol=protocol,
        missing=missing,
        method=method,
        seed=0,
        encoders={m: {"name": "tiny_linear"} for m in Tiny.modalities},
        params={},
        recipe=Recipe(epochs=epochs, batch_size=16, lr=0.1, weight_decay=0.0),
    )


def in_process(of: Trial) -> Outcome:
    return run(of, device="cpu")


def test_no_epoch_of_pretraining_is_chosen_however_good_it_was() -> None:
    outcome = in_process(trial("forgets"))
    accuracy = [row["validation/accuracy"] for row in outcome.curves]
    assert min(accuracy[:2]) > max(accuracy[2:])
    assert outcome.best_epoch == 2
    assert (outcome.predictions.predicted[-1] == 1).all(), "the weights are those of the second stage, too"
    assert outcome.stages == {"pretraining": 2, "training": 2}
    assert [row["train/pretraining"] for row in outcome.curves] == [1, 1, 0, 0]


def test_the_best_epoch_is_that_of_the_curves() -> None:
    outcome = in_process(trial())
    accuracy = [row["validation/accuracy"] for row in outcome.curves]
    assert outcome.best_epoch == accuracy.index(max(accuracy))
    assert outcome.stages == {"training": 4}
    assert outcome.realised == {}
    assert "train/pretraining" not in outcome.curves[0]


def test_peek_trains_as_clean_does_and_chooses_on_the_test_split() -> None:
    missing = Missing(rate=0.3)
    clean, peek, legacy = (in_process(trial("ogm_ge", missing, p)) for p in ("clean", "peek", "legacy"))
    losses = [[row["train/loss"] for row in outcome.curves] for outcome in (clean, peek, legacy)]
    assert losses[0] == losses[1] != losses[2]
    assert (clean.predictions.label == peek.predictions.label).all()
    assert not np.array_equal(clean.predictions.label, legacy.predictions.label)
    natural = Tiny(protocol="peek").splits
    keep = torch.from_numpy(missing.mask("tiny", "test", Tiny.modalities, len(natural.test)))
    assert torch.equal(Tiny(protocol="peek", missing=missing).selection_split.present, natural.test.present & keep)


def test_every_pattern_is_validated_once_of_the_best_epoch_unless_a_logger_asks() -> None:
    of = trial(missing=Missing(rate=0.3))
    lean, every = in_process(of), run(of, [CurveLogger()], device="cpu")
    patterns = {f"validation/accuracy/{m}" for m in Tiny.modalities}
    for epoch, (row, whole) in enumerate(zip(lean.curves, every.curves, strict=True)):
        assert whole.keys() - row.keys() == (set() if epoch == lean.best_epoch else patterns)
        assert row.items() <= whole.items()
    assert len({lean.curves[lean.best_epoch][name] for name in patterns}) == 2, "no coincidence of equal numbers"
    assert (lean.predictions.log_probs == every.predictions.log_probs).all()


@pytest.mark.parametrize(("protocol", "selection"), [("clean", "validation"), ("legacy", "test")])
def test_a_mask_is_noted_and_leaves_the_stored_test_split_whole(
    protocol: str, selection: str, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = Missing(rate=0.4)
    data = Tiny(protocol=protocol)
    natural = data.splits
    outcome = in_process(trial(missing=missing, protocol=protocol))
    assert set(outcome.realised) == {"train", selection}
    keep = missing.mask("tiny", "train", Tiny.modalities, len(natural.train))
    assert outcome.realised["train"]["masked"] == pytest.approx(1 - keep.mean())
    assert f"train split: masked {1 - keep.mean():.3f} missing" in capsys.readouterr().out
    assert (outcome.predictions.present == natural.test.present.numpy()).all()
    # Accuracy where the epoch is chosen is under the mask: no modality that the mask took was looked at.
    whole = in_process(trial(protocol=protocol))
    left = [o.curves[o.best_epoch]["validation/accuracy/left"] for o in (outcome, whole)]
    assert left[0] < left[1]


def test_the_record_has_stages_and_masks(tmp_path: Path) -> None:
    store, one = Store(tmp_path), trial("mmin", Missing(rate=0.3), epochs=4)
    params, wrong = resolve_arguments(METHODS["mmin"], {}, ("spec", "encoders", "recipe"))
    assert not wrong
    one = one.model_copy(update={"params": params})
    store.folder(one.key).mkdir(parents=True)
    execute(Job(one, str(store.root), 1, "cpu"), store)
    record = store.done(one.key)
    assert record is not None
    assert record.stages == {"pretraining": 1, "training": 3}
    assert set(record.realised) == {"train", "validation"}
    assert record.trial.missing == Missing(rate=0.3)
    assert [row["train/pretraining"] for row in record.curves] == [1, 0, 0, 0]


# Patience


def test_patience_ends_a_trial_and_is_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, one = Store(tmp_path / "runs"), with_recipe(trial("forgets", epochs=12), patience=2)
    store.folder(one.key).mkdir(parents=True)
    execute(Job(one, str(store.root), 1, "cpu"), store)
    record = store.done(one.key)
    assert record is not None
    accuracy = [row["validation/accuracy"] for row in record.curves]
    assert accuracy[6:] == [accuracy[6]] * 3, "stage two begins with epoch 6, and knows no better ever after"
    assert (record.best_epoch, record.stopped_epoch) == (6, 8)
    assert record.stages == {"pretraining": 6, "training": 6}, "as they were planned"
    assert main(["show", one.key, "--results", str(tmp_path)]) == 0
    assert "stopped_epoch: 8" in capsys.readouterr().out


@pytest.mark.parametrize("patience", [None, 4])
def test_a_trial_that_runs_all_its_epochs_was_not_stopped(patience: int | None) -> None:
    outcome = in_process(with_recipe(trial(), patience=patience))
    assert (outcome.stopped_epoch, len(outcome.curves)) == (None, 4)


def test_a_closed_form_that_ends_after_an_epoch_is_not_out_of_patience() -> None:
    params, _ = resolve_arguments(METHODS["cca"], {}, ("spec", "encoders", "recipe"))
    outcome = in_process(with_recipe(trial("cca").model_copy(update={"params": params}), patience=1))
    assert (outcome.stopped_epoch, len(outcome.curves)) == (None, 1)


# The recipe's settings of computing


def with_recipe(of: Trial, **changes: Any) -> Trial:
    return of.model_copy(update={"recipe": of.recipe.model_copy(update=changes)})


def outputs(module: torch.nn.Module) -> list[torch.dtype]:
    """A list that takes the type of whatever the module gives from now on."""
    seen: list[torch.dtype] = []
    module.register_forward_hook(lambda module, given, output: seen.append(output.dtype))
    return seen


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_trains_while_its_encoders_compute_in_bfloat16(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    params, _ = resolve_arguments(METHODS[method], {}, ("spec", "encoders", "recipe"))
    exact = with_recipe(trial(method, Missing(rate=0.3)).model_copy(update={"params": params}), lr=0.01)
    seen: list[list[torch.dtype]] = []
    make = mmbench.training.build

    def build(*arguments: Any) -> Any:
        task, data = make(*arguments)
        fused = task.fuse

        def fuse(features: dict[str, torch.Tensor], present: torch.Tensor) -> torch.Tensor:
            logits = fused(features, present)
            seen[-1].append(logits.dtype)
            assert {value.dtype for value in features.values()} == {torch.float32}
            return logits

        task.fuse = fuse
        seen.append(outputs(task.encoders["left"].get_submodule("layer")))
        seen.append([])
        return task, data

    monkeypatch.setattr("mmbench.training.build", build)
    one = in_process(exact)
    other = in_process(with_recipe(exact, precision="bf16"))
    assert [set(dtypes) for dtypes in seen] == [{torch.float32}, {torch.float32}, {torch.bfloat16}, {torch.float32}]
    assert (one.predictions.predicted == other.predictions.predicted).mean() > 0.8


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler for the CPU")
def test_compiled_encoders_give_the_same_trial() -> None:
    plain = trial(missing=Missing(rate=0.3))
    one, other = in_process(plain), in_process(with_recipe(plain, compile=True))
    assert torch._dynamo.utils.counters["frames"]["ok"] > 0, "something was compiled"
    assert np.abs(one.predictions.log_probs - other.predictions.log_probs).max() < 0.02
