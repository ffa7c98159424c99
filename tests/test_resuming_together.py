# ruff: noqa: F401, F811  fixtures that are imported
"""Checkpoints of a trial on two devices: both processes do the same, whatever one of them finds. One pair runs all cases in turn."""

from __future__ import annotations

import errno
import logging
import os
import signal
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed as dist

from mmbench.errors import Stopped
from mmbench.resuming import Checkpoint, ResumableFit
from mmbench.training import run
from test_resuming import checkpoint_of, tables, trial

Told = dict[str, Any]


def ended(method: str, folder: Path, **settings: Any) -> tuple[Told, Checkpoint]:
    """How a trial of three epochs ends, and its checkpoint, on one of two devices."""
    of = trial(method, epochs=3)
    checkpoint = checkpoint_of(of, folder, **settings)
    try:
        curves = run(of, device="cpu", checkpoint=checkpoint, devices=2).curves
        said: Told = {"end": "done", "losses": [row["train/loss"] for row in curves]}
    except (Exception, Stopped) as error:
        said = {"end": f"{type(error).__name__}: {error}"}
    return {**said, "resumed": [again.epoch for again in checkpoint.resumed]}, checkpoint


def whole(rank: int, folder: Path, patch: pytest.MonkeyPatch) -> Told:
    return ended("concat", folder)[0]


def in_a_folders_place(rank: int, folder: Path, patch: pytest.MonkeyPatch) -> Told:
    if rank == 0:
        (folder / "last.ckpt" / "in it").mkdir(parents=True)
    dist.barrier()
    said, checkpoint = ended("concat", folder)
    return {**said, "file": checkpoint.path.is_file()}


def stopped_without_a_state(rank: int, folder: Path, patch: pytest.MonkeyPatch) -> Told:
    """The first process alone finds that the state cannot be written, after one epoch, and is asked to stop, in the second."""
    original = ResumableFit.on_advance_end

    def ask(loop: ResumableFit) -> None:
        loop.checkpoint.asked = rank == 0 and loop.epochs > 0 and not loop.checkpoint.every
        original(loop)

    patch.setattr(ResumableFit, "on_advance_end", ask)
    said, checkpoint = ended("unwilling", folder)
    return {**said, "file": checkpoint.path.exists()}


def out_of_time(folder: Path) -> None:
    assert ended("concat", folder, limit=1e-9)[0]["end"].startswith("OutOfTime")


def goes_on(rank: int, folder: Path, patch: pytest.MonkeyPatch) -> Told:
    out_of_time(folder)
    return ended("concat", folder)[0]


def unreadable_for_one(rank: int, folder: Path, patch: pytest.MonkeyPatch) -> Told:
    def stale(*_: object) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    out_of_time(folder)
    if rank == 1:
        patch.setattr("mmbench.packing.opened", stale)
    said, checkpoint = ended("concat", folder)
    return {**said, "file": checkpoint.path.is_file()}


def unseen_by_one(rank: int, folder: Path, patch: pytest.MonkeyPatch) -> Told:
    out_of_time(folder)
    if rank == 1:
        patch.setattr("mmbench.resuming.read_head", lambda path: None)
    said, checkpoint = ended("concat", folder)
    return {**said, "file": checkpoint.path.is_file()}


def fits_one(rank: int, folder: Path, patch: pytest.MonkeyPatch) -> Told:
    def restore(*_: object) -> None:
        raise KeyError("weights")

    out_of_time(folder)
    if rank == 1:
        patch.setattr("mmbench.resuming.restore_training", restore)
    return ended("concat", folder)[0]


CASES: list[Callable[[int, Path, pytest.MonkeyPatch], Told]] = [
    whole, in_a_folders_place, stopped_without_a_state, goes_on, unreadable_for_one, unseen_by_one, fits_one,
]  # fmt: skip


def work(rank: int, folder: Path) -> None:
    """Be one of the two, and write down how each case ended."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    os.environ["LOCAL_RANK"] = str(rank)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    told = {}
    for case in CASES:
        place = folder / case.__name__
        place.mkdir(exist_ok=True)
        with pytest.MonkeyPatch.context() as patch:
            told[case.__name__] = case(rank, place, patch)
    torch.save(told, folder / f"{rank}.told")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], list[dict[str, Told]]]:
    """What each of the two found, once they have run."""
    folder, found = tmp_path_factory.mktemp("together"), list[dict[str, Told]]()

    def both() -> list[dict[str, Told]]:
        if not found:
            processes = [fork(rank, folder) for rank in range(2)]
            codes = [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes]
            assert codes == [0, 0], "".join(path.read_text() for path in sorted(folder.glob("*.txt")))
            found.extend(torch.load(folder / f"{rank}.told", weights_only=False) for rank in range(2))
        return found

    return both


def fork(rank: int, folder: Path) -> int:
    if process := os.fork():
        return process
    code = 1
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(60)  # who waits for the other for ever has failed
        work(rank, folder)
        code = 0
    except BaseException:
        (folder / f"{rank}.txt").write_text(traceback.format_exc())
    finally:
        os._exit(code)


ENDS = {
    "whole": "done",
    "in_a_folders_place": "done",
    "stopped_without_a_state": "Stopped: ",
    "goes_on": "done",
    "unreadable_for_one": "StoreError: cannot read FOLDER/last.ckpt: Stale file handle",
    "unseen_by_one": "StoreError: cannot read FOLDER/last.ckpt: not all processes of the trial see the same there",
    "fits_one": "done",
}


@pytest.mark.parametrize("name", ENDS)
def test_both_processes_end_alike(name: str, pair: Callable[[], list[dict[str, Told]]], tables: None) -> None:
    one, other = (told[name] for told in pair())
    assert one == other
    words, _, path = ENDS[name].partition("FOLDER")
    assert one["end"].startswith(words)
    assert one["end"].endswith(path)
    assert one.get("file", name != "stopped_without_a_state") == (name != "stopped_without_a_state")
    assert one["resumed"] == ([1] if name == "goes_on" else [])
    if one["end"] == "done":
        assert one["losses"] == pair()[0]["whole"]["losses"]
