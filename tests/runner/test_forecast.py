"""How long trials will take, by those that have ended."""

from __future__ import annotations

import numpy as np
import pytest

from mmbench.recipe import Recipe
from mmbench.runner.forecast import Forecast, Kind, Progress
from mmbench.trial import Trial

METHODS = {"sum": 2.0, "mla": 3.0, "mmin": 30.0}
DATA = {"small": 1.0, "large": 4.0}


def kind(method: str, data: str = "small", epochs: int = 10) -> Kind:
    return Kind.of(
        Trial(
            dataset=data, data="", protocol="clean", method=method, seed=0, encoders={}, params={},
            recipe=Recipe(epochs=epochs),
        )
    )  # fmt: skip


def test_nothing_is_foreseen_before_anything_is_known() -> None:
    forecast = Forecast()
    assert forecast.expected(kind("sum")) is None
    assert forecast.left([Progress(kind("sum"), 5.0)], [kind("sum")], 2) is None
    assert forecast.left([], [], 2) == 0


def test_before_any_trial_has_ended_epochs_tell() -> None:
    """Two slots; one trial has done a fifth in 4 s, so takes 20 s, as all the others will."""
    running = [Progress(kind("sum"), 5.0, 2, 4.0), Progress(kind("sum"), 5.0)]
    assert Forecast().left(running, [kind("sum")] * 4, 2) == pytest.approx(15 + 2 * 20)


def test_a_method_is_foreseen_on_data_that_it_has_not_seen() -> None:
    forecast = Forecast()
    for data, method in [("small", "sum"), ("small", "mla"), ("small", "mmin"), ("large", "sum"), ("large", "mla")] * 3:
        forecast.learn(kind(method, data), METHODS[method] * DATA[data])
    assert forecast.expected(kind("mmin", "large")) == pytest.approx(120, rel=0.15)
    assert forecast.expected(kind("sum", "small")) == pytest.approx(2, rel=0.1)


def test_more_epochs_take_longer() -> None:
    forecast = Forecast()
    for method in METHODS:
        for _ in range(10):
            forecast.learn(kind(method), METHODS[method])
    assert forecast.expected(kind("mla", epochs=30)) == pytest.approx(9, rel=0.1)


def test_a_method_that_has_not_ended_yet_is_foreseen_by_its_own_epochs() -> None:
    """Its first trial takes 100 s, by two epochs of ten; so will the one that waits."""
    forecast = Forecast()
    for _ in range(10):
        forecast.learn(kind("sum"), 2.0)
    first = Progress(kind("mmin"), 25.0, 2, 20.0)
    assert forecast.total(first) == pytest.approx(100)
    assert forecast.left([first], [kind("mmin"), kind("sum")], 1) == pytest.approx(75 + 100 + 2, rel=0.02)


def test_the_speed_of_the_machine_is_that_of_the_last_trials() -> None:
    forecast = Forecast()
    for _ in range(30):
        forecast.learn(kind("sum"), 2.0)
    for _ in range(60):
        forecast.learn(kind("mla"), 9.0)  # three times as slow as it was before
    before = forecast.expected(kind("mla"))
    for _ in range(60):
        forecast.learn(kind("mla"), 3.0)
    assert before == pytest.approx(9, rel=0.1)
    assert forecast.expected(kind("mla")) == pytest.approx(3, rel=0.2)


def test_a_running_trial_is_foreseen_by_others_and_then_by_itself() -> None:
    forecast = Forecast()
    for _ in range(50):
        forecast.learn(kind("sum"), 20.0)
    assert forecast.total(Progress(kind("sum"), 5.0)) == pytest.approx(20)
    assert forecast.total(Progress(kind("sum"), 21.0, 5, 20.0)) == pytest.approx(30), "between 20 s and 40 s"
    assert forecast.total(Progress(kind("sum"), 41.0, 10, 40.0)) == pytest.approx(41), "it only has to be tested"
    assert forecast.total(Progress(kind("sum"), 5.0, 99, 4.0)) is not None, "a log that tells of too many epochs"


@pytest.mark.parametrize(
    ("slots", "seconds"), [(1, 10 + 4 * 20), (2, 10 + 2 * 20), (3, 40), (100, 20)], ids=["1", "2", "3", "100"]
)
def test_each_slot_takes_the_next_trial_when_it_is_free(slots: int, seconds: float) -> None:
    forecast = Forecast()
    for _ in range(50):
        forecast.learn(kind("sum"), 20.0)
    running, waiting = [Progress(kind("sum"), 10.0)], [kind("sum")] * 4
    assert forecast.left(running, waiting, slots) == pytest.approx(seconds, rel=0.01)
    assert forecast.left([], [kind("sum")], slots) == pytest.approx(20, rel=0.01)


def test_after_a_third_of_a_run_the_time_left_holds() -> None:
    """Sixty trials of very different length on two data sets, a method after the other, with a tenth of noise."""
    rng = np.random.default_rng(0)
    plan = [(method, data) for data in DATA for _ in range(10) for method in METHODS]
    seconds = [METHODS[m] * DATA[d] * rng.lognormal(0, 0.1) for m, d in plan]
    forecast = Forecast()
    errors = []
    for number, (method, data) in enumerate(plan):
        spent = sum(seconds[:number])
        if sum(seconds) / 3 < spent < sum(seconds) * 0.9:
            left = forecast.left([], [kind(*one) for one in plan[number:]], 1)
            assert left is not None
            errors.append(abs(left / sum(seconds[number:]) - 1))
        forecast.learn(kind(method, data), seconds[number])
    assert len(errors) > 10
    assert np.mean(errors) < 0.1
