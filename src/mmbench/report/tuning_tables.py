"""Tables of tuning: what it adds, what was chosen, and what so many draws may be expected to give."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mmbench.evidence.comparisons import Difference
from mmbench.evidence.tuning import SPAN
from mmbench.experiment.space import TUNED
from mmbench.missing import pattern_name, patterns
from mmbench.protocol import PROTOCOLS
from mmbench.report.cells import DASH, Cell, Section, difference_text
from mmbench.report.tuning import CELL, Tuning, cell_of, settings_of
from mmbench.tuning import Choice, has_diverged

if TYPE_CHECKING:
    from mmbench.report.collect import Results

CONTROL = "late_fusion"
"""The method whose gain by tuning says what tuning alone is worth."""


def of_tuning(results: Results, tuning: Tuning) -> Iterator[Section]:
    """For each data set, protocol and way of training: the gain, the chosen settings, and the expected best score by draws."""
    groups: dict[tuple[str, ...], list[Choice]] = {}
    for choice in tuning.choices:
        groups.setdefault(cell_of(choice)[:3], []).append(choice)
    for (dataset, protocol, training), choices in groups.items():
        parts = [f"{dataset}{results.mark(dataset)}", protocol, *([training] if training != "complete" else [])]
        title = ", ".join(parts)
        yield _gains(results, tuning, title, choices)
        yield _chosen(title, choices)
        if (expected := _expected(tuning, title, choices)).body:
            yield expected


def _gains(results: Results, tuning: Tuning, title: str, choices: list[Choice]) -> Section:
    """Tuned beside default."""
    dataset, protocol, training, _ = cell_of(choices[0])
    every = pattern_name(patterns(results.modalities[dataset])[-1])
    table = results.table[(results.table.metric == "accuracy") & (results.table.pattern == every)]
    means = table.set_index(list(CELL))["mean"]
    gains = {
        tuple(getattr(line, name) for name in CELL): Difference(line.mean, line.ci_low, line.ci_high)
        for line in tuning.gains.itertuples()
    }
    body = []
    for method in _methods(choices):
        cell = (dataset, protocol, training, method)
        both = [means.get((dataset, protocol, training, label), np.nan) for label in (method, method + TUNED)]
        mine = [choice for choice in choices if choice.search.method == method]
        records = [record for choice in mine for record in choice.records if record is not None]
        body.append(
            [
                Cell(method),
                *(Cell(DASH if np.isnan(mean) else f"{mean:.1f}") for mean in both),
                Cell(difference_text(gains[cell], gains[cell].separable) if cell in gains else DASH),
                Cell(str(len(records))),
                Cell(f"{sum(record.epochs for record in records):,}"),
                Cell(str(sum(map(has_diverged, records)))),
            ]
        )
    draws = max(len(choice.search.draws) for choice in choices)
    fold = " and fold" if choices[0].search.fold else ""
    notes = [
        f"Accuracy with every modality, and what tuning adds to it, in points with 95 % intervals over the same test samples. {draws} "
        f"settings were tried for each method{fold}, the default one of them, with seed {choices[0].search.like.seed}. Each is judged "
        f"by its mean accuracy over the best {SPAN} epochs in a row on the validation part{' of its own fold' if fold else ''}; these "
        "trials never read the test part. Trials, and the epochs of those that did not diverge, are what tuning took.",
    ]
    untuned = [p for p in results.experiment.grid.datasets[dataset].protocols if PROTOCOLS[p].selection == "test"]
    if untuned:
        notes.append(
            f"Not tuned under {', '.join(untuned)}: there, nothing but the test part could tell a good setting."
        )
    if CONTROL in _methods(choices) and len(_methods(choices)) > 1:
        notes.append(
            f"{CONTROL} is the control: what the same budget adds to a method without any coupling of modalities."
        )
    header = ["method", "default", "tuned", "tuned − default", "trials", "epochs", "diverged"]
    return Section(f"{title}, tuned beside default", notes, header, body)


def _chosen(title: str, choices: list[Choice]) -> Section:
    """The settings by fold."""
    folds = any(choice.search.fold for choice in choices)
    body, notes = [], []
    for choice in choices:
        search, chosen = choice.search, choice.chosen
        score = [
            DASH if np.isnan(s) else f"{s:.1f}"
            for s in (choice.scores[0], np.nan if chosen is None else choice.scores[chosen])
        ]
        setting = choice.gap if chosen is None else settings_of(choice, chosen) or "default"
        number = DASH if chosen is None else str(chosen)
        fold = [Cell(str(search.like.fold))] if folds else []
        body.append([Cell(search.method), *fold, Cell(number), Cell(setting), *map(Cell, score)])
        if choice.passed_over:
            made_way = ", ".join(map(str, choice.passed_over))
            where = f"{search.method} {search.fold}".strip()
            notes.append(
                f"{where}: draw {made_way} was better, but diverged when it was tested, and made way for the next best."
            )
    header = ["method", *(["fold"] if folds else []), "draw", "setting", "default's score", "its score"]
    notes.insert(
        0, "Scores are percent of the validation part. Ties go to the smaller learning rate, then to the earlier draw."
    )
    return Section(f"{title}, chosen settings", notes, header, body)


def _expected(tuning: Tuning, title: str, choices: list[Choice]) -> Section:
    """The expected best score by number of draws."""
    table = tuning.expected
    for name, value in zip(CELL[:3], cell_of(choices[0]), strict=False):
        table = table[table[name] == value]
    most = int(table.draws.max()) if len(table) else 0
    numbers = sorted({most, *(2**i for i in range(most.bit_length()))} - {0})
    scores: pd.Series = table.set_index(["method", "draws"]).score
    body = [
        [
            Cell(method),
            *(Cell(f"{v:.1f}" if not np.isnan(v := scores.get((method, n), np.nan)) else DASH) for n in numbers),
        ]
        for method in dict.fromkeys(table.method)
    ]
    notes = [
        "The best score that so many of the draws may be expected to have: the mean over all ways to choose them, and over folds."
    ]
    return Section(f"{title}, expected best score by number of draws", notes, ["method", *map(str, numbers)], body)


def _methods(choices: list[Choice]) -> list[str]:
    return list(dict.fromkeys(choice.search.method for choice in choices))
