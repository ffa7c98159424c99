"""How often the host waits for the device in a training step, counted on a simulated one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from mmbench.baselines import METHODS
from mmbench.batch import Batch, map_input
from mmbench.data.augment import RandomCropFlip, RandomResizedCrop, Resize, SpecAugment, WordDropout
from mmbench.missing import Missing
from mmbench.presence import on_host, placed, rows_of
from mmbench.testing.planted import Planted3, batch_of, planted_world, same
from simulated import CPU, DEVICE, LEARN_LAST, Simulated, fitted

# Method -> (waits, copies) of a step with a complete batch, and of one with gaps; of three modalities. A copy is one from the host, of
# row numbers or of what was drawn there, for which nobody waits. Of four methods, without an epoch's last step, in which they learn.
COUNTS = {
    "sum": ((0, 0), (0, 0)),
    "concat": ((0, 0), (0, 0)),
    "late_fusion": ((0, 0), (0, 0)),
    "unimodal": ((0, 0), (0, 0)),
    "film": ((0, 0), (0, 0)),
    "bigated": ((0, 0), (0, 0)),
    "ogm_ge": ((0, 0), (0, 0)),
    "qmf": ((0, 0), (0, 0)),
    "mla": ((0, 0), (0, 0)),
    "multi_loss": ((0, 0), (0, 0)),
    "agm": ((0, 0), (0, 0)),
    "arl": ((0, 0), (0, 0)),
    "g_blending": ((0, 3), (0, 3)),
    "dgl": ((0, 0), (0, 0)),
    "mmpareto": ((0, 0), (0, 0)),
    "pmr": ((0, 0), (0, 0)),
    "ae": ((0, 1), (0, 1)),
    "cra": ((0, 1), (0, 1)),
    "shaspec": ((0, 1), (0, 1)),
    "tate": ((0, 1), (0, 1)),
    "if_mmin": ((0, 1), (0, 1)),
    "dmrnet": ((0, 1), (0, 1)),
    "mmin": ((0, 3), (0, 3)),
    "masked_transformer": ((0, 0), (0, 0)),
    "umt": ((0, 0), (0, 0)),
    "reconboost": ((0, 0), (0, 0)),
    "imder": ((0, 5), (0, 5)),
    "pattern_prompts": ((0, 0), (0, 0)),
    "cca": ((0, 0), (0, 0)),
    "cpm_net": ((0, 0), (0, 0)),
    "lmf": ((0, 0), (0, 0)),
    "tfn": ((0, 0), (0, 0)),
    "simmlm": ((0, 1), (0, 1)),
    "dcca": ((10, 0), (10, 3)),  # factors of matrices, which torch looks at
    "dccae": ((10, 0), (10, 3)),
}


@pytest.fixture(autouse=True)
def memory_is_not_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.utils.deterministic.fill_uninitialized_memory", False)


def test_every_method_is_counted() -> None:
    assert set(COUNTS) == set(METHODS)


@pytest.mark.parametrize("complete", [True, False])
@pytest.mark.parametrize("method", sorted(COUNTS))
def test_steps_wait_for_nothing_and_compute_the_same(method: str, complete: bool) -> None:
    counts, trained = fitted(method, DEVICE, complete)
    epochs = 1 if method == "cca" else 2
    assert len(counts) == epochs * (2 if method in LEARN_LAST else 3)
    assert tuple(map(max, zip(*counts, strict=True))) == COUNTS[method][0 if complete else 1]
    for name, value in fitted(method, CPU, complete)[1].items():
        torch.testing.assert_close(trained[name], value, msg=lambda told, name=name: f"{name}: {told}")


def test_modality_dropout_is_drawn_on_the_host() -> None:
    missing = Missing(rate=0.4, train_only=True, redraw=True)
    counts, trained = fitted("qmf", DEVICE, missing=missing)
    assert set(counts) <= {(0, 1), (0, 2)}  # of the mask, and of row numbers
    assert same(trained, fitted("qmf", CPU, missing=missing)[1])


def test_three_modalities_as_mlas_release_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        METHODS["ogm_ge"].__init__, "__kwdefaults__", {**METHODS["ogm_ge"].__init__.__kwdefaults__, "three": "mla"}
    )
    assert set(fitted("ogm_ge", DEVICE)[0]) == {(0, 0)}


def test_a_batch_that_was_made_on_the_device_is_asked_once() -> None:
    world = planted_world(Planted3)
    batch = batch_of(world.data.splits.train, 8)
    task = world.build(METHODS["qmf"])
    expected = task.training_step(batch, 0)
    with Simulated() as simulated:
        task = world.build(METHODS["qmf"]).to(DEVICE)
        there = batch.to(DEVICE)
        bare = Batch(there.inputs, placed(batch.present, DEVICE) & True, there.label, there.index)
        simulated.waits.clear()
        loss = task.training_step(bare, 0)
        assert simulated.waits.total() == 1, simulated.waits
        assert loss.detach().cpu() == expected.detach()


def test_what_the_host_knows_of_a_mask_is_never_out_of_date() -> None:
    batch = batch_of(planted_world(Planted3).data.splits.train, 8)
    with Simulated() as simulated:
        there = batch.to(DEVICE)
        assert on_host(there.present) is batch.present
        assert simulated.waits.total() == 0
        other = replace(there, present=there.present & False)
        assert not on_host(other.present).any()
        assert [len(rows) for rows in rows_of(other.present)] == [0, 0, 0]
        there.present[2] = False
        assert not on_host(there.present)[2].any()
        assert all(2 not in rows.tolist() for rows in rows_of(there.present))
        assert torch.equal(there.to(CPU).present, there.present.cpu())
    assert batch.present[2].any()


@pytest.mark.parametrize(
    "transform",
    [RandomCropFlip(2), RandomResizedCrop(12), Resize(12), SpecAugment(5, 5), WordDropout(0.3)],
    ids=lambda transform: type(transform).__name__,
)
def test_nobody_waits_where_batches_are_augmented(transform: Callable[[Any], Any]) -> None:
    pictures = torch.randint(0, 256, (4, 3, 16, 20), dtype=torch.uint8)
    token = torch.randint(1, 9, (4, 6))
    raw: Any = {
        "SpecAugment": torch.randn(4, 16, 20),
        "WordDropout": {"token": token, "word": torch.arange(6).expand(4, 6)},
    }.get(type(transform).__name__, pictures)
    torch.manual_seed(0)
    with Simulated() as simulated:
        there = transform(map_input(raw, lambda t: t.to(DEVICE)))
        assert simulated.waits.total() == 0, simulated.waits
    torch.manual_seed(0)
    here = transform(raw)
    for one, other in [(there["token"], here["token"])] if isinstance(here, dict) else [(there, here)]:
        torch.testing.assert_close(one.values, other, rtol=0, atol=1)


@pytest.mark.parametrize(
    ("what", "waits", "copies"),
    [
        (lambda x, m: x[0, 0].item(), 1, 0),
        (lambda x, m: bool(m.all()), 1, 0),
        (lambda x, m: x.tolist(), 1, 0),
        (lambda x, m: x.cpu(), 1, 0),
        (lambda x, m: m.nonzero(), 1, 0),
        (lambda x, m: x[m], 1, 0),
        (lambda x, m: x.masked_select(m), 1, 0),
        (lambda x, m: x.unique(), 1, 0),
        (lambda x, m: torch.multinomial(x.abs(), 1), 1, 0),
        (lambda x, m: x.__setitem__(m, 0.0), 1, 0),
        (lambda x, m: x[:, [1]], 0, 1),
        (lambda x, m: x[torch.tensor([1])], 0, 1),
        (lambda x, m: torch.tensor([1.0], device=DEVICE), 0, 1),
        (lambda x, m: x + torch.where(m, x, 0.0).sum(), 0, 0),
        (lambda x, m: x[:, 1:2] * torch.ones(3, 1, device=DEVICE), 0, 0),
    ],
)
def test_the_device_counts(what: Callable[[Tensor, Tensor], Any], waits: int, copies: int) -> None:
    with Simulated() as simulated:
        x = torch.randn(3, 2).to(DEVICE)
        mask = x > 0
        simulated.copies.clear()
        what(x, mask)
        assert (simulated.waits.total(), simulated.copies.total()) == (waits, copies)
        with pytest.raises(AssertionError, match="on the host and on the device"):
            x + torch.ones(3, 2)
