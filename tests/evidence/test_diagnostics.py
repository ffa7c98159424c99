"""Diagnostics of stored predictions against loops."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from mmbench.evidence.diagnostics import FLOOR, effective_robustness, equity, gradient_variation, lost, score
from mmbench.evidence.resampling import means, resamples
from mmbench.missing import patterns, shapley


def values_of(modalities: int, seed: int = 0) -> tuple[list[tuple[str, ...]], np.ndarray]:
    """The patterns, with the empty one last, and a value of each."""
    names = [*patterns([str(m) for m in range(modalities)]), ()]
    return names, np.random.default_rng(seed).normal(size=len(names))


@pytest.mark.parametrize("modalities", [2, 3, 5])
def test_contributions_are_means_over_all_orders_and_add_up(modalities: int) -> None:
    names, values = values_of(modalities)
    value = {frozenset(name): v for name, v in zip(names, values, strict=True)}
    everyone = [str(m) for m in range(modalities)]
    expected = np.zeros(modalities)
    orders = list(permutations(everyone))
    for order in orders:
        for place, m in enumerate(order):
            before = frozenset(order[:place])
            expected[int(m)] += (value[before | {m}] - value[before]) / len(orders)
    found = shapley(modalities) @ values
    assert found == pytest.approx(expected)
    assert found.sum() == pytest.approx(values[-2] - values[-1])


def test_equity_is_one_of_equal_parts_and_zero_of_a_single_one() -> None:
    contributions = np.array([[3.0, 5.0, -1.0, -1.0, 1.0], [3.0, 0.0, -2.0, 2.0, 1.0], [3.0, 0.0, 0.0, 2.0, 2.0]])
    found = equity(contributions)
    half = np.log(2) / np.log(3)
    mixed = -(0.5 * np.log(0.5) + 2 * 0.25 * np.log(0.25)) / np.log(3)
    assert found[[0, 1, 3, 4]] == pytest.approx([1, 0, half, mixed])
    assert np.isnan(found[2]), "nothing contributes: there is nothing to share"


@pytest.mark.parametrize("modalities", [2, 3, 4])
def test_what_more_modalities_lose(modalities: int) -> None:
    names, _ = values_of(modalities)
    hits = np.random.default_rng(3).random((len(names), 40)) < 0.7
    found = lost(hits, modalities)
    for i, name in enumerate(names[:-1]):
        wider = [j for j, other in enumerate(names[:-1]) if set(name) < set(other)]
        for n in range(40):
            assert found[i, n] == (hits[i, n] and any(not hits[j, n] for j in wider))
    np.testing.assert_array_equal(found[-1], found[:-1].any(axis=0))
    assert not found[-2].any(), "there is nothing beyond everything"
    assert found[-1].any()


@pytest.mark.parametrize("own_priors", [False, True])
def test_scores_are_those_of_loops(own_priors: bool) -> None:
    generator = np.random.default_rng(0)
    label = generator.integers(0, 4, 30)
    log_probs = np.log(generator.dirichlet(np.full(4, 0.3), (3, 30))).astype(np.float16)
    log_probs[0, 0] = [0, -40, -40, -40]
    label[0] = 1
    predicted = generator.integers(0, 4, (3, 30)).astype(
        np.int16
    )  # not always the largest, which float16 may have made a tie
    prior = np.log(generator.dirichlet(np.ones(4), 30 if own_priors else None)).astype(np.float32)
    found = score(label, predicted, log_probs, prior)
    for i in range(4):
        for n in range(30):
            logs = log_probs[i, n] if i < 3 else prior[n] if own_priors else prior
            p = np.exp(logs.astype(float))
            answer = predicted[i, n] if i < 3 else p.argmax()
            assert found.hits[i, n] == (answer == label[n])
            assert found.surprise[i, n] == pytest.approx(-np.log(max(p[label[n]], 2**-24)), abs=1e-5)
            brier = sum((p[c] - (c == label[n])) ** 2 for c in range(4))
            assert found.brier[i, n] == pytest.approx(brier, abs=1e-5)
            assert found.confidence[i, n] == pytest.approx(p.max(), abs=1e-6)
    assert found.surprise[0, 0] == pytest.approx(-np.log(FLOOR))
    assert np.float16(FLOOR) > 0 == np.float16(FLOOR / 2.1)


def test_means_and_their_draws_are_those_of_a_naive_resampling() -> None:
    generator = np.random.default_rng(1)
    member = generator.integers(0, 7, 60)
    samples = generator.normal(size=(2, 3, 60))  # seeds, quantities
    sums = np.stack([[np.bincount(member, k, 7) for k in seed] for seed in samples])
    found, draws = means(sums, np.bincount(member, minlength=7))
    assert found == pytest.approx(samples.mean(axis=(0, 2)))
    weights, chosen = resamples(7, 2)
    for r in (0, 17, 1999):
        of_seeds = [np.average(seed, axis=1, weights=weights[r][member]) for seed in samples]
        assert draws[:, r] == pytest.approx(chosen[r] @ np.array(of_seeds))


def test_effective_robustness_is_the_sum_of_what_is_kept_beyond_the_lead() -> None:
    own, reference = np.array([60.0, 50, 45]), np.array([50.0, 42, 30])
    expected = sum(own[k] - (reference[k] + own[0] - reference[0]) for k in (1, 2))
    assert effective_robustness(own, reference) == pytest.approx(expected)
    assert effective_robustness(reference, reference) == 0


def test_gradients_that_are_alike_do_not_vary() -> None:
    assert gradient_variation(np.log([[2.0, 2, 2], [5, 5, 5]])) == pytest.approx(0)
    assert gradient_variation(np.array([[0.0, -np.inf, -np.inf]])) == pytest.approx(np.sqrt(2))
    expected = np.mean([np.std([1, 3]) / 2, np.std([1, 4]) / 2.5])
    assert gradient_variation(np.log([[1.0, 3], [1, 4]])) == pytest.approx(expected)
    assert gradient_variation(np.array([[-np.inf, -np.inf], [0, np.log(3)]])) == pytest.approx(0.5)
    assert np.isnan(gradient_variation(np.empty((0, 2))))
