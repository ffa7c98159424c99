"""Waveforms to the two kinds of spectrogram that audio-visual papers take: log-mel filter banks and log magnitudes."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

WINDOW, SHIFT, POINTS, BINS = 400, 160, 512, 128  # 25 ms, 10 ms, FFT length, mel bins
RATE = 16_000
FLOOR = torch.finfo(torch.float32).eps


def fbank(waveform: Tensor, frames: int = 1024) -> Tensor:
    """Kaldi's log-mel filter bank as AST and CAV-MAE compute it; not normalised.

    128 triangular filters from 20 Hz to 8 kHz on the 512-point power spectrum of 25 ms Hanning windows every 10 ms; each window
    loses its mean and is pre-emphasised by 0.97; no dither, no energy. Windows that reach beyond the end are dropped, so L samples
    give 1 + (L − 400) // 160 rows. The fourth of the 128 filters is too narrow to hold a frequency: column 3 is log(2⁻²³), the floor.

    Sources: Gong et al., AST (2021), and Gong et al., CAV-MAE (2023), with their released code; Kaldi's compute-fbank-feats.

    Departures: (1) Computed in double precision: in single, quiet bands beside loud ones err by up to 0.015 (a chirp).

    Args:
        waveform: (L,) float in [−1, 1] at 16 kHz, L ≥ 400. Not scaled to 16-bit integers, as Kaldi would expect: neither does AST.
        frames: rows of the result; rows beyond are cut, missing ones are 0 (before any normalisation, as in both papers' code).

    Returns:
        (frames, 128) float32, on the waveform's device. Stored as float16 it loses at most 0.004.

    Raises:
        ValueError: the waveform has another shape or type, or is shorter than one window.
    """
    check(waveform, WINDOW)
    waveform = waveform.double()
    windows = (waveform - waveform.mean()).unfold(0, WINDOW, SHIFT)[:frames]  # (T, 400)
    windows = windows - windows.mean(dim=1, keepdim=True)
    # A Hanning window begins with 0: the first sample, which has no predecessor, is only needed to emphasise the second.
    emphasised = windows[:, 1:] - 0.97 * windows[:, :-1]  # (T, 399)
    hanning = torch.hann_window(WINDOW, periodic=False, dtype=torch.float64, device=waveform.device)
    power = torch.fft.rfft(emphasised * hanning[1:], POINTS).abs().square()  # (T, 257)
    mel = power @ mel_filters().to(waveform.device)  # (T, 128)
    logarithm = mel.clamp(min=FLOOR).log().float()
    return F.pad(logarithm, (0, 0, 0, frames - len(logarithm)))


@cache
def mel_filters() -> Tensor:
    """(257, 128) float64 weights of the spectrum's bins: triangles on the mel axis, evenly spaced, with a peak of 1."""
    hertz = torch.arange(POINTS // 2 + 1, dtype=torch.float64) * RATE / POINTS
    low, high = mel_of(torch.tensor([20, RATE / 2], dtype=torch.float64)).tolist()
    edges = torch.linspace(low, high, BINS + 2, dtype=torch.float64)
    rising = (mel_of(hertz)[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - mel_of(hertz)[:, None]) / (edges[2:] - edges[1:-1])
    return torch.minimum(rising, falling).clamp(min=0)


def mel_of(hertz: Tensor) -> Tensor:
    """Frequency on the mel scale, as Kaldi and HTK define it."""
    return 1127 * (1 + hertz / 700).log()


def log_spectrogram(waveform: Tensor, n_fft: int = 512, hop: int = 353, length: int = 3 * 22_050) -> Tensor:
    """The logarithm of the short-time Fourier transform's magnitude, log(|STFT| + 1e-7), as OGM-GE computes it; not normalised.

    The clip is repeated to ``length`` samples and clipped to ±1; Hann windows are centred on every ``hop``-th sample, with zeros
    beyond the ends. The defaults are CREMA-D's: 3 s at 22,050 Hz give (257, 188). VGGSound and Kinetics-Sounds take a window of 5 s
    at 16 kHz: ``n_fft=256, hop=128, length=80_000`` gives (129, 626); which 5 s is for the caller to choose.

    Source: Peng et al., Balanced Multimodal Learning via On-the-fly Gradient Modulation (2022), and its released code.

    Departures: (1) The code repeats CREMA-D's clips exactly three times, which leaves those under 1 s short; here they are repeated
    as often as it takes. (2) It computes with librosa, whose versions before 0.10 mirrored the waveform beyond the ends.

    Args:
        waveform: (L,) float, L ≥ 1, at the sampling rate that the data set takes; samples beyond ``length`` are not looked at.
        n_fft: samples in a window.
        hop: samples from one window to the next.
        length: samples after repeating.

    Returns:
        (n_fft // 2 + 1, 1 + length // hop) float32, on the waveform's device. Stored as float16 it loses at most 0.004, but 0.008
        where it is below −16 (magnitudes under 1.3e-8: the logarithm of silence is −16.118).

    Raises:
        ValueError: the waveform has another shape or type, or is empty.
    """
    check(waveform, 1)
    waveform = waveform.float().repeat(-(-length // len(waveform)))[:length].clamp(-1, 1)
    window = torch.hann_window(n_fft, device=waveform.device)
    spectrum = torch.stft(waveform, n_fft, hop, window=window, pad_mode="constant", return_complex=True)
    return (spectrum.abs() + 1e-7).log()


def check(waveform: Tensor, least: int) -> None:
    """Raise ValueError unless the waveform is (L,) floats with L ≥ ``least``."""
    if waveform.ndim != 1 or not waveform.is_floating_point() or len(waveform) < least:
        raise ValueError(
            f"expected one channel of at least {least} floating-point samples, got {waveform.dtype} of shape {tuple(waveform.shape)}"
        )
