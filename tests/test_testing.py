"""The checks for packages of one's own: each of them fails where its promise is broken."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from mmbench import testing
from mmbench.baselines.sum import Sum
from mmbench.data.base import MultimodalDataModule
from mmbench.data.split import Loaded, Split
from mmbench.task import MultimodalTask


class NothingIsNan(Sum):
    def fuse(self, features, present):
        return super().fuse(features, present) / present.any(dim=1, keepdim=True)


class OneClassShort(Sum):
    def fuse(self, features, present):
        return super().fuse(features, present)[:, 1:]


class CentresTheBatch(Sum):
    def fuse(self, features, present):
        logits = super().fuse(features, present)
        return logits - 0.5 * logits.mean(dim=0)


class SeesWhatIsAbsent(Sum):
    def fuse(self, features, present):
        return self.modality_logits(features).sum(dim=1)


class EncodesTwice(Sum):
    def encode(self, batch):
        return {m: 2 * f for m, f in super().encode(batch).items()}


class LearnsFromWhatIsAbsent(Sum):
    def training_step(self, batch, batch_idx):
        scale = sum(value.float().abs().mean() for value in batch.inputs.values() if isinstance(value, Tensor))
        return scale * super().training_step(batch, batch_idx)


class HasIdleParameters(Sum):
    def __init__(self, spec, encoders, recipe=None):
        super().__init__(spec, encoders, recipe)
        self.idle = nn.Linear(2, 2)


class ExemptsNothingThereIs(Sum):
    gradient_exempt = ("nowhere",)


class ForgetsItsDirection(Sum):
    def __init__(self, spec, encoders, recipe=None):
        super().__init__(spec, encoders, recipe)
        self.direction = torch.randn(spec.num_classes)

    def fuse(self, features, present):
        return super().fuse(features, present) + self.direction * present.any(dim=1, keepdim=True)


@pytest.mark.parametrize(
    ("method", "check", "told"),
    [
        (NothingIsNan, testing.finite_under_every_pattern, "logits are finite where nothing is present"),
        (OneClassShort, testing.finite_under_every_pattern, r"fuse returns logits \(5, 3\), got \(5, 2\)"),
        (EncodesTwice, testing.all_present_equals_no_mask, "the features of sensor are what its encoder makes of it"),
        (CentresTheBatch, testing.answers_each_sample_alone, "a sample is answered alone as in a batch"),
        (SeesWhatIsAbsent, testing.does_not_see_what_is_absent, "where a modality is absent changes no prediction"),
        (LearnsFromWhatIsAbsent, testing.does_not_learn_from_what_is_absent, "nothing in training, but the loss differs"),
        (HasIdleParameters, testing.drives_every_parameter, r"without: idle\.bias, idle\.weight"),
        (ExemptsNothingThereIs, testing.drives_every_parameter, "gradient_exempt has prefixes of parameters; of none: nowhere"),
        (ForgetsItsDirection, testing.comes_back_from_its_checkpoint, "that was loaded predicts as the one that was saved"),
    ],
)  # fmt: skip
def test_a_method_that_breaks_a_promise_is_told_which(
    world2, method: type[MultimodalTask], check: Callable[..., None], told: str
) -> None:
    check(world2, partial(world2.build, Sum))
    with pytest.raises(AssertionError, match=told):
        check(world2, partial(world2.build, method))
    with pytest.raises(AssertionError, match=told):
        testing.check_method(method)


class Own(MultimodalDataModule):
    """Two vectors of three numbers, in groups of four samples."""

    name = "own"
    modalities = ("one", "other")
    classes = ("no", "yes")
    conditioning = "one"
    encoders = {m: {"name": "mlp", "in_dim": 3} for m in modalities}
    feature_dims = {"one": 3, "other": 3}

    @classmethod
    def manifest(cls) -> str:
        return "1"

    def load(self) -> Loaded:
        train, validation, test = (self.draw(seed) for seed in range(3))
        return Loaded(train, validation if self.protocol.split == "clean" else None, test)

    def draw(self, seed: int) -> Split:
        generator = torch.Generator().manual_seed(seed)
        inputs = {m: torch.randn(40, 3, generator=generator) for m in self.modalities}
        return Split(
            inputs, torch.ones(40, 2, dtype=torch.bool), torch.arange(40) % 2, 10 * seed + torch.arange(40) // 4
        )


class ManifestOfTheClock(Own):
    ticks = itertools.count()

    @classmethod
    def manifest(cls) -> str:
        return str(next(cls.ticks))


class LacksAnEncoder(Own):
    encoders = {"one": {"name": "mlp", "in_dim": 3}}


class TrainsOnOneClass(Own):
    def draw(self, seed: int) -> Split:
        split = super().draw(seed)
        split.label[:] = 0 if seed == 0 else split.label
        return split


class HasAnEmptySample(Own):
    def draw(self, seed: int) -> Split:
        split = super().draw(seed)
        split.present[5] = False
        return split


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (ManifestOfTheClock, r"manifest\(\) is a text, the same every time"),
        (LacksAnEncoder, "encoders has one for each modality"),
        (TrainsOnOneClass, "every class has training samples"),
        (HasAnEmptySample, "every sample has a modality"),
    ],
)
def test_a_data_set_that_breaks_a_promise_is_told_which(data: type[MultimodalDataModule], told: str) -> None:
    testing.check_dataset(Own)
    with pytest.raises(AssertionError, match=told):
        testing.check_dataset(data)


class Linear(nn.Linear):
    """An encoder that keeps its promises."""

    def __init__(self, width: int | None = 5) -> None:
        super().__init__(3, 5)
        self.out_dim = width


class Centres(Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x - x.mean(dim=0))


class Overflows(Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / 0


class Idles(Linear):
    def __init__(self) -> None:
        super().__init__()
        self.idle = nn.Parameter(torch.ones(1))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Linear(None), "the encoder has an out_dim"),
        (lambda: Linear(4), r"features are \(4, 4\), got \(4, 5\)"),
        (Centres, "a sample is encoded alone as in a batch"),
        (Overflows, "features are finite numbers"),
        (Idles, "every parameter gets a gradient; without: idle"),
    ],
    ids=["none", "wrong", "centres", "overflows", "idles"],
)
def test_an_encoder_that_breaks_a_promise_is_told_which(make: Callable[[], nn.Module], told: str) -> None:
    vectors = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    testing.check_encoder(Linear(), vectors)
    with pytest.raises(AssertionError, match=told):
        testing.check_encoder(make(), vectors)
