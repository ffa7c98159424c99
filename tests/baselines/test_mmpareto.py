import math

import pytest
import torch
from scipy.optimize import minimize_scalar
from torch import nn

from mmbench.baselines.mmpareto import integrate, pareto_weight
from mmbench.recipe import Recipe
from planted import fit, loader, same, weights

GAMMA = 1.5


def naive_weight(a, b):
    """α of two lists of numbers."""
    aa, ab, bb = (sum(x * y for x, y in zip(*two, strict=True)) for two in ((a, a), (a, b), (b, b)))
    if ab > 0:
        return 0.5
    if ab >= aa:
        return 0.999
    if ab >= bb:
        return 0.001
    return (bb - ab) / (aa + bb - 2 * ab)


def naive_integrated(a, b, gamma=GAMMA):
    """γh of an encoder's tensors, number by number."""
    alpha = naive_weight([x for t in a for x in t.flatten().tolist()], [x for t in b for x in t.flatten().tolist()])
    integrated = []
    for one, other in zip(a, b, strict=True):
        pairs = list(zip(one.flatten().tolist(), other.flatten().tolist(), strict=True))
        h = [2 * alpha * x + 2 * (1 - alpha) * y for x, y in pairs]
        length, together = math.hypot(*h), math.hypot(*[x + y for x, y in pairs])
        stretch = together / length if together > length else 1.0
        integrated.append(torch.tensor([gamma * stretch * x for x in h], dtype=torch.double).view_as(one))
    return integrated


def vectors(seed, size=7, cosine=None):
    """Two vectors, of the given sign of their cosine."""
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(2, size, generator=generator, dtype=torch.double)
    b = b * (0.1 + 5 * torch.rand((), generator=generator))
    return (a, -b if cosine is not None and (a @ b > 0) != (cosine > 0) else b)


@pytest.mark.parametrize("seed", range(10))
def test_in_conflict_the_shortest_vector_between_both_is_followed(seed):
    a, b = vectors(seed, cosine=-1)
    alpha = pareto_weight(a @ a, a @ b, b @ b).item()
    found = minimize_scalar(
        lambda t: float((t * a + (1 - t) * b).norm() ** 2), bounds=(0, 1), method="bounded", options={"xatol": 1e-10}
    )
    assert alpha == pytest.approx(found.x, abs=1e-6)
    shortest = alpha * a + (1 - alpha) * b
    assert shortest @ a > 0, "it helps the fused loss"
    assert shortest @ b > 0, "and the modality's own"


def test_where_they_agree_both_weigh_the_same_and_where_one_is_zero_the_other_shows_the_way():
    a, b = vectors(0, cosine=1)
    nothing = torch.zeros_like(a)
    for one, other, expected in [(a, b, 0.5), (nothing, b, 0.999), (a, nothing, 0.001), (nothing, nothing, 0.999)]:
        assert pareto_weight(one @ one, one @ other, other @ other).item() == pytest.approx(expected)
        got = [other.clone()]
        integrate([one], got, GAMMA)
        torch.testing.assert_close(got[0], GAMMA * (one + other))


@pytest.mark.parametrize("seed", range(10))
def test_gradients_are_integrated_as_the_equations_say(seed):
    (a, b), shapes = vectors(seed, size=24, cosine=-1 if seed % 2 else 1), [(2, 3), (5,), (3, 2, 2), (1,)]
    sizes = [math.prod(shape) for shape in shapes]
    parts = [[t.view(shape) for t, shape in zip(v.split(sizes), shapes, strict=True)] for v in (a, b)]
    got = [t.clone() for t in parts[1]]
    integrate(parts[0], got, GAMMA)
    torch.testing.assert_close(got, naive_integrated(*parts))
    for g, one, other in zip(got, *parts, strict=True):
        assert g.norm() >= GAMMA * (one + other).norm() * (1 - 1e-9)


RECIPE = Recipe(lr=0.1, momentum=0.9, weight_decay=0.01, step_size=1, gamma=0.1, clip_norm=0.5)
BATCHES = 3


def naive_gradients(task, batch):
    """The sum of all losses, and name -> gradient, from a backward pass of every loss, as the release makes them."""
    found, count = {}, len(task.modalities)
    fused, unimodal = task.losses(task.encode(batch), batch)
    for loss in range(count + 1):  # the fused one, and of each modality
        task.zero_grad()
        [fused, *unimodal][loss].backward(retain_graph=True)
        found[loss] = {name: None if p.grad is None else p.grad.clone() for name, p in task.named_parameters()}
    gradients = {}
    for name in found[0]:
        own = [found[loss][name] for loss in range(count + 1) if found[loss][name] is not None]
        gradients[name] = sum(own) if own else None
    for number, m in enumerate(task.modalities, start=1):
        names = [n for n in found[0] if n.startswith(f"encoders.{m}.") and found[0][n] is not None]
        pairs = [[found[loss][n] for n in names] for loss in (0, number)]
        gradients |= dict(zip(names, naive_integrated(*pairs), strict=True))
    return fused.item() + sum(unimodal.tolist()), gradients


def naive_fit(task, split, epochs):
    """Momentum, weight decay, clipping and the schedule by hand; returns the last epoch's mean loss."""
    velocity, lr = {}, RECIPE.lr
    task.train()
    for _ in range(epochs):
        losses = []
        for _, batch in zip(range(BATCHES), loader(split), strict=False):
            loss, found = naive_gradients(task, batch)
            losses.append(loss)
            gradients = {name: g for name, g in found.items() if g is not None}
            norm = math.sqrt(sum(g.square().sum().item() for g in gradients.values()))
            for name, p in task.named_parameters():
                if name in gradients:
                    g = gradients[name] * min(1.0, RECIPE.clip_norm / (norm + 1e-6)) + RECIPE.weight_decay * p.detach()
                    velocity[name] = g if name not in velocity else RECIPE.momentum * velocity[name] + g
                    p.data -= lr * velocity[name]
        lr *= RECIPE.gamma
    return sum(losses) / BATCHES


@pytest.mark.parametrize("name", ["planted2", "planted3"])
def test_a_fit_is_the_naive_loop(make_world, name):
    world = make_world(name)
    split = world.data.splits.train.rows(torch.arange(8 * BATCHES).numpy())
    split.present[8:16, 0] = False  # a batch without the first modality
    split.present[8:16, 1] = True
    split.inputs["sensor"] = split.inputs["sensor"].double()
    tasks = [world.task("mmpareto", recipe=RECIPE).double() for _ in range(2)]
    for task in tasks:
        for module in task.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
    begun = weights(tasks[0])
    run = fit(tasks[0], split, epochs=2, batches=BATCHES)
    assert run.global_step == 2 * BATCHES
    loss = naive_fit(tasks[1], split, epochs=2)
    assert run.callback_metrics["train/loss"].item() == pytest.approx(loss)
    torch.testing.assert_close(weights(tasks[0]), weights(tasks[1]))
    assert not same(weights(tasks[0]), begun)


def test_frozen_parameters_stay_and_the_rest_of_their_encoder_moves(world2):
    task = world2.task("mmpareto")
    first, last = task.encoders["sensor"][0], task.encoders["sensor"][2]
    first.requires_grad_(False)
    task.encoders["picture"].requires_grad_(False)
    before = weights(task)
    fit(task, world2.complete, batches=2)
    assert torch.equal(first.weight, before["encoders.sensor.0.weight"])
    assert not torch.equal(last.weight, before["encoders.sensor.2.weight"])
    assert all(torch.equal(p, before[f"encoders.picture.{n}"]) for n, p in task.encoders["picture"].named_parameters())
