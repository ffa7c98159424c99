"""What an experiment's file may say."""

from __future__ import annotations

from collections.abc import Collection
from itertools import product
from math import prod
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, NonNegativeInt, field_validator, model_validator

from mmbench.experiment.space import RANGE_KEYS, Tune
from mmbench.missing import Missing
from mmbench.protocol import PROTOCOLS
from mmbench.recipe import Recipe

T = TypeVar("T")

MOST_COMBINATIONS = 1000
"""Combinations of the modalities' rates in one way of missing."""


def distinct(values: list[T]) -> list[T]:
    """The values, if none is given twice: it would make the same trials twice."""
    if len(set(values)) < len(values):
        raise ValueError("the same value is given twice")
    return values


def distinct_seeds(values: list[int]) -> list[int]:
    """The values, if each is a seed and none is given twice."""
    if not all(0 <= seed < 2**32 for seed in values):
        raise ValueError("seeds must lie between 0 and 2^32 − 1")
    return distinct(values)


Seeds = Annotated[list[int], Field(min_length=1), AfterValidator(distinct_seeds)]
Folds = Annotated[list[Annotated[int, Field(ge=0, strict=True)]], Field(min_length=1), AfterValidator(distinct)]


class DatasetGrid(BaseModel):
    """What an experiment does with one data set, or with a variant of it under a label of its own."""

    model_config = ConfigDict(extra="forbid")

    dataset: str | None = Field(None, description="the data set, where the key is a label and not its name")
    modalities: Annotated[list[str], AfterValidator(distinct)] | None = Field(
        None, min_length=2, description="those to use; by default all"
    )
    folds: Literal["all"] | Annotated[int, Field(ge=1, strict=True)] | Folds | None = Field(
        None, description="all, a list, or the first so many; by default the data set's one split"
    )
    protocols: Annotated[list[str], AfterValidator(distinct)] = Field(
        ["clean"], min_length=1, description="clean, peek, legacy: the splits, and where the best epoch is chosen"
    )
    encoders: dict[str, str | dict[str, Any]] = Field(
        {},
        description="modality -> an encoder's name, or {name: …} with its arguments; arguments without a name are those of the data "
        "set's own encoder; by default the data set's",
    )
    views: dict[str, str] = Field({}, description="modality -> the prepared field to read it from")
    spec_augment: dict[str, dict[Literal["time", "frequency"], NonNegativeInt]] = Field(
        {}, description="modality -> how many frames and bins of its filter bank SpecAugment may hide in training"
    )
    cached: bool = Field(False, description="run frozen encoders once, and train on their features")
    devices: int = Field(
        1,
        ge=1,
        le=64,
        strict=True,
        description="GPUs, or processes on the CPU, that train a trial; no result depends on them",
    )
    recipe: Recipe = Field(Recipe(), description="how models are trained")
    seeds: Seeds | dict[str, Seeds] | None = Field(
        None, description="in place of the experiment's; or protocol -> seeds, for those of which they are other"
    )

    @model_validator(mode="after")
    def _of_its_protocols(self) -> DatasetGrid:
        if isinstance(self.seeds, dict) and (other := [p for p in self.seeds if p not in self.protocols]):
            raise ValueError(f"seeds are given for {', '.join(other)}, its protocols are {', '.join(self.protocols)}")
        return self


class MethodGrid(BaseModel):
    """A method, or a variant of it under a label of its own. All other keys are the method's own arguments."""

    model_config = ConfigDict(extra="allow")  # for the method to check

    method: str | None = Field(None, description="the method, where the key is a label and not its name")
    recipe: dict[str, Any] = Field({}, description="its own, over the data set's")

    @property
    def arguments(self) -> dict[str, Any]:
        """Of the method's constructor."""
        return dict(self.model_extra or {})


class MissingGrid(BaseModel):
    """A named way of training with missing modalities; nothing behind its name: nothing is missing. A list of rates: each of them."""

    model_config = ConfigDict(extra="allow")  # the other keys are for Missing to check

    rate: float | Annotated[list[float], Field(min_length=1), AfterValidator(distinct)] | None = Field(
        None, description="η, the share of missing cells (anchor, bernoulli), from 0 to 1; a list: each of them"
    )
    rates: dict[str, float | Annotated[list[float], Field(min_length=1), AfterValidator(distinct)]] | None = Field(
        None, description="modality -> its missing rate (per_modality), from 0 to 1; lists: every combination"
    )

    @model_validator(mode="after")
    def _few(self) -> MissingGrid:
        combinations = prod(len(r) for r in (self.rates or {}).values() if isinstance(r, list))
        if combinations > MOST_COMBINATIONS:
            raise ValueError(f"its lists of rates have {combinations:,} combinations, more than {MOST_COMBINATIONS:,}")
        return self

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
    """An experiment's file: data sets × their protocols × ways of missing × folds × seeds × methods."""

    model_config = ConfigDict(extra="forbid")

    title: str = Field(description="the heading of its reports")
    datasets: dict[str, DatasetGrid] = Field(
        min_length=1,
        description="a data set's name, or a label -> what is done with it; nothing behind it: all defaults",
    )
    methods: dict[str, MethodGrid] = Field(
        min_length=1, description="a method's name, or a label -> its arguments; nothing behind it: all defaults"
    )
    seeds: Seeds = Field(description="of training, a trial each: initial weights, the order of samples, augmentation")
    missing: dict[str, MissingGrid] = Field(
        {"complete": MissingGrid()},
        min_length=1,
        description="a name of your own -> what training lacks; each is trained",
    )
    test_rates: list[Annotated[float, Field(gt=0, le=1)]] = Field(
        [], max_length=100, description="rates to test at beside those of training"
    )
    patterns: Literal["single", "all"] = Field("single", description="the columns of its tables, beside every modality")
    reference: str = Field("late_fusion", description="the method, by its label, that tables compare the others with")
    draw_features: bool = Field(
        False, description="draw where the features of the modalities lie, a method's first trial each"
    )
    keep: Literal["best"] | None = Field(
        None, description="leave every trained model, as it was in the epoch that was chosen; no number depends on it"
    )
    tune: Tune | None = Field(None, description="how the settings of every method are tuned, with equal budgets")
    quick: dict[str, Any] = Field(
        {}, description="the changes that `--quick` makes, as `--set` would: dotted keys and their values"
    )

    @property
    def size(self) -> int:
        """How many trials it stands for, if all data sets are there and "all" folds are one."""
        cuts = 0
        for label, dataset in self.datasets.items():
            folds = len(dataset.folds) if isinstance(dataset.folds, list) else dataset.folds
            seeds = sum(len(self.seeds_of(label, protocol)) for protocol in dataset.protocols)
            cuts += (folds if isinstance(folds, int) else 1) * seeds
        return cuts * len(self.trainings) * len(self.methods)

    @property
    def tuned_protocols(self) -> dict[str, list[str]]:
        """Label of a data set -> those of its protocols under which settings are tuned: they choose on a validation split."""
        chosen = {} if self.tune is None else self.datasets
        return {
            label: [p for p in dataset.protocols if p in PROTOCOLS and PROTOCOLS[p].selection == "validation"]
            for label, dataset in chosen.items()
        }

    def seeds_of(self, label: str, protocol: str) -> list[int]:
        """The seeds of a data set's trials under a protocol, by its label."""
        own = self.datasets[label].seeds
        return (own.get(protocol) if isinstance(own, dict) else own) or self.seeds

    def dataset_of(self, label: str) -> str:
        """The data set that a label stands for."""
        return self.datasets[label].dataset or label

    def method_of(self, label: str) -> str:
        """The method that a label stands for."""
        return self.methods[label].method or label

    def recipe_of(self, dataset: str, method: str) -> Recipe:
        """The recipe of a method on a data set, both by label: the data set's, and over it the method's own.

        Raises:
            ValidationError: the method's own is not one.
        """
        base, own = self.datasets[dataset].recipe.model_dump(exclude_unset=True), self.methods[method].recipe
        if own.get("schedule", "step") != "step":  # what says how steps decay holds for steps alone
            base = {key: value for key, value in base.items() if key not in ("step_size", "gamma")}
        return Recipe.model_validate({**base, **own})

    @property
    def trainings(self) -> list[Missing | None]:
        """What training lacks, one setting after the other."""
        return list(dict.fromkeys(m for grid in self.missing.values() for m in grid.expand()))

    @field_validator("datasets", "methods", "missing", mode="before")
    @classmethod
    def _nothing_to_set(cls, value: Any) -> Any:
        """``mla:`` with nothing behind it means all defaults."""
        return {k: {} if v is None else v for k, v in value.items()} if isinstance(value, dict) else value


def known_keys(place: tuple[Any, ...]) -> Collection[str]:
    """The keys that the file may have where an unknown one was found."""
    if place[0] == "tune" and len(place) > 1:
        return Tune.model_fields if len(place) == 2 else RANGE_KEYS
    if place[0] == "methods":
        return Recipe.model_fields
    model: type[BaseModel] = Grid
    if place[0] == "datasets" and len(place) > 2:
        model = Recipe if place[2] == "recipe" and len(place) > 3 else DatasetGrid
    return model.model_fields
