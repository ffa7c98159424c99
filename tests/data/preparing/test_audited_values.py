"""What arrays hold, read block by block: against the whole array at once."""

import numpy as np
import pytest
import torch

from mmbench.data.preparing.auditing import material as material_module
from mmbench.data.preparing.auditing.duplicates import conflicts, crossing, near_partners, partners, within
from mmbench.data.preparing.auditing.keys import keys_of, whole
from mmbench.data.preparing.auditing.material import Material, blocks
from mmbench.data.preparing.auditing.values import look, told
from mmbench.data.split import Mapped


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(material_module, "BLOCK", 600)


def of(values, present=None, **others):
    """The material of one modality, x."""
    count = sum(map(len, values))
    there = np.ones(count, bool) if present is None else present
    ids = np.array([f"s{i}" for i in range(count)], object)
    return Material(("a", "b"), ids, np.arange(count) % 2, ids, {"x": there}, {"x": values}, {}, {}, **others)


def notes(material, train=None):
    train = np.ones(len(material.ids), bool) if train is None else train
    return told(material, {"x": look(material, "x", train)})


@pytest.fixture
def vectors():
    return np.random.default_rng(0).normal(1000, 2, (50, 9)).astype(np.float32)


def test_blocks_are_all_rows_in_order_and_small(vectors):
    parts = [torch.from_numpy(vectors[:20]), Mapped(vectors, np.arange(20, 50))]
    read = list(blocks(parts))
    assert max(block.nbytes for _, block in read) <= 600
    assert np.concatenate([rows for rows, _ in read]).tolist() == list(range(50))
    assert torch.equal(torch.cat([block for _, block in read]), torch.from_numpy(vectors))


def test_columns_are_those_of_the_present_training_rows(vectors):
    present, train = np.arange(50) % 3 > 0, np.arange(50) < 40
    vectors[~present] = np.nan
    columns = look(of([Mapped(vectors, np.arange(50))], present), "x", train).columns
    used = vectors[present & train].astype(np.float64)
    np.testing.assert_allclose(columns.deviation, used.std(axis=0), rtol=1e-6)
    np.testing.assert_array_equal(columns.least, used.min(axis=0))
    np.testing.assert_array_equal(columns.most, used.max(axis=0))
    assert columns.count == len(used)


def test_constant_columns_are_those_of_the_training_samples(vectors):
    vectors[:40, [2, 7]] = 0.1
    train = np.arange(50) < 40
    expected = "x: 2 of 9 columns are constant over the training samples: column 2, column 7"
    assert notes(of([torch.from_numpy(vectors)]), train) == ([expected], [])
    assert notes(of([torch.from_numpy(vectors)])) == ([], [])


def test_numbers_that_are_none_are_named_and_do_not_hide_the_rest(vectors):
    vectors[:, 3] = 5
    vectors[4, 0], vectors[30, 8], vectors[31, 3] = np.nan, np.inf, -np.inf
    found, broken = notes(of([torch.from_numpy(vectors)]))
    assert broken == ["x holds NaN or an infinite value in 3 samples: s4, s30, s31; mend them, or leave it out there"]
    assert found == ["x: 1 of 9 columns are constant over the training samples: column 3"]


def test_half_precision_is_no_overflow():
    bank = np.full((5, 100, 100), 60_000, np.float16)
    assert notes(of([Mapped(bank, np.arange(5))])) == ([], [])
    bank[2, 50, 50] = np.nan
    assert "in 1 sample: s2;" in notes(of([Mapped(bank, np.arange(5))]))[1][0]


def test_vectors_of_one_number_are_told(vectors):
    vectors[[3, 8]] = 0
    line = "x is {} throughout in {} samples: {}; if that means absent, leave it out there"
    assert notes(of([torch.from_numpy(vectors)]))[0] == [line.format("0", 2, "s3, s8")]
    vectors[[5, 9]] = -1
    assert notes(of([torch.from_numpy(vectors)]))[0] == [line.format("one number", 4, "s3, s5, s8 and 1 more")]
    present = np.ones(50, bool)
    assert notes(of([torch.from_numpy(vectors[:, :7].copy())])) == ([], [])  # 0, 0 may be a place
    present[[3, 5, 8, 9]] = False
    assert notes(of([torch.from_numpy(vectors)], present)) == ([], [])


def test_scales_that_are_far_apart_are_told_unless_they_are_standardised(vectors):
    vectors[:, 4] *= 4000
    [line] = notes(of([torch.from_numpy(vectors)]))[0]
    assert "from a standard deviation of " in line
    assert " (column 4); standardise them" in line
    assert notes(of([torch.from_numpy(vectors)], standardised=frozenset(["x"]))) == ([], [])
    [line] = notes(of([torch.from_numpy(vectors)], columns={"x": list("abcdefghi")}))[0]
    assert " (e); standardise them" in line


def test_pictures_of_one_colour_are_told():
    pictures = np.random.default_rng(0).integers(0, 256, (6, 20, 20, 3), np.uint8)
    pictures[[1, 4]] = 9
    assert notes(of([Mapped(pictures, np.arange(6))])) == (
        ["x shows one colour, or nearly so, in 2 samples: s1, s4"],
        [],
    )


# What is the same


def test_partners_are_the_first_equal_ones():
    keys = np.array(["a", "b", "", "a", "c", "b", "", "a"], object)
    rows, same = partners(keys, np.array([0, 1, 2, 3]), np.array([4, 5, 6, 7]))
    assert (rows.tolist(), same.tolist()) == ([5, 7], [1, 0])
    assert [x.tolist() for x in partners(keys, np.array([4]), np.array([5]))] == [[], []]


def test_pairs_against_all_comparisons():
    rng = np.random.default_rng(0)
    keys = rng.integers(0, 40, 90).astype(str).astype(object)
    keys[keys == "3"] = ""
    label, split = rng.integers(0, 3, 90), np.array(["train", "test", ""], object)[rng.integers(0, 3, 90)]
    same = [[j for j in range(90) if keys[i] and keys[i] == keys[j]] for i in range(90)]
    other = [(i, next(j for j in s if label[j] != label[i])) for i, s in enumerate(same) if any(label[s] != label[i])]
    assert set(conflicts(keys, label)[0].tolist()) == {i for i, _ in other}
    for i, j in np.stack(conflicts(keys, label), axis=1).tolist():
        assert keys[i] == keys[j] != ""
        assert label[i] != label[j]
    twins = [
        (i, f)
        for i, s in enumerate(same)
        for f in [next((j for j in s if split[j] == split[i]), i)]
        if f < i and split[i]
    ]
    assert np.stack(within(keys, split), axis=1).tolist() == [list(pair) for pair in twins]
    pairs = np.array([(i, j) for i in range(90) for j in same[i] if i < j])
    train, test = (np.flatnonzero(split == name) for name in ("train", "test"))
    rows, near = near_partners(pairs, train, test)
    expected, first = partners(keys, train, test)
    assert (rows.tolist(), near.tolist()) == (expected.tolist(), first.tolist())


def test_what_is_on_two_sides_is_counted_for_every_two_splits():
    split = np.array(["train", "test", "test", "validation", "", "train"], object)
    keys = np.array(["a", "a", "b", "b", "b", ""], object)

    def find(one, other):
        return partners(keys, one, other)

    line, (rows, same) = crossing(split, find, "share their image", "with")
    assert line == "1 of 2 test samples share their image with train, 1 of 2 test samples with validation"
    assert (rows.tolist(), same.tolist()) == ([1, 2], [0, 3])
    line, (rows, same) = crossing(np.array(["train"] * 6, object), find, "share their image", "with")
    assert (line, rows.tolist(), same.tolist()) == ("", [], [])


def test_whole_samples_need_two_parts_and_one_that_tells():
    image, title = np.array(["i", "i", "", "j"], object), np.array(["t", "", "t", "t"], object)
    assert whole([image], [title]).tolist() == [("i", "t"), "", "", ("j", "t")]
    assert whole([image, title], []).tolist() == [("i", "t"), "", "", ("j", "t")]


def keys(material):
    return keys_of(object, material, {m: look(material, m, np.ones(50, bool)) for m in material.values})


def test_even_vectors_are_not_compared(vectors):
    vectors[1], vectors[7:9] = vectors[0], 4
    [key, everything] = keys(of([torch.from_numpy(vectors)]))
    assert key.values[0] == key.values[1] != key.values[2]
    assert key.values[7] == key.values[8] == ""
    assert not key.promised
    assert everything.values.tolist() == [""] * 50  # of one modality, all is no more than that one


def test_short_vectors_are_compared_where_equal_ones_are_no_chance(vectors):
    vectors[1] = vectors[0]
    short = torch.from_numpy(vectors[:, :7].copy())
    assert [key.name for key in keys(of([short]))] == ["x", "whole content"]
    assert keys(of([short[:, :2]])) == []
    assert keys(of([short.div(4).round()[:, :3]])) == []  # whole numbers, of which many are equal


def test_copies_are_told_as_such_and_not_for_each_vector(vectors):
    vectors[1] = vectors[0]
    one, other = torch.from_numpy(vectors), torch.from_numpy(vectors + 1)
    other[1] = other[0]
    one[2] = one[3]
    ids, there = np.arange(50).astype(object), np.ones(50, bool)
    material = Material("ab", ids, ids % 2, ids, {"x": there, "y": there}, {"x": [one], "y": [other]}, {}, {})
    x, y, everything = keys(material)
    assert [rows.tolist() for rows in conflicts(x.values, np.arange(50))] == [[2, 3], [3, 2]]
    assert len(conflicts(y.values, np.arange(50))[0]) == 0
    assert [rows.tolist() for rows in conflicts(everything.values, np.arange(50))] == [[0, 1], [1, 0]]


def test_numbers_of_ones_own_class_are_no_files_and_blank_pictures_no_duplicates():
    ages, series = torch.arange(50)[:, None] // 5, torch.randn(50, 4, 6, generator=torch.Generator().manual_seed(0))
    assert keys(of([ages])) == []
    assert [(key.name, key.promised) for key in keys(of([series]))] == [("x", False), ("whole content", True)]
    pictures = torch.randint(0, 256, (50, 3, 9, 9), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    pictures[[3, 7]], pictures[20] = 255, pictures[10]
    [key] = keys(of([pictures]))
    assert (key.kind, key.promised) == ("picture of x", True)
    assert [rows.tolist() for rows in conflicts(key.values, np.arange(50))] == [[10, 20], [20, 10]]
