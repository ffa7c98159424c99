import pytest
import pytorch_lightning as pl
import torch

from mmbench.recipe import Recipe
from planted import batch_of, fit, same, weights


def gaps():
    """What five samples have; the last one has nothing."""
    return torch.tensor([[1, 1, 1], [1, 1, 0], [0, 1, 1], [1, 0, 0], [0, 0, 0]]).bool()


def in_second_stage(task):
    """In double precision, without dropout, with teachers that differ from the encoders."""
    task.double().eval()
    task.pretraining_epochs = 0
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in task.teacher.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return task


def doubled(batch):
    batch.inputs = {
        m: v.double() if torch.is_tensor(v) and v.is_floating_point() else v for m, v in batch.inputs.items()
    }
    return batch


def alone(value, i):
    """One sample of a modality's input."""
    return value[[i]] if torch.is_tensor(value) else {name: part[[i]] for name, part in value.items()}


@pytest.mark.parametrize("weight", [10.0, 0.7, 0.0])
def test_loss_and_gradients_of_the_second_stage(world3, weight):
    task = in_second_stage(world3.task("umt", distillation_weight=weight))
    present = gaps()
    batch = doubled(batch_of(world3.complete, 5, present=present))
    blocks = dict(zip(task.modalities, task.head.weight.split(list(task.dims.values()), dim=1), strict=True))
    entropies, distances = [], {m: [] for m in task.modalities}
    for i in range(5):
        logits = torch.zeros(3, dtype=torch.double)
        for c, m in enumerate(task.modalities):
            if present[i, c]:
                feature = task.encoders[m](alone(batch.inputs[m], i))[0]
                taught = task.teacher[m](alone(batch.inputs[m], i))[0].detach()
                logits = logits + blocks[m] @ feature + task.head.bias / 3
                distances[m].append(((feature - taught) ** 2).mean())
        entropies.append(-logits.log_softmax(0)[batch.label[i]])
    assert [len(found) for found in distances.values()] == [3, 3, 2]
    expected = sum(entropies) / 5 + weight * sum(sum(found) / len(found) for found in distances.values())
    got = task.training_step(batch, 0)
    torch.testing.assert_close(got, expected)
    parameters = [p for n, p in task.named_parameters() if p.requires_grad and not n.startswith("teacher_heads")]
    torch.testing.assert_close(torch.autograd.grad(got, parameters), torch.autograd.grad(expected, parameters))


def test_the_first_stage_is_late_fusion(world3):
    batch = batch_of(world3.complete, 5, present=gaps())
    task, late = world3.task("umt").eval(), world3.task("late_fusion").eval()
    assert task.is_pretraining
    late.encoders.load_state_dict(task.encoders.state_dict())
    late.heads.load_state_dict(task.teacher_heads.state_dict())
    got, expected = task.training_step(batch, 0), late.training_step(batch, 0)
    assert torch.equal(got, expected)
    got.backward()
    assert task.head.weight.grad is None


def test_the_prediction_is_concats(world3):
    batch = batch_of(world3.complete, 5)
    task, concat = world3.task("umt").eval(), world3.task("concat").eval()
    concat.load_state_dict(task.state_dict(), strict=False)
    assert torch.equal(task.predict_step(batch), concat.predict_step(batch))


def test_a_modality_that_nobody_has_adds_nothing(world3):
    task = in_second_stage(world3.task("umt"))
    present = gaps() & torch.tensor([True, True, False])
    batch = doubled(batch_of(world3.complete, 5, present=present))
    features = task.encode(batch)
    before = task.distance(features, batch)
    with torch.no_grad():
        for parameter in task.teacher["words"].parameters():
            parameter += 1.0
    assert before > 0
    assert torch.equal(task.distance(features, batch), before)


class Watch(pl.Callback):
    """Copies the encoders, the teachers and both kinds of heads at the start of the first step of every epoch, and after each epoch."""

    parts = ("encoders", "teacher", "head", "teacher_heads")

    def __init__(self):
        self.started, self.ended, self.stages, self.momenta = [], [], [], []

    def copies(self, task):
        return {part: weights(getattr(task, part)) for part in self.parts}

    def on_train_batch_start(self, trainer, task, batch, batch_idx):
        if batch_idx == 0:
            self.started.append(self.copies(task))
            self.stages.append(task.is_pretraining)
            state = trainer.optimizers[0].state
            self.momenta.append(any(p in state for p in task.encoders.parameters()))

    def on_train_epoch_end(self, trainer, task):
        self.ended.append(self.copies(task))


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_teachers_are_what_the_first_stage_made_and_encoders_begin_anew(world3, optimizer):
    recipe = Recipe(epochs=5, batch_size=8, lr=0.01, optimizer=optimizer)
    task = world3.task("umt", recipe=recipe, pretraining=0.4)
    fresh, watch = weights(task.encoders), Watch()
    fit(task, world3.data.splits.train, epochs=5, batches=2, callbacks=[watch])
    assert watch.stages == [True, True, False, False, False]
    assert watch.momenta == [False, True, False, True, True]
    assert same(watch.started[2]["encoders"], fresh)
    assert any("running_mean" in name for name in fresh)  # statistics of batch normalisation, too
    trained = watch.ended[1]["encoders"]
    assert not same(trained, fresh)
    for epoch in (0, 1):
        assert same(watch.ended[epoch]["teacher"], fresh)
        assert same(watch.ended[epoch]["head"], watch.started[0]["head"])
    for epoch in (2, 3, 4):
        assert same(watch.ended[epoch]["teacher"], trained)
        assert same(watch.ended[epoch]["teacher_heads"], watch.ended[1]["teacher_heads"])
        assert not same(watch.ended[epoch]["encoders"], watch.ended[epoch - 1]["encoders"])


def test_distillation_brings_features_near_the_teachers(world3):
    recipe = Recipe(epochs=12, batch_size=8, lr=0.05, schedule="constant")

    def final_distance(weight):
        task = world3.task("umt", recipe=recipe, distillation_weight=weight)
        fit(task, world3.complete, epochs=12, batches=2)
        task.eval()
        batch = batch_of(world3.complete, 8)
        return task.distance(task.encode(batch), batch)

    assert final_distance(1.0) < 0.5 * final_distance(0.0)
