"""Where the metrics of an epoch go: the trial's record, and Weights & Biases if asked for."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from mmbench.errors import StoreError
from mmbench.files import check_writable
from mmbench.lightning import Logger

if TYPE_CHECKING:
    from mmbench.record import Record
    from mmbench.trial import Trial

WandbMode = Literal["off", "offline", "online"]

START_SECONDS = 30
"""How long a run that is to be online tries to reach the server."""

FINISH_SECONDS = 120
"""How long a trial that is done waits for its upload; the network may be gone."""

FORGET_SECONDS = 10
"""How long W&B gets to end a run that could not start."""


class WandbSettings(BaseModel):
    """Where runs go in Weights & Biases."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: WandbMode = "off"
    project: str = Field(default_factory=lambda: os.environ.get("WANDB_PROJECT", "mmbench"))
    group: str = ""
    folder: str = "."


class WandbLogger(Logger):
    """A run of Weights & Biases: curves while the trial runs, the table at its end.

    Whatever goes wrong here is printed to the trial's log and ends the tracking, never the trial. The run's id is the trial's key,
    so that a trial that is run again continues the same run.
    """

    def __init__(self, trial: Trial, settings: WandbSettings, environment: dict[str, Any]) -> None:
        super().__init__()
        self._run: Any = None
        self._folder = Path(settings.folder)
        self._guard(lambda: self._start(trial, settings, environment))
        if self._run is None and settings.mode == "online":
            self._forget()
            offline = settings.model_copy(update={"mode": "offline"})
            self._guard(lambda: self._start(trial, offline, environment))

    def _forget(self) -> None:
        """Let go of a run that could not start: W&B holds on to its id, and would refuse the offline run for it."""
        import wandb

        worker = Thread(target=lambda: self._guard(wandb.teardown), daemon=True)  # it may wait for the network
        worker.start()
        worker.join(FORGET_SECONDS)

    def _start(self, trial: Trial, settings: WandbSettings, environment: dict[str, Any]) -> None:
        check_writable(Path(settings.folder))  # W&B itself says nothing of a full disk
        import wandb

        self._run = wandb.init(
            project=settings.project,
            group=settings.group,
            job_type=trial.dataset,
            name=f"{trial.method}/{trial.seed}" + ("" if trial.fold is None else f"/{trial.fold}"),
            id=trial.key,
            resume="allow",
            mode="online" if settings.mode == "online" else "offline",
            dir=settings.folder,
            tags=[trial.protocol, *(["tuning"] if trial.tuning else [])],
            config={**trial.model_dump(mode="json"), "key": trial.key, **environment},
            settings=wandb.Settings(silent=True, console="off", init_timeout=START_SECONDS, x_disable_stats=True),
        )
        self._run.define_metric("epoch")
        self._run.define_metric("*", step_metric="epoch")  # a run that starts anew must not be refused for going back

    def _guard(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # a tracker's failure of any kind is not the trial's
            print(f"W&B: {type(error).__name__}: {error}; the trial goes on", flush=True)
            self._run = None

    @property
    def name(self) -> str:
        """Lightning asks for one."""
        return "wandb"

    @property
    def version(self) -> str:
        """Lightning asks for one."""
        return ""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run's config holds the trial."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Log an epoch's metrics; accuracies in percent, as those of the test are."""
        percent = {name: 100 * value if "/accuracy" in name else value for name, value in metrics.items()}
        if self._run is not None:
            self._guard(lambda: self._run.log(percent))

    def finish(self, record: Record) -> None:
        """Log the table of patterns × metrics, if the trial is done, and end the run."""
        if self._run is None:
            return
        worker = Thread(target=lambda: self._guard(lambda: self._finish(record)), daemon=True)
        worker.start()
        worker.join(FINISH_SECONDS)
        if worker.is_alive():
            print(f"W&B: not finished after {FINISH_SECONDS} s; the trial goes on", flush=True)

    def _finish(self, record: Record) -> None:
        import wandb

        if record.metrics:
            names = list(next(iter(record.metrics.values())))
            rows = [[pattern, *(values[n] for n in names)] for pattern, values in record.metrics.items()]
            self._run.log({"test": wandb.Table(columns=["pattern", *names], data=rows)})
            for pattern, values in record.metrics.items():
                for name, value in values.items():
                    self._run.summary[f"test/{name}/{pattern}"] = value
        if record.status == "done":
            self._run.summary["best_epoch"] = record.best_epoch
        self._run.finish(exit_code=0 if record.status == "done" else 1)
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
