"""How a draw is judged and chosen, against enumeration."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmbench.evidence.tuning import expected_best, ranking, score

NAN = float("nan")
SCORES = st.lists(
    st.one_of(st.sampled_from([10.0, 42.5, 42.5001]), st.floats(0, 100), st.just(NAN)), min_size=1, max_size=9
)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_a_score_is_the_mean_of_the_best_three_epochs_in_a_row(accuracies: list[float]) -> None:
    span = min(3, len(accuracies))
    naive = max(sum(accuracies[e : e + span]) / span for e in range(len(accuracies) - span + 1))
    assert score(accuracies) == pytest.approx(100 * naive, abs=0.5e-4 + 1e-9)


def test_a_single_lucky_epoch_does_not_decide() -> None:
    assert score([0.2, 0.9, 0.2, 0.2]) < score([0.5, 0.5, 0.5, 0.5])


def test_as_many_hits_are_a_tie_however_they_are_spread() -> None:
    """Accuracies are float32, as torchmetrics has them: their sums differ in the last places."""
    first, second = np.float32([81 / 280, 83 / 280, 88 / 280]), np.float32([84 / 280, 84 / 280, 84 / 280])
    assert first.astype(float).sum() != second.astype(float).sum()
    assert score(first) == score(second)


def test_without_epochs_there_is_no_score() -> None:
    with pytest.raises(ValueError, match="at least one epoch"):
        score([])


@pytest.mark.parametrize(
    ("scores", "rates", "expected"),
    [
        ([1, 3, 2], [1, 1, 1], [1, 2, 0]),
        ([3, 3, 3], [0.3, 0.1, 0.2], [1, 2, 0]),  # the smaller rate
        ([3, 3, 3], [0.1, 0.1, 0.1], [0, 1, 2]),  # the earlier draw
        ([NAN, 3, NAN, 4], [1, 1, 1, 9], [3, 1]),
        ([NAN, NAN], [1, 1], []),
    ],
)
def test_the_ranking(scores: list[float], rates: list[float], expected: list[int]) -> None:
    assert ranking(scores, rates) == expected


@given(SCORES)
def test_the_expected_best_is_the_mean_over_all_sets_of_draws(scores: list[float]) -> None:
    best = expected_best(scores)
    assert best.shape == (len(scores),)
    for n in range(1, len(scores) + 1):
        bests = [
            max(s for s in chosen if not np.isnan(s))
            for chosen in combinations(scores, n)
            if not np.isnan(chosen).all()
        ]
        assert best[n - 1] == pytest.approx(np.mean(bests) if bests else NAN, nan_ok=True)


def test_more_draws_are_never_expected_to_be_worse() -> None:
    best = expected_best([40.0, NAN, 44.0, 47.0, 39.0])
    assert best[0] == pytest.approx(42.5)
    assert best[-1] == 47.0
    assert (np.diff(best) > 0).all()


def test_a_thousand_draws_overflow_nothing() -> None:
    best = expected_best(list(range(1000)))
    assert best[0] == pytest.approx(499.5)
    assert best[-1] == 999
