"""Made-up data in which the answer is planted, and what it takes to try a method on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mmbench.batch import Batch, Input, map_input
from mmbench.data.augment import WordDropout
from mmbench.data.base import MultimodalDataModule
from mmbench.data.split import Loaded, Split, as_is
from mmbench.encoders.hashed_text import HashedText
from mmbench.encoders.small_cnn import SmallCNN
from mmbench.recipe import Recipe
from mmbench.task import MultimodalTask

CLASS_SIZES = (18, 14, 8)  # of the training split
RECIPE = Recipe(epochs=2, batch_size=8, lr=0.05)  # an epoch for each stage of a method that has two


class VectorEncoder(nn.Sequential):
    """One hidden layer on 6 numbers."""

    def __init__(self, out_dim: int = 8) -> None:
        super().__init__(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, out_dim))
        self.out_dim = out_dim


class Planted(MultimodalDataModule):
    """Three classes that show in six numbers, in the brightness of a grey picture and in a word."""

    name = "planted"
    classes = ("low", "middle", "high")
    modalities: ClassVar[tuple[str, ...]] = ("sensor", "picture", "words")

    def load(self) -> Loaded:
        """40 samples to train on; groups are pairs of samples."""
        generator = torch.Generator().manual_seed(0)
        train = self.draw(CLASS_SIZES, generator)
        validation = self.draw((6, 5, 5), generator, 20) if self.protocol.split == "clean" else None
        return Loaded(train, validation, self.draw((6, 6, 5), generator, 28))

    def draw(self, sizes: tuple[int, ...], generator: torch.Generator, first_group: int = 0) -> Split:
        """Samples of each class, so many of each, shuffled."""
        label = torch.repeat_interleave(torch.arange(3), torch.tensor(sizes))
        label = label[torch.randperm(len(label), generator=generator)]
        size = len(label)
        sensor = torch.randn(size, 6, generator=generator) + 2 * nn.functional.one_hot(label, 6)
        noise = torch.randint(0, 80, (size, 1, 16, 16), generator=generator)
        inputs: dict[str, Any] = {
            "sensor": sensor,
            "picture": (noise + 80 * label[:, None, None, None]).to(torch.uint8),
        }
        if self.text_modalities:
            other = torch.randint(0, 50, (size,), generator=generator).tolist()
            inputs["words"] = self.tokenizers["words"](
                [f"{self.classes[y]} w{n}" for y, n in zip(label.tolist(), other, strict=True)]
            )
        present = torch.rand(size, len(self.modalities), generator=generator) > 0.3
        present[~present.any(dim=1), 0] = True
        return Split(inputs, present, label, first_group + torch.arange(size) // 2)


class Planted3(Planted):
    """All three modalities."""

    text_modalities = ("words",)
    conditioning = "words"
    augmentations = {"words": WordDropout(0.3)}


class Planted2(Planted):
    """Without the words."""

    modalities = ("sensor", "picture")
    conditioning = "sensor"


def planted_encoders(names: tuple[str, ...]) -> dict[str, nn.Module]:
    """Small encoders of these modalities, with fresh weights."""
    makers: dict[str, Callable[[], nn.Module]] = {
        "sensor": VectorEncoder,
        "picture": lambda: SmallCNN(in_channels=1, width=2),
        "words": lambda: HashedText(buckets=64, embedding_dim=5, out_dim=8),
    }
    return {name: makers[name]() for name in names}


@dataclass
class World:
    """A data set and the encoders that fit it."""

    data: MultimodalDataModule
    encoders: Callable[[], dict[str, nn.Module]]

    def build(
        self, method: type[MultimodalTask], seed: int = 0, recipe: Recipe = RECIPE, **arguments: Any
    ) -> MultimodalTask:
        """A method with fresh weights, which the seed decides."""
        torch.manual_seed(seed)
        return method(self.data.spec, self.encoders(), recipe, **arguments)

    @property
    def test(self) -> Split:
        """The test samples."""
        assert self.data.splits.test is not None, "it is let go of only while a setting is tuned"
        return self.data.splits.test

    @property
    def complete(self) -> Split:
        """The training samples that have every modality."""
        train = self.data.splits.train
        return train.rows(train.present.all(dim=1).nonzero().squeeze(1).numpy())


def set_up(
    data_class: type[MultimodalDataModule], encoders: Callable[[], dict[str, nn.Module]], protocol: str = "clean"
) -> World:
    """Load a data set for its encoders."""
    tokenizers = {m: e.tokenize for m, e in encoders().items() if m in data_class.text_modalities}
    data = data_class(protocol, batch_size=RECIPE.batch_size, tokenizers=tokenizers)  # type: ignore[arg-type]
    data.setup()
    return World(data, encoders)


def planted_world(data_class: type[Planted], protocol: str = "clean") -> World:
    """``Planted2`` or ``Planted3`` with its encoders."""
    return set_up(data_class, lambda: planted_encoders(data_class.modalities), protocol)


def batch_of(split: Split, size: int, **changes: Any) -> Batch:
    """The first samples of a split, with some fields changed."""
    return replace(split.__getitems__(range(size)), **changes)


def loader(split: Split, batch_size: int = RECIPE.batch_size) -> DataLoader:
    """A split in order, not augmented."""
    return DataLoader(split, batch_size, collate_fn=as_is)


def trainer(epochs: int = RECIPE.epochs, **arguments: Any) -> pl.Trainer:
    """A silent trainer that writes nothing, of as many epochs as the recipe has."""
    return pl.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        deterministic=True,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=0,
        **arguments,
    )


def stages(task: MultimodalTask) -> int:
    """How many stages a method trains in; with the recipe of these tests, each is an epoch."""
    return 2 if task.pretraining_epochs else 1


class StopAfter(pl.Callback):
    """Ends training after so many epochs, as early stopping does."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End, once there were as many."""
        trainer.should_stop |= trainer.current_epoch + 1 >= self.epochs


def fit(
    task: MultimodalTask,
    split: Split,
    epochs: int | None = None,
    batches: int = 3,
    ckpt_path: Path | None = None,
    callbacks: Sequence[pl.Callback] = (),
    **arguments: Any,
) -> pl.Trainer:
    """Fit on the first batches of a split in order, without validation, and stop early: by default after an epoch a stage."""
    torch.manual_seed(0)
    stop = StopAfter(epochs or stages(task))
    assert stop.epochs <= task.recipe.epochs
    run = trainer(
        task.recipe.epochs, limit_train_batches=batches, limit_val_batches=0, callbacks=[*callbacks, stop], **arguments
    )
    # The loader for validation is never read; without one Lightning warns.
    run.fit(task, loader(split), loader(split), ckpt_path=ckpt_path, weights_only=True if ckpt_path else None)
    return run


def weights(module: nn.Module) -> dict[str, Tensor]:
    """A copy of all parameters and buffers."""
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether two copies of weights are equal, bit by bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def noisy_rows(value: Input, absent: Tensor, generator: torch.Generator) -> Input:
    """The rows of absent samples filled with noise of the input's kind; token ids far outside any table."""

    def fill(tensor: Tensor) -> Tensor:
        if tensor.is_floating_point():
            noise = 1e6 * torch.randn(tensor.shape, generator=generator)
        else:
            top = 256 if tensor.dtype == torch.uint8 else 2**30
            noise = torch.randint(0, top, tensor.shape, generator=generator)
        return torch.where(absent.view(-1, *[1] * (tensor.dim() - 1)), noise.to(tensor.dtype), tensor)

    return map_input(value, fill)


def gappy(split: Split) -> Split:
    """The split; of one that is complete, every third sample without one of the modalities, in turn."""
    if not split.present.all():
        return split
    present = split.present.clone()
    rows = torch.arange(0, len(split), 3)
    present[rows, torch.arange(len(rows)) % present.shape[1]] = False
    return replace(split, present=present)


def noisy_features(features: dict[str, Tensor], present: Tensor, seed: int = 1) -> dict[str, Tensor]:
    """The features, with noise in the rows of absent samples."""
    generator = torch.Generator().manual_seed(seed)
    return {
        m: torch.where(present[:, [column]], f, 1e4 * torch.randn(f.shape, generator=generator, dtype=f.dtype))
        for column, (m, f) in enumerate(features.items())
    }


def every_pattern(modalities: int) -> Tensor:
    """All 2^M presence rows, the empty one among them."""
    rows = [
        [m in chosen for m in range(modalities)]
        for n in range(modalities + 1)
        for chosen in combinations(range(modalities), n)
    ]
    return torch.tensor(rows)
