"""The names in an experiment's file, looked up in the tables of what there is; nothing heavy is imported for that."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any

from pydantic import ValidationError

from mmbench.arguments import describe, shown
from mmbench.baselines import METHODS
from mmbench.data import DATASETS
from mmbench.encoders import ENCODERS
from mmbench.errors import did_you_mean
from mmbench.experiment.grid import MissingGrid
from mmbench.experiment.space import TUNED, Tune, check_recipe_space
from mmbench.missing import Missing
from mmbench.protocol import PROTOCOLS
from mmbench.recipe import Recipe

MOST_LABEL = 60
"""Characters of a label."""


def check_names(raw: Any, mistakes: list[str]) -> set[tuple[str, Any]]:
    """Add the names of methods, data sets, protocols and encoders that there are not.

    Returns:
        The entries that have such a name, each as "methods" or "datasets" and its label.
    """
    methods, datasets = mapping(raw, "methods"), mapping(raw, "datasets")
    wrong = {("methods", m) for m in methods if not named("methods", m, methods[m], "method", METHODS, mistakes)}
    for label, settings in datasets.items():
        before = len(mistakes)
        if named("datasets", label, settings, "dataset", DATASETS, mistakes):
            check_protocols_and_encoders(label, settings, mistakes)
        if len(mistakes) > before:
            wrong.add(("datasets", label))
    return wrong


def check_protocols_and_encoders(label: str, settings: Any, mistakes: list[str]) -> None:
    """Add the names of protocols and encoders, in the entry of a data set, that there are not."""
    protocols = settings.get("protocols") if isinstance(settings, dict) else None
    for protocol in protocols if isinstance(protocols, list) else []:
        if not is_key(protocol, PROTOCOLS):
            hint = did_you_mean(protocol, PROTOCOLS)
            mistakes.append(f"datasets.{label}.protocols: unknown protocol '{shown(protocol)}'; {hint}")
    for modality, choice in mapping(settings, "encoders").items():
        if isinstance(choice, dict) and "name" not in choice:
            continue  # arguments of the data set's own encoder
        encoder = choice["name"] if isinstance(choice, dict) else choice
        if not is_key(encoder, ENCODERS):
            where, hint = f"datasets.{label}.encoders.{shown(modality)}", did_you_mean(encoder, ENCODERS)
            mistakes.append(f"{where}: unknown encoder '{shown(encoder)}'; {hint}")


def named(place: str, label: Any, settings: Any, key: str, table: Collection[str], mistakes: list[str]) -> bool:
    """Whether an entry of the file stands for something that there is, by its label or by what it names; adds why not.

    Args:
        place: "methods" or "datasets".
        label: the entry's key.
        settings: what stands behind it.
        key: "method" or "dataset", with which it names what its label does not.
        table: what there is.
        mistakes: to add to.
    """
    kind, where = {"method": "method", "dataset": "data set"}[key], f"{place}.{shown(label)}"
    name = settings.get(key) if isinstance(settings, dict) else None
    if isinstance(label, str) and (not label.strip() or len(label) > MOST_LABEL or not label.isprintable()):
        mistakes.append(f"{where}: a label has 1 to {MOST_LABEL} printable characters")
    elif name is None:
        if is_key(label, table):
            return True
        hint = f"a label of its own says what it stands for, {key}: NAME"
        mistakes.append(f"{where}: unknown {kind}; {did_you_mean(label, table)}; {hint}")
    elif not is_key(name, table):
        mistakes.append(f"{where}.{key}: unknown {kind} '{shown(name)}'; {did_you_mean(name, table)}")
    elif is_key(label, table) and label != name:
        mistakes.append(f"{where}.{key}: {name}, but the label is the name of another {kind}; choose another label")
    else:
        return True
    return False


def check_missing(given: Mapping[str, MissingGrid], mistakes: list[str]) -> None:
    """Add what is wrong with the ways of missing."""
    for name, settings in given.items():
        try:
            settings.expand()
        except ValidationError as error:
            mistakes += describe(error, lambda _: Missing.model_fields, ("missing", name))


def check_reference(raw: Any, mistakes: list[str]) -> None:
    """Add that the method which others are to be compared with is none of the experiment's."""
    methods, reference = mapping(raw, "methods"), raw.get("reference") if isinstance(raw, dict) else None
    if isinstance(reference, str) and methods and reference not in methods:
        hint = did_you_mean(reference, map(str, methods))
        mistakes.append(f"reference: the experiment has no method '{shown(reference)}'; {hint}")


def check_tune(raw: Any, mistakes: list[str]) -> None:
    """Add what is wrong with ``tune:``, as far as that can be told without looking at the methods."""
    if not isinstance(raw, dict) or "tune" not in raw:
        return
    if raw["tune"] is None:
        mistakes.append("tune: nothing behind it; write tune: {draws: 16}, or leave it out")
        return
    try:
        tune = Tune.model_validate(raw["tune"])
    except ValidationError:
        return  # told with all else that has not the form of an experiment
    if tune.draws < 2:
        mistakes.append(f"tune.draws: expected at least 2, of which the first is the default setting, got {tune.draws}")
    methods, datasets = mapping(raw, "methods"), mapping(raw, "datasets")
    for label in tune.methods:
        if label not in methods:
            hint = did_you_mean(label, map(str, methods))
            mistakes.append(f"tune.methods.{shown(label)}: the experiment has no such method; {hint}")
    for label in methods:
        if f"{label}{TUNED}" in methods:
            mistakes.append(
                f"methods.{label}{TUNED}: is what tables call {label} where it is tuned; choose another label"
            )
    recipes: list[Recipe] = []
    protocols: list[Any] = []
    for settings in datasets.values():
        with suppress(ValidationError):
            recipes.append(Recipe.model_validate(mapping(settings, "recipe")))
        given = settings.get("protocols") if isinstance(settings, dict) else None
        protocols += given if isinstance(given, list) else ["clean"]
    check_recipe_space(tune.recipe, recipes or [Recipe()], mistakes)
    known = [PROTOCOLS[protocol] for protocol in protocols if is_key(protocol, PROTOCOLS)]
    if known and all(protocol.selection == "test" for protocol in known):
        mistakes.append("tune: no data set has a protocol that chooses on a validation split; add clean")


def is_key(name: Any, table: Collection[str]) -> bool:
    """Whether what a file gives is a name that the table has; a file may give anything."""
    return isinstance(name, str) and name in table


def mapping(raw: Any, key: str) -> Mapping[Any, Any]:
    """The mapping at a key; an empty one where the file has none, or something else, there."""
    value = raw.get(key) if isinstance(raw, dict) else None
    return value if isinstance(value, dict) else {}
