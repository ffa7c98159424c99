"""Accuracy by missing rate: look-ups in stored predictions, against naive loops over samples and masks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import mmbench.report.page
from mmbench.evidence.rates import DRAWS, robustness
from mmbench.experiment.grid import Grid
from mmbench.experiment.plan import Experiment
from mmbench.missing import Missing, pattern_name, patterns
from mmbench.recipe import Recipe
from mmbench.record import Predictions, Record
from mmbench.report.collect import Results, collect
from mmbench.report.figures.base import render
from mmbench.report.figures.gallery import figures
from mmbench.report.figures.masked import draw_training
from mmbench.report.figures.rates import draw_curves, draw_rate_differences
from mmbench.report.figures.surface import draw_surface
from mmbench.report.rates import Rates
from mmbench.report.tables import sections, to_markdown
from mmbench.store import Store
from mmbench.trial import Trial

MODALITIES = ("audio", "image", "text")
DATASET = "iemocap_features"  # its name alone: the papers have numbers for it
RATES = (0.1, 0.4, 0.7)
METHODS = ("late_fusion", "cra")
SIZE, CLASSES = 60, 4
DROPOUT = Missing(rate=0.5, train_only=True, redraw=True)
TRAIN_ONLY = [Missing(kind="per_modality", rates={m: 0.5}, train_only=True) for m in ("audio", "text")]


def trial(method: str, seed: int, missing: Missing | None) -> Trial:
    return Trial(
        dataset=DATASET,
        data="made up",
        protocol="clean",
        missing=missing,
        method=method,
        seed=seed,
        encoders={m: {"name": "mlp"} for m in MODALITIES},
        params={},
        recipe=Recipe(),
    )


def predictions(of: Trial) -> Predictions:
    shared = np.random.default_rng(0)
    label = shared.integers(0, CLASSES, SIZE)
    present = shared.random((SIZE, 3)) < 0.9
    present[~present.any(axis=1), 0] = True
    own = np.random.default_rng(
        [METHODS.index(of.method), of.seed, int(10 * (of.missing.rate or 0) if of.missing else 0)]
    )
    skill = np.array([len(p) for p in patterns(MODALITIES)])[:, None] / 4
    right = own.random((7, SIZE)) < skill
    predicted = np.where(right, label, (label + 1) % CLASSES)
    log_probs = np.log(np.where(np.arange(CLASSES) == predicted[..., None], 0.8, 0.1)).astype(np.float16)
    return Predictions(
        modalities=np.array(MODALITIES),
        label=label,
        group=np.arange(SIZE) // 3,
        present=present,
        predicted=predicted.astype(np.int16),
        log_probs=log_probs,
        log_prior=np.log([0.2, 0.5, 0.2, 0.1]).astype(np.float16),
        attack=np.empty(0, np.int16),
    )


def write(store: Store, trials: list[Trial]) -> None:
    for t in trials:
        # The modality that is best alone where epochs are chosen: text, whatever the test split says.
        alone = {"audio": 0.3, "image": 0.4, "text": 0.5}
        curve = {"validation/accuracy": 0.6, **{f"validation/accuracy/{m}": v for m, v in alone.items()}}
        record = Record(
            key=t.key, trial=t, status="done", started="", finished="", environment={}, parameters=1,
            seconds={"fit": 1.0}, best_epoch=1, curves=[{"validation/accuracy": 0.0}, curve],
        )  # fmt: skip
        store.write(record, predictions(t))


def experiment(trainings: list[Missing | None], **settings: object) -> Experiment:
    grid = Grid.model_validate(
        {"title": "rates", "datasets": {DATASET: None}, "methods": dict.fromkeys(METHODS), "seeds": [0, 1], **settings}
    )
    return Experiment("rates", grid, [trial(m, s, t) for t in trainings for s in (0, 1) for m in METHODS])


REPORTED = Path(__file__).parents[2] / "results" / "reported"
TRAININGS = [None, *(Missing(rate=r) for r in RATES), DROPOUT]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    plan, store = experiment(TRAININGS), Store(tmp_path_factory.mktemp("store"))
    write(store, plan.trials)
    return collect(plan, store, REPORTED)


@pytest.fixture(scope="module")
def rates(results: Results) -> Rates:
    assert results.rates is not None
    return results.rates


def naive_accuracy(p: Predictions, mask: np.ndarray, only: str | None = None) -> float:
    """Look up every sample's prediction for what the mask shows of it."""
    names = [pattern_name(q) for q in patterns(MODALITIES)]
    hits = 0
    for i in range(len(p.label)):
        shown = [m for j, m in enumerate(MODALITIES) if mask[i, j] and only in (None, m)]
        answer = (
            p.predicted[names.index("+".join(shown))][i] if shown else 1
        )  # class 1 is the most frequent in training
        hits += int(answer == p.label[i])
    return 100 * hits / len(p.label)


def mask(rate: float, seed: int = 0) -> np.ndarray:
    return Missing(rate=rate, seed=seed).mask(DATASET, "test", MODALITIES, SIZE)


def line(frame: pd.DataFrame, **where: object) -> pd.Series:
    for column, value in where.items():
        frame = frame[frame[column] == value]
    assert len(frame) == 1, frame
    return frame.iloc[0]


@pytest.mark.parametrize("rate", [0.0, *RATES])
def test_matched_is_training_and_test_at_one_rate_under_the_fixed_mask(rates: Rates, rate: float) -> None:
    missing = Missing(rate=rate) if rate else None
    expected = [naive_accuracy(predictions(trial("cra", s, missing)), mask(rate)) for s in (0, 1)]
    got = line(rates.curves, evaluation="matched", method="cra", rate=rate)
    assert got["mean"] == pytest.approx(np.mean(expected))
    assert got["std"] == pytest.approx(np.std(expected, ddof=1))
    assert got["ci_low"] <= got["mean"] <= got["ci_high"]
    assert got["n"] == 2


@pytest.mark.parametrize("training", [None, Missing(rate=0.4), DROPOUT], ids=str)
def test_robustness_is_the_mean_over_masks_of_every_rate(rates: Rates, training: Missing | None) -> None:
    for rate in (0.1, 0.7):
        expected = [
            np.mean([naive_accuracy(predictions(trial("cra", s, training)), mask(rate, k)) for k in range(DRAWS)])
            for s in (0, 1)
        ]
        name = str(training) if training else "complete"
        got = line(rates.curves, evaluation="robustness", training=name, method="cra", rate=rate)
        assert got["mean"] == pytest.approx(np.mean(expected))


@pytest.mark.parametrize("kind", ["anchor", "bernoulli"])
def test_one_trials_curve_from_python(kind: str) -> None:
    p = predictions(trial("cra", 0, None))
    got = robustness(p, DATASET, [0.1, 0.6], kind, draws=7)  # type: ignore[arg-type]
    for value, rate in zip(got, [0.1, 0.6], strict=True):
        masks = [Missing(kind=kind, rate=rate, seed=k).mask(DATASET, "test", MODALITIES, SIZE) for k in range(7)]  # type: ignore[arg-type]
        assert value == pytest.approx(np.mean([naive_accuracy(p, m) for m in masks]))


def test_a_curve_at_rate_zero_is_the_accuracy_with_everything() -> None:
    p = predictions(trial("cra", 0, None))
    assert robustness(p, DATASET, [0.0])[0] == pytest.approx(100 * (p.predicted[-1] == p.label).mean())


def test_the_area_is_the_mean_height_of_the_curve_without_rate_zero(rates: Rates) -> None:
    curve = rates.curves[(rates.curves.evaluation == "matched") & (rates.curves.method == "cra")]
    y = dict(zip(curve.rate, curve["mean"], strict=True))
    expected = ((y[0.1] + y[0.4]) / 2 * 0.3 + (y[0.4] + y[0.7]) / 2 * 0.3) / 0.6
    got = line(rates.areas, evaluation="matched", method="cra")
    assert got["area"] == pytest.approx(expected)
    assert got["area_low"] < got["area"] < got["area_high"]


def test_the_gain_is_over_the_best_modality_alone_under_the_same_mask(rates: Rates) -> None:
    assert set(rates.curves.best_alone) == {"text"}
    gains = {}
    for rate in RATES:
        alone, whole = (
            np.mean([naive_accuracy(predictions(trial(m, s, Missing(rate=rate))), mask(rate), only) for s in (0, 1)])
            for m, only in (("late_fusion", "text"), ("cra", None))
        )
        gains[rate] = whole - alone
    expected = ((gains[0.1] + gains[0.4]) / 2 * 0.3 + (gains[0.4] + gains[0.7]) / 2 * 0.3) / 0.6
    got = line(rates.areas, evaluation="matched", method="cra")
    assert got["gain"] == pytest.approx(expected)
    assert got["gain_low"] < got["gain"] < got["gain_high"]


def test_effective_robustness_is_what_is_kept_beyond_the_lead(results: Results, rates: Rates) -> None:
    curve = rates.curves[(rates.curves.evaluation == "robustness") & (rates.curves.training == "complete")]
    y = {(r.method, r.rate): r.mean for r in curve.itertuples()}
    lead = {rate: y["cra", rate] - y["late_fusion", rate] for rate in (0, *RATES)}
    got = line(results.diagnostics, diagnostic="effective_robustness", training="complete", method="cra")
    assert got["of"] == "anchor"
    assert got["value"] == pytest.approx(sum(lead[rate] - lead[0] for rate in RATES))
    assert got["ci_low"] < got["value"] < got["ci_high"]
    areas = rates.areas[rates.areas.effective.notna()]
    assert set(areas.evaluation) == {"robustness"}
    assert set(areas.method) == {"cra"}, "late fusion is what others are held against"


def test_the_papers_numbers_stand_beside_their_masks_only(results: Results, tmp_path: Path) -> None:
    assert results.rates is not None
    assert results.rates.curves.reported.isna().all()
    matched = next(s for s in sections(results) if s.title.endswith("matched"))
    assert matched.notes[-1].startswith("No paper's number beside late_fusion, cra: protocol clean (theirs: ")
    assert matched.notes[-1].endswith("; anchor masks (theirs: bernoulli).")
    plan, store = experiment([None, *(Missing(kind="bernoulli", rate=r) for r in RATES)]), Store(tmp_path)
    plan.trials = [t.model_copy(update={"protocol": "legacy"}) for t in plan.trials]
    write(store, plan.trials)
    made = collect(plan, store, REPORTED)
    assert made.rates is not None
    curves, areas = made.rates.curves, made.rates.areas
    printed = pd.read_csv(REPORTED / "mla_table6.csv")
    paper = printed[(printed.method == "late_fusion") & (printed.missing_rate == 0.4)].accuracy.item()
    assert line(curves, evaluation="matched", method="late_fusion", rate=0.4)["reported"] == paper
    assert curves[curves.evaluation == "robustness"].reported.isna().all()
    y = {r: printed[(printed.method == "cra") & (printed.missing_rate == r)].accuracy.item() for r in RATES}
    expected = ((y[0.1] + y[0.4]) / 2 + (y[0.4] + y[0.7]) / 2) / 2
    assert line(areas, evaluation="matched", method="cra")["reported"] == pytest.approx(expected)
    matched = next(s for s in sections(made) if s.title.endswith("matched"))
    assert matched.body[1][3].text.endswith(f"({y[0.4]:.2f})")


def test_the_report_says_what_masks_come_to(results: Results, rates: Rates) -> None:
    present = predictions(trial("cra", 0, None)).present
    at = line(rates.curves, evaluation="matched", method="cra", rate=0.7)
    assert at["masked"] == pytest.approx(2 / 3)
    assert at["missing"] == pytest.approx(1 - (present & mask(0.7)).mean())
    assert at["empty"] == pytest.approx((~(present & mask(0.7)).any(axis=1)).mean())
    masked = ", ".join(f"{100 * (~mask(r)).mean():.1f}" for r in RATES)
    assert f"Of the test split's cells, {masked} % are masked" in to_markdown(results)
    over_many = line(rates.curves, evaluation="robustness", training="complete", method="cra", rate=0.7)
    masks = [mask(0.7, seed) for seed in range(DRAWS)]
    assert over_many["masked"] == pytest.approx(1 - np.mean(masks))
    assert over_many["missing"] == pytest.approx(1 - np.mean([present & m for m in masks]))
    assert over_many["missing"] != pytest.approx(at["missing"])


def test_the_tables_are_matched_and_robustness(results: Results) -> None:
    by_rate = [s for s in sections(results) if s.header[1] == "0"]
    assert [s.title.split("missing rates (anchor), ")[1] for s in by_rate] == [
        "matched",
        "robustness, trained on complete data",
        "robustness, trained with modality dropout (anchor 0.5 redrawn)",
    ]
    for section in by_rate:
        assert section.header == ["method", "0", "0.1", "0.4", "0.7", "area", "gain", "n"]
        assert [row[0].text for row in section.body] == list(METHODS)
        assert 1 in [row[5].rank for row in section.body]


def test_trials_that_are_not_there_leave_dashes(tmp_path: Path) -> None:
    plan, store = experiment(TRAININGS), Store(tmp_path)
    kept = [
        t for t in plan.trials if not (t.method == "cra" and t.missing == Missing(rate=0.4)) and t.missing != DROPOUT
    ]
    write(store, kept)
    made = collect(plan, store)
    assert made.rates is not None
    gap = line(made.rates.curves, evaluation="matched", method="cra", rate=0.4)
    assert np.isnan(gap["mean"])
    assert gap["n"] == 0
    assert np.isnan(line(made.rates.areas, evaluation="matched", method="cra")["area"]), "no area of half a curve"
    figure = draw_curves(made, "matched", "at each rate")
    assert figure is not None
    drawn = [np.isnan(np.asarray(one.get_ydata())).any() for one in figure.axes[0].get_lines()]
    assert sum(drawn) == 1, "its line is broken, the others are whole"
    matched = next(s for s in sections(made) if s.title.endswith("matched"))
    assert [c.text for c in matched.body[1]][3] == "–"
    assert draw_curves(made, "robustness", str(DROPOUT)) is None


def test_an_empty_store_has_no_numbers_and_no_curves(tmp_path: Path) -> None:
    made = collect(experiment(TRAININGS), Store(tmp_path))
    assert made.rates is not None
    assert made.rates.curves["mean"].isna().all()
    assert draw_curves(made, "matched", "at each rate") is None
    assert draw_surface(made) is None
    assert "–" in to_markdown(made)


# Figures

BY_RATE = {"figure", "robustness", "dropout", "surface"}
"""Where nothing is trained at a rate, ``figure`` shows the main table."""


def test_every_figure_and_table_is_written(results: Results, tmp_path: Path) -> None:
    names = {path.name for path in mmbench.report.page.write(results, tmp_path)}
    drawn = dict(figures(results))
    assert set(drawn) >= BY_RATE
    tables = {"table.html", "table.md", "table.tex", *(f"{name}.csv" for name in mmbench.report.page.frames(results))}
    assert names == {f"{name}.{kind}" for name in drawn for kind in ("svg", "png")} | tables
    page = (tmp_path / "table.html").read_text()
    assert page.count("<figcaption>") >= len(drawn), "charts have theirs too"
    again = pd.read_csv(tmp_path / "rates.csv")
    assert line(again, evaluation="matched", method="cra", rate=0.4)["mean"] > 0


def test_of_one_rate_the_most_frequent_class_is_a_line_across_and_the_rate_the_only_tick(results: Results) -> None:
    assert results.rates is not None
    curves = results.rates.curves
    one = replace(results, rates=replace(results.rates, curves=curves[curves.rate == 0.4]))
    figure = draw_curves(one, "matched", "at each rate")
    assert figure is not None
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert list(lines["the most frequent class"].get_xdata()) == [0, 1], "from one side to the other"
    assert figure.axes[0].get_xticks().tolist() == [0.4]


def test_lines_are_labelled_at_their_ends(results: Results, rates: Rates) -> None:
    figure = draw_curves(results, "matched", "at each rate")
    assert figure is not None
    texts = {t.get_text(): t.xy for axes in figure.axes for t in axes.texts}  # type: ignore[attr-defined]
    curve = rates.curves[(rates.curves.evaluation == "matched") & (rates.curves.rate == 0.7)]
    assert {m: xy[1] for m, xy in texts.items()} == pytest.approx(dict(zip(curve.method, curve["mean"], strict=True)))
    svg = render(figure, "svg")
    assert render(draw_curves(results, "matched", "at each rate"), "svg") == svg  # type: ignore[arg-type]


def test_the_best_single_modality_and_the_most_frequent_class_are_lines_that_are_named(
    results: Results, rates: Rates
) -> None:
    figure = draw_curves(results, "matched", "at each rate")
    assert figure is not None
    named = {text.get_text() for legend in figure.legends for text in legend.get_texts()}
    assert {"the best single modality, trained alone", "the most frequent class"} <= named
    drawn = {str(one.get_label()): one for one in figure.axes[0].get_lines()}
    own = rates.curves[(rates.curves.evaluation == "matched") & (rates.curves.method == "late_fusion")]
    heights = np.asarray(drawn["the best single modality, trained alone"].get_ydata())
    assert heights == pytest.approx((own["mean"] - own.gain).to_numpy())
    (facts,) = results.tests.values()
    assert set(np.asarray(drawn["the most frequent class"].get_ydata())) == {facts.majority}


def test_differences_by_rate_are_to_the_reference_trained_and_tested_alike(results: Results, rates: Rates) -> None:
    curves = rates.curves.set_index(["evaluation", "training", "rate", "method"])
    others = 0
    for (*where, method), one in curves.iterrows():
        if method == "late_fusion":
            assert np.isnan(one.difference), "the reference is not compared with itself"
            continue
        others += 1
        assert one.difference == pytest.approx(one["mean"] - curves.loc[(*where, "late_fusion"), "mean"])
        assert one.difference_low <= one.difference <= one.difference_high
        assert one.difference_high - one.difference_low > 0
    assert others > 10
    figure = draw_rate_differences(results, "matched", "at each rate")
    assert figure is not None
    assert {t.get_text() for panel in figure.axes for t in panel.texts} == set(METHODS) - {"late_fusion"}
    named = {text.get_text() for legend in figure.legends for text in legend.get_texts()}
    assert {"late_fusion", "95 % interval of the difference"} <= named


def test_the_surface_has_the_training_rates_as_rows(results: Results, rates: Rates) -> None:
    figure = draw_surface(results)
    assert figure is not None
    panel = next(a for a in figure.axes if a.get_title() == "cra")
    grid = panel.images[0].get_array()
    assert grid is not None
    for i, training in enumerate(["complete", "anchor 0.1", "anchor 0.4", "anchor 0.7"]):
        for j, rate in enumerate((0.0, *RATES)):
            cell = line(rates.curves, evaluation="robustness", training=training, method="cra", rate=rate)
            assert grid[i, j] == pytest.approx(cell["mean"])


def test_one_modality_masked_in_training_is_a_figure_of_its_own(tmp_path: Path) -> None:
    plan, store = experiment([None, *TRAIN_ONLY]), Store(tmp_path)
    write(store, plan.trials)
    made = collect(plan, store)
    assert made.rates is None, "the test split has no such rate"
    figure = draw_training(made)
    assert figure is not None
    titles = [a.get_title(loc="left") for a in figure.axes]
    assert titles == [f"{m}, {x} masked" for m in METHODS for x in ("audio", "text")]
    assert {t.get_text() for t in figure.axes[0].texts} == {*MODALITIES, "multi"}
    table = sections(made)[0]
    assert [row[1].text for row in table.body] == [
        t for t in ("complete", "audio 0.5 in training", "text 0.5 in training") for _ in METHODS
    ]


# Other grids


def collected(folder: Path, trainings: list[Missing | None], **settings: object) -> tuple[Results, Rates]:
    plan, store = experiment(trainings, **settings), Store(folder)
    write(store, plan.trials)
    made = collect(plan, store)
    mmbench.report.page.write(made, folder / "report")
    assert made.rates is not None
    return made, made.rates


def test_another_mask_seed_is_another_test_mask_and_another_table(tmp_path: Path) -> None:
    trainings = [None, *(Missing(rate=0.4, seed=s) for s in (0, 1))]
    made, rates = collected(tmp_path, trainings)
    for seed, name in ((0, "anchor"), (1, "anchor (mask 1)")):
        missing = Missing(rate=0.4, seed=seed)
        expected = [naive_accuracy(predictions(trial("cra", s, missing)), mask(0.4, seed)) for s in (0, 1)]
        got = line(rates.curves, evaluation="matched", mask=name, method="cra", rate=0.4)
        assert got["mean"] == pytest.approx(np.mean(expected))
    assert sum("matched" in s.title for s in sections(made)) == 2


def test_two_kinds_of_mask_have_a_table_each(tmp_path: Path) -> None:
    bernoulli = Missing(kind="bernoulli", rate=0.6)
    made, rates = collected(tmp_path, [None, Missing(rate=0.4), bernoulli])
    keep = bernoulli.mask(DATASET, "test", MODALITIES, SIZE)
    assert not keep.any(axis=1).all(), "some samples lose everything"
    expected = [naive_accuracy(predictions(trial("cra", s, bernoulli)), keep) for s in (0, 1)]
    got = line(rates.curves, evaluation="matched", mask="bernoulli", method="cra", rate=0.6)
    assert got["mean"] == pytest.approx(np.mean(expected))
    alone = [naive_accuracy(predictions(trial("late_fusion", s, bernoulli)), keep, "text") for s in (0, 1)]
    assert got["gain"] == pytest.approx(np.mean(expected) - np.mean(alone))
    titles = [s.title for s in sections(made)]
    assert [t for t in titles if t.endswith("matched")] == [
        f"{DATASET}, clean, missing rates ({kind}), matched" for kind in ("anchor", "bernoulli")
    ]


def test_rates_by_modality_are_tested_under_their_own_mask(tmp_path: Path) -> None:
    uneven = Missing(kind="per_modality", rates={"audio": 0.8, "text": 0.1})
    made, rates = collected(tmp_path, [None, uneven])
    keep = uneven.mask(DATASET, "test", MODALITIES, SIZE)
    expected = [naive_accuracy(predictions(trial("cra", s, uneven)), keep) for s in (0, 1)]
    got = line(rates.curves[rates.curves.rate > 0], evaluation="matched", method="cra")
    assert got["mean"] == pytest.approx(np.mean(expected))
    assert got["rate"] == pytest.approx(0.3)
    assert f"{DATASET}, clean, missing rates (audio 0.8 text 0.1), matched" in [s.title for s in sections(made)]


def test_modality_dropout_alone_is_tested_at_the_rates_that_the_file_names(tmp_path: Path) -> None:
    bernoulli = Missing(kind="bernoulli", rate=0.3, train_only=True, redraw=True)
    _, rates = collected(tmp_path, [None, bernoulli], test_rates=[0.2, 0.5])
    assert set(rates.curves.evaluation) == {"robustness"}
    p = [predictions(trial("cra", s, bernoulli)) for s in (0, 1)]
    got = line(rates.curves, training=str(bernoulli), method="cra", rate=0.5)
    assert got["mean"] == pytest.approx(np.mean([robustness(q, DATASET, [0.5])[0] for q in p]))
    names = {f.stem for f in (tmp_path / "report").glob("*.svg")}
    assert names >= {"figure", "robustness", "dropout"}
    assert "surface" not in names


def test_one_rate_has_a_gain_and_no_area(tmp_path: Path) -> None:
    made, rates = collected(tmp_path, [None, Missing(rate=0.4)])
    assert rates.areas.empty
    assert np.isfinite(line(rates.curves, evaluation="matched", method="cra", rate=0.4)["gain_low"])
    matched = next(s for s in sections(made) if s.title.endswith("matched"))
    assert matched.header == ["method", "0", "0.4", "gain", "n"]
    assert not any(note.startswith("area") for note in matched.notes)


def test_gains_compare_the_same_seeds_or_nothing(tmp_path: Path) -> None:
    plan, store = experiment(TRAININGS), Store(tmp_path)
    write(store, [t for t in plan.trials if (t.method, t.seed) != ("cra", 0)])
    made = collect(plan, store)
    assert made.rates is not None
    got = line(made.rates.curves, evaluation="matched", method="cra", rate=0.4)
    assert np.isfinite(got["mean"])
    assert np.isnan(got["gain"])
    assert np.isfinite(line(made.rates.curves, evaluation="matched", method="late_fusion", rate=0.4)["gain"])


def test_without_late_fusion_there_is_no_gain_and_the_report_says_so(tmp_path: Path) -> None:
    plan, store = experiment(TRAININGS), Store(tmp_path)
    plan.trials = [t for t in plan.trials if t.method == "cra"]
    write(store, plan.trials)
    made = collect(plan, store)
    assert made.rates is not None
    assert made.rates.curves.gain.isna().all()
    assert "without late_fusion there is no unimodal model" in to_markdown(made)


def test_matched_rates_and_one_modality_masked_in_training_have_a_figure_each(tmp_path: Path) -> None:
    collected(tmp_path, [*TRAININGS, *TRAIN_ONLY])
    names = {f.stem for f in (tmp_path / "report").glob("*.svg")}
    assert names >= {*BY_RATE, "training"}


def test_made_up_data_are_marked_in_files_and_figures_and_compared_with_no_paper(tmp_path: Path) -> None:
    taken = [Missing(kind="per_modality", rates={"audio": rate}, train_only=True) for rate in (0.3, 0.6)]
    plan, store = experiment([*TRAININGS, *taken]), Store(tmp_path)
    plan.trials = [t.model_copy(update={"data": "MADE-UP-0"}) for t in plan.trials]
    write(store, plan.trials)
    made = collect(plan, store, REPORTED)
    assert made.rates is not None
    for frame in (made.table, made.rates.curves, made.rates.areas):
        assert set(frame.track) == {"made up"}
        assert frame.reported.isna().all()
    figures = (draw_curves(made, "matched", "at each rate"), draw_surface(made), draw_training(made))
    for figure in figures:
        assert figure is not None
        titles = [panel.get_title() or panel.get_title("left") for panel in figure.axes if panel.get_visible()]
        assert any("MADE UP" in title for title in titles)
