"""Trials on several devices, through real processes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_local import Watcher

from mmbench.locks import let_go, lock
from mmbench.record import Record
from mmbench.runner.local import LocalBackend
from mmbench.runner.loop import run_trials
from mmbench.runner.turns import Times
from mmbench.store import Store
from mmbench.tracking import WandbSettings
from mmbench.trial import Trial

MakeTrial = Callable[..., Trial]


def run(trial: Trial, store: Store, devices: int = 2, view: Watcher | None = None, **settings: Any) -> Record:
    (record,) = run_trials(
        [trial], store, LocalBackend(2), view or Watcher(), devices_of=lambda trial: devices, **settings
    )
    return record


@pytest.mark.parametrize("method", ["mla", "dmrnet"])
def test_a_trial_has_one_key_and_one_result_on_any_number_of_devices(
    method: str, tiny: MakeTrial, tmp_path: Path
) -> None:
    trial = tiny(method, epochs=2)
    stores = [Store(tmp_path / str(devices)) for devices in (1, 2)]
    alone, both = (run(trial, store, devices) for devices, store in enumerate(stores, 1))
    assert alone.status == both.status == "done"
    assert alone.key == both.key
    assert "devices" not in alone.environment
    assert both.environment["devices"] == 2
    one, two = (store.predictions(record) for store, record in zip(stores, (alone, both), strict=True))
    assert np.array_equal(one.label, two.label)
    assert np.array_equal(one.present, two.present)
    np.testing.assert_allclose(np.exp(one.log_probs, dtype=float), np.exp(two.log_probs, dtype=float), atol=2e-3)
    for a, b in zip(alone.curves, both.curves, strict=True):
        assert a == pytest.approx(b, abs=1e-3)
    log = stores[1].log(both.key).read_text()
    assert "2 processes together" in log
    assert log.count("epoch 1 ") == 1  # of rank 0 alone


def test_an_error_on_one_device_is_the_trials(tiny: MakeTrial, tmp_path: Path) -> None:
    record = run(tiny("tiny_one_rank"), Store(tmp_path))
    assert record.status == "failed"
    assert record.failure is not None
    assert record.failure.kind == "exception"
    assert record.failure.message == "rank 1: ValueError: broken on one device"
    assert "broken on one device" in record.failure.traceback


def test_all_devices_diverge_together(tiny: MakeTrial, tmp_path: Path) -> None:
    record = run(tiny("tiny_nan"), Store(tmp_path))
    assert record.failure is not None
    assert record.failure.kind == "diverged"


def test_a_process_that_is_killed_takes_the_others_along_and_the_trial_runs_again(
    tiny: MakeTrial, tmp_path: Path
) -> None:
    view = Watcher()
    assert run(tiny("tiny_one_rank_killed"), Store(tmp_path), view=view).status == "done"
    assert [what for what, _ in view.events] == ["started", "retried", "started", "done"]
    assert view.reasons == ["killed by SIGKILL (the system does this when memory runs out)"]


def test_a_trial_on_two_devices_goes_on_to_the_bit(tiny: MakeTrial, tmp_path: Path) -> None:
    encoder = {"name": "mlp", "in_dim": 4, "width": 8, "layers": 2, "dropout": 0.3}  # draws on each device for itself
    trial = tiny("dmrnet", epochs=5).model_copy(update={"encoders": dict.fromkeys(("left", "right"), encoder)})
    whole, parts = Store(tmp_path / "whole"), Store(tmp_path / "parts")
    expected = run(trial, whole)
    limited = run(trial, parts, times=Times(checkpoint_every=1e-3, trial=1e-3))
    assert limited.failure is not None
    assert limited.failure.kind == "time_limit"
    record = run(trial, parts, times=Times(checkpoint_every=1e-3))
    assert [resumed.epoch for resumed in record.resumed] == [1]
    assert parts.predictions(record).log_probs.tobytes() == whole.predictions(expected).log_probs.tobytes()
    assert record.curves == expected.curves


def test_what_is_always_killed_is_given_up(tiny: MakeTrial, tmp_path: Path) -> None:
    record = run(tiny("tiny_killed"), Store(tmp_path))
    assert record.failure is not None
    assert record.failure.kind == "killed"
    assert record.failure.message.endswith("3 times")


def test_another_process_that_was_forked_does_not_hold_the_trials_lock(tmp_path: Path) -> None:
    ready, stay = os.pipe(), os.pipe()
    with lock(tmp_path / "lock"):
        if not (process := os.fork()):
            let_go()
            os.write(ready[1], b".")
            os.close(stay[1])
            os.read(stay[0], 1)
            os._exit(0)
        os.read(ready[0], 1)
    with lock(tmp_path / "lock", wait=False) as mine:
        assert mine
    os.close(stay[1])
    os.waitpid(process, 0)


@pytest.mark.slow
def test_one_run_in_wandb_and_every_pattern_in_each_epoch(tiny: MakeTrial, tmp_path: Path) -> None:
    wandb = WandbSettings(mode="offline", group="several", folder=str(tmp_path / "wandb"))
    record = run(tiny("mla"), Store(tmp_path), wandb=wandb)
    assert record.status == "done"
    assert len(list((tmp_path / "wandb" / "wandb").glob("offline-run-*"))) == 1
    assert all("validation/accuracy/left" in row for row in record.curves)
