"""Decoding a raw data set once: in parallel, resumable, with every file that cannot be used named."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from mmbench.data.prepared import FORMAT, MADE_UP, SPLITS, PreparedDataModule
from mmbench.data.preparing.decoding import run_chunks
from mmbench.data.preparing.lists import Below, links_into
from mmbench.data.preparing.manifest import data_fields, describe, doubts_of, tabulate
from mmbench.data.preparing.media import decoders
from mmbench.data.preparing.raw import Listing, Sample
from mmbench.errors import DataError, UsageError

BLOCK = 1 << 14  # vectors that are written at once
TOLERATED = 0.01  # the share of bad samples above which preparing fails


def prepare(
    data: type[PreparedDataModule],
    raw: Path,
    jobs: int = 1,
    allow_bad: bool = False,
    say: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True),
    also_from: Sequence[Path] = (),
) -> dict[str, Any]:
    """Prepare a data set; goes on where an earlier call was ended.

    Work is done in ``<folder>.partial``, which takes the folder's name when everything is in it.

    Args:
        data: the data set's class.
        raw: the raw download, laid out as ``data.info.layout`` says.
        jobs: processes that decode.
        allow_bad: accept more than 1 % of samples that cannot be used.
        say: takes lines of progress.
        also_from: folders that symbolic links of the raw folder may lead into.

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
        with locked(data.folder()), links_into(also_from):
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
    for i, sample in enumerate(samples):
        if not any(sample.files.values()):  # nothing to decode
            report[i] = {"sha256": {}, "noted": {}, "file": "", "error": ""}
    todo = [i for i in range(len(samples)) if i not in report or report[i]["error"]]  # a bad file may have been mended
    say(f"{data.name}: {len(samples)} samples, {len(todo)} to decode, {jobs} at a time")
    if todo:
        run_chunks(data, raw, partial, samples, todo, jobs, report, say)
    rows = [report[i] for i in range(len(samples))]
    add_vectors(partial, listing, rows)
    for i, (sample, row) in enumerate(zip(samples, rows, strict=True)):
        seen = any(text.strip() for text in sample.text.values()) or any(v.present[i] for v in listing.vectors.values())
        if not (row["error"] or row["sha256"] or seen):
            row["error"] = "no modality is there"
    skipped = [list(item) for item in listing.skipped]
    skipped += [[s.id, row["file"], row["error"]] for s, row in zip(samples, rows, strict=True) if row["error"]]
    check_skipped(data, partial, skipped, len(samples) + len(listing.skipped), allow_bad)
    frame = tabulate(data, samples, rows, {name: v.present for name, v in listing.vectors.items()})
    manifest = describe(data, partial, frame, listing, skipped, made_up, doubts_of(samples, rows))
    frame.to_parquet(partial / "samples.parquet", index=False)
    write(partial / "manifest.json", json.dumps(manifest, indent=1, ensure_ascii=False))
    replace_folder(partial, data.folder())
    return manifest


def add_vectors(partial: Path, listing: Listing, rows: Sequence[dict[str, Any]]) -> None:
    """Write the vectors that need no decoding, and add their hashes to what samples came to."""
    for name, vectors in listing.vectors.items():
        path = partial / f"{name}.npy"
        offset = np.load(path, mmap_mode="r", allow_pickle=False).offset
        with path.open("r+b") as stream:
            stream.seek(offset)
            for start in range(0, len(rows), BLOCK):
                block = vectors.block(slice(start, start + BLOCK))
                stream.write(block.tobytes())
                if vectors.hashed:
                    for i, vector in enumerate(block, start):
                        if vectors.present[i]:
                            rows[i]["sha256"][name] = sha256(vector.tobytes()).hexdigest()
            stream.flush()
            os.fsync(stream.fileno())


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
    below = Below(raw)
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
                below.check(file, f"sample '{sample.id}'")


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
    except (OSError, ValueError, RecursionError):
        same = False
    if same:
        lines = (partial / "progress.jsonl").read_bytes().split(b"\n") if (partial / "progress.jsonl").exists() else []
        return {number: row for line in lines for number, row in progress_of(line).items()}
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


def progress_of(line: bytes) -> dict[int, dict[str, Any]]:
    """Number of a sample -> what it came to; nothing of a line that was cut off or changed, so that its samples are done again."""
    checksum, _, text = line.partition(b" ")
    if checksum != b"%08x" % crc32(text):
        return {}
    return {int(number): row for number, row in json.loads(text).items()}


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
