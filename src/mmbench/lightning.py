"""What the suite's base classes derive from: Lightning's classes, or stand-ins for them in a process that only plans.

The command line builds every method once, without memory, to see whether it takes its arguments; the trials run in processes of their
own. It needs Lightning for the names of base classes alone, and importing it takes twice as long as importing torch. So it says
``machine.plan_only()`` before anything heavy is imported, and these classes stand in there. A method whose constructor needs more of
Lightning than they have raises an AttributeError, say; ``experiment.resolve.try_out`` then asks for the real classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmbench import machine

__all__ = ["LightningDataModule", "LightningModule", "Logger"]

if TYPE_CHECKING or not machine.plans_only():
    from pytorch_lightning import LightningDataModule, LightningModule
    from pytorch_lightning.loggers import Logger
else:
    import torch
    from torch import nn

    # ``__module__`` is the original's: where a class comes from is part of what is known of a trial's code.

    class LightningModule(nn.Module):
        """Of ``pytorch_lightning``."""

        __module__ = "pytorch_lightning.core.module"

        def save_hyperparameters(self, *args: Any, **kwargs: Any) -> None:
            """Nothing: no checkpoint will be written."""

        def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            """Nothing, unless a method has something of its own to read."""

        @property
        def device(self) -> torch.device:
            """Where the module is."""
            return next(self.parameters()).device

    class LightningDataModule:
        """Of ``pytorch_lightning``."""

        __module__ = "pytorch_lightning.core.datamodule"

    class Logger:
        """Of ``pytorch_lightning.loggers``."""

        __module__ = "pytorch_lightning.loggers.logger"
