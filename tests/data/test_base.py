import pytest
import torch
from torch import nn

from mmbench.batch import Batch
from mmbench.data.split import EVALUATION_BATCH, DataSpec
from mmbench.encoders.hashed_text import HashedText
from mmbench.errors import UsageError
from mmbench.missing import Missing
from mmbench.protocol import PROTOCOLS
from mmbench.testing import keeps_its_word
from planted import PREPARED, RECIPE, Planted3, batch_of, loader, make_world, trainer

TOKENIZERS = {"words": HashedText(buckets=64).tokenize}


def fresh(**arguments) -> Planted3:
    return Planted3(tokenizers=TOKENIZERS, **arguments)


# Splits and batches


@pytest.mark.parametrize("protocol", list(PROTOCOLS))
@pytest.mark.parametrize("name", ["planted2", "planted3", *PREPARED])
def test_what_every_data_set_holds(name, protocol):
    keeps_its_word(make_world(name, protocol), protocol)


def test_batches_are_rows_with_their_numbers():
    split = fresh().splits.train
    batch = split.__getitems__([5, 2])
    assert batch.index.tolist() == [5, 2]
    assert len(batch) == 2
    assert torch.equal(batch.label, split.label[[5, 2]])
    assert torch.equal(batch.present, split.present[[5, 2]])
    assert torch.equal(batch.inputs["sensor"], split.inputs["sensor"][[5, 2]])
    assert torch.equal(batch.inputs["words"]["word"], split.inputs["words"]["word"][[5, 2]])
    assert torch.equal(split[3].inputs["sensor"], split.inputs["sensor"][3:4])


def test_a_part_of_a_split_is_numbered_anew():
    split = fresh().splits.train
    part = split.rows(torch.tensor([7, 4, 9]).numpy())
    assert torch.equal(part.group, split.group[[7, 4, 9]])
    assert torch.equal(part.inputs["words"]["token"], split.inputs["words"]["token"][[7, 4, 9]])
    assert part[1].index.tolist() == [1]
    assert torch.equal(part[1].label, split.label[4:5])


def test_a_batch_moves_with_everything_in_it():
    batch = batch_of(fresh().splits.train, 2).to("meta")
    tensors = [batch.present, batch.label, batch.index, batch.inputs["sensor"], *batch.inputs["words"].values()]
    assert all(t.device.type == "meta" for t in tensors)


def test_loading_happens_once(monkeypatch):
    data = fresh()
    splits = data.splits
    monkeypatch.setattr(data, "load", lambda: pytest.fail("loaded again"))
    data.setup("fit")
    data.setup("test")
    assert data.splits is splits


def test_while_a_setting_is_tuned_there_is_no_test_split():
    data, plain = fresh(tuning=True), fresh()
    assert data.splits.test is None
    assert torch.equal(data.splits.validation.label, plain.splits.validation.label)
    assert torch.equal(data.splits.train.inputs["sensor"], plain.splits.train.inputs["sensor"])
    for loader_of_test in (data.test_dataloader, data.predict_dataloader):
        with pytest.raises(UsageError, match="no test split while a setting is tuned"):
            loader_of_test()


@pytest.mark.parametrize("protocol", [name for name, p in PROTOCOLS.items() if p.selection == "test"])
def test_tuning_by_the_test_split_is_refused(protocol):
    with pytest.raises(UsageError, match=f"tuning needs a validation split, but protocol '{protocol}'.* use clean"):
        fresh(protocol=protocol, tuning=True)


# Loaders


def order(data) -> list[list[int]]:
    """Two epochs of training batches from one loader."""
    training = data.train_dataloader()
    return [torch.cat([batch.index for batch in training]).tolist() for _ in range(2)]


def test_the_training_order_is_a_function_of_seed_and_epoch():
    torch.manual_seed(0)
    first = order(fresh(seed=3))
    torch.manual_seed(1)
    torch.rand(5)
    assert order(fresh(seed=3)) == first
    assert order(fresh(seed=4)) != first
    assert first[0] != first[1]
    assert sorted(first[0]) == sorted(first[1]) == list(range(40))


def test_the_splits_do_not_depend_on_the_seed():
    one, other = fresh(seed=0).splits.train, fresh(seed=1).splits.train
    assert torch.equal(one.inputs["sensor"], other.inputs["sensor"])
    assert torch.equal(one.present, other.present)


def test_sizes_of_batches():
    data = fresh(batch_size=16)
    assert [len(batch) for batch in data.train_dataloader()] == [16, 16, 8]
    for make in (data.val_dataloader, data.test_dataloader, data.predict_dataloader):
        assert make().batch_size == EVALUATION_BATCH
    assert [b.index.tolist() for b in data.test_dataloader()] == [list(range(len(data.splits.test)))]
    assert len(next(iter(data.val_dataloader()))) == len(data.splits.validation)


def test_augmentation_only_in_training(monkeypatch):
    """Each batch that the method meets, beside the same rows as they lie in the split."""
    data = fresh(batch_size=RECIPE.batch_size)
    monkeypatch.setattr(Planted3, "augmentations", {"sensor": lambda value: value + 1000})
    world = make_world("planted3")
    task = world.task("sum")
    met: list[tuple[str, Batch]] = []
    for step in ("training_step", "validation_step", "test_step", "predict_step"):
        original = getattr(task, step)
        monkeypatch.setattr(
            task,
            step,
            lambda batch, i, step=step, original=original: (met.append((step, batch)), original(batch, i))[1],
        )
    run = trainer()
    run.fit(task, datamodule=data)
    run.validate(task, datamodule=data, verbose=False)
    run.test(task, datamodule=data, verbose=False)
    run.predict(task, datamodule=data)
    splits = data.splits
    by_step = {
        "training_step": splits.train,
        "validation_step": splits.validation,
        "test_step": splits.test,
        "predict_step": splits.test,
    }
    assert {step for step, _ in met} == set(by_step)
    for step, batch in met:
        plain = by_step[step].__getitems__(batch.index)
        shift = 1000 if step == "training_step" else 0
        assert torch.equal(batch.inputs["sensor"], plain.inputs["sensor"] + shift), step
        assert torch.equal(batch.inputs["picture"], plain.inputs["picture"])


def test_augmentation_leaves_the_split_alone():
    world = make_world("openclipart")
    split = world.data.splits.train
    before = batch_of(split, 64)
    trainer(limit_train_batches=8, limit_val_batches=0).fit(world.task("sum"), datamodule=world.data)
    after = batch_of(split, 64)
    assert torch.equal(before.inputs["image"], after.inputs["image"])
    assert torch.equal(before.inputs["tags"]["token"], after.inputs["tags"]["token"])


@pytest.mark.parametrize(
    ("batch_size", "told"), [(40, ""), (41, "planted: batch_size is 41, but there are 40 training samples: ")]
)
def test_an_epoch_of_a_single_step_is_told(batch_size, told, capsys):
    fresh(batch_size=batch_size).setup()
    assert capsys.readouterr().out.startswith(told)
    fresh(batch_size=40).setup()
    assert capsys.readouterr().out == ""


# What is refused


def test_unknown_protocol():
    with pytest.raises(UsageError, match="unknown protocol 'claen': did you mean 'clean'"):
        fresh(protocol="claen")


def test_missing_tokenizer():
    with pytest.raises(UsageError, match=r"planted: no tokenizer for words; pass tokenizers="):
        Planted3()


def test_a_protocol_that_needs_a_split_that_is_not_there(monkeypatch):
    data = fresh()
    monkeypatch.setattr(data, "load", fresh(protocol="legacy").load)  # no validation split
    with pytest.raises(UsageError, match=r"planted: protocol 'clean' needs a validation split"):
        data.val_dataloader()


def test_the_planted_classes_can_be_learned(world3):
    """The helper itself: each modality alone tells the classes apart."""
    split = world3.data.splits.train
    encoders = world3.encoders()
    for column, (modality, encoder) in enumerate(encoders.items()):
        torch.manual_seed(0)
        net = nn.Sequential(encoder, nn.Linear(8, 3))
        optimizer = torch.optim.Adam(net.parameters(), lr=0.03)
        batch = next(iter(loader(split.rows(split.present[:, column].nonzero().squeeze(1).numpy()), 40)))
        for _ in range(60):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(batch.inputs[modality]), batch.label).backward()
            optimizer.step()
        hits = (net.eval()(batch.inputs[modality]).argmax(dim=1) == batch.label).float().mean()
        assert hits > 0.8, modality


def test_specification():
    spec = DataSpec(("a", "b"), (3, 4, 5), "a")
    assert (spec.num_classes, spec.num_train) == (3, 12)


# What is taken away


def presences(data):
    return {name: getattr(data.splits, name).present for name in ("train", "validation", "test")}


def test_training_and_selection_lose_what_the_mask_takes_and_the_test_split_nothing():
    whole, missing = presences(fresh()), Missing(rate=0.4)
    data = fresh(missing=missing)
    for name, present in presences(data).items():
        keep = torch.from_numpy(missing.mask("planted", name, data.modalities, len(present)))
        assert torch.equal(present, whole[name] & keep if name != "test" else whole[name])
    assert not torch.equal(presences(data)["train"], whole["train"])
    assert set(data.realised) == {"train", "validation"}
    assert data.realised["train"]["missing"] == pytest.approx(1 - presences(data)["train"].float().mean().item())


def test_masks_do_not_depend_on_the_training_seed():
    one, other = fresh(missing=Missing(rate=0.4), seed=0), fresh(missing=Missing(rate=0.4), seed=1)
    assert torch.equal(one.splits.train.present, other.splits.train.present)


def test_a_mask_of_training_alone_leaves_the_selection_split():
    missing = Missing(kind="per_modality", rates={"words": 0.9}, train_only=True)
    whole, data = presences(fresh()), fresh(missing=missing)
    assert torch.equal(presences(data)["validation"], whole["validation"])
    lost = whole["train"] & ~presences(data)["train"]
    assert lost[:, 2].any()
    assert not lost[:, :2].any()


def test_the_epoch_is_chosen_under_the_mask_also_where_it_is_chosen_on_the_test_split():
    data = fresh(protocol="legacy", missing=Missing(rate=0.4))
    keep = torch.from_numpy(Missing(rate=0.4).mask("planted", "test", data.modalities, len(data.splits.test)))
    assert torch.equal(data.selection_split.present, data.splits.test.present & keep)


def test_modality_dropout_draws_a_new_mask_every_time():
    data = fresh(missing=Missing(rate=0.5, train_only=True, redraw=True))
    natural = fresh().splits.train.present
    assert torch.equal(data.splits.train.present, natural)
    assert data.realised == {}, "no mask is the mask"
    seen = []

    class Stage:
        training = True

    data.trainer = Stage()
    for _ in range(2):
        batch = data.on_after_batch_transfer(batch_of(data.splits.train, 20), 0)
        assert (batch.present <= natural[:20]).all()
        seen.append(batch.present)
    assert not torch.equal(*seen)
    assert not torch.equal(seen[0], natural[:20])
    data.trainer.training = False
    assert torch.equal(data.on_after_batch_transfer(batch_of(data.splits.train, 20), 0).present, natural[:20])


def test_a_rate_that_the_data_set_cannot_realise_is_refused_before_loading():
    with pytest.raises(UsageError, match=r"at most 0\.667"):
        fresh(missing=Missing(rate=0.9))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_feature_that_is_no_number_is_named(value):
    data = fresh()
    loaded = data.load()
    rows = loaded.validation.present[:, 0].nonzero().squeeze(1)[1:3].tolist()
    loaded.validation.inputs["sensor"][rows, 2] = value
    data.load = lambda: loaded
    with pytest.raises(UsageError, match=rf"planted, validation split: sensor .* 2 samples, .* number {rows[0]}"):
        data.setup()


def test_where_a_modality_is_absent_anything_may_stand():
    data = fresh()
    loaded = data.load()
    loaded.train.inputs["sensor"][~loaded.train.present[:, 0]] = float("nan")
    data.load = lambda: loaded
    data.setup()
    assert not loaded.train.present[:, 0].all()
