"""The page of a report in a browser: it is opened from its file, looked at, clicked and typed at."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from make_golden import GOLDEN, experiment

from mmbench.report.collect import Results, collect
from mmbench.report.page import write
from mmbench.store import Store

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here (apt-get install chromium)"),
]
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

ATTACKS = [
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(2)</script>",
    "'+alert(3)+\"`${alert(3)}`",
    "javascript:alert(4)//[x](http://127.0.0.1/x)",
]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """The golden experiment, whose trials have curves."""
    folder = tmp_path_factory.mktemp("store")
    shutil.copytree(GOLDEN / "runs", folder / "runs")
    store = Store(folder / "runs")
    for trial in experiment().trials:
        record = store.record(trial.key)
        if record is not None and record.status == "done":
            curves = [{"train/loss": 2 / epoch, "validation/accuracy": 0.2 * epoch} for epoch in (1, 2, 3)]
            store.write(record.model_copy(update={"curves": curves}), store.predictions(record))
    return collect(experiment(), store, GOLDEN / "reported")


@pytest.fixture(scope="module")
def file(results: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    write(results, folder, folder / "runs")
    return folder / "table.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass
class Opened:
    """A page, and what it did that it should not: messages, dialogs, and requests for anything but itself."""

    page: Any
    messages: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def open(self, file: Path) -> None:
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.dialogs.append(dialog.message), dialog.dismiss()))
        own = file.resolve().as_uri()
        self.page.on("request", lambda r: None if r.url.startswith(("data:", own)) else self.requests.append(r.url))
        self.page.goto(own)

    def clean(self) -> bool:
        return (self.messages, self.dialogs, self.requests) == ([], [], [])


@pytest.fixture
def opened(browser: Any, file: Path) -> Iterator[Opened]:
    context = browser.new_context(viewport={"width": 1200, "height": 900}, color_scheme="light")
    made = Opened(context.new_page())
    made.open(file)
    yield made
    context.close()


def chart(opened: Opened, name: str) -> Any:
    return opened.page.locator(f"[data-chart={name}]")


def marks(opened: Opened, name: str) -> int:
    """How many points a chart shows."""
    return chart(opened, name).locator(".layer_1_marks path, .layer_2_marks path").count()


def test_the_page_opens_without_an_error_or_a_request(opened: Opened) -> None:
    assert chart(opened, "accuracy").locator("svg.marks").count() == 3, "audio, video, multi"
    assert chart(opened, "curves").locator("svg.marks").count() == 2
    assert chart(opened, "accuracy").locator(".still").is_hidden()
    assert opened.clean(), opened


def column(table: Any, number: int) -> list[str]:
    return table.locator(f"tbody tr > :nth-child({number})").all_inner_texts()


def numbers(texts: list[str]) -> list[float]:
    return [float(found[0]) for text in texts if (found := re.match(r"[+-]?[\d.]+", text))]


def test_a_table_sorts_by_a_click_and_by_the_keyboard(opened: Opened) -> None:
    table = opened.page.locator("main table").first
    head = table.locator("thead th").nth(3)
    before = numbers(column(table, 4))
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert numbers(column(table, 4)) == sorted(before, reverse=True)
    assert column(table, 4)[-1] == "–", "what was not run stays last"
    head.get_by_role("button").focus()
    opened.page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    assert numbers(column(table, 4)) == sorted(before)
    assert column(table, 4)[-1] == "–"
    first = table.locator("thead th").first
    first.get_by_role("button").focus()
    opened.page.keyboard.press("Space")
    assert column(table, 1) == ["concat", "mla", "sum"]
    assert head.get_attribute("aria-sort") is None
    assert opened.clean(), opened


def test_numbers_sort_by_their_value(opened: Opened) -> None:
    opened.page.set_content("")  # the functions of the page's script stay
    made = opened.page.evaluate(
        """() => {
            const row = (text) => element("tr", {}, element("td", {}, text));
            const head = element("th");
            const texts = ["9.5 ± 1", "10.25", "–", "+1,200", "-3.0 [-4, -2]", "−7"];
            const table = element("table", {}, element("thead", {}, element("tr", {}, head)), element("tbody", {}, ...texts.map(row)));
            sortBy(table, head);
            return [...table.tBodies[0].rows].map((each) => each.textContent);
        }"""
    )
    assert made == ["+1,200", "10.25", "9.5 ± 1", "-3.0 [-4, -2]", "−7", "–"]


def test_a_method_is_switched_off_in_every_chart(opened: Opened) -> None:
    before = {name: marks(opened, name) for name in ("accuracy", "curves")}
    switch = chart(opened, "accuracy").get_by_label("concat")
    switch.focus()
    opened.page.keyboard.press("Space")
    after = {name: marks(opened, name) for name in before}
    assert all(0 < after[name] < before[name] for name in before), (before, after)
    assert not chart(opened, "curves").get_by_label("concat").is_checked()
    chart(opened, "curves").get_by_role("button", name="Show all methods").click()
    assert {name: marks(opened, name) for name in before} == before
    chart(opened, "accuracy").get_by_role("button", name="Show no method").click()
    assert marks(opened, "accuracy") == 0
    assert opened.clean(), opened


def test_a_choice_changes_the_chart(opened: Opened, results: Results) -> None:
    lengths = []
    for protocol in ("clean", "legacy"):
        chart(opened, "accuracy").get_by_label("protocol").select_option(protocol)
        lengths.append(chart(opened, "accuracy").locator("svg.marks").first.inner_html())
    assert lengths[0] != lengths[1]


def test_a_point_tells_its_interval_and_n(opened: Opened, results: Results) -> None:
    table = results.table[(results.table.metric == "accuracy") & (results.table.pattern == "audio")]
    line = table[(table.protocol == "clean") & (table.method == "concat")].iloc[0]
    expected = [f"{line['mean']:.3g}", f"{line.ci_low:.3g} to {line.ci_high:.3g}", f"n = {line.n}"]
    tip = opened.page.get_by_role("status")
    panel = chart(opened, "accuracy").get_by_role("application").first
    panel.scroll_into_view_if_needed()
    panel.locator(".layer_1_marks path").first.hover()
    tip.wait_for(state="visible")
    text = tip.inner_text()
    assert text.startswith("concat, audio")
    assert all(part in text for part in expected), (text, expected)
    opened.page.mouse.move(0, 0)
    tip.wait_for(state="hidden")
    panel.focus()
    opened.page.keyboard.press("ArrowRight")
    assert tip.inner_text() == text, "by the keyboard too"
    opened.page.keyboard.press("ArrowRight")
    assert tip.inner_text().startswith("sum, audio")
    opened.page.keyboard.press("Escape")
    assert tip.is_hidden()
    assert opened.clean(), opened


GROUND = "getComputedStyle(document.body).backgroundColor"
LINE = "getComputedStyle(document.querySelector('.layer_0_marks line')).stroke"


def test_dark_and_light(opened: Opened) -> None:
    assert opened.page.evaluate(GROUND) == "rgb(255, 255, 255)"
    line = opened.page.evaluate(LINE)
    assert re.fullmatch(r"rgb\(\d+, \d+, \d+\)", line)
    button = opened.page.get_by_role("button", name="Switch to dark colours")
    button.focus()
    opened.page.keyboard.press("Enter")
    assert opened.page.evaluate(GROUND) == "rgb(21, 24, 28)"
    assert opened.page.evaluate(LINE) != line
    opened.page.get_by_role("button", name="Switch to light colours").click()
    opened.page.emulate_media(color_scheme="dark")
    assert opened.page.evaluate(GROUND) == "rgb(255, 255, 255)", "what was chosen holds"
    opened.page.reload()
    assert opened.page.evaluate(GROUND) == "rgb(21, 24, 28)", "and else what the system prefers"
    opened.page.emulate_media(media="print")
    assert opened.page.evaluate(GROUND) == "rgb(255, 255, 255)"


def test_what_a_screen_reader_and_a_keyboard_find(opened: Opened) -> None:
    page = opened.page
    for landmark in ("main", "navigation", "banner"):
        assert page.get_by_role(landmark).count() == 1
    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to the report")
    assert skip.evaluate("link => link === document.activeElement && link.getBoundingClientRect().left > 0")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.keyboard.press("Tab")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid", "the focus is seen"
    nameless = page.evaluate(
        """[...document.querySelectorAll("button, select, input, a, [role=region], [role=application], img")].filter((each) =>
            !(each.ariaLabel || each.alt || each.textContent.trim() || each.labels?.[0]?.textContent.trim())).length"""
    )
    assert nameless == 0
    assert opened.clean(), opened


def test_on_a_telephone_nothing_is_wider_than_the_screen(opened: Opened) -> None:
    opened.page.set_viewport_size({"width": 400, "height": 800})
    opened.page.reload()
    assert opened.page.evaluate("document.documentElement.scrollWidth") == 400
    width = chart(opened, "accuracy").locator("svg.marks").first.bounding_box()["width"]
    assert 250 < width <= 400


def test_without_scripts_tables_and_figures_are_there(browser: Any, file: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(file.resolve().as_uri())
    assert page.locator("main table").first.is_visible()
    assert page.locator(".chart .still").first.is_visible()
    assert page.locator("#theme").is_hidden()
    assert page.locator(".controls").first.is_hidden()
    context.close()


@pytest.mark.parametrize("attack", ATTACKS)
def test_hostile_names_stay_text(browser: Any, results: Results, tmp_path: Path, attack: str) -> None:
    made = deepcopy(results)
    made.experiment.grid.title = attack
    made.experiment.unprepared = {attack: attack}
    made.modalities = {attack: made.modalities["crema_d"]}
    made.experiment.grid.datasets = {attack: made.experiment.grid.datasets["crema_d"]}
    made.tests = {(attack, protocol): facts for (_, protocol), facts in made.tests.items()}
    for row in made.rows:
        row.dataset = attack
        row.method = attack if row.method == "concat" else row.method
        row.gaps = [attack]
    for frame in (made.table, made.inflation, made.comparisons):
        frame["dataset"] = attack
        frame["method"] = frame["method"].replace("concat", attack)
    write(made, tmp_path)
    context = browser.new_context()
    opened = Opened(context.new_page())
    opened.open(tmp_path / "table.html")
    page = opened.page
    assert page.title() == attack
    first = chart(opened, "accuracy").get_by_role("application").first
    first.focus()
    page.keyboard.press("ArrowRight")
    assert page.get_by_role("status").inner_text().startswith(f"{attack}, audio")
    chart(opened, "accuracy").get_by_label(attack).first.uncheck()
    for button in page.locator("thead button").all():
        button.dispatch_event("click")
    page.wait_for_timeout(200)
    assert page.evaluate("[...document.scripts].length") == 3
    assert opened.clean(), opened
    context.close()
