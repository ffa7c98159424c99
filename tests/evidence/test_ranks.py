"""Ranks over data sets: held against plain loops, scikit-posthocs and what is known by hand."""

from __future__ import annotations

import numpy as np
import pytest

from mmbench.evidence.ranks import DRAWS, PRIOR, friedman, mean_ranks, nemenyi, signed_rank


def accuracies(datasets: int = 8, methods: int = 5) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.round(rng.normal(60, 5, (datasets, 1)) + np.arange(methods) + rng.normal(0, 2, (datasets, methods)), 1)


def test_mean_ranks_are_those_of_a_loop() -> None:
    values = accuracies()
    values[0, 1] = values[0, 3]  # a tie
    for method, rank in enumerate(mean_ranks(values)):
        by_dataset = [
            1 + sum(v > row[method] for v in row) + (sum(v == row[method] for v in row) - 1) / 2 for row in values
        ]
        assert rank == pytest.approx(np.mean(by_dataset))


def test_nemenyi_is_that_of_scikit_posthocs() -> None:
    from scikit_posthocs import posthoc_nemenyi_friedman

    values = accuracies()
    p, critical = nemenyi(values)
    np.testing.assert_allclose(p, posthoc_nemenyi_friedman(values).to_numpy(), atol=1e-3)
    ranks = mean_ranks(values)
    apart = np.abs(ranks[:, None] - ranks) > critical
    np.testing.assert_array_equal(apart, p < 0.05)
    assert 0 < apart.sum() < 20


def test_the_critical_difference_is_that_of_the_book() -> None:
    """Demšar (2006): 2.850 for q at 0.05 and six methods, 2.728 for five."""
    for methods, q in ((5, 2.728), (6, 2.850)):
        expected = q * np.sqrt(methods * (methods + 1) / (6 * 14))
        assert nemenyi(accuracies(14, methods))[1] == pytest.approx(expected, abs=1e-3)


def test_friedman() -> None:
    same, apart = np.full((8, 4), 50.0), accuracies() + 10 * np.arange(5)
    assert friedman(apart) < 1e-4
    assert np.isnan(friedman(same))
    assert np.isnan(friedman(apart[:, :2]))


def naive(differences: list[float], rope: float, seed: int, draws: int) -> list[float]:
    z = [0.0, *differences]
    shares = [0.0, 0.0, 0.0]
    for weights in np.random.default_rng(seed).dirichlet([PRIOR, *([1.0] * len(differences))], DRAWS)[:draws].tolist():
        votes = [0.0, 0.0, 0.0]
        for w, a in zip(weights, z, strict=True):
            for v, b in zip(weights, z, strict=True):
                middle = round((a + b) / 2, 9)
                votes[0 if middle > rope else 2 if middle < -rope else 1] += w * v
        most = [k for k in range(3) if votes[k] >= max(votes) - 1e-12]
        for k in most:
            shares[k] += 1 / len(most)
    return [share / draws for share in shares]


def test_the_signed_rank_test_is_that_of_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    differences = [3.0, 0.5, -2.0, 1.5, 1.0, 2.2]
    monkeypatch.setattr("mmbench.evidence.ranks.DRAWS", 400)
    generator = np.random.default_rng(5)
    first = generator.dirichlet([PRIOR, *np.ones(6)], 400)
    np.testing.assert_array_equal(first, np.random.default_rng(5).dirichlet([PRIOR, *np.ones(6)], DRAWS)[:400])
    found = signed_rank(np.array(differences), seed=5)
    assert found == pytest.approx(naive(differences, 1.0, 5, 400))
    assert min(found) > 0


@pytest.mark.parametrize(
    ("differences", "place"), [([5.0] * 8, "better"), ([-5.0] * 8, "worse"), ([0.4, -0.3] * 4, "equivalent")]
)
def test_what_is_plain_is_certain(differences: list[float], place: str) -> None:
    found = signed_rank(np.array(differences))
    assert getattr(found, place) > 0.99
    assert sum(found) == pytest.approx(1)


def test_turned_round_it_says_the_same() -> None:
    one = signed_rank(np.array([3.0, 0.5, -2.0, 1.5, 1.0, 2.2]))
    other = signed_rank(-np.array([3.0, 0.5, -2.0, 1.5, 1.0, 2.2]))
    assert one == pytest.approx(other[::-1])


def test_differences_of_just_a_point_are_equivalent() -> None:
    assert signed_rank(np.array([80.1 - 79.1] * 8)).equivalent > 0.99
