import pytest
import pytorch_lightning as pl
import torch

from mmbench.baselines.mmin import frozen_embeddings
from mmbench.recipe import Recipe
from planted import batch_of, fit, naive_cascade, naive_layers, noisy_rows, same, weights


def masks():
    """What five samples have, and what stays visible of it; the last one has nothing."""
    present = torch.tensor([[1, 1, 1], [1, 1, 1], [0, 1, 1], [1, 0, 0], [0, 0, 0]]).bool()
    visible = torch.tensor([[1, 0, 0], [0, 1, 1], [0, 0, 1], [1, 0, 0], [0, 0, 0]]).bool()
    return present, visible


def in_second_stage(task, visible):
    """Without dropout, with a teacher that differs from the encoders, and with this for what a step leaves visible."""
    task.eval()
    task.pretraining_epochs = 0
    task.draw_visible = lambda present: visible
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in task.teacher.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return task


def slices(task):
    """modality -> where its numbers are in a joint embedding."""
    start, places = 0, {}
    for m in task.modalities:
        places[m] = slice(start, start + task.dims[m])
        start += task.dims[m]
    return places


@pytest.mark.parametrize("changes", [{}, {"imagination_weight": 0.5, "cycle_weight": 7.0, "blocks": 2}])
def test_loss_and_gradients_of_the_second_stage(world3, changes):
    present, visible = masks()
    task = in_second_stage(world3.task("mmin", **changes), visible)
    batch = batch_of(world3.complete, 5, present=present)
    features = task.encode(batch)
    imagination, cycle, expected = [], [], torch.zeros(())
    for i in range(5):
        x = torch.cat([features[m][i] * visible[i, c] for c, m in enumerate(task.modalities)])
        imagined, latents = naive_cascade(task.imagination, x)
        returned, _ = naive_cascade(task.cycle, imagined)
        expected = expected - naive_layers(task.classifier, latents).log_softmax(0)[batch.label[i]] / 5
        for c, (m, place) in enumerate(slices(task).items()):
            if visible[i, c]:
                cycle.append(((returned[place] - x[place].detach()) ** 2).mean())
            elif present[i, c]:
                alone = batch.inputs[m]
                alone = alone[[i]] if isinstance(alone, torch.Tensor) else {n: v[[i]] for n, v in alone.items()}
                taught = task.teacher[m](alone)[0].detach()
                imagination.append(((imagined[place] - taught) ** 2).mean())
    assert (len(imagination), len(cycle)) == (4, 5)
    expected = (
        expected
        + changes.get("imagination_weight", 4.0) * sum(imagination) / 4
        + changes.get("cycle_weight", 2.0) * sum(cycle) / 5
    )
    got = task.training_step(batch, 0)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    parameters = [
        p for n, p in task.named_parameters() if p.requires_grad and not n.startswith("pretraining_classifier")
    ]
    torch.testing.assert_close(
        torch.autograd.grad(got, parameters, allow_unused=True),
        torch.autograd.grad(expected, parameters, allow_unused=True),
        rtol=1e-3,
        atol=1e-5,
    )


def test_loss_of_the_first_stage(world3):
    present, _ = masks()
    task = world3.task("mmin").eval()
    assert task.is_pretraining
    batch = batch_of(world3.complete, 5, present=present)
    features = task.encode(batch)
    expected = torch.zeros(())
    for i in range(5):
        x = torch.cat([features[m][i] * present[i, c] for c, m in enumerate(task.modalities)])
        expected = expected - naive_layers(task.pretraining_classifier, x).log_softmax(0)[batch.label[i]] / 5
    torch.testing.assert_close(task.training_step(batch, 0), expected)


def test_prediction_classifies_the_latents(world3):
    present, _ = masks()
    task = world3.task("mmin").eval()
    features = task.encode(batch_of(world3.complete, 5))
    logits = task.fuse(features, present)
    for i in range(5):
        x = torch.cat([features[m][i] * present[i, c] for c, m in enumerate(task.modalities)])
        expected = naive_layers(task.classifier, naive_cascade(task.imagination, x)[1])
        torch.testing.assert_close(logits[i], expected, rtol=1e-4, atol=1e-5)


def test_only_hidden_but_known_views_are_imagined(world3, monkeypatch):
    present, visible = masks()
    task = in_second_stage(world3.task("mmin"), visible)
    batch = batch_of(world3.complete, 5, present=present)
    loss = task.training_step(batch, 0)

    def with_shift(cells):
        def shifted(task, encoders, batch, _):
            embedded = frozen_embeddings(task, encoders, batch, present & ~visible)
            return {m: t + 100 * cells[:, [c]] for c, (m, t) in enumerate(embedded.items())}

        monkeypatch.setattr("mmbench.baselines.mmin.frozen_embeddings", shifted)
        return task.training_step(batch, 0)

    hidden = present & ~visible
    assert torch.equal(with_shift(~hidden), loss)
    assert with_shift(hidden) > loss + 1000


def test_frozen_embeddings_see_their_cells_only_and_leave_no_trace(world3):
    present, _ = masks()
    task = world3.task("mmin").train()
    batch = batch_of(world3.complete, 5)
    generator = torch.Generator().manual_seed(0)
    noisy = batch_of(world3.complete, 5)
    noisy.inputs = {m: noisy_rows(v, ~present[:, c], generator) for c, (m, v) in enumerate(batch.inputs.items())}
    before = weights(task.teacher)
    embedded = frozen_embeddings(task, task.teacher, batch, present)
    again = frozen_embeddings(task, task.teacher, noisy, present)
    whole = task.eval().encode(batch)  # the teacher begins as a copy of the encoders
    for c, m in enumerate(task.modalities):
        assert torch.equal(embedded[m], again[m])
        assert not embedded[m].requires_grad
        torch.testing.assert_close(embedded[m], whole[m].detach() * present[:, [c]])
    assert same(weights(task.teacher), before)


class Watch(pl.Callback):
    """Copies the encoders, the teacher and the losses' stage after every epoch."""

    def __init__(self):
        self.encoders, self.teachers, self.stages = [], [], []

    def on_train_batch_start(self, trainer, task, batch, batch_idx):
        self.stages.append(task.is_pretraining)

    def on_train_epoch_end(self, trainer, task):
        self.encoders.append(weights(task.encoders))
        self.teachers.append(weights(task.teacher))


def test_the_teacher_is_what_the_first_stage_made_and_does_not_change_again(world3):
    recipe = Recipe(epochs=5, batch_size=8, lr=0.05)
    task = world3.task("mmin", recipe=recipe, pretraining=0.4)
    assert task.pretraining_epochs == 2
    watch = Watch()
    fit(task, world3.data.splits.train, epochs=5, batches=2, callbacks=[watch])
    assert watch.stages == [True] * 4 + [False] * 6
    assert any("running_mean" in name for name in watch.teachers[0])
    assert not same(watch.encoders[0], watch.encoders[1])
    for epoch in (2, 3, 4):
        assert same(watch.teachers[epoch], watch.encoders[1])  # statistics of batch normalisation, too
        assert not same(watch.encoders[epoch], watch.encoders[epoch - 1])
    assert not any(p.requires_grad for p in task.teacher.parameters())


def test_the_encoders_go_on_from_the_teacher(world3):
    started = []

    class Start(pl.Callback):
        def on_train_batch_start(self, trainer, task, batch, batch_idx):
            started.append(same(weights(task.encoders), weights(task.teacher)))

    fit(world3.task("mmin"), world3.data.splits.train, batches=2, callbacks=[Start()])
    assert started == [True, False, True, False]


def test_each_stage_trains_its_own_part(world3):
    task = world3.task("mmin")
    seen = {True: set(), False: set()}
    for name, p in task.named_parameters():
        if p.requires_grad:
            part = name.split(".")[0]
            p.register_post_accumulate_grad_hook(lambda p, part=part: seen[task.is_pretraining].add(part))
    fit(task, world3.complete, batches=1)
    assert seen[True] == {"encoders", "pretraining_classifier"}
    assert seen[False] == {"encoders", "imagination", "cycle", "classifier"}
