import pytest
import torch

from mmbench.errors import UsageError
from planted import METHODS, every_pattern, random_features


def naive(task, features, present, i):
    """Z = W [γ_m ⊙ h_m + β_m]_m + b of one sample, number by number."""
    feature = {m: features[m][i] * present[i, c] for c, m in enumerate(task.modalities)}
    modulated = []
    for m in task.others:
        layer = task.condition[m]
        numbers = layer.weight @ feature[task.conditioning] + layer.bias
        gamma, beta = numbers[: task.dims[m]], numbers[task.dims[m] :]
        modulated += [gamma[d] * feature[m][d] + beta[d] for d in range(task.dims[m])]
    return task.head.weight @ torch.stack(modulated) + task.head.bias


@pytest.mark.parametrize("conditioning", [None, "sensor", "picture", "words"])
def test_three_modalities(world3, conditioning):
    task = world3.task("film", conditioning=conditioning).double()
    assert task.conditioning == (conditioning or "words")
    present = every_pattern(3)
    features = random_features(task, len(present))
    logits = task.fuse(features, present)
    for i in range(len(present)):
        torch.testing.assert_close(logits[i], naive(task, features, present, i))


def test_two_modalities_are_the_published_layer(world2):
    task = world2.task("film").double()
    features = random_features(task, 4)
    layer = task.condition["picture"]
    gamma, beta = (features["sensor"] @ layer.weight.T + layer.bias).split(8, dim=1)
    expected = (gamma * features["picture"] + beta) @ task.head.weight.T + task.head.bias
    torch.testing.assert_close(task.fuse(features, torch.ones(4, 2, dtype=torch.bool)), expected)


@pytest.mark.parametrize("method", ["film", "bigated"])
def test_unknown_conditioning_modality(world2, method):
    with pytest.raises(UsageError, match="unknown conditioning modality 'sound'; known: picture, sensor"):
        world2.task(method, conditioning="sound")


@pytest.mark.parametrize("method", ["film", "bigated"])
def test_the_conditioning_modality_alone_is_an_artefact(method):
    artefacts = METHODS[method].artefact_patterns
    assert artefacts({"conditioning": None}, "title") == artefacts({}, "title") == ("title",)
    assert artefacts({"conditioning": "image"}, "title") == ("image",)


def test_alone_a_gate_has_constants_to_gate(world3):
    task = world3.task("bigated").double()
    features = random_features(task, 4)
    alone = torch.tensor([m == task.conditioning for m in task.modalities]).expand(4, -1)
    gate = (features["words"] @ task.hidden["words"].weight.T + task.hidden["words"].bias).sigmoid()
    constants = [gate * task.hidden[m].bias for m in task.others]
    expected = torch.cat(constants, dim=1) @ task.head.weight.T + task.head.bias
    torch.testing.assert_close(task.fuse(features, alone), expected)
