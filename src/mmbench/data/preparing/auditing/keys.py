"""What two samples are the same by: a file, a text, a vector, or all that they have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mmbench.data.base import MultimodalDataModule
from mmbench.data.preparing.auditing.material import Material
from mmbench.data.preparing.auditing.values import NARROW, Seen

SHORTEST = 3  # numbers: shorter vectors are never compared by themselves
DISTINCT = 0.95  # the share of short vectors that have to be different, so that equal ones are no chance


@dataclass(frozen=True)
class Key:
    """What N samples are compared by.

    Attributes:
        name: what two samples share: the modality.
        kind: what exactly, such as "text of title".
        values: (N,) equal for samples that are the same, "" for those that are not compared.
        promised: ``clean`` promises that no two splits share a value.
    """

    name: str
    kind: str
    values: np.ndarray
    promised: bool


def keys_of(data: type[MultimodalDataModule], material: Material, seen: Mapping[str, Seen]) -> list[Key]:
    """The keys of a data set's modalities; where there are vectors, also that of whole samples.

    An equal vector may be that of an equal text, so it is no violation by itself; an equal sample is, and what it is equal in is not
    told once more for each of its vectors. Vectors that are equal by chance are compared as a part of whole samples alone.
    """
    files, texts, vectors, chance = list[Key](), list[Key](), list[Key](), list[Key]()
    for modality, there in material.present.items():
        looked = seen.get(modality, Seen())
        if modality not in material.keys and not len(looked.keys):
            continue  # of a kind that only its class knows
        values = np.where(there, material.keys.get(modality, looked.keys), "")
        if looked.width is not None:
            values[looked.even] = ""
            telling = chance if by_chance(values, looked.width) else vectors
            telling.append(Key(modality, f"vector of {modality}", values, False))
        elif modality in material.texts:
            texts.append(Key(modality, f"text of {modality}", values, getattr(data, "distinct_texts", False)))
        else:
            values[looked.blank if modality not in material.keys else []] = ""
            kind = "file" if modality in material.keys else "picture"
            files.append(Key(modality, f"{kind} of {modality}", values, True))
    if vectors:
        everything = whole([k.values for k in files + vectors], [k.values for k in texts + chance])
        copies = copied(everything)
        for key in vectors:
            key.values[copies] = ""
        vectors.append(Key("whole content", "whole content", everything, True))
    return files + texts + vectors


def by_chance(values: np.ndarray, width: int) -> bool:
    """Whether vectors with these keys (N,) may well be equal by chance: short ones, of which many are."""
    given = values[values != ""].tolist()
    return width < SHORTEST or (width < NARROW and len(set(given)) < DISTINCT * len(given))


def copied(keys: np.ndarray) -> np.ndarray:
    """The numbers of the samples whose key (N,) an earlier sample has; "" is no key."""
    seen, found = set[object](), list[int]()
    for row, key in enumerate(keys.tolist()):
        if key != "" and key in seen:
            found.append(row)
        seen.add(key)
    return np.array(found, np.int64)


def whole(telling: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> np.ndarray:
    """The keys of whole samples: (N,) tuples; "" where a sample has less than two parts, or no telling one.

    Args:
        telling: keys (N,) of files and vectors.
        others: keys (N,) of what may be equal by chance.
    """
    rows = list(zip(*telling, *others, strict=True))
    keys = np.empty(len(rows), object)
    keys[:] = [row if any(row[: len(telling)]) and sum(map(bool, row)) > 1 else "" for row in rows]
    return keys


def different(seen: Mapping[str, Seen], keys: Sequence[Key]) -> dict[str, np.ndarray]:
    """Modality -> the pairs (P, 2) of samples whose pictures look alike and are not the same, which is told elsewhere."""
    found = {}
    for key in keys:
        if key.name in seen and len(pairs := seen[key.name].pairs):
            one, other = key.values[pairs].T
            found[key.name] = pairs[(one != other) | (one == "")]
    return found
