"""One line a trial, whatever came of it; seconds and memory only for oneself."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from make_golden import GOLDEN, SAMPLES, experiment

from mmbench.report.collect import collect
from mmbench.report.page import frames, write
from mmbench.report.trials import COST
from mmbench.store import Store


@pytest.fixture(scope="module")
def trials() -> pd.DataFrame:
    return collect(experiment(), Store(GOLDEN / "runs")).trials


def test_there_is_a_line_a_trial_with_what_its_record_says(trials: pd.DataFrame) -> None:
    store = Store(GOLDEN / "runs")
    assert sorted(trials.key) == sorted(trial.key for trial in experiment().trials)
    for line in trials.to_dict("records"):
        record = store.record(line["key"])
        if record is None or record.status != "done":
            continue
        trial = record.trial
        assert (line["method"], line["protocol"], line["seed"]) == (trial.method, trial.protocol, trial.seed)
        every = record.metrics["audio+video"]
        assert (line["accuracy"], line["macro_f1"], line["ece"]) == (every["accuracy"], every["macro_f1"], every["ece"])
        assert line["accuracy/audio"] == record.metrics["audio"]["accuracy"]
        predicted = store.predictions(record)
        assert line["accuracy"] == pytest.approx(100 * np.mean(predicted.predicted[-1] == predicted.label))
        assert (line["samples"], line["parameters"], line["commit"]) == (SAMPLES, 1234, "0123456789")
        assert line["seconds/fit"] == record.seconds["fit"]


def test_what_is_not_done_says_why(trials: pd.DataFrame) -> None:
    assert trials.status.value_counts().to_dict() == {"done": 7, "not run": 4, "failed": 1}
    (failed,) = trials[trials.status == "failed"].to_dict("records")
    assert failed["reason"] == "failed: ValueError: 100 % of a_line"
    assert failed["commit"] == "0123456789"
    assert trials[trials.status == "not run"][["accuracy", "samples", "commit", *COST]].isna().all(axis=None)


def test_a_damaged_trial_is_a_line(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "runs", tmp_path / "runs")
    key = experiment().trials[0].key
    (tmp_path / "runs" / key / "record.json").write_text("{}")
    made = collect(experiment(), Store(tmp_path / "runs")).trials.set_index("key")
    assert made.status[key] == "damaged"
    assert "record.json" in made.reason[key]


def test_the_file_keeps_whole_numbers_and_git_gets_no_seconds(tmp_path: Path) -> None:
    results = collect(experiment(), Store(GOLDEN / "runs"))
    write(results, tmp_path / "own", GOLDEN / "runs")
    write(results, tmp_path / "kept")
    own, kept = ((tmp_path / name / "trials.csv").read_text().splitlines() for name in ("own", "kept"))
    assert own[0].split(",") == [*kept[0].split(",")[:-1], *COST, "track"]
    assert own[1].startswith(f"crema_d,clean,complete,concat,,0,{experiment().trials[0].key},done,,")
    assert ",20,1234,0123456789," in kept[1]


def test_a_name_with_a_comma_stays_one_cell(tmp_path: Path) -> None:
    results = collect(experiment(), Store(GOLDEN / "runs"))
    for row in results.rows:
        row.method = 'a, "b"\nc'
    frames(results)["trials"].to_csv(tmp_path / "trials.csv", index=False)
    assert set(pd.read_csv(tmp_path / "trials.csv").method) == {'a, "b"\nc'}


def test_an_empty_store_has_lines_without_numbers(tmp_path: Path) -> None:
    made = collect(experiment(), Store(tmp_path)).trials
    assert len(made) == 12
    assert set(made.status) == {"not run"}
