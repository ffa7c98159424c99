"""A trial as a run of Weights & Biases."""

from __future__ import annotations

from typing import Any

from mmbench.lightning import Logger
from mmbench.protocol import SELECTION_METRIC
from mmbench.record import Record
from mmbench.tracking import Tracker, WandbSettings, accuracy_key
from mmbench.trial import Trial

LONGEST_NAME = 128
"""Characters that W&B takes as a run's name."""


class WandbLogger(Tracker, Logger):
    """The run of a trial: curves while it runs, the table at its end. All accuracies are in percent.

    Its id is the trial's key, so that a trial that is run again continues the same run.
    """

    GOES_ON = "the trial goes on"

    def __init__(self, trial: Trial, settings: WandbSettings, environment: dict[str, Any]) -> None:
        self._dataset, self._method = settings.dataset or trial.dataset, settings.method or trial.method
        training = [trial.training] if trial.missing else []
        labels = {
            "dataset_label": self._dataset,
            "method_label": self._method,
            "training": trial.training,
            "row": " ".join(
                [self._dataset, trial.protocol, *training, self._method]
            ),  # of a table, with all its seeds and folds
        }
        super().__init__(
            settings,
            job_type=self._dataset,
            name=self._name(trial),
            id=trial.key,
            resume="allow",
            tags=[trial.protocol, *(["tuning"] if trial.tuning else [])],
            config={**trial.model_dump(mode="json"), "key": trial.key, **labels, **environment},
        )

    def _name(self, trial: Trial) -> str:
        """``openclipart/clean/mla/fold 0/seed 3``; the end of it, if it is too long."""
        training = [trial.training] if trial.missing else []
        fold = [] if trial.fold is None else [f"fold {trial.fold}"]
        name = "/".join([self._dataset, trial.protocol, *training, self._method, *fold, f"seed {trial.seed}"])
        return name[-LONGEST_NAME:]

    def _describe(self) -> None:
        self._run.define_metric("epoch")
        self._run.define_metric("*", step_metric="epoch")  # a run that starts anew must not be refused for going back

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
        """Log an epoch's metrics as they are named, its accuracies in percent."""
        percent = {n: 100 * value if n.startswith(SELECTION_METRIC) else value for n, value in metrics.items()}
        if self._run is not None:
            self._guard(lambda: self._run.log(percent))

    def finish(self, record: Record) -> None:
        """Log the table of patterns × metrics, if the trial is done, and end the run."""
        self._end(lambda: self._log_table(record), exit_code=0 if record.status == "done" else 1)

    def _log_table(self, record: Record) -> None:
        import wandb

        if record.metrics:
            names = list(next(iter(record.metrics.values())))
            rows = [[pattern, *(values[n] for n in names)] for pattern, values in record.metrics.items()]
            self._run.log({"test": wandb.Table(columns=["pattern", *names], data=rows)})
            for pattern, values in record.metrics.items():
                for name, value in values.items():
                    self._run.summary[f"test/{name}/{pattern}"] = value
            key = accuracy_key(self._dataset, record.trial.protocol, record.trial.training)
            self._run.summary[key] = rows[-1][1 + names.index("accuracy")]
        if record.status == "done":
            self._run.summary["best_epoch"] = record.best_epoch
