"""Training steps and validation as in Lightning, without the detours that a trial has no use for.

Lightning calls every hook through layers of wrappers, which with a small model take as long as a third of the training. A trial knows
its one trainer: no gradients are accumulated or scaled, nothing is logged by step, nothing is profiled. What a step does, and in
which order, is the same, and so are its numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loops.evaluation_loop import _EvaluationLoop
from pytorch_lightning.loops.fetchers import _DataFetcher
from pytorch_lightning.loops.training_epoch_loop import _TrainingEpochLoop
from pytorch_lightning.trainer.states import RunningStage, TrainerFn
from pytorch_lightning.utilities.model_helpers import is_overridden
from torch import Tensor
from torch.optim import Optimizer

from mmbench.batch import Batch
from mmbench.task import MultimodalTask

OF_TRANSFER = ("on_before_batch_transfer", "transfer_batch_to_device")
OF_OPTIMISING = ("on_before_zero_grad", "on_before_backward", "on_after_backward")
OF_METHODS = (
    *OF_TRANSFER,
    *OF_OPTIMISING,
    "on_after_batch_transfer",
    "on_train_batch_start",
    "optimizer_zero_grad",
    "backward",
    "optimizer_step",
)
OF_CALLBACKS = (*OF_OPTIMISING, "on_train_batch_start", "on_before_optimizer_step", "on_train_batch_end")
"""Hooks that a lean step does not call: of methods, and of callbacks."""
OF_VALIDATION = (
    "on_validation_start",
    "on_validation_epoch_start",
    "on_validation_batch_start",
    "on_validation_batch_end",
)
"""Hooks that lean validation does not call, of methods and of callbacks."""


class LeanEpoch(_TrainingEpochLoop):
    """Lightning's loop over an epoch's batches, with steps that call only those hooks that the suite's own classes have.

    A method, a data module or a callback that has any of the others gets Lightning's own steps; so does a trial on several
    devices.
    """

    lean: bool | None = None

    def __init__(self, trainer: pl.Trainer) -> None:
        super().__init__(trainer)
        self.val_loop = LeanValidation(
            trainer, TrainerFn.FITTING, RunningStage.VALIDATING, verbose=False, inference_mode=False
        )

    def advance(self, data_fetcher: _DataFetcher) -> None:
        """Train on the next batch."""
        if self.lean is None:
            self.lean = self.trainer.world_size == 1 and not has_other_hooks(self.trainer)
            if self.lean:
                strategy: Any = self.trainer.strategy
                strategy.backward, strategy.optimizer_step = self._backward, self._step
                for wrapped, optimizer in zip(strategy._lightning_optimizers, strategy.optimizers, strict=True):
                    wrapped.zero_grad = partial(zero_grad, optimizer)
                self.manual_optimization.on_run_start()  # counts the steps that a method takes itself
        if not self.lean:
            super().advance(data_fetcher)
            return
        trainer: Any = self.trainer
        task, data, progress = trainer.lightning_module, trainer.datamodule, self.batch_progress
        number = self.batch_idx + 1
        batch, *_ = next(data_fetcher)
        progress.is_last_batch = data_fetcher.done
        batch = data.on_after_batch_transfer(moved(batch, trainer.strategy.root_device), 0)
        progress.increment_ready()
        trainer._logger_connector.on_batch_start(batch)
        progress.increment_started()
        outputs = self._train(task, batch, number)
        progress.increment_processed()
        self.update_lr_schedulers("step", update_plateau_schedulers=False)
        if self._num_ready_batches_reached():
            self.update_lr_schedulers("epoch", update_plateau_schedulers=False)
        task._current_fx_name = "on_train_batch_end"
        task.on_train_batch_end(outputs, batch, number)
        task._current_fx_name = None
        if any(metric.meta.on_step for metric in self._results.values()):  # the method logs something itself
            trainer._logger_connector.on_batch_end()
        self._results.batch = self._results.batch_size = None
        progress.increment_completed()

    def on_advance_end(self, data_fetcher: _DataFetcher) -> None:
        """Validate after the last batch."""
        if not self.lean or self._num_ready_batches_reached():
            super().on_advance_end(data_fetcher)
        else:
            self._batches_that_stepped += 1

    def _train(self, task: pl.LightningModule, batch: Any, number: int) -> dict[str, Any]:
        """Forward, and backward and a step of the optimiser where the method does not see to them; what it returned, without graph."""
        task._current_fx_name = "training_step"
        output = task.training_step(batch, number)
        outputs: dict[str, Any] = dict(output) if isinstance(output, Mapping) else {"loss": output}
        loss = outputs["loss"]
        if task.automatic_optimization:
            optimizer, progress = self.trainer.optimizers[0], self.automatic_optimization.optim_progress.optimizer.step
            zero_grad(optimizer)
            loss.backward()
            progress.increment_ready()
            self._step(optimizer)
            progress.increment_completed()
        return {**outputs, "loss": loss.detach()}

    def _backward(self, loss: Tensor, optimizer: Any, *arguments: Any, **settings: Any) -> None:
        """What ``manual_backward`` of a method comes to."""
        loss.backward(*arguments, **settings)

    def _step(self, optimizer: Optimizer, closure: Callable[[], Any] = lambda: None, **settings: Any) -> Any:
        """A step of an optimiser, after the hook that may change gradients."""
        task, result = self.trainer.lightning_module, closure()
        task.on_before_optimizer_step(optimizer)
        if task.automatic_optimization:
            task.configure_gradient_clipping(optimizer, None, None)
        optimizer.step(**settings)
        return result


class LeanValidation(_EvaluationLoop):
    """Lightning's validation after an epoch, on the same terms."""

    lean: bool | None = None

    def run(self) -> list[Any]:
        """Validate what is trained."""
        trainer: Any = self.trainer
        if self.lean is None:
            self.lean = not (has_other_hooks(trainer) or has_hooks_of_validation(trainer))
        if not self.lean:
            return super().run()
        self.setup_data()
        if self.skip:
            return []
        task, data, loaders = trainer.lightning_module, trainer.datamodule, self._combined_loader
        assert loaders is not None
        self._module_mode.capture(task)
        task.eval()
        with torch.no_grad():
            for number, batch in enumerate(loaders.flattened[0]):
                there = moved(batch, trainer.strategy.root_device)
                task.validation_step(data.on_after_batch_transfer(there, 0), number)
            task.on_validation_epoch_end()
            for callback in trainer.callbacks:
                callback.on_validation_end(trainer, task)
        self._module_mode.restore(task)
        return []


def zero_grad(optimizer: Optimizer, set_to_none: bool = True) -> None:
    """Let go of an optimiser's gradients, without the look for a profiler and a compiler that its own method has first."""
    if not set_to_none:
        optimizer.zero_grad(set_to_none=False)
        return
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = None


def moved(batch: Batch, device: torch.device) -> Batch:
    """The batch on a device, itself if it is there."""
    return batch if batch.label.device == device else batch.to(device)


def log_epoch(trainer: Any, values: Mapping[str, float]) -> None:
    """Give an epoch's values to callbacks and loggers, in single precision, as Lightning's ``log_dict`` does in the end."""
    tensors, connector = {name: torch.tensor(value) for name, value in values.items()}, trainer._logger_connector
    connector._callback_metrics.update(tensors)
    connector.log_metrics(tensors)


def has_other_hooks(trainer: Any) -> bool:
    """Whether what is trained, its data or a callback has a hook that a lean step would leave out."""
    task, data = trainer.lightning_module, trainer.datamodule
    return (
        any(is_overridden(hook, task, pl.LightningModule) for hook in OF_METHODS)
        or any(is_overridden(hook, data, pl.LightningDataModule) for hook in OF_TRANSFER)
        or any(is_overridden(hook, callback, pl.Callback) for hook in OF_CALLBACKS for callback in trainer.callbacks)
    )


def has_hooks_of_validation(trainer: Any) -> bool:
    """Whether what is trained, or a callback, has a hook of validation that is not the suite's own."""
    task = trainer.lightning_module
    others = (*OF_VALIDATION, "on_validation_end", "on_validation_model_eval", "on_validation_model_train")
    return (
        any(is_overridden(hook, task, pl.LightningModule) for hook in others)
        or any(is_overridden(hook, task, MultimodalTask) for hook in ("validation_step", "on_validation_epoch_end"))
        or any(
            is_overridden(hook, callback, pl.Callback)
            for hook in (*OF_VALIDATION, "on_validation_epoch_end")
            for callback in trainer.callbacks
        )
    )
