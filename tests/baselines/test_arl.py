import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mmbench.baselines.arl import Arl, scale_gradients
from planted import batch_of, every_pattern, random_features


def naive_own(task, features, i, m):
    """u_m of a sample: the head on that modality, zeros in the place of the others."""
    parts = [features[n][i] if n == m else torch.zeros_like(features[n][i]) for n in task.modalities]
    return task.head.weight @ torch.cat(parts) + task.head.bias


def naive_shares(task, features, present, temperature=8.0):
    """ω, sample by sample; 0 for a modality that nobody has."""
    entropies, sizes = {}, {}
    for column, m in enumerate(task.modalities):
        rows = [naive_own(task, features, i, m).tolist() for i in range(len(present)) if present[i, column]]
        if not rows:
            continue
        total, magnitude = 0.0, 0.0
        for u in rows:
            top = math.log(sum(map(math.exp, u)))
            total += sum(-math.exp(z - top) * (z - top) for z in u)
            magnitude += sum(map(abs, u))
        entropies[m], sizes[m] = total / len(rows), magnitude / len(rows)
    certain = {m: 1 / max(h / sum(entropies.values()), 0.6 / len(entropies)) for m, h in entropies.items()}
    scores = {}
    for m in entropies:
        others = sum(size for n, size in sizes.items() if n != m) / sum(sizes.values())
        scores[m] = math.exp(temperature * others * certain[m] / sum(certain.values()))
    return [scores.get(m, 0.0) / sum(scores.values()) for m in task.modalities]


def imbalanced(world, **arguments):
    """A task in float64 whose modalities differ, and features."""
    task = world.task("arl", start_epoch=0, **arguments).double().eval()
    with torch.no_grad():
        task.head.weight[:, : task.dims[task.modalities[0]]] *= 10
    return task, random_features(task, 16)


@pytest.mark.parametrize("name", ["planted2", "planted3"])
@pytest.mark.parametrize("temperature", [1.0, 8.0])
def test_shares_are_those_of_the_equations(make_world, name, temperature):
    world = make_world(name)
    task, features = imbalanced(world, temperature=temperature)
    present = batch_of(world.data.splits.train, 16).present
    assert not present.all()
    expected = naive_shares(task, features, present, temperature)
    assert max(expected) - min(expected) > 0.02
    got = task.shares(task.modality_logits(features), present)
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.double))


def test_a_modality_that_nobody_has_takes_no_part(world3):
    task, features = imbalanced(world3)
    present = torch.ones(16, 3, dtype=torch.bool)
    present[:, 1] = False
    got = task.shares(task.modality_logits(features), present)
    torch.testing.assert_close(got, torch.tensor(naive_shares(task, features, present), dtype=torch.double))
    assert got[1] == 0
    assert task.shares(task.modality_logits(features), present & False).tolist() == [0, 0, 0]


def test_what_is_shown_is_answered_by_the_head_on_it_with_all_of_its_bias(world3):
    task, features = imbalanced(world3)
    present = every_pattern(3)
    logits = task.fuse({m: f[: len(present)] for m, f in features.items()}, present)
    for i, row in enumerate(present):
        shown = [naive_own(task, features, i, m) for m, here in zip(task.modalities, row, strict=True) if here]
        if shown:
            torch.testing.assert_close(logits[i], sum(shown) - (len(shown) - 1) * task.head.bias)


@pytest.mark.parametrize(
    ("epoch", "weight", "scaled"), [(0, 1.0, False), (5, 1.0, False), (6, 2.5, True), (9, 2.5, True)]
)
def test_the_loss_and_the_scaling_of_gradients_begin_with_their_epoch(world3, monkeypatch, epoch, weight, scaled):
    monkeypatch.setattr(Arl, "current_epoch", epoch)
    task = world3.task("arl", gamma=2.5).double().eval()
    batch = batch_of(world3.data.splits.train, 16)
    features = random_features(task, 16)
    encode, task.encode = task.encode, lambda _: features
    fused = F.cross_entropy(task.fuse(features, batch.present), batch.label)
    own = []
    for column, m in enumerate(task.modalities):
        rows = [i for i in range(16) if batch.present[i, column]]
        own.append(sum(F.cross_entropy(naive_own(task, features, i, m), batch.label[i]) for i in rows) / len(rows))
    torch.testing.assert_close(task.training_step(batch, 0), fused + weight * sum(own))

    task.encode = encode
    batch.inputs["sensor"] = batch.inputs["sensor"].double()
    task.training_step(batch, 0).backward()
    before = {name: p.grad.clone() for name, p in task.named_parameters()}
    task.on_before_optimizer_step(None)
    factors = [1 + w for w in naive_shares(task, task.encode(batch), batch.present)] if scaled else [1.0] * 3
    for name, p in task.named_parameters():
        number = next((n for n, m in enumerate(task.modalities) if name.startswith(f"encoders.{m}.")), None)
        torch.testing.assert_close(p.grad, before[name] * (1.0 if number is None else factors[number]))


def test_all_gradients_of_an_encoder_are_scaled_and_those_of_no_other():
    encoders = nn.ModuleDict({m: nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)) for m in ("a", "b", "c")})
    for encoder in (encoders["a"], encoders["b"]):
        encoder(torch.randn(5, 3)).square().sum().backward()
    encoders["b"][0].weight.grad = None  # as of what is frozen
    before = {name: p.grad.clone() for name, p in encoders.named_parameters() if p.grad is not None}
    scale_gradients(encoders, torch.tensor([0.5, 3.0, 7.0]))
    after = {name: p.grad for name, p in encoders.named_parameters() if p.grad is not None}
    assert before.keys() == after.keys()
    assert len(before) == 7
    for name, gradient in after.items():
        torch.testing.assert_close(gradient, before[name] * (0.5 if name.startswith("a") else 3.0))
