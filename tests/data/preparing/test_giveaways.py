"""What gives the class away: the permutation test against shuffled labels, the rule at its edges, texts that name the class."""

import numpy as np
import pytest
from scipy.stats import chi2_contingency

from mmbench.data.preparing.auditing.giveaways import absence, accuracy, gaps, permutation_p, spoken

CLASSES = ("hats", "shoes", "gloves")


def table(*cells):
    """Labels and presence of classes of which (absent, present) samples are given."""
    label = np.repeat(np.arange(len(cells)), [sum(cell) for cell in cells])
    return label, np.concatenate([np.repeat([False, True], cell) for cell in cells])


def counted(label, present, number):
    return np.bincount(label[~present], minlength=number), np.bincount(label, minlength=number)


@pytest.mark.parametrize("cells", [((5, 10), (9, 6), (4, 11)), ((1, 40), (6, 20)), ((3, 3), (3, 4), (0, 9))])
def test_p_is_that_of_shuffled_labels(cells):
    label, present = table(*cells)
    rng = np.random.default_rng(1)

    def statistic(labels):
        counts = [[int(((labels == c) & (present == p)).sum()) for p in (False, True)] for c in range(len(cells))]
        return chi2_contingency(counts, correction=False).statistic

    real = statistic(label)
    reached = np.mean([statistic(rng.permutation(label)) >= real - 1e-9 for _ in range(1500)])
    assert permutation_p(*counted(label, present, len(cells))) == pytest.approx(reached, abs=0.04)


def test_p_of_chance_is_uniform():
    rng = np.random.default_rng(0)
    ps = [permutation_p(*counted(rng.integers(0, 3, 90), rng.random(90) > 0.3, 3)) for _ in range(150)]
    assert 0.02 <= np.mean(np.array(ps) < 0.1) <= 0.2


def test_accuracy_and_gaps_are_what_they_say():
    label, present = table((5, 10), (9, 6), (4, 30), (0, 0))
    absent, sizes = counted(label, present, 4)
    right = sum(int(np.bincount(label[present == there]).max()) for there in (False, True))
    assert accuracy(absent, sizes) == right / len(label)
    for c, gap in enumerate(gaps(absent, sizes)[:3]):
        assert gap == pytest.approx((~present[label == c]).mean() - (~present[label != c]).mean())
    assert gaps(absent, sizes)[3] == 0


def test_absence_that_tells_the_class_is_told_with_numbers():
    label, present = table((95, 5), (3, 97), (2, 98))
    assert absence({"title": present, "image": np.ones(300, bool)}, label, CLASSES) == [
        "title gives the class away by being absent: from that alone 64% are right, 33% by the most frequent class "
        "(p < 0.001, samples taken as independent); "
        "absent in 95 of 100 hats, 2 of 100 gloves, 3 of 100 shoes"
    ]


def test_presence_tells_as_much_as_absence():
    label, present = table((5, 95), (97, 3), (98, 2))
    [line] = absence({"title": present}, label, CLASSES)
    assert "absent in 5 of 100 hats" in line


def test_of_very_many_classes_fewer_draws_are_enough():
    label, present = table(*[(5, 0)] * 300, *[(0, 5)] * 300)
    assert permutation_p(*counted(label, present, 600)) == 1 / 3000
    assert len(absence({"title": present}, label, [f"c{i}" for i in range(600)])) == 1


def test_one_class_of_many_is_told_although_accuracy_hardly_rises():
    label, present = table((20, 0), *[(0, 20)] * 99)
    [line] = absence({"title": present}, label, [f"c{i}" for i in range(100)])
    assert "2% are right, 1% by the most frequent" in line
    assert "absent in 20 of 20 c0" in line


@pytest.mark.parametrize(
    "cells",
    [
        ((2200, 7800), (1900, 8100)),  # beyond chance, and little
        ((2, 1), (0, 3)),  # much, and chance
        ((50, 50), (50, 50)),
        ((0, 10), (0, 10)),
        ((10, 0), (10, 0)),
    ],
)
def test_what_is_little_or_chance_is_not_told(cells):
    label, present = table(*cells)
    assert absence({"title": present}, label, CLASSES[: len(cells)]) == []


def test_more_modalities_need_a_smaller_p():
    label, present = table((6, 4), (0, 10))
    p = permutation_p(*counted(label, present, 2))
    assert 0.005 < p < 0.02
    one = {"title": present}
    rng = np.random.default_rng(0)
    even = {f"m{i}": rng.permutation(present) for i in range(9)}
    assert len(absence({**one, **even}, label, CLASSES[:2])) == 0
    label, present = table((9, 1), (0, 10))
    assert len(absence({"title": present}, label, CLASSES[:2])) == 1


def test_texts_that_name_their_class_are_counted():
    classes = ("polar_bear", "cat")
    texts = ["A Polar-Bear!", "polarbear", "the CAT.", "category", "polar bear", ""]
    label = np.array([0, 0, 1, 1, 1, 1])
    assert spoken({"title": texts}, label, classes) == ["title names the class of its sample in 2 of 5 texts (40%)"]
    assert spoken({"title": ["dog"] * 199 + ["cat"]}, np.ones(200, int), classes) == []
    assert spoken({"title": [""] * 3}, np.ones(3, int), classes) == []
