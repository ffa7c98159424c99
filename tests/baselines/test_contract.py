"""What every registered method must hold, on planted data and on every registered data set."""

from dataclasses import replace
from functools import partial
from itertools import combinations
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

from mmbench import testing
from mmbench.data import DATASETS
from mmbench.errors import UsageError
from mmbench.training import build
from mmbench.trial import Trial
from planted import (
    METHODS,
    PREPARED,
    RECIPE,
    batch_of,
    choices,
    fit,
    loader,
    same,
    trainer,
    weights,
)

QUICK = ("planted2", "planted3", "openclipart_features")
SLOW = [
    name for name in (*PREPARED, "handwritten") if name not in QUICK
]  # six views, and encoders that planted3 has too


@pytest.fixture(params=[*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def world(request, make_world):
    return make_world(request.param)


@pytest.fixture(params=list(METHODS))
def method(request):
    return request.param


@pytest.fixture
def make(world, method):
    return partial(world.task, method)


@pytest.fixture
def task(make):
    return make().eval()


# Predictions


def test_logits_are_finite_under_every_pattern(world, make):
    testing.finite_under_every_pattern(world, make)


def test_all_present_equals_no_mask(world, make):
    testing.all_present_equals_no_mask(world, make)


def test_a_prediction_does_not_depend_on_the_rest_of_the_batch(world, make):
    testing.answers_each_sample_alone(world, make)


def test_noise_under_a_missing_mask_changes_no_prediction(world, make):
    testing.does_not_see_what_is_absent(world, make)


def test_a_sample_without_modalities_is_answered_by_the_class_prior(world, task):
    batch = batch_of(world.complete, 3)
    batch.present = batch.present.clone()
    batch.present[1] = False
    batch.present[2, 1:] = False
    prior = torch.tensor(world.data.spec.class_counts) / world.data.spec.num_train
    probabilities = task.predict_step(batch).exp()  # (P, 3, C)
    torch.testing.assert_close(probabilities[:, 1], prior.expand(len(probabilities), -1))
    torch.testing.assert_close(probabilities[1, 2], prior)  # the pattern of the second modality alone
    if len(prior.unique()) > 1:  # else an untrained method may well answer with it
        assert not torch.allclose(probabilities[0, 2], prior)
        assert not torch.allclose(probabilities[-1, 2], prior)


def test_only_methods_with_a_steering_modality_have_scores_that_are_artefacts(method):
    got = METHODS[method].artefact_patterns({}, "title")
    assert got == (("title",) if method in ("film", "bigated") else ())


# Training


@pytest.mark.parametrize("where", ["inputs", "features"])
def test_noise_under_a_missing_mask_changes_nothing_in_training(world, make, where):
    testing.does_not_learn_from_what_is_absent(world, make, where)


def test_every_parameter_gets_a_gradient(world, make):
    testing.drives_every_parameter(world, make)


def test_a_modality_that_is_absent_from_every_sample(world, method):
    present = world.complete.present.clone()
    present[-1] = False  # and one sample that has nothing at all
    for column, modality in enumerate(world.data.modalities):
        mask = present.clone()
        mask[:, column] = False
        task = world.task(method)
        before = weights(task)
        fit(task, replace(world.complete, present=mask), batches=2)
        after = weights(task)
        assert all(value.isfinite().all() for value in after.values())
        assert same(weights(task.encoders[modality]), {
            name.removeprefix(f"encoders.{modality}."): value
            for name, value in before.items()
            if name.startswith(f"encoders.{modality}.")
        })  # fmt: skip
        assert not same(before, after)


@pytest.mark.parametrize("size", [1, 4])
def test_a_modality_that_only_one_sample_has(world, method, size):
    split = world.complete.rows(torch.arange(size).numpy())
    for column in range(len(world.data.modalities)):
        present = torch.ones_like(split.present)
        present[1:, column] = False
        task = world.task(method)
        fit(task, replace(split, present=present))
        assert all(value.isfinite().all() for value in weights(task).values())


def test_a_class_that_no_training_sample_has(world, method):
    present = world.complete.label != 0
    split = world.complete.rows(present.nonzero().squeeze(1).numpy())
    counts = (0, *world.data.spec.class_counts[1:])
    torch.manual_seed(0)
    task = METHODS[method](replace(world.data.spec, class_counts=counts), world.encoders(), RECIPE)
    fit(task, split)
    task.eval()
    batch = batch_of(world.data.splits.test, 8)
    batch.present = batch.present.clone()
    batch.present[0] = False
    log_probs = task.predict_step(batch)
    assert not log_probs.isnan().any()
    assert (log_probs[:, 0, 0] == -torch.inf).all()  # by the class frequencies, it does not exist


def test_the_seed_decides_the_weights(world, method):
    def initial_and_fitted(seed):
        task = world.task(method, seed=seed)
        before = weights(task)
        torch.manual_seed(seed)
        trainer(limit_train_batches=2, limit_val_batches=0).fit(task, datamodule=world.data)
        return before, weights(task)

    first, again, other = initial_and_fitted(0), initial_and_fitted(0), initial_and_fitted(1)
    for one, two, three in zip(first, again, other, strict=True):
        assert same(one, two)
        assert not same(one, three)
    assert not same(*first)


@pytest.mark.parametrize("dataset", PREPARED)
def test_encoders_begin_alike_in_every_method(dataset, make_world, monkeypatch):
    data_class, splits = DATASETS[dataset], make_world(dataset).data.splits
    monkeypatch.setattr(data_class, "load", lambda self: splits)  # once is enough

    def encoders(method, seed):
        trial = Trial(
            dataset=dataset,
            data=data_class.manifest(),
            protocol="clean",
            method=method,
            seed=seed,
            encoders=choices(data_class),
            params={},
            recipe=RECIPE,
        )
        return weights(build(trial)[0].encoders)

    for seed in (0, 1):
        first, *others = [encoders(method, seed) for method in METHODS]
        assert all(same(first, other) for other in others)
    assert not same(first, encoders(next(iter(METHODS)), seed=0))


LINEAR = {
    *("sum", "concat", "late_fusion", "g_blending", "unimodal", "film", "bigated", "ogm_ge", "qmf", "mla", "dmrnet"),
    "multi_loss",
    "agm",
    "arl",
    "dgl",
    "umt",
    "mmpareto",
    "pmr",
    "reconboost",
    *("tfn", "simmlm"),
}


def test_layers_behind_the_encoders_start_from_xavier_weights_or_it_is_refused(make_world, method):
    world, xavier = make_world("planted3"), RECIPE.model_copy(update={"head_init": "xavier"})
    plain, refusal = world.task(method), ""
    try:
        task = world.task(method, recipe=xavier)
    except UsageError as error:
        refusal = str(error)
    if refusal:
        assert "recipe.head_init is 'xavier', but" in refusal
        assert method not in LINEAR
        return
    layers = {
        name: layer
        for name, layer in task.named_modules()
        if isinstance(layer, torch.nn.Linear) and layer.weight.requires_grad and not name.startswith("encoders")
        if isinstance(layer, torch.nn.Linear) and not name.partition(".")[0].endswith("encoders")
    }
    assert layers
    for name, layer in layers.items():
        assert not layer.bias.any(), name
        wide = (2 / sum(layer.weight.shape)) ** 0.5
        assert layer.weight.std().item() == pytest.approx(wide, rel=0.5), name
        assert not torch.equal(layer.weight, plain.get_submodule(name).weight)
    assert same(weights(plain.encoders), weights(task.encoders))


# Lightning


def test_the_whole_way_through_a_trainer(world, method):
    task = world.task(method)
    run = trainer(limit_train_batches=2, limit_val_batches=1)
    run.fit(task, datamodule=world.data)
    names = world.data.modalities
    parts = ["+".join(c) for n in range(1, len(names)) for c in combinations(names, n)]

    def expected(stage):
        return {f"{stage}/loss", f"{stage}/accuracy"} | {f"{stage}/accuracy/{part}" for part in parts}

    staged = {"train/pretraining"} if task.pretraining_epochs else set()
    assert set(run.callback_metrics) == {"train/loss"} | staged | expected("validation")
    assert set(run.validate(task, datamodule=world.data, verbose=False)[0]) == expected("validation")
    tested = run.test(task, datamodule=world.data, verbose=False)[0]
    assert set(tested) == expected("test")
    assert all(0 <= value <= 1 for name, value in tested.items() if "accuracy" in name)
    log_probs = torch.cat(run.predict(task, datamodule=world.data), dim=1)
    test = world.data.splits.test
    assert log_probs.shape == (len(parts) + 1, len(test), len(world.data.classes))
    torch.testing.assert_close(log_probs.exp().sum(dim=-1), torch.ones(len(parts) + 1, len(test)))
    assert (log_probs[-1].argmax(dim=-1) == test.label).float().mean().item() == pytest.approx(tested["test/accuracy"])


def test_a_checkpoint_brings_everything_back(world, method, tmp_path):
    task = world.task(method)
    fitted = fit(task, world.data.splits.train)
    fitted.save_checkpoint(tmp_path / "model.ckpt")
    assert "state_dict" in torch.load(tmp_path / "model.ckpt", weights_only=True)
    anew = world.task(method, seed=1)
    test = loader(world.data.splits.test, 64)
    expected = torch.cat(trainer().predict(task, test), dim=1)
    got = torch.cat(trainer().predict(anew, test, ckpt_path=tmp_path / "model.ckpt", weights_only=True), dim=1)
    assert torch.equal(expected, got)
    assert same(weights(task), weights(anew))


def test_a_checkpoint_alone_brings_the_method_back(world, make):
    testing.comes_back_from_its_checkpoint(world, make)


class SeedSteps(pl.Callback):
    """Makes what is random in a step, dropout say, a function of its number."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        torch.manual_seed(1000 * trainer.current_epoch + batch_idx)


@pytest.mark.filterwarnings("ignore:training was stopped after")  # and goes on
def test_a_fit_goes_on_from_a_checkpoint(world, method, tmp_path):
    split = world.data.splits.train
    at_once, half, rest = world.task(method), world.task(method), world.task(method, seed=1)
    fit(at_once, split, epochs=2, callbacks=[SeedSteps()])
    fit(half, split, epochs=1, callbacks=[SeedSteps()]).save_checkpoint(tmp_path / "half.ckpt")
    fit(rest, split, epochs=2, callbacks=[SeedSteps()], ckpt_path=tmp_path / "half.ckpt")
    if any(p.requires_grad for p in half.parameters()):  # a closed form finds the same in every epoch
        assert not same(weights(half), weights(at_once))
    assert same(weights(rest), weights(at_once))


@pytest.mark.merged
def test_every_method_has_a_test_of_its_own():
    here = Path(__file__).parent
    assert [name for name in METHODS if not (here / f"test_{name}.py").exists()] == []


def test_the_last_batch_may_have_one_sample(make_world, method):
    world = make_world("planted3")
    task = world.task(method)
    one_more = world.data.splits.train.rows(torch.arange(RECIPE.batch_size + 1).numpy())
    fit(task, one_more)
    assert all(value.isfinite().all() for value in weights(task).values() if value.is_floating_point())
