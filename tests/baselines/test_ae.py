from dataclasses import replace

import pytest
import torch
from torch import nn

from planted import METHODS, batch_of, every_pattern, naive_layers, random_features


def linears(module):
    return [layer for layer in module.modules() if isinstance(layer, nn.Linear)]


def naive_joint(task, features, visible, i):
    x = [
        features[m][i] if visible[i, c] else torch.zeros(task.dims[m], dtype=features[m].dtype)
        for c, m in enumerate(task.modalities)
    ]
    return naive_layers(task.autoencoder, torch.cat(x), slope=0.01).clamp(min=0)


def ready(task, visible):
    """Without dropout, and with this for what a step leaves visible."""
    task.eval()
    task.draw_visible = lambda present: visible
    return task


def masks():
    """What five samples have, and what stays visible of it; the last one has nothing."""
    present = torch.tensor([[1, 1, 1], [1, 1, 1], [0, 1, 1], [1, 0, 0], [0, 0, 0]]).bool()
    visible = torch.tensor([[1, 0, 0], [1, 1, 1], [0, 0, 1], [1, 0, 0], [0, 0, 0]]).bool()
    return present, visible


@pytest.fixture
def task_and_batch(world3):
    """A task on two embeddings and one raw feature vector, and a batch in which views are absent and others hidden."""
    spec = replace(world3.data.spec, feature_dims={"sensor": 6})
    torch.manual_seed(0)
    task = METHODS["ae"](spec, world3.encoders())
    present, visible = masks()
    return ready(task, visible), batch_of(world3.complete, 5, present=present), visible


def test_loss_and_gradients(task_and_batch):
    task, batch, visible = task_and_batch
    features = task.encode(batch)
    expected, errors = torch.zeros(()), []
    for i in range(5):
        joint = naive_joint(task, features, visible, i)
        expected = expected - naive_layers(task.classifier, joint).log_softmax(0)[batch.label[i]] / 5
        for c, m in enumerate(task.modalities):
            if batch.present[i, c] and not visible[i, c]:
                target = batch.inputs[m][i] if m == "sensor" else features[m][i].detach()
                decoded = naive_layers(task.decoders[m], joint)
                assert len(decoded) == len(target) == task.target_dims[m]
                errors.append(sum((decoded[d] - target[d]) ** 2 for d in range(len(target))) / len(target))
    assert len(errors) == 3
    expected = expected + 0.2 * sum(errors) / len(errors)
    got = task.training_step(batch, 0)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    parameters = [
        p for m, p in task.named_parameters() if not m.startswith("decoders.sensor")
    ]  # sensor is never hidden
    torch.testing.assert_close(
        torch.autograd.grad(got, parameters), torch.autograd.grad(expected, parameters), rtol=1e-3, atol=1e-5
    )


def test_only_hidden_but_known_views_are_targets(task_and_batch):
    task, batch, visible = task_and_batch
    plain, loss = task.reconstruction_targets, task.training_step(batch, 0)

    def shifted(cells):
        def targets(batch, features):
            return {m: t + 100 * cells[:, [c]] for c, (m, t) in enumerate(plain(batch, features).items())}

        task.reconstruction_targets = targets
        return task.training_step(batch, 0)

    hidden = batch.present & ~visible
    assert torch.equal(shifted(~hidden), loss)
    assert shifted(hidden) > loss + 1000


@pytest.mark.parametrize("changes", [{"weight": 0.0}, {}])
def test_without_hidden_views_or_weight_only_cross_entropy_is_left(world3, changes):
    present, visible = masks()
    task = ready(world3.task("ae", **changes), visible if changes else present)
    batch = batch_of(world3.complete, 5, present=present)
    logits = task.fuse(task.encode(batch), task.draw_visible(present))
    torch.testing.assert_close(task.training_step(batch, 0), nn.functional.cross_entropy(logits, batch.label))


def test_prediction_classifies_the_reconstruction(world3):
    task = world3.task("ae").double().eval()
    present = every_pattern(3)
    features = random_features(task, len(present))
    logits = task.fuse(features, present)
    for i in range(len(present)):
        expected = naive_layers(task.classifier, naive_joint(task, features, present, i))
        torch.testing.assert_close(logits[i], expected)


def test_a_step_hides_and_the_hidden_is_not_classified(world3):
    task = world3.task("ae", weight=0.0).eval()
    batch = batch_of(world3.complete, 8)
    torch.manual_seed(3)
    visible = task.draw_visible(batch.present)
    assert not visible.all()
    torch.manual_seed(3)
    expected = nn.functional.cross_entropy(task.fuse(task.encode(batch), visible), batch.label)
    torch.testing.assert_close(task.training_step(batch, 0), expected)
