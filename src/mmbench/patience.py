"""Early stopping. Imported where training begins: planning does without Lightning."""

from __future__ import annotations

import math
from typing import Any

import pytorch_lightning as pl

from mmbench.protocol import SELECTION_METRIC


class Patience(pl.Callback):
    """Ends training when, for so many epochs, none was better than the best one on the split on which the epoch is chosen.

    Epochs of pretraining do not count: none of them can be chosen.

    Args:
        epochs: how many without a new best.

    Attributes:
        stopped_epoch: the epoch after which training was ended before its time, counted from 0; None if it was not ended.
    """

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self.best, self.best_epoch = -math.inf, 0
        self.stopped_epoch: int | None = None

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Note a new best; stop if the last one is too long ago."""
        if trainer.state.fn != "fit" or trainer.sanity_checking or trainer.fast_dev_run or pl_module.is_pretraining:  # type: ignore[attr-defined]
            return
        epoch, value = trainer.current_epoch, float(trainer.callback_metrics[SELECTION_METRIC])
        if value > self.best:
            self.best, self.best_epoch = value, epoch
        elif epoch - self.best_epoch >= self.epochs and epoch + 1 < pl_module.recipe.epochs:
            trainer.should_stop = True
            self.stopped_epoch = epoch

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps, for a fit that goes on."""
        return {"best": self.best, "best_epoch": self.best_epoch, "stopped_epoch": self.stopped_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from it."""
        self.best, self.best_epoch = state_dict["best"], state_dict["best_epoch"]
        self.stopped_epoch = state_dict.get("stopped_epoch")  # earlier checkpoints have none
