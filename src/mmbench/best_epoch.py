"""The method as it was after the epoch that is chosen."""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Any

import pytorch_lightning as pl
import torch

from mmbench.protocol import SELECTION_METRIC
from mmbench.task import MultimodalTask


class BestEpoch(pl.Callback):
    """Keeps the method as it was after the best epoch, pretraining aside; in memory, as a checkpoint would on disk."""

    def __init__(self) -> None:
        self.score = -math.inf
        self.checkpoint: dict[str, Any] = {}

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the epoch if it is the best so far."""
        if trainer.state.fn != "fit":
            return
        score = float(trainer.callback_metrics[SELECTION_METRIC])
        if score <= self.score or (isinstance(pl_module, MultimodalTask) and pl_module.is_pretraining):
            return
        self.score, extra = score, dict[str, Any]()
        pl_module.on_save_checkpoint(extra)
        state = {
            n: v.clone() if isinstance(v, torch.Tensor) else deepcopy(v) for n, v in pl_module.state_dict().items()
        }
        self.checkpoint = {"state_dict": state, **deepcopy(extra)}

    def state_dict(self) -> dict[str, Any]:
        """What a trial that goes on later has to know."""
        return {"score": self.score, "checkpoint": self.checkpoint}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from it."""
        self.score, self.checkpoint = state_dict["score"], state_dict["checkpoint"]

    def restore(self, task: MultimodalTask) -> None:
        """Make the method what it was then."""
        task.on_load_checkpoint(self.checkpoint)
        task.load_state_dict(self.checkpoint["state_dict"])
