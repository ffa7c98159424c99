"""How samples are grouped and split."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmbench.data.preparing.raw import carve, digest, merge

# Splits

groups = st.lists(st.tuples(st.integers(0, 12).map(str), st.integers(0, 2)), min_size=1, max_size=60)


@given(groups, st.randoms(use_true_random=False))
def test_carve_takes_whole_groups_whatever_the_order(samples, random):
    def chosen(samples):
        mask = carve([g for g, _ in samples], [y for _, y in samples], 0.3, "salt")
        assert mask.shape == (len(samples),)
        return {g for (g, _), m in zip(samples, mask, strict=True) if m}, {
            g for (g, _), m in zip(samples, mask, strict=True) if not m
        }

    taken, left = chosen(samples)
    assert not taken & left
    shuffled = list(samples)
    random.shuffle(shuffled)
    assert chosen(shuffled) == (taken, left)


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_carve_comes_near_the_share_of_every_stratum(share):
    random = np.random.default_rng(0)
    group = random.integers(0, 200, 4000)
    label = random.choice(4, 4000, p=[0.5, 0.3, 0.15, 0.05])
    mask = carve([f"g{g}" for g in group], label, share, "a")
    assert abs(mask.mean() - share) < 0.02
    for y in range(4):  # a rare class may be off by a group or two
        assert abs(mask[label == y].sum() - share * (label == y).sum()) < 3 * np.sqrt(share * (label == y).sum())
    assert (mask != carve([f"g{g}" for g in group], label, share, "b")).any()


def test_carve_is_the_same_everywhere():
    assert digest("mmbench") == 0x26EC0B897CF3F983
    assert np.flatnonzero(carve([str(i) for i in range(20)], [0] * 20, 0.2, "x")).tolist() == [1, 2, 4, 17]


def test_carve_of_nothing_and_of_no_share():
    assert carve([], [], 0.5, "x").tolist() == []
    assert not carve(["a", "b"], [0, 1], 0.0, "x").any()
    assert carve(["a", "b"], [0, 1], 1.0, "x").all()


keys = st.integers(1, 12).flatmap(
    lambda n: st.lists(
        st.lists(st.sampled_from(["", "a", "b", "c", "d"]), min_size=n, max_size=n), min_size=1, max_size=3
    )
)


@given(keys)
def test_merge_is_the_transitive_closure(columns):
    n = len(columns[0])
    linked = np.eye(n, dtype=bool)
    for column in columns:
        linked |= np.array([[a == b != "" for b in column] for a in column])
    for _ in range(n):
        linked = linked @ linked
    got = merge(*columns)
    assert [[a == b for b in got] for a in got] == linked.tolist()
    assert got == [str(np.flatnonzero(row)[0]) for row in linked], "a group is called by the number of its first sample"
