"""How models were trained, as a report says it: common settings once, then what differs by method; code and machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from make_golden import experiment, predictions

from mmbench.experiment.grid import Grid
from mmbench.experiment.plan import Experiment, Labels, load
from mmbench.missing import Missing
from mmbench.recipe import Recipe
from mmbench.record import Code, Record, sealed, unsealed
from mmbench.report.collect import collect
from mmbench.report.terminal import print_report
from mmbench.report.trained import of_training
from mmbench.store import Store
from mmbench.trial import Trial

MLA = {"head_gradient_modification": True, "dynamic_fusion": True, "alpha": 0.1, "decay": True}


def told(trials: Sequence[Trial], store: Path, **of_the_plan: Any) -> dict[str, str]:
    """Setting -> value, of the one data set and of the whole report."""
    plan = Experiment("golden", experiment().grid, list(trials), **of_the_plan)
    made = of_training(collect(plan, Store(store / "runs")))
    return {row[0].text: row[1].text for section in made for row in section.body}


def of(method: str, **changes: Any) -> Trial:
    """The first trial of a method, changed."""
    first = next(trial for trial in experiment().trials if trial.method == method)
    return first.model_copy(update=changes)


def write(folder: Path, trial: Trial, **environment: Any) -> None:
    """Store a trial as done."""
    code = Code(core="abc", method={"mmbench.baselines.sum": "def"}, data={}, encoders={})
    common = {"key": trial.key, "trial": trial, "started": "", "finished": "", "seconds": {"fit": 1.0}, "code": code}
    made = predictions(experiment().trials[0])
    Store(folder / "runs").write(Record(**common, status="done", environment=environment), made)


def test_settings_that_all_share_are_said_once(tmp_path: Path) -> None:
    rows = told(experiment().trials, tmp_path)
    assert rows["optimiser"] == "SGD, momentum 0.9, weight decay 0"
    assert rows["learning rate"] == "0.1, times 0.5 after every epoch"
    assert (rows["epochs"], rows["batch size"], rows["precision"]) == ("2", "8", "float32")
    assert rows["encoder of audio"] == "resnet18_audio; read from fbank"
    assert rows["augmentation"] == "video: RandomResizedCrop to the encoder's size"
    assert rows["seeds"] == "0, 1"
    assert rows["folds"] == "none: one split"
    assert rows["epoch chosen"].endswith("on the validation split (clean); on the test split (legacy)")
    assert not {"concat", "sum", "mla", "tuned", "missing in training", "gradients", "code"} & set(rows)


def test_a_recipe_is_told_in_words(tmp_path: Path) -> None:
    recipe = Recipe(
        epochs=9, lr=0.01, optimizer="adamw", schedule="cosine", warmup=2, patience=3, precision="bf16", clip_norm=1,
        class_weights="balanced", head_init="xavier", compile=True,
    )  # fmt: skip
    rows = told([of("concat", recipe=recipe)], tmp_path)
    assert rows["optimiser"] == "AdamW, first beta 0.9, weight decay 0.0001"
    assert rows["learning rate"] == "0.01, rises over 2 epochs, then falls to zero as a cosine"
    assert rows["epochs"] == "9; stops after 3 without a better one"
    assert rows["precision"] == "bfloat16 in the encoders, float32 in the rest"
    assert rows["gradients"] == "cut back to a norm of 1"
    assert rows["heads"] == "start as xavier"
    assert {"classes", "encoders"} <= set(rows)
    shorter = recipe.model_copy(update={"warmup": 1, "schedule": "constant"})
    rows = told([of("concat", recipe=shorter)], tmp_path / "shorter")
    assert rows["learning rate"] == "0.01, rises over one epoch, then constant"


def test_what_differs_by_method_has_a_row_of_its_own(tmp_path: Path) -> None:
    default, variant = of("mla", params=MLA), of("mla", params={**MLA, "alpha": 0.5})
    slower = of("mla", params=MLA, recipe=default.recipe.model_copy(update={"lr": 0.02, "schedule": "cosine"}))
    labels = {variant.key: Labels("crema_d", "MLA, strong"), slower.key: Labels("crema_d", "MLA, slower")}
    rows = told([of("concat"), of("sum"), default, variant, slower], tmp_path, labels=labels)
    arguments = "head_gradient_modification true, dynamic_fusion true"
    assert rows["mla"] == f"{arguments}, alpha 0.1, decay true"
    assert rows["MLA, strong"] == f"mla, {arguments}, alpha 0.5 (default 0.1), decay true"
    assert rows["MLA, slower"].endswith("decay true, recipe.lr 0.02, recipe.schedule cosine"), "no steps: it has none"
    assert rows["learning rate"].startswith("0.1, "), "that of most"


def test_folds_masks_cached_features_and_made_up_data(tmp_path: Path) -> None:
    frozen = {"audio": {"name": "resnet18_audio", "freeze": True}, "video": {"name": "resnet18"}}
    shared = {"encoders": frozen, "cached": True, "weights": {"audio": "0123456789abcdef"}, "data": "MADE-UP-0"}
    trials = [
        of(
            "concat",
            fold=fold,
            seed=seed,
            missing=missing,
            **shared,
            spec_augment={"audio": {"time": 4, "frequency": 2}},
        )
        for fold in (0, 1, 2, 4)
        for seed in (3, 4, 5)
        for missing in (None, Missing(rate=0.3))
    ]
    rows = told(trials, tmp_path)
    assert rows["folds"] == "0, 1, 2, 4 of 5"
    assert rows["seeds"] == "3 to 5"
    assert rows["missing in training"] == "complete; anchor 0.3"
    assert rows["encoder of audio"] == (
        "resnet18_audio: freeze true; read from fbank; files of hash 0123456789ab; run once, before training"
    )
    assert "SpecAugment" not in rows["augmentation"], "it is encoded once, as it is"
    assert rows["data"] == "crema_d, hash MADE-UP-0"
    rows = told([trial.model_copy(update={"cached": False}) for trial in trials], tmp_path)
    assert rows["augmentation"].startswith("audio: SpecAugment, time 4, frequency 2; video: ")


def test_the_code_and_the_machines_that_ran_it(tmp_path: Path) -> None:
    trials = experiment().trials[:3]
    for number, trial in enumerate(trials):
        machine = {"cpu": "A CPU", "platform": "Linux", "device": "0" if number else "cpu", "threads": 1 + number % 2}
        write(tmp_path, trial, mmbench="0.1.0", commit="0123", dirty=number == 2, python="3.12", torch="2.9", **machine)
    rows = told(trials, tmp_path, changes=["--quick", "--set seeds=[0]"])
    assert rows["changes of the file"] == "--quick --set seeds=[0]"
    changed = "mmbench 0.1.0, commit 0123, with changes that are not committed (1 trial)"
    assert rows["code"] == f"mmbench 0.1.0, commit 0123 (2 trials); {changed}"
    assert rows["libraries"] == "python 3.12, torch 2.9"
    assert rows["machine"] == "A CPU, Linux"
    assert set(rows["trials ran on"].split("; ")) == {
        "CPU, 1 thread a trial (1 trial)",
        "a GPU, 2 threads a trial (1 trial)",
        "a GPU, 1 thread a trial (1 trial)",
    }
    assert rows["hashes of the code"] == "core abc, baselines.sum def"


def test_what_is_tuned_and_over_what(tmp_path: Path) -> None:
    tune = {
        "draws": 4,
        "recipe": {"lr": {"low": 0.001, "high": 0.1, "log": True}},
        "methods": {"mla": {"decay": [True, False]}},
    }
    grid = Grid.model_validate({**experiment().grid.model_dump(exclude={"tune"}), "tune": tune})
    made = of_training(collect(Experiment("golden", grid, experiment().trials), Store(tmp_path)))
    (row,) = (row[1].text for row in made[0].body if row[0].text == "tuned")
    assert row.startswith(
        "4 draws a method, seed 0, under clean: lr 0.001 to 0.1 (logarithmic); mla: decay true or false; and what"
    )


def test_the_changes_of_a_file_are_kept() -> None:
    plan = load(Path(__file__).parents[2] / "experiments/regression.yaml", ["seeds=[0]"])
    assert plan.changes == ["--set seeds=[0]"]


def test_the_terminal_has_it_before_the_numbers_and_whole(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    names = {f"an_argument_{i}": i for i in range(40)}
    plan = Experiment(
        "golden", experiment().grid, [of("concat", encoders={"audio": {"name": "a", **names}, "video": {"name": "b"}})]
    )
    print_report(collect(plan, Store(tmp_path)))
    shown = capsys.readouterr().out
    assert shown.index("how it was trained") < shown.index("How it was run") < shown.index("crema_d, clean")
    words = shown[: shown.index("crema_d, clean")].split()
    assert [f"an_argument_{i}" in words for i in range(40)] == [True] * 40, "it wraps"


def test_a_record_of_before_precision_had_its_names_is_read_and_keeps_its_key(tmp_path: Path) -> None:
    first = experiment().trials[0]
    write(tmp_path, first, device="cpu")
    store = Store(tmp_path / "runs")
    path = store.folder(first.key) / "record.json"
    text = unsealed(path.read_bytes())
    assert text.count(b'"precision": "32-true"') == 1
    path.write_bytes(sealed(b"{\n" + text[1:].replace(b'"32-true"', b'"32"')))
    record = store.done(first.key)
    assert record is not None
    assert (record.trial, record.trial.key) == (first, first.key)
    assert told([first], tmp_path)["trials ran on"] == "CPU"
