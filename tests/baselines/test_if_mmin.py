import math

import pytest
import pytorch_lightning as pl
import torch

from mmbench.baselines.if_mmin import central_moment_discrepancy
from mmbench.recipe import Recipe
from planted import batch_of, fit, naive_layers, same, weights


def naive_cmd(x, y, moments=5):
    """The definition, one number at a time, for [a, b] = [−1, 1]."""
    total = torch.zeros((), dtype=x.dtype)
    for k in range(1, moments + 1):
        squares = torch.zeros((), dtype=x.dtype)
        for d in range(x.shape[1]):
            side = []
            for sample in (x, y):
                mean = sum(row[d] for row in sample) / len(sample)
                side.append(mean if k == 1 else sum((row[d] - mean) ** k for row in sample) / len(sample))
            squares = squares + (side[0] - side[1]) ** 2
        total = total + squares.sqrt() / (1 - -1) ** k
    return total


def naive_space(space, features, visible, i):
    """The specific and the invariant features of one sample, in the modalities' order."""
    specific = [
        layer.weight @ features[m][i] + layer.bias if visible[i, c] else torch.zeros(len(layer.bias))
        for c, (m, layer) in enumerate(space.specific.items())
    ]
    return specific, [naive_layers(space.invariant, s, slope=0.01).tanh() for s in specific]


def naive_cascade(cascade, x, guide):
    """Every block sees what the one before it put out, and the guide; nothing is carried past a block."""
    latents = []
    for encoder, decoder in zip(cascade.encoders, cascade.decoders, strict=True):
        latents.append(naive_layers(encoder, x + guide, slope=0.01))
        x = naive_layers(decoder, latents[-1])
    return naive_layers(cascade.transition, x), torch.cat(latents)


def masks():
    """What five samples have, and what stays visible of it; the last one has nothing."""
    present = torch.tensor([[1, 1, 1], [1, 1, 1], [0, 1, 1], [1, 0, 0], [0, 0, 0]]).bool()
    visible = torch.tensor([[1, 0, 0], [0, 1, 1], [0, 0, 1], [1, 0, 0], [0, 0, 0]]).bool()
    return present, visible


@pytest.mark.parametrize("moments", [1, 2, 5])
def test_cmd_is_the_sum_of_the_distances_of_moments(moments):
    torch.manual_seed(0)
    x, y = 2 * torch.rand(9, 4, dtype=torch.double) - 1, torch.rand(6, 4, dtype=torch.double) ** 2
    torch.testing.assert_close(central_moment_discrepancy(x, y, moments), naive_cmd(x, y, moments))
    torch.testing.assert_close(central_moment_discrepancy(y, x, moments), naive_cmd(x, y, moments))


def test_cmd_by_hand():
    x, y = torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), torch.tensor([[0.0, 0.0]] * 3)
    assert central_moment_discrepancy(x, y).item() == 1 / 4 + 1 / 16  # equal means, no odd moments
    assert central_moment_discrepancy(x, y - 0.5).item() == pytest.approx(math.sqrt(0.5) / 2 + 1 / 4 + 1 / 16)
    skewed = torch.tensor([[-0.25], [-0.25], [0.5]])  # moments: 0, 1/8, 1/32
    assert central_moment_discrepancy(skewed, torch.zeros(1, 1), 3).item() == pytest.approx(1 / 8 / 4 + 1 / 32 / 8)


def test_cmd_of_equal_samples_is_zero_and_has_a_gradient():
    x = torch.rand(5, 3).requires_grad_()
    value = central_moment_discrepancy(x, x.detach().flip(0))
    assert value.item() == pytest.approx(0, abs=1e-6)
    for pair in [(x, x.detach()), (x[:1], x[:1].detach()), (x[:1], x[1:2].detach())]:
        (gradient,) = torch.autograd.grad(central_moment_discrepancy(*pair), x)
        assert gradient.isfinite().all()


def test_loss_and_gradients_of_the_first_stage(world3):
    present, _ = masks()
    task = world3.task("if_mmin", width=7, moments=3).eval()
    assert task.is_pretraining
    batch = batch_of(world3.complete, 5, present=present)
    features = task.encode(batch)
    expected, shared = torch.zeros(()), [[], [], []]
    for i in range(5):
        specific, invariant = naive_space(task.space, features, present, i)
        logits = naive_layers(task.pretraining_classifier, torch.cat(specific + invariant))
        expected = expected - logits.log_softmax(0)[batch.label[i]] / 5
        for c in range(3):
            if present[i, c]:
                shared[c].append(invariant[c])
    for a, b in [(0, 1), (0, 2), (1, 2)]:
        expected = expected + naive_cmd(torch.stack(shared[a]), torch.stack(shared[b]), 3) / 3
    got = task.training_step(batch, 0)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    parameters = [*task.encoders.parameters(), *task.space.parameters(), *task.pretraining_classifier.parameters()]
    torch.testing.assert_close(
        torch.autograd.grad(got, parameters), torch.autograd.grad(expected, parameters), rtol=1e-3, atol=1e-5
    )


def test_pairs_that_do_not_occur_do_not_count(world3):
    task = world3.task("if_mmin")
    invariant = torch.rand(6, 3, 4)
    present = torch.tensor([[True, False, True]]).repeat(6, 1)
    present[:4, 2] = False
    expected = naive_cmd(invariant[:, 0], invariant[4:, 2])
    torch.testing.assert_close(task.discrepancy(invariant, present), expected)
    for mask in (present & torch.tensor([True, False, False]), present & False):
        assert task.discrepancy(invariant, mask) == 0


@pytest.mark.parametrize("weight", [1.0, 100.0])
def test_loss_and_gradients_of_the_second_stage(world3, weight):
    present, visible = masks()
    task = world3.task("if_mmin", width=7, invariant_weight=weight).eval()
    task.pretraining_epochs = 0
    task.draw_visible = lambda present: visible
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in [*task.teacher_encoders.parameters(), *task.teacher_space.parameters()]:
            parameter += 0.3 * torch.randn_like(parameter)
    batch = batch_of(world3.complete, 5, present=present)
    features = task.encode(batch)
    taught = {m: encoder(batch.inputs[m]).detach() for m, encoder in task.teacher_encoders.items()}
    imagination, invariance, expected = [], [], torch.zeros(())
    for i in range(5):
        specific, invariant = naive_space(task.space, features, visible, i)
        known, shared = naive_space(task.teacher_space, taught, present, i)
        imagined, latents = naive_cascade(task.imagination, torch.cat(specific), torch.cat(invariant))
        expected = expected - naive_layers(task.classifier, latents).log_softmax(0)[batch.label[i]] / 5
        for c in range(3):
            if present[i, c]:
                invariance.append(((invariant[c] - shared[c].detach()) ** 2).mean())
                if not visible[i, c]:
                    imagination.append(((imagined[7 * c : 7 * c + 7] - known[c].detach()) ** 2).mean())
    assert (len(imagination), len(invariance)) == (4, 9)
    expected = expected + sum(imagination) / 4 + weight * sum(invariance) / 9
    got = task.training_step(batch, 0)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    trained = (task.encoders, task.space, task.imagination, task.classifier)
    parameters = [p for module in trained for p in module.parameters()]
    torch.testing.assert_close(
        torch.autograd.grad(got, parameters, allow_unused=True),
        torch.autograd.grad(expected, parameters, allow_unused=True),
        rtol=1e-3,
        atol=1e-4,
    )


def test_prediction_classifies_the_latents(world3):
    present, _ = masks()
    task = world3.task("if_mmin", width=7).eval()
    features = task.encode(batch_of(world3.complete, 5))
    logits = task.fuse(features, present)
    for i in range(5):
        specific, invariant = naive_space(task.space, features, present, i)
        latents = naive_cascade(task.imagination, torch.cat(specific), torch.cat(invariant))[1]
        torch.testing.assert_close(logits[i], naive_layers(task.classifier, latents), rtol=1e-4, atol=1e-5)


def test_targets_come_from_what_is_present_only(world3):
    """What the teacher is asked for, and for which cells it is compared."""
    present, visible = masks()
    task = world3.task("if_mmin", width=7).eval()
    task.pretraining_epochs = 0
    task.draw_visible = lambda present: visible
    batch = batch_of(world3.complete, 5, present=present)
    loss, plain = task.training_step(batch, 0), task.teacher_space.forward
    hidden = present & ~visible

    def with_shift(specific_cells, invariant_cells):
        def shifted(features, cells):
            assert torch.equal(cells, present)
            assert all((features[m][~present[:, c]] == 0).all() for c, m in enumerate(task.modalities))
            specific, invariant = plain(features, cells)
            return specific + 100 * specific_cells.unsqueeze(-1), invariant + 100 * invariant_cells.unsqueeze(-1)

        task.teacher_space.forward = shifted
        return task.training_step(batch, 0)

    assert torch.equal(with_shift(~hidden, ~present), loss)
    assert with_shift(hidden, ~present) > loss + 1000
    assert with_shift(~hidden, present & visible) > loss + 1000
    assert with_shift(~hidden, hidden) > loss + 1000


class Watch(pl.Callback):
    """Copies what is trained and what is frozen after every epoch, and notes the stage of every step."""

    def __init__(self):
        self.students, self.teachers, self.stages = [], [], []

    def on_train_batch_start(self, trainer, task, batch, batch_idx):
        self.stages.append(task.is_pretraining)

    def on_train_epoch_end(self, trainer, task):
        self.students.append((weights(task.encoders), weights(task.space)))
        self.teachers.append((weights(task.teacher_encoders), weights(task.teacher_space)))


def test_the_teacher_is_what_the_first_stage_made_and_does_not_change_again(world3):
    task = world3.task("if_mmin", recipe=Recipe(epochs=5, batch_size=8, lr=0.05), pretraining=0.4)
    watch = Watch()
    fit(task, world3.data.splits.train, epochs=5, batches=2, callbacks=[watch])
    assert watch.stages == [True] * 4 + [False] * 6
    assert any("running_mean" in name for name in watch.teachers[0][0])
    for part in range(2):
        assert not same(watch.students[0][part], watch.students[1][part])
        for epoch in (2, 3, 4):
            assert same(watch.teachers[epoch][part], watch.students[1][part])
            assert not same(watch.students[epoch][part], watch.students[epoch - 1][part])


def test_each_stage_trains_its_own_part(world3):
    task = world3.task("if_mmin")
    seen = {True: set(), False: set()}
    for name, p in task.named_parameters():
        if p.requires_grad:
            part = name.split(".")[0]
            p.register_post_accumulate_grad_hook(lambda p, part=part: seen[task.is_pretraining].add(part))
    fit(task, world3.complete, batches=1)
    assert seen[True] == {"encoders", "space", "pretraining_classifier"}
    assert seen[False] == {"encoders", "space", "imagination", "classifier"}
