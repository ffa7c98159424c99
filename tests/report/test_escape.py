"""Names, titles and messages of others read as themselves in every format."""

from __future__ import annotations

import re
from copy import deepcopy
from functools import cache
from html.parser import HTMLParser
from io import StringIO

import pandas as pd
import pytest
from make_golden import GOLDEN, experiment
from rich.console import Console

from mmbench.experiment.plan import Labels
from mmbench.report.collect import Results, collect
from mmbench.report.escape import latex, markdown, one_line
from mmbench.report.figures.accuracy import draw
from mmbench.report.figures.base import render
from mmbench.report.html import to_html
from mmbench.report.latex import to_latex
from mmbench.report.tables import sections, to_markdown
from mmbench.report.terminal import print_report
from mmbench.runner.view import GridView
from mmbench.store import Store

NASTY = [
    "[/]", "[bold]x[/bold]", "a|b", "a`b", "*a*", "_a_", "__init__", "a & b", "50 %", "$x$", "a$b", "#1", "{x}", "~", "^", "\\", "\\\\",
    "<b>x</b>", "&lt;", "[x](y)", "[x]: y", "- x", "1. x", "> x", "[ ] x", "a\nb", "a\r\n\tb", ":smile:", "\x1b[31mred", "a--b", '"x"',
    "=1+1", "late_fusion", "α = 0.1 → ½", "−1 ± ≤ 2×", "Émile Łoś, ĭŏů", "– — …", "多模态", "\U0001f600", "e\u0301",
]  # fmt: skip


@cache
def golden() -> Results:
    return collect(experiment(), Store(GOLDEN / "runs"))


def named(name: str) -> Results:
    """The golden results with a method, a title, a failure and a data set that was not run, all of this name."""
    made = deepcopy(golden())
    made.experiment.grid.title = name
    made.experiment.unprepared = {name: f"not here: {name}"}
    made.experiment.changes = [f"--set title={name}"]
    made.experiment.labels = {t.key: Labels(t.dataset, name) for t in made.experiment.trials if t.method == "concat"}
    for row in made.rows:
        row.method = name if row.method == "concat" else row.method
        row.gaps = [gap.replace("100 % of a_line", name) for gap in row.gaps]
    made.table["method"] = made.table["method"].replace("concat", name)
    return made


def shown(name: str) -> str:
    return one_line(name)


class Text(HTMLParser):
    """The text of the first column of every table."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.cells: list[list[str]] = []
        self.inside = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th"):
            self.cells[-1].append("")
        self.inside = tag in ("td", "th") or (self.inside and tag in ("b", "u"))

    def handle_endtag(self, tag: str) -> None:
        self.inside = self.inside and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.cells[-1][-1] += data


@pytest.mark.parametrize("name", NASTY, ids=repr)
def test_every_format_shows_a_name_as_it_is(name: str, capsys: pytest.CaptureFixture) -> None:
    made = named(name)
    print_report(made)
    printed = capsys.readouterr().out
    assert printed.count(shown(name)) >= 3 + 1, "a row of each table, and a failure"
    assert "\x1b" not in printed
    page = Text(to_html(made, []))
    assert sum(one_line(line[0]) == shown(name) for line in page.cells if line) >= 3
    assert pd.read_csv(StringIO(made.table.to_csv(index=False)))["method"].eq(name).any()


# Markdown, held to what CommonMark and GitHub's tables say


def unescaped(text: str) -> str:
    """What a reader of Markdown without any markup in it would show."""
    return re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", text).replace("&amp;", "&")


@pytest.mark.parametrize("name", NASTY, ids=repr)
def test_markdown_shows_the_text_and_nothing_of_it_is_markup(name: str) -> None:
    text = markdown(name)
    assert unescaped(text) == shown(name)
    bare = re.sub(r"\\[!-/:-@\[-`{-~]", "", text)  # without what is escaped
    assert not re.search(r"[|`*<$#~]", bare)
    assert not re.search(r"\]\(|\]\[|\]:", bare)
    assert not re.search(r"&#?\w+;", bare.replace("&amp;", ""))
    assert not re.match(r"(>|=|--|[-+] |\d+[.)] |\[[ x]\])", text)
    assert not re.search(r"(?<![^\W_])_|_(?![^\W_])", bare), "emphasis"


@pytest.mark.parametrize("name", NASTY, ids=repr)
def test_a_markdown_table_keeps_its_columns(name: str) -> None:
    lines = to_markdown(named(name)).splitlines()
    tables = [line for line in lines if line.startswith("|")]
    widths = [len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in tables]
    assert widths == [
        len(section.header) + 1 for section in sections(named(name)) for _ in range(len(section.body) + 2)
    ]
    assert len(tables) == sum(len(section.body) + 2 for section in sections(named(name)))
    starts = ("|", "#", "- ", "")
    assert lines[0] == f"# {markdown(name)}"
    assert all(line.startswith(starts) for line in lines)


def test_names_that_need_nothing_stay_as_they_are() -> None:
    for text in ("late_fusion", "34.2 [27.8, 49.7] (35.10)", "+9.2 [+5.0, +17.0]", "-1.2", "28.0 ± 3.2 †", "C (d) - e"):
        assert markdown(text) == text


# LaTeX


@pytest.mark.parametrize("name", NASTY, ids=repr)
def test_latex_has_no_character_that_it_would_act_upon(name: str) -> None:
    text = latex(name)
    assert text.isascii(), "any engine reads it"
    words = (
        r"\\(textbackslash|textasciitilde|textasciicircum|textasciigrave|textless|textgreater|textbar|ldots|L|o)\{\}"
    )
    accents = r"\\[`'^~\"rvu=.Hc]\{[A-Za-z]\}"
    known = rf"{words}|\\[{{}}$&#_%]|\$(\\[a-z]+|-)\$|^\{{[\[*]\}}|-\{{\}}|{accents}"
    bare = re.sub(known, "", text)
    assert not re.search(r'[\\{}$&#_%~^<>|"]', bare)
    assert not text.startswith(("[", "*"))
    assert "--" not in text.replace("-- --- ", "")


@pytest.mark.parametrize("name", NASTY, ids=repr)
def test_a_latex_table_keeps_its_columns(name: str) -> None:
    code = [line for line in to_latex(named(name)).splitlines() if line and not line.startswith("%")]
    rows = [line for line in code if line.endswith(r" \\")]
    separators = [len(re.findall(r"(?<!\\)&", re.sub(r"\\textbackslash\{\}", "", row))) for row in rows]
    assert separators == [
        len(section.header) - 1 for section in sections(named(name)) for _ in range(len(section.body) + 1)
    ]
    rest = {re.sub(r"(?<=.)[{[ ].*", "", line) for line in code if line not in rows and not line.endswith(r"\par")}
    frame = {f"\\{name}" for name in "begin end caption label centering smallskip toprule midrule bottomrule".split()}  # noqa: SIM905
    sizes = {r"\small", r"\footnotesize", r"\scriptsize", r"\setlength", r"\ifdefined\resizebox\def\fit", r"\fit"}
    assert frame <= rest <= {*frame, *sizes, r"\par\smallskip", "}"}


# Figures


@pytest.mark.parametrize("name", ["$x$", "a$b$c{", "$\\frac{1$", "<b>&"])
def test_a_figure_shows_a_name_as_it_is(name: str) -> None:
    svg = render(draw(named(name)), "svg").decode()
    escaped = name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert f">{escaped}</text>" in svg
    assert render(draw(named(name)), "png").startswith(b"\x89PNG")


# While it runs


def test_the_live_view_shows_a_name_as_it_is() -> None:
    """Once: rich took a method called [/] for a closing tag, and the run ended."""
    console = Console(file=StringIO(), force_terminal=True, width=200)
    trial = experiment().trials[0].model_copy(update={"method": "[/]"})
    with GridView(1, console=console) as view:
        view.started(trial)
        view.live.refresh()
    assert "[/] seed 0" in console.file.getvalue()  # type: ignore[attr-defined]
