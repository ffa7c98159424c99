from itertools import pairwise
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch

from mmbench.errors import UsageError
from mmbench.recipe import Recipe
from planted import batch_of, fit, loader, same, trainer, weights


def gaps():
    """What seven samples have; the last one has nothing."""
    rows = [[1, 1, 1], [1, 1, 0], [0, 1, 1], [1, 0, 1], [1, 0, 0], [0, 1, 0], [0, 0, 0]]
    return torch.tensor(rows).bool()


def doubled(batch):
    batch.inputs = {
        m: v.double() if torch.is_tensor(v) and v.is_floating_point() else v for m, v in batch.inputs.items()
    }
    return batch


def alone(value, i):
    """One sample of a modality's input."""
    return value[[i]] if torch.is_tensor(value) else {name: part[[i]] for name, part in value.items()}


def learners(task, batch, present):
    """Each sample's logits by each modality that it has."""
    return [
        {
            m: task.heads[m](task.encoders[m](alone(batch.inputs[m], i))[0])
            for c, m in enumerate(task.modalities)
            if row[c]
        }
        for i, row in enumerate(present)
    ]


def naive_turn(task, batch, present, modality, weight_of):
    """The loss of a modality's turn, a sample at a time."""
    previous = task.modalities[task.modalities.index(modality) - 1]
    total, mass, distances = 0.0, 0.0, []
    for logits, y in zip(learners(task, batch, present), batch.label.tolist(), strict=True):
        if modality not in logits:
            continue
        others = sum((z.detach() for m, z in logits.items() if m != modality), torch.zeros(3, dtype=torch.double))
        q = (task.boost_rate.detach() * others).softmax(0)
        p = logits[modality].softmax(0)
        loss = -(task.label_weight - task.reconcilement_weight * q[y]) * p[y].log()
        if task.reconcilement == "kl":
            targets = [task.label_weight * (c == y) - task.reconcilement_weight * q[c] for c in range(3)]
            loss = -sum(targets[c] * p[c].log() for c in range(3))
        total, mass = total + weight_of[y] * loss, mass + weight_of[y]
        if previous in logits:
            distances.append(((p - logits[previous].detach().softmax(0)) ** 2).sum())
    return total / mass + task.agreement_weight * sum(distances) / len(distances)


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("changes", [{}, {"reconcilement": "kl", "label_weight": 2.0, "agreement_weight": 3.0}])
@pytest.mark.parametrize("column", [0, 1, 2])
def test_loss_and_gradients_of_a_turn(world3, changes, column, balanced):
    recipe = Recipe(epochs=2, batch_size=8, class_weights="balanced" if balanced else "none")
    task = world3.task("reconboost", recipe=recipe, **changes).double().eval()
    with torch.no_grad():
        task.boost_rate.fill_(1.7)
    present, modality = gaps(), task.modalities[column]
    batch = doubled(batch_of(world3.complete, 7, present=present))
    weight_of = task.class_weights.tolist() if balanced else [1.0] * 3
    expected = naive_turn(task, batch, present, modality, weight_of)
    got = task.turn_loss(task.encode(batch), batch, column)
    torch.testing.assert_close(got, expected)
    own = [*task.encoders[modality].parameters(), *task.heads[modality].parameters()]
    torch.testing.assert_close(
        torch.autograd.grad(got, own, retain_graph=True), torch.autograd.grad(expected, own, retain_graph=True)
    )
    got.backward()
    assert {name.split(".")[1] for name, p in task.named_parameters() if p.grad is not None} == {modality}


def test_where_both_weights_are_one_the_gradient_is_boostings_residual(world3):
    task = world3.task("reconboost", reconcilement="kl", label_weight=1.0, agreement_weight=0.0).double().eval()
    batch = doubled(batch_of(world3.complete, 6))
    features = task.encode(batch)
    kept = []
    task.heads["picture"].register_forward_hook(lambda module, inputs, out: kept.append(out))
    loss = task.turn_loss(features, batch, task.modalities.index("picture"))
    (gradient,) = torch.autograd.grad(loss, kept[0])
    logits = learners(task, batch, batch.present)
    for i, y in enumerate(batch.label.tolist()):
        q = (logits[i]["sensor"] + logits[i]["words"]).softmax(0)
        residual = torch.eye(3, dtype=torch.double)[y] - q
        torch.testing.assert_close(-6 * gradient[i], residual.detach())


def test_one_who_has_nothing_else_to_go_by_knows_nothing(world3):
    """For a sample with one modality, q is the same for every class, and there is no agreement."""
    task = world3.task("reconboost").double().eval()
    batch = doubled(batch_of(world3.complete, 1, present=torch.tensor([[True, False, False]])))
    features = task.encode(batch)
    entropy = -task.heads["sensor"](features["sensor"]).log_softmax(1)[0, batch.label[0]]
    torch.testing.assert_close(task.turn_loss(features, batch, 0), (5 - 1 / 3) * entropy)
    assert task.turn_loss(features, batch, 1) == 0


def test_rectification_is_the_cross_entropy_of_the_sum(world3):
    task = world3.task("reconboost").double().eval()
    task.pretraining_epochs = 0
    task.learning = lambda batch_idx: None
    with torch.no_grad():
        task.boost_rate.fill_(0.6)
    present = gaps()
    batch = doubled(batch_of(world3.complete, 7, present=present))
    sums = [sum(z.values(), torch.zeros(3, dtype=torch.double)) for z in learners(task, batch, present)]
    expected = -sum((0.6 * z).log_softmax(0)[y] for z, y in zip(sums, batch.label.tolist(), strict=True)) / 7
    got = task.training_step(batch, 0)
    torch.testing.assert_close(got, expected)
    got.backward()
    assert all(p.grad is not None and p.grad.any() for p in task.parameters())


def test_pretraining_is_late_fusion(world3):
    batch = batch_of(world3.complete, 7, present=gaps())
    task, late = world3.task("reconboost").eval(), world3.task("late_fusion").eval()
    late.load_state_dict(task.state_dict(), strict=False)
    assert task.is_pretraining
    assert torch.equal(task.training_step(batch, 0), late.training_step(batch, 0))


def plan(task, batches, monkeypatch):
    """Who learns in each step after pretraining: one list an epoch."""
    monkeypatch.setattr(type(task), "trainer", SimpleNamespace(num_training_batches=batches))
    found = []
    for epoch in range(task.pretraining_epochs, task.recipe.epochs):
        monkeypatch.setattr(type(task), "current_epoch", epoch)
        found.append([task.learning(i) for i in range(batches)])
    return found


def test_turns_are_whole_epochs_where_they_fit(world3, monkeypatch):
    task = world3.task("reconboost", recipe=Recipe(epochs=40), turn_epochs=4, rectification_epochs=2, pretraining=0.1)
    assert task.pretraining_epochs == 4
    a_round = [0] * 4 + [None] * 2 + [1] * 4 + [None] * 2 + [2] * 4 + [None] * 2
    assert plan(task, 7, monkeypatch) == [[who] * 7 for who in 2 * a_round]


@pytest.mark.parametrize(("epochs", "rounds"), [(20, 1), (36, 2), (44, 2), (97, 4)])
def test_whole_rounds_are_fitted_to_the_epochs(world3, epochs, rounds, monkeypatch):
    task = world3.task("reconboost", recipe=Recipe(epochs=epochs + 1), pretraining=0.001)
    assert task.pretraining_epochs == 1
    steps = [who for epoch in plan(task, 6, monkeypatch) for who in epoch]
    parts = [steps[0], *(after for before, after in pairwise(steps) if after != before)]
    assert parts == [0, None, 1, None, 2, None] * rounds
    lengths = torch.tensor([sum(steps[i] == who for i in range(len(steps))) for who in (0, 1, 2)])
    assert (lengths - epochs * 6 / 6).abs().max() <= rounds


def test_one_epoch_is_a_round(world3, monkeypatch):
    task = world3.task("reconboost", recipe=Recipe(epochs=2))
    assert plan(task, 6, monkeypatch) == [[0, None, 1, None, 2, None]]
    assert plan(task, 3, monkeypatch) == [[0, 1, 2]]  # fewer steps than parts


class Watch(pl.Callback):
    """What moved in each epoch: parameters, by their modality, and statistics of batch normalisation."""

    def __init__(self):
        self.moved, self.statistics = [], []

    def on_train_epoch_start(self, trainer, task):
        self.before = weights(task)

    def on_train_epoch_end(self, trainer, task):
        parameters = dict(task.named_parameters())
        changed = {n for n, v in weights(task).items() if not torch.equal(v, self.before[n])}
        self.moved.append({n.split(".")[1] if "." in n else n for n in changed if n in parameters})
        self.statistics.append(any("running_mean" in n for n in changed))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_none_moves_in_anothers_turn(world3, optimizer):
    """Neither by momentum nor by weight decay; all of them have some of both from before."""
    recipe = Recipe(epochs=8, batch_size=8, lr=0.01, optimizer=optimizer, weight_decay=0.1)
    task = world3.task("reconboost", recipe=recipe, turn_epochs=1, rectification_epochs=1)
    assert task.pretraining_epochs == 2
    watch, everyone = Watch(), {"sensor", "picture", "words"}
    fit(task, world3.complete, epochs=8, batches=2, callbacks=[watch])
    together = everyone | {"boost_rate"}
    assert watch.moved == [everyone] * 2 + [{"sensor"}, together, {"picture"}, together, {"words"}, together]
    assert watch.statistics == [True] * 8  # the others' encoders are in training mode


def test_the_agreement_draws_learners_together(world3):
    """As released, with both sides detached, the weight would change nothing."""
    recipe = Recipe(epochs=2, batch_size=8, lr=0.1)
    results = []
    for weight in (0.0, 20.0):
        task = world3.task("reconboost", recipe=recipe, agreement_weight=weight)
        task.learning = lambda batch_idx: 1
        fit(task, world3.complete, batches=4)
        task.eval()
        batch = batch_of(world3.complete, 8)
        first, second, _ = task.modality_logits(task.encode(batch)).softmax(dim=2).unbind(dim=1)
        results.append((first - second).square().sum(dim=1).mean())
    assert results[1] < 0.9 * results[0]


def test_what_is_predicted_is_the_sum_times_b(world3):
    task = world3.task("reconboost").eval()
    with torch.no_grad():
        task.boost_rate.fill_(2.5)
    sums = world3.task("sum").eval()
    sums.load_state_dict(task.state_dict(), strict=False)
    features, present = task.encode(batch_of(world3.complete, 7)), gaps()
    torch.testing.assert_close(task.fuse(features, present), 2.5 * sums.fuse(features, present))


def test_a_fit_that_ends_within_a_turn_goes_on_from_there(world3, tmp_path):
    recipe = Recipe(epochs=5, batch_size=8, lr=0.05)
    names = {"recipe": recipe, "turn_epochs": 2, "rectification_epochs": 1}
    at_once, half, rest = (world3.task("reconboost", seed=seed, **names) for seed in (0, 0, 1))
    fit(at_once, world3.complete, epochs=5, batches=2)
    fit(half, world3.complete, epochs=2, batches=2).save_checkpoint(tmp_path / "half.ckpt")
    run = trainer(5, limit_train_batches=2, limit_val_batches=0)
    run.fit(rest, loader(world3.complete), loader(world3.complete), ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    assert same(weights(rest), weights(at_once))


def test_what_would_unlearn_is_refused(world3):
    with pytest.raises(UsageError, match=r"reconcilement_weight is 3 and label_weight 2.* at most label_weight"):
        world3.task("reconboost", label_weight=2.0, reconcilement_weight=3.0)
