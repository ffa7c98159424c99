"""A device that counts: torch's "meta" device, whose tensors have values here, with a note of all that makes the host wait for it."""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from mmbench.baselines import METHODS
from mmbench.batch import Batch
from mmbench.lean import log_epoch
from mmbench.missing import Missing
from mmbench.recipe import Recipe
from mmbench.testing.planted import Planted3, planted_world, weights
from mmbench.training import lean_trainer
from mmbench.watch import Training

DEVICE = torch.device("meta")
CPU = torch.device("cpu")
PROJECT = str(Path(__file__).parents[1])

# Operators for which the host waits on CUDA: it gets a number, or has to know how large the result is, or whether there was a mistake.
WAITING = {
    *("_local_scalar_dense", "is_nonzero", "equal", "_assert_async"),
    *("nonzero", "masked_select", "_unique", "_unique2", "unique_dim", "unique_consecutive", "bincount", "histc"),
    *("multinomial", "_linalg_check_errors", "_linalg_eigh", "_linalg_svd", "linalg_eig"),
}
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
LEARN_LAST = {"cca", "cpm_net", "dcca", "dccae"}  # methods whose last step of an epoch does more than the others
RESHAPING = {"squeeze_", "unsqueeze_", "t_", "transpose_"}


class OnDevice(Tensor):
    """A tensor of the device. ``values``: the same, on the host."""

    values: Tensor

    @staticmethod
    def __new__(cls, values: Tensor) -> OnDevice:
        layout = {"strides": values.stride(), "storage_offset": values.storage_offset()}
        own = Tensor._make_wrapper_subclass(cls, values.shape, dtype=values.dtype, device=DEVICE, **layout)  # type: ignore[attr-defined]
        own.values = values
        return own

    def tolist(self) -> Any:
        """As of any tensor; torch refuses it to subclasses."""
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{function} of tensors on the device while it is not simulated")


class Numbers(TorchFunctionMode):
    """Has Python's numbers go to the device by way of the host: ``torch.tensor`` knows nothing of values there."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if function in (torch.tensor, torch.as_tensor, torch.asarray) and kwargs.get("device") is not None:
            device = torch.device(kwargs.pop("device"))
            return function(*args, **kwargs).to(device)
        return function(*args, **kwargs)


class Simulated(TorchDispatchMode):
    """While it is entered, tensors on ``DEVICE`` have values, and what the host does with them is counted.

    An operator of tensors here and there, for which CUDA has no answer, is an AssertionError.

    Attributes:
        waits: what made the host wait for the device, with the project's line that asked for it -> how often.
        copies: likewise, what was copied from the host to the device.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        self.copies: Counter[str] = Counter()

    def __enter__(self) -> Simulated:
        autocast = torch.autocast  # which has no mixed precision for the device
        self._others = ExitStack()
        self._others.enter_context(
            patch(
                "torch.autocast",
                lambda kind, *a, **k: nullcontext() if kind == DEVICE.type else autocast(kind, *a, **k),
            )
        )
        self._others.enter_context(Numbers())
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._others.close()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = dict(kwargs or {}), function._schema.name.removeprefix("aten::")
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        there = {id(t.values): t for t in tensors if isinstance(t, OnDevice)}
        target = torch.device(kwargs["device"]) if kwargs.get("device") is not None else None
        if not there and target != DEVICE:
            return function(*args, **kwargs)
        if name == "_to_copy":
            return self._copied(function, args[0], target or args[0].device, args[1:], kwargs)
        if name == "copy_":
            return self._written(*args[:2])
        if target is not None:
            assert target == DEVICE, f"{name} of tensors on the device makes one on the host"
            kwargs["device"] = CPU
        if name in WAITING:
            self._note(self.waits, name)
        if name in INDEXING:
            self._note_indices(args[1])
        else:
            strangers = [t for t in tensors if not isinstance(t, OnDevice) and t.dim()]
            assert not strangers, f"{name} of tensors on the host and on the device"
        if name in RESHAPING:
            args[0].values = function(args[0].values, *args[1:])
            with no_dispatch():
                return function(*args)
        result = function(*tree_map(values_of, args), **tree_map(values_of, kwargs))
        return tree_map(
            lambda t: (there[id(t)] if id(t) in there else OnDevice(t)) if isinstance(t, Tensor) else t, result
        )

    def _copied(self, function: Any, source: Tensor, target: torch.device, args: Any, kwargs: Any) -> Tensor:
        copy = function(values_of(source), *args, **{**kwargs, "device": CPU})
        if target == CPU:
            self._note(self.waits, "copy to the host")
            return copy
        if not isinstance(source, OnDevice):
            self._note(self.copies, "copy to the device")
        return OnDevice(copy)

    def _written(self, into: Tensor, source: Tensor) -> Tensor:
        if isinstance(source, OnDevice) and not isinstance(into, OnDevice):
            self._note(self.waits, "copy to the host")
        if isinstance(into, OnDevice) and not isinstance(source, OnDevice):
            self._note(self.copies, "copy to the device")
        values_of(into).copy_(values_of(source))
        return into

    def _note_indices(self, indices: Any) -> None:
        for index in (i for i in indices if i is not None):
            if not isinstance(index, OnDevice):
                self._note(self.copies, "index from the host")
            if index.dtype in (torch.bool, torch.uint8):
                self._note(self.waits, "index by a mask")

    def _note(self, counter: Counter[str], what: str) -> None:
        """Count it for the innermost line of the project that led to it."""
        frame = sys._getframe(1)
        while frame.f_back is not None:
            path = frame.f_code.co_filename
            if path != __file__ and path.startswith(PROJECT) and "site-packages" not in path:
                break
            frame = frame.f_back
        counter[f"{what} ({Path(frame.f_code.co_filename).name}:{frame.f_lineno})"] += 1


def values_of(value: Any) -> Any:
    """The values of a tensor of the device; anything else as it is."""
    return value.values if isinstance(value, OnDevice) else value


def fitted(
    method: str, device: torch.device, complete: bool = False, missing: Missing | None = None
) -> tuple[list[tuple[int, int]], dict[str, Tensor]]:
    """Train a method on three modalities, for two epochs of three steps.

    Returns:
        (waits, copies) of each step, from the batch on the device until the loss is noted, without the last ones of ``LEARN_LAST``; and
        the weights.
    """
    world, simulated, counts = planted_world(Planted3), Simulated(), []
    data = world.data
    data.missing = missing
    if complete:
        data.splits.train.present[:] = True
    task = world.build(METHODS[method], recipe=Recipe(epochs=2, batch_size=8, lr=0.01))
    trainer = lean_trainer(task.recipe, "cpu", [], [Training()], limit_train_batches=3, limit_val_batches=0)
    task.log_epoch = partial(log_epoch, trainer)  # type: ignore[method-assign]
    trainer.strategy._root_device = device
    arrive, end = data.on_after_batch_transfer, task.on_train_batch_end

    def arrived(*arguments: Any) -> Batch:
        simulated.waits, simulated.copies = Counter(), Counter()
        return arrive(*arguments)

    def ended(*arguments: Any) -> None:
        end(*arguments)
        if not (method in LEARN_LAST and trainer.is_last_batch):
            counts.append((simulated.waits.total(), simulated.copies.total()))

    data.on_after_batch_transfer, task.on_train_batch_end = arrived, ended  # type: ignore[method-assign]
    torch.manual_seed(1)
    with simulated, patch("pytorch_lightning.accelerators.CPUAccelerator.setup_device"):
        trainer.fit(task, datamodule=data)
    assert trainer.fit_loop.epoch_loop.lean  # type: ignore[attr-defined]
    return counts, weights(task)
