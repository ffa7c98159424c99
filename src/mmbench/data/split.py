"""A data set cut into splits: samples held as tensors, of which any set of rows is a batch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset

from mmbench.batch import Batch, Input, map_input, select_rows
from mmbench.data.ahead import gathered_ahead
from mmbench.errors import UsageError, did_you_mean
from mmbench.ranks import shares

EVALUATION_BATCH = 256  # rows a step where nothing is kept for a backward pass


@dataclass(frozen=True)
class DataSpec:
    """What a method has to know of a data set.

    Attributes:
        modalities: names, in the order of ``Batch.present``'s columns.
        class_counts: training samples of each class; its length is the number of classes C.
        conditioning: the modality that conditions the others where a method is asymmetric (FiLM, BiGated).
        feature_dims: modality -> the width of its raw input, for those whose raw input is a feature vector.
    """

    modalities: tuple[str, ...]
    class_counts: tuple[int, ...]
    conditioning: str
    feature_dims: Mapping[str, int] = field(default_factory=dict)

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.class_counts)

    @property
    def num_train(self) -> int:
        """Samples of the training split."""
        return sum(self.class_counts)


def is_picture(dimensions: int, last: int, kind: np.dtype) -> bool:
    """Whether an array of samples holds pictures, by its number of dimensions, the last of them, and its type."""
    return kind == np.uint8 and dimensions > 3 and last == 3


class Mapped:
    """Rows of a memory-mapped array, read when they are asked for; the data set may be larger than the memory.

    Args:
        array: (N, …), as ``np.load(…, mmap_mode="r")`` gives it. Pictures are (N, …, H, W, 3) uint8, the order in which they are
            decoded, and in which they are cropped and resized fastest.
        rows: (n,) the rows that this object stands for.
        as_float: give the rows as float32, whatever their type on disk.
    """

    def __init__(self, array: np.ndarray, rows: np.ndarray, as_float: bool = False) -> None:
        self.array = array
        self.rows = rows
        self.as_float = as_float
        self.pictures = is_picture(array.ndim, array.shape[-1], array.dtype)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Tensor) -> Tensor:
        """Read rows: a tensor (B, …) of the array's type; pictures (B, …, 3, H, W), whatever their order on disk."""
        rows = torch.from_numpy(np.asarray(self.array[self.rows[index.numpy()]]))
        if self.as_float:
            rows = rows.float()
        return rows.movedim(-1, -3) if self.pictures else rows

    def select(self, index: Tensor) -> Mapped:
        """The same array, fewer rows; nothing is read."""
        return Mapped(self.array, self.rows[index.numpy()], self.as_float)


@dataclass
class Split(Dataset):
    """N samples, of which any set of rows is one indexing operation.

    Attributes:
        inputs: modality -> (N, …), as in ``Batch.inputs``, or rows on disk (``Mapped``) that become such when they are read.
        present: (N, M) bool.
        label: (N,) int64.
        group: (N,) int64; samples of one group (artist, actor, session) are not independent.
        attack: (N,) int64, where the task is to detect presentation attacks: 0 for a bona fide sample, k for an attack of type k.
    """

    inputs: dict[str, Input]
    present: Tensor
    label: Tensor
    group: Tensor
    attack: Tensor | None = None

    def __len__(self) -> int:
        return len(self.label)

    def __getitem__(self, row: int) -> Batch:
        return self.__getitems__([row])

    def __getitems__(self, rows: Sequence[int] | np.ndarray) -> Batch:
        """The batch of these rows (a DataLoader asks for whole batches through this method)."""
        index = torch.as_tensor(rows)
        return Batch(
            inputs={name: select_rows(value, index) for name, value in self.inputs.items()},
            present=self.present[index],
            label=self.label[index],
            index=index,
        )

    def shared(self, rows: Tensor, parts: Sequence[slice], rank: int, whole: Collection[str]) -> Batch:
        """The batch of these rows, of which one of several devices has its part; all inputs of the modalities in ``whole``."""
        own = rows[parts[rank]]
        inputs = {name: select_rows(value, rows if name in whole else own) for name, value in self.inputs.items()}
        batch = Batch(inputs, self.present[rows], self.label[rows], rows)
        batch.shares = parts
        return batch

    def rows(self, index: np.ndarray) -> Split:
        """The part of the samples with these numbers."""
        rows = torch.as_tensor(index)
        inputs = {name: map_input(value, lambda t: select(t, rows)) for name, value in self.inputs.items()}
        attack = None if self.attack is None else self.attack[rows]
        return Split(inputs, self.present[rows], self.label[rows], self.group[rows], attack)


def subset(name: str | None, declared: Sequence[str], asked: Sequence[str]) -> tuple[str, ...]:
    """The modalities that are asked of a data set, in its order.

    Args:
        name: the data set's.
        declared: its modalities.
        asked: the names of all, or of two at least.

    Raises:
        UsageError: a name is unknown or given twice, or there are too few.
    """
    for modality in asked:
        if modality not in declared:
            raise UsageError(f"{name}: unknown modality '{modality}'; {did_you_mean(modality, declared)}")
    if len(set(asked)) < len(asked):
        raise UsageError(f"{name}: modalities: expected different ones, got {', '.join(asked)}")
    kept = tuple(modality for modality in declared if modality in asked)
    if len(kept) < min(2, len(declared)):
        raise UsageError(f"{name}: expected at least two of {', '.join(declared)}, got {', '.join(kept) or 'none'}")
    return kept


def narrowed(split: Any, declared: Sequence[str], kept: Sequence[str]) -> Any:
    """A split without the inputs and the columns of modalities that are left out; what is no split stays, for the checks to refuse.

    Args:
        split: with all modalities, or already without those.
        declared: the modalities of the data set.
        kept: those of them that stay.
    """
    if not isinstance(split, Split) or not isinstance(split.inputs, dict) or not isinstance(split.present, Tensor):
        return split
    left_out, present = set(declared) - set(kept), split.present
    if present.dim() == 2 and present.shape[1] == len(declared):
        present = present[:, [declared.index(modality) for modality in kept]]
    inputs = {modality: value for modality, value in split.inputs.items() if modality not in left_out}
    return replace(split, inputs=inputs, present=present)


def select(values: Any, rows: Tensor) -> Any:
    """The given rows of a tensor; of rows on disk, without reading them."""
    return values[rows] if isinstance(values, Tensor) else values.select(rows)


class Batches(DataLoader):
    """A DataLoader of a split, whose way from an epoch's order to its batches is the shortest there is, where it has no workers."""

    ahead = False  # whether a thread gathers the next batch, in pinned memory, while a GPU works on this one

    def __iter__(self) -> Any:
        """Go through the batches, in an order that is drawn anew."""
        if self.num_workers or self.batch_sampler is None:
            return super().__iter__()
        return self.gathered(self.dataset.__getitems__, self.rows())  # type: ignore[attr-defined]

    def gathered(self, gather: Callable[[Any], Batch], rows: Iterable[Any]) -> Iterator[Batch]:
        """The batches of rows."""
        return gathered_ahead(gather, rows) if self.ahead else map(gather, rows)

    def rows(self) -> Any:
        """The rows of each batch, in an order that is drawn anew."""
        # DataLoader draws a seed for its workers, also where it has none; so what is drawn afterwards is the same.
        torch.empty((), dtype=torch.int64).random_(generator=self.generator)
        rows: Any = self.batch_sampler
        if type(rows) is BatchSampler and not rows.drop_last:
            rows = torch.tensor(list(rows.sampler)).split(rows.batch_size)
        return rows


class Shares:
    """The share that one of several devices has of a loader's batches. All go through the same batches in the same order.

    Args:
        batches: the loader; on every rank its order comes from the same seed.
        rank: of this device.
        ranks: how many there are.
        whole: modalities of whose inputs every rank gets all rows, since methods read them.
    """

    def __init__(self, batches: Batches, rank: int, ranks: int, whole: Collection[str]) -> None:
        self.batches, self.rank, self.ranks, self.whole = batches, rank, ranks, whole

    def __len__(self) -> int:
        return len(self.batches)

    @property
    def dataset(self) -> Split:
        """The split."""
        return self.batches.dataset  # type: ignore[return-value]

    @property
    def generator(self) -> Any:
        """Which draws the order."""
        return self.batches.generator

    def __iter__(self) -> Iterator[Batch]:
        """Go through the batches, in an order that is drawn anew."""
        yield from self.batches.gathered(
            self._share, self.batches.rows()
        )  # an order is drawn where batches are asked for

    def _share(self, rows: Any) -> Batch:
        return self.dataset.shared(torch.as_tensor(rows), shares(len(rows), self.ranks), self.rank, self.whole)


def as_is(batch: Any) -> Any:
    """A DataLoader's collate function where the data set already returns batches."""
    return batch


@dataclass(frozen=True)
class Loaded:
    """What ``MultimodalDataModule.load`` returns: the splits that the protocol names.

    Attributes:
        train: what is trained on.
        validation: where settings and epochs are chosen; None where the protocol has none.
        test: None once it is checked and let go of, while a setting is tuned.
    """

    train: Split
    validation: Split | None
    test: Split | None
