"""A trial goes on where it was: its whole state at the end of an epoch, in a file, from which a later process continues bit by bit.

A method has to do nothing for it where what it learns is in parameters, buffers, optimisers and schedules, or in attributes of its
modules that are numbers, strings, tensors, arrays, random generators, or lists, tuples and dictionaries of such. What it keeps
otherwise, it puts into the checkpoint in ``on_save_checkpoint`` and takes out again in ``on_load_checkpoint``, as tensors and plain
values; a callback that it brings along has ``state_dict`` and ``load_state_dict``.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pydantic import TypeAdapter, ValidationError
from pytorch_lightning.loops.fit_loop import _FitLoop
from pytorch_lightning.loops.loop import _Loop
from torch import Tensor, nn

from mmbench.curves import CurveLogger
from mmbench.durations import CHECKPOINT_EVERY, in_words
from mmbench.errors import Stopped
from mmbench.generators import KINDS, global_states, set_global_states, set_state, state_of
from mmbench.machine import host
from mmbench.packing import Damaged, NotPlain, read_head, read_state, write_state
from mmbench.ranks import OwnGenerator, of_all_ranks
from mmbench.record import Resumed

Attributes = dict[str, dict[str, Any]]
LASTING = {*vars(pl.LightningModule()), *vars(nn.Module())}
"""Attributes that every method has, of Lightning and torch, which see to them themselves."""
DEEPEST = 20
LARGER, SPARE = 16, 2**28
"""A state has at most so many times the bytes of the method's weights, and so many besides: the best epoch's, the optimiser's."""


class OutOfTime(RuntimeError):
    """The trial has used up the time that it may take; its state is kept."""


class Unusable(RuntimeError):
    """The state in a checkpoint does not fit the trial; the message says why."""


@dataclass
class Checkpoint:
    """The file of a trial's state, what it is of, and when it is written.

    Attributes:
        path: of the file.
        of: what it has to be of: the trial's key, the code, the versions of what it runs on, as plain values.
        every: seconds between two writings, which come at the end of an epoch; 0: it is never written.
        limit: seconds that the trial may take in all; None: as many as it needs.
        asked: whether the trial has been asked to end.
        training: whether it trains, so that it is to end with its epoch: from the first one on, if checkpoints are written.
        started: when this process began.
        first: when the first one did that had a part in the trial; empty: it is this one.
        seconds: stage -> what earlier processes have spent on it.
        resumed: how often it has gone on.
    """

    path: Path
    of: Mapping[str, Any]
    every: float = CHECKPOINT_EVERY
    limit: float | None = None
    asked: bool = False
    training: bool = False
    started: str = ""
    first: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    resumed: list[Resumed] = field(default_factory=list)

    @property
    def told(self) -> dict[str, Any]:
        """What the trial's record says of its processes."""
        return {"started": self.first or self.started, "resumed": self.resumed}

    def read(self, most: float) -> dict[str, Any] | None:
        """The state to go on from; None if there is none. One that cannot be used is told and removed.

        Args:
            most: bytes that its tensors may have.
        """
        try:
            if (head := read_head(self.path)) is None:
                return None
            for name, own in self.of.items():
                if head.get(name) != own:
                    raise Damaged(f"it has another {name} than this trial")
            state = read_state(self.path, most)
            told = TypeAdapter(dict[str, Any]).validate_python(state)
            self.first = TypeAdapter(str).validate_python(head["started"])
            self.seconds = TypeAdapter(dict[str, float]).validate_python(head["seconds"])
            self.resumed = TypeAdapter(list[Resumed]).validate_python(head["resumed"])
        except (Damaged, KeyError, ValidationError) as error:
            self.forget(str(error) if isinstance(error, Damaged) else "its head is none of a checkpoint")
            return None
        return told

    def forget(self, reason: str) -> None:
        """Say that the file cannot be used, and remove it; the trial begins anew."""
        print(f"{self.path} is not used: {reason}; the trial begins anew", flush=True)
        self.first, self.seconds, self.resumed = "", {}, []
        self.remove()

    def goes_on(self, epochs: int, planned: int | None) -> None:
        """Note that the trial goes on here and now, after so many epochs."""
        self.resumed.append(Resumed(epoch=epochs, host=host(), when=datetime.now(UTC).isoformat(timespec="seconds")))
        print(f"goes on from its checkpoint after {epochs} of {planned} epochs", flush=True)

    def remove(self) -> None:
        """Remove the file, if it is there."""
        self.path.unlink(missing_ok=True)

    def write(self, epochs: int, seconds: Mapping[str, float], state: Mapping[str, Any], most: float) -> None:
        """Write the state after so many epochs; a method whose state cannot be written is told, and goes on without.

        Raises:
            StoreError: the disk is full or not writable.
        """
        head = {
            **self.of,
            "epochs": epochs,
            "started": self.told["started"],
            "seconds": dict(seconds),
            "resumed": [r.model_dump() for r in self.resumed],
        }
        try:
            write_state(self.path, head, state, most)
        except NotPlain as error:
            print(f"no checkpoint of this trial: its state has {error}; expected tensors and plain values", flush=True)
            self.every = 0.0


class ResumableFit(_FitLoop):
    """Lightning's loop over epochs, which goes on from a state, and leaves its own in a file from time to time.

    Args:
        trainer: whose loop over epochs it becomes.
        checkpoint: the file.
        curves: rows of metrics, which are part of the state.
        spent: stage -> seconds before training, of this process and of earlier ones.
        state: to go on from; None: from the beginning.
    """

    def __init__(
        self,
        trainer: pl.Trainer,
        checkpoint: Checkpoint,
        curves: CurveLogger,
        spent: Mapping[str, float],
        state: Mapping[str, Any] | None,
    ) -> None:
        super().__init__(trainer, max_epochs=trainer.max_epochs)
        self.epoch_loop = trainer.fit_loop.epoch_loop
        self.checkpoint, self.curves, self.spent, self._state = checkpoint, curves, spent, state
        self._generators: Mapping[str, Any] | None = None
        self._began = self._written = time.perf_counter()

    @property
    def epochs(self) -> int:
        """How many have been trained."""
        return self.epoch_progress.current.processed  # type: ignore[attr-defined]

    @property
    def seconds(self) -> dict[str, float]:
        """Stage -> seconds spent on it by now, in all processes."""
        return {**self.spent, "fit": self.checkpoint.seconds.get("fit", 0.0) + time.perf_counter() - self._began}

    def run(self) -> None:
        """Train from the state on.

        Raises:
            Unusable: it does not fit what is trained, which is half restored by now.
            Stopped, OutOfTime: before there is anything to do.
        """
        self.built = deepcopy(attributes(self.trainer.lightning_module))
        if self._state is not None:
            try:
                restore_training(self.trainer, self, self._state)
            except (torch.OutOfMemoryError, MemoryError):
                raise
            except Exception as error:
                raise Unusable(f"its state does not fit the trial: {type(error).__name__}: {error}") from error
            self._generators, self._state = self._state["generators"], None
            self.checkpoint.goes_on(self.epochs, self.max_epochs)
        self._end_if_asked(written=True)
        self.checkpoint.training = bool(self.checkpoint.every)
        super().run()

    def on_run_start(self) -> None:
        """Bring random generators to where they were, after all that is done when training starts."""
        super().on_run_start()
        if self._generators is not None:
            set_generators(self.trainer, self._generators)
            self._generators = None

    def on_advance_end(self) -> None:
        """End the epoch; write the state, if it is time, and stop, if that was asked for."""
        super().on_advance_end()
        now = time.perf_counter()
        every = self.checkpoint.every
        due = self.trainer.strategy.broadcast(bool(every) and now - self._written >= every)
        if due:
            self.save()
        self._end_if_asked(written=due)

    @property
    def _epochs_left(self) -> bool:
        assert self.max_epochs is not None
        return self.epochs < self.max_epochs and not self.trainer.should_stop

    def _end_if_asked(self, written: bool) -> None:
        """Stop if that was asked for, or if there is no more time and the trial would need some.

        Raises:
            Stopped, OutOfTime: with the state written.
        """
        limit, epochs = self.checkpoint.limit, self.epochs
        begun = epochs > 0  # so that a trial gets on, whatever the limit
        late = begun and limit is not None and sum(self.seconds.values()) >= limit and self._epochs_left
        asked, late = self.trainer.strategy.broadcast((self.checkpoint.asked, late))
        if not (asked or late):
            return
        if not written and self.checkpoint.every:
            self.save()
        if asked:
            print(f"stopped after {epochs} of {self.max_epochs} epochs, as it was asked to", flush=True)
            raise Stopped
        assert limit is not None
        kept = "a larger limit goes on from there" if self.checkpoint.path.exists() else "there is no checkpoint"
        raise OutOfTime(
            f"the time limit of {in_words(limit)} has passed after {epochs} of {self.max_epochs} epochs; {kept}"
        )

    def save(self) -> None:
        """Write the state."""
        state = state_of_training(self.trainer, self)
        if self.trainer.is_global_zero:
            self.checkpoint.write(self.epochs, self.seconds, state, most_bytes(self.trainer.lightning_module))
        self._written = time.perf_counter()


def most_bytes(task: nn.Module) -> float:
    """How many bytes a state of this method may have."""
    tensors = [*task.parameters(), *task.buffers()]
    return LARGER * sum(tensor.numel() * tensor.element_size() for tensor in tensors) + SPARE


def state_of_training(trainer: Any, loop: ResumableFit) -> dict[str, Any]:
    """All that training depends on at the end of an epoch, as tensors, not copied, and plain values."""
    task, data, extra = trainer.lightning_module, trainer.datamodule, dict[str, Any]()
    task.on_save_checkpoint(extra)
    for callback in trainer.callbacks:
        callback.on_save_checkpoint(trainer, task, extra)
    return {
        "extra": extra,
        "weights": task.state_dict(),
        "buffers": fleeting(task),
        "attributes": changed(attributes(task), loop.built),
        "modes": {name: module.training for name, module in task.named_modules()},
        "trained": {name: parameter.requires_grad for name, parameter in task.named_parameters()},
        "optimizers": [optimizer.state_dict() for optimizer in trainer.optimizers],
        "schedulers": [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs],
        "loops": loop.state_dict(),
        "stops": trainer.should_stop,
        "metrics": dict(trainer._logger_connector._callback_metrics),
        "callbacks": [callback.state_dict() for callback in trainer.callbacks],
        "data": data.state_dict(),
        "curves": loop.curves.rows,
        "generators": generators(trainer),
    }


def restore_training(trainer: Any, loop: ResumableFit, state: Mapping[str, Any]) -> None:
    """Bring training to a state, but for its random generators."""
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
    loop.curves.rows[:] = state["curves"]
    loop.load_state_dict(state["loops"])
    begin_epoch(loop)


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
        Unusable: it is of others.
    """
    try:
        if states["order"] is not None:
            set_state(trainer.train_dataloader.generator, states["order"])
        for name, state in states["data"].items():
            set_state(getattr(trainer.datamodule, name), state)
        set_global_states(states["global"])
        if (
            len(states["own"]) == trainer.world_size
        ):  # else the trial goes on on another number of devices, with new ones
            for own, state in zip(own_generators(trainer), states["own"][trainer.global_rank], strict=True):
                own.states = dict(state)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise Unusable(f"its random generators are others: {type(error).__name__}: {error}") from error


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
