"""CAV-MAE's audio branch: the arithmetic written out over weights of the published names, and everything in loading them."""

import math
import re

import pytest
import torch

from mmbench.arguments import resolve_arguments
from mmbench.encoders import cav_mae
from mmbench.encoders.cav_mae import CavMae
from mmbench.errors import UsageError

SMALL = (16, 3, 4)  # what the published model is made in tests: two blocks for audio, one shared
SMALLER = (16, 2, (8, 8))  # its width, audio blocks, and the decoder's width and depth


# The published tree


def blocks(name: str, count: int, width: int) -> dict[str, tuple]:
    layers = {
        "attn.qkv": (3 * width, width),
        "attn.proj": (width, width),
        "mlp.fc1": (4 * width, width),
        "mlp.fc2": (width, 4 * width),
        **{norm + suffix: (width,) for norm in ("norm1", "norm2") for suffix in ("", "_a", "_v")},
    }
    return {
        f"{name}.{i}.{layer}.{kind}": shape if kind == "weight" else shape[:1]
        for i in range(count)
        for layer, shape in layers.items()
        for kind in ("weight", "bias")
    }


def tree(width: int = 768, own: int = 11, decoder: tuple[int, int] | None = (512, 8)) -> dict[str, tuple]:
    """The shapes of the published weights: pretrained, or fine-tuned (no decoder, a head for 527 classes)."""
    shapes = blocks("blocks_a", own, width) | blocks("blocks_v", own, width) | blocks("blocks_u", 1, width)
    for modality, channels, patches in (("a", 1, 512), ("v", 3, 196)):
        shapes[f"modality_{modality}"] = (1, 1, width)
        shapes[f"pos_embed_{modality}"] = (1, patches, width)
        shapes[f"patch_embed_{modality}.proj.weight"] = (width, channels, 16, 16)
        shapes[f"patch_embed_{modality}.proj.bias"] = (width,)
    pairs = {name: (width,) for name in ("norm_a", "norm_v", "norm")}
    if decoder:
        narrow, depth = decoder
        shapes |= blocks("decoder_blocks", depth, narrow) | {"mask_token": (1, 1, narrow)}
        for modality, patches in (("a", 512), ("v", 196)):
            shapes[f"decoder_modality_{modality}"] = (1, 1, narrow)
            shapes[f"decoder_pos_embed_{modality}"] = (1, patches, narrow)
        pairs |= {"decoder_embed": (narrow, width), "decoder_norm": (narrow,)}
        pairs |= {"decoder_pred_a": (256, narrow), "decoder_pred_v": (768, narrow)}
    else:
        pairs |= {"mlp_head.0": (width,), "mlp_head.1": (527, width)}
    for name, shape in pairs.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return {f"module.{key}": shape for key, shape in shapes.items()}


def draw(shapes: dict[str, tuple]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {key: ("norm" in key) + 0.2 * torch.randn(shape, generator=generator) for key, shape in shapes.items()}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of weights, of a base model that is small."""
    monkeypatch.setenv("MMBENCH_WEIGHTS", str(tmp_path))
    monkeypatch.setitem(cav_mae.SIZES, "base", SMALL)
    return tmp_path


def spectrograms(count: int) -> torch.Tensor:
    return -5 + 4.5 * torch.randn(count, 1024, 128, generator=torch.Generator().manual_seed(1))


# The arithmetic, written out over the published names


def norm(x, w, name):
    centred = x - x.mean(-1, keepdim=True)
    normal = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return normal * w[f"module.{name}.weight"].to(x) + w[f"module.{name}.bias"].to(x)


def linear(x, w, name):
    return x @ w[f"module.{name}.weight"].to(x).T + w[f"module.{name}.bias"].to(x)


def block(x, w, name, heads, suffix=""):
    """One sample (N, D)."""
    qkv = linear(norm(x, w, f"{name}.norm1{suffix}"), w, f"{name}.attn.qkv").reshape(len(x), 3, heads, -1)
    parts = []
    for head in range(heads):
        q, k, v = qkv[:, 0, head], qkv[:, 1, head], qkv[:, 2, head]
        score = (q @ k.T / math.sqrt(q.shape[1])).exp()
        parts.append(score / score.sum(1, keepdim=True) @ v)
    x = x + linear(torch.cat(parts, dim=1), w, f"{name}.attn.proj")
    hidden = linear(norm(x, w, f"{name}.norm2{suffix}"), w, f"{name}.mlp.fc1")
    hidden = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
    return x + linear(hidden, w, f"{name}.mlp.fc2")


def encode(x, w, depth, heads):
    for i in range(depth - 1):
        x = block(x, w, f"blocks_a.{i}", heads)
    return norm(block(x, w, "blocks_u.0", heads, "_a"), w, "norm_a")


def feature(audio, w, width, depth, heads):
    """One spectrogram (1024, 128)."""
    tokens = []
    kernel, bias = w["module.patch_embed_a.proj.weight"], w["module.patch_embed_a.proj.bias"]
    for mel in range(8):
        for time in range(64):
            part = (audio[16 * time : 16 * time + 16, 16 * mel : 16 * mel + 16] + 5.081) / 4.4849
            place = w["module.pos_embed_a"][0, 64 * mel + time] + w["module.modality_a"][0, 0]
            tokens.append((kernel[:, 0] * part.T).sum((1, 2)) + bias + place)
    return encode(torch.stack(tokens), w, depth, heads).mean(0)


@pytest.mark.parametrize("decoder", [(8, 8), None])
def test_feature(folder, decoder):
    weights = draw(tree(*SMALLER[:2], decoder))
    torch.save(weights, folder / "audio_model.pth")
    encoder, batch = CavMae(weights="audio_model.pth").eval(), spectrograms(2)
    assert encoder.out_dim == SMALL[0]
    got = encoder(batch)
    for i in range(2):
        torch.testing.assert_close(got[i], feature(batch[i], weights, *SMALL), atol=1e-5, rtol=0)


def test_blocks(folder):
    weights = draw(tree(*SMALLER))
    torch.save(weights, folder / "audio_model.pth")
    encoder = CavMae(weights="audio_model.pth").double()
    tokens = 0.003 * torch.randn(1, 9, SMALL[0], dtype=torch.float64)  # of so small a variance that eps matters
    got = encoder.encode(tokens)[0]
    torch.testing.assert_close(got, encode(tokens[0], weights, *SMALL[1:]), atol=1e-10, rtol=0)


def test_half_precision_input():
    encoder, batch = CavMae("tiny").eval(), spectrograms(2).half()
    assert torch.equal(encoder(batch), encoder(batch.float()))


@pytest.mark.parametrize(
    "audio", [torch.zeros(2, 128, 1024), torch.zeros(1024, 128), torch.zeros(1, 1024, 128, dtype=torch.int16)]
)
def test_other_inputs_are_refused(audio):
    got = f"float, got {tuple(audio.shape)} {str(audio.dtype)[6:]}"
    with pytest.raises(UsageError, match=re.escape(f"log-mel energies (B, 1024, 128) {got}")):
        CavMae("tiny")(audio)


def test_random_positions_are_waves():
    encoder, width = CavMae("tiny"), 64
    for place, (mel, time) in {0: (0, 0), 63: (0, 63), 64: (1, 0), 511: (7, 63)}.items():
        angles = [[x / 10000 ** (i / (width / 4)) for i in range(width // 4)] for x in (time, mel)]
        expected = [f(a) for half in angles for f in (math.sin, math.cos) for a in half]
        torch.testing.assert_close(encoder.positions[0, place], torch.tensor(expected), atol=1e-6, rtol=0)
    bound = math.sqrt(6 / (64 + 256))
    assert encoder.patches.weight.abs().max().item() == pytest.approx(bound, rel=0.01)


# Training


def test_every_parameter_is_trained_and_checkpointed_gradients_are_the_same():
    grads = []
    for again in (False, True):
        torch.manual_seed(0)
        encoder = CavMae("tiny", gradient_checkpointing=again)
        encoder(spectrograms(1)).square().sum().backward()
        grads.append([p.grad for p in encoder.parameters()])
    assert all(grad.any() for grad in grads[0])
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_frozen_and_layer_decay():
    assert CavMae("tiny", freeze=True).parameter_groups() == []
    encoder = CavMae("tiny", lr_factor=0.1, layer_decay=0.5)
    groups = encoder.parameter_groups()
    assert [factor for factor, _ in groups] == pytest.approx([0.0125, 0.025, 0.05, 0.1])
    first = {id(p) for p in (encoder.positions, encoder.modality, encoder.patches.weight, encoder.patches.bias)}
    assert {id(p) for p in groups[0][1]} == first
    assert sum(len(parameters) for _, parameters in groups) == len(list(encoder.parameters()))


# Files


def test_the_published_trees(tmp_path, monkeypatch):
    """Every shape as published; one number stands for each tensor, so that there is no file of 760 MB."""
    monkeypatch.setenv("MMBENCH_WEIGHTS", str(tmp_path))
    (tmp_path / "a.pth").touch()
    for shapes, count in ((tree(), 647), (tree(decoder=None), 478)):
        assert len(shapes) == count
        constants = {key: float(i) for i, key in enumerate(shapes)}
        weights = {key: torch.tensor(constants[key]).expand(shape) for key, shape in shapes.items()}
        got = {}
        with monkeypatch.context() as patched:  # what is loaded is looked at, not laid out
            patched.setattr(cav_mae, "read_tensors", lambda path, weights=weights: weights)
            patched.setattr(cav_mae, "without_memory", lambda: False)
            patched.setattr(CavMae, "load_state_dict", lambda _, state, got=got: got.update(state))
            with torch.device("meta"):
                encoder = CavMae(weights="a.pth")
        assert {name: tuple(t.shape) for name, t in got.items()} == {
            name: tuple(p.shape) for name, p in encoder.named_parameters()
        }
        expected = {
            "blocks.10.mlp.fc2.bias": "blocks_a.10.mlp.fc2.bias",
            "blocks.11.norm2.weight": "blocks_u.0.norm2_a.weight",
        }
        expected |= {"blocks.0.norm1.bias": "blocks_a.0.norm1.bias", "norm.weight": "norm_a.weight"}
        for ours, theirs in expected.items():
            assert (got[ours] == constants[f"module.{theirs}"]).all()
    assert sum(math.prod(shape) for shape in tree().values()) == pytest.approx(191.0e6, rel=1e-3)


@pytest.mark.slow
def test_the_published_model_loads(tmp_path, monkeypatch):
    monkeypatch.setenv("MMBENCH_WEIGHTS", str(tmp_path))
    shapes = tree()
    weights = {
        key: torch.randn(shape[-1:]).expand(shape) if "norm" in key else torch.randn(1).expand(shape)
        for key, shape in shapes.items()
    }
    (tmp_path / "a.pth").touch()
    monkeypatch.setattr(cav_mae, "read_tensors", lambda path: weights)
    encoder = CavMae(weights="a.pth")
    assert torch.equal(encoder.blocks[11].norm1.weight, weights["module.blocks_u.0.norm1_a.weight"])
    assert torch.equal(encoder.positions, weights["module.pos_embed_a"])


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda w: w.pop("module.blocks_u.0.norm1_a.bias"), "blocks_u.0.norm1_a.bias is missing"),
        (lambda w: w.update({"module.blocks_a.11.norm1.bias": torch.ones(16)}), "blocks_a.11.norm1.bias is not of this model"),
        (lambda w: w.update({"module.blocks_u.1.norm1.bias": torch.ones(16)}), "blocks_u.1.norm1.bias is not of this model"),
        (lambda w: w.update({"module.v.cls_token": torch.ones(16)}), r"v\.cls_token is not of this model"),
        (lambda w: w.update({"module.norm_a.bias": torch.ones(17)}), r"norm_a\.bias is of shape \(17,\), expected \(16,\)"),
    ],
)  # fmt: skip
def test_other_layouts_are_refused(folder, change, match):
    weights = draw(tree(*SMALLER))
    change(weights)
    torch.save(weights, folder / "a.pth")
    with pytest.raises(UsageError, match=rf"a\.pth.*{match}"):
        CavMae(weights="a.pth")


def test_names_without_their_prefix(folder):
    torch.save({k.removeprefix("module."): v for k, v in draw(tree(*SMALLER)).items()}, folder / "a.pth")
    CavMae(weights="a.pth")


def test_arguments_and_files(folder):
    got, wrong = resolve_arguments(CavMae, {"size": "tiny"})
    assert wrong == []
    assert CavMae(**got).out_dim == 64
    assert CavMae.weight_files(got) == []
    for missing in (lambda: CavMae.weight_files({"weights": "a.pth"}), lambda: CavMae(weights="a.pth")):
        with pytest.raises(UsageError, match=r"'a\.pth' are missing; .*: CAV-MAE's weights, \.pth as https"):
            missing()
    (folder / "a.pth").write_bytes(b"")
    assert CavMae.weight_files({"weights": "a.pth"}) == [folder / "a.pth"]
    with pytest.raises(UsageError, match=r"weights 'a\.pth': there are none of size 'tiny'"):
        CavMae("tiny", "a.pth")
    with torch.device("meta"):
        assert CavMae(weights="none.pth").positions.device.type == "meta"
