"""An experiment on other data sets than its file names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmbench.data import DATASETS
from mmbench.errors import UsageError, did_you_mean

CARRIED_OVER = ("protocols", "folds", "seeds", "recipe")
"""Settings of a data set that mean the same of any other; encoders, views and modalities do not."""


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
