import math

import pytest
import torch

from planted import batch_of, every_pattern, fit, random_features


def confidence(z, temperature=10.0):
    return torch.log(sum(torch.exp(v) for v in z)) / temperature


def naive_logits(task, batch):
    """z_m of each sample that has the modality, sample -> modality -> (C,)."""
    features = task.encode(batch)
    return [
        {
            c: task.heads[m].weight @ features[m][i] + task.heads[m].bias
            for c, m in enumerate(task.modalities)
            if batch.present[i, c]
        }
        for i in range(len(batch))
    ]


def naive_loss(task, batch, history, rank_weight=1.0):
    """The loss of one step, and the history after it (in place)."""
    logits, size, modalities = naive_logits(task, batch), len(batch), len(task.modalities)
    loss = torch.zeros(())
    for i, parts in enumerate(logits):
        fused = sum(confidence(z).item() * z for z in parts.values())  # .item(): no gradient through confidence
        loss = loss - fused.log_softmax(0)[batch.label[i]] / size
    for m in range(modalities):
        rows = [i for i in range(size) if m in logits[i]]
        for i in rows:
            ce = -logits[i][m].log_softmax(0)[batch.label[i]]
            loss = loss + ce / len(rows)
            history[batch.index[i]][m] += ce.item()
    for m in range(modalities):
        values = [row[m] for row in history]
        low, high = min(values), max(values)
        rows = [i for i in range(size) if m in logits[i]]
        for a, i in enumerate(rows):
            j = rows[(a + 1) % len(rows)]
            k_i, k_j = ((history[batch.index[n]][m] - low) / (high - low) for n in (i, j))
            t = (k_i > k_j) - (k_i < k_j)
            violation = t * (confidence(logits[i][m]) - confidence(logits[j][m])) - abs(k_i - k_j)
            if violation > 0:
                loss = loss + rank_weight * violation / len(rows)
    return loss


def spread(task):
    """Larger heads, so that confidences differ enough for the rank term to act."""
    with torch.no_grad():
        for head in task.heads.values():
            head.weight *= 40
    return task


@pytest.mark.parametrize("name", ["planted2", "planted3"])
@pytest.mark.parametrize("rank_weight", [0.1, 1.0])
def test_loss_and_gradients_over_three_steps(make_world, name, rank_weight):
    world = make_world(name)
    task = spread(world.task("qmf", rank_weight=rank_weight).eval())
    split = world.data.splits.train
    history = [[0.0] * len(task.modalities) for _ in range(len(split))]
    ranked = 0.0
    for rows in (range(0, 14), range(14, 40), range(6, 20)):
        batch = split.__getitems__(rows)
        assert not batch.present.all()
        expected = naive_loss(task, batch, history, rank_weight)
        got = task.training_step(batch, 0)
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
        parameters = list(task.parameters())
        torch.testing.assert_close(
            torch.autograd.grad(got, parameters), torch.autograd.grad(expected, parameters), rtol=1e-3, atol=1e-3
        )
        torch.testing.assert_close(task.history, torch.tensor(history), rtol=1e-4, atol=1e-4)
        with torch.no_grad():
            ranked += task.rank_loss(task.confidence(task.modality_logits(task.encode(batch))), batch).item()
    assert ranked > 0.1  # the term was not idle
    assert (task.history[~split.present] == 0).all()


def test_fused_logits_are_weighted_by_confidence(world3):
    task = world3.task("qmf").double()
    present = every_pattern(3)
    features = random_features(task, len(present))
    logits = task.fuse(features, present)
    for i, row in enumerate(present):
        expected = torch.zeros(3, dtype=torch.double)
        for m, here in zip(task.modalities, row, strict=True):
            if here:
                z = task.heads[m].weight @ features[m][i] + task.heads[m].bias
                expected = expected + math.log(sum(map(math.exp, z.tolist()))) / 10 * z
        torch.testing.assert_close(logits[i], expected)


def test_no_gradient_flows_through_the_fusion_weights(world2):
    task = world2.task("qmf")
    logits = torch.randn(4, 2, 3, requires_grad=True)
    present = torch.ones(4, 2, dtype=torch.bool)
    task.weighted_sum(logits, present).sum().backward()
    expected = task.confidence(logits).detach().unsqueeze(-1).expand_as(logits)
    torch.testing.assert_close(logits.grad, expected)


def rank(task, confidences, kappas, present=None):
    """The rank term of one batch of the first samples, for the first modality; the second is silent."""
    size = len(confidences)
    batch = batch_of(task.split, size)
    batch.present = torch.tensor([[here, False] for here in present or [True] * size])
    task.history.zero_()
    task.history[:size, 0] = torch.tensor(kappas)
    return task.rank_loss(torch.tensor([[c, 0.0] for c in confidences]), batch).item()


def test_rank_term_sign_slack_and_pairs(world2):
    task = world2.task("qmf")
    task.split = world2.complete
    # More loss so far (κ 1 against 0.75) with more confidence is a violation, less the slack of 0.25. Pairs are cyclic, so that
    # each of two samples meets the other one twice.
    assert rank(task, [0.9, 0.1], [4.0, 3.0]) == pytest.approx(0.8 - 0.25)
    assert rank(task, [0.1, 0.9], [3.0, 4.0]) == pytest.approx(0.8 - 0.25)
    assert rank(task, [0.1, 0.9], [4.0, 3.0]) == 0  # the right order
    assert rank(task, [0.9, 0.1], [4.0, 0.0]) == 0  # within the slack of 1
    assert rank(task, [0.9, 0.1], [2.0, 2.0]) == 0  # no order
    assert rank(task, [0.9], [2.0]) == 0
    # (1st, 2nd), (2nd, 3rd), (3rd, 1st); κ: 1, 0.75, 0.5
    expected = ((0.9 - 0.2 - 0.25) + 0 + (0.9 - 0.3 - 0.5)) / 3
    assert rank(task, [0.9, 0.2, 0.3], [4.0, 3.0, 2.0]) == pytest.approx(expected)
    # Without the second sample, the first and the third are a pair.
    assert rank(task, [0.9, 9.9, 0.3], [4.0, 3.0, 2.0], [True, False, True]) == pytest.approx(0.9 - 0.3 - 0.5)


def test_history_counts_every_epoch(world2):
    task = world2.task("qmf")
    split = world2.data.splits.train
    before = []
    step = task.training_step

    def training_step(batch, batch_idx):
        before.append(task.history.clone())
        return step(batch, batch_idx)

    task.training_step = training_step
    fit(task, split, epochs=2, batches=5)
    assert (task.history[split.present] > before[5][split.present]).all()
    assert (before[5][split.present] > 0).all()
    assert (before[1][8:] == 0).all()


def test_temperature(world2):
    z = torch.randn(3, 2, 3)
    task = world2.task("qmf", temperature=2.0)
    torch.testing.assert_close(task.confidence(z), z.exp().sum(-1).log() / 2)
    assert (task.confidence(z - 100) < 0).all()  # departure 4
