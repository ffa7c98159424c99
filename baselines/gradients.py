"""What methods against modality imbalance do to gradients."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def scale_gradients(encoders: nn.ModuleDict, factors: Tensor) -> None:
    """Multiply all of an encoder's gradients by a factor, in place.

    Args:
        encoders: modality -> encoder.
        factors: (M,), one an encoder, in their order.
    """
    for encoder, factor in zip(encoders.values(), factors, strict=True):
        gradients = [p.grad for p in encoder.parameters() if p.grad is not None]
        if gradients:
            torch._foreach_mul_(gradients, factor)  # all at once, where a GPU has a kernel for that
