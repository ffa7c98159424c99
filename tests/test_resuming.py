"""A trial that was killed goes on where it was, to the bit; and nothing but its own checkpoint is used for that."""

from __future__ import annotations

import errno
import itertools
import os
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mmbench.arguments import resolve_arguments
from mmbench.baselines import METHODS
from mmbench.baselines.concat import Concat
from mmbench.batch import Batch
from mmbench.bundles.scrubbing import scrub
from mmbench.data import DATASETS
from mmbench.data.split import Loaded
from mmbench.durations import EACH
from mmbench.encoders import ENCODERS
from mmbench.errors import Stopped, StoreError
from mmbench.missing import Missing
from mmbench.packing import read_head, read_state, write_state
from mmbench.recipe import Recipe
from mmbench.record import Record, Resumed
from mmbench.resuming import Checkpoint, OutOfTime, ResumableFit
from mmbench.training import Outcome, run
from mmbench.training_state import same as alike
from mmbench.trial import Trial
from plugin.mmbench_testing import Tiny


class Killed(BaseException):
    """Stands for the end of a process."""


class Remembers(Concat):
    """Keeps what it learns from in attributes of every kind, in a buffer that no state has, in modes and in frozen weights."""

    def __init__(self, spec: Any, encoders: Any, recipe: Any = None) -> None:
        super().__init__(spec, encoders, recipe)
        self.own = np.random.default_rng(3)
        self.drawn = torch.Generator().manual_seed(4)
        self.history: dict[str, list[float]] = {"losses": []}
        self.scale = np.float64(1.0)
        self.sums = np.zeros(2)
        self.register_buffer("hidden", torch.zeros(3), persistent=False)
        self.told = {1, 2}

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        self.sums += self.own.random(2)
        self.scale = self.scale * 0.99
        self.hidden += torch.rand(3, generator=self.drawn)
        loss = super().training_step(batch, batch_idx)
        self.history["losses"].append(float(loss.detach()))
        if len(self.history["losses"]) == 6:
            self.encoders["left"].requires_grad_(False)
            self.encoders["right"].eval()
            self.late = (torch.rand(2), len(self.told))
            self.told = {3}
        late = self.late[0].sum() if hasattr(self, "late") else 0.0
        told = sum(self.told) + self.encoders["right"].training
        return loss * (self.scale + self.sums.sum() + self.hidden.sum() + late + told + len(self.history["losses"]))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["told"] = sorted(self.told)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.told = set(checkpoint["told"])


class OtherTest(Tiny):
    """The same data, but for the test split."""

    def load(self) -> Loaded:
        parts = super().load()
        inputs = {modality: 5 - values for modality, values in parts.test.inputs.items()}
        return replace(parts, test=replace(parts.test, inputs=inputs, label=2 - parts.test.label))


class Unwilling(Concat):
    """Has a state that no checkpoint can have."""

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["path"] = Path("here")


@pytest.fixture(autouse=True)
def tables(monkeypatch: pytest.MonkeyPatch) -> None:
    list(DATASETS), list(ENCODERS), list(METHODS)
    monkeypatch.setitem(DATASETS._targets, "tiny", "plugin.mmbench_testing:Tiny")
    monkeypatch.setitem(ENCODERS._targets, "tiny_linear", "plugin.mmbench_testing:TinyLinear")
    monkeypatch.setitem(METHODS._targets, "remembers", "test_resuming:Remembers")
    monkeypatch.setitem(METHODS._targets, "unwilling", "test_resuming:Unwilling")
    monkeypatch.setattr("torch.utils.deterministic.fill_uninitialized_memory", True)  # a trial's process changes it


REDRAW = Missing(rate=0.4, train_only=True, redraw=True)


def trial(method: str, tuning: bool = False, missing: Missing | None = REDRAW, seed: int = 0, **recipe: Any) -> Trial:
    params, _ = resolve_arguments(METHODS[method], {}, ("spec", "encoders", "recipe"))
    settings = {"epochs": 4, "batch_size": 16, "lr": 0.05, **recipe}
    return Trial(dataset="tiny", data=Tiny.manifest(), protocol="clean", missing=missing, method=method, seed=seed,
                 encoders={m: {"name": "tiny_linear"} for m in Tiny.modalities}, params=params,
                 recipe=Recipe(**settings), tuning=tuning)  # fmt: skip


def checkpoint_of(of: Trial, folder: Path, **settings: Any) -> Checkpoint:
    return Checkpoint(folder / "last.ckpt", {"key": of.key}, **{"every": EACH, "started": "now", **settings})


@pytest.fixture
def until(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Runs a trial until its process is killed, right after a checkpoint."""

    def kill(of: Trial, epochs: int, **settings: Any) -> None:
        def save(loop: ResumableFit) -> None:
            original(loop)
            if loop.epochs == epochs:
                raise Killed

        original = ResumableFit.save
        with monkeypatch.context() as patch:
            patch.setattr(ResumableFit, "save", save)
            with pytest.raises(Killed):
                run(of, device="cpu", checkpoint=checkpoint_of(of, tmp_path, **settings))
        # Another process has other generators, and draws from them before it comes to the trial.
        torch.manual_seed(99), np.random.seed(99), random.seed(99)

    return kill


def same(one: Outcome, other: Outcome) -> None:
    """Two outcomes are one."""
    assert one.curves == other.curves
    assert (one.best_epoch, one.stopped_epoch, one.stages) == (other.best_epoch, other.stopped_epoch, other.stages)
    assert one.gap == other.gap
    assert (one.predictions is None) == (other.predictions is None)
    if one.predictions is not None and other.predictions is not None:
        assert one.predictions.to_bytes() == other.predictions.to_bytes()


@pytest.mark.parametrize("method", [*sorted(METHODS), "remembers"])
def test_a_killed_trial_goes_on_to_the_bit(method: str, until: Any, tmp_path: Path) -> None:
    of = trial(method, step_size=2)
    whole = run(of, device="cpu")
    killed_at = 1 + sum(map(ord, method)) % len(whole.curves)
    until(of, killed_at)
    found = checkpoint_of(of, tmp_path)
    same(run(of, device="cpu", checkpoint=found), whole)
    assert [(r.epoch, bool(r.host)) for r in found.resumed] == [(killed_at, True)]


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("ogm_ge", {"tuning": True}),
        ("sum", {"patience": 1, "epochs": 8, "lr": 1e-9}),
        ("mmin", {"patience": 2, "epochs": 8, "lr": 1e-9}),
        ("film", {"optimizer": "adamw", "schedule": "cosine", "warmup": 2, "clip_norm": 0.1}),
        ("mla", {"optimizer": "adam", "schedule": "cosine", "warmup": 1, "missing": None}),
        ("shaspec", {"precision": "bf16", "missing": Missing(rate=0.3)}),
    ],
)
def test_killed_after_every_epoch(method: str, settings: dict[str, Any], until: Any, tmp_path: Path) -> None:
    of = trial(method, **settings)
    whole = run(of, device="cpu")
    epochs = len(whole.curves)
    assert epochs >= 2
    for epoch in range(1, epochs + 1):
        until(of, epoch)
    found = checkpoint_of(of, tmp_path)
    same(run(of, device="cpu", checkpoint=found), whole)
    assert [r.epoch for r in found.resumed] == list(range(1, epochs + 1))


def test_a_trial_without_interruption_is_what_it_was(tmp_path: Path) -> None:
    of = trial("qmf")
    same(run(of, device="cpu", checkpoint=checkpoint_of(of, tmp_path)), run(of, device="cpu"))
    assert (tmp_path / "last.ckpt").is_file()


def test_a_model_that_is_kept_is_that_of_the_whole_trial(until: Any, tmp_path: Path) -> None:
    of = trial("dmrnet", epochs=6)
    whole = run(of, device="cpu", keep_model=True).model
    until(of, 5)
    again = run(of, device="cpu", keep_model=True, checkpoint=checkpoint_of(of, tmp_path)).model
    assert whole is not None
    assert again is not None
    assert again.content == whole.content
    assert again.tensors.keys() == whole.tensors.keys()
    assert all(torch.equal(again.tensors[name], value) for name, value in whole.tensors.items())


def test_only_the_method_says_what_no_attribute_can_hold(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    of = trial("unwilling", epochs=2)
    outcome = run(of, device="cpu", checkpoint=checkpoint_of(of, tmp_path))
    assert len(outcome.curves) == 2, "the trial goes on without"
    said = capfd.readouterr().out
    assert said.count("no checkpoint of this trial: its state has a PosixPath, as extra/path") == 1
    assert not (tmp_path / "last.ckpt").exists()


# Time


def test_a_trial_that_is_asked_to_end_writes_its_state_whatever_the_interval(tmp_path: Path) -> None:
    of = trial("sum")
    asked = checkpoint_of(of, tmp_path, every=1e9)
    asked.asked = True
    with pytest.raises(Stopped):
        run(of, device="cpu", checkpoint=asked)
    assert not asked.path.exists(), "before there is an epoch, there is nothing to keep"


def test_a_checkpoint_is_written_when_its_time_has_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of, written = trial("sum", epochs=6), list[int]()
    clock = itertools.count()
    monkeypatch.setattr("mmbench.resuming.time", SimpleNamespace(perf_counter=lambda: float(next(clock))))
    monkeypatch.setattr(ResumableFit, "save", lambda loop: written.append(loop.epochs))
    run(of, device="cpu", checkpoint=checkpoint_of(of, tmp_path, every=1e9))
    assert not written
    run(of, device="cpu", checkpoint=checkpoint_of(of, tmp_path, every=1e-9))
    assert written == [1, 2, 3, 4, 5, 6]


def test_a_limit_that_passes_in_the_last_epoch_is_none(tmp_path: Path) -> None:
    of = trial("sum", epochs=2)
    with pytest.raises(
        OutOfTime, match="the time limit of 1e-06s has passed after 1 of 2 epochs; a larger limit goes on from there"
    ):
        run(of, device="cpu", checkpoint=checkpoint_of(of, tmp_path, limit=1e-6))
    single = trial("sum", epochs=1)
    assert len(run(single, device="cpu", checkpoint=checkpoint_of(single, tmp_path, limit=1e-6)).curves) == 1


def test_seconds_are_of_all_processes(until: Any, tmp_path: Path) -> None:
    of = trial("sum")
    until(of, 3)
    head = read_head(tmp_path / "last.ckpt")
    assert head is not None
    found = checkpoint_of(of, tmp_path)
    state = found.read(1e9)
    assert state is not None
    assert len(state["curves"]) == head["epochs"] == 3
    head["seconds"] = {"build": 100.0, "fit": 1000.0}
    write_state(found.path, head, state)
    outcome = run(of, device="cpu", checkpoint=checkpoint_of(of, tmp_path))
    assert 100 < outcome.seconds["build"] < 200
    assert 1000 < outcome.seconds["fit"] < 1100


@pytest.mark.parametrize(
    ("method", "changes", "knows"),
    [
        *((method, {"tuning": True}, False) for method in ("cpm_net", "mla", "mmin", "qmf")),
        ("mla", {"protocol": "peek"}, True),
    ],
)
def test_the_state_of_a_trial_that_tunes_knows_nothing_of_the_test_split(
    method: str, changes: dict[str, Any], knows: bool, until: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With other test samples it is the same to the last bit; that of a trial which chooses its epoch by them is not."""
    of = trial(method).model_copy(update=changes)
    states = []
    for data in ("plugin.mmbench_testing:Tiny", "test_resuming:OtherTest"):
        monkeypatch.setitem(DATASETS._targets, "tiny", data)
        until(of, 3)
        found = checkpoint_of(of, tmp_path)
        states.append(read_state(found.path, 2**30))
        found.remove()
    assert alike(*states) is not knows


# The rest of the house


def test_a_full_disk_is_told_as_for_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    of = trial("sum", epochs=2)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        StoreError, match=r"cannot write .*last\.ckpt: No space left on device; free some space and run again"
    ):
        run(of, device="cpu", checkpoint=checkpoint_of(of, tmp_path))
    assert not list(tmp_path.iterdir())


def test_records_of_trials_that_did_not_go_on_are_written_as_ever() -> None:
    of = trial("sum")
    record = Record(key=of.key, trial=of, status="done", started="then", finished="now", environment={"host": "here"})
    assert b"resumed" not in record.to_bytes()
    assert Record.from_bytes(record.to_bytes()) == record
    record.resumed = [Resumed(epoch=3, host="here", when="then")]
    assert Record.from_bytes(record.to_bytes()).resumed == record.resumed
    assert [went_on.host for went_on in scrub(record).resumed] == ["<host>"], "nobody else need know on which machine"
