"""The trials that tune: for each data set, protocol, way of missing, method and fold the same number of draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from mmbench.arguments import number_type, resolve_arguments, tunables
from mmbench.baselines import METHODS
from mmbench.experiment.grid import Grid
from mmbench.experiment.resolve import METHOD_RESERVED
from mmbench.experiment.space import (
    OF_RECIPE,
    TUNED,
    Dimension,
    Space,
    Tune,
    check_method_space,
    drawn_recipe,
    draws,
    hints_of,
    in_short,
    recipe_refuses,
)
from mmbench.recipe import Recipe
from mmbench.trial import Trial


class Setting(NamedTuple):
    """A draw: what it changes, by the names that ``space.draws`` gives, and the recipe and the method's arguments that it comes to."""

    drawn: dict[str, Any]
    recipe: Recipe
    params: dict[str, Any]


class Draw(NamedTuple):
    """A setting that is tried: what was drawn (nothing, for the default), and the trial that tells what it is worth."""

    drawn: dict[str, Any]
    trial: Trial


@dataclass(frozen=True)
class Search:
    """The tuning of one method on one data set, both by their labels, under one protocol, trained in one way, in one fold.

    The setting of a fold is chosen on that fold's own validation part: that of another fold may be this one's test part.

    Attributes:
        draws: the settings; the first is the default.
        seeds: of the trials in which the chosen setting is tested.
    """

    dataset: str
    method: str
    draws: tuple[Draw, ...]
    seeds: tuple[int, ...]

    @property
    def like(self) -> Trial:
        """A trial of its data set, protocol, way of missing and fold."""
        return self.draws[0].trial

    @property
    def fold(self) -> str:
        """Its fold in words; nothing where the data set is not cut into folds."""
        return "" if self.like.fold is None else f"fold {self.like.fold}"

    def line(self, what: str) -> str:
        """A line on it, as reports and logs have it."""
        training = self.like.training if self.like.missing else ""
        parts = (self.dataset, self.like.protocol, training, self.method + TUNED, self.fold, what)
        return " ".join(part for part in parts if part)

    def finals(self, draw: int) -> list[Trial]:
        """The trials that test a draw, one a seed; those of the first draw are the experiment's own, of the default."""
        trial = self.draws[draw].trial
        return [trial.model_copy(update={"tuning": False, "seed": seed}) for seed in self.seeds]


def resolve_draws(
    grid: Grid,
    methods: Mapping[str, dict[str, Any]],
    recipes: Mapping[tuple[str, str], Recipe],
    mistakes: list[str],
) -> dict[tuple[str, str], list[Setting]]:
    """Labels of data set and method -> the settings to try; adds what is wrong with the space. Nothing where nothing is tuned.

    What a method's entry in the file gives itself, an argument or a part of the recipe, is what makes it that entry, and is not drawn;
    unless ``tune.methods`` says so of an argument.
    """
    if (tune := grid.tune) is None:
        return {}
    before = len(mistakes)
    spaces = {label: space_of(grid, tune, label, mistakes) for label in grid.methods}
    if len(mistakes) == before and not any(spaces.values()):
        mistakes.append("tune: nothing to draw from; give a recipe to tune, or the arguments of a method")
    if mistakes:
        return {}
    found: dict[tuple[str, str], list[Setting]] = {}
    for (dataset, method), recipe in recipes.items():
        factory, space = METHODS[grid.method_of(method)], spaces[method]
        hints = {**_recipe_hints(), **hints_of(factory, METHOD_RESERVED)}
        whole = [name for name, dimension in space.items() if not dimension.choices and number_type(hints[name]) is int]
        drawn = draws(grid.dataset_of(dataset), grid.method_of(method), space, whole, tune.draws)
        for number, one in enumerate(drawn):
            changes = {k.removeprefix(OF_RECIPE): v for k, v in one.items() if k.startswith(OF_RECIPE)}
            own = {k: v for k, v in one.items() if not k.startswith(OF_RECIPE)}
            params, wrong = resolve_arguments(factory, {**methods[method], **own}, METHOD_RESERVED)
            if wrong := [*recipe_refuses(recipe, changes), *wrong]:
                told = f"tune, draw {number} of {method} on {dataset} ({in_short(one)}): {wrong[0]}"
                mistakes.append(f"{told}; change the space")
                break
            setting = Setting(one, drawn_recipe(recipe, changes), params)
            found.setdefault((dataset, method), []).append(setting)
    return found


def space_of(grid: Grid, tune: Tune, label: str, mistakes: list[str]) -> Space:
    """What the settings of a method are drawn from, by its label; adds what is wrong with what the file says of it."""
    factory, entry = METHODS[grid.method_of(label)], grid.methods[label]
    if (own := tune.methods.get(label)) is not None:
        check_method_space(f"tune.methods.{label}", own, factory, METHOD_RESERVED, entry.arguments, mistakes)
    else:
        declared = tunables(factory).items()
        own = {name: Dimension.model_validate(t) for name, t in declared if name not in entry.arguments}
    recipe = {OF_RECIPE + name: dimension for name, dimension in tune.recipe.items() if name not in entry.recipe}
    return {**recipe, **own}


def _recipe_hints() -> dict[str, Any]:
    return {OF_RECIPE + name: field.annotation for name, field in Recipe.model_fields.items()}


def search_of(grid: Grid, dataset: str, method: str, default: Trial, settings: Sequence[Setting]) -> Search:
    """The search of a method on a data set, both by label, for settings to try; ``default`` is a trial of the first, of any seed."""
    assert grid.tune is not None
    shared = {"tuning": True, "seed": grid.tune.seed}
    tried = (
        Draw(s.drawn, default.model_copy(update={**shared, "recipe": s.recipe, "params": s.params})) for s in settings
    )
    return Search(dataset, method, tuple(tried), tuple(grid.seeds_of(dataset, default.protocol)))
