"""Decoding a raw data set once: in parallel, resumable, with every file that cannot be used named."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from functools import cache
from hashlib import sha256
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path
from threading import Thread
from traceback import extract_tb
from typing import TYPE_CHECKING, Any

import numpy as np

from mmbench.data.media import BadFile, decoders
from mmbench.data.prepared import FORMAT, MADE_UP, SPLITS, PreparedDataModule
from mmbench.data.raw import Listing, Sample, within
from mmbench.errors import DataError, UsageError

if TYPE_CHECKING:
    import pandas as pd

CHUNK = 32  # samples that a worker decodes before it reports: what a kill loses of its work
TOLERATED = 0.01  # the share of bad samples above which preparing fails


def prepare(
    data: type[PreparedDataModule],
    raw: Path,
    jobs: int = 1,
    allow_bad: bool = False,
    say: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True),
) -> dict[str, Any]:
    """Prepare a data set; goes on where an earlier call was ended.

    Work is done in ``<folder>.partial``, which takes the folder's name when everything is in it.

    Args:
        data: the data set's class.
        raw: the raw download, laid out as ``data.info.layout`` says.
        jobs: processes that decode.
        allow_bad: accept more than 1 % of samples that cannot be used.
        say: takes lines of progress.

    Returns:
        The manifest.

    Raises:
        UsageError: the raw folder is not laid out as expected.
        DataError: too many samples cannot be used, a decoding process died, the prepared folder cannot be written (or has no room), or
            another process is preparing this data set.
    """
    started = time.perf_counter()
    if not raw.is_dir():
        raise UsageError(f"{raw}: no such folder; expected the raw download (mmbench data info {data.name})")
    try:
        with locked(data.folder()):
            manifest = prepare_locked(data, raw, jobs, allow_bad, say)
    except OSError as error:
        raise DataError(
            f"{error.filename or data.folder()}: {error.strerror or error}; what was decoded is kept, the same command goes on"
        ) from error
    say(
        f"{data.name}: prepared in {time.perf_counter() - started:.0f} s: {manifest['samples']} samples, "
        f"{len(manifest['skipped'])} skipped, {manifest['unlisted']['files']} files that no list names; in {data.folder()}"
    )
    return manifest


def prepare_locked(
    data: type[PreparedDataModule], raw: Path, jobs: int, allow_bad: bool, say: Callable[[str], None]
) -> dict[str, Any]:
    """What ``prepare`` does while no other process does."""
    listing = data.scan(raw)
    check_listing(data, raw, listing)
    made_up = (raw / MADE_UP).exists()
    if made_up:
        listing.notes.append("made up: a demo copy, not the data set")
    for note in listing.notes:
        say(f"{data.name}: {note}")
    samples = listing.samples
    partial = data.folder().with_name(f"{data.name}.partial")
    report = resume(data, partial, samples, made_up, say)
    todo = [i for i in range(len(samples)) if i not in report or report[i]["error"]]  # a bad file may have been mended
    say(f"{data.name}: {len(samples)} samples, {len(todo)} to decode, {jobs} at a time")
    if todo:
        run_chunks(data, raw, partial, samples, todo, jobs, report, say)
    rows = [report[i] for i in range(len(samples))]
    skipped = [list(item) for item in listing.skipped]
    skipped += [[s.id, row["file"], row["error"]] for s, row in zip(samples, rows, strict=True) if row["error"]]
    check_skipped(data, partial, skipped, len(samples) + len(listing.skipped), allow_bad)
    frame = tabulate(data, samples, rows)
    manifest = describe(data, partial, frame, listing, skipped, made_up)
    frame.to_parquet(partial / "samples.parquet", index=False)
    write(partial / "manifest.json", json.dumps(manifest, indent=1, ensure_ascii=False))
    replace_folder(partial, data.folder())
    return manifest


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder against other processes; the system frees it when the holder ends, however it does.

    Raises:
        DataError: another process holds it.
    """
    import fcntl

    path = folder.with_name(f".{folder.name}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(f"{folder} is being prepared by another process; wait until that one has ended") from error
        yield


def check_skipped(
    data: type[PreparedDataModule], partial: Path, skipped: Sequence[Sequence[str]], total: int, allow_bad: bool
) -> None:
    """Refuse a data set of which too many samples cannot be used."""
    if len(skipped) <= TOLERATED * total or (allow_bad and len(skipped) < total):
        return
    with (partial / "skipped.csv").open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([("sample", "file", "reason"), *skipped])
    first = "".join(f"\n  {sample}: {file} {reason}" for sample, file, reason in skipped[:10])
    raise DataError(
        f"{data.name}: {len(skipped)} of {total} samples cannot be used, more than {TOLERATED:.0%}; the first of them:{first}\n"
        f"all are in {partial / 'skipped.csv'}; mend the files and give the same command again (only they are decoded)"
        + (", or accept it with --allow-bad" if len(skipped) < total else "")
    )


def check_listing(data: type[PreparedDataModule], raw: Path, listing: Listing) -> None:
    """Refuse what no data set may hold: no sample, a sample given twice, a label out of range, a path out of the folder, no text."""
    if not listing.samples:
        raise UsageError(f"{raw}: no sample found; expected the layout that `mmbench data info {data.name}` describes")
    seen: set[str] = set()
    count = len(data.classes if listing.classes is None else listing.classes)
    for sample in listing.samples:
        if sample.id in seen:
            raise UsageError(f"{raw}: sample '{sample.id}' is given twice, expected once")
        seen.add(sample.id)
        if not 0 <= sample.label < count:
            raise UsageError(f"{raw}: sample '{sample.id}' has the label {sample.label}, expected 0 to {count - 1}")
        if sample.legacy not in ("", *SPLITS):
            raise ValueError(f"{data.name}: sample '{sample.id}' has the unknown split '{sample.legacy}'")
        for file in sample.files.values():
            if file is not None:
                if not is_text(sample.id + file):
                    raise UsageError(f"{raw}: the name {file!r} is not in UTF-8; rename it")
                within(raw, file, f"sample '{sample.id}'")


def is_text(name: str) -> bool:
    """Whether a name can be written down; names of files need not be UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def plan_of(data: type[PreparedDataModule], samples: Sequence[Sample]) -> str:
    """A hash of everything that decides what a sample comes to."""
    content = {
        "format": FORMAT,
        "version": data.version,
        "decoders": decoders(),
        "transform": {m: (source.transform, source.fields) for m, source in data.sources.items()},
        "samples": [(sample.id, dict(sample.files), dict(sample.clip)) for sample in samples],
    }
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def resume(
    data: type[PreparedDataModule], partial: Path, samples: Sequence[Sample], made_up: bool, say: Callable[[str], None]
) -> dict[int, dict[str, Any]]:
    """Number of a sample -> what it came to in an earlier call; lays out the arrays where there is none."""
    plan = {"plan": plan_of(data, samples), "made_up": made_up}
    try:
        same = json.loads((partial / "plan.json").read_bytes()) == plan
    except (OSError, ValueError):
        same = False
    if same:
        report: dict[int, dict[str, Any]] = {}
        progress = partial / "progress.jsonl"
        for line in progress.read_text().splitlines() if progress.exists() else []:
            try:
                report |= {int(number): row for number, row in json.loads(line).items()}
            except ValueError:
                continue  # cut off by a kill; its samples are done again
        return report
    if partial.exists():
        say(f"{data.name}: the files or the code have changed since an earlier call was ended; starting anew")
        (partial / "plan.json").unlink(missing_ok=True)  # first: without it nothing of the rest counts
        shutil.rmtree(partial)
    sizes = data_fields(data)
    partial.mkdir(parents=True)
    needed = sum(len(samples) * int(np.prod(shape)) * dtype.itemsize for shape, dtype in sizes.values())
    if needed > (free := shutil.disk_usage(partial).free):
        raise DataError(
            f"{partial}: needs {needed / 1e9:.1f} GB, but only {free / 1e9:.1f} GB are free there (--data-dir names another)"
        )
    for name, (shape, dtype) in sizes.items():
        np.lib.format.open_memmap(partial / f"{name}.npy", "w+", dtype, (len(samples), *shape))
    write(partial / "plan.json", json.dumps(plan))
    return {}


def run_chunks(
    data: type[PreparedDataModule],
    raw: Path,
    partial: Path,
    samples: Sequence[Sample],
    todo: Sequence[int],
    jobs: int,
    report: dict[int, dict[str, Any]],
    say: Callable[[str], None],
) -> None:
    """Decode samples in ``jobs`` processes; what is done is written down as it comes."""
    started, told, done = time.perf_counter(), time.perf_counter(), 0
    chunks = [todo[i : i + CHUNK] for i in range(0, len(todo), CHUNK)]
    jobs = min(jobs, len(chunks))
    others = set(active_children())
    pool = (
        ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=quiet) if jobs > 1 else InThisProcess()
    )
    reading = partial / "reading"
    shutil.rmtree(reading, ignore_errors=True)
    reading.mkdir()
    waiting, running = chunks[::-1], set[Future]()
    torn = (partial / "progress.jsonl").exists() and not (partial / "progress.jsonl").read_bytes().endswith(b"\n")
    try:
        with (partial / "progress.jsonl").open("a") as progress:
            progress.write("\n" if torn else "")
            while waiting or running:
                while waiting and len(running) < (2 * jobs if jobs > 1 else 1):
                    chunk = {i: samples[i] for i in waiting.pop()}
                    with deaf():
                        running.add(pool.submit(decode_chunk, data, raw, partial, chunk))
                finished, running = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    rows = future.result()
                    report.update(rows)
                    progress.write(json.dumps(rows) + "\n")
                    done += len(rows)
                progress.flush()
                if time.perf_counter() - told > 5 or not (waiting or running):
                    told = time.perf_counter()
                    rate = done / (told - started)
                    left = f", about {duration((len(todo) - done) / rate)} left" if done < len(todo) else ""
                    say(f"{data.name}: {done}/{len(todo)} decoded, {rate:.3g}/s{left}")
    except BrokenProcessPool as error:
        files = sorted({path.read_text() for path in reading.iterdir()} - {""})
        raise DataError(
            f"{data.name}: a decoding process died (out of memory, or a file that its decoder cannot bear) while these were read: "
            f"{', '.join(files) or 'none'}; what was decoded is kept, the same command goes on; --jobs 1 needs the least memory"
        ) from error
    except BaseException:
        for child in set(active_children()) - others:
            child.kill()  # they would end their chunks first, which may take minutes
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def duration(seconds: float) -> str:
    """A length of time in words.

    >>> duration(42), duration(1800), duration(7200)
    ('42 s', '30 min', '2.0 h')
    """
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )


@contextmanager
def deaf() -> Iterator[None]:
    """Hold SIGINT back, and for good from processes that are started meanwhile: Ctrl-C is the parent's to answer."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class InThisProcess(Executor):
    """One job at a time needs no other process, and none of the seconds that one takes to start."""

    def submit(self, function: Callable, /, *arguments: Any, **named: Any) -> Future:
        """Call the function now."""
        future: Future = Future()
        future.set_result(function(*arguments, **named))
        return future


def quiet() -> None:
    """Leave the cores to the other processes, and do not outlive the parent, who may have been killed."""
    import torch

    torch.set_num_threads(1)
    Thread(target=die_with_parent, daemon=True).start()


def die_with_parent() -> None:
    """Wait until the parent has ended, however it did, and end this process."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def decode_chunk(
    data: type[PreparedDataModule], raw: Path, partial: Path, samples: Mapping[int, Sample]
) -> dict[int, dict[str, Any]]:
    """Write rows into the arrays: number -> the hashes of the sample's files, or what is wrong with it."""
    hash_source = cache(hash_file)  # clips of one recording share its file
    now = partial / "reading" / str(os.getpid())
    rows = {}
    with ExitStack() as stack:
        arrays = {
            name: (stack.enter_context(path.open("r+b")), np.load(path, mmap_mode="r", allow_pickle=False).offset)
            for name in data_fields(data)
            for path in [partial / f"{name}.npy"]
        }
        for number, sample in samples.items():
            row: dict[str, Any] = {"sha256": {}, "file": "", "error": ""}
            fields: dict[str, np.ndarray] = {}
            for modality, file in sample.files.items():
                if file is None:
                    continue
                now.write_text(file)
                try:
                    fields |= decode(data, modality, raw / file, sample)
                    row["sha256"][modality] = hash_source(raw / file)
                except BadFile as error:
                    row["file"], row["error"] = file, str(error)
                    break
            else:
                if not row["sha256"] and not any(text.strip() for text in sample.text.values()):
                    row["error"] = "no modality is there"
                for name, value in fields.items():
                    stream, offset = arrays[name]
                    stream.seek(offset + number * value.nbytes)
                    stream.write(value.tobytes())
            rows[number] = row
        for stream, _ in arrays.values():
            stream.flush()
            os.fsync(stream.fileno())
    now.write_text("")
    return rows


def decode(data: type[PreparedDataModule], modality: str, path: Path, sample: Sample) -> dict[str, np.ndarray]:
    """The fields of a file, as they are stored.

    Raises:
        BadFile: it cannot be decoded, for whatever reason, or what its decoder gives is not what the source declares.
        DataError: there is not enough memory, which may not be the file's fault.
    """
    source = data.sources[modality]
    try:
        given = source.decode(path, sample)
    except BadFile:
        raise
    except MemoryError as error:
        raise DataError(f"{data.name}: not enough memory to decode {path}; --jobs 1 needs the least") from error
    except Exception as error:
        at = extract_tb(error.__traceback__)[-1]
        raise BadFile(
            f"its decoder failed: {type(error).__name__}: {error} ({Path(at.filename).name}, line {at.lineno})"
        ) from error
    if given.keys() != source.fields.keys():
        raise BadFile(f"its decoder gives {', '.join(given) or 'nothing'}, expected {', '.join(source.fields)}")
    fields = {}
    for name, (shape, dtype) in source.fields.items():
        value = np.asarray(given[name])
        if value.shape != tuple(shape) or not np.can_cast(value.dtype, dtype, "same_kind"):
            raise BadFile(
                f"gives {name} as {value.dtype} of shape {value.shape}, expected {dtype} of shape {tuple(shape)}"
            )
        with np.errstate(over="ignore"):
            fields[name] = value.astype(dtype)
        if np.dtype(dtype).kind == "f" and not np.isfinite(fields[name]).all():
            raise BadFile(f"gives {name} with values that are not finite")
    return fields


def data_fields(data: type[PreparedDataModule]) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """The arrays of a data set: name -> (shape of a sample, type)."""
    return {
        name: (shape, np.dtype(kind))
        for source in data.sources.values()
        for name, (shape, kind) in source.fields.items()
    }


def tabulate(
    data: type[PreparedDataModule], samples: Sequence[Sample], rows: Sequence[Mapping[str, Any]]
) -> pd.DataFrame:
    """The table of samples, splits included."""
    import pandas as pd

    frame = pd.DataFrame(
        {
            "id": [s.id for s in samples],
            "label": [s.label for s in samples],
            "group": [s.group for s in samples],
            "attack": [s.attack for s in samples],
            "legacy": [s.legacy for s in samples],
            "clip": [json.dumps(dict(s.clip), sort_keys=True) if s.clip else "" for s in samples],
            "skipped": [row["error"] for row in rows],
        }
    )
    for modality in data.modalities:
        if modality in data.text_modalities:
            frame[f"text_{modality}"] = [s.text.get(modality, "") for s in samples]
            frame[f"present_{modality}"] = frame[f"text_{modality}"].str.strip() != ""
        else:
            frame[f"sha256_{modality}"] = [row["sha256"].get(modality, "") for row in rows]
            frame[f"present_{modality}"] = frame[f"sha256_{modality}"] != ""
    usable = frame["skipped"] == ""
    frame["clean"] = ""
    frame.loc[usable, "clean"] = np.asarray(data.clean(frame[usable].reset_index(drop=True)), dtype=object)
    if unknown := set(frame["clean"]) - {"", *SPLITS}:
        raise ValueError(f"{data.name}: unknown splits {sorted(unknown)}")
    return frame


def describe(
    data: type[PreparedDataModule],
    partial: Path,
    frame: pd.DataFrame,
    listing: Listing,
    skipped: Sequence[Sequence[str]],
    made_up: bool,
) -> dict[str, Any]:
    """The manifest."""
    usable = frame[frame["skipped"] == ""]
    hashes = frame[[c for c in frame if c.startswith("sha256_")]].to_numpy().ravel()
    splits: dict[str, Any] = {}
    for protocol in ("clean", "legacy"):
        for split in SPLITS:
            ids = sorted(usable["id"][usable[protocol] == split])
            if ids:
                splits.setdefault(protocol, {})[split] = {"samples": len(ids), "sha256": hash_lines(ids)}
    manifest = {
        "format": FORMAT,
        "version": data.version,
        "dataset": data.name,
        "made_up": made_up,
        "samples": len(usable),
        "splits": splits,
        "arrays": {
            name: {"shape": [len(frame), *shape], "dtype": str(dtype), "sha256": hash_file(partial / f"{name}.npy")}
            for name, (shape, dtype) in data_fields(data).items()
        },
        "table": hash_table(frame),
        "sources": {"files": int((hashes != "").sum()), "sha256": hash_lines(sorted(h for h in hashes if h))},
        "transform": {m: source.transform for m, source in data.sources.items()},
        "decoders": decoders(),
        "skipped": [list(s) for s in skipped],
        "unlisted": {"files": len(listing.unlisted), "first": listing.unlisted[:20]},
        "notes": listing.notes,
    }
    if listing.classes is not None:
        manifest["classes"] = list(listing.classes)
    return {**manifest, "sha256": hash_manifest(manifest)}


def verify(data: type[PreparedDataModule]) -> list[str]:
    """What of a prepared folder is not as its manifest says: a line each; none if all is well."""
    manifest, wrong = data.read_manifest(), []
    if hash_manifest(manifest) != manifest.get("sha256"):
        wrong.append(f"{data.folder() / 'manifest.json'} has changed since it was prepared")
    for name, expected in manifest["arrays"].items():
        try:
            data.array(name, manifest)
        except UsageError as error:
            wrong.append(str(error))
            continue
        if hash_file(data.folder() / f"{name}.npy") != expected["sha256"]:
            wrong.append(f"{data.folder() / name}.npy has changed since it was prepared")
    try:
        if hash_table(data.table()) != manifest["table"]:
            wrong.append(f"{data.folder() / 'samples.parquet'} has changed since it was prepared")
    except UsageError as error:
        wrong.append(str(error))
    return wrong


def hash_file(path: Path) -> str:
    """The SHA-256 of a file."""
    digest = sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def hash_lines(lines: Sequence[str]) -> str:
    """The SHA-256 of lines."""
    return sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


def hash_manifest(manifest: Mapping[str, Any]) -> str:
    """The SHA-256 of all of a manifest but itself."""
    content = {key: value for key, value in manifest.items() if key != "sha256"}
    return hash_lines([json.dumps(content, sort_keys=True)])


def hash_table(frame: pd.DataFrame) -> str:
    """The SHA-256 of a table's values, whatever its file looks like."""
    return hash_lines(
        [json.dumps([str(v) for v in row], ensure_ascii=False) for row in [list(frame), *frame.to_numpy().tolist()]]
    )


def write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(f"{path.name}.new")
    with temporary.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)


def replace_folder(partial: Path, folder: Path) -> None:
    """Give the finished folder its name; the old one goes only when the new one is complete."""
    old = folder.with_name(f"{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    partial.rename(folder)
    for leftover in (
        "plan.json",
        "progress.jsonl",
        "skipped.csv",
    ):  # only now: until here an interruption costs nothing
        (folder / leftover).unlink(missing_ok=True)
    shutil.rmtree(folder / "reading", ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
