from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from mmbench.baselines import METHODS
from mmbench.data.split import Loaded
from mmbench.errors import UsageError
from mmbench.fixed import NEVER, Centring, FixedFeatureTask, LinearSvm, evaluation
from mmbench.lean import log_epoch
from mmbench.missing import Missing
from mmbench.recipe import Recipe
from mmbench.testing.planted import Planted2, set_up
from mmbench.training import lean_trainer
from planted import RECIPE, Planted3, batch_of, fit, make_world, planted_encoders, same, trainer, weights
from simulated import CPU, DEVICE, Simulated


class Recorder(FixedFeatureTask):
    """Keeps what it is to learn from."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.lessons = []

    def configure_optimizers(self):
        return []

    def fuse(self, features, present):
        return torch.zeros(len(present), self.spec.num_classes)

    def learn(self, features, present, label, index):
        self.lessons.append((features, present, label, index))
        return torch.tensor(float(len(self.lessons)))


def recorder(world):
    torch.manual_seed(0)
    return Recorder(world.data.spec, world.encoders(), RECIPE)


def test_feature_vectors_are_taken_as_they_are(make_world):
    world = make_world("openclipart_features")
    task = recorder(world)
    batch = batch_of(world.data.splits.train, 40)
    assert not batch.present.all()
    features = task.encode(batch)
    assert task.dims == world.data.feature_dims
    for column, m in enumerate(task.modalities):
        here = batch.present[:, column]
        assert torch.equal(features[m][here], batch.inputs[m][here])
        assert (features[m][~here] == 0).all()


def test_raw_inputs_are_encoded_by_frozen_encoders_in_evaluation_mode(world3):
    task = recorder(world3)
    encoder = task.encoders["picture"]
    assert any(isinstance(module, nn.BatchNorm2d) for module in encoder.modules())
    before = weights(task.encoders)
    batch = batch_of(world3.complete, 6)
    features = task.train().encode(batch)
    assert encoder.training  # as it was
    assert not features["picture"].requires_grad
    assert torch.equal(features["picture"], encoder.eval()(batch.inputs["picture"]).detach())
    assert same(weights(task.encoders), before)
    assert not any(p.requires_grad for p in task.encoders.parameters())


def test_some_modalities_may_be_feature_vectors_and_others_not(world3):
    spec = replace(world3.data.spec, feature_dims={"sensor": 6})
    task = Recorder(spec, planted_encoders(Planted3.modalities))
    assert task.dims == {"sensor": 6, "picture": task.encoders["picture"].out_dim, "words": 8}
    batch = batch_of(world3.complete, 5)
    features = task.encode(batch)
    assert torch.equal(features["sensor"], batch.inputs["sensor"])
    assert {m: f.shape[1] for m, f in features.items()} == task.dims


def test_the_last_step_of_an_epoch_learns_from_all_of_it(world3):
    split = world3.data.splits.train
    present = split.present.clone()
    present[3] = False
    task = recorder(world3)
    run = fit(task, replace(split, present=present), epochs=2, batches=3)
    assert len(task.lessons) == 2
    rows = [row for row in range(24) if row != 3]  # the sample that has nothing is left out
    expected = task.encode(replace(split, present=present).__getitems__(rows))
    for features, here, label, index in task.lessons:
        assert index.tolist() == rows
        assert torch.equal(here, present[rows])
        assert torch.equal(label, split.label[rows])
        for m in task.modalities:
            torch.testing.assert_close(features[m], expected[m])
    assert run.callback_metrics["train/loss"] == 2  # of the second epoch's last step, not diluted by the others


def test_learning_comes_before_validation(world3):
    task = recorder(world3)
    lessons = []
    task.on_validation_start = lambda: lessons.append(len(task.lessons))
    trainer(2).fit(task, datamodule=world3.data)
    assert lessons == [1, 2]
    assert sorted(task.lessons[0][3].tolist()) == list(range(len(world3.data.splits.train)))


def test_several_processes_are_refused(world3):
    task = recorder(world3)
    for world_size in (1, 2):
        task._trainer = SimpleNamespace(world_size=world_size, fast_dev_run=True)
        with pytest.raises(UsageError, match="devices: 1") if world_size > 1 else nullcontext():
            task.setup("fit")


def test_evaluation_mode_gives_every_mode_back():
    module = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout(), nn.Dropout()))
    module[1][0].eval()
    with evaluation(module):
        assert not any(inner.training for inner in module.modules())
    assert [inner.training for inner in module.modules()] == [True, True, True, False, True]


def test_means_are_of_present_cells_alone():
    generator = torch.Generator().manual_seed(0)
    features = {"a": torch.randn(9, 2, generator=generator), "b": torch.randn(9, 3, generator=generator)}
    present = torch.rand(9, 2, generator=generator) > 0.4
    assert not present.all()
    centring = Centring({"a": 2, "b": 3})
    centring.fit(features, present)
    got = centring(features, present)
    for column, (m, f) in enumerate(features.items()):
        rows = [f[i] for i in range(9) if present[i, column]]
        mean = sum(rows) / len(rows)
        for i in range(9):
            imputed = f[i] if present[i, column] else mean
            torch.testing.assert_close(got[m][i], imputed - mean)
    centring.fit(features, torch.zeros(9, 2, dtype=torch.bool))
    assert (centring.mean == 0).all()


@pytest.mark.parametrize("occurring", [[0, 1, 2, 3], [0, 2, 3], [1, 3], [2], []])
def test_svm_answers_as_scikit_learns(occurring):
    from sklearn.svm import LinearSVC

    generator = np.random.default_rng(0)
    label = np.array(occurring * 10, dtype=np.int64)
    rows = generator.normal(size=(len(label), 5)) + np.eye(5)[label]
    svm = LinearSvm(5, 4, c=0.1)
    svm.weight.fill_(9.0)  # of an earlier epoch
    svm.fit(torch.tensor(rows), torch.tensor(label))
    new = generator.normal(size=(50, 5))
    logits = svm(torch.tensor(new, dtype=torch.float)).numpy()
    missing = [c for c in range(4) if c not in occurring]
    assert (logits[:, missing] == NEVER).all()
    if len(occurring) < 2:
        assert (logits[:, occurring] == 0).all()
        return
    theirs = LinearSVC(C=0.1, dual=False).fit(rows, label)
    assert (logits.argmax(axis=1) == theirs.predict(new)).all()
    decisions = theirs.decision_function(new)
    if len(occurring) == 2:
        decisions = np.stack([-decisions, decisions], axis=1)
    np.testing.assert_allclose(logits[:, occurring], decisions, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["cca", "dcca", "dccae", "cpm_net"])
def test_nothing_of_validation_or_test_enters_a_fit(method):
    def fitted(shift):
        world = make_world("planted3")
        for split in (world.data.splits.validation, world.data.splits.test):
            split.inputs["sensor"] += shift
            split.label[:] = (split.label + (shift > 0)) % 3
        task = world.task(method)
        torch.manual_seed(0)
        run = trainer(2)
        run.fit(task, datamodule=world.data)
        assert run.test(task, datamodule=world.data, verbose=False)
        return {name: value for name, value in weights(task).items() if not name.startswith("accuracies")}

    plain, shifted = fitted(0.0), fitted(50.0)
    assert same(plain, shifted)


def test_an_encoder_that_gives_no_numbers_is_named(world3):
    task = world3.task("cca")
    with torch.no_grad():
        next(iter(task.encoders["sensor"].parameters())).fill_(float("nan"))
    with pytest.raises(UsageError, match="the encoder of sensor gives features that are not finite"):
        fit(task, world3.complete)


class Many(Planted2):
    """Enough samples for batches in which every encoder gets many rows."""

    def load(self):
        generator = torch.Generator().manual_seed(0)
        assert self.protocol.split == "clean"
        return Loaded(
            *(self.draw(sizes, generator, 200 * i) for i, sizes in enumerate([(70, 50, 40), (30, 30, 20), (5, 5, 5)]))
        )


class Augmented(Many):
    augmentations = {"picture": lambda images: images.roll(1, dims=-1)}


class OwnHook(Many):
    def on_after_batch_transfer(self, batch, dataloader_idx):
        return super().on_after_batch_transfer(batch, dataloader_idx)


def encoded_rows(data_class, monkeypatch, device, missing=None, keep=True):
    """How many rows the picture's encoder gets in each of three epochs' training and validation, and the weights in the end."""
    monkeypatch.setattr("pytorch_lightning.accelerators.CPUAccelerator.setup_device", lambda self, device: None)
    world = set_up(data_class, lambda: planted_encoders(data_class.modalities))
    data = world.data
    data.batch_size, data.missing = 64, missing
    task = world.build(METHODS["cpm_net"], recipe=Recipe(epochs=3, batch_size=64), steps=1)
    rows = {"train": [0] * 3, "validation": [0] * 3}

    def count(module, inputs, output):
        rows["train" if task.trainer.training else "validation"][task.current_epoch] += len(output)

    task.encoders["picture"].register_forward_hook(count)
    run = lean_trainer(task.recipe, "cpu", [], [])
    run.strategy._root_device = device
    task.log_epoch = partial(log_epoch, run)
    with monkeypatch.context() as patch, Simulated():
        if not keep:
            patch.setattr(FixedFeatureTask, "_kept_for", lambda self, batch: None)
        run.fit(task, datamodule=data)
    assert not task._kept
    return rows["train"], rows["validation"], weights(task)


@pytest.mark.parametrize("device", [CPU, DEVICE], ids=str)
def test_encoders_that_never_move_run_once(monkeypatch, device):
    train, validation, trained = encoded_rows(Many, monkeypatch, device)
    always, validated, expected = encoded_rows(Many, monkeypatch, device, keep=False)
    splits = set_up(Many, lambda: planted_encoders(Many.modalities)).data.splits
    first, second = (int(split.present[:, 1].sum()) for split in (splits.train, splits.validation))
    assert validated == 3 * [second]
    assert validation == [second, 0, 0]
    assert always == 3 * [first]
    assert train == (always if device == CPU else [first, 0, 0])
    for name, value in expected.items():
        torch.testing.assert_close(trained[name], value, **({"rtol": 0, "atol": 0} if device == CPU else {}))


def test_modality_dropout_shows_them_samples_that_it_hid_before(monkeypatch):
    missing = Missing(rate=0.3, train_only=True, redraw=True)
    train, _, trained = encoded_rows(Many, monkeypatch, DEVICE, missing)
    always, _, expected = encoded_rows(Many, monkeypatch, DEVICE, missing, keep=False)
    assert train[0] == always[0]
    assert 0 < sum(train[1:]) <= sum(always[1:])
    for name, value in expected.items():
        torch.testing.assert_close(trained[name], value)


@pytest.mark.parametrize("data_class", [Augmented, OwnHook])
def test_encoders_run_on_in_training_where_inputs_change(data_class, monkeypatch):
    train, validation, trained = encoded_rows(data_class, monkeypatch, DEVICE)
    always, _, expected = encoded_rows(data_class, monkeypatch, DEVICE, keep=False)
    assert train == always
    assert validation[1:] == [0, 0]
    assert same(trained, expected)
