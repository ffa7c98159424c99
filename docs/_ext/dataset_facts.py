"""What is so of a data set, asked of its class: what is stored, splits with their counts and hashes, what an audit finds."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from mmbench.data import DATASETS
from mmbench.data.base import MultimodalDataModule
from mmbench.data.prepared import SPLITS, PreparedDataModule
from mmbench.data.preparing.audit import audit
from mmbench.data.preparing.splitting import split_hash

Kind = Literal["clean", "legacy"]
KINDS: Final[tuple[Kind, ...]] = ("clean", "legacy")
"""Of splits; ``peek`` has those of clean."""


def shipped() -> list[str]:
    """The data sets of mmbench itself: not those of other packages, nor what was added on this machine."""
    own = (name for name in DATASETS if DATASETS.target(name).startswith("mmbench.data.sets."))
    return sorted(name for name in own if name in DATASETS.registered or is_embedded(DATASETS[name]))


def is_embedded(data: type[MultimodalDataModule]) -> bool:
    """Whether the data come with the package."""
    if issubclass(data, PreparedDataModule):
        return getattr(data, "home", None) is not None
    return hasattr(data, "file")


def stored(data: type[MultimodalDataModule], modality: str) -> str:
    """The shape and the type of a sample of a modality; of several views all, the default first."""
    if modality in data.text_modalities:
        return "text"
    if modality in data.feature_dims:
        return f"({data.feature_dims[modality]},) float32"
    if issubclass(data, PreparedDataModule):
        fields = data.sources[modality].fields
        views = [f"{shape_of(shape)} {kind}" for shape, kind in fields.values()]
        return views[0] if len(views) == 1 else "; ".join(f"`{n}` {v}" for n, v in zip(fields, views, strict=True))
    shape, kind = data.input_shapes[modality]
    return f"{shape_of(shape)} {kind}"


def shape_of(shape: Sequence[int]) -> str:
    """A shape in few characters."""
    return " × ".join(map(str, shape)) if len(shape) > 1 else f"({shape[0]},)"


@dataclass(frozen=True)
class Cut:
    """How one protocol, or one of its folds, cuts the data.

    Attributes:
        counts: split -> (C,) samples of each class; only the splits that there are.
        groups: of the test split.
    """

    counts: dict[str, np.ndarray]
    groups: int

    def sizes(self) -> str:
        """The number of samples of each split."""
        return " / ".join(f"{counts.sum():,}" for counts in self.counts.values())

    def of_class(self, number: int) -> str:
        """The number of samples of a class in each split."""
        return " / ".join(str(counts[number]) for counts in self.counts.values())


@dataclass(frozen=True)
class Cuts:
    """All cuts of data that are there.

    Attributes:
        whole: kind -> the one split.
        folds: kind -> each fold.
        digests: what the lists are published by: "clean", or "clean, folds" -> SHA-256.
    """

    whole: Mapping[Kind, Cut]
    folds: Mapping[Kind, list[Cut]]
    digests: Mapping[str, str]


def cuts(data: type[MultimodalDataModule]) -> Cuts:
    """Read the data once a protocol, and cut them."""
    ids = {kind: data.split_ids(kind) for kind in KINDS}
    label, group = dict[str, int](), dict[str, int]()
    for kind in KINDS:
        loaded = data.textless(kind).load()
        for split, names in ids[kind].items():
            label |= zip(names, getattr(loaded, split).label.tolist(), strict=True)
            group |= zip(names, getattr(loaded, split).group.tolist(), strict=True)

    def of(splits: Mapping[str, Sequence[str]]) -> Cut:
        counted = {
            split: np.bincount([label[name] for name in names], minlength=len(data.classes))
            for split, names in splits.items()
            if len(names)
        }
        return Cut(counted, len({group[name] for name in splits["test"]}))

    digests: dict[str, str] = {kind: split_hash(ids[kind]) for kind in KINDS}
    folds: dict[Kind, list[Cut]] = {}
    if parts := data.parts():
        digests |= {f"{kind}, folds": parts.hash_of(kind) for kind in KINDS}
        for kind in KINDS:
            rows = [dict(zip(SPLITS, parts.rows(kind, fold), strict=True)) for fold in range(data.folds)]
            folds[kind] = [of({s: [parts.names[row] for row in own] for s, own in fold.items()}) for fold in rows]
    return Cuts({kind: of(ids[kind]) for kind in KINDS}, folds, digests)


def audited(data: type[MultimodalDataModule]) -> Iterator[str]:
    """What an audit says, a sentence a line, without the names of samples and what tables of the page have already."""
    found = audit(data)
    for kind, lines in found.violations.items():
        yield from (f"**`{kind}` is broken**: {line}" for line in lines)
    paired = sorted({line for line, _, _ in found.pairs}, key=len, reverse=True)
    for finding in found.findings:
        line = next((line for line in paired if finding.startswith(f"{line}: ")), finding)
        yield re.sub(r": \d+(, \d+)* and \d+ more$", "", line)  # numbers of groups tell a reader nothing
