import pytest
import pytorch_lightning as pl
import torch

from mmbench.baselines.diffusion import matching_loss, sample
from planted import RECIPE, batch_of, fit, naive_layers, same, weights


def masks():
    """What six samples have, and what stays visible of it; the last one has nothing."""
    present = torch.tensor([[1, 1, 1], [1, 1, 1], [0, 1, 1], [1, 0, 0], [1, 1, 1], [0, 0, 0]]).bool()
    visible = torch.tensor([[1, 0, 0], [0, 1, 1], [0, 0, 1], [1, 0, 0], [1, 1, 1], [0, 0, 0]]).bool()
    return present, visible


def in_second_stage(task, visible):
    """Without dropout, with the noise of the table, and with this for what a step leaves visible."""
    task.eval()
    task.pretraining_epochs = 0
    task.draw_visible = lambda present: visible
    return task


def embedded(task, batch, i):
    """One sample's x_m, on its own."""
    x = []
    for m in task.modalities:
        h = task.encode(batch)[m][i].detach()
        y = task.projections[m].weight @ h + task.projections[m].bias
        x.append((y - y.mean()) / (y.var(unbiased=False) + 1e-5).sqrt())
    return x


def naively_filled(task, x, visible):
    """One sample's vectors, each that is not visible drawn and refined."""
    shown = [v if see else torch.zeros_like(v) for v, see in zip(x, visible, strict=True)]
    filled = []
    for column, (m, see) in enumerate(zip(task.modalities, visible, strict=True)):
        if not see and visible.any():
            score = task.scores[m].given(torch.cat(shown).unsqueeze(0))
            drawn = sample(score, task.noise[:, [column]], radius=x[0].shape[0] ** 0.5)[0].detach()
            filled.append(naive_layers(task.refinements[m], drawn))
        else:
            filled.append(shown[column])
    return filled


def naive_logits(task, filled):
    joint = torch.cat(filled)
    hidden = task.block[0].weight @ joint + task.block[0].bias
    joint = joint + task.block[-1].weight @ hidden.clamp(min=0) + task.block[-1].bias
    return task.classifier.weight @ joint + task.classifier.bias


CHANGES = [{}, {"score_weight": 0.0, "reconstruction_weight": 3.0, "steps": 3, "width": 6}]


@pytest.mark.parametrize("changes", CHANGES)
def test_losses_and_gradients_of_the_second_stage(world3, changes):
    present, visible = masks()
    task = in_second_stage(world3.task("imder", **{"steps": 4, "width": 12, **changes}), visible)
    batch = batch_of(world3.complete, 6, present=present)
    torch.manual_seed(3)
    got = task.training_step(batch, 0)
    losses, errors = [], {m: [] for m in task.modalities}
    for i in range(5):
        x = embedded(task, batch, i)
        filled = naively_filled(task, x, visible[i])
        losses.append(-naive_logits(task, filled).log_softmax(0)[batch.label[i]])
        for c, m in enumerate(task.modalities):
            if present[i, c] and not visible[i, c]:
                errors[m].append((filled[c] - x[c].detach()).square().mean())
    assert [len(e) for e in errors.values()] == [1, 2, 1]
    torch.manual_seed(3)
    scores = []
    for c, m in enumerate(task.modalities):
        rows = [i for i in range(5) if present[i, c] and not visible[i, c]]
        x = torch.stack([embedded(task, batch, i)[c] for i in rows]).detach()
        shown = torch.stack(
            [torch.cat([v * see for v, see in zip(embedded(task, batch, i), visible[i], strict=True)]) for i in rows]
        )
        scores.append(matching_loss(task.scores[m].given(shown.detach()), x).mean())
    expected = (
        sum(losses) / 5
        + changes.get("score_weight", 0.1) * sum(scores)
        + changes.get("reconstruction_weight", 0.1) * sum(sum(e) / len(e) for e in errors.values())
    )
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    parameters = [p for n, p in task.named_parameters() if not n.startswith(("encoders", "projections"))]
    torch.testing.assert_close(
        torch.autograd.grad(got, parameters), torch.autograd.grad(expected, parameters), rtol=1e-3, atol=1e-5
    )


def test_loss_of_the_first_stage(world3):
    present, _ = masks()
    task = world3.task("imder").eval()
    assert task.is_pretraining
    batch = batch_of(world3.complete, 6, present=present)
    losses = []
    for i in range(5):
        x = [v * here for v, here in zip(embedded(task, batch, i), present[i], strict=True)]
        losses.append(-naive_logits(task, x).log_softmax(0)[batch.label[i]])
    torch.testing.assert_close(task.training_step(batch, 0), sum(losses) / 5)


def test_predictions(world3):
    _, visible = masks()
    task = world3.task("imder", steps=5).eval()
    batch = batch_of(world3.complete, 6)
    got = task.fuse(task.encode(batch), visible)
    for i in range(5):
        torch.testing.assert_close(
            got[i], naive_logits(task, naively_filled(task, embedded(task, batch, i), visible[i])), rtol=1e-4, atol=1e-5
        )


def test_numbers_inside_the_block_are_dropped_in_training(world3):
    task, seen = world3.task("imder", width=8, dropout=0.3), []
    dropout = [module for module in task.modules() if isinstance(module, torch.nn.Dropout) and module.p]
    for module in dropout:
        module.register_forward_hook(lambda module, inputs, _: seen.append((module.p, tuple(inputs[0].shape))))
    task.classify(torch.randn(5, 3, 8))
    assert seen == [(0.3, (5, 24))]


def test_what_is_known_and_hidden_is_the_only_target(world3):
    """Noise in the embedding of a cell changes the losses of score and reconstruction where the cell is a target, and only there."""
    present, visible = masks()
    task = in_second_stage(world3.task("imder", steps=2), visible)
    batch = batch_of(world3.complete, 6, present=present)
    plain = task.project
    hidden = present & ~visible

    def loss_with_shift(cells):
        task.project = lambda features, here: plain(features, here) + 10.0 * cells.unsqueeze(2)
        torch.manual_seed(3)
        return task.training_step(batch, 0)

    loss = loss_with_shift(torch.zeros_like(hidden))
    assert torch.equal(loss_with_shift(~present), loss)
    assert loss_with_shift(hidden) > loss + 10


def test_which_loss_trains_what(world3):
    present, visible = masks()

    def trained(**weights):
        task = in_second_stage(world3.task("imder", steps=2, **weights), visible)
        task.training_step(batch_of(world3.complete, 6, present=present), 0).backward()
        return {n.split(".")[0] for n, p in task.named_parameters() if p.grad is not None and p.grad.any()}

    from_class = {"refinements", "block", "classifier"}
    assert trained(score_weight=0.0, reconstruction_weight=0.0) == from_class
    assert trained(score_weight=0.1, reconstruction_weight=0.0) == from_class | {"scores"}
    assert trained() == from_class | {"scores"}


def test_nothing_is_drawn_where_everything_is_shown_or_nothing(world3, monkeypatch):
    drawn = []

    def counted(score, noise, radius):
        drawn.append(noise.shape[1])
        return sample(score, noise, radius)

    monkeypatch.setattr("mmbench.baselines.imder.sample", counted)
    task = world3.task("imder", steps=2).eval()
    features = task.encode(batch_of(world3.complete, 6))
    task.fuse(features, torch.ones(6, 3).bool())
    task.fuse(features, torch.zeros(6, 3).bool())
    assert drawn == []
    task.fuse(features, masks()[1])
    assert drawn == [2, 3, 2]


def test_draws_are_the_same_at_test_and_new_in_training(world3):
    task = world3.task("imder", steps=2).eval()
    features, visible = task.encode(batch_of(world3.complete, 6)), masks()[1]
    assert torch.equal(task.fuse(features, visible), task.fuse(features, visible))
    task.train()
    features = {m: f.detach() for m, f in features.items()}
    assert not torch.equal(task.fuse(features, visible)[:4], task.fuse(features, visible)[:4])


def test_encoders_are_frozen_after_the_first_stage(world3):
    task, at_the_end = world3.task("imder", steps=2), []

    class Copies(pl.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            frozen = {n: v for n, v in weights(pl_module).items() if n.startswith(("encoders", "projections"))}
            rest = {n: v for n, v in weights(pl_module).items() if n.startswith("scores")}
            at_the_end.append((frozen, rest))

    before = weights(task.encoders)
    fit(task, world3.complete, epochs=RECIPE.epochs, callbacks=[Copies()])
    (first, untrained), (second, trained) = at_the_end
    assert same(first, second)
    assert not same(untrained, trained)
    assert not same(weights(task.encoders), before)
