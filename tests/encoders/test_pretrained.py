import ast
import copy
import json
import os
import re
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import mmbench.encoders
from mmbench.encoders.pretrained import (
    Pretrained,
    check_layout,
    find_weights,
    fingerprint,
    in_layers,
    load_strictly,
    mean_over_frames,
    normalise,
    read_tensors,
    weights_path,
    without_memory,
)
from mmbench.errors import UsageError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MMBENCH_WEIGHTS", str(tmp_path))
    return tmp_path


class Stack(Pretrained):
    """Two linear layers and a head, with dropout."""

    out_dim = 2

    def __init__(self, **settings):
        super().__init__(**settings)
        self.blocks = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(2, 2, bias=False)
        self.stem = nn.Linear(2, 2)
        self.adapt()

    def layers(self):
        return in_layers(self, self.blocks, [self.head])


def test_packages_with_networks_are_imported_when_an_encoder_is_built():
    for path in Path(mmbench.encoders.__file__).parent.glob("*.py"):
        for node in ast.parse(path.read_text()).body:
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [a.name for a in node.names] if isinstance(node, ast.Import) else []
            assert not {n.partition(".")[0] for n in names} & {"timm", "transformers", "safetensors"}, path.name


# Files


def test_a_file_and_a_folder_are_found(folder, monkeypatch):
    (folder / "one.pth").touch()
    (folder / "two").mkdir()
    assert find_weights("one.pth", "") == folder / "one.pth"
    assert find_weights("two", "") == folder / "two"
    monkeypatch.delenv("MMBENCH_WEIGHTS")
    assert weights_path("x") == Path("weights/x")


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "/etc/passwd", "a/b"])
def test_only_bare_names(folder, name):
    for look in (weights_path, lambda n: find_weights(n, "")):
        with pytest.raises(UsageError, match=f"weights '{name}': expected the bare name"):
            look(name)


def test_a_missing_file_says_where_it_belongs(folder):
    with pytest.raises(
        UsageError, match=rf"weights 'x' are missing; expected in {folder} \(or where MMBENCH_WEIGHTS says\): get it"
    ):
        find_weights("x", "get it")


def test_the_fingerprint_is_of_names_and_contents(tmp_path):
    def print_of(name, content):
        (tmp_path / "f").mkdir(exist_ok=True)
        for old in (tmp_path / "f").iterdir():
            old.unlink()
        (tmp_path / "f" / name).write_bytes(content)
        return fingerprint([tmp_path / "f"]), fingerprint([tmp_path / "f" / name])

    first = print_of("a", b"x" * (1 << 20) + b"1")
    assert print_of("a", b"x" * (1 << 20) + b"1") == first
    assert len({*first, *print_of("a", b"x" * (1 << 20) + b"2"), *print_of("b", b"x" * (1 << 20) + b"1")}) == 6


def test_the_fingerprint_follows_links(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a").write_bytes(b"1")
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "folder").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "f" / "itself").symlink_to(tmp_path / "f")
    (tmp_path / "f" / "file").symlink_to(tmp_path / "elsewhere" / "a")
    first = fingerprint([tmp_path / "f"])
    assert fingerprint([tmp_path / "f"]) == first
    (tmp_path / "elsewhere" / "b").write_bytes(b"2")
    second = fingerprint([tmp_path / "f"])
    (tmp_path / "f" / "folder").unlink()
    assert len({first, second, fingerprint([tmp_path / "f"])}) == 3


def test_tensors_of_both_kinds_of_file(tmp_path):
    tensors = {"a": torch.arange(3.0), "b.c": torch.ones(2, 2)}
    save_file(tensors, tmp_path / "x.safetensors")
    torch.save(tensors, tmp_path / "x.pth")
    for name in ("x.safetensors", "x.pth"):
        read = read_tensors(tmp_path / name)
        assert read.keys() == tensors.keys()
        assert all(torch.equal(read[key], tensors[key]) for key in tensors)


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize(
    "content",
    [b"", b"\x80\x02", {"a": 1}, {1: torch.zeros(1)}, {"state_dict": {"a": torch.zeros(1)}}, [torch.zeros(1)], Hostile],
)
@pytest.mark.parametrize("name", ["x.pth", "x.safetensors"])
def test_what_is_no_state_dict_is_refused_and_not_executed(tmp_path, name, content):
    path, made = tmp_path / name, tmp_path / "made"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(Hostile(str(made)) if content is Hostile else content, path)
    with pytest.raises(UsageError, match=rf"{name}: expected a"):
        read_tensors(path)
    assert not made.exists()


class Made:
    """Pickled as the call of what ``torch.load`` lets a file call."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("value", "match"),
    [
        (Made(bytearray, 1 << 40), "it makes a bytearray"),
        (Made(torch.Tensor, 1 << 40), "can't allocate memory"),
        (Made(torch.Tensor, 1 << 20), "its tensors have 4,194,304 bytes, more than the file"),
        (torch.zeros(1).expand(1 << 20, 1 << 20), r"'x' repeats the 4 bytes it has as \(1048576, 1048576\)"),
        (torch.zeros(3, 3, device="meta"), "'x' is no plain tensor"),
    ],
)
def test_tensors_that_are_larger_than_their_file(tmp_path, value, match, zipped):
    torch.save({"x": value}, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(UsageError, match=rf"x\.pth: .*{match}"):
        read_tensors(tmp_path / "x.pth")


def test_a_compressed_archive_is_refused(tmp_path):
    torch.save({"x": torch.zeros(1 << 20)}, tmp_path / "x.pth")
    with ZipFile(tmp_path / "x.pth") as plain, ZipFile(tmp_path / "y.pth", "w", ZIP_DEFLATED) as compressed:
        for name in plain.namelist():
            compressed.writestr(name, plain.read(name))
    with pytest.raises(UsageError, match=r"y\.pth: .*unpacks to 4,194,\d+ bytes from"):
        read_tensors(tmp_path / "y.pth")


def test_tensors_may_share_their_values(tmp_path):
    table = torch.randn(1000, 8)
    torch.save({"in": table, "out": table, "head": table[:3].T}, tmp_path / "x.pth")
    read = read_tensors(tmp_path / "x.pth")
    assert torch.equal(read["out"], table)
    assert torch.equal(read["head"], table[:3].T)


@pytest.mark.parametrize(
    "header",
    [
        {"x": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}},
        {"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "y": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}},
        {"x": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 8]}},
        {"x": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}},
        1 << 40,
    ],
)  # fmt: skip
def test_safetensors_that_state_more_than_they_hold(tmp_path, header):
    text = b"{}" if isinstance(header, int) else json.dumps(header).encode()
    length = header if isinstance(header, int) else len(text)
    (tmp_path / "x.safetensors").write_bytes(length.to_bytes(8, "little") + text + bytes(8))
    with pytest.raises(UsageError, match=r"x\.safetensors: expected a"):
        read_tensors(tmp_path / "x.safetensors")


def test_a_state_dict_has_to_fit():
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    tensors = {name: torch.rand(value.shape) for name, value in module.state_dict().items()}
    del tensors["1.num_batches_tracked"]
    load_strictly(module, tensors, Path("x.pth"))
    assert all(torch.equal(module.state_dict()[name], value) for name, value in tensors.items())
    tensors["2.weight"] = tensors.pop("1.weight")
    tensors["0.weight"] = torch.zeros(3, 4)
    before = copy.deepcopy(module.state_dict())
    message = (
        r"x.pth does not hold .*: 1.weight is missing, 2.weight is not of this model, "
        r"0.weight is of shape \(3, 4\), expected \(3, 2\)"
    )
    with pytest.raises(UsageError, match=message):
        load_strictly(module, tensors, Path("x.pth"))
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    with pytest.raises(UsageError, match=r", and 4 more$"):
        load_strictly(module, {str(n): torch.zeros(1) for n in range(4)}, Path("x.pth"))


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"a": (2,)}, r"x\.pth .*: b is missing, c is missing$"),
        ({"a": (2,), "b": (3,), "c": (1,), "d": (1,), "e": (1,)}, "e is not of this model$"),
        ({"a": (2,), "b": (3, 1), "c": (1,)}, r"b is of shape \(3, 1\), expected \(3,\)$"),
    ],
)
def test_layout(given, match):
    expected = {"a": (2,), "b": (3,), "c": (1,)}
    with pytest.raises(UsageError, match=match):
        check_layout(Path("x.pth"), {k: torch.ones(s) for k, s in given.items()}, expected, re.compile("d"))
    check_layout(
        Path("x.pth"), {k: torch.ones(s) for k, s in (expected | {"d": (9,)}).items()}, expected, re.compile("d")
    )


def test_without_memory():
    assert not without_memory()
    with torch.device("meta"):
        assert without_memory()


# Input


def test_normalise_is_per_channel():
    pictures = torch.randint(0, 256, (2, 4, 3, 5, 6), dtype=torch.uint8)
    mean, std = torch.tensor([0.1, 0.5, 0.9]), torch.tensor([0.2, 1.0, 3.0])
    got = normalise(pictures, mean, std)
    for c in range(3):
        torch.testing.assert_close(got[:, :, c], (pictures[:, :, c].float() / 255 - mean[c]) / std[c])


def test_features_are_averaged_over_frames():
    def encode(pictures):
        return pictures.flatten(2).mean(dim=2)

    clips = torch.rand(2, 3, 4, 5, 6)
    expected = torch.stack([torch.stack([encode(f[None])[0] for f in clip]).mean(0) for clip in clips])
    torch.testing.assert_close(mean_over_frames(encode, clips), expected)
    torch.testing.assert_close(mean_over_frames(encode, clips[:, 0]), encode(clips[:, 0]))
    assert mean_over_frames(encode, clips[:0]).shape == (0, 4)


# Training


def test_a_frozen_encoder_has_no_trainable_parameters_and_stays_in_evaluation_mode():
    encoder = nn.ModuleDict({"x": Stack(freeze=True)}).train()["x"]
    assert not encoder.training
    assert not encoder.dropout.training
    assert not any(p.requires_grad for p in encoder.parameters())
    assert encoder.parameter_groups() == []


def test_an_encoder_begins_in_training_mode_whatever_built_its_network():
    encoder = Stack()
    encoder.eval().adapt()
    assert all(module.training for module in encoder.modules())


def test_the_learning_rate_falls_from_the_output_to_the_input():
    encoder = Stack(lr_factor=0.5, layer_decay=0.1)
    groups = encoder.parameter_groups()
    assert [factor for factor, _ in groups] == pytest.approx([0.5e-3, 0.5e-2, 0.5e-1, 0.5])
    expected = [encoder.stem, *encoder.blocks, encoder.head]
    assert [[id(p) for p in ps] for _, ps in groups] == [[id(p) for p in module.parameters()] for module in expected]
    encoder.blocks[0].requires_grad_(False)
    assert [factor for factor, _ in encoder.parameter_groups()] == pytest.approx([0.5e-3, 0.5e-1, 0.5])
