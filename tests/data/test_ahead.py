"""Batches that a thread gathers ahead are those that there are without it."""

from __future__ import annotations

import gc
import threading
import traceback
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mmbench.baselines import METHODS
from mmbench.batch import Batch
from mmbench.data.ahead import gathered_ahead
from mmbench.data.base import MultimodalDataModule
from mmbench.data.split import Batches, Shares, Split, as_is
from mmbench.lean import log_epoch
from mmbench.missing import Missing
from mmbench.recipe import Recipe
from mmbench.testing.planted import Planted2, Planted3, planted_world, same, weights
from mmbench.training import lean_trainer
from simulated import CPU, DEVICE, Simulated


@pytest.fixture(autouse=True)
def pinned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The threads in which batches were pinned; there is no pinned memory without a GPU."""
    threads: list[str] = []
    monkeypatch.setattr(Batch, "pin_memory", lambda self: threads.append(threading.current_thread().name) or self)
    return threads


def split(size: int = 23) -> Split:
    generator = torch.Generator().manual_seed(3)
    present = torch.rand(size, 2, generator=generator) > 0.3
    inputs: Any = {"a": torch.randn(size, 4, generator=generator), "b": {"token": torch.arange(size)}}
    return Split(inputs, present, torch.arange(size) % 3, torch.arange(size))


def batches(ahead: bool, size: int = 23, seed: int = 5) -> Batches:
    loader = Batches(
        split(size), batch_size=5, shuffle=True, generator=torch.Generator().manual_seed(seed), collate_fn=as_is
    )
    loader.ahead = ahead
    return loader


def running() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("batches")]


def equal(one: Batch, other: Batch) -> bool:
    pairs = [
        (one.inputs["a"], other.inputs["a"]),
        (one.inputs["b"]["token"], other.inputs["b"]["token"]),
        (one.present, other.present),
        (one.label, other.label),
        (one.index, other.index),
    ]
    return all(torch.equal(a, b) for a, b in pairs) and one.shares == other.shares


def test_epochs_are_the_same_and_so_is_what_is_drawn_between_them(pinned: list[str]) -> None:
    plain, ahead = batches(False), batches(True)
    for _ in range(3):
        pairs = list(zip(plain, ahead, strict=True))
        assert len(pairs) == 5
        assert all(equal(a, b) for a, b in pairs)
        assert not running()
        assert torch.equal(plain.generator.get_state(), ahead.generator.get_state())
    assert len(pinned) == 15
    assert set(pinned) == {"batches_0"}


def test_the_generator_is_not_drawn_from_ahead() -> None:
    plain, ahead = batches(False), batches(True)
    for one, other in zip(plain, ahead, strict=True):
        assert torch.equal(plain.generator.get_state(), ahead.generator.get_state())
        assert equal(one, other)


def test_rows_are_taken_one_batch_ahead_and_in_the_callers_thread() -> None:
    taken: list[tuple[int, str]] = []

    def rows() -> Iterator[list[int]]:
        for number in range(4):
            taken.append((number, threading.current_thread().name))
            yield [number]

    found = gathered_ahead(split().__getitems__, rows())
    assert next(found).index.tolist() == [0]
    assert taken == [(0, "MainThread"), (1, "MainThread")]
    assert [batch.index.item() for batch in found] == [1, 2, 3]


def test_shares_of_several_devices_are_gathered_alike() -> None:
    for rank in range(2):
        plain, ahead = (Shares(batches(way), rank, 2, {"b"}) for way in (False, True))
        assert all(equal(one, other) for one, other in zip(plain, ahead, strict=True))


@pytest.mark.parametrize("size", [0, 1, 5, 6])
def test_any_number_of_batches(size: int) -> None:
    assert [
        len(batch) for batch in gathered_ahead(split().__getitems__, torch.arange(size).split(5) if size else [])
    ] == ([5] * (size // 5) + [size % 5] * (size % 5 > 0))


@pytest.mark.parametrize("broken", [0, 2, 4])
def test_what_goes_wrong_in_the_thread_is_raised_where_its_batch_would_have_come(broken: int) -> None:
    def gather(number: int) -> Batch:
        if number == broken:
            raise OSError("a disk that is gone")
        return split()[number]

    found, got = gathered_ahead(gather, range(5)), []
    with pytest.raises(OSError, match="a disk that is gone") as raised:
        got.extend(found) if broken == 0 else [got.append(batch) for batch in found]
    assert [batch.index.item() for batch in got] == list(range(broken))
    assert "gather" in [frame.name for frame in traceback.extract_tb(raised.value.__traceback__)]
    assert not running()


def test_the_thread_ends_where_an_epoch_is_broken_off() -> None:
    found = iter(batches(True))
    next(found)
    assert running() == ["batches_0"]
    del found
    assert not running()


def test_content_reaches_a_device_as_it_was(pinned: list[str]) -> None:
    with Simulated() as simulated:
        for plain, ahead in zip(batches(False), batches(True), strict=True):
            there = ahead.to(DEVICE)
            assert simulated.waits.total() == 0
            assert equal(there.to(CPU), plain)
            simulated.waits.clear()
    assert len(pinned) == 5


@pytest.mark.parametrize(("device", "ahead"), [("cuda", True), ("cpu", False)])
def test_it_is_done_for_a_gpu_in_training_and_evaluation(device: str, ahead: bool) -> None:
    data = planted_world(Planted2).data
    assert not data.train_dataloader().ahead
    data.trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device(device)), world_size=1)
    loaders = (data.train_dataloader(), data.val_dataloader(), data.test_dataloader(), data.predict_dataloader())
    assert [loader.ahead for loader in loaders] == 4 * [ahead]


def test_a_trial_has_the_same_numbers(monkeypatch: pytest.MonkeyPatch, pinned: list[str]) -> None:
    def trained() -> tuple[dict[str, Any], torch.Tensor]:
        world = planted_world(Planted3)
        world.data.missing = Missing(rate=0.4, train_only=True, redraw=True)
        task = world.build(METHODS["ogm_ge"], recipe=Recipe(epochs=3, batch_size=8, lr=0.01))
        trainer = lean_trainer(task.recipe, "cpu", [], [])
        task.log_epoch = partial(log_epoch, trainer)
        torch.manual_seed(2)
        trainer.fit(task, datamodule=world.data)
        return weights(task), torch.cat(trainer.predict(task, datamodule=world.data), dim=1)

    plain, predicted = trained()
    assert not pinned
    monkeypatch.setattr(MultimodalDataModule, "gathers_ahead", True)
    ahead, again = trained()
    assert len(pinned) == 3 * (5 + 1) + 1
    assert same(plain, ahead)
    assert torch.equal(predicted, again)
    assert not running()


def test_a_method_that_raises_leaves_no_thread_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MultimodalDataModule, "gathers_ahead", True)

    def broken() -> None:
        world = planted_world(Planted2)
        task = world.build(METHODS["sum"])
        task.training_step = lambda batch, number: {}["loss"]
        lean_trainer(task.recipe, "cpu", [], []).fit(task, datamodule=world.data)

    with pytest.raises(KeyError):
        broken()
    gc.collect()
    assert not running()
