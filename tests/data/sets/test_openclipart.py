from collections import Counter
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch

import mmbench.data.sets
from mmbench.data.sets.openclipart import OpenClipart
from mmbench.data.sets.openclipart_features import OpenClipartFeatures
from planted import batch_of

FILE = Path(mmbench.data.sets.__path__[0]) / "openclipart.npz"


@pytest.fixture(scope="module")
def arrays():
    with np.load(FILE) as data:
        return {name: data[name] for name in data.files}


@pytest.fixture(params=["clean", "legacy"])
def data(request, make_world):
    return make_world("openclipart", request.param).data


def parts(data):
    splits = data.splits
    return [s for s in (splits.train, splits.validation, splits.test) if s is not None]


def pictures(split):
    return Counter(row.tobytes() for row in split.inputs["image"].numpy())


def test_each_picture_is_in_one_split_with_its_own_words_and_label(data, arrays):
    code = arrays[f"split_{data.protocol.name}"]
    for number, split in zip((0, 1, 2) if data.protocol.name == "clean" else (0, 2), parts(data), strict=True):
        rows = np.flatnonzero(code == number)
        assert len(split) == len(rows) > 0
        assert np.array_equal(split.inputs["image"].numpy().transpose(0, 2, 3, 1), arrays["image"][rows])
        assert split.label.tolist() == arrays["label"][rows].tolist()
        for field in ("title", "tags"):
            expected = data.tokenizers[field](arrays[field][rows].tolist())["token"]
            got = split.inputs[field]["token"]
            assert torch.equal(got[:, : expected.shape[1]], expected)
            assert not got[:, expected.shape[1] :].any()
        artists = arrays["artist"][rows]
        assert (
            len(set(zip(artists, split.group.tolist(), strict=True)))
            == len(set(artists))
            == len(set(split.group.tolist()))
        )


def test_present_is_what_has_words(data, arrays):
    code = arrays[f"split_{data.protocol.name}"]
    assert data.modalities == ("image", "title", "tags")
    for split, number in ((data.splits.train, 0), (data.splits.test, 2)):
        present = split.present.numpy()
        assert present[:, :2].all()
        assert np.array_equal(present[:, 2], arrays["tags"][code == number] != "")
        assert np.array_equal(present[:, 2], split.inputs["tags"]["token"].numpy().any(axis=1))
        assert 0.2 < 1 - present[:, 2].mean() < 0.45
        assert split.inputs["title"]["token"].any(dim=1).all()


def test_clean_keeps_every_artist_within_one_split(make_world):
    groups = [set(split.group.tolist()) for split in parts(make_world("openclipart", "clean").data)]
    assert len(groups) == 3
    assert sum(map(len, groups)) == len(set.union(*groups))


def test_no_picture_is_in_two_splits(data):
    counted = [set(pictures(split)) for split in parts(data)]
    assert sum(map(len, counted)) == len(set().union(*counted))


def test_legacy_shares_artists_and_selects_on_the_test_split(make_world):
    clean, legacy = (make_world("openclipart", protocol).data for protocol in ("clean", "legacy"))
    assert set(legacy.splits.train.group.tolist()) & set(legacy.splits.test.group.tolist())
    assert legacy.splits.validation is None
    assert legacy.selection_split is legacy.splits.test
    assert clean.selection_split is clean.splits.validation
    assert [len(legacy.splits.train), len(legacy.splits.test)] == [len(clean.splits.train), len(clean.splits.test)]


def test_every_class_occurs_in_every_split(data):
    for split in parts(data):
        assert set(split.label.tolist()) == set(range(10))
    assert data.spec.class_counts == tuple(np.bincount(data.splits.train.label.numpy(), minlength=10))
    assert data.spec.num_train == len(data.splits.train)
    assert data.spec.conditioning == "title"


def test_a_batch(data):
    batch = batch_of(data.splits.test, 4)
    assert batch.inputs["image"].shape == (4, 3, 32, 32)
    assert batch.inputs["image"].dtype == torch.uint8
    assert set(batch.inputs["title"]) == {"token", "word"}
    assert batch.present.shape == (4, 3)
    assert (batch.label.dtype, batch.index.tolist()) == (torch.int64, [0, 1, 2, 3])


def test_the_manifest_is_the_hash_of_the_shipped_file():
    assert OpenClipart.manifest() == sha256(FILE.read_bytes()).hexdigest()


@pytest.mark.parametrize("fold", [None, 0, 4])
@pytest.mark.parametrize("protocol", ["clean", "peek", "legacy"])
def test_the_ids_of_its_splits_are_those_of_what_is_loaded(protocol, fold, arrays):
    ids, loaded = OpenClipart.split_ids(protocol, fold), OpenClipart.textless(protocol, fold).load()
    number = {name: row for row, name in enumerate(arrays["source"].tolist())}
    assert ("validation" in ids) == (loaded.validation is not None) == (protocol != "legacy")
    for split, names in ids.items():
        rows = [number[name] for name in names]
        part = getattr(loaded, split)
        assert np.array_equal(part.inputs["image"].permute(0, 2, 3, 1), arrays["image"][rows])
        assert part.label.tolist() == arrays["label"][rows].tolist()
    assert OpenClipartFeatures.split_ids(protocol, fold) == ids
