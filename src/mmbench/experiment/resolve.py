"""The arguments in an experiment's file, checked against the classes that its names stand for. Looking at those imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mmbench.arguments import resolve_arguments
from mmbench.baselines import METHODS
from mmbench.data import DATASETS
from mmbench.encoders import ENCODERS
from mmbench.encoders.building import weights_of
from mmbench.errors import UsageError, did_you_mean
from mmbench.experiment.grid import DatasetGrid
from mmbench.protocol import PROTOCOLS

METHOD_RESERVED = ("spec", "encoders", "recipe")  # constructor arguments that a trial supplies


def resolve_methods(given: Mapping[str, dict[str, Any]], mistakes: list[str]) -> dict[str, dict[str, Any]]:
    """Method -> all of its arguments."""
    resolved = {}
    for name, params in given.items():
        resolved[name], wrong = resolve_arguments(METHODS[name], params, METHOD_RESERVED)
        mistakes += [f"methods.{name}.{w}" for w in wrong]
    return resolved


@dataclass
class DatasetPlan:
    """What an experiment needs to know of a data set and the encoders chosen for it.

    Attributes:
        encoders: modality -> {name: encoder, and its arguments}.
        chosen: the modalities whose encoder the file itself names.
        manifest: the hash of the data.
        weights: modality -> the hash of the files that its encoder reads.
        views: modality -> the prepared field that it is read from, for data sets that are prepared.
        unprepared: what is missing on this machine; then manifest and weights are empty.
        lacking: protocol -> why its splits are missing.
    """

    encoders: dict[str, dict[str, Any]]
    chosen: frozenset[str]
    manifest: str = ""
    weights: dict[str, str] = field(default_factory=dict)
    views: dict[str, str] = field(default_factory=dict)
    unprepared: str | None = None
    lacking: dict[str, str] = field(default_factory=dict)


def resolve_dataset(name: str, settings: DatasetGrid, mistakes: list[str]) -> DatasetPlan:
    """The plan of a data set; adds what is wrong with its settings."""
    data, where = DATASETS[name], f"datasets.{name}"
    for modality, view in settings.views.items():
        try:
            data.check_view(modality, view)
        except UsageError as error:
            mistakes.append(f"{where}.views: {error}")
    views = {**data.default_views(), **settings.views}
    encoders = _resolve_encoders(name, data.encoders, settings.encoders, mistakes)
    _check_cached(where, settings, encoders, mistakes)
    for modality, limits in settings.spec_augment.items():
        try:
            data.check_spec_augment(modality, views.get(modality), limits)
        except UsageError as error:
            mistakes.append(f"{where}.spec_augment: {error}")
    plan = DatasetPlan(encoders, frozenset(settings.encoders), views=views, unprepared=data.prepared())
    if plan.unprepared is None:
        try:
            plan.manifest, plan.weights = data.manifest(), weights_of(encoders)
            plan.lacking = {protocol: why for protocol in PROTOCOLS if (why := data.lacks(protocol))}
        except UsageError as error:
            plan.unprepared = str(error)
    return plan


def _check_cached(
    where: str, settings: DatasetGrid, encoders: Mapping[str, Mapping[str, Any]], mistakes: list[str]
) -> None:
    """Features are cached of frozen encoders, which then run once, in float32, on data that are not augmented."""
    if not settings.cached:
        return
    frozen = [modality for modality, choice in encoders.items() if choice.get("freeze")]
    if not frozen:
        mistakes.append(f"{where}.cached: no encoder is frozen; give one freeze: true, or leave cached out")
    if settings.recipe.precision == "bf16" and len(frozen) == len(encoders):
        mistakes.append(f"{where}.recipe.precision: cached encoders run once, in float32; leave bf16 out")
    for modality in settings.spec_augment:
        if modality in frozen:
            mistakes.append(f"{where}.spec_augment: {modality} is encoded once, so nothing can be hidden in training")


def _resolve_encoders(
    dataset: str,
    default: Mapping[str, str | Mapping[str, Any]],
    chosen: Mapping[str, str | Mapping[str, Any]],
    mistakes: list[str],
) -> dict[str, dict[str, Any]]:
    where = f"datasets.{dataset}.encoders"
    for modality in chosen:
        if modality not in default:
            mistakes.append(f"{where}.{modality}: unknown modality; {did_you_mean(modality, default)}")
    resolved = {}
    for modality in default:
        own, options = _named(default[modality]), _named(chosen.get(modality, {}))
        if options.get("name", own["name"]) == own["name"]:  # the data set's own arguments hold for its own encoder
            options = {**own, **options}
        name = options.pop("name")
        arguments, wrong = resolve_arguments(ENCODERS[name], options)
        mistakes += [f"{where}.{modality}.{w}" for w in wrong]
        resolved[modality] = {"name": name, **arguments}
    return resolved


def _named(choice: str | Mapping[str, Any]) -> dict[str, Any]:
    """An encoder as the mapping for which its name alone may stand."""
    return {"name": choice} if isinstance(choice, str) else dict(choice)
