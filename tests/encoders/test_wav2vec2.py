import json
import os

import pytest
import torch
from safetensors.torch import load_file
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForPreTraining, Wav2Vec2Model

from mmbench.encoders.wav2vec2 import Wav2Vec2
from mmbench.errors import UsageError
from planted import weights

CONFIG = Wav2Vec2Config(**Wav2Vec2.tiny)


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("MMBENCH_WEIGHTS", str(tmp_path))
    return tmp_path


@pytest.fixture
def wav2vec2(root):
    torch.manual_seed(1)
    model = Wav2Vec2Model(CONFIG).eval()
    model.save_pretrained(root / "w")
    return model


def waveforms(samples=4000):
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(2, samples, generator=generator) * torch.tensor([[3.0], [3000.0]]) + 90).to(torch.int16)


def test_features_are_the_mean_over_time_of_what_the_feature_extractor_prepares(wav2vec2):
    encoder = Wav2Vec2("w").eval()
    sound = waveforms()
    prepare = Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=False)
    prepared = prepare([row.numpy() / 32768 for row in sound], sampling_rate=16000, return_tensors="pt").input_values
    expected = torch.stack([wav2vec2(row[None].float()).last_hidden_state[0].mean(dim=0) for row in prepared])
    seen = []  # what the network gets: its normalisation hides much of what is done to the sound
    encoder.model.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    for given in (sound, sound / 32768):
        torch.testing.assert_close(encoder(given), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(seen.pop(), torch.stack([row.float() for row in prepared]), rtol=2e-5, atol=1e-6)
    assert encoder.out_dim == 32


def test_silence_and_half_precision():
    encoder = Wav2Vec2(None, size="tiny").eval()
    assert encoder(torch.zeros(2, 2000, dtype=torch.int16)).isfinite().all()
    assert encoder(torch.randn(2, 2000).half()).dtype == torch.float32


def test_a_waveform_that_is_too_short():
    encoder = Wav2Vec2(None, size="tiny").eval()
    encoder(torch.randn(1, 400))
    with pytest.raises(UsageError, match="a waveform of 399 samples is too short"):
        encoder(torch.randn(1, 399))


def test_training_masks_and_drops_nothing_but_by_dropout(wav2vec2):
    encoder = Wav2Vec2("w")
    assert all(module.training for module in encoder.modules())
    assert encoder.model.config.layerdrop == 0
    for module in encoder.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for layer in encoder.model.encoder.layers:
        layer.attention.dropout = 0.0
    torch.testing.assert_close(encoder(waveforms()), encoder.eval()(waveforms()))


def test_the_published_file_also_holds_what_wav2vec2_is_trained_by(root):
    """The hub's wav2vec2-base has the quantiser, and its weights in pytorch_model.bin; names of weight normalisation are old."""
    torch.manual_seed(1)
    whole = Wav2Vec2ForPreTraining(CONFIG)
    whole.config.save_pretrained(root / "w")
    names = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    tensors = {}
    for name, value in whole.state_dict().items():
        for new, old in names.items():
            name = name.replace(new, old)
        tensors[name] = value
    assert {"quantizer.codevectors", "wav2vec2.masked_spec_embed"} <= tensors.keys()
    assert "wav2vec2.encoder.pos_conv_embed.conv.weight_g" in tensors
    torch.save(tensors, root / "w" / "pytorch_model.bin")
    own, expected = weights(Wav2Vec2("w").model), weights(whole.wav2vec2)
    assert own.keys() == expected.keys() - {"masked_spec_embed"}
    assert all(torch.equal(own[name], expected[name]) for name in own)


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_hostile_file_is_not_executed(root, wav2vec2):
    (root / "w" / "model.safetensors").unlink()
    made = root / "made"
    torch.save({"x": Hostile(str(made))}, root / "w" / "pytorch_model.bin")
    with pytest.raises(UsageError, match=r"pytorch_model\.bin: .* it is damaged, or holds other things than tensors"):
        Wav2Vec2("w")
    assert not made.exists()


def test_weight_files(root, wav2vec2):
    folder = root / "w"
    assert Wav2Vec2.weight_files({"weights": "w"}) == [folder / "config.json", folder / "model.safetensors"]
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    assert Wav2Vec2.weight_files({"weights": "w"})[1].name == "model.safetensors"
    (folder / "model.safetensors").unlink()
    assert Wav2Vec2.weight_files({"weights": "w"})[1].name == "pytorch_model.bin"
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(UsageError, match=r"w/model.safetensors is missing"):
        Wav2Vec2("w")


@pytest.mark.parametrize("stable", [False, True])
def test_layers_and_gradients(root, stable):
    torch.manual_seed(1)
    Wav2Vec2Model(Wav2Vec2Config(**Wav2Vec2.tiny, do_stable_layer_norm=stable)).save_pretrained(root / "w")
    encoder = Wav2Vec2("w", layer_decay=0.5).train()
    groups = encoder.parameter_groups()
    assert [factor for factor, _ in groups] == ([0.125] if stable else []) + [0.25, 0.5, 1]
    convolutions = list(encoder.model.feature_extractor.parameters())
    assert not any(p.requires_grad for p in convolutions)
    assert sum(len(ps) for _, ps in groups) == len(list(encoder.parameters())) - len(convolutions)
    encoder(waveforms()).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for _, ps in groups for p in ps)


def test_random_convolutions_are_trained():
    encoder = Wav2Vec2(None, size="tiny").train()
    encoder(waveforms()).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in encoder.parameters())
    checkpointed = Wav2Vec2(None, size="tiny", gradient_checkpointing=True).train()
    checkpointed(waveforms()).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in checkpointed.parameters())


def test_the_meta_device_needs_no_folder(root, wav2vec2):
    with torch.device("meta"):
        assert Wav2Vec2().out_dim == 768
        assert all(p.is_meta for p in Wav2Vec2("w").parameters())


def test_another_model(root, wav2vec2):
    config = root / "w" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "model_type": "hubert"}))
    with pytest.raises(UsageError, match="expected model_type wav2vec2, got hubert"):
        Wav2Vec2("w")
