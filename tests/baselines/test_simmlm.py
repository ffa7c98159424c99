from collections import Counter
from dataclasses import replace
from itertools import combinations
from math import sqrt

import pytest
import torch

from mmbench.recipe import Recipe
from planted import batch_of, every_pattern, naive_layers, random_features

BALANCED = Recipe(epochs=2, batch_size=8, class_weights="balanced")
PLAIN = BALANCED.model_copy(update={"class_weights": "none"})


def naive_mixture(task, features, i, shown):
    """The logits of sample i from the modalities ``shown``, by number."""
    names = task.modalities
    joint = torch.cat([features[m][i] * (c in shown) for c, m in enumerate(names)])
    scores = naive_layers(task.gate, joint)
    each = len(scores) // len(names)  # one number a class, or one
    logits = []
    for k in range(3):
        gates = {c: scores[c * each + min(k, each - 1)].exp() for c in shown}
        outputs = {
            c: task.experts[names[c]].weight[k] @ features[names[c]][i] + task.experts[names[c]].bias[k] for c in shown
        }
        logits.append(sum(gates[c] * outputs[c] for c in shown) / sum(gates.values()))
    return torch.stack(logits)


def naive_loss(logits, label):
    return logits.exp().sum().log() - logits[label]


@pytest.mark.parametrize("class_wise", [True, False])
def test_the_gate_mixes_the_experts_of_what_is_shown(world3, class_wise):
    task = world3.task("simmlm", class_wise=class_wise).double()
    assert task.gate[-1].out_features == (9 if class_wise else 3)
    present = every_pattern(3)
    features = random_features(task, len(present))
    logits = task.fuse(features, present)
    for i, row in enumerate(present):
        shown = row.nonzero().squeeze(1).tolist()
        if shown:
            torch.testing.assert_close(logits[i], naive_mixture(task, features, i, shown))
        if len(shown) == 1:
            expert = task.experts[task.modalities[shown[0]]]
            torch.testing.assert_close(logits[i], expert(features[task.modalities[shown[0]]][i]))
    assert logits.isfinite().all()


PAIRS = [((0, 1, 2), (1,)), ((0, 1), (0,)), ((0, 2), (2,)), ((0, 1, 2), (0, 2)), ((1,), ()), ((), ())]


def step(world, recipe, **arguments):
    """A task in float64 in its second stage, whose pairs are PAIRS; its batch, and its features."""
    task = world.task("simmlm", recipe=recipe, pretraining=0.0, **arguments).double()
    batch = batch_of(world.complete, len(PAIRS))
    features = random_features(task, len(PAIRS))
    pair = torch.tensor([[[c in half for c in range(3)] for half in halves] for halves in PAIRS]).transpose(0, 1)
    task.encode, task.draw_pair = lambda batch: features, lambda present: pair
    return task, batch, features


@pytest.mark.parametrize("recipe", [PLAIN, BALANCED], ids=["plain", "balanced"])
def test_loss_and_gradients_of_the_second_stage(world3, recipe):
    task, batch, features = step(world3, recipe, ranking_weight=0.7)
    torch.manual_seed(1)
    torch.nn.init.normal_(task.gate[-1].weight)  # so that a part of the pairs is in the wrong order
    weight = [1.0, 1.0, 1.0] if task.class_weights is None else task.class_weights.tolist()
    losses, weights, violations = [], [], []
    for i, halves in enumerate(PAIRS):
        own = [naive_loss(naive_mixture(task, features, i, half), batch.label[i]) for half in halves if half]
        losses += [weight[batch.label[i]] * loss for loss in own]
        weights += [weight[batch.label[i]]] * len(own)
        if len(own) == 2:
            violations.append(max(own[0] - own[1], torch.zeros((), dtype=torch.double)))
    assert 0 < sum(v > 0 for v in violations) < 4
    expected = sum(losses) / sum(weights) + 0.7 * sum(violations) / 4
    got = task.training_step(batch, 0)
    torch.testing.assert_close(got, expected)
    wanted = [*task.gate.parameters(), *task.experts.parameters(), *features.values()]
    torch.testing.assert_close(torch.autograd.grad(got, wanted), torch.autograd.grad(expected, wanted))


def test_the_first_stage_trains_each_expert_alone(world3):
    task = world3.task("simmlm").double()
    batch = batch_of(world3.complete, 8)
    batch.present = every_pattern(3)
    features = random_features(task, 8)
    task.encode = lambda batch: features
    expected = 0.0
    for c, m in enumerate(task.modalities):
        rows = [i for i in range(8) if batch.present[i, c]]
        expected += sum(naive_loss(task.experts[m](features[m][i]), batch.label[i]) for i in rows) / len(rows)
    torch.testing.assert_close(task.training_step(batch, 0), expected)


@pytest.mark.parametrize("missing", [None, 1], ids=["three", "two"])
def test_pairs_are_drawn_as_often_as_by_the_releases_trials(world3, missing):
    """Any two subsets, until one lies within the other and the first is not everything."""
    has = [c for c in range(3) if c != missing]
    subsets = [set(s) for size in range(1, len(has) + 1) for s in combinations(has, size)]
    expected = Counter()
    for one in subsets:
        for other in subsets:
            if one != set(has) and (one < other or other < one):
                more, fewer = (one, other) if other < one else (other, one)
                expected[tuple(sorted(more)), tuple(sorted(fewer))] += 1
    size, total = 6_000, expected.total()
    present = torch.ones(size, 3, dtype=torch.bool)
    if missing is not None:
        present[:, missing] = False
    torch.manual_seed(0)
    more, fewer = world3.task("simmlm").draw_pair(present)
    numbers = [[tuple(row.nonzero().squeeze(1).tolist()) for row in half] for half in (more, fewer)]
    got = Counter(zip(*numbers, strict=True))
    assert set(got) == set(expected)
    for pair, count in expected.items():
        share = count / total
        assert abs(got[pair] / size - share) < 5 * sqrt(share * (1 - share) / size), pair


def test_one_modality_is_shown_and_has_no_pair(world3):
    present = torch.cat([torch.eye(3), torch.zeros(1, 3)]).bool()
    more, fewer = world3.task("simmlm").draw_pair(present)
    assert torch.equal(more, present)
    assert not fewer.any()


@pytest.mark.parametrize("here", [True, False])
def test_a_batch_without_a_pair(world3, here):
    task = world3.task("simmlm", pretraining=0.0, ranking_weight=1.0)
    batch = batch_of(world3.complete, 3)
    batch = replace(batch, present=torch.eye(3).bool() & here)
    loss = task.training_step(batch, 0)
    loss.backward()
    assert (loss > 0) == here
    assert all(p.grad.isfinite().all() for p in task.gate.parameters())
