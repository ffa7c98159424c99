import pytest
import torch
from test_masked_transformer import dropped, make_step, mean_cross_entropy, naive_logits

from mmbench.missing import patterns
from planted import RECIPE, batch_of, fit


def prompts_of(task, row):
    """The k tokens of the pattern that a sample shows."""
    shown = tuple(m for m, here in zip(task.modalities, row, strict=True) if here)
    return task.prompts[patterns(task.modalities).index(shown)]


@pytest.mark.parametrize("name", ["planted2", "planted3"])
def test_logits_by_attention_to_the_prompts_of_the_pattern(make_world, name):
    task, batch, features = make_step(make_world(name), "pattern_prompts", prompts=3)
    logits = task.fuse(features, batch.present)
    assert logits.isfinite().all()
    for i, row in enumerate(batch.present.tolist()):
        if any(row):
            torch.testing.assert_close(logits[i], naive_logits(task, features, i, row, prompts_of(task, row)))


def test_loss_and_gradients(world3):
    task, batch, features = make_step(world3, "pattern_prompts", prompts=2, drop_visible=True)
    visible = batch.present.clone()
    visible[-1, -1] = False
    task.draw_visible = lambda present: visible
    logits = [
        naive_logits(task, features, i, row, prompts_of(task, row)) if any(row) else None
        for i, row in enumerate(visible.tolist())
    ]
    expected = mean_cross_entropy(logits, batch.label)
    got = task.training_step(batch, 0)
    torch.testing.assert_close(got, expected)
    wanted = [task.prompts, task.start, *task.layers.parameters(), *features.values()]
    gradients = torch.autograd.grad(got, wanted)
    torch.testing.assert_close(gradients, torch.autograd.grad(expected, wanted))
    assert gradients[0][:-1].flatten(1).any(dim=1).all()
    assert not gradients[0][-1].any()  # nobody shows everything


def test_patterns_begin_alike_and_those_that_are_seen_part(world3):
    recipe = RECIPE.model_copy(update={"epochs": 4, "weight_decay": 0.0})
    for drop, moved in ((True, [True] * 7), (False, [False] * 6 + [True])):  # the last pattern is the complete one
        task = world3.task("pattern_prompts", recipe=recipe, drop_visible=drop)
        first = task.prompts.detach().clone()
        assert (first == first[0]).all()
        assert len(first[0].unique(dim=0)) == 4  # but a pattern's tokens differ
        fit(task, world3.complete, epochs=4)
        assert (task.prompts != first).flatten(1).any(dim=1).tolist() == moved


def test_its_arguments_are_those_of_the_transformer_too(world3):
    task = world3.task("pattern_prompts", prompts=2, width=8, layers=3, dropout=0.3)
    assert task.prompts.shape == (7, 2, 8)
    assert len(task.layers) == 3
    assert {p for p, _ in dropped(task)} == {0.3}


def test_the_prompts_decide(world3):
    task = world3.task("pattern_prompts").eval()
    batch = batch_of(world3.complete, 4)
    features = task.encode(batch)
    before = task.fuse_patterns(features, batch.present)
    with torch.no_grad():
        task.prompts[2] += torch.randn_like(task.prompts[2])
    changed = (task.fuse_patterns(features, batch.present) != before).flatten(1).any(dim=1)
    assert changed.tolist() == [number == 2 for number in range(7)]


def test_a_batch_in_which_nothing_is_present(world3):
    task = world3.task("pattern_prompts")
    batch = batch_of(world3.complete, 3, present=torch.zeros(3, 3, dtype=torch.bool))
    loss = task.training_step(batch, 0)
    loss.backward()
    assert loss == 0
    assert all(p.grad is None or not p.grad.any() for p in task.parameters())
