"""Numbers that papers print: what the repository has, and that a mistake in a file is told by its place and what is expected."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mmbench.baselines import METHODS
from mmbench.errors import DataError
from mmbench.report.reported import ALL, NUMBER_COLUMNS, PAPER_COLUMNS, TABLES, read_numbers, read_papers

REPORTED = Path(__file__).parents[2] / "results" / "reported"
ELSEWHERE = {"clip"}
"""Methods of papers that the suite need not have; any other name that no method has is misspelt."""
PAPER = ["pmr", "A title", "CVPR 2023", "2211.07089", "novel", "text", "a copy", "another split"]
NUMBER = ["pmr", "crema_d", "novel", "", "multi", "", "accuracy", "61.1", "0.5", "Table 1", "a row", "a column"]


def written(folder: Path, papers: list[list[str]], numbers: list[list[str]]) -> Path:
    """A folder of reported numbers, with nothing in the files of single papers."""
    for name, (columns, _) in TABLES.items():
        (folder / name).write_text(",".join(columns) + "\n")
    for name, columns, rows in (("papers.csv", PAPER_COLUMNS, papers), ("others.csv", NUMBER_COLUMNS, numbers)):
        (folder / name).write_text("\n".join(",".join(cells) for cells in [list(columns), *rows]) + "\n")
    return folder


def changed(cells: list[str], columns: tuple[str, ...], **changes: str) -> list[str]:
    return [changes.get(column, cell) for column, cell in zip(columns, cells, strict=True)]


def test_the_numbers_of_the_repository() -> None:
    numbers, papers = read_numbers(REPORTED), read_papers(REPORTED)
    found = {
        (n.paper, n.dataset, n.method, n.variant, n.modalities, n.missing_rate, n.metric): (n.value, n.std)
        for n in numbers
    }
    assert len(found) == len(numbers), "a number stands twice"
    assert found["mla", "crema_d", "mla", "", ALL, None, "accuracy"] == (79.70, 0.87)
    assert found["mla", "iemocap_features", "cca", "", ALL, 0.7, "accuracy"] == (30.61, 1.10)
    assert found["mla", "food101", "mla", "clip-vit-b-32", "image", None, "accuracy"] == (72.22, 0.10)
    assert found["dmrnet", "casia_surf", "shaspec", "derived", "mean", None, "acer"] == (5.59, None)
    assert found["pmr", "crema_d", "pmr", "FiLM", ALL, None, "accuracy"] == (61.8, None)
    assert found["mcr", "crema_d", "reconboost", "Conformer", ALL, None, "accuracy"] == (84.8, 1.8)
    assert found["mplmm", "iemocap_features", "pattern_prompts", "", "audio+text", None, "accuracy"] == (74.90, None)
    named = {number.method for number in numbers} | {method for paper in papers.values() for method in paper.introduces}
    assert named <= set(METHODS) | ELSEWHERE, "a name that no method has"


def test_means_over_patterns_are_those_of_their_parts() -> None:
    """So the row of MPLMM's table that had slipped was put right, and CyIN's were read from the right column."""
    checked = 0
    for paper, precision in (("mplmm", 0.01), ("cyin", 0.1)):
        numbers = [number for number in read_numbers(REPORTED) if number.paper == paper and number.modalities != ALL]
        for method in {number.method for number in numbers}:
            own = [number for number in numbers if number.method == method]
            parts = [number.value for number in own if number.modalities != "mean incomplete"]
            (mean,) = (number.value for number in own if number.modalities == "mean incomplete")
            assert len(parts) == 6
            assert mean == pytest.approx(sum(parts) / 6, abs=precision / 2 + 1e-6)
            checked += 1
    assert checked == 9


def test_a_line_is_read_as_it_stands(tmp_path: Path) -> None:
    numbers = [NUMBER, changed(NUMBER, NUMBER_COLUMNS, modalities="audio", missing_rate="0.3", std="")]
    first, second = read_numbers(written(tmp_path, [PAPER], numbers))
    assert (first.value, first.std, first.missing_rate, first.modalities) == (61.1, 0.5, None, ALL)
    assert (second.std, second.missing_rate, second.modalities) == (None, 0.3, "audio")


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [
        ("paper", "prm", "got 'prm', expected a known name; did you mean 'pmr'?"),
        ("dataset", "cremad", "got 'cremad', expected a known name; did you mean 'crema_d'?"),
        (
            "method",
            "OGM-GE",
            "got 'OGM-GE', expected a name of lower-case letters, digits and underscores, such as ogm_ge",
        ),
        ("method", "", "got '', expected a text"),
        ("modalities", "audio+video", "got 'audio+video', expected a known name; "),
        ("missing_rate", "30 %", "got '30 %', expected a share from 0 to 1, such as 0.3, or nothing"),
        ("metric", "f1", "got 'f1', expected a known name; "),
        ("value", "61.1 %", "got '61.1 %', expected a number in percent, such as 61.9"),
        ("value", "", "got '', expected a number in percent"),
        ("value", "nan", "got 'nan', expected a number in percent"),
        ("value", "611", "got '611', expected a number in percent"),
        ("std", "-1", "got '-1', expected a number in points, such as 1.08, or nothing"),
        ("table", "", "got '', expected a text"),
    ],
)
def test_a_wrong_number_is_told_by_its_place(tmp_path: Path, column: str, value: str, told: str) -> None:
    folder = written(tmp_path, [PAPER], [NUMBER, changed(NUMBER, NUMBER_COLUMNS, **{"variant": "b", column: value})])
    with pytest.raises(DataError, match=re.escape(f"{folder / 'others.csv'}, line 3, column {column}: {told}")):
        read_numbers(folder)


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [
        ("paper", "P M R", "got 'P M R', expected a name"),
        ("arxiv", "arXiv:2211.07089", "got 'arXiv:2211.07089', expected a number such as 2311.10707, or nothing"),
        ("introduces", "novel Newer", "got 'novel Newer', expected a name"),
        ("read", "maybe", "got 'maybe', expected a known name; known: none, quoted, release, text"),
        ("seen", "", "got '', expected a text"),
        ("setting", "", "got '', expected a text"),
    ],
)
def test_a_wrong_paper_is_told_by_its_place(tmp_path: Path, column: str, value: str, told: str) -> None:
    folder = written(tmp_path, [changed(PAPER, PAPER_COLUMNS, **{column: value})], [])
    with pytest.raises(DataError, match=re.escape(f"{folder / 'papers.csv'}, line 2, column {column}: {told}")):
        read_papers(folder)


def test_what_stands_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"line 3, column variant: got '', expected what sets this number apart"):
        read_numbers(written(tmp_path, [PAPER], [NUMBER, changed(NUMBER, NUMBER_COLUMNS, value="60")]))
    with pytest.raises(DataError, match=r"papers.csv, line 3, column paper: got 'pmr', expected each paper once"):
        read_papers(written(tmp_path, [PAPER, PAPER], []))


def test_a_paper_that_was_not_read_has_no_numbers(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"line 2, column paper: got 'pmr', expected a paper that was read"):
        read_numbers(written(tmp_path, [changed(PAPER, PAPER_COLUMNS, read="none")], [NUMBER]))


def test_files_of_another_shape_are_refused(tmp_path: Path) -> None:
    folder = written(tmp_path, [PAPER], [NUMBER[:-1]])
    with pytest.raises(
        DataError, match=r"others.csv, line 2: got 11 cells, expected 12; a text with a comma stands in double quotes"
    ):
        read_numbers(folder)
    (folder / "others.csv").write_text("paper,value\n")
    with pytest.raises(
        DataError, match=r"others.csv, line 1: got the columns paper, value, expected paper, dataset, method"
    ):
        read_numbers(folder)
    (folder / "others.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"others.csv is no CSV file in UTF-8"):
        read_numbers(folder)
    (folder / "others.csv").unlink()
    with pytest.raises(DataError, match=r"others.csv cannot be read: No such file"):
        read_numbers(folder)
