"""What ``recipe.class_weights`` makes of the losses of all methods, by loops over samples and classes."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from mmbench.errors import UsageError
from mmbench.recipe import Recipe
from planted import METHODS, batch_of, every_pattern, fit, trainer, weights

PLAIN = Recipe(epochs=2, batch_size=8, lr=1e-9, weight_decay=0)  # MLA's steps in a batch leave its next loss as it is
BALANCED = PLAIN.model_copy(update={"class_weights": "balanced"})
COUNTS = (2, 8, 90)
WEIGHTS = [100 / (3 * 2), 100 / (3 * 8), 100 / (3 * 90)]
WITHOUT = {"cca", "dcca", "dccae", "cpm_net"}
WEIGHTED = [name for name in METHODS if name not in WITHOUT]
SECOND_STAGE = ["mmin", "if_mmin", "tate", "umt"]
# Arguments with which all of a method's cross-entropies enter its loss with a factor of 1.
PLAIN_SUMS: dict[str, dict] = {
    "dgl": {"alpha": 1.0},
}


def task_of(world, method, recipe, **arguments):
    torch.manual_seed(0)
    return METHODS[method](replace(world.data.spec, class_counts=COUNTS), world.encoders(), recipe, **arguments)


def naive_mean(losses, labels, weight):
    """Σ w ℓ / Σ w."""
    if not losses:
        return 0.0
    pairs = list(zip(losses, labels, strict=True))
    return sum(weight[y] * loss for loss, y in pairs) / sum(weight[y] for _, y in pairs)


def test_a_class_weighs_against_its_frequency(world3):
    spec = world3.data.spec
    task = METHODS["sum"](replace(spec, class_counts=COUNTS), world3.encoders(), BALANCED)
    assert task.class_weights.tolist() == pytest.approx(WEIGHTS)
    assert sum(w * n for w, n in zip(WEIGHTS, COUNTS, strict=True)) == pytest.approx(100)  # 1 on average
    task = METHODS["sum"](replace(spec, class_counts=(3, 0, 1)), world3.encoders(), BALANCED)
    assert task.class_weights.tolist() == pytest.approx([4 / (2 * 3), 0, 4 / (2 * 1)])
    assert METHODS["sum"](spec, world3.encoders(), PLAIN).class_weights is None


def test_they_are_no_part_of_a_checkpoint(world3):
    assert task_of(world3, "sum", BALANCED).state_dict().keys() == task_of(world3, "sum", PLAIN).state_dict().keys()


def watched(task, split, monkeypatch):
    """The loss of a fit of one batch, and the logits (B, C) and labels of every cross-entropy of classes in it."""
    seen, plain = [], F.cross_entropy

    def cross_entropy(logits, label, **arguments):
        if logits.dim() == 2:  # ShaSpec's telling of modalities has three
            seen.append((logits.detach(), label))
        return plain(logits, label, **arguments)

    monkeypatch.setattr(F, "cross_entropy", cross_entropy)
    run = fit(task, split, epochs=1, batches=1)
    monkeypatch.undo()
    return run.callback_metrics["train/loss"].item(), seen


@pytest.mark.filterwarnings("ignore:training was stopped after")
@pytest.mark.parametrize(
    ("method", "stage"), [*((name, 1) for name in WEIGHTED), *((name, 2) for name in SECOND_STAGE)]
)
def test_the_cross_entropies_of_a_method_and_nothing_else_are_weighted(world3, method, stage, monkeypatch):
    split = world3.data.splits.train
    present, label = split.present[:8], split.label[:8].tolist()
    assert not present.all()
    assert set(label) == {0, 1, 2}
    losses = []
    for recipe in (PLAIN, BALANCED):
        task = task_of(world3, method, recipe, **PLAIN_SUMS.get(method, {}))
        if stage == 2:
            task.pretraining_epochs = 0
        loss, seen = watched(task, split, monkeypatch)
        losses.append(loss)
    difference = 0.0
    for logits, labels in seen:
        values = [float(-row.log_softmax(0)[y]) for row, y in zip(logits, labels, strict=True)]
        groups = [list(range(len(values)))]
        if len(values) == 24:  # those of each modality, side by side
            groups = [[3 * i + m for i in range(8) if present[i, m]] for m in range(3)]
        for rows in groups:
            own, classes = [values[r] for r in rows], [int(labels[r]) for r in rows]
            difference += naive_mean(own, classes, WEIGHTS) - naive_mean(own, classes, [1, 1, 1])
    assert abs(difference) > 1e-4
    assert losses[1] - losses[0] == pytest.approx(difference, abs=1e-5)


@pytest.mark.parametrize("method", WEIGHTED)
def test_weights_that_are_all_one_change_nothing(world3, method):
    even = replace(world3.data.spec, class_counts=(20, 20, 20))
    results = []
    for recipe in (PLAIN, BALANCED):
        torch.manual_seed(0)
        task = METHODS[method](even, world3.encoders(), recipe.model_copy(update={"lr": 0.05}))
        fit(task, world3.data.splits.train, batches=2)
        results.append(weights(task))
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("literal", [False, True])
def test_hard_combinations_of_dmrnet(world3, literal):
    """The cross-entropy of hard ones, too, is divided by the weights of all; what that adds does not depend on the noise."""
    batch = batch_of(world3.complete, 14)
    batch.present = every_pattern(3).repeat(2, 1)[:14]
    found = []
    for share in (0.0, 0.7):
        task = task_of(world3, "dmrnet", BALANCED, hard_weight=share, warmup=0, literal_hard_loss=literal)
        task.draw_visible = lambda present: present
        task.hard[[1, 3, 4]] = True
        logits, plain = [], task.classifier.forward
        task.classifier.forward = lambda e, logits=logits, plain=plain: (logits.append(plain(e)), logits[-1])[1]
        torch.manual_seed(0)
        found.append(task.training_step(batch, 0).item())
    rows = [i for i in range(14) if batch.present[i].any()]
    values = [float(-z.detach().log_softmax(0)[batch.label[i]]) for z, i in zip(logits[0], rows, strict=True)]
    labels = [int(batch.label[i]) for i in rows]
    hard = [batch.present[i].tolist() in ([0, 1, 0], [1, 1, 0], [1, 0, 1]) for i in rows]
    total = sum(WEIGHTS[y] for y in labels)
    if literal:
        term = naive_mean(values, labels, WEIGHTS) * sum(hard)
    else:
        term = sum(WEIGHTS[y] * v for v, y, h in zip(values, labels, hard, strict=True) if h) / total
    assert found[1] - found[0] == pytest.approx(0.7 * term, rel=1e-4)


def test_qmfs_history_of_losses_knows_no_weights(world3):
    histories = []
    for recipe in (PLAIN, BALANCED):
        task = task_of(world3, "qmf", recipe)
        task.training_step(batch_of(world3.complete, 12), 0)
        histories.append(task.history)
    assert torch.equal(*histories)
    assert histories[0].any()


@pytest.mark.filterwarnings("ignore:.*lower precision.*", "ignore:.*bf16.*")
@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true", "bf16-true"])
@pytest.mark.parametrize("method", ["sum", "late_fusion", "mla", "dmrnet"])
def test_in_every_precision_and_beside_all_else(world3, method, precision):
    settings = {"class_weights": "balanced", "clip_norm": 1.0, "schedule": "cosine", "optimizer": "adamw"}
    task = world3.task(method, recipe=Recipe(epochs=2, batch_size=8, warmup=1, **settings))
    before = weights(task)
    trainer(precision=precision, limit_train_batches=3, limit_val_batches=1).fit(task, datamodule=world3.data)
    after = weights(task)
    assert all(value.isfinite().all() for value in after.values())
    assert not torch.equal(before["encoders.sensor.0.weight"], after["encoders.sensor.0.weight"].float())


# Who takes them


@pytest.mark.parametrize("method", METHODS)
def test_a_method_weighs_classes_or_refuses_to(world3, method):
    if method not in WITHOUT:
        assert task_of(world3, method, BALANCED).class_weights is not None
        return
    with pytest.raises(
        UsageError, match=r"class_weights is 'balanced', but \w+ does not weigh classes .* own, in which it is none$"
    ):
        task_of(world3, method, BALANCED)


class OwnLoss(METHODS["sum"]):
    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch), batch.label)


class OwnWeightedLoss(METHODS["sum"]):
    weighted_classes = True

    def training_step(self, batch, batch_idx):
        return self.cross_entropy(self(batch), batch.label)


class OwnFusion(METHODS["late_fusion"]):
    def fuse(self, features, present):
        return 2 * super().fuse(features, present)


def test_a_method_of_ones_own_says_that_its_loss_is_weighted(world3):
    with pytest.raises(UsageError, match="OwnLoss does not weigh classes"):
        OwnLoss(world3.data.spec, world3.encoders(), BALANCED)
    for kind in (OwnWeightedLoss, OwnFusion):
        assert kind(world3.data.spec, world3.encoders(), BALANCED).class_weights is not None
