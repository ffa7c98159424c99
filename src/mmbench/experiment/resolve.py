"""The arguments in an experiment's file, checked against the classes that its names stand for. Looking at those imports torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic import ValidationError

from mmbench.arguments import describe, resolve_arguments, shown
from mmbench.baselines import METHODS
from mmbench.data import DATASETS
from mmbench.data.base import MultimodalDataModule
from mmbench.encoders import ENCODERS
from mmbench.encoders.building import weights_of
from mmbench.errors import UsageError, did_you_mean
from mmbench.experiment.grid import DatasetGrid, Grid
from mmbench.protocol import PROTOCOLS
from mmbench.recipe import Recipe
from mmbench.trial import Trial

METHOD_RESERVED = ("spec", "encoders", "recipe")  # constructor arguments that a trial supplies


def resolve_methods(grid: Grid, mistakes: list[str]) -> dict[str, dict[str, Any]]:
    """Label of a method -> all of its arguments."""
    resolved = {}
    for label, settings in grid.methods.items():
        resolved[label], wrong = resolve_arguments(METHODS[grid.method_of(label)], settings.arguments, METHOD_RESERVED)
        mistakes += [f"methods.{label}.{w}" for w in wrong]
    return resolved


def resolve_recipes(grid: Grid, mistakes: list[str]) -> dict[tuple[str, str], Recipe]:
    """Labels of data set and method -> recipe."""
    recipes, told = {}, set()
    for dataset in grid.datasets:
        for method in grid.methods:
            try:
                recipes[dataset, method] = grid.recipe_of(dataset, method)
            except ValidationError as error:
                told |= set(describe(error, lambda _: Recipe.model_fields, ("methods", method, "recipe")))
    mistakes += sorted(told)
    return recipes


class Known(Protocol):
    """What is known of a data set, of trials that ran elsewhere."""

    data: str
    weights: dict[str, str]
    protocols: list[str]


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
        folds: those to run; None is the one split.
    """

    encoders: dict[str, dict[str, Any]]
    chosen: frozenset[str]
    manifest: str = ""
    weights: dict[str, str] = field(default_factory=dict)
    views: dict[str, str] = field(default_factory=dict)
    unprepared: str | None = None
    lacking: dict[str, str] = field(default_factory=dict)
    folds: Sequence[int | None] = (None,)

    def stand_in(self, known: Known, protocols: Sequence[str]) -> None:
        """Be the plan of trials that ran elsewhere: nothing of the data on this machine counts.

        Args:
            known: what is known of the data.
            protocols: of the experiment; where there were no trials under one, it lacks.
        """
        self.manifest, self.weights, self.unprepared = known.data, dict(known.weights), None
        self.lacking = {p: "no split where it ran" for p in protocols if p not in known.protocols}


def resolve_dataset(label: str, settings: DatasetGrid, mistakes: list[str]) -> DatasetPlan:
    """The plan of a data set under its label; adds what is wrong with its settings."""
    data, where = DATASETS[settings.dataset or label], f"datasets.{label}"
    default = _chosen_modalities(where, data, settings.modalities, mistakes)
    for modality, view in settings.views.items():
        try:
            data.check_view(modality, view)
        except UsageError as error:
            mistakes.append(f"{where}.views: {error}")
    views = {m: view for m, view in {**data.default_views(), **settings.views}.items() if m in default}
    encoders = _resolve_encoders(where, default, settings.encoders, mistakes)
    _check_cached(where, settings, encoders, mistakes)
    for place, given in (("views", settings.views), ("spec_augment", settings.spec_augment)):
        left_out = [m for m in given if m in data.modalities and m not in default]
        mistakes += [f"{where}.{place}.{m}: not among its modalities, {', '.join(default)}" for m in left_out]
    for modality, limits in settings.spec_augment.items():
        try:
            data.check_spec_augment(modality, views.get(modality), limits)
        except UsageError as error:
            mistakes.append(f"{where}.spec_augment: {error}")
    folds = _resolve_folds(f"{where}.folds", settings.folds, data, mistakes)
    plan = DatasetPlan(encoders, frozenset(settings.encoders), views=views, unprepared=data.prepared(), folds=folds)
    if plan.unprepared is None:
        try:
            plan.manifest, plan.weights = data.manifest(), weights_of(encoders)
            if settings.folds is None:
                plan.lacking = {protocol: why for protocol in PROTOCOLS if (why := data.lacks(protocol))}
            elif why := data.lacks_folds():  # folds are cut here: they need no published lists
                plan.unprepared = f"no folds: {why}"
        except UsageError as error:
            plan.unprepared = str(error)
    return plan


def _chosen_modalities(
    where: str, data: type[MultimodalDataModule], chosen: Sequence[str] | None, mistakes: list[str]
) -> dict[str, str | Mapping[str, Any]]:
    """Modality -> the data set's own encoder, of the modalities that are chosen, in the data set's order."""
    for modality in chosen or ():
        if modality not in data.modalities:
            hint = did_you_mean(modality, data.modalities)
            mistakes.append(f"{where}.modalities: unknown modality '{shown(modality)}'; {hint}")
    return {m: encoder for m, encoder in data.encoders.items() if chosen is None or m in chosen}


def _resolve_folds(
    where: str, asked: Any, data: type[MultimodalDataModule], mistakes: list[str]
) -> Sequence[int | None]:
    """The folds to run; adds those that there are not."""
    count, there = data.folds, f"{data.name} has {data.folds} folds, 0 to {data.folds - 1}"
    if asked is None:
        return (None,)
    if count == 1:
        mistakes.append(f"{where}: {data.name} has one split and no folds; leave it out")
    elif isinstance(asked, int) and asked > count:
        mistakes.append(f"{where}: {asked} folds asked for, but {there}")
    elif isinstance(asked, list) and (wrong := [fold for fold in asked if fold >= count]):
        mistakes.append(f"{where}: no fold {', '.join(map(str, wrong))}; {there}")
    elif isinstance(asked, list):
        return sorted(asked)
    return range(count if asked == "all" else min(asked, count) if isinstance(asked, int) else 0)


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
    where = f"{dataset}.encoders"
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


def trial_of(
    grid: Grid, dataset: str, plan: DatasetPlan, method: str, params: Mapping[str, Any], recipe: Recipe
) -> Trial:
    """A trial of a data set and a method, both by their labels; still without protocol, way of missing, fold and seed."""
    settings = grid.datasets[dataset]
    return Trial(
        dataset=grid.dataset_of(dataset),
        data=plan.manifest,
        protocol="",
        method=grid.method_of(method),
        seed=0,
        encoders=plan.encoders,
        params=dict(params),
        recipe=recipe,
        views=plan.views,
        weights=plan.weights,
        spec_augment={m: {"time": 0, "frequency": 0, **limits} for m, limits in settings.spec_augment.items()},
        cached=settings.cached,
    )
