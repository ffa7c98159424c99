"""The papers' numbers: which are read, and beside which trials they stand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from make_golden import GOLDEN, experiment, predictions

from mmbench.experiment.plan import Experiment
from mmbench.missing import Missing
from mmbench.recipe import Recipe
from mmbench.record import Record
from mmbench.report.collect import Results, collect
from mmbench.report.papers import differences, papers_setting, read_printed
from mmbench.report.tables import sections, to_markdown
from mmbench.store import Store
from mmbench.trial import Trial

REPORTED = Path(__file__).parents[2] / "results" / "reported"
OFF = {"head_gradient_modification": False, "dynamic_fusion": False}
NEITHER = "head_gradient_modification off, dynamic_fusion off"
OWN = {
    "audio": {"name": "resnet18_audio"},
    "video": {"name": "resnet18", "weights": None, "freeze": False},
}
VIEWS = {"audio": "fbank", "video": "frames"}
CLIP = {"name": "clip_image", "weights": "clip-vit-base-patch32", "freeze": True}
M3AE = {m: {"name": f"m3ae_{m}", "size": "base", "weights": "m3ae_base.pkl"} for m in ("text", "image")}
FOOD = {"dataset": "food101", "views": {"image": "picture"}}
FACES = {
    "dataset": "casia_surf", "protocol": "clean", "recipe": Recipe(weight_decay=0.0005, step_size=50),
    "views": {m: m for m in ("rgb", "depth", "ir")}, "encoders": {m: {"name": "resnet18"} for m in ("rgb", "depth", "ir")},
}  # fmt: skip


def trial(**changes: Any) -> Trial:
    """A trial as the papers make them, but for the changes."""
    papers = {"protocol": "legacy", "recipe": Recipe(), "encoders": OWN, "views": VIEWS}
    return experiment().trials[0].model_copy(update={**papers, **changes})


def test_the_papers_numbers_of_the_repository_are_read() -> None:
    printed = read_printed(REPORTED)
    complete = printed.complete
    assert complete["crema_d", "", "mla", "multi", "accuracy"] == 79.70
    assert complete["crema_d", NEITHER, "mla", "multi", "accuracy"] == 66.32
    assert complete["crema_d", NEITHER, "mla", "audio", "accuracy"] == 52.17
    assert complete["crema_d", "", "late_fusion", "video", "accuracy"] == 55.48
    assert complete["casia_surf", "", "dmrnet", "mean", "acer"] == 3.58
    assert complete["food101", "", "mla", "image", "accuracy"] == 69.60
    assert complete["food101", "clip", "mla", "image", "accuracy"] == 72.22
    assert complete["kinetics_sounds", "", "mla", "audio", "accuracy"] == 54.67, "Table 5's, where Table 3 has another"
    assert printed.rates["iemocap_features", "cca", 0.7] == 30.61


@pytest.mark.parametrize(
    ("changes", "setting"),
    [
        ({}, ""),
        # The method's arguments
        ({"method": "mla"}, ""),
        ({"method": "mla", "params": OFF}, NEITHER),
        ({"method": "mla", "params": {**OFF, "alpha": 0.5}}, None),
        ({"method": "mla", "params": {"alpha": 0.5}}, None),
        ({"method": "mla", "params": {"head_gradient_modification": "literal"}}, None),
        ({"method": "ogm_ge", "params": {"alpha": 0.8}}, ""),
        ({"method": "ogm_ge", "params": {"alpha": 0.1}}, None),
        ({"method": "film", "params": {"conditioning": "video"}}, None),
        ({**FACES, "method": "dmrnet", "params": {"hard_weight": 0.7}}, ""),
        ({**FACES, "method": "dmrnet", "params": {}}, None),
        # The recipe
        ({"recipe": Recipe(epochs=2)}, None),
        ({"recipe": Recipe(optimizer="adam")}, None),
        ({"recipe": Recipe(batch_size=32)}, None),
        ({"recipe": Recipe(compile=True)}, ""),
        ({"recipe": Recipe(precision="tf32")}, ""),  # as torch's convolutions are by themselves
        ({"recipe": Recipe(precision="bf16")}, None),
        ({**FACES, "method": "shaspec", "recipe": Recipe()}, None),
        # The protocol
        ({"protocol": "clean"}, None),
        ({**FACES, "method": "shaspec"}, ""),
        # Encoders and data
        ({"encoders": {**OWN, "video": {"name": "timm_image", "model": "resnet18"}}}, None),
        ({"encoders": {**OWN, "video": {"name": "resnet18", "weights": "imagenet.pth"}}}, None),
        ({"encoders": {**OWN, "video": {"name": "resnet18", "freeze": True}}}, None),
        ({"encoders": {**OWN, "video": {"name": "resnet18", "lr_factor": 0.1}}}, None),
        ({"cached": True}, None),
        ({"encoders": {"audio": CLIP, "video": CLIP}, "cached": True}, "clip"),
        ({"encoders": {"audio": CLIP, "video": CLIP}}, None),
        ({"encoders": {"audio": CLIP, "video": {**CLIP, "freeze": False}}, "cached": True}, None),
        ({"method": "mla", "params": OFF, "encoders": {"audio": CLIP, "video": CLIP}, "cached": True}, None),
        ({"encoders": {**OWN, "video": CLIP}}, None),
        ({"encoders": {"audio": CLIP, "video": {**CLIP, "weights": None}}, "cached": True}, None),
        ({"encoders": {**OWN, "video": {"name": "resnet18", "frames": 1}}}, None),
        ({"encoders": {**OWN, "audio": {"name": "resnet18_audio", "standardise": "sample"}}}, None),
        ({"views": {**VIEWS, "audio": "spectrogram"}}, None),
        ({"spec_augment": {"audio": {"time": 9, "frequency": 9}}}, None),
        ({**FOOD, "encoders": M3AE}, ""),
        ({**FOOD, "encoders": {**M3AE, "image": {**M3AE["image"], "weights": "m3ae_base.safetensors"}}}, ""),
        ({**FOOD, "encoders": {**M3AE, "image": {**M3AE["image"], "gradient_checkpointing": True}}}, ""),
        ({**FOOD, "encoders": {**M3AE, "image": {**M3AE["image"], "weights": "m3ae_small.pkl"}}}, None),
        ({**FOOD, "encoders": {**M3AE, "text": {**M3AE["text"], "max_length": 32}}}, None),
        ({"dataset": "of somebody else"}, None),
        # Missing rates
        ({"missing": Missing(kind="bernoulli", rate=0.3)}, ""),
        ({"missing": Missing(rate=0.3)}, None),
    ],
)  # fmt: skip
def test_the_papers_numbers_stand_beside_their_setting_only(changes: dict, setting: str | None) -> None:
    assert papers_setting(trial(**changes)) == setting


def test_a_difference_says_what_is_and_what_would_be_the_papers() -> None:
    of = trial(method="mla", params=OFF, recipe=Recipe(epochs=2), protocol="clean")
    assert differences(of) == (
        "protocol clean (theirs: the published split, as in legacy)",
        "recipe.epochs 2 (theirs: 100)",
    )
    assert differences(trial(method="qmf", params={"rank_weight": 0.0})) == ("rank_weight 0.0 (theirs: 1.0)",)


def test_the_papers_numbers_are_not_those_of_another_number_of_classes() -> None:
    assert papers_setting(trial(), classes=6) == ""
    assert papers_setting(trial(), classes=5) is None


def reported(folder: Path, **changes: Any) -> Results:
    """The golden predictions, of trials as the papers make them but for the changes to those of MLA."""
    plan, store = experiment(), Store(folder)
    trials = []
    for old in plan.trials:
        new = trial(protocol=old.protocol, method=old.method, seed=old.seed, **(changes if old.method == "mla" else {}))
        trials.append(new)
        common: dict[str, Any] = {"started": "", "finished": "", "environment": {}, "seconds": {"fit": 1.0}}
        if old.method != "mla":
            store.write(Record(key=new.key, trial=new, status="done", **common), predictions(old))
    return collect(Experiment("papers", plan.grid, trials), store, REPORTED)


def texts(results: Results, title: str, method: str) -> list[str]:
    (section,) = (s for s in sections(results) if s.title == title)
    return [cell.text for row in section.body if row[0].text == method for cell in row[1:4]]


def test_the_papers_numbers_stand_beside_ours(tmp_path: Path) -> None:
    made = reported(tmp_path)
    assert texts(made, "crema_d, legacy", "mla") == ["– (59.27)", "– (64.91)", "– (79.70)"]
    assert texts(made, "crema_d, legacy", "concat")[2].endswith("(61.56)")
    assert "(" not in "".join(texts(made, "crema_d, clean", "concat")), "of another split"
    table = made.table
    assert table[table.metric == "ece"].reported.isna().all()
    assert table[table.protocol == "clean"].reported.isna().all()
    notes = {s.title: s.notes for s in sections(made)}
    assert "In brackets: the paper's number." in notes["crema_d, legacy"]
    unlike = "No paper's number beside concat, sum, mla: protocol clean (theirs: the published split, as in legacy)."
    assert unlike in notes["crema_d, clean"]


def test_an_ablation_has_the_numbers_of_its_own_table(tmp_path: Path) -> None:
    made = reported(tmp_path, params=OFF)
    assert texts(made, "crema_d, legacy", "mla") == ["– (52.17)", "– (55.48)", "– (66.32)"]


def test_without_its_numbers_a_row_says_why(tmp_path: Path) -> None:
    made = reported(tmp_path, params={"alpha": 0.5})
    assert texts(made, "crema_d, legacy", "mla") == ["–", "–", "–"]
    assert "No paper's number beside mla: alpha 0.5 (theirs: 0.1)." in to_markdown(made)


def test_a_folder_without_the_papers_numbers_is_no_error(tmp_path: Path) -> None:
    """Once: a results folder with ``reported/`` but without this one file ended the report with a traceback."""
    (tmp_path / "reported").mkdir()
    made = collect(experiment(), Store(GOLDEN / "runs"), tmp_path / "reported")
    assert np.isnan(made.table.reported).all()
