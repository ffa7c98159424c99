"""Building a kept model again from its folder: nothing in it is executed, nor takes much more memory than its weights."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mmbench import machine
from mmbench.arguments import resolve_arguments
from mmbench.baselines import METHODS
from mmbench.checkpoint import KEY, Saved
from mmbench.data.base import Tokenizer
from mmbench.data.cache import Given
from mmbench.encoders import ENCODERS
from mmbench.encoders.building import build_encoder
from mmbench.encoders.pretrained import Pretrained, read_tensors
from mmbench.errors import NeedsLightning, UsageError
from mmbench.models.card import CARD, WEIGHTS, check_files, read_card
from mmbench.models.card import ENCODERS as FOLDER
from mmbench.packing import named, unpacked
from mmbench.task import MultimodalTask

SPARE = 2**25
"""Numbers that building may take beside those of the weights: tables of sines, masks, what initialising needs."""
LARGER = 4
"""How often a number of the weights may be made while a model is built: drawn, and read, of encoders twice."""
MAKERS = {
    torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn, torch.randint, torch.empty_strided, torch.normal,
    torch.eye, torch.arange, torch.linspace, torch.logspace, torch.tril_indices, torch.triu_indices,
}  # fmt: skip
"""What makes a tensor of a size that numbers tell."""


class Frugal(TorchFunctionMode):
    """Refuses to make tensors of more numbers, in all, than a model of these weights can need.

    Args:
        most: how many.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self.left = most

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count what a function is about to make."""
        if func in MAKERS:
            self.left -= numbers_of(func, args, kwargs or {})
            if self.left < 0:
                raise UsageError("its settings describe a model that is many times as large as its weights")
        return func(*args, **(kwargs or {}))


def numbers_of(func: Any, args: tuple[Any, ...], given: Mapping[str, Any]) -> int:
    """How many numbers a function that makes a tensor is asked for.

    >>> numbers_of(torch.empty, ((3, 4),), {}), numbers_of(torch.arange, (2, 10, 2), {}), numbers_of(torch.eye, (5,), {})
    (12, 4, 25)
    """
    plain = [value for value in args if isinstance(value, int | float)]
    if func is torch.arange:
        start, end = (0, plain[0]) if len(plain) == 1 else (*plain, given.get("end", 0))[:2]
        return math.ceil(abs(end - start) / abs((plain[2] if len(plain) > 2 else given.get("step", 1)) or 1))
    if func is torch.eye:
        return int(plain[0] * plain[-1])
    if func in (torch.linspace, torch.logspace):
        return int(given.get("steps", plain[2] if len(plain) > 2 else 0))
    if func in (torch.tril_indices, torch.triu_indices):
        return int(2 * plain[0] * plain[1])
    sizes = given.get("size") or next((value for value in args if isinstance(value, tuple | list)), None)
    return math.prod(int(side) for side in (plain if sizes is None else sizes))


class Restored:
    """A model as it was trained, in evaluation mode.

    Attributes:
        folder: where it was read from.
        card: its ``model.json``.
        task: the method, with its encoders.
        frozen: modality -> encoder that runs before the method, for those that ran once and for all in training.
        tokenizers: text modality -> what makes numbers of its texts.
        moments: modality -> (D,) mean and divisor, for those that were standardised.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.card = folder, read_card(folder)
        check_files(folder, self.card)
        tensors = read_tensors(folder / WEIGHTS)
        most = LARGER * sum(tensor.numel() for tensor in tensors.values()) + SPARE
        try:
            with torch.random.fork_rng(devices=[]), Frugal(most):
                self._build(tensors)
        except NeedsLightning:
            raise
        except Exception as error:  # damaged settings fail in many ways
            if machine.plans_only() and not isinstance(error, UsageError):
                raise NeedsLightning from error  # the stand-ins may lack what the method asks for
            reason = str(error) if isinstance(error, UsageError) else f"{type(error).__name__}: {str(error)[:500]}"
            raise UsageError(f"{folder}: the model of {CARD} and {WEIGHTS} cannot be built: {reason}") from error

    def _build(self, tensors: Mapping[str, Tensor]) -> None:
        card = self.card
        built = {m: self._encoder(m, dict(choice), tensors) for m, choice in card.trial.encoders.items()}
        self.tokenizers: dict[str, Tokenizer] = {m: built[m].tokenize for m in card.texts}  # type: ignore[misc]
        self.frozen = {m: built[m].eval().requires_grad_(False) for m in card.cached}
        for modality, encoder in self.frozen.items():
            encoder.load_state_dict(under(f"frozen/{modality}/", tensors))
        encoders = {m: Given(card.cached[m]) if m in card.cached else encoder for m, encoder in built.items()}
        saved = Saved(spec=card.spec, recipe=card.trial.recipe, arguments=card.trial.params)
        rest = unpacked(card.extra, tensors)
        state = {**under("state/", tensors), **rest.pop("state_dict")}
        read = {f"{part}/{m}" for m in card.standardised for part in ("mean", "scale")} | named(card.extra)
        places = ("state/", *(f"frozen/{m}/" for m in card.cached))
        if unknown := [name for name in tensors if name not in read and not name.startswith(places)]:
            raise UsageError(
                f"{WEIGHTS} has tensors that are none of the model's: {', '.join(sorted(unknown)[:5])[:300]}"
            )
        checkpoint = {"state_dict": state, KEY: saved.model_dump(mode="json"), **rest}
        method: type[MultimodalTask] = METHODS[card.trial.method]
        self.task = method.restored(checkpoint, saved, {"encoders": encoders}, self.folder / CARD)
        self.task.eval().requires_grad_(False)
        self.moments = {m: (tensors[f"mean/{m}"].numpy(), tensors[f"scale/{m}"].numpy()) for m in card.standardised}
        for modality, moments in self.moments.items():
            if any(value.shape != tuple(getattr(card.inputs[modality], "shape", ())) for value in moments):
                raise UsageError(f"mean and scale of {modality} are of another width than its vectors")

    def _encoder(self, modality: str, choice: dict[str, Any], tensors: Mapping[str, Tensor]) -> nn.Module:
        """An encoder as the trial names it, with weights that will be replaced, and with its tokenizer read."""
        kind = ENCODERS[str(choice.pop("name", None))]
        checked, wrong = resolve_arguments(kind, choice)
        if wrong:
            raise UsageError(f"trial.encoders.{modality}: {'; '.join(wrong)}")
        choice = {"name": str(self.card.trial.encoders[modality]["name"]), **checked}
        if not issubclass(kind, Pretrained):
            return build_encoder(choice)
        prefix = f"frozen/{modality}/" if modality in self.card.cached else f"state/encoders.{modality}."
        own = f"{FOLDER}/{modality}/"
        files = {name.removeprefix(own): self.folder / name for name in self.card.files if name.startswith(own)}
        with weights_at_hand(files, choice, under(prefix, tensors)):
            encoder = build_encoder(choice)
            if modality in self.card.texts:
                encoder.tokenize([""])  # type: ignore[operator]
        return encoder


@contextmanager
def weights_at_hand(files: Mapping[str, Path], choice: dict[str, Any], tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """Let a pretrained encoder find what it reads when it is built: its own files of the model's folder, and the weights kept with it.

    An encoder whose configuration lies beside its weights gets both in a folder made up for it; one whose arguments alone say what it
    is, is built with random weights: ``choice`` is changed. All of them are replaced afterwards.

    Args:
        files: name in the folder of weights -> the encoder's configuration or vocabulary.
        choice: the encoder's name and its arguments.
        tensors: its state, by the encoder's own names.
    """
    from safetensors.torch import save_file

    name, before = choice.get("weights"), os.environ.get("MMBENCH_WEIGHTS")
    with TemporaryDirectory(prefix="mmbench-model-") as made:
        for place, source in files.items():
            (Path(made) / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, Path(made) / place)
        if f"{name}/config.json" in files:
            save_file(under("model.", tensors), Path(made) / str(name) / "model.safetensors")
        elif name is not None:
            choice["weights"] = None
        os.environ["MMBENCH_WEIGHTS"] = made
        try:
            yield
        finally:
            os.environ.pop("MMBENCH_WEIGHTS") if before is None else os.environ.update(MMBENCH_WEIGHTS=before)


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin like this, by the rest of their names."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
