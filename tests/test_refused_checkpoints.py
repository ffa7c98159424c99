# ruff: noqa: F401, F811  fixtures that are imported
"""Checkpoints that a trial must not go on from: torn, forged, or of something else."""

from __future__ import annotations

import errno
import json
import math
import os
import pickle
import re
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from mmbench.curves import rows_of, told
from mmbench.errors import StoreError
from mmbench.packing import Damaged, NotPlain, read_head, read_state, write_state
from mmbench.training import run
from mmbench.training_state import SPARE
from test_resuming import checkpoint_of, same, tables, trial, until


class Executed(Exception):
    """Something in a file was executed."""


class Bomb:
    """What pickle executes when it reads it."""

    def __reduce__(self) -> Any:
        return exec, ("import test_refused_checkpoints as t; raise t.Executed",)


def head_changed(name: str, value: object) -> Callable[[bytes], bytes]:
    """A change of the head alone."""

    def change(data: bytes) -> bytes:
        head, _, rest = data.partition(b"\n")
        return json.dumps({**json.loads(head), name: value}).encode() + b"\n" + rest

    return change


def state_changed(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    """Another state, under a checksum that is right, as a forger would make it."""

    def forge(data: bytes) -> bytes:
        head, _, rest = data.partition(b"\n")
        told = json.loads(head)
        layout = json.loads(rest[: told["layout"]])
        change(layout)
        made = json.dumps(layout).encode() + b"\n"
        first = json.dumps({**told, "layout": len(made)}).encode() + b"\n"
        body = first + made + rest[told["layout"] : -64]
        return body + sha256(body).hexdigest().encode()

    return forge


def of_state(layout: dict[str, Any], name: str) -> list[Any]:
    """The pair of a name in the state's dictionary."""
    return next(pair for pair in layout["values"]["pairs"] if pair[0] == name)


def replaced(name: str, value: object) -> Callable[[bytes], bytes]:
    """Something else in the place of a part of the state."""
    return state_changed(lambda layout: of_state(layout, name).__setitem__(1, value))


def of_first_tensor(number: int, value: object) -> Callable[[bytes], bytes]:
    """Another type, shape or stride of the first tensor."""
    return state_changed(lambda layout: next(iter(layout["tensors"].values())).__setitem__(number, value))


def with_values(values: str, tensors: str = "") -> Callable[[bytes], bytes]:
    """A layout of other values and tensors, as JSON, under a checksum that is right."""

    def forge(data: bytes) -> bytes:
        told = json.loads(data.partition(b"\n")[0])
        made = f'{{"tensors": {{{tensors}}}, "values": {values}}}\n'.encode()
        body = json.dumps({**told, "layout": len(made), "bytes": 0}).encode() + b"\n" + made
        return body + sha256(body).hexdigest().encode()

    return forge


def signed(change: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """A change, under a checksum that is right."""

    def forge(data: bytes) -> bytes:
        body = change(data)[:-64]
        return body + sha256(body).hexdigest().encode()

    return forge


EMPTY = ", ".join(f'"{number}": ["bool", [0], [1]]' for number in range(100_000))
START, LAYOUT, FIT = (
    "it does not begin as a file of state does",
    "its layout is none of a state",
    "its state does not fit the trial",
)
REFUSED = {
    "cut off": (lambda data: data[:-1], "bytes, and says that it has"),
    "half": (lambda data: data[: len(data) // 2], "bytes, and says that it has"),
    "empty": (lambda data: b"", START),
    "longer": (lambda data: data + b"x", "bytes, and says that it has"),
    "a bit": (lambda data: data[:-200] + bytes([data[-200] ^ 1]) + data[-199:], "its checksum is wrong"),
    "a pickle": (lambda data: pickle.dumps(Bomb()), START),
    "a pickle behind a line": (lambda data: b"{}\n" + pickle.dumps(Bomb()), START),
    "a huge head": (lambda data: b'"' + b"x" * 2**21 + data, START),
    "a huge layout": (head_changed("layout", 2**50), "bytes, and says that it has"),
    "a negative size": (head_changed("bytes", -1), START),
    "a deep layout": (with_values("[" * 10**5 + "]" * 10**5), LAYOUT),
    "a long layout": (with_values("[" + "0, " * 2**22 + "0]"), "bytes of plain values, more than a state"),
    "empty lists": (with_values('{"list": [' + '{"list":[]},' * 200_000 + "0]}"), "more lists and dictionaries than"),
    "empty tensors": (with_values("0", EMPTY), "more lists and dictionaries than a state"),
    "a time that is no number": (
        signed(head_changed("seconds", {"fit": math.nan})),
        "its head is none of a checkpoint",
    ),
    "a time below zero": (signed(head_changed("seconds", {"fit": -1.0})), "its head is none of a checkpoint"),
    "a huge tensor": (of_first_tensor(1, [2**60]), LAYOUT),
    "more rows of nothing than can be counted": (
        with_values("0", '"": ["bool", [140737488355327, 140737488355327, 0], [1, 140737488355327, 1]]'),
        LAYOUT,
    ),
    "a shape that no number holds": (of_first_tensor(1, [0, 2**70]), LAYOUT),
    "a negative stride": (of_first_tensor(2, [-1]), LAYOUT),
    "a negative shape": (of_first_tensor(1, [-1]), LAYOUT),
    "overlapping numbers": (of_first_tensor(2, [0]), LAYOUT),
    "another type": (of_first_tensor(0, "object"), LAYOUT),
    "no pairs": (state_changed(lambda layout: layout.update(values={"pairs": [1]})), LAYOUT),
    "no state": (state_changed(lambda layout: layout.update(values=[])), "its head is none of a checkpoint"),
    "another tensor": (state_changed(lambda layout: layout.update(values={"tensor": "x"})), LAYOUT),
    "other weights": (state_changed(lambda layout: of_state(layout, "weights")[1]["pairs"].pop()), FIT),
    "no optimiser": (replaced("optimizers", {"list": []}), FIT),
    "no generators": (replaced("generators", {"pairs": []}), FIT),
    "no curves": (replaced("curves", 3), FIT),
}


@pytest.fixture(scope="module")
def half() -> dict[str, Any]:
    """A checkpoint after two epochs of four, and the outcome of the whole trial, once they are known."""
    return {}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_was_not_written_is_refused_in_words_and_the_trial_begins_anew(
    kind: str,
    half: dict[str, Any],
    until: Any,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    of = trial("concat")
    if not half:
        until(of, 2)
        half |= {"data": (tmp_path / "last.ckpt").read_bytes(), "whole": run(of, device="cpu")}
    change, words = REFUSED[kind]
    (tmp_path / "last.ckpt").write_bytes(change(half["data"]))
    capfd.readouterr()
    found = checkpoint_of(of, tmp_path, every=0.0)
    same(run(of, device="cpu", checkpoint=found), half["whole"])
    said = capfd.readouterr().out
    assert re.search(rf"last\.ckpt is not used: .*{words}.*; the trial begins anew\n", said)
    assert said.count("epoch 0 ") == 1
    assert (found.resumed, found.first) == ([], "")
    assert not (tmp_path / "last.ckpt").exists()


@pytest.mark.parametrize("name", ["key", "schema", "code", "torch"])
def test_what_is_of_something_else_is_not_used(
    name: str,
    until: Any,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    of = trial("concat", epochs=2)
    until(of, 1)
    found = checkpoint_of(of, tmp_path)
    found.of = {**found.of, name: "another"}
    run(of, device="cpu", checkpoint=found)
    assert (
        f"last.ckpt is not used: it has another {name} than this trial; the trial begins anew" in capfd.readouterr().out
    )
    assert not found.resumed


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["folder", "pipe"])
def test_something_else_in_its_place_makes_way(
    make: Callable[[Path], None], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path / "last.ckpt")
    of = trial("concat", epochs=1)
    run(of, device="cpu", checkpoint=checkpoint_of(of, tmp_path))
    assert "last.ckpt is not used: it is not a file; the trial begins anew" in capfd.readouterr().out
    assert read_head(tmp_path / "last.ckpt") is not None


def test_one_that_cannot_be_read_for_now_stays(until: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stale(*_: object) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    of = trial("concat", epochs=2)
    until(of, 1)
    with monkeypatch.context() as patch:
        patch.setattr("mmbench.packing.opened", stale)
        with pytest.raises(StoreError, match=r"cannot read .*last\.ckpt: Stale file handle"):
            run(of, device="cpu", checkpoint=checkpoint_of(of, tmp_path))
    found = checkpoint_of(of, tmp_path)
    run(of, device="cpu", checkpoint=found)
    assert found.resumed


def test_every_bit_of_a_file_counts(tmp_path: Path) -> None:
    import torch

    path = tmp_path / "state"
    write_state(path, {"key": "k"}, {"a": [torch.arange(3), (1.5, None)], "b": {1: "x"}})
    data = path.read_bytes()
    for position in range(len(data)):
        path.write_bytes(data[:position] + bytes([data[position] ^ 1 << position % 8]) + data[position + 1 :])
        with pytest.raises(Damaged):
            read_state(path, 1e6)
    path.write_bytes(data)
    assert read_state(path, 24)["b"] == {1: "x"}
    with pytest.raises(Damaged, match="it has 24 bytes of tensors, more than a state of this kind has"):
        read_state(path, 23)
    with pytest.raises(NotPlain, match=r"400 bytes of tensors and .* more than a state of this kind has"):
        write_state(path, {}, torch.zeros(100), most=399)
    with pytest.raises(NotPlain, match=r"0 bytes of tensors and .* more than a state of this kind has"):
        write_state(path, {}, [[] for _ in range(200_000)])


def test_the_curves_of_all_epochs_that_a_recipe_can_have_fit_into_a_state(tmp_path: Path) -> None:
    path = tmp_path / "state"
    rows = [{f"gradient/modality_{m}": epoch + m / 7 for m in range(epoch % 2, 16)} for epoch in range(100_000)]
    write_state(path, {}, told(rows), SPARE)
    assert rows_of(read_state(path, SPARE)) == rows
