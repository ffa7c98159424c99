import math
from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mmbench.baselines import METHODS
from mmbench.errors import UsageError
from mmbench.recipe import Recipe
from planted import VectorEncoder, every_pattern, fit, loader, random_features, same, weights

RECIPE = Recipe(lr=0.1, momentum=0.9, weight_decay=0.01, step_size=1, gamma=0.1)
BATCHES = 4


class NaiveSgd:
    """Momentum and weight decay by hand; a parameter without gradient stays as it is."""

    def __init__(self):
        self.velocity = {}

    def step(self, parameters, lr):
        for p in parameters:
            if p.grad is None:
                continue
            g = p.grad + RECIPE.weight_decay * p.detach()
            v = self.velocity.get(p)
            self.velocity[p] = g.clone() if v is None else RECIPE.momentum * v + g
            p.data -= lr * self.velocity[p]


def naive_projection(P, h, alpha, literal):
    """Eq. 4 and 5, number by number; or the release's division element by element and Frobenius norm."""
    size = range(len(h))
    Ph = [sum(P[i][k] * h[k] for k in size) for i in size]
    if literal:
        P = [[P[i][j] - Ph[i] * Ph[j] / (alpha + Ph[i] * h[j]) for j in size] for i in size]
        norm = math.sqrt(sum(P[i][j] ** 2 for i in size for j in size))
        return [[P[i][j] / norm for j in size] for i in size]
    denominator = alpha + sum(h[k] * Ph[k] for k in size)
    q = [Ph[i] / denominator for i in size]
    hP = [sum(h[k] * P[k][j] for k in size) for j in size]
    return [[P[i][j] - q[i] * hP[j] for j in size] for i in size]


def naive_fit(task, split, kind, epochs):
    """The whole fit in plain loops: M optimiser steps a batch; returns P."""
    optimizer, step, lr = NaiveSgd(), 0, RECIPE.lr
    P = torch.eye(8).tolist()
    task.train()
    for _ in range(epochs):
        for number, batch in zip(range(BATCHES), loader(split), strict=False):
            alpha = 0.1 ** (1 + number / BATCHES)
            features = {}
            for column, m in enumerate(task.modalities):
                rows = [i for i in range(len(batch)) if batch.present[i, column]]
                value = batch.inputs[m]
                own = value[rows] if isinstance(value, torch.Tensor) else {name: v[rows] for name, v in value.items()}
                features[m] = (rows, task.encoders[m](own)) if rows else (rows, None)
            for m in task.modalities:
                rows, h = features[m]
                if not rows:
                    continue
                for p in task.parameters():
                    p.grad = None
                F.cross_entropy(h @ task.head.weight.T + task.head.bias, batch.label[rows]).backward()
                if kind and step > 0:
                    mean = [sum(h[i, d].item() for i in range(len(rows))) / len(rows) for d in range(8)]
                    P = naive_projection(P, mean, alpha, kind == "literal")
                    g = task.head.weight.grad.tolist()
                    task.head.weight.grad = torch.tensor(
                        [[sum(P[d][k] * row[k] for k in range(8)) for d in range(8)] for row in g], dtype=torch.double
                    )
                optimizer.step([*task.encoders[m].parameters(), *task.head.parameters()], lr)
                step += 1
        lr *= RECIPE.gamma  # step_size is 1
    return torch.tensor(P, dtype=torch.double)


def no_dropout(task):
    for module in task.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return task


@pytest.mark.parametrize("name", ["planted2", "planted3"])
# The literal variant divides by numbers near zero: rounding errors grow so fast that a second epoch would not compare.
@pytest.mark.parametrize(("kind", "epochs"), [(True, 2), (False, 2), ("literal", 1)])
def test_a_fit_is_the_papers_loop(make_world, name, kind, epochs):
    split = make_world(name).data.splits.train.rows(torch.arange(8 * BATCHES).numpy())
    split.present[8:16, 0] = False  # one batch without the first modality
    split.present[8:16, 1] = True
    split.inputs["sensor"] = split.inputs["sensor"].double()
    task = no_dropout(make_world(name).task("mla", recipe=RECIPE, head_gradient_modification=kind)).double()
    naive = deepcopy(task)
    begun = weights(task)
    run = fit(task, split, epochs=epochs, batches=BATCHES)
    P = naive_fit(naive, split, kind, epochs)
    assert run.global_step == epochs * (BATCHES * len(task.modalities) - 1)
    torch.testing.assert_close(task.projection, P)
    assert torch.equal(P, torch.eye(8, dtype=torch.double)) == (kind is False)
    got, expected = weights(task), weights(naive)
    got.pop("projection"), expected.pop("projection")
    torch.testing.assert_close(got, expected)
    assert not same(got, begun)


def test_the_projection_is_a_regularised_inverse(world2):
    """Sherman–Morrison: with a constant α, P = α (α I + Σ h̄ h̄ᵀ)⁻¹."""
    task = world2.task("mla").double()
    alpha, total = 0.03, torch.zeros(8, 8, dtype=torch.double)
    for seed in range(5):
        mean = torch.randn(8, generator=torch.Generator().manual_seed(seed), dtype=torch.double)
        total += torch.outer(mean, mean)
        task.head.weight.grad = torch.eye(3, 8, dtype=torch.double)
        task.modify_head_gradient(mean, alpha)
    expected = alpha * torch.linalg.inv(alpha * torch.eye(8, dtype=torch.double) + total)
    torch.testing.assert_close(task.projection, expected)
    torch.testing.assert_close(task.head.weight.grad, expected[:3])  # I P, on the side of the features


def test_the_first_step_is_not_projected_and_alpha_falls_within_an_epoch(world3, monkeypatch):
    task = world3.task("mla")
    alphas = []
    monkeypatch.setattr(task, "modify_head_gradient", lambda mean, alpha: alphas.append(alpha))
    fit(task, world3.complete, epochs=2, batches=2)
    assert alphas == pytest.approx([0.1] * 2 + [0.1**1.5] * 3 + [0.1] * 3 + [0.1**1.5] * 3)


@pytest.mark.parametrize(("decay", "expected"), [(False, [0.03] * 2), (True, [0.03, 0.03 * 0.1**0.5])])
def test_alpha_and_its_decay_are_arguments(world2, monkeypatch, decay, expected):
    task = world2.task("mla", alpha=0.03, decay=decay)
    alphas = []
    monkeypatch.setattr(task, "modify_head_gradient", lambda mean, alpha: alphas.append(alpha))
    fit(task, world2.complete, epochs=1, batches=2)
    assert alphas == pytest.approx([alpha for alpha in expected for _ in task.modalities][1:])


def test_a_step_moves_one_encoder_and_the_head(world3, monkeypatch):
    task = world3.task("mla")
    moved, before = [], {}

    def changes():
        now = weights(task)
        parts = {name.split(".")[1] if name.startswith("encoders") else "head" for name in now
                 if name in before and "running" not in name and "num_batches" not in name
                 and not name.startswith("projection") and not torch.equal(before[name], now[name])}  # fmt: skip
        before.update(now)
        return parts

    configure = task.configure_optimizers

    def configure_optimizers():
        (optimizer,), schedulers = configure()
        optimizer.register_step_post_hook(lambda *_: moved.append(changes()))
        return [optimizer], schedulers

    monkeypatch.setattr(task, "configure_optimizers", configure_optimizers)
    changes()
    fit(task, world3.complete, batches=2)
    assert moved == [{"sensor", "head"}, {"picture", "head"}, {"words", "head"}] * 2


@pytest.mark.parametrize("dynamic", [True, False])
def test_fusion(world3, dynamic):
    task = world3.task("mla", dynamic_fusion=dynamic).double()
    with torch.no_grad():
        task.head.weight *= 5
    present = every_pattern(3)
    features = random_features(task, len(present))
    logits = task.fuse(features, present)
    for i, row in enumerate(present):
        parts = [
            (task.head.weight @ features[m][i] + task.head.bias).tolist()
            for m, here in zip(task.modalities, row, strict=True)
            if here
        ]
        expected = torch.zeros(3, dtype=torch.double)
        entropies = []
        for z in parts:
            p = [math.exp(v) / sum(map(math.exp, z)) for v in z]
            entropies.append(-sum(v * math.log(v) for v in p))
        for z, e in zip(parts, entropies, strict=True):
            share = math.exp(max(entropies) - e) / sum(math.exp(max(entropies) - v) for v in entropies)
            expected += (share if dynamic else 1 / len(parts)) * torch.tensor(z, dtype=torch.double)
        torch.testing.assert_close(logits[i], expected)


def test_encoders_must_be_equally_wide(world2):
    encoders = {**world2.encoders(), "sensor": VectorEncoder(out_dim=7)}
    with pytest.raises(UsageError, match=r"same out_dim; got \{'sensor': 7, 'picture': 8\}"):
        METHODS["mla"](world2.data.spec, encoders)
