"""Trials that tune, through the real runner: of the test split nothing is read, predicted or told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mmbench.record import Record
from mmbench.runner.local import LocalBackend
from mmbench.runner.loop import run_trials
from mmbench.runner.view import GridView, outcome
from mmbench.store import Store
from mmbench.tracking import WandbSettings
from mmbench.trial import Trial
from wandb_file import metrics

MakeTrial = Callable[..., Trial]


def run(trials: list[Trial], folder: Path, wandb: bool = False) -> tuple[Store, list[Record]]:
    store = Store(folder / "runs")
    tracking = WandbSettings(mode="offline" if wandb else "off", folder=str(folder / "wandb"))
    (folder / "wandb").mkdir(exist_ok=True)
    with GridView() as view:
        run_trials(trials, store, LocalBackend(2), view, tracking, labels=labels)
    return store, [record for trial in trials if (record := store.record(trial.key)) is not None]


def tuning(trial: Trial, **changes: object) -> Trial:
    return trial.model_copy(update={"tuning": True, **changes})


def labels(trial: Trial) -> tuple[str, str]:
    """What an experiment would call them."""
    return "tiny set", "mla draw 1" if trial.tuning else "mla"


def words(folder: Path) -> str:
    """All that the files under a folder hold, and their names."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return "\n".join(f"{path.name}\n{path.read_bytes().decode(errors='replace')}" for path in files)


@pytest.fixture(scope="module")
def ran(tiny: MakeTrial, tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Record, Record, Path]:
    """A trial that tunes, and the same one that does not."""
    folder, trial = tmp_path_factory.mktemp("tuning"), tiny("mla", epochs=3)
    store, records = run([tuning(trial), trial], folder, wandb=True)
    assert [record.status for record in records] == ["done", "done"], [record.failure for record in records]
    return store, records[0], records[1], folder / "wandb"


def test_a_trial_that_tunes_leaves_curves_and_nothing_of_the_test(
    ran: tuple[Store, Record, Record, Path],
) -> None:
    store, tuned, plain, _ = ran
    assert tuned.key != plain.key
    assert sorted(p.name for p in store.folder(tuned.key).iterdir()) == ["lock", "log.txt", "record.json"]
    assert tuned.metrics == {}
    assert tuned.predictions_sha256 is None
    assert tuned.curves == plain.curves, "it trains, and is validated, as the trial that it stands for"
    assert tuned.best_epoch == plain.best_epoch


def test_no_test_metric_is_in_record_or_log_or_tracker(ran: tuple[Store, Record, Record, Path]) -> None:
    store, tuned, plain, wandb = ran
    told = {key: words(store.folder(key)) + words(next(wandb.rglob(f"*{key}"))) for key in (tuned.key, plain.key)}
    for sign in ("test/", '"accuracy"', "macro_f1", "predictions.npz"):
        assert sign in told[plain.key], f"a trial that is tested tells: {sign}"
        assert sign not in told[tuned.key]
    assert "validation/accuracy" in told[tuned.key]


def test_trackers_call_trials_as_the_experiment_does(ran: tuple[Store, Record, Record, Path]) -> None:
    _, tuned, plain, wandb = ran
    names = [metrics(next(wandb.rglob(f"run-{record.key}.wandb")))[0] for record in (tuned, plain)]
    assert names == ["tiny set/clean/mla draw 1/seed 0", "tiny set/clean/mla/seed 0"]


def test_a_trial_that_tunes_is_done_without_predictions(ran: tuple[Store, Record, Record, Path]) -> None:
    store, tuned, _, _ = ran
    assert store.done(tuned.key) == tuned
    assert store.finished(tuned.key)


def test_what_a_run_shows_of_it_is_its_validation(tiny: MakeTrial, tmp_path: Path) -> None:
    _, (record,) = run([tuning(tiny())], tmp_path)
    best = 100 * max(row["validation/accuracy"] for row in record.curves)
    assert outcome(record) == f"{best:5.1f} % in validation"


def test_the_test_split_is_not_touched(tiny: MakeTrial, tmp_path: Path) -> None:
    trial = tiny().model_copy(update={"dataset": "trapped"})
    _, (tuned, plain) = run([tuning(trial), trial], tmp_path)
    assert tuned.status == "done", tuned.failure
    assert tuned.best_epoch is not None
    assert plain.failure is not None, "the trap works"
    assert "the test split was touched" in plain.failure.message


def test_a_protocol_that_chooses_by_the_test_split_cannot_tune(tiny: MakeTrial, tmp_path: Path) -> None:
    _, (record,) = run([tuning(tiny(protocol="legacy"))], tmp_path)
    assert record.failure is not None
    assert "tuning needs a validation split, but protocol 'legacy' chooses by the test split" in record.failure.message
