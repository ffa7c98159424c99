"""Tuned experiments: what a file may say, what is planned, what the store makes of it, and what reports say."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmbench.data.sets.openclipart import OpenClipart
from mmbench.errors import UsageError
from mmbench.evidence.comparisons import difference
from mmbench.experiment.filters import Filters
from mmbench.experiment.plan import Experiment, expand
from mmbench.experiment.searches import Search
from mmbench.recipe import Recipe
from mmbench.record import Failure, Predictions, Record
from mmbench.report.collect import Results, collect
from mmbench.report.page import write
from mmbench.report.tables import sections
from mmbench.store import Store
from mmbench.trial import Trial
from mmbench.tuning import Choice, choose, tuning_trials


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OpenClipart, "manifest", classmethod(lambda cls: "0123456789abcdef"))


TUNE = {"draws": 4, "recipe": {"lr": {"low": 0.01, "high": 1, "log": True}}}


def grid(tune: Any = None, **changes: Any) -> dict[str, Any]:
    return {
        "title": "tuned",
        "datasets": {"openclipart": {"folds": 2, "recipe": {"epochs": 3, "step_size": 2, "lr": 0.05}}},
        "methods": {"mla": None, "late_fusion": None},
        "seeds": [5, 6],
        "tune": TUNE if tune is None else tune,
        **changes,
    }


def mistakes(tune: Any, **changes: Any) -> str:
    with pytest.raises(UsageError) as error:
        expand(grid(tune, **changes))
    return str(error.value)


@cache
def planned() -> Experiment:
    """The experiment of ``grid()``, planned once."""
    return expand(grid())


# What is planned


def test_the_same_number_of_draws_for_each_method_and_fold() -> None:
    experiment = planned()
    assert [(s.dataset, s.method, s.like.fold) for s in experiment.searches] == [
        ("openclipart", method, fold) for fold in (0, 1) for method in ("mla", "late_fusion")
    ]
    for search in experiment.searches:
        assert len(search.draws) == 4
        assert all(draw.trial.tuning and draw.trial.seed == 0 for draw in search.draws)
        assert search.seeds == (5, 6)
    trials = tuning_trials(experiment.searches)
    assert len({trial.key for trial in trials}) == 16
    assert not {trial.key for trial in trials} & {trial.key for trial in experiment.trials}


def test_the_folds_of_a_method_try_the_same_settings() -> None:
    first, second = (s for s in planned().searches if s.method == "mla")
    assert [draw.drawn for draw in first.draws] == [draw.drawn for draw in second.draws]
    assert first.draws[0].drawn == {}
    assert set(first.draws[1].drawn) == {"recipe.lr", "alpha"}, "its own argument, as it declares"
    trial = first.draws[1].trial
    assert trial.recipe.lr == first.draws[1].drawn["recipe.lr"]
    assert trial.params["alpha"] == first.draws[1].drawn["alpha"]
    assert trial.recipe == Recipe(epochs=3, step_size=2, lr=trial.recipe.lr)


def test_the_first_draw_is_tested_by_the_trials_of_the_default() -> None:
    experiment = planned()
    search = experiment.searches[0]
    keys = [t.key for t in search.finals(0)]
    assert keys == [t.key for t in experiment.trials if t.method == "mla" and t.fold == 0]
    assert [(t.seed, t.tuning) for t in search.finals(3)] == [(5, False), (6, False)]


def test_what_a_method_gives_itself_is_not_drawn() -> None:
    methods: dict[str, Any] = {
        "mla": {"alpha": 0.2},
        "slow": {"method": "mla", "recipe": {"lr": 0.01}},
        "named": {"method": "mla", "alpha": 0.3},
    }
    tune = {**TUNE, "methods": {"named": {"alpha": [0.1, 0.4]}}}
    found = {s.method: set(s.draws[1].drawn) for s in expand(grid(tune, methods=methods)).searches}
    assert found == {"mla": {"recipe.lr"}, "slow": {"alpha"}, "named": {"alpha", "recipe.lr"}}


def test_the_file_says_what_of_a_methods_arguments_is_drawn() -> None:
    methods = {"mla": None, "qmf": None}
    tune = {**TUNE, "methods": {"mla": {"dynamic_fusion": [True, False]}, "qmf": None}}
    found = {s.method: set(s.draws[1].drawn) for s in expand(grid(tune, methods=methods)).searches}
    assert found == {"mla": {"dynamic_fusion", "recipe.lr"}, "qmf": {"recipe.lr"}}


def test_only_protocols_with_a_validation_part_are_tuned() -> None:
    datasets = {"openclipart": {"protocols": ["legacy", "clean", "peek"]}}
    assert {s.like.protocol for s in expand(grid(datasets=datasets)).searches} == {"clean"}


def test_ways_of_missing_are_tuned_by_themselves() -> None:
    missing = {"complete": None, "half": {"rate": 0.5}}
    searches = expand(grid(missing=missing)).searches
    by_fold = ["complete"] * 4 + ["anchor 0.5"] * 4
    assert [s.like.training for s in searches] == by_fold
    assert all(draw.trial.missing == s.like.missing for s in searches for draw in s.draws)


def test_without_tune_nothing_is_tuned() -> None:
    plain = grid()
    del plain["tune"]
    assert expand(plain).searches == []


def test_filters_choose_searches_whatever_the_seed() -> None:
    experiment = planned()
    assert len(Filters(experiment, ["seed=5"]).searches) == 4
    assert [s.like.fold for s in Filters(experiment, ["method=mla", "fold=1"]).searches] == [1]


@pytest.mark.parametrize(
    ("tune", "changes", "told"),
    [
        ({"draws": 0}, {}, ["tune.draws: expected at least 2, of which the first is the default setting, got 0"]),
        ({"draws": 1}, {}, ["tune.draws: expected at least 2, of which the first is the default setting, got 1"]),
        (
            {"draws": 1, "recipe": {"lrr": [1, 2], "lr": {"low": 0, "high": 1}}, "methods": {"mra": None}},
            {"seeds": [-1]},
            [
                "5 mistakes",
                "seeds: ",
                "tune.draws: expected at least 2",
                "tune.recipe.lrr: unknown key; did you mean 'lr'?",
                "tune.recipe.lr.low: input should be greater than 0, got 0",
                "tune.methods.mra: the experiment has no such method; did you mean 'mla'?",
            ],
        ),
        ({"recipe": {"lr": {"low": 1, "hgih": 2, "high": 3}}}, {}, ["tune.recipe.lr.hgih: unknown key; did you mean 'high'?"]),
        ({"methods": {"mla": {"alhpa": [1, 2]}}}, {}, ["tune.methods.mla.alhpa: unknown key; did you mean 'alpha'?"]),
        (
            {"methods": {"mla": {"alpha": {"low": -1, "high": 1}}}},
            {"methods": {"mla": {"decay": "perhaps"}}},
            [
                "2 mistakes",
                "methods.mla.decay: ",
                "tune.methods.mla.alpha.low: input should be greater than 0, got -1",
            ],
        ),
        ({"methods": {"mla": None}}, {"methods": {"mla": None}}, ["tune: nothing to draw from"]),
        (TUNE, {"datasets": {"openclipart": {"protocols": ["legacy", "peek"]}}}, ["tune: no data set has a protocol that"]),
        (TUNE, {"methods": {"mla": None, "mla, tuned": {"method": "mla", "alpha": 0.2}}}, ["methods.mla, tuned: is what tables"]),
        (
            {"recipe": {"schedule": ["cosine", "step"], "gamma": [0.1, 0.5]}},
            {},
            ["tune, draw ", "gamma: is a setting of schedule: step", "change the space"],
        ),
        ({"recipe": {"head_init": ["pytorch", "xavier"]}}, {"methods": {"tate": None}}, ["tune, draw ", "TATE|Tate"]),
    ],
)  # fmt: skip
def test_mistakes_are_told_all_at_once(tune: dict[str, Any], changes: dict[str, Any], told: list[str]) -> None:
    found = mistakes(tune, **changes)
    for part in told:
        assert any(one in found for one in part.split("|")), found


def test_tune_with_nothing_behind_it_is_a_mistake() -> None:
    with pytest.raises(UsageError, match="tune: nothing behind it; write tune: "):
        expand({**grid(), "tune": None})


def test_too_many_trials_with_those_that_tune() -> None:
    datasets, seeds = {"openclipart": {"folds": "all"}}, list(range(1100))
    told = "22,030 trials; an experiment may have 20,000"  # 5 folds × 2 methods × (1100 + 3 draws + 1100 chosen)
    assert told in mistakes({**TUNE, "draws": 3}, datasets=datasets, seeds=seeds)


# What is chosen


def note(store: Store, trial: Trial, score: float | str | None) -> None:
    """A record of a trial that tunes: of a score, in percent; of a failure of this kind; or none."""
    if score is None:
        return
    common: dict[str, Any] = {"key": trial.key, "trial": trial, "started": "", "finished": "", "environment": {}}
    if isinstance(score, str):
        failure = Failure(kind=score, message=f"it is {score}")  # type: ignore[arg-type]
        store.write(Record(**common, status="failed", failure=failure))
        return
    curves = [{"validation/accuracy": score / 100, "train/loss": 1.0}] * 3
    predictions = None if trial.tuning else predict(trial, score)
    store.write(
        Record(**common, status="done", curves=curves, best_epoch=0, seconds={"fit": 1.0}, parameters=7), predictions
    )


def predict(trial: Trial, accuracy: float) -> Predictions:
    """Predictions of 40 samples of a fold, of which so many percent are right, under all seven patterns."""
    rng = np.random.default_rng(trial.seed + 100 * (trial.fold or 0))
    label = rng.integers(0, 4, 40)
    right = rng.permutation(40) < 0.4 * accuracy
    predicted = np.stack([np.where(right, label, (label + 1) % 4)] * 7).astype(np.int16)
    return Predictions(
        modalities=np.array(["image", "title", "tags"]),
        label=np.arange(40) % 4 if trial.fold is None else label,
        group=np.arange(40) // 4 + 10 * (trial.fold or 0),
        present=np.ones((40, 3), bool),
        predicted=predicted,
        log_probs=np.log(np.full((7, 40, 4), 0.25)).astype(np.float16),
        log_prior=np.log(np.full(4, 0.25, np.float32)),
        attack=np.empty(0, np.int16),
    )


def search(method: str = "mla", fold: int = 0) -> Search:
    return next(s for s in planned().searches if (s.method, s.like.fold) == (method, fold))


def chosen(store: Store, scores: list[float | str | None]) -> Choice:
    one = search()
    for draw, value in zip(one.draws, scores, strict=True):
        note(store, draw.trial, value)
    return choose(one, store)


@pytest.mark.parametrize(
    ("scores", "draw", "gap"),
    [
        ([40, 50, 45, 48], 1, ""),
        ([60, 50, 45, 48], 0, ""),
        ([40, "diverged", 45, 48], 3, ""),
        (["diverged"] * 4, None, "not chosen: all 4 draws diverged"),
        ([40, None, 45, None], None, "not chosen: 2 of 4 draws not run"),
        ([40, 99, 45, "killed"], None, "not chosen: draw 3 failed: it is killed"),
    ],
)
def test_the_best_score_is_chosen_once_all_are_known(
    tmp_path: Path, scores: list[float | str | None], draw: int | None, gap: str
) -> None:
    choice = chosen(Store(tmp_path), scores)
    assert (choice.chosen, choice.gap) == (draw, gap)
    assert len(choice.finals) == (0 if draw is None else 2)


def test_equal_scores_go_to_the_smaller_learning_rate(tmp_path: Path) -> None:
    choice = chosen(Store(tmp_path), [50, 50, 50, 50])
    rates = [draw.trial.recipe.lr for draw in choice.search.draws]
    assert choice.chosen == rates.index(min(rates))


def test_pretraining_and_single_lucky_epochs_do_not_count(tmp_path: Path) -> None:
    trial = search().draws[0].trial
    accuracies = [0.9, 0.9, 0.9, 0.3, 0.4, 0.5, 0.1, 0.8, 0.1]
    curves = [{"validation/accuracy": value} for value in accuracies]
    common: dict[str, Any] = {"key": trial.key, "trial": trial, "started": "", "finished": "", "environment": {}}
    store = Store(tmp_path)
    store.write(Record(**common, status="done", curves=curves, stages={"pretraining": 3, "training": 6}))
    assert choose(search(), store).scores[0] == pytest.approx(100 * (0.5 + 0.1 + 0.8) / 3, abs=1e-3)


def test_a_draw_that_diverges_on_any_seed_makes_way(tmp_path: Path) -> None:
    store = Store(tmp_path)
    best = chosen(store, [40, 50, 45, 48])
    note(store, best.finals[1], "killed")
    assert choose(best.search, store).chosen == 1, "what a machine lacked is no property of a setting"
    note(store, best.finals[1], "diverged")
    choice = choose(best.search, store)
    assert (choice.chosen, choice.passed_over) == (3, [1])
    assert choose(best.search, store, holds=lambda record: False).chosen == 1, "of other code"


def test_folds_choose_by_themselves(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for fold, scores in ((0, [1, 2, 3, 4]), (1, [9, 2, 3, 4])):
        for draw, value in zip(search(fold=fold).draws, scores, strict=True):
            note(store, draw.trial, value)
    assert [choose(search(fold=fold), store).chosen for fold in (0, 1)] == [3, 0]


# What reports say


def fill(store: Store, experiment: Experiment) -> None:
    """All trials of an experiment: MLA is tuned by draw 2 in fold 0 and stays as it is in fold 1; late fusion by draw 1 in both."""
    for trial in experiment.trials:
        note(store, trial, 50)
    for one in experiment.searches:
        best = 1 if one.method == "late_fusion" else (2, 0)[one.like.fold or 0]
        for number, draw in enumerate(one.draws):
            note(store, draw.trial, 70 if number == best else "diverged" if number == 3 else 40 + number)
        if best:
            for trial in one.finals(best):
                note(store, trial, 75)


@pytest.fixture
def filled(tmp_path: Path) -> tuple[Experiment, Store]:
    experiment, store = planned(), Store(tmp_path / "runs")
    fill(store, experiment)
    return experiment, store


def body(results: Results, title: str) -> list[list[str]]:
    (section,) = (s for s in sections(results) if s.title.endswith(title))
    return [[cell.text for cell in row] for row in section.body]


def test_default_and_tuned_stand_side_by_side(filled: tuple[Experiment, Store]) -> None:
    results = collect(*filled)
    assert [row.method for row in results.rows] == ["mla", "mla, tuned", "late_fusion", "late_fusion, tuned"]
    assert [row.gaps for row in results.rows] == [[], [], [], []]
    table = body(results, "openclipart, clean")
    assert [(row[0], row[4]) for row in table] == [
        ("mla", "50.0 ± 0.0"),
        ("mla, tuned", "62.5 ± 0.0"),  # one fold of two
        ("late_fusion", "50.0 ± 0.0"),
        ("late_fusion, tuned", "75.0 ± 0.0"),
    ]
    assert [row[5].partition(" [")[0] for row in table] == ["+0.0", "-12.5", "–", "–"], "tuned from tuned late fusion"
    assert results.planned == 8 + 2 + 4


def test_the_gain_is_paired_and_the_cost_is_counted(filled: tuple[Experiment, Store]) -> None:
    experiment, store = filled
    results = collect(experiment, store)
    rows = body(results, "tuned beside default")
    assert [row[:3] for row in rows] == [["mla", "50.0", "62.5"], ["late_fusion", "50.0", "75.0"]]
    assert [row[4:] for row in rows] == [["8", "18", "2"]] * 2, (
        "two folds of four draws, of which one diverged; three epochs each"
    )
    finals = [t for s in experiment.searches if s.method == "late_fusion" for t in s.finals(1)]
    both = []
    for trials in (finals, [t for t in experiment.trials if t.method == "late_fusion"]):
        runs = []
        for seed in (5, 6):
            parts = [predict(t, 75 if trials is finals else 50) for t in trials if t.seed == seed]
            joined = {name: np.concatenate([getattr(p, name) for p in parts]) for name in ("label", "group")}
            predicted = np.concatenate([p.predicted for p in parts], axis=1)
            runs.append(Predictions(**{**vars(parts[0]), **joined, "predicted": predicted}))
        both.append(runs)
    d = difference(*both)
    assert rows[1][3] == f"{d.mean:+.1f} [{d.low:+.1f}, {d.high:+.1f}]" + " *" * d.separable


def test_the_settings_that_were_chosen_are_named_by_fold(filled: tuple[Experiment, Store]) -> None:
    experiment, store = filled
    lr = {(s.method, s.like.fold): s.draws for s in experiment.searches}
    rows = body(collect(experiment, store), "chosen settings")
    drawn = lr["mla", 0][2].drawn
    setting = f"alpha {drawn['alpha']:g}, lr {drawn['recipe.lr']:g}"
    assert rows[0] == ["mla", "0", "2", setting, "40.0", "70.0"]
    assert rows[1] == ["mla", "1", "0", "default", "70.0", "70.0"]
    assert [row[:3] for row in rows[2:]] == [["late_fusion", "0", "1"], ["late_fusion", "1", "1"]]


def test_the_expected_best_is_the_mean_over_folds(filled: tuple[Experiment, Store]) -> None:
    rows = body(collect(*filled), "expected best score by number of draws")
    # late fusion: 40, 70, 42 and one that diverged, in both folds; MLA: 40, 41, 70, and 70, 41, 42
    mean = lambda *values: f"{np.mean(values):.1f}"  # noqa: E731
    assert rows[1] == ["late_fusion", mean(40, 70, 42), mean(70, 42, 70, 40, 70, 42), "70.0"]
    assert rows[0][1] == mean(np.mean([40, 41, 70]), np.mean([70, 41, 42]))


def test_all_draws_are_in_a_file_and_their_curve_is_a_figure(filled: tuple[Experiment, Store], tmp_path: Path) -> None:
    results = collect(*filled)
    names = {path.name for path in write(results, tmp_path)}
    assert {"tuning.csv", "tuning.svg", "tuning.png"} <= names
    lines = (tmp_path / "tuning.csv").read_text().splitlines()
    assert lines[0] == "dataset,protocol,training,method,fold,draw,settings,score,epochs,chosen,note,track"
    assert len(lines) == 1 + 16
    assert sum(",True," in line for line in lines) == 4
    assert "openclipart,clean,complete,mla,0,0,default,40.0000,3,False,," in lines
    assert sum(line.endswith(",,0,False,diverged,") for line in lines) == 4
    assert "late_fusion is the control" in (tmp_path / "table.md").read_text()


def test_what_made_way_is_told(filled: tuple[Experiment, Store]) -> None:
    experiment, store = filled
    one = experiment.searches[0]
    note(store, one.finals(2)[0], "diverged")
    results = collect(experiment, store)
    (section,) = (s for s in sections(results) if s.title.endswith("chosen settings"))
    assert (
        "mla fold 0: draw 2 was better, but diverged when it was tested, and made way for the next best."
        in section.notes
    )
    assert section.body[0][2].text == "1"
    assert "mla, tuned fold 0 seed 5: not run" in results.not_run[0]


def test_what_is_not_tuned_yet_is_a_gap(tmp_path: Path) -> None:
    experiment, store = planned(), Store(tmp_path)
    note(store, experiment.trials[0], 50)
    results = collect(experiment, store)
    assert "openclipart clean mla, tuned fold 0 not chosen: 4 of 4 draws not run" in results.not_run
    assert experiment.searches[0].line(choose(experiment.searches[0], store).gap) in results.not_run
    assert results.planned == 8 + 8
    assert body(results, "chosen settings")[0] == ["mla", "0", "–", "not chosen: 4 of 4 draws not run", "–", "–"]
