from itertools import product

import pytest
import torch

from mmbench.baselines import METHODS
from mmbench.data.split import DataSpec
from mmbench.encoders.mlp import Mlp
from mmbench.errors import UsageError
from planted import every_pattern, naive_layers, random_features


def test_it_is_a_network_on_every_product_of_one_number_a_modality(world3):
    task = world3.task("tfn", width=2, hidden=5).double().eval()
    present = every_pattern(3)
    features = random_features(task, len(present))
    tensor = task.tensor(features, present)
    logits = task.fuse(features, present)
    for i, row in enumerate(present):
        vectors = []
        for m, here in zip(task.modalities, row, strict=True):
            z = task.project[m].weight @ features[m][i] + task.project[m].bias
            vectors.append([*(z if here else torch.zeros(2)), 1.0])
        expected = torch.stack([torch.as_tensor(a * b * c, dtype=torch.double) for a, b, c in product(*vectors)])
        torch.testing.assert_close(tensor[i], expected)
        torch.testing.assert_close(logits[i], naive_layers(task.network, expected))


def test_numbers_of_the_tensor_are_dropped_in_training(world3):
    task = world3.task("tfn", width=2, dropout=0.5)
    shown = []
    task.network[1].register_forward_hook(lambda _, inputs, output: shown.append(inputs[0]))
    features = {m: f.detach().float() for m, f in random_features(task, 50).items()}
    task.fuse(features, torch.ones(50, 3, dtype=torch.bool))
    assert 0.4 < (shown[0] == 0).float().mean() < 0.6


def built(modalities, **arguments):
    names = tuple(f"view{i}" for i in range(modalities))
    spec = DataSpec(names, (1, 1), names[0], dict.fromkeys(names, 8))
    return METHODS["tfn"](spec, {m: Mlp(8, 8) for m in names}, **arguments)


@pytest.mark.parametrize(("modalities", "width"), [(2, 127), (3, 24), (6, 4), (10, 1)])
def test_the_usual_width_is_what_can_be_held(modalities, width):
    task = built(modalities, hidden=1)
    assert {layer.out_features for layer in task.project.values()} == {width}
    assert task.network[1].in_features == (width + 1) ** modalities
    present = torch.ones(2, modalities, dtype=torch.bool)
    assert task.fuse({m: torch.randn(2, 8) for m in task.modalities}, present).isfinite().all()


def test_a_tensor_that_cannot_be_held_is_refused():
    with pytest.raises(UsageError, match=r"width is 9: .* \(9 \+ 1\)\^6 = 1,000,000 .* lower width to 7 or less"):
        built(6, width=9)
    built(6, width=7, hidden=1)
    built(2, width=511, hidden=1)  # 2^18 numbers, the most there may be
    with pytest.raises(UsageError, match="lower width to 511 or less"):
        built(2, width=512)
