"""Labels of an experiment that stand for the same trials, which is a mistake: a table would have one row twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmbench.experiment.grid import Grid
from mmbench.experiment.resolve import DatasetPlan, trial_of
from mmbench.recipe import Recipe

Cell = tuple[str, str]
"""A data set and a method, by their labels."""


def check_twins(
    grid: Grid,
    methods: Mapping[str, dict[str, Any]],
    recipes: Mapping[Cell, Recipe],
    plans: Mapping[str, DatasetPlan],
    mistakes: list[str],
) -> None:
    """Add the labels of methods, or of data sets, whose trials would be the same.

    What another mistake is about is compared with nothing, since it is not known what it stands for; on such a data set, methods
    are compared all the same.
    """
    datasets = {label for label in grid.datasets if not is_told(f"datasets.{label}", mistakes)}
    sound = [label for label in grid.methods if not is_told(f"methods.{label}", mistakes)]
    met: dict[str, list[Cell]] = {}  # what a trial is, but for protocol, fold and seed -> where it is met
    twins: list[tuple[Cell, Cell]] = []
    for (dataset, method), recipe in recipes.items():
        if method not in sound:
            continue
        trial = trial_of(grid, dataset, plans[dataset], method, methods[method], recipe)
        before = met.setdefault(trial.key, [])
        same = [
            (other, its)
            for other, its in before
            if other == dataset or ({other, dataset} <= datasets and overlap(grid, plans, other, dataset))
        ]
        if same:  # preferably with one in which only the data set is another, or only the method
            twins.append((min(same, key=lambda cell: (cell[0] != dataset) + (cell[1] != method)), (dataset, method)))
        before.append((dataset, method))
    mistakes += dict.fromkeys(in_words(twins, len(grid.datasets), len(sound)))


def is_told(place: str, mistakes: Sequence[str]) -> bool:
    """Whether a mistake is about an entry of the file."""
    return any(line.startswith((f"{place}.", f"{place}:")) for line in mistakes)


def overlap(grid: Grid, plans: Mapping[str, DatasetPlan], one: str, other: str) -> bool:
    """Whether two labels of a data set have a protocol, a fold and a seed in common."""
    protocols = set(grid.datasets[one].protocols) & set(grid.datasets[other].protocols)
    seeds = (set(grid.seeds_of(one, p)) & set(grid.seeds_of(other, p)) for p in protocols)
    return any(seeds) and bool(set(plans[one].folds) & set(plans[other].folds))


def in_words(twins: Sequence[tuple[Cell, Cell]], datasets: int, methods: int) -> Iterator[str]:
    """The mistakes: methods that are one on all data sets, data sets that are one for all methods, and all else one by one."""
    of_methods = Counter((a[1], b[1]) for a, b in twins if a[0] == b[0])
    of_datasets = Counter((a[0], b[0]) for a, b in twins if a[1] == b[1])
    for (one, of_one), (other, of_other) in twins:
        if one == other and of_methods[of_one, of_other] == datasets:
            line = f"methods.{of_other}: the same trials as methods.{of_one}"
        elif of_one == of_other and of_datasets[one, other] == methods:
            line = f"datasets.{other}: trials that datasets.{one} has too"
        else:
            line = f"{of_one} on {one} and {of_other} on {other} are the same trials"
        yield f"{line}; change one, or leave it out"
