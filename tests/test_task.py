import math
from contextlib import nullcontext
from itertools import combinations

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn import functional as F

from mmbench.batch import Batch, select_rows
from mmbench.data.split import DataSpec
from mmbench.encoders.pretrained import Pretrained, in_layers
from mmbench.errors import UsageError
from mmbench.fixed import FixedFeatureTask
from mmbench.recipe import Recipe
from mmbench.task import DivergedError, MultimodalTask, mean_over_present, modality_cross_entropy
from planted import METHODS, VectorEncoder, batch_of, fit, loader, same, trainer, weights

# Those that do not train by the recipe have tests of their own, in test_fixed.py.
BY_GRADIENT = [name for name in METHODS if not issubclass(METHODS[name], FixedFeatureTask)]


class Recording(nn.Module):
    """Sees (B, 2), returns its numbers plus one, and keeps what it saw."""

    out_dim = 2

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, value):
        self.seen.append(value)
        return value + 1


class FirstClassOf(MultimodalTask):
    """Logits are the sum of what is present: features are logits."""

    def fuse(self, features, present):
        return sum(features[m] * present[:, [c]] for c, m in enumerate(self.modalities))


def plain_batch(present) -> Batch:
    size = len(present)
    inputs = {m: torch.arange(2.0 * size).reshape(size, 2) * (10**n) for n, m in enumerate("abc"[: len(present[0])])}
    return Batch(
        inputs, torch.tensor(present, dtype=torch.bool), torch.zeros(size, dtype=torch.long), torch.arange(size)
    )


SPEC = DataSpec(("a", "b", "c"), (6, 2), "a")


@pytest.fixture
def task():
    return FirstClassOf(SPEC, {m: Recording() for m in "abc"})


# Encoding


def test_encoders_see_the_present_rows_and_absent_rows_are_zero(task):
    present = [[1, 1, 0], [0, 1, 0], [1, 1, 0]]
    batch = plain_batch(present)
    features = task.encode(batch)
    assert features["a"].tolist() == [[1, 2], [0, 0], [5, 6]]
    assert torch.equal(features["b"], batch.inputs["b"] + 1)
    assert features["c"].tolist() == [[0, 0]] * 3
    assert [task.encoders["a"].seen[0].tolist(), len(task.encoders["c"].seen)] == [[[0, 1], [4, 5]], 0]


def test_absent_rows_do_not_enter_batch_statistics(world2):
    batch = batch_of(world2.complete, 8)
    half = batch_of(world2.complete, 4)
    batch.present[4:, 1] = False
    tasks = world2.task("sum"), world2.task("sum")
    for task, b in zip(tasks, (batch, half), strict=True):
        task.train().encode(b)
    statistics = [
        {name: v for name, v in weights(task.encoders["picture"]).items() if "running" in name} for task in tasks
    ]
    assert len(statistics[0]) == 6
    torch.testing.assert_close(*statistics)


def test_gradients_reach_the_encoder_through_the_scattered_rows(world2):
    task = world2.task("sum")
    batch = batch_of(world2.complete, 4)
    batch.present[1:, 0] = False
    task.encode(batch)["sensor"].sum().backward()
    expected = world2.task("sum")
    expected.encoders["sensor"](batch.inputs["sensor"][:1]).sum().backward()
    torch.testing.assert_close(
        [p.grad for p in task.encoders["sensor"].parameters()],
        [p.grad for p in expected.encoders["sensor"].parameters()],
    )


def test_select_rows():
    rows = torch.tensor([2, 0])
    assert select_rows(torch.tensor([5, 6, 7]), rows).tolist() == [7, 5]
    picked = select_rows({"token": torch.tensor([[1], [2], [3]]), "word": torch.tensor([[4], [5], [6]])}, rows)
    assert {name: value.tolist() for name, value in picked.items()} == {"token": [[3], [1]], "word": [[6], [4]]}


# Patterns


def test_every_pattern_hides_the_other_modalities(task):
    present = [[1, 1, 1], [1, 0, 1], [0, 0, 1], [0, 0, 0]]
    batch = plain_batch(present)
    features = task.encode(batch)
    logits = task.fuse_patterns(features, batch.present)
    prior = torch.tensor([math.log(6 / 8), math.log(2 / 8)])
    shown = [set(c) for n in (1, 2, 3) for c in combinations("abc", n)]
    for p, pattern in enumerate(shown):
        for i, row in enumerate(present):
            visible = [m for m, here in zip("abc", row, strict=True) if here and m in pattern]
            expected = sum(features[m][i] for m in visible) if visible else prior
            torch.testing.assert_close(logits[p, i], expected)
    torch.testing.assert_close(task.predict_step(batch, 0), torch.log_softmax(logits, dim=-1))


@pytest.mark.parametrize("stage", ["validation", "test"])
def test_logged_accuracies_are_those_of_the_patterns(world3, stage):
    task = world3.task("concat").eval()
    split = getattr(world3.data.splits, stage)
    run = trainer()
    verb = {"validation": run.validate, "test": run.test}[stage]
    verb(task, loader(split.rows(torch.arange(5).numpy())), verbose=False)  # must leave nothing behind in the metrics
    logged = verb(task, loader(split, 7), verbose=False)[0]  # batches of unequal size
    batch = batch_of(split, len(split))
    features = task.encode(batch)
    prior = torch.tensor(world3.data.spec.class_counts).argmax()
    for n in (1, 2, 3):
        for pattern in combinations(range(3), n):
            mask = torch.zeros(3, dtype=torch.bool)
            mask[list(pattern)] = True
            visible = batch.present & mask
            predicted = torch.where(visible.any(dim=1), task.fuse(features, visible).argmax(dim=1), prior)
            name = f"{stage}/accuracy" + ("" if n == 3 else "/" + "+".join(task.modalities[c] for c in pattern))
            assert logged[name] == pytest.approx((predicted == batch.label).double().mean().item()), name


# Training


def test_default_loss_is_cross_entropy_over_present_modalities(task):
    batch = plain_batch([[1, 0, 1], [0, 1, 0]])
    batch.label = torch.tensor([1, 0])
    logits = task(batch)
    expected = sum(-logits[i].log_softmax(0)[y] for i, y in enumerate(batch.label)) / 2
    torch.testing.assert_close(task.training_step(batch, 0), expected)


@pytest.mark.parametrize("method", BY_GRADIENT)
def test_logged_training_loss_is_the_mean_over_the_epochs_batches(world3, method, monkeypatch):
    task = world3.task(method)
    losses = []
    step = task.training_step

    def training_step(batch, batch_idx):
        losses.append(step(batch, batch_idx))
        return losses[-1]

    monkeypatch.setattr(task, "training_step", training_step)
    run = fit(task, world3.data.splits.train, epochs=2, batches=2)
    assert len(losses) == 4
    assert run.callback_metrics["train/loss"].item() == pytest.approx((losses[2] + losses[3]).item() / 2)


@pytest.mark.parametrize("method", BY_GRADIENT)
def test_a_loss_that_is_not_finite_ends_the_fit(world3, method):
    task = world3.task(method)
    with torch.no_grad():
        for encoders in task.sets_of_encoders():
            next(iter(encoders["sensor"].parameters())).fill_(float("nan"))
    with pytest.raises(DivergedError, match=r"nan in epoch 0 \(lr 0.05\).*lower recipe.lr"):
        fit(task, world3.complete)


@pytest.mark.parametrize("method", BY_GRADIENT)
def test_the_learning_rate_decays_by_epoch(world2, method):
    recipe = Recipe(epochs=5, lr=0.2, momentum=0.7, weight_decay=0.03, step_size=2, gamma=0.5)
    task = world2.task(method, recipe=recipe)
    rates, trainable = [], {id(p) for p in task.parameters() if p.requires_grad}
    end = task.on_train_epoch_start
    task.on_train_epoch_start = lambda: (rates.append(task.optimizers().param_groups[0]["lr"]), end())
    run = fit(task, world2.complete, epochs=5, batches=2)
    assert rates == pytest.approx([0.2, 0.2, 0.1, 0.1, 0.05])
    group = run.optimizers[0].param_groups[0]
    assert (group["momentum"], group["weight_decay"], group["nesterov"]) == (0.7, 0.03, False)
    assert {id(p) for p in group["params"]} == trainable


def test_frozen_parameters_are_left_out_of_the_optimizer(world2):
    task = world2.task("sum")
    task.encoders["picture"].requires_grad_(False)
    before = weights(task.encoders["picture"])
    fit(task, world2.complete)
    parameters = [name for name, _ in task.encoders["picture"].named_parameters()]
    assert all(torch.equal(before[name], weights(task.encoders["picture"])[name]) for name in parameters)


# The trainer and the recipe


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "length", [{"max_epochs": 3}, {"max_epochs": -1, "max_steps": 4}, {"max_epochs": 2, "max_steps": 4}, {}]
)
@pytest.mark.filterwarnings("ignore:`max_epochs` was not set")
def test_a_trainer_of_another_length_than_the_recipe_is_refused(world2, method, length):
    task = world2.task(method)
    before = weights(task)
    run = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, **length)
    with pytest.raises(
        UsageError, match=r"the recipe has 2 epochs.*Recipe\(epochs=10\).*Trainer\(max_epochs=task.recipe.epochs\)"
    ):
        run.fit(task, datamodule=world2.data)
    assert same(before, weights(task))


@pytest.mark.parametrize(
    ("batch_size", "gathered", "fine"), [(8, 1, True), (4, 2, True), (64, 1, False), (8, 2, False), (None, 2, True)]
)
def test_a_step_is_the_recipes_batch(world2, batch_size, gathered, fine):
    data = type(world2.data)(batch_size=batch_size or 4)
    run = trainer(accumulate_grad_batches=gathered, limit_train_batches=2, limit_val_batches=0)
    source = (
        {"datamodule": data}
        if batch_size
        else {"train_dataloaders": data.train_dataloader(), "val_dataloaders": data.val_dataloader()}
    )
    with (
        nullcontext() if fine else pytest.raises(UsageError, match=rf"batch_size={batch_size}.*recipe has batch_size=8")
    ):
        run.fit(world2.task("sum"), **source)
    assert run.global_step == (4 // gathered if fine else 0)


def test_a_run_that_only_tries_is_allowed(world2):
    task = world2.task("mmin")
    trainer(1, fast_dev_run=True).fit(task, datamodule=world2.data)


@pytest.mark.parametrize(("method", "epochs", "warned"), [("mmin", 1, True), ("mmin", 2, False), ("sum", 1, False)])
def test_training_that_ends_before_its_second_stage_is_told(world2, method, epochs, warned):
    task = world2.task(method)
    with pytest.warns(UserWarning, match="after 1 epochs, and the first 1") if warned else nullcontext():
        fit(task, world2.complete, epochs=epochs)


# Pretrained encoders


class PretrainedVector(Pretrained):
    """Planted's encoder of six numbers, in two layers."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.net = VectorEncoder()
        self.out_dim = self.net.out_dim
        self.adapt()

    def layers(self):
        return in_layers(self, [self.net[2]])

    def forward(self, value):
        return self.net(value)


def pretrained_task(world, method, **settings):
    encoders = {**world.encoders(), "sensor": PretrainedVector(**settings)}
    return METHODS[method](
        world.data.spec, encoders, Recipe(epochs=4, lr=0.2, momentum=0.7, weight_decay=0.03, gamma=0.5, step_size=2)
    )


def test_without_pretrained_encoders_there_is_one_group(world2):
    task = world2.task("sum", recipe=Recipe(lr=0.2))
    [group] = task.configure_optimizers()[0][0].param_groups
    assert [id(p) for p in group["params"]] == [id(p) for p in task.parameters()]
    assert group["lr"] == 0.2


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_layers_of_a_pretrained_encoder_have_their_own_learning_rates(world2, optimizer):
    task = pretrained_task(world2, "sum", lr_factor=0.5, layer_decay=0.1)
    task.recipe = task.recipe.model_copy(update={"optimizer": optimizer})
    groups = task.configure_optimizers()[0][0].param_groups
    assert [group["lr"] for group in groups] == pytest.approx([0.2, 0.01, 0.1])
    assert {group["weight_decay"] for group in groups} == {0.03}
    first, second = (
        {id(p) for p in layer.parameters()}
        for layer in (task.encoders["sensor"].net[0], task.encoders["sensor"].net[2])
    )
    got = [{id(p) for p in group["params"]} for group in groups]
    assert got == [{id(p) for p in task.parameters()} - first - second, first, second]
    assert sum(len(group["params"]) for group in groups) == len(list(task.parameters()))


def test_encoders_of_the_same_rate_share_a_group(world2):
    encoders = {m: PretrainedVector(lr_factor=0.1) for m in world2.data.spec.modalities}
    task = METHODS["sum"](world2.data.spec, encoders, Recipe(lr=1))
    groups = task.configure_optimizers()[0][0].param_groups
    assert [(group["lr"], len(group["params"])) for group in groups] == [(1, 4), (0.1, 8)]


def test_copies_of_encoders_that_a_method_trains_have_their_rates(world2):
    """G-Blending's first stage trains two sets of copies."""
    encoders = {m: PretrainedVector(lr_factor=0.1) for m in world2.data.spec.modalities}
    task = METHODS["g_blending"](world2.data.spec, encoders, Recipe(epochs=2, lr=1))
    one, slow = task.configure_optimizers()[0][0].param_groups
    sets = [task.encoders, task.joint_encoders, task.alone_encoders]
    assert [id(p) for p in slow["params"]] == [id(p) for encoders in sets for p in encoders.parameters()]
    assert (one["lr"], slow["lr"]) == (1, 0.1)


def test_a_pretrained_encoder_moves_by_its_factor(world2):
    """One step of SGD without momentum, at a hundredth of the rate."""
    moves = []
    for factor in (1.0, 0.01):
        torch.manual_seed(0)
        task = pretrained_task(world2, "sum", lr_factor=factor)
        task.recipe = Recipe(lr=0.1, momentum=0, weight_decay=0)
        before = weights(task)
        fit(task, world2.complete, batches=1)
        moves.append({name: value - before[name] for name, value in weights(task).items() if value.is_floating_point()})
    for name in moves[0]:
        scale = 0.01 if name.startswith("encoders.sensor") else 1
        torch.testing.assert_close(moves[1][name], scale * moves[0][name], rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize("method", BY_GRADIENT)
def test_the_decay_scales_all_groups(world3, method):
    torch.manual_seed(0)
    task = pretrained_task(world3, method, lr_factor=0.5, layer_decay=0.1)
    rates = []
    end = task.on_train_epoch_start
    task.on_train_epoch_start = lambda: (rates.append([g["lr"] for g in task.optimizers().param_groups]), end())
    before = weights(task.encoders["sensor"])
    fit(task, world3.complete, epochs=3, batches=2)
    assert rates == [pytest.approx([scale * r for r in (0.2, 0.01, 0.1)]) for scale in (1, 1, 0.5)]
    assert not any(torch.equal(before[name], value) for name, value in weights(task.encoders["sensor"]).items())


@pytest.mark.filterwarnings("ignore:.*in eval mode at the start of training")  # as it is meant to be
@pytest.mark.filterwarnings("ignore:training was stopped after")
@pytest.mark.parametrize("method", METHODS)
def test_a_frozen_encoder_never_moves(world3, method):
    torch.manual_seed(0)
    task = pretrained_task(world3, method, freeze=True)
    before = weights(task.encoders["sensor"])
    run = fit(task, world3.data.splits.train)
    assert same(before, weights(task.encoders["sensor"]))
    assert not task.encoders["sensor"].training
    frozen = {id(p) for p in task.encoders["sensor"].parameters()}
    assert not frozen & {id(p) for o in run.optimizers for g in o.param_groups for p in g["params"]}


def test_modality_cross_entropy_and_its_mean():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 3, 4, generator=generator)
    label = torch.tensor([0, 3, 1, 2, 2])
    present = torch.tensor([[1, 1, 0], [0, 1, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], dtype=torch.bool)
    losses = modality_cross_entropy(logits, present, label)
    means = mean_over_present(losses, present)
    for m in range(3):
        values = []
        for i in range(5):
            expected = F.cross_entropy(logits[i, m], label[i]) if present[i, m] else torch.zeros(())
            torch.testing.assert_close(losses[i, m], expected)
            values += [expected] if present[i, m] else []
        torch.testing.assert_close(means[m], torch.stack(values).mean() if values else torch.zeros(()))


# What is refused


def test_one_modality_is_not_fusion():
    with pytest.raises(UsageError, match=r"at least two modalities, got \['a'\]"):
        FirstClassOf(DataSpec(("a",), (1, 1), "a"), {"a": Recording()})


@pytest.mark.parametrize("given", ["ab", "abd", "abcd"])
def test_encoders_must_match_the_modalities(given):
    with pytest.raises(UsageError, match=r"encoders must be given for \['a', 'b', 'c'\], got"):
        FirstClassOf(SPEC, {m: Recording() for m in given})


def test_the_order_of_encoders_does_not_matter():
    task = FirstClassOf(SPEC, {m: Recording() for m in "cab"})
    assert list(task.encoders) == list(task.dims) == ["a", "b", "c"]


def test_split_modalities(task):
    assert task.split_modalities(None) == ("a", ("b", "c"))
    assert task.split_modalities("b") == ("b", ("a", "c"))
    with pytest.raises(UsageError, match="unknown conditioning modality 'x'"):
        task.split_modalities("x")


def test_zero_absent(task):
    features = {m: torch.full((2, 2), float("nan")) for m in "abc"}
    features["a"] = torch.ones(2, 2)
    zeroed = task.zero_absent(features, torch.tensor([[True, False, False], [False, False, False]]))
    assert zeroed["a"].tolist() == [[1, 1], [0, 0]]
    assert (zeroed["b"] == 0).all()
    assert features["a"].sum() == 4  # not in place
