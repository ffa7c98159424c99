"""Lists, texts and paths of raw downloads."""

import pytest

from mmbench.data.preparing.lists import find_files, links_into, need, read_lines, read_rows, read_text, within
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


def test_links_may_lead_where_they_are_allowed_to(tmp_path):
    for name in ("raw", "other/deep", "third"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "raw/link").symlink_to(tmp_path / "other/deep")
    (tmp_path / "raw/third").symlink_to(tmp_path / "third")
    with pytest.raises(UsageError, match=r"is a link to .*--also-from"):
        within(tmp_path / "raw", "link/x")
    with links_into([tmp_path / "other"]):
        assert within(tmp_path / "raw", "link/x") == tmp_path / "raw/link/x"
        for path in ("third/x", "../other/x", str(tmp_path / "other/x")):
            with pytest.raises(UsageError):
                within(tmp_path / "raw", path)
    with pytest.raises(UsageError, match="is a link to"):
        within(tmp_path / "raw", "link/x")
    with pytest.raises(UsageError, match=r"--also-from .*no: no such folder"), links_into([tmp_path / "no"]):
        pass


def test_files_are_found_whatever_their_endings_case_and_without_what_systems_leave(tmp_path):
    kept = ["a.jpg", "b.JPG", "deep/c.jpg", "deep/link/d.Jpg"]
    left = [
        "._a.jpg",
        ".hidden/x.jpg",
        "__MACOSX/x.jpg",
        "__MACOSX/._x.jpg",
        "deep/@eaDir/x.jpg",
        "x.jpeg",
        "x.jpg.part",
    ]
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "raw/deep").mkdir(parents=True)
    (tmp_path / "raw/deep/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/round").symlink_to(tmp_path / "elsewhere")
    for name in kept + left:
        (tmp_path / "raw" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "raw" / name).touch()
    assert [str(path.relative_to(tmp_path / "raw")) for path in find_files(tmp_path / "raw", ".jpg", deep=True)] == kept
    assert [path.name for path in find_files(tmp_path / "raw", ".jpg")] == kept[:2]
    assert find_files(tmp_path / "no", ".jpg") == []


def test_what_is_needed_and_missing_is_named(tmp_path):
    (tmp_path / "a").touch()
    assert need(tmp_path, "a", "a file") == tmp_path / "a"
    with pytest.raises(UsageError, match="b is missing: expected a file"):
        need(tmp_path, "b", "expected a file")


# Lists


def test_lines_lose_marks_and_ends_and_know_their_numbers(tmp_path):
    path = tmp_path / "list"
    path.write_bytes(b"\xef\xbb\xbfone\r\n\r\n  two\xc2\x85x \rthree")
    assert list(read_lines(path, [])) == [
        (f"{path}, line {n}", t) for n, t in ((1, "one"), (3, "two\x85x"), (4, "three"))
    ]


def test_bytes_that_are_not_text_are_counted(tmp_path):
    path, notes = tmp_path / "list", []
    path.write_bytes("eins\r\nzwölf\r\ndrei\r\n§\r\n".encode("latin-1"))
    assert read_text(path, notes) == "eins\nzw\ufffdlf\ndrei\n\ufffd\n"
    assert notes == [f"{path}: 2 lines with bytes that are not UTF-8, read as \ufffd; the first is line 2"]
    path.write_text("ein\ufffds\nzwölf\n", encoding="utf-8")
    read_text(path, notes)
    assert len(notes) == 1
    with pytest.raises(UsageError, match=r"no: cannot be read \(No such file"):
        read_text(tmp_path / "no", notes)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_marks_of_the_encoding_are_understood(tmp_path, encoding):
    mark = "\ufeff" if encoding in ("utf-16-le", "utf-16-be") else ""
    (tmp_path / "list").write_bytes(f"{mark}zwölf\r\ndrei\r\n".encode(encoding))
    assert read_text(tmp_path / "list", notes := []) == "zwölf\ndrei\n"
    assert not notes


def test_rows_are_split_and_counted(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text('a, 1\n\n"b, c",2\n')
    assert list(read_rows(path, 2, [])) == [(f"{path}, line 1", ["a", "1"]), (f"{path}, line 3", ["b, c", "2"])]
    path.write_text("a\t1\nb\t2\t3\n")
    with pytest.raises(UsageError, match=r"line 2: expected 2 columns, got 3: 'b\\t2\\t3'"):
        list(read_rows(path, 2, [], "\t"))
    for text in ('a,1\nb,"2\nc,3\nd,4\n', 'a,1\nb,"2\nc,3"\n'):
        path.write_text(text)
        with pytest.raises(UsageError, match="line 2: unexpected end of data"):  # it must not swallow the next row
            list(read_rows(path, 2, []))
