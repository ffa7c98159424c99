"""What tables say of differences: held against the frame, and where there is little or much to compare."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from make_golden import render
from test_comparing import lines, report

from mmbench.report.cells import Section
from mmbench.report.collect import Results
from mmbench.report.comparison_tables import FEW, few_groups
from mmbench.report.html import to_html
from mmbench.report.latex import to_latex
from mmbench.report.tables import sections, to_markdown

FOUR = dict.fromkeys(["concat", "sum", "late_fusion", "mla"])


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return report(tmp_path_factory.mktemp("four"), FOUR, seeds=(0, 1, 2))


def first(results: Results) -> Section:
    return sections(results)[0]


def note(results: Results, begin: str) -> str | None:
    return next((n for n in first(results).notes if begin in n), None)


def test_the_column_is_the_difference_to_the_reference(four: Results) -> None:
    section = first(four)
    place = section.header.index("− late_fusion")
    assert section.header[place - 1] == "multi"
    for row in section.body:
        method, text = row[0].text, row[place].text
        if method == "late_fusion":
            assert text == "–"
            continue
        (line,) = (
            line
            for line in lines(four, pattern="audio+video").to_dict("records")
            if {line["method"], line["other"]} == {method, "late_fusion"}
        )
        d, low, high = (line[c] for c in ("difference", "ci_low", "ci_high"))
        if line["method"] == "late_fusion":
            d, low, high = 0 - d, 0 - high, 0 - low
        means = four.table[(four.table.metric == "accuracy") & (four.table.pattern == "audio+video")].set_index(
            "method"
        )["mean"]
        assert d == pytest.approx(means[method] - means["late_fusion"])
        assert text == f"{d:+.1f} [{low:+.1f}, {high:+.1f}]" + " *" * (line["p_holm"] < 0.05)
    assert note(four, "− late_fusion: accuracy with every modality minus that of late_fusion") is not None


def test_the_star_is_for_adjusted_p_values(tmp_path: Path) -> None:
    made = report(tmp_path, FOUR)
    frame = made.comparisons
    frame.loc[frame.p_holm.notna(), "p_holm"] = 0.051
    where = (frame.pattern == "audio+video") & (frame.method == "concat") & (frame.other == "late_fusion")
    frame.loc[where, "p_holm"] = 0.049
    section = first(made)
    place = section.header.index("− late_fusion")
    assert [row[0].text for row in section.body if row[place].text.endswith(" *")] == ["concat"]
    assert r"\*" in to_markdown(made)
    assert "*" in to_latex(made)


def test_pairs_are_counted(four: Results) -> None:
    multi = lines(four, pattern="audio+video")
    apart = sum(not low <= 0 <= high for low, high in zip(multi.ci_low, multi.ci_high, strict=True))
    assert len(multi) == 6
    assert note(four, f"{apart} of 6 pairs of methods are separated with every modality") is not None


def test_what_is_practically_equivalent_is_named(tmp_path: Path) -> None:
    made = report(tmp_path, FOUR)
    assert note(made, "None is practically equivalent") is not None
    frame = made.comparisons
    multi = frame.pattern == "audio+video"
    frame.loc[multi & (frame.method == "concat") & (frame.other == "mla"), "p_equivalent"] = 0.95
    frame.loc[frame.pattern == "video", "p_equivalent"] = 1.0
    told = note(made, "Practically equivalent, at most one point apart with a probability of 0.95 or more: ")
    assert told is not None
    assert told.endswith("more: concat and mla.")


def test_bold_are_the_best_and_those_not_separable(four: Results) -> None:
    section = first(four)
    for head, pattern in (("audio", "audio"), ("video", "video"), ("multi", "audio+video")):
        place = section.header.index(head)
        means = {row[0].text: float(row[place].text.split()[0]) for row in section.body}
        best = max(means, key=lambda m: means[m])
        expected = {best}
        for line in lines(four, pattern=pattern).itertuples():
            if best in (line.method, line.other) and line.ci_low <= 0 <= line.ci_high:
                expected |= {line.method, line.other}
        assert {row[0].text for row in section.body if row[place].rank} == expected


def test_a_method_of_fewer_seeds_is_told(tmp_path: Path) -> None:
    made = report(
        tmp_path, dict.fromkeys(["concat", "late_fusion", "sum"]), seeds=(0, 1, 2), missed=(("concat", 1), ("sum", 0))
    )
    assert note(made, "Compared over the seeds that both have: concat and sum (1).") is not None
    assert note(report(tmp_path / "all", FOUR), "Compared over the seeds") is None


def test_a_reference_of_ones_own_names_the_column(tmp_path: Path) -> None:
    made = report(tmp_path, FOUR, reference="sum")
    assert "− sum" in first(made).header
    assert "− late_fusion" not in to_markdown(made)


@pytest.mark.parametrize(
    ("methods", "seeds", "missed", "column", "counted"),
    [
        (["concat"], (0, 1), (), False, False),
        (["late_fusion"], (0,), (), False, False),
        (["concat", "late_fusion"], (0,), (), True, True),
        (["concat", "sum"], (0, 1), (), False, True),
        (["concat", "late_fusion", "sum"], (0,), (("late_fusion", 0),), False, True),
        (["concat", "late_fusion", "sum"], (0,), (("sum", 0),), True, True),
        (["concat", "late_fusion"], (0,), (("concat", 0), ("late_fusion", 0)), False, False),
    ],
    ids=["one method", "late fusion alone", "one seed", "no late fusion", "late fusion failed", "another failed", "nothing"],
)  # fmt: skip
def test_reports_in_which_there_is_little_to_compare(
    tmp_path: Path, methods: list[str], seeds: tuple, missed: tuple, column: bool, counted: bool
) -> None:
    made = report(tmp_path, dict.fromkeys(methods), seeds, missed)
    assert ("− late_fusion" in first(made).header) == column
    assert (note(made, "separated with every modality") is not None) == counted
    gone = "late_fusion" in methods and ("late_fusion", 0) in missed
    assert (note(made, "Nothing is whole of late_fusion, so there are no differences to it.") is not None) == gone
    assert len({len(row) for row in first(made).body} | {len(first(made).header)}) == 1
    ranks = {row[0].text: [cell.rank for cell in row[1:4]] for row in first(made).body}
    assert all((sum(r) > 0) <= (m not in dict(missed)) for m, r in ranks.items()), "what was not run is not bold"
    assert to_latex(made)
    assert "</html>" in to_html(made, [])


def test_forty_methods(tmp_path: Path) -> None:
    methods = {f"m{k}": {"method": "concat" if k % 2 else "sum"} for k in range(39)} | {"late_fusion": None}
    made = report(tmp_path, methods, seeds=(0,))
    assert len(made.comparisons) == 40 * 39 // 2 * 4
    assert note(made, "of 780 pairs of methods") is not None
    assert np.isfinite(made.comparisons.ci_low).all()
    told = note(made, "Practically equivalent")
    assert told is None or told.count(" and ") <= 11


def test_intervals_of_few_groups_are_said_to_be_narrow() -> None:
    (told,) = few_groups(FEW - 1)
    assert f"of {FEW - 1} groups alone" in told
    assert few_groups(FEW) == []
    assert "one group" in few_groups(1)[0]
    assert any("of 5 groups alone" in n for n in first(render()[0]).notes)
