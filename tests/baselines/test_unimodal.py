from dataclasses import replace
from itertools import pairwise

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from mmbench.best_epoch import BestEpoch
from mmbench.missing import pattern_name, patterns
from mmbench.patience import Patience
from mmbench.recipe import Recipe
from planted import batch_of, every_pattern, fit, gappy, loader, random_features, same, trainer, weights

EPOCHS = 6
RECIPE = Recipe(epochs=EPOCHS, batch_size=8, lr=0.3, patience=3)


def test_it_learns_what_late_fusion_learns(world3):
    batch = batch_of(world3.data.splits.train, 16)
    losses = [world3.task(method).eval().training_step(batch, 0) for method in ("late_fusion", "unimodal")]
    assert torch.equal(*losses)


def test_the_best_of_what_is_shown_answers(world3):
    task = world3.task("unimodal").double()
    task.kept_hits.copy_(torch.tensor([3, 30, 4]))
    task.kept_seen.copy_(torch.tensor([4, 60, 5]))  # 0.75, 0.5, 0.8
    nn.init.normal_(task.heads["words"].weight)  # what is being trained does not answer
    present = every_pattern(3)
    features = random_features(task, len(present))
    logits = task.fuse(features, present)
    for i, row in enumerate(present):
        shown = [m for m in ("words", "sensor", "picture") if row[task.modalities.index(m)]]
        if shown:
            torch.testing.assert_close(logits[i], task.kept_heads[shown[0]](features[shown[0]][i]))


@pytest.mark.parametrize(
    ("hits", "seen", "best"),
    [
        ([2, 4, 1], [4, 8, 3], [0, 0, 1]),  # equal ones: the first
        ([0, 0, 0], [0, 5, 9], [1, 1, 1]),  # one that was never validated, after one that was always wrong
        ([0, 0, 0], [0, 0, 0], [0, 0, 1]),  # no validation at all
    ],
)
def test_who_answers_where_accuracies_do_not_decide(world3, hits, seen, best):
    task = world3.task("unimodal")
    task.kept_hits.copy_(torch.tensor(hits))
    task.kept_seen.copy_(torch.tensor(seen))
    present = torch.tensor([[True, True, True], [True, True, False], [False, True, True]])
    assert task.best(present).tolist() == best


class Watch(pl.Callback):
    """Notes, after each validation, the trained models, the kept ones, and what was logged."""

    def __init__(self):
        self.trained, self.kept, self.logged = [], [], []

    def on_validation_end(self, trainer, task):
        parts = ((task.encoders, task.heads), (task.kept_encoders, task.kept_heads))
        for noted, (encoders, heads) in zip((self.trained, self.kept), parts, strict=True):
            noted.append({m: (weights(encoders[m]), weights(heads[m])) for m in task.modalities})
        self.logged.append({n: float(v) for n, v in trainer.callback_metrics.items() if n.startswith("validation")})


def judged(world, trained, split):
    """Modality -> whether its model is right about each sample of a split (N,), and its losses (N,)."""
    found, encoders = {}, world.encoders()
    batch = split.__getitems__(range(len(split)))
    for c, m in enumerate(world.data.modalities):
        encoder, head = encoders[m].eval(), nn.Linear(8, 3)
        encoder.load_state_dict(trained[m][0])
        head.load_state_dict(trained[m][1])
        rows = split.present[:, c].nonzero().squeeze(1)
        value = batch.inputs[m]
        own = {n: v[rows] for n, v in value.items()} if isinstance(value, dict) else value[rows]
        with torch.no_grad():
            losses = nn.functional.cross_entropy(head(encoder(own)), split.label[rows], reduction="none")
            right = head(encoder(own)).argmax(dim=1) == split.label[rows]
        found[m] = dict(zip(rows.tolist(), right.tolist(), strict=True)), losses
    return found


def equal(one, other):
    return all(same(a, b) for a, b in zip(one, other, strict=True))


@pytest.fixture(scope="module", params=[True, False])
def fitted(make_world, request):
    world = make_world("planted3")
    task, watch, chosen = (
        world.task("unimodal", recipe=RECIPE.model_copy(update={"patience": None})),
        Watch(),
        BestEpoch(),
    )
    task.validates_patterns = request.param
    run = trainer(EPOCHS, callbacks=[watch, chosen])
    run.fit(task, datamodule=world.data)
    return world, task, watch, chosen, run


def test_each_modality_is_kept_as_it_was_after_its_own_best_epoch(fitted):
    world, task, watch, _, _ = fitted
    split = world.data.splits.validation
    assert not split.present.all()
    best, epochs, means = {}, {}, []
    for epoch in range(EPOCHS):
        found = judged(world, watch.trained[epoch], split)
        for m, (right, losses) in found.items():
            accuracy = sum(right.values()) / len(right)
            if m not in best or accuracy > best[m][0]:
                best[m], epochs[m] = (accuracy, right, losses.mean().item()), epoch
            assert equal(watch.kept[epoch][m], watch.trained[epochs[m]][m])
        logged = watch.logged[epoch]
        assert logged["validation/accuracy"] == pytest.approx(sum(b[0] for b in best.values()) / 3)
        assert logged["validation/loss"] == pytest.approx(sum(b[2] for b in best.values()) / 3, rel=1e-4)
        means.append((logged["validation/accuracy"], epoch in epochs.values()))
        if task.validates_patterns:
            prior = int(torch.tensor(world.data.spec.class_counts).argmax())
            for shown in patterns(task.modalities)[:-1]:
                hits = 0
                for i in range(len(split)):
                    has = [m for m in shown if i in best[m][1]]
                    top = max(has, key=lambda m: best[m][0], default=None)
                    hits += best[top][1][i] if top else int(split.label[i]) == prior
                assert logged[f"validation/accuracy/{pattern_name(shown)}"] == pytest.approx(hits / len(split))
    assert len(set(epochs.values())) > 1, "all modalities were best in the same epoch, which proves little"
    for (before, _), (after, renewed) in pairwise(means):
        assert after > before if renewed else after >= before


def test_the_epoch_that_a_trial_chooses_has_all_of_them(fitted):
    world, task, watch, chosen, _ = fitted
    final = weights(task)
    again = world.task("unimodal", seed=5, recipe=RECIPE)
    chosen.restore(again)
    kept = [name for name in final if name.startswith("kept")]
    assert all(torch.equal(weights(again)[name], final[name]) for name in kept)
    assert watch.logged[-1]["validation/accuracy"] == pytest.approx(chosen.score)


def test_a_later_validation_tells_the_same_and_keeps_nothing(fitted):
    world, task, watch, _, _ = fitted
    before = weights(task)
    told = trainer(EPOCHS).validate(task, datamodule=world.data, verbose=False)[0]
    assert same(weights(task), before)
    for name, value in watch.logged[-1].items():
        assert told[name] == pytest.approx(value, rel=1e-5)
    other = trainer(EPOCHS).validate(task, world.data.test_dataloader(), verbose=False)[0]
    found = judged(world, watch.kept[-1], world.data.splits.test)
    accuracies = [sum(right.values()) / len(right) for right, _ in found.values()]
    assert other["validation/accuracy"] == pytest.approx(sum(accuracies) / 3)


def test_what_is_predicted_is_what_the_kept_models_say(fitted):
    world, task, watch, _, run = fitted
    split = world.data.splits.test
    log_probs = torch.cat(run.predict(task, world.data.test_dataloader()), dim=1)
    found = judged(world, watch.kept[-1], split)
    for c, m in enumerate(task.modalities):  # alone, they are the first patterns
        right, answers = found[m][0], log_probs[c].argmax(dim=1) == split.label
        assert {i: bool(answers[i]) for i in right} == right


def test_a_test_tells_how_many_answers_are_right(fitted):
    world, task, _, _, run = fitted
    told = trainer(EPOCHS).test(task, world.data.test_dataloader(), verbose=False)[0]
    log_probs = torch.cat(run.predict(task, world.data.test_dataloader()), dim=1)
    right = (log_probs.argmax(dim=2) == world.data.splits.test.label).double().mean(dim=1)
    for shown, accuracy in zip(patterns(task.modalities), right.tolist(), strict=True):
        name = "" if shown == task.modalities else f"/{pattern_name(shown)}"
        assert told[f"test/accuracy{name}"] == pytest.approx(accuracy)


def test_training_stops_when_no_model_has_been_renewed_for_as_long_as_patience_has(world3):
    watch = Watch()
    recipe = RECIPE.model_copy(update={"epochs": 30})
    task = world3.task("unimodal", recipe=recipe)
    run = trainer(30, callbacks=[watch])
    run.fit(task, datamodule=world3.data)
    stopped = next(c for c in run.callbacks if isinstance(c, Patience)).stopped_epoch
    renewed = [
        e
        for e in range(1, len(watch.kept))
        if any(not equal(watch.kept[e][m], watch.kept[e - 1][m]) for m in task.modalities)
    ]
    assert renewed[-1] + RECIPE.patience == stopped == len(watch.kept) - 1 < 29


def test_without_validation_the_last_weights_are_kept(world3):
    task = world3.task("unimodal")
    fit(task, world3.data.splits.train)
    assert same(weights(task.kept_encoders), weights(task.encoders))
    assert same(weights(task.kept_heads), weights(task.heads))
    assert not same(weights(task.kept_heads), weights(world3.task("unimodal").heads))


def test_a_look_at_validation_before_training_keeps_nothing(world3):
    task, kept = world3.task("unimodal"), []

    class First(pl.Callback):
        def on_sanity_check_end(self, trainer, pl_module):
            kept.append(pl_module.kept_seen.tolist())

    run = trainer(callbacks=[First()], limit_train_batches=1)
    run.num_sanity_val_steps = 1
    run.fit(task, datamodule=world3.data)
    assert kept == [[0, 0, 0]]
    assert task.kept_seen.min() > 0


def test_a_modality_that_no_validation_sample_has_keeps_its_last_weights(world3):
    split = world3.data.splits.validation
    present = split.present.clone()
    present[:, 2] = False
    task = world3.task("unimodal", recipe=RECIPE)
    watch, train = Watch(), gappy(world3.data.splits.train)
    trainer(EPOCHS, callbacks=[watch]).fit(task, loader(train), loader(replace(split, present=present)))
    assert task.kept_seen[2] == 0
    for trained, kept in zip(watch.trained, watch.kept, strict=True):
        assert equal(kept["words"], trained["words"])
    assert same(weights(task.kept_encoders["words"]), weights(task.encoders["words"]))
    accuracies = (task.kept_hits / task.kept_seen)[:2]
    assert watch.logged[-1]["validation/accuracy"] == pytest.approx(accuracies.mean().item())
    assert 2 not in task.best(torch.tensor([[True, False, True], [False, True, True]])).tolist()
