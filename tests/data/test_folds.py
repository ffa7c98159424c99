"""Folds and subsets of modalities: how parts are made, and what data modules make of them."""

from collections import Counter

import numpy as np
import pytest
import torch

from folding import check_folds, check_module
from mmbench.data import DATASETS
from mmbench.data.folds import Parts, assignment_hash, balanced
from mmbench.data.sets.openclipart import OpenClipart
from mmbench.data.sets.openclipart_features import OpenClipartFeatures
from mmbench.encoders.hashed_text import HashedText
from mmbench.errors import UsageError
from mmbench.missing import Missing
from mmbench.recipe import Recipe
from mmbench.training import build
from mmbench.trial import Trial
from planted import Planted2, Planted3

# Parts


def test_parts_are_of_whole_groups_and_each_goes_where_least_of_its_kind_is():
    groups = list("aaaaabbbccd")
    labels = [0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 1]
    parts = balanced(groups, labels, 2, "salt")
    # a (4, 1) first, b (0, 3) into the empty part, c (2, 0) there too: none of class 0 yet; d (0, 1) to a: 1 of class 1 against 3.
    assert dict(zip(groups, parts.tolist(), strict=True)) == {"a": 0, "b": 1, "c": 1, "d": 0}


def test_parts_depend_neither_on_the_order_of_samples_nor_on_the_names_of_classes():
    random = np.random.default_rng(0)
    groups, labels = [f"g{n}" for n in random.zipf(1.6, 300) % 40], random.integers(0, 4, 300).tolist()
    before = dict(zip(groups, balanced(groups, labels, 5, "s").tolist(), strict=True))
    order = random.permutation(300)
    after = balanced([groups[i] for i in order], [labels[i] + 7 for i in order], 5, "s")
    assert {groups[i]: part for i, part in zip(order, after.tolist(), strict=True)} == before
    others = [f"{group}'" for group in groups]
    assert balanced(others, labels, 5, "s").tolist() != list(before.values()), "names order groups of equal size"


def test_single_samples_are_dealt_out_evenly():
    labels = [0] * 50 + [1] * 20 + [2] * 5
    parts = balanced(range(75), labels, 5, "s")
    assert [np.bincount(np.array(labels)[parts == p]).tolist() for p in range(5)] == [[10, 4, 1]] * 5


def test_random_parts_have_the_sizes_of_the_others_and_follow_names_alone():
    names = [f"n{i}" for i in range(40)]
    clean = np.repeat(np.arange(4), [20, 10, 7, 3])
    parts = Parts.of(names, clean, 4, "s")
    assert np.bincount(parts.legacy).tolist() == [20, 10, 7, 3]
    assert parts.legacy.tolist() != clean.tolist()
    order = np.random.default_rng(1).permutation(40)
    shuffled = Parts.of([names[i] for i in order], clean[order], 4, "s")
    assert shuffled.legacy.tolist() == parts.legacy[order].tolist()
    assert {split: shuffled.hash_of(split) for split in ("clean", "legacy")} == {
        split: parts.hash_of(split) for split in ("clean", "legacy")
    }
    assert Parts.of(names, clean, 4, "another").legacy.tolist() != parts.legacy.tolist()


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([0, 1, 3], "folds: sample 'c' is in part 3, expected 0 to 2"),
        ([0, -1, 2], "folds: sample 'b' is in part -1, expected 0 to 2"),
        ([0, 1], "folds: expected a part for each of 3 samples, got 2"),
    ],
)
def test_parts_that_there_are_not(parts, message):
    with pytest.raises(UsageError, match=message):
        Parts.of(list("abc"), parts, 3, "s")


def test_the_hash_is_of_sorted_lines():
    from hashlib import sha256

    assert assignment_hash(["b", "a"], [0, 1]) == sha256(b"a 1\nb 0\n").hexdigest()


# The embedded data set


def test_open_clip_arts_folds_are_these():
    parts, data = OpenClipart.parts(), OpenClipart.read()
    assert (OpenClipart.folds, OpenClipartFeatures.folds) == (parts.count, 5)
    check_folds(parts, data["artist"].tolist())
    assert parts.hash_of("clean") == CLEAN
    assert parts.hash_of("legacy") == LEGACY
    sizes = np.bincount(parts.clean)
    assert (sizes.min(), sizes.max()) == (303, 375)
    counts = np.array([np.bincount(data["label"][parts.clean == part], minlength=10) for part in range(5)])
    assert counts.min() == 5
    # Only what the two artists of 299 and 222 pictures bring is far from a fifth of a class: they are in the first two parts.
    assert (np.abs(counts[2:] - counts[2:].mean(axis=0)) <= 7).all()
    assert max(Counter(data["artist"][parts.clean == 0].tolist()).values()) == 299


CLEAN = "83266acd2f353b06f6e3ddba8dc4667aa3fa9d19e11b9e56911eff82ff4e00c2"
LEGACY = "cc219a5d5412d95efa4c62e35cc602a8d15801f63f3fe4e97377371ecc6c7802"


def test_open_clip_art_in_folds():
    words = {m: lambda texts: {"token": torch.zeros(len(texts), 1, dtype=torch.int64)} for m in ("title", "tags")}
    check_module(lambda **arguments: OpenClipart(tokenizers=words, **arguments), 1632)


def test_features_are_fitted_on_the_folds_own_training_part():
    one, whole = OpenClipartFeatures(fold=2), OpenClipart.parts()
    arrays = one.read()
    rows = whole.rows("clean", 2)
    assert [len(getattr(one.splits, name)) for name in ("train", "validation", "test")] == list(map(len, rows))
    assert one.splits.test.label.tolist() == arrays["label"][rows[2]].tolist()
    changed = OpenClipartFeatures(fold=2, modalities=("title", "image"))
    arrays["title"][np.concatenate(rows[1:])] = "zebra quagga"
    changed.read = lambda: arrays
    assert torch.equal(changed.splits.train.inputs["title"], one.splits.train.inputs["title"])
    assert not torch.equal(changed.splits.test.inputs["title"], one.splits.test.inputs["title"])
    assert not torch.equal(OpenClipartFeatures().splits.train.inputs["title"][:9], one.splits.train.inputs["title"][:9])


# What data modules refuse


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fold": 5}, "openclipart_features: fold 5: it has 5 folds, 0 to 4"),
        ({"fold": -1}, "fold -1: it has 5 folds, 0 to 4"),
        ({"modalities": ("image", "titel")}, "openclipart_features: unknown modality 'titel'; did you mean 'title'"),
        ({"modalities": ("image",)}, "openclipart_features: expected at least two of image, title, tags, got image"),
        ({"modalities": ()}, "expected at least two of image, title, tags, got none"),
        ({"modalities": ("tags", "image", "tags")}, "modalities: expected different ones, got tags, image, tags"),
    ],
)
def test_folds_and_modalities_that_there_are_not(arguments, message):
    with pytest.raises(UsageError, match=message):
        OpenClipartFeatures(**arguments)


def test_a_fold_of_a_data_set_with_one_split():
    with pytest.raises(UsageError, match="planted: fold 0: it has one split and no folds; leave fold out"):
        Planted2(fold=0)


class Folded(Planted2):
    folds = 3


def test_a_load_that_never_asks_for_the_fold():
    Folded().setup()
    with pytest.raises(UsageError, match=r"planted: load\(\) does not look at self.fold, so that all of its 3 folds"):
        Folded(fold=1).setup()


class Asking(Folded):
    def load(self):
        assert self.fold == 2
        return super().load()


def test_the_mask_of_a_fold_is_its_own():
    missing = Missing(rate=0.4)
    whole, data = Asking(fold=2).splits.train.present, Asking(fold=2, missing=missing, protocol="peek")
    keep = missing.mask("planted", "train/2", data.modalities, len(whole))
    assert torch.equal(data.splits.train.present, whole & torch.from_numpy(keep))
    keep = missing.mask("planted", "test/2", data.modalities, len(data.splits.test))
    assert torch.equal(data.selection_split.present, data.splits.test.present & torch.from_numpy(keep))


# Subsets of modalities


def test_a_subset_is_a_data_set_of_its_own():
    data = OpenClipart(
        tokenizers={"tags": lambda texts: {"token": torch.ones(len(texts), 2)}}, modalities=["tags", "image"]
    )
    assert data.modalities == ("image", "tags")
    assert data.text_modalities == ("tags",)
    assert data.spec.conditioning == "image", "title, which it is otherwise, is left out"
    assert set(data.augmentations) == {"image", "tags"}
    whole = OpenClipart.read()
    train = data.splits.train
    assert set(train.inputs) == {"image", "tags"}
    codes = whole["split_clean"]
    assert torch.equal(train.present[:, 1], torch.from_numpy(whole["tags"][codes == 0] != ""))
    assert train.present.shape == (1067, 2)
    features = OpenClipartFeatures(modalities=("title", "tags"), fold=0, protocol="legacy")
    assert features.spec.feature_dims == {"title": 128, "tags": 128}
    assert features.spec.conditioning == "title"
    assert features.splits.train.present[:, 0].all()


def test_all_modalities_are_no_subset():
    data = OpenClipartFeatures(modalities=("tags", "title", "image"))
    assert data.modalities is OpenClipartFeatures.modalities
    assert data.conditioning == "title"


def test_masks_are_of_the_subset():
    missing = Missing(rate=0.4)
    with pytest.raises(UsageError, match=r"at most 0\.5"):
        OpenClipartFeatures(modalities=("title", "tags"), missing=Missing(rate=0.6))
    data = OpenClipartFeatures(modalities=("title", "tags"), missing=missing)
    keep = torch.from_numpy(missing.mask("openclipart_features", "train", ("title", "tags"), 1067))
    natural = OpenClipartFeatures(modalities=("title", "tags")).splits.train.present
    assert torch.equal(data.splits.train.present, natural & keep)


class Everything(Planted3):
    """Loads all its modalities, whichever are asked for."""

    def load(self):
        return Planted3(protocol=self.protocol.name, tokenizers=self.tokenizers).load()


def test_what_is_loaded_of_modalities_that_are_left_out_is_dropped():
    tokenizers = {"words": HashedText(buckets=64).tokenize}
    whole = Planted3(tokenizers=tokenizers).splits.train
    without_text, without_sensor = (
        Everything(modalities=names, tokenizers=given).splits.train
        for names, given in ((("picture", "sensor"), None), (("words", "picture"), tokenizers))
    )
    assert list(without_text.inputs) == ["sensor", "picture"]
    assert torch.equal(without_text.inputs["picture"], whole.inputs["picture"])
    assert torch.equal(without_text.present, whole.present[:, :2])
    assert list(without_sensor.inputs) == ["picture", "words"]
    assert torch.equal(without_sensor.inputs["words"]["token"], whole.inputs["words"]["token"])
    assert torch.equal(without_sensor.present, whole.present[:, 1:])


def test_a_trial_takes_its_fold_and_the_modalities_that_it_has_encoders_for():
    trial = Trial(
        dataset="openclipart_features", data=OpenClipartFeatures.manifest(), protocol="clean", method="sum", seed=0, params={},
        encoders={m: {"name": "mlp", "in_dim": 128} for m in ("tags", "title")}, recipe=Recipe(), fold=3,
    )  # fmt: skip
    task, data = build(trial, "cpu")
    assert (data.modalities, data.fold) == (("title", "tags"), 3)
    assert task.spec.class_counts == tuple(np.bincount(data.splits.train.label, minlength=10))
    tested = OpenClipart.parts().rows("clean", 3)[2]
    assert data.splits.test.label.tolist() == OpenClipart.read()["label"][tested].tolist()


def test_these_data_sets_have_folds():
    own = {name: DATASETS[name] for name in DATASETS if DATASETS[name].__module__.startswith("mmbench.")}
    folded = {name: (data.folds, data.folded_by) for name, data in own.items() if data.folds > 1}
    assert folded == {
        "crema_d": (5, "actor"), "iemocap": (5, "session"), "iemocap6": (5, "session"), "iemocap_features": (5, "session"),
        "openclipart": (5, "artist"), "openclipart_features": (5, "artist"), "tuxpaint": (5, "series"),
        "handwritten": (5, "sample, since no groups were given"),
    }  # fmt: skip
