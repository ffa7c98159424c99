"""The names and arguments of an experiment's file, resolved against what there is."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from pydantic import ValidationError

from mmbench.arguments import describe, resolve_arguments
from mmbench.baselines import METHODS
from mmbench.data import DATASETS
from mmbench.data.prepared import PreparedDataModule
from mmbench.data.split import DataSpec
from mmbench.encoders import ENCODERS
from mmbench.encoders.building import build_encoder, weights_of
from mmbench.errors import UsageError, did_you_mean
from mmbench.experiment.grid import Grid, MissingGrid
from mmbench.missing import Missing
from mmbench.protocol import PROTOCOLS

METHOD_RESERVED = ("spec", "encoders", "recipe")  # constructor arguments that a trial supplies


def check_missing(given: Mapping[str, MissingGrid], mistakes: list[str]) -> None:
    """Add what is wrong with the ways of missing."""
    for name, settings in given.items():
        try:
            settings.expand()
        except ValidationError as error:
            for mistake in describe(error, lambda _: Missing.model_fields):
                key, _, text = mistake.partition(": ")
                mistakes.append(f"missing.{name}{'.' if key else ''}{key}: {text}")


def resolve_methods(given: Mapping[Any, Any], mistakes: list[str]) -> dict[str, dict[str, Any]]:
    """Method -> all of its arguments, for those that there are."""
    resolved = {}
    for name, params in given.items():
        if not is_key(name, METHODS):
            mistakes.append(f"methods.{name}: unknown method; {did_you_mean(name, METHODS)}")
        elif isinstance(params, dict | None):
            resolved[name], wrong = resolve_arguments(METHODS[name], params or {}, METHOD_RESERVED)
            mistakes += [f"methods.{name}.{w}" for w in wrong]
    return resolved


@dataclass
class DatasetPlan:
    """What an experiment needs to know of a data set and the encoders chosen for it.

    Attributes:
        encoders: modality -> {name: encoder, and its arguments}.
        manifest: the hash of the data.
        weights: modality -> the hash of the files that its encoder reads.
        views: modality -> the prepared field that it is read from, for data sets that are prepared.
        unprepared: what is missing on this machine; then manifest and weights are empty.
        lacking: protocol -> why its splits are missing.
    """

    encoders: dict[str, dict[str, Any]]
    manifest: str = ""
    weights: dict[str, str] = field(default_factory=dict)
    views: dict[str, str] = field(default_factory=dict)
    unprepared: str | None = None
    lacking: dict[str, str] = field(default_factory=dict)


def resolve_datasets(given: Mapping[Any, Any], mistakes: list[str]) -> dict[str, DatasetPlan]:
    """Data set -> its plan, for those that there are."""
    plans = {}
    for name, settings in given.items():
        if is_key(name, DATASETS):
            plans[name] = _resolve_dataset(name, settings if isinstance(settings, dict) else {}, mistakes)
        else:
            mistakes.append(f"datasets.{name}: unknown data set; {did_you_mean(name, DATASETS)}")
    return plans


def _resolve_dataset(name: str, settings: Mapping[Any, Any], mistakes: list[str]) -> DatasetPlan:
    data, where = DATASETS[name], f"datasets.{name}"
    protocols = settings.get("protocols")
    for protocol in protocols if isinstance(protocols, list) else []:
        if not is_key(protocol, PROTOCOLS):
            mistakes.append(f"{where}.protocols: unknown protocol '{protocol}'; {did_you_mean(protocol, PROTOCOLS)}")
    for modality, view in mapping(settings, "views").items():
        try:
            data.check_view(modality, view)
        except UsageError as error:
            mistakes.append(f"{where}.views: {error}")
    views = {**data.default_views(), **mapping(settings, "views")}
    encoders = _resolve_encoders(name, data.encoders, mapping(settings, "encoders"), mistakes)
    _check_cached(where, settings, encoders, mistakes)
    for modality in mapping(settings, "spec_augment"):
        try:
            data.check_spec_augment(modality, views.get(modality), mapping(settings["spec_augment"], modality))
        except UsageError as error:
            mistakes.append(f"{where}.spec_augment: {error}")
    plan = DatasetPlan(encoders, views=views, unprepared=data.prepared())
    if plan.unprepared is None:
        try:
            plan.manifest, plan.weights = data.manifest(), weights_of(encoders)
            plan.lacking = {protocol: why for protocol in PROTOCOLS if (why := data.lacks(protocol))}
        except UsageError as error:
            plan.unprepared = str(error)
    return plan


def _check_cached(
    where: str, settings: Mapping[Any, Any], encoders: Mapping[str, Mapping[str, Any]], mistakes: list[str]
) -> None:
    """Features are cached of frozen encoders, which then run once, in float32, on data that are not augmented."""
    if settings.get("cached") is not True:
        return
    frozen = [modality for modality, choice in encoders.items() if choice.get("freeze")]
    if not frozen:
        mistakes.append(f"{where}.cached: no encoder is frozen; give one freeze: true, or leave cached out")
    if mapping(settings, "recipe").get("precision") == "bf16" and len(frozen) == len(encoders):
        mistakes.append(f"{where}.recipe.precision: cached encoders run once, in float32; leave bf16 out")
    for modality in mapping(settings, "spec_augment"):
        if modality in frozen:
            mistakes.append(f"{where}.spec_augment: {modality} is encoded once, so nothing can be hidden in training")


def _resolve_encoders(
    dataset: str,
    default: Mapping[str, str | Mapping[str, Any]],
    chosen: Mapping[str, Any],
    mistakes: list[str],
) -> dict[str, dict[str, Any]]:
    where = f"datasets.{dataset}.encoders"
    for modality in chosen:
        if modality not in default:
            mistakes.append(f"{where}.{modality}: unknown modality; {did_you_mean(modality, default)}")
    resolved = {}
    for modality in default:
        given = default[modality]
        own: Mapping[str, Any] = given if isinstance(given, Mapping) else {"name": given}
        choice = chosen.get(modality, {})
        options: dict[str, Any] = dict(choice) if isinstance(choice, dict) else {"name": choice}
        if options.get("name", own["name"]) == own["name"]:  # the data set's own arguments hold for its own encoder
            options = {**own, **options}
        name = options.pop("name")
        if not is_key(name, ENCODERS):
            mistakes.append(f"{where}.{modality}: unknown encoder '{name}'; {did_you_mean(name, ENCODERS)}")
            continue
        arguments, wrong = resolve_arguments(ENCODERS[name], options)
        mistakes += [f"{where}.{modality}.{w}" for w in wrong]
        resolved[modality] = {"name": name, **arguments}
    return resolved


def try_out(
    grid: Grid,
    methods: Mapping[str, dict[str, Any]],
    encoders: Mapping[str, dict[str, dict[str, Any]]],
    mistakes: list[str],
) -> None:
    """Build every encoder and method once, so that values which they refuse are found before any trial runs."""
    for name, settings in grid.datasets.items():
        data, built = DATASETS[name], {}
        for modality, choice in encoders[name].items():
            where = f"datasets.{name}.encoders.{modality}"
            try:
                with torch.device("meta"):  # no memory, no time
                    built[modality] = build_encoder(choice)
            except Exception as error:
                mistakes.append(f"{where}: {choice['name']} refuses its arguments: {error}")
                continue
            if (modality in data.text_modalities) != hasattr(built[modality], "tokenize"):
                kind = "text" if modality in data.text_modalities else "no text"
                mistakes.append(f"{where}: {choice['name']} does not fit, {modality} is {kind}")
        if mistakes:
            continue
        for missing in [*filter(None, grid.trainings), *(Missing(rate=rate) for rate in grid.test_rates)]:
            try:
                missing.check(data.modalities)
            except UsageError as error:
                mistakes.append(f"missing, with datasets.{name}: {error}")
        classes = data.class_names() if issubclass(data, PreparedDataModule) else data.classes
        spec = DataSpec(tuple(encoders[name]), (1,) * len(classes), data.conditioning, data.feature_dims)
        for method, params in methods.items():
            try:
                METHODS[method](spec, built, settings.recipe, **params)
            except Exception as error:
                mistakes.append(f"methods.{method}, with datasets.{name}: {error}")


def is_key(name: Any, table: Collection[str]) -> bool:
    """Whether what a file gives is a name that the table has; a file may give anything."""
    return isinstance(name, str) and name in table


def mapping(raw: Any, key: str) -> Mapping[Any, Any]:
    """The mapping at a key; an empty one where the file has none, or something else, there."""
    value = raw.get(key) if isinstance(raw, dict) else None
    return value if isinstance(value, dict) else {}
