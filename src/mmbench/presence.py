"""Which samples have what, as the host knows it: presence comes from there, and whoever asks the device for it has to wait for it.

A mask on a device that ``placed`` took there remembers what it was made of, so that ``on_host`` and ``rows_of`` answer without waiting.
Of any other mask they ask the device, once. The same goes for the samples' numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_NOTE = "_mmbench_note"  # the attribute of a tensor that has one


@dataclass
class _Note:
    """What is known of a mask on a device.

    Attributes:
        host: the same values on the host.
        version: how often the mask had been written to by then; once more, and the note no longer holds.
        rows: what ``rows_of`` answers, once it has been asked.
    """

    host: Tensor
    version: int
    rows: list[Tensor | None] | None = None


def placed(mask: Tensor, device: torch.device) -> Tensor:
    """A mask on a device, which remembers the values that the host has; itself if it is there already."""
    if mask.device == device:
        return mask
    host = on_host(mask)
    if device.type == "cpu":
        return host
    there = sent(host, device)
    setattr(there, _NOTE, _Note(host, _version(there)))
    return there


def on_host(mask: Tensor) -> Tensor:
    """The values of a mask on the host. Of one that ``placed`` did not take to its device they are copied, which takes its time."""
    if mask.device.type == "cpu":
        return mask
    return _note(mask).host


def rows_of(mask: Tensor) -> list[Tensor | None]:
    """For each column of a mask (B, M), the numbers (B',) of the rows in which it is True, on the mask's device; None for all rows."""
    if mask.device.type == "cpu":
        return _rows_on_host(mask)
    note = _note(mask)
    if note.rows is None:
        rows = _rows_on_host(note.host)
        some = [numbers for numbers in rows if numbers is not None]
        if some:  # one copy for all of them
            there = iter(sent(torch.cat(some), mask.device).split([len(numbers) for numbers in some]))
            rows = [None if numbers is None else next(there) for numbers in rows]
        note.rows = rows
    return note.rows


def row_numbers(here: Tensor, device: torch.device) -> Tensor | None:
    """The numbers (B',), on a device, of the rows of which a mask (B,) on the host is True; None for all rows."""
    return None if here.all() else sent(here.nonzero().squeeze(1), device)


def taken(values: Tensor, rows: Tensor | None) -> Tensor:
    """The given rows of values (B, …), as ``rows_of`` tells them."""
    return values if rows is None else values[rows]


def sent(values: Tensor, device: torch.device) -> Tensor:
    """Values of the host's on a device. Nobody waits for the copy: to CUDA, it is made from pinned memory."""
    if device.type == "cpu":
        return values
    if device.type == "cuda" and not values.is_pinned():
        values = values.pin_memory()  # torch keeps it until the copy is made
    return values.to(device, non_blocking=True)


def _rows_on_host(mask: Tensor) -> list[Tensor | None]:
    if mask.all():  # one look for all columns
        return [None] * mask.shape[1]
    return [row_numbers(here, mask.device) for here in mask.T]


def _note(mask: Tensor) -> _Note:
    note: Any = getattr(mask, _NOTE, None)
    if note is None or note.version != _version(mask):
        note = _Note(mask.cpu(), _version(mask))
        setattr(mask, _NOTE, note)
    return note


def _version(mask: Tensor) -> int:
    return 0 if mask.is_inference() else mask._version
