import math
from itertools import pairwise

import pytest
import torch

from mmbench.baselines.diffusion import ScoreNetwork, matching_loss, sample, variance

MEAN, SPREAD = 1.5, 0.7  # of the data, in each number


def exact(x, t, mean=MEAN, spread=SPREAD):
    """The score of normal data: at time t they are normal too, with the process's variance added."""
    return -(x - mean) / (spread**2 + variance(t)).unsqueeze(1)


def test_variance_is_that_of_a_naive_walk():
    generator = torch.Generator().manual_seed(0)
    steps, x = 200, torch.full((10_000,), 3.0, dtype=torch.float64)
    for step in range(steps):
        t = (step + 0.5) / steps
        x += 25**t * math.sqrt(1 / steps) * torch.randn(len(x), generator=generator, dtype=torch.float64)
        if step + 1 in (40, 100, 200):
            expected = variance(torch.tensor((step + 1) / steps, dtype=torch.float64)).item()
            assert x.mean().item() == pytest.approx(3.0, abs=4 * math.sqrt(expected / len(x)))
            assert x.var().item() == pytest.approx(expected, rel=4 * math.sqrt(2 / len(x)) + 1e-3)


@pytest.mark.parametrize("t", [1e-5, 1e-3, 0.3, 1.0])
def test_variance_is_the_released_one(t):
    released = (25.0 ** (2 * t) - 1.0) / 2.0 / math.log(25.0)
    assert variance(torch.tensor(t)).item() == pytest.approx(released, rel=1e-5)


def test_matching_loss_is_that_of_a_loop():
    x = torch.randn(4, 3, dtype=torch.float64)

    def score(x, t):
        return x.sin() * t.unsqueeze(1) - 0.1 * x

    torch.manual_seed(5)
    got = matching_loss(score, x)
    torch.manual_seed(5)
    times = 1e-5 + (1 - 1e-5) * torch.rand(4, dtype=torch.float64)
    noise = torch.randn(4, 3, dtype=torch.float64)
    for i in range(4):
        deviation = math.sqrt((25 ** (2 * times[i].item()) - 1) / (2 * math.log(25)))
        disturbed = x[i] + deviation * noise[i]
        errors = [
            (deviation * (math.sin(v) * times[i].item() - 0.1 * v) + z) ** 2
            for v, z in zip(disturbed.tolist(), noise[i].tolist(), strict=True)
        ]
        assert got[i].item() == pytest.approx(sum(errors), rel=1e-9)


@pytest.mark.parametrize("change", [{"mean": MEAN + 0.2}, {"mean": MEAN - 0.2}, {"spread": 0.9}, {"spread": 0.5}])
def test_matching_loss_is_least_for_the_exact_score(change):
    x = MEAN + SPREAD * torch.randn(10_000, 1, generator=torch.Generator().manual_seed(1))

    def loss(**change):
        torch.manual_seed(2)
        return matching_loss(lambda x, t: exact(x, t, **change), x)

    more = loss(**change) - loss()  # of the same noise
    assert more.mean() > 3 * more.std() / math.sqrt(len(x))


@pytest.mark.parametrize("steps", [1, 2, 16, 400])
def test_draws_of_the_exact_score_are_normal_as_the_steps_say(steps):
    """A step is linear in x, so that mean and variance after it follow from those before it."""
    noise = torch.randn(steps, 1, 10_000, generator=torch.Generator().manual_seed(3))
    drawn = sample(lambda x, t: exact(x.T, t.expand(x.shape[1])).T, noise).squeeze(0)
    v = [variance(torch.tensor(1 - step / steps, dtype=torch.float64)).item() for step in range(steps + 1)]
    mean, spread = 0.0, v[0]
    for before, after in pairwise(v):
        pull = (before - after) / (SPREAD**2 + before)
        mean = mean + pull * (MEAN - mean)
        spread = (1 - pull) ** 2 * spread + after * (before - after) / before
    assert drawn.mean().item() == pytest.approx(mean, abs=4 * math.sqrt(spread / 10_000))
    assert drawn.var().item() == pytest.approx(spread, rel=4 * math.sqrt(2 / 10_000))
    if steps == 16:  # too little, as IMDer's docstring says
        assert math.sqrt(spread) == pytest.approx(0.57, abs=0.005)
    if steps == 400:  # and so many give the data's own, but for what steps and the start at 0 leave of it
        assert mean == pytest.approx(MEAN, abs=0.01)
        assert math.sqrt(spread) == pytest.approx(SPREAD, rel=0.02)


def test_a_sample_is_the_loop_over_its_numbers():
    noise = torch.randn(3, 2, 4, dtype=torch.float64)
    got = sample(lambda x, t: x.cos() * t - x, noise)
    v = [(25 ** (2 * t) - 1) / (2 * math.log(25)) for t in (1, 2 / 3, 1 / 3, 0)]
    for i in range(2):
        for d in range(4):
            x = math.sqrt(v[0]) * noise[0, i, d].item()
            for step, t in enumerate((1, 2 / 3, 1 / 3)):
                x += (v[step] - v[step + 1]) * (math.cos(x) * t - x)
                if step < 2:
                    x += math.sqrt(v[step + 1] * (v[step] - v[step + 1]) / v[step]) * noise[step + 1, i, d].item()
            assert got[i, d].item() == pytest.approx(x, rel=1e-6)


def test_no_score_makes_draws_grow():
    noise = torch.randn(16, 100, 4)
    free, bound = (sample(lambda x, t: 2 * x, noise, *radius).norm(dim=1) for radius in ((), (2.0,)))
    assert free.min() > 1e6
    assert bound.max() < 2.001  # the last step ends in what is expected


def test_the_exact_score_is_not_cut_back():
    noise = torch.randn(16, 1, 100)

    def score(x, t):
        return -x / variance(t).unsqueeze(1)  # of data that are all zero

    torch.testing.assert_close(sample(score, noise, radius=1e-3), sample(score, noise))


def test_a_network_that_corrects_nothing_has_the_score_of_a_standard_normal_vector():
    network = ScoreNetwork(5, 3, hidden=8)
    torch.nn.init.zeros_(network.layers[-1].weight)
    torch.nn.init.zeros_(network.layers[-1].bias)
    x, t = torch.randn(6, 5), torch.rand(6)
    got = network.given(torch.randn(6, 3))(x, t)
    torch.testing.assert_close(got, exact(x, t, mean=0.0, spread=1.0))


def test_frequencies_of_the_time_are_as_spread_as_the_released_ones():
    torch.manual_seed(0)
    frequencies = ScoreNetwork(2, 1, hidden=1000).frequencies
    assert frequencies.std().item() == pytest.approx(2 * math.pi * 30, rel=0.15)
    assert len(frequencies) == 500


def test_a_network_is_its_equation():
    network = ScoreNetwork(5, 3, hidden=8).double()
    x, t, condition = (torch.randn(4, n, dtype=torch.float64).squeeze(1) for n in (5, 1, 3))
    t = t.sigmoid()
    got = network.given(condition)(x, t)

    def act(h):
        return h * torch.sigmoid(h)

    for i in range(4):
        v = (25 ** (2 * t[i]) - 1) / (2 * math.log(25))
        angles = [t[i] * f for f in network.frequencies]
        features = torch.stack([*map(torch.sin, angles), *map(torch.cos, angles)])
        first, second = network.layers[1], network.layers[-1]
        h = network.input.weight @ (x[i] / (1 + v).sqrt()) + network.input.bias
        h = h + network.time.weight @ features + network.time.bias
        h = h + network.condition.weight @ condition[i] + network.condition.bias
        h = second.weight @ act(first.weight @ act(h) + first.bias) + second.bias
        torch.testing.assert_close(got[i], -x[i] / (1 + v) + h / (v * (1 + v)).sqrt())


def test_training_finds_how_a_vector_depends_on_its_condition():
    torch.manual_seed(0)
    network = ScoreNetwork(2, 1, hidden=32)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(100):
        condition = torch.randn(128, 1)
        x = torch.cat([condition, -condition], dim=1) + 0.1 * torch.randn(128, 2)
        optimiser.zero_grad()
        matching_loss(network.given(condition), x).mean().backward()
        optimiser.step()
    condition = torch.randn(500, 1)
    with torch.no_grad():
        drawn = sample(network.given(condition), torch.randn(16, 500, 2))
    for column, sign in enumerate((1, -1)):
        together = torch.stack([drawn[:, column], sign * condition[:, 0]])
        assert torch.corrcoef(together)[0, 1] > 0.9
