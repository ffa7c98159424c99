"""What ``setup`` refuses of a data module, what it puts right, and what it only tells."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from mmbench.data.base import MultimodalDataModule
from mmbench.data.prepared import Mapped
from mmbench.data.split import Loaded, Split
from mmbench.errors import UsageError

NAMES = ("train", "validation", "test")


class Own(MultimodalDataModule):
    """A data set as a user writes one: a vector, a picture and words, of four classes; 20 samples in ten groups a split."""

    name = "own"
    modalities = ("sensor", "picture", "words")
    classes = ("a", "b", "c", "d")
    conditioning = "sensor"
    feature_dims = {"sensor": 6}
    change = staticmethod(lambda loaded: loaded)

    def load(self):
        rng = np.random.default_rng(0)
        parts = [draw(rng, 10 * number) for number in range(3)]
        if self.protocol.split == "legacy":
            parts[1] = None
        return self.change(Loaded(*parts))


def draw(rng, first_group):
    return Split(
        inputs={
            "sensor": torch.from_numpy(rng.normal(size=(20, 6)).astype(np.float32)),
            "picture": torch.from_numpy(rng.integers(0, 256, (20, 3, 4, 4), np.uint8)),
            "words": {"token": torch.from_numpy(rng.integers(1, 9, (20, 5))), "word": torch.arange(100).view(20, 5)},
        },
        present=torch.ones(20, 3, dtype=torch.bool),
        label=torch.arange(20) % 4,
        group=first_group + torch.arange(20) // 2,
    )


def module(change=None, protocol="clean", **attributes):
    """The data set, with a change of what ``load`` returns and other declarations."""
    data = type("Changed", (Own,), attributes)(protocol=protocol, batch_size=4)
    data.change = change or (lambda loaded: loaded)
    return data


def with_field(name, field, value):
    """A change of one field of one split; ``value`` may be a function of what is there."""

    def change(loaded):
        split = getattr(loaded, name)
        new = value(getattr(split, field)) if callable(value) else value
        return replace(loaded, **{name: replace(split, **{field: new})})

    return change


def with_input(name, modality, value):
    return with_field(name, "inputs", lambda inputs: {**inputs, modality: value(inputs[modality])})


def everywhere(modality, value):
    """A change of one modality in every split."""

    def change(loaded):
        for name in NAMES:
            loaded = with_input(name, modality, value)(loaded)
        return loaded

    return change


def refused(data, message):
    with pytest.raises(UsageError, match=message):
        data.setup()


def test_what_is_as_it_should_be_stays_the_same_object(capsys):
    data, seen = module(), []
    data.change = lambda loaded: seen.append(loaded) or loaded
    data.setup()
    for name in NAMES:
        given, held = getattr(seen[0], name), getattr(data.splits, name)
        assert held.inputs["sensor"] is given.inputs["sensor"]
        assert held.inputs["words"]["token"] is given.inputs["words"]["token"]
        assert held.label is given.label
    assert capsys.readouterr().out == ""


# Declarations


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"modalities": ("sensor", "picture", "sensor")}, r"own\.modalities: 'sensor' is given twice"),
        ({"modalities": "sensor"}, r"own\.modalities: expected a tuple of names, got 'sensor'; for one name write \('sensor',\)"),
        ({"modalities": ()}, r"own\.modalities: expected 1 to 16 names, got 0"),
        ({"modalities": ("sensor", 3)}, r"own\.modalities: expected a tuple of names"),
        ({"modalities": ("a+b", "c")}, r"own\.modalities: 'a\+b' contains '\+'"),
        ({"modalities": tuple(map(str, range(17)))}, r"own\.modalities: expected 1 to 16 names, got 17"),
        ({"classes": ("a", "a", "b", "c")}, r"own\.classes: 'a' is given twice"),
        ({"classes": ("a",)}, r"own\.classes: expected 2 to 32767 names, got 1"),
        ({"classes": tuple(map(str, range(40_000)))}, r"own\.classes: expected 2 to 32767 names, got 40000"),
        ({"classes": None}, r"own\.classes: expected a tuple of names, got None"),
        ({"conditioning": "sensr"}, r"own\.conditioning: unknown modality 'sensr'; did you mean 'sensor'"),
        ({"feature_dims": {"sound": 6}}, r"own\.feature_dims: unknown modality 'sound'"),
    ],
)  # fmt: skip
def test_declarations(attributes, message):
    refused(module(**attributes), message)


def test_many_modalities_are_told(capsys):
    names = tuple("abcdefghij")

    def widen(loaded):
        for name in NAMES:
            given = getattr(loaded, name).inputs["sensor"]
            inputs = {m: given.clone() for m in names}
            loaded = with_field(name, "inputs", inputs)(loaded)
            loaded = with_field(name, "present", torch.ones(20, 10, dtype=torch.bool))(loaded)
        return loaded

    module(widen, modalities=names, conditioning="a", feature_dims={}).setup()
    assert capsys.readouterr().out == "own: 10 modalities; testing fuses each batch under 1023 patterns\n"


# Labels, groups, attacks


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("label", "message"),
    [
        (lambda y: y + 1, r"label of sample 3 is 4, expected 0 to 3 \(5 samples of 20 are out of this range\); number from 0"),
        (lambda y: torch.where(y == 2, -1, y), r"label of sample 2 is -1, expected 0 to 3"),
        (lambda y: y.float(), r"label is float32 of shape \(20,\), expected integers .* call \.long\(\)"),
        (lambda y: y > 1, r"label is bool of shape \(20,\), expected integers"),
        (lambda y: y[:, None], r"label has the shape \(20, 1\), expected \(N,\): one number a sample"),
        (lambda y: torch.nn.functional.one_hot(y), r"label has the shape \(20, 4\), expected \(N,\)"),
        (lambda y: y.numpy(), r"label is a numpy array \(int64\) of shape \(20,\), expected a tensor; torch\.from_numpy"),
        (lambda y: y.tolist(), r"label is a list, expected a tensor"),
        (lambda y: None, r"label is nothing, expected a tensor"),
        (lambda y: y[:0], r"it is empty; expected at least one sample"),
    ],
)  # fmt: skip
def test_labels(name, label, message):
    refused(module(with_field(name, "label", label)), f"own, {name} split: {message}")


@pytest.mark.parametrize("kind", [torch.int8, torch.uint8, torch.int16, torch.int32, torch.uint16])
def test_integers_of_any_type_become_int64(kind, capsys):
    data = module(with_field("train", "label", lambda y: y.to(kind)))
    assert data.splits.train.label.dtype == torch.int64
    assert data.splits.train.label.tolist() == [i % 4 for i in range(20)]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("group", lambda g: g[:19], r"group has the shape \(19,\), expected \(20,\)"),
        ("group", lambda g: g.double(), r"group is float64 of shape \(20,\), expected integers"),
        ("group", lambda g: [f"artist {i}" for i in g], r"group is a list, expected a tensor"),
        ("attack", torch.full((20,), -1), r"attack of sample 0 is -1, expected 0 to 32767"),
        ("attack", torch.zeros(3), r"attack is float32 of shape \(3,\), expected integers"),
    ],
)
def test_groups_and_attacks(field, value, message):
    refused(module(with_field("test", field, value)), f"own, test split: {message}")


def test_attacks_in_one_split_alone():
    refused(module(with_field("test", "attack", torch.arange(20))), "own: attack is given for some of the splits")


# Presence


@pytest.mark.parametrize(
    ("present", "message"),
    [
        (lambda p: p.to(torch.uint8), r"present is uint8 of shape \(20, 3\), expected bool of shape \(20, 3\)"),
        (lambda p: p.float(), r"present is float32 of shape \(20, 3\), expected bool"),
        (lambda p: p[:, :2], r"present is bool of shape \(20, 2\), expected bool of shape \(20, 3\): .* \(sensor, picture, words\)"),
        (lambda p: p[:19], r"present is bool of shape \(19, 3\), expected bool of shape \(20, 3\)"),
        (lambda p: p.T, r"present is bool of shape \(3, 20\), expected bool of shape \(20, 3\)"),
        (lambda p: p[:, 0], r"present is bool of shape \(20,\), expected bool of shape \(20, 3\)"),
        (lambda p: p.numpy(), r"present is a numpy array \(bool\) of shape \(20, 3\), expected a tensor"),
    ],
)  # fmt: skip
def test_presence(present, message):
    refused(module(with_field("validation", "present", present)), f"own, validation split: {message}")


# Inputs


@pytest.mark.parametrize(
    ("modality", "value", "message"),
    [
        ("sensor", lambda x: x[:, :5], r"sensor has the shape \(20, 5\), expected \(20, 6\), as feature_dims says"),
        ("sensor", lambda x: x[:19], r"sensor has the shape \(19, 6\), expected \(20, 6\)"),
        ("sensor", lambda x: x[:, None], r"sensor has the shape \(20, 1, 6\), expected \(20, 6\)"),
        ("sensor", lambda x: x.numpy(), r"sensor is a numpy array \(float32\) of shape \(20, 6\), expected a tensor"),
        ("sensor", lambda x: x.tolist(), r"sensor is a list, expected a tensor"),
        ("sensor", lambda x: {"vector": x}, r"sensor is a dict, expected a tensor"),
        ("sensor", lambda x: torch.complex(x, x), r"sensor is complex64 of shape \(20, 6\), expected real numbers"),
        ("sensor", lambda x: x.to_sparse(), r"sensor is on cpu, torch\.sparse_coo; expected a dense tensor"),
        ("sensor", lambda x: x.to("meta"), r"sensor is on meta, .* expected a dense tensor in the CPU's memory"),
        ("sensor", lambda x: x.double() * 1e300, r"sensor is not a finite number in 20 samples, the first of them number 0"),
        ("picture", lambda x: x[1:], r"picture has the shape \(19, 3, 4, 4\), expected \(20, …\), a row a sample"),
        ("picture", lambda x: torch.tensor(3.0), r"picture has the shape \(\), expected \(20, …\)"),
        ("words", lambda x: {}, r"words is a dict, expected a tensor"),
        ("words", lambda x: {**x, "word": x["word"][:9]}, r"words, 'word' has the shape \(9, 5\), expected \(20, …\)"),
        ("words", lambda x: {**x, "word": x["word"].numpy()}, r"words, 'word' is a numpy array"),
        ("words", lambda x: {**x, "mask": torch.full((20, 5), float("nan"))}, r"words, 'mask' is not a finite number in 20"),
    ],
)  # fmt: skip
def test_inputs(modality, value, message):
    refused(module(with_input("test", modality, value)), f"own, test split: {message}")


def test_a_modality_too_few_or_too_many():
    fewer = with_field("train", "inputs", lambda x: {"sensor": x["sensor"], "words": x["words"]})
    refused(module(fewer), "own, train split: the inputs are sensor, words, expected sensor, picture, words")
    more = with_field("train", "inputs", lambda x: {**x, "sound": x["sensor"]})
    refused(module(more), "own, train split: the inputs are sensor, picture, words, sound, expected sensor")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_no_number_is_named_where_it_is_present_and_let_be_where_it_is_not(value):
    def spoil(x):
        x[[7, 9], 2] = value
        return x

    refused(
        module(with_input("validation", "sensor", spoil)), "own, validation split: sensor .* 2 samples, .* number 7;"
    )

    def absent(p):
        p[[7, 9], 0] = False
        return p

    spoilt = with_input("validation", "sensor", spoil)
    module(lambda loaded: with_field("validation", "present", absent)(spoilt(loaded))).setup()


def test_large_finite_values_whose_sum_is_infinite_are_accepted():
    module(everywhere("sensor", lambda x: x.sign() * 3e38)).setup()


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool])
def test_features_become_float32_with_one_line(kind, capsys):
    data = module(everywhere("sensor", lambda x: (4 * x).round().abs().to(kind)))
    assert {getattr(data.splits, name).inputs["sensor"].dtype for name in NAMES} == {torch.float32}
    assert capsys.readouterr().out == f"own: sensor: {str(kind).removeprefix('torch.')} features become float32\n"


def test_floating_point_becomes_float32_where_no_width_is_declared_and_integers_stay(capsys):
    data = module(everywhere("picture", lambda x: x.double()))
    assert data.splits.test.inputs["picture"].dtype == torch.float32
    assert data.splits.test.inputs["words"]["token"].dtype == torch.int64
    assert capsys.readouterr().out == "own: picture: float64 features become float32\n"


def test_a_gradient_is_let_go_and_a_transposed_tensor_is_as_good_as_another():
    data = module(everywhere("sensor", lambda x: x.T.contiguous().T.requires_grad_()))
    assert not data.splits.train.inputs["sensor"].requires_grad
    assert data.splits.train[3].inputs["sensor"].shape == (1, 6)


@pytest.mark.parametrize(
    ("modality", "value", "message"),
    [
        ("picture", lambda x: x.float() / 255, "picture is float32 of 4 dimensions in the test split, but uint8 of 4"),
        ("picture", lambda x: x[:, 0], "picture is uint8 of 3 dimensions in the test split, but uint8 of 4"),
        ("words", lambda x: {"token": x["token"]}, "words is 'token' int64 of 2 dimensions in the test split, but 'token' .*, 'word' "),
    ],
)  # fmt: skip
def test_splits_of_different_kinds(modality, value, message):
    refused(module(with_input("test", modality, value)), f"own: {message}")


# Splits


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda loaded: None, r"own: load\(\) returned nothing, expected a Loaded"),
        (lambda loaded: (loaded.train, loaded.test), r"own: load\(\) returned a tuple, expected a Loaded"),
        (lambda loaded: replace(loaded, train=None), r"own: load\(\) gave no train split"),
        (lambda loaded: replace(loaded, test={}), r"own, test split: expected a Split, got a dict"),
        (lambda loaded: replace(loaded, validation=None), r"own: protocol 'clean' needs a validation split"),
    ],
)
def test_splits_that_are_not_there(change, message):
    refused(module(change), message)


def test_a_class_and_a_modality_that_training_never_sees_are_told(capsys):
    def change(loaded):
        loaded = with_field("train", "label", torch.arange(20) % 3)(loaded)
        return with_field("train", "present", lambda p: p & torch.tensor([True, True, False]))(loaded)

    module(change).setup()
    assert capsys.readouterr().out.splitlines() == [
        "own: the train split has no sample of d",
        "own: no sample of the train split has words",
    ]


@pytest.mark.parametrize("pair", [("train", "validation"), ("train", "test"), ("validation", "test")])
def test_a_group_in_two_splits_of_clean(pair):
    one, other = pair

    def share(loaded):
        group = getattr(loaded, other).group.clone()
        group[4:6] = getattr(loaded, one).group[10]
        return with_field(other, "group", group)(loaded)

    group = 10 * NAMES.index(one) + 5
    refused(
        module(share),
        rf"group {group} is in the {one} split \(sample 10\) and in the {other} split \(sample 4\), and so are 2 samples",
    )


def test_legacy_may_share_groups():
    def share(loaded):
        return with_field("test", "group", loaded.train.group)(loaded)

    module(share, protocol="legacy").setup()


def of_one_pool(take, train, validation, test):
    """A change: the splits are rows of the train split's samples, with groups of their own."""

    def change(loaded):
        def part(rows, first_group):
            whole = loaded.train
            if take == "views":
                inputs = {"sensor": whole.inputs["sensor"][rows], "picture": whole.inputs["picture"][rows]}
                inputs["words"] = {k: v[rows] for k, v in whole.inputs["words"].items()}
                part = Split(inputs, whole.present[rows], whole.label[rows], whole.group[rows])
            else:
                part = whole.rows(np.arange(20)[rows])
            return replace(part, group=first_group + torch.arange(len(part)))

        return Loaded(part(train, 0), part(validation, 100), part(test, 200))

    return change


@pytest.mark.parametrize("protocol", ["clean", "legacy"])
def test_a_test_split_that_is_the_training_split(protocol):
    same = of_one_pool("views", slice(0, 20), slice(0, 5), slice(0, 20))
    refused(module(same, protocol), rf"protocol '{protocol}': sample 0 of the \w+ split is sample 0 of the train split")


@pytest.mark.parametrize("protocol", ["clean", "legacy"])
def test_views_of_one_tensor_that_overlap(protocol):
    overlapping = of_one_pool("views", slice(0, 12), slice(12, 16), slice(10, 20))
    refused(
        module(overlapping, protocol),
        r"sample 0 of the test split is sample 10 of the train split \(2 samples are in both",
    )


@pytest.mark.parametrize("take", ["views", "copies"])
def test_views_of_one_tensor_that_do_not_overlap(take, capsys):
    module(of_one_pool(take, slice(0, 20, 3), slice(1, 20, 6), slice(4, 20, 6))).setup()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("protocol", ["clean", "legacy"])
@pytest.mark.parametrize("test", [slice(0, 12), slice(11, None, -1), slice(4, 16)])
def test_copies(protocol, test):
    copied = of_one_pool("copies", slice(0, 12), slice(16, 20), test if test.step is None else np.arange(12)[::-1])
    refused(module(copied, protocol), r"\d+ of 12 samples of the test split are copies of samples of the train split")


def test_a_few_equal_samples_are_told(capsys):
    module(of_one_pool("copies", slice(0, 12), slice(12, 16), np.r_[2, 16:20])).setup()
    assert capsys.readouterr().out == "own: 1 of 5 test samples equal a train sample in label and every modality\n"


def test_samples_of_few_kinds_repeat_in_every_split():
    """All that there is of two bits: what is equal says nothing."""

    def bits(loaded):
        for name in NAMES:
            table = torch.arange(20)[:, None] // torch.tensor([1, 2]) % 2
            loaded = with_field(name, "inputs", {"a": table.float()[:, :1], "b": table.float()[:, 1:]})(loaded)
            loaded = with_field(name, "present", torch.ones(20, 2, dtype=torch.bool))(loaded)
        return loaded

    module(bits, modalities=("a", "b"), conditioning="a", feature_dims={}).setup()


def test_a_constant_that_the_splits_share():
    nothing = torch.zeros(1, 3, 4, 4, dtype=torch.uint8).expand(20, 3, 4, 4)
    module(everywhere("picture", lambda x: nothing)).setup()


@pytest.mark.parametrize("shown", [0, 1])
def test_rows_that_stand_for_what_is_absent_may_be_shared(shown):
    zeros = torch.zeros(20, 3, 4, 4, dtype=torch.uint8)

    def change(loaded):
        for name in NAMES:
            loaded = with_field(name, "present", lambda p: p & torch.tensor([True, False, True]))(loaded)
            loaded = with_input(name, "picture", lambda x: zeros)(loaded)
        for name in NAMES[: 2 * shown]:
            loaded.__dict__[name].present[7, 1] = True
        return loaded

    if shown:
        refused(
            module(change),
            r"sample 7 of the validation split is sample 7 of the train split \(1 samples are in both: picture",
        )
    else:
        module(change).setup()


# Rows on disk


def mapped(tmp_path, rows, kind="float32"):
    """A change: the pictures of every split are rows of one file."""
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((60, 7), kind))

    def change(loaded):
        for name, numbers in rows.items():
            array = np.load(path, mmap_mode="r")
            loaded = with_input(name, "picture", lambda x, a=array, n=numbers: Mapped(a, n))(loaded)
        return loaded

    return change


def test_rows_on_disk_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(Mapped, "__getitem__", lambda *arguments: pytest.fail("read"))
    change = mapped(tmp_path, {n: np.arange(20) + 20 * i for i, n in enumerate(NAMES)})
    assert len(module(change).splits.test.inputs["picture"]) == 20


def test_arrays_in_memory_that_lie_fewer_bytes_apart_than_they_have_rows():
    pools = sorted((np.zeros((6_000, 7), "float32") for _ in range(200)), key=id)
    apart, train, validation = min((id(b) - id(a), i, i + 1) for i, (a, b) in enumerate(pairwise(pools)))
    rows = {
        "train": (pools[train], apart),
        "validation": (pools[validation], 0),
        "test": (np.zeros((20, 7), "float32"), 0),
    }

    def change(loaded):
        for name, (array, first) in rows.items():
            of_it = Mapped(array, first + np.arange(20))
            loaded = with_input(name, "picture", lambda x, value=of_it: value)(loaded)
        return loaded

    assert apart < 5_000
    assert len(module(change).splits.test) == 20


@pytest.mark.parametrize(
    ("kind", "dims", "becomes"),
    [("float64", {}, "float32"), ("float16", {}, "float16"), ("float16", {"picture": 7}, "float32")],
)
def test_features_on_disk_become_float32_when_they_are_read(tmp_path, kind, dims, becomes, capsys):
    change = mapped(tmp_path, {n: np.arange(20) + 20 * i for i, n in enumerate(NAMES)}, kind)
    test = module(change, feature_dims=dims).splits.test
    assert str(test[0].inputs["picture"].dtype) == f"torch.{becomes}"
    assert str(test.rows(np.arange(3))[0].inputs["picture"].dtype) == f"torch.{becomes}"
    told = f"own: picture: {kind} features become float32\n" if kind != becomes else ""
    assert capsys.readouterr().out == told


def test_rows_on_disk_that_two_splits_share(tmp_path):
    change = mapped(tmp_path, {"train": np.arange(20), "validation": np.arange(20, 40), "test": np.arange(15, 35)})
    refused(
        module(change), r"sample 0 of the test split is sample 15 of the train split \(5 samples are in both: picture"
    )


def test_too_few_rows_on_disk(tmp_path):
    change = mapped(tmp_path, {"train": np.arange(19), "validation": np.arange(20, 40), "test": np.arange(40, 60)})
    refused(
        module(change), r"own, train split: picture has 19 rows on disk of the shape \(7,\), expected 20 of any size"
    )


def test_rows_on_disk_of_another_width(tmp_path):
    change = mapped(tmp_path, {n: np.arange(20) + 20 * i for i, n in enumerate(NAMES)})
    refused(
        module(change, feature_dims={"picture": 8}),
        r"picture has 20 rows on disk of the shape \(7,\), expected 20 of the shape \(8,\)",
    )


# The protocol


def test_a_load_that_never_asks_for_the_protocol():
    class Deaf(Own):
        def load(self):
            rng = np.random.default_rng(0)
            return Loaded(*(draw(rng, 10 * number) for number in range(3)))

    Deaf().setup()
    refused(
        Deaf(protocol="legacy"), r"own: load\(\) does not look at self\.protocol, so that 'legacy' would be 'clean'"
    )


def test_a_class_may_ask_for_the_protocol_when_it_is_built():
    class Early(Own):
        def __init__(self, **arguments):
            super().__init__(**arguments)
            self.kind = self.protocol.split

        def load(self):
            rng = np.random.default_rng(len(self.kind))
            return Loaded(draw(rng, 0), draw(rng, 10) if self.kind == "clean" else None, draw(rng, 20))

    Early(protocol="legacy").setup()
