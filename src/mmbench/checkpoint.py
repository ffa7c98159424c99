"""What a checkpoint says of the method that wrote it, in plain values, and how the method is built again from that."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import IO, Any, Self

import torch
from pydantic import BaseModel, ValidationError
from torch import nn

from mmbench.arguments import describe, resolve_arguments
from mmbench.data.split import DataSpec
from mmbench.encoders import ENCODERS
from mmbench.errors import UsageError
from mmbench.lightning import LightningModule
from mmbench.recipe import Recipe

KEY = "hyper_parameters"
"""Where Lightning keeps such things in a checkpoint."""
BUILT_FROM = ("spec", "encoders", "recipe")
"""The arguments that every method has; all others are its own."""


class Saved(BaseModel):
    """How to build a method again.

    Attributes:
        method: the name of its class.
        spec: of the data set.
        recipe: of the training.
        encoders: modality -> {name: encoder, and its arguments}, for those that are registered.
        arguments: the method's own.
        left_out: those of its own arguments that are no plain values, by name.
    """

    method: str | None = None
    spec: DataSpec | None = None
    recipe: Recipe | None = None
    encoders: dict[str, dict[str, Any]] = {}
    arguments: dict[str, Any] = {}
    left_out: list[str] = []


def settings(
    method: type, spec: DataSpec, encoders: nn.ModuleDict, recipe: Recipe, own: Mapping[str, Any]
) -> dict[str, Any]:
    """What is to be saved: ``Saved`` as numbers, strings, lists and dictionaries.

    Args:
        method: its class.
        spec: of the data set.
        encoders: modality -> encoder.
        recipe: of the training.
        own: the method's own arguments, and perhaps those of its bases.
    """
    own = {name: value for name, value in own.items() if name in inspect.signature(method.__init__).parameters}  # type: ignore[misc]
    choices = {modality: encoder_choice(encoder) for modality, encoder in encoders.items()}
    return Saved(
        method=method.__name__,
        spec=spec,
        recipe=recipe,
        encoders={modality: choice for modality, choice in choices.items() if choice},
        arguments={name: value for name, value in own.items() if is_plain(value)},
        left_out=[name for name, value in own.items() if not is_plain(value)],
    ).model_dump(mode="json")


def encoder_choice(encoder: nn.Module) -> dict[str, Any] | None:
    """The encoder's registered name and its arguments; None if it has no name, or arguments that are no plain values."""
    name, given = ENCODERS.name_of(type(encoder)), getattr(encoder, "built_with", None)
    return {"name": name, **given} if name and given is not None and is_plain(given) else None


def is_plain(value: Any) -> bool:
    """Whether a value consists of numbers, strings, truth values, None, lists and dictionaries."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and is_plain(inner) for key, inner in value.items())
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    return value is None or type(value) in (bool, int, float, str)


def read(source: str | PathLike[str] | IO[bytes], map_location: Any) -> tuple[dict[str, Any], Saved]:
    """Read a checkpoint and what it says of its method; nothing in it is executed.

    Raises:
        UsageError: it is none.
    """
    if isinstance(source, str | PathLike) and (folder := kept_folder(Path(source))) is not None:
        raise UsageError(
            f"{source}: is no checkpoint that Lightning wrote, but a model that `mmbench run … --keep-models` kept: "
            f'mmbench.load_model("{folder}").task is its method'
        )
    if isinstance(source, str | PathLike) and not Path(source).is_file():
        raise UsageError(f"{source}: there is no such file; expected a checkpoint that Lightning wrote")
    try:
        checkpoint = torch.load(source, map_location=map_location, weights_only=True)
    except Exception as error:  # a damaged file fails in many ways
        reason = str(error).partition("\n")[0]
        raise UsageError(f"{source}: expected a checkpoint that Lightning wrote; {reason}") from error
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), Mapping):
        raise UsageError(f"{source}: expected a checkpoint that Lightning wrote, with a state_dict")
    try:
        return checkpoint, Saved.model_validate(checkpoint.get(KEY, {}))
    except ValidationError as error:
        raise UsageError(f"{source}: {KEY}: {'; '.join(describe(error, lambda _: Saved.model_fields))}") from error


def kept_folder(path: Path) -> Path | None:
    """The folder of a kept model, if a path is that or one of the two files in it; else None."""
    folder = path.parent if path.name in ("model.json", "model.safetensors") else path
    return folder if (folder / "model.json").is_file() else None


def arguments(method: type, saved: Saved, given: Mapping[str, Any], source: Any) -> dict[str, Any]:
    """The arguments to build a method with: what was saved, and in its place what is given.

    Args:
        method: its class.
        saved: what the checkpoint says.
        given: by name; ``encoders`` may hold some of them.
        source: the checkpoint, for messages.

    Raises:
        UsageError: something is neither saved nor given, or does not fit the method.
    """
    if saved.method not in (None, *(base.__name__ for base in method.__mro__)):
        raise UsageError(
            f"{source} was written by {saved.method}, not by {method.__name__}: use {saved.method}.load_from_checkpoint"
        )
    spec, recipe = given.get("spec", saved.spec), given.get("recipe", saved.recipe)
    encoders = dict(given.get("encoders", {}))
    own = {**saved.arguments, **{name: value for name, value in given.items() if name not in BUILT_FROM}}
    lacking = [f"{name}=…" for name, value in (("spec", spec), ("recipe", recipe)) if value is None]
    lacking += [f"{name}=…" for name in saved.left_out if name not in own]
    unknown = [m for m in spec.modalities if m not in encoders and m not in saved.encoders] if spec else []
    if unknown or not (spec or encoders):
        lacking.append(f"encoders={{{', '.join(f'{m!r}: …' for m in unknown) or '…'}}}")
    if lacking:
        raise UsageError(
            f"{source} does not say how {method.__name__} was built; pass what is lacking: "
            f"{method.__name__}.load_from_checkpoint(path, {', '.join(lacking)})"
        )
    resolved, mistakes = resolve_arguments(method, own, BUILT_FROM)
    for modality in spec.modalities:
        if modality in encoders:
            continue
        choice = dict(saved.encoders[modality])
        encoder = ENCODERS[str(choice.pop("name", None))]
        checked, wrong = resolve_arguments(encoder, choice)
        mistakes += [f"encoders.{modality}.{mistake}" for mistake in wrong]
        if not mistakes:
            encoders[modality] = encoder(**checked)
    if mistakes:
        raise UsageError(f"{source}: {'; '.join(mistakes)}")
    return {"spec": spec, "encoders": encoders, "recipe": recipe, **resolved}


class Restorable(LightningModule):
    """The base of methods: their checkpoints say how to build them again.

    Attributes:
        spec: of the data set.
        encoders: modality -> encoder.
        recipe: of the training.
    """

    spec: DataSpec
    encoders: nn.ModuleDict
    recipe: Recipe

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say in the checkpoint how to build the method again."""
        checkpoint[KEY] = settings(type(self), self.spec, self.encoders, self.recipe, self.hparams)

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls,
        checkpoint_path: str | PathLike[str] | IO[bytes],
        map_location: Any = "cpu",
        strict: bool = True,
        **given: Any,
    ) -> Self:
        """The method that wrote a checkpoint, with its weights; nothing in the file is executed.

        Args:
            checkpoint_path: what Lightning wrote.
            map_location: where its tensors go, as ``torch.load`` takes it.
            strict: whether the weights must be exactly the method's.
            given: arguments of the method that replace the saved ones. ``encoders``, modality -> module, is needed for those encoders
                that are not of the registry, and may leave out the others.

        Raises:
            UsageError: the file is no checkpoint, is of another method, or leaves something open that is not given.
        """
        checkpoint, saved = read(checkpoint_path, map_location)
        return cls.restored(checkpoint, saved, given, checkpoint_path, strict)

    @classmethod
    def restored(
        cls, checkpoint: dict[str, Any], saved: Saved, given: Mapping[str, Any], source: Any, strict: bool = True
    ) -> Self:
        """The method of a checkpoint that has been read already; the arguments are those of ``load_from_checkpoint``."""
        task = cls(**arguments(cls, saved, given, source))
        task.on_load_checkpoint(checkpoint)
        task.load_state_dict(checkpoint["state_dict"], strict=strict)
        return task
