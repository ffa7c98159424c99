"""A report as a run of W&B: what it logs, what happens where that fails, and the workspace that shows it."""

from __future__ import annotations

import inspect
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
import wandb

from mmbench import tracked_report
from mmbench.cli import main
from mmbench.dashboard import FIGURES, TABLES, save, specification
from mmbench.errors import RunnerError, UsageError
from mmbench.experiment.plan import Experiment, load
from mmbench.report.figures import gallery
from mmbench.tracked_report import Report, ReportTracker, curve_points, track, typed
from mmbench.tracking import WandbSettings, accuracy_key
from wandb_file import metrics

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of W&B's packages

RATES = """dataset,protocol,evaluation,mask,training,method,rate,mean
tiny,clean,matched,anchor,at each rate,mla,0.0,50.5
tiny,clean,matched,anchor,at each rate,"MLA, v1.5",0.0,
tiny,clean,matched,anchor,at each rate,mla,0.5,40.25
tiny,clean,robustness,anchor,anchor 0.5,mla,0.5,30.0
"""
TABLE = "method,mean,n,track\nmla,50.5,3,\nsum,,0,\n"


class RecordedRun:
    """Stands in for a run of W&B."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        self.arguments = arguments
        self.logged: list[dict[str, Any]] = []
        self.metrics: list[tuple[str, str | None]] = []
        self.exit_code: int | None = None

    def define_metric(self, name: str, step_metric: str | None = None) -> None:
        self.metrics.append((name, step_metric))

    def log(self, values: dict[str, Any]) -> None:
        self.logged.append(values)

    def finish(self, exit_code: int) -> None:
        self.exit_code = exit_code


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[RecordedRun]:
    """The runs that ``wandb.init`` started."""
    started: list[RecordedRun] = []

    def init(**arguments: Any) -> RecordedRun:
        started.append(RecordedRun(arguments))
        return started[-1]

    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setattr(wandb.Table, "MAX_ROWS", wandb.Table.MAX_ROWS)
    return started


def written(folder: Path) -> Report:
    """A report's files, and what is to be logged of them."""
    from matplotlib.figure import Figure

    (folder / "table.csv").write_text(TABLE)
    (folder / "rates.csv").write_text(RATES)
    (folder / "areas.csv").write_text("dataset,area\n")
    (folder / "table.html").write_text("<p>")
    Figure(figsize=(1, 1)).savefig(folder / "figure.png")
    names = ("table.csv", "rates.csv", "areas.csv", "table.html", "figure.png")
    settings = WandbSettings(mode="offline", group="table9", folder=str(folder / "wandb"))
    return Report(experiment="table9", title="Table 9", files=[folder / name for name in names], settings=settings)


def test_a_report_is_a_run_beside_its_trials_whose_name_stays(runs: list[RecordedRun], tmp_path: Path) -> None:
    for _ in range(2):
        report = written(tmp_path)
        ReportTracker(report).log(report.files)
    told = runs[0].arguments
    assert (told["job_type"], told["group"], told["project"]) == ("report", "table9", "mmbench")
    assert told["name"] == "table9 report"
    assert told["config"] == {"experiment": "table9", "title": "Table 9"}
    assert runs[1].arguments["id"] == told["id"], "a later report takes its place"
    assert re.fullmatch(r"report-[0-9a-f]{16}", told["id"])
    other = ReportTracker(report.model_copy(update={"experiment": "table10"}))
    assert other._run.arguments["id"] != told["id"]
    assert runs[0].exit_code == 0


def test_it_logs_tables_figures_and_curves_by_rate(runs: list[RecordedRun], tmp_path: Path) -> None:
    report = written(tmp_path)
    ReportTracker(report).log(report.files)
    *points, shown = runs[0].logged
    assert set(shown) == {"table", "rates", "areas", "figures/figure"}
    assert shown["table"].columns == ["method", "mean", "n", "track"]
    assert shown["table"].data == [["mla", 50.5, 3.0, None], ["sum", None, 0.0, None]]
    assert shown["areas"].data == []
    assert isinstance(shown["figures/figure"], wandb.Image)
    assert points == [
        {"missing_rate": 0.0, "rates/tiny/clean/matched/at each rate/anchor/mla": 50.5},
        {
            "missing_rate": 0.5,
            "rates/tiny/clean/matched/at each rate/anchor/mla": 40.25,
            "rates/tiny/clean/robustness/anchor 0,5/anchor/mla": 30.0,
        },
    ]
    assert ("rates/*", "missing_rate") in runs[0].metrics


def test_columns_of_numbers_are_numbers() -> None:
    assert typed(["1", "", "2.5"]) == [1.0, None, 2.5]
    assert typed(["1", "", "a"]) == ["1", None, "a"]


def test_a_failure_is_printed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def init(**arguments: Any) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr(wandb, "init", init)
    report = written(tmp_path)
    ReportTracker(report).log(report.files)
    assert capsys.readouterr().out == "W&B: ConnectionError: no network; the report is written all the same\n"


def test_a_file_that_cannot_be_read_is_printed(
    runs: list[RecordedRun], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = written(tmp_path)
    (tmp_path / "table.csv").unlink()
    ReportTracker(report).log(report.files)
    assert "table.csv'; the report is written all the same" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("program", "words"),
    [("import time; time.sleep(60)", "not finished after 1 s"), ("import os; os._exit(7)", "ended with exit code 7")],
    ids=["hangs", "dies"],
)
def test_a_process_that_hangs_or_dies_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], program: str, words: str
) -> None:
    monkeypatch.setattr(tracked_report, "COMMAND", ("-c", program))
    monkeypatch.setattr(tracked_report, "MOST_SECONDS", 1)
    track(written(tmp_path))
    assert f"W&B: the run of the report: {words}; the report is written all the same" in capsys.readouterr().err


def test_an_offline_run_is_on_the_disk(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Of W&B itself, from the process that logs reports."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    report = written(tmp_path)
    track(report)
    told = capfd.readouterr().err
    assert "all the same" not in told, "nothing went wrong"
    assert f"`wandb sync {tmp_path}/wandb/wandb/offline-run-*`" in told
    (run,) = (tmp_path / "wandb" / "wandb").glob("offline-run-*-report-*")
    wanted = {"rates/tiny/clean/matched/at each rate/anchor/mla", "missing_rate", "table._type", "figures/figure._type"}
    deadline = time.monotonic() + 30  # W&B's own process writes the file; on a busy machine it is behind
    while not wanted <= (found := metrics(next(run.glob("*.wandb"))))[1]:
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
    assert found[0] == "table9 report"


# The workspace

GRID = """
title: "Rates"
datasets:
  openclipart_features:
    folds: 2
    recipe: {epochs: 2}
  "clip. art":
    dataset: openclipart_features
    modalities: [title, tags]
    recipe: {epochs: 2}
methods: {late_fusion: , "MLA, v1.5": {method: mla}}
missing: {complete: , matched: {kind: anchor, rate: [0.5]}}
seeds: [0]
"""


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    path = tmp_path_factory.mktemp("grid") / "grid.yaml"
    path.write_text(GRID)
    return load(path)


@pytest.fixture(scope="module")
def sections(experiment: Experiment) -> dict[str, list[dict[str, Any]]]:
    pytest.importorskip("wandb_workspaces", reason="the extra wandb is not installed")
    spec = json.loads(specification(experiment))["spec"]["section"]
    return {found["name"]: found["panels"] for found in spec["panelBankConfig"]["sections"]}


def test_a_workspace_shows_the_experiments_runs_alone(experiment: Experiment) -> None:
    pytest.importorskip("wandb_workspaces", reason="the extra wandb is not installed")
    found = json.loads(specification(experiment))
    assert (found["project"], found["displayName"]) == ("mmbench", "mmbench grid")
    (runset,) = found["spec"]["section"]["runSets"]
    assert '"group"' in json.dumps(runset["filters"])
    assert '"grid"' in json.dumps(runset["filters"])


def test_every_table_has_bars_by_method(sections: dict[str, list[dict[str, Any]]], experiment: Experiment) -> None:
    bars = sections["Accuracy with every modality, in percent"]
    metrics = [panel["config"]["metrics"] for panel in bars]
    logged = [accuracy_key(experiment.labels_of(t).dataset, t.protocol, t.training) for t in experiment.trials]
    assert metrics == [[key] for key in dict.fromkeys(logged)]
    assert metrics[0] == ["accuracy/openclipart_features/clean/complete"]
    assert metrics[3] == ["accuracy/clip, art/clean/anchor 0,5"]
    assert {panel["config"]["groupBy"] for panel in bars} == {"method_label.value"}


def test_curves_by_missing_rate_are_those_that_the_report_logs(sections: dict[str, list[dict[str, Any]]]) -> None:
    lines = sections["Accuracy by missing rate, in percent"]
    assert len(lines) == 4, "two data sets, trained at each rate and on complete data"
    row = {"protocol": "clean", "mask": "anchor", "rate": "0.5", "mean": "40", "method": "MLA, v1.5"}
    logged = [
        key
        for dataset in ("openclipart_features", "clip. art")
        for evaluation, training in (("matched", "at each rate"), ("robustness", "complete"))
        for key in curve_points([{**row, "dataset": dataset, "evaluation": evaluation, "training": training}])[0]
        if key != "missing_rate"
    ]
    for panel, key in zip(lines, logged, strict=True):
        assert panel["config"]["xAxis"] == "missing_rate"
        assert re.fullmatch(panel["config"]["metricRegex"], key)


def test_an_experiment_without_rates_has_no_curves_of_them(tmp_path: Path) -> None:
    pytest.importorskip("wandb_workspaces", reason="the extra wandb is not installed")
    path = tmp_path / "plain.yaml"
    path.write_text(GRID.replace("missing: {complete: , matched: {kind: anchor, rate: [0.5]}}", ""))
    assert "rates/" not in specification(load(path))


def test_curves_by_epoch_have_the_names_that_trials_log(sections: dict[str, list[dict[str, Any]]]) -> None:
    """``test_tracking`` holds what a trial logs against the same names."""
    lines = sections["By epoch"]
    metrics = [metric for panel in lines for metric in panel["config"]["metrics"]]
    gradients = [f"gradient/{m}{more}" for m in ("image", "title", "tags") for more in ("", "/modulated")]
    assert metrics == ["train/loss", "validation/loss", "validation/accuracy", "train/lr", *gradients]
    assert {panel["config"]["xAxis"] for panel in lines} == {"epoch"}
    assert {panel["config"]["groupBy"] for panel in lines} == {"row.value"}


def test_the_reports_tables_and_figures_have_panels(sections: dict[str, list[dict[str, Any]]]) -> None:
    *tables, figures = sections["Report: tables and figures"]
    assert len(tables) == len(TABLES)
    for panel, name in zip(tables, TABLES, strict=True):
        assert f'"{name}"' in json.dumps(panel)
    assert figures["config"]["mediaKeys"] == [f"figures/{name}" for name in FIGURES]


def test_every_figure_that_a_report_may_have_is_in_the_workspace() -> None:
    drawn = set(
        re.findall(r'^ +(?:yield(?: \()?\s+|name = .* else )"([a-z-]+)"', inspect.getsource(gallery), re.MULTILINE)
    )
    assert {"pairs", "dropout", "gradients"} <= drawn
    assert drawn - {"matched"} == set(FIGURES), "matched is drawn as the main figure"


@pytest.mark.parametrize("options", [[], ["--print"]], ids=["saved", "printed"])
def test_the_command_prints_without_a_login_and_needs_one_to_save(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    pytest.importorskip("wandb_workspaces", reason="the extra wandb is not installed")
    monkeypatch.setattr("mmbench.dashboard.usable_mode", lambda mode: ("offline", "W&B: no login found; runs are kept"))
    path = tmp_path / "grid.yaml"
    path.write_text(GRID)
    code, told = main(["dashboard", str(path), *options]), capsys.readouterr()
    if options:
        assert code == 0
        assert json.loads(told.out)["displayName"] == "mmbench grid"
    else:
        assert code == 2
        assert told.out == ""
        for words in ("logged in: `wandb login`", "--print shows it without", "(no login found)"):
            assert words in told.err


def test_a_server_that_does_not_take_it_is_told(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb_workspaces", reason="the extra wandb is not installed")

    def gone(timeout: float) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr("mmbench.dashboard.usable_mode", lambda mode: ("online", ""))
    monkeypatch.setattr(wandb, "Api", gone)
    with pytest.raises(
        RunnerError, match="did not take the workspace of project 'mmbench': ConnectionError: no network"
    ):
        save(experiment)


def test_without_the_package_it_says_what_to_install(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "wandb_workspaces.workspaces", None)
    with pytest.raises(UsageError, match=r"pip install 'mmbench\[wandb\]'"):
        specification(experiment)
