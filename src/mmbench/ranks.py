"""One trial on several devices: what its processes, the ranks, share out, and what they put together.

Every rank knows whose presence, labels and numbers a step is about, and encodes its own rows alone. The features of all are gathered,
with their gradients, so that each rank computes what follows (fusion, losses, statistics of the batch, predictions) of the whole
batch, as one device does. So nothing that a method computes depends on the number of devices, and no method has to know of it.

Random numbers: torch's global generators draw the same on every rank, and methods use these. What rows draw for themselves, in
augmentation and in the dropout of encoders, comes from a generator of the rank's own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from mmbench.batch import Batch, map_input


def shares(size: int, ranks: int) -> list[slice]:
    """How the rows of a batch are shared out: one after the other, and as equally as can be.

    >>> shares(5, 2), shares(1, 2)
    ([slice(0, 3, None), slice(3, 5, None)], [slice(0, 1, None), slice(1, 1, None)])
    """
    ends = [0]
    for rank in range(ranks):
        ends.append(ends[-1] + size // ranks + (rank < size % ranks))
    return [slice(start, stop) for start, stop in pairwise(ends)]


def gathered(own: Tensor, parts: Sequence[slice]) -> Tensor:
    """The rows of all ranks, of which this one has ``own``, and each has its part.

    Gradients reach the own rows, times the number of ranks: every rank has the loss of the whole batch, and the mean over ranks, which
    data-parallel training takes of gradients, then is the gradient of that loss.
    """
    sizes = [part.stop - part.start for part in parts]
    padded = F.pad(own.detach(), [*[0, 0] * (own.dim() - 1), 0, max(sizes) - len(own)]).contiguous()
    found = [torch.empty_like(padded) for _ in parts]
    dist.all_gather(found, padded)
    rows = [values[:size] for values, size in zip(found, sizes, strict=True)]
    if own.requires_grad:
        own = own.view_as(own)
        own.register_hook(lambda gradient: gradient * len(parts))
    rows[dist.get_rank()] = own
    return torch.cat(rows)


def joined(own: Batch, whole: Collection[str]) -> Batch:
    """One batch of all ranks' rows, where each has read its own: of a loader that does not know of ranks.

    Args:
        own: this rank's.
        whole: modalities of whose inputs every rank gets all rows, since methods read them.
    """
    sizes: list[int] = of_all_ranks(len(own))
    ends = [0, *accumulate(sizes)]
    parts = [slice(start, stop) for start, stop in pairwise(ends)]
    inputs = {m: map_input(v, lambda t: gathered(t, parts)) if m in whole else v for m, v in own.inputs.items()}
    batch = Batch(inputs, *(gathered(value, parts) for value in (own.present, own.label, own.index)))
    batch.shares = parts
    return batch


def of_all_ranks(value: Any) -> list[Any]:
    """The plain values or tensors that each rank has, by rank; on one device, that which it has."""
    if not (dist.is_available() and dist.is_initialized()):
        return [value]
    values = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def is_first() -> bool:
    """Whether this process is rank 0, or alone: the one that does what must be done once."""
    return not (dist.is_available() and dist.is_initialized()) or dist.get_rank() == 0


class OwnGenerator:
    """A rank's own random numbers, of torch's global generators on the CPU and on a GPU.

    Attributes:
        states: of the generators by device type, where they have been used.

    Args:
        purpose: what they are for: those of one purpose have nothing to do with those of another.
    """

    def __init__(self, purpose: str) -> None:
        self.purpose = purpose
        self.states: dict[str, Tensor] = {}

    @contextmanager
    def drawn_from(self, device: torch.device) -> Iterator[None]:
        """What draws from the global generators of the CPU and of the device draws from the rank's own for the while."""
        kinds: dict[str, Any] = {"cpu": torch} if device.type == "cpu" else {"cpu": torch, device.type: torch.cuda}
        common = {name: module.get_rng_state() for name, module in kinds.items()}
        for name, module in kinds.items():
            if name in self.states:
                module.set_rng_state(self.states[name])
            else:  # one that no other rank has, made of the common seed
                generator = torch.Generator("cpu" if name == "cpu" else device)
                digest = sha256(f"{torch.initial_seed()}/{self.purpose}/{dist.get_rank()}".encode()).digest()
                generator.manual_seed(int.from_bytes(digest[:8], "big") % 2**63)
                module.set_rng_state(generator.get_state())
        try:
            yield
        finally:
            for name, module in kinds.items():
                self.states[name] = module.get_rng_state()
                module.set_rng_state(common[name])


def synchronise(module: nn.Module, device: torch.device) -> None:
    """Make all batch normalisation inside a module take the statistics of all ranks' rows; names of parameters and buffers stay.

    Its messages go in a group of their own: between those of data-parallel training they come at other moments on a rank that has no
    rows of a modality.
    """
    norms = [inner for inner in module.modules() if isinstance(inner, _BatchNorm)]
    if not norms or any(isinstance(norm, SyncedBatchNorm | nn.SyncBatchNorm) for norm in norms):
        return
    group = dist.new_group()
    if device.type == "cuda":
        for name, child in module.named_children():
            module.register_module(name, nn.SyncBatchNorm.convert_sync_batchnorm(child, group))
    else:
        _replace(module, group)


def _replace(module: nn.Module, group: Any) -> None:
    for name, child in module.named_children():
        if isinstance(child, _BatchNorm):
            module.register_module(name, SyncedBatchNorm.of(child, group))
        else:
            _replace(child, group)


def is_synchronised(module: nn.Module) -> bool:
    """Whether a module takes statistics of all ranks' rows: then all of them have to run it, also one without rows."""
    kinds = SyncedBatchNorm | nn.SyncBatchNorm
    return any(isinstance(inner, kinds) and inner.training for inner in module.modules())


class SyncedBatchNorm(_BatchNorm):
    """Batch normalisation in training by the statistics of all ranks' rows, on the CPU, which ``torch.nn.SyncBatchNorm`` refuses."""

    group: Any = None

    @classmethod
    def of(cls, plain: _BatchNorm, group: Any) -> SyncedBatchNorm:
        """In the place of a plain one, with its parameters and buffers."""
        synced = cls(plain.num_features, plain.eps, plain.momentum, plain.affine, plain.track_running_stats)
        synced._parameters, synced._buffers, synced.training = plain._parameters, plain._buffers, plain.training
        synced.group = group
        return synced

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of dimensions, (B, D, …)."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (B, D, …); B may be 0 where another rank has rows."""
        if not self.training:
            return super().forward(input)
        given, input = input.dtype, input.to(torch.promote_types(input.dtype, torch.float))  # no sums in eight bits
        rows = input.movedim(1, -1).flatten(0, -2) if input.dim() > 2 else input  # (N, D)
        count = float(self._summed(torch.tensor(float(len(rows)))))
        if count <= 1:
            raise ValueError(
                f"expected more than 1 value per channel when training, got input size {tuple(input.shape)}"
            )
        mean = self._summed(rows.sum(dim=0)) / count
        variance = self._summed((rows - mean).square().sum(dim=0)) / count
        if self.track_running_stats and self.running_mean is not None and self.running_var is not None:
            with torch.no_grad():
                assert self.num_batches_tracked is not None
                self.num_batches_tracked.add_(1)
                factor = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
                self.running_mean.lerp_(mean.to(self.running_mean), factor)
                self.running_var.lerp_((variance * (count / (count - 1))).to(self.running_var), factor)
        scale = (variance + self.eps).rsqrt() * (1.0 if self.weight is None else self.weight)
        shift = -mean * scale + (0.0 if self.bias is None else self.bias)
        shape = (1, -1, *[1] * (input.dim() - 2))
        return (input * scale.view(shape) + shift.view(shape)).to(given)

    def _summed(self, value: Tensor) -> Tensor:
        return _Summed.apply(value, self.group)


class _Summed(torch.autograd.Function):
    """The sum over ranks of a tensor, and of what its gradient is on each."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, group: Any) -> Tensor:
        ctx.group = group
        total = value.clone()
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        total = gradient.clone()
        dist.all_reduce(total, group=ctx.group)
        return total, None
