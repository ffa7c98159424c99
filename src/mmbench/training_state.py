"""All that training depends on at the end of an epoch: taken as tensors and plain values, and put back.

A method has to do nothing for it where what it learns is in parameters, buffers, optimisers and schedules, or in attributes of its
modules that are numbers, strings, tensors, arrays, random generators, or lists, tuples and dictionaries of such. What it keeps
otherwise, it puts into the checkpoint in ``on_save_checkpoint`` and takes out again in ``on_load_checkpoint``, as tensors and plain
values; a callback that it brings along has ``state_dict`` and ``load_state_dict``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.loops.loop import _Loop
from torch import Tensor, nn

from mmbench import curves
from mmbench.generators import KINDS, global_states, set_global_states, set_state, state_of
from mmbench.ranks import OwnGenerator, of_all_ranks

Attributes = dict[str, dict[str, Any]]
LASTING = {*vars(pl.LightningModule()), *vars(nn.Module())}
"""Attributes that every method has, of Lightning and torch, which see to them themselves."""
DEEPEST = 20
LARGER, SPARE = 16, 2**28
"""A state has at most so many times the bytes of the method's weights, and so many besides: the best epoch's, the optimiser's."""


def most_bytes(task: nn.Module) -> float:
    """How many bytes a state of this method may have."""
    tensors = [*task.parameters(), *task.buffers()]
    return LARGER * sum(tensor.numel() * tensor.element_size() for tensor in tensors) + SPARE


def state_of_training(trainer: Any, rows: Sequence[Mapping[str, float]], built: Attributes) -> dict[str, Any]:
    """All that training depends on at the end of an epoch, as tensors, not copied, and plain values.

    Args:
        trainer: that trains.
        rows: of metrics, by now.
        built: the method's attributes when it was built; those that are still the same are left out.
    """
    task, data, extra = trainer.lightning_module, trainer.datamodule, dict[str, Any]()
    task.on_save_checkpoint(extra)
    for callback in trainer.callbacks:
        callback.on_save_checkpoint(trainer, task, extra)
    return {
        "extra": extra,
        "weights": task.state_dict(),
        "buffers": fleeting(task),
        "attributes": changed(attributes(task), built),
        "modes": {name: module.training for name, module in task.named_modules()},
        "trained": {name: parameter.requires_grad for name, parameter in task.named_parameters()},
        "optimizers": [optimizer.state_dict() for optimizer in trainer.optimizers],
        "schedulers": [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs],
        "loops": trainer.fit_loop.state_dict(),
        "stops": trainer.should_stop,
        "metrics": dict(trainer._logger_connector._callback_metrics),
        "callbacks": [callback.state_dict() for callback in trainer.callbacks],
        "data": data.state_dict(),
        "curves": curves.told(rows),
        "generators": generators(trainer),
    }


def restore_training(trainer: Any, state: Mapping[str, Any]) -> None:
    """Bring training to a state, but for its random generators and the rows of metrics."""
    task = trainer.lightning_module
    extra = {**state["extra"], "state_dict": state["weights"]}
    task.on_load_checkpoint(extra)
    task.load_state_dict(state["weights"])
    for name, buffer in fleeting(task).items():
        buffer.copy_(state["buffers"][name])
    for name, module in task.named_modules():
        module.training = state["modes"][name]
        set_attributes(module, state["attributes"].get(name, {}))
    for name, parameter in task.named_parameters():
        parameter.requires_grad_(state["trained"][name])
    for optimizer, own in zip(trainer.optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(own)
    for config, own in zip(trainer.lr_scheduler_configs, state["schedulers"], strict=True):
        config.scheduler.load_state_dict(own)
    for callback, own in zip(trainer.callbacks, state["callbacks"], strict=True):
        callback.on_load_checkpoint(trainer, task, extra)
        callback.load_state_dict(own)
    trainer.datamodule.load_state_dict(state["data"])
    trainer.should_stop = state["stops"]
    trainer._logger_connector._callback_metrics.update(state["metrics"])
    trainer.fit_loop.load_state_dict(state["loops"])
    begin_epoch(trainer.fit_loop)


def begin_epoch(loop: _Loop) -> None:
    """Let a loop whose counters were loaded begin an epoch as if it had come to it: Lightning would go on with the last one."""
    loop._restarting = loop._loaded_from_state_dict = loop._resuming_from_checkpoint = False
    for inner in vars(loop).values():
        if isinstance(inner, _Loop):
            begin_epoch(inner)


def generators(trainer: Any) -> dict[str, Any]:
    """The state of all random generators that training draws from."""
    loader = getattr(trainer.train_dataloader, "generator", None)
    return {
        "global": global_states(),
        "order": None if loader is None else state_of(loader),
        "data": {name: state_of(value) for name, value in vars(trainer.datamodule).items() if isinstance(value, KINDS)},
        "own": of_all_ranks([own.states for own in own_generators(trainer)]),
    }


def own_generators(trainer: Any) -> list[OwnGenerator]:
    """Those from which one of several devices draws what the others do not."""
    return [trainer.datamodule.own_generator, trainer.lightning_module.own_generator]


def set_generators(trainer: Any, states: Mapping[str, Any]) -> None:
    """Bring all random generators that training draws from to a state.

    Raises:
        AttributeError, KeyError, RuntimeError, TypeError, ValueError: it is of others.
    """
    if states["order"] is not None:
        set_state(trainer.train_dataloader.generator, states["order"])
    for name, state in states["data"].items():
        set_state(getattr(trainer.datamodule, name), state)
    set_global_states(states["global"])
    if len(states["own"]) == trainer.world_size:  # else it goes on on another number of devices, with new ones
        for own, state in zip(own_generators(trainer), states["own"][trainer.global_rank], strict=True):
            own.states = dict(state)


def fleeting(task: nn.Module) -> dict[str, Tensor]:
    """The buffers that ``state_dict`` leaves out."""
    return {
        f"{path}.{name}": module._buffers[name]
        for path, module in task.named_modules()
        for name in module._non_persistent_buffers_set
        if module._buffers.get(name) is not None
    }


def attributes(task: nn.Module) -> Attributes:
    """Module -> its attributes that are plain values, tensors, arrays or random generators, as plain values and tensors."""
    return {
        path: {name: told(v) for name, v in vars(module).items() if name not in LASTING and is_kept(v)}
        for path, module in task.named_modules()
    }


def changed(now: Attributes, before: Attributes) -> Attributes:
    """The attributes that are other ones than they were, or new."""
    found = {
        path: {
            n: v for n, v in own.items() if path not in before or n not in before[path] or not same(v, before[path][n])
        }
        for path, own in now.items()
    }
    return {path: own for path, own in found.items() if own}


def set_attributes(module: nn.Module, saved: Mapping[str, Any]) -> None:
    """Give a module the attributes that were saved."""
    device = next((t.device for t in [*module.parameters(), *module.buffers()]), None)
    for name, value in saved.items():
        if "generator" in value:
            set_state(getattr(module, name), value["generator"])
        else:
            setattr(module, name, restored(value, device))


def is_kept(value: Any, depth: int = 0) -> bool:
    """Whether an attribute's value is one that a state has."""
    if depth > DEEPEST:
        return False
    if type(value) is dict:
        return all(type(key) in (str, int) for key in value) and is_kept(list(value.values()), depth)
    if type(value) in (list, tuple):
        return all(is_kept(inner, depth + 1) for inner in value)
    if isinstance(value, np.ndarray | np.generic):
        return value.dtype.kind in "biuf" and value.dtype.isnative
    return value is None or type(value) in (bool, int, float, str, Tensor) or isinstance(value, KINDS)


def told(value: Any) -> dict[str, Any]:
    """A value that ``is_kept`` as plain values and tensors, which say what it was."""
    if type(value) is dict:
        return {"dict": {key: told(inner) for key, inner in value.items()}}
    if type(value) is list and all(type(inner) in (bool, int, float, str) for inner in value):
        return {"value": list(value)}  # a history of numbers, say, which is long
    if type(value) in (list, tuple):
        return {type(value).__name__: [told(inner) for inner in value]}
    if isinstance(value, np.ndarray | np.generic):
        return {"array": torch.from_numpy(np.array(value, copy=True)), "scalar": isinstance(value, np.generic)}
    if isinstance(value, KINDS):
        return {"generator": state_of(value)}
    return {"value": value.detach() if isinstance(value, Tensor) else value}


def restored(value: Mapping[str, Any], device: torch.device | None) -> Any:
    """What ``told`` was given; tensors on a device."""
    if "array" in value:
        array = value["array"].numpy()
        return array[()] if value["scalar"] else array
    ((kind, inner),) = value.items()
    if kind == "dict":
        return {key: restored(item, device) for key, item in inner.items()}
    if kind in ("list", "tuple"):
        return {"list": list, "tuple": tuple}[kind](restored(item, device) for item in inner)
    return inner.to(device) if isinstance(inner, Tensor) else inner


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same, as plain values and tensors."""
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        alike = isinstance(one, Tensor) and isinstance(other, Tensor) and one.dtype == other.dtype
        return alike and torch.equal(one.cpu(), other.cpu())
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other
