"""The page Start: its table is the committed report's, and what it says of the table is so."""

from pathlib import Path

import pandas as pd
import pytest

import start_table

EVERYTHING = "image+title+tags"
REPORT = Path(__file__).parents[2] / "results/table1"


@pytest.fixture(scope="module")
def pairs():
    """How methods differ from Late Fusion under clean: pattern, method -> the interval of their accuracy minus its own."""
    frame, found = pd.read_csv(REPORT / "comparisons.csv"), {}
    for row in frame[frame.protocol == "clean"].itertuples():
        if row.other == "late_fusion":
            found[row.pattern, row.method] = row.ci_low, row.ci_high
        elif row.method == "late_fusion":
            found[row.pattern, row.other] = -row.ci_high, -row.ci_low
    return found


def test_its_table_has_the_reports_numbers():
    lines = start_table.pages()["start/table1.txt"].splitlines()
    cells = {row[0]: row for row in ([cell.strip() for cell in line.strip("|").split(" | ")] for line in lines)}
    frame = pd.read_csv(REPORT / "table.csv")
    frame = frame[(frame.protocol == "clean") & (frame.metric == "accuracy")].set_index(["method", "pattern"])
    for column, pattern in enumerate(("image", "title", EVERYTHING), start=1):
        for method in frame.index.unique("method"):
            number = frame.loc[method, pattern]
            assert f"{number['mean']:.1f} ± {number['std']:.1f}" in cells[method][column]


def test_what_it_concludes_is_so(pairs):
    behind = {method for (pattern, method), (_, high) in pairs.items() if pattern == EVERYTHING and high < 0}
    ahead = {method for (pattern, method), (low, _) in pairs.items() if pattern == EVERYTHING and low > 0}
    assert behind == {"film", "bigated", "ogm_ge"}
    assert ahead == set()
    assert all(pairs["title", method][1] < 0 for method in ("sum", "concat"))
    assert all(pairs[EVERYTHING, method][1] > 0 for method in ("sum", "concat"))
