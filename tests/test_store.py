"""The store: a kill, a full disk or a damaged file may cost a trial, but never pass for a result."""

from __future__ import annotations

import errno
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mmbench.errors import StoreError
from mmbench.files import atomic_write, atomically
from mmbench.machine import host
from mmbench.recipe import Recipe
from mmbench.record import Failure, Features, Predictions, Record
from mmbench.store import CorruptRecord, Store
from mmbench.trial import Trial


def make_trial(seed: int = 0) -> Trial:
    return Trial(
        dataset="toy", data="d", protocol="clean", method="sum", seed=seed, encoders={}, params={}, recipe=Recipe()
    )


def make_predictions(seed: int = 0) -> Predictions:
    rng = np.random.default_rng(seed)
    log_probs = np.log(rng.dirichlet(np.ones(4), size=(3, 5))).astype(np.float16)
    return Predictions(
        modalities=np.array(["audio", "video"]),
        label=rng.integers(0, 4, 5),
        group=rng.integers(0, 2, 5),
        present=rng.random((5, 2)) < 0.5,
        predicted=log_probs.argmax(axis=-1).astype(np.int16),
        log_probs=log_probs,
        log_prior=np.log(np.full(log_probs.shape[-1], 1 / log_probs.shape[-1])).astype(np.float16),
        attack=rng.integers(0, 3, 5).astype(np.int16),
    )


def make_record(seed: int = 0, **changes: Any) -> Record:
    trial = make_trial(seed)
    return Record(
        **{
            "key": trial.key,
            "trial": trial,
            "status": "done",
            "started": "s",
            "finished": "f",
            "environment": {},
            **changes,
        }
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


@pytest.fixture
def written(store: Store) -> Record:
    """A finished trial in the store."""
    record = make_record(metrics={"audio": {"accuracy": 12.5}}, curves=[{"train/loss": 1.0}], seconds={"fit": 1.5})
    store.write(record, make_predictions())
    return record


def outcome(store: Store, key: str) -> str:
    """What the store says of a trial: done, not done, or damaged. Anything else that it raises fails the test."""
    try:
        return "not done" if store.done(key) is None else "done"
    except CorruptRecord:
        return "damaged"


# What is written is read


def test_round_trip(store: Store, written: Record) -> None:
    assert store.done(written.key) == written
    assert store.record(written.key) == written
    assert store.keys() == [written.key]
    read, meant = store.predictions(written), make_predictions()
    for name in ("modalities", "label", "group", "present", "predicted", "log_probs"):
        np.testing.assert_array_equal(getattr(read, name), getattr(meant, name))
        assert getattr(read, name).dtype == getattr(meant, name).dtype


def test_patterns_come_in_the_order_of_the_arrays(store: Store, written: Record) -> None:
    assert store.predictions(written).pattern_names == ["audio", "video", "audio+video"]


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(
    st.data(),
    st.integers(2, 4),
    st.integers(1, 6),
    st.integers(2, 5),
)
def test_any_arrays_survive_and_equal_ones_give_equal_bytes(data: st.DataObject, m: int, n: int, c: int) -> None:
    draw: Callable[..., np.ndarray] = lambda dtype, shape, **kw: data.draw(hnp.arrays(dtype, shape, **kw))  # noqa: E731
    meant = Predictions(
        modalities=np.array([f"modality {i} ä" for i in range(m)]),
        label=draw(np.int64, n),
        group=draw(np.int64, n),
        present=draw(np.bool_, (n, m)),
        predicted=draw(np.int16, (2**m - 1, n)),
        log_probs=draw(np.float16, (2**m - 1, n, c), elements=st.floats(width=16, allow_nan=False)),
        log_prior=np.log(np.arange(c, dtype=np.float32) + 1),
        attack=np.zeros(n if m == 2 else 0, np.int16),
    )
    read = Predictions.from_bytes(meant.to_bytes())
    for name in vars(meant):
        np.testing.assert_array_equal(getattr(read, name), getattr(meant, name))
        assert getattr(read, name).dtype == getattr(meant, name).dtype
    assert read.to_bytes() == meant.to_bytes()


def test_features_are_vouched_for_too_and_go_with_the_rest(store: Store, written: Record) -> None:
    assert store.features(written) is None
    features = Features(np.array(["audio", "video"]), np.arange(8, dtype=np.float32).reshape(2, 2, 2))
    store.write(record := make_record(1), make_predictions(), features)
    again = store.record(record.key)
    assert again is not None
    assert again.features_sha256 == record.features_sha256
    found = store.features(again)
    assert found is not None
    assert np.array_equal(found.points, features.points)
    path = store.folder(record.key) / "features.npz"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CorruptRecord, match=r"features\.npz: not the file"):
        store.features(again)
    path.unlink()
    with pytest.raises(CorruptRecord, match=r"features\.npz: is missing"):
        store.features(again)
    path.write_bytes(features.to_bytes())
    (store.folder(record.key) / "predictions.npz").unlink()
    store.discard(record.key)
    assert not path.exists()


def test_a_failure_is_a_record_but_not_a_result(store: Store) -> None:
    failure = Failure(kind="diverged", message="nan", traceback="Traceback …\n")
    record = make_record(status="failed", failure=failure)
    store.write(record)
    assert store.record(record.key) == record
    assert store.done(record.key) is None


def test_what_was_never_run_has_no_record(store: Store) -> None:
    assert store.record("feedbeef") is None
    assert store.done("feedbeef") is None
    assert store.keys() == []


def test_trials_are_found_by_the_beginning_of_their_key(store: Store) -> None:
    keys = sorted(make_record(seed).key for seed in range(3))
    for seed in range(3):
        store.write(make_record(seed), make_predictions())
    assert store.keys() == keys
    assert store.find(keys[0]) == [keys[0]]
    assert store.find("") == keys
    assert store.find("nothing") == []


def test_discarding_forgets_a_failure_and_may_be_repeated(store: Store) -> None:
    record = make_record(status="failed")
    store.write(record)
    store.discard(record.key)
    store.discard(record.key)
    assert store.record(record.key) is None


def test_discarding_forgets_damage_but_no_result(store: Store, written: Record) -> None:
    store.discard(written.key)
    assert store.done(written.key) == written
    (store.folder(written.key) / "predictions.npz").write_bytes(b"")
    store.discard(written.key)
    assert store.record(written.key) is None


# Damage


@pytest.mark.parametrize("name", ["record.json", "predictions.npz"])
def test_a_file_cut_off_anywhere_is_never_a_result(store: Store, written: Record, name: str) -> None:
    path = store.folder(written.key) / name
    whole = path.read_bytes()
    assert outcome(store, written.key) == "done", "it is one while the file is whole"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert outcome(store, written.key) == "damaged", f"{name} cut off after {length} of {len(whole)} bytes"


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_flipped_bit_of_the_predictions_is_noticed(store: Store, written: Record, data: st.DataObject) -> None:
    path = store.folder(written.key) / "predictions.npz"
    if not path.exists() or outcome(store, written.key) != "done":
        store.write(written, make_predictions())
    whole = bytearray(path.read_bytes())
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(whole)
    assert outcome(store, written.key) == "damaged"


def test_predictions_of_another_trial_are_not_taken(store: Store, written: Record) -> None:
    other = make_record(1)
    store.write(other, make_predictions(1))
    shutil.copy(store.folder(other.key) / "predictions.npz", store.folder(written.key) / "predictions.npz")
    with pytest.raises(CorruptRecord, match=r"predictions\.npz: not the file that the record was written with"):
        store.done(written.key)
    assert outcome(store, other.key) == "done"


def test_missing_predictions_are_damage(store: Store, written: Record) -> None:
    (store.folder(written.key) / "predictions.npz").unlink()
    with pytest.raises(CorruptRecord, match=r"predictions\.npz"):
        store.done(written.key)


def test_a_record_of_another_trial_is_not_taken(store: Store, written: Record) -> None:
    shutil.copytree(store.folder(written.key), store.folder("0" * 16))
    with pytest.raises(CorruptRecord, match=f"the record is of trial {written.key}"):
        store.done("0" * 16)


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ("extra", 1),
        ("status", "almost"),
        ("trial", None),
        ("metrics", "none"),
        ("failure", {"kind": "bored", "message": ""}),
    ],
)
def test_a_record_with_other_fields_or_values_is_damage(store: Store, written: Record, change: str, value: Any) -> None:
    path = store.folder(written.key) / "record.json"
    content = {**json.loads(path.read_text()), change: value}
    path.write_bytes(signed(json.dumps(content)))
    with pytest.raises(CorruptRecord, match=r"record\.json: \d+ errors?"):
        store.done(written.key)


def signed(text: str) -> bytes:
    """A record's file with this content, as one who knows the format would forge it."""
    rest = json.dumps({k: v for k, v in json.loads(text).items() if k != "checksum"}, indent=1).encode()[2:]
    return b'{"checksum": "%s",\n' % sha256(rest).hexdigest().encode() + rest


def test_no_flipped_bit_of_a_record_is_accepted(store: Store, written: Record) -> None:
    """Every one of them; once a third was: another seed, another method, NaN for a metric."""
    whole = (store.folder(written.key) / "record.json").read_bytes()
    assert Record.from_bytes(whole) == written
    accepted = []
    for position in range(len(whole)):
        for bit in range(8):
            flipped = bytearray(whole)
            flipped[position] ^= 1 << bit
            try:
                Record.from_bytes(bytes(flipped))
                accepted.append((position, bit))
            except ValueError:
                pass
    assert accepted == []


@pytest.mark.parametrize("position", [0, 2, 12, 20, 90, -2, -1])
def test_a_flipped_bit_of_a_record_is_damage_in_words(store: Store, written: Record, position: int) -> None:
    path = store.folder(written.key) / "record.json"
    whole = bytearray(path.read_bytes())
    whole[position] ^= 1
    path.write_bytes(whole)
    with pytest.raises(CorruptRecord, match=r"record\.json: ."):
        store.record(written.key)


def test_a_record_with_another_trial_in_it_is_not_taken(store: Store, written: Record) -> None:
    """Whoever writes a checksum to it: the folder, the key and the trial have to be of one."""
    path = store.folder(written.key) / "record.json"
    content = json.loads(path.read_text())
    content["trial"]["seed"] = 7
    path.write_bytes(signed(json.dumps(content)))
    with pytest.raises(CorruptRecord, match=f"its settings are those of trial {make_trial(7).key}"):
        store.record(written.key)


def test_a_record_without_a_checksum_is_of_before_there_was_one(store: Store, written: Record) -> None:
    path = store.folder(written.key) / "record.json"
    content = json.loads(path.read_text())
    del content["checksum"], content["code"]
    path.write_text(json.dumps(content, indent=1))
    assert store.done(written.key) == written
    assert written.code is None, "so that mmbench run runs it again"


def test_numbers_that_are_not_finite_survive(store: Store) -> None:
    values = {"accuracy": float("nan"), "ece": float("inf"), "macro_f1": float("-inf"), "tiny": 5e-324, "zero": -0.0}
    record = make_record(metrics={"audio": values}, curves=[values], memory_mb=float("nan"))
    store.write(record, make_predictions())
    read = store.done(record.key)
    assert read is not None
    assert repr(read) == repr(record)


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def replace_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def replace_by_circle(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def replace_by_nothing_of_a_tebibyte(path: Path) -> None:
    with path.open("wb") as handle:
        handle.truncate(2**40)


@pytest.mark.parametrize("name", ["record.json", "predictions.npz"])
@pytest.mark.parametrize(
    "harm",
    [
        replace_by_folder,
        replace_by_pipe,
        replace_by_circle,
        replace_by_nothing_of_a_tebibyte,
        lambda path: path.write_bytes(b"\xff\xfe{"),
        lambda path: path.write_bytes(b"[" * 100_000),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"null"),
    ],
)
def test_what_stands_in_for_a_file_is_damage(store: Store, written: Record, name: str, harm: Any) -> None:
    """Not an error of the one who reads it, and neither waited for nor read to its end."""
    harm(store.folder(written.key) / name)
    with pytest.raises(CorruptRecord, match=rf"{name}: \w+"):
        store.done(written.key)


def test_a_file_that_must_not_be_read_is_damage(store: Store, written: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(CorruptRecord, match=r"record\.json: cannot be read: Permission denied"):
        store.record(written.key)


def test_a_done_record_that_vouches_for_nothing_is_damage(store: Store) -> None:
    record = make_record()
    store.write(record)
    assert outcome(store, record.key) == "damaged"


def test_a_trial_that_tunes_is_done_without_predictions_and_damaged_with_any(store: Store) -> None:
    trial = make_trial().model_copy(update={"tuning": True})
    store.write(make_record(key=trial.key, trial=trial))
    assert outcome(store, trial.key) == "done"
    (store.folder(trial.key) / "predictions.npz").write_bytes(b"")
    assert outcome(store, trial.key) == "damaged"
    store.discard(trial.key)
    store.write(make_record(key=trial.key, trial=trial), make_predictions())
    assert outcome(store, trial.key) == "damaged"
    store.discard(trial.key)
    store.write(make_record(key=trial.key, trial=trial, metrics={"audio": {"accuracy": 12.5}}))
    assert outcome(store, trial.key) == "damaged"


class Attack:
    """What a pickle would execute."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("kind", ["array of objects", "bare pickle"])
def test_pickled_predictions_are_refused_and_not_run(store: Store, written: Record, tmp_path: Path, kind: str) -> None:
    """Even where the record vouches for the file, as it would in results that someone else made."""
    target, buffer = tmp_path / "executed", io.BytesIO()
    if kind == "bare pickle":
        buffer.write(pickle.dumps(Attack(target)))
    else:
        arrays = {**vars(make_predictions()), "label": np.array([Attack(target)], dtype=object)}
        np.savez_compressed(buffer, **arrays)
    (store.folder(written.key) / "predictions.npz").write_bytes(buffer.getvalue())
    written.predictions_sha256 = sha256(buffer.getvalue()).hexdigest()
    store.write(written)
    with pytest.raises(CorruptRecord):
        store.done(written.key)
    assert not target.exists()


# Writing


def full_disk(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    path = tmp_path / "table.csv"
    atomic_write(path, b"old")
    with monkeypatch.context() as patch:
        patch.setattr(os, call, full_disk)
        with pytest.raises(StoreError, match=r"cannot write .*table\.csv: No space left on device; free some space"):
            atomic_write(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["table.csv"], "no temporary file is left"
    atomic_write(path, b"new")
    assert path.read_bytes() == b"new"


def test_other_errors_of_writing_name_the_file_and_do_not_speak_of_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(StoreError, match="Read-only") as error:
        atomic_write(tmp_path / "table.csv", b"new")
    assert "space" not in str(error.value)
    assert os.listdir(tmp_path) == []


def test_what_a_kill_during_a_write_leaves_is_removed_before_the_next_run(store: Store, written: Record) -> None:
    folder = store.folder(written.key)
    (folder / "record.json").unlink()
    if (process := os.fork()) == 0:
        with atomically(folder / "record.json") as file:
            file.write(b"half")
            os._exit(0)
    os.waitpid(process, 0)
    (torn,) = folder.glob("*.tmp")
    assert torn.name == f".record.json.{host()}.{process}.tmp"
    assert store.discard(written.key) == "free"
    assert not torn.exists()


def test_the_content_is_on_the_disk_before_the_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a power cut leaves a file of the right name and no content."""
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append("fsync"), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("replace"), replace(a, b)))
    atomic_write(tmp_path / "x", b"new")
    assert calls == ["fsync", "replace", "fsync"], "the file, its name, the folder"


def test_the_record_is_written_after_the_predictions_that_it_vouches_for(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    monkeypatch.setattr("mmbench.store.atomic_write", lambda path, data: written.append(path.name))
    store.write(make_record(), make_predictions())
    assert written == ["predictions.npz", "record.json"]


def test_a_disk_that_fills_up_between_the_two_files_leaves_no_result(
    store: Store, written: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old record does not vouch for the new predictions."""
    count = iter(range(10))
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: replace(a, b) if next(count) == 0 else full_disk())
    with pytest.raises(StoreError, match=r"record\.json"):
        store.write(make_record(), make_predictions(1))
    assert outcome(store, written.key) == "damaged"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small file system needs root")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small file system: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_disk_that_is_really_full(small_disk: Path) -> None:
    store = Store(small_disk / "runs")
    record = make_record()
    store.write(record, make_predictions())
    with pytest.raises(StoreError, match=r"big\.bin: No space left on device; free some space and run again"):
        atomic_write(small_disk / "big.bin", os.urandom(200_000))
    assert os.listdir(small_disk) == ["runs"]
    assert outcome(store, record.key) == "done"


# Locks

HOLD = """
import sys, time
from mmbench.store import Store
with Store(sys.argv[1]).lock("key"):
    print("held", flush=True)
    time.sleep(60)
"""
ENTER = """
import sys
from mmbench.store import Store
print("waiting", flush=True)
with Store(sys.argv[1]).lock("key"):
    print("entered", flush=True)
"""


def test_a_lock_keeps_a_second_process_out_until_the_first_one_dies(store: Store) -> None:
    def start(program: str) -> subprocess.Popen[str]:
        return subprocess.Popen([sys.executable, "-c", program, str(store.root)], stdout=subprocess.PIPE, text=True)

    with start(HOLD) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with start(ENTER) as other:
            try:
                assert other.stdout is not None
                assert other.stdout.readline() == "waiting\n"
                with pytest.raises(subprocess.TimeoutExpired):
                    other.wait(timeout=0.3)
                holder.kill()
                assert other.stdout.readline() == "entered\n"
                assert other.wait(timeout=10) == 0
            finally:
                holder.kill()
                other.kill()


def test_arrays_are_as_numpy_reads_them_and_may_be_written_to() -> None:
    predictions = make_predictions()
    predictions.log_probs = np.asfortranarray(predictions.log_probs)
    data = predictions.to_bytes()
    read = vars(Predictions.from_bytes(data))
    with np.load(io.BytesIO(data)) as arrays:
        assert list(arrays) == list(read)
        for name, values in arrays.items():
            np.testing.assert_array_equal(read[name], values, strict=True)
            assert read[name].strides == values.strides
            assert read[name].flags.writeable
