"""A report of six modalities: of 63 patterns, readers get those that they can take in, and programs get all."""

from __future__ import annotations

import numpy as np
import pytest

from mmbench.data import DATASETS
from mmbench.evidence.accuracy import MEAN
from mmbench.experiment.grid import Grid
from mmbench.experiment.plan import Experiment
from mmbench.metrics import summary
from mmbench.missing import pattern_matrix
from mmbench.recipe import Recipe
from mmbench.record import Predictions, Record
from mmbench.report.cells import columns
from mmbench.report.collect import Results, collect
from mmbench.report.diagnostic_tables import of_diagnostics
from mmbench.report.figures.reliability import MOST_COLUMNS, draw_reliability
from mmbench.report.html import to_html
from mmbench.report.tables import sections
from mmbench.store import Store
from mmbench.trial import Trial

VIEWS = DATASETS["handwritten"].modalities
METHODS = ("late_fusion", "concat")
SAMPLES, CLASSES = 60, 10


def predictions(number: int) -> Predictions:
    """The more is shown, the more often it is right; the second method makes less of it."""
    rng = np.random.default_rng(number)
    label = np.arange(SAMPLES) % CLASSES
    evidence = rng.normal(0, 1, (len(VIEWS), SAMPLES, CLASSES))
    evidence[:, np.arange(SAMPLES), label] += 1.5 - number
    scores = np.einsum("pm,mnc->pnc", np.array(pattern_matrix(VIEWS), float), evidence)
    log_probs = (scores - np.log(np.exp(scores).sum(axis=-1, keepdims=True))).astype(np.float16)
    present, prior = np.ones((SAMPLES, len(VIEWS)), bool), np.full(CLASSES, -np.log(CLASSES), np.float32)
    classes = log_probs.argmax(axis=-1).astype(np.int16)
    return Predictions(
        np.array(VIEWS), label, np.arange(SAMPLES) // 3, present, classes, log_probs, prior, np.empty(0, np.int16)
    )


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    content = {"title": "Six", "datasets": {"handwritten": {}}, "methods": dict.fromkeys(METHODS), "patterns": "all"}
    encoders = {view: {"name": "mlp"} for view in VIEWS}
    trials = [
        Trial(dataset="handwritten", data="made", protocol="clean", method=m, seed=0, encoders=encoders, params={}, recipe=Recipe())
        for m in METHODS
    ]  # fmt: skip
    store = Store(tmp_path_factory.mktemp("store"))
    for number, trial in enumerate(trials):
        made = predictions(number)
        rows = zip(made.pattern_names, made.predicted, made.log_probs, strict=True)
        store.write(
            Record(
                key=trial.key, trial=trial, status="done", started="2026-01-01", finished="2026-01-01", environment={},
                seconds={"build": 1, "fit": 2, "test": 1},
                metrics={name: summary(made.label, predicted, log_probs) for name, predicted, log_probs in rows},
            ),
            made,
        )  # fmt: skip
    return collect(Experiment("six", Grid.model_validate({**content, "seeds": [0]}), trials), store)


def test_all_of_many_patterns_are_those_with_one_and_those_without_one() -> None:
    assert list(columns(tuple("abcd"), "all"))[-3:] == ["b+c+d", "a+b+c+d", MEAN]
    assert len(columns(tuple("abcd"), "all")) == 16
    assert columns(tuple("abcde"), "all") == {
        **{m: m for m in "abcde"},
        **{"b+c+d+e": "without a", "a+c+d+e": "without b", "a+b+d+e": "without c", "a+b+c+e": "without d", "a+b+c+d": "without e"},
        "a+b+c+d+e": "multi",
        MEAN: MEAN,
    }  # fmt: skip


def test_the_table_for_readers_can_be_read(results: Results) -> None:
    table = sections(results)[0]
    headings = [*VIEWS, *(f"without {view}" for view in VIEWS), "multi", MEAN]
    assert table.header == ["method", *headings, "− late_fusion", "n", "parameters"]
    assert any(note.startswith("Of the 63 patterns, only those") for note in table.notes)
    multi = table.body[0][table.header.index("multi")].text
    assert float(multi) == pytest.approx(100 * (predictions(0).predicted[-1] == predictions(0).label).mean(), abs=0.05)


def test_programs_get_every_pattern(results: Results) -> None:
    assert results.table.pattern.nunique() == 64
    assert results.diagnostics[results.diagnostics.diagnostic == "information"]["of"].nunique() == 63
    assert set(results.comparisons.pattern) == set(columns(VIEWS, "all"))


def test_the_page_has_the_patterns_of_the_table(results: Results) -> None:
    page = to_html(results)
    assert "Patterns with one modality, without one and with all" in page
    assert f">{'+'.join(VIEWS[1:])}<" in page
    assert f">{'+'.join(VIEWS[:3])}<" not in page


def test_laziness_has_a_star_in_place_of_its_interval(results: Results) -> None:
    apart, _ = of_diagnostics(results)
    lazy = [apart.body[1][apart.header.index(f"{view} lazy")].text for view in VIEWS]
    assert all("[" not in text for text in lazy)
    assert any(text.startswith("+") and text.endswith(" *") for text in lazy)
    assert any("*: its 95 % interval leaves out zero" in note for note in apart.notes)


def test_reliability_has_few_panels(results: Results) -> None:
    figure = draw_reliability(results)
    assert figure is not None
    titles = [axes.get_title(loc="left").rpartition("\n")[2] for axes in figure.axes]
    assert titles == [f"{count} of 6 modalities shown" for count in (1, 3, 4, 6)]
    assert len(titles) == MOST_COLUMNS
