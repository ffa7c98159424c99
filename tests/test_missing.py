from hypothesis import given
from hypothesis import strategies as st

from mmbench.missing import pattern_matrix, pattern_name, patterns

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
