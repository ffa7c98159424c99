import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mmbench.encoders import ENCODERS
from mmbench.encoders.hashed_text import HashedText, tokens
from mmbench.encoders.mlp import Mlp
from mmbench.encoders.pretrained import Pretrained
from mmbench.encoders.small_cnn import SmallCNN
from mmbench.testing import check_encoder

texts = st.lists(st.text("abcé \t", max_size=20), min_size=1, max_size=5)


INPUTS = {
    "hashed_text": lambda encoder: encoder.tokenize(["a red fish", "", "one"]),
    "mlp": lambda _: torch.randn(3, 128),
    "small_cnn": lambda _: torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8),
    "small_cnn_audio": lambda _: torch.randn(3, 40, 128, dtype=torch.float16),
    "small_cnn_video": lambda _: torch.randint(0, 256, (3, 2, 3, 32, 32), dtype=torch.uint8),
}
"""What the encoders without published weights take, three samples."""


@pytest.mark.merged
def test_every_encoder_is_tried():
    assert set(INPUTS) == {name for name in ENCODERS if not issubclass(ENCODERS[name], Pretrained)}


@pytest.mark.parametrize("name", INPUTS)
def test_registered_encoders(name):
    encoder = ENCODERS[name]()
    check_encoder(encoder, INPUTS[name](encoder))


# Mlp


def test_mlp_is_relu_of_affine_maps():
    torch.manual_seed(0)  # some draws leave too few values for dropout to change
    encoder = Mlp(in_dim=5, width=4, layers=2, dropout=0.5).eval()
    vectors, (first, second) = torch.randn(3, 5), [m for m in encoder if isinstance(m, nn.Linear)]
    hidden = (vectors @ first.weight.T + first.bias).clamp(min=0)
    torch.testing.assert_close(encoder(vectors), (hidden @ second.weight.T + second.bias).clamp(min=0))
    encoder.train()
    torch.manual_seed(0)
    assert not torch.equal(encoder(vectors), encoder(vectors))


# SmallCNN


@pytest.mark.parametrize(("channels", "width", "size"), [(3, 16, 32), (1, 2, 16), (3, 4, 20)])
def test_small_cnn_widths(channels, width, size):
    encoder = SmallCNN(channels, width)
    assert encoder.out_dim == 4 * width
    assert encoder(torch.zeros(2, channels, size, size, dtype=torch.uint8)).shape == (2, 4 * width)
    assert [c.out_channels for c in encoder.modules() if isinstance(c, nn.Conv2d)] == [width, 2 * width, 4 * width]


def test_small_cnn_maps_bytes_to_plus_minus_one():
    encoder = SmallCNN(1, 2).eval()
    seen = []
    encoder.layers[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    encoder(torch.tensor([0, 51, 255, 128], dtype=torch.uint8).view(1, 1, 2, 2))
    torch.testing.assert_close(seen[0].flatten(), torch.tensor([-1, -0.6, 1, 128 / 127.5 - 1]))


def test_small_cnn_is_three_convolutions_and_an_average():
    encoder = SmallCNN(3, 4).eval()
    with torch.no_grad():
        for module in encoder.modules():
            if isinstance(module, nn.BatchNorm2d):
                for value in (module.weight, module.bias, module.running_mean, module.running_var):
                    value.uniform_(0.5, 1.5)
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    x = images / 127.5 - 1
    for n in (0, 3, 6):
        conv, norm = encoder.layers[n], encoder.layers[n + 1]
        x = nn.functional.conv2d(x, conv.weight, stride=2, padding=1)
        shape = (1, -1, 1, 1)
        x = (x - norm.running_mean.view(shape)) / (norm.running_var.view(shape) + 1e-5).sqrt()
        x = (x * norm.weight.view(shape) + norm.bias.view(shape)).clamp(min=0)
    torch.testing.assert_close(encoder(images), x.flatten(2).mean(-1), rtol=1e-4, atol=1e-5)


# HashedText


def test_tokens_are_the_word_and_its_trigrams():
    assert list(tokens("fish")) == ["fish", "<fi", "fis", "ish", "sh>"]
    assert list(tokens("a")) == ["a", "<a>"]


@given(texts)
def test_tokenizing_keeps_every_word_and_pads_with_zero(batch):
    encoder = HashedText(buckets=97)
    text = encoder.tokenize(batch)
    token, word = text["token"], text["word"]
    assert token.dtype == word.dtype == torch.int32
    lengths = [sum(1 for w in t.split() for _ in tokens(w)) for t in batch]
    assert token.shape == word.shape == (len(batch), max(1, *lengths))
    assert ((token >= 0) & (token < 97)).all()
    for row, (t, length) in enumerate(zip(batch, lengths, strict=True)):
        assert (token[row, :length] > 0).all()
        assert not token[row, length:].any()
        expected = [n for n, w in enumerate(t.split()) for _ in tokens(w)]
        assert word[row, :length].tolist() == expected
        alone = encoder.tokenize([t])["token"][0]
        assert token[row, :length].tolist() == alone[:length].tolist()  # whatever the other texts are


def test_tokens_are_the_same_in_every_process():
    """CRC-32, not Python's salted hash; the bucket of a token depends on the number of buckets only."""
    token = HashedText(buckets=4096).tokenize(["cat"])["token"]
    assert token[0, 0] == 1 + 0x9E5E43A8 % 4095  # the CRC-32 of "cat"
    assert HashedText(buckets=4096, out_dim=3).tokenize(["cat"])["token"].tolist() == token.tolist()


def test_texts_that_share_a_word_share_its_tokens():
    token = HashedText().tokenize(["blue fish", "fish"])["token"]
    assert token[0, 5:].tolist() == token[1, :5].tolist()  # both words have five tokens
    assert len(set(token[0].tolist())) == 10


@pytest.mark.parametrize("batch", [[], [""], ["", "  \t "]])
def test_nothing_to_tokenize(batch):
    text = HashedText().tokenize(batch)
    assert text["token"].shape == text["word"].shape == (len(batch), 1)
    assert not text["token"].any()


def test_the_mean_embedding_is_over_the_tokens_without_the_padding():
    torch.manual_seed(0)
    encoder = HashedText(buckets=50, embedding_dim=6, out_dim=4).eval()
    with torch.no_grad():
        encoder.embedding.weight[0] = 1000.0
    batch = ["one two", "a much longer text of several words", "", "one one"]
    text = encoder.tokenize(batch)
    features = encoder(text)
    for row in range(len(batch)):
        total, count = torch.zeros(6), 0
        for token in text["token"][row].tolist():
            if token != 0:
                total, count = total + encoder.embedding.weight[token], count + 1
        mean = 6**0.5 * total / max(1, count)  # embeddings of width E are multiplied by √E
        torch.testing.assert_close(features[row], encoder.linear.weight @ mean + encoder.linear.bias)


def test_dropout_only_in_training():
    torch.manual_seed(0)
    encoder = HashedText(dropout=0.5)
    text = encoder.tokenize(["some words"])
    assert not torch.equal(encoder(text), encoder(text))
    encoder.eval()
    assert torch.equal(encoder(text), encoder(text))


def test_embeddings_begin_with_variance_one_over_their_width():
    torch.manual_seed(0)
    weight = HashedText(embedding_dim=25).embedding.weight[1:]
    assert weight.std().item() == pytest.approx(0.2, rel=0.02)
    assert abs(weight.mean().item()) < 0.005
