from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mmbench.errors import UsageError
from mmbench.missing import (
    Missing,
    mask_generator,
    pattern_matrix,
    pattern_name,
    pattern_numbers,
    patterns,
    realised,
)

THREE = ("audio", "image", "text")

names = st.lists(st.text("abcdefgh", min_size=1, max_size=4), min_size=1, max_size=6, unique=True)


@given(names)
def test_every_non_empty_subset_occurs_once(modalities):
    found = patterns(modalities)
    assert len(found) == 2 ** len(modalities) - 1
    assert len({frozenset(p) for p in found}) == len(found)
    assert all(p and set(p) <= set(modalities) for p in found)
    assert len({pattern_name(p) for p in found}) == len(found)


@given(names)
def test_single_modalities_first_complete_pattern_last(modalities):
    found = patterns(modalities)
    assert found[: len(modalities)] == [(m,) for m in modalities]
    assert found[-1] == tuple(modalities)
    assert [len(p) for p in found] == sorted(len(p) for p in found)
    assert all(list(p) == [m for m in modalities if m in p] for p in found)  # within a pattern: the data set's order


@given(names)
def test_the_matrix_is_the_patterns(modalities):
    rows = [tuple(m for m, shown in zip(modalities, row, strict=True) if shown) for row in pattern_matrix(modalities)]
    assert rows == patterns(modalities)


@given(st.integers(1, 5), st.integers(0, 10**6))
def test_a_masks_number_is_its_place_among_the_patterns(count, seed):
    modalities = [f"m{i}" for i in range(count)]
    mask = np.random.default_rng(seed).random((4, 6, count)) < 0.5
    names = [pattern_name(p) for p in patterns(modalities)]
    for index in np.ndindex(4, 6):
        number = pattern_numbers(mask)[index]
        shown = tuple(m for m, kept in zip(modalities, mask[index], strict=True) if kept)
        assert number == (names.index(pattern_name(shown)) if shown else -1)


@pytest.mark.parametrize("count", [10, 15, 16])
def test_numbers_of_patterns_of_many_modalities(count):
    """15 is where 16 bits with a sign end."""
    mask = np.ones((3, count), bool)
    mask[1, 1:] = False
    mask[2] = False
    assert pattern_numbers(mask).tolist() == [2**count - 2, 0, -1]


def test_more_modalities_than_patterns_can_be_kept_of_are_refused():
    with pytest.raises(UsageError, match="expected at most 16 modalities, got 17"):
        pattern_numbers(np.ones((1, 17), bool))


# Masks

# Shares of samples with 1, 2 and 3 views of three, at missing rates 0.1 … 0.7, by the closed form.
VIEWS = {
    0.1: (0.02, 0.26, 0.72), 0.2: (0.09, 0.42, 0.49), 0.3: (0.20, 0.50, 0.30), 0.4: (0.36, 0.48, 0.16),
    0.5: (0.56, 0.38, 0.06), 0.6: (0.81, 0.18, 0.01), 0.7: (1.00, 0.00, 0.00),
}  # fmt: skip


@pytest.mark.parametrize("rate", VIEWS)
def test_anchor_masks_of_three_modalities_show_one_two_or_three_of_them(rate):
    mask = Missing(rate=rate).draw(THREE, 200_000, np.random.default_rng(0))
    views = np.bincount(mask.sum(axis=1), minlength=4) / len(mask)
    assert views[0] == 0
    assert views[1:] == pytest.approx(VIEWS[rate], abs=0.0075)  # the table has two digits
    assert mask.mean(axis=0) == pytest.approx(mask.mean(), abs=0.005), "no modality is favoured"
    assert 1 - mask.mean() == pytest.approx(min(rate, 2 / 3), abs=0.005)


@given(st.integers(2, 5), st.floats(0, 0.99), st.integers(0, 10**6))
def test_anchor_masks_realise_their_rate_and_leave_no_sample_empty(count, share, seed):
    rate = share * (count - 1) / count
    mask = Missing(rate=rate).draw([f"m{i}" for i in range(count)], 4000, np.random.default_rng(seed))
    assert mask.any(axis=1).all()
    assert 1 - mask.mean() == pytest.approx(rate, abs=0.04)


def test_bernoulli_masks_take_every_cell_alike():
    mask = Missing(kind="bernoulli", rate=0.7).draw(THREE, 100_000, np.random.default_rng(0))
    assert 1 - mask.mean(axis=0) == pytest.approx(0.7, abs=0.006)
    assert (~mask.any(axis=1)).mean() == pytest.approx(0.7**3, abs=0.006)
    assert np.corrcoef(mask.T)[np.triu_indices(3, 1)] == pytest.approx(0, abs=0.01)


def test_per_modality_masks_have_a_rate_each():
    missing = Missing(kind="per_modality", rates={"text": 0.9, "image": 0.25})
    mask = missing.draw(THREE, 100_000, np.random.default_rng(0))
    assert 1 - mask.mean(axis=0) == pytest.approx([0, 0.25, 0.9], abs=0.005)


def test_a_mask_is_a_function_of_data_set_split_and_seed():
    missing = Missing(rate=0.4)
    mask = missing.mask("food", "train", THREE, 50)
    assert np.array_equal(mask, missing.mask("food", "train", THREE, 50))
    others = [
        missing.mask("food", "test", THREE, 50),
        missing.mask("mvsa", "train", THREE, 50),
        Missing(rate=0.4, seed=1).mask("food", "train", THREE, 50),
    ]
    assert not any(np.array_equal(mask, other) for other in others)
    np.random.seed(5)  # the global generator has no part in it
    assert np.array_equal(mask, missing.mask("food", "train", THREE, 50))


def test_masks_do_not_change_with_the_machine_or_the_release():
    """Numbers of other runs were made under these masks."""
    assert mask_generator("food", "test", 0).integers(0, 1000, 5).tolist() == [613, 828, 510, 661, 71]


@pytest.mark.parametrize("kind", ["anchor", "bernoulli"])
def test_what_is_missing_at_one_rate_is_missing_at_higher_ones(kind):
    masks = [Missing(kind=kind, rate=r / 10).mask("food", "test", THREE, 300) for r in range(7)]
    assert masks[0].all()
    assert all((high <= low).all() for low, high in pairwise(masks))


def test_natural_gaps_combine_with_the_mask():
    mask = np.array([[True, False], [True, True], [False, True], [True, False]])
    present = np.array([[True, True], [True, False], [True, False], [True, True]])
    shares = realised(mask, present)
    assert shares == {"masked": 3 / 8, "missing": 5 / 8, "empty": 1 / 4}


@pytest.mark.parametrize("rate", [0.56, 0.7, 1.0])
def test_a_rate_that_two_anchored_modalities_cannot_realise_is_refused(rate):
    with pytest.raises(UsageError, match=r"at most 0\.500 .* got the rate .*bernoulli"):
        Missing(rate=rate).check(["audio", "video"])
    Missing(rate=rate, kind="bernoulli").check(["audio", "video"])


def test_the_papers_rate_of_three_modalities_is_realised_as_two_thirds():
    mask = Missing(rate=0.7).mask("food", "test", THREE, 100)
    assert (mask.sum(axis=1) == 1).all()
    with pytest.raises(UsageError, match=r"at most 0\.667"):
        Missing(rate=0.75).mask("food", "test", THREE, 100)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rate": 1.2}, "less than or equal to 1"),
        ({"rate": -0.1}, "greater than or equal to 0"),
        ({}, "kind anchor takes a rate"),
        ({"kind": "bernoulli", "rate": 0.1, "rates": {"audio": 0.1}}, "and no rates"),
        ({"kind": "per_modality", "rate": 0.5}, "takes rates"),
        ({"kind": "per_modality", "rates": {}}, "takes rates"),
        ({"kind": "per_modality", "rates": {"audio": 1.5}}, "between 0 and 1"),
        ({"rate": 0.5, "redraw": True}, "train_only"),
        ({"rate": 0.5, "colour": 1}, "extra"),
        ({"kind": "sometimes", "rate": 0.5}, "anchor"),
    ],
)
def test_settings_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(ValidationError, match=message):
        Missing(**arguments)


def test_a_rate_of_an_unknown_modality_names_the_nearest():
    with pytest.raises(UsageError, match="unknown modality 'adio'; did you mean 'audio'"):
        Missing(kind="per_modality", rates={"adio": 0.5}).check(THREE)


def test_equal_settings_are_one_whatever_the_order_of_their_rates():
    one, other = (Missing(kind="per_modality", rates=r) for r in ({"a": 0.5, "b": 0.1}, {"b": 0.1, "a": 0.5}))
    assert one == other
    assert len({one, other}) == 1


@pytest.mark.parametrize("modalities", [[], ["audio"]])
@pytest.mark.parametrize("kind", ["anchor", "bernoulli"])
def test_a_single_modality_cannot_be_missing(modalities, kind):
    with pytest.raises(UsageError, match="at least two"):
        Missing(kind=kind, rate=0.0).check(modalities)
