"""Lists and paths of raw downloads, and how samples are grouped and split."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmbench.data.preparing.raw import carve, digest, merge, need, read_lines, read_rows, read_text, within
from mmbench.errors import UsageError

# Paths


@pytest.mark.parametrize("path", ["../x", "a/../../x", "a/../b", "/etc/passwd", "a\0b", "link", "link/x"])
def test_paths_out_of_the_folder_are_refused(tmp_path, path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/link").symlink_to(tmp_path)
    with pytest.raises(UsageError, match=r"list\.csv, line 3: "):
        within(tmp_path / "raw", path, "list.csv, line 3")


def test_paths_within_are_joined_whether_or_not_they_exist(tmp_path):
    (tmp_path / "raw/a").mkdir(parents=True)
    (tmp_path / "raw/inner").symlink_to(tmp_path / "raw/a")
    (tmp_path / "way").symlink_to(tmp_path / "raw")
    for path in ("a", "a/b.wav", "./a//b", "inner/x", "..a", "a..b"):
        assert within(tmp_path / "raw", path) == tmp_path / "raw" / path
        assert within(tmp_path / "way", path) == tmp_path / "way" / path


def test_what_is_needed_and_missing_is_named(tmp_path):
    (tmp_path / "a").touch()
    assert need(tmp_path, "a", "a file") == tmp_path / "a"
    with pytest.raises(UsageError, match="b is missing: expected a file"):
        need(tmp_path, "b", "expected a file")


# Lists


def test_lines_lose_marks_and_ends_and_know_their_numbers(tmp_path):
    path = tmp_path / "list"
    path.write_bytes(b"\xef\xbb\xbfone\r\n\r\n  two\xc2\x85x \rthree")
    assert list(read_lines(path)) == [(f"{path}, line {n}", t) for n, t in ((1, "one"), (3, "two\x85x"), (4, "three"))]


def test_text_in_another_encoding_is_named_by_its_line(tmp_path):
    path = tmp_path / "list"
    path.write_bytes("eins\nzwölf\n".encode("latin-1"))
    with pytest.raises(UsageError, match=r"list, line 2: expected text in utf-8 "):
        read_text(path)
    assert read_text(path, "latin-1") == "eins\nzwölf\n"
    with pytest.raises(UsageError, match=r"no: cannot be read \(No such file"):
        read_text(tmp_path / "no")


def test_rows_are_split_and_counted(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text('a, 1\n\n"b, c",2\n')
    assert list(read_rows(path, 2)) == [(f"{path}, line 1", ["a", "1"]), (f"{path}, line 3", ["b, c", "2"])]
    path.write_text("a\t1\nb\t2\t3\n")
    with pytest.raises(UsageError, match=r"line 2: expected 2 columns, got 3: 'b\\t2\\t3'"):
        list(read_rows(path, 2, "\t"))
    path.write_text('a,1\nb,"2\nc,3\nd,4\n')
    with pytest.raises(
        UsageError, match="line 5: unexpected end of data"
    ):  # an open quotation mark must not swallow the rest of the list
        list(read_rows(path, 2))


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
