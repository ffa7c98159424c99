"""An experiment on other data sets than its file names."""

import pytest

from mmbench.data import DATASETS
from mmbench.errors import UsageError
from mmbench.experiment.plan import load
from mmbench.experiment.substitute import fitting, put_on

FILE = """
title: t
datasets:
  openclipart: {protocols: [clean, legacy], folds: all, seeds: {clean: [0, 1], legacy: [0]}, recipe: {epochs: 3},
                encoders: {image: resnet18}, modalities: [image, title]}
  openclipart_features: {}
methods: {sum: , concat: }
seeds: [0]
quick: {datasets.openclipart.folds: 1}
"""


@pytest.fixture
def path(tmp_path):
    (tmp_path / "own.yaml").write_text(FILE)
    return tmp_path / "own.yaml"


def test_the_settings_of_the_first_data_set_go_over_but_not_what_is_its_own(path):
    experiment = load(path, datasets=["openclipart_features"])
    assert experiment.name == "own-openclipart_features"
    assert experiment.changes == ["--dataset openclipart_features"]
    grid = experiment.grid.datasets
    assert list(grid) == ["openclipart_features"]
    one = grid["openclipart_features"]
    assert (one.protocols, one.folds, one.recipe.epochs, one.encoders, one.modalities) == (
        ["clean", "legacy"],
        "all",
        3,
        {},
        None,
    )
    assert len(experiment.trials) == 2 * 5 * 3
    assert {trial.dataset for trial in experiment.trials} == {"openclipart_features"}


def test_quick_comes_first_and_settings_last(path):
    quick = load(path, quick=True, datasets=["openclipart_features"])
    assert (quick.name, quick.grid.datasets["openclipart_features"].folds) == ("own-openclipart_features-quick", 1)
    changed = load(path, ["datasets.openclipart_features.recipe.epochs=2"], datasets=["openclipart_features"])
    assert changed.grid.datasets["openclipart_features"].recipe.epochs == 2
    assert changed.name.startswith("own-openclipart_features-")


def test_a_data_set_that_there_is_not(path):
    with pytest.raises(
        UsageError, match=r"--dataset openclipert: no such data set; did you mean 'openclipart'\?.*mmbench data add"
    ):
        load(path, datasets=["openclipert"])
    with pytest.raises(UsageError, match="has no data sets"):
        put_on({"datasets": {}}, ["openclipart"], "x.yaml")


def test_what_to_write_where_two_modalities_cannot_have_such_masks(tmp_path):
    (tmp_path / "own.yaml").write_text(
        "title: t\ndatasets: {openclipart_features: {modalities: [image, title]}}\nmethods: {sum: }\nseeds: [0]\n"
        "missing: {complete: , matched: {rate: [0.4, 0.7]}, dropout: {rate: 0.8}}\n"
    )
    with pytest.raises(
        UsageError,
        match=r"bernoulli can realise it: --set missing.matched.kind=bernoulli missing.dropout.kind=bernoulli",
    ):
        load(tmp_path / "own.yaml")
    load(tmp_path / "own.yaml", ["missing.matched.kind=bernoulli", "missing.dropout.kind=bernoulli"])


def test_folds_that_a_data_set_has_not():
    assert fitting({"folds": "all", "seeds": [1]}, 1) == {"seeds": [1]}
    assert fitting({"folds": 7}, 5) == {"folds": "all"}
    assert fitting({"folds": 3}, 5) == {"folds": 3}
    assert fitting({"folds": [0, 6]}, 5) == {"folds": [0]}
    assert DATASETS["openclipart"].folds == 5
