"""Reports: a committed store renders to committed tables, and their numbers are the ones that a naive computation gives.

``python tests/report/make_golden.py`` writes the tables anew; look at the difference before committing it.
"""

from __future__ import annotations

import csv
import io
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from make_golden import GOLDEN, METHODS, TABLES, experiment, render, write_store

from mmbench.evidence.accuracy import estimate
from mmbench.evidence.resampling import RESAMPLES
from mmbench.experiment.plan import Experiment
from mmbench.record import Failure, Predictions
from mmbench.report.cells import Cell
from mmbench.report.collect import Results, collect
from mmbench.report.figures.accuracy import draw
from mmbench.report.figures.base import render as render_figure
from mmbench.report.figures.gallery import figures
from mmbench.report.latex import to_latex
from mmbench.report.page import frames, write
from mmbench.report.rows import gaps
from mmbench.report.tables import sections, to_markdown
from mmbench.store import Store

REPOSITORY = Path(__file__).parents[2]
COLUMNS = [
    "dataset", "protocol", "training", "method", "pattern", "metric", "mean", "std", "ci_low", "ci_high", "n", "samples",
    "reported", "track", "artefact",
]  # fmt: skip


@pytest.fixture(scope="module")
def rendered() -> tuple[Results, dict[str, str]]:
    return render()


@pytest.fixture(scope="module")
def results(rendered: tuple[Results, dict[str, str]]) -> Results:
    return rendered[0]


def stored(method: str, protocol: str) -> list[Predictions]:
    """The predictions of a cell's trials, read without the code under test."""
    found = []
    for trial in experiment().trials:
        path = GOLDEN / "runs" / trial.key / "predictions.npz"
        if (trial.method, trial.protocol) == (method, protocol) and path.exists():
            with np.load(path) as arrays:
                found.append(Predictions(**arrays))
    return found


def lines(results: Results, **where: str) -> list[dict[str, object]]:
    table = results.table
    for column, value in where.items():
        table = table[table[column] == value]
    return table.to_dict("records")


# Golden tables


@pytest.mark.parametrize("name", TABLES)
def test_the_store_renders_to_the_golden_table(rendered: tuple[Results, dict[str, str]], name: str) -> None:
    assert rendered[1][name] == (GOLDEN / name).read_text(encoding="utf-8")


def test_the_script_makes_the_golden_store(tmp_path: Path) -> None:
    write_store(Store(tmp_path))
    made = {p.relative_to(tmp_path): p.read_bytes() for p in tmp_path.rglob("*.json")}
    held = {p.relative_to(GOLDEN / "runs"): p.read_bytes() for p in (GOLDEN / "runs").rglob("*.json")}
    assert len(held) == 8
    assert made == held


def test_write_makes_all_files_and_the_same_tables(results: Results, tmp_path: Path) -> None:
    files = write(results, tmp_path)
    tables = {"table.html", "table.md", "table.tex", *(f"{name}.csv" for name in frames(results))}
    assert {p.name for p in files} == {
        f"{name}.{kind}" for name in dict(figures(results)) for kind in ("png", "svg")
    } | tables
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(p.name for p in files)
    for name in TABLES:
        assert (tmp_path / name).read_text(encoding="utf-8") == (GOLDEN / name).read_text(encoding="utf-8")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_the_tidy_table_has_the_columns_and_every_pattern() -> None:
    rows = list(csv.DictReader(io.StringIO((GOLDEN / "table.csv").read_text())))
    assert list(rows[0]) == COLUMNS
    cells = [(r["dataset"], r["protocol"], r["method"], r["pattern"], r["metric"]) for r in rows]
    assert sorted(cells) == sorted(
        ("crema_d", protocol, method, pattern, metric)
        for protocol in ("clean", "legacy")
        for method in METHODS
        for pattern in ("audio", "video", "audio+video", "mean")  # 2^2 − 1
        for metric in ("accuracy", "macro_f1", "ece", "group_accuracy")
    )


# Numbers


@pytest.mark.parametrize(("pattern", "number"), [("audio", 0), ("video", 1), ("audio+video", 2)])
@pytest.mark.parametrize(
    ("method", "protocol", "seeds"), [("concat", "clean", 2), ("sum", "legacy", 2), ("sum", "clean", 1)]
)
def test_mean_and_deviation_are_those_of_the_stored_predictions(
    results: Results, method: str, protocol: str, seeds: int, pattern: str, number: int
) -> None:
    accuracies = []
    for p in stored(method, protocol):
        hits = sum(int(p.predicted[number][i]) == int(p.label[i]) for i in range(len(p.label)))
        accuracies.append(100 * hits / len(p.label))
    assert len(accuracies) == seeds
    mean = sum(accuracies) / seeds
    (line,) = lines(results, method=method, protocol=protocol, pattern=pattern, metric="accuracy")
    assert line["n"] == seeds
    assert line["mean"] == pytest.approx(mean)
    if seeds > 1:
        assert line["std"] == pytest.approx((sum((a - mean) ** 2 for a in accuracies) / (seeds - 1)) ** 0.5)
    else:
        assert np.isnan(line["std"]), "one seed says nothing about the deviation"
    assert line["ci_low"] <= mean <= line["ci_high"]


def test_what_was_not_run_has_no_numbers_and_a_reason(results: Results) -> None:
    for line in lines(results, method="mla"):
        assert line["n"] == 0
        assert np.isnan([line[c] for c in ("mean", "std", "ci_low", "ci_high")]).all()
    assert gaps(results.rows) == [
        "crema_d clean sum seed 1: failed: ValueError: 100 % of a_line",
        *(f"crema_d {protocol} mla seed {seed}: not run" for protocol in ("clean", "legacy") for seed in (0, 1)),
    ]


def test_damaged_results_are_gaps_with_a_reason(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "runs", tmp_path / "runs")
    trial = experiment().trials[0]
    (tmp_path / "runs" / trial.key / "predictions.npz").write_bytes(b"")
    made = collect(experiment(), Store(tmp_path / "runs"))
    (line,) = lines(made, method="concat", protocol="clean", pattern="audio", metric="accuracy")
    assert line["n"] == 1
    assert [g for g in gaps(made.rows) if g.startswith("crema_d clean concat seed 0: damaged")]


def test_an_empty_store_is_reported_as_dashes(tmp_path: Path) -> None:
    made = collect(experiment(), Store(tmp_path / "runs"))
    assert len(gaps(made.rows)) == 12
    body = [row for section in sections(made)[:2] for row in section.body]
    assert all([cell.text for cell in row[1:]] == ["–", "–", "–", "0", "–"] for row in body)
    assert b"<svg" in render_figure(draw(made), "svg")


# Tables


def cells(results: Results, title: str) -> dict[tuple[str, str], Cell]:
    (section,) = (s for s in sections(results) if s.title == title)
    return {
        (row[0].text, head): cell
        for row in section.body
        for head, cell in zip(section.header[1:], row[1:], strict=True)
    }


@pytest.mark.parametrize("protocol", ["clean", "legacy"])
@pytest.mark.parametrize(("head", "pattern"), [("audio", "audio"), ("video", "video"), ("multi", "audio+video")])
def test_the_best_is_bold_with_what_is_not_separable_from_it(
    results: Results, protocol: str, head: str, pattern: str
) -> None:
    table = cells(results, f"crema_d, {protocol}")
    means = {str(x["method"]): x["mean"] for x in lines(results, protocol=protocol, pattern=pattern, metric="accuracy")}
    best, second = ("concat", "sum") if means["concat"] > means["sum"] else ("sum", "concat")
    pairs = results.comparisons
    (pair,) = pairs[(pairs.protocol == protocol) & (pairs.pattern == pattern)].itertuples()
    alike = pair.ci_low <= 0 <= pair.ci_high
    assert [table[m, head].rank for m in (best, second, "mla")] == [1, int(alike), 0]
    for method in (best, second):
        text = table[method, head].text
        assert (f"**{text}**" in to_markdown(results)) == bool(table[method, head].rank)


def test_equal_means_share_their_mark(tmp_path: Path) -> None:
    """Concat and sum with the same predictions are both best, and none is second."""
    store = Store(tmp_path)
    write_store(store)
    trials = experiment().trials
    first = {(t.protocol, t.seed): t for t in trials if t.method == "concat"}
    for trial in (t for t in trials if t.method == "sum"):
        twin = store.record(first[trial.protocol, trial.seed].key)
        assert twin is not None
        store.write(twin.model_copy(update={"key": trial.key, "trial": trial}), store.predictions(twin))
    table = cells(collect(experiment(), store), "crema_d, clean")
    assert [table[m, "multi"].rank for m in METHODS] == [1, 1, 0]


@pytest.mark.parametrize("protocol", ["clean", "legacy"])
def test_macro_f1_stands_beside_accuracy_where_classes_are_unbalanced(results: Results, protocol: str) -> None:
    """By hand: F1 = 2 hits / (samples + predictions) of a class, the mean over those that occur or are predicted."""
    of_seeds = []
    for made in stored("concat", protocol):
        predicted, occurs = made.predicted[-1], set(made.label) | set(made.predicted[-1])
        hits = {c: 2 * ((made.label == c) & (predicted == c)).sum() for c in occurs}
        of_seeds.append(100 * np.mean([hits[c] / ((made.label == c).sum() + (predicted == c).sum()) for c in occurs]))
    cell = cells(results, f"crema_d, {protocol}")["concat", "macro F1"]
    assert cell.text == f"{np.mean(of_seeds):.1f} ± {np.std(of_seeds, ddof=1):.1f}"
    assert cell.rank == 0
    (section,) = (s for s in sections(results) if s.title == f"crema_d, {protocol}")
    counts = np.unique(stored("concat", protocol)[0].label, return_counts=True)[1]
    (note,) = (note for note in section.notes if note.startswith("macro F1: with every modality"))
    assert f"The largest class has {counts.max() / counts.min():.1f} times as many test samples" in note


@pytest.mark.parametrize(("imbalance", "shown"), [(3.0, False), (3.1, True)])
def test_balanced_classes_need_no_macro_f1(results: Results, imbalance: float, shown: bool) -> None:
    tests = {where: replace(facts, imbalance=imbalance) for where, facts in results.tests.items()}
    clean = sections(replace(results, tests=tests))[0]
    assert ("macro F1" in clean.header) is shown
    assert any(note.startswith("macro F1") for note in clean.notes) is shown


def test_inflation_is_legacy_minus_clean(results: Results) -> None:
    means = {
        p: lines(results, protocol=p, method="concat", pattern="audio+video", metric="accuracy")[0]["mean"]
        for p in ("clean", "legacy")
    }
    shown = cells(results, "crema_d, inflation")
    assert shown["concat", "inflation"].text.startswith(f"{means['legacy'] - means['clean']:+.1f} [")  # type: ignore[operator]
    assert shown["mla", "inflation"].text == "–"
    one = [stored("sum", protocol) for protocol in ("clean", "legacy")]
    assert [len(seeds) for seeds in one] == [1, 2]
    right = [100 * np.mean(seeds[0].predicted[-1] == seeds[0].label) for seeds in one]
    assert shown["sum", "inflation"].text.startswith(f"{right[1] - right[0]:+.1f} ["), "of the seed that both have"
    alone = results.inflation[(results.inflation.method == "concat") & (results.inflation.pattern == "audio")]
    assert len(alone) == 1


def test_made_up_data_are_marked_everywhere_and_compared_with_no_paper() -> None:
    plan = experiment()
    trials = [trial.model_copy(update={"data": "MADE-UP-0"}) for trial in plan.trials]
    made = collect(Experiment("golden", plan.grid, trials), Store(GOLDEN / "runs"), GOLDEN / "reported")
    assert set(made.table.track) == {"made up"}
    assert made.table.reported.isna().all()
    panels = draw(made).axes
    assert [panel.get_title() for panel in panels] == ["audio", "video", "multi"]
    assert panels[0].get_title("left").strip() == "crema_d, MADE UP"
    assert all("MADE UP" in section.title for section in sections(made)[:-1]), "the last is of code and machine"


def with_failure(folder: Path, message: str, title: str = "A golden table") -> Results:
    """The golden experiment with another title, its failed trial with another message."""
    shutil.copytree(GOLDEN / "runs", folder / "runs")
    store, plan = Store(folder / "runs"), experiment()
    for trial in plan.trials:
        record = store.record(trial.key)
        if record is not None and record.status == "failed":
            record.failure = Failure(kind="exception", message=message)
            store.write(record)
    grid = plan.grid.model_copy(update={"title": title})
    return collect(Experiment("golden", grid, plan.trials), store)


def test_messages_and_titles_of_many_lines_stay_in_their_place(tmp_path: Path) -> None:
    r"""Once: a second line left LaTeX's comment and Markdown's list (``\end{document}`` in a message ends the paper)."""
    made = with_failure(tmp_path, "first\n\\end{document} second", title="one\ntwo")
    latex = to_latex(made)
    assert r"\end{document}" in latex, "the message is told"
    assert not [line for line in latex.splitlines() if "document" in line and not line.startswith("%")]
    assert latex.startswith("% one two\n")
    markdown = to_markdown(made).splitlines()
    assert not [line for line in markdown if line.startswith(("two", "\\end"))]


def test_latex_escapes_names(tmp_path: Path) -> None:
    made = collect(experiment(), Store(tmp_path / "none"))
    for row in made.rows:
        row.method = row.method.replace("mla", "late_fusion")
    made.table["method"] = made.table["method"].replace("mla", "late_fusion")
    assert r"late\_fusion & -- & --" in to_latex(made)


# The figure


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_the_same_numbers_give_the_same_bytes(results: Results, kind: str) -> None:
    first = render_figure(draw(results), kind)
    assert first == render_figure(draw(results), kind)
    assert len(first) > 1000


def test_the_figure_names_methods_protocols_and_columns(results: Results) -> None:
    svg = render_figure(draw(results), "svg").decode()
    for word in ("audio", "video", "multi", *METHODS, "clean", "legacy", "accuracy"):
        assert re.search(rf">[^<]*{word}[^<]*<", svg), word


def test_the_figure_shows_the_means(results: Results) -> None:
    figure = draw(results)
    panel = next(axes for axes in figure.axes if axes.get_title() == "multi")
    drawn = sorted(float(x) for bars in panel.containers for x in bars.lines[0].get_xdata())
    multi = results.table[(results.table.metric == "accuracy") & (results.table.pattern == "audio+video")]
    assert drawn == pytest.approx(sorted(multi["mean"].dropna()))


# Intervals


def made_up(right: np.ndarray, group: np.ndarray) -> Predictions:
    """One pattern's predictions that are right where told, of two classes."""
    label = np.arange(len(right)) % 2
    predicted = np.where(right, label, 1 - label)
    log_probs = np.log(np.where(np.eye(2)[predicted] > 0, 0.9, 0.1))
    return Predictions(
        modalities=np.array(["a"]),
        label=label,
        group=group,
        present=np.ones((len(right), 1), bool),
        predicted=predicted[None].astype(np.int16),
        log_probs=log_probs[None].astype(np.float16),
        log_prior=np.zeros(log_probs.shape[-1], np.float16),
        attack=np.empty(0, np.int16),
    )


@pytest.fixture(scope="module")
def three_seeds() -> list[Predictions]:
    rng = np.random.default_rng(3)
    group = np.sort(rng.integers(0, 30, 240))
    easy = rng.random(30)[group]  # samples of a group are alike
    return [made_up(rng.random(240) < np.clip(easy + shift, 0, 1), group) for shift in (-0.1, 0.0, 0.15)]


def test_an_interval_contains_the_mean_and_is_reproducible(three_seeds: list[Predictions]) -> None:
    first = estimate(three_seeds, ["a"])
    for mean, _, low, high in first.values():
        assert np.isfinite(mean)
        assert low <= high
    mean, _, low, high = first["a", "accuracy"]
    assert 0 <= low < mean < high <= 100
    assert estimate(three_seeds, ["a"]) == first


def test_an_interval_agrees_with_a_naive_bootstrap(three_seeds: list[Predictions]) -> None:
    """Draw seeds and groups with replacement, look every drawn sample up, average: 2000 times, by hand."""
    rng = np.random.default_rng(99)
    groups = np.unique(three_seeds[0].group)
    rows = {g: np.flatnonzero(three_seeds[0].group == g) for g in groups}
    hits = [100.0 * (p.predicted[0] == p.label) for p in three_seeds]
    draws = []
    for _ in range(RESAMPLES):
        samples = np.concatenate([rows[g] for g in rng.choice(groups, len(groups))])
        draws.append(np.mean([hits[s][samples].mean() for s in rng.choice(3, 3)]))
    low, high = np.percentile(draws, [2.5, 97.5])
    _, _, ours_low, ours_high = estimate(three_seeds, ["a"])["a", "accuracy"]
    assert ours_low == pytest.approx(low, abs=1.0)
    assert ours_high == pytest.approx(high, abs=1.0)
    assert high - low > 10, "the tolerance is a small part of the width"


def width(predictions: list[Predictions]) -> float:
    _, _, low, high = estimate(predictions, ["a"])["a", "accuracy"]
    return high - low


def test_samples_that_come_in_groups_say_less() -> None:
    right = np.random.default_rng(0).random(400) < np.repeat(np.random.default_rng(1).random(20), 20)
    alone, grouped = np.arange(400), np.arange(400) // 20
    assert width([made_up(right, grouped)]) > 1.5 * width([made_up(right, alone)])


def test_seeds_that_disagree_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    alike = [made_up(rng.random(400) < 0.6, np.arange(400)) for _ in range(3)]
    apart = [made_up(rng.random(400) < skill, np.arange(400)) for skill in (0.4, 0.6, 0.8)]
    assert width(apart) > 2 * width(alike)


def test_without_predictions_there_are_no_numbers() -> None:
    assert np.isnan(list(estimate([], ["a"]).values())).all()


def test_methods_are_compared_on_the_same_resamples() -> None:
    """A method that is right where another is wrong has the mirrored interval, to the last digit, only on the same resamples."""
    right, group = np.random.default_rng(5).random(60) < 0.7, np.arange(60) // 3
    _, _, low, high = estimate([made_up(right, group)], ["a"])["a", "accuracy"]
    _, _, other_low, other_high = estimate([made_up(~right, group)], ["a"])["a", "accuracy"]
    assert [100 - other_high, 100 - other_low] == pytest.approx([low, high], abs=1e-9)


def test_the_trials_of_the_golden_store_are_those_of_the_experiment() -> None:
    """If this fails, what a trial's key covers has changed: run ``make_golden.py --store``."""
    assert {p.name for p in (GOLDEN / "runs").iterdir()} <= {trial.key for trial in experiment().trials}
