"""Weights & Biases: where runs go, and a run whose failure is printed and is never that of what it tracks."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from mmbench.errors import StoreError
from mmbench.files import check_writable

WandbMode = Literal["off", "offline", "online"]

START_SECONDS = 30
"""How long a run that is to be online tries to reach the server."""

FINISH_SECONDS = 120
"""How long a trial that is done waits for its upload; the network may be gone."""

FORGET_SECONDS = 10
"""How long W&B gets to end a run that could not start."""


class WandbSettings(BaseModel):
    """Where runs go in Weights & Biases.

    Attributes:
        mode: whether and where they are kept.
        project: the project there.
        group: the experiment.
        folder: where their files are.
        dataset: what the experiment calls the trial's data set; empty: the data set's own name.
        method: what it calls the trial's method: a variant, a draw, or what was chosen of these.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: WandbMode = "off"
    project: str = Field(default_factory=lambda: os.environ.get("WANDB_PROJECT", "mmbench"))
    group: str = ""
    folder: str = "."
    dataset: str = ""
    method: str = ""

    def labelled(self, dataset: str, method: str) -> WandbSettings:
        """The same, with an experiment's names for a trial's data set and method."""
        return self.model_copy(update={"dataset": dataset, "method": method})


def in_key(text: str) -> str:
    """A name as a part of a metric's name: W&B takes what stands before a dot for a mapping.

    >>> in_key("anchor 0.5")
    'anchor 0,5'
    """
    return text.replace(".", ",").replace("/", "|")


def accuracy_key(dataset: str, protocol: str, training: str) -> str:
    """The name of a trial's accuracy with every modality; only trials whose methods are to be compared share it."""
    return "/".join(["accuracy", *map(in_key, (dataset, protocol, training))])


class Tracker:
    """A run of W&B that may fail at any moment: then what is wrong is printed, and nothing is sent any more."""

    GOES_ON: ClassVar[str]
    """What to say besides: that nothing else fails for it."""

    def __init__(self, settings: WandbSettings, **arguments: Any) -> None:
        super().__init__()
        self._run: Any = None
        self._folder = Path(settings.folder)
        self._guard(lambda: self._start(settings, arguments))
        if self._run is None and settings.mode == "online":
            self._forget()
            offline = settings.model_copy(update={"mode": "offline"})
            self._guard(lambda: self._start(offline, arguments))

    def _forget(self) -> None:
        """Let go of a run that could not start: W&B holds on to its id, and would refuse the offline run for it."""
        import wandb

        worker = Thread(target=lambda: self._guard(wandb.teardown), daemon=True)  # it may wait for the network
        worker.start()
        worker.join(FORGET_SECONDS)

    def _start(self, settings: WandbSettings, arguments: dict[str, Any]) -> None:
        check_writable(Path(settings.folder))  # W&B itself says nothing of a full disk
        import wandb

        self._run = wandb.init(
            project=settings.project,
            group=settings.group,
            mode="online" if settings.mode == "online" else "offline",
            dir=settings.folder,
            settings=wandb.Settings(silent=True, console="off", init_timeout=START_SECONDS, x_disable_stats=True),
            **arguments,
        )
        self._describe()

    def _describe(self) -> None:
        """Say of a run that has started what its metrics are drawn over."""

    def _guard(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # of any kind
            print(f"W&B: {type(error).__name__}: {error}; {self.GOES_ON}", flush=True)
            self._run = None

    def _end(self, last: Callable[[], None], exit_code: int) -> None:
        """Log the last things and end the run; after a while, without waiting for it any longer."""
        if self._run is None:
            return
        worker = Thread(target=lambda: self._guard(lambda: self._finish(last, exit_code)), daemon=True)
        worker.start()
        worker.join(FINISH_SECONDS)
        if worker.is_alive():
            print(f"W&B: not finished after {FINISH_SECONDS} s; {self.GOES_ON}", flush=True)

    def _finish(self, last: Callable[[], None], exit_code: int) -> None:
        last()
        self._run.finish(exit_code=exit_code)
        self._run = None
        try:
            check_writable(self._folder)
        except StoreError as error:
            print(f"W&B: {error}; what is kept of this run may not be whole", flush=True)


def usable_mode(asked: WandbMode) -> tuple[WandbMode, str]:
    """The mode that is possible here, and what to tell the user if it is not the one asked for."""
    if asked != "online":
        return asked, ""
    import wandb

    try:
        if wandb.login(prompt=False, verify=False):
            return "online", ""
        reason = "no login found"
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
    return "offline", f"W&B: {reason}; runs are kept offline. To upload them: `wandb login`, then `wandb sync`"
