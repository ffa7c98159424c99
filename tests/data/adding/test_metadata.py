"""Tables as people have them, and what of them is refused, with the row and the column."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from mmbench.data.adding.metadata import find_tables, read_metadata
from mmbench.errors import UsageError


def write(folder, text, name="metadata.csv", encoding="utf-8"):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(text.encode(encoding))
    return read_metadata(folder, [name])


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_separators_encodings_and_line_ends(tmp_path, delimiter, encoding, end):
    rows = [[" Título ", "label "], ["a; b, c\t|", "x"], ["", "y "]]
    text = end.join(delimiter.join(f'"{cell}"' for cell in row) for row in rows) + end * 3
    read = write(tmp_path, text, encoding=encoding)
    assert read.columns == ["Título", "label"]
    assert read.texts("Título") == ["a; b, c\t|", ""]
    assert read.texts("label") == ["x", "y"]
    assert read.where(1, "label") == f"{tmp_path}/metadata.csv, row 3, column 'label'"


def test_a_cell_may_have_line_ends_and_quotation_marks(tmp_path):
    read = write(tmp_path, 'text,label\n"two\nlines, ""quoted""",a\nplain,b\n')
    assert read.texts("text") == ['two\nlines, "quoted"', "plain"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "it is empty"),
        ("a,b\n", "no row"),
        ("a,b\n1,2\n3\n", "row 3 .line 3. has 1 cells, the header has 2"),
        ("a,b\n1,2\n3,4,5\n", "row 3 .line 3. has 3 cells, the header has 2"),
        ('a,b\n1,2\n"3,4\n5,6\n', "quotation mark is not closed in the row that begins in line 3"),
        ('a,b\n1,"x\n2,y\n3,"z\n', "mark in line 4 closes a cell of the row that begins in line 2, but text follows"),
        ("x" * 200_000 + ",b\n1,2\n", "name of column 1 has 200,000 characters, expected at most 255"),
        ("a,b\n" + "x" * 200_000 + "\n", "row 2 .line 2. has 1 cells, the header has 2"),
        ("\n\na,b\n1\n", "row 4 .line 4. has 1 cells"),
        ("a, a ,b\n1,2,3\n", "two columns are called 'a'"),
    ],
)
def test_tables_that_are_none(tmp_path, text, told):
    with pytest.raises(UsageError, match=told):
        write(tmp_path, text)


def test_a_blank_line_is_a_row_so_that_rows_are_counted_as_a_spreadsheet_does(tmp_path):
    read = write(tmp_path, "a,b\n1,2\n\n3,4\n")
    assert read.texts("a") == ["1", "", "3"]
    assert read.where(2).endswith("row 4")


def test_columns_without_a_name_get_one(tmp_path):
    assert write(tmp_path, ",b,\n0,x,y\n").columns == ["unnamed_1", "b", "unnamed_3"]


def test_json_lines(tmp_path):
    rows = [{"id": 1, "x": [1, 2.5], "t": "é"}, {"id": 2, "x": None}, {"id": 3, "x": [3, 4], "t": None, "more": True}]
    read = write(tmp_path, "\n".join(map(json.dumps, rows)) + "\n\n", "metadata.jsonl")
    assert read.texts("id") == ["1", "2", "3"]
    assert read.texts("t") == ["é", "", ""]
    assert read.table.column("x").to_pylist() == [[1, 2.5], None, [3, 4]]
    with pytest.raises(UsageError, match=r"metadata.jsonl, line 2: expected a JSON object, got '\[1\]'"):
        write(tmp_path, '{"a": 1}\n[1]\n', "metadata.jsonl")


def test_parquet(tmp_path):
    frame = pd.DataFrame(
        {"label": pd.Categorical(["a", "b"]), "n": [1, 2], "v": [[1.0, 2.0], [3.0, 4.0]], "t": ["x", None]}
    )
    frame.to_parquet(tmp_path / "metadata.parquet")
    read = read_metadata(tmp_path, ["metadata.parquet"])
    assert read.texts("label") == ["a", "b"]
    assert read.texts("n") == ["1", "2"]
    assert read.texts("t") == ["x", ""]
    (tmp_path / "metadata.parquet").write_bytes((tmp_path / "metadata.parquet").read_bytes()[:-20])
    with pytest.raises(UsageError, match="not a readable Parquet file"):
        read_metadata(tmp_path, ["metadata.parquet"])


def test_numbers(tmp_path):
    read = write(tmp_path, "x,y\n1,2\n,1e3\n-0.5, 7 \n")
    np.testing.assert_array_equal(read.numbers("x"), [1, np.nan, -0.5])
    np.testing.assert_array_equal(read.numbers("y"), [2, 1000, 7])
    for cell in ("1,5", "1_000", "inf", "n/a"):
        with pytest.raises(UsageError, match=r"row 3, column 'x': expected a number"):
            write(tmp_path, f"x;y\n1;2\n{cell};3\n").numbers("x")


def test_which_tables_a_folder_has(tmp_path):
    with pytest.raises(UsageError, match="has no table of samples"):
        find_tables(tmp_path)
    (tmp_path / "samples.csv").write_text("a\n")
    assert find_tables(tmp_path) == ["samples.csv"]
    (tmp_path / "other.tsv").write_text("a\n")
    with pytest.raises(
        UsageError, match=r"the tables other.tsv, samples.csv; call the one of the samples metadata.tsv"
    ):
        find_tables(tmp_path)
    (tmp_path / "Metadata.csv").write_text("a\n")
    assert find_tables(tmp_path) == ["Metadata.csv"]


def test_a_table_a_split(tmp_path):
    for split in ("train", "test"):
        write(tmp_path, f"file_name,label\n{split}.png,a\n{split}2.png,b\n", f"{split}/metadata.csv")
    tables = find_tables(tmp_path)
    assert tables == ["train/metadata.csv", "test/metadata.csv"]
    read = read_metadata(tmp_path, tables)
    assert read.folders == ["train", "train", "test", "test"]
    assert read.where(3) == f"{tmp_path}/test/metadata.csv, row 3"
    write(tmp_path, "file,label\nx,a\n", "test/metadata.csv")
    with pytest.raises(UsageError, match=r"its columns differ from those of .*: file, file_name"):
        read_metadata(tmp_path, tables)


def test_a_table_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr("mmbench.data.adding.tables.MOST_TEXT_BYTES", 10)
    with pytest.raises(UsageError, match="has 14 bytes, expected a table of at most 10"):
        write(tmp_path, "label\na\nb\nccc\n")
    pd.DataFrame({"a": [0] * 1000}).to_parquet(tmp_path / "metadata.parquet")
    monkeypatch.setattr("mmbench.data.adding.tables.MOST_ROWS", 999)
    with pytest.raises(UsageError, match="has 1,000 rows"):
        read_metadata(tmp_path, ["metadata.parquet"])


def test_a_quotation_mark_within_a_cell_is_a_character(tmp_path):
    read = write(tmp_path, 'text,label\n12" disc,a\nplain,b\n')
    assert read.texts("text") == ['12" disc', "plain"]
    assert read.texts("label") == ["a", "b"]
    assert not read.notes


def test_rows_that_quotation_marks_may_have_swallowed_are_told_of(tmp_path):
    [note] = write(tmp_path, 'id,label,text\n1,a,"x\n2,b,foo\n3,a,z"\n4,b,y\n').notes
    assert "row 2 has a cell in quotation marks, over lines 2 to 4, that looks like rows of its own" in note
    assert not write(tmp_path, 'id,label,text\n1,a,"Dear all,\nthis is, so to say,\na text, of lines"\n').notes


def test_long_cells(tmp_path):
    read = write(tmp_path, "text,label\n" + "x" * 200_000 + ",a\n")
    assert len(read.texts("text")[0]) == 200_000


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_bytes_that_are_no_text_are_told_of(tmp_path, encoding):
    content = "text,label\né\ufffd,a\n@,b\n".encode(encoding)
    wrong = {"utf-8": (b"@", b"\xff"), "utf-16": ("@".encode("utf-16-le"), b"\x00\xd8")}[encoding]
    (tmp_path / "metadata.csv").write_bytes(content.replace(*wrong))
    read = read_metadata(tmp_path, ["metadata.csv"])
    assert read.texts("text") == ["é\ufffd", "\ufffd"]
    assert read.texts("label") == ["a", "b"]
    assert "1 line with bytes that are not UTF-" in read.notes[0]
    assert "the first is line 3" in read.notes[0]


def test_names_of_columns_are_printed_as_they_are(tmp_path):
    read = write(tmp_path, '"Height\n(cm)",\u200flabel,a\x1b[31m\n1,2,3\n')
    assert read.columns == ["Height (cm)", "label", "a[31m"]
    assert [note.split(": ", 1)[1].split(" is ")[0] for note in read.notes] == ["column 1", "column 2", "column 3"]


@pytest.mark.parametrize("line", ['{"a": "\\ud800"}', '{"\\ud800": 1}', '{"a": {"b": ["\\ud800"]}}'])
def test_halves_of_characters_in_json(tmp_path, line):
    with pytest.raises(UsageError, match=r"metadata.jsonl, line 2: expected a JSON object, got"):
        write(tmp_path, '{"a": "\\ud83d\\ude00"}\n' + line, "metadata.jsonl")


def test_a_key_a_line_does_not_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("mmbench.data.adding.tables.MOST_CELLS", 99)
    with pytest.raises(UsageError, match="line 10: 10 rows of 10 keys by here"):
        write(tmp_path, "\n".join(f'{{"k{i}": 1}}' for i in range(20)), "metadata.jsonl")


def test_blank_lines_do_not_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("mmbench.data.adding.tables.MOST_CELLS", 99)
    with pytest.raises(UsageError, match="has 51 rows of 2 columns by line 52"):
        write(tmp_path, "a,b" + "\n" * 51 + "1,2\n")
    assert len(write(tmp_path, "a,b\n1,2" + "\n" * 99)) == 1


def test_a_number_of_too_many_digits_in_json(tmp_path):
    with pytest.raises(UsageError, match=r"metadata.jsonl, row 2, column 'a': holds what no table can"):
        write(tmp_path, '{"a": 1}\n{"a": 1000000000000000000000}\n', "metadata.jsonl")


def test_tables_of_other_endings(tmp_path):
    (tmp_path / "m.txt").write_text("a\n1\n")
    with pytest.raises(UsageError, match=r"m.txt: expected a table whose name ends in .csv"):
        read_metadata(tmp_path, ["m.txt"])
    with pytest.raises(UsageError, match=r"expected a table|cannot be read|no such table"):
        read_metadata(tmp_path, ["x" * 300 + ".csv"])


def read_parquet_of(folder, columns, names, **options):
    parquet.write_table(pa.Table.from_arrays(columns, names), folder / "metadata.parquet", **options)
    return read_metadata(folder, ["metadata.parquet"])


def test_parquet_that_unpacks_to_too_much_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr("mmbench.data.adding.tables.MOST_BYTES", 1 << 20)
    words = pa.DictionaryArray.from_arrays(pa.array([0] * 3000, pa.int32()), ["x" * 1000])
    lists = pa.ListArray.from_arrays(list(range(3001)), words)
    for column in (words, words.cast(pa.string()), lists):
        with pytest.raises(
            UsageError, match=r"its first 3,000 rows unpack to 3,\d+,\d+ bytes, expected at most 1,048,576"
        ):
            read_parquet_of(tmp_path, [column], ["a"], store_schema=False)
    numbers = pa.ListArray.from_arrays([0, 1 << 18], np.zeros(1 << 18))
    with pytest.raises(UsageError, match=r"its first 1 rows unpack to"):
        read_parquet_of(tmp_path, [numbers], ["a"])


def test_parquet_of_what_python_cannot_hold(tmp_path):
    far = [2**62, 0]
    read = read_parquet_of(
        tmp_path,
        [pa.array(far, pa.timestamp("ms")), pa.array([2**62, 1], pa.duration("ms")), pa.array([np.nan, np.inf])],
        ["t", "d", "x"],
    )
    assert "out of range" in read.texts("t")[0]
    assert read.texts("t")[1].startswith("1970-01-01")
    assert read.texts("d") == [str(2**62), "1"]
    assert read.texts("x") == ["", "inf"]
    texts = pa.array([b"a", b"\xff"]).view(pa.string())
    with pytest.raises(UsageError, match=r"metadata.parquet, row 2, column 't': got b'.xff', which is no UTF-8"):
        read_parquet_of(tmp_path, [texts], ["t"])
    with pytest.raises(UsageError, match="two columns are called 'a'"):
        read_parquet_of(tmp_path, [pa.array([1]), pa.array([2])], ["a", "a"])
    with pytest.raises(UsageError, match="no row"):
        read_parquet_of(tmp_path, [pa.array([], pa.int64())], ["a"])
