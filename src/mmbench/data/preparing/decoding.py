"""Decoding the samples of a raw data set, in parallel processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from functools import cache
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path
from threading import Thread
from traceback import extract_tb
from typing import Any, TextIO
from zlib import crc32

import numpy as np

from mmbench.data.prepared import PreparedDataModule
from mmbench.data.preparing.manifest import data_fields
from mmbench.data.preparing.media import BadFile, noting
from mmbench.data.preparing.raw import Sample
from mmbench.data.preparing.vouching import hash_file
from mmbench.errors import DataError

CHUNK = 32  # samples that a worker decodes before it reports: what a kill loses of its work


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
                    text = json.dumps(rows)
                    progress.write(f"{crc32(text.encode()):08x} {text}\n")
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
    """Write rows into the arrays: number -> hashes of the sample's files, what was noted of them, or what is wrong with it."""
    hash_source = cache(hash_file)  # clips of one recording share its file
    now = partial / "reading" / str(os.getpid())
    rows = {}
    with ExitStack() as stack:
        named = stack.enter_context(now.open("w"))
        arrays = {
            name: (stack.enter_context(path.open("r+b")), np.load(path, mmap_mode="r", allow_pickle=False).offset)
            for name in data_fields(data)
            for path in [partial / f"{name}.npy"]
        }
        for number, sample in samples.items():
            row: dict[str, Any] = {"sha256": {}, "noted": {}, "file": "", "error": ""}
            fields: dict[str, np.ndarray] = {}
            for modality, file in sample.files.items():
                if file is None:
                    continue
                tell(named, file)
                try:
                    with noting() as facts:
                        fields |= decode(data, modality, raw / file, sample)
                    row["noted"][modality] = facts
                    row["sha256"][modality] = hash_source(raw / file)
                except BadFile as error:
                    row["file"], row["error"] = file, str(error)
                    break
            else:
                for name, value in fields.items():
                    stream, offset = arrays[name]
                    stream.seek(offset + number * value.nbytes)
                    stream.write(value.tobytes())
            rows[number] = row
        for stream, _ in arrays.values():
            stream.flush()
            os.fsync(stream.fileno())
        tell(named, "")
    return rows


def tell(stream: TextIO, file: str) -> None:
    """Write down which file is being decoded, in the place of the last one."""
    stream.seek(0)
    stream.write(file)
    stream.truncate()
    stream.flush()


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
