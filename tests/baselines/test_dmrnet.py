import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F

from mmbench.baselines.dmrnet import BatchNorm
from mmbench.errors import UsageError
from mmbench.recipe import Recipe
from planted import batch_of, every_pattern, fit, random_features

PATTERNS = [[0], [1], [2], [0, 1], [0, 2], [1, 2], [0, 1, 2]]  # of three modalities, in the order of missing.patterns


@pytest.fixture
def step(world3):
    """A method in float64, and a training step on given features of which given ones are shown."""

    def make(size=14, present=None, visible=None, **arguments):
        task = world3.task("dmrnet", **arguments).double()
        batch = batch_of(world3.complete, size)
        batch.present = every_pattern(3).repeat(2, 1)[:size] if present is None else present
        visible = batch.present if visible is None else visible
        features = random_features(task, size)
        task.encode = lambda batch: features
        task.draw_visible = lambda present: visible & present

        def run(seed=0):
            torch.manual_seed(seed)
            return task.training_step(batch, 0)

        return task, batch, features, visible, run

    return make


def joint(task, features, visible, i):
    return torch.cat([features[m][i] * visible[i, c] for c, m in enumerate(task.modalities)])


def normalised(rows, linear, norm):
    """Batch normalisation of linear(rows), one number at a time."""
    outputs = [linear.weight @ row + linear.bias for row in rows]
    columns = []
    for d in range(len(outputs[0])):
        column = [row[d] for row in outputs]
        centre = sum(column) / len(column)
        spread = sum((v - centre) ** 2 for v in column) / len(column)
        columns.append([norm.weight[d] * (v - centre) / (spread + norm.eps).sqrt() + norm.bias[d] for v in column])
    return torch.stack([torch.stack(column) for column in columns], dim=1)


def naive_parts(task, batch, features, visible, seed=0):
    """Cross-entropy and divergence of every sample that has something, and its σ² and shown modalities."""
    rows = [i for i in range(len(batch)) if batch.present[i].any()]
    inputs = [joint(task, features, visible, i) for i in rows]
    mean, log_variance = normalised(inputs, *task.mean), normalised(inputs, *task.log_variance)
    torch.manual_seed(seed)
    noise = torch.randn(mean.shape, dtype=mean.dtype)
    parts = []
    for n, i in enumerate(rows):
        sigma = (log_variance[n] / 2).exp()
        e = mean[n] + noise[n] * sigma
        z = task.classifier.weight @ e + task.classifier.bias
        ce = z.exp().sum().log() - z[batch.label[i]]
        kl = kl_divergence(Normal(mean[n], sigma), Normal(0.0, 1.0)).sum()
        parts.append((ce, kl, sigma**2, [c for c in range(len(task.modalities)) if visible[i, c]]))
    return parts


@pytest.mark.parametrize("literal", [False, True])
def test_loss_and_gradients(step, literal):
    task, batch, features, visible, run = step(kl_weight=0.01, hard_weight=0.7, warmup=0, literal_hard_loss=literal)
    task.hard[[1, 3, 4]] = True
    parts = naive_parts(task, batch, features, visible)
    assert len(parts) == 12  # two of the 14 samples have nothing
    hard = [shown in ([1], [0, 1], [0, 2]) for *_, shown in parts]
    assert 0 < sum(hard) < len(hard)
    size = len(parts)
    ce = [part[0] for part in parts]
    term = (
        sum(ce) * sum(hard) / size if literal else sum(c for c, is_hard in zip(ce, hard, strict=True) if is_hard) / size
    )
    expected = sum(ce) / size + 0.01 * sum(part[1] for part in parts) / size + 0.7 * term
    got = run()
    torch.testing.assert_close(got, expected)
    wanted = [
        *task.mean.parameters(),
        *task.log_variance.parameters(),
        *task.classifier.parameters(),
        *features.values(),
    ]
    torch.testing.assert_close(
        torch.autograd.grad(got, wanted), torch.autograd.grad(expected, wanted), rtol=1e-6, atol=1e-8
    )


def test_hidden_features_are_not_read(step):
    visible = torch.tensor([[True, False, False], [True, True, False], [False, True, True], [True, True, True]])
    task, _, features, _, run = step(4, torch.ones(4, 3, dtype=torch.bool), visible)
    run().backward()
    for column, modality in enumerate(task.modalities):
        read = features[modality].grad.any(dim=1)
        assert torch.equal(read, visible[:, column])


def test_the_prediction_is_that_of_the_mean(step):
    task, _, features, visible, run = step()
    losses = {run(seed).item() for seed in (0, 0, 1)}
    assert len(losses) == 2  # sampled in training
    task.eval()
    logits = task.fuse(features, visible)
    for i in range(len(visible)):
        h = joint(task, features, visible, i)
        linear, norm = task.mean
        mu = linear.weight @ h + linear.bias
        mu = norm.weight * (mu - norm.running_mean) / (norm.running_var + norm.eps).sqrt() + norm.bias
        torch.testing.assert_close(logits[i], task.classifier.weight @ mu + task.classifier.bias)
    torch.manual_seed(1)
    assert torch.equal(logits, task.fuse(features, visible))


def test_each_sample_shows_one_of_what_it_has(world3):
    task = world3.task("dmrnet")
    batch = batch_of(world3.data.splits.train, 40)
    plain, shown = task.distribution, []
    task.distribution = lambda features, present: (shown.append(present), plain(features, present))[1]
    task.training_step(batch, 0)
    assert (shown[0] <= batch.present).all()
    assert shown[0].any(dim=1).all()
    assert (shown[0] != batch.present).any()


def test_the_warm_up_records_the_variance_of_each_combination(step):
    task, batch, features, visible, run = step(warmup=6)
    sums, counts = [0.0] * 7, [0] * 7
    for seed in (0, 1):
        parts = naive_parts(task, batch, features, visible, seed)
        run(seed)
        for _, _, variance, shown in parts:
            sums[PATTERNS.index(shown)] += (sum(variance) / len(variance)).item()
            counts[PATTERNS.index(shown)] += 1
    torch.testing.assert_close(task.variance_sum, torch.tensor(sums, dtype=torch.double))
    assert task.variance_count.tolist() == counts
    assert sorted(set(counts)) == [2, 4]


def test_nothing_is_recorded_after_the_warm_up(step):
    task, *_, run = step(warmup=0)
    run()
    assert not task.variance_count.any()


def hard_patterns(task, means, counts):
    task.variance_count = torch.tensor(counts, dtype=torch.float)
    task.variance_sum = torch.tensor(means) * task.variance_count
    task.warmup = 0  # it is over in epoch 0
    task.on_train_epoch_start()
    return task.hard.nonzero().squeeze(1).tolist()


def test_hard_combinations_are_those_of_the_largest_mean_variance(world2, world3):
    two, three = (lambda: world2.task("dmrnet")), (lambda: world3.task("dmrnet"))
    assert hard_patterns(two(), [0.5, 0.6, 0.9], [5.0, 3, 1]) == [1]  # never the complete one
    assert hard_patterns(two(), [0.5, 0.4, 0.9], [1.0, 30, 1]) == [0]  # means, not sums
    assert hard_patterns(three(), [0.1, 0.8, 0.3, 0.7, 0.2, 0.9, 1.0], [4.0] * 7) == [1, 3, 5]
    seldom = [4.0, 4.0, 0.0, 0.0, 0.0, 0.0, 4.0]
    assert hard_patterns(three(), [0.1, 0.8, 0.3, 0.7, 0.2, 0.9, 1.0], seldom) == [
        0,
        1,
    ]  # those that were not seen are not
    assert hard_patterns(three(), [0.0] * 7, [0.0] * 7) == []


def test_combinations_are_ranked_once_when_the_warm_up_is_over(world3):
    recipe = Recipe(epochs=4, batch_size=8, lr=0.01)
    task = world3.task("dmrnet", recipe=recipe)
    assert task.warmup == 2  # half of the epochs
    assert world3.task("dmrnet", recipe=Recipe(epochs=100)).warmup == 6
    assert world3.task("dmrnet", recipe=Recipe(epochs=100), warmup=0).warmup == 0
    seen = []
    step = task.training_step

    def training_step(batch, batch_idx):
        seen.append((task.current_epoch, task.hard.clone(), task.variance_count.sum().item()))
        return step(batch, batch_idx)

    task.training_step = training_step
    fit(task, world3.data.splits.train, epochs=4, batches=5)
    assert not any(hard.any() for epoch, hard, _ in seen if epoch < 2)
    means = (task.variance_sum / task.variance_count)[:-1]
    expected = sorted(sorted(range(6), key=lambda p: -means[p].nan_to_num(-1))[:3])
    assert all(hard.nonzero().squeeze(1).tolist() == expected for epoch, hard, _ in seen if epoch >= 2)
    assert [count for *_, count in seen][10:] == [80] * 10  # two epochs of 5 batches of 8, and no more


def test_a_single_row_is_normalised_by_the_running_statistics():
    norm = BatchNorm(4)
    norm(torch.randn(16, 4) * 3 + 1)
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    row = torch.randn(1, 4)
    got = norm(row)
    assert all(torch.equal(before[name], value) for name, value in norm.state_dict().items())
    for d in range(4):
        expected = (row[0, d] - before["running_mean"][d]) / math.sqrt(before["running_var"][d] + norm.eps)
        torch.testing.assert_close(got[0, d], expected)
    several = torch.randn(5, 4)
    torch.testing.assert_close(norm(several), F.batch_norm(several, None, None, training=True))


def test_a_batch_in_which_nothing_is_present(step):
    task, *_, run = step(3, torch.zeros(3, 3, dtype=torch.bool))
    loss = run()
    loss.backward()
    assert loss == 0
    assert all(p.grad.isfinite().all() for p in task.mean.parameters())


def test_without_decoupling_it_is_the_cross_entropy_of_one_vector_a_combination(step):
    task, batch, features, visible, run = step(decoupled=False, hard_weight=0.0)
    rows = [i for i in range(len(batch)) if batch.present[i].any()]
    mean = normalised([joint(task, features, visible, i) for i in rows], *task.mean)
    expected = F.cross_entropy(task.classifier(mean), batch.label[rows])
    assert run(seed=0).item() == pytest.approx(expected.item())
    assert run(seed=1).item() == pytest.approx(expected.item()), "nothing is drawn"
    assert not task.variance_count.any()


def test_hard_combinations_need_a_variance(world3):
    with pytest.raises(UsageError, match="needs hard_weight: 0"):
        world3.task("dmrnet", decoupled=False)
