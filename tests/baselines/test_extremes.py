"""Every method in every precision that a trainer has, and on numbers that are too large to compute with."""

import pytest
import torch

from mmbench.data.split import DataSpec, Split
from mmbench.encoders.mlp import Mlp
from mmbench.recipe import Recipe
from mmbench.task import DivergedError
from planted import METHODS, loader, trainer, weights

PRECISIONS = {"bf16-mixed": torch.float32, "64-true": torch.float64, "bf16-true": torch.bfloat16}


@pytest.fixture(params=list(METHODS))
def method(request):
    return request.param


@pytest.mark.filterwarnings("ignore:.*lower precision.*", "ignore:.*bf16.*")
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_method_trains_and_predicts_in_every_precision(world3, method, precision):
    task = world3.task(method)
    run = trainer(precision=precision, limit_train_batches=3, limit_val_batches=1)
    run.fit(task, datamodule=world3.data)
    assert all(value.isfinite().all() for value in weights(task).values())
    assert {p.dtype for p in task.parameters()} == {PRECISIONS[precision]}
    log_probs = torch.cat(run.predict(task, datamodule=world3.data), dim=1)
    assert log_probs.dtype == (torch.float64 if precision == "64-true" else torch.float32)
    sums = log_probs.exp().sum(dim=-1)
    torch.testing.assert_close(sums, torch.ones_like(sums))


def test_mlas_projection_is_as_exact_in_mixed_precision(world2):
    """P h̄ of the same h̄, with autocast on and off."""
    projections = []
    for mixed in (False, True):
        task = world2.task("mla")
        task.head.weight.grad = torch.ones_like(task.head.weight)
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            task.modify_head_gradient(torch.linspace(-1, 1, 8, dtype=torch.bfloat16 if mixed else None), 0.1)
        projections.append(task.projection)
        assert task.head.weight.grad.dtype == torch.float32
    torch.testing.assert_close(*projections, rtol=0, atol=1e-2)  # h̄ itself was rounded
    assert (projections[1] - projections[1].bfloat16().float()).abs().max() > 0  # P was not


def vectors(scale: float) -> Split:
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(60) % 3
    one_hot = 2 * torch.nn.functional.one_hot(label, 6)
    inputs: dict = {m: scale * (torch.randn(60, 6, generator=generator) + one_hot) for m in "ab"}
    present = torch.rand(60, 2, generator=generator) > 0.2
    present[~present.any(dim=1), 0] = True
    return Split(inputs, present, label, torch.arange(60))


def outcome(method: str, scale: float, lr: float) -> bool:
    """Whether a fit on features of this scale came to finite predictions (True) or was told to diverge (False)."""
    spec = DataSpec(("a", "b"), (20, 20, 20), "a", {"a": 6, "b": 6})
    torch.manual_seed(0)
    task = METHODS[method](spec, {m: Mlp(in_dim=6, width=8) for m in "ab"}, Recipe(epochs=3, batch_size=8, lr=lr))
    run, split = trainer(3), vectors(scale)
    try:
        run.fit(task, loader(split), loader(split))
        predicted = torch.cat(run.predict(task, loader(split)), dim=1)
    except DivergedError:
        return False
    return bool((~predicted.isnan()).all())


def test_moderate_numbers_are_learnt_from(method):
    assert outcome(method, scale=1.0, lr=0.01)


@pytest.mark.parametrize(("scale", "lr"), [(1e4, 0.05), (1.0, 1e3), (1e18, 0.05), (3e37, 0.05)])
def test_numbers_that_are_too_large_are_told_as_divergence(method, scale, lr):
    assert outcome(method, scale, lr) in (True, False)  # and no other error


@pytest.mark.parametrize("method", ["dcca", "dccae"])
def test_outputs_that_cannot_be_factorised_are_divergence(method):
    assert not outcome(method, scale=1e18, lr=0.05)
