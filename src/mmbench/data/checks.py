"""Whether a data module keeps its word: what its class declares, what its splits hold, and that no sample is in two of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmbench.data.split import Loaded, Mapped, Split
from mmbench.errors import UsageError, did_you_mean
from mmbench.missing import MOST_MODALITIES
from mmbench.protocol import Protocol

MANY_MODALITIES = 10  # from here on, fusing every pattern is what testing costs
MOST_CLASSES = torch.iinfo(torch.int16).max  # predictions are stored as int16
COPIED = 0.5  # the share of a split's samples that may be equal to samples of another one


@dataclass(frozen=True)
class Declaration:
    """What the class of a data set declares; None where it declares nothing. ``MultimodalDataModule`` describes the attributes."""

    name: Any
    modalities: Any
    text_modalities: Any
    classes: Any
    conditioning: Any
    feature_dims: Any


def check_declaration(declared: Declaration) -> None:
    """Refuse declarations that no split could keep; print a line where there are many modalities.

    Raises:
        UsageError: a name is missing, given twice or unknown, or there are more modalities or classes than results can hold.
    """
    name, modalities = declared.name, declared.modalities
    _check_names(f"{name}.modalities", modalities, least=1, most=MOST_MODALITIES)
    _check_names(f"{name}.text_modalities", declared.text_modalities, least=0, most=MOST_MODALITIES)
    _check_names(f"{name}.classes", declared.classes, least=2, most=MOST_CLASSES)
    if joined := [m for m in modalities if "+" in m]:
        raise UsageError(f"{name}.modalities: '{joined[0]}' contains '+', which joins the names of patterns; rename it")
    used = {"conditioning": [declared.conditioning], "text_modalities": declared.text_modalities}
    for attribute, names in {**used, "feature_dims": declared.feature_dims}.items():
        for one in names:
            if one not in modalities:
                raise UsageError(f"{name}.{attribute}: unknown modality '{one}'; {did_you_mean(one, modalities)}")
    if len(modalities) >= MANY_MODALITIES:
        patterns = 2 ** len(modalities) - 1
        print(f"{name}: {len(modalities)} modalities; testing fuses each batch under {patterns} patterns", flush=True)


def _check_names(where: str, names: Any, least: int, most: int) -> None:
    if isinstance(names, str) or not isinstance(names, Sequence) or not all(isinstance(n, str) and n for n in names):
        hint = f"; for one name write ({names!r},), with a comma" if isinstance(names, str) else ""
        raise UsageError(f"{where}: expected a tuple of names, got {names!r}{hint}")
    if twice := [n for n, count in Counter(names).items() if count > 1]:
        raise UsageError(f"{where}: '{twice[0]}' is given twice, expected different names")
    if not least <= len(names) <= most:
        raise UsageError(f"{where}: expected {least} to {most} names, got {len(names)}")


def checked(declared: Declaration, protocol: Protocol, loaded: Loaded) -> Loaded:
    """The splits that ``load`` returned, held to what the data set declares. Rows on disk are not read for it.

    Integral labels, groups and attacks become int64. Features become float32, with a printed line: what is floating-point in memory,
    and integers in a modality of ``feature_dims``.

    Args:
        declared: what the class says.
        protocol: it decides which splits there have to be, and whether groups may be in two of them.
        loaded: the splits.

    Returns:
        The splits; those tensors that are as they should be are the same objects.

    Raises:
        UsageError: it names data set, split, modality and sample, what was got, what was expected and what to do.
    """
    if not isinstance(loaded, Loaded):
        raise UsageError(f"{declared.name}: load() returned {_kind(loaded)}, expected a Loaded of three splits")
    if getattr(loaded, protocol.selection) is None:
        raise UsageError(
            f"{declared.name}: protocol '{protocol.name}' needs a {protocol.selection} split, on which the best epoch is chosen"
        )
    given = {name: s for name in ("train", "validation", "test") if (s := getattr(loaded, name)) is not None}
    notes: list[str] = []
    splits = {name: _checked_split(declared, name, split, notes) for name, split in given.items()}
    if train_and_test := {"train", "test"} - splits.keys():
        raise UsageError(f"{declared.name}: load() gave no {' and no '.join(sorted(train_and_test))} split")
    _check_alike(declared, splits)
    for pair in combinations(splits, 2):
        _check_apart(declared, protocol, pair, [given[name] for name in pair], [splits[name] for name in pair], notes)
    counts = torch.bincount(splits["train"].label, minlength=len(declared.classes)).tolist()
    if gone := [name for name, count in zip(declared.classes, counts, strict=True) if not count]:
        notes.append(f"the train split has no sample of {', '.join(gone)}")
    for column, modality in enumerate(declared.modalities):
        if not splits["train"].present[:, column].any():
            notes.append(f"no sample of the train split has {modality}")
    for note in dict.fromkeys(notes):
        print(f"{declared.name}: {note}", flush=True)
    return Loaded(splits["train"], splits.get("validation"), splits["test"])


def _checked_split(declared: Declaration, name: str, split: Any, notes: list[str]) -> Split:
    """One split, with its types put right."""
    where = f"{declared.name}, {name} split"
    if not isinstance(split, Split):
        raise UsageError(f"{where}: expected a Split, got {_kind(split)}")
    label = _numbers(f"{where}: label", split.label, None, declared.classes)
    rows = len(label)
    if not rows:
        raise UsageError(f"{where}: it is empty; expected at least one sample")
    group = _numbers(f"{where}: group", split.group, rows, None)
    attack = None if split.attack is None else _numbers(f"{where}: attack", split.attack, rows, range(MOST_CLASSES + 1))
    present = _tensor(f"{where}: present", split.present)
    if present.dtype != torch.bool or present.shape != (rows, len(declared.modalities)):
        raise UsageError(
            f"{where}: present is {_kind(present)}, expected bool of shape {(rows, len(declared.modalities))}: a row a sample, a "
            f"column a modality ({', '.join(declared.modalities)}), True where the sample has it"
        )
    if not isinstance(split.inputs, dict) or set(split.inputs) != set(declared.modalities):
        got = ", ".join(map(str, split.inputs)) if isinstance(split.inputs, dict) else _kind(split.inputs)
        raise UsageError(f"{where}: the inputs are {got or 'none'}, expected {', '.join(declared.modalities)}")
    inputs: dict[str, Any] = {}
    for column, m in enumerate(declared.modalities):
        inputs[m] = _checked_input(where, m, split.inputs[m], present[:, column], declared.feature_dims.get(m), notes)
    return replace(split, inputs=inputs, present=present, label=label, group=group, attack=attack)


def _numbers(where: str, value: Any, rows: int | None, allowed: Sequence[Any] | None) -> Tensor:
    """Integers (N,) of any type as int64; ``allowed`` has one item for each number that there may be, from 0 on."""
    tensor = _tensor(where, value)
    if tensor.dtype == torch.bool or tensor.is_floating_point() or tensor.is_complex():
        raise UsageError(
            f"{where} is {_kind(tensor)}, expected integers (int64); make sure that the values are whole, and call .long()"
        )
    if tensor.dim() != 1 or (rows is not None and len(tensor) != rows):
        shape = f"({'N' if rows is None else rows},)"
        raise UsageError(f"{where} has the shape {tuple(tensor.shape)}, expected {shape}: one number a sample")
    tensor = tensor.long()
    if allowed is not None and len(tensor):
        wrong = ((tensor < 0) | (tensor >= len(allowed))).nonzero().flatten().tolist()
        if wrong:
            raise UsageError(
                f"{where} of sample {wrong[0]} is {int(tensor[wrong[0]])}, expected 0 to {len(allowed) - 1} ({len(wrong)} samples of "
                f"{len(tensor)} are out of this range); number from 0, in the order in which the class declares them"
            )
    return tensor


def _checked_input(where: str, modality: str, value: Any, present: Tensor, width: int | None, notes: list[str]) -> Any:
    """What a split holds of one modality: a tensor, tensors by name, or rows on disk."""
    rows = len(present)
    if isinstance(value, dict) and value and width is None:
        named = {key: _tensor(f"{where}: {modality}, '{key}'", tensor) for key, tensor in value.items()}
        return {
            key: _checked_values(f"{where}: {modality}, '{key}'", modality, tensor, present, None, notes)
            for key, tensor in named.items()
        }
    if isinstance(value, Mapped):
        if len(value) != rows or (width is not None and value.array.shape[1:] != (width,)):
            expected = "any size" if width is None else f"the shape {(width,)}, as feature_dims says"
            raise UsageError(
                f"{where}: {modality} has {len(value)} rows on disk of the shape {value.array.shape[1:]}, expected {rows} of {expected}"
            )
        kind = str(value.array.dtype)
        if kind == "float64" or (width is not None and kind != "float32"):
            notes.append(f"{modality}: {kind} features become float32")
            return Mapped(value.array, value.rows, as_float=True)
        return value
    return _checked_values(
        f"{where}: {modality}", modality, _tensor(f"{where}: {modality}", value), present, width, notes
    )


def _checked_values(
    where: str, modality: str, values: Tensor, present: Tensor, width: int | None, notes: list[str]
) -> Tensor:
    """A tensor (N, …) that is finite where the modality is present, in float32 where it holds features."""
    rows = len(present)
    if not values.dim() or len(values) != rows or (width is not None and values.shape != (rows, width)):
        expected = f"({rows}, …), a row a sample" if width is None else f"({rows}, {width}), as feature_dims says"
        raise UsageError(f"{where} has the shape {tuple(values.shape)}, expected {expected}")
    if values.is_complex():
        raise UsageError(f"{where} is {_kind(values)}, expected real numbers; give real and imaginary part by name")
    if values.dtype != torch.float32 and (values.is_floating_point() or width is not None):
        notes.append(f"{modality}: {_type(values)} features become float32")
        values = values.float()
    if values.is_floating_point() and not bool(values.sum().isfinite()):
        finite = values.flatten(1).isfinite().all(dim=1) if values.dim() > 1 else values.isfinite()
        if wrong := (~finite & present).nonzero().flatten().tolist():
            raise UsageError(
                f"{where} is not a finite number in {len(wrong)} samples, the first of them number {wrong[0]}; mark it as absent there "
                "(present = False), or mend the data"
            )
    return values


def _check_alike(declared: Declaration, splits: Mapping[str, Split]) -> None:
    """Refuse splits of which a method could not tell that they hold the same kind of thing."""
    first, *others = splits
    for modality in declared.modalities:
        expected = _layout(splits[first].inputs[modality])
        for other in others:
            if (got := _layout(splits[other].inputs[modality])) != expected:
                raise UsageError(
                    f"{declared.name}: {modality} is {got} in the {other} split, but {expected} in the {first} split; expected the same"
                )
    if len({split.attack is None for split in splits.values()}) > 1:
        raise UsageError(f"{declared.name}: attack is given for some of the splits, expected for all or for none")


def _layout(value: Any) -> str:
    """Type and number of dimensions of an input, in words."""
    if isinstance(value, dict):
        return ", ".join(f"'{name}' {_layout(value[name])}" for name in sorted(value))
    return f"{_type(value)} of {value.dim()} dimensions" if isinstance(value, Tensor) else "rows on disk"


def _check_apart(
    declared: Declaration,
    protocol: Protocol,
    names: tuple[str, str],
    given: Sequence[Split],
    splits: Sequence[Split],
    notes: list[str],
) -> None:
    """Refuse two splits that share a sample or, where the protocol promises that none does, a group.

    A sample is shared where an input that is present is the same row of memory, or of a file, in both. Equal content alone may be a
    duplicate, of which real data have some: it is refused where more than half of a split is in the other, and told otherwise.
    """
    (one, other), where = names, f"{declared.name}, protocol '{protocol.name}'"
    for column, modality in enumerate(declared.modalities):
        places = [_places(split.inputs[modality]) for split in given]
        numbers = [
            split.present[:, column].nonzero().flatten().numpy() for split in splits
        ]  # what is absent may be shared
        if all(map(len, places)) and (shared := _same_rows(*(p[n] for p, n in zip(places, numbers, strict=True)))):
            first, second, count = numbers[0][shared[0]], numbers[1][shared[1]], shared[2]
            raise UsageError(
                f"{where}: sample {second} of the {other} split is sample {first} of the {one} split ({count} samples are in both: "
                f"{modality} is the same row); expected no sample in two splits"
            )
    if protocol.disjoint and (shared := _same_rows(*(split.group.numpy() for split in splits))):
        first, second, count = shared
        raise UsageError(
            f"{where}: group {int(splits[1].group[second])} is in the {one} split (sample {first}) and in the {other} split (sample "
            f"{second}), and so are {count} samples of the {other} split in all; expected every group in one split. Where groups are "
            "counted for each split by itself, number them through"
        )
    contents = [list(_contents(declared.modalities, split)) for split in splits]
    known, twice = set(contents[0]), sum(len(c) - len(set(c)) for c in contents)
    equal = [row for row, content in enumerate(contents[1]) if content in known]
    fewest = min(map(len, contents))
    if len(equal) > COPIED * fewest and twice <= COPIED * fewest:
        raise UsageError(
            f"{where}: {len(equal)} of {len(contents[1])} samples of the {other} split are copies of samples of the {one} split, the "
            f"first of them number {equal[0]} and {contents[0].index(contents[1][equal[0]])}: label and every modality are equal; "
            "expected no sample in two splits"
        )
    if equal and twice <= COPIED * fewest:
        notes.append(
            f"{len(equal)} of {len(contents[1])} {other} samples equal a {one} sample in label and every modality"
        )


def _places(value: Any) -> np.ndarray:
    """Where the rows of an input lie: the same place is the same row. Empty where that cannot be told."""
    if isinstance(value, dict):
        return _places(next(iter(value.values())))
    if isinstance(value, Tensor):
        step = value.stride(0) * value.element_size() if value.numel() else 0
        return value.data_ptr() + step * np.arange(len(value)) if step else np.empty(0, np.int64)
    start = getattr(value.array, "filename", None) or id(value.array)
    # In a tuple, since a number is its own hash, and arrays may lie fewer bytes apart than they have rows.
    return hash((start,)) % 2**62 + np.asarray(value.rows, np.int64)


def _same_rows(one: np.ndarray, other: np.ndarray) -> tuple[int, int, int] | None:
    """The rows in which a value of ``other`` first is one of ``one``'s, in both, and in how many it is; None if in none."""
    found = np.flatnonzero(np.isin(other, one))
    return (int((one == other[found[0]]).argmax()), int(found[0]), len(found)) if len(found) else None


def _contents(modalities: Sequence[str], split: Split) -> Iterator[int]:
    """A hash of each sample's label and of what it has of the modalities; nothing where a part of that is on disk."""
    columns = []
    for column, modality in enumerate(modalities):
        value = split.inputs[modality]
        for tensor in value.values() if isinstance(value, dict) else [value]:
            if not isinstance(tensor, Tensor):
                return
            columns.append((split.present[:, column].tolist(), tensor.numpy()))
    for row, label in enumerate(split.label.tolist()):
        yield hash((label, *(values[row].tobytes() if present[row] else None for present, values in columns)))


def _tensor(where: str, value: Any) -> Tensor:
    """The value if it is a dense tensor in the CPU's memory, without a gradient."""
    if not isinstance(value, Tensor):
        hint = "; torch.from_numpy makes one of an array" if isinstance(value, np.ndarray) else ""
        raise UsageError(f"{where} is {_kind(value)}, expected a tensor{hint}")
    if value.device.type != "cpu" or value.layout != torch.strided:
        raise UsageError(f"{where} is on {value.device}, {value.layout}; expected a dense tensor in the CPU's memory")
    return value.detach() if value.requires_grad else value


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _kind(value: Any) -> str:
    """Type and shape of a value, for messages."""
    if isinstance(value, Tensor):
        return f"{_type(value)} of shape {tuple(value.shape)}"
    if isinstance(value, np.ndarray):
        return f"a numpy array ({value.dtype}) of shape {value.shape}"
    return "nothing" if value is None else f"a {type(value).__name__}"
