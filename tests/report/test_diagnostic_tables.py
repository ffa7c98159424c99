"""Diagnostics as tables: what they show, and what they leave out."""

from __future__ import annotations

from types import SimpleNamespace

import pandas as pd
import pytest
from make_golden import render

from mmbench.report.cells import Section
from mmbench.report.collect import Results
from mmbench.report.diagnosing import COLUMNS
from mmbench.report.diagnostic_tables import of_diagnostics
from mmbench.report.rows import Row

KEY = ("own", "clean", "complete")


def results(lines: list[tuple], modalities: tuple[str, ...] = ("a", "b"), classes: int = 4) -> Results:
    """What the tables read of results: rows of two methods, and lines (method, diagnostic, of, value, low, high, artefact)."""
    rows = [Row(*KEY[:2], None, method, "own") for method in ("late_fusion", "joint")]
    full = [(*KEY, *line[:-1], 1, line[-1]) for line in lines]
    return SimpleNamespace(  # type: ignore[return-value]
        modalities={"own": modalities},
        rows=rows,
        diagnostics=pd.DataFrame(full, columns=list(COLUMNS)),
        tests={("own", "clean"): SimpleNamespace(classes=classes)},
        mark=lambda dataset: ", MADE UP",
    )


def cell(section: Section, method: str, column: str) -> str:
    (row,) = [row for row in section.body if row[0].text == method]
    return row[section.header.index(column)].text


NAN = float("nan")
LINES = [
    ("joint", "information", "a+b", 0.5, 0.25, 0.75, ""),
    ("joint", "contribution", "a", 12.34, 10, 14, "role"),
    ("joint", "laziness", "a", NAN, NAN, NAN, "role"),
    ("joint", "laziness", "b", 3.0, -1.0, 7.0, ""),
    ("joint", "pid_synergy", "a+b", 0.2, NAN, NAN, ""),
    ("joint", "pid_redundancy", "a+b", 0.1, NAN, NAN, ""),
    ("joint", "ece", "1", 7.0, NAN, NAN, ""),
    ("joint", "ece", "2", 9.0, NAN, NAN, ""),
]


def test_values_stand_with_their_intervals_and_marks() -> None:
    apart, together = of_diagnostics(results(LINES))
    assert apart.title.startswith("own, clean, MADE UP")
    assert cell(apart, "joint", "information") == "0.50 [0.25, 0.75]"
    assert cell(apart, "joint", "a adds") == "12.3 †"
    assert cell(apart, "joint", "a lazy") == "– †"
    assert cell(apart, "joint", "b lazy") == "+3.0 [-1.0, +7.0]"
    assert cell(apart, "late_fusion", "b lazy") == "–"
    assert cell(together, "joint", "a+b") == "0.20 / 0.10"
    assert cell(together, "late_fusion", "a+b") == "–"
    assert (cell(together, "joint", "ECE of one"), cell(together, "joint", "ECE")) == ("7.0", "9.0")
    assert any(note.startswith("†") for note in apart.notes)


def test_columns_that_were_not_measured_are_left_out() -> None:
    apart, together = of_diagnostics(results([line for line in LINES if line[1] != "laziness" and not line[-1]]))
    assert not [head for head in apart.header if "lazy" in head]
    assert not {"robust", "gradients", "gap"} & set(together.header)
    assert not any(note.startswith("†") for note in apart.notes)


def test_columns_of_what_only_some_experiments_have() -> None:
    more = [
        ("joint", "effective_robustness", "anchor", 4.0, 1.0, 6.0, ""),
        ("joint", "gradient_balance", "", 0.5, NAN, NAN, ""),
        ("joint", "gradient_balance_modulated", "", 0.25, NAN, NAN, ""),
        ("late_fusion", "gradient_balance", "", 0.4, NAN, NAN, ""),
        ("joint", "modality_gap", "a+b", 0.75, NAN, NAN, ""),
    ]
    _, together = of_diagnostics(results(LINES + more))
    assert cell(together, "joint", "robust") == "+4.0 [+1.0, +6.0]"
    assert cell(together, "joint", "gradients") == "0.50 → 0.25"
    assert cell(together, "late_fusion", "gradients") == "0.40"
    assert cell(together, "joint", "gap") == "0.75"
    assert cell(together, "late_fusion", "gap") == "–"


@pytest.mark.parametrize(("classes", "said"), [(20, False), (21, True)])
def test_merged_classes_are_said(classes: int, said: bool) -> None:
    _, together = of_diagnostics(results(LINES, classes=classes))
    assert any("most frequent ones are taken as one" in note for note in together.notes) == said


def test_many_modalities_have_no_column_a_pair() -> None:
    _, together = of_diagnostics(results(LINES, ("a", "b", "c", "d")))
    assert not [head for head in together.header if "+" in head]


def test_nothing_was_run() -> None:
    assert of_diagnostics(results([])) == []


def test_the_golden_report_has_both_tables_of_its_first_protocol() -> None:
    titles = [section.title for section in of_diagnostics(render()[0])]
    assert titles == ["crema_d, clean, what each modality gives", "crema_d, clean, together, and how sure"]
