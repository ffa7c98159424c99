"""What a recipe means: read from the optimisers of real fits, and worked out by hand."""

import math

import pytest
import pytorch_lightning as pl
import torch
from pydantic import ValidationError

from mmbench.checkpoint import Saved
from mmbench.errors import UsageError
from mmbench.fixed import FixedFeatureTask
from mmbench.patience import Patience
from mmbench.recipe import Recipe
from mmbench.trial import Trial
from planted import METHODS, fit, stages, trainer

OWN_OPTIMISER = [name for name in METHODS if issubclass(METHODS[name], FixedFeatureTask)]
BY_GRADIENT = [name for name in METHODS if name not in OWN_OPTIMISER]


def trial(**recipe) -> Trial:
    return Trial(
        dataset="openclipart", data="0", protocol="clean", method="sum", seed=0, encoders={}, params={}, recipe=recipe
    )


# Defaults


@pytest.mark.parametrize(
    ("recipe", "key"),
    [
        ({}, "bb6fb7854fdc9d6f"),
        ({"optimizer": "adam", "epochs": 30, "step_size": 20}, "476327147eec8be1"),
        ({"precision": "bf16", "head_init": "xavier"}, "05c81297c8c90097"),
        ({"precision": "32"}, "bb6fb7854fdc9d6f"),  # as records were written before it was called 32-true
        ({"precision": 32}, "bb6fb7854fdc9d6f"),  # as YAML reads it
        ({"precision": "32-true"}, "bb6fb7854fdc9d6f"),
        ({"precision": "tf32"}, "fecdfc3430263c56"),
    ],
)
def test_trials_of_before_keep_their_keys(recipe, key):
    assert trial(**recipe).key == key


def test_a_precision_has_one_name():
    assert Recipe.model_validate_json('{"precision": "32"}') == Recipe.model_validate({"precision": 32}) == Recipe()
    assert Recipe().model_dump()["precision"] == "32-true"
    assert Saved.model_validate({"recipe": {"precision": "32"}}).recipe == Recipe()  # of a checkpoint of before


@pytest.mark.parametrize("precision", ["16", "float32", "TF32", 64, None, ["32"]])
def test_another_precision_is_refused_with_those_that_there_are(precision):
    with pytest.raises(ValidationError, match="'32-true', 'tf32' or 'bf16'"):
        Recipe(precision=precision)


# Schedules


def naive_factor(recipe, epoch):
    if epoch < recipe.warmup:
        return (epoch + 1) / (recipe.warmup + 1)
    if recipe.schedule == "cosine":
        return math.cos(math.pi / 2 * (epoch - recipe.warmup) / (recipe.epochs - recipe.warmup)) ** 2
    factor = 1.0
    if recipe.schedule == "step":
        for past in range(1, epoch + 1):
            factor *= recipe.gamma if past % recipe.step_size == 0 else 1
    return factor


SCHEDULES = [
    {"schedule": "cosine", "warmup": 1},
    {"schedule": "constant", "warmup": 2},
    {"schedule": "step", "step_size": 2, "gamma": 0.5, "warmup": 1},
    {"schedule": "cosine"},
]


@pytest.mark.parametrize("settings", SCHEDULES)
@pytest.mark.parametrize("method", ["sum", "mla"])  # one that Lightning optimises, one that optimises itself
def test_the_learning_rate_follows_the_schedule(world2, method, settings):
    assert rates_of(world2, method, settings) == pytest.approx(
        [0.2 * naive_factor(Recipe(epochs=4, **settings), epoch) for epoch in range(4)]
    )


@pytest.mark.parametrize("method", BY_GRADIENT)
def test_every_method_warms_up_and_follows_a_cosine(world2, method):
    assert rates_of(world2, method, SCHEDULES[0]) == pytest.approx([0.1, 0.2, 0.15, 0.05])


def rates_of(world, method, settings):
    task = world.task(method, recipe=Recipe(epochs=4, lr=0.2, batch_size=8, **settings))
    rates, start = [], task.on_train_epoch_start
    task.on_train_epoch_start = lambda: (rates.append(task.optimizers().param_groups[0]["lr"]), start())
    fit(task, world.complete, epochs=4, batches=1)
    return rates


def test_plain_step_decay_multiplies_up_as_it_always_did(world2):
    task = world2.task("sum", recipe=Recipe(epochs=9, lr=0.3, step_size=1, gamma=0.7))
    (optimizer,), (scheduler,) = task.configure_optimizers()
    expected = 0.3
    for _ in range(8):
        optimizer.step(), scheduler.step()
        expected *= 0.7
    assert optimizer.param_groups[0]["lr"] == expected


@pytest.mark.filterwarnings("ignore:training was stopped after")  # and goes on
@pytest.mark.parametrize("method", ["sum", "mla"])
def test_a_fit_that_goes_on_goes_on_in_its_schedule(world2, method, tmp_path):
    recipe = Recipe(epochs=4, lr=0.2, batch_size=8, schedule="cosine", warmup=1, optimizer="adamw")
    half, rest = world2.task(method, recipe=recipe), world2.task(method, recipe=recipe)
    fit(half, world2.complete, epochs=2, batches=1).save_checkpoint(tmp_path / "half.ckpt")
    run = fit(rest, world2.complete, epochs=3, batches=1, ckpt_path=tmp_path / "half.ckpt")
    assert run.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 5, "warmup": 5}, r"warmup\n.*must be less than epochs, of which there are 5"),
        (
            {"schedule": "cosine", "step_size": 20},
            r"step_size\n.*of schedule: step, and the schedule is cosine; leave it out",
        ),
        (
            {"schedule": "constant", "gamma": 0.5},
            r"gamma\n.*of schedule: step, and the schedule is constant; leave it out",
        ),
        ({"clip_norm": 0}, "clip_norm"),
        ({"patience": 0}, "patience"),
        ({"warmup": -1}, "warmup"),
        ({"schedule": "linear"}, "schedule"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        Recipe(**settings)


def test_a_stored_recipe_is_read_back():
    recipe = Recipe(schedule="cosine", warmup=3, clip_norm=1.0, patience=4, class_weights="balanced")
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


# Optimisers


@pytest.mark.parametrize("method", BY_GRADIENT)
def test_adamw_trains_every_method(world2, method):
    task = world2.task(method, recipe=Recipe(epochs=2, batch_size=8, optimizer="adamw", momentum=0.8, weight_decay=0.1))
    trainable = {id(p) for p in task.parameters() if p.requires_grad}  # a method may freeze some when a stage is over
    run = fit(task, world2.complete)
    (optimizer,) = run.optimizers
    assert isinstance(optimizer, torch.optim.AdamW)
    assert {(*group["betas"], group["weight_decay"]) for group in optimizer.param_groups} == {(0.8, 0.999, 0.1)}
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == trainable


# Gradients


def steps(task, split, **arguments):
    """The gradients with which an optimiser stepped in a fit of a batch a stage: name -> gradient, one dictionary a step."""
    seen, configure = [], task.configure_optimizers

    def configure_optimizers():
        optimizers, schedulers = configure()
        optimizers[0].register_step_post_hook(
            lambda *_: seen.append({n: p.grad.clone() for n, p in task.named_parameters() if p.grad is not None})
        )
        return optimizers, schedulers

    task.configure_optimizers = configure_optimizers
    fit(task, split, batches=1, **arguments)
    return seen


def norm_of(gradients):
    return math.sqrt(sum(g.double().square().sum().item() for g in gradients.values()))


@pytest.mark.parametrize("method", BY_GRADIENT)
def test_a_step_is_taken_with_the_clipped_gradient(world3, method):
    """In each stage, and for MLA each modality, it is the gradient without clipping, scaled to the norm."""
    recipe = Recipe(epochs=2, batch_size=8, lr=1e-9, weight_decay=0)  # later steps see the same weights
    free = steps(world3.task(method, recipe=recipe), world3.complete)
    most = 0.1 * min(map(norm_of, free))
    clipped = steps(world3.task(method, recipe=recipe.model_copy(update={"clip_norm": most})), world3.complete)
    assert len(free) == len(clipped) == {"mla": 3}.get(method, stages(world3.task(method, recipe=recipe)))
    for one, other in zip(free, clipped, strict=True):
        factor = most / norm_of(one)
        assert norm_of(other) == pytest.approx(most, rel=1e-3)
        for name, gradient in one.items():
            torch.testing.assert_close(other[name], gradient * factor, rtol=1e-3, atol=1e-7)


def test_a_gradient_below_the_norm_is_left_alone(world3):
    recipe = Recipe(epochs=2, batch_size=8, lr=1e-9)
    [free], [clipped] = (
        steps(world3.task("ogm_ge", recipe=recipe.model_copy(update={"clip_norm": most})), world3.complete)
        for most in (None, 1e6)
    )
    assert all(torch.equal(free[name], clipped[name]) for name in free)


def test_ogm_ge_modulates_before_the_gradient_is_clipped(world3):
    """Clipped before, its noise and its coefficients would leave another norm than the recipe's."""
    recipe = Recipe(epochs=2, batch_size=8, clip_norm=0.01)
    [gradients] = steps(world3.task("ogm_ge", recipe=recipe), world3.complete)
    assert norm_of(gradients) == pytest.approx(0.01, rel=1e-3)


def test_mla_projects_the_heads_gradient_before_it_is_clipped(world3, monkeypatch):
    task = world3.task("mla", recipe=Recipe(epochs=2, batch_size=8, clip_norm=0.01))
    monkeypatch.setattr(task, "modify_head_gradient", lambda mean, alpha: task.head.weight.grad.mul_(100))
    gradients = steps(task, world3.complete)
    assert [norm_of(g) for g in gradients] == pytest.approx([0.01] * 3, rel=1e-3)


class Counts(METHODS["concat"]):
    """Counts its steps in the hook, and does not call what it overrides."""

    seen = 0

    def on_before_optimizer_step(self, optimizer):
        self.seen += 1


def test_a_method_that_overrides_the_hook_is_clipped_all_the_same(world3):
    recipe = Recipe(epochs=2, batch_size=8, clip_norm=0.01)
    task = Counts(world3.data.spec, world3.encoders(), recipe)
    [gradients] = steps(task, world3.complete)
    assert task.seen == 1
    assert norm_of(gradients) == pytest.approx(0.01, rel=1e-3)


def test_a_trainers_own_clipping_is_passed_on_or_refused(world3):
    recipe = Recipe(epochs=2, batch_size=8)
    [gradients] = steps(world3.task("sum", recipe=recipe), world3.complete, gradient_clip_val=0.01)
    assert norm_of(gradients) == pytest.approx(0.01, rel=1e-3)
    task = world3.task("sum", recipe=recipe.model_copy(update={"clip_norm": 0.01}))
    with pytest.raises(
        UsageError, match=r"gradient_clip_val=0.01, and the recipe clip_norm=0.01; leave it to the recipe"
    ):
        fit(task, world3.complete, gradient_clip_val=0.01)


# What has no effect is refused


@pytest.mark.parametrize(
    ("setting", "value", "default"),
    [("optimizer", "adamw", "sgd"), ("schedule", "cosine", "step"), ("warmup", 1, 0), ("clip_norm", 1.0, "null")],
)
@pytest.mark.parametrize("method", OWN_OPTIMISER)
def test_a_method_with_its_own_optimiser_refuses_the_recipes(world2, method, setting, value, default):
    with pytest.raises(
        UsageError,
        match=rf"recipe.{setting} is {value!r}, but \w+ is not trained by .* of its own, in which it is {default}$",
    ):
        world2.task(method, recipe=Recipe(epochs=2, **{setting: value}))
    world2.task(method, recipe=Recipe(epochs=2, optimizer="adam", lr=0.1))


class Own(METHODS["concat"]):
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Based(METHODS["concat"]):
    recipe_optimizer = True

    def configure_optimizers(self):
        return super().configure_optimizers()


def test_a_method_of_ones_own_has_to_say_that_the_recipes_optimiser_is_its(world2):
    recipe = Recipe(epochs=2, schedule="constant")
    with pytest.raises(
        UsageError, match=r"recipe.schedule is 'constant', but Own is not trained by the recipe's optimiser"
    ):
        Own(world2.data.spec, world2.encoders(), recipe)
    assert Based(world2.data.spec, world2.encoders(), recipe).recipe == recipe


# Patience


class Scores(METHODS["mla"]):
    """Its epochs score as they are told."""

    def __init__(self, *arguments, scores, pretraining=0):
        super().__init__(*arguments)
        self.scores, self.pretraining_epochs = scores, pretraining

    def on_validation_epoch_end(self):
        self.log("validation/accuracy", self.scores[self.current_epoch])


def epochs_run(world, patience, scores, pretraining=0, **arguments):
    recipe = Recipe(epochs=len(scores), batch_size=8, lr=0.01, patience=patience)
    task = Scores(world.data.spec, world.encoders(), recipe, scores=scores, pretraining=pretraining)
    run = trainer(len(scores), limit_train_batches=1, limit_val_batches=1, **arguments)
    run.fit(task, datamodule=world.data)
    (callback,) = [c for c in run.callbacks if isinstance(c, Patience)]
    return run.current_epoch, callback.stopped_epoch


@pytest.mark.parametrize(
    ("patience", "scores", "pretraining", "expected"),
    [
        (2, [0.5, 0.4, 0.3, 0.9, 0.9], 0, (3, 2)),
        (2, [0.5, 0.4, 0.6, 0.5, 0.6, 0.9], 0, (5, 4)),  # as good as the best is no new best
        (1, [0.1, 0.2, 0.3, 0.3], 0, (4, None)),  # in the last epoch there is nothing left to stop
        (9, [0.5, 0.4, 0.3], 0, (3, None)),
        (2, [0.9, 0.9, 0.9, 0.1, 0.1, 0.1, 0.5], 3, (6, 5)),  # from the first epoch that can be chosen
    ],
)
def test_training_ends_after_so_many_epochs_without_a_new_best(world2, patience, scores, pretraining, expected):
    assert epochs_run(world2, patience, scores, pretraining) == expected


def test_a_trainers_own_early_stopping_stays(world2):
    own = pl.callbacks.EarlyStopping("validation/accuracy", mode="max", patience=1)
    assert epochs_run(world2, 3, [0.5, 0.4, 0.3, 0.2, 0.1, 0.1], callbacks=[own]) == (2, None)


def test_patience_goes_on_where_a_checkpoint_left_it():
    first, second = Patience(2), Patience(2)
    first.best, first.best_epoch = 0.5, 3
    second.load_state_dict(first.state_dict())
    assert (second.best, second.best_epoch) == (0.5, 3)


def test_patience_without_validation_is_refused(world2):
    task = world2.task("sum", recipe=Recipe(epochs=2, batch_size=8, patience=1))
    with pytest.raises(UsageError, match=r"recipe.patience is 1, but the trainer does not validate"):
        fit(task, world2.complete)
