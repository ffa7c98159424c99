"""Paired differences, and the folds of a seed as one prediction of the whole set."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import bootstrap

from mmbench.evidence.accuracy import describe_test, estimate, join
from mmbench.evidence.comparisons import difference
from mmbench.evidence.rates import hits_of, masks_of_test
from mmbench.evidence.resampling import resamples
from mmbench.missing import Missing
from mmbench.record import Predictions

NAMES = ["a", "b", "a+b"]


def predictions(seed: int, size: int = 60, groups: int = 12, skill: float = 0.6, classes: int = 4) -> Predictions:
    """Made-up predictions; label and group are of the size alone, so that all of one size are of the same samples."""
    shared, own = np.random.default_rng(size), np.random.default_rng([seed, size])
    label = shared.integers(0, classes, size)
    right = own.random((3, size)) < skill
    predicted = np.where(right, label, (label + 1) % classes)
    return Predictions(
        modalities=np.array(["a", "b"]),
        label=label,
        group=shared.integers(0, groups, size),
        present=np.ones((size, 2), bool),
        predicted=predicted.astype(np.int16),
        log_probs=np.log(np.eye(classes)[predicted] * 0.9 + 0.025).astype(np.float16),
        log_prior=np.log(np.full(classes, 1 / classes) + 0.1 * np.eye(classes)[seed % classes]).astype(np.float32),
        attack=np.empty(0, np.int16),
    )


def part(p: Predictions, rows: np.ndarray, prior: np.ndarray) -> Predictions:
    return Predictions(
        p.modalities, p.label[rows], p.group[rows], p.present[rows], p.predicted[:, rows], p.log_probs[:, rows], prior, p.attack
    )  # fmt: skip


def folds(p: Predictions, count: int = 3) -> list[Predictions]:
    """The samples dealt out, so that groups lie in several folds; each fold has a prior of its own."""
    rows = [np.arange(k, len(p.label), count) for k in range(count)]
    return [part(p, r, np.roll(p.log_prior, k)) for k, r in enumerate(rows)]


# Folds


def test_joined_folds_are_the_whole_set_whatever_its_order() -> None:
    whole = predictions(0)
    joined = join(folds(whole))
    assert sorted(joined.label) == sorted(whole.label)
    assert describe_test(joined) == describe_test(whole)
    expected, found = (estimate([p], NAMES) for p in (whole, joined))
    assert found.keys() == expected.keys()
    np.testing.assert_allclose(list(found.values()), list(expected.values()))


def test_a_single_fold_is_as_it_is() -> None:
    whole = predictions(0)
    assert join([whole]) is whole


def test_a_sample_that_shows_nothing_is_answered_by_its_own_folds_prior() -> None:
    parts = folds(predictions(1))
    expected = np.concatenate([p.label == p.log_prior.argmax() for p in parts])
    assert expected.any()
    assert len({int(p.log_prior.argmax()) for p in parts}) == 3
    np.testing.assert_array_equal(hits_of(join(parts))[-1], expected)


def test_each_fold_has_its_own_mask() -> None:
    masks = masks_of_test("d", ["a", "b"], {"test/0": 500, "test/1": 500}, Missing(rate=0.3), draws=2)
    assert masks.shape == (2, 1000, 2)
    np.testing.assert_array_equal(masks[0, 500:], Missing(rate=0.3).mask("d", "test/1", ["a", "b"], 500))
    assert (masks[0, :500] != masks[0, 500:]).any()


# Differences


def test_a_paired_difference_is_that_of_a_naive_resampling() -> None:
    one, other = [predictions(s, skill=0.7) for s in (0, 1)], [predictions(s, skill=0.5) for s in (2, 3)]
    found = difference(one, other, pattern=1)
    group = one[0].group
    groups = np.unique(group)
    weights, chosen = resamples(len(groups), 2)
    draws = []
    for weight, share in zip(weights, chosen, strict=True):
        often = weight[np.searchsorted(groups, group)]
        gaps = [
            np.average((a.predicted[1] == a.label) * 1.0, weights=often)
            - np.average((b.predicted[1] == b.label) * 1.0, weights=often)
            for a, b in zip(one, other, strict=True)
        ]
        draws.append(100 * np.dot(share, gaps))
    accuracy = [100 * np.mean([(p.predicted[1] == p.label).mean() for p in side]) for side in (one, other)]
    assert found.mean == pytest.approx(accuracy[0] - accuracy[1])
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(draws, [2.5, 97.5])))


def test_with_one_sample_a_group_it_agrees_with_scipy() -> None:
    one, other = predictions(0, size=400, groups=1, skill=0.7), predictions(1, size=400, groups=1, skill=0.6)
    one.group = other.group = np.arange(400)
    hits = [(p.predicted[-1] == p.label) * 100.0 for p in (one, other)]
    theirs = bootstrap(
        hits, lambda a, b, axis: np.mean(a - b, axis=axis), paired=True, method="percentile", n_resamples=4000, rng=0
    ).confidence_interval
    found = difference([one], [other])
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=0.6)


def test_pairing_makes_it_narrower_where_both_err_on_the_same_groups() -> None:
    easy = np.arange(60) % 12 < 6
    one, other = predictions(0), predictions(1)
    for p in (one, other):
        p.group = np.arange(60) % 12
        p.predicted = np.where(easy, p.label, (p.label + 1) % 4)[None].repeat(3, 0).astype(np.int16)
    other.predicted[:, 0] = (other.label[0] + 1) % 4
    paired, apart = difference([one], [other]), difference([one], [other], paired=False)
    assert paired.high - paired.low < 10 < apart.high - apart.low
    assert paired.mean == apart.mean == pytest.approx(100 / 60)


def test_the_order_of_samples_does_not_matter() -> None:
    one, other = predictions(0), predictions(1)
    order = np.random.default_rng(0).permutation(60)
    assert difference([one], [part(other, order, other.log_prior)]) == difference([one], [other])


@pytest.mark.parametrize(("one", "other"), [([0, 1], [2]), ([0], ["larger"])])
def test_what_cannot_be_paired_is_refused(one: list, other: list) -> None:
    sides = [[predictions(0, size=70) if s == "larger" else predictions(s) for s in side] for side in (one, other)]
    with pytest.raises(ValueError, match="same samples"):
        difference(*sides)


def test_separable_is_an_interval_without_zero() -> None:
    better, worse = [predictions(0, 600, 60, 0.9)], [predictions(1, 600, 60, 0.5)]
    assert difference(better, worse).separable
    assert not difference(better, better).separable
