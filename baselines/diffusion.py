"""Score-based diffusion of vectors (Song et al., ICLR 2021, arXiv 2011.13456): into noise, what is learnt there, and the way back.

The variance-exploding process dx = σ^t dw with t from 0 to 1 and σ = 25: a vector x_0 is at time t normal around itself, with the
variance v(t) = (σ^{2t} − 1) / (2 ln σ) in each number. A score is a function of x (B, D) and t, (B,) or (1,), that says in which
direction the density of all x at t grows, ∇_x log p_t(x): (B, D).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from mmbench.baselines.ae import fully_connected

Score = Callable[[Tensor, Tensor], Tensor]

SIGMA = 25.0
EARLIEST = 1e-5  # of the times that a score is learnt at


def variance(t: Tensor) -> Tensor:
    """The variance v(t) that the process has added by a time."""
    rate = 2 * math.log(SIGMA)
    return torch.expm1(rate * t) / rate


def matching_loss(score: Score, x: Tensor) -> Tensor:
    """Denoising score matching at a random time for each row: ‖√v(t) · score(x + √v(t) z, t) + z‖², z standard normal.

    Args:
        score: what is to be learnt.
        x: (B, D), undisturbed.

    Returns:
        (B,), summed over the D numbers.
    """
    t = EARLIEST + (1 - EARLIEST) * torch.rand(len(x), dtype=x.dtype, device=x.device)
    deviation = variance(t).sqrt().unsqueeze(1)  # (B, 1)
    noise = torch.randn_like(x)
    return (deviation * score(x + deviation * noise, t) + noise).square().sum(dim=1)


def sample(score: Score, noise: Tensor, radius: float = math.inf) -> Tensor:
    """Go back from noise to vectors, in N steps of equal length.

    From t to s, a step earlier, with v = v(t) and w = v(s), which is 0 in the end:

        x ← x + (v − w) score(x, t) + √(w (v − w) / v) z,   starting from x = √v(1) z.

    Args:
        score: of B rows.
        noise: the standard normal z of each step, (N, B, D).
        radius: the greatest norm that a vector has without noise. What a score expects it to be, x + v score(x, t), is a mean of such
            vectors, and no longer; where a score that is not learnt yet says otherwise, that is cut back.

    Returns:
        (B, D).
    """
    times = torch.linspace(1.0, 0.0, len(noise) + 1)  # on the host, as are the steps' numbers
    v = variance(times.double()).tolist()
    x = math.sqrt(v[0]) * noise[0]
    for step, (before, after) in enumerate(pairwise(v)):
        expected = x + before * score(x, x.new_full((1,), times[step].item()))
        expected = expected * (radius / expected.norm(dim=1, keepdim=True)).clamp(max=1)
        x = x + (1 - after / before) * (expected - x)
        if after:
            x = x + math.sqrt(after * (before - after) / before) * noise[step + 1]
    return x


class ScoreNetwork(nn.Module):
    """The score of vectors, given a condition.

        score = −x / (1 + v) + net(x / √(1 + v), t, condition) / √(v (1 + v))

    The first term is the score of a standard normal vector, which the network corrects. It knows the time by random Fourier features.

    Args:
        width: D.
        condition_width: numbers of a condition.
        hidden: width of the two hidden layers.
        scale: the standard deviation of the Fourier features' frequencies.
    """

    frequencies: Tensor

    def __init__(self, width: int, condition_width: int, hidden: int = 256, scale: float = 30.0) -> None:
        super().__init__()
        self.register_buffer("frequencies", 2 * math.pi * scale * torch.randn(hidden // 2))
        self.time = nn.Linear(2 * (hidden // 2), hidden)
        self.condition = nn.Linear(condition_width, hidden)
        self.input = nn.Linear(width, hidden)
        self.layers = nn.Sequential(nn.SiLU(), *fully_connected(hidden, hidden, width, activation=nn.SiLU))

    def given(self, condition: Tensor) -> Score:
        """The score of vectors whose conditions are (B, D')."""
        return partial(self, given=self.condition(condition))

    def forward(self, x: Tensor, t: Tensor, given: Tensor) -> Tensor:
        """The score (B, D) of x (B, D) at times (B,) or (1,), given what the condition's layer made of it."""
        v = variance(t).unsqueeze(1)
        angles = t.unsqueeze(1) * self.frequencies
        time = self.time(torch.cat([angles.sin(), angles.cos()], dim=1))
        correction = self.layers(self.input(x * (1 + v).rsqrt()) + time + given)
        return correction * (v * (1 + v)).rsqrt() - x / (1 + v)
