import torch

from mmbench.baselines.cra import ResidualAutoencoder
from planted import batch_of, every_pattern, naive_cascade, naive_layers, random_features


def test_blocks_correct_what_the_ones_before_left():
    torch.manual_seed(0)
    cascade = ResidualAutoencoder(7, hidden=(6, 5, 3), blocks=4).double()
    assert [[tuple(p.shape) for n, p in block.named_parameters() if "weight" in n] for block in cascade.encoders] == [
        [(6, 7), (5, 6), (3, 5)]
    ] * 4
    assert cascade.latent_dim == 12
    x = torch.randn(5, 7, dtype=torch.double)
    reconstruction, latents = cascade(x)
    for i in range(5):
        torch.testing.assert_close((reconstruction[i], latents[i]), naive_cascade(cascade, x[i]))


def test_widths_and_number_of_blocks(world3):
    task = world3.task("cra")
    width = sum(task.dims.values())
    assert len(task.autoencoder.encoders) == len(task.autoencoder.decoders) == 2
    shapes = [p.shape[0] for n, p in task.autoencoder.decoders[1].named_parameters() if "bias" in n]
    assert shapes == [128, 256, width]
    assert len(world3.task("cra", blocks=3).autoencoder.encoders) == 3


def test_prediction_classifies_the_reconstruction(world3):
    task = world3.task("cra").double().eval()
    present = every_pattern(3)
    features = random_features(task, len(present))
    logits = task.fuse(features, present)
    for i, row in enumerate(present):
        x = torch.cat([features[m][i] * here for m, here in zip(task.modalities, row, strict=True)])
        torch.testing.assert_close(logits[i], naive_layers(task.classifier, naive_cascade(task.autoencoder, x)[0]))


def test_loss_and_gradients(world3):
    task = world3.task("cra").eval()
    present = torch.tensor([[1, 1, 1], [1, 1, 1], [0, 1, 1], [1, 0, 0]]).bool()
    visible = torch.tensor([[1, 0, 0], [0, 1, 1], [0, 0, 1], [1, 0, 0]]).bool()
    task.draw_visible = lambda present: visible
    batch = batch_of(world3.complete, 4, present=present)
    features = task.encode(batch)
    expected, errors = torch.zeros(()), []
    for i in range(4):
        x = torch.cat([features[m][i] * visible[i, c] for c, m in enumerate(task.modalities)])
        joint = naive_cascade(task.autoencoder, x)[0]
        expected = expected - naive_layers(task.classifier, joint).log_softmax(0)[batch.label[i]] / 4
        for c, m in enumerate(task.modalities):
            if present[i, c] and not visible[i, c]:
                decoded = naive_layers(task.decoders[m], joint)
                errors.append(((decoded - features[m][i].detach()) ** 2).sum() / task.dims[m])
    assert len(errors) == 4
    expected = expected + 0.8 * sum(errors) / 4
    got = task.training_step(batch, 0)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    parameters = list(task.parameters())
    torch.testing.assert_close(
        torch.autograd.grad(got, parameters), torch.autograd.grad(expected, parameters), rtol=1e-3, atol=1e-5
    )
