import warnings
from functools import cache

import numpy as np
import pytest
import torch

from mmbench.data.preparing.audio import fbank, log_spectrogram

SECONDS = torch.arange(32_000) / 16_000


def noise(samples: int, scale: float = 1.0) -> torch.Tensor:
    return scale * (2 * torch.rand(samples, generator=torch.Generator().manual_seed(samples)) - 1)


WAVEFORMS = {
    "noise": noise(32_000),
    "quiet noise": noise(20_000, 1e-4),
    "chirp": 0.9 * torch.sin(2 * np.pi * (100 * SECONDS + 1500 * SECONDS**2)),  # 100 Hz to 6.1 kHz
    "tone": 0.9 * torch.sin(2 * np.pi * 440 * SECONDS),
    "bursts": noise(32_000) * (torch.sin(2 * np.pi * 2 * SECONDS) > 0),  # silences between, as in speech
    "offset": 0.3 + noise(8000, 0.01),
    "silence": torch.zeros(8000),
    "one window": noise(400),
    "almost two windows": noise(559),
    "beyond the end": noise(12_000),
}
FRAMES = 64  # of 16 to 198 windows


def naive_fbank(waveform: np.ndarray, frames: int) -> np.ndarray:
    """Kaldi's recipe, window by window and filter by filter."""

    def mel(hertz):
        return 1127 * np.log(1 + hertz / 700)

    waveform = waveform.astype(np.float64) - waveform.astype(np.float64).mean()
    hanning = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 399)
    dft = np.exp(-2j * np.pi * np.outer(np.arange(257), np.arange(400)) / 512)  # zeros fill up the 512 points
    edges = mel(20) + (mel(8000) - mel(20)) * np.arange(130) / 129
    weights = np.array(
        [np.interp(mel(np.arange(257) * 31.25), edges[b : b + 3], [0, 1, 0], left=0, right=0) for b in range(128)]
    )
    rows = np.zeros((frames, 128))
    for row in range(min(frames, 1 + (len(waveform) - 400) // 160)):
        window = waveform[row * 160 : row * 160 + 400]
        window = window - window.mean()
        emphasised = [window[0] - 0.97 * window[0], *(window[i] - 0.97 * window[i - 1] for i in range(1, 400))]
        power = np.abs(dft @ (emphasised * hanning)) ** 2
        rows[row] = np.log(np.maximum(weights @ power, 2.0**-23))
    return rows


@pytest.mark.parametrize("name", WAVEFORMS)
def test_fbank_is_kaldis_recipe(name):
    got = fbank(WAVEFORMS[name], FRAMES)
    assert got.shape == (FRAMES, 128)
    assert got.dtype == torch.float32
    assert np.abs(got.numpy() - naive_fbank(WAVEFORMS[name].numpy(), FRAMES)).max() < 1e-4


@cache
def ast():
    extractor = pytest.importorskip("transformers", reason="AST's own features need transformers").ASTFeatureExtractor
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "At least one mel filter has all zero values")  # theirs has it, too
        return extractor(do_normalize=False, max_length=FRAMES)


@pytest.mark.slow  # imports transformers
@pytest.mark.parametrize("name", WAVEFORMS)
def test_fbank_is_what_transformers_computes_for_ast(name):
    waveform = WAVEFORMS[name]
    expected = ast()(waveform.numpy(), sampling_rate=16_000, return_tensors="np")["input_values"][0]
    assert np.abs(fbank(waveform, FRAMES).numpy() - expected).max() < 1e-3


def test_fbank_is_padded_with_zeros_and_cut():
    short = fbank(WAVEFORMS["almost two windows"])
    assert short.shape == (1024, 128)
    assert short[0].abs().min() > 0
    assert not short[1:].any()
    waveform = WAVEFORMS["noise"]  # 198 windows
    assert torch.equal(fbank(waveform, 10), fbank(waveform, 300)[:10])
    assert fbank(waveform, 300)[197].any()
    assert not fbank(waveform, 300)[198:].any()


def test_the_filter_without_a_frequency_is_kept():
    constant = fbank(WAVEFORMS["noise"], 100) == np.float32(np.log(2.0**-23))
    assert constant.all(dim=0).nonzero().tolist() == [[3]]


def naive_log_spectrogram(waveform: np.ndarray, n_fft: int, hop: int, length: int) -> np.ndarray:
    """The definition, as a discrete Fourier transform of one window after the other."""
    repeated = np.resize(waveform.astype(np.float64), length)  # numpy's resize starts again at the end
    padded = np.pad(np.clip(repeated, -1, 1), n_fft // 2)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    dft = np.exp(-2j * np.pi * np.outer(np.arange(n_fft // 2 + 1), np.arange(n_fft)) / n_fft)
    columns = [padded[t * hop : t * hop + n_fft] * hann for t in range(1 + length // hop)]
    return np.log(np.abs(dft @ np.array(columns).T) + 1e-7)


@pytest.mark.parametrize("samples", [30_000, 80_000, 5000])
def test_log_spectrogram_is_ogm_ges(samples):
    waveform = noise(samples, 1.5)  # beyond ±1
    got = log_spectrogram(waveform)
    assert got.shape == (257, 188)
    assert got.dtype == torch.float32
    expected = naive_log_spectrogram(waveform.numpy(), 512, 353, 66_150)
    assert got.exp().numpy() == pytest.approx(
        np.exp(expected), abs=1e-4
    )  # magnitudes: in single precision, of up to 200
    assert got.numpy() == pytest.approx(expected, abs=0.05)


def test_log_spectrogram_as_for_vggsound():
    waveform = noise(50_000)
    got = log_spectrogram(waveform, n_fft=256, hop=128, length=80_000)
    assert got.shape == (129, 626)
    expected = naive_log_spectrogram(waveform.numpy(), 256, 128, 80_000)
    assert np.abs(got.exp().numpy() - np.exp(expected)).max() < 1e-4


def test_silence():
    assert (fbank(torch.zeros(16_000), 98) - np.log(2.0**-23)).abs().max() < 1e-5
    assert (log_spectrogram(torch.zeros(100)) - np.log(1e-7)).abs().max() < 1e-5


def lost(values: torch.Tensor) -> torch.Tensor:
    """What storing as float16 costs."""
    return (values.half().float() - values).abs()


@pytest.mark.parametrize("name", WAVEFORMS)
def test_half_precision_is_enough_for_storage(name):
    assert lost(fbank(WAVEFORMS[name], FRAMES)).max() <= 0.004
    spectrogram = log_spectrogram(WAVEFORMS[name])
    loud = spectrogram >= -16
    assert lost(spectrogram)[loud].sum() == 0 or lost(spectrogram)[loud].max() <= 0.004
    assert lost(spectrogram).max() <= 0.008


@pytest.mark.parametrize(
    ("waveform", "got"),
    [
        (torch.zeros(399), r"torch\.float32 of shape \(399,\)"),
        (torch.zeros(16_000, 2), r"torch\.float32 of shape \(16000, 2\)"),
        (torch.zeros(16_000, dtype=torch.int16), r"torch\.int16 of shape \(16000,\)"),
    ],
)
def test_what_fbank_refuses(waveform, got):
    with pytest.raises(ValueError, match=rf"at least 400 floating-point samples, got {got}"):
        fbank(waveform)


def test_log_spectrogram_refuses_an_empty_waveform():
    with pytest.raises(ValueError, match=r"at least 1 floating-point samples, got torch\.float32 of shape \(0,\)"):
        log_spectrogram(torch.zeros(0))
