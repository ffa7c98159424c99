"""The steps of a trial are Lightning's, taken by a shorter way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from pytorch_lightning.loops.evaluation_loop import _EvaluationLoop
from pytorch_lightning.loops.training_epoch_loop import _TrainingEpochLoop

from mmbench.arguments import resolve_arguments
from mmbench.baselines import METHODS
from mmbench.baselines.concat import Concat
from mmbench.batch import Batch
from mmbench.data import DATASETS
from mmbench.encoders import ENCODERS
from mmbench.lean import LeanEpoch, LeanValidation, zero_grad
from mmbench.missing import Missing
from mmbench.recipe import Recipe
from mmbench.training import Outcome, run
from mmbench.trial import Trial
from plugin.mmbench_testing import Tiny

SEEN: list[str] = []


class Plain(Concat):
    """Logs a number of its own, and notes which steps it takes."""

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        SEEN.append(f"step {batch_idx}")
        self.log("train/number", float(batch_idx), on_step=False, on_epoch=True)
        return {"loss": super().training_step(batch, batch_idx), "number": batch_idx}

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        super().on_before_optimizer_step(optimizer)
        SEEN.append("before")

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        super().on_train_batch_end(outputs, batch, batch_idx)
        SEEN.append(f"end {outputs['number']} {self.global_step}")


class Hooked(Plain):
    """Has a hook that a lean step does not call."""

    def on_after_backward(self) -> None:
        SEEN.append("after backward")

    def on_validation_start(self) -> None:
        SEEN.append("validation")


@pytest.fixture(autouse=True)
def tables(monkeypatch: pytest.MonkeyPatch) -> None:
    list(DATASETS), list(ENCODERS), list(METHODS)
    monkeypatch.setitem(DATASETS._targets, "tiny", "plugin.mmbench_testing:Tiny")
    monkeypatch.setitem(ENCODERS._targets, "tiny_linear", "plugin.mmbench_testing:TinyLinear")
    monkeypatch.setitem(METHODS._targets, "plain", "test_lean:Plain")
    monkeypatch.setitem(METHODS._targets, "hooked", "test_lean:Hooked")
    monkeypatch.setattr("torch.utils.deterministic.fill_uninitialized_memory", True)  # a trial's process changes it
    SEEN.clear()


def trial(method: str, **recipe: Any) -> Trial:
    params, _ = resolve_arguments(METHODS[method], {}, ("spec", "encoders", "recipe"))
    settings = {"epochs": 3, "batch_size": 16, "lr": 0.05, **recipe}
    missing = Missing(rate=0.4, train_only=True, redraw=True)
    return Trial(dataset="tiny", data=Tiny.manifest(), protocol="clean", missing=missing, method=method, seed=0,
                 encoders={m: {"name": "tiny_linear"} for m in Tiny.modalities}, params=params,
                 recipe=Recipe(**settings))  # fmt: skip


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch) -> Callable[[Trial], tuple[Outcome, Outcome]]:
    """Runs a trial with lean steps and with Lightning's own."""

    def run_both(of: Trial) -> tuple[Outcome, Outcome]:
        lean = run(of, device="cpu")
        with monkeypatch.context() as patch:
            patch.setattr(LeanEpoch, "advance", _TrainingEpochLoop.advance)
            patch.setattr(LeanValidation, "run", _EvaluationLoop.run)
            return lean, run(of, device="cpu")

    return run_both


@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_trial_is_the_same_to_the_bit(method: str, both: Any) -> None:
    lean, own = both(trial(method, step_size=2))
    assert (lean.predictions.log_probs == own.predictions.log_probs).all()
    assert lean.curves == own.curves


@pytest.mark.parametrize("method", ["ogm_ge", "mla"])
def test_gradients_are_cut_back_and_rates_follow_their_schedule(method: str, both: Any) -> None:
    lean, own = both(trial(method, optimizer="adamw", clip_norm=0.1, schedule="cosine", warmup=1))
    free = run(trial(method, optimizer="adamw", schedule="cosine", warmup=1), device="cpu")
    assert (lean.predictions.log_probs == own.predictions.log_probs).all()
    assert not (lean.predictions.log_probs == free.predictions.log_probs).all()


def test_a_method_sees_its_hooks_in_order_and_may_log_what_it_likes(both: Any) -> None:
    lean, own = both(trial("plain"))
    assert SEEN[:6] == ["step 0", "before", "end 0 1", "step 1", "before", "end 1 2"]
    assert SEEN[: len(SEEN) // 2] == SEEN[len(SEEN) // 2 :]
    assert lean.curves == own.curves
    assert "train/number" in lean.curves[0]


def test_a_method_with_another_hook_gets_lightnings_steps() -> None:
    run(trial("hooked"), device="cpu")
    assert SEEN[:4] == ["step 0", "after backward", "before", "end 0 1"]
    assert SEEN.count("validation") == 4, "after each of three epochs, and of the best one"


def test_gradients_are_let_go_of_or_are_zero() -> None:
    layers = torch.nn.Linear(2, 3), torch.nn.Linear(3, 1)
    optimizer = torch.optim.SGD([{"params": layer.parameters()} for layer in layers], lr=0.1)
    layers[1](layers[0](torch.ones(1, 2))).sum().backward()
    zero_grad(optimizer, set_to_none=False)
    assert all((p.grad == 0).all() for layer in layers for p in layer.parameters())
    zero_grad(optimizer)
    assert all(p.grad is None for layer in layers for p in layer.parameters())
