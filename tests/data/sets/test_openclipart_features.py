"""The feature track: the samples of openclipart, features of its training split alone."""

import numpy as np
import pytest
import torch

from mmbench.data.sets import openclipart_features
from mmbench.data.sets.openclipart_features import WIDTH, OpenClipartFeatures, latent_semantics, principal_components


@pytest.fixture(params=["clean", "legacy"])
def data(request, make_world):
    return make_world("openclipart_features", request.param).data


def test_samples_labels_groups_and_gaps_are_those_of_the_raw_track(data, make_world):
    raw = make_world("openclipart", data.protocol.name).data
    for name in ("train", "validation", "test"):
        ours, theirs = getattr(data.splits, name), getattr(raw.splits, name)
        assert (ours is None) == (theirs is None)
        if ours is not None:
            assert torch.equal(ours.label, theirs.label)
            assert torch.equal(ours.group, theirs.group)
            assert torch.equal(ours.present, theirs.present)
    assert raw.manifest() in data.manifest()
    assert raw.manifest() != data.manifest()


def test_every_modality_is_128_numbers_of_unit_size(data):
    train = data.splits.train
    assert data.spec.feature_dims == dict.fromkeys(data.modalities, WIDTH)
    for column, modality in enumerate(data.modalities):
        vectors, here = train.inputs[modality], train.present[:, column]
        assert vectors.shape == (len(train), WIDTH)
        assert vectors.dtype == torch.float32
        assert vectors[here].square().mean().item() == pytest.approx(1, abs=1e-3)
        assert not vectors[~here].any()


def test_nothing_of_the_other_splits_enters_the_features(data, monkeypatch):
    """Other pictures, titles and tags in validation and test leave the training split's features as they are."""
    before = {m: v.clone() for m, v in data.splits.train.inputs.items()}
    again = OpenClipartFeatures(protocol=data.protocol.name)
    arrays = again.read()
    others = np.concatenate(again.rows(arrays)[1:])
    arrays["image"][others] = 255 - arrays["image"][others]
    arrays["title"][others] = "zebra quagga"
    arrays["tags"][others] = "okapi"
    monkeypatch.setattr(again, "read", lambda: arrays)
    after = again.splits
    assert all(torch.equal(before[m], after.train.inputs[m]) for m in before)
    assert not torch.equal(data.splits.test.inputs["title"], after.test.inputs["title"])


def test_labels_do_not_enter_the_features(monkeypatch):
    again, plain = OpenClipartFeatures(), OpenClipartFeatures()
    arrays = again.read()
    arrays["label"] = np.roll(arrays["label"], 1)
    monkeypatch.setattr(again, "read", lambda: arrays)
    assert all(torch.equal(v, again.splits.train.inputs[m]) for m, v in plain.splits.train.inputs.items())


def test_principal_components_are_numpys(data):
    arrays = data.read()
    train = data.rows(arrays)[0]
    vectors = arrays["image"].reshape(len(arrays["image"]), -1)[:, ::7].astype(np.float64) / 255
    ours = principal_components(vectors, train).numpy()
    centred = vectors - vectors[train].mean(axis=0)
    _, singular, axes = np.linalg.svd(centred[train], full_matrices=False)
    naive = centred @ axes[:5].T
    cosine = (
        np.abs((naive * ours[:, :5]).sum(axis=0)) / np.linalg.norm(naive, axis=0) / np.linalg.norm(ours[:, :5], axis=0)
    )
    assert cosine == pytest.approx(1, abs=1e-3)
    assert (np.diff(singular[:5]) < 0).all()


def test_texts_alike_have_features_alike(data):
    arrays = data.read()
    train = data.rows(arrays)[0]
    titles = arrays["title"].copy()
    titles[train[:3]] = ["red fish swimming", "red fishes swimming", "steam locomotive"]
    vectors = latent_semantics(titles, train)[train[:3]]
    near, far = (torch.cosine_similarity(vectors[0], vectors[i], dim=0).item() for i in (1, 2))
    assert near > 0.5 > far


# Features that are kept


def test_another_trial_reads_what_the_first_has_fitted(data, tmp_path, monkeypatch):
    monkeypatch.setenv("MMBENCH_DATA", str(tmp_path))
    first = OpenClipartFeatures(protocol=data.protocol.name).splits
    monkeypatch.setattr(openclipart_features, "fitted", lambda *_: pytest.fail("fitted anew"))
    again = OpenClipartFeatures(protocol=data.protocol.name).splits
    for other in (first, again):
        for name in ("train", "test"):
            for modality, vectors in getattr(data.splits, name).inputs.items():
                assert torch.equal(getattr(other, name).inputs[modality], vectors)
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 3


def test_another_training_split_has_features_of_its_own(data, tmp_path, monkeypatch):
    monkeypatch.setenv("MMBENCH_DATA", str(tmp_path))
    asked = []
    monkeypatch.setattr(
        openclipart_features, "fitted", lambda m, raw, train: asked.append(m) or torch.ones(len(raw), WIDTH)
    )
    for fold in (None, 0, 1, None, 0):
        OpenClipartFeatures(protocol=data.protocol.name, fold=fold).setup()
    assert asked == [*data.modalities] * 3


def test_where_nothing_can_be_kept_every_trial_fits(data, capsys, monkeypatch):
    monkeypatch.setenv("MMBENCH_DATA", __file__)
    again = OpenClipartFeatures(protocol=data.protocol.name)
    assert torch.equal(again.splits.train.inputs["title"], data.splits.train.inputs["title"])
    assert "features of title are fitted for this trial alone" in capsys.readouterr().out
