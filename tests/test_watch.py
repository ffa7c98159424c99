"""What a trial keeps beside its losses, against the same worked out by hand."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from mmbench.baselines import METHODS
from mmbench.baselines.concat import Concat
from mmbench.batch import Batch
from mmbench.data import DATASETS
from mmbench.encoders import ENCODERS
from mmbench.missing import Missing
from mmbench.record import Features
from mmbench.training import run
from mmbench.watch import STEPS, Gap
from test_lean import trial

FACTOR = 3.0
SIZES: list[dict[str, float]] = []


class Stronger(Concat):
    """Makes the gradient of ``left`` larger by a factor, and notes how large all were before, by a loop over the parameters."""

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        sizes = {}
        for modality, encoder in self.encoders.items():
            squares = [float(g) ** 2 for p in encoder.parameters() if p.grad is not None for g in p.grad.flatten()]
            sizes[modality] = math.sqrt(sum(squares))
        SIZES.append(sizes)
        for parameter in self.encoders["left"].parameters():
            parameter.grad.mul_(FACTOR)


@pytest.fixture(autouse=True)
def tables(monkeypatch: pytest.MonkeyPatch) -> None:
    list(DATASETS), list(ENCODERS), list(METHODS)
    monkeypatch.setitem(DATASETS._targets, "tiny", "plugin.mmbench_testing:Tiny")
    monkeypatch.setitem(ENCODERS._targets, "tiny_linear", "plugin.mmbench_testing:TinyLinear")
    monkeypatch.setitem(METHODS._targets, "stronger", "test_watch:Stronger")
    SIZES.clear()


def batch(present: np.ndarray, first: int = 0) -> Batch:
    size = len(present)
    return Batch({}, torch.tensor(present), torch.zeros(size, dtype=torch.long), torch.arange(first, first + size))


def test_gradients_are_those_of_the_loss_and_those_that_a_method_makes_of_them() -> None:
    curves = run(
        trial("stronger", batch_size=4, epochs=2, clip_norm=0.01).model_copy(update={"missing": None}), device="cpu"
    ).curves
    steps = len(SIZES) // 2
    assert steps > 2 * STEPS, "the epoch has to have steps that are not measured"
    chosen = [round(i * steps / STEPS) for i in range(STEPS)]
    for epoch, row in enumerate(curves):
        for modality, factor in (("left", FACTOR), ("right", 1.0)):
            expected = np.mean([math.log(SIZES[epoch * steps + number][modality]) for number in chosen])
            assert row[f"gradient/{modality}"] == pytest.approx(expected, abs=1e-4)
            assert row[f"gradient/{modality}/modulated"] == pytest.approx(expected + math.log(factor), abs=1e-4)


def test_a_method_that_changes_no_gradient_has_one_size_and_a_closed_form_has_none() -> None:
    assert {name for name in run(trial("mla"), device="cpu").curves[0] if "gradient" in name} == {
        "gradient/left", "gradient/right",
    }  # fmt: skip
    assert not [name for name in run(trial("cca"), device="cpu").curves[0] if "gradient" in name]


@pytest.mark.parametrize("method", ["sum", "mla"])
@pytest.mark.parametrize("batch_size", [16, 1000])
def test_the_rate_is_that_of_the_epochs_own_steps(method: str, batch_size: int) -> None:
    curves = run(trial(method, epochs=4, batch_size=batch_size, step_size=1, gamma=0.5), device="cpu").curves
    rates = [row["train/lr"] for row in curves]
    assert rates[0] == pytest.approx(0.05)
    assert [later / rate for rate, later in pairwise(rates)] == pytest.approx([0.5] * 3)


def test_the_loss_of_the_selection_split_is_that_of_its_predictions() -> None:
    outcome = run(trial("late_fusion").model_copy(update={"protocol": "peek"}), device="cpu")
    p = outcome.predictions
    nats = [-float(p.log_probs[-1, i, label]) for i, label in enumerate(p.label)]
    assert outcome.curves[outcome.best_epoch]["validation/loss"] == pytest.approx(np.mean(nats), abs=1e-3)


def test_the_gap_of_a_trial_is_that_of_its_test_features() -> None:
    outcome = run(trial("sum").model_copy(update={"missing": Missing(rate=0.3, train_only=True)}), device="cpu")
    assert set(outcome.gap) == {"left+right"}
    assert 0 < outcome.gap["left+right"] <= 2
    assert isinstance(outcome.features, Features)
    size = len(outcome.predictions.label)
    assert outcome.features.points.shape == (2, size, 2)
    absent = ~outcome.predictions.present.T
    assert absent.any()
    assert (np.isnan(outcome.features.points).all(axis=2) == absent).all()


def test_the_gap_is_the_distance_of_the_means_of_unit_vectors() -> None:
    rng = np.random.default_rng(3)
    features = {m: rng.normal(i, 1.0, (40, 5)) for i, m in enumerate("abc")}
    features["d"] = rng.normal(size=(40, 6))  # another width: nothing to compare it with
    present = rng.random((40, 4)) > 0.3
    gap = Gap(40)
    for first in (0, 24):  # in two batches
        rows = slice(first, first + 24)
        gap.add({m: torch.tensor(f[rows]) for m, f in features.items()}, batch(present[rows], first))
    means = {}
    for column, (modality, values) in enumerate(features.items()):
        units = [row / math.sqrt(sum(row**2)) for row, here in zip(values, present[:, column], strict=True) if here]
        means[modality] = sum(units) / len(units)
    pairs = {"a+b": ("a", "b"), "a+c": ("a", "c"), "b+c": ("b", "c")}
    assert gap.values() == pytest.approx(
        {pair: math.sqrt(sum((means[x] - means[y]) ** 2)) for pair, (x, y) in pairs.items()}
    )
    assert gap.features() is None


def test_points_lie_in_the_plane_of_most_variance() -> None:
    rng = np.random.default_rng(4)
    features = {m: rng.normal(size=(1200, 5)) * [3, 2, 1, 0.5, 0.1] for m in "ab"}
    present = np.column_stack([np.ones(1200, bool), rng.random(1200) > 0.2])
    gap = Gap(1200)
    gap.add({m: torch.tensor(f) for m, f in features.items()}, batch(present))
    found = gap.features()
    assert found is not None
    assert found.points.shape == (2, 400, 2)  # every third
    units = np.stack([f / np.linalg.norm(f, axis=1, keepdims=True) for f in features.values()])[:, ::3]
    seen = present[::3].T
    centred = units - units[seen].mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov(centred[seen].T))
    expected = centred @ vectors[:, np.argsort(values)[::-1][:2]]
    assert np.isnan(found.points[~seen]).all()
    assert np.abs(found.points[seen]) == pytest.approx(np.abs(expected[seen]), abs=1e-5)
    again = Features.from_bytes(found.to_bytes())
    assert np.array_equal(again.points, found.points, equal_nan=True)
