from dataclasses import replace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from scipy.optimize import minimize
from torch.nn import functional as F

from mmbench.baselines.g_blending import blend
from mmbench.recipe import Recipe
from planted import RECIPE, batch_of, fit, noisy_rows, same, weights


def squared_ratio(w, gained, overfitted):
    """The expected squared ratio of overfitting to generalisation, where the heads' overfitting is uncorrelated."""
    return sum((w * overfitted) ** 2) / sum(w * gained) ** 2


def blended(gained, overfitted, known=None, floor=0.0):
    known = torch.ones(len(gained), dtype=torch.bool) if known is None else torch.tensor(known)
    return blend(torch.tensor(gained), torch.tensor(overfitted), known, floor).tolist()


@pytest.mark.parametrize(
    ("gained", "overfitted"),
    [
        ([0.8, 0.5, 0.3], [0.4, -0.2, 0.9]),
        ([1.2, 0.1, 0.7, 0.6], [0.3, 0.3, 0.2, 0.5]),
        ([0.8, -0.5, 0.3], [0.4, 0.2, 0.9]),
    ],
)
def test_weights_are_those_of_the_least_squared_overfitting_to_generalisation_ratio(gained, overfitted):
    got, size = np.array(blended(gained, overfitted)), len(gained)
    found = minimize(
        squared_ratio,
        np.full(size, 1 / size),
        (np.array(gained), np.array(overfitted)),
        bounds=[(0, 1)] * size,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert found.success
    assert got == pytest.approx(found.x, abs=2e-4)
    naive = [max(g, 0) / o**2 for g, o in zip(gained, overfitted, strict=True)]
    assert got == pytest.approx([w / sum(naive) for w in naive])


@pytest.mark.parametrize(
    ("gained", "overfitted", "floor", "expected"),
    [
        ([0.6, 0.3, 0.1], [0.5, 0.5, -0.5], 0.0, [0.6, 0.3, 0.1]),  # O equal: by what was gained
        ([-0.1, 0.0, -2.0], [0.1, 0.2, 0.3], 0.0, [1 / 3] * 3),  # nobody gained anything
        ([1.0, 1.0, -1.0], [1.0, 1.0, 0.0], 0.5, [0.4, 0.4, 0.2]),  # the floor is a share of the largest
        ([0.5, 0.5], [0.0, 1.0], 0.25, [0.8, 0.2]),  # one that did not overfit at all
    ],
)
def test_weights_where_a_head_gains_nothing_or_does_not_overfit(gained, overfitted, floor, expected):
    assert blended(gained, overfitted, floor=floor) == pytest.approx(expected)


def test_a_loss_that_could_not_be_measured_has_the_mean_weight():
    assert blended([2.0, 9.0, 1.0], [1.0, 0.1, 1.0], [True, False, True]) == pytest.approx([4 / 9, 3 / 9, 2 / 9])
    assert blended([2.0, 9.0], [1.0, 0.1], [False, False]) == [0.5, 0.5]


# The losses that they are made of


def moved(task):
    """With models of stage one that differ from the initial ones, and from each other."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for part in (task.joint_encoders, task.joint_head, task.alone_encoders, task.alone_heads):
            for p in part.parameters():
                p += 0.3 * torch.randn(p.shape, generator=generator)
    return task


def alone(batch, i, m):
    value = batch.inputs[m]
    return value[[i]] if isinstance(value, torch.Tensor) else {n: v[[i]] for n, v in value.items()}


def naive(task, batch, i, head, heads, joint, own):
    """[ℓ(f), ℓ(g_1), …] of one sample; None where it has no such modality."""
    z, found = torch.zeros(3), []
    parts = head.weight.split(list(task.dims.values()), dim=1)
    for c, m in enumerate(task.modalities):
        if not batch.present[i, c]:
            found.append(None)
            continue
        z = z + parts[c] @ joint[m](alone(batch, i, m))[0] + head.bias / 3
        found.append(F.cross_entropy(heads[m](own[m](alone(batch, i, m)))[0], batch.label[i]))
    return [F.cross_entropy(z, batch.label[i]), *found]


def models(task, stage):
    if stage == 0:
        return task.head, task.heads, task.encoders, task.encoders
    return task.joint_head, task.alone_heads, task.joint_encoders, task.alone_encoders


@pytest.mark.parametrize("class_weights", ["none", "balanced"])
def test_losses_are_means_over_samples_before_and_after_in_the_rest_and_in_v(world3, class_weights):
    recipe = RECIPE.model_copy(update={"class_weights": class_weights})
    task, split = moved(world3.task("g_blending", recipe=recipe, held_out=0.3)), world3.data.splits.train
    assert not split.present.all()
    task.hold_out(split)
    losses, counts = task.measure(split)
    assert task.training
    task.eval()
    batch = batch_of(split, len(split))
    held = task.is_held(batch)
    assert held.sum() == 12
    for stage in (0, 1):
        for part in (0, 1):
            rows = (held == bool(part)).nonzero().squeeze(1).tolist()
            each = [naive(task, batch, i, *models(task, stage)) for i in rows]
            for k in range(4):
                w = [1.0 if task.class_weights is None else float(task.class_weights[batch.label[i]]) for i in rows]
                pairs = [(v, own[k]) for v, own in zip(w, each, strict=True) if own[k] is not None]
                mean = sum(v * loss for v, loss in pairs) / sum(v for v, _ in pairs)
                assert losses[stage, part, k].item() == pytest.approx(mean.item(), rel=1e-4)
                assert counts[part, k].item() == pytest.approx(sum(v for v, _ in pairs), rel=1e-5)


def test_stage_one_trains_every_head_alone_and_sees_nothing_of_v(world3):
    task = moved(world3.task("g_blending", held_out=0.4)).eval()
    task.hold_out(world3.data.splits.train)
    batch = batch_of(world3.data.splits.train, 16)
    held = task.is_held(batch)
    assert 2 < held.sum() < 14
    total = task.training_step(batch, 0)
    rows = (~held).nonzero().squeeze(1).tolist()
    each = [naive(task, batch, i, *models(task, 1)) for i in rows]
    means = [sum(known) / len(known) for k in range(4) if (known := [own[k] for own in each if own[k] is not None])]
    torch.testing.assert_close(total, sum(means))
    total.backward(retain_graph=True)
    assert all(p.grad is None for part in (task.encoders, task.head, task.heads) for p in part.parameters())
    trained = [[*task.joint_encoders.parameters(), *task.joint_head.parameters()]]
    trained += [[*task.alone_encoders[m].parameters(), *task.alone_heads[m].parameters()] for m in task.modalities]
    for loss, own in zip(means, trained, strict=True):
        torch.testing.assert_close([p.grad for p in own], list(torch.autograd.grad(loss, own)), rtol=1e-3, atol=1e-5)


def test_stage_one_weighs_classes_among_what_it_learns_from(world3):
    recipe = RECIPE.model_copy(update={"class_weights": "balanced"})
    task = moved(world3.task("g_blending", recipe=recipe, held_out=0.4)).eval()
    batch = batch_of(world3.data.splits.train, 16)
    rows = (~task.is_held(batch)).nonzero().squeeze(1).tolist()
    each = [(float(task.class_weights[batch.label[i]]), naive(task, batch, i, *models(task, 1))) for i in rows]
    known = [[(w, own[k]) for w, own in each if own[k] is not None] for k in range(4)]
    expected = sum(sum(w * loss for w, loss in pairs) / sum(w for w, _ in pairs) for pairs in known)
    torch.testing.assert_close(task.training_step(batch, 0), expected)


def test_stage_two_weighs_the_losses_of_multi_loss(world3):
    task = world3.task("g_blending").eval()
    task.pretraining_epochs = 0
    task.loss_weights.copy_(torch.tensor([0.1, 0.2, 0.3, 0.4]))
    batch = batch_of(world3.data.splits.train, 16)
    fused, own = task.losses(task.encode(batch), batch)
    expected = 0.1 * fused + 0.2 * own[0] + 0.3 * own[1] + 0.4 * own[2]
    torch.testing.assert_close(task.training_step(batch, 0), expected)


# A whole run


class Watch(pl.Callback):
    """Notes the weights of everything when the second stage begins, and what is computed there."""

    def __init__(self):
        self.began = self.before = self.blend = None

    def on_train_start(self, trainer, task):
        self.began = weights(task)

    def on_train_batch_start(self, trainer, task, batch, batch_idx):
        if task.current_epoch == task.pretraining_epochs and self.before is None:
            self.before, self.blend = weights(task), task.loss_weights.clone()


def test_a_fresh_model_is_trained_by_weights_that_stage_one_found(world3):
    recipe = Recipe(epochs=6, batch_size=8, lr=0.02, weight_decay=0.1)
    task, watch = world3.task("g_blending", recipe=recipe, held_out=0.3), Watch()
    split = world3.data.splits.train
    fit(task, split, epochs=6, batches=5, callbacks=[watch])
    trial = [n for n in watch.before if n.startswith(("joint", "alone"))]
    main = [n for n in watch.before if n.startswith(("encoders", "head"))]
    final = weights(task)
    assert {n: same({n: watch.began[n]}, {n: watch.before[n]}) for n in main} == dict.fromkeys(main, True)
    assert not any(torch.equal(watch.began[n], watch.before[n]) for n in trial if n.endswith(("weight", "bias")))
    assert all(torch.equal(watch.before[n], final[n]) for n in trial), "weight decay moved what has no gradient"
    assert not torch.equal(watch.before["head.weight"], final["head.weight"])
    assert torch.equal(watch.blend, task.loss_weights), "they were estimated again, or trained"
    learns = {name.partition(".")[0] for name, p in task.named_parameters() if p.requires_grad}
    assert learns == {"encoders", "head", "heads"}
    again = world3.task("g_blending", recipe=recipe, held_out=0.3)
    again.load_state_dict(watch.before)
    again.hold_out(split)
    (before, after), counts = again.measure(split)
    gained, overfitted = before[1] - after[1], (after[1] - after[0]) - (before[1] - before[0])
    assert counts.min() > 0
    raw = [max(float(g), 0.0) / float(o) ** 2 for g, o in zip(gained, overfitted, strict=True)]
    raw = [max(r, 0.01 * max(raw)) for r in raw]
    assert watch.blend.tolist() == pytest.approx([r / sum(raw) for r in raw], rel=1e-3)
    assert len(set(watch.blend.tolist())) > 2, "the floor decided all of them"


@pytest.mark.filterwarnings("ignore:training was stopped after")
def test_noise_in_v_changes_nothing_in_stage_one(world3):
    split = world3.complete
    found, generator = [], torch.Generator().manual_seed(0)
    held = held_of(world3.task("g_blending", held_out=0.3), split)
    noisy = {m: noisy_rows(v, held, generator) for m, v in split.inputs.items()}
    for inputs in (split.inputs, noisy):
        task = world3.task("g_blending", recipe=RECIPE, held_out=0.3)
        fit(task, replace(split, inputs=inputs), epochs=1)
        found.append(weights(task))
    assert same(*found)


def held_of(task, split):
    task.hold_out(split)
    return task.is_held(batch_of(split, len(split)))


def test_what_is_held_out_is_whole_groups_the_same_for_every_seed_and_as_much_as_asked(world3):
    split = world3.data.splits.train
    one, other = (held_of(world3.task("g_blending", seed=seed, held_out=0.25), split) for seed in (0, 1))
    assert torch.equal(one, other)
    assert one.sum() == 10
    assert split.group[one].unique().numel() == 5
    assert not torch.isin(split.group[~one], split.group[one]).any()


def test_a_group_that_is_larger_than_the_share_is_never_held_out(world3):
    split = world3.data.splits.train
    group = torch.where(torch.arange(len(split)) < 20, 0, split.group + 1)
    held = held_of(world3.task("g_blending", held_out=0.4), replace(split, group=group))
    assert not held[:20].any()
    assert held.sum() == 16


def test_a_modality_that_no_held_out_sample_has_weighs_as_much_as_the_mean_of_the_others(world3):
    split = world3.data.splits.train
    held = held_of(world3.task("g_blending"), split)
    present = split.present.clone()
    present[held, 1] = False
    task = world3.task("g_blending")
    fit(task, replace(split, present=present))
    w = task.loss_weights
    assert w[2].item() == pytest.approx(w[[0, 1, 3]].mean().item(), rel=1e-4)
    assert w.sum().item() == pytest.approx(1)


def test_where_nothing_is_held_out_all_losses_weigh_the_same(world3):
    task = world3.task("g_blending", held_out=0.001)
    fit(task, world3.data.splits.train)
    assert task.loss_weights.tolist() == [0.25] * 4
