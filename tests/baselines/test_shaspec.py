import pytest
import torch

from mmbench.recipe import Recipe
from planted import batch_of, every_pattern, fit, random_features


def linear(layer, x):
    return layer.weight @ x + layer.bias


def naive_sample(task, features, i, shown):
    """Shared and specific features of the shown modalities of one sample, and its logits."""
    shared, specific = {}, {}
    for c in shown:
        m = task.modalities[c]
        x = linear(task.project[m], features[m][i]).clamp(min=0)
        shared[c] = linear(task.shared[1], x).clamp(min=0)
        specific[c] = linear(task.specific[m], features[m][i])
    fused = []
    for c in range(len(task.modalities)):
        if c in shown:
            fused.append(shared[c] + linear(task.residual, torch.cat([shared[c], specific[c]])))
        else:
            fused.append(sum(shared.values()) / len(shown) if shown else torch.zeros_like(task.residual.bias))
    return shared, specific, linear(task.classifier, torch.cat(fused))


def columns(row):
    return [c for c, here in enumerate(row) if here]


@pytest.fixture
def step(make_world):
    """A method in float64, and a training step on given features of which given ones are shown."""

    def make(name="planted3", size=12, **arguments):
        world = make_world(name)
        task = world.task("shaspec", width=5, complete_share=0.0, **arguments).double()
        batch = batch_of(world.complete, size)
        features = random_features(task, size)
        task.encode = lambda batch: features
        return task, batch, features

    return make


@pytest.mark.parametrize("name", ["planted2", "planted3"])
def test_logits_by_residual_fusion(step, name):
    present = every_pattern(2 if name == "planted2" else 3)
    task, _, features = step(name, size=len(present))
    logits = task.fuse(features, present)
    for i, row in enumerate(present):
        torch.testing.assert_close(logits[i], naive_sample(task, features, i, columns(row))[2])


@pytest.mark.parametrize("name", ["planted2", "planted3"])
def test_loss_and_gradients(step, name):
    task, batch, features = step(name, alignment_weight=0.7, domain_weight=0.3)
    visible = every_pattern(len(task.modalities)).repeat(3, 1)[:12]
    batch.present = visible.clone()
    batch.present[3] = True  # and some of it is hidden
    task.draw_visible = lambda present: visible
    ce, domain, modalities = [], [], len(task.modalities)
    ring = [[] for _ in range(modalities)]  # of each modality and the next one, the first after the last
    for i, row in enumerate(visible):
        shown = columns(row)
        shared, specific, z = naive_sample(task, features, i, shown)
        if shown:
            ce.append(z.exp().sum().log() - z[batch.label[i]])
        for a in shown:
            b = (a + 1) % modalities
            if b in shown:
                ring[a].append((shared[a] - shared[b]).abs().sum() / 5)
        for c in shown:
            d = linear(task.domain, specific[c])
            domain.append(d.exp().sum().log() - d[c])
    assert 0 < len(ce) < 12
    assert all(ring)
    alignment = sum(sum(term) / len(term) for term in ring)
    expected = sum(ce) / len(ce) + 0.7 * alignment + 0.3 * sum(domain) / len(domain)
    got = task.training_step(batch, 0)
    torch.testing.assert_close(got, expected)
    wanted = [p for name, p in task.named_parameters() if not name.startswith("encoders")] + list(features.values())
    torch.testing.assert_close(
        torch.autograd.grad(got, wanted), torch.autograd.grad(expected, wanted), rtol=1e-6, atol=1e-8
    )


def test_a_missing_modality_is_the_mean_of_what_the_others_share(step):
    task, _, features = step()
    present = torch.tensor([[True, True, False]]).expand(12, -1)
    shared, specific = task.split_features(features, present)
    seen = []
    task.classifier.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].view(12, 3, 5)))
    task.classify(shared, specific, present)
    torch.testing.assert_close(seen[0][:, 2], (shared[:, 0] + shared[:, 1]) / 2)
    assert not torch.allclose(seen[0][:, 1], shared[:, 1])


def test_only_modalities_that_are_both_visible_are_aligned(step):
    task, *_ = step()
    shared = torch.randn(4, 3, 5, dtype=torch.double)
    rows = [[True, True, False], [False, False, True], [True, False, True], [False, False, False]]
    expected = (shared[0, 0] - shared[0, 1]).abs().mean() + (shared[2, 0] - shared[2, 2]).abs().mean()
    torch.testing.assert_close(task.alignment_loss(shared, torch.tensor(rows)), expected)
    assert task.alignment_loss(shared, torch.eye(4, 3, dtype=torch.bool)) == 0


@pytest.mark.parametrize(("name", "expected"), [("planted2", 2 * 1.0), ("planted3", 1.0 + 3.0 + 4.0)])
def test_alignment_is_the_releases_sum_round_the_ring(step, name, expected):
    """Three terms for three modalities, and the one pair of two modalities twice."""
    task, *_ = step(name)
    shared = torch.tensor([0.0, 1.0, 4.0])[: len(task.modalities)].view(1, -1, 1).expand(6, -1, 5)
    assert task.alignment_loss(shared, torch.ones(shared.shape[:2], dtype=torch.bool)) == expected


def test_the_domain_is_asked_only_of_what_is_visible(step):
    task, *_ = step()
    specific = torch.randn(3, 3, 5, dtype=torch.double)
    visible = torch.tensor([[True, False, False], [False, False, True], [False, False, False]])
    p = [linear(task.domain, specific[0, 0]).softmax(0)[0], linear(task.domain, specific[1, 2]).softmax(0)[2]]
    torch.testing.assert_close(task.domain_loss(specific, visible), -(p[0].log() + p[1].log()) / 2)
    assert task.domain_loss(specific, torch.zeros_like(visible)) == 0


def test_nothing_is_hidden_in_the_first_epochs(world3):
    task = world3.task("shaspec", recipe=Recipe(epochs=6, batch_size=8, lr=0.01))
    assert task.complete_epochs == 2  # 80 of 260 thousand iterations, as a share of six epochs
    split, plain = task.split_features, []
    task.split_features = lambda features, present: (
        plain.append((task.current_epoch, present)),
        split(features, present),
    )[1]
    fit(task, world3.complete, epochs=6, batches=2)
    assert all(present.all() == (epoch < 2) for epoch, present in plain)
    assert len(plain) == 12


def test_a_batch_in_which_nothing_is_present(step):
    task, batch, _ = step(size=3)
    batch.present = torch.zeros(3, 3, dtype=torch.bool)
    loss = task.training_step(batch, 0)
    loss.backward()
    assert loss == 0
    assert all(p.grad is None or p.grad.isfinite().all() for p in task.parameters())
