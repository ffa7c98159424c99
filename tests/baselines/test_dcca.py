from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from torch import nn

from mmbench.baselines.dcca import total_correlation
from planted import METHODS, batch_of, every_pattern, fit, same, weights


def inverse_root(matrix):
    values, vectors = np.linalg.eigh(matrix)
    return vectors @ np.diag(values**-0.5) @ vectors.T


def naive_correlation(one, other, r):
    """The nuclear norm of T, with symmetric roots."""
    x, y = (np.asarray(v, dtype=float) for v in (one, other))
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    s11, s22 = (v.T @ v / (len(v) - 1) + r * np.eye(v.shape[1]) for v in (x, y))
    t = inverse_root(s11) @ (x.T @ y / (len(x) - 1)) @ inverse_root(s22)
    return np.linalg.svd(t, compute_uv=False).sum()


def pair(size=30, width=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(size, width, generator=generator, dtype=torch.double) for _ in range(2)]


@pytest.mark.parametrize("r", [1e-3, 0.5])
def test_total_correlation_is_the_sum_of_singular_values(r):
    one, other = pair()
    other = other + one
    assert total_correlation(one, other, r).item() == pytest.approx(naive_correlation(one, other, r), rel=1e-6)


def test_identical_views_correlate_perfectly():
    one, _ = pair(200, 5)
    assert total_correlation(one, one, 1e-9).item() == pytest.approx(5, rel=1e-6)
    mixed = one @ torch.linalg.qr(torch.randn(5, 5, dtype=torch.double))[0] * 3 + 7  # CCA sees no linear map
    assert total_correlation(one, mixed, 1e-9).item() == pytest.approx(5, rel=1e-6)
    assert total_correlation(*pair(20_000, 5), 1e-3).item() < 0.2


def test_the_gradient_is_that_of_finite_differences():
    one, other = (v.requires_grad_() for v in pair(12, 3))
    assert torch.autograd.gradcheck(lambda a, b: total_correlation(a, b, 1e-3), (one, other))


@pytest.mark.parametrize(("size", "scale"), [(2, 1.0), (3, 1.0), (5, 1.0), (64, 1e-6), (64, 1e3)])
def test_the_gradient_is_finite_where_covariances_are_singular(size, scale):
    one, other = (scale * v.float() for v in pair(size, 20))
    one[:, 1] = one[:, 0]  # two equal eigenvalues of a covariance, and more where samples are few
    one.requires_grad_()
    correlation = total_correlation(one, other, 1e-3)
    correlation.backward()
    assert 0 <= correlation <= 20
    assert one.grad.isfinite().all()


def test_equal_rows_have_no_correlation():
    one = torch.ones(6, 3, requires_grad=True)
    correlation = total_correlation(one, torch.randn(6, 3), 1e-3)
    correlation.backward()
    assert correlation.item() == pytest.approx(0, abs=1e-3)
    assert one.grad.isfinite().all()


def test_the_loss_is_over_pairs_that_samples_have(world3):
    task = world3.task("dcca", components=3).double()
    present = every_pattern(3).repeat(5, 1)
    present[:, 2] &= torch.arange(len(present)) < 8  # the last modality shares two samples with the second
    present[7, 0] = False  # and one with the first
    generator = torch.Generator().manual_seed(0)
    outputs = {m: torch.randn(len(present), 3, generator=generator, dtype=torch.double) for m in task.modalities}
    expected = 0.0
    for (i, one), (j, other) in combinations(enumerate(task.modalities), 2):
        rows = [n for n in range(len(present)) if present[n, i] and present[n, j]]
        if len(rows) > 1:
            expected -= naive_correlation(outputs[one][rows], outputs[other][rows], 1e-3)
    assert task.correlation_loss(outputs, present).item() == pytest.approx(expected, abs=1e-3)
    assert (present[:, 2] & present[:, 0]).sum() == 1
    assert expected < -2


def test_a_batch_without_pairs_moves_no_parameter(world3):
    task = world3.task("dcca")
    optimizer = torch.optim.Adam(task.parameters(), lr=0.1, weight_decay=0.1)

    def step(batch):
        before = {name: p.detach().clone() for name, p in task.named_parameters()}
        optimizer.zero_grad()
        loss = task.training_step(batch, 0)
        loss.backward()
        optimizer.step()
        return loss, same(before, {name: p.detach() for name, p in task.named_parameters()})

    batch = batch_of(world3.complete, 6)
    lonely = replace(batch, present=torch.tensor([[True, False, False], [False, True, False]] * 3))
    assert step(lonely) == (0, True)
    assert not step(batch)[1]
    assert step(lonely) == (0, True)  # with momentum from the step before


def test_where_no_sample_has_two_views_the_classifier_alone_learns(world3):
    task = world3.task("dcca")
    before = {name: p.detach().clone() for name, p in task.named_parameters()}
    split = replace(world3.complete, present=torch.eye(3, dtype=torch.bool)[torch.arange(len(world3.complete)) % 3])
    run = fit(task, split, epochs=2)
    assert run.callback_metrics["train/loss"] == 0
    assert same(before, dict(task.named_parameters()))
    assert task.svm.weight.any()
    assert all(task.fuse(task.encode(batch_of(split, 6)), p.expand(6, -1)).isfinite().all() for p in every_pattern(3))


def test_descent_raises_the_correlation(world2):
    task = world2.task("dcca", components=3)
    batch = batch_of(world2.complete, 15)
    optimizer = torch.optim.Adam(task.parameters(), lr=0.01)
    losses = []
    for _ in range(30):
        loss = task.training_step(batch, 0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.5


@pytest.mark.parametrize("dropout", [nn.Dropout, nn.Dropout1d, nn.AlphaDropout])
def test_dropout_in_encoders_is_off(make_world, dropout):
    world = make_world("openclipart_features")
    encoders = {}
    for m, encoder in world.encoders().items():
        encoders[m] = nn.Sequential(encoder, dropout(0.9))
        encoders[m].out_dim = encoder.out_dim
    task = METHODS["dcca"](world.data.spec, encoders)
    batch = batch_of(world.complete, 6)
    for mode in (True, False):
        features = task.train(mode).encode(batch)
        assert all(
            torch.equal(f, encoder[0].eval()(batch.inputs[m]))
            for (m, f), encoder in zip(features.items(), task.encoders.values(), strict=True)
        )
    assert task.train().dropouts[-1].training


def test_the_classifier_is_fitted_to_the_whole_split_in_evaluation_mode(world3):
    task = world3.task("dcca", components=3)
    split = world3.data.splits.train
    fit(task, split, batches=2)  # the classifier sees more than these
    assert task.training
    task.eval()
    with torch.no_grad():
        outputs = task.project(task.encode(split.__getitems__(range(len(split)))))
    rows = []
    for column, m in enumerate(task.modalities):
        here = split.present[:, column]
        mean = outputs[m][here].mean(dim=0)
        torch.testing.assert_close(task.centring.mean.split(3)[column], mean, rtol=1e-4, atol=1e-5)
        imputed = torch.stack([o if there else mean for o, there in zip(outputs[m], here, strict=True)])
        rows.append(imputed - mean)
    from sklearn.svm import LinearSVC

    svm = LinearSVC(C=0.01, dual=False).fit(torch.cat(rows, dim=1).double().numpy(), split.label.numpy())
    np.testing.assert_allclose(task.svm.weight.numpy(), svm.coef_, rtol=1e-2, atol=1e-4)
    np.testing.assert_allclose(task.svm.bias.numpy(), svm.intercept_, rtol=1e-2, atol=1e-4)


def test_the_classifier_pass_moves_no_statistic(world3):
    task = world3.task("dcca")
    split = world3.data.splits.train
    before = weights(task.encoders)
    state = torch.get_rng_state()
    task.fit_classifier(split)
    assert torch.equal(torch.get_rng_state(), state)
    after = weights(task.encoders)
    assert all(torch.equal(before[name], after[name]) for name in before)
