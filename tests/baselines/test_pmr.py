from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from mmbench.baselines.pmr import Pmr
from mmbench.recipe import Recipe
from planted import batch_of, fit, random_features

ALL_KNOWN = ((True, True, True),) * 3  # class × modality


@pytest.fixture
def step(make_world, monkeypatch):
    """A method in float64 with made-up prototypes, a batch with gaps, features, and the loss of a step."""

    def make(name="planted3", known=ALL_KNOWN, epoch=1, size=18, present=None, recipe=None, **arguments):
        world = make_world(name)
        monkeypatch.setattr(Pmr, "current_epoch", epoch)
        task = world.task("pmr", **({} if recipe is None else {"recipe": recipe}), **arguments).double()
        batch = batch_of(world.data.splits.train, size)
        if present is not None:
            batch.present = present
        features = random_features(task, size)
        task.encode = lambda _: features
        generator = torch.Generator().manual_seed(7)
        task.prototypes.copy_(torch.randn(task.prototypes.shape, generator=generator, dtype=torch.double))
        task.prototypes[:, task.widths[0] :] *= 1.5  # so that modalities differ
        task.known.copy_(torch.tensor(known)[:, : len(task.modalities)])
        return task, batch, features

    return make


def naive_probabilities(task, features, m, i):
    """p_m of sample i over the classes that have a prototype, by class; None if there are none."""
    column = task.modalities.index(m)
    start = sum(task.widths[:column])
    nearness = {}
    for k in range(3):
        if task.known[k, column]:
            c = task.prototypes[k, start : start + task.widths[column]]
            nearness[k] = (-((features[m][i] - c) ** 2).sum().sqrt()).exp()
    total = sum(nearness.values())
    return {k: v / total for k, v in nearness.items()}


def naive_weights(scores):
    """β and γ by modality, of scores by modality; None where it has none."""
    behind, ahead = {}, {}
    for m, s in scores.items():
        others = [t for n, t in scores.items() if n != m and t is not None]
        behind[m] = ahead[m] = 0.0
        if s is not None and others:
            ratio = s / (sum(others) / len(others))
            behind[m] = min(max(1 / ratio - 1, 0.0), 1.0)
            ahead[m] = min(max(ratio - 1, 0.0), 1.0)
    return behind, ahead


def naive_loss(task, batch, features, weight=None):
    """The docstring's loss, sample by sample; ``weight`` by class."""
    weight = weight or [1.0] * 3
    fused = task.fuse(features, batch.present)
    labels = batch.label.tolist()
    loss = sum(weight[y] * F.cross_entropy(z, torch.tensor(y)) for z, y in zip(fused, labels, strict=True))
    loss = loss / sum(weight[y] for y in labels)
    scores, losses, entropies = {}, {}, {}
    for column, m in enumerate(task.modalities):
        rows = [i for i, y in enumerate(labels) if batch.present[i, column] and task.known[y, column]]
        p = {i: naive_probabilities(task, features, m, i) for i in rows}
        scores[m] = float(sum(p[i][labels[i]].detach() for i in rows) / len(rows)) if rows else None
        if rows:
            losses[m] = sum(-weight[labels[i]] * p[i][labels[i]].log() for i in rows)
            losses[m] = losses[m] / sum(weight[labels[i]] for i in rows)
            entropies[m] = sum(-sum(q * q.log() for q in p[i].values()) for i in rows) / len(rows)
    behind, ahead = naive_weights(scores)
    loss = loss + task.alpha * sum(behind[m] * losses[m] for m in losses)
    if task.current_epoch < task.entropy_epochs:
        loss = loss - task.entropy_weight * sum(ahead[m] * entropies[m] for m in entropies)
    return loss, behind, ahead


def test_the_loss_is_the_papers(step):
    for name in ("planted2", "planted3"):
        task, batch, features = step(name, alpha=1.3, entropy_weight=0.4)
        assert not batch.present.all()
        expected, behind, ahead = naive_loss(task, batch, features)
        assert sum(b > 0 for b in behind.values()) >= 1
        assert sum(a > 0 for a in ahead.values()) >= 1
        got = task.training_step(batch, 0)
        torch.testing.assert_close(got, expected)
        gradients = torch.autograd.grad(got, list(features.values()))
        for one, other in zip(gradients, torch.autograd.grad(expected, list(features.values())), strict=True):
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize("epoch", [4, 5])
def test_the_entropy_term_ends_with_its_epochs(step, epoch):
    task, batch, features = step(epoch=epoch, entropy_weight=0.7)
    torch.testing.assert_close(task.training_step(batch, 0), naive_loss(task, batch, features)[0])
    concat = task.cross_entropy(task.fuse(features, batch.present), batch.label)
    task.alpha = 0.0
    assert (task.training_step(batch, 0) == concat) == (epoch == 5)


# One class without a prototype of one modality, one modality with a single prototype, and one without any.
@pytest.mark.parametrize(
    "known",
    [
        ((True, True, True), (True, True, True), (False, True, True)),
        ((True, False, True), (True, True, True), (True, False, True)),
        ((True, True, False), (True, True, False), (True, True, False)),
        ((False, False, False), (False, False, False), (False, False, False)),
    ],
)
def test_classes_without_a_prototype_do_not_count(step, known):
    task, batch, features = step(known=known, entropy_weight=0.4)
    expected = naive_loss(task, batch, features)[0]
    got = task.training_step(batch, 0)
    torch.testing.assert_close(got, expected)
    for gradient in torch.autograd.grad(got, list(features.values())):
        assert gradient.isfinite().all()


def test_a_modality_that_does_not_occur_is_no_rival(step):
    present = torch.ones(18, 3, dtype=torch.bool)
    present[:, 1] = False
    task, batch, features = step(present=present, entropy_weight=0.4)
    expected, behind, ahead = naive_loss(task, batch, features)
    assert behind["picture"] == ahead["picture"] == 0
    torch.testing.assert_close(task.training_step(batch, 0), expected)
    present[:, 2] = False  # nobody to be compared with
    concat = task.cross_entropy(task.fuse(features, present), batch.label)
    torch.testing.assert_close(task.training_step(replace(batch, present=present), 0), concat)


def test_class_weights_enter_both_cross_entropies_alone(step):
    recipe = Recipe(epochs=2, class_weights="balanced")
    task, batch, features = step(recipe=recipe, alpha=1.3, entropy_weight=0.4)
    weight = task.class_weights.tolist()
    assert max(weight) > 1.5 * min(weight)
    expected, behind, _ = naive_loss(task, batch, features, weight)
    assert max(behind.values()) > 0
    torch.testing.assert_close(task.training_step(batch, 0), expected)


def test_two_modalities_have_the_papers_ratio(world2):
    task, there = world2.task("pmr"), torch.ones(2, dtype=torch.bool)
    behind, ahead = task.rebalancing(torch.tensor([0.6, 0.4]), there)
    torch.testing.assert_close(behind, torch.tensor([0.0, 0.5]))  # γ = clip(0, ρ − 1, 1), ρ = 1.5, and β = 0
    torch.testing.assert_close(ahead, torch.tensor([0.5, 0.0]))
    behind, ahead = task.rebalancing(torch.tensor([0.2, 0.9]), there)
    assert behind.tolist() == [1, 0]  # β = clip(0, 1 / ρ − 1, 1), 1 / ρ = 4.5
    assert ahead.tolist() == [0, 1]
    assert [w.tolist() for w in task.rebalancing(torch.tensor([0.5, 0.5]), there)] == [[0, 0], [0, 0]]
    behind, ahead = task.rebalancing(torch.tensor([0.0, 0.3]), there)
    assert behind.tolist() == [1, 0]  # as far behind as can be
    assert [w.tolist() for w in task.rebalancing(torch.zeros(2), there)] == [[0, 0], [0, 0]]


def released_loss(task, batch, features, audio, visual):
    """The release's step of two modalities on Concat, with complete data: sums of scores, and α or nothing."""
    label, softmax = batch.label, torch.nn.Softmax(dim=1)

    def similarity(h, prototypes):
        return torch.stack([torch.stack([-torch.sqrt(torch.dot(x - c, x - c)) for c in prototypes]) for x in h])

    first, other = similarity(features["sensor"], audio), similarity(features["picture"], visual)
    ratio = softmax(first)[range(len(label)), label].sum() / softmax(other)[range(len(label)), label].sum()
    beta, lam = (0, task.alpha) if ratio > 1 else (task.alpha, 0)
    out = task.head(torch.cat([features["sensor"], features["picture"]], dim=1))
    loss = F.cross_entropy(out, label) + beta * F.cross_entropy(first, label) + lam * F.cross_entropy(other, label)
    return loss, ratio


@pytest.mark.parametrize("ahead", ["sensor", "picture"])
def test_ungraded_and_without_entropy_it_is_the_released_step(step, ahead):
    complete = torch.ones(18, 2, dtype=torch.bool)
    task, batch, features = step("planted2", present=complete, alpha=2.0, graded=False, entropy_weight=0.0)
    prototypes = dict(zip(task.modalities, task.prototypes.split(task.widths, dim=1), strict=True))
    features[ahead] = features[ahead] + prototypes[ahead][batch.label]
    expected, ratio = released_loss(task, batch, features, prototypes["sensor"], prototypes["picture"])
    assert (ratio > 1) == (ahead == "sensor")
    torch.testing.assert_close(task.training_step(batch, 0), expected)


def test_prototypes_move_to_the_means_of_the_epoch_before(world3):
    task = world3.task("pmr", momentum=0.3).double()
    batch = batch_of(world3.data.splits.train, 16)
    batch.present[batch.label == 2, 1] = False
    expected = {}
    for epoch in range(3):
        features = {m: f.detach() for m, f in random_features(task, 16, seed=epoch).items()}
        if epoch == 2:  # then, class 0 lacks what it had
            batch.present[batch.label == 0, 0] = False
        for rows in (slice(0, 9), slice(9, 16)):
            joint = task.concatenate({m: f[rows] for m, f in features.items()}, batch.present[rows])
            task.record(joint.detach(), replace(batch, label=batch.label[rows], present=batch.present[rows]))
        task.on_train_epoch_start()
        for column, m in enumerate(task.modalities):
            for k in range(3):
                own = [features[m][i] for i in range(16) if batch.label[i] == k and batch.present[i, column]]
                if own:
                    mean = sum(own) / len(own)
                    old = expected.get((k, column))
                    expected[k, column] = mean if old is None else 0.3 * old + 0.7 * mean
    assert 0 < len(expected) < 9
    assert (2, 1) not in expected
    for k in range(3):
        for column, c in enumerate(task.prototypes[k].split(task.widths)):
            assert task.known[k, column] == ((k, column) in expected)
            torch.testing.assert_close(c, expected.get((k, column), torch.zeros_like(c)))
    assert not task.sums.any()
    assert not task.counts.any()


def test_each_epoch_learns_by_the_prototypes_of_the_one_before(world3, monkeypatch):
    """The first has none, and is Concat's; from the second on there are as many as training has classes and modalities."""
    known, starts = [], []
    plain = Pmr.on_train_epoch_start

    def watched(task):
        plain(task)
        known.append(int(task.known.sum()))
        starts.append(task.prototypes.clone())

    monkeypatch.setattr(Pmr, "on_train_epoch_start", watched)
    recipe = Recipe(epochs=3, batch_size=8, lr=0.05)
    fit(world3.task("pmr", recipe=recipe), world3.data.splits.train, epochs=3)
    assert known == [0, 9, 9]
    assert not torch.equal(starts[1], starts[2])
    first = [fit(world3.task(method), world3.data.splits.train, epochs=1) for method in ("pmr", "concat")]
    assert first[0].callback_metrics["train/loss"] == first[1].callback_metrics["train/loss"]
