"""What a modality's arrays hold, found in one pass: numbers that are none, columns without variation, blank pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

import numpy as np
import torch
from torch import Tensor

from mmbench.data.preparing.auditing.material import Material, blocks, listed
from mmbench.data.preparing.auditing.perceptual import CONTRAST, Looks, blank, near_pairs, pictures_of

NARROW = 8  # numbers: shorter vectors may well be equal, or of one number, by chance
APART = 1000  # the ratio of the largest deviation of a column to the smallest from which standardising is advised


@dataclass
class Seen:
    """What was seen of a modality's N values. Absent ones are not looked at.

    Attributes:
        broken: samples with a NaN or an infinite value.
        even: samples whose vector is one number throughout, where it is not a short one.
        zero: of these, those in which it is 0.
        blank: samples whose picture is of one colour, or nearly so.
        faint: samples whose picture has too little contrast, made small, to be compared.
        pairs: (P, 2) samples whose pictures look alike.
        keys: (N,) hashes of the values, "" for those that are absent; none where they are compared by something else.
        columns: of feature vectors, over the training samples.
        width: of feature vectors, and of all that is no picture and has no file.
    """

    broken: list[int] = field(default_factory=list)
    even: list[int] = field(default_factory=list)
    zero: list[int] = field(default_factory=list)
    blank: list[int] = field(default_factory=list)
    faint: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    pairs: np.ndarray = field(default_factory=lambda: np.empty((0, 2), np.int64))
    keys: np.ndarray = field(default_factory=lambda: np.empty(0, object))
    columns: Columns | None = None
    width: int | None = None


@dataclass
class Columns:
    """Running sums of D columns: extremes, and mean and deviation around the first row, so that large means do no harm."""

    first: np.ndarray
    least: np.ndarray
    most: np.ndarray
    count: int = 0
    total: np.ndarray | float = 0.0
    squares: np.ndarray | float = 0.0

    @classmethod
    def of(cls, rows: np.ndarray, before: Columns | None) -> Columns:
        """The sums with these rows (n, D) of finite numbers, at least one, added to those before."""
        new = before or cls(rows[0].astype(np.float64), rows[0], rows[0])
        new.least, new.most = np.minimum(new.least, rows.min(axis=0)), np.maximum(new.most, rows.max(axis=0))
        apart = rows - new.first
        new.count += len(rows)
        new.total, new.squares = new.total + apart.sum(axis=0), new.squares + np.square(apart).sum(axis=0)
        return new

    @property
    def constant(self) -> np.ndarray:
        """The numbers of the columns without variation."""
        return np.flatnonzero(self.least == self.most)

    @property
    def deviation(self) -> np.ndarray:
        """The standard deviation of each column: (D,)."""
        return np.sqrt(np.maximum(self.squares / self.count - np.square(self.total / self.count), 0))


def look(material: Material, modality: str, train: np.ndarray) -> Seen:
    """Go through a modality's values once.

    Args:
        material: the samples.
        modality: one of ``material.values``.
        train: (N,) bool, the samples whose columns are summed up.
    """
    present, seen, looks, shown = material.present[modality], Seen(), list[Looks](), list[np.ndarray]()
    hashed = modality not in material.keys
    seen.keys = np.full(len(present) if hashed else 0, "", object)
    for every, block in blocks(material.values[modality]):
        kept = np.flatnonzero(present[every])
        rows, values = every[kept], block if len(kept) == len(every) else block[kept]
        if not len(rows):
            continue
        if (pictures := pictures_of(values)) is not None:
            looks.append(Looks.of(pictures))
            shown.append(rows)
            faint = np.flatnonzero(looks[-1].contrast < CONTRAST)
            seen.blank += rows[faint[blank(pictures[faint])]].tolist()
        if hashed:
            seen.keys[rows] = hashes(values)
            seen.width = None if pictures is not None else values[0].numel()
        if not values.is_floating_point():
            continue
        finite = finite_rows(values.flatten(1))
        seen.broken += rows[~finite].tolist()
        if values.dim() != 2:
            continue
        seen.width = values.shape[1]
        if seen.width >= NARROW:
            even = (values == values[:, :1]).all(dim=1).numpy()
            seen.even += rows[even].tolist()
            seen.zero += rows[even & (values[:, 0] == 0).numpy()].tolist()
        if (used := finite & train[rows]).any():
            seen.columns = Columns.of(values.numpy()[used], seen.columns)
    if looks:
        joined, rows = Looks.joined(looks), np.concatenate(shown)
        seen.faint, seen.pairs = rows[joined.contrast < CONTRAST], rows[near_pairs(joined)]
    return seen


def hashes(values: Tensor) -> list[str]:
    """The SHA-256 of each row (n, …)."""
    return [sha256(row.tobytes()).hexdigest() for row in values.contiguous().numpy()]


def finite_rows(rows: Tensor) -> np.ndarray:
    """Which rows (n, D) hold nothing but finite numbers: (n,) bool."""
    least, most = torch.aminmax(rows)  # NaN, if there is one
    if bool(least.isfinite() & most.isfinite()):
        return np.ones(len(rows), bool)
    return rows.isfinite().all(dim=1).numpy()


def told(material: Material, seen: Mapping[str, Seen]) -> tuple[list[str], list[str]]:
    """What there is to say of the values, by what ``look`` found of each modality: notes, and what no protocol can live with."""
    notes, broken = list[str](), list[str]()
    for modality, found in seen.items():
        if found.broken:
            broken.append(
                f"{modality} holds NaN or an infinite value in {material.some(found.broken)}; mend them, or leave it out there"
            )
        if found.even:
            number = "0" if len(found.zero) == len(found.even) else "one number"
            notes.append(
                f"{modality} is {number} throughout in {material.some(found.even)}; if that means absent, leave it out there"
            )
        if len(faint := np.setdiff1d(found.faint, found.blank)):
            notes.append(
                f"{modality} has too little contrast, made small, to be compared with others in {material.some(faint)}"
            )
        if found.blank:
            notes.append(f"{modality} shows one colour, or nearly so, in {material.some(found.blank)}")
        if found.columns:
            width = len(found.columns.first)
            names = material.columns.get(modality, [f"column {number}" for number in range(width)])
            notes += of_columns(modality, found.columns, names, modality in material.standardised)
    return notes, broken


def of_columns(modality: str, columns: Columns, names: Sequence[str], standardised: bool) -> list[str]:
    """What there is to say of a modality's columns, D names of which, counted from 0."""
    lines, constant = list[str](), columns.constant
    if len(constant):
        few = listed([names[number] for number in constant.tolist()])
        lines.append(
            f"{modality}: {len(constant)} of {len(names)} columns are constant over the training samples: {few}"
        )
    varied = np.setdiff1d(np.arange(len(names)), constant)
    if len(varied) > 1 and not standardised:
        deviation = columns.deviation[varied]
        small, large = (names[int(varied[place()])] for place in (deviation.argmin, deviation.argmax))
        if deviation.max() > APART * deviation.min():
            lines.append(
                f"{modality}: its columns differ in scale, from a standard deviation of {deviation.min():.2g} ({small}) to "
                f"{deviation.max():.2g} ({large}); standardise them"
            )
    return lines
