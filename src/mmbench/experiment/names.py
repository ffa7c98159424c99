"""The names in an experiment's file, looked up in the tables of what there is; nothing heavy is imported for that."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from pydantic import ValidationError

from mmbench.arguments import describe, shown
from mmbench.baselines import METHODS
from mmbench.data import DATASETS
from mmbench.encoders import ENCODERS
from mmbench.errors import did_you_mean
from mmbench.experiment.grid import MissingGrid
from mmbench.missing import Missing
from mmbench.protocol import PROTOCOLS


def check_names(raw: Any, mistakes: list[str]) -> None:
    """Add the names of methods, data sets, protocols and encoders that there are not."""
    for name in mapping(raw, "methods"):
        if not is_key(name, METHODS):
            mistakes.append(f"methods.{shown(name)}: unknown method; {did_you_mean(name, METHODS)}")
    datasets = mapping(raw, "datasets")
    for name in datasets:
        if not is_key(name, DATASETS):
            mistakes.append(f"datasets.{shown(name)}: unknown data set; {did_you_mean(name, DATASETS)}")
            continue
        protocols = datasets[name].get("protocols") if isinstance(datasets[name], dict) else None
        for protocol in protocols if isinstance(protocols, list) else []:
            if not is_key(protocol, PROTOCOLS):
                hint = did_you_mean(protocol, PROTOCOLS)
                mistakes.append(f"datasets.{name}.protocols: unknown protocol '{shown(protocol)}'; {hint}")
        for modality, choice in mapping(datasets[name], "encoders").items():
            if isinstance(choice, dict) and "name" not in choice:
                continue  # arguments of the data set's own encoder
            encoder = choice["name"] if isinstance(choice, dict) else choice
            if not is_key(encoder, ENCODERS):
                where, hint = f"datasets.{name}.encoders.{shown(modality)}", did_you_mean(encoder, ENCODERS)
                mistakes.append(f"{where}: unknown encoder '{shown(encoder)}'; {hint}")


def check_missing(given: Mapping[str, MissingGrid], mistakes: list[str]) -> None:
    """Add what is wrong with the ways of missing."""
    for name, settings in given.items():
        try:
            settings.expand()
        except ValidationError as error:
            mistakes += describe(error, lambda _: Missing.model_fields, ("missing", name))


def is_key(name: Any, table: Collection[str]) -> bool:
    """Whether what a file gives is a name that the table has; a file may give anything."""
    return isinstance(name, str) and name in table


def mapping(raw: Any, key: str) -> Mapping[Any, Any]:
    """The mapping at a key; an empty one where the file has none, or something else, there."""
    value = raw.get(key) if isinstance(raw, dict) else None
    return value if isinstance(value, dict) else {}
