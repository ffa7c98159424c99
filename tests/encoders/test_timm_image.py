import copy
import math

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from mmbench.encoders.timm_image import ResNet18, ResNet18Audio, TimmImage
from mmbench.errors import UsageError
from planted import weights

VIT, RESNET = "test_vit", "test_resnet"  # timm's own small models for tests


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MMBENCH_WEIGHTS", str(tmp_path))
    return tmp_path


def pictures(*shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


# Forward


def test_pictures_are_normalised_by_the_models_own_statistics():
    torch.manual_seed(0)
    encoder = TimmImage(VIT).eval()
    values = pictures(2, 3, 160, 160)
    config = encoder.model.pretrained_cfg
    expected = values / 255
    for c in range(3):
        expected[:, c] = (expected[:, c] - config["mean"][c]) / config["std"][c]
    torch.testing.assert_close(encoder(values), encoder.model(expected))
    assert (encoder.out_dim, encoder.image_size) == (encoder(values).shape[1], 160)


def test_frames_are_averaged_and_counted():
    encoder = ResNet18(frames=2).eval()
    clips = pictures(2, 3, 3, 32, 32)
    expected = (encoder(clips[:, :1].repeat(1, 2, 1, 1, 1)) + encoder(clips[:, 1:2].repeat(1, 2, 1, 1, 1))) / 2
    torch.testing.assert_close(encoder(clips), expected, rtol=1e-4, atol=1e-5)
    for few in (clips[:, :1], clips[:, 0]):
        with pytest.raises(UsageError, match="frames is 2, the data have 1 a sample"):
            encoder(few)


@pytest.mark.parametrize("channels", [1, 4])
def test_other_numbers_of_channels_share_the_mean_statistics(channels):
    encoder = ResNet18(in_channels=channels).eval()
    assert encoder.mean.tolist() == pytest.approx([(0.485 + 0.456 + 0.406) / 3] * channels)
    assert encoder.std.tolist() == pytest.approx([(0.229 + 0.224 + 0.225) / 3] * channels)
    assert encoder(pictures(2, channels, 32, 32)).shape == (2, 512)


def test_pictures_of_another_size():
    assert ResNet18().image_size == 224
    with pytest.raises(UsageError, match="expected pictures of 160 × 160, got 32 × 40"):
        TimmImage(VIT)(pictures(1, 3, 32, 40))


def naive_resnet18(x, w):
    """ResNet-18 in evaluation mode, from its state dict."""

    def norm(x, name):
        shape = (1, -1, 1, 1)
        x = (x - w[f"{name}.running_mean"].view(shape)) / (w[f"{name}.running_var"].view(shape) + 1e-5).sqrt()
        return x * w[f"{name}.weight"].view(shape) + w[f"{name}.bias"].view(shape)

    x = F.max_pool2d(norm(F.conv2d(x, w["conv1.weight"], stride=2, padding=3), "bn1").relu(), 3, 2, 1)
    for layer in range(1, 5):
        for block in range(2):
            name = f"layer{layer}.{block}"
            stride = 2 if layer > 1 and block == 0 else 1
            y = norm(F.conv2d(x, w[f"{name}.conv1.weight"], stride=stride, padding=1), f"{name}.bn1").relu()
            y = norm(F.conv2d(y, w[f"{name}.conv2.weight"], padding=1), f"{name}.bn2")
            if stride == 2:
                x = norm(F.conv2d(x, w[f"{name}.downsample.0.weight"], stride=2), f"{name}.downsample.1")
            x = (x + y).relu()
    return x.mean(dim=(2, 3))


@pytest.mark.parametrize("standardise", ["none", "sample"])
def test_spectrograms_go_through_resnet18_with_one_channel(standardise):
    torch.manual_seed(0)
    encoder = ResNet18Audio(standardise).eval()
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            for value in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                value.uniform_(0.5, 1.5)
    spectrograms = 3 * torch.randn(3, 65, 47) - 5
    expected = spectrograms.clone()
    if standardise == "sample":
        expected = torch.stack([(s - s.mean()) / s.var(correction=0).sqrt() for s in spectrograms])
    with torch.no_grad():
        torch.testing.assert_close(encoder(spectrograms), encoder.model(expected[:, None]), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(
            encoder(spectrograms), naive_resnet18(expected[:, None], weights(encoder.model)), rtol=1e-3, atol=1e-4
        )
        half = encoder(spectrograms.half())
    assert half.dtype == torch.float32


def test_silence_is_zero_when_standardised():
    encoder = ResNet18Audio("sample").eval()
    torch.testing.assert_close(encoder(torch.full((2, 40, 40), -7.0)), encoder.model(torch.zeros(2, 1, 40, 40)))


def test_the_papers_initialisation():
    torch.manual_seed(0)
    for module in ResNet18().modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.out_channels * module.kernel_size[0] * module.kernel_size[1]
            assert module.weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=0.05)
            assert module.bias is None
        elif isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all()
            assert (module.bias == 0).all()
    assert sum(p.numel() for p in ResNet18Audio().parameters()) == 11_170_240  # 11.17 million


# Weights


@pytest.mark.parametrize("kind", ["safetensors", "pth"])
def test_published_weights_without_their_classifier(folder, kind):
    torch.manual_seed(1)
    tensors = timm.create_model(RESNET, pretrained=False).state_dict()
    assert "fc.weight" in tensors
    save = save_file if kind == "safetensors" else torch.save
    save(tensors, folder / f"w.{kind}")
    own = weights(TimmImage(RESNET, f"w.{kind}").model)
    assert own.keys() == {name for name in tensors if not name.startswith("fc.")}
    assert all(torch.equal(own[name], tensors[name]) for name in own)
    grey = TimmImage(RESNET, f"w.{kind}", in_channels=1).model
    name = f"{grey.pretrained_cfg['first_conv']}.weight"
    torch.testing.assert_close(grey.state_dict()[name], tensors[name].sum(dim=1, keepdim=True))


def test_weights_that_do_not_fit(folder):
    tensors = timm.create_model(RESNET, pretrained=False, num_classes=0).state_dict()
    tensors["layer9.weight"] = tensors.pop("bn1.weight")
    save_file(tensors, folder / "w.safetensors")
    with pytest.raises(UsageError, match=r"bn1\.weight is missing, layer9\.weight is not of this model"):
        TimmImage(RESNET, "w.safetensors")


def test_weight_files(folder):
    with pytest.raises(UsageError, match=r"'none\.pth' are missing; .*: a \.safetensors file"):
        ResNet18(weights="none.pth")
    (folder / "w.pth").touch()
    assert ResNet18Audio.weight_files({"weights": "w.pth"}) == [folder / "w.pth"]
    assert ResNet18.weight_files({"weights": None}) == []


def test_the_meta_device_needs_no_files(folder):
    with torch.device("meta"):
        assert ResNet18(weights="none.pth").out_dim == 512
        assert next(TimmImage(VIT, layer_decay=0.5).parameters()).is_meta


# What is refused


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"model": "resnet81"}, r"timm has no model 'resnet81': did you mean 'resnet\d+'\?"),
        ({"model": "hf-hub:timm/resnet18"}, "timm has no model 'hf-hub:timm/resnet18'"),
        ({"model": "%%"}, r"timm.list_models\(\) lists them"),
        ({"gradient_checkpointing": True}, "batch normalisation twice a step"),
    ],
)
def test_refused(arguments, match):
    with pytest.raises(UsageError, match=match):
        TimmImage(**arguments)


# Training


@pytest.mark.parametrize("encoder", [ResNet18, lambda: TimmImage(VIT)])
def test_layers_hold_every_parameter_once(encoder):
    encoder = encoder()
    names = {id(p): name for name, p in encoder.model.named_parameters()}
    layers = [[names[id(p)] for p in layer] for layer in encoder.layers()]
    assert sorted(name for layer in layers for name in layer) == sorted(names.values())
    first, last = ("conv1.weight", "layer4.1.bn2.bias") if isinstance(encoder, ResNet18) else ("cls_token", "norm.bias")
    assert first in layers[0]
    assert last in layers[-1]
    assert len(layers) >= 7


def test_layer_decay_reaches_the_groups():
    groups = ResNet18(layer_decay=0.5, lr_factor=0.1).parameter_groups()
    assert [factor for factor, _ in groups] == pytest.approx([0.1 * 0.5**n for n in range(8, -1, -1)])


def test_gradient_checkpointing_gives_the_same_gradients():
    torch.manual_seed(0)
    plain = TimmImage(VIT)
    torch.manual_seed(0)
    checkpointed = TimmImage(VIT, gradient_checkpointing=True)
    assert checkpointed.model.grad_checkpointing
    for encoder in (plain, checkpointed):
        encoder.train()(pictures(2, 3, 160, 160)).square().sum().backward()
    torch.testing.assert_close([p.grad for p in checkpointed.parameters()], [p.grad for p in plain.parameters()])


def test_a_copy_is_independent():
    encoder = ResNet18Audio().eval()
    teacher = copy.deepcopy(encoder).requires_grad_(False)
    values = torch.randn(2, 40, 40)
    before = teacher(values)
    with torch.no_grad():
        encoder.model.conv1.weight.zero_()
    assert torch.equal(teacher(values), before)
    assert not torch.equal(encoder(values), before)
