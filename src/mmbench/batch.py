"""The unit that travels from a data module to a method."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias, cast

import torch
from torch import Tensor

from mmbench.presence import placed, rows_of

Input: TypeAlias = Tensor | dict[str, Tensor]
"""One modality of a batch: a tensor (B, …), or several by name (token ids and their words, say)."""


@dataclass
class Batch:
    """A batch of B samples of M modalities.

    Attributes:
        inputs: modality name -> raw input, (B, …). Rows in which the modality is absent hold anything: no method reads them.
        present: (B, M) bool, in the data module's order of modalities; True where the sample has the modality.
        label: (B,) int64 class numbers.
        index: (B,) int64, each sample's stable number within its split.
        shares: on one of several devices, the rows whose inputs each of them encodes; none: there is one. ``present``, ``label`` and
            ``index`` are of all rows on every device, and so are inputs that are feature vectors; other inputs have the rows of the
            device's own share alone.
    """

    inputs: dict[str, Input]
    present: Tensor
    label: Tensor
    index: Tensor

    shares = cast("Sequence[slice]", ())  # no field: Lightning looks for the size of a batch in each

    def __len__(self) -> int:
        return len(self.label)

    def to(self, device: torch.device | str, non_blocking: bool = True) -> Batch:
        """The same batch on another device (Lightning calls this). What the host knows of presence and numbers it goes on knowing.

        Args:
            device: where to.
            non_blocking: whether copies from pinned memory are not waited for; those to the host always are.
        """
        device = torch.device(device)
        non_blocking = non_blocking and device.type != "cpu"
        there = self._with(lambda t: t.to(device, non_blocking=non_blocking))
        there.present, there.index = placed(self.present, device), placed(self.index, device)
        if device.type != "cpu":
            rows_of(there.present)  # they travel with it
        return there

    def pin_memory(self) -> Batch:
        """The same batch in pinned memory, from which copies to a GPU need not be waited for."""
        return self._with(Tensor.pin_memory)

    def _with(self, function: Callable[[Tensor], Tensor]) -> Batch:
        """A batch of what a function makes of inputs and labels."""
        inputs = {name: map_input(value, function) for name, value in self.inputs.items()}
        other = replace(self, inputs=inputs, label=function(self.label))
        other.shares = self.shares
        return other


def map_input(value: Input, function: Callable[[Tensor], Tensor]) -> Input:
    """Apply ``function`` to the tensor, or to each of the named tensors, of one modality."""
    if isinstance(value, dict):
        return {name: function(tensor) for name, tensor in value.items()}
    return function(value)


def select_rows(value: Input, rows: Tensor | slice) -> Input:
    """The given rows of one modality's raw input."""
    return map_input(value, lambda t: t[rows])
