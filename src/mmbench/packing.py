"""Plain values and tensors: as JSON can say them, and as a file that is read without executing anything.

A file of state has, one after the other,

    {"key": …, "layout": 1234, "bytes": 5678}       the head: a line of JSON, which says what the state is of
    {"values": …, "tensors": {…}}                   the layout: a line of JSON, with the type and the shape of each tensor
    …                                               the tensors' numbers
    3b4c…                                           SHA-256 of all that comes before

So its size is known before any of it is taken, and a wrong bit anywhere is noticed.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from mmbench.files import atomically

MOST_HEAD, MOST_LAYOUT = 2**20, 2**23
"""Bytes: a head tells of one trial; the layout of BERT-large, or of a ResNet-152, with Adam and the best epoch's weights has 0.6 MB."""
MOST_GROUPS = 2**18
"""Lists and dictionaries in a layout's JSON, each of which takes some 200 bytes to read: the layouts above have 20,000."""
LARGEST = 2**48
"""Of a tensor's dimensions and strides."""
DIGEST = 64
CHUNK = 2**22
TYPES = {
    str(kind).removeprefix("torch."): kind
    for kind in (
        *(torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128, torch.bool),
        *(torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.int8, torch.int16, torch.int32, torch.int64),
    )
}


class NotPlain(ValueError):
    """A value is, or holds, something else than tensors, numbers, strings, lists, tuples and dictionaries; the message says what."""


class Damaged(RuntimeError):
    """A file is none of state, or not as it was written; the message says why."""


def packed(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """A value as JSON can say it; tensors in it are added to others, and stand there by name.

    Raises:
        NotPlain: the value cannot be said so.
    """
    if isinstance(value, Tensor):
        tensors[name] = value
        return {"tensor": name}
    if type(value) in (dict, OrderedDict):
        return {"pairs": [[key, packed(inner, f"{name}/{key}", tensors)] for key, inner in value.items()]}
    if type(value) in (list, tuple):
        return {type(value).__name__: [packed(inner, f"{name}/{i}", tensors) for i, inner in enumerate(value)]}
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise NotPlain(f"a {type(value).__name__}, as {name.partition('/')[2] or name}")


def unpacked(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """What ``packed`` was given.

    Raises:
        KeyError, TypeError, ValueError: it is something else, or names a tensor that is not there.
    """
    if not isinstance(value, dict):
        return value
    ((kind, inner),) = value.items()
    if kind == "tensor":
        return tensors[inner]
    if kind == "pairs":
        return {key: unpacked(item, tensors) for key, item in inner}
    items = [unpacked(item, tensors) for item in inner]
    return {"list": items, "tuple": tuple(items)}[kind]


def named(value: Any) -> set[str]:
    """The names of the tensors in what ``packed`` gave."""
    if not isinstance(value, dict):
        return set()
    ((kind, inner),) = value.items()
    if kind == "tensor":
        return {inner}
    items = [item for _, item in inner] if kind == "pairs" else inner
    return {name for item in items for name in named(item)}


def write_state(path: Path, head: Mapping[str, Any], value: Any, most: float = math.inf) -> None:
    """Write a file of state; whoever reads sees the old one or the new.

    Args:
        path: of the file.
        head: plain values.
        value: the state: tensors and plain values.
        most: bytes that its tensors may have.

    Raises:
        NotPlain: the state has something else in it, or is too large.
        StoreError: the file cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    values = packed(value, "state", tensors)
    kept, described = [], {}
    for name, tensor in tensors.items():
        if tensor.layout is not torch.strided or str(tensor.dtype).removeprefix("torch.") not in TYPES:
            raise NotPlain(f"a tensor of {tensor.dtype} and {tensor.layout}, as {name.partition('/')[2]}")
        dense = tensor.detach() if is_dense(tensor.shape, tensor.stride()) else tensor.detach().contiguous()
        kept.append(dense)
        described[name] = [str(dense.dtype).removeprefix("torch."), list(dense.shape), list(dense.stride())]
    layout = json.dumps({"values": values, "tensors": described}).encode() + b"\n"
    size = sum(tensor.numel() * tensor.element_size() for tensor in kept)
    if size > most or is_too_much(layout):
        raise NotPlain(
            f"{size:,} bytes of tensors and {len(layout):,} of plain values, more than a state of this kind has"
        )
    first = json.dumps({**head, "layout": len(layout), "bytes": size}).encode() + b"\n"
    digest = sha256()
    with atomically(path) as handle:
        for part in (first, layout):
            digest.update(part)
            handle.write(part)
        for tensor in kept:
            numbers = raw(in_order(tensor).cpu())
            digest.update(numbers)
            handle.write(numbers)
        handle.write(digest.hexdigest().encode())


def is_too_much(layout: bytes) -> bool:
    """Whether a layout is larger than any of a trial, and so would take memory and time without bounds to read."""
    return len(layout) > MOST_LAYOUT or layout.count(b"[") + layout.count(b"{") > MOST_GROUPS


def is_dense(shape: Sequence[int], stride: Sequence[int]) -> bool:
    """Whether a tensor's numbers lie one after the other, in whatever order of its dimensions."""
    expected = 1
    for step, size in sorted(zip(stride, shape, strict=True)):
        if size > 1 and step != expected:
            return False
        expected *= max(1, size)
    return True


def in_order(tensor: Tensor) -> Tensor:
    """The numbers (N,) of a dense tensor in the order in which they lie in memory."""
    return tensor.as_strided((tensor.numel(),), (1,))


def raw(numbers: Tensor) -> memoryview:
    """The bytes of numbers (N,) in this process's memory."""
    return memoryview(numbers.view(torch.uint8).numpy())  # type: ignore[arg-type]


def read_head(path: Path) -> dict[str, Any] | None:
    """What a file of state says that it is of; None if there is no file.

    Raises:
        Damaged: it is none, or is cut off.
        OSError: it cannot be read, which says nothing of what is in it.
    """
    try:
        with opened(path) as handle:
            return _head(handle)[0]
    except FileNotFoundError:
        return None


def opened(path: Path) -> IO[bytes]:
    """A file to read; of anything else, such as a pipe, nobody waits for an end.

    Raises:
        OSError: it cannot be opened.
        Damaged: it is no file.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise Damaged("it is not a file")
    return path.open("rb")


def _head(handle: IO[bytes]) -> tuple[dict[str, Any], bytes]:
    """The head, and the line that it was read from."""
    size = os.fstat(handle.fileno()).st_size
    line = handle.readline(MOST_HEAD)
    try:
        head = json.loads(line)
        sizes = [head["layout"], head["bytes"]]
        if not all(type(size) is int and size >= 0 for size in sizes):
            raise ValueError
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise Damaged("it does not begin as a file of state does") from error
    if (expected := len(line) + sum(sizes) + DIGEST) != size:
        raise Damaged(f"it has {size:,} bytes, and says that it has {expected:,}")
    return head, line


def read_state(path: Path, most: float) -> Any:
    """The state in a file, its tensors in this process's memory.

    Args:
        path: of the file.
        most: bytes that its tensors may have.

    Raises:
        Damaged: it is not as it was written, or none.
        OSError: it cannot be read.
    """
    try:
        with opened(path) as handle:
            head, line = _head(handle)
            if head["bytes"] > most:
                raise Damaged(f"it has {head['bytes']:,} bytes of tensors, more than a state of this kind has")
            if head["layout"] > MOST_LAYOUT:
                raise Damaged(f"it has {head['layout']:,} bytes of plain values, more than a state of this kind has")
            digest = sha256(line)
            left = head["layout"] + head["bytes"]
            while left and (part := handle.read(min(left, CHUNK))):
                digest.update(part)
                left -= len(part)
            if handle.read() != digest.hexdigest().encode():
                raise Damaged("its checksum is wrong: it is not what was written")
            handle.seek(len(line))
            if is_too_much(told := handle.read(head["layout"])):
                raise Damaged("it has more lists and dictionaries than a state of this kind has")
            layout = json.loads(told)
            return unpacked(layout["values"], _tensors(handle, layout["tensors"], head["bytes"]))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Damaged(f"its layout is none of a state: {type(error).__name__}") from error


def _tensors(handle: IO[bytes], described: Mapping[str, Any], size: int) -> dict[str, Tensor]:
    """Read tensors that have so many bytes in all."""
    known = {name: (TYPES[kind], shape, stride) for name, (kind, shape, stride) in described.items()}
    if not all(type(n) is int and 0 <= n < LARGEST for _, *layout in known.values() for part in layout for n in part):
        raise ValueError("a shape")
    if any(math.prod(max(1, n) for n in shape) >= LARGEST for _, shape, _ in known.values()):
        raise ValueError("a shape that torch cannot count")
    counts = {name: math.prod(shape) for name, (_, shape, _) in known.items()}
    if sum(counts[name] * kind.itemsize for name, (kind, _, _) in known.items()) != size:
        raise ValueError("sizes")
    tensors = {}
    for name, (kind, shape, stride) in known.items():
        if not is_dense(shape, stride):
            raise ValueError("strides")
        numbers = torch.empty(counts[name], dtype=kind)
        handle.readinto(raw(numbers))  # type: ignore[attr-defined]
        tensors[name] = numbers.as_strided(shape, stride)
    return tensors
