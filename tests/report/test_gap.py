"""The figure of the modality gap: asked for by the experiment, drawn from what the store keeps."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from make_golden import GOLDEN, experiment

from mmbench.experiment.plan import load
from mmbench.record import Features
from mmbench.report.collect import Results, collect
from mmbench.report.figures.base import render
from mmbench.report.figures.gallery import figures
from mmbench.report.figures.gap import draw_gap
from mmbench.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """The golden store, with the features of concat and their gap."""
    shutil.copytree(GOLDEN / "runs", tmp_path / "runs")
    store = Store(tmp_path / "runs")
    points = np.random.default_rng(0).normal(size=(2, 20, 2)).astype(np.float32)
    points[1, :3] = np.nan  # samples without video
    for number, trial in enumerate(t for t in experiment().trials if t.method == "concat"):
        record = store.record(trial.key)
        assert record is not None
        record.gap = {"audio+video": 0.5 + 0.1 * number}
        store.write(record, store.predictions(record), Features(np.array(["audio", "video"]), points + number))
    return store


def read(store: Store, draw: bool = True) -> Results:
    plan = experiment()
    plan.grid.draw_features = draw
    return collect(plan, store)


def test_a_panel_a_row_has_the_first_trials_points_and_the_mean_gap(store: Store) -> None:
    results = read(store)
    assert list(results.points) == [("crema_d", protocol, "complete", "concat") for protocol in ("clean", "legacy")]
    figure = draw_gap(results)
    assert figure is not None
    titles = [panel.get_title(loc="left") for panel in figure.axes]
    assert titles == [
        "crema_d, clean: concat\ngap audio+video 0.55",
        "crema_d, legacy: concat\ngap audio+video 0.75",
    ]
    drawn = [len(marks.get_offsets()) for marks in figure.axes[0].collections]
    assert drawn == [20, 1, 17, 1], "each modality's points that are there, and their mean"
    first = np.asarray(figure.axes[0].collections[0].get_offsets())
    np.testing.assert_allclose(first, results.points["crema_d", "clean", "complete", "concat"].points[0])
    assert "gap" in dict(figures(results))
    assert b"<image" in render(figure, "svg"), "points are a picture: marks would fill megabytes"


def test_without_being_asked_or_without_features_there_is_no_figure(store: Store) -> None:
    assert draw_gap(read(store, draw=False)) is None
    assert draw_gap(read(Store(GOLDEN / "runs"))) is None


def test_damaged_features_are_a_gap_in_the_report(store: Store) -> None:
    key = next(t.key for t in experiment().trials if t.method == "concat")
    (store.folder(key) / "features.npz").write_bytes(b"no archive")
    results = read(store)
    assert len(results.points) == 1
    assert any("features of its first trial: damaged" in line for line in results.not_run)


def test_the_experiment_asks_for_it_of_trials_that_table1_has_too() -> None:
    plan = load("experiments/modality_gap.yaml")
    assert plan.grid.draw_features
    assert set(plan.grid.methods) == {"concat", "mla"}
    mine = {trial.key for trial in plan.trials if trial.dataset == "openclipart"}
    assert len(mine) == 30
    assert mine <= {trial.key for trial in load("experiments/table1.yaml").trials}
