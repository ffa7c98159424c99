from dataclasses import replace

import pytest
import torch

from planted import batch_of, every_pattern, fit, random_features


def naive_class_loss(h, label, classes):
    """L_class as the docstring's equations say, sample by sample."""
    size, total = len(h), torch.zeros((), dtype=h.dtype)
    for i in range(size):
        scores = {}
        for c in range(classes):
            others = [j for j in range(size) if label[j] == c and j != i]
            if others:
                scores[c] = sum(h[i] @ h[j] for j in others) / len(others)
        y = label[i].item()
        if y not in scores:
            continue
        predicted = max(scores, key=lambda c: scores[c].item())
        value = float(predicted != y) + scores[predicted] - scores[y]
        if value > 0:
            total = total + value
    return total


@pytest.mark.parametrize("labels", [[0, 1, 2] * 5, [0, 0, 0, 1, 1, 0, 0], [0, 0, 0, 2], [1, 1], [0]])
def test_class_loss_and_its_gradient(world3, labels):
    task = world3.task("cpm_net")
    label = torch.tensor(labels)
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(len(label), 4, generator=generator, dtype=torch.double, requires_grad=True)
    got, expected = task.class_loss(h, label), naive_class_loss(h, label, 3)
    torch.testing.assert_close(got, expected)
    if expected.requires_grad:
        torch.testing.assert_close(torch.autograd.grad(got, h)[0], torch.autograd.grad(expected, h)[0])
    assert (expected > 0) == (len(labels) > 2)


def test_reconstruction_loss_is_over_visible_cells(world3):
    task = world3.task("cpm_net", latent_dim=5).double()
    present = every_pattern(3)
    features = random_features(task, len(present))
    h = torch.randn(len(present), 5, dtype=torch.double)
    expected = 0.0
    for i, row in enumerate(present):
        for m, here in zip(task.modalities, row, strict=True):
            if here:
                made = task.nets[m].weight @ h[i] + task.nets[m].bias
                expected += ((made - features[m][i]) ** 2).sum().item()
    assert task.reconstruction_loss(h, features, present).item() == pytest.approx(expected)


@pytest.mark.parametrize("ridge", [0.01, 1.0, 30.0])
def test_the_latent_vector_of_a_new_sample_minimises_what_it_should(world3, ridge):
    task = world3.task("cpm_net", latent_dim=10, ridge=ridge).double()
    present = every_pattern(3).repeat(3, 1)
    features = random_features(task, len(present))
    h = task.latent(features, present).detach().requires_grad_()
    objective = task.reconstruction_loss(h, features, present) + ridge * h.square().sum()
    (gradient,) = torch.autograd.grad(objective, h)
    torch.testing.assert_close(gradient, torch.zeros_like(h))
    assert (h[~present.any(dim=1)] == 0).all()
    assert (h[present.any(dim=1)].abs().sum(dim=1) > 0).all()


def test_no_label_reaches_a_prediction(world3):
    task = world3.task("cpm_net")
    fit(task, world3.data.splits.train, epochs=2)
    batch = batch_of(world3.data.splits.test, 12)
    other = replace(batch, label=(batch.label + 1) % 3, index=batch.index.flip(0))
    assert torch.equal(task.predict_step(batch), task.predict_step(other))


def test_logits_are_mean_inner_products(world3):
    task = world3.task("cpm_net", latent_dim=6)
    split = world3.data.splits.train
    fit(task, split, epochs=2)  # on the first 24 samples
    batch = batch_of(world3.data.splits.test, 9)
    features = task.encode(batch)
    h = task.latent(features, batch.present)
    logits = task.fuse(features, batch.present)
    for i in range(9):
        for c in range(3):
            products = [h[i] @ task.latents[j] for j in range(24) if split.label[j] == c]
            torch.testing.assert_close(logits[i, c], sum(products) / len(products), rtol=1e-4, atol=1e-5)


def test_an_epoch_is_adam_on_the_networks_and_then_on_the_latent_vectors(world3):
    task, twin = (world3.task("cpm_net", latent_dim=5, class_weight=0.7, steps=2) for _ in range(2))
    split = world3.data.splits.train
    run = fit(task, split, batches=2)
    batch = split.__getitems__(range(16))
    features = twin.encode(batch)
    nets, latents = list(twin.nets.parameters()), twin.latents
    for parameters, lr, weight in ((nets, 1e-3, 0.0), ([latents], 1e-2, 0.7)):
        adam = torch.optim.Adam(parameters, lr=lr)
        for _ in range(2):
            h = latents[:16]
            loss = twin.reconstruction_loss(h, features, batch.present) + weight * twin.class_loss(h, batch.label)
            adam.zero_grad()
            loss.backward()
            adam.step()
    for one, other in zip(task.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    assert torch.equal(task.latents[16:], world3.task("cpm_net", latent_dim=5).latents[16:])  # not seen, not moved
    assert run.callback_metrics["train/loss"].item() == pytest.approx(loss.item() / 16, rel=1e-4)
    assert run.global_step == 4


def test_a_class_that_training_lacks_is_never_the_answer(world3):
    split = world3.data.splits.train
    task = world3.task("cpm_net")
    rows = (split.label != 1).nonzero().squeeze(1)
    fit(task, split.rows(rows.numpy()))
    logits = task(batch_of(split, 30))
    assert logits.isfinite().all()
    assert set(logits.argmax(dim=1).tolist()) <= {0, 2}


def test_samples_without_views_shape_no_class(world3):
    split = world3.complete
    present = split.present.clone()
    present[:3] = False
    results = []
    for label in (split.label, torch.cat([(split.label[:3] + 1) % 3, split.label[3:]])):
        task = world3.task("cpm_net")
        fit(task, replace(split, present=present, label=label))
        results.append(task.class_means)
    assert torch.equal(*results)
