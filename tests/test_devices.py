"""Trials on several devices, proved on processes of the CPU: one pair of them runs all methods in turn."""

from __future__ import annotations

import logging
import os
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.environments import LightningEnvironment
from pytorch_lightning.strategies import DDPStrategy
from torch import distributed as dist
from torch import nn

from mmbench.baselines import METHODS
from mmbench.batch import Batch
from mmbench.data.base import MultimodalDataModule
from mmbench.data.split import Loaded, Split
from mmbench.encoders.mlp import Mlp
from mmbench.encoders.small_cnn import SmallCNN
from mmbench.fixed import FixedFeatureTask
from mmbench.missing import Missing
from mmbench.ranks import OwnGenerator, joined, shares, synchronise
from mmbench.recipe import Recipe
from mmbench.task import MultimodalTask

RANKS = 2
SPLIT = [name for name in METHODS if METHODS[name].data_parallel]
FINE = ("dcca", "dccae")
"""Methods that divide by the roots of small eigenvalues: with 16 rows and single precision, rounding decides where training goes."""
WHOLE = [name for name in METHODS if not METHODS[name].data_parallel]


class Made(MultimodalDataModule):
    """Pictures, vectors with gaps that an encoder reads, and feature vectors; the last batch is a single row."""

    name = "made"
    modalities = ("picture", "sound", "vector")
    classes = ("a", "b", "c")
    conditioning = "sound"
    feature_dims = {"vector": 6}
    input_shapes = {"picture": ((3, 16, 16), "uint8"), "sound": ((9,), "float32")}
    size = 8 * 16 + 1

    @classmethod
    def manifest(cls) -> str:
        return "made"

    def load(self) -> Loaded:
        assert self.protocol.name == "clean"
        generator = torch.Generator().manual_seed(5)
        return Loaded(*(self.cut(size, start, generator) for size, start in ((self.size, 0), (37, 1000), (301, 2000))))

    def cut(self, size: int, start: int, generator: torch.Generator) -> Split:
        label = torch.arange(size) % 3
        present = torch.rand(size, 3, generator=generator) > 0.3
        present[torch.arange(size), torch.randint(3, (size,), generator=generator)] = True
        noise = torch.rand(size, 3, 16, 16, generator=generator) * 150
        inputs = {
            "picture": (noise + 50 * label.view(-1, 1, 1, 1)).to(torch.uint8),
            "sound": torch.randn(size, 9, generator=generator) + label[:, None],
            "vector": torch.randn(size, 6, generator=generator) + label[:, None],
        }
        return Split(dict(inputs), present, label, torch.arange(start, start + size))


class Lopsided(Made):
    """Sound is in the first half of the samples alone, so that a rank has none of it where batches are in order."""

    def cut(self, size: int, start: int, generator: torch.Generator) -> Split:
        split = super().cut(size, start, generator)
        split.present[:, 1] = torch.arange(size) % 16 < 4
        split.present[:, 0] = True
        return split

    def train_dataloader(self):
        return self.loader(self.splits.train, self.batch_size)


def build(name: str, data: MultimodalDataModule, epochs: int, dropout: float = 0.0, lr: float = 0.01) -> MultimodalTask:
    torch.manual_seed(0)
    encoders = {
        "picture": SmallCNN(width=4),
        "sound": Mlp(in_dim=9, width=16, dropout=dropout),
        "vector": Mlp(in_dim=6, width=16, dropout=dropout),
    }
    return METHODS[name](data.spec, encoders, Recipe(epochs=epochs, batch_size=16, lr=lr))


def run(name: str, ranks: int, kind=Made, epochs: int = 2, dropout: float = 0.0, lr: float = 0.01, **data_arguments):
    """Train and predict: weights, predictions, and what was logged last."""
    pl.seed_everything(1, verbose=False)
    data = kind(batch_size=16, seed=3, **data_arguments)
    data.setup()
    task = build(name, data, epochs, dropout, lr)
    pl.seed_everything(1, verbose=False)
    strategy = DDPStrategy(find_unused_parameters=True, forward_sync_buffers=False) if ranks > 1 else "auto"
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=ranks,
        strategy=strategy,
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        plugins=[LightningEnvironment()],
        precision="64-true" if name in FINE else "32-true",
    )
    trainer.fit(task, datamodule=data)
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    predicted = torch.cat(trainer.predict(task, datamodule=data), dim=1)
    return {name: value.clone() for name, value in task.state_dict().items()}, predicted, logged


def everything(rank: int, ranks: int) -> dict:
    """What one process finds out, for all methods in turn."""
    found: dict = {}
    for name in SPLIT:
        found[name, "alike"] = run(name, ranks)
    for name in SPLIT:
        found[name, "noisy"] = run(name, ranks, dropout=0.3, missing=Missing(rate=0.4, train_only=True, redraw=True))
    for name in ("sum", "mla", "mmpareto", "qmf", "dmrnet"):
        found[name, "lopsided"] = run(name, ranks, Lopsided)
    try:
        run("sum", ranks, lr=1000.0)
    except Exception as error:
        found["diverged"] = type(error).__name__
    try:
        run(WHOLE[0], ranks)
    except Exception as error:
        found["whole"] = f"{type(error).__name__}: {error}"
    if ranks > 1:
        split = Made().splits.train
        own = joined(split.__getitems__([5, 6, 7] if rank == 0 else [9]), {"vector"})
        found["joined"] = own.index, own.present, own.inputs["vector"], len(own.inputs["picture"]), own.shares
    return found


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """What one process found, and each of a pair."""
    folder = tmp_path_factory.mktemp("ranks")
    processes = []
    for place in range(RANKS + 1):  # the first is alone
        if not (process := os.fork()):
            code = 1
            try:
                torch.set_num_threads(1)
                warnings.simplefilter("ignore")
                logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
                if place:
                    os.environ["LOCAL_RANK"] = str(place - 1)
                    dist.init_process_group(
                        "gloo", init_method=f"file://{folder}/meeting", rank=place - 1, world_size=RANKS
                    )
                torch.save(everything(max(0, place - 1), RANKS if place else 1), folder / str(place))
                code = 0
            except BaseException:
                Path(folder / f"{place}.txt").write_text(traceback.format_exc())
            finally:
                os._exit(code)
        processes.append(process)
    codes = [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes]
    assert codes == [0] * len(processes), "".join(path.read_text() for path in sorted(folder.glob("*.txt")))
    return [torch.load(folder / str(place), weights_only=False) for place in range(RANKS + 1)]


def distance(one: dict, other: dict) -> float:
    """The relative difference of all weights together."""
    difference = sum(float((one[name].double() - other[name].double()).square().sum()) for name in one)
    return (difference / sum(float(value.double().square().sum()) for value in one.values())) ** 0.5


@pytest.mark.parametrize("name", SPLIT)
def test_two_devices_compute_what_one_does(found: list[dict], name: str) -> None:
    alone, first, _ = (result[name, "alike"] for result in found)
    assert distance(alone[0], first[0]) < 1e-5
    assert first[1].shape == (7, 301, 3)
    assert torch.allclose(alone[1].exp(), first[1].exp(), atol=1e-4)
    assert "train/loss" in alone[2]
    assert alone[2] == pytest.approx(first[2], abs=1e-4)


@pytest.mark.parametrize("what", ["alike", "noisy"])
@pytest.mark.parametrize("name", SPLIT)
def test_ranks_stay_the_same_to_the_bit(found: list[dict], name: str, what: str) -> None:
    _, first, second = (result[name, what] for result in found)
    assert all(torch.equal(first[0][key], second[0][key]) for key in first[0])
    assert torch.equal(first[1], second[1])
    assert first[2] == pytest.approx(second[2], abs=1e-6)  # where memory begins decides how a processor adds up


def test_dropout_of_encoders_differs_between_ranks_and_so_from_one_device(found: list[dict]) -> None:
    alone, first, _ = (result["sum", "noisy"] for result in found)
    assert distance(alone[0], first[0]) > 1e-4


@pytest.mark.parametrize("name", ["sum", "mla", "mmpareto", "qmf", "dmrnet"])
def test_a_rank_without_a_modality(found: list[dict], name: str) -> None:
    alone, first, second = (result[name, "lopsided"] for result in found)
    assert distance(alone[0], first[0]) < 1e-5
    assert all(torch.equal(first[0][key], second[0][key]) for key in first[0])


def test_ranks_diverge_together(found: list[dict]) -> None:
    assert [result.get("diverged") for result in found] == ["DivergedError"] * 3


def test_what_cannot_be_split_says_so(found: list[dict]) -> None:
    assert all(issubclass(METHODS[name], FixedFeatureTask) for name in WHOLE)
    assert "whole" not in found[0]
    for result in found[1:]:
        assert result["whole"].startswith("UsageError: Cca learns from the whole split in one process; use devices: 1")


def test_batches_of_a_loader_that_does_not_know_of_ranks_are_joined(found: list[dict]) -> None:
    split: Split = Made().splits.train
    for rank, result in enumerate(found[1:]):
        index, present, vector, pictures, parts = result["joined"]
        assert index.tolist() == [5, 6, 7, 9]
        assert torch.equal(present, split.present[index])
        assert torch.equal(vector, split.inputs["vector"][index])  # type: ignore[index]
        assert pictures == [3, 1][rank]
        assert parts == [slice(0, 3), slice(3, 4)]


def test_shares_are_all_rows_in_order() -> None:
    for size in range(12):
        for ranks in range(1, 5):
            parts = shares(size, ranks)
            rows = [row for part in parts for row in range(size)[part]]
            sizes = [part.stop - part.start for part in parts]
            assert rows == list(range(size))
            assert max(sizes) - min(sizes) <= 1


def test_a_share_has_the_rows_of_its_batch() -> None:
    split: Split = Made().splits.train
    rows = torch.tensor([8, 3, 5])
    batch: Batch = split.shared(rows, shares(3, 2), 1, {"vector"})
    assert torch.equal(batch.inputs["picture"], split.inputs["picture"][[5]])  # type: ignore[index, arg-type]
    assert torch.equal(batch.inputs["vector"], split.inputs["vector"][rows])  # type: ignore[index, arg-type]
    assert torch.equal(batch.label, split.label[rows])
    assert batch.to("cpu").shares == shares(3, 2)


def test_synchronised_normalisation_sums_in_single_precision(tmp_path: Path) -> None:
    def compare() -> None:
        rows = torch.randn(64, 4) * 0.3 + 10
        plain, synced = nn.BatchNorm1d(4), nn.Sequential(nn.BatchNorm1d(4))
        synchronise(synced, torch.device("cpu"))
        expected, found = plain(rows.bfloat16()), synced(rows.bfloat16())
        assert found.dtype == torch.bfloat16
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(synced[0].running_mean, plain.running_mean)
        torch.testing.assert_close(synced[0].running_var, plain.running_var)

    in_a_group(tmp_path, compare)


def test_augmentation_and_dropout_of_a_rank_draw_numbers_of_their_own(tmp_path: Path) -> None:
    def compare() -> None:
        torch.manual_seed(3)
        before, drawn = torch.get_rng_state(), []
        for own in (OwnGenerator("augmentation"), OwnGenerator("encoders")):
            for _ in range(2):  # goes on where it was
                with own.drawn_from(torch.device("cpu")):
                    drawn.append(float(torch.rand(())))
        assert len(set(drawn)) == 4
        assert torch.equal(torch.get_rng_state(), before)

    in_a_group(tmp_path, compare)


def in_a_group(folder: Path, work: Callable[[], None]) -> None:
    """Work in a process that is a group by itself."""
    if not (process := os.fork()):
        code = 1
        try:
            torch.set_num_threads(1)
            dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=0, world_size=1)
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
