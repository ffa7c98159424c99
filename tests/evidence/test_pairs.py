"""All pairs of methods, held against plain loops over resamples; Holm; accuracy by group."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from test_comparisons import NAMES, predictions

from mmbench.evidence.accuracy import estimate, twins
from mmbench.evidence.comparisons import Comparisons, Hits, best, compare_all, difference, holm, shared_seeds
from mmbench.evidence.groups import LARGE
from mmbench.evidence.resampling import RESAMPLES, resamples
from mmbench.record import Predictions


def method(
    number: int, seeds: tuple[int, ...] = (0, 1, 2), skill: float = 0.6, size: int = 60
) -> dict[int, Predictions]:
    return {seed: predictions(100 * number + seed, size, skill=skill) for seed in seeds}


def hits(runs: dict[int, Predictions]) -> Hits:
    return Hits.of(list(runs), list(runs.values()))


def average(weights: list[float], values: list[float]) -> float:
    return sum(w * x for w, x in zip(weights, values, strict=True)) / sum(weights)


def naive(one: list[Predictions], other: list[Predictions]) -> dict[str, list[float]]:
    """A pair's statistics, resample by resample and sample by sample; last in the mean over patterns."""
    group = one[0].group.tolist()
    groups = sorted(set(group))
    weights, chosen = resamples(len(groups), len(one))
    often = {g: weights[:, k].tolist() for k, g in enumerate(groups)}
    of_pattern = []
    for pattern in range(3):
        gaps = [  # of each seed, how much more each sample is right in the one than in the other
            [float(a.predicted[pattern][i] == a.label[i]) - float(b.predicted[pattern][i] == b.label[i]) for i in range(len(group))]
            for a, b in zip(one, other, strict=True)
        ]  # fmt: skip
        point = sum(sum(gap) for gap in gaps) / len(gaps) / len(group)
        draws = []
        for r in range(RESAMPLES):
            count = [often[g][r] for g in group]
            draws.append(average(chosen[r].tolist(), [average(count, gap) for gap in gaps]))
        of_pattern.append([100 * point, *(100 * d for d in draws)])
    of_pattern.append([sum(values) / 3 for values in zip(*of_pattern, strict=True)])
    found: dict[str, list[float]] = {}
    for point, *draws in of_pattern:
        draws = [round(d, 9) for d in draws]
        low, high = np.percentile(draws, [2.5, 97.5])
        not_above, not_below = sum(d <= 0 for d in draws) / RESAMPLES, sum(d >= 0 for d in draws) / RESAMPLES
        values = {
            "difference": point, "low": low, "high": high, "better": sum(d > 0 for d in draws) / RESAMPLES,
            "equivalent": sum(-1 <= d <= 1 for d in draws) / RESAMPLES,
            "p": min(1, max(1 / RESAMPLES, 2 * min(not_above, not_below))),
        }  # fmt: skip
        for name, value in values.items():
            found.setdefault(name, []).append(value)
    return found


def check(found: Comparisons, pair: int, expected: dict[str, list[float]]) -> None:
    for name, values in expected.items():
        np.testing.assert_allclose(getattr(found, name)[pair], values, atol=1e-9, err_msg=name)


def test_every_pair_is_that_of_a_naive_resampling() -> None:
    methods = [method(1, skill=0.8), method(2), method(3)]
    found = compare_all([hits(runs) for runs in methods])
    assert found.pairs.tolist() == [[0, 1], [0, 2], [1, 2]]
    assert found.n.tolist() == [3, 3, 3]
    for pair, (i, j) in enumerate(combinations(range(3), 2)):
        check(found, pair, naive(list(methods[i].values()), list(methods[j].values())))
    assert found.p.min() == 1 / RESAMPLES, "the first is far better: the floor"
    assert ((found.better > 0) & (found.better < 1)).any()


def test_a_pair_is_what_its_difference_is_alone() -> None:
    one, other = method(1), method(2)
    found, alone = compare_all([hits(one), hits(other)]), difference([*one.values()], [*other.values()], pattern=1)
    values = (found.difference[0, 1], found.low[0, 1], found.high[0, 1])
    assert values == pytest.approx((alone.mean, alone.low, alone.high))


def test_methods_of_other_seeds_are_compared_over_those_they_share() -> None:
    one, other = method(1, (0, 1, 2)), method(2, (3, 2, 0))
    found = compare_all([hits(one), None, hits(other), hits(method(3, (7,)))])
    assert found.pairs.tolist() == [[0, 2]], "one method has no run, one no common seed"
    assert found.n.tolist() == [2]
    check(found, 0, naive([one[0], one[2]], [other[0], other[2]]))


def test_of_seeds_that_predict_the_same_one_counts() -> None:
    one, other = method(1), method(2)
    one[2], other[2] = one[0], other[0]
    assert twins([*one.values()]) == [0, 1, 0]
    assert shared_seeds(hits(one), hits(other)) == (0, 1)
    found = compare_all([hits(one), hits(other)])
    check(found, 0, naive([one[0], one[1]], [other[0], other[1]]))
    other[2] = method(3)[2]
    assert shared_seeds(hits(one), hits(other)) == (0, 1, 2), "the other has another run there"


def test_a_method_without_chance_is_compared_with_every_run_of_another() -> None:
    fixed, other = dict.fromkeys((0, 1, 2), predictions(5)), method(2)
    assert shared_seeds(hits(fixed), hits(other)) == (0, 1, 2)
    check(compare_all([hits(fixed), hits(other)]), 0, naive([*fixed.values()], [*other.values()]))
    assert compare_all([hits(fixed), hits(fixed)]).n.tolist() == [1]


def test_identical_methods_differ_by_nothing() -> None:
    found = compare_all([hits(method(1)), hits(method(1))])
    for value in (found.difference, found.low, found.high, found.better):
        np.testing.assert_array_equal(value, 0)
    for value in (found.equivalent, found.p):
        np.testing.assert_array_equal(value, 1)


def test_of_one_group_nothing_is_said_but_the_difference() -> None:
    methods = [method(1), method(2)]
    for runs in methods:
        for p in runs.values():
            p.group = np.zeros_like(p.group)
    found = compare_all([hits(runs) for runs in methods])
    assert np.isfinite(found.difference).all()
    assert np.isnan([found.low, found.high, found.better, found.equivalent, found.p]).all()
    alone = difference([*methods[0].values()], [*methods[1].values()])
    assert np.isnan(alone.low)
    assert not alone.separable


def test_other_samples_are_not_compared() -> None:
    assert not len(compare_all([hits(method(1)), hits(method(2, size=70))]).pairs)
    assert not len(compare_all([]).pairs)


def test_the_counts_are_kept_small() -> None:
    assert hits(method(1)).counts.dtype == np.uint8


@pytest.mark.parametrize("p", [[0.01, 0.04, 0.03, 0.005], [0.5, 0.5], [0.02], [1, 0.0005, 0.0005, 0.2, 0.03, 0.03]])
def test_holm_is_that_of_statsmodels(p: list[float]) -> None:
    from statsmodels.stats.multitest import multipletests

    np.testing.assert_allclose(holm(np.array(p)), multipletests(p, method="holm")[1])


def test_holm_leaves_out_what_is_no_test() -> None:
    np.testing.assert_array_equal(holm(np.array([np.nan, 0.02, 0.04])), [np.nan, 0.04, 0.04])
    assert not len(holm(np.array([])))


# The best


def test_the_best_is_with_those_that_an_interval_does_not_separate() -> None:
    rng = np.random.default_rng(0)
    shared = rng.normal(0, 5, RESAMPLES)
    draws = [
        50 + shared,
        49 + shared + rng.normal(0, 0.1, RESAMPLES),
        49 + shared + rng.normal(0, 2, RESAMPLES),
        50 + shared,
    ]
    means = [50.0, 49.0, 49.0, 50.0]
    expected = [m == 50 or np.percentile(draws[0] - d, 2.5) <= 0 for m, d in zip(means, draws, strict=True)]
    assert best(means, draws) == expected == [True, False, True, True]
    assert best([np.nan, 49.0], [np.empty(0), draws[1]]) == [False, True]
    assert best([np.nan], [np.empty(0)]) == [False]


# Coverage


def simulated(rng: np.random.Generator, groups: int, truth: float) -> tuple[float, float]:
    """The interval of the difference of two methods, from groups of unequal size that are hard, or easy, for both.

    A group's skill is drawn, and how much better the first method is on it, with the truth as its mean; so are the groups' sizes.
    """
    sizes = 1 + rng.geometric(0.15, groups)
    skill, better = rng.uniform(0.3, 0.6, groups), rng.normal(truth, 0.1, groups)
    group = np.repeat(np.arange(groups), sizes)
    hardness = rng.random(len(group))
    sides = []
    for chance in (skill + better, skill):
        shared = rng.random(len(group)) < 0.7  # most samples are as hard for one as for the other
        right = np.where(shared, hardness, rng.random(len(group))) < chance[group]
        sides.append(
            Hits(["a"], [0], [0], np.bincount(group, right)[None, None], np.arange(groups), sizes, np.ones(1, bool))
        )
    found = compare_all(sides)
    return float(found.low[0, 0]), float(found.high[0, 0])


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    intervals = [simulated(rng, groups=200, truth=0.03) for _ in range(500)]
    assert 0.93 <= np.mean([low <= 3 <= high for low, high in intervals]) <= 0.97


# Accuracy by group


def by_group(p: Predictions, pattern: int) -> dict[int, list[bool]]:
    found: dict[int, list[bool]] = {}
    for i, g in enumerate(p.group.tolist()):
        found.setdefault(g, []).append(bool(p.predicted[pattern][i] == p.label[i]))
    return found


def test_group_accuracy_counts_every_group_once() -> None:
    runs = [predictions(seed) for seed in (0, 1)]
    found = estimate(runs, NAMES)["b", "group_accuracy"]
    rates = [{g: sum(right) / len(right) for g, right in by_group(p, 1).items()} for p in runs]
    points = [100 * sum(r.values()) / len(r) for r in rates]
    groups = sorted(rates[0])
    weights, chosen = resamples(len(groups), 2)
    draws = [
        average(shares, [average(weight, [r[g] for g in groups]) for r in rates])
        for weight, shares in zip(weights.tolist(), chosen.tolist(), strict=True)
    ]
    expected = (np.mean(points), np.std(points, ddof=1), *(100 * np.percentile(draws, [2.5, 97.5])))
    assert found == pytest.approx(expected)
    assert found[0] != pytest.approx(estimate(runs, NAMES)["b", "accuracy"][0], abs=0.1), "groups are of unequal size"


def test_the_worst_group_is_the_worst_of_the_large_ones() -> None:
    runs = [predictions(seed, size=300, groups=12) for seed in (0, 1)]
    found = estimate(runs, NAMES)["a", "worst_group"]
    rates = [{g: right for g, right in by_group(p, 0).items() if len(right) >= LARGE} for p in runs]
    assert 1 < len(rates[0]) < 12
    means = {g: np.mean([np.mean(r[g]) for r in rates]) for g in rates[0]}
    worst = min(means, key=lambda g: means[g])
    points = [100 * np.mean(r[worst]) for r in rates]
    weights, chosen = resamples(len(rates[0][worst]), 2)
    draws = [
        average(shares, [average(weight, r[worst]) for r in rates])
        for weight, shares in zip(weights.tolist(), chosen.tolist(), strict=True)
    ]
    assert found == pytest.approx((np.mean(points), np.std(points, ddof=1), *(100 * np.percentile(draws, [2.5, 97.5]))))


def test_without_a_large_group_there_is_no_worst_one() -> None:
    metrics = {metric for _, metric in estimate([predictions(0, size=60, groups=12)], NAMES)}
    assert metrics == {"accuracy", "macro_f1", "ece", "group_accuracy"}
