"""What a trial's process computes in: torch's two interfaces agree, and nothing of it outlives the trial."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

import mmbench.training
from mmbench.precision import PLACES, computing
from mmbench.recipe import Recipe
from mmbench.trial import Trial

OFF, ON = ["ieee", "ieee", "ieee", "ieee"], ["tf32", "tf32", "tf32", "ieee"]


def newer() -> list[str]:
    return [place.fp32_precision for place in PLACES]


def older() -> tuple[str, bool, bool]:
    """By the names that Lightning reads; they raise where the two interfaces contradict each other."""
    return (
        torch.get_float32_matmul_precision(),
        torch.backends.cuda.matmul.allow_tf32,
        torch.backends.cudnn.allow_tf32,
    )


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """What the test changes, as it was."""
    everywhere = torch.backends.fp32_precision
    with computing("32-true"):
        yield
        torch.backends.fp32_precision = everywhere
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False


def as_torch_starts() -> None:
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = False, True
    PLACES[0].fp32_precision = PLACES[3].fp32_precision = "none"


def products_by_the_newer_name() -> None:
    PLACES[0].fp32_precision = "tf32"


def everything_by_the_newest_name() -> None:
    as_torch_starts()
    torch.backends.fp32_precision = "tf32"


SET_BEFORE = [
    as_torch_starts,
    products_by_the_newer_name,
    everything_by_the_newest_name,
    lambda: torch.set_float32_matmul_precision("high"),
    lambda: torch.set_float32_matmul_precision("medium"),
]


@pytest.mark.parametrize("before", SET_BEFORE)
@pytest.mark.parametrize(
    ("precision", "expected", "names"),
    [
        ("32-true", OFF, ("highest", False, False)),
        ("tf32", ON, ("high", True, True)),
        ("bf16", OFF, ("highest", False, False)),
    ],
)
def test_both_interfaces_say_the_same_and_are_restored(
    before: Callable[[], None], precision: str, expected: list[str], names: tuple[str, bool, bool]
) -> None:
    before()
    found = newer()
    with computing(precision):
        assert (newer(), older()) == (expected, names)
    assert newer() == found
    if before is as_torch_starts:
        assert older() == ("highest", False, True)


def test_a_failed_trial_leaves_nothing_behind() -> None:
    with pytest.raises(KeyError), computing("tf32"):
        raise KeyError
    assert newer() == OFF


@pytest.mark.parametrize(("precision", "expected"), [("32-true", OFF), ("tf32", ON), ("bf16", OFF)])
def test_a_trial_runs_in_its_precision(precision: str, expected: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def build(*_: object) -> None:
        raise KeyError(newer())

    monkeypatch.setattr("mmbench.training.build", build)
    trial = Trial(
        dataset="openclipart", data="0", protocol="clean", method="sum", seed=0, encoders={}, params={},
        recipe=Recipe.model_validate({"precision": precision}),
    )  # fmt: skip
    with pytest.raises(KeyError) as told:
        mmbench.training.run(trial)
    assert told.value.args[0] == expected
    assert newer() == OFF
