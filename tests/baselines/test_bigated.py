import pytest
import torch

from planted import every_pattern, random_features


def linear(layer, x):
    return layer.weight @ x + layer.bias


@pytest.mark.parametrize("conditioning", [None, "sensor", "picture", "words"])
def test_three_modalities(world3, conditioning):
    task = world3.task("bigated", conditioning=conditioning).double()
    assert task.conditioning == (conditioning or "words")
    present = every_pattern(3)
    features = random_features(task, len(present))
    logits = task.fuse(features, present)
    for i, row in enumerate(present):
        feature = {m: features[m][i] * here for m, here in zip(task.modalities, row, strict=True)}
        hidden = {m: linear(task.hidden[m], feature[m]) for m in task.modalities}
        gated = []
        for m in task.modalities:
            if m != task.conditioning:
                gated += [h / (1 + torch.exp(-g)) for g, h in zip(hidden[task.conditioning], hidden[m], strict=True)]
        torch.testing.assert_close(logits[i], linear(task.head, torch.stack(gated)))


def test_two_modalities_are_the_published_layer(world2):
    task = world2.task("bigated").double()
    features = random_features(task, 4)
    logits = task.fuse(features, torch.ones(4, 2, dtype=torch.bool))
    for i in range(4):
        gate = torch.sigmoid(linear(task.hidden["sensor"], features["sensor"][i]))
        expected = linear(task.head, gate * linear(task.hidden["picture"], features["picture"][i]))
        torch.testing.assert_close(logits[i], expected)
