"""What ``tune:`` of an experiment's file may say: the space that settings are drawn from, and how many; and the draws themselves."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict
from hashlib import sha256
from math import exp, log
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from mmbench.arguments import Tunable, describe, number_type, resolve_arguments
from mmbench.errors import did_you_mean
from mmbench.recipe import Recipe

MOST_DRAWS = 1000
DIGITS = 4
"""Significant digits of a number that is drawn: more would only make settings hard to read."""
OF_RECIPE = "recipe."
"""What the name of a drawn setting begins with if it is the recipe's, and not an argument of the method."""

TUNED = ", tuned"
"""What a method's label is followed by where its setting was chosen."""

Refuse = Callable[[str, Any], list[str]]
"""What is wrong with a value of a setting, by the validation that the values of the file itself pass."""


class Dimension(BaseModel):
    """What one setting is drawn from: ``{low: 0.01, high: 1, log: true}``, or a list of values."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    low: float = Field(0, description="the smallest value")
    high: float = Field(0, description="the largest value, above low")
    log: bool = Field(False, description="draw the logarithm uniformly, and not the value; low is above 0 then")
    choices: list[Any] = []

    @model_validator(mode="before")
    @classmethod
    def _list_or_range(cls, value: Any) -> Any:
        if isinstance(value, list):
            if len(value) < 2 or any(one in value[:i] for i, one in enumerate(value)):
                raise ValueError("expected at least two values, each given once")
            return {"choices": value}
        if isinstance(value, Tunable):
            return asdict(value)
        if not isinstance(value, dict):
            raise ValueError("expected {low: …, high: …}, with log: true for a logarithmic scale, or a list of values")
        for end in ("low", "high"):
            if isinstance(value.get(end), bool | None):
                raise ValueError(f"expected a number for {end}")
        if "choices" in value:
            raise ValueError("expected low and high, or a list of values in the place of this mapping")
        return value

    @model_validator(mode="after")
    def _ends(self) -> Dimension:
        if self.choices:
            return self
        if not self.low < self.high:
            raise ValueError("low must be below high")
        if self.log and self.low <= 0:
            raise ValueError("a logarithmic scale needs a low above 0")
        return self

    @property
    def ends(self) -> dict[str, Any]:
        """All values of a list, or both ends of a range, by what messages call them."""
        if self.choices:
            return {f"[{number}]": value for number, value in enumerate(self.choices)}
        return {f".{end}": int(v) if v.is_integer() else v for end, v in (("low", self.low), ("high", self.high))}

    def at(self, point: float, whole: bool) -> Any:
        """The value at a point of [0, 1).

        Args:
            point: where.
            whole: the values are whole numbers, of which each is as likely as the others (where the scale is not logarithmic).
        """
        if self.choices:
            return self.choices[int(point * len(self.choices))]
        low, high = self.low, self.high + 1 if whole else self.high
        value = exp(log(low) + point * (log(high) - log(low))) if self.log else low + point * (high - low)
        value = int(value) if whole else float(f"{value:.{DIGITS}g}")
        return type(value)(min(self.high, max(self.low, value)))  # rounding may have left the range


Space = dict[str, Dimension]
RANGE_KEYS = ("low", "high", "log")


class Tune(BaseModel):
    """How the settings of each method are tuned, with the same number of draws for all."""

    model_config = ConfigDict(extra="forbid")

    draws: int = Field(
        16,
        ge=0,
        le=MOST_DRAWS,
        description="settings that are tried for a data set, protocol, way of missing, method and fold; the first is the default",
    )
    seed: int = Field(0, ge=0, lt=2**32, description="of the trials that tune")
    recipe: Space = Field({}, description="key of the recipe -> what it is drawn from, for every method")
    methods: dict[str, Space] = Field(
        {},
        description="label of a method -> what its own arguments are drawn from, in the place of what the method declares",
    )

    @field_validator("recipe", mode="before")
    @classmethod
    def _nothing(cls, value: Any) -> Any:
        return {} if value is None else value

    @field_validator("methods", mode="before")
    @classmethod
    def _nothing_of_its_own(cls, value: Any) -> Any:
        """``ogm_ge:`` with nothing behind it has no argument to tune."""
        return {k: {} if v is None else v for k, v in value.items()} if isinstance(value, dict) else value


def check_recipe_space(space: Space, recipes: Collection[Recipe], mistakes: list[str]) -> None:
    """Add what is wrong with the space of the recipe; each of its values has to fit each of the experiment's recipes."""

    def refuse(key: str, value: Any) -> list[str]:
        return list(dict.fromkeys(line for recipe in recipes for line in recipe_refuses(recipe, {key: value})))

    hints = {name: field.annotation for name, field in Recipe.model_fields.items()}
    _check("tune.recipe", space, hints, refuse, mistakes)


def check_method_space(
    where: str, space: Space, factory: type, reserved: Collection[str], given: Mapping[str, Any], mistakes: list[str]
) -> None:
    """Add what is wrong with the space of a method's own arguments.

    Args:
        where: ``tune.methods.<label>``.
        space: of its arguments.
        factory: the method.
        reserved: constructor arguments that are not the user's to give.
        given: the arguments that the file gives.
        mistakes: added to.
    """
    hints = hints_of(factory, reserved)

    def refuse(key: str, value: Any) -> list[str]:
        wrong = resolve_arguments(factory, {**given, key: value}, reserved)[1]
        return [line for line in wrong if line.startswith(f"{key}:") or line.startswith(f"{key}.")]

    _check(where, space, hints, refuse, mistakes)


def hints_of(factory: type, reserved: Collection[str]) -> dict[str, Any]:
    """The annotations of a method's own arguments."""
    hints = get_type_hints(factory.__init__, include_extras=True)  # type: ignore[misc]
    return {name: hint for name, hint in hints.items() if name not in {*reserved, "return"}}


def drawn_recipe(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """A recipe with what was drawn for it; what belongs to the schedule that it had goes with that schedule.

    Raises:
        ValidationError: they do not fit together.
    """
    settings = {**recipe.model_dump(), **changes}
    if settings["schedule"] != "step":
        settings = {k: v for k, v in settings.items() if k in changes or k not in ("step_size", "gamma")}
    return Recipe.model_validate(settings)


def recipe_refuses(recipe: Recipe, changes: Mapping[str, Any]) -> list[str]:
    """What is wrong with changes of a recipe."""
    try:
        drawn_recipe(recipe, changes)
    except ValidationError as error:
        return describe(error, lambda _: Recipe.model_fields)
    return []


def _check(where: str, space: Space, hints: Mapping[str, Any], refuse: Refuse, mistakes: list[str]) -> None:
    for key, dimension in space.items():
        if key not in hints:
            mistakes.append(f"{where}.{key}: unknown key; {did_you_mean(key, hints)}")
        elif not dimension.choices and number_type(hints[key]) is None:
            mistakes.append(f"{where}.{key}: only numbers have a range; expected a list of values")
        else:
            for end, value in dimension.ends.items():
                mistakes += [f"{where}.{key}{end}: {line.removeprefix(f'{key}: ')}" for line in refuse(key, value)]


def draws(dataset: str, method: str, space: Space, whole: Collection[str], count: int) -> list[dict[str, Any]]:
    """Settings to try: the default, which changes nothing, and points of a scrambled Sobol sequence.

    They depend on nothing but what is given, so that no trial depends on the order in which others ended; and the first n of them are
    the same whatever the count.

    Args:
        dataset: its name, and
        method: its name: they seed the sequence.
        space: name of a setting -> what it is drawn from; the order of the names does not matter.
        whole: the settings that are whole numbers.
        count: how many, the default among them.

    Returns:
        For each draw, name -> value.
    """
    if not space:
        return [{}]
    import numpy as np
    from scipy.stats.qmc import Sobol

    names = sorted(space)
    seed = int.from_bytes(sha256(f"{dataset} {method}".encode()).digest()[:8])
    sequence = Sobol(len(names), rng=np.random.default_rng(seed))
    points = sequence.random_base2((count - 2).bit_length())  # whole powers of two: scipy warns of others
    return [{}] + [
        {name: space[name].at(float(x), name in whole) for name, x in zip(names, point, strict=True)}
        for point in points[: count - 1]
    ]


def in_short(settings: Mapping[str, Any]) -> str:
    """A draw in words: ``lr 0.03, alpha 0.5``."""
    named = {name.removeprefix(OF_RECIPE): value for name, value in settings.items()}
    return ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in named.items()
    )
