"""Write the small store that ``test_report`` renders, and what it renders to.

    python tests/report/make_golden.py            # the golden tables from the store
    python tests/report/make_golden.py --store    # the store as well: after a change of what a record or a trial holds

Look at the difference before committing it: the tables are the expectation, not a by-product.

The experiment: CREMA-D's names with two modalities and three classes, protocols clean and legacy, seeds 0 and 1. Of its 12 trials,
concat's are all done; of sum's, (clean, seed 1) has failed; mla was never run.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np

from mmbench.experiment.grid import Grid
from mmbench.experiment.plan import Experiment
from mmbench.metrics import summary
from mmbench.recipe import Recipe
from mmbench.record import Failure, Predictions, Record
from mmbench.report.collect import Results, collect
from mmbench.report.latex import to_latex
from mmbench.report.tables import to_markdown
from mmbench.store import Store
from mmbench.trial import Trial

GOLDEN = Path(__file__).parent / "golden"
TABLES = ("table.md", "table.csv", "table.tex")
MODALITIES = ("audio", "video")
METHODS = ("concat", "sum", "mla")
FAILED = ("clean", 1, "sum")
# How often a method is right under each pattern, audio, video, audio+video.
SKILL = {"concat": (0.6, 0.3, 0.8), "sum": (0.5, 0.45, 0.8)}
SAMPLES, CLASSES, GROUPS = 20, 6, 5


def experiment() -> Experiment:
    """The experiment whose trials the store has."""
    recipe = Recipe(epochs=2, batch_size=8, lr=0.1, momentum=0.9, weight_decay=0.0, step_size=1, gamma=0.5)
    grid = Grid.model_validate(
        {
            "title": "A golden table",
            "datasets": {"crema_d": {"protocols": ["clean", "legacy"]}},
            "methods": dict.fromkeys(METHODS),
            "seeds": [0, 1],
        }
    )
    trials = [
        Trial(
            dataset="crema_d",
            data="golden",
            protocol=protocol,
            method=method,
            seed=seed,
            encoders={"audio": {"name": "resnet18_audio"}, "video": {"name": "resnet18"}},
            params={},
            recipe=recipe,
            views={"audio": "fbank", "video": "frames"},
        )
        for protocol in ("clean", "legacy")
        for seed in (0, 1)
        for method in METHODS
    ]
    return Experiment("golden", grid, trials)


def predictions(trial: Trial) -> Predictions:
    """Made-up predictions on a test split that all trials share; every tenth sample has no video."""
    shared = np.random.default_rng(0)
    label = shared.integers(0, CLASSES, SAMPLES)
    own = np.random.default_rng([METHODS.index(trial.method), trial.seed, trial.protocol == "legacy"])
    scores = own.normal(0, 0.3, (3, SAMPLES, CLASSES))
    for pattern, skill in enumerate(SKILL[trial.method]):
        right = own.random(SAMPLES) < skill
        scores[pattern, np.arange(SAMPLES), np.where(right, label, (label + 1) % CLASSES)] += 2
    log_probs = (scores - np.log(np.exp(scores).sum(axis=-1, keepdims=True))).astype(np.float16)
    return Predictions(
        modalities=np.array(MODALITIES),
        label=label,
        group=np.arange(SAMPLES) % GROUPS,
        present=np.stack([np.ones(SAMPLES, bool), np.arange(SAMPLES) % 10 > 0], axis=1),
        predicted=log_probs.argmax(axis=-1).astype(np.int16),
        log_probs=log_probs,
        log_prior=np.log(np.full(CLASSES, 1 / CLASSES)).astype(np.float16),
        attack=np.empty(0, np.int16),
    )


def write_store(store: Store) -> None:
    """The store, with the same bytes every time."""
    for number, trial in enumerate(experiment().trials):
        common = {
            "key": trial.key,
            "trial": trial,
            "started": "2026-01-01T00:00:00+00:00",
            "finished": "2026-01-01T00:01:00+00:00",
            "environment": {"commit": "0123456789", "dirty": False},
        }
        if trial.method == "mla":
            continue
        if (trial.protocol, trial.seed, trial.method) == FAILED:
            failure = Failure(kind="exception", message="ValueError: 100 % of a_line")
            store.write(Record(**common, status="failed", failure=failure))
            continue
        made = predictions(trial)
        metrics = {
            name: summary(made.label, made.predicted[i], made.log_probs[i]) for i, name in enumerate(made.pattern_names)
        }
        seconds = {"build": 1.0, "fit": 10.0 + number, "test": 0.5}
        record = Record(**common, status="done", parameters=1234, seconds=seconds, metrics=metrics)
        store.write(record, made)


def render() -> tuple[Results, dict[str, str]]:
    """The results, and the tables by file name."""
    results = collect(experiment(), Store(GOLDEN / "runs"), GOLDEN / "reported")
    csv = results.table.to_csv(index=False, float_format="%.4f")
    return results, dict(zip(TABLES, (to_markdown(results), csv, to_latex(results)), strict=True))


if __name__ == "__main__":
    if "--store" in sys.argv:
        shutil.rmtree(GOLDEN / "runs", ignore_errors=True)
        write_store(Store(GOLDEN / "runs"))
    for name, text in render()[1].items():
        (GOLDEN / name).write_text(text, encoding="utf-8")
