"""What the suite costs, as ratios measured in one run: ``make benchmark``.

Each ratio compares two ways of doing the same work, taken in turns in this process so that both see the same machine, and is the
median over the turns. Absolute times are printed for orientation only.
"""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable

import pytorch_lightning as pl
import torch
from torch.nn import functional as F

from mmbench.experiment import expand
from mmbench.runner.child import Job
from mmbench.runner.child import main as run_child
from mmbench.runner.local import start_server
from mmbench.store import Store
from mmbench.task import MultimodalTask
from mmbench.trial import Trial, build

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
    trial_start()


def trial(method: str) -> Trial:
    """A trial on the embedded set, as Table 1 has it."""
    raw = {"title": "", "datasets": {"openclipart": {"recipe": {"epochs": 1}}}, "methods": {method: {}}, "seeds": [0]}
    return expand(raw)[1][0]


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
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=STEP_EPOCHS,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        deterministic=True,
        callbacks=[watch],
    )
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


def report_clock(connection: multiprocessing.connection.Connection) -> None:
    connection.send(time.monotonic())


def trial_start() -> None:
    """Seconds from asking for a trial's process to its first training step: the fork, then building data and model."""
    context = start_server()
    forks, builds = [], []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(4):
            here, there = context.Pipe()
            asked = time.monotonic()
            process = context.Process(target=report_clock, args=(there,))
            process.start()
            forks.append(here.recv() - asked)
            process.join()
            planned = trial("concat").model_copy(update={"seed": seed})
            process = context.Process(target=run_child, args=(Job(planned, folder, threads=1, device="cpu"),))
            process.start()
            process.join()
            record = Store(folder).record(planned.key)
            assert record is not None
            builds.append(record.seconds["build"])
    fork, built = statistics.median(forks[1:]), statistics.median(builds[1:])
    print(
        f"start of a trial after the first: {fork + built:.2f} s (goal: under 0.3; fork {fork:.2f}, build {built:.2f})"
    )
    print(f"  the first, which waits for the imports: {forks[0]:.1f} s")


if __name__ == "__main__":
    main()
