"""Experiments: a YAML file that names a grid, and the trials that it stands for."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError, field_validator

from mmbench.arguments import describe, resolve_arguments
from mmbench.errors import UsageError, did_you_mean
from mmbench.missing import Missing
from mmbench.protocol import PROTOCOLS
from mmbench.recipe import Recipe
from mmbench.trial import Trial, weights_of

T = TypeVar("T")

METHOD_RESERVED = ("spec", "encoders", "recipe")  # constructor arguments that a trial supplies


def distinct(values: list[T]) -> list[T]:
    """The values, if none is given twice: it would make the same trials twice."""
    if len(set(values)) < len(values):
        raise ValueError("the same value is given twice")
    return values


class DatasetGrid(BaseModel):
    """What an experiment does with one data set."""

    model_config = ConfigDict(extra="forbid")

    protocols: Annotated[list[str], AfterValidator(distinct)] = Field(["clean"], min_length=1)
    encoders: dict[str, str | dict[str, Any]] = {}
    views: dict[str, str] = Field({}, description="modality -> the prepared field to read it from")
    spec_augment: dict[str, dict[Literal["time", "frequency"], NonNegativeInt]] = Field(
        {}, description="modality -> how many frames and bins of its filter bank SpecAugment may hide in training"
    )
    cached: bool = Field(False, description="run frozen encoders once, and train on their features")
    recipe: Recipe = Recipe()


class MissingGrid(BaseModel):
    """A named way of training with missing modalities: the keys of ``Missing``, of which a rate may be a list of rates."""

    model_config = ConfigDict(extra="allow")  # the other keys are for Missing to check

    rate: float | Annotated[list[float], Field(min_length=1), AfterValidator(distinct)] | None = None
    rates: dict[str, float | Annotated[list[float], Field(min_length=1), AfterValidator(distinct)]] | None = None

    def expand(self) -> list[Missing | None]:
        """One setting a rate, or a combination of the modalities' rates; None where nothing is missing."""
        plain = self.model_extra or {}
        if self.rate is None and self.rates is None:
            return [Missing(**plain)] if plain else [None]
        single = [] if self.rate is None else self.rate if isinstance(self.rate, list) else [self.rate]
        if self.rates is None:
            return [Missing(**plain, rate=rate) if rate else None for rate in single]  # nothing missing is complete
        lists = [r if isinstance(r, list) else [r] for r in self.rates.values()]
        return [
            Missing(**plain, rate=self.rate, rates=dict(zip(self.rates, chosen, strict=True)))
            for chosen in product(*lists)
        ]


class Grid(BaseModel):
    """An experiment's file: data sets × their protocols × ways of missing × seeds × methods.

    ``quick`` holds the changes that ``--quick`` makes, as ``--set`` would: dotted keys and their values.
    """

    model_config = ConfigDict(extra="forbid")

    title: str
    datasets: dict[str, DatasetGrid] = Field(min_length=1)
    methods: dict[str, dict[str, Any]] = Field(min_length=1)
    seeds: list[int] = Field(min_length=1)
    missing: dict[str, MissingGrid] = Field({"complete": MissingGrid()}, min_length=1)
    test_rates: list[Annotated[float, Field(gt=0, le=1)]] = Field(
        [], description="rates to test at beside those of training"
    )
    patterns: Literal["single", "all"] = Field("single", description="the columns of its tables, beside every modality")
    quick: dict[str, Any] = {}

    @property
    def trainings(self) -> list[Missing | None]:
        """What training lacks, one setting after the other."""
        return list(dict.fromkeys(m for grid in self.missing.values() for m in grid.expand()))

    @field_validator("datasets", "methods", "missing", mode="before")
    @classmethod
    def _nothing_to_set(cls, value: Any) -> Any:
        """``mla:`` with nothing behind it means all defaults."""
        return {k: {} if v is None else v for k, v in value.items()} if isinstance(value, dict) else value

    @field_validator("seeds")
    @classmethod
    def _seeds(cls, value: list[int]) -> list[int]:
        if not all(0 <= seed < 2**32 for seed in value):
            raise ValueError("seeds must lie between 0 and 2^32 − 1")
        return distinct(value)


@dataclass
class Experiment:
    """A named grid and its trials, in the order in which they run.

    Attributes:
        name: the folder of its reports: the file's name, and a hash of the settings where they were changed.
        grid: the validated file.
        trials: one a data set, protocol, way of missing, seed and method.
        unprepared: data set -> what is missing of it on this machine; it has no trials.
    """

    name: str
    grid: Grid
    trials: list[Trial]
    unprepared: dict[str, str] = field(default_factory=dict)


def unshared(value: Any, above: frozenset[int] = frozenset()) -> Any:
    """A copy in which no mapping or list stands in two places, as YAML's anchors put it: a change of one would change the other."""
    if not isinstance(value, dict | list):
        return value
    if id(value) in above:
        raise UsageError("an anchor holds itself; write its value out")
    above |= {id(value)}
    if isinstance(value, dict):
        return {k: unshared(v, above) for k, v in value.items()}
    return [unshared(v, above) for v in value]


def left_out(why: str) -> str:
    """Why a data set is left out, in a report: its weights are missing, or it is not prepared."""
    return why if why.startswith("weights ") else f"not prepared: {why}"


def load(path: Path | str, settings: Sequence[str] = (), quick: bool = False) -> Experiment:
    """Read an experiment.

    Args:
        path: a YAML file.
        settings: changes, each ``dotted.key=value`` with a YAML value: ``datasets.openclipart.recipe.epochs=2``.
        quick: make the changes of the file's own ``quick`` first.

    Raises:
        UsageError: one message with all mistakes.
    """
    path = Path(path)
    raw = read_yaml(path)
    changed, mistakes = unshared(raw), []
    changes = [partial(apply_setting, setting=setting) for setting in settings]
    if quick:
        own = _mapping(raw, "quick")
        if not own:
            raise UsageError(f"{path} has no quick version (no key 'quick')")
        changes = [partial(set_value, key=str(k), value=v, where="quick") for k, v in own.items()] + changes
    for change in changes:
        try:
            change(changed)
        except UsageError as error:
            mistakes.append(str(error))
    if mistakes:
        raise UsageError("\n".join(mistakes))
    grid, trials, unprepared = expand(changed, where=str(path))
    name = path.stem
    if quick and not settings:
        name += "-quick"
    elif changed != raw:  # a changed experiment must not overwrite the reports of the one in the file
        name += "-" + sha256(grid.model_dump_json().encode()).hexdigest()[:8]
    if not trials:
        reasons = "".join(f"\n  {dataset}: {reason}" for dataset, reason in unprepared.items())
        raise UsageError(f"{path}: none of its data sets can be run here{reasons}")
    return Experiment(name, grid, trials, unprepared)


def expand(raw: Any, where: str = "experiment") -> tuple[Grid, list[Trial], dict[str, str]]:
    """Validate a grid and write out its trials.

    Returns:
        The grid, its trials, and data set -> what is missing of it on this machine.

    Raises:
        UsageError: one message with all mistakes, each with its key and the nearest valid name.
    """
    mistakes: list[str] = []
    grid: Grid | None = None
    try:
        grid = Grid.model_validate(raw)
    except ValidationError as error:
        mistakes += describe(error, _known_keys)
    methods = _resolve_methods(_mapping(raw, "methods"), mistakes)
    planned = _resolve_datasets(_mapping(raw, "datasets"), mistakes)
    if grid is not None:
        _check_missing(grid.missing, mistakes)
    if grid is not None and not mistakes:
        _try_out(grid, methods, {name: plan.encoders for name, plan in planned.items()}, mistakes)
    if mistakes or grid is None:
        count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        raise UsageError(f"{where}: {count}\n" + "\n".join(f"  {m}" for m in mistakes))
    trials = [
        Trial(
            dataset=dataset,
            data=plan.manifest,
            protocol=protocol,
            missing=missing,
            method=method,
            seed=seed,
            encoders=plan.encoders,
            params=params,
            recipe=settings.recipe,
            views=plan.views,
            weights=plan.weights,
            spec_augment={m: {"time": 0, "frequency": 0, **limits} for m, limits in settings.spec_augment.items()},
            cached=settings.cached,
        )
        for dataset, settings in grid.datasets.items()
        if (plan := planned[dataset]).unprepared is None
        for protocol in settings.protocols
        if protocol not in plan.lacking
        for missing in grid.trainings
        for seed in grid.seeds
        for method, params in methods.items()
    ]
    unprepared = {name: plan.unprepared for name, plan in planned.items() if plan.unprepared is not None}
    for name, settings in grid.datasets.items():
        absent = {p: planned[name].lacking[p] for p in settings.protocols if p in planned[name].lacking}
        unprepared |= {f"{name} {protocol}": why for protocol, why in absent.items()}
    return grid, trials, unprepared


def _check_missing(given: Mapping[str, MissingGrid], mistakes: list[str]) -> None:
    for name, settings in given.items():
        try:
            settings.expand()
        except ValidationError as error:
            for mistake in describe(error, lambda _: Missing.model_fields):
                key, _, text = mistake.partition(": ")
                mistakes.append(f"missing.{name}{'.' if key else ''}{key}: {text}")


def _resolve_methods(given: Mapping[Any, Any], mistakes: list[str]) -> dict[str, dict[str, Any]]:
    from mmbench.registry import methods

    table, resolved = methods(), {}
    for name, params in given.items():
        if not _is_key(name, table):
            mistakes.append(f"methods.{name}: unknown method; {did_you_mean(name, table)}")
        elif isinstance(params, dict | None):
            resolved[name], wrong = resolve_arguments(table[name], params or {}, METHOD_RESERVED)
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


def _resolve_datasets(given: Mapping[Any, Any], mistakes: list[str]) -> dict[str, DatasetPlan]:
    from mmbench.data import DATASETS

    plans = {}
    for name, settings in given.items():
        if not _is_key(name, DATASETS):
            mistakes.append(f"datasets.{name}: unknown data set; {did_you_mean(name, DATASETS)}")
            continue
        data, settings = DATASETS[name], settings if isinstance(settings, dict) else {}
        protocols = settings.get("protocols")
        for protocol in protocols if isinstance(protocols, list) else []:
            if not _is_key(protocol, PROTOCOLS):
                mistakes.append(
                    f"datasets.{name}.protocols: unknown protocol '{protocol}'; {did_you_mean(protocol, PROTOCOLS)}"
                )
        for modality, view in _mapping(settings, "views").items():
            try:
                data.check_view(modality, view)
            except UsageError as error:
                mistakes.append(f"datasets.{name}.views: {error}")
        chosen = settings.get("encoders")
        encoders = _resolve_encoders(name, data.encoders, chosen if isinstance(chosen, dict) else {}, mistakes)
        if settings.get("cached") is True and not any(choice.get("freeze") for choice in encoders.values()):
            mistakes.append(f"datasets.{name}.cached: no encoder is frozen; give one freeze: true, or leave cached out")
        halved = _mapping(settings, "recipe").get("precision") == "bf16"
        if halved and settings.get("cached") is True and all(choice.get("freeze") for choice in encoders.values()):
            mistakes.append(f"datasets.{name}.recipe.precision: cached encoders run once, in float32; leave bf16 out")
        views = {**data.default_views(), **_mapping(settings, "views")}
        for modality in _mapping(settings, "spec_augment"):
            try:
                data.check_spec_augment(modality, views.get(modality), _mapping(settings["spec_augment"], modality))
            except UsageError as error:
                mistakes.append(f"datasets.{name}.spec_augment: {error}")
            if settings.get("cached") is True and encoders.get(modality, {}).get("freeze"):
                mistakes.append(
                    f"datasets.{name}.spec_augment: {modality} is encoded once, so nothing can be hidden in training"
                )
        plans[name] = plan = DatasetPlan(encoders, views=views, unprepared=data.prepared())
        if plan.unprepared is None:
            try:
                plan.manifest, plan.weights = data.manifest(), weights_of(encoders)
                plan.lacking = {protocol: why for protocol in PROTOCOLS if (why := data.lacks(protocol))}
            except UsageError as error:
                plan.unprepared = str(error)
    return plans


def _resolve_encoders(
    dataset: str,
    default: Mapping[str, str | Mapping[str, Any]],
    chosen: Mapping[str, Any],
    mistakes: list[str],
) -> dict[str, dict[str, Any]]:
    from mmbench.encoders import ENCODERS

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
        if not _is_key(name, ENCODERS):
            mistakes.append(f"{where}.{modality}: unknown encoder '{name}'; {did_you_mean(name, ENCODERS)}")
            continue
        arguments, wrong = resolve_arguments(ENCODERS[name], options)
        mistakes += [f"{where}.{modality}.{w}" for w in wrong]
        resolved[modality] = {"name": name, **arguments}
    return resolved


def _try_out(
    grid: Grid,
    methods: Mapping[str, dict[str, Any]],
    encoders: Mapping[str, dict[str, dict[str, Any]]],
    mistakes: list[str],
) -> None:
    """Build every encoder and method once, so that values which they refuse are found before any trial runs."""
    import torch

    from mmbench.data import DATASETS
    from mmbench.data.base import DataSpec
    from mmbench.data.prepared import PreparedDataModule
    from mmbench.registry import methods as table
    from mmbench.trial import build_encoder

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
                table()[method](spec, built, settings.recipe, **params)
            except Exception as error:
                mistakes.append(f"methods.{method}, with datasets.{name}: {error}")


def _is_key(name: Any, table: Collection[str]) -> bool:
    return isinstance(name, str) and name in table


def _mapping(raw: Any, key: str) -> Mapping[Any, Any]:
    value = raw.get(key) if isinstance(raw, dict) else None
    return value if isinstance(value, dict) else {}


def _known_keys(place: tuple[Any, ...]) -> Collection[str]:
    """The keys that the file may have where an unknown one was found."""
    model: type[BaseModel] = Grid
    if place[0] == "datasets" and len(place) > 2:
        model = Recipe if place[2] == "recipe" and len(place) > 3 else DatasetGrid
    return model.model_fields


def read_yaml(path: Path) -> Any:
    """Read a YAML file; a key given twice is an error, not the last one's victory.

    Raises:
        UsageError: the file is missing, or not YAML.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)
    except FileNotFoundError as error:
        raise UsageError(f"no such experiment file: {path}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that does not exist, say
        raise UsageError(f"{path}: not valid YAML: {error}") from error


class _UniqueKeyLoader(yaml.SafeLoader):
    """SafeLoader that refuses duplicate keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            # `<<`, which merges other mappings, may be given more than once.
            plain = isinstance(key_node, yaml.ScalarNode) and key_node.tag != "tag:yaml.org,2002:merge"
            key = key_node.value if plain else None
            if key is not None and key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key '{key}' is given twice", key_node.start_mark)
            seen.add(key)
        return cast("dict[Any, Any]", super().construct_mapping(node, deep))


def apply_setting(raw: Any, setting: str) -> None:
    """Change a value in a parsed file, in place.

    Raises:
        UsageError: the setting is not ``dotted.key=value``, or the key leads through something that is not a mapping.
    """
    key, equals, text = setting.partition("=")
    if not equals or not all(key.split(".")):
        raise UsageError(f"--set {setting}: expected key=value, such as datasets.openclipart.recipe.epochs=2")
    try:
        value = yaml.load(text, Loader=_UniqueKeyLoader)
    except (yaml.YAMLError, ValueError) as error:
        raise UsageError(f"--set {setting}: the value is not valid YAML") from error
    set_value(raw, key, value, where=f"--set {setting}")


def set_value(raw: Any, key: str, value: Any, where: str) -> None:
    """Change the value at a dotted key of a parsed file, in place.

    Raises:
        UsageError: the key leads through something that is not a mapping; ``where`` says whose key it is.
    """
    *parents, last = key.split(".")
    at = raw
    for part in parents:
        if isinstance(at, dict) and at.get(part) is None:
            at[part] = {}  # a name with nothing behind it; a name that does not exist is found by the validation
        at = at.get(part) if isinstance(at, dict) else None
    if not isinstance(at, dict):
        raise UsageError(f"{where}: '{'.'.join(parents)}' is not a mapping")
    at[last] = value


FILTER_KEYS = ("dataset", "protocol", "training", "method", "seed")


def select(trials: Sequence[Trial], filters: Sequence[str]) -> list[Trial]:
    """The trials that match ``key=value`` filters: any of the values of one key, and all of the keys.

    Raises:
        UsageError: a key that trials do not have, or a value that no trial has.
    """
    wanted: dict[str, set[str]] = {}
    mistakes = []
    for text in filters:
        key, _, value = text.partition("=")
        if key not in FILTER_KEYS:
            mistakes.append(f"--filter {text}: unknown key; {did_you_mean(key, FILTER_KEYS)}")
            continue
        values = {str(getattr(trial, key)) for trial in trials}
        if value not in values:
            mistakes.append(f"--filter {text}: no trial has this {key}; {did_you_mean(value, values)}")
        wanted.setdefault(key, set()).add(value)
    if mistakes:
        raise UsageError("\n".join(mistakes))
    return [t for t in trials if all(str(getattr(t, key)) in values for key, values in wanted.items())]
