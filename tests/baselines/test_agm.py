import math
from itertools import permutations

import pytest
import torch
from torch.nn import functional as F

from mmbench.baselines.agm import Agm
from planted import batch_of, every_pattern, random_features


def naive_contributions(task, features, present):
    """What each modality adds, mean over all orders in which they come; nothing is worth 0: (M, B, C)."""
    count, (size, _) = len(task.modalities), present.shape
    found = torch.zeros(count, size, task.spec.num_classes, dtype=torch.double)
    orders = list(permutations(range(count)))
    for i in range(size):
        one = {m: f[i : i + 1] for m, f in features.items()}
        for order in orders:
            shown, before = torch.zeros(1, count, dtype=torch.bool), torch.zeros(task.spec.num_classes)
            for m in order:
                shown[0, m] = present[i, m]
                after = task.fuse(one, shown)[0] if shown.any() else torch.zeros(task.spec.num_classes)
                found[m, i] += (after - before) / len(orders)
                before = after
    return found


def naive_factors(contributions, batch, usual, alpha):
    """κ, sample by sample, of running means that all modalities have."""
    scores = {}
    for m, phi in enumerate(contributions):
        surprise = [
            -math.log(max(z.softmax(dim=0)[y].item(), 1e-8))
            for z, y, here in zip(phi, batch.label, batch.present[:, m], strict=True)
            if here
        ]
        if surprise:
            scores[m] = sum(surprise) / len(surprise)
    factors = []
    for m in range(len(contributions)):
        others = [n for n in scores if n != m]
        if m not in scores or not others:
            factors.append(1.0)
            continue
        lead = math.exp(sum(scores[n] - scores[m] for n in others) / len(others))
        usual_lead = math.exp(sum(usual[n] - usual[m] for n in others) / len(others))
        factors.append(math.exp(alpha * min(usual_lead - lead, 10.0)))
    return factors, scores


@pytest.mark.parametrize("name", ["planted2", "planted3"])
@pytest.mark.parametrize("hidden", [None, 5])
def test_contributions_are_means_over_all_orders(make_world, name, hidden):
    task = make_world(name).task("agm", hidden=hidden).double()
    present = every_pattern(len(task.modalities))
    features = random_features(task, len(present))
    got = task.contributions(features, present)
    torch.testing.assert_close(got, naive_contributions(task, features, present))
    some = present.any(dim=1)
    torch.testing.assert_close(got.sum(dim=0)[some], task.fuse(features, present)[some])
    parts = task.modality_logits(features)
    if hidden is None:  # the prediction is a sum, of which each modality has its part
        torch.testing.assert_close(got, (parts * present.unsqueeze(-1)).transpose(0, 1))
    else:
        assert parts.shape[-1] == 5


def test_two_modalities_are_the_release(world2):
    task = world2.task("agm", hidden=4).double()
    features, both = random_features(task, 6), torch.ones(6, 2, dtype=torch.bool)
    first, second = both & torch.tensor([True, False]), both & torch.tensor([False, True])
    total, one, other = (task.fuse(features, shown) for shown in (both, first, second))
    expected = torch.stack([0.5 * (total - other + one), 0.5 * (total - one + other)])
    torch.testing.assert_close(task.contributions(features, both), expected)


@pytest.mark.parametrize("name", ["planted2", "planted3"])
@pytest.mark.parametrize("alpha", [0.3, 1.0])
@pytest.mark.parametrize("absent", [False, True])
def test_coefficients_are_those_of_the_equations(make_world, name, alpha, absent):
    world = make_world(name)
    task = world.task("agm", alpha=alpha).double().eval()
    usual = {m: 0.5 + 0.4 * m for m in range(len(task.modalities))}
    task.usual += torch.tensor(list(usual.values()))
    task.batches += 7
    batch = batch_of(world.data.splits.train, 16)
    if absent:
        batch.present = batch.present.clone()
        batch.present[:, -1] = False
    contributions = 4 * task.contributions(random_features(task, 16), batch.present).detach()
    contributions[0, 0] = 50 * F.one_hot((batch.label[0] + 1) % 3, 3)  # a probability below 1e-8
    expected, scores = naive_factors(contributions, batch, usual, alpha)
    got = task.coefficients(contributions, batch)
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.double))
    assert absent or min(expected) < 0.95 < 1.05 < max(expected)
    means = [(7 * usual[m] + scores[m]) / 8 if m in scores else usual[m] for m in usual]
    torch.testing.assert_close(task.usual, torch.tensor(means, dtype=torch.double))
    assert task.batches.tolist() == [8.0 if m in scores else 7.0 for m in usual]


def test_a_modality_that_is_ahead_of_what_it_usually_is_is_slowed(world2):
    task = world2.task("agm")
    batch = batch_of(world2.complete, 8)
    right, wrong = 3 * F.one_hot(batch.label, 3).float(), torch.zeros(8, 3)
    assert task.coefficients(torch.stack([wrong, wrong]), batch).tolist() == [
        1.0,
        1.0,
    ]  # nothing is usual yet, and they are equal
    ahead, behind = task.coefficients(torch.stack([right, wrong]), batch).tolist()
    assert ahead < 1 < behind
    bound = task.coefficients(torch.stack([-9 * right, 9 * right]), batch)
    assert bound.isfinite().all()
    task.usual.copy_(torch.tensor([0.0, 9.0]))
    assert task.coefficients(torch.stack([wrong, wrong]), batch)[0].item() == pytest.approx(math.exp(10))


@pytest.mark.parametrize(("epoch", "modulated"), [(1, False), (2, True), (4, True), (5, False)])
def test_gradients_are_scaled_on_their_way_through_the_contributions(world3, monkeypatch, epoch, modulated):
    monkeypatch.setattr(Agm, "current_epoch", epoch)
    batch = batch_of(world3.data.splits.train, 16)
    plain, task = world3.task("concat").eval(), world3.task("agm", start_epoch=2, end_epoch=4).eval()
    factors = torch.tensor([0.25, 0.5, 3.0])
    monkeypatch.setattr(task, "coefficients", lambda contributions, batch: factors)
    losses = [one.training_step(batch, 0) for one in (plain, task)]
    torch.testing.assert_close(*losses)
    for loss in losses:
        loss.backward()
    if not modulated:
        factors = torch.ones(3)
    for k, m in zip(factors, task.modalities, strict=True):
        for one, other in zip(task.encoders[m].parameters(), plain.encoders[m].parameters(), strict=True):
            torch.testing.assert_close(one.grad, k * other.grad)
    columns = torch.cat([k.expand(d) for k, d in zip(factors, task.dims.values(), strict=True)])
    torch.testing.assert_close(task.head.weight.grad, plain.head.weight.grad * columns)


def test_running_means_are_those_of_all_batches(world2):
    task, batch = world2.task("agm").eval(), batch_of(world2.complete, 8)
    scores = []
    for scale in (1.0, 2.0, 5.0):
        contributions = scale * torch.stack([F.one_hot(batch.label, 3).float(), torch.zeros(8, 3)])
        scores.append(naive_factors(contributions, batch, {0: 0.0, 1: 0.0}, 1.0)[1])
        task.coefficients(contributions, batch)
    expected = torch.tensor([sum(s[m] for s in scores) / 3 for m in (0, 1)])
    torch.testing.assert_close(task.usual, expected)


def test_a_modality_that_comes_late_has_no_usual_lead_yet(world2):
    task, batch = world2.task("agm").eval(), batch_of(world2.complete, 8)
    contributions = torch.stack([F.one_hot(batch.label, 3).float(), torch.zeros(8, 3)])
    batch.present = batch.present.clone()
    batch.present[:, 1] = False
    assert task.coefficients(contributions, batch).tolist() == [1.0, 1.0]  # alone, and absent
    batch.present[:, 1] = True
    expected, _ = naive_factors(contributions, batch, {0: 0.0, 1: 0.0}, 1.0)  # τ is 1, as in the first batch
    torch.testing.assert_close(task.coefficients(contributions, batch), torch.tensor(expected))
