"""Preparing: what it writes, what it refuses, and that no interruption changes the result."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import toy
from mmbench.data.preparing import decoding
from mmbench.data.preparing import prepare as prepare_module
from mmbench.data.preparing.manifest import verify
from mmbench.data.preparing.prepare import locked, prepare
from mmbench.data.preparing.vouching import hash_file
from mmbench.errors import DataError, Interrupted, UsageError
from toy import Toy, change, write_toy

FIELDS = ("big.npy", "small.npy", "samples.parquet", "manifest.json")


@pytest.fixture
def raw(tmp_path, monkeypatch):
    monkeypatch.setenv("MMBENCH_DATA", str(tmp_path / "data"))
    write_toy(tmp_path / "raw")
    return tmp_path / "raw"


def prepared(raw, **options):
    """Prepare, and what was said."""
    said: list[str] = []
    manifest = prepare(Toy, raw, say=said.append, **options)
    return manifest, "\n".join(said)


def content() -> dict[str, bytes]:
    """Every file of the prepared folder."""
    return {str(p.relative_to(Toy.folder())): p.read_bytes() for p in Toy.folder().rglob("*") if p.is_file()}


def undisturbed(raw, monkeypatch, where) -> dict[str, bytes]:
    """What preparing gives when nothing goes wrong, in another folder."""
    with monkeypatch.context() as patch:
        patch.setenv("MMBENCH_DATA", str(where))
        prepared(raw)
        return content()


# What is written


def test_arrays_table_and_manifest_hold_every_sample(raw):
    change(raw, 3, file="")
    change(raw, 4, text="")
    manifest, said = prepared(raw)
    assert sorted(content()) == sorted(FIELDS)
    big, small = np.load(Toy.folder() / "big.npy"), np.load(Toy.folder() / "small.npy")
    expected = np.arange(100.0)
    expected[3] = 0
    assert (big.dtype, small.dtype) == (np.float32, np.uint8)
    assert (big == expected[:, None, None]).all()
    assert (small == expected[:, None]).all()
    table = Toy.table()
    assert table["id"].tolist() == [f"s{i:03}" for i in range(100)]
    assert table.loc[~table["present_number"], "id"].tolist() == ["s003"]
    assert table.loc[~table["present_text"], "id"].tolist() == ["s004"]
    assert table["clean"].value_counts().to_dict() == {"train": 60, "validation": 20, "test": 20}
    assert (manifest["samples"], manifest["skipped"], manifest["sources"]["files"]) == (100, [], 99)
    assert manifest == json.loads((Toy.folder() / "manifest.json").read_bytes())
    assert verify(Toy) == []
    assert "100 samples, 0 skipped" in said


@pytest.mark.slow
def test_two_processes_give_what_one_does(raw, monkeypatch, tmp_path):
    prepared(raw, jobs=2)
    assert content() == undisturbed(raw, monkeypatch, tmp_path / "other")


def test_the_split_does_not_depend_on_the_order_of_the_list(raw, monkeypatch, tmp_path):
    before = undisturbed(raw, monkeypatch, tmp_path / "other")
    lines = (raw / "list.csv").read_text().splitlines()
    (raw / "list.csv").write_text("\n".join(reversed(lines)))
    prepared(raw)
    assert content() == before


# What cannot be used


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("bad", "is bad"),
        ("", "its decoder failed: ValueError: could not convert"),
        ("bug", "its decoder failed: KeyError: 'nothing' (toy.py, line"),
        ("nan", "not finite"),
        ("-1", "its decoder gives nothing, expected big, small"),
        ("-2", "gives big as float32 of shape (3,), expected float32 of shape (2, 3)"),
        ("-3", "gives small as int64 of shape (4,), expected uint8"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_one_bad_file_in_a_hundred_is_listed_and_left_out(raw, text, reason):
    (raw / "007.txt").write_text(text)
    manifest, _ = prepared(raw)
    [(sample, file, why)] = manifest["skipped"]
    assert (sample, file, manifest["samples"]) == ("s007", "007.txt", 99)
    assert reason in why
    table = Toy.table().set_index("id")
    assert reason in table.loc["s007", "skipped"]
    assert table.loc["s007", "clean"] == ""
    assert not np.load(Toy.folder() / "big.npy")[7].any()


def test_a_missing_file_and_a_sample_of_nothing_are_counted(raw):
    (raw / "007.txt").unlink()
    manifest, _ = prepared(raw)
    assert manifest["skipped"] == [["s007", "007.txt", "is missing"]]
    (raw / "007.txt").write_text("7")
    change(raw, 8, file="", text=" ")
    manifest, _ = prepared(raw)
    assert manifest["skipped"] == [["s008", "", "no modality is there"]]


def test_more_than_one_percent_bad_is_an_error_and_mended_files_are_decoded(raw, monkeypatch, tmp_path):
    whole = undisturbed(raw, monkeypatch, tmp_path / "other")
    for i in range(20, 32):
        (raw / f"{i:03}.txt").write_text("bad")
    with pytest.raises(DataError, match="12 of 100 samples cannot be used, more than 1%") as caught:
        prepared(raw)
    assert str(caught.value).count("is bad") == 10
    listed = pd.read_csv(tmp_path / "data/toy.partial/skipped.csv")
    assert listed["sample"].tolist() == [f"s{i:03}" for i in range(20, 32)]
    assert not Toy.folder().exists()
    for i in range(20, 32):
        (raw / f"{i:03}.txt").write_text(str(i))
    _, said = prepared(raw)
    assert "12 to decode" in said
    assert content() == whole


def test_bad_files_can_be_accepted_but_not_all_of_them(raw):
    for i in range(20):
        (raw / f"{i:03}.txt").write_text("bad")
    manifest, _ = prepared(raw, allow_bad=True)
    assert (manifest["samples"], len(manifest["skipped"])) == (80, 20)
    for file in raw.glob("*.txt"):
        file.unlink()
    with pytest.raises(DataError, match="100 of 100 samples cannot be used") as caught:
        prepared(raw, allow_bad=True)
    assert "--allow-bad" not in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"id": "s006"}, "'s006' is given twice"),
        ({"label": 2}, "'s005' has the label 2, expected 0 to 1"),
        ({"file": "../x.txt"}, "leads out of"),
        ({"file": "/etc/passwd"}, "leads out of"),
    ],
)
def test_what_no_data_set_may_hold_is_refused(raw, columns, message):
    change(raw, 5, **columns)
    with pytest.raises(UsageError, match=message):
        prepared(raw)


def test_names_that_are_no_text_are_refused(raw, monkeypatch):
    scan = Toy.scan

    def odd(raw):
        listing = scan(raw)
        listing.samples[0] = prepare_module.Sample("x", 0, "0", {"number": os.fsdecode(b"\xff.txt")})
        return listing

    monkeypatch.setattr(Toy, "scan", odd)
    with pytest.raises(UsageError, match="is not in UTF-8; rename it"):
        prepared(raw)


def test_a_raw_folder_that_is_not_there_or_empty(raw, tmp_path):
    with pytest.raises(UsageError, match="no such folder"):
        prepared(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"list\.csv"):
        prepared(tmp_path / "empty")
    (raw / "list.csv").write_text("")
    with pytest.raises(UsageError, match="no sample found"):
        prepared(raw)


# The disk


def test_a_folder_that_cannot_be_written_is_named(raw, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MMBENCH_DATA", str(tmp_path / "file" / "data"))
    with pytest.raises(DataError, match=r"file/data.*: Not a directory"):
        prepared(raw)


def test_too_small_a_disk_is_told_before_anything_is_decoded(raw, monkeypatch):
    monkeypatch.setattr(prepare_module.shutil, "disk_usage", lambda path: SimpleNamespace(free=2799))
    with pytest.raises(DataError, match=r"needs 0\.0 GB, but only 0\.0 GB are free"):
        prepared(raw)
    monkeypatch.setattr(prepare_module.shutil, "disk_usage", lambda path: SimpleNamespace(free=2800))
    prepared(raw)


def test_a_disk_that_fills_up_ends_it_and_the_same_command_goes_on(raw, monkeypatch, tmp_path):
    whole = undisturbed(raw, monkeypatch, tmp_path / "other")
    fsync, calls = os.fsync, []

    def full(handle):
        calls.append(handle)
        if len(calls) == 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(prepare_module.os, "fsync", full)
        with pytest.raises(DataError, match="No space left on device; what was decoded is kept"):
            prepared(raw)
    _, said = prepared(raw)
    assert "36 to decode" in said
    assert content() == whole


# Interruptions


def test_it_goes_on_after_an_interruption_at_any_sample(raw, monkeypatch, tmp_path):
    whole = undisturbed(raw, monkeypatch, tmp_path / "other")
    for number in (0, 31, 32, 50, 99):
        seen = []

        def stop(path, number=number, seen=seen):
            seen.append(path)
            if path.name == f"{number:03}.txt":
                raise Interrupted(signal.SIGINT)
            return hash_file(path)

        with monkeypatch.context() as patch:
            patch.setattr(decoding, "hash_file", stop)
            with pytest.raises(Interrupted):
                prepared(raw)
        assert not Toy.folder().exists()
    _, said = prepared(raw)
    assert "4 to decode" in said
    assert content() == whole


@pytest.mark.parametrize("step", ["describe", "write", "replace_folder"])
def test_it_goes_on_after_an_interruption_at_the_end(raw, monkeypatch, tmp_path, step):
    whole = undisturbed(raw, monkeypatch, tmp_path / "other")
    prepared(raw)
    rename, function = Path.rename, getattr(prepare_module, step)

    def stop(*arguments):
        if step == "write" and arguments[0].name == "plan.json":
            return function(*arguments)
        raise Interrupted(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(prepare_module, step, stop)
        with pytest.raises(Interrupted):
            prepared(raw)
    assert content() == whole, "what was there is there until the new one is complete"

    def once(path, target):
        if path.name == "toy.partial":
            raise Interrupted(signal.SIGTERM)
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", once)
        with pytest.raises(Interrupted):
            prepared(raw)
    _, said = prepared(raw)
    assert " 0 to decode" in said
    assert content() == whole
    assert sorted(p.name for p in (tmp_path / "data").iterdir()) == [".toy.lock", "toy"]


def test_a_torn_line_of_progress_costs_its_samples_only(raw, monkeypatch, tmp_path):
    whole = undisturbed(raw, monkeypatch, tmp_path / "other")
    with monkeypatch.context() as patch:
        patch.setattr(prepare_module, "describe", lambda *a: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            prepared(raw)
    progress = tmp_path / "data/toy.partial/progress.jsonl"
    progress.write_bytes(progress.read_bytes()[:-20])
    big = np.load(tmp_path / "data/toy.partial/big.npy", mmap_mode="r+")
    big[96:] = -1  # whatever the disk had
    big.flush()
    for expected in ("4 to decode", " 0 to decode"):  # what comes after the torn line can be read
        said: list[str] = []
        with monkeypatch.context() as patch:
            patch.setattr(prepare_module, "describe", lambda *a: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                prepare(Toy, raw, say=said.append)
        assert expected in "\n".join(said)
    prepared(raw)
    assert content() == whole


def test_other_files_or_code_start_anew_but_other_labels_do_not(raw, monkeypatch):
    def interrupted(message):
        said = []
        with monkeypatch.context() as patch:
            patch.setattr(prepare_module, "describe", lambda *a: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                prepare(Toy, raw, say=said.append)
        assert message in "\n".join(said)

    interrupted("100 to decode")
    interrupted(" 0 to decode")
    change(raw, 5, label=0, legacy="", group=3, text="another")
    interrupted(" 0 to decode")
    change(raw, 5, file="006.txt")
    interrupted("starting anew")
    monkeypatch.setattr(Toy, "version", 2)
    interrupted("starting anew")
    monkeypatch.setattr(prepare_module, "decoders", lambda: {"pyav": "0"})
    interrupted("starting anew")


def test_only_one_process_at_a_time(raw):
    with locked(Toy.folder()), pytest.raises(DataError, match="is being prepared by another process"):
        prepared(raw)
    prepared(raw)


# Real processes

PROGRAM = """
import pathlib, signal, sys, toy
from mmbench.data.preparing.prepare import prepare
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
prepare(toy.Toy, pathlib.Path(sys.argv[1]), int(sys.argv[2]))
"""


def start(raw, jobs, pause="0.01", program=PROGRAM):
    environment = {
        **os.environ,
        "TOY_PAUSE": pause,
        "PYTHONPATH": str(Path(toy.__file__).parent),
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.Popen(
        [sys.executable, "-c", program, str(raw), str(jobs)],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for_progress(process, root):
    """Wait until a chunk is done."""
    progress = root / "toy.partial/progress.jsonl"
    while process.poll() is None and not (progress.exists() and progress.stat().st_size):
        time.sleep(0.01)
    assert process.poll() is None


def children(process) -> list[int]:
    """The living processes of its session."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session = stat.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(session) == process.pid and state != "Z":
            found.append(int(stat.parent.name))
    return found


def kill_group(process):
    os.killpg(process.pid, signal.SIGKILL)


def kill_parent(process):
    process.kill()


def terminate(process):
    process.terminate()


def interrupt_group(process):
    os.killpg(process.pid, signal.SIGINT)


def kill_a_worker(process):
    decoding = []
    for pid in children(process):
        if pid != process.pid and b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
            decoding.append(pid)
    os.kill(min(decoding), signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize("end", [kill_group, kill_parent, terminate, interrupt_group, kill_a_worker])
def test_a_real_process_that_is_ended_in_the_middle(tmp_path, monkeypatch, end):
    monkeypatch.setenv("MMBENCH_DATA", str(tmp_path / "data"))
    write_toy(tmp_path / "raw", 400)
    process = start(tmp_path / "raw", 2)
    wait_for_progress(process, tmp_path / "data")
    end(process)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    if end is kill_a_worker:
        assert "a decoding process died" in errors
    until = time.monotonic() + 10
    while children(process) and time.monotonic() < until:
        time.sleep(0.05)
    assert not children(process), "no worker outlives its parent"
    _, said = prepared(tmp_path / "raw")
    [left] = [int(line.split(" to decode")[0].split()[-1]) for line in said.splitlines() if "to decode" in line]
    assert 0 < left < 400
    assert content() == undisturbed(tmp_path / "raw", monkeypatch, tmp_path / "other")


@pytest.mark.slow
def test_two_real_processes_at_once_do_not_spoil_each_other(tmp_path, monkeypatch):
    monkeypatch.setenv("MMBENCH_DATA", str(tmp_path / "data"))
    write_toy(tmp_path / "raw", 200)
    first = start(tmp_path / "raw", 1)
    wait_for_progress(first, tmp_path / "data")
    with pytest.raises(DataError, match="another process"):
        prepared(tmp_path / "raw")
    first.communicate(timeout=60)
    assert first.returncode == 0
    assert content() == undisturbed(tmp_path / "raw", monkeypatch, tmp_path / "other")


@pytest.mark.slow
def test_a_file_that_kills_its_decoder_is_named(raw):
    (raw / "007.txt").write_text("kill")
    with pytest.raises(DataError, match=r"a decoding process died .* 007\.txt"):
        prepared(raw, jobs=2)


# Verify


@pytest.mark.parametrize("name", FIELDS)
def test_verify_finds_any_change(raw, name):
    prepared(raw)
    path = Toy.folder() / name
    if name == "samples.parquet":
        table = Toy.table()
        table.loc[50, "clean"] = "train" if table.loc[50, "clean"] != "train" else "test"
        table.to_parquet(path, index=False)
    elif name == "manifest.json":
        path.write_text(path.read_text().replace('"samples": 100,', '"samples": 99,', 1))
    else:
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    (line,) = verify(Toy)
    assert line.startswith(f"{path} has changed since it was prepared")


def test_verify_names_what_is_missing_or_damaged(raw):
    prepared(raw)
    (Toy.folder() / "big.npy").unlink()
    (Toy.folder() / "small.npy").write_bytes(b"")
    (Toy.folder() / "samples.parquet").write_bytes(b"PAR1")
    wrong = verify(Toy)
    assert [name in line for name, line in zip(("big.npy", "small.npy", "samples.parquet"), wrong, strict=True)] == [
        True
    ] * 3
