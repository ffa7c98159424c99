import math

import pytest
import torch
from torch import nn

from mmbench.baselines.ogm_ge import OgmGe, modulated_weights
from mmbench.encoders.hashed_text import HashedText
from mmbench.encoders.small_cnn import SmallCNN
from mmbench.errors import UsageError
from planted import VectorEncoder, batch_of


def naive_coefficients(task, batch, alpha):
    """Scores, ratios and coefficients of a batch, sample by sample."""
    features = task.encode(batch)
    scores, start = [], 0
    for column, m in enumerate(task.modalities):
        weight = task.head.weight[:, start : start + task.dims[m]]
        start += task.dims[m]
        correct = []
        for i, y in enumerate(batch.label.tolist()):
            if batch.present[i, column]:
                z = (weight @ features[m][i] + task.head.bias / len(task.modalities)).tolist()
                correct.append(math.exp(z[y]) / sum(map(math.exp, z)))
        scores.append(sum(correct) / len(correct))
    coefficients = []
    for m, score in enumerate(scores):
        others = [s for n, s in enumerate(scores) if n != m]
        ratio = score / (sum(others) / len(others))
        coefficients.append(1 - math.tanh(alpha * ratio) if ratio > 1 else 1.0)
    return coefficients


@pytest.mark.parametrize("name", ["planted2", "planted3"])
@pytest.mark.parametrize("alpha", [0.1, 0.8])
def test_coefficients(make_world, name, alpha):
    world = make_world(name)
    task = world.task("ogm_ge", alpha=alpha).eval()
    batch = batch_of(world.data.splits.train, 20)
    assert not batch.present.all()
    with torch.no_grad():
        task.head.weight[:, :8] *= 5  # so that the modalities differ
        expected = naive_coefficients(task, batch, alpha)
        task.training_step(batch, 0)
    assert min(expected) < 1 == max(expected)
    torch.testing.assert_close(task.coefficients, torch.tensor(expected), rtol=1e-4, atol=1e-5)


def test_two_modalities_are_the_papers_equations(world2):
    task = world2.task("ogm_ge", alpha=0.5)
    ahead = 1 - math.tanh(0.5 * 0.6 / 0.2)
    torch.testing.assert_close(task.modulation(torch.tensor([0.6, 0.2])), torch.tensor([ahead, 1.0]))
    torch.testing.assert_close(task.modulation(torch.tensor([0.2, 0.6])), torch.tensor([1.0, ahead]))
    assert task.modulation(torch.tensor([0.4, 0.4])).tolist() == [1, 1]  # departure 3


def test_each_of_three_is_compared_with_the_mean_of_the_others(world3):
    task = world3.task("ogm_ge", alpha=0.5)
    got = task.modulation(torch.tensor([0.8, 0.5, 0.1]))
    expected = [1 - math.tanh(0.5 * 0.8 / 0.3), 1 - math.tanh(0.5 * 0.5 / 0.45), 1.0]
    torch.testing.assert_close(got, torch.tensor(expected))


# A modality that no sample of the batch has scores 0. Counted as a rival, it would make the other one's ratio infinite and its
# coefficient 0 where there are two, and the mean of the others too small where there are three: it is left out.
@pytest.mark.parametrize("name", ["planted2", "planted3"])
def test_a_modality_that_does_not_occur_is_no_rival(make_world, name):
    world = make_world(name)
    task = world.task("ogm_ge", noise=False).eval()
    batch = batch_of(world.complete, 8)
    batch.present[:, -1] = False
    task.training_step(batch, 0)
    first, *second, _ = naive_scores(task, batch)
    expected = task.modulation(torch.stack([first, *second])) if second else torch.ones(1)  # as if there were one less
    torch.testing.assert_close(task.coefficients[:-1], expected, rtol=1e-4, atol=1e-5)


def naive_scores(task, batch):
    parts = task.modality_logits(task.encode(batch)).detach().softmax(dim=-1)
    return [parts[range(len(batch)), m, batch.label].mean() for m in range(len(task.modalities))]


def naive_three(s, alpha):
    """MLA's release: the second or the third modality if it has more than the others together, else the first."""
    first, second, third = s
    k = [1.0, 1.0, 1.0]
    if second / (first + third) > 1:
        k[1] = 1 - math.tanh(alpha * second / (first + third))
    elif third / (first + second) > 1:
        k[2] = 1 - math.tanh(alpha * third / (first + second))
    else:
        k[0] = 1 - math.tanh(alpha * first / (second + third))
    return k


@pytest.mark.parametrize(
    "scores", [(0.1, 0.9, 0.2), (0.2, 0.1, 0.9), (0.9, 0.1, 0.2), (0.3, 0.4, 0.5), (0.2, 0.6, 0.4), (0.0, 0.3, 0.3)]
)
def test_three_modalities_as_in_mlas_release(world3, scores):
    task = world3.task("ogm_ge", alpha=0.3, three="mla")
    torch.testing.assert_close(task.modulation(torch.tensor(scores)), torch.tensor(naive_three(scores, 0.3)))
    assert task.modulation(torch.zeros(3)).tolist() == [1, 1, 1]  # a batch in which nobody has anything


def test_mlas_release_modulates_weights_of_four_dimensions_alone(world3):
    task, before = with_gradients(world3, noise=False, three="mla")
    task.on_before_optimizer_step(None)
    for name, p in task.named_parameters():
        k = MODULATED.get(name, 1.0) if name.startswith("encoders.picture") else 1.0
        assert torch.equal(p.grad, k * before[name]), name


def test_mlas_release_has_three_modalities(world2):
    with pytest.raises(UsageError, match=r"for three modalities, got \['sensor', 'picture'\]"):
        world2.task("ogm_ge", three="mla")


def test_the_loss_is_concats(world3):
    batch = batch_of(world3.data.splits.train, 12)
    losses = [world3.task(method).eval().training_step(batch, 0) for method in ("ogm_ge", "concat")]
    torch.testing.assert_close(*losses)


def with_gradients(world, **arguments):
    """A task after a backward pass with known coefficients, and copies of its gradients."""
    task = world.task("ogm_ge", **arguments)
    task.training_step(batch_of(world.complete, 12), 0).backward()
    task.coefficients = torch.tensor([0.25, 0.5, 1.0])[: len(task.modalities)]
    return task, {name: p.grad.clone() for name, p in task.named_parameters()}


MODULATED = {
    "encoders.sensor.0.weight": 0.25,
    "encoders.sensor.2.weight": 0.25,
    "encoders.picture.layers.0.weight": 0.5,
    "encoders.picture.layers.3.weight": 0.5,
    "encoders.picture.layers.6.weight": 0.5,
    "encoders.words.embedding.weight": 1.0,
    "encoders.words.linear.weight": 1.0,
}


def test_without_noise_gradients_are_scaled_exactly(world3):
    task, before = with_gradients(world3, noise=False)
    task.on_before_optimizer_step(None)
    for name, p in task.named_parameters():
        assert torch.equal(p.grad, MODULATED.get(name, 1.0) * before[name]), name


def test_only_convolutions_and_matrices_get_noise(world3):
    task, before = with_gradients(world3)
    task.on_before_optimizer_step(None)
    changed = {name for name, p in task.named_parameters() if not torch.equal(p.grad, before[name])}
    assert changed == set(MODULATED)  # also where the coefficient is 1; no norm, no bias, no head


def test_a_transformer_is_modulated_beyond_the_convolution_that_cuts_patches():
    encoder = nn.Sequential(nn.Conv2d(3, 8, 4), nn.TransformerEncoderLayer(8, 2))
    names = {name for name, p in encoder.named_parameters() if any(p is one for one in modulated_weights(encoder))}
    assert names == {
        "0.weight",
        *(f"1.{n}.weight" for n in ("self_attn.out_proj", "linear1", "linear2")),
        "1.self_attn.in_proj_weight",
    }


@pytest.mark.parametrize("encoder", [SmallCNN(width=16), HashedText(buckets=256), VectorEncoder(2000)])
@pytest.mark.parametrize("k", [0.1, 1.0])
def test_noise_is_as_wide_as_the_unscaled_gradient(world2, encoder, k):
    task = world2.task("ogm_ge")
    task.encoders["sensor"] = encoder
    generator = torch.Generator().manual_seed(0)
    matrices = [p for p in encoder.parameters() if p.dim() >= 2]
    for scale, p in enumerate(matrices, start=1):
        p.grad = scale * torch.randn(p.shape, generator=generator) + 0.5  # a mean, which std does not see
    before = [p.grad.clone() for p in matrices]
    task.coefficients = torch.tensor([k, 1.0])
    torch.manual_seed(0)
    task.on_before_optimizer_step(None)
    for p, g in zip(matrices, before, strict=True):
        noise = p.grad - k * g
        assert noise.std().item() == pytest.approx(g.std().item(), rel=0.1)
        assert abs(noise.mean().item()) < 0.2 * g.std().item()


@pytest.mark.parametrize(("epoch", "modulated"), [(1, False), (2, True), (3, True), (4, True), (5, False)])
def test_first_and_last_epoch_are_included(world2, monkeypatch, epoch, modulated):
    monkeypatch.setattr(OgmGe, "current_epoch", epoch)
    task, before = with_gradients(world2, start_epoch=2, end_epoch=4)
    task.on_before_optimizer_step(None)
    changed = any(not torch.equal(p.grad, before[name]) for name, p in task.named_parameters())
    assert changed == modulated


def test_an_encoder_left_without_gradient_stays_without(world2):
    task, _ = with_gradients(world2)
    nn.Module.zero_grad(task.encoders["sensor"])
    task.on_before_optimizer_step(None)
    assert all(p.grad is None for p in task.encoders["sensor"].parameters())
