from functools import reduce
from itertools import product

import pytest
import torch

from mmbench.baselines import METHODS
from mmbench.data.split import DataSpec
from mmbench.encoders.mlp import Mlp
from planted import every_pattern, random_features


def outer(vectors):
    """The tensor whose cell (i, j, …) is the product of the vectors' numbers i, j, …, one cell at a time."""
    tensor = torch.zeros([len(v) for v in vectors], dtype=torch.double)
    for cell in product(*(range(len(v)) for v in vectors)):
        tensor[cell] = reduce(lambda one, other: one * other, (v[i] for v, i in zip(vectors, cell, strict=True)))
    return tensor


@pytest.mark.parametrize("rank", [1, 3])
def test_it_is_a_linear_layer_on_the_explicit_tensor(world3, rank):
    task = world3.task("lmf", rank=rank).double()
    for factor in task.factors.values():
        torch.nn.init.normal_(factor)
    present = every_pattern(3)
    features = random_features(task, len(present))
    logits = task.fuse(features, present)
    one = torch.ones(1, dtype=torch.double)
    weights = [  # a class's
        sum(outer([task.factors[m][r, :, c] for m in task.modalities]) for r in range(rank)) for c in range(3)
    ]
    for i, row in enumerate(present):
        shown = [torch.cat([features[m][i] * here, one]) for m, here in zip(task.modalities, row, strict=True)]
        tensor = outer(shown)
        for c in range(3):
            torch.testing.assert_close(logits[i, c], (weights[c] * tensor).sum())


def built(modalities, classes, width=32, **arguments):
    names = tuple(f"view{i}" for i in range(modalities))
    spec = DataSpec(names, (1,) * classes, names[0], dict.fromkeys(names, width))
    return METHODS["lmf"](spec, {m: Mlp(width, width) for m in names}, **arguments)


def test_at_first_it_is_as_many_concats_as_its_rank_to_first_order():
    task = built(3, 5, rank=2).double()
    features = {m: 1e-6 * f.detach() for m, f in random_features(task, 4).items()}
    concat = sum(features[m] @ task.factors[m][:, :-1].sum(dim=0) for m in task.modalities)
    logits = task.fuse(features, torch.ones(4, 3, dtype=torch.bool))
    torch.testing.assert_close(logits - 2, concat, rtol=1e-3, atol=0)  # a constant for all classes: one for each rank
    assert all(factor[:, :-1].abs().max() <= (3 * 32) ** -0.5 for factor in task.factors.values())


@pytest.mark.parametrize("modalities", [2, 6])
@pytest.mark.parametrize("classes", [2, 50])
def test_the_first_logits_neither_vanish_nor_explode(modalities, classes):
    torch.manual_seed(0)
    task = built(modalities, classes)
    features = {m: torch.randn(200, 32) for m in task.modalities}
    spread = task.fuse(features, torch.ones(200, modalities, dtype=torch.bool)).std()
    assert 0.5 < spread < 2
