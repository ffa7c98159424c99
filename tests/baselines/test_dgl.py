import pytest
import torch
from torch.nn import functional as F

from planted import batch_of, every_pattern, random_features


def alone(task, features, m):
    """F({m}) of every sample, by the whole classifier and zeros in the other modalities' place: (B, C)."""
    return task.head(torch.cat([features[n] if n == m else torch.zeros_like(features[n]) for n in task.modalities], 1))


def two_backward_passes(task, batch):
    """The released step: back from the encoders' losses, what that leaves at the classifier is deleted, back from the fused loss."""
    features = task.encode(batch)
    unimodal = 0.0
    for column, m in enumerate(task.modalities):
        rows = [i for i in range(len(batch)) if batch.present[i, column]]
        if rows:
            unimodal = unimodal + F.cross_entropy(alone(task, features, m)[rows], batch.label[rows])
    (task.alpha * unimodal).backward(retain_graph=True)
    task.head.weight.grad = task.head.bias.grad = None
    fused = F.cross_entropy(task.head(torch.cat([features[m].detach() for m in task.modalities], dim=1)), batch.label)
    fused.backward()
    return fused + task.alpha * unimodal


@pytest.mark.parametrize("name", ["planted2", "planted3"])
@pytest.mark.parametrize("alpha", [0.5, 4.0])
def test_a_step_is_the_released_one_with_two_backward_passes(make_world, name, alpha):
    world = make_world(name)
    task = world.task("dgl", alpha=alpha).eval()
    batch = batch_of(world.data.splits.train, 20)
    assert not batch.present.all()
    expected = two_backward_passes(task, batch)
    gradients = {name: p.grad.clone() for name, p in task.named_parameters()}
    task.zero_grad()
    loss = task.training_step(batch, 0)
    loss.backward()
    torch.testing.assert_close(loss, expected)
    for name, p in task.named_parameters():
        torch.testing.assert_close(p.grad, gradients[name], msg=lambda told, name=name: f"{name}: {told}")


def test_logits_of_a_pattern_have_the_whole_bias(world3):
    task = world3.task("dgl").double()
    present = every_pattern(3)
    features = random_features(task, len(present))
    logits = task.fuse(features, present)
    for i, row in enumerate(present):
        expected, start = task.head.bias, 0
        for m, here in zip(task.modalities, row, strict=True):
            columns = task.head.weight[:, start : start + task.dims[m]]
            start += task.dims[m]
            expected = expected + columns @ features[m][i] if here else expected
        torch.testing.assert_close(logits[i], expected)


def test_no_loss_reaches_what_it_is_cut_off_from(world3):
    task = world3.task("dgl").eval()
    batch = batch_of(world3.complete, 12)
    unimodal = task.modality_logits(task.encode(batch))
    unimodal.square().sum().backward()
    assert task.head.weight.grad is None
    assert task.head.bias.grad is None
    task.zero_grad()
    task.alpha = 0.0  # the first term is left
    task.training_step(batch, 0).backward()
    assert all(not p.grad.any() for p in task.encoders.parameters())
    assert task.head.weight.grad.abs().min() > 0


def test_an_encoder_does_not_notice_the_other_modalities(world3):
    """Whether they are there or not, and whatever they hold, its gradient is that of its own loss."""
    task = world3.task("dgl").eval()
    batch = batch_of(world3.complete, 12)

    def gradients(present):
        batch.present = present
        task.zero_grad()
        task.training_step(batch, 0).backward()
        return [p.grad.clone() for p in task.encoders["sensor"].parameters()]

    complete = torch.ones(12, 3, dtype=torch.bool)
    gaps = complete.clone()
    gaps[::2, 1] = gaps[1::3, 2] = False
    torch.testing.assert_close(gradients(complete), gradients(gaps))
