"""Every method has its page, and no page loses a line of what is said of the method."""

import csv
import inspect
import re
import xml.etree.ElementTree as ET
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from markdown_it import MarkdownIt

import method_diagram
import method_docstring
import method_facts
import method_index
import method_numbers
import method_pages
from mmbench.baselines import METHODS
from mmbench.cli import parser
from mmbench.experiment.plan import load

ROOT = Path(__file__).parents[2]
OWN = list(method_pages.own())
ORDER = [
    "The idea",
    "Run it",
    "Paper and code",
    "Equations",
    "Cost",
    "Departures",
    "What the release does not do",
    "Arguments",
    "Numbers",
    "Planted answers",
    "Source",
    "Cite",
]


@cache
def pages():
    return method_index.pages()


def read(text):
    """What a reader sees of Markdown, without spaces."""
    shown = []
    for token in MarkdownIt("commonmark").parse(text):
        shown += [child.content for child in token.children or []] if token.type == "inline" else [token.content]
    return squeezed("".join(shown))


def squeezed(text):
    return re.sub(r"[\s`*]", "", text).lower()


@pytest.mark.merged
def test_every_method_has_its_entry():
    """In docs/about/methods.yaml: three sentences, a diagram that can be drawn, and whom to cite."""
    about = yaml.safe_load((ROOT / "docs/about/methods.yaml").read_text())
    lacking = [
        f"{name}: {key}"
        for name in METHODS
        for key in ("idea", "diagram", "citation")
        if key not in about.get(name, {})
    ]
    assert lacking == []
    assert sorted(about) == sorted(METHODS)
    sentences = {name: len(re.findall(r"[.?!](?=\s|$)", entry["idea"].strip())) for name, entry in about.items()}
    assert {name: number for name, number in sentences.items() if number != 3} == {}
    assert [
        name for name, entry in about.items() if not re.match(r"@\w+\{\w+,|There is no paper", entry["citation"])
    ] == []


@pytest.mark.merged
def test_every_method_is_in_the_grid_that_its_page_runs():
    grid = yaml.safe_load((ROOT / "experiments/grid.yaml").read_text())
    assert [name for name in METHODS if name not in grid["methods"]] == []


def test_every_method_has_its_page_and_its_place_in_the_index():
    assert {f"methods/{name}.md" for name in OWN} | {"methods/index.md"} == set(pages())
    index = pages()["methods/index.md"]
    assert [name for name in OWN if f"]({name}.md) | " not in index or f"\n{name}\n" not in index] == []


@pytest.mark.parametrize("name", OWN)
def test_a_page_has_its_parts_in_order(name):
    assert re.findall(r"^## (.*)$", pages()[f"methods/{name}.md"], flags=re.MULTILINE) == ORDER


@pytest.mark.parametrize("name", OWN)
def test_no_line_of_a_docstring_is_lost(name):
    shown = read(pages()[f"methods/{name}.md"])
    lines = [line.strip() for line in inspect.getdoc(METHODS[name]).splitlines() if line.strip()]
    lines = [re.sub(r"^Cost: |^\d+\. |^(Args|Departures|Raises):$|^\w+: (?=\S)", "", line) for line in lines]
    assert len(lines) >= 6
    assert [line for line in lines if squeezed(line) not in shown] == []


@pytest.mark.parametrize("name", OWN)
def test_equations_fit_on_the_page(name):
    section = pages()[f"methods/{name}.md"].partition("## Equations")[2].partition("\n## ")[0]
    lines = [
        line for block in re.findall(r"```text\n(.*?)```", section, flags=re.DOTALL) for line in block.splitlines()
    ]
    assert [line for line in lines if len(line) > method_docstring.COLUMN] == []


def test_a_long_equation_goes_on_below_its_label():
    parts = "eq. 1  a = " + "b + " * 10 + "b", "c = " + "d + " * 10 + "d"
    assert method_docstring.fitted(",  ".join(parts)) == f"{parts[0]},\n       {parts[1]}"


@pytest.mark.parametrize("name", OWN)
def test_departures_keep_their_numbers(name):
    said = re.findall(r"^    (\d+)\. ", inspect.getdoc(METHODS[name]).partition("Departures:")[2], flags=re.MULTILINE)
    section = pages()[f"methods/{name}.md"].partition("## Departures")[2].partition("\n## ")[0]
    assert said
    assert re.findall(r"^(\d+)\. ", section, flags=re.MULTILINE) == said


@pytest.mark.parametrize("name", OWN)
def test_every_argument_is_there_with_what_is_said_of_it(name):
    parameters = [
        one for one in inspect.signature(METHODS[name]).parameters if one not in ("spec", "encoders", "recipe")
    ]
    section = pages()[f"methods/{name}.md"].partition("## Arguments")[2].partition("\n## ")[0]
    assert re.findall(r"^`(\w+)`\n: ", section, flags=re.MULTILINE) == parameters
    assert set(method_docstring.parse(METHODS[name]).arguments) == set(parameters)


def test_the_argument_that_a_page_sets_can_be_set():
    given = [one for text in pages().values() for one in re.findall(r"`--set (methods\.\S+)`", text)]
    assert len(given) > 25
    methods = load(ROOT / "experiments/grid.yaml", settings=given).grid.methods
    assert methods["tate"].width == 128


def test_types_defaults_bounds_and_ranges_are_those_of_the_signature():
    assert method_facts.arguments(METHODS["tate"])[:2] == [
        method_facts.Argument("width", "int", "128", "at least 8, a multiple of 8", ""),
        method_facts.Argument("dropout", "float", "0.2", "at least 0, below 1", "0 to 0.5"),
    ]
    head, _, alpha, _ = method_facts.arguments(METHODS["mla"])
    assert (head.kind, head.default) == ("bool | 'literal'", "True")
    assert (alpha.bounds, alpha.tuned) == ("above 0", "0.01 to 1, drawn on a logarithmic scale")
    (hidden,) = (one for one in method_facts.arguments(METHODS["agm"]) if one.name == "hidden")
    assert (hidden.kind, hidden.bounds) == ("int | None", "at least 1")


@pytest.mark.parametrize("name", OWN)
def test_a_drawing_keeps_within_a_phone_and_has_all_boxes(name):
    text = method_pages.about()[name]["diagram"]
    svg = ET.fromstring(method_diagram.draw(text, name))
    width, height = map(float, svg.get("viewBox").split()[2:])
    rects = [{key: float(one.get(key)) for key in ("x", "y", "width", "height")} for one in svg.iter("rect")]
    assert len(rects) == sum(box.kind != "note" for box in method_diagram.read(text).boxes.values())
    assert all(
        one["x"] >= 0 and one["x"] + one["width"] <= width and one["y"] + one["height"] <= height for one in rects
    )
    for i, a in enumerate(rects):
        assert all(a["x"] + a["width"] <= b["x"] or a["y"] + a["height"] <= b["y"] for b in rects[i + 1 :]), (
            "boxes overlap"
        )
    assert all(
        len(stage) * method_diagram.LETTER < width - method_diagram.SIDE
        for stage in method_diagram.read(text).stages.values()
    )
    for box in method_diagram.read(text).boxes.values():
        fits = (box.width - 4) / method_diagram.LETTER
        assert max(map(len, box.lines)) <= fits, f"{box.lines} does not fit into its box"


@pytest.mark.parametrize(
    ("text", "match"),
    [("a: one\na > b", "no box 'b'"), ("a thing: one", "expected boxes"), ("only words", "expected boxes")],
)
def test_a_drawing_that_cannot_be_read_is_refused(text, match):
    with pytest.raises(ValueError, match=match):
        method_diagram.read(text)


def test_numbers_are_those_of_the_reports():
    with (ROOT / "results/table1/comparisons.csv").open() as file:
        (row,) = (
            one
            for one in csv.DictReader(file)
            if (one["protocol"], one["pattern"], one["method"], one["other"])
            == ("clean", "image+title+tags", "late_fusion", "ogm_ge")
        )
    shown = f"{-float(row['difference']):+.1f} [{-float(row['ci_high']):+.1f}, {-float(row['ci_low']):+.1f}]"
    (line,) = (
        one
        for one in method_numbers.numbers("ogm_ge")
        if "table1" in one.experiments and one.how == "clean, complete" and not one.label
    )
    assert line.difference.strip("*") == shown
    assert f"| {line.accuracy} | {line.difference} |" in pages()["methods/ogm_ge.md"]


def test_the_idea_ends_with_the_first_number():
    idea = pages()["methods/bigated.md"].partition("## Run it")[0]
    first = method_numbers.numbers("bigated")[0]
    assert f": {first.accuracy} % right, {first.difference} points from late fusion: told apart from it." in idea
    assert "not told apart from it" in pages()["methods/mla.md"].partition("## Run it")[0]
    assert "points from" not in pages()["methods/late_fusion.md"].partition("## Run it")[0]


def test_a_method_without_a_report_has_no_number(monkeypatch):
    monkeypatch.setattr(method_numbers, "reports", dict)
    assert method_numbers.numbers("mla") == []
    assert list(method_pages._numbers("mla")) == ["No committed report has it yet."]


def test_variants_are_found_by_what_they_stand_for():
    experiment = {"methods": {"late_fusion": None, "mine": {"method": "mla", "alpha": 1}}}
    assert method_numbers.labels_of("mla", experiment) == {"mine": "late_fusion", "mine, tuned": "late_fusion, tuned"}


def test_what_a_method_cannot_learn_is_what_the_tests_expect(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tests/baselines")
    expected = import_module("test_planted_answers").EXPECTED
    found = method_facts.planted()
    assert {name: (one.xor, one.blind) for name, one in found.items()} == {
        name: (one.xor, one.blind) for name, one in expected.items()
    }
    assert [name for name, one in found.items() if len(one.reason) < 10] == []


@pytest.mark.parametrize("name", OWN)
def test_the_commands_of_a_page_parse(name):
    commands = re.findall(r"^mmbench (?:.*\\\n)*.*$", pages()[f"methods/{name}.md"], flags=re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        given = parser().parse_args(command.replace("\\\n", "").split()[1:])
        assert f"method={name}" in given.filters
