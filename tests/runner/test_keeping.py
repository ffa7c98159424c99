"""Keeping models, as a run does: what is asked for, what it takes, and what is run again for it."""

from __future__ import annotations

import argparse
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_local import Watcher

from mmbench.cli import parser
from mmbench.done import split_done
from mmbench.errors import UsageError
from mmbench.experiment import sizes
from mmbench.experiment.plan import Experiment, load
from mmbench.experiment.sizes import in_words, model_sizes
from mmbench.index import Index
from mmbench.provenance import Codes
from mmbench.runner.child import Job, execute
from mmbench.runner.local import LocalBackend
from mmbench.runner.loop import run_trials
from mmbench.running import Running
from mmbench.store import Store
from mmbench.trial import Trial

FILE = """
title: Two methods
datasets: {openclipart: {recipe: {epochs: 1, lr: 0.05}}}
methods: {concat: , cpm_net: }
seeds: [0, 1]
"""


def experiment(folder: Path, more: str = "", settings: Any = ()) -> Experiment:
    (folder / "two.yaml").write_text(FILE + more)
    return load(folder / "two.yaml", settings)


def running(folder: Path, of: Experiment, *options: str) -> Running:
    arguments: argparse.Namespace = parser().parse_args(["run", "two", "--results", str(folder), *options])
    return Running(of, Store(folder / "runs"), arguments, LocalBackend(1), Codes())


def test_processes_leave_models_and_a_trial_that_is_done_without_runs_again(
    tiny: Callable[..., Trial], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, backend, trial = Store(tmp_path), LocalBackend(1), tiny("mla")
    (record,) = run_trials([trial], store, backend, Watcher())
    assert (record.status, record.model_sha256) == ("done", None)
    before = (store.folder(trial.key) / "predictions.npz").read_bytes()

    def todo() -> tuple[int, int, str]:
        done, left = split_done([trial], Index(store), Codes(), keep_stale=True, keep_models=True)
        return len(done), len(left), capsys.readouterr().err

    assert todo() == (0, 1, "1 trial run again: done, but without the model\n")
    (record,) = run_trials([trial], store, backend, Watcher(), keep_models=True)
    assert store.model(record) == store.folder(trial.key)
    assert (store.folder(trial.key) / "predictions.npz").read_bytes() == before
    assert todo()[:2] == (1, 0)
    done, left = split_done([trial], Index(store), Codes(), keep_stale=True)
    assert (len(done), len(left)) == (1, 0), "a model that is not asked for is no harm"
    (store.folder(trial.key) / "model.safetensors").write_bytes(b"short")
    count, left_over, told = todo()
    assert (count, left_over) == (0, 1)
    assert "damaged: " in told
    assert "model.safetensors: expected " in told
    (store.folder(trial.key) / "model.json").unlink()
    assert "model.json: is missing" in todo()[2]
    store.done(trial.key)


def test_neither_keys_nor_the_name_of_the_report_depend_on_it(tmp_path: Path) -> None:
    plain, keeping = experiment(tmp_path), experiment(tmp_path, "keep: best\n")
    assert [t.key for t in plain.trials] == [t.key for t in keeping.trials]
    settings = ["datasets.openclipart.recipe.epochs=2"]
    changed = experiment(tmp_path, settings=settings), experiment(tmp_path, "keep: best\n", settings)
    assert changed[0].name == changed[1].name != plain.name


def test_what_may_be_kept(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="keep: input should be 'best', got 'last'"):
        experiment(tmp_path, "keep: last\n")


def test_the_file_or_the_option_asks_for_models(tmp_path: Path) -> None:
    assert not running(tmp_path, experiment(tmp_path)).keeps
    assert running(tmp_path, experiment(tmp_path), "--keep-models").keeps
    assert running(tmp_path, experiment(tmp_path, "keep: best\n")).keeps
    assert running(tmp_path, experiment(tmp_path)).room(experiment(tmp_path).trials) == ""


def test_the_size_is_told_beforehand(tmp_path: Path) -> None:
    of = experiment(tmp_path)
    told = model_sizes(of.trials)
    assert told[:2] == told[2:], "of both seeds"
    store = Store(tmp_path / "runs")
    for trial, size in zip(of.trials[:2], told, strict=False):
        store.folder(trial.key).mkdir(parents=True)
        assert execute(Job(trial, str(store.root), 1, "cpu", keep_model=True), store).status == "done"
        kept = [path for path in store.folder(trial.key).iterdir() if path.name.startswith("model.")]
        assert sum(path.stat().st_size for path in kept) == pytest.approx(size, rel=0.02)
    line = running(tmp_path, of, "--keep-models").room(of.trials)
    assert line.startswith(f"; 4 models to keep, about {sum(told) / 1e6:.1f} MB (")


def test_the_end_of_a_run_tells_where_models_are(tmp_path: Path) -> None:
    of = experiment(tmp_path)
    run, folders = running(tmp_path, of, "--keep-models"), [tmp_path / "runs" / trial.key for trial in of.trials]
    assert run.kept() == []
    told = {}
    for number, folder in enumerate(folders, 1):
        folder.mkdir(parents=True)
        (folder / "model.json").touch()
        told[number] = run.kept()
    assert told[1] == [f"kept, openclipart clean concat seed 0: mmbench predict {folders[0]} INPUT"]
    assert told[4] == [*told[3], "kept: 1 more model"]
    assert [line.split()[-2] for line in told[3]] == [str(folder) for folder in folders[:3]]
    assert running(tmp_path, of).kept() == []


def test_more_than_there_is_room_for_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")(10, 5, 5_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    monkeypatch.setattr(sizes, "model_size", lambda trial: 2_000_000)
    of = experiment(tmp_path)
    assert in_words(of.trials[:2], 0, tmp_path / "not" / "there") == "; 2 models to keep, about 4.0 MB (5.0 MB free)"
    with pytest.raises(UsageError, match=r"keeping 3 models takes 6\.0 MB, but only 5\.0 MB are free"):
        in_words(of.trials[:2], 1, tmp_path)
