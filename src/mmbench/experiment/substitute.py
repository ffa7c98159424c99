"""An experiment on other data sets than its file names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmbench.data import DATASETS
from mmbench.data.prepared import PreparedDataModule
from mmbench.errors import UsageError, did_you_mean
from mmbench.experiment.grid import Grid

CARRIED_OVER = ("protocols", "folds", "seeds", "recipe")
"""Settings of a data set that mean the same of any other; encoders, views and modalities do not."""

FEW_STEPS = 8


def put_on(raw: Any, names: Sequence[str], where: str) -> None:
    """Put other data sets in the place of those of a parsed file, with the settings of its first one, as far as they fit; in place.

    Folds that a data set has not are left out: it then runs on its one split.

    Args:
        raw: what the file says.
        names: of the data sets.
        where: the file, for messages.

    Raises:
        UsageError: there is no data set of a name, or the file has none whose settings could be taken.
    """
    if unknown := [name for name in names if name not in DATASETS]:
        raise UsageError(
            f"--dataset {unknown[0]}: no such data set; {did_you_mean(unknown[0], DATASETS)} (`mmbench data add` makes one of a folder)"
        )
    given = raw.get("datasets") if isinstance(raw, dict) else None
    if not isinstance(given, dict) or not given:
        raise UsageError(f"{where}: has no data sets whose settings --dataset could take")
    first = next(iter(given.values()))
    settings = {key: first[key] for key in CARRIED_OVER if isinstance(first, dict) and key in first}
    raw["datasets"] = {name: fitting(settings, DATASETS[name].folds) for name in names}


def few_steps(grid: Grid, names: Sequence[str]) -> list[str]:
    """A line for each data set that is so small that an epoch of the recipe has few steps: the methods then hardly learn."""
    lines = []
    for name in names:
        data, size = DATASETS[name], grid.datasets[name].recipe.batch_size
        count = (
            data.read_manifest()["samples"] if issubclass(data, PreparedDataModule) and not data.prepared() else None
        )
        if count is not None and count < FEW_STEPS * size:
            lines.append(
                f"{name}: {count} samples in batches of {size} are {-(-count * 7 // 10 // size)} training steps an epoch or so; "
                f"smaller batches or more epochs teach more: --set datasets.{name}.recipe.batch_size={max(4, size // 4)}"
            )
    return lines


def fitting(settings: dict[str, Any], folds: int) -> dict[str, Any]:
    """The settings, for a data set that has so many folds."""
    own, asked = dict(settings), settings.get("folds")
    if folds == 1:
        own.pop("folds", None)
    elif isinstance(asked, int) and asked > folds:
        own["folds"] = "all"
    elif isinstance(asked, list):
        own["folds"] = [fold for fold in asked if isinstance(fold, int) and fold < folds] or "all"
    return own
