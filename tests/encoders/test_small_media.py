import pytest
import torch
from torch import nn

from mmbench.data.preparing.audio import fbank
from mmbench.encoders.small_media import SmallCNNAudio, SmallCNNVideo
from mmbench.errors import UsageError


def with_statistics(encoder: nn.Module) -> nn.Module:
    """The encoder in evaluation, with normalisations that do something."""
    with torch.no_grad():
        for module in encoder.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                for value in (module.weight, module.bias, module.running_mean, module.running_var):
                    value.uniform_(0.5, 1.5)
    return encoder.eval()


def normalised(x, norm):
    shape = (1, -1, *[1] * (x.dim() - 2))
    x = (x - norm.running_mean.view(shape)) / (norm.running_var.view(shape) + 1e-5).sqrt()
    return x * norm.weight.view(shape) + norm.bias.view(shape)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_audio_is_three_convolutions_over_time_and_an_average(dtype):
    encoder = with_statistics(SmallCNNAudio(bins=6, width=4))
    banks = (5 * torch.randn(2, 21, 6)).to(dtype)
    x = ((banks.float() + 5.081) / 4.4849).transpose(1, 2)
    for n in (0, 3, 6):
        x = nn.functional.conv1d(x, encoder.layers[n].weight, stride=2, padding=2)
        x = normalised(x, encoder.layers[n + 1]).clamp(min=0)
    assert encoder.out_dim == x.shape[1] == 8
    torch.testing.assert_close(encoder(banks), x.mean(-1), rtol=1e-4, atol=1e-5)


def test_audio_tells_a_high_tone_from_a_low_one():
    time = torch.arange(8_000) / 16_000
    low, high = (fbank(torch.sin(2 * torch.pi * hertz * time), 48) for hertz in (440, 660))
    encoder = SmallCNNAudio().eval()
    a, b, c = encoder(torch.stack([low, high, low.roll(8, dims=0)]))  # 8 rows are one step of the last layer
    assert (a - b).norm() > 5 * (a - c).norm() > 0


def test_audio_with_other_bins():
    with pytest.raises(UsageError, match=r"expected filter banks \(B, T, 128\), got \(2, 20, 64\); set bins"):
        SmallCNNAudio()(torch.zeros(2, 20, 64))
    assert SmallCNNAudio(bins=64)(torch.zeros(2, 1, 64)).shape == (2, 64)


@pytest.mark.parametrize("size", [(16, 16), (5, 9), (1, 1)])
def test_video_is_the_mean_over_frames_of_small_cnn_at_half_their_size(size):
    encoder = with_statistics(SmallCNNVideo(3, 4))
    clips = torch.randint(0, 256, (2, 3, 3, *size), dtype=torch.uint8)
    features = []
    for frame in clips.unbind(1):
        x = nn.functional.avg_pool2d(frame / 127.5 - 1, 2, ceil_mode=True)
        for n in (0, 3, 6):
            x = nn.functional.conv2d(x, encoder.layers[n].weight, stride=2, padding=1)
            x = normalised(x, encoder.layers[n + 1]).clamp(min=0)
        features.append(x.flatten(2).mean(-1))
    assert encoder.out_dim == 16
    torch.testing.assert_close(encoder(clips), torch.stack(features).mean(0), rtol=1e-4, atol=1e-5)
