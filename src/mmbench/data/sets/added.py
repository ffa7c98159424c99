"""Data sets that were added without code: classes that are made, when they are asked for, of what a manifest declares."""

from __future__ import annotations

import copyreg
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from mmbench.data.adding.declaration import ENCODERS, Declared, Modality
from mmbench.data.adding.decoding import source_of
from mmbench.data.adding.samples import read_samples, unlisted
from mmbench.data.augment import RandomResizedCrop, WordDropout
from mmbench.data.folds import balanced
from mmbench.data.prepared import PreparedDataModule
from mmbench.data.preparing.raw import Info, Listing, merge
from mmbench.data.split import Loaded, Mapped, Split
from mmbench.protocol import PROTOCOLS

if TYPE_CHECKING:
    import pandas as pd

PARTS = 10
"""Into how many parts that are alike the samples are cut, where there are enough groups: one for validation, two for testing."""
WIDTH = 64  # of the features of the encoders of all kinds but vectors
SCALE = (0.5, 1.0)  # of crops of pictures in training
STATED = {"picture": "pictures", "sound": "sound", "video": "videos", "features": "vectors", "numbers": "numbers"}


class Made(type):
    """The type of the classes that are made at run time; a process that gets one makes it anew."""


copyreg.pickle(Made, lambda made: (added_class, (made.declared, made.home)))  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Standard:
    """What vectors are standardised by.

    Attributes:
        mean: (D,) float64, of the training samples that have the modality.
        scale: (D,) float64, their standard deviation; 1 where they are all alike.
    """

    mean: Tensor
    scale: Tensor

    @classmethod
    def of(cls, train: Split, modality: str, column: int) -> Standard:
        """Of the training samples of a split; ``column`` is the modality's in ``present``."""
        seen = vectors_of(train, modality)[train.present[:, column]].double()
        if not len(seen):
            return cls(torch.zeros(seen.shape[1]).double(), torch.ones(seen.shape[1]).double())
        alike = seen.amax(dim=0) == seen.amin(dim=0)
        return cls(seen.mean(dim=0), torch.where(alike, 1.0, seen.std(dim=0, correction=0)))

    def __call__(self, vectors: Tensor) -> Tensor:
        """Vectors (B, D), standardised, float32."""
        return ((vectors.double() - self.mean) / self.scale).float()

    def applied(self, split: Split, modality: str, column: int) -> Split:
        """A split with the modality standardised, zero where it is absent."""
        vectors = self(vectors_of(split, modality)).masked_fill(~split.present[:, [column]], 0.0)
        return replace(split, inputs={**split.inputs, modality: vectors})


class AddedDataModule(PreparedDataModule, metaclass=Made):
    """A data set that ``mmbench data add`` made of a folder; ``added_class`` makes its class.

    ``clean`` takes the given split where no group is on two sides of it, without training and validation samples that are in the test
    part too; where none was given, about 70 % of the samples are for training, 10 % for validation and 20 % for testing, in every class
    as nearly as whole groups allow (where a class is in fewer than ten groups, one part each is for validation and for testing, of as
    many parts as it has groups). Folds are of whole groups too. ``legacy`` takes the given split, or a random one, 80 to 20 %. A group
    are the samples that the group's column says, and all that share a file or a vector (or, with ``distinct_texts``, a text).

    Inputs: pictures (B, 3, size, size) and frames of videos (B, frames, 3, size, size), uint8; filter banks of sound (B, T, 128)
    float16; texts as the encoder's tokenizer gives them; vectors (B, width) float32, zero where absent.
    """

    declared: ClassVar[Declared]
    home: ClassVar[Path | None] = None  # the prepared folder, if that is not below the folder of data
    version = 1

    @classmethod
    def declaration(cls) -> dict[str, Any]:
        """``dataset.yaml``, without what is left at its default."""
        return cls.declared.model_dump(mode="json", exclude_defaults=True)

    @classmethod
    def folder(cls) -> Path:
        """Where the prepared data lie."""
        return cls.home or super().folder()

    @classmethod
    def scan(cls, raw: Path) -> Listing:
        """Every row of the table is a sample."""
        listing = read_samples(cls.declared, raw)
        listing.unlisted = unlisted(cls.declared, raw, listing.samples)
        return listing

    @classmethod
    def write_demo(cls, raw: Path) -> None:
        """Write a tiny copy, by the declaration."""
        import_module("mmbench.data.demo.added").write(cls.declared, raw)

    @classmethod
    def given_split(cls) -> bool:
        """Whether the data came with a split."""
        return cls.declared.split is not None or cls.declared.several_tables

    @classmethod
    def clean(cls, samples: pd.DataFrame) -> Sequence[str]:
        """The given split, if it keeps groups together; else one of ours."""
        groups, labels = linked(cls, samples), samples["label"].tolist()
        split = np.full(len(samples), "train", object)
        if cls.given_split():
            if (samples.groupby("group")["legacy"].nunique() > 1).any():
                return [""] * len(samples)
            split = samples["legacy"].to_numpy(object)
            group = np.array(groups, object)
            for before, after in (("validation", "test"), ("train", "test"), ("train", "validation")):
                split[(split == before) & np.isin(group, group[split == after])] = ""
        else:
            count = parts_of(groups, labels, PARTS, 3)
            part = balanced(groups, labels, count, f"{cls.name} clean")
            split[(part == 1) | ((part == 3) & (count == PARTS))] = "test"
            split[part == 2] = "validation"
        if not (split == "validation").any():
            rest = np.flatnonzero(split == "train")
            left, of_left = [groups[i] for i in rest], [labels[i] for i in rest]
            part = balanced(left, of_left, parts_of(left, of_left, PARTS - 2, 2), f"{cls.name} validation")
            split[rest[part == 1]] = "validation"
        return split.tolist()

    @classmethod
    def part_of(cls, samples: pd.DataFrame) -> Sequence[int]:
        """Whole groups."""
        return balanced(
            linked(cls, samples), samples["label"].tolist(), cls.folds, f"{cls.declared.name} folds"
        ).tolist()

    @classmethod
    def lacks(cls, protocol: str) -> str | None:
        """Why there are no splits of a protocol."""
        why = super().lacks(protocol)
        if why and cls.given_split() and PROTOCOLS[protocol].disjoint:
            return f"{cls.declared.group} is on two sides of the given split; cut folds instead (folds: in dataset.yaml), or use legacy"
        return why

    def load(self) -> Loaded:
        """Cut the splits; vectors are read, and standardised by the training samples where that was asked for."""
        loaded = super().load()
        for column, modality in enumerate(self.modalities):
            if self.declared.modalities[modality].standardise:
                standard = Standard.of(loaded.train, modality, column)
                self.statistics[modality] = standard.mean.numpy(), standard.scale.numpy()
                parts = (loaded.train, loaded.validation, loaded.test)
                loaded = Loaded(*(split and standard.applied(split, modality, column) for split in parts))  # type: ignore[arg-type]
        return loaded


def added_class(declared: Declared, home: Path | None = None) -> type[AddedDataModule]:
    """The class of a data set that was added, as one written by hand would be.

    Args:
        declared: what ``dataset.yaml`` says, with the width of every modality of vectors.
        home: the prepared folder, if that is not ``<MMBENCH_DATA>/<name>``.
    """
    modalities = declared.modalities
    pictures = {
        m: {"scale": SCALE, "flip": 0.5 * one.flip} for m, one in modalities.items() if one.kind in ("picture", "video")
    }
    mixed = any(one.kind not in ("features", "numbers") for one in modalities.values())
    crops = {m: RandomResizedCrop(modalities[m].size, **options) for m, options in pictures.items()}  # type: ignore[arg-type]
    attributes: dict[str, Any] = {
        "__module__": __name__,
        "__doc__": AddedDataModule.__doc__,
        "declared": declared,
        "home": home,
        "name": declared.name,
        "modalities": tuple(modalities),
        "text_modalities": tuple(declared.of_kind("text")),
        "classes": tuple(declared.classes),
        "conditioning": declared.conditioning,
        "folds": declared.folds,
        "folded_by": declared.group or "sample, since no groups were given",
        "encoders": {name: encoder_of(modality, mixed) for name, modality in modalities.items()},
        "augmentations": {**crops, **{m: WordDropout(0.2) for m in declared.of_kind("text")}},
        "pictures": pictures,
        "sides": {m: modalities[m].size for m in pictures},
        "sources": {name: source for name, one in modalities.items() if (source := source_of(name, one))},
        "feature_dims": {m: modalities[m].width for m in declared.of_kind("features", "numbers")},
        "distinct_texts": declared.distinct_texts,
        "info": info_of(declared),
    }
    return Made(f"Added_{declared.name.replace('-', '_')}", (AddedDataModule,), attributes)  # type: ignore[return-value]


def parts_of(groups: Sequence[str], labels: Sequence[int], most: int, least: int) -> int:
    """Into how many parts whole groups can be dealt out so that each has every class, but those that are less than half the mean size.

    >>> parts_of(["a", "b", "c", "d", "e", "f"], [0, 0, 0, 1, 1, 1], 10, 2)
    3
    """
    of_class: dict[int, set[str]] = {}
    for group, label in zip(groups, labels, strict=True):
        of_class.setdefault(label, set()).add(group)
    sizes = Counter(labels)
    usual = [found for label, found in of_class.items() if 2 * sizes[label] * len(sizes) >= len(labels)]
    return max(least, min(most, *map(len, usual)))


def encoder_of(modality: Modality, mixed: bool) -> str | dict[str, Any]:
    """The encoder of a modality where an experiment names none.

    Args:
        modality: what it is.
        mixed: whether the data set has other kinds than vectors: features are then as wide as those of the encoders of these, which
            methods with one head for all need.
    """
    if modality.encoder is not None:
        return modality.encoder
    name = ENCODERS[modality.kind]
    if name != "mlp":
        return name
    return {"name": name, "in_dim": modality.width, "dropout": 0.5, **({"width": WIDTH} if mixed else {})}


def info_of(declared: Declared) -> Info:
    """What ``data info`` tells."""
    layout = [(path, f"a row a sample; label: {declared.label}") for path in declared.metadata]
    for name, modality in declared.modalities.items():
        place = modality.array or modality.file or modality.column or ", ".join(modality.columns or ())
        layout.append((f"  {name}", f"{modality.kind}, from {place}"))
    return Info(declared.name, "a folder of one's own, by mmbench data add", "not known here", layout, "not known here")


def linked(data: type[PreparedDataModule], samples: pd.DataFrame) -> list[str]:
    """Groups that share a file, a vector or (if these are distinct) a text as one, called by the least of their names."""
    keys = [samples[name] for name in samples if str(name).startswith("sha256_")]
    if data.distinct_texts:
        keys += [samples[f"text_{modality}"].map(data.text_key) for modality in data.text_modalities]
    joined = merge(samples["group"], *keys)
    return samples["group"].groupby(np.asarray(joined)).transform("min").tolist()


def vectors_of(split: Split, modality: str) -> Tensor:
    """The vectors (N, D) of a split, in memory."""
    value = split.inputs[modality]
    return value[torch.arange(len(value))] if isinstance(value, Mapped) else value  # type: ignore[return-value]
