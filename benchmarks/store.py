"""What a large store costs: ``python benchmarks/store.py [FOLDER] [--trials 20000] [--only status]``.

Makes up a store of so many trials, unless FOLDER has it already, with an experiment that stands for exactly these: recipes × methods ×
missing rates × folds × seeds, records with the curves of 30 epochs, predictions of 267 samples under 7 patterns of 10 classes. Then
prints, of each command, the CPU time after its imports and the process's largest memory, imports included. Each is run twice: what it
is after a first look at the store, and what it is from then on. Goals, of 20,000: status 3 s, --dry-run 5 s, report 60 s and 1 GB.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from hashlib import sha256
from importlib import import_module
from pathlib import Path

import numpy as np

METHODS = ("late_fusion", "concat", "film", "bigated", "ogm_ge", "qmf", "mla", "mmin", "tate", "shaspec")
RATES = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
RECIPES, FOLDS, MOST_SEEDS = (0.001, 0.002, 0.003, 0.004), 5, 10
EACH = len(METHODS) * len(RATES) * len(RECIPES) * FOLDS
"""Trials of one seed."""
SAMPLES, CLASSES, EPOCHS, GROUPS = 267, 10, 30, 90
MODALITIES = ("image", "title", "tags")

COMMANDS = {
    "status": ["status"],
    "status EXPERIMENT": ["status", "many.yaml"],
    "dry-run": ["run", "many.yaml", "--dry-run"],
    "run": ["run", "many.yaml"],
    "report": ["report", "many.yaml"],
}
IMPORTS = (
    "mmbench.experiment.tryout", "mmbench.running", "mmbench.runner.view", "mmbench.report.terminal", "mmbench.report.collect",
    "mmbench.report.page", "mmbench.report.figures.gallery", "mmbench.report.html", "matplotlib.backends.backend_svg", "vl_convert",
)  # fmt: skip
"""What commands import when they need it."""


def experiment(seeds: int) -> str:
    """The experiment's file, as JSON, which YAML has in it."""
    rows = {
        f"set_{number}": {
            "dataset": "openclipart_features",
            "folds": FOLDS,
            "recipe": {"optimizer": "adam", "epochs": EPOCHS, "lr": lr},
        }
        for number, lr in enumerate(RECIPES)
    }
    missing = {"complete": {}, "matched": {"kind": "bernoulli", "rate": RATES[1:]}}
    return json.dumps(
        {"title": "Many trials", "datasets": rows, "methods": dict.fromkeys(METHODS), "missing": missing, "seeds": list(range(seeds))}
    )  # fmt: skip


def make(folder: Path, seeds: int) -> None:
    """Write the experiment and its store, the experiment's file last."""
    from mmbench.experiment.plan import expand
    from mmbench.metrics import summary
    from mmbench.provenance import Codes
    from mmbench.record import Record

    codes, plan = Codes(), expand(json.loads(experiment(seeds)))
    rng = np.random.default_rng(0)
    environment = {
        "mmbench": "0",
        "commit": "0123456789",
        "dirty": False,
        "device": "cpu",
        "threads": 1,
        "cpu": "made up",
    }
    of_code = {method: codes.of(next(t for t in plan.trials if t.method == method)) for method in METHODS}
    for number, trial in enumerate(plan.trials):
        p = predictions(trial.fold or 0, METHODS.index(trial.method), rng)
        if number % 50 == 0:  # what does not differ much is made now and then
            metrics = {name: summary(p.label, p.predicted[i], p.log_probs[i]) for i, name in enumerate(p.pattern_names)}
            told = curves(rng)
        data = p.to_bytes()
        record = Record(
            key=trial.key, trial=trial, status="done", started="2026-01-01T00:00:00+00:00", finished="2026-01-01T00:01:00+00:00",
            environment=environment, code=of_code[trial.method], seconds={"build": 0.1, "fit": 10 + number % 7, "test": 0.5},
            memory_mb=700.5, parameters=12345, best_epoch=number % EPOCHS, metrics=metrics, curves=told,
            predictions_sha256=sha256(data).hexdigest(),
        )  # fmt: skip
        place = folder / "results/runs" / trial.key
        place.mkdir(parents=True)
        (place / "predictions.npz").write_bytes(data)
        (place / "record.json").write_bytes(record.to_bytes())
        for name in ("log.txt", "lock"):
            (place / name).touch()
    (folder / "many.yaml").write_text(experiment(seeds))


def predictions(fold: int, method: int, rng: np.random.Generator) -> object:
    """Made-up predictions of a fold's samples, those of later methods a little better."""
    from mmbench.record import Predictions

    shared = np.random.default_rng(fold)
    label, group = shared.integers(0, CLASSES, SAMPLES), GROUPS * fold + shared.integers(0, GROUPS, SAMPLES)
    scores = rng.normal(0, 1, (7, SAMPLES, CLASSES)).astype(np.float32)
    shown = np.array([1, 1, 1, 2, 2, 2, 3])[:, None]  # of the patterns
    scores[:, np.arange(SAMPLES), label] += (1 + 0.05 * method) * shown * rng.random((7, SAMPLES))
    log_probs = (scores - np.log(np.exp(scores).sum(axis=-1, keepdims=True))).astype(np.float16)
    return Predictions(
        modalities=np.array(MODALITIES),
        label=label,
        group=group,
        present=np.ones((SAMPLES, 3), bool),
        predicted=scores.argmax(axis=-1).astype(np.int16),
        log_probs=log_probs,
        log_prior=np.full(CLASSES, -np.log(CLASSES), np.float32),
        attack=np.empty(0, np.int16),
    )


def curves(rng: np.random.Generator) -> list[dict[str, float]]:
    """What a trial's epochs came to."""
    parts = [f"{metric}/{modality}" for metric in ("validation/accuracy", "gradient") for modality in MODALITIES]
    names = [
        "train/loss",
        "train/accuracy",
        "validation/loss",
        "validation/accuracy",
        *parts,
        "learning_rate",
        "seconds",
    ]
    return [dict(zip(names, rng.random(len(names)).tolist(), strict=True)) for _ in range(EPOCHS)]


def measure(folder: Path, name: str) -> None:
    """Run one command in this process; its time and memory on standard error."""
    from mmbench import machine

    machine.plan_only()  # as the command line does, before anything else is imported
    from mmbench.cli import main

    for module in IMPORTS:
        import_module(module)
    os.chdir(folder)
    began = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = main(COMMANDS[name])
    seconds = time.process_time() - began
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    said = [line for text in (out, err) for line in text.getvalue().splitlines()]
    if code:
        sys.exit("\n".join(said))
    counted = next((line for line in reversed(said) if "trials," in line), "")
    print(f"{name:18} {seconds:6.1f} s of CPU, at most {memory:5.0f} MB   {counted[:80]}", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("/tmp/store_many"))
    parser.add_argument("--trials", type=int, default=EACH * MOST_SEEDS, help=f"a multiple of {EACH}")
    parser.add_argument("--only", choices=COMMANDS)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.here:
        measure(given.folder, given.only)
        return
    if not (given.folder / "many.yaml").exists():
        began = time.perf_counter()
        make(given.folder, max(1, given.trials // EACH))
        print(f"made up in {time.perf_counter() - began:.0f} s", flush=True)
    for name in [given.only] if given.only else COMMANDS:
        for _ in range(2):
            subprocess.run([sys.executable, __file__, str(given.folder), "--only", name, "--here"], check=True)


if __name__ == "__main__":
    main()
