"""The page of a report, as text: it needs nothing from elsewhere, holds every number, and what others wrote stays text."""

from __future__ import annotations

import base64
import json
import re
import shutil
from copy import deepcopy
from hashlib import sha256
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import pandas as pd
import pytest
from make_golden import GOLDEN, experiment
from PIL import Image
from test_comparing import report as compared

from mmbench.experiment.plan import Experiment
from mmbench.missing import Missing
from mmbench.record import Failure
from mmbench.report.cells import Cell, Section
from mmbench.report.charts import EPOCH, SHAPES, Chart, charts, specification
from mmbench.report.collect import Results, collect
from mmbench.report.colours import COLOURS, MARKERS
from mmbench.report.html import CONTRAST, DARK, Picture, contrast, lightened, numeric_columns, script_json, to_html
from mmbench.report.page import write
from mmbench.report.ranking import RANK_COLUMNS
from mmbench.report.summary import NOTE, summary
from mmbench.report.tables import sections
from mmbench.store import Store

ATTACK = "</script><script>alert('x')</script>"


class Page(HTMLParser):
    """Tags with their attributes, the scripts and styles, and the text outside of these."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.code: list[str] = []
        self.inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside = tag
        if tag == "script":
            self.code.append("")

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside == "script":
            self.code[-1] += data
        elif self.inside != "style":
            self.text += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def golden(folder: Path | None = None, **changes: str) -> Results:
    """The golden experiment, of another store or with another title or reference."""
    plan = experiment()
    grid = plan.grid.model_copy(update=changes)
    return collect(Experiment("golden", grid, plan.trials), Store(folder or GOLDEN / "runs"), GOLDEN / "reported")


@pytest.fixture(scope="module")
def results() -> Results:
    return golden()


def with_failure(folder: Path, message: str, title: str) -> Results:
    """The golden experiment with another title, its failed trial with another message."""
    shutil.copytree(GOLDEN / "runs", folder / "runs")
    store = Store(folder / "runs")
    for trial in experiment().trials:
        record = store.record(trial.key)
        if record is not None and record.status == "failed":
            record.failure = Failure(kind="exception", message=message)
            store.write(record)
    return golden(folder / "runs", title=title)


def picture(name: str, caption: str = "a <caption>", size: int = 10) -> Picture:
    """A figure whose SVG has so many bytes more than it needs."""
    buffer = BytesIO()
    Image.effect_noise((90, 60), 50).convert("RGB").save(buffer, "png")
    return Picture(name, caption, b"<svg/>" + b" " * size, buffer.getvalue())


def test_the_page_needs_nothing_from_elsewhere(results: Results) -> None:
    parsed = Page(to_html(results, [picture("figure"), picture("other")]))
    assert not {tag for tag, _ in parsed.tags} & {"link", "iframe", "object", "embed", "base", "form"}
    assert all((image["src"] or "").startswith("data:image/svg+xml;base64,") for image in parsed.named("img"))
    assert len(parsed.named("img")) == 2, "one where the chart is, one for itself"
    assert not [script for script in parsed.named("script") if "src" in script]
    links = [attributes["href"] for attributes in parsed.named("a")]
    assert links
    assert all(link.startswith("#") for link in links)
    style = to_html(results).partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style


def test_only_the_scripts_of_the_page_may_run_and_nothing_may_be_fetched(results: Results) -> None:
    parsed = Page(to_html(results))
    (policy,) = (m["content"] for m in parsed.named("meta") if m.get("http-equiv") == "Content-Security-Policy")
    code = [c for c, attributes in zip(parsed.code, parsed.named("script"), strict=True) if "type" not in attributes]
    assert len(code) == 2, "Vega and the page's own"
    allowed = set(re.findall(r"'sha256-([^']+)'", policy))
    assert allowed == {base64.b64encode(sha256(text.encode()).digest()).decode() for text in code}
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "'unsafe-inline'" not in policy.partition("script-src")[2]


def test_every_place_that_a_link_leads_to_is_there_once(results: Results) -> None:
    parsed = Page(to_html(results, [picture("other")]))
    places = [attributes["id"] for _, attributes in parsed.tags if "id" in attributes]
    assert len(places) == len(set(places))
    targets = [(a["href"] or "")[1:] for a in parsed.named("a")]
    assert set(targets) <= set(places)
    words = [section.words for section in sections(results)]
    assert {f"tables-{i + 1}" for i in range(words.count(False))} <= set(targets)
    assert {f"training-{i + 1}" for i in range(words.count(True))} <= set(targets)
    labels = [a["aria-labelledby"] for a in parsed.named("section")]
    assert set(labels) <= set(places)


def test_the_page_holds_every_number(results: Results) -> None:
    parsed = Page(to_html(results))
    for line in results.table[results.table.n > 0].itertuples():
        assert f"{line.mean:.2f} [{line.ci_low:.2f}, {line.ci_high:.2f}]" in parsed.text
    for section in sections(results):
        for row in section.body:
            for cell in row:
                assert cell.text in parsed.text


def test_tables_can_be_read_aloud(results: Results) -> None:
    parsed = Page(to_html(results))
    tables = len(parsed.named("table"))
    assert tables == len(sections(results)) + 1
    assert len(parsed.named("caption")) == tables
    heads = parsed.named("th")
    assert {head.get("scope") for head in heads} == {"col", "row"}
    assert sum(head.get("scope") == "row" for head in heads) == len(parsed.named("tr")) - tables


def test_the_page_escapes_what_others_wrote(tmp_path: Path) -> None:
    made = with_failure(tmp_path, ATTACK, title=ATTACK)
    for row in made.rows:
        row.method = row.method.replace("concat", ATTACK)
    for frame in (made.table, made.comparisons):
        frame["method"] = frame["method"].replace("concat", ATTACK)
    parsed = Page(to_html(made, [picture("other", ATTACK)]))
    assert len(parsed.named("script")) == 3, "Vega, the page's own, and the data"
    assert parsed.text.count(ATTACK) >= 6, "in the head, as a heading, in tables, as a reason and a caption, as text"
    assert not re.search(r"<script>alert|</script><script>alert", "".join(parsed.code))
    (data,) = (c for c, a in zip(parsed.code, parsed.named("script"), strict=True) if a.get("type"))
    assert ATTACK in [method["name"] for method in json.loads(data)["methods"]]


def test_no_name_is_part_of_an_expression(results: Results) -> None:
    """Vega evaluates what stands under other keys than these."""
    name = "'+alert(1)+'"
    made = deepcopy(results)
    for row in made.rows:
        row.method = row.method.replace("concat", name)
    for frame in (made.table, made.comparisons):
        frame["method"] = frame["method"].replace("concat", name)

    def walk(value: object, key: str) -> None:
        if isinstance(value, dict):
            for inner, each in value.items():
                walk(each, inner)
        elif isinstance(value, list):
            for each in value:
                walk(each, key)
        elif isinstance(value, str) and name in value:
            found.append(key)

    found: list[str] = []
    text = to_html(made).partition('id="data">')[2].partition("</script>")[0]
    walk(json.loads(text), "")
    assert set(found) == {"name", "levels", "domain"}


def test_a_row_leads_to_its_trials(results: Results, tmp_path: Path) -> None:
    keys = {record.key for row in results.rows for record in row.records}
    assert keys
    linked = Page(to_html(results, runs="../../runs")).named("a")
    assert {f"../../runs/{key}/record.json" for key in keys} <= {a["href"] for a in linked}
    named = Page(to_html(results))
    assert not [a for a in named.named("a") if "record.json" in (a["href"] or "")]
    assert all(key in named.text for key in keys)
    page = tmp_path / "results" / "own report" / "golden"
    write(results, page, tmp_path / "results" / "the runs")
    links = [a["href"] for a in Page((page / "table.html").read_text()).named("a")]
    assert f"../../the%20runs/{min(keys)}/record.json" in links


def test_a_figure_is_what_is_smaller_of_svg_and_png_and_tells_what_it_is(results: Results) -> None:
    small, large = picture("small"), picture("large", "caption", size=10**6)
    assert small.source == "data:image/svg+xml;base64," + base64.b64encode(small.svg).decode()
    kind, _, data = large.source.partition(",")
    assert kind == "data:image/png;base64"
    with Image.open(BytesIO(base64.b64decode(data))) as image, Image.open(BytesIO(large.png)) as whole:
        assert image.size == whole.size
        assert len(image.getcolors()) <= 64
    (image,) = Page(to_html(results, [large])).named("img")
    assert image["src"] == large.source
    assert image["width"] == "54", "90 pixels, 160 to an inch, of which CSS has 96"
    assert (image["alt"] or "").startswith("caption")


def test_an_empty_store_makes_a_page_without_charts(tmp_path: Path) -> None:
    made = golden(tmp_path)
    assert charts(made) == []
    parsed = Page(to_html(made))
    assert len(parsed.code) == 2, "without charts, Vega is not there"
    assert "not run" in parsed.text


def test_what_sorts_as_a_number() -> None:
    columns = {
        "name": ["1", "2"], "value": ["61.2 ± 3.4 (60.10)", "–"], "difference": ["+1.2 [-0.5, 2.9]", "−3.0"], "large": ["1,234", "5"],
        "role": ["38.5 †", ""], "words": ["3 folds", "a"], "mixed": ["1.2.3", "2"], "empty": ["–", "–"],
    }  # fmt: skip
    body = [[Cell(text) for text in row] for row in zip(*columns.values(), strict=True)]
    found = numeric_columns(Section("", [], list(columns), body))
    assert dict(zip(columns, found, strict=True)) == {
        "name": False, "value": True, "difference": True, "large": True, "role": True, "words": False, "mixed": False, "empty": True,
    }  # fmt: skip


def test_json_in_a_script_ends_no_script() -> None:
    text = script_json({"a": "</script><!--&amp;\u2028é"})
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {"a": "</script><!--&amp;\u2028é"}
    with pytest.raises(ValueError, match="not JSON"):
        script_json(float("nan"))


def test_colours_are_read_on_the_dark_ground() -> None:
    assert contrast("#FFFFFF", "#000000") == pytest.approx(21)
    assert contrast("#777777", "#777777") == 1
    assert lightened("#FFFFFF") == "#FFFFFF"
    for colour in COLOURS:
        assert contrast(lightened(colour), DARK) >= CONTRAST
    assert len({lightened(colour) for colour in COLOURS}) == len(COLOURS)


def test_the_charts_show_the_numbers_of_the_table(results: Results) -> None:
    (chart,) = charts(results)
    assert chart.name == "accuracy"
    table = results.table[
        (results.table.metric == "accuracy") & (results.table.pattern != "mean") & (results.table.n > 0)
    ]
    assert chart.rows["value"].tolist() == table["mean"].tolist()
    assert chart.rows["low"].tolist() == table.ci_low.tolist()
    assert chart.rows.panel.unique().tolist() == ["audio", "video", "multi"]
    data = chart.data()
    assert data["choices"] == {"protocol": "protocol"}
    assert set(data["columns"]) == {"protocol", "panel", "method", "value", "low", "high", "n", "mark"}


def differences(results: Results) -> pd.DataFrame:
    """What the chart of differences shows with every modality under clean."""
    (chart,) = (chart for chart in charts(results) if chart.name == "differences")
    assert chart.title == f"Differences to {results.experiment.grid.reference}"
    return chart.rows[(chart.rows.protocol == "clean") & (chart.rows.panel == "multi")]


def test_the_chart_of_differences_turns_pairs_to_the_reference() -> None:
    made = golden(reference="sum")
    pairs = made.comparisons
    line = pairs[(pairs.protocol == "clean") & (pairs.pattern == "audio+video") & pairs.difference.notna()].iloc[0]
    assert (line.method, line.other) == ("concat", "sum")
    columns = ["method", "value", "low", "high"]
    shown = differences(made)[columns].iloc[0].tolist()
    assert shown == ["concat", line.difference, line.ci_low, line.ci_high]
    made.experiment.grid.reference = "concat"
    shown = differences(made)[columns].iloc[0].tolist()
    assert shown == ["sum", -line.difference, -line.ci_high, -line.ci_low]


def test_the_summary_says_what_is_best_and_what_cannot_be_told_from_it(results: Results) -> None:
    made = deepcopy(results)
    found = dict(summary(made))
    assert list(found) == ["crema_d, clean", "crema_d, legacy"]
    multi = made.table[
        (made.table.pattern == "audio+video") & (made.table.metric == "accuracy") & (made.table.protocol == "clean")
    ]
    best = multi.set_index("method")["mean"].idxmax()
    assert found["crema_d, clean"].startswith(
        f"With every modality, {best} has the highest accuracy, {multi['mean'].max():.1f} %."
    )
    other = "sum" if best == "concat" else "concat"
    assert f"It cannot be told from {other}." in found["crema_d, clean"]
    apart = [10.0, 8.0, 12.0] if best == "concat" else [-10.0, -12.0, -8.0]
    made.comparisons[["difference", "ci_low", "ci_high"]] = [apart] * len(made.comparisons)
    assert f"{other} (10.0 [8.0, 12.0]) is so many points below it." in dict(summary(made))["crema_d, clean"]
    assert found["crema_d, clean"].endswith("Without a result: mla (not run).")


def named_otherwise(results: Results, methods: dict[str, str]) -> None:
    """Give methods other names."""
    for row in results.rows:
        row.method = methods.get(row.method, row.method)
    results.table["method"] = results.table["method"].replace(methods)
    results.comparisons[["method", "other"]] = results.comparisons[["method", "other"]].replace(methods)


def test_the_summary_compares_tuned_methods_with_tuned_ones(tmp_path: Path) -> None:
    tuned = ["concat, tuned", "sum, tuned", "mla, tuned"]
    made = compared(tmp_path, dict.fromkeys(["concat", "sum", "mla", "qmf", "dcca", "film"]))
    named_otherwise(made, dict(zip(["qmf", "dcca", "film"], tuned, strict=True)))
    for row in made.rows:
        row.tuned = row.method in tuned
    own = made.comparisons.method.isin(tuned) & made.comparisons.other.isin(tuned)
    made.comparisons[["difference", "ci_low", "ci_high"]] = [5.0, 1.0, 9.0]  # told apart, but where only one is tuned
    made.comparisons.loc[own, "ci_low"] = -1.0
    made.comparisons.loc[
        own & (made.comparisons.other == tuned[2]) & (made.comparisons.method == tuned[1]), "ci_low"
    ] = 1.0
    found = dict(summary(made))
    assert list(found) == ["crema_d, clean, default", "crema_d, clean, tuned"]
    assert "Of all 3 pairs of methods, 3 are told apart." in found["crema_d, clean, default"]
    assert "Of all 3 pairs of methods, 1 is told apart." in found["crema_d, clean, tuned"]
    assert "tuned" not in found["crema_d, clean, tuned"]


def test_the_summary_of_one_method_compares_nothing(tmp_path: Path) -> None:
    made = compared(tmp_path, {"concat": None, "sum": None}, missed=(("sum", 0), ("sum", 1)))
    ((where, text),) = summary(made)
    accuracy = made.table[(made.table.pattern == "audio+video") & (made.table.metric == "accuracy")]["mean"].max()
    expected = f"With every modality, concat has an accuracy of {accuracy:.1f} %. Without a result: sum (not run)."
    assert (where, text) == ("crema_d, clean", expected)
    assert NOTE not in Page(to_html(made)).text
    made.rows[1].trials = [tried._replace(status="failed") for tried in made.rows[1].trials]
    assert summary(made)[0][1].endswith("Without a result: sum (failed).")


def test_the_summary_names_the_training(results: Results) -> None:
    made = deepcopy(results)
    dropout, matched = Missing(rate=0.5, train_only=True, redraw=True), Missing(rate=0.4)
    concat, total, mla = (row for row in made.rows if row.protocol == "clean")
    total.missing = mla.missing = matched
    made.rows = [concat, total, mla]
    assert [where for where, _ in summary(made)] == ["crema_d, clean, trained: complete", "crema_d, clean"]
    concat.missing = dropout
    made.table["training"] = concat.training
    assert [where for where, _ in summary(made)] == [f"crema_d, clean, trained: {dropout}", "crema_d, clean"]
    made.rows = [total, mla]
    table = "“crema_d, clean, missing rates (anchor), matched”"
    assert summary(made) == [("crema_d, clean", f"What is trained at missing rates is in the table {table}.")]


def test_the_summary_has_mean_ranks(results: Results) -> None:
    made = deepcopy(results)
    line = {
        "protocol": "clean",
        "method": "a",
        "other": "b",
        "rank": 1.75,
        "other_rank": 1.25,
        "p_friedman": 0.0312,
        "datasets": 8,
    }
    made.ranks = pd.DataFrame([line], columns=list(RANK_COLUMNS))
    assert dict(summary(made))["8 data sets, clean"] == (
        "Mean ranks by accuracy with every modality, 1 for the best: b (1.25) and a (1.75). "
        "Friedman's test that all are the same: p = 0.031."
    )


def test_a_single_trial_is_not_many(results: Results) -> None:
    text = Page(to_html(results)).text
    counts = {len(row.records) for row in results.rows}
    assert {1, 2} <= counts
    assert "1 trial of sum" in text
    assert "1 trials" not in text
    assert "2 trials of concat" in text


def test_bands_are_clipped_and_epochs_are_whole() -> None:
    rows = pd.DataFrame({"at": [1], "value": [0.0]})
    epochs, rates = (Chart("c", "", "", "lines", "", "", rows, across=across) for across in (EPOCH, "missing rate"))
    area, line = specification(epochs, {})["layer"][:2]
    assert (area["mark"]["type"], area["mark"]["clip"]) == ("area", True)
    assert line["encoding"]["x"]["axis"]["tickMinStep"] == 1
    assert "tickMinStep" not in specification(rates, {})["layer"][1]["encoding"]["x"]["axis"]
    assert line["encoding"]["y"]["axis"]["labelFlush"], (
        "else a label at the top makes one panel higher than those beside it"
    )


def test_curves_by_epoch_are_means_over_trials(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "runs", tmp_path / "runs")
    store = Store(tmp_path / "runs")
    losses = {0: [2.0, 1.0], 1: [4.0, 2.0, 1.5]}
    for trial in experiment().trials:
        record = store.record(trial.key)
        if record is not None and record.status == "done" and (trial.method, trial.protocol) == ("concat", "clean"):
            curves = [{"train/loss": loss, "validation/accuracy": 0.25} for loss in losses[trial.seed]]
            store.write(record.model_copy(update={"curves": curves}), store.predictions(record))
    (chart,) = (c for c in charts(golden(tmp_path / "runs")) if c.name == "curves")
    rows = chart.rows.set_index(["panel", "at"])
    assert rows.loc["training loss", "value"].to_dict() == {1: 3.0, 2: 1.5, 3: 1.5}
    assert rows.loc["training loss", "n"].to_dict() == {1: 2, 2: 2, 3: 1}
    assert rows.loc[("training loss", 1), "high"] == pytest.approx(3 + 2**0.5)
    assert pd.isna(rows.loc[("training loss", 3), "high"]), "one trial has no deviation"
    assert rows.loc["validation accuracy, %", "value"].to_dict() == {1: 25.0, 2: 25.0, 3: 25.0}


def test_a_charts_columns_are_short_json() -> None:
    rows = pd.DataFrame(
        {"dataset": ["a", "a"], "protocol": ["x", "y"], "training": ["", ""], "panel": ["p", "p"], "method": ["m", "n"],
         "value": [1 / 3, float("nan")], "n": [3, 2]}
    )  # fmt: skip
    data = Chart("c", "", "", "intervals", "", "", rows).data()
    assert data["columns"]["value"] == {"values": [0.3333, None]}
    assert data["columns"]["method"] == {"codes": [0, 1], "levels": ["m", "n"]}
    assert data["choices"] == {"protocol": "protocol"}


def test_every_marker_has_a_shape() -> None:
    assert set(MARKERS) <= set(SHAPES)
