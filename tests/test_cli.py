"""The command line through its real entry point, in folders of its own, on the plugin's tiny data set.

A run costs some seconds of imports, so the runs are made once, in order, by the fixtures ``story`` and ``ended``; the tests
look at what they left behind.
"""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from mmbench.cli import main, parser
from mmbench.encoders.pretrained import weights_folder
from mmbench.files import data_root
from mmbench.places import experiment_path
from mmbench.trial import Trial

TESTS = Path(__file__).parent
GOLDEN = TESTS / "report" / "golden"
COMMAND = [sys.executable, "-m", "mmbench"]

GRID = """\
title: a tiny grid
datasets:
  tiny:
    recipe: {epochs: 2, lr: 0.1, batch_size: 16}
methods: {tiny_good: , tiny_raises: , sum: }
seeds: [0, 1]
"""
SLEEPY = """\
title: a grid that takes its time
datasets:
  tiny:
    recipe: {epochs: 2, lr: 0.1, batch_size: 16}
methods: {tiny_good: , tiny_sleeps: , sum: }
seeds: [0, 1]
"""


def environment(**changes: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MMBENCH", "WANDB"))}
    return {**kept, "PYTHONPATH": str(TESTS / "plugin"), **changes}


def mmbench(folder: Path, *arguments: str, command: list[str] = COMMAND) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*command, *arguments], cwd=folder, env=environment(), capture_output=True, text=True, timeout=120
    )


def workplace(folder: Path, **experiments: str) -> Path:
    """A folder with experiments, as a user's."""
    (folder / "experiments").mkdir()
    for name, text in experiments.items():
        (folder / "experiments" / f"{name}.yaml").write_text(text)
    return folder


# Quick answers


def test_help_answers_in_well_under_half_a_second(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    answer = mmbench(tmp_path, "--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert answer.returncode == 0
    for name in ("run", "status", "report", "check", "list", "show"):
        assert re.search(rf"^ +{name} ", answer.stdout, re.MULTILINE), name
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.4, "seconds of processor time"


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["list", "methods"], ["status"]], ids=" ".join)
def test_quick_commands_import_nothing_heavy(tmp_path: Path, arguments: list[str]) -> None:
    traced = [sys.executable, "-X", "importtime", "-m", "mmbench"]
    answer = mmbench(tmp_path, *arguments, command=traced)
    assert answer.returncode == 0
    imported = {line.rsplit("|", 1)[1].strip().split(".")[0] for line in answer.stderr.splitlines() if "|" in line}
    assert "argparse" in imported, "the trace is read"
    assert not imported & {"torch", "pandas", "pytorch_lightning", "matplotlib", "scipy", "wandb", "sklearn"}


@pytest.mark.parametrize(
    ("settings", "absent"),
    [
        (["methods=3"], ("torch", "pytorch_lightning", "torchmetrics")),
        (["methods.summ="], ("pytorch_lightning", "torchmetrics", "torch._dynamo")),
        (["seeds=[0, 0]"], ("pytorch_lightning", "torchmetrics", "torch._dynamo")),
        (["methods.sum.nonsense=1"], ("pytorch_lightning", "torchmetrics", "torch._dynamo")),
        (["datasets.tiny.recipe.epochs=3"], ("pytorch_lightning", "torchmetrics", "torch._dynamo", "sympy")),
    ],
    ids=str,
)
def test_planning_imports_only_what_it_needs(tmp_path: Path, settings: list[str], absent: tuple[str, ...]) -> None:
    workplace(tmp_path, grid=GRID)
    traced = [sys.executable, "-X", "importtime", "-m", "mmbench"]
    answer = mmbench(tmp_path, "run", "grid", "--dry-run", "--set", *settings, command=traced)
    assert "Traceback" not in answer.stderr
    imported = {line.rsplit("|", 1)[1].strip() for line in answer.stderr.splitlines() if "|" in line}
    assert "mmbench.experiment.names" in imported, "the trace is read"
    assert not imported.intersection(absent)


def test_a_method_whose_constructor_needs_lightning_is_planned_with_it(tmp_path: Path) -> None:
    workplace(tmp_path, grid=GRID.replace("tiny_good: , tiny_raises: , sum:", "tiny_lightning:"))
    answer = mmbench(tmp_path, "run", "grid", "--dry-run")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout.splitlines()[-1] == "2 trials, 0 done, 2 to do"


def test_the_console_script_is_the_same_command(tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("mmbench")
    if not script.exists():
        pytest.skip("the package is not installed")
    answer = mmbench(tmp_path, "list", "methods", command=[str(script)])
    assert answer.returncode == 0
    assert {"mla", "late_fusion", "tiny_good"} <= set(answer.stdout.split())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["runn"], "runn"),
        (["data"], "COMMAND"),
        (["run"], "EXPERIMENT"),
        (["run", "table1", "--job", "x"], "x"),
        (["run", "table1", "--jobs", "0"], "at least 1"),
        (["run", "table1", "--wandb", "perhaps"], "perhaps"),
        (["list", "method"], "method"),
        (["--nonsense", "list", "methods"], "--nonsense"),
    ],
    ids=str,
)
def test_a_mistake_in_the_command_exits_with_2(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert expected in capsys.readouterr().err


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workplace that is the current folder; for commands that may run in this process."""
    monkeypatch.chdir(workplace(tmp_path, grid=GRID))
    monkeypatch.delenv("MMBENCH_RESULTS", raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "expected"),
    [("gird", "did you mean 'grid'?"), ("other.yaml", "no such experiment file: other.yaml"), ("a/b", "a/b")],
)
def test_an_unknown_experiment_exits_with_2(
    here: Path, name: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", name]) == 2
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (["rnu", "table1"], "mmbench: rnu: did you mean 'run'?\nexamples: mmbench --help\n"),
        (["data", "inof"], "mmbench data: inof: did you mean 'info'?\nexamples: mmbench data --help\n"),
        (
            ["run", "table1", "--dryrun"],
            "mmbench run: --dryrun: no such option; did you mean '--dry-run'?\nexamples: mmbench run --help\n",
        ),
        (["run", "table1", "too"], "mmbench run: too: not expected here\nexamples: mmbench run --help\n"),
        (
            ["run", "table1", "--backend", "slrum"],
            "mmbench run: --backend slrum: did you mean 'slurm'?\nexamples: mmbench run --help\n",
        ),
        (
            ["run"],
            "mmbench run: the following arguments are required: EXPERIMENT; `mmbench list experiments` names those there are\n"
            "examples: mmbench run --help\n",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_typed_wrong_is_answered_with_what_was_meant(
    typed: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(typed)
    assert (ended.value.code, capsys.readouterr().err) == (2, expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("title: [", "not valid YAML"), ("- a", "mapping"), ("", "it is empty"), ("a: 1\na: 2", "given twice")],
)
@pytest.mark.parametrize("command", [["run", "--dry-run"], ["report"], ["status"]], ids=" ".join)
def test_a_broken_file_exits_with_2(
    here: Path, command: list[str], text: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "experiments" / "grid.yaml").write_text(text)
    assert main([*command, "grid"]) == 2
    assert expected in capsys.readouterr().err
    assert not (here / "results").exists()


def test_list_names_what_there_is(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "methods"]) == 0
    assert {"sum", "concat", "late_fusion", "film", "bigated", "ogm_ge", "qmf", "mla"} <= set(
        capsys.readouterr().out.split()
    )
    assert main(["list", "datasets"]) == 0
    assert "openclipart" in capsys.readouterr().out.split()
    assert main(["list", "encoders"]) == 0
    assert {"small_cnn", "hashed_text"} <= set(capsys.readouterr().out.split())
    assert main(["list", "experiments"]) == 0
    assert re.search(
        r"^grid +experiments/ +a tiny grid \[hides the one of mmbench\]$", capsys.readouterr().out, re.MULTILINE
    )


@pytest.mark.parametrize("text", ["title: [", "title: \x07", "a: 2026-13-45"], ids=ascii)
def test_a_broken_experiment_does_not_keep_the_others_from_the_list(
    here: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Once: ``list experiments`` ended with PyYAML's traceback (cli.py, ``list_names``)."""
    (here / "experiments" / "broken.yaml").write_text(text)
    main(["list", "experiments"])
    assert "a tiny grid" in capsys.readouterr().out


def test_show_tells_settings_metrics_and_log(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(GOLDEN / "runs", here / "results" / "runs")
    key = sorted(p.name for p in (GOLDEN / "runs").iterdir())[0]
    (here / "results" / "runs" / key / "log.txt").write_text("what it printed\n")
    record = json.loads((GOLDEN / "runs" / key / "record.json").read_text())
    assert main(["show", key[:6]]) == 0
    shown = capsys.readouterr().out
    settings = yaml.safe_load(shown[: shown.index("\n\n")])
    assert settings["key"] == key
    assert settings["trial"] == Trial.model_validate(record["trial"]).model_dump(mode="json", exclude_none=True)
    accuracy = record["metrics"]["audio+video"]["accuracy"]
    assert re.search(rf"^audio\+video +accuracy +{accuracy:.2f}\b", shown, re.MULTILINE)
    assert "what it printed" in shown


def test_show_of_a_failed_trial_tells_why(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(GOLDEN / "runs", here / "results" / "runs")
    (failed,) = (p.parent.name for p in (GOLDEN / "runs").rglob("record.json") if '"failed"' in p.read_text())
    assert main(["show", failed]) == 0
    assert "exception: ValueError: 100 % of a_line" in capsys.readouterr().out


@pytest.mark.parametrize(("prefix", "expected"), [("", "8 trials"), ("zz", "no trial")])
def test_show_of_no_or_many_trials_exits_with_2(
    here: Path, prefix: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(GOLDEN / "runs", here / "results" / "runs")
    assert main(["show", prefix]) == 2
    assert expected in capsys.readouterr().err


def test_status_counts_and_names_what_failed_or_is_damaged(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(GOLDEN / "runs", here / "results" / "runs")
    damaged = next(p for p in (here / "results" / "runs").iterdir() if (p / "predictions.npz").exists())
    (damaged / "predictions.npz").write_bytes(b"")
    assert main(["status"]) == 1
    shown = capsys.readouterr().out
    assert "6 trials stale: made before code was recorded\n8 trials, 1 damaged, 1 failed, 6 stale" in shown
    assert "failed: crema_d clean sum seed 1" in shown
    assert f"damaged: results/runs/{damaged.name}/predictions.npz" in shown


def test_results_are_kept_where_the_user_says(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(GOLDEN / "runs", here / "elsewhere" / "runs")
    assert main(["--results", "elsewhere", "status"]) == 0
    assert "8 trials, 1 failed, 7 stale" in capsys.readouterr().out
    monkeypatch.setenv("MMBENCH_RESULTS", "elsewhere")
    assert main(["status"]) == 0
    assert "8 trials, 1 failed, 7 stale" in capsys.readouterr().out


@pytest.mark.parametrize("command", [["status"], ["report", "grid"], ["run", "grid", "--dry-run"]], ids=" ".join)
@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ("a_file", "a_file is a file; expected a folder"),
        ("a_file/below", "a_file is a file; expected a folder"),
        ("with_file", "with_file/runs is a file; expected a folder"),
        ("dangling", "dangling is a link to nowhere, which is not there"),
    ],
)
def test_a_results_folder_that_can_be_none_is_refused(
    here: Path, command: list[str], results: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "experiments" / "grid.yaml").write_text(
        "title: t\ndatasets: {openclipart: }\nmethods: {sum: }\nseeds: [0]\n"
    )
    (here / "a_file").touch()
    (here / "with_file").mkdir()
    (here / "with_file" / "runs").touch()
    (here / "dangling").symlink_to("nowhere")
    for arguments in ([*command, "--results", results], ["--results", results, *command]):
        assert main(arguments) == 2
        assert expected in capsys.readouterr().err


def test_a_tilde_is_the_home_folder_everywhere(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once: ``--data-dir=~/x`` decoded everything into a folder named ``~``."""
    home = here / "home"
    shutil.copytree(GOLDEN / "runs", home / "results" / "runs")
    (home / "grid.yaml").write_text("title: [")
    monkeypatch.setenv("HOME", str(home))
    (here / "~").mkdir()
    arguments = parser().parse_args(["status", "--results=~/results", "--data-dir", "$HOME/data"])
    assert (arguments.results, arguments.data_dir) == (home / "results", home / "data")
    monkeypatch.setenv("MMBENCH_RESULTS", "~/other")
    assert parser().parse_args(["list", "methods"]).results == home / "other"
    for name, folder in (("MMBENCH_DATA", data_root), ("MMBENCH_WEIGHTS", weights_folder)):
        monkeypatch.setenv(name, "~/given")
        assert folder() == home / "given"
    assert parser().parse_args(["data", "prepare", "mvsa", "--raw", "~/raw"]).raw == home / "raw"
    assert parser().parse_args(["convert", "~/a", "~/b"]).target == home / "b"
    assert experiment_path("~/grid.yaml") == home / "grid.yaml"


@pytest.mark.parametrize("text", ["", "~nobody-of-this-name/x", "$MMBENCH_NOT_SET/x", "${MMBENCH_NOT_SET}", "a\0b"])
def test_a_path_that_leads_nowhere_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["status", "--results", text])
    assert end.value.code == 2
    assert "argument --results: " in capsys.readouterr().err


@pytest.mark.parametrize("devices", ["0,x", "-1", "cpu,cpu", "cuda", "7"])
def test_a_device_that_is_not_there_does_not_pass_a_dry_run(
    here: Path, devices: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "experiments" / "grid.yaml").write_text(
        "title: t\ndatasets: {openclipart: }\nmethods: {sum: }\nseeds: [0]\n"
    )
    assert main(["run", "grid", "--dry-run", f"--devices={devices}"]) == 2
    assert "expected auto, cpu, or numbers of GPUs" in capsys.readouterr().err


def test_a_report_of_nothing_is_none(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Once: it wrote a report of dashes and exited with 0."""
    (here / "experiments" / "grid.yaml").write_text(
        "title: t\ndatasets: {openclipart: }\nmethods: {sum: }\nseeds: [0]\n"
    )
    assert main(["report", "grid"]) == 1
    assert "nothing of grid has been run, so there is nothing to report" in capsys.readouterr().err
    assert not (here / "results").exists()


# A run and what follows


@dataclass
class Story:
    """A workplace and what was run in it, step by step."""

    folder: Path
    answers: dict[str, subprocess.CompletedProcess[str]] = field(default_factory=dict)
    reports: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def step(self, name: str, *arguments: str) -> None:
        self.answers[name] = mmbench(self.folder, *arguments)
        results = self.folder / "results"
        self.reports[name] = {
            str(p.relative_to(results)): p.read_bytes() for p in sorted(results.glob("local/grid*/*"))
        }

    def records(self) -> dict[str, Path]:
        """Records by method and seed, of the trials with two epochs."""
        found = {}
        for path in (self.folder / "results" / "runs").glob("*/record.json"):
            trial = json.loads(path.read_text())["trial"]
            if trial["recipe"]["epochs"] == 2:
                found[f"{trial['method']} {trial['seed']}"] = path
        return found


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    made = Story(workplace(tmp_path_factory.mktemp("story"), grid=GRID))
    made.step("filtered", "run", "grid", "--filter", "method=sum", "method=tiny_good", "--jobs", "2")
    made.records()["sum 0"].write_text('{"key": "half a rec')
    made.step("whole", "run", "experiments/grid.yaml", "--jobs", "2")
    made.step("changed", "run", "grid", "--set", "datasets.tiny.recipe.epochs=1", "--filter", "method=sum", "seed=0")
    made.step("again", "run", "grid", "--filter", "method=sum")
    return made


FILES = {f"table.{kind}" for kind in ("md", "csv", "tex", "html")} | {"trials.csv", "figure.svg", "figure.png"}


def test_a_run_reports_and_exits_with_0(story: Story) -> None:
    answer = story.answers["filtered"]
    assert answer.returncode == 0, answer.stderr
    assert {f"local/grid/{name}" for name in FILES} <= set(story.reports["filtered"])
    assert "grid: 4 trials, 0 done, 4 to do" in answer.stderr
    assert re.search(r"^4/4 trials, \d:\d\d elapsed$", answer.stderr, re.MULTILINE)


def test_the_table_is_printed_with_gaps_and_their_reason(story: Story) -> None:
    answer = story.answers["filtered"]
    assert re.search(r"^ +sum +\d+\.\d ± \d+\.\d ", answer.stdout, re.MULTILINE)
    told = "2 trials that --filter leaves out: not run; rows and tables with nothing else are not shown here"
    assert re.search(rf"^\S.*: {told}$", answer.stdout, re.MULTILINE)
    assert "tiny_raises" not in answer.stdout
    markdown = story.reports["filtered"]["local/grid/table.md"].decode()
    assert "| tiny_raises | – | – | – | 0 | – |" in markdown
    assert "- tiny clean tiny_raises seed 1: not run" in markdown


def test_a_failing_trial_is_named_and_exits_with_1(story: Story) -> None:
    answer = story.answers["whole"]
    assert answer.returncode == 1
    assert "grid: 6 trials, 3 done, 3 to do" in answer.stderr
    keys = re.findall(
        r"^failed: tiny clean tiny_raises seed \d: ValueError: broken on purpose:[^`]*`mmbench show (\w+)`",
        answer.stderr,
        re.MULTILINE,
    )
    assert len(keys) == 2
    assert json.loads((story.folder / "results" / "runs" / keys[0] / "record.json").read_text())["status"] == "failed"
    assert "seed 0: failed: ValueError: broken on purpose" in story.reports["whole"]["local/grid/table.md"].decode()
    assert not re.search(r"Traceback", answer.stderr), "it is in the trial's log"


def test_a_damaged_record_is_named_and_its_trial_run_again(story: Story) -> None:
    answer = story.answers["whole"]
    assert re.search(r"^damaged, will be run again: results/runs/\w+/record\.json: ", answer.stderr, re.MULTILINE)
    assert re.search(r"^\[[4-6]/6\] tiny clean tiny_raises seed 0: FAILED", answer.stderr, re.MULTILINE), "3 are done"
    assert re.search(r"^6/6 trials, 2 failed, \d:\d\d elapsed$", answer.stderr, re.MULTILINE)
    # The same trial on the same machine gives the same numbers.
    rows = [
        [line for line in story.reports[step]["local/grid/table.csv"].decode().splitlines() if ",sum," in line]
        for step in ("filtered", "whole")
    ]
    assert rows[0] == rows[1]
    assert len(rows[0]) == 16  # three patterns and their mean, four metrics


def test_a_changed_experiment_reports_into_its_own_folder(story: Story) -> None:
    answer = story.answers["changed"]
    assert answer.returncode == 0
    before, after = story.reports["whole"], story.reports["changed"]
    assert {name: after[name] for name in before} == before, "the report of the experiment in the file is untouched"
    (folder,) = {name.rpartition("/")[0] for name in after} - {"local/grid"}
    assert re.fullmatch(r"local/grid-[0-9a-f]{8}", folder)
    assert {f"{folder}/{name}" for name in FILES} <= set(after)


def test_run_again_nothing_runs(story: Story) -> None:
    answer = story.answers["again"]
    assert answer.returncode == 0
    assert "grid: 2 trials, 2 done, 0 to do" in answer.stderr
    assert "trials, 0:" not in answer.stderr, "no view"
    tables = {f"local/grid/table.{kind}" for kind in ("csv", "md", "tex")}
    assert {n: story.reports["again"][n] for n in tables} == {n: story.reports["whole"][n] for n in tables}


def test_records_survived_all_of_it(story: Story) -> None:
    states = {name: json.loads(path.read_text())["status"] for name, path in story.records().items()}
    expected = {"sum": "done", "tiny_good": "done", "tiny_raises": "failed"}
    assert states == {f"{method} {seed}": state for method, state in expected.items() for seed in (0, 1)}


def test_a_dry_run_tells_what_is_done_and_writes_nothing_but_the_index(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from mmbench.experiment.plan import load
    from mmbench.index import NAME
    from mmbench.provenance import Codes
    from mmbench.record import Predictions, Record
    from mmbench.store import Store

    file = here / "experiments" / "grid.yaml"
    file.write_text("title: t\ndatasets: {openclipart: }\nmethods: {sum: , mla: }\nseeds: [0, 1]\n")
    assert main(["run", "grid", "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "4 trials, 0 done, 4 to do"
    assert not (here / "results").exists()
    assert main(["run", "grid", "--dry-run", "--set", f"seeds={list(range(16))}"]) == 0
    *trials, told, last = capsys.readouterr().out.splitlines()
    assert (len(trials), told) == (32, "openclipart, clean: 32 trials, of 2 methods, 1 fold, 16 seeds")
    assert last == "32 trials, 0 done, 32 to do"

    trials = load(file).trials
    predictions = Predictions.from_bytes(next((GOLDEN / "runs").glob("*/predictions.npz")).read_bytes())
    common = {"started": "", "finished": "", "environment": {}, "code": Codes().of(trials[0])}
    store = Store(here / "results" / "runs")
    store.write(Record(key=trials[0].key, trial=trials[0], status="done", **common), predictions)
    store.write(Record(key=trials[1].key, trial=trials[1], status="failed", **common))
    before = [path for path in sorted(here.rglob("*")) if path.name != NAME]
    assert main(["run", "grid", "--dry-run", "--filter", "seed=0"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{trials[0].key}  done  openclipart clean sum seed 0",
        f"{trials[1].key}  to do  openclipart clean mla seed 0",
        "2 trials, 1 done, 1 to do",
    ]
    assert [path for path in sorted(here.rglob("*")) if path.name != NAME] == before, "but for the store's index"


def test_broken_yaml_is_answered_with_all_mistakes(tmp_path: Path) -> None:
    text = GRID.replace("tiny_good", "tiny_god").replace("epochs", "epoch").replace("[0, 1]", "[0, 0]")
    workplace(tmp_path, grid=text)
    answer = mmbench(tmp_path, "run", "grid")
    assert answer.returncode == 2
    assert answer.stdout == ""
    assert answer.stderr.splitlines()[0] == "mmbench: experiments/grid.yaml: 3 mistakes"
    for part in ("did you mean 'tiny_good'?", "did you mean 'epochs'?", "the same value is given twice"):
        assert part in answer.stderr
    assert len(answer.stderr.splitlines()) == 5, "the heading, the mistakes, and the page"
    assert not (tmp_path / "results").exists()


# A run that is ended


@dataclass
class Ended:
    """A run that was ended by a signal: its exit code, what it printed, and which of its processes were left."""

    code: int
    stderr: str
    processes: int
    left: list[int]
    done: set[str]


def descendants(pid: int) -> list[int]:
    """All processes below one."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            after_name = path.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        parents.setdefault(int(after_name[1]), []).append(int(path.parent.name))
    found, waiting = [], [pid]
    while waiting:
        children = parents.get(waiting.pop(), [])
        found += children
        waiting += children
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return condition()


def results_of(folder: Path) -> set[str]:
    """The trials that are done."""
    records = [json.loads(p.read_text()) for p in (folder / "results" / "runs").glob("*/record.json")]
    return {f"{r['trial']['method']} {r['trial']['seed']}" for r in records if r["status"] == "done"}


def end_in_the_middle(folder: Path, signum: int, finished: int, to_group: bool, experiment: str) -> Ended:
    """Start a run, wait until so many trials are done and one sleeps, and send a signal.

    There are no checkpoints: with them, SIGTERM would wait for the end of an epoch.
    """
    asleep = lambda: any("asleep" in p.read_text() for p in (folder / "results" / "runs").glob("*/log.txt"))  # noqa: E731
    for log in (folder / "results" / "runs").glob("*/log.txt"):
        log.unlink()
    run = subprocess.Popen(
        [*COMMAND, "run", experiment, "--jobs", "2", "--checkpoint-every", "0"],
        cwd=folder,
        env=environment(),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        assert wait_until(lambda: asleep() and len(results_of(folder)) >= finished, 60), "the run did not come that far"
        below = descendants(run.pid)
        os.killpg(run.pid, signum) if to_group else os.kill(run.pid, signum)
        _, stderr = run.communicate(timeout=30)
        wait_until(lambda: not any(alive(pid) for pid in below), 3)
        left = [pid for pid in below if alive(pid)]
        return Ended(run.returncode, stderr, len(below), left, results_of(folder))
    finally:
        run.kill()
        for pid in descendants(run.pid):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ended]:
    """One workplace: Ctrl-C, SIGTERM and kill -9, one after another, and a run to the end.

    The experiment grows by a seed between the runs, so that each has something to finish before it is ended.
    """
    folder = workplace(tmp_path_factory.mktemp("ended"))
    file = folder / "experiments" / "sleepy.yaml"
    made = {}
    for seeds, (name, signum, to_group) in enumerate(
        [("SIGINT", signal.SIGINT, True), ("SIGTERM", signal.SIGTERM, False), ("SIGKILL", signal.SIGKILL, False)],
        start=1,
    ):
        file.write_text(
            SLEEPY.replace("[0, 1]", str(list(range(seeds)))).replace("tiny_sleeps: , sum:", "sum: , tiny_sleeps:")
        )
        # Two slots: the first sleeper takes one, the other works through the rest, up to the second sleeper.
        finished = {1: 2, 2: 3, 3: 4}[seeds]
        made[name] = end_in_the_middle(folder, signum, finished, to_group, "sleepy")
    rest = subprocess.run(
        [*COMMAND, "run", "sleepy", "--jobs", "2"],
        cwd=folder,
        env=environment(MMBENCH_TESTING_SLEEP="0"),
        capture_output=True,
        text=True,
        timeout=120,
    )
    made["rest"] = Ended(rest.returncode, rest.stderr, 0, [], results_of(folder))
    return made


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGKILL", -9)])
def test_an_ended_run_says_so(ended: dict[str, Ended], name: str, code: int) -> None:
    assert ended[name].code == code
    if name != "SIGKILL":
        assert re.search(f"mmbench: (ended|stopped) by {name}.*; what was finished is kept", ended[name].stderr)
        assert "Traceback" not in ended[name].stderr


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGKILL"])
def test_an_ended_run_leaves_no_process(ended: dict[str, Ended], name: str) -> None:
    assert ended[name].processes >= 3, "there was a fork server, and trials"
    assert ended[name].left == []


def test_an_ended_run_keeps_what_was_finished(ended: dict[str, Ended]) -> None:
    assert {"tiny_good 0", "sum 0"} <= ended["SIGINT"].done
    assert ended["SIGINT"].done < ended["SIGTERM"].done <= ended["SIGKILL"].done < ended["rest"].done
    assert not [name for name in ended["SIGKILL"].done if name.startswith("tiny_sleeps")]


@pytest.mark.parametrize(("before", "after"), [("SIGINT", "SIGTERM"), ("SIGTERM", "SIGKILL"), ("SIGKILL", "rest")])
def test_the_next_run_goes_on_from_there(ended: dict[str, Ended], before: str, after: str) -> None:
    (total, done, left) = map(int, re.findall(r"sleepy: (\d+) trials, (\d+) done, (\d+) to do", ended[after].stderr)[0])
    assert done == len(ended[before].done)
    assert left == total - done


def test_at_last_all_is_done(ended: dict[str, Ended]) -> None:
    assert ended["rest"].code == 0
    assert len(ended["rest"].done) == 9
