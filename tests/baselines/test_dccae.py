import pytest
import torch

from planted import batch_of, weights


@pytest.mark.parametrize("name", ["planted3", "openclipart_features"])
@pytest.mark.parametrize("weight", [1e-3, 2.0])
def test_the_loss_adds_errors_of_visible_cells(make_world, name, weight):
    world = make_world(name)
    task = world.task("dccae", components=3, reconstruction_weight=weight).eval()
    batch = batch_of(world.data.splits.train, 40)
    assert not batch.present.all()
    features = task.encode(batch)
    raw = name == "openclipart_features"
    expected = task.correlation_loss(task.project(features), batch.present)
    for column, m in enumerate(task.modalities):
        rows = [i for i in range(40) if batch.present[i, column]]
        for i in rows:
            target = (batch.inputs[m] if raw else features[m])[i].detach()
            found = task.decoders[m](task.heads[m].weight @ features[m][i])
            assert found.shape == target.shape
            expected = expected + weight * sum((found - target) ** 2) / len(target) / len(rows)
    got = task.training_step(batch, 0)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    parameters = list(task.parameters())
    for one, other in zip(torch.autograd.grad(got, parameters), torch.autograd.grad(expected, parameters), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_embeddings_are_targets_without_gradient(world2):
    task = world2.task("dccae", components=3)
    batch = batch_of(world2.complete, 12)
    features = {m: f.detach().requires_grad_() for m, f in task.encode(batch).items()}
    task.encode = lambda batch: features
    for head in task.heads.values():
        head.weight.data.zero_()  # then the only way from the error to the features would be the target
    task.correlation_loss = lambda outputs, present: sum(o.sum() for o in outputs.values())
    task.training_step(batch, 0).backward()
    assert all((f.grad == 0).all() for f in features.values())
    assert all(p.grad.any() for d in task.decoders.values() for p in d[-1].parameters())


def test_decoders_take_the_width_of_each_modality(world3):
    task = world3.task("dccae", components=5)
    for m, decoder in task.decoders.items():
        assert [tuple(layer.weight.shape) for layer in decoder if hasattr(layer, "weight")] == [
            (task.dims[m], 5), (task.dims[m], task.dims[m]), (task.target_dims[m], task.dims[m])
        ]  # fmt: skip


def test_prediction_is_that_of_dcca(world3):
    """Decoders are for training alone."""
    task = world3.task("dccae")
    plain = world3.task("dcca")
    state = {name: value for name, value in weights(task).items() if not name.startswith("decoders")}
    state["svm.weight"] = torch.randn_like(state["svm.weight"])
    plain.load_state_dict(state)
    task.load_state_dict(state, strict=False)
    batch = batch_of(world3.data.splits.test, 10)
    assert torch.equal(task.eval().predict_step(batch), plain.eval().predict_step(batch))
