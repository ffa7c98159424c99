"""What the suite costs, as ratios measured in one run: ``make benchmark``.

Each ratio compares two ways of doing the same work, taken in turns in this process so that both see the same machine, and is the
median over the turns. Absolute times are printed for orientation only.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch.nn import functional as F

from mmbench.baselines import METHODS
from mmbench.curves import CurveLogger
from mmbench.experiment.plan import expand, load
from mmbench.provenance import Codes
from mmbench.record import Record
from mmbench.runner.local import start_server
from mmbench.store import Store
from mmbench.task import MultimodalTask
from mmbench.training import build, lean_trainer, run
from mmbench.trial import Trial

TURNS = 7
STEP_EPOCHS = 4


def main() -> None:
    torch.set_num_threads(1)
    torch.utils.deterministic.fill_uninitialized_memory = False  # as in a trial
    pl.seed_everything(0, verbose=False)
    for method in ("sum", "concat"):
        bare, suite = turns(lambda m=method: bare_step(trial(m)), lambda m=method: suite_step(trial(m)))
        report(f"a training step of {method}: suite / bare PyTorch loop", suite, bare, "at most 1.15")
    for method in ("concat", "mla"):
        task, data = build(trial(method))
        batches = list(data.test_dataloader())
        plain, every = turns(lambda t=task, b=batches: plain_pass(t, b), lambda t=task, b=batches: pattern_pass(t, b))
        report(f"testing all 7 patterns of {method}: / one plain pass", every, plain, "at most 1.3")
    checks()
    record_reading()
    trial_start()
    finished_report()


def checks() -> None:
    """What ``setup`` takes to hold a data set to its word, beside training as long as Table 1 does."""
    planned, epochs = trial("concat"), load("experiments/table1.yaml").grid.datasets["openclipart"].recipe.epochs

    def held() -> float:
        data = build(planned)[1]
        loaded = data.load()
        data.load, data._loaded = lambda: loaded, None  # type: ignore[method-assign]
        started = time.perf_counter()
        data.setup()
        return time.perf_counter() - started

    setup, step = turns(held, lambda: suite_step(planned))
    steps = epochs * len(build(planned)[1].train_dataloader())
    share = statistics.median(a / (b * steps) for a, b in zip(setup, step, strict=True))
    print(
        f"holding a data set to its word: {share:.2%} of a trial's training (goal: under 1 %; "
        f"{1e3 * statistics.median(setup):.0f} ms / {statistics.median(step) * steps:.1f} s)",
        flush=True,
    )


def trial(method: str) -> Trial:
    """A trial on the embedded set, as Table 1 has it."""
    raw = {
        "title": "",
        "datasets": {"openclipart": {"recipe": {"epochs": STEP_EPOCHS}}},
        "methods": {method: {}},
        "seeds": [0],
    }
    return expand(raw).trials[0]


def turns(first: Callable[[], float], second: Callable[[], float]) -> tuple[list[float], list[float]]:
    """Measure both in turns, after one turn to warm up."""
    times = [(first(), second()) for _ in range(TURNS + 1)][1:]
    return [a for a, _ in times], [b for _, b in times]


def report(what: str, numerator: list[float], denominator: list[float], goal: str) -> None:
    ratio = statistics.median(a / b for a, b in zip(numerator, denominator, strict=True))
    times = f"{1e3 * statistics.median(numerator):.2f} ms / {1e3 * statistics.median(denominator):.2f} ms"
    print(f"{what}: {ratio:.2f} (goal: {goal}; {times})", flush=True)


def bare_step(description: Trial) -> float:
    """Seconds a step of a plain loop: the same model, data, augmentation and optimiser, nothing else."""
    torch.use_deterministic_algorithms(True)
    task, data = build(description)
    split, size = data.splits.train, description.recipe.batch_size
    (optimizer,), _ = task.configure_optimizers()
    task.train()
    steps = 0
    started = time.perf_counter()
    for _ in range(STEP_EPOCHS):
        for rows in torch.randperm(len(split)).split(size):
            batch = split.__getitems__(rows)
            batch.inputs = {m: data.augmentations[m](x) for m, x in batch.inputs.items()}
            loss = F.cross_entropy(task(batch), batch.label)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps += 1
    return (time.perf_counter() - started) / steps


class Stopwatch(pl.Callback):
    """The time from the first batch's start to the last epoch's end."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == 0:
            self.started = time.perf_counter()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.seconds = (time.perf_counter() - self.started) / trainer.global_step


def suite_step(description: Trial) -> float:
    """Seconds a step as a trial has it: Lightning, its logging, the data module's batches."""
    task, data = build(description)
    watch = Stopwatch()
    trainer = lean_trainer(description.recipe, "cpu", [CurveLogger()], [watch], limit_val_batches=0)
    trainer.fit(task, datamodule=data)
    return watch.seconds


@torch.no_grad()
def plain_pass(task: MultimodalTask, batches: list) -> float:
    """Seconds to predict with everything that is present."""
    task.eval()
    started = time.perf_counter()
    for batch in batches:
        task(batch).log_softmax(dim=-1)
    return time.perf_counter() - started


@torch.no_grad()
def pattern_pass(task: MultimodalTask, batches: list) -> float:
    """Seconds to predict under every presence pattern."""
    task.eval()
    started = time.perf_counter()
    for batch in batches:
        task.predict_step(batch)
    return time.perf_counter() - started


def tell_first_step(planned: Trial, there: Connection) -> None:
    """In a trial's process: run it, send the time of its first training step, and end."""

    def first_step(*_: object) -> None:
        there.send(time.monotonic())
        os._exit(0)

    torch.set_num_threads(1)
    METHODS[planned.method].training_step = first_step
    run(planned, device="cpu")


def trial_start() -> None:
    """Seconds from asking for a trial's process to its first training step."""
    context = start_server()
    seconds = []
    for _ in range(6):
        here, there = context.Pipe()
        asked = time.monotonic()
        process = context.Process(target=tell_first_step, args=(trial("concat"), there))
        process.start()
        seconds.append(here.recv() - asked)
        process.join()
    print(f"start of a trial after the first: {statistics.median(seconds[1:]):.2f} s (goal: under 0.3)")
    print(f"  the first, which waits for the imports: {seconds[0]:.1f} s")


def record_reading() -> None:
    """Reading a record with its checksum, beside reading the same text without looking at it."""
    description = trial("mla")
    row = {f"validation/accuracy/{name}": 0.5 for name in "abcdefg"}
    record = Record(
        key=description.key,
        trial=description,
        status="done",
        started="",
        finished="",
        environment={},
        code=Codes().of(description),
        curves=[row] * 100,
        metrics={name: {"accuracy": 50.0, "macro_f1": 50.0, "ece": 5.0} for name in "abcdefg"},
    )
    content = record.to_bytes()
    bare = b"{" + content.partition(b"\n")[2]
    checked, unchecked = turns(
        lambda: timed(lambda: Record.from_bytes(content)), lambda: timed(lambda: Record.model_validate_json(bare))
    )
    report(
        f"reading a record of {len(content):,} bytes: with / without its checksum", checked, unchecked, "at most 1.2"
    )


def timed(action: Callable[[], object]) -> float:
    """Seconds that an action takes, on average of 200 times."""
    began = time.perf_counter()
    for _ in range(200):
        action()
    return (time.perf_counter() - began) / 200


def finished_report() -> None:
    """Seconds from Table 1's stored trials to its report, and what its processes needed, where it has been run."""
    experiment, store = load("experiments/table1.yaml"), Store("results/runs")
    records = [record for t in experiment.trials if (record := store.done(t.key))]
    if len(records) < len(experiment.trials):
        print("Table 1 has not been run here: no figures of its report and its processes")
        return
    # Here and not above, since a trial's process imports this file: a run imports them while trials run.
    from mmbench.report.collect import collect
    from mmbench.report.page import write

    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        write(collect(experiment, store, Path("results/reported")), Path(folder))
        print(f"from stored trials to the report of Table 1: {time.perf_counter() - began:.1f} s (goal: under 5)")
    memory = max(record.memory_mb or 0 for record in records)
    busy = sum(sum(record.seconds.values()) for record in records)
    print(f"Table 1: at most {memory:.0f} MB a process (goal: under 2,000); {busy:.0f} s of trials in all")


if __name__ == "__main__":
    main()
