"""What tests share: the planted data of ``mmbench.testing``, registered data sets, features, and equations by naive loops."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmbench.baselines import METHODS
from mmbench.data import DATASETS
from mmbench.data.base import MultimodalDataModule
from mmbench.encoders.building import build_encoder
from mmbench.recipe import Recipe
from mmbench.task import MultimodalTask
from mmbench.testing import planted
from mmbench.testing.planted import (  # noqa: F401  tests take them from here
    CLASS_SIZES,
    RECIPE,
    Planted2,
    Planted3,
    VectorEncoder,
    batch_of,
    every_pattern,
    fit,
    gappy,
    loader,
    noisy_features,
    noisy_rows,
    planted_encoders,
    same,
    set_up,
    stages,
    trainer,
    weights,
)

PREPARED = [name for name in DATASETS.registered if DATASETS[name].prepared() is None]
"""The data sets with a class of their own that are on this machine."""


def choices(data_class: type[MultimodalDataModule]) -> dict[str, dict]:
    """The encoders of a registered data set, as trials name them."""
    return {m: {"name": e} if isinstance(e, str) else dict(e) for m, e in data_class.encoders.items()}


class World(planted.World):
    """A data set and the encoders that fit it, for registered methods."""

    def task(self, method: str, seed: int = 0, recipe: Recipe = RECIPE, **arguments) -> MultimodalTask:
        return self.build(METHODS[method], seed, recipe, **arguments)


def make_world(name: str, protocol: str = "clean") -> World:
    """``planted2``, ``planted3`` or a registered data set with its own encoders."""
    if name in ("planted2", "planted3"):
        made = planted.planted_world({"planted2": Planted2, "planted3": Planted3}[name], protocol)
    else:
        data_class = DATASETS[name]
        made = set_up(
            data_class, lambda: {m: build_encoder(choice) for m, choice in choices(data_class).items()}, protocol
        )
    return World(made.data, made.encoders)


def random_features(task: MultimodalTask, size: int, seed: int = 0) -> dict[str, Tensor]:
    """Features in float64, with gradients."""
    generator = torch.Generator().manual_seed(seed)
    return {
        m: torch.randn(size, d, generator=generator, dtype=torch.double).requires_grad_() for m, d in task.dims.items()
    }


def naive_layers(module, x, slope=0.0):
    """One vector through the linear layers of a module, a (leaky) rectifier in between."""
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    for number, layer in enumerate(layers):
        x = layer.weight @ x + layer.bias
        if number < len(layers) - 1:
            x = torch.where(x > 0, x, slope * x)
    return x


def naive_cascade(cascade, x):
    """Every block sees the input and the sum of all that the blocks before it put out."""
    outputs, latents = [], []
    for encoder, decoder in zip(cascade.encoders, cascade.decoders, strict=True):
        latents.append(naive_layers(encoder, x + sum(outputs), slope=0.01))
        outputs.append(naive_layers(decoder, latents[-1]))
    return naive_layers(cascade.transition, x + sum(outputs)), torch.cat(latents)
