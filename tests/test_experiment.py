"""Experiments: what a file stands for, what makes a trial another trial, and every way of writing the file wrongly."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmbench.data import DATASETS
from mmbench.data.prepared import PreparedDataModule
from mmbench.data.sets.openclipart import OpenClipart
from mmbench.data.sets.openclipart_features import OpenClipartFeatures
from mmbench.errors import UsageError
from mmbench.experiment.filters import select
from mmbench.experiment.plan import Experiment, expand, left_out, load
from mmbench.experiment.resolve import DatasetPlan
from mmbench.experiment.tryout import try_encoders
from mmbench.missing import Missing
from mmbench.recipe import Recipe
from mmbench.report.collect import collect
from mmbench.report.tables import to_markdown
from mmbench.store import Store
from mmbench.trial import SCHEMA, Trial

REPOSITORY = Path(__file__).parents[1]

GRID: dict[str, Any] = {
    "title": "a grid",
    "datasets": {"openclipart": {"protocols": ["clean", "legacy"], "recipe": {"epochs": 3}}},
    "methods": {"sum": None, "mla": {"dynamic_fusion": False}},
    "seeds": [4, 2],
}


@pytest.fixture(autouse=True)
def cheap_manifest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashing the shipped file takes longer than everything else here."""
    monkeypatch.setattr(OpenClipart, "manifest", classmethod(lambda cls: "0123456789abcdef"))


def changed(*path: str, to: Any) -> dict[str, Any]:
    """The grid with one value changed, or a key added."""
    grid = json.loads(json.dumps(GRID))
    at = grid
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = to
    return grid


def mistakes(raw: Any) -> str:
    with pytest.raises(UsageError) as error:
        expand(raw, where="file.yaml")
    return str(error.value)


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "grid.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


# Expansion


def test_one_trial_a_dataset_protocol_seed_and_method_in_this_order() -> None:
    trials = expand(GRID).trials
    assert [(t.dataset, t.protocol, t.seed, t.method) for t in trials] == [
        ("openclipart", protocol, seed, method)
        for protocol in ("clean", "legacy")
        for seed in (4, 2)
        for method in ("sum", "mla")
    ]
    assert len({t.key for t in trials}) == 8


def test_defaults_are_written_out() -> None:
    trials = expand(GRID).trials
    mla = next(t for t in trials if t.method == "mla")
    assert mla.params == {"head_gradient_modification": True, "dynamic_fusion": False, "alpha": 0.1, "decay": True}
    assert mla.recipe == Recipe(epochs=3)
    assert mla.encoders["image"] == {"name": "small_cnn", "in_channels": 3, "width": 16}
    assert list(mla.encoders) == ["image", "title", "tags"], "the data set's order is the order of the modalities"
    assert mla.data == "0123456789abcdef"


def test_an_encoder_is_given_by_name_or_with_arguments() -> None:
    encoders = {"image": {"width": 8}, "tags": "hashed_text", "title": {"name": "hashed_text", "dropout": 0.0}}
    trials = expand({**changed("datasets", "openclipart", "encoders", to=encoders), "methods": {"sum": None}}).trials
    assert trials[0].encoders["image"] == {"name": "small_cnn", "in_channels": 3, "width": 8}
    assert trials[0].encoders["title"]["dropout"] == 0.0
    assert trials[0].encoders["tags"]["dropout"] == 0.3


@pytest.mark.parametrize("path", sorted((REPOSITORY / "experiments").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_experiment_of_the_repository_expands(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine that has all data and weights."""
    monkeypatch.setattr(PreparedDataModule, "prepared", classmethod(lambda cls: None))
    monkeypatch.setattr(PreparedDataModule, "manifest", classmethod(lambda cls: "0123"))
    monkeypatch.setattr(PreparedDataModule, "lacks", classmethod(lambda cls, protocol: None))
    monkeypatch.setattr("mmbench.experiment.resolve.weights_of", lambda encoders: {})
    experiment = load(path)
    assert experiment.name == path.stem
    prepared = {name for name in experiment.grid.datasets if name != "iemocap_features"}
    assert {t.dataset for t in experiment.trials} == prepared
    assert len({t.key for t in experiment.trials}) == len(experiment.trials)


def test_a_protocol_without_splits_is_left_out_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    reason = "the lists are missing"
    monkeypatch.setattr(
        OpenClipart, "lacks", classmethod(lambda cls, protocol: reason if protocol == "legacy" else None)
    )
    experiment = load(REPOSITORY / "experiments" / "table1.yaml", ["datasets.openclipart.folds=null"])
    assert {t.protocol for t in experiment.trials} == {"clean", "peek"}
    assert experiment.unprepared["openclipart legacy"] == reason


def test_caching_without_a_frozen_encoder_is_a_mistake() -> None:
    assert "datasets.openclipart.cached: no encoder is frozen" in mistakes(
        changed("datasets", "openclipart", "cached", to=True)
    )


def test_bf16_has_no_effect_on_encoders_that_run_once() -> None:
    frozen = {m: {"name": name, "freeze": True} for m, name in (("audio", "resnet18_audio"), ("video", "resnet18"))}
    settings: dict[str, Any] = {"cached": True, "encoders": frozen, "recipe": {"precision": "bf16"}}
    assert "crema_d.recipe.precision: cached encoders run once" in mistakes(changed("datasets", "crema_d", to=settings))


def test_spec_augment_needs_a_filter_bank_that_is_read_in_training() -> None:
    limits = {"audio": {"time": 192, "frequency": 48}}
    told = mistakes(changed("datasets", "openclipart", "spec_augment", to=limits))
    assert "datasets.openclipart.spec_augment: openclipart has no filter bank" in told
    heard: dict[str, Any] = {"spec_augment": {"audio": {"time": 1025}}}
    assert "audio.time is 1025, the filter bank has only 1024" in mistakes(changed("datasets", "crema_d", to=heard))
    frozen = {"name": "resnet18_audio", "freeze": True}
    heard = {"spec_augment": limits, "cached": True, "encoders": {"audio": frozen}}
    assert "audio is encoded once" in mistakes(changed("datasets", "crema_d", to=heard))


def test_a_change_of_one_data_set_leaves_those_that_share_its_settings(tmp_path: Path) -> None:
    path = tmp_path / "shared.yaml"
    path.write_text(
        "title: shared\nmethods: {sum: {}}\nseeds: [0]\n"
        "datasets:\n  openclipart: &one {recipe: {epochs: 3}}\n  openclipart_features: *one\n"
    )
    trials = load(path, ["datasets.openclipart.recipe.epochs=7"]).trials
    assert {t.dataset: t.recipe.epochs for t in trials} == {"openclipart": 7, "openclipart_features": 3}


def test_table1_is_eight_methods_three_protocols_five_folds() -> None:
    trials = load(REPOSITORY / "experiments" / "table1.yaml").trials
    assert len(trials) == 8 * (3 + 1 + 1) * 5
    assert {t.protocol for t in trials} == {"clean", "peek", "legacy"}
    assert {t.fold for t in trials} == set(range(5))
    assert {t.method for t in trials} == {"sum", "concat", "late_fusion", "film", "bigated", "ogm_ge", "qmf", "mla"}


def test_numbers_in_scientific_notation_without_a_point_are_numbers() -> None:
    # YAML 1.1 reads 1e-3 as a string; whoever writes it means the number
    trials = expand(changed("datasets", "openclipart", "recipe", to=yaml.safe_load("lr: 1e-3"))).trials
    assert trials[0].recipe.lr == 1e-3


# Keys


def keys(raw: Any) -> list[str]:
    return [t.key for t in expand(raw).trials]


KEYS_IN_ANOTHER_PROCESS = """
import json, sys
from mmbench.data.sets.openclipart import OpenClipart
from mmbench.data import DATASETS
from mmbench.data.prepared import PreparedDataModule
from mmbench.data.sets.openclipart_features import OpenClipartFeatures
from mmbench.experiment.plan import expand
OpenClipart.manifest = classmethod(lambda cls: "0123456789abcdef")
print(json.dumps([t.key for t in expand(json.load(sys.stdin)).trials]))
"""


def test_keys_are_the_same_in_every_process() -> None:
    """With another hash seed than ours: nothing in a key may depend on the order of a set."""
    answer = subprocess.run(
        [sys.executable, "-c", KEYS_IN_ANOTHER_PROCESS],
        input=json.dumps(GRID),
        env={**os.environ, "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(answer.stdout) == keys(GRID)


def test_keys_do_not_depend_on_the_order_of_keys_in_the_file() -> None:
    def turned(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: turned(v) for k, v in reversed(value.items())}
        return value

    grid = changed(
        "datasets", "openclipart", "encoders", to={"title": {"dropout": 0.1, "buckets": 512}, "image": "small_cnn"}
    )
    other = turned(grid)
    assert list(other) == list(reversed(grid)), "the test turns something around"
    assert sorted(keys(other)) == sorted(keys(grid))


def test_keys_do_not_depend_on_the_order_of_arguments_in_a_trial() -> None:
    """Such as when a constructor's parameters are put into another order."""
    turned = {name: dict(reversed(choice.items())) for name, choice in BASE.encoders.items()}
    other = BASE.model_copy(update={"params": dict(reversed(BASE.params.items())), "encoders": turned})
    assert list(other.params) != list(BASE.params)
    assert other.key == BASE.key


def test_a_default_written_out_is_the_same_trial() -> None:
    assert keys(changed("methods", "sum", to={})) == keys(GRID)
    assert keys(changed("datasets", "openclipart", "recipe", to={"epochs": 3, "lr": 0.001})) == keys(GRID)
    assert keys(changed("datasets", "openclipart", "encoders", to={"image": {"width": 16}})) == keys(GRID)


def test_what_a_method_cannot_follow_of_a_recipe_is_told_when_it_is_planned() -> None:
    recipe = {"epochs": 3, "schedule": "cosine", "warmup": 1, "clip_norm": 1.0, "class_weights": "balanced"}
    grid = {**changed("datasets", "openclipart", "recipe", to=recipe), "methods": {"cca": None, "mla": None}}
    told = mistakes(grid)
    for setting, default in (("schedule", "step"), ("warmup", 0), ("clip_norm", "null"), ("class_weights", "none")):
        assert f"recipe.{setting} is {recipe[setting]!r}, but Cca " in told
        assert f"a recipe of its own, in which it is {default}" in told
    assert "mla" not in told
    own = {"schedule": "step", "warmup": 0, "clip_norm": None, "class_weights": "none"}
    assert len(expand({**grid, "methods": {"cca": {"recipe": own}, "mla": None}}).trials) == 8


def test_settings_of_a_recipe_that_contradict_each_other_are_named() -> None:
    recipe = {"epochs": 3, "warmup": 3, "schedule": "constant", "gamma": 0.5}
    told = mistakes(changed("datasets", "openclipart", "recipe", to=recipe))
    assert "datasets.openclipart.recipe.warmup: must be less than epochs, of which there are 3, got 3" in told
    assert (
        "datasets.openclipart.recipe.gamma: is a setting of schedule: step, and the schedule is constant; leave it out"
        in told
    )


BASE = expand({**GRID, "seeds": [2]}).trials[
    1
]  # MLA, clean (its manifest is the real one: the fixture is not in force here)
OTHER_RECIPE = {
    "epochs": 4,
    "batch_size": 65,
    "lr": 0.5,
    "momentum": 0.5,
    "weight_decay": 0.5,
    "step_size": 5,
    "gamma": 0.5,
    "optimizer": "adam",
    "precision": "bf16",
    "compile": True,
    "head_init": "xavier",
    "schedule": "cosine",
    "warmup": 1,
    "clip_norm": 0.5,
    "patience": 2,
    "class_weights": "balanced",
}
CHANGES: dict[str, dict[str, Any]] = {
    "dataset": {"dataset": "crema_d"},
    "data": {"data": "another"},
    "protocol": {"protocol": "legacy"},
    "missing": {"missing": Missing(rate=0.2)},
    "method": {"method": "sum"},
    "seed": {"seed": 3},
    "encoder": {"encoders": {**BASE.encoders, "image": {"name": "hashed_text"}}},
    "encoder argument": {"encoders": {**BASE.encoders, "image": {**BASE.encoders["image"], "width": 17}}},
    "view": {"views": {"image": "small"}},
    "weights": {"weights": {"image": "0123"}},
    "cached": {"cached": True},
    "fold": {"fold": 0},
    "tuning": {"tuning": True},
    "spec_augment": {"spec_augment": {"audio": {"time": 192, "frequency": 48}}},
    "method argument": {"params": {**BASE.params, "dynamic_fusion": True}},
    **{
        f"recipe.{name}": {"recipe": BASE.recipe.model_copy(update={name: value})}
        for name, value in OTHER_RECIPE.items()
    },
}


def test_every_field_of_a_trial_is_among_the_changes() -> None:
    assert {next(iter(c)) for c in CHANGES.values()} == set(Trial.model_fields)
    assert set(OTHER_RECIPE) == set(Recipe.model_fields)


@pytest.mark.parametrize("change", CHANGES)
def test_any_change_of_a_setting_changes_the_key(change: str) -> None:
    assert BASE.model_copy(update=CHANGES[change]).key != BASE.key


def test_settings_that_came_later_leave_older_keys_as_they_were() -> None:
    content = {"schema": SCHEMA, **BASE.model_dump(mode="json")}
    for name in ("views", "weights", "cached", "spec_augment", "fold", "tuning"):
        del content[name]
    for name in (
        "precision", "compile", "head_init", "schedule", "warmup", "clip_norm", "patience", "class_weights",
    ):  # fmt: skip
        del content["recipe"][name]
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    assert BASE.key == sha256(canonical.encode()).hexdigest()[:16]


def test_the_schema_version_changes_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = BASE.key
    monkeypatch.setattr("mmbench.trial.SCHEMA", 10**6)
    assert BASE.model_copy().key != before


def test_changed_data_change_the_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    before = keys(GRID)
    monkeypatch.setattr(OpenClipart, "manifest", classmethod(lambda cls: "fedcba9876543210"))
    assert not set(before) & set(keys(GRID))


names = st.text(st.characters(codec="utf-8"), max_size=8)
plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | names
values = st.recursive(plain, lambda v: st.lists(v, max_size=3) | st.dictionaries(names, v, max_size=3), max_leaves=6)


@given(
    st.builds(
        Trial,
        dataset=names,
        data=names,
        protocol=names,
        method=names,
        seed=st.integers(0, 2**63 - 1),
        encoders=st.dictionaries(names, st.dictionaries(names, values, max_size=3), max_size=3),
        params=st.dictionaries(names, values, max_size=3),
        recipe=st.builds(Recipe, epochs=st.integers(1, 1000), lr=st.floats(1e-9, 1e3)),
    )
)
def test_a_trial_keeps_its_key_through_json(trial: Trial) -> None:
    again = Trial.model_validate_json(trial.model_dump_json())
    assert again == trial
    assert again.key == trial.key
    assert len(trial.key) == 16


# Mistakes


def test_all_mistakes_in_keys_names_and_values_come_in_one_message() -> None:
    raw = {
        "titel": "misspelt",
        "datasets": {
            "openclipart": {
                "protocol": ["clean"],
                "protocols": ["clen"],
                "encoders": {"image": "smal_cnn"},
                "recipe": {"epoch": 3, "lr": float("nan"), "momentum": -0.1},
            },
            "openclipar": None,
        },
        "methods": {"mla": None, "summ": None},
        "seeds": [0, 0],
    }
    expected = [
        "titel: unknown key; did you mean 'title'?",
        "title: missing",
        "datasets.openclipart.protocol: unknown key; did you mean 'protocols'?",
        "datasets.openclipart.protocols: unknown protocol 'clen'; did you mean 'clean'?",
        "datasets.openclipart.encoders.image: unknown encoder 'smal_cnn'; did you mean 'small_cnn'?",
        "datasets.openclipart.recipe.epoch: unknown key; did you mean 'epochs'?",
        "datasets.openclipart.recipe.lr: ",
        "datasets.openclipart.recipe.momentum: ",
        "datasets.openclipar: unknown data set; did you mean 'openclipart'?",
        "methods.summ: unknown method; did you mean 'sum'?",
        "seeds: the same value is given twice",
    ]
    assert_all(expected, mistakes(raw))


def test_the_reference_is_a_method_of_the_experiment() -> None:
    assert expand({**GRID, "reference": "mla"}).grid.reference == "mla"
    assert expand(GRID).grid.reference == "late_fusion", "whether or not it is there"
    assert "reference: the experiment has no method 'mlaa'; did you mean 'mla'?" in mistakes(
        {**GRID, "reference": "mlaa"}
    )
    assert "reference: input should be a valid string" in mistakes({**GRID, "reference": ["mla"]})
    assert "has no method 'late_fusion'" in mistakes({**GRID, "reference": "late_fusion"})


def test_all_mistakes_in_arguments_come_in_one_message() -> None:
    raw = changed("datasets", "openclipart", "encoders", to={"imagee": "small_cnn", "title": {"dropuot": 0.1}})
    expected = [
        "datasets.openclipart.encoders.imagee: unknown modality; did you mean 'image'?",
        "datasets.openclipart.encoders.title.dropuot: unknown key; did you mean 'dropout'?",
        "methods.mla.dynamic_fusoin: unknown key; did you mean 'dynamic_fusion'?",
    ]
    assert_all(expected, mistakes({**raw, "methods": {"mla": {"dynamic_fusoin": False}}}))


def assert_all(expected: list[str], message: str) -> None:
    """The message has exactly these mistakes."""
    missing = [line for line in expected if f"\n  {line}" not in message]
    assert not missing, message
    assert message.startswith(f"file.yaml: {len(expected)} mistakes\n")
    assert len(message.splitlines()) == 1 + len(expected), "each mistake once"


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (("seeds",), [], "seeds: "),
        (("seeds",), [-1], "seeds must lie between 0 and 2^32 − 1"),
        (("seeds",), [1, 1], "the same value is given twice"),
        (("seeds",), 3, "seeds: "),
        (("seeds",), ["one"], "seeds.0: "),
        (("seeds",), [1.5], "seeds.0: "),
        (("seeds",), None, "seeds: "),
        (("methods",), {}, "methods: "),
        (("methods",), None, "methods: "),
        (("methods",), ["mla", "sum"], "methods: "),
        (("methods", "mla"), ["dynamic_fusion"], "methods.mla: "),
        (("methods", "mla"), {"dynamic_fusion": "perhaps"}, "methods.mla.dynamic_fusion: "),
        (("methods", "mla"), {"head_gradient_modification": "literl"}, "methods.mla.head_gradient_modification"),
        (("methods", "mla"), {"spec": 1}, "methods.mla.spec: unknown key"),
        (("datasets",), {}, "datasets: "),
        (("datasets",), "openclipart", "datasets: "),
        (("datasets",), ["openclipart"], "datasets: "),
        (("datasets", "openclipart"), ["clean"], "datasets.openclipart: "),
        (("datasets", "openclipart", "protocols"), [], "datasets.openclipart.protocols: "),
        (("datasets", "openclipart", "protocols"), "clean", "datasets.openclipart.protocols: "),
        (("datasets", "openclipart", "protocols"), [1], "datasets.openclipart.protocols"),
        (("datasets", "openclipart", "encoders"), ["small_cnn"], "datasets.openclipart.encoders: "),
        (("datasets", "openclipart", "encoders"), {"image": 3}, "datasets.openclipart.encoders.image"),
        (("datasets", "openclipart", "encoders"), {"image": {"width": "wide"}}, "encoders.image.width: "),
        (("datasets", "openclipart", "encoders"), {"title": {"dropout": float("inf")}}, "encoders.title.dropout: "),
        (("datasets", "openclipart", "recipe"), 3, "datasets.openclipart.recipe: "),
        (("datasets", "openclipart", "recipe"), {"epochs": 0}, "recipe.epochs: "),
        (("datasets", "openclipart", "recipe"), {"epochs": 2.5}, "recipe.epochs: "),
        (("datasets", "openclipart", "recipe"), {"epochs": "many"}, "recipe.epochs: "),
        (("datasets", "openclipart", "recipe"), {"lr": -0.1}, "recipe.lr: "),
        (("datasets", "openclipart", "recipe"), {"lr": float("nan")}, "recipe.lr: "),
        (("datasets", "openclipart", "recipe"), {"lr": float("inf")}, "recipe.lr: "),
        (("datasets", "openclipart", "recipe"), {"weight_decay": float("nan")}, "recipe.weight_decay: "),
        (("title",), None, "title: "),
        (("title",), ["a"], "title: "),
    ],
    ids=str,
)
def test_one_wrong_value_is_named(path: tuple[str, ...], value: Any, expected: str) -> None:
    message = mistakes(changed(*path, to=value))
    assert message.startswith("file.yaml: ")
    assert expected in message


@pytest.mark.parametrize("raw", [None, 3, "mla", ["mla"], [], {}, True], ids=repr)
def test_a_file_that_is_no_mapping_or_empty_is_refused(raw: Any) -> None:
    assert mistakes(raw).startswith("file.yaml: ")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("datasets", "openclipart", "protocols"), [["clean"]]),
        (("datasets", "openclipart", "protocols"), [{"clean": None}]),
        (("datasets", "openclipart", "encoders"), {"image": ["small_cnn"]}),
        (("datasets", "openclipart", "encoders"), {"image": {"name": ["small_cnn"]}}),
        (("datasets", "openclipart", "encoders"), {"image": {"name": {"small_cnn": None}}}),
        (("datasets", "openclipart", "encoders"), {"image": {3: 4}}),
        (("methods",), {"mla": {3: 4}}),
    ],
    ids=repr,
)
def test_values_of_odd_types_are_mistakes_and_no_crashes(path: tuple[str, ...], value: Any) -> None:
    """Once: a list where a name belongs raised ``TypeError: unhashable type``, a number as a key ``TypeError: keywords
    must be strings`` (experiment.py, ``_resolve_datasets``, ``_resolve_encoders``; arguments.py, ``model(**given)``)."""
    grid = json.loads(json.dumps(GRID))
    at = grid
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    assert path[-1] in mistakes(grid)


def test_a_protocol_given_twice_is_a_mistake() -> None:
    """Once: it made every trial twice, under one key; the second ended the run with a KeyError in ``GridView``."""
    assert "protocols" in mistakes(changed("datasets", "openclipart", "protocols", to=["clean", "clean"]))


def test_a_seed_that_the_generators_do_not_take_is_a_mistake() -> None:
    """Once: accepted, and every trial failed (Lightning and NumPy take seeds below 2**32)."""
    assert "seeds" in mistakes(changed("seeds", to=[2**32]))


yamlable = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(["openclipart", "mla", "clean", "small_cnn", "image", "epochs", "name"]),
    lambda v: (
        st.lists(v, max_size=2)
        | st.dictionaries(
            st.sampled_from(["name", "width", "lr", "image"]) | st.integers() | st.text(max_size=3), v, max_size=2
        )
    ),
    max_leaves=4,
)
PLACES: list[tuple[Any, ...]] = [
    (),
    ("title",),
    ("seeds",),
    ("seeds", 0),
    ("methods",),
    ("methods", "mla"),
    ("methods", "mla", "dynamic_fusion"),
    ("datasets",),
    ("datasets", "openclipart"),
    ("datasets", "openclipart", "protocols"),
    ("datasets", "openclipart", "protocols", 0),
    ("datasets", "openclipart", "encoders"),
    ("datasets", "openclipart", "encoders", "image"),
    ("datasets", "openclipart", "encoders", "image", "name"),
    ("datasets", "openclipart", "recipe"),
    ("datasets", "openclipart", "recipe", "lr"),
]


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.sampled_from(PLACES), value=yamlable)
def test_nothing_but_usage_errors_ever_comes_of_a_file(place: tuple[Any, ...], value: Any) -> None:
    """Once: what the tests of odd types above pin down."""
    raw: Any = changed("datasets", "openclipart", "encoders", to={"image": {"name": "small_cnn", "width": 8}})
    if place:
        at = raw
        for key in place[:-1]:
            at = at[key]
        at[place[-1]] = value
    else:
        raw = value
    try:
        trials = expand(raw).trials
    except UsageError as mistake:
        message = str(mistake)
    else:
        message = f"{len(trials)} trials, no mistake"
    assert re.match(r"[1-9]\d* trials, no mistake|experiment: [1-9]\d* mistakes?\n", message)


# Files


def bomb(first: str, rest: str) -> str:
    """Anchors that each hold the one before nine times: a few hundred bytes that stand for millions of values."""
    lines = [f"a0: &a0 {first}"]
    lines += [f"a{i}: &a{i} " + rest.format(", ".join([f"*a{i - 1}"] * 9)) for i in range(1, 10)]
    return "\n".join(lines)


def test_a_key_given_twice_is_named_with_its_line(tmp_path: Path) -> None:
    path = write(tmp_path, "title: a\nmethods:\n  mla:\n  sum:\n  mla:\n")
    with pytest.raises(UsageError, match=r"(?s)'mla' is given twice.*line 5"):
        load(path)


def test_a_syntax_error_is_shown_with_its_line(tmp_path: Path) -> None:
    path = write(tmp_path, "title: a\nmethods: {mla: \nseeds: [0\n")
    with pytest.raises(UsageError, match=r"(?s)grid\.yaml: not valid YAML: .*line \d"):
        load(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no such experiment file: .*nowhere\.yaml"):
        load(tmp_path / "nowhere.yaml")


def test_a_folder_is_not_an_experiment(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        load(tmp_path)


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"grid\.yaml: cannot be read: it is not UTF-8"):
        load(write(tmp_path, "title: Grün\n".encode("latin-1")))


@pytest.mark.parametrize(
    "attack",
    [
        "!!python/object/apply:pathlib.Path.touch [{target}]",
        "!!python/object/apply:os.system ['touch {target}']",
        "!!python/object/new:os.system ['touch {target}']",
    ],
)
def test_yaml_never_runs_code(tmp_path: Path, attack: str) -> None:
    target = tmp_path / "executed"
    with pytest.raises(UsageError, match="not valid YAML"):
        load(write(tmp_path, f"title: {attack.format(target=target)}\n"))
    assert not target.exists()


@pytest.mark.parametrize(
    "text",
    [
        "seeds: [2026-13-45]",
        "seeds: [0b_]",
        "? [a, b]\n: 1",
        "title: !!binary 'ä'",
        "title: \x07",
        "&a [*a]",
        "&a {title: *a}",
    ],
    ids=ascii,
)
def test_yaml_that_its_own_reader_trips_over_is_a_usage_error(tmp_path: Path, text: str) -> None:
    """Once: PyYAML raises a plain ValueError for an impossible date or a number without digits, which ``read_yaml``
    lets through as a traceback."""
    with pytest.raises(UsageError):
        load(write(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("title: !!bool perhaps", "not a valid bool"),
        ("title: !!timestamp soon", "not a valid timestamp"),
        ("title: !!int ''", "not a valid int"),
        ("title: !!float x", "not a valid float"),
        ("title: !!binary aGk=", "got a bytes"),
        ("title: !!set {a, b}", "got a set"),
        ("title: !!omap [a: 1]", "got a tuple"),
        ("title: 2026-01-01", "got a date"),
        ("seeds: [0x" + "f" * 9000 + "]", "more than 64 bits"),
        ("title: " + "[" * 3000, "nested deeper than 30 levels"),
        ("title: " + "[" * 40 + "]" * 40, "nested deeper than 30 levels"),
        ("title: a\n\tb: c", "not valid YAML"),
        ("title: a\0b", "not valid YAML"),
        ("title: " + "a" * 100_000, "more than 100,000 bytes"),
        (bomb("[x]", "[{}]"), "more than 200,000 characters"),
        (bomb("{k: 1, l: 2}", "{{<<: [{}]}}"), "more than 100,000 keys"),
    ],
    ids=lambda text: text[:20],
)
def test_what_no_experiment_can_say_is_refused_in_words(tmp_path: Path, text: str, expected: str) -> None:
    """Once: a KeyError, an AttributeError; and 439 bytes of aliases took 1.6 GB."""
    with pytest.raises(UsageError, match=re.escape(expected)):
        load(write(tmp_path, text))
    key, _, value = text.partition(": ")
    if "\n" not in text and len(text) < 100_000:
        with pytest.raises(UsageError, match=re.escape(expected)):
            load(file(tmp_path), [f"{key}={value}"])


def test_other_encodings_are_named_and_a_byte_order_mark_is_none(tmp_path: Path) -> None:
    text = yaml.safe_dump(GRID)
    with pytest.raises(UsageError, match="it is not UTF-8"):
        load(write(tmp_path, text.encode("utf-16")))
    assert load(write(tmp_path, text.encode("utf-8-sig"))).trials


def test_rates_and_trials_are_bounded() -> None:
    """Once: three lists of 599 rates took 4 GB."""
    rates = {m: [i / 1000 for i in range(1, 600)] for m in ("image", "title", "tags")}
    message = mistakes(missing_grid(all={"kind": "per_modality", "rates": rates}))
    assert "its lists of rates have 214,921,799 combinations, more than 1,000" in message
    assert "trials; an experiment may have 20,000" in mistakes(changed("seeds", to=list(range(20_001))))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("datasets", "openclipart", "recipe"), {"epochs": 1e23}),
        (("datasets", "openclipart", "recipe"), {"epochs": 10**6}),
        (("datasets", "openclipart", "recipe"), {"batch_size": 10**12}),
        (("datasets", "openclipart", "recipe"), {"step_size": 10**12}),
        (("datasets", "openclipart", "recipe"), {"lr": 1e30}),
        (("datasets", "openclipart", "recipe"), {"weight_decay": 1e30}),
        (("datasets", "openclipart", "encoders"), {"image": {"width": 10**12}}),
        (("methods",), {"mmin": {"blocks": 10**7}}),
        (("methods",), {"if_mmin": {"width": 10**8}}),
        (("test_rates",), [1e9]),
        (("test_rates",), [0.1] * 101),
        (("seeds",), [1e23]),
    ],
    ids=str,
)
def test_numbers_out_of_all_proportion_are_refused(path: tuple[str, ...], value: Any) -> None:
    assert mistakes(changed(*path, to=value)).startswith("file.yaml: 1 mistake\n")


def test_yaml_merge_keys_work(tmp_path: Path) -> None:
    """Once: ``_UniqueKeyLoader`` looks at the keys before PyYAML has resolved ``<<``, and refuses the file with
    "could not determine a constructor for the tag 'tag:yaml.org,2002:merge'"."""
    text = "title: t\ndatasets: {openclipart: }\nmethods:\n  mla: &all {dynamic_fusion: false}\nseeds: [0]\n"
    path = write(tmp_path, text.replace("mla: &all {dynamic_fusion: false}", "mla: {<<: {dynamic_fusion: false}}"))
    assert load(path).trials[0].params["dynamic_fusion"] is False


# Values that only building the parts can refuse


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (("datasets", "openclipart", "encoders"), {"image": {"width": -3}}, "encoders.image: small_cnn refuses"),
        (("datasets", "openclipart", "encoders"), {"title": {"dropout": 3}}, "encoders.title: hashed_text refuses"),
        (("datasets", "openclipart", "encoders"), {"image": "hashed_text"}, "encoders.image: hashed_text does not fit"),
        (("datasets", "openclipart", "encoders"), {"title": "small_cnn"}, "encoders.title: small_cnn does not fit"),
        (
            ("datasets", "openclipart", "encoders"),
            {"image": {"width": 8}},
            "methods.mla, with datasets.openclipart: MLA shares",
        ),
        (
            ("datasets", "openclipart", "encoders"),
            {"image": {"in_channels": 1}},
            "small_cnn does not fit: a sample of image",
        ),
        (("datasets", "openclipart", "encoders"), {"image": "mlp"}, "image is uint8 of shape (3, 32, 32)"),
        (("datasets", "openclipart", "encoders"), {"image": "resnet18_audio"}, "image is uint8 of shape (3, 32, 32)"),
        (("methods", "film"), {"conditioning": "titel"}, "did you mean 'title'?"),
        (("methods", "qmf"), {"temperature": 0}, "methods.qmf.temperature: input should be greater than 0"),
        (("methods", "ogm_ge"), {"alpha": -1}, "methods.ogm_ge.alpha: input should be greater than or equal to 0"),
    ],
)
def test_a_value_that_a_part_refuses_is_found_before_anything_runs(
    path: tuple[str, ...], value: Any, expected: str
) -> None:
    message = mistakes(changed(*path, to=value))
    assert expected in message
    assert "1 mistake" in message


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"in_dim": 64}, "image is float32 of shape (128,), which it cannot take"),
        ("resnet18", "image is float32 of shape (128,), which it cannot take"),
        ("small_cnn", "image is float32 of shape (128,), which it cannot take"),
    ],
)
def test_an_encoder_that_cannot_take_feature_vectors_is_found(choice: Any, expected: str) -> None:
    raw = {**GRID, "datasets": {"openclipart_features": {"encoders": {"image": choice}}}, "methods": {"sum": None}}
    assert expected in mistakes(raw)


@pytest.mark.parametrize(
    ("modality", "choice", "view"),
    [
        ("audio", "resnet18", "fbank"),
        ("audio", "mlp", "fbank"),
        ("audio", {"name": "cav_mae", "size": "tiny", "weights": None}, "spectrogram"),
        ("video", "resnet18_audio", None),
        ("video", {"name": "cav_mae", "size": "tiny", "weights": None}, None),
        ("video", {"name": "mlp", "in_dim": 224}, None),
    ],
    ids=str,
)
def test_an_encoder_of_the_wrong_kind_is_found_where_data_are_not_prepared(
    modality: str, choice: Any, view: str | None
) -> None:
    options = {"encoders": {modality: choice}, **({"views": {modality: view}} if view else {})}
    raw = {**GRID, "datasets": {"openclipart": None, "crema_d": options}, "methods": {"sum": None}}
    message = mistakes(raw)
    assert f"datasets.crema_d.encoders.{modality}: " in message
    assert "does not fit: a sample of" in message


@pytest.mark.slow
def test_what_data_sets_choose_for_themselves_fits() -> None:
    """The encoders of data sets that are not here are not built when an experiment is planned."""
    for name, data in DATASETS.items():
        mistakes: list[str] = []
        chosen = {m: {"name": c} if isinstance(c, str) else dict(c) for m, c in data.encoders.items()}
        plan = DatasetPlan(chosen, frozenset(chosen), views=data.default_views(), unprepared="not here")
        assert set(try_encoders(name, DATASETS[name], plan, mistakes)) == set(chosen)
        assert not mistakes


def test_all_malformed_settings_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        load(file(tmp_path), ["seeds", "methods.mla=[", "title=x"])
    assert "--set seeds: " in str(error.value)
    assert "--set methods.mla=[: " in str(error.value)


# --set


def file(folder: Path) -> Path:
    return write(folder, yaml.safe_dump(GRID, sort_keys=False))


def test_a_setting_changes_the_trials_and_the_name(tmp_path: Path) -> None:
    plain, other = load(file(tmp_path)), load(file(tmp_path), ["datasets.openclipart.recipe.epochs=7", "seeds=[9]"])
    assert {t.recipe.epochs for t in other.trials} == {7}
    assert {t.seed for t in other.trials} == {9}
    assert plain.name == "grid"
    assert other.name.startswith("grid-")
    assert other.name != load(file(tmp_path), ["seeds=[9]"]).name


def test_a_setting_goes_below_a_name_with_nothing_behind_it(tmp_path: Path) -> None:
    trials = load(file(tmp_path), ["methods.sum={}", "methods.mla.head_gradient_modification=literal"]).trials
    assert {t.params.get("head_gradient_modification") for t in trials} == {None, "literal"}


def test_a_setting_that_changes_nothing_keeps_the_name(tmp_path: Path) -> None:
    assert load(file(tmp_path), ["seeds=[4, 2]"]).name == "grid"


def test_the_same_settings_give_the_same_name(tmp_path: Path) -> None:
    one = load(file(tmp_path), ["seeds=[9]", "title=x"]).name
    assert one == load(file(tmp_path), ["title=x", "seeds=[9]"]).name


def test_what_a_setting_misspells_is_found_by_the_validation(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        load(file(tmp_path), ["datasets.openclipart.recipe.epoch=2", "methods.mlaa.dynamic_fusion=true", "sed=[1]"])
    for nearest in ("did you mean 'epochs'?", "did you mean 'mla'?", "did you mean 'seeds'?"):
        assert nearest in str(error.value)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("epochs", "expected key=value"),
        ("=3", "expected key=value"),
        ("a..b=3", "expected key=value"),
        ("title.x=3", "'title' is not a mapping"),
        ("seeds.0=3", "'seeds' is not a mapping"),
        ("seeds=[1", "not valid YAML"),
        ("seeds=2026-13-45", "not valid YAML"),  # Once: a ValueError, see above
    ],
)
def test_a_malformed_setting_is_refused(tmp_path: Path, setting: str, expected: str) -> None:
    with pytest.raises(UsageError) as error:
        load(file(tmp_path), [setting])
    assert f"--set {setting}: " in str(error.value)
    assert expected in str(error.value)


def test_a_setting_on_a_file_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a mapping"):
        load(write(tmp_path, "- a\n"), ["seeds=[1]"])


# --filter


@pytest.fixture
def experiment() -> Experiment:
    return expand(GRID)


def test_filters_are_alternatives_within_a_key_and_conditions_across_keys(experiment: Experiment) -> None:
    chosen = select(experiment, ["seed=4", "seed=2", "method=mla", "protocol=clean"])
    assert [(t.protocol, t.seed, t.method) for t in chosen] == [("clean", 4, "mla"), ("clean", 2, "mla")]
    assert select(experiment, ["dataset=openclipart"]) == experiment.trials
    assert select(experiment, []) == experiment.trials


def test_filtering_keeps_the_order(experiment: Experiment) -> None:
    filters = ["method=sum", "method=mla"]
    random.Random(0).shuffle(filters)
    assert select(experiment, filters) == experiment.trials


def test_all_mistakes_in_filters_come_in_one_message(experiment: Experiment) -> None:
    with pytest.raises(UsageError) as error:
        select(experiment, ["metod=mla", "method=mlaa", "seed=77", "nonsense"])
    lines = str(error.value).splitlines()
    assert lines[0] == "--filter metod=mla: unknown key; did you mean 'method'?"
    assert lines[1] == "--filter method=mlaa: no trial has this method; did you mean 'mla'?"
    assert lines[2] == "--filter seed=77: no trial has this seed; known: 2, 4"
    assert lines[3].startswith("--filter nonsense: ")
    assert len(lines) == 4


# Missing modalities


def missing_grid(**settings: Any) -> dict[str, Any]:
    return {**GRID, "datasets": {"openclipart": None}, "seeds": [0], "methods": {"sum": None}, "missing": settings}


def test_every_rate_is_a_trial() -> None:
    planned = expand(
        missing_grid(
            complete=None,
            matched={"rate": [0.1, 0.7]},
            dropout={"kind": "anchor", "rate": 0.5, "train_only": True, "redraw": True},
            one={"kind": "per_modality", "rates": {"title": [0.3, 0.9], "tags": 0.1}, "train_only": True},
        )
    )
    trials = planned.trials
    assert [t.training for t in trials] == [
        "complete",
        "anchor 0.1",
        "anchor 0.7",
        "anchor 0.5 redrawn",
        "title 0.3 tags 0.1 in training",
        "title 0.9 tags 0.1 in training",
    ]
    assert [t.missing for t in trials] == planned.grid.trainings
    assert len({t.key for t in trials}) == len({t.label for t in trials}) == 6


def test_without_a_word_on_missing_modalities_nothing_is_missing() -> None:
    assert [t.missing for t in expand(GRID).trials] == [None] * 8


def test_the_same_way_under_two_names_runs_once() -> None:
    trials = expand(missing_grid(one={"rate": [0.1, 0.2]}, other={"rate": [0.2, 0.3]})).trials
    assert [t.training for t in trials] == ["anchor 0.1", "anchor 0.2", "anchor 0.3"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rate": [0.1, 0.9]}, "at most 0.667 of the cells can be missing; got the rate 0.9"),
        ({"rate": [0.1, 0.1]}, "the same value is given twice"),
        ({"rate": 1.5}, "missing.m.rate: input should be less than or equal to 1, got 1.5"),
        ({"rate": []}, "at least 1 item"),
        ({"kind": "ancor", "rate": 0.1}, "ancor"),
        ({"rat": 0.1}, "missing.m.rat: unknown key; did you mean 'rate'"),
        ({"train_only": True}, "missing.m: kind anchor takes a rate"),
        ({"kind": "per_modality", "rates": {"titel": 0.5}}, "unknown modality 'titel'; did you mean 'title'"),
        ({"kind": "per_modality", "rates": {"title": [0.5, 2]}}, "between 0 and 1"),
        ({"rate": 0.5, "redraw": True}, "train_only"),
    ],
)
def test_mistakes_about_missing_modalities(settings: dict[str, Any], message: str) -> None:
    assert message in mistakes(missing_grid(m=settings))


def test_all_mistakes_about_missing_modalities_are_told_at_once() -> None:
    told = mistakes(missing_grid(one={"rat": 1, "rate": 0.1}, other={"rate": 2}, third={"rates": {"title": 0.1}}))
    assert told.startswith("file.yaml: 3 mistakes")


def test_quick_makes_the_files_own_changes(tmp_path: Path) -> None:
    raw = {**missing_grid(matched={"rate": [0.1, 0.4]}), "quick": {"seeds": [7], "missing.matched.rate": 0.4}}
    path = write(tmp_path, yaml.safe_dump(raw))
    assert len(load(path).trials) == 2
    quick = load(path, quick=True)
    assert [(t.seed, t.training) for t in quick.trials] == [(7, "anchor 0.4")]
    assert quick.name == "grid-quick"
    changed = load(path, ["seeds=[3]"], quick=True)
    assert [t.seed for t in changed.trials] == [3]
    assert changed.name.startswith("grid-")
    assert changed.name != "grid-quick"


def test_a_file_without_a_quick_version_says_so(tmp_path: Path) -> None:
    path = write(tmp_path, yaml.safe_dump(GRID))
    with pytest.raises(UsageError, match="no quick version"):
        load(path, quick=True)


def test_a_mistake_in_the_quick_version_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, yaml.safe_dump({**GRID, "quick": {"seeds.first": 1}}))
    with pytest.raises(UsageError, match="quick: 'seeds' is not a mapping"):
        load(path, quick=True)


def test_trials_are_chosen_by_what_training_lacks() -> None:
    experiment = expand(missing_grid(complete=None, matched={"rate": [0.1, 0.7]}))
    assert [t.training for t in select(experiment, ["training=anchor 0.7"])] == ["anchor 0.7"]
    with pytest.raises(UsageError, match=r"anchor 0\.1"):
        select(experiment, ["training=anchor 0.11"])


# Data sets that are not on this machine


def test_a_data_set_that_is_not_prepared_has_no_trials_and_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, yaml.safe_dump(GRID))
    monkeypatch.setattr(OpenClipart, "prepared", classmethod(lambda cls: "put the pictures into data/pictures"))
    monkeypatch.setattr(OpenClipart, "manifest", classmethod(lambda cls: pytest.fail("there is nothing to hash")))
    with pytest.raises(
        UsageError,
        match="none of its data sets can be run here\n  openclipart: not prepared: put the pictures into data/pictures",
    ):
        load(path)
    both = {**GRID, "datasets": {"openclipart": None, "openclipart_features": None}}
    monkeypatch.setattr(OpenClipartFeatures, "prepared", classmethod(lambda cls: None))
    monkeypatch.setattr(OpenClipartFeatures, "manifest", classmethod(lambda cls: "features"))
    experiment = load(write(tmp_path, yaml.safe_dump(both)))
    assert {t.dataset for t in experiment.trials} == {"openclipart_features"}
    assert experiment.unprepared == {"openclipart": "put the pictures into data/pictures"}


def test_missing_weights_are_not_called_unprepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMBENCH_WEIGHTS", str(tmp_path / "none"))
    image = {"encoders": {"image": {"name": "timm_image", "model": "test_resnet", "weights": "gone.pth"}}}
    both = {**GRID, "methods": {"sum": None}, "datasets": {"openclipart": image, "openclipart_features": None}}
    experiment = load(write(tmp_path, yaml.safe_dump(both)))
    assert {t.dataset for t in experiment.trials} == {"openclipart_features"}
    (why,) = experiment.unprepared.values()
    assert left_out(why).startswith("weights 'gone.pth' are missing; expected in")
    table = to_markdown(collect(experiment, Store(tmp_path / "store")))
    assert "| openclipart | –, weights 'gone.pth' are missing |" in table
    assert str(tmp_path) not in table


def test_a_rate_of_zero_is_complete_training() -> None:
    trials = expand(missing_grid(complete=None, matched={"rate": [0, 0.2]})).trials
    assert [t.training for t in trials] == ["complete", "anchor 0.2"]


def test_test_rates_are_checked_against_the_data_set() -> None:
    assert "at most 0.667" in mistakes({**missing_grid(complete=None), "test_rates": [0.2, 0.9]})
    assert "greater than 0" in mistakes({**missing_grid(complete=None), "test_rates": [0]})


def test_an_unprepared_data_set_is_still_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OpenClipart, "prepared", classmethod(lambda cls: "nothing there"))
    raw = changed("datasets", "openclipart", "encoders", to={"image": "smal_cnn"})
    assert "unknown encoder 'smal_cnn'" in mistakes(raw)


def test_the_data_sets_own_encoder_arguments_hold_for_its_own_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    own = {**OpenClipart.encoders, "image": {"name": "small_cnn", "width": 9}}
    monkeypatch.setattr(OpenClipart, "encoders", own)

    def image(choice: Any) -> dict[str, Any]:
        raw = {**changed("datasets", "openclipart", "encoders", to={"image": choice}), "methods": {"sum": None}}
        return expand(raw).trials[0].encoders["image"]

    assert image("small_cnn")["width"] == 9
    assert image({"in_channels": 3})["width"] == 9
    assert image({"width": 5})["width"] == 5
    assert image({"name": "small_cnn", "width": 5})["width"] == 5
