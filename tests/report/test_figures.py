"""Every figure, of reports large and small: nothing empty, nothing cut, and what it shows is what was measured."""

from __future__ import annotations

import io
import re
import warnings
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pandas as pd
import pytest
from make_golden import MODALITIES
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from PIL import Image

from mmbench.experiment.grid import Grid
from mmbench.experiment.plan import Experiment, Labels
from mmbench.metrics import summary
from mmbench.recipe import Recipe
from mmbench.record import Failure, Predictions, Record
from mmbench.report.collect import Results, collect
from mmbench.report.colours import palette
from mmbench.report.figures.accuracy import PROTOCOL_COLOURS, draw
from mmbench.report.figures.base import Short, key, render, sample, short
from mmbench.report.figures.classes import draw_confusion, draw_recall, shares
from mmbench.report.figures.cost import draw_cost
from mmbench.report.figures.differences import draw_differences, draw_pairs, to_references
from mmbench.report.figures.epochs import by_epoch, draw_epochs, draw_gradients, mean_and_spread
from mmbench.report.figures.gallery import figures
from mmbench.report.figures.reliability import draw_reliability
from mmbench.report.page import write
from mmbench.store import Store
from mmbench.trial import Trial

SAMPLES, GROUPS, EPOCHS = 40, 10, 4
OF_ALL = {"figure", "curves", "confusion", "recall", "reliability", "cost"}


def a_trial(number: int, seed: int, method: str) -> Trial:
    recipe = Recipe(epochs=EPOCHS, batch_size=8, lr=0.1, momentum=0.9, weight_decay=0.0, step_size=1, gamma=0.5)
    return Trial(
        dataset="crema_d",
        data="figures",
        protocol="clean",
        method=method,
        seed=seed,
        encoders={"audio": {"name": "resnet18_audio"}, "video": {"name": "resnet18"}},
        params={"number": number},
        recipe=recipe,
        views={"audio": "fbank", "video": "frames"},
    )


def a_curve(number: int, seed: int, old: bool) -> list[dict[str, float]]:
    """Older records have neither a validation loss nor gradients."""
    new = {"validation/loss": 1.0 + number, "gradient/audio": -1.0, "gradient/video": -2.0}
    modulated = {"gradient/audio/modulated": -1.5, "gradient/video/modulated": -2.0}
    return [
        {"train/loss": (number + 1) / (e + 1), "validation/accuracy": 0.1 * e + 0.01 * seed}
        | ({} if old else new | modulated)
        for e in range(EPOCHS)
    ]


def some_predictions(number: int, seed: int, classes: int) -> Predictions:
    label = np.random.default_rng(0).permutation(np.arange(SAMPLES) % classes)
    own = np.random.default_rng([number, seed])
    scores = own.normal(0, 0.5, (3, SAMPLES, classes))
    right = own.random((3, SAMPLES)) < 0.3 + 0.6 * (number % 5) / 5
    scores[:, np.arange(SAMPLES), label] += np.where(right, 3, 0)
    log_probs = (scores - np.log(np.exp(scores).sum(axis=-1, keepdims=True))).astype(np.float16)
    return Predictions(
        modalities=np.array(MODALITIES),
        label=label,
        group=np.arange(SAMPLES) % GROUPS,
        present=np.ones((SAMPLES, 2), bool),
        predicted=log_probs.argmax(axis=-1).astype(np.int16),
        log_probs=log_probs,
        log_prior=np.log(np.full(classes, 1 / classes)).astype(np.float32),
        attack=np.empty(0, np.int16),
    )


@cache
def report(
    methods: int = 5, seeds: int = 2, classes: int = 6, late: bool = True, failed: bool = False, old: bool = False
) -> Results:
    """A report of so many methods, the second of which is late fusion."""
    names = ["late_fusion" if late and i == 1 else f"method {i}" for i in range(methods)]
    trials = {
        (i, seed): a_trial(i, seed, "late_fusion" if name == "late_fusion" else "concat")
        for i, name in enumerate(names)
        for seed in range(seeds)
    }
    grid = {"title": "Figures", "datasets": {"crema_d": None}, "methods": {"concat": None}, "seeds": list(range(seeds))}
    labels = {trial.key: Labels("crema_d", names[i]) for (i, _), trial in trials.items()}
    store = Store(Path(mkdtemp()))
    for (i, seed), trial in trials.items():
        common = {
            "key": trial.key,
            "trial": trial,
            "started": "2026-01-01T00:00:00+00:00",
            "finished": "2026-01-01T00:01:00+00:00",
            "environment": {"commit": "0123456789", "dirty": False},
        }
        if failed:
            failure = Failure(kind="exception", message="ValueError: no")
            store.write(Record(**common, status="failed", failure=failure))
            continue
        made = some_predictions(i, seed, classes)
        metrics = {
            name: summary(made.label, made.predicted[k], made.log_probs[k]) for k, name in enumerate(made.pattern_names)
        }
        record = Record(
            **common, status="done", parameters=10 ** (3 + i % 3), seconds={"build": 1.0, "fit": 10.0 + i, "test": 0.5},
            memory_mb=100.0 + i, metrics=metrics, best_epoch=2, curves=a_curve(i, seed, old),
        )  # fmt: skip
        store.write(record, made)
    return collect(Experiment("figures", Grid.model_validate(grid), list(trials.values()), labels=labels), store)


def panels(figure: Figure | None) -> list:
    assert figure is not None
    return [axes for axes in figure.axes if axes.get_visible()]


def key_of(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def texts_of(svg: bytes) -> str:
    return " ".join(re.findall(r">([^<>]+)</text>", svg.decode()))


# Which figures there are


@pytest.mark.parametrize(
    ("settings", "more"),
    [
        ({}, ("differences", "pairs", "gradients")),
        ({"seeds": 1, "methods": 1, "late": False}, ("gradients",)),
        ({"late": False, "old": True}, ("pairs",)),
        pytest.param({"methods": 40, "classes": 3}, ("differences", "pairs", "gradients"), marks=pytest.mark.slow),
        ({"classes": 101, "methods": 2}, ("differences", "pairs", "gradients")),
    ],
    ids=str,
)
def test_every_figure_has_something_to_show(settings: dict, more: tuple[str, ...]) -> None:
    drawn = dict(figures(report(**settings)))
    assert set(drawn) == OF_ALL | set(more)
    for name, (figure, caption) in drawn.items():
        assert caption.endswith(".")
        for panel in panels(figure):
            assert panel.lines or panel.images or panel.collections or panel.containers, f"an empty panel of {name}"
        assert "mathdefault" not in render(figure, "svg").decode(), f"{name} has a formula that nobody sets"


def test_figures_of_the_same_numbers_are_the_same_bytes() -> None:
    drawn, again = dict(figures(report(methods=3))), dict(figures(report(methods=3)))
    for name, (figure, _) in drawn.items():
        for kind in ("svg", "png"):
            data = render(figure, kind)
            assert render(again[name][0], kind) == data
        width, height = figure.get_size_inches()
        assert Image.open(io.BytesIO(data)).size == pytest.approx((160 * width, 160 * height), abs=1)


def test_where_all_trials_failed_there_is_no_figure_and_the_report_is_written_all_the_same(tmp_path: Path) -> None:
    failed = report(failed=True)
    assert dict(figures(failed)) == {}
    assert {"table.html", "table.md"} <= {path.name for path in write(failed, tmp_path)}
    assert not list(tmp_path.glob("*.png"))


def test_letters_that_the_font_lacks_are_no_warning() -> None:
    figure = Figure(layout="constrained")
    figure.subplots().set_title("\u6f22\u5b57")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert render(figure, "png")


# Differences


def test_differences_to_a_reference_are_turned_where_it_comes_first() -> None:
    lines = [("a", "r", 2.0, 1.0, 3.0), ("r", "b", 4.0, -1.0, 5.0), ("a", "b", 9.0, 9.0, 9.0)]
    pairs = pd.DataFrame(lines, columns=["method", "other", "difference", "ci_low", "ci_high"])
    assert to_references(pairs, {"a": "r", "b": "r", "r": None}).to_dict("records") == [
        {"method": "a", "other": "r", "difference": 2.0, "ci_low": 1.0, "ci_high": 3.0},
        {"method": "b", "other": "r", "difference": -4.0, "ci_low": -5.0, "ci_high": 1.0},
    ]


def test_tuned_methods_are_compared_with_the_tuned_reference() -> None:
    results = report()
    tuned = {"method 3": "method 3, tuned", "method 4": "late_fusion, tuned"}
    rows = [replace(r, method=tuned.get(r.method, r.method), tuned=r.method in tuned) for r in results.rows]
    comparisons = results.comparisons.replace({"method": tuned, "other": tuned})
    (panel,) = panels(draw_differences(replace(results, rows=rows, comparisons=comparisons)))
    assert [t.get_text() for t in panel.get_yticklabels()] == ["method 0", "method 2", "method 3, tuned"]
    assert panel.get_title().splitlines()[1:] == ["minus late_fusion", "tuned: minus late_fusion, tuned"]
    pair = comparisons[(comparisons.method == "method 3, tuned") & (comparisons.pattern == "audio+video")].iloc[0]
    points = {line.get_ydata()[0]: line.get_xdata()[0] for line in panel.lines if len(line.get_xdata()) == 1}
    assert (pair.other, points[2]) == ("late_fusion, tuned", pytest.approx(pair.difference))


def test_in_a_grid_of_panels_the_last_of_each_column_has_its_numbers() -> None:
    results = report(methods=3)
    protocols = [f"protocol {i}" for i in range(4)]
    rows = [replace(row, protocol=protocol) for protocol in protocols for row in results.rows]
    comparisons = pd.concat([results.comparisons.assign(protocol=protocol) for protocol in protocols])
    figure = draw_differences(replace(results, rows=rows, comparisons=comparisons))
    assert figure is not None
    figure.draw_without_rendering()
    numbers = [any(t.get_visible() and t.get_text() for t in p.get_xticklabels()) for p in panels(figure)]
    assert numbers == [False, True, True, True]
    assert {t.get_fontsize() for p in panels(figure) for t in p.get_yticklabels()} == {7}


# Accuracy


def test_each_protocol_has_its_own_line_of_the_most_frequent_class_where_they_differ() -> None:
    results = report()
    facts = results.tests["crema_d", "clean"]

    def lines(**shares: float) -> dict[str, tuple[float, str]]:
        tests = {("crema_d", protocol): replace(facts, majority=share) for protocol, share in shares.items()}
        every = panels(draw(replace(results, tests=tests)))[0].lines
        return {str(n): (x.get_xdata()[0], x.get_color()) for x in every if "class" in (n := str(x.get_label()))}

    assert lines(clean=20.0, peek=20.0) == {"most frequent class": (20.0, "0.6")}
    assert lines(clean=20.0, peek=30.0, legacy=30.0) == {
        "most frequent class, clean": (20.0, PROTOCOL_COLOURS["clean"]),
        "most frequent class, peek and legacy": (30.0, PROTOCOL_COLOURS["peek"]),
    }


def test_what_is_separable_from_the_reference_is_filled() -> None:
    results = report()
    (panel,) = panels(draw_differences(results))
    every = results.comparisons[results.comparisons.pattern == "audio+video"]
    styles = palette([row.method for row in results.rows])
    points = {line.get_color(): line for line in panel.lines if len(line.get_xdata()) == 1}
    separable = []
    for method, style in styles.items():
        if method == "late_fusion":
            assert style.colour not in points, "the reference is not compared with itself"
            continue
        pair = every[((every.method == method) | (every.other == method))]
        pair = pair[(pair.method == "late_fusion") | (pair.other == "late_fusion")].iloc[0]
        sign = 1 if pair.other == "late_fusion" else -1
        assert points[style.colour].get_xdata()[0] == pytest.approx(sign * pair.difference)
        separable.append(not pair.ci_low <= 0 <= pair.ci_high)
        assert (points[style.colour].get_markerfacecolor() != "white") == separable[-1]
    assert {True, False} == set(separable)
    assert "practically equivalent: within ± 1 point" in key_of(panel.figure)


def test_the_matrix_of_pairs_is_its_own_mirror() -> None:
    results = report()
    (panel,) = panels(draw_pairs(results))
    mesh = next(c for c in panel.collections if isinstance(c, QuadMesh))
    sign = np.asarray(mesh.get_array()).reshape(5, 5)
    assert (sign == -sign.T).all()
    assert {-1, 0, 1} == set(sign.ravel())
    numbers = {(t.get_position()[::-1]): float(t.get_text().replace("−", "-")) for t in panel.texts}
    every = results.comparisons[results.comparisons.pattern == "audio+video"]
    methods = [row.method for row in results.rows]
    assert len(numbers) == 20
    for pair in every.itertuples():
        i, j = methods.index(pair.method), methods.index(pair.other)
        assert numbers[i, j] == -numbers[j, i] == pytest.approx(pair.difference, abs=0.051)
        assert sign[i, j] == (0 if pair.ci_low <= 0 <= pair.ci_high else np.sign(pair.difference))


def test_pairs_of_many_methods_have_no_numbers() -> None:
    (panel,) = panels(draw_pairs(report(methods=40, classes=3)))
    assert not panel.texts
    assert len(panel.get_yticklabels()) == 40


# Epochs


def records(*curves: list[float]) -> list[Record]:
    class Curved:
        def __init__(self, values: list[float]) -> None:
            self.curves = [{"x": v} for v in values]

    return [Curved(values) for values in curves]  # type: ignore[misc]


def test_curves_that_end_early_are_left_out_of_the_mean_from_there_on() -> None:
    values = by_epoch(records([1.0, 2.0, 3.0], [3.0, float("inf")]), "x")
    assert values is not None
    mean, spread = mean_and_spread(values)
    assert mean.tolist() == [2.0, 2.0, 3.0]
    assert spread.tolist() == pytest.approx([2**0.5, 0.0, 0.0])
    assert by_epoch(records([1.0]), "y") is None
    assert by_epoch([], "x") is None


def test_curves_show_the_methods_their_chosen_epoch_and_what_the_records_have() -> None:
    results = report()
    figure = draw_epochs(results)
    titles = [panel.get_title() for panel in panels(figure)]
    assert titles[:3] == ["training loss", "validation loss", "validation accuracy, %"]
    style = palette([row.method for row in results.rows])["method 2"]
    accuracy = panels(figure)[2]
    own = [line for line in accuracy.lines if line.get_color() == style.colour]
    assert own[0].get_ydata() == pytest.approx([0.5, 10.5, 20.5, 30.5])
    assert own[0].get_xdata().tolist() == [1, 2, 3, 4]
    assert (own[1].get_xdata()[0], own[1].get_ydata()[0]) == (3, pytest.approx(20.5)), "the chosen one is the third"
    assert min(accuracy.get_xlim()) > 0, "there is no epoch 0"
    assert {t.get_text() for p in panels(figure) for t in p.texts} == {row.method for row in results.rows}
    assert "± 1 standard deviation over seeds and folds" in key_of(figure)  # type: ignore[arg-type]


def test_records_without_a_validation_loss_have_no_column_of_it() -> None:
    old = report(late=False, old=True)
    assert [p.get_title() for p in panels(draw_epochs(old))][:2] == ["training loss", "validation accuracy, %"]
    assert draw_gradients(old) is None


def test_a_gradient_is_dashed_where_the_method_changed_it() -> None:
    panel = panels(draw_gradients(report()))[0]
    lines = {(line.get_linestyle(), float(line.get_ydata()[0])) for line in panel.lines}
    assert {float(line.get_xdata()[0]) for line in panel.lines} == {1.0}
    assert lines == {("-", -1.0), ("-", -2.0), ("--", -1.5)}, "the video's is what it was"


# Classes


def test_confusions_are_shares_of_the_true_class() -> None:
    results = report()
    figure = draw_confusion(results, "crema_d")
    counts = results.confusions["crema_d", "clean", "complete", "method 0"]
    expected = [[100 * v / row.sum() for v in row] for row in counts]
    assert np.asarray(panels(figure)[0].images[0].get_array()) == pytest.approx(np.array(expected))
    recall = np.asarray(panels(draw_recall(results))[0].images[0].get_array())
    assert recall[0] == pytest.approx(np.diag(expected))
    assert "anger" in {t.get_text() for t in panels(figure)[0].get_yticklabels()}, "classes have their names"
    assert np.isnan(shares(np.array([[0, 0], [1, 3]]))[0]).all(), "of a class that does not occur there is no share"


def test_a_confusion_of_many_methods_says_how_many_are_left_out() -> None:
    figure = draw_confusion(report(methods=40, classes=3), "crema_d")
    assert figure is not None
    assert len(panels(figure)) == 12
    assert "28 more methods not shown" in figure.get_suptitle()


def test_of_many_classes_some_are_named_and_none_has_a_number() -> None:
    panel = panels(draw_confusion(report(classes=101, methods=2), "crema_d"))[0]
    assert not panel.texts
    assert [t.get_text() for t in panel.get_yticklabels()] == [str(i) for i in range(0, 101, 9)]


# Cost and reliability


def test_seconds_and_memory_are_in_ones_own_report_alone() -> None:
    published, own = draw_cost(report(), published=True), draw_cost(report(), published=False)
    assert [p.get_xlabel() for p in panels(published)] == ["trainable parameters"]
    assert [p.get_xlabel() for p in panels(own)] == ["trainable parameters", "seconds of training", "peak memory, MB"]
    assert panels(published)[0].get_xscale() == "log"
    seconds = {float(line.get_xdata()[0]) for line in panels(own)[1].lines}
    assert seconds == {10.0, 11.0, 12.0, 13.0, 14.0}


def test_costs_of_one_size_have_ticks_too() -> None:
    axis = panels(draw_cost(report(methods=1, seeds=1, late=False), published=True))[0].xaxis
    assert axis.get_scale() == "linear"
    assert short(1000.0) == "1k"


def test_ticks_close_together_have_as_many_digits_as_tell_them_apart() -> None:
    assert Short().format_ticks([152_480.0, 152_500.0, 152_520.0]) == ["152.48k", "152.5k", "152.52k"]
    assert Short().format_ticks([150_000.0, 180_000.0]) == ["150k", "180k"]
    assert Short().format_ticks([]) == []


@pytest.mark.parametrize("length", [3, 10, 18, 24])
def test_a_key_is_no_wider_than_its_figure(length: int) -> None:
    figure = Figure(figsize=(4.2, 3), layout="constrained")
    figure.subplots()
    style = palette(["m"])["m"]
    key(figure, [sample("late_fusion, tuned, often"[:length], style) for _ in range(7)])
    figure.draw_without_rendering()
    box = figure.legends[0].get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.x1


def test_reliability_is_drawn_by_how_many_modalities_are_shown() -> None:
    results = report()
    figure = draw_reliability(results)
    assert [p.get_title("left").splitlines()[-1] for p in panels(figure)][:2] == [
        "1 of 2 modalities shown",
        "2 of 2 modalities shown",
    ]
    bins = results.reliability[(results.reliability.method == "method 0") & (results.reliability.shown == 2)]
    bins = bins[bins.share >= 0.005]
    style = palette([row.method for row in results.rows])["method 0"]
    line = next(one for one in panels(figure)[1].lines if one.get_color() == style.colour)
    assert line.get_xdata() == pytest.approx(bins.confidence.to_numpy())
    assert line.get_ydata() == pytest.approx(bins.accuracy.to_numpy())


@pytest.mark.parametrize("name", ["$x$", "a$b", "<b>&</b>", "\x1b[31mred", "a\nb"])
def test_hostile_names_stay_text(name: str) -> None:
    results = report()
    for row in results.rows[:1]:
        row.method, old = name, row.method
    try:
        svg = render(draw_epochs(results), "svg")  # type: ignore[arg-type]
    finally:
        results.rows[0].method = old
    shown = name.replace("\x1b", "\N{REPLACEMENT CHARACTER}").replace("\n", " ")
    for plain, escaped in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        shown = shown.replace(plain, escaped)
    assert shown in texts_of(svg)
