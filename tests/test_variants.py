"""Variants under labels, subsets of modalities, recipes of methods, folds: what a file may say of them, what reports make of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmbench.data.sets.openclipart import OpenClipart
from mmbench.errors import UsageError
from mmbench.experiment.filters import select
from mmbench.experiment.plan import Experiment, expand
from mmbench.record import Predictions, Record
from mmbench.report.collect import Results, collect
from mmbench.report.tables import sections
from mmbench.store import Store
from mmbench.trial import Trial


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OpenClipart, "manifest", classmethod(lambda cls: "0123456789abcdef"))


def grid(**changes: Any) -> dict[str, Any]:
    return {
        "title": "variants",
        "datasets": {"openclipart": {"recipe": {"epochs": 3, "step_size": 2}}},
        "methods": {"mla": None, "sum": None},
        "seeds": [0],
        **changes,
    }


def mistakes(**changes: Any) -> str:
    with pytest.raises(UsageError) as error:
        expand(grid(**changes))
    return str(error.value)


# Labels


def test_a_method_stands_twice_under_labels_of_its_own() -> None:
    experiment = expand(grid(methods={"mla": None, "MLA, static": {"method": "mla", "dynamic_fusion": False}}))
    full, static = experiment.trials
    assert (full.method, static.method) == ("mla", "mla")
    assert (full.params["dynamic_fusion"], static.params["dynamic_fusion"]) == (True, False)
    assert [experiment.describe(t) for t in experiment.trials] == [
        "openclipart clean mla seed 0",
        "openclipart clean MLA, static seed 0",
    ]


def test_a_label_is_no_part_of_a_trial() -> None:
    (named,) = expand(grid(methods={"mine": {"method": "mla"}})).trials
    (plain,) = expand(grid(methods={"mla": None})).trials
    assert named.key == plain.key


def test_a_data_set_stands_twice_with_other_modalities() -> None:
    pair: dict[str, Any] = {"dataset": "openclipart", "modalities": ["tags", "image"]}
    experiment = expand(grid(datasets={"openclipart": None, "pair": pair}, methods={"sum": None}))
    all_of_them, two = experiment.trials
    assert list(all_of_them.encoders) == ["image", "title", "tags"]
    assert list(two.encoders) == ["image", "tags"], "in the data set's order"
    assert two.dataset == "openclipart"
    assert [t.key for t in select(experiment, ["dataset=pair"])] == [two.key]


def test_a_conditioning_modality_that_is_left_out_is_no_hindrance() -> None:
    pair: dict[str, Any] = {"dataset": "openclipart", "modalities": ["image", "tags"]}
    assert len(expand(grid(datasets={"pair": pair}, methods={"film": None})).trials) == 1


def test_a_method_has_a_recipe_over_the_data_sets() -> None:
    methods: dict[str, Any] = {"mla": {"recipe": {"lr": 0.5}, "alpha": 0.2}, "sum": {"recipe": {"schedule": "cosine"}}}
    mla, late = expand(grid(methods=methods)).trials
    assert (mla.recipe.lr, mla.recipe.epochs, mla.recipe.step_size) == (0.5, 3, 2)
    assert mla.params["alpha"] == 0.2
    assert (late.recipe.schedule, late.recipe.epochs) == ("cosine", 3)
    assert late.recipe.step_size == 70, "which is a setting of steps, so the data set's does not hold"


# Folds


@pytest.fixture
def three_folds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OpenClipart, "folds", 3)


@pytest.mark.usefixtures("three_folds")
@pytest.mark.parametrize(
    ("asked", "got"), [("all", [0, 1, 2]), (2, [0, 1]), (3, [0, 1, 2]), ([2, 0], [0, 2]), (None, [None])]
)
def test_folds_are_all_a_list_or_a_number(asked: Any, got: list) -> None:
    datasets = {"openclipart": {"folds": asked, "protocols": ["clean", "legacy"]}}
    trials = expand(grid(datasets=datasets, methods={"sum": None})).trials
    assert [(t.protocol, t.fold) for t in trials] == [(p, fold) for p in ("clean", "legacy") for fold in got]
    assert len({t.key for t in trials}) == len(trials)


def test_a_data_set_has_seeds_of_its_own_and_a_protocol_others() -> None:
    datasets: dict[str, Any] = {
        "openclipart": {"protocols": ["clean", "legacy"], "seeds": {"clean": [3, 4]}},
        "pair": {"dataset": "openclipart", "modalities": ["image", "title"], "seeds": [5]},
    }
    experiment = expand(grid(datasets=datasets, methods={"sum": None}, seeds=[0, 1, 2]))
    got = [(experiment.labels_of(t).dataset, t.protocol, t.seed) for t in experiment.trials]
    expected = [("openclipart", "clean", s) for s in (3, 4)] + [("openclipart", "legacy", s) for s in (0, 1, 2)]
    assert got == [*expected, ("pair", "clean", 5)]
    assert experiment.grid.size == len(got)


@pytest.mark.parametrize("seeds", [[], {"clean": []}, [1, 1], {"clean": [-1]}, {"legacy": [0]}, 3])
def test_what_are_no_seeds_of_a_data_set_is_a_mistake(seeds: Any) -> None:
    assert "datasets.openclipart" in mistakes(datasets={"openclipart": {"seeds": seeds}})


# Mistakes


@pytest.mark.usefixtures("three_folds")
def test_mistakes_in_names_come_all_at_once() -> None:
    told = mistakes(
        methods={
            "mine": {"method": "mlaa"}, "other": None, "sum": {"method": "mla"}, "": {"method": "mla"},
            "x" * 61: {"method": "mla"},
        },
        datasets={"mine": {"dataset": "openclip"}, "openclipart": {"folds": 0}, "more": {"dataset": "openclipart", "folds": "some"}},
    )  # fmt: skip
    for line in (
        "methods.mine.method: unknown method 'mlaa'; did you mean 'mla'?",
        "methods.other: unknown method; known: ",
        "a label of its own says what it stands for, method: NAME",
        "methods.sum.method: mla, but the label is the name of another method; choose another label",
        "methods.: a label has 1 to 60 printable characters",
        "datasets.mine.dataset: unknown data set 'openclip'; did you mean 'openclipart'?",
        "datasets.openclipart.folds",
        "datasets.more.folds",
    ):
        assert line in told, line


@pytest.mark.usefixtures("three_folds")
def test_mistakes_in_settings_come_all_at_once() -> None:
    told = mistakes(
        datasets={
            "openclipart": {"folds": [0, 3, 4]},
            "many": {"dataset": "openclipart", "folds": 4},
            "subset": {"dataset": "openclipart", "modalities": ["image", "titel"]},
            "left out": {
                "dataset": "openclipart",
                "modalities": ["image", "title"],
                "encoders": {"tags": "hashed_text"},
            },
        },
        methods={"mla": {"recipe": {"lrr": 1, "epochs": 0}, "alfa": 1}},
    )
    for line in (
        "datasets.openclipart.folds: no fold 3, 4; openclipart has 3 folds, 0 to 2",
        "datasets.many.folds: 4 folds asked for, but openclipart has 3 folds",
        "datasets.subset.modalities: unknown modality 'titel'; did you mean 'title'?",
        "datasets.left out.encoders.tags: unknown modality; known: image, title",
        "methods.mla.recipe.lrr: unknown key; did you mean 'lr'?",
        "methods.mla.recipe.epochs: input should be greater than or equal to 1, got 0",
        "methods.mla.alfa: unknown key; did you mean 'alpha'?",
    ):
        assert line in told, line
    assert told.startswith("experiment: 7 mistakes\n"), told


def test_folds_of_a_set_with_one_split_are_a_mistake() -> None:
    told = mistakes(datasets={"food101": {"folds": "all"}})
    assert "datasets.food101.folds: food101 has one split and no folds; leave it out" in told


def test_folds_need_no_published_lists_but_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        OpenClipart, "lacks", classmethod(lambda cls, protocol: "no lists" if protocol == "legacy" else None)
    )
    cut = {"openclipart": {"protocols": ["clean", "legacy"], "folds": [0], "recipe": {"epochs": 3}}}
    assert {t.protocol for t in expand(grid(datasets=cut)).trials} == {"clean", "legacy"}
    monkeypatch.setattr(OpenClipart, "lacks_folds", classmethod(lambda cls: "part 3 has none"))
    experiment = expand(grid(datasets=cut))
    assert experiment.trials == []
    assert experiment.unprepared == {"openclipart": "no folds: part 3 has none"}


@pytest.mark.parametrize("folds", [[], [1, 1], [-1], 1.5, True, "5"])
def test_what_is_no_choice_of_folds_is_a_mistake(folds: Any) -> None:
    assert "datasets.openclipart.folds" in mistakes(datasets={"openclipart": {"folds": folds}})


def test_two_labels_of_the_same_trials_are_a_mistake() -> None:
    told = mistakes(methods={"mla": None, "again": {"method": "mla", "alpha": 0.1}, "sum": None}, seeds=[0, 1])
    assert "methods.again: the same trials as methods.mla; change one, or leave it out" in told
    assert told.startswith("experiment: 1 mistake\n")
    told = mistakes(methods={"sum": None, "again": {"method": "sum"}})
    assert "methods.again: the same trials as methods.sum; change one, or leave it out" in told, "without arguments"
    whole: dict[str, Any] = {"dataset": "openclipart", "modalities": ["image", "title", "tags"]}
    told = mistakes(datasets={"openclipart": None, "whole": whole}, methods={"sum": None, "concat": None})
    assert "datasets.whole: trials that datasets.openclipart has too; change one, or leave it out" in told
    assert told.startswith("experiment: 1 mistake\n")


def overlapping(**other: Any) -> dict[str, Any]:
    """Two labels of one data set, the second of which has other settings."""
    one = {"folds": [0, 1], "seeds": [0, 1], "recipe": {"epochs": 3}}
    return {"openclipart": one, "other": {"dataset": "openclipart", **one, **other}}


@pytest.mark.usefixtures("three_folds")
@pytest.mark.parametrize("other", [{}, {"folds": [1, 2], "seeds": [1]}, {"protocols": ["legacy", "clean"]}])
def test_data_sets_are_the_same_where_a_protocol_a_fold_and_a_seed_meet(other: dict[str, Any]) -> None:
    told = mistakes(datasets=overlapping(**other), methods={"sum": None})
    assert "datasets.other: trials that datasets.openclipart has too; change one, or leave it out" in told


@pytest.mark.usefixtures("three_folds")
@pytest.mark.parametrize(
    "other",
    [
        {"folds": [2]}, {"seeds": [2]}, {"protocols": ["legacy", "peek"]}, {"recipe": {"epochs": 4}},
        {"modalities": ["image", "tags"]},
    ],
)  # fmt: skip
def test_data_sets_that_share_no_trial_are_two(other: dict[str, Any]) -> None:
    trials = expand(grid(datasets=overlapping(**other), methods={"sum": None})).trials
    assert len({trial.key for trial in trials}) == len(trials)


def test_a_method_on_one_data_set_may_be_another_on_another() -> None:
    """Recipes meet: sum's own on the first data set, the second data set's under concat's of the same method."""
    sets = {"openclipart": {"recipe": {"lr": 0.2}}, "other": {"dataset": "openclipart", "recipe": {"epochs": 3}}}
    ways = {"a": {"method": "sum", "recipe": {"epochs": 3}}, "b": {"method": "sum", "recipe": {"lr": 0.2}}}
    told = mistakes(datasets=sets, methods=ways)
    assert "a on openclipart and b on other are the same trials; change one, or leave it out" in told
    assert told.startswith("experiment: 1 mistake\n")


def test_same_trials_are_told_beside_other_mistakes_but_not_of_what_is_wrong_itself() -> None:
    sets: dict[str, Any] = {
        "openclipart": None,
        "same": {"dataset": "openclipart"},
        "wrong": {"dataset": "openclipart", "recipe": {"lr": -1}},
    }
    told = mistakes(datasets=sets, methods={"sum": None, "mla": None, "third": {"method": "mla", "alfa": 1}})
    places = [line.strip().partition(": ")[0] for line in told.splitlines()[1:]]
    assert sorted(places) == ["datasets.same", "datasets.wrong.recipe.lr", "methods.third.alfa"]


@pytest.mark.usefixtures("three_folds")
def test_mistakes_of_every_kind_come_all_at_once() -> None:
    told = mistakes(
        datasets={
            "openclipart": {"folds": [0, 7], "recipe": {"epochs": 3, "patience": 0}},
            "x": {"dataset": "openclipar"},
            "food101": {"folds": "all"},
        },
        methods={
            "mla": None,
            "again": {"method": "mla"},
            "m2": {"method": "mlaa"},
            "sum": {"recipe": {"lrr": 3}},
        },
        tune={
            "draws": 0,
            "recipe": {"lr": {"low": 0, "high": 0.1}, "momentum": [0.5, 2], "epocs": [3]},
            "methods": {"mla": {"alfa": {"low": 0.1, "high": 1}, "alpha": {"low": -1, "high": 1}}, "nope": {}},
        },
        seeds="many",
    )
    places = [line.strip().partition(": ")[0] for line in told.splitlines()[1:]]
    assert sorted(places) == sorted(
        [
            "datasets.openclipart.recipe.patience", "datasets.openclipart.folds", "datasets.x.dataset", "datasets.food101.folds",
            "methods.again", "methods.m2.method", "methods.sum.recipe.lrr", "seeds",
            "tune.draws", "tune.recipe.lr.low", "tune.recipe.momentum[1]", "tune.recipe.epocs", "tune.methods.mla.alfa",
            "tune.methods.mla.alpha.low", "tune.methods.nope",
        ]
    )  # fmt: skip


# Reports


def predictions(trial: Trial, skill: float) -> Predictions:
    """Of 24 samples of 8 groups that are dealt out to three folds; under legacy another way. Every sample has its own label."""
    size, classes = 24, 4
    sample = np.arange(size)
    part = sample % 3 if trial.protocol != "legacy" else sample // 8
    rows = np.flatnonzero(part == trial.fold)
    own = np.random.default_rng([trial.seed, len(trial.protocol), len(trial.method), trial.fold or 0])
    right = own.random((7, len(rows))) < skill
    label = rows % classes
    predicted = np.where(right, label, (label + 1) % classes)
    return Predictions(
        modalities=np.array(["image", "title", "tags"]),
        label=label,
        group=rows // 3,
        present=np.ones((len(rows), 3), bool),
        predicted=predicted.astype(np.int16),
        log_probs=np.log(np.eye(classes)[predicted] * 0.9 + 0.025).astype(np.float16),
        log_prior=np.log(np.full(classes, 0.25)).astype(np.float32),
        attack=np.empty(0, np.int16),
    )


def stored(folder: Path, leave_out: tuple = (), peek: str = "peek") -> tuple[Experiment, Store, Results]:
    datasets = {"clip art": {"dataset": "openclipart", "folds": "all", "protocols": ["clean", "peek", "legacy"]}}
    methods = {"mla": None, "static": {"method": "mla", "dynamic_fusion": False}}
    experiment, store = expand(grid(datasets=datasets, methods=methods, seeds=[0, 1])), Store(folder)
    for trial in experiment.trials:
        if (trial.protocol, trial.fold, trial.seed, experiment.labels_of(trial).method) in leave_out:
            continue
        as_if = trial.model_copy(update={"protocol": peek}) if trial.protocol == "peek" else trial
        skill = {"clean": 0.4, "peek": 0.5, "legacy": 0.9}[as_if.protocol]
        record = Record(key=trial.key, trial=trial, status="done", started="", finished="", environment={"commit": "c"})
        record.seconds = {"fit": 1.0}
        store.write(record, predictions(as_if, skill))
    return experiment, store, collect(experiment, store)


@pytest.mark.usefixtures("three_folds")
def test_the_folds_of_a_seed_are_one_prediction(tmp_path: Path) -> None:
    experiment, store, made = stored(tmp_path)
    line = made.table[
        (made.table.method == "static") & (made.table.protocol == "clean") & (made.table.metric == "accuracy")
        & (made.table.pattern == "image+title+tags")
    ].iloc[0]  # fmt: skip
    by_seed = []
    for seed in (0, 1):
        here = [
            store.predictions(record)
            for t in experiment.trials
            if (t.protocol, t.seed, t.params["dynamic_fusion"]) == ("clean", seed, False)
            and (record := store.done(t.key)) is not None
        ]
        assert len(here) == 3
        by_seed.append(100 * np.mean(np.concatenate([p.predicted[-1] == p.label for p in here])))
    assert (line.n, line.samples, line.dataset) == (2, 24, "clip art")
    assert line["mean"] == pytest.approx(np.mean(by_seed))
    assert line["std"] == pytest.approx(np.std(by_seed, ddof=1))
    assert {s.title for s in sections(made) if not s.words} == {
        f"clip art, {p}" for p in ("clean", "peek", "legacy", "inflation")
    } | {"clip art, clean, what each modality gives", "clip art, clean, together, and how sure"}
    assert any(
        note.startswith("3 of 3 folds, each tested by models that have not seen it") for note in sections(made)[0].notes
    )


@pytest.mark.usefixtures("three_folds")
def test_inflation_is_leakage_and_peeking_on_the_same_samples(tmp_path: Path) -> None:
    made = stored(tmp_path)[2]
    of = made.inflation.set_index(["method", "pattern", "part"]).sort_index()
    assert made.inflation.paired.all()
    for method in ("mla", "static"):
        parts = of.loc[(method, "image+title+tags")]
        assert parts.loc["inflation", "mean"] == pytest.approx(
            parts.loc["leakage", "mean"] + parts.loc["peeking", "mean"]
        )
        assert (parts.ci_low < parts["mean"]).all()
        assert (parts["mean"] < parts.ci_high).all()
    shown = next(s for s in sections(made) if s.title == "clip art, inflation")
    assert shown.header == ["method", "leakage", "peeking", "inflation"]
    assert "All are differences on the same test samples, which the intervals make use of." in shown.notes


@pytest.mark.usefixtures("three_folds")
def test_peeking_that_chose_the_same_epochs_adds_nothing(tmp_path: Path) -> None:
    made = stored(tmp_path, peek="clean")[2]
    peeking = made.inflation[made.inflation.part == "peeking"]
    assert len(peeking) == 2 * 7
    assert (peeking[["mean", "ci_low", "ci_high"]] == 0).all(axis=None)
    shown = next(s for s in sections(made) if s.title == "clip art, inflation")
    assert [row[2].text for row in shown.body] == ["+0.0 [+0.0, +0.0]"] * 2


@pytest.mark.usefixtures("three_folds")
def test_a_seed_that_lacks_a_fold_is_left_out_and_named(tmp_path: Path) -> None:
    made = stored(tmp_path, leave_out=(("clean", 1, 1, "mla"), ("peek", 0, 0, "mla"), ("peek", 0, 1, "mla")))[2]
    n = made.table.drop_duplicates(["protocol", "method"]).set_index(["protocol", "method"]).n
    assert (n["clean", "mla"], n["clean", "static"], n["peek", "mla"]) == (1, 2, 0)
    assert "clip art clean mla fold 1 seed 1: not run" in made.not_run
    assert len(made.not_run) == 3
    compared = made.inflation[made.inflation.method == "mla"]
    assert set(compared.n) == {1}
    assert set(compared.part) == {"inflation"}, "of seed 0 alone; peek has none"
