"""What of an encoder is trained, and how, inside a whole trial on a prepared data set."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch

import mmbench.training
from mmbench.data.preparing.prepare import prepare
from mmbench.data.sets.mvsa import Mvsa
from mmbench.recipe import Recipe
from mmbench.training import Outcome, run, weights_of
from mmbench.trial import Trial

PLAIN = {"name": "m3ae_image", "size": "tiny", "weights": None}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("trial")
    Mvsa.write_demo(root / "raw")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMBENCH_DATA", str(root))
        prepare(Mvsa, root / "raw", say=lambda text: None)
    return root


class Watched:
    """Runs trials, and keeps how far each parameter of the image encoder moved, and the learning rates of the optimiser."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.make = mmbench.training.build
        monkeypatch.setattr("mmbench.training.build", self.build)

    def build(self, *arguments: Any) -> Any:
        self.task, data = self.make(*arguments)
        self.before = {n: p.detach().clone() for n, p in self.task.named_parameters()}
        ended = self.task.on_train_epoch_end

        def on_train_epoch_end() -> None:
            ended()
            self.moved = {
                n.removeprefix("encoders.image."): float((p.detach() - self.before[n]).norm() / (1 + p.detach().norm()))
                for n, p in self.task.named_parameters()
            }
            self.rates = sorted({group["lr"] for group in self.task.optimizers().param_groups})

        self.task.on_train_epoch_end = on_train_epoch_end
        return self.task, data

    def __call__(self, **settings: Any) -> Outcome:
        encoders = {"text": {"name": "hashed_text"}, "image": {**PLAIN, **settings}}
        recipe = Recipe(epochs=1, batch_size=16, lr=0.05, weight_decay=0.0)
        views = Mvsa.default_views()
        trial = Trial(dataset="mvsa", data=Mvsa.manifest(), protocol="clean", method="sum", seed=0, encoders=encoders,
                      params={}, recipe=recipe, views=views)  # fmt: skip
        return run(trial, device="cpu")


@pytest.fixture
def watched(root: Path, monkeypatch: pytest.MonkeyPatch) -> Watched:
    monkeypatch.setenv("MMBENCH_DATA", str(root))
    monkeypatch.setattr("torch.utils.deterministic.fill_uninitialized_memory", True)  # a trial's process changes it
    return Watched(monkeypatch)


def of_encoder(moved: dict[str, float]) -> dict[str, float]:
    return {n: far for n, far in moved.items() if not n.startswith(("encoders.", "head"))}


def test_gradient_checkpointing_changes_no_prediction(watched: Watched) -> None:
    plain = watched()
    moved = watched.moved
    checkpointed = watched(gradient_checkpointing=True)
    assert np.abs(plain.predictions.log_probs - checkpointed.predictions.log_probs).max() < 1e-2
    assert watched.moved == pytest.approx(moved, rel=1e-3, abs=1e-6)
    assert max(of_encoder(moved).values()) > 1e-3, "it was trained"


def test_a_frozen_encoder_does_not_move_and_the_rest_does(watched: Watched) -> None:
    outcome = watched(freeze=True)
    assert set(of_encoder(watched.moved).values()) == {0.0}
    assert max(far for n, far in watched.moved.items() if n.startswith("head")) > 1e-3
    assert outcome.parameters < sum(p.numel() for p in watched.task.parameters())


def test_a_learning_rate_factor_holds_the_encoder_back(watched: Watched) -> None:
    watched()
    free = of_encoder(watched.moved)
    watched(lr_factor=1e-3)
    held = of_encoder(watched.moved)
    assert watched.rates == pytest.approx([5e-5, 0.05])
    assert max(held.values()) < 0.01 * max(free.values())


def test_layer_decay_gives_every_layer_its_rate(watched: Watched) -> None:
    watched()
    free = watched.moved
    watched(layer_decay=0.1)
    depth = len(watched.task.encoders["image"].layers())
    assert watched.rates == pytest.approx([0.05 * 0.1**above for above in range(depth - 1, -1, -1)])
    first, last = "blocks.0.mlp.fc1.weight", f"blocks.{depth - 3}.mlp.fc1.weight"
    assert watched.moved[first] / free[first] < 0.5 * watched.moved[last] / free[last]


def test_weights_that_changed_after_planning_are_noticed(
    watched: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMBENCH_WEIGHTS", str(tmp_path))
    encoders = {
        "text": {"name": "hashed_text"},
        "image": {"name": "timm_image", "model": "test_resnet", "weights": "resnet.pth"},
    }
    state = timm.create_model("test_resnet", num_classes=0).state_dict()
    torch.save(state, tmp_path / "resnet.pth")
    trial = Trial(dataset="mvsa", data=Mvsa.manifest(), protocol="clean", method="sum", seed=0,
                  encoders=encoders, params={}, recipe=Recipe(epochs=1), views=Mvsa.default_views(),
                  weights=weights_of(encoders))  # fmt: skip
    assert set(trial.weights) == {"image"}
    watched.make(trial)
    torch.save({name: value + 1 for name, value in state.items()}, tmp_path / "resnet.pth")
    with pytest.raises(RuntimeError, match="the weights of image have changed since the trial was planned"):
        watched.make(trial)
