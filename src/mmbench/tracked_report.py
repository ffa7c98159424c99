"""An experiment's report as a run of Weights & Biases, beside those of its trials.

It is logged by a process of its own, that can be ended: `python -m mmbench.tracked_report`, which reads the report's files.
"""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from mmbench.tracking import FINISH_SECONDS, FORGET_SECONDS, START_SECONDS, Tracker, WandbSettings, in_key

MOST_SECONDS: float = START_SECONDS + FORGET_SECONDS + FINISH_SECONDS + 60
"""After these the process is ended; it has limits of its own, which are shorter."""
COMMAND = ("-m", "mmbench.tracked_report")
STDERR = 2
MOST_ROWS = 200_000
"""Rows that W&B takes as a table."""

RATE = "missing_rate"
"""What curves by missing rate are drawn over."""


class Report(BaseModel):
    """What to log.

    Attributes:
        experiment: its name.
        title: what it is of.
        files: of the report: ``.csv`` files become tables, ``.png`` files images.
        settings: where to.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    experiment: str
    title: str
    files: list[Path]
    settings: WandbSettings


class ReportTracker(Tracker):
    """The run of a report, named by the experiment, so that a later report of it takes its place.

    Tables have the names of the report's files: ``table``, ``comparisons``, ``diagnostics`` and so on, with accuracies and differences
    in percent; images are in ``figures/``. Curves by missing rate are lines as well, over the metric ``missing_rate``.
    """

    GOES_ON = "the report is written all the same"

    def __init__(self, report: Report) -> None:
        super().__init__(
            report.settings,
            job_type="report",
            name=f"{report.experiment} report",
            id=f"report-{sha256(report.experiment.encode()).hexdigest()[:16]}",
            tags=["report"],
            config={"experiment": report.experiment, "title": report.title},
        )

    def _describe(self) -> None:
        self._run.define_metric(RATE)
        self._run.define_metric("rates/*", step_metric=RATE)

    def log(self, files: Sequence[Path]) -> None:
        """Log tables, images and curves, and end the run."""
        self._end(lambda: self._log(files), exit_code=0)

    def _log(self, files: Sequence[Path]) -> None:
        import wandb

        wandb.Table.MAX_ROWS = MOST_ROWS
        shown: dict[str, Any] = {}
        for path in files:
            if path.suffix == ".csv":
                with path.open(newline="") as file:
                    header, *rows = csv.reader(file)
                columns = [typed(column) for column in zip(*rows, strict=True)] if rows else []
                shown[path.stem] = wandb.Table(
                    columns=[*header], data=[list(row) for row in zip(*columns, strict=True)]
                )
                if path.stem == "rates":
                    for point in curve_points([dict(zip(header, row, strict=True)) for row in rows]):
                        self._run.log(point)
            elif path.suffix == ".png":
                shown[f"figures/{path.stem}"] = wandb.Image(str(path))
        self._run.log(shown)


def typed(column: Sequence[str]) -> list[Any]:
    """A column of a CSV file as numbers, if all of it is numbers, without those that are missing; else as it is."""
    try:
        return [float(text) if text else None for text in column]
    except ValueError:
        return [text or None for text in column]


def curve_points(rows: Sequence[dict[str, str]]) -> list[dict[str, float]]:
    """Curves by missing rate: a point a rate, with the accuracy of each method, trained in each way, in percent."""
    points: dict[float, dict[str, float]] = {}
    for row in rows:
        if row["mean"]:
            rate = float(row["rate"])
            name = rate_key(row["dataset"], row["protocol"], row["evaluation"], row["training"])
            key = f"{name}/{in_key(row['mask'])}/{in_key(row['method'])}"
            points.setdefault(rate, {RATE: rate})[key] = float(row["mean"])
    return [points[rate] for rate in sorted(points)]


def rate_key(dataset: str, protocol: str, evaluation: str, training: str) -> str:
    """What the names of curves by missing rate begin with."""
    return "/".join(["rates", *map(in_key, (dataset, protocol, evaluation, training))])


def track(report: Report) -> None:
    """Log a report from a process of its own. Whatever goes wrong is printed, and nothing fails for it."""
    command = [sys.executable, *COMMAND]
    try:
        ended = subprocess.run(command, input=report.model_dump_json().encode(), timeout=MOST_SECONDS, stdout=STDERR)
        problem = f"ended with exit code {ended.returncode}" if ended.returncode else ""
    except subprocess.TimeoutExpired:
        problem = f"not finished after {MOST_SECONDS} s"
    except OSError as error:
        problem = str(error)
    if problem:
        print(f"W&B: the run of the report: {problem}; {ReportTracker.GOES_ON}", file=sys.stderr)
    if report.settings.mode == "offline":
        folder = report.settings.folder
        print(f"W&B: runs are in {folder}; `wandb sync {folder}/wandb/offline-run-*` uploads them", file=sys.stderr)


def main() -> None:
    """Log the report that standard input describes."""
    report = Report.model_validate_json(sys.stdin.buffer.read())
    ReportTracker(report).log(report.files)


if __name__ == "__main__":
    main()
