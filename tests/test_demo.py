"""``mmbench demo``: its sentences say what the predictions in the store say; nothing is opened where there is no display."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mmbench import demo
from mmbench.experiment.plan import load
from mmbench.places import carried
from mmbench.record import Predictions, Record
from mmbench.report.collect import collect
from mmbench.store import Store

PATTERNS, SAMPLES = 7, 60  # of three modalities; samples of a fold


def words(root: Path, skill: dict[str, list[int]]) -> str:
    """What the demo says where methods are right about the first so many samples of every group of ten, pattern by pattern."""
    experiment, store = load(carried("experiments") / "demo.yaml"), Store(root)
    for trial in experiment.trials:
        label = np.arange(SAMPLES) % 10
        right = np.arange(SAMPLES) // 6 < np.array(skill[trial.method])[:, None]  # (7, N)
        predicted = np.where(right, label, (label + 1) % 10).astype(np.int16)
        log_probs = np.log(np.where(np.eye(10, dtype=bool)[predicted], 0.91, 0.01)).astype(np.float16)
        made = Predictions(
            modalities=np.array(["image", "title", "tags"]),
            label=label,
            group=np.arange(SAMPLES) % 6 + 6 * (trial.fold or 0),
            present=np.ones((SAMPLES, 3), bool),
            predicted=predicted,
            log_probs=log_probs,
            log_prior=np.log(np.full(10, 0.1)).astype(np.float16),
            attack=np.empty(0, np.int16),
        )
        stated = {"key": trial.key, "trial": trial, "started": "", "finished": "", "environment": {}}
        store.write(Record(**stated, status="done", seconds={"fit": 1.0}), made)
    return demo.told(collect(experiment, store))


def test_it_says_that_methods_are_told_apart_and_by_which_modalities(tmp_path: Path) -> None:
    told = words(tmp_path, {"late_fusion": [3, 4, 2, 5, 5, 5, 6], "ogm_ge": [3, 2, 3, 5, 5, 5, 4]})
    assert "2 seeds on each of 5 folds of openclipart_features" in told
    assert "300 drawings with image, title and tags by 30 artists" in told
    assert "  late_fusion   60.0 %\n  ogm_ge        40.0 %\n" in told
    assert "late_fusion minus ogm_ge: +20.0 points, 95 % interval [+20.0, +20.0]" in told
    assert "told apart, and late_fusion is the more accurate" in told
    assert "  late_fusion   30.0 %   40.0 %   20.0 %\n  ogm_ge        30.0 %   20.0 %   30.0 %" in told
    assert "from title alone." in told, "image is the same, and tags are the other way round"


def test_it_says_that_methods_are_not_told_apart(tmp_path: Path) -> None:
    same = [3, 4, 2, 5, 5, 5, 6]
    told = words(tmp_path, {"late_fusion": same, "ogm_ge": same})
    assert "+0.0 points, 95 % interval [+0.0, +0.0]" in told
    assert "the two cannot be told apart" in told
    assert "more accurate" not in told
    assert "cannot be said to answer less well from any" in told


def test_the_page_is_opened_only_where_there_is_a_display(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda address: opened.append(address) or True)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    demo.show(Path("/results/table.html"))
    assert not opened
    assert "no display here: open /results/table.html" in capsys.readouterr().err
    monkeypatch.setenv("DISPLAY", ":0")
    demo.show(Path("/results/table.html"))
    assert opened == ["file:///results/table.html"]


@pytest.mark.slow
def test_it_runs_what_is_missing_and_the_second_time_nothing(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MMBENCH", "DISPLAY", "WAYLAND"))}
    command = [sys.executable, "-m", "mmbench", "demo"]
    first, again = (
        subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        for _ in range(2)
    )
    assert "20 trials, 0 done, 20 to do" in first.stderr
    assert "20 trials, 20 done, 0 to do" in again.stderr
    assert first.stdout == again.stdout
    assert "told apart, and late_fusion is the more accurate" in first.stdout
    assert (tmp_path / "results/local/demo/figure.png").is_file()
