"""What a run shows of its progress."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from mmbench.missing import Missing
from mmbench.recipe import Recipe
from mmbench.record import Record
from mmbench.runner.view import GridView, epochs_done
from mmbench.trial import Trial


def trial(missing: Missing | None = None, seed: int = 0) -> Trial:
    return Trial(
        dataset="tiny", data="", protocol="clean", missing=missing, method="cca", seed=seed, encoders={}, params={},
        recipe=Recipe(epochs=30),
    )  # fmt: skip


def done(trial: Trial) -> Record:
    metrics = {"left": {"accuracy": 10.0}, "left+right": {"accuracy": 37.6}}
    return Record(key=trial.key, trial=trial, status="done", started="", finished="", environment={}, metrics=metrics)


def lines(trials: list[Trial], **options: int) -> str:
    console = Console(file=io.StringIO(), width=200, soft_wrap=True)
    with GridView(8, console=console, **options) as view:
        for one in trials:
            view.started(one)
            view.finished(one, done(one))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_counting_goes_on_where_an_earlier_run_ended() -> None:
    shown = lines([trial(seed=0), trial(seed=1)], done=2)
    assert "[3/8] tiny clean cca seed 0:  37.6 %  (" in shown
    assert "[4/8] tiny clean cca seed 1:  37.6 %  (" in shown


def test_an_accuracy_that_tables_do_not_show_is_told_from_one_that_they_do() -> None:
    assert "cca seed 0:  37.6 % with nothing missing in the test  (" in lines([trial(Missing(rate=0.5))])


@pytest.mark.parametrize(("log", "epochs"), [("", 0), ("starts\n", 0), ("epoch 0 a\nepoch 1 b\nends\n", 2)])
def test_a_running_trial_shows_its_epoch(tmp_path: Path, log: str, epochs: int) -> None:
    path = tmp_path / "log.txt"
    assert epochs_done(path) == 0
    path.write_text(log)
    assert epochs_done(path) == epochs
    console = Console(file=io.StringIO(), width=200, force_terminal=True)
    with GridView(1, log=lambda key: path, console=console) as view:
        view.started(trial())
        view.live.refresh()
    assert f"epoch {epochs}/30" in console.file.getvalue()  # type: ignore[attr-defined]
