from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch

from mmbench.baselines.cca import Cca, whiten
from mmbench.data.split import DataSpec, Split
from mmbench.encoders.mlp import Mlp
from planted import RECIPE, batch_of, every_pattern, fit, same, weights


def symmetric_inverse_root(matrix):
    values, vectors = np.linalg.eigh(matrix)
    return vectors @ np.diag(values**-0.5) @ vectors.T


def naive(task, split, rows, r=1e-4):
    """Means, pairwise projections (one, other) -> A of one, and all correlations, as the docstring's equations say."""
    names, size = task.modalities, len(rows)
    features = {m: f.double().numpy() for m, f in task.encode(split.__getitems__(rows)).items()}
    present = split.present[rows].numpy()
    means, imputed = {}, {}
    for column, m in enumerate(names):
        seen = [features[m][i] for i in range(size) if present[i, column]]
        means[m] = sum(seen) / len(seen)
        imputed[m] = np.stack([features[m][i] if present[i, column] else means[m] for i in range(size)])
    projections, correlations = {}, []
    for one, other in combinations(names, 2):
        x, y = (imputed[m] - means[m] for m in (one, other))
        s11, s22 = (v.T @ v / (size - 1) + r * np.eye(v.shape[1]) for v in (x, y))
        w1, w2 = symmetric_inverse_root(s11), symmetric_inverse_root(s22)
        u, sigma, vh = np.linalg.svd(w1 @ (x.T @ y / (size - 1)) @ w2)
        n = task.components
        projections[one, other], projections[other, one] = w1 @ u[:, :n], w2 @ vh[:n].T
        correlations += sigma[:n].tolist()
    return means, projections, correlations


@pytest.mark.parametrize("name", ["planted2", "planted3"])
def test_means_projections_and_correlations(make_world, name):
    world = make_world(name)
    task = world.task("cca", components=3)
    split = world.data.splits.train
    assert not split.present[:40].all()
    run = fit(task, split, batches=5)
    means, projections, correlations = naive(task, split, list(range(40)))
    torch.testing.assert_close(
        task.centring.mean.double().numpy(), np.concatenate(list(means.values())), atol=1e-5, rtol=1e-4
    )
    assert run.callback_metrics["train/loss"].item() == pytest.approx(-sum(correlations), rel=1e-4)
    names = task.modalities
    assert len(correlations) == 3 * len(names) * (len(names) - 1) / 2
    for m, found in zip(names, task.projections.split(list(task.dims.values())), strict=True):
        expected = np.concatenate([projections[m, other] for other in names if other != m], axis=1)
        assert found.shape == expected.shape
        signs = np.sign((found.numpy() * expected).sum(axis=0))  # singular vectors have no sign
        np.testing.assert_allclose(found.numpy(), expected * signs, rtol=1e-2, atol=1e-2 * abs(expected).max())


def test_an_absent_view_is_the_mean_of_those_seen_in_training(world3):
    task = world3.task("cca", components=4)
    split = world3.data.splits.train
    fit(task, split, batches=5)
    means, projections, _ = naive(task, split, list(range(40)))
    batch = batch_of(world3.complete, 8)
    batch.present = every_pattern(3)
    features = task.encode(batch)
    for i, row in enumerate(batch.present.tolist()):
        parts = []
        for m, here in zip(task.modalities, row, strict=True):
            view = features[m][i].double().numpy() if here else means[m]
            parts += [(view - means[m]) @ projections[m, other] for other in task.modalities if other != m]
        found = task.project(features, batch.present)[i].double().numpy()
        np.testing.assert_allclose(abs(found), abs(np.concatenate(parts)), rtol=1e-2, atol=1e-2)


def test_correlations_are_scikit_learns_on_complete_data():
    from sklearn.cross_decomposition import CCA

    generator = np.random.default_rng(0)
    shared = generator.normal(size=(200, 3))
    x = np.concatenate([shared, generator.normal(size=(200, 2))], axis=1) @ generator.normal(size=(5, 5))
    y = np.concatenate([shared + 0.5 * generator.normal(size=(200, 3)), generator.normal(size=(200, 1))], axis=1)
    theirs = CCA(n_components=4, max_iter=5000, tol=1e-10).fit(x, y)
    projected = theirs.transform(x, y)
    expected = [abs(np.corrcoef(projected[0][:, k], projected[1][:, k])[0, 1]) for k in range(4)]
    centred = [torch.tensor(v - v.mean(axis=0)) for v in (x, y)]
    found = torch.linalg.svdvals(whiten(*centred, 1e-9)[0])
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-5)
    assert found[0] > 0.8
    assert found[3] < 0.3

    spec = DataSpec(("x", "y"), (100, 100), "x", {"x": 5, "y": 4})
    task = Cca(spec, {"x": Mlp(5, 2), "y": Mlp(4, 2)}, components=3, regularisation=1e-9)
    features = {"x": torch.tensor(x, dtype=torch.float), "y": torch.tensor(y, dtype=torch.float)}
    present, label = torch.ones(200, 2, dtype=torch.bool), torch.arange(200) % 2
    run = fit(task, Split(features, present, label, torch.arange(200)), batches=1000)
    assert run.callback_metrics["train/loss"].item() == pytest.approx(-sum(expected[:3]), abs=1e-4)
    one, other = task.project(features, present).double().numpy().reshape(200, 2, 3).transpose(1, 2, 0)
    np.testing.assert_allclose(np.corrcoef(one, other)[:3, 3:], np.diag(expected[:3]), atol=1e-4)


def test_components_are_at_most_the_narrowest_modality(world3):
    assert world3.task("cca").components == min(world3.task("cca").dims.values()) < 20
    task = world3.task("cca", components=2)
    assert task.components == 2
    assert task.svm.weight.shape == (3, 3 * 2 * 2)


def test_one_epoch_is_enough(world3):
    task = world3.task("cca")
    run = fit(task, world3.data.splits.train, epochs=RECIPE.epochs)
    assert run.current_epoch == 1
    assert run.global_step == 1  # or no checkpoint would be written


def test_a_class_that_training_lacks_is_never_the_answer(world3):
    split = world3.data.splits.train
    for kept in ([0, 2], [1]):
        task = world3.task("cca")
        rows = torch.isin(split.label, torch.tensor(kept)).nonzero().squeeze(1)
        fit(task, split.rows(rows.numpy()))
        logits = task(batch_of(split, 30))
        assert logits.isfinite().all()
        assert set(logits.argmax(dim=1).tolist()) <= set(kept)


def test_the_projections_of_training_samples_have_unit_variance(make_world):
    world = make_world("openclipart_features")
    task = world.task("cca")
    split = world.data.splits.train
    fit(task, split, batches=1000)
    batch = split.__getitems__(range(len(split)))
    variance = task.project(task.encode(batch), batch.present).var(dim=0)
    torch.testing.assert_close(variance, torch.ones_like(variance), rtol=0, atol=0.05)


def test_a_second_fit_forgets_the_first(world2):
    split = world2.data.splits.train
    first, second = split.rows(np.arange(20)), split.rows(np.arange(20, 40))
    again, fresh = world2.task("cca"), world2.task("cca")
    fit(again, first)
    before = weights(again)
    fit(again, second)
    fit(fresh, second)
    assert same(weights(again), weights(fresh))
    assert not same(weights(again), before)


def test_where_no_sample_has_two_views_they_are_whitened(world3):
    task = world3.task("cca", components=2, regularisation=0.01)
    size = len(world3.complete)
    split = replace(world3.complete, present=torch.eye(3, dtype=torch.bool)[torch.arange(size) % 3])
    run = fit(task, split, batches=1000)
    assert run.callback_metrics["train/loss"] == 0
    batch = batch_of(split, size)
    views = task.project(task.encode(batch), batch.present).split(4, dim=1)
    for view, matrix in zip(views, task.projections.split(list(task.dims.values())), strict=True):
        for part, a in zip(view.split(2, dim=1), matrix.split(2, dim=1), strict=True):  # for one of the others
            covariance = part.T @ part / (size - 1) + 0.01 * a.T @ a
            torch.testing.assert_close(covariance, torch.eye(2), rtol=0, atol=1e-3)
    for pattern in every_pattern(3):
        assert task.fuse(task.encode(batch_of(world3.complete, 6)), pattern.expand(6, -1)).isfinite().all()
