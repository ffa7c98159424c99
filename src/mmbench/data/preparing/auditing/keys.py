"""What two samples are the same by: a file, a text, a vector, or all that they have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mmbench.data.base import MultimodalDataModule
from mmbench.data.preparing.auditing.material import Material
from mmbench.data.preparing.auditing.values import NARROW, Seen


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

    An equal vector may be that of an equal text, so it is no violation by itself; an equal sample is.
    """
    files, texts, vectors, narrow = list[Key](), list[Key](), list[Key](), list[Key]()
    for modality, there in material.present.items():
        looked = seen.get(modality, Seen())
        if modality not in material.keys and not len(looked.keys):
            continue  # of a kind that only its class knows
        values = np.where(there, material.keys.get(modality, looked.keys), "")
        if looked.width is not None:
            values[looked.even] = ""
            wide = vectors if looked.width >= NARROW else narrow
            wide.append(Key(modality, f"vector of {modality}", values, False))
        elif modality in material.texts:
            texts.append(Key(modality, f"text of {modality}", values, getattr(data, "distinct_texts", False)))
        else:
            files.append(Key(modality, f"file of {modality}", values, True))
    if vectors:
        everything = whole([k.values for k in files + vectors], [k.values for k in texts + narrow])
        vectors.append(Key("whole content", "whole content", everything, True))
    return files + texts + vectors


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
