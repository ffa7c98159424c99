"""What mmbench asks of every method, data set and encoder, for the tests of a package of one's own; mmbench's own tests ask the same.

Each ``check_…`` raises an AssertionError that says what does not hold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from mmbench.batch import Input, select_rows
from mmbench.data.base import MultimodalDataModule
from mmbench.data.split import Split
from mmbench.encoders.building import build_encoder
from mmbench.fixed import FixedFeatureTask
from mmbench.protocol import PROTOCOLS
from mmbench.task import MultimodalTask
from mmbench.testing.planted import (
    RECIPE,
    Planted2,
    Planted3,
    VectorEncoder,
    World,
    batch_of,
    every_pattern,
    fit,
    gappy,
    noisy_features,
    noisy_rows,
    planted_world,
    same,
    set_up,
    weights,
)

Make = Callable[[], MultimodalTask]


def hold(condition: bool, promise: str) -> None:
    """Raise an AssertionError that says what was to hold."""
    if not condition:
        raise AssertionError(f"expected that {promise}")


# Methods


def check_method(method: type[MultimodalTask], **arguments: Any) -> None:
    """The essentials of the contract, on made-up data of two and of three modalities, some of which are absent.

    Args:
        method: the class.
        arguments: of its constructor, where they are not to be the defaults.
    """
    for data in (Planted2, Planted3):
        world = planted_world(data)
        for check in METHOD_CHECKS:
            check(world, partial(world.build, method, **arguments))


def finite_under_every_pattern(world: World, make: Make) -> None:
    """Logits (B, C) are finite numbers whatever is present, nothing included."""
    task, batch = make().eval(), batch_of(world.complete, 5)
    features = task.encode(batch)
    got = {m: tuple(f.shape) for m, f in features.items()}
    hold(got == {m: (5, d) for m, d in task.dims.items()}, f"features are (B, out_dim), got {got}")
    shape = (5, world.data.spec.num_classes)
    for pattern in every_pattern(len(task.modalities)):
        logits = task.fuse(features, batch.present & pattern)
        hold(logits.shape == shape, f"fuse returns logits {shape}, got {tuple(logits.shape)}")
        hold(bool(logits.isfinite().all()), f"logits are finite where {present_words(task, pattern)}")
    patterns = (2 ** len(task.modalities) - 1, *shape)
    got_patterns = tuple(task.fuse_patterns(features, batch.present).shape)
    hold(got_patterns == patterns, f"fuse_patterns returns {patterns}, got {got_patterns}")


def all_present_equals_no_mask(world: World, make: Make) -> None:
    """The pattern in which everything is present is the plain prediction, from the encoders' own features."""
    task, batch = make().eval(), batch_of(world.complete, 6)
    features = task.encode(batch)
    if not isinstance(task, FixedFeatureTask):  # else the method works on the raw feature vectors
        for m, encoder in task.encoders.items():
            hold(
                torch.equal(features[m], encoder(batch.inputs[m])),
                f"the features of {m} are what its encoder makes of it",
            )
    everything = torch.ones(6, len(task.modalities), dtype=torch.bool)
    fused = task.fuse(features, everything)
    hold(torch.equal(task(batch), fused), "what is predicted of a batch is what fuse makes of its features")
    hold(
        torch.equal(task(batch), task.fuse_patterns(features, everything)[-1]), "the last pattern is that of everything"
    )


def answers_each_sample_alone(world: World, make: Make) -> None:
    """A prediction does not depend on the rest of the batch."""
    task, split = make().eval(), world.test
    together = task(batch_of(split, 12))
    alone = torch.cat([task(split[row]) for row in range(12)])
    hold(torch.allclose(together, alone, rtol=1e-4, atol=1e-5), "a sample is answered alone as in a batch")


def does_not_see_what_is_absent(world: World, make: Make) -> None:
    """Noise under a missing mask, in inputs or in features, changes no prediction."""
    task, split = make().eval(), gappy(world.test)
    batch, noisy = batch_of(split, 16), batch_of(with_noise(split), 16)
    hold(not batch.present.all(), "the made-up samples have gaps")
    promise = "what stands where a modality is absent changes no prediction"
    hold(torch.equal(task.predict_step(batch), task.predict_step(noisy)), promise)
    features = task.encode(batch)
    filled = noisy_features(features, batch.present)
    hold(torch.equal(task.fuse(features, batch.present), task.fuse(filled, batch.present)), f"{promise} (features)")
    for pattern in every_pattern(len(task.modalities)):
        visible = batch.present & pattern
        hidden = {m: f.masked_fill(~visible[:, [c]], 0.0) for c, (m, f) in enumerate(features.items())}
        equal = torch.equal(task.fuse(hidden, visible), task.fuse(noisy_features(features, visible), visible))
        hold(equal, f"{promise} (features, where {present_words(task, pattern)})")


def does_not_learn_from_what_is_absent(world: World, make: Make, where: str = "inputs") -> None:
    """Noise under a missing mask changes neither a weight nor the loss in training; ``where``: in "inputs" or "features"."""
    train = gappy(world.data.splits.train)
    hold(not train.present[: 2 * RECIPE.batch_size].all(), "the made-up training samples have gaps")
    results = []
    for noise in (False, True):
        task = make()
        if noise and where == "features":
            blur(task)
        run = fit(task, with_noise(train) if noise and where == "inputs" else train, batches=2)
        results.append((weights(task), run.callback_metrics["train/loss"]))
    promise = f"what stands in {where} where a modality is absent changes nothing in training"
    hold(bool(results[0][1] == results[1][1]), f"{promise}, but the loss differs")
    hold(same(results[0][0], results[1][0]), f"{promise}, but the weights differ")


def blur(task: MultimodalTask) -> None:
    """Have a method's features filled with noise where a modality is absent."""
    plain = task.encode
    task.encode = lambda batch: noisy_features(plain(batch), batch.present)  # type: ignore[method-assign]


def drives_every_parameter(world: World, make: Make) -> None:
    """Every parameter gets a gradient in training, but for those whose prefix is among ``gradient_exempt``."""
    task, seen = make(), set()

    def note(name: str) -> Callable[[Tensor], None]:
        return lambda p: seen.add(name) if p.grad is not None and p.grad.any() else None

    trained = {name: p for name, p in task.named_parameters() if p.requires_grad}
    for name, parameter in trained.items():
        parameter.register_post_accumulate_grad_hook(note(name))
    fit(task, world.complete)
    idle = sorted(n for n in set(trained) - seen if not n.startswith(tuple(task.gradient_exempt)))
    hold(not idle, f"every parameter gets a gradient, or its prefix is in gradient_exempt; without: {', '.join(idle)}")
    names = [name for name, _ in task.named_parameters()]
    unknown = [prefix for prefix in task.gradient_exempt if not any(name.startswith(prefix) for name in names)]
    hold(not unknown, f"gradient_exempt has prefixes of parameters; of none: {', '.join(unknown)}")


def comes_back_from_its_checkpoint(world: World, make: Make) -> None:
    """``load_from_checkpoint(path)`` alone builds the method as it was: its arguments, weights and predictions."""
    task = make()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.ckpt"
        fit(task, world.data.splits.train).save_checkpoint(path)
        own = {"sensor": VectorEncoder()} if "sensor" in task.modalities else {}  # the one that no registry knows
        anew = type(task).load_from_checkpoint(path, **({"encoders": own} if own else {}))  # type: ignore[arg-type]
    hold((anew.spec, anew.recipe) == (task.spec, task.recipe), "a checkpoint brings spec and recipe back")
    hold(
        dict(anew.hparams) == dict(task.hparams),
        f"a checkpoint brings the arguments back: {task.hparams}, got {anew.hparams}",
    )
    hold(same(weights(task), weights(anew)), "a checkpoint brings every weight back")
    batch = batch_of(world.test, 12)
    equal = torch.equal(task.eval().predict_step(batch), anew.eval().predict_step(batch))
    hold(equal, "a method that was loaded predicts as the one that was saved")


METHOD_CHECKS = (
    finite_under_every_pattern,
    all_present_equals_no_mask,
    answers_each_sample_alone,
    does_not_see_what_is_absent,
    does_not_learn_from_what_is_absent,
    drives_every_parameter,
    comes_back_from_its_checkpoint,
)


def with_noise(split: Split) -> Split:
    """The split, with noise in the inputs of what is absent."""
    generator = torch.Generator().manual_seed(5)
    inputs = {
        m: noisy_rows(value, ~split.present[:, c], generator) for c, (m, value) in enumerate(split.inputs.items())
    }
    return replace(split, inputs=inputs)


def present_words(task: MultimodalTask, pattern: Tensor) -> str:
    """Which modalities a pattern has, in words."""
    names = [m for m, there in zip(task.modalities, pattern.tolist(), strict=True) if there]
    return f"{' and '.join(names) or 'nothing'} is present"


# Data sets and encoders


def check_dataset(data_class: type[MultimodalDataModule]) -> None:
    """A data set loads under every protocol, its splits keep their promises, and its own encoders can read it."""

    def encoders() -> dict[str, nn.Module]:
        named = {m: {"name": e} if isinstance(e, str) else dict(e) for m, e in data_class.encoders.items()}
        return {m: build_encoder(choice) for m, choice in named.items()}

    hold(set(data_class.encoders) == set(data_class.modalities), "encoders has one for each modality")
    manifest = data_class.manifest()
    hold(
        isinstance(manifest, str) and manifest == data_class.manifest() != "",
        "manifest() is a text, the same every time",
    )
    for protocol in PROTOCOLS:
        world = set_up(data_class, encoders, protocol)
        keeps_its_word(world, protocol)
        batch = batch_of(world.data.splits.train, 3)
        for modality, encoder in world.encoders().items():
            shape = tuple(encoder.eval()(batch.inputs[modality]).shape)
            hold(
                shape == (3, encoder.out_dim),
                f"{modality}'s encoder makes (3, {encoder.out_dim}) of three samples, got {shape}",
            )


def keeps_its_word(world: World, protocol: str) -> None:
    """What a data set that is loaded says of itself, and what its splits hold; what they may not hold, ``setup`` has refused."""
    data, spec = world.data, world.data.spec
    splits = data.splits
    hold(
        data.selection_split is getattr(splits, PROTOCOLS[protocol].selection),
        "the epoch is chosen on the protocol's split",
    )
    hold(spec.modalities == data.modalities, "the specification has the modalities")
    hold(spec.conditioning in data.modalities, f"conditioning is a modality, got {spec.conditioning}")
    hold(len(spec.class_counts) == spec.num_classes == len(data.classes), "there is a count for every class")
    hold(min(spec.class_counts) > 0, "every class has training samples")  # else its log prior is −∞
    for split in (splits.train, splits.validation or world.test, world.test):
        batch = batch_of(split, 3)
        hold(list(batch.inputs) == list(data.modalities), "inputs are in the order of the modalities")
        hold(batch.present.shape == (3, len(data.modalities)), "present has a column for each modality")
        hold((batch.present.dtype, batch.label.dtype) == (torch.bool, torch.int64), "present is bool and label int64")
        hold(split.group.shape == split.label.shape == (len(split),), "every sample has a label and a group")
        hold(bool(split.present.any(dim=1).all()), "every sample has a modality")
        hold(0 <= int(split.label.min()) <= int(split.label.max()) < len(data.classes), "labels are numbers of classes")


def check_encoder(encoder: nn.Module, value: Input) -> None:
    """An encoder makes finite vectors (B, out_dim) of a batch, of each sample alone, and every parameter gets a gradient.

    Args:
        encoder: to be checked.
        value: its raw input of at least two samples, (B, …), or what its ``tokenize`` returns.
    """
    encoder.eval()
    features = encoder(value)
    rows = len(next(iter(value.values())) if isinstance(value, dict) else value)
    hold(isinstance(getattr(encoder, "out_dim", None), int), "the encoder has an out_dim, a whole number")
    hold(
        features.shape == (rows, encoder.out_dim),
        f"features are {(rows, encoder.out_dim)}, got {tuple(features.shape)}",
    )
    hold(bool(features.isfinite().all()), "features are finite numbers")
    alone = torch.cat([encoder(select_rows(value, torch.tensor([row]))) for row in range(rows)])
    hold(torch.allclose(features, alone, rtol=1e-4, atol=1e-5), "a sample is encoded alone as in a batch")
    features.sum().backward()
    idle = [n for n, p in encoder.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    hold(not idle, f"every parameter gets a gradient; without: {', '.join(idle)}")
