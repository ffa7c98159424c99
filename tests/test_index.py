"""The index of a store: it spares reading, and is never believed where the files are not those that it is of."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

import mmbench.index
from mmbench.cli import main
from mmbench.experiment.plan import load as load_experiment
from mmbench.index import NAME, RACY, Index, Summary, load
from mmbench.record import Code, Failure, Record
from mmbench.report.collect import collect
from mmbench.store import CorruptRecord, Store
from test_provenance import OURS, here, write  # noqa: F401  a fixture
from test_store import make_predictions, make_record, make_trial

CODE = Code(core="c", method={"mmbench.baselines.sum": "m"}, data={}, encoders={})


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is written is noted at once, as if it had been written long before it is read."""
    monkeypatch.setattr(mmbench.index, "RACY", -RACY)


@pytest.fixture
def store(tmp_path: Path, later: None) -> Store:
    """A trial that is done, one that has failed and one that tuned, all of them noted in the index."""
    store = Store(tmp_path / "runs")
    tuned = make_trial(2).model_copy(update={"tuning": True})
    curves = [{"validation/accuracy": value} for value in (0.1, float("nan"), 0.7)]
    store.write(make_record(0, code=CODE, seconds={"fit": 1.5, "test": 0.25}), make_predictions())
    failure = Failure(
        kind="diverged",
        message="NaN in \ud83d\ude00 the loss".encode("utf-16", "surrogatepass").decode("utf-16"),
        traceback="…",
    )
    store.write(make_record(1, status="failed", failure=failure))
    store.write(make_record(key=tuned.key, trial=tuned, curves=curves, stages={"pretraining": 1}))
    with Index(store) as index:
        for key in store.find(""):
            index.look(key)
    assert (store.root / NAME).is_file()
    return store


def seen(store: Store) -> dict[str, Summary | str | None]:
    """What an index says of every trial, and of one that was never run."""
    found: dict[str, Summary | str | None] = {}
    with Index(store) as index:
        for key in [*store.find(""), "feedbeef"]:
            try:
                found[key] = index.look(key)
            except CorruptRecord as error:
                found[key] = str(error)
    return found


def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let whatever reads a record or predictions fail."""

    def fail(*_: object) -> None:
        raise AssertionError("a file was read")

    monkeypatch.setattr(Store, "record", fail)
    monkeypatch.setattr(Store, "predictions", fail)


def test_what_is_noted_is_what_the_files_say_and_they_are_not_read(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = {key: store.record(key) for key in store.find("")}
    unread(monkeypatch)
    found = seen(store)
    assert found.pop("feedbeef") is None
    assert repr(found) == repr({key: Summary.of(record) for key, record in records.items() if record})
    done, failed = (found[make_record(seed).key] for seed in (0, 1))
    assert isinstance(done, Summary)
    assert isinstance(failed, Summary)
    assert (done.status, done.seconds, done.code) == ("done", 1.75, CODE)
    assert (failed.status, failed.label) == ("failed", "toy clean sum seed 1")
    assert failed.failure == Failure(kind="diverged", message="NaN in 😀 the loss")


# Files that change


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def flip_by_another_file(path: Path) -> None:
    """As an editor or rsync writes, with the old time."""
    found = path.stat()
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    flip(other)
    os.utime(other, ns=(found.st_atime_ns, found.st_mtime_ns))
    other.replace(path)


def flip_and_set_the_time_back(path: Path) -> None:
    found = path.stat()
    flip(path)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def circle(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


@pytest.mark.parametrize("name", ["record.json", "predictions.npz"])
@pytest.mark.parametrize(
    "harm", [flip, flip_by_another_file, flip_and_set_the_time_back, circle, lambda path: path.write_bytes(b"")]
)
def test_damage_is_found_although_the_file_was_noted_as_whole(
    store: Store, name: str, harm: Callable[[Path], object]
) -> None:
    key = make_record(0).key
    harm(store.folder(key) / name)
    for _ in range(2):  # it is not noted as damaged either
        told = seen(store)[key]
        assert isinstance(told, str)
        assert name in told


def test_a_record_that_is_gone_is_gone_and_one_that_comes_is_read(store: Store) -> None:
    key, new = make_record(0).key, make_record(7)
    shutil.rmtree(store.folder(key))
    store.write(new, make_predictions())
    found = seen(store)
    assert key not in found
    assert found[new.key] == Summary.of(new)
    with Index(store) as index:
        assert index.look(key) is None
    seen(store)
    assert set(load(store.root / NAME)) == set(store.find("")), "what is gone is noted no longer"


def test_predictions_that_appear_where_there_must_be_none_are_damage(store: Store) -> None:
    (key,) = [key for key, found in seen(store).items() if isinstance(found, Summary) and found.validation]
    (store.folder(key) / "predictions.npz").symlink_to("nowhere")
    told = seen(store)[key]
    assert isinstance(told, str)
    assert "of a trial that tunes and has none" in told


def test_what_was_just_written_is_read_again_since_its_times_may_not_change(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system that counts whole seconds: the second write leaves the first one's times."""
    monkeypatch.setattr(mmbench.index, "RACY", RACY)
    new = make_record(7)
    store.write(new, make_predictions())
    seen(store)
    assert new.key not in load(store.root / NAME)
    stamps = mmbench.index.stamp_of(str(store.folder(new.key) / "record.json"))
    store.write(make_record(7, parameters=8), make_predictions(1))
    original = mmbench.index.stamp_of
    monkeypatch.setattr(
        mmbench.index, "stamp_of", lambda path: stamps if new.key in path and "record" in path else original(path)
    )
    flip(store.folder(new.key) / "record.json")
    assert "checksum" in str(seen(store)[new.key])


def test_what_was_just_copied_with_its_old_times_is_read_again_too(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mmbench.index, "RACY", RACY)
    (store.root / NAME).unlink()
    for path in store.root.glob("*/*"):
        os.utime(path, ns=(0, 0))
    seen(store)
    assert not (store.root / NAME).exists()


def test_a_clock_that_is_ahead_costs_reading_and_nothing_else(store: Store) -> None:
    key = make_record(0).key
    os.utime(store.folder(key) / "record.json", ns=(2**62, 2**62))
    assert seen(store)[key] == Summary.of(store.record(key) or make_record())
    assert load(store.root / NAME)[key][0][0] != mmbench.index.stamp_of(str(store.folder(key) / "record.json"))


# Indexes that are of no use


def signed(text: str) -> bytes:
    """An index with this content, as one who knows the format would forge it."""
    rest = text.removeprefix("{\n").encode()
    return b'{"checksum": "%s",\n' % sha256(rest).hexdigest().encode() + rest


def content(path: Path) -> dict:
    return json.loads(path.read_bytes().split(b"\n", 1)[1].join([b"{", b""]))


def lie(path: Path) -> None:
    """Every failure is a success; the checksum is that of before."""
    path.write_bytes(path.read_bytes().replace(b'"failed"', b'"done"'))


def forged(change: Callable[[dict], object]) -> Callable[[Path], None]:
    """An index whose checksum is right."""

    def harm(path: Path) -> None:
        made = content(path)
        change(made)
        path.write_bytes(signed("{\n" + json.dumps(made)[1:]))

    return harm


def stamps_of_others(made: dict) -> None:
    """Each entry is that of the next trial."""
    entries = list(made["trials"].values())
    made["trials"] = dict(zip(made["trials"], entries[1:] + entries[:1], strict=True))


HARMS: list[Callable[[Path], object]] = [
    Path.unlink,
    lie,
    circle,
    flip,
    lambda path: path.write_bytes(b""),
    lambda path: path.write_bytes(path.read_bytes()[:-40]),
    lambda path: path.write_bytes(b"\xff" * 100),
    lambda path: path.write_bytes(signed("{\nnull}")),
    lambda path: path.write_bytes(signed("{\n" + "[" * 100_000)),
    lambda path: os.truncate(path, 2**40),
    forged(lambda made: made.update(made_by="another version")),
    forged(lambda made: made.update(kinds=[])),
    forged(lambda made: made.update(kinds=[[1, 2, 3]])),
    forged(lambda made: made.update(trials=[])),
    forged(lambda made: made["trials"].update({make_record(0).key: [None] * 4})),
    forged(stamps_of_others),
]


@pytest.mark.parametrize("number", range(len(HARMS)))
def test_an_index_that_is_of_no_use_is_made_again(
    store: Store, number: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = store.root / NAME
    meant, whole = repr(seen(store)), path.read_bytes()
    HARMS[number](path)
    assert repr(seen(store)) == meant
    assert path.read_bytes() == whole
    unread(monkeypatch)
    assert repr(seen(store)) == meant
    assert capsys.readouterr() == ("", ""), "nobody needs to know"


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["folder", "pipe"])
def test_what_is_no_file_in_its_place_is_told_and_left_alone(
    store: Store, make: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    path = store.root / NAME
    meant = repr(seen(store))
    path.unlink()
    make(path)
    for _ in range(2):
        assert repr(seen(store)) == meant
    assert not path.is_file()
    assert path.exists()
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"{path} is not a file, so all records are read each time; remove it")


def test_no_flipped_bit_of_an_index_is_believed(store: Store) -> None:
    path = store.root / NAME
    whole = path.read_bytes()
    for position in range(0, len(whole), 7):
        flipped = bytearray(whole)
        flipped[position] ^= 4
        path.write_bytes(flipped)
        assert load(path) == {}, position


def test_other_code_that_judges_records_reads_them_anew(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmbench.index.made_by", lambda: "later")
    key = make_record(0).key
    monkeypatch.setattr(Store, "record", lambda *_: make_record(0, seconds={"fit": 9.0}))
    monkeypatch.setattr(Store, "check", lambda *_: None)
    with Index(store) as index:
        found = index.look(key)
    assert found is not None
    assert found.seconds == 9.0


# A bit that the disk loses


def test_what_changes_without_a_trace_is_found_by_the_report_and_by_verifying(
    here: list,  # noqa: F811
    later: None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mmbench.provenance.read_module", OURS)
    store, key = Store("results/runs"), here[0].key
    assert main(["status"]) == 0
    path = store.folder(key) / "predictions.npz"
    before, original = mmbench.index.stamp_of(str(path)), mmbench.index.stamp_of
    flip(path)
    monkeypatch.setattr(mmbench.index, "stamp_of", lambda p: before if p == str(path) else original(p))
    capsys.readouterr()
    assert main(["status", "grid.yaml"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "4 trials, 4 done"
    (gap,) = collect(load_experiment("grid.yaml"), store).not_run
    assert f"damaged ({path}: not the file" in gap
    assert main(["status", "grid.yaml", "--verify"]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "4 trials, 1 damaged, 3 done"


# Where it cannot be written, and who writes it


def test_a_store_that_cannot_be_written_is_read(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    meant = repr(seen(store))
    (store.root / NAME).unlink()

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.replace", refuse)
    assert repr(seen(store)) == meant
    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    assert repr(seen(store)) == meant
    assert not (store.root / NAME).exists()
    assert capsys.readouterr() == ("", "")


def test_a_store_that_is_not_there_gets_no_index(tmp_path: Path) -> None:
    assert seen(Store(tmp_path / "runs")) == {"feedbeef": None}
    assert not list(tmp_path.iterdir())


def test_a_look_at_some_trials_keeps_what_is_noted_of_others(store: Store) -> None:
    noted = load(store.root / NAME)
    new = make_record(7)
    store.write(new, make_predictions())
    with Index(store, anew=True) as index:
        index.look(new.key)
    assert load(store.root / NAME) == {**noted, new.key: load(store.root / NAME)[new.key]}


SCAN = """
import sys
import mmbench.index
from mmbench.index import Index
from mmbench.store import Store
mmbench.index.RACY = -mmbench.index.RACY
store = Store(sys.argv[1])
for _ in range(30):
    with Index(store, anew=True) as index:
        for key in store.find(""):
            index.look(key)
"""


def test_several_processes_that_write_it_at_once_leave_a_whole_one(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    meant, noted = repr(seen(store)), load(store.root / NAME)
    command = [sys.executable, "-c", SCAN, str(store.root)]
    writers = [subprocess.Popen(command) for _ in range(2)]
    while any(writer.poll() is None for writer in writers):
        assert load(store.root / NAME) == noted, "whoever reads it meanwhile reads a whole one"
    assert [writer.returncode for writer in writers] == [0, 0]
    assert [path.name for path in store.root.iterdir() if path.name.startswith(".")] == [NAME]
    unread(monkeypatch)
    assert repr(seen(store)) == meant


# Commands


def test_commands_answer_alike_with_and_without_it(
    here: list,  # noqa: F811
    later: None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mmbench.provenance.read_module", OURS)
    store = Store("results/runs")
    failed = Record(
        **{**vars(store.record(here[1].key)), "status": "failed", "failure": Failure(kind="exception", message="no")}
    )
    store.write(failed)
    write(here[2], None)

    def answers() -> list[tuple[str, str]]:
        told = []
        for arguments in (["status"], ["status", "grid.yaml"], ["run", "grid.yaml", "--dry-run"]):
            capsys.readouterr()
            assert main(arguments) == 0
            told.append(capsys.readouterr())
        return told

    without = answers()
    assert "1 done, 1 failed, 2 stale" in without[0][0] or "done, 1 failed, 1 stale" in without[0][0]
    with monkeypatch.context() as patch:
        unread(patch)
        assert answers() == without
    (store.root / NAME).write_bytes(b"torn")
    assert answers() == without
