"""Parts of ``gpu.py`` that call ``mmbench run``: trials that share a GPU, a trial that is killed and goes on, a trial on two GPUs.

What came of a run is read from its store, and it is ended when all is there: a report takes time, and packages that may not be there.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from gpu import Machine, Row

from mmbench.record import Record
from mmbench.store import Store

EXPERIMENT = """
title: GPU
datasets: {{{dataset}: {{recipe: {{epochs: {epochs}, lr: 0.01, step_size: 20, clip_norm: 2}}}}}}
methods: {{mla: }}
seeds: [{seeds}]
"""
"""Of trials on the embedded pictures, which take a few seconds each, or on their features."""


@contextmanager
def experiment(machine: Machine, epochs: int, seeds: int) -> Iterator[Runs]:
    """An experiment in a folder of its own; nothing that was started of it outlives this."""
    with TemporaryDirectory() as folder:
        runs = Runs(Path(folder), machine, epochs, seeds)
        try:
            yield runs
        finally:
            for process in runs.started:
                end(process)


class Runs:
    """An experiment, and runs of it."""

    def __init__(self, folder: Path, machine: Machine, epochs: int, seeds: int) -> None:
        self.folder, self.machine, self.seeds = folder, machine, seeds
        self.file, self.started = folder / "gpu.yaml", list[subprocess.Popen[bytes]]()
        dataset, numbers = "openclipart_features" if machine.tiny else "openclipart", ", ".join(map(str, range(seeds)))
        self.file.write_text(EXPERIMENT.format(dataset=dataset, epochs=epochs, seeds=numbers))

    def command(self, results: str, *options: str, devices: str = "0") -> list[str]:
        """``mmbench run`` into a store of its own."""
        where = devices if self.machine.on_gpu else "cpu"
        run = [sys.executable, "-m", "mmbench", "run", str(self.file), "--results", str(self.folder / results)]
        return [*run, "--devices", where, "--threads", "1", *options]

    def start(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start a command as the leader of a group, so that all of it can be killed; what it says goes to a file."""
        with (self.folder / "said.txt").open("ab") as said:
            self.started.append(subprocess.Popen(command, stdout=said, stderr=said, start_new_session=True))
        return self.started[-1]

    def run(self, results: str, *options: str, devices: str = "0") -> tuple[list[Record], float]:
        """The records of a run, in the order of the seeds, and the seconds from the first trial's start to the last one's end.

        Raises:
            RuntimeError: a trial is not done; it says why, or ends with what the run said last.
        """
        process, store = (
            self.start(self.command(results, *options, devices=devices)),
            Store(self.folder / results / "runs"),
        )
        while process.poll() is None and len(store.keys()) < self.seeds:
            time.sleep(0.1)
        end(process)
        records = [record for key in map(str, store.keys()) if (record := store.record(key)) is not None]
        for record in records:
            if record.failure is not None:
                raise RuntimeError(f"{record.trial.label}: {record.failure.message}")
        if not records:
            raise RuntimeError((self.folder / "said.txt").read_text(errors="replace").strip().rpartition("\n")[2])
        began = min(datetime.fromisoformat(record.started) for record in records)
        ended = max(datetime.fromisoformat(record.finished) for record in records)
        return sorted(records, key=lambda record: record.trial.seed), (ended - began).total_seconds()


def same(one: Sequence[Record], other: Sequence[Record]) -> bool:
    """Whether the same trials gave the same predictions, to the last bit."""
    return [(r.key, r.predictions_sha256) for r in one] == [(r.key, r.predictions_sha256) for r in other]


def packing(machine: Machine) -> Iterator[Row]:
    """Four trials one after the other, and at the same time on the same device."""
    with experiment(machine, 2 if machine.tiny else 6, 4) as runs:
        alone, seconds = runs.run("alone", "--jobs", "1")
        packed, together = runs.run("packed", "--jobs", "4")
    where = "one GPU" if machine.on_gpu else "the CPU"
    yield Row(f"4 trials on {where}, at the same time", f"{together:.0f} s (one after the other {seconds:.0f} s)")
    kept = same(alone, packed)
    text = "predictions of trials that share it, and of the same trials alone"
    yield Row(text, "the same to the last bit" if kept else "other ones", "the same", kept and len(packed) == 4)
    if (peak := packed[0].gpu_memory_mb) is not None:
        yield Row("GPU memory of such a trial, as its record has it", f"{peak:,.0f} MB")


def resume(machine: Machine) -> Iterator[Row]:
    """A trial that is killed while it trains, started again, and the same trial left alone."""
    with experiment(machine, 8 if machine.tiny else 20, 1) as runs:
        whole, _ = runs.run("whole")
        process = runs.start(runs.command("killed", "--checkpoint-every", "epoch"))
        found = wait_for_checkpoint(runs.folder / "killed/runs", process)
        end(process)
        time.sleep(1)  # its trial ends as soon as it notices
        yield Row(
            "a trial is killed after its first checkpoint", "killed" if found else "it was over before", "killed", found
        )
        again, _ = runs.run("killed", "--checkpoint-every", "epoch")
    on = [one.epoch for one in again[0].resumed]
    yield Row("it goes on with epoch", ", ".join(map(str, on)) or "0", "1 or later", bool(on) and min(on) > 0)
    what, kept = "predictions of the trial that went on, and of the same trial left alone", same(whole, again)
    yield Row(what, "the same to the last bit" if kept else "other ones", "the same", kept)


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a run with all that it started, if it is not over."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_for_checkpoint(runs: Path, process: subprocess.Popen[bytes]) -> bool:
    """Wait until a trial has a checkpoint; whether it had one before it was over."""
    while process.poll() is None:
        if any(runs.glob("*/last.ckpt")):
            return True
        time.sleep(0.02)
    return False


def ranks(machine: Machine) -> Iterator[Row]:
    """A trial on two devices, and on one."""
    import torch

    if machine.on_gpu and torch.cuda.device_count() < 2:
        yield Row("two devices a trial", "not run: there is one GPU")
        return
    with experiment(machine, 2 if machine.tiny else 10, 1) as runs:
        one, seconds = runs.run("one")
        two, other = runs.run("two", "--devices-per-trial", "2", devices="0,1")
        stores = [Store(runs.folder / name / "runs") for name in ("one", "two")]
        (first, second) = (store.predictions(record) for store, (record,) in zip(stores, (one, two), strict=True))
        alike = float((first.predicted == second.predicted).mean())
    yield Row("a trial on two devices", f"{other:.0f} s (on one {seconds:.0f} s)")
    yield Row("its answers, and those of one device: equal", f"{100 * alike:.1f} %", "at least 90 %", alike >= 0.9)
