"""Tracking in Weights & Biases: what is told, and that no failure of it is the trial's.

Trials run in this process, as their own process would run them, so that ``wandb.init`` can be replaced by a recorder.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest
import wandb

from mmbench import dashboard
from mmbench.curves import CurveLogger
from mmbench.data import DATASETS
from mmbench.encoders import ENCODERS
from mmbench.errors import StoreError
from mmbench.experiment.plan import Labels
from mmbench.missing import Missing
from mmbench.recipe import Recipe
from mmbench.record import Failure, Record
from mmbench.runner.child import Job, execute
from mmbench.store import Store
from mmbench.tracked_trial import WandbLogger
from mmbench.tracking import WandbSettings, usable_mode
from mmbench.trial import Trial
from wandb_file import metrics

TRIAL = Trial(
    dataset="tiny",
    data="tiny-1",
    protocol="clean",
    method="mla",
    seed=3,
    encoders={m: {"name": "tiny_linear", "width": 8} for m in ("left", "right")},
    params={"head_gradient_modification": True, "dynamic_fusion": True},
    recipe=Recipe(epochs=3, batch_size=16, lr=0.1),
)
LABELS = Labels("tiny", "mla")
PATTERNS = ("left", "right", "left+right")


class RecordedRun:
    """Stands in for a run of W&B: keeps what it is given; raises where it is told to."""

    def __init__(self, arguments: dict[str, Any], fails_at: str = "") -> None:
        self.arguments = arguments
        self.fails_at = fails_at
        self.logged: list[dict[str, Any]] = []
        self.summary: dict[str, Any] = {}
        self.metrics: list[tuple[str, str | None]] = []
        self.exit_code: int | None = None

    def _maybe_fail(self, call: str) -> None:
        if call == self.fails_at:
            raise ConnectionError(f"no network in {call}")

    def define_metric(self, name: str, step_metric: str | None = None) -> None:
        self._maybe_fail("define_metric")
        self.metrics.append((name, step_metric))

    def log(self, values: dict[str, Any]) -> None:
        self.logged.append(values)
        if len(self.logged) == 2:
            self._maybe_fail("second log")

    def finish(self, exit_code: int) -> None:
        self._maybe_fail("finish")
        self.exit_code = exit_code


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plugin's data set in this process's tables, for one test."""
    list(DATASETS), list(ENCODERS)
    monkeypatch.setitem(DATASETS._targets, "tiny", "plugin.mmbench_testing:Tiny")
    monkeypatch.setitem(ENCODERS._targets, "tiny_linear", "plugin.mmbench_testing:TinyLinear")
    monkeypatch.setattr("torch.utils.deterministic.fill_uninitialized_memory", True)  # a trial's process changes it


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[RecordedRun]]:
    """Replaces ``wandb.init`` by one whose runs fail at the given call; returns the runs."""

    def replace(fails_at: str = "") -> list[RecordedRun]:
        runs: list[RecordedRun] = []

        def init(**arguments: Any) -> RecordedRun:
            run = RecordedRun(arguments, fails_at)
            run._maybe_fail("init")
            runs.append(run)
            return run

        monkeypatch.setattr(wandb, "init", init)
        return runs

    return replace


def run_trial(folder: Path, mode: str = "offline") -> Record:
    settings = WandbSettings(mode=mode, group="table9", folder=str(folder / "wandb"))  # type: ignore[arg-type]
    store = Store(folder / "runs")
    record = execute(Job(TRIAL, str(store.root), 1, "cpu", {"commit": "c0ffee"}, settings), store)
    assert (store.done(TRIAL.key) is not None) == (record.status == "done")
    return record


# What is told


@pytest.mark.usefixtures("tiny")
def test_a_run_is_named_grouped_and_configured(recorder: Any, tmp_path: Path) -> None:
    runs = recorder()
    record = run_trial(tmp_path)
    assert record.status == "done", record.failure
    (run,) = runs
    told = run.arguments
    assert told["project"] == "mmbench"
    assert told["group"] == "table9", "the experiment"
    assert told["job_type"] == "tiny", "the data set"
    assert told["name"] == "tiny/clean/mla/seed 3"
    assert told["id"] == TRIAL.key
    assert told["resume"] == "allow", "a trial that is run again continues its run"
    assert told["mode"] == "offline"
    assert told["tags"] == ["clean"]
    assert told["dir"] == str(tmp_path / "wandb")
    assert told["config"]["recipe"] == TRIAL.recipe.model_dump()
    assert told["config"]["params"] == TRIAL.params
    assert told["config"]["commit"] == "c0ffee"
    assert told["config"]["row"] == "tiny clean mla"
    assert ("*", "epoch") in run.metrics, "curves are drawn over epochs"
    assert run.exit_code == 0


def start(recorder: Any, folder: Path, trial: Trial, dataset: str = "", method: str = "") -> dict[str, Any]:
    """What ``wandb.init`` is given for a trial."""
    runs = recorder()
    WandbLogger(trial, WandbSettings(mode="offline", folder=str(folder)).labelled(dataset, method), {})
    return runs[0].arguments


def test_a_run_has_the_experiments_labels_its_fold_and_what_training_lacks(recorder: Any, tmp_path: Path) -> None:
    trial = TRIAL.model_copy(update={"fold": 2, "missing": Missing(rate=0.5)})
    told = start(recorder, tmp_path, trial, "tiny, cut", "MLA, plain")
    assert told["name"] == "tiny, cut/clean/anchor 0.5/MLA, plain/fold 2/seed 3"
    assert told["job_type"] == "tiny, cut"
    config = told["config"]
    assert (config["dataset"], config["method"]) == ("tiny", "mla"), "its own names are there too"
    assert (config["dataset_label"], config["method_label"], config["fold"]) == ("tiny, cut", "MLA, plain", 2)
    assert config["row"] == "tiny, cut clean anchor 0.5 MLA, plain"


def test_draws_of_a_method_have_names_of_their_own(recorder: Any, tmp_path: Path) -> None:
    trial = TRIAL.model_copy(update={"tuning": True})
    names = [start(recorder, tmp_path, trial, "tiny", f"mla draw {number}")["name"] for number in range(2)]
    assert names == ["tiny/clean/mla draw 0/seed 3", "tiny/clean/mla draw 1/seed 3"]


def test_a_name_is_no_longer_than_it_may_be(recorder: Any, tmp_path: Path) -> None:
    told = start(recorder, tmp_path, TRIAL, "tiny", "m" * 300)
    assert len(told["name"]) == 128
    assert told["name"].endswith("m/seed 3")
    assert told["config"]["method_label"] == "m" * 300


@pytest.mark.usefixtures("tiny")
def test_curves_have_a_row_an_epoch_and_the_end_has_the_table(recorder: Any, tmp_path: Path) -> None:
    (run, record) = (recorder(), run_trial(tmp_path))
    *rows, last = run[0].logged
    by_epoch: dict[int, dict[str, float]] = {}
    for row in rows:
        by_epoch.setdefault(int(row["epoch"]), {}).update(row)
    assert sorted(by_epoch) == [0, 1, 2]
    for row in by_epoch.values():
        accuracies = {"validation/accuracy", "validation/accuracy/left", "validation/accuracy/right"}
        gradients = {"gradient/left", "gradient/right"}
        assert set(row) == {"epoch", "train/loss", "train/lr", "validation/loss", *gradients, *accuracies}
    percent = [
        {k: 100 * v if k.startswith("validation/accuracy") else v for k, v in row.items()} for row in record.curves
    ]
    assert max(row["validation/accuracy"] for row in percent) > 1
    assert [{k: v for k, v in by_epoch[e].items() if k != "epoch"} for e in range(3)] == percent
    table = last["test"]
    assert table.columns == ["pattern", "accuracy", "macro_f1", "ece"]
    assert [row[0] for row in table.data] == list(PATTERNS)
    for row in table.data:
        assert row[1:] == list(record.metrics[row[0]].values())
        assert run[0].summary[f"test/accuracy/{row[0]}"] == row[1]
    assert run[0].summary["accuracy/tiny/clean/complete"] == record.metrics["left+right"]["accuracy"], "in percent"
    assert run[0].summary["best_epoch"] == record.best_epoch


def test_a_modality_may_be_called_accuracy(recorder: Any, tmp_path: Path) -> None:
    runs = recorder()
    logger = WandbLogger(TRIAL, WandbSettings(mode="offline", folder=str(tmp_path)), {})
    logger.log_metrics({"epoch": 0, "gradient/accuracy": -1.5, "validation/accuracy": 0.25})
    assert runs[0].logged == [{"epoch": 0, "gradient/accuracy": -1.5, "validation/accuracy": 25.0}]


@pytest.mark.usefixtures("tiny")
def test_without_being_asked_nothing_is_tracked(recorder: Any, tmp_path: Path) -> None:
    runs = recorder()
    assert run_trial(tmp_path, mode="off").status == "done"
    assert runs == []
    assert not (tmp_path / "wandb").exists()


@pytest.mark.usefixtures("tiny")
def test_a_failed_trial_ends_its_run_as_failed(recorder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = recorder()

    def broken(*_: Any, **__: Any) -> None:
        raise ValueError("broken on purpose")

    monkeypatch.setattr("mmbench.baselines.mla.Mla.training_step", broken)
    assert run_trial(tmp_path).status == "failed"
    assert runs[0].exit_code == 1


@pytest.mark.usefixtures("tiny")
def test_tracking_does_not_change_the_result(recorder: Any, tmp_path: Path) -> None:
    recorder()
    tracked, untracked = run_trial(tmp_path), run_trial(tmp_path, mode="off")
    assert tracked.metrics == untracked.metrics
    assert all(bare.items() <= row.items() for bare, row in zip(untracked.curves, tracked.curves, strict=True))
    more = {"validation/accuracy/left", "validation/accuracy/right"}
    assert all(more <= set(row) for row in tracked.curves), "who watches sees every pattern in every epoch"
    assert sum(more <= set(row) for row in untracked.curves) == 1, "others the best epoch's"


# What goes wrong


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("fails_at", ["init", "define_metric", "second log", "finish"])
def test_a_failure_of_the_tracker_is_not_the_trials(
    recorder: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], fails_at: str
) -> None:
    runs = recorder(fails_at)
    record = run_trial(tmp_path)
    assert record.status == "done", record.failure
    assert len(record.curves) == 3
    log = capsys.readouterr().out
    assert f"W&B: ConnectionError: no network in {fails_at}; the trial goes on" in log
    if fails_at == "second log":
        assert len(runs[0].logged) == 2, "nothing is sent any more"


def test_online_falls_back_to_offline_where_it_cannot_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    modes: list[str] = []

    def init(**arguments: Any) -> RecordedRun:
        modes.append(arguments["mode"])
        if arguments["mode"] == "online":
            raise ConnectionError("no network")
        return RecordedRun(arguments)

    monkeypatch.setattr(wandb, "init", init)
    logger = WandbLogger(TRIAL, WandbSettings(mode="online", folder=str(tmp_path)), {})
    assert modes == ["online", "offline"]
    logger.log_metrics({"epoch": 0, "train/loss": 1.0})
    assert logger._run.logged == [{"epoch": 0, "train/loss": 1.0}]


def test_the_offline_run_is_not_refused_for_the_online_one_that_could_not_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """W&B's own process holds the id of the run that it could not start, until it is torn down."""
    held: list[str] = []

    def init(**arguments: Any) -> RecordedRun:
        if arguments["id"] in held:
            raise RuntimeError(f"run ID {arguments['id']} is in use")
        if arguments["mode"] == "online":
            held.append(arguments["id"])
            raise ConnectionError("timed out")
        return RecordedRun(arguments)

    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setattr(wandb, "teardown", held.clear)
    logger = WandbLogger(TRIAL, WandbSettings(mode="online", folder=str(tmp_path)), {})
    assert logger._run is not None, capsys.readouterr().out
    assert logger._run.arguments["mode"] == "offline"


def test_a_teardown_that_does_not_end_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def init(**arguments: Any) -> RecordedRun:
        if arguments["mode"] == "online":
            raise ConnectionError("timed out")
        return RecordedRun(arguments)

    free = Event()
    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setattr(wandb, "teardown", free.wait)
    monkeypatch.setattr("mmbench.tracking.FORGET_SECONDS", 0.01)
    logger = WandbLogger(TRIAL, WandbSettings(mode="online", folder=str(tmp_path)), {})
    free.set()
    assert logger._run.arguments["mode"] == "offline"


def full(path: Path, data: bytes) -> None:
    raise StoreError(f"cannot write {path}: No space left on device; free some space and run again")


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("when", ["from the start", "later"])
def test_a_full_folder_of_wandbs_is_told_in_the_log_and_is_not_the_trials(
    recorder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], when: str
) -> None:
    """W&B itself says nothing of it. The store is on another disk here."""
    runs = recorder()
    if when == "from the start":
        monkeypatch.setattr("mmbench.files.atomic_write", full)
    else:
        monkeypatch.setattr(
            RecordedRun, "finish", lambda *_, **__: monkeypatch.setattr("mmbench.files.atomic_write", full)
        )
    record = run_trial(tmp_path)
    assert record.status == "done", record.failure
    assert len(runs) == (when == "later")
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("W&B")]
    words = "the trial goes on" if when == "from the start" else "what is kept of this run may not be whole"
    (line,) = told
    assert str(tmp_path / "wandb") in line
    assert f"No space left on device; free some space and run again; {words}" in line


@pytest.mark.parametrize("call", ["tracker that never started", "run that was finished"])
def test_a_tracker_without_a_run_is_silent(recorder: Any, tmp_path: Path, call: str) -> None:
    runs = recorder("init" if call.startswith("tracker") else "")
    logger = WandbLogger(TRIAL, WandbSettings(mode="offline", folder=str(tmp_path)), {})
    failure = Failure(kind="killed", message="")
    record = Record(
        key=TRIAL.key, trial=TRIAL, status="failed", started="", finished="", environment={}, failure=failure
    )
    logger.finish(record)
    logger.finish(record)
    logger.log_metrics({"epoch": 1})
    assert [(run.logged, run.exit_code) for run in runs] == ([] if call.startswith("tracker") else [([], 1)])


# The real thing


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a login, and without a home in which to find one."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "NETRC", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    (tmp_path / "home").mkdir()


@pytest.mark.usefixtures("nobody")
def test_online_without_a_login_says_so_and_is_offline() -> None:
    mode, message = usable_mode("online")
    assert mode == "offline"
    assert message.startswith("W&B: ")
    for part in ("offline", "`wandb login`", "`wandb sync`"):
        assert part in message


@pytest.mark.parametrize("mode", ["off", "offline"])
def test_other_modes_are_taken_as_they_are(mode: Any) -> None:
    assert usable_mode(mode) == (mode, "")


@pytest.mark.usefixtures("nobody", "tiny")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_offline_run_is_on_the_disk(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Of W&B itself: a folder named by the trial's key, in which the file that ``wandb sync`` uploads holds what was told."""
    record = run_trial(tmp_path)
    assert record.status == "done", record.failure
    assert "the trial goes on" not in capfd.readouterr().out, "nothing went wrong"
    (folder,) = (tmp_path / "wandb" / "wandb").glob(f"offline-run-*-{TRIAL.key}")
    file, experiment = folder / f"run-{TRIAL.key}.wandb", SimpleNamespace(trials=[TRIAL], labels_of=lambda _: LABELS)
    curves = [name for panel in dashboard.curves(experiment) for name in panel.y if not name.endswith("/modulated")]
    (bars,) = dashboard.accuracies(experiment)
    deadline = time.monotonic() + 30  # W&B's own process writes the file; on a busy machine it is behind
    while not set(bars.metrics) <= (found := metrics(file))[2]:
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
    name, history, _ = found
    assert name == "tiny/clean/mla/seed 3"
    assert {*curves, "validation/accuracy/right", "epoch"} <= history, "what `mmbench dashboard` shows by epoch"
    for word in (b"table9", b"tiny", b"clean", b"c0ffee"):
        assert word in file.read_bytes()


@pytest.mark.slow
@pytest.mark.usefixtures("nobody", "tiny")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_run_whose_network_is_gone_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of W&B itself, with a server that nobody can reach."""
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setattr("mmbench.tracking.START_SECONDS", 1)
    record = run_trial(tmp_path, mode="online")
    assert record.status == "done", record.failure
    (folder,) = (tmp_path / "wandb" / "wandb").glob(f"offline-run-*-{TRIAL.key}")
    assert list(folder.glob("*.wandb"))


# Curves of the record


def test_curves_gather_the_metrics_of_an_epoch() -> None:
    curves = CurveLogger()
    curves.log_metrics({"epoch": 0, "validation/accuracy": 0.5})
    curves.log_metrics({"epoch": 0, "train/loss": 1.0})
    curves.log_metrics({"epoch": 1, "train/loss": 0.5})
    assert curves.rows == [{"validation/accuracy": 0.5, "train/loss": 1.0}, {"train/loss": 0.5}]
