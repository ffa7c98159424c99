"""What ``tune:`` may say, and the settings that are drawn from it."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mmbench.arguments import Tunable, describe, number_type, tunables
from mmbench.baselines import METHODS
from mmbench.experiment.resolve import METHOD_RESERVED
from mmbench.experiment.space import (
    RANGE_KEYS,
    Dimension,
    Tune,
    check_method_space,
    check_recipe_space,
    drawn_recipe,
    draws,
    in_short,
)
from mmbench.recipe import Recipe

SPACE = {
    "recipe.lr": {"low": 0.005, "high": 0.2, "log": True},
    "recipe.optimizer": ["sgd", "adam"],
    "recipe.batch_size": {"low": 16, "high": 19},
    "alpha": {"low": -1, "high": 1},
}
WHOLE = {"recipe.batch_size"}


def space(given: dict[str, Any] = SPACE) -> dict[str, Dimension]:
    return {name: Dimension.model_validate(value) for name, value in given.items()}


def drawn(count: int = 64, dataset: str = "openclipart", method: str = "mla", given: dict[str, Any] = SPACE) -> Any:
    return draws(dataset, method, space(given), WHOLE, count)


# Draws


def test_the_first_draw_is_the_default_and_there_are_as_many_as_asked_for() -> None:
    for count in (2, 3, 4, 5, 6, 17, 100):
        settings = drawn(count)
        assert len(settings) == count
        assert settings[0] == {}
        assert all(set(setting) == set(SPACE) for setting in settings[1:])


def test_draws_are_the_same_whatever_their_number_and_the_order_of_the_space() -> None:
    assert drawn(100)[:7] == drawn(7)
    assert drawn(9, given=dict(reversed(SPACE.items()))) == drawn(9)


def test_draws_depend_on_the_data_set_and_the_method() -> None:
    others = [drawn(5, "crema_d"), drawn(5, method="qmf"), drawn(5, "openclipartmla", "")]
    assert len({str(one) for one in [drawn(5), *others]}) == 4


def test_draws_of_today_are_those_of_yesterday() -> None:
    """Trials are named after their settings: other draws would be other trials."""
    assert drawn(4) == [
        {},
        {"alpha": 0.8837, "recipe.batch_size": 19, "recipe.lr": 0.1102, "recipe.optimizer": "adam"},
        {"alpha": -0.4987, "recipe.batch_size": 17, "recipe.lr": 0.0202, "recipe.optimizer": "sgd"},
        {"alpha": -0.6256, "recipe.batch_size": 18, "recipe.lr": 0.07914, "recipe.optimizer": "adam"},
    ]


def test_numbers_stay_in_their_range_with_few_digits() -> None:
    for setting in drawn(256)[1:]:
        assert 0.005 <= setting["recipe.lr"] <= 0.2
        assert -1 <= setting["alpha"] <= 1
        for name in ("recipe.lr", "alpha"):
            assert float(f"{setting[name]:.4g}") == setting[name]
        assert isinstance(setting["recipe.batch_size"], int)


def test_draws_are_spread_evenly() -> None:
    """Of 256 points of a Sobol sequence, each quarter of an axis holds a fourth; half of the rates lie below the geometric mean."""
    settings = drawn(257)[1:]
    assert np.bincount([s["recipe.batch_size"] for s in settings])[16:].tolist() == [64] * 4
    assert sum(s["recipe.optimizer"] == "sgd" for s in settings) == 128
    assert sum(s["recipe.lr"] < (0.005 * 0.2) ** 0.5 for s in settings) == 128
    assert sum(s["alpha"] < 0 for s in settings) == 128


@given(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6), st.booleans(), st.booleans(), st.floats(0, 1, exclude_max=True))
def test_no_value_leaves_its_range(low: float, span: float, log: bool, whole: bool, point: float) -> None:
    low, high = (np.ceil(low), np.ceil(low) + np.ceil(span)) if whole else (low, low + span)
    if not low < high:
        return
    value = Dimension(low=low, high=high, log=log).at(point, whole)
    assert low <= value <= high
    assert isinstance(value, int if whole else float)


def test_whole_numbers_on_a_logarithmic_scale_reach_both_ends() -> None:
    dimension = Dimension(low=1, high=8, log=True)
    values = [dimension.at(x / 1000, whole=True) for x in range(1000)]
    assert set(values) == set(range(1, 9))
    assert values.count(1) > 4 * values.count(8)


def test_scipy_has_nothing_to_warn_of() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for count in (2, 3, 10, 16):
            drawn(count)


def test_nothing_to_draw_from_is_the_default_alone() -> None:
    assert drawn(16, given={}) == [{}]


def test_a_setting_in_words() -> None:
    assert in_short({"recipe.lr": 0.03, "alpha": 0.5, "recipe.optimizer": "adam", "steps": 3}) == (
        "lr 0.03, alpha 0.5, optimizer adam, steps 3"
    )
    assert in_short({}) == ""


def test_a_drawn_schedule_leaves_behind_what_belongs_to_the_other() -> None:
    recipe = Recipe(epochs=30, lr=0.05, step_size=20, gamma=0.5)
    assert drawn_recipe(recipe, {"schedule": "cosine"}) == Recipe(epochs=30, lr=0.05, schedule="cosine")
    assert drawn_recipe(recipe, {"lr": 0.1}) == recipe.model_copy(update={"lr": 0.1})
    assert drawn_recipe(recipe, {}) == recipe


# What the file may say


def test_what_a_file_says() -> None:
    tune = Tune.model_validate(
        {
            "draws": 8,
            "recipe": {"lr": {"low": "1e-3", "high": 1, "log": True}, "optimizer": ["sgd", "adam"]},
            "methods": {"mla": {"alpha": {"low": 0.01, "high": 1}}, "ogm_ge": None},
        }
    )
    assert (tune.draws, tune.seed) == (8, 0)
    assert tune.recipe["lr"] == Dimension(low=0.001, high=1, log=True)
    assert tune.recipe["optimizer"].choices == ["sgd", "adam"]
    assert tune.methods == {"mla": {"alpha": Dimension(low=0.01, high=1)}, "ogm_ge": {}}
    assert Tune().draws == 16


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"draws": -1}, "draws: input should be greater than or equal to 0, got -1"),
        ({"draws": 10_000}, "draws: input should be less than or equal to 1000, got 10000"),
        ({"drows": 3}, "drows: unknown key; did you mean 'draws'?"),
        ({"seed": -1}, "seed: input should be greater than or equal to 0, got -1"),
        ({"recipe": {"lr": {"low": 1, "high": 1}}}, "recipe.lr: low must be below high, got"),
        ({"recipe": {"lr": {"low": 2, "high": 1}}}, "recipe.lr: low must be below high, got"),
        ({"recipe": {"lr": {"low": 0, "high": 1, "log": True}}}, "recipe.lr: a logarithmic scale needs a low above 0, got"),
        ({"recipe": {"lr": {"low": 0.1}}}, "recipe.lr: expected a number for high, got"),
        ({"recipe": {"lr": {"low": "small", "high": 1}}}, "recipe.lr.low: input should be a valid number"),
        ({"recipe": {"lr": {"low": float("nan"), "high": 1}}}, "recipe.lr.low: input should be a finite number, got nan"),
        ({"recipe": {"lr": {"low": True, "high": 2}}}, "recipe.lr: expected a number for low, got"),
        ({"recipe": {"lr": {"low": 0.1, "high": 1, "logg": True}}}, "recipe.lr.logg: unknown key; did you mean 'log'?"),
        ({"recipe": {"lr": 0.1}}, "recipe.lr: expected {low: …, high: …}, with log: true for a logarithmic scale, or a list"),
        ({"recipe": {"lr": []}}, "recipe.lr: expected at least two values, each given once, got []"),
        ({"recipe": {"lr": [0.1]}}, "recipe.lr: expected at least two values, each given once, got [0.1]"),
        ({"recipe": {"lr": [0.1, 0.1]}}, "recipe.lr: expected at least two values, each given once, got [0.1, 0.1]"),
        ({"recipe": [1]}, "recipe: expected a mapping, key: value, got [1]"),
        ({"methods": {"mla": 3}}, "methods.mla: expected a mapping"),
    ],
)  # fmt: skip
def test_mistakes_of_form(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as raised:
        Tune.model_validate(given)
    lines = describe(raised.value, lambda place: Tune.model_fields if len(place) == 1 else RANGE_KEYS)
    assert len(lines) == 1
    assert message in lines[0]


def recipe_mistakes(given: dict[str, Any], *recipes: Recipe) -> list[str]:
    mistakes: list[str] = []
    check_recipe_space(space(given), recipes or [Recipe()], mistakes)
    return mistakes


@pytest.mark.parametrize(
    ("given", "mistake"),
    [
        ({"lrr": [1, 2]}, "tune.recipe.lrr: unknown key; did you mean 'lr'?"),
        ({"lr": {"low": -1, "high": 1}}, "tune.recipe.lr.low: input should be greater than 0, got -1"),
        ({"lr": {"low": 0.1, "high": 5000}}, "tune.recipe.lr.high: input should be less than or equal to 1000, got 5000"),
        ({"batch_size": {"low": 0.5, "high": 3}}, "tune.recipe.batch_size.low: input should be a valid integer, "),
        ({"optimizer": ["sgd", "adm"]}, "tune.recipe.optimizer[1]: input should be 'sgd', 'adam' or 'adamw', got 'adm'"),
        ({"optimizer": {"low": 1, "high": 2}}, "tune.recipe.optimizer: only numbers have a range; expected a list of values"),
        ({"compile": {"low": 0, "high": 1}}, "tune.recipe.compile: only numbers have a range; expected a list of values"),
        ({"warmup": {"low": 0, "high": 100}}, "tune.recipe.warmup.high: must be less than epochs, of which there are 100, got 100"),
    ],
)  # fmt: skip
def test_the_recipe_holds_its_space_to_its_own_bounds(given: dict[str, Any], mistake: str) -> None:
    (found,) = recipe_mistakes(given)
    assert found.startswith(mistake)


def test_a_space_has_to_fit_every_recipe_of_the_experiment() -> None:
    given = {"warmup": {"low": 0, "high": 10}}
    assert recipe_mistakes(given) == []
    assert recipe_mistakes(given, Recipe(), Recipe(epochs=5)) == [
        "tune.recipe.warmup.high: must be less than epochs, of which there are 5, got 10"
    ]
    assert recipe_mistakes({"schedule": ["step", "cosine"]}, Recipe(step_size=20)) == []


def method_mistakes(method: str, given: dict[str, Any], params: dict[str, Any] | None = None) -> list[str]:
    mistakes: list[str] = []
    check_method_space(f"tune.methods.{method}", space(given), METHODS[method], METHOD_RESERVED, params or {}, mistakes)
    return mistakes


@pytest.mark.parametrize(
    ("method", "given", "mistake"),
    [
        ("mla", {"alhpa": [1, 2]}, "tune.methods.mla.alhpa: unknown key; did you mean 'alpha'?"),
        ("mla", {"spec": [1, 2]}, "tune.methods.mla.spec: unknown key; known: alpha, "),
        ("mla", {"alpha": {"low": 0, "high": 1}}, "tune.methods.mla.alpha.low: input should be greater than 0, got 0"),
        (
            "mla",
            {"alpha": {"low": 1, "high": 2e9}},
            "tune.methods.mla.alpha.high: at most 1,000,000,000, got 2000000000",
        ),
        ("mla", {"decay": {"low": 0, "high": 1}}, "tune.methods.mla.decay: only numbers have a range; expected a list"),
        ("mla", {"decay": [True, "perhaps"]}, "tune.methods.mla.decay[1]: input should be a valid boolean"),
        (
            "dmrnet",
            {"warmup": {"low": 0.5, "high": 3}},
            "tune.methods.dmrnet.warmup.low: input should be a valid integer",
        ),
        (
            "ae",
            {"dropout": {"low": 0.5, "high": 1}},
            "tune.methods.ae.dropout.high: input should be less than 1, got 1",
        ),
    ],
)
def test_a_method_holds_its_space_to_its_own_bounds(method: str, given: dict[str, Any], mistake: str) -> None:
    (found,) = method_mistakes(method, given)
    assert found.startswith(mistake)


def test_a_space_that_fits_is_no_mistake() -> None:
    given = {"head_gradient_modification": [True, False, "literal"], "alpha": {"low": 0.001, "high": 10, "log": True}}
    assert method_mistakes("mla", given, {"decay": False}) == []


def test_the_mistakes_of_other_arguments_are_told_elsewhere() -> None:
    assert method_mistakes("mla", {"alpha": [0.1, 0.2]}, {"decay": "perhaps"}) == []


# What methods declare


@pytest.mark.parametrize("method", list(METHODS))
def test_declared_ranges_are_valid_and_hold_the_default(method: str) -> None:
    factory = METHODS[method]
    declared = tunables(factory)
    assert method_mistakes(method, dict(declared)) == []  # type: ignore[arg-type]
    for name, tunable in declared.items():
        default = inspect.signature(factory.__init__).parameters[name].default
        assert tunable.low <= default <= tunable.high, name


def test_methods_whose_weights_are_tuned() -> None:
    assert tunables(METHODS["mla"]) == {"alpha": Tunable(0.01, 1.0, log=True)}
    assert set(tunables(METHODS["qmf"])) == {"rank_weight", "temperature"}
    assert tunables(METHODS["late_fusion"]) == {}


@pytest.mark.parametrize(
    ("hint", "kind"),
    [(int, int), (float | None, float), (bool, None), (str, None), (int | float, None), (bool | None, None)],
)
def test_what_is_a_number(hint: Any, kind: Any) -> None:
    assert number_type(hint) is kind
