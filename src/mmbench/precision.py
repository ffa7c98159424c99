"""In what numbers a GPU computes: float32, or TF32 where that is fast."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch

PLACES = (
    torch.backends.cuda.matmul,
    torch.backends.cudnn.conv,  # type: ignore[attr-defined]
    torch.backends.cudnn.rnn,
    torch.backends.mkldnn.matmul,  # type: ignore[attr-defined]
)
"""Where torch holds how float32 is computed: products on a GPU, cuDNN's convolutions and recurrent layers, products on the CPU."""


@contextmanager
def computing(precision: str) -> Iterator[None]:
    """Have this process compute in a recipe's precision, and after that in what it had before.

    torch by itself does neither: on a GPU its products are float32, and its convolutions TF32 where the GPU has that (compute
    capability 8.0 or later). On the CPU all is float32, also where a package asked for less.

    Args:
        precision: ``Recipe.precision``: "tf32" computes products and convolutions in TF32; "32-true" and "bf16" compute in float32
            what is left to float32 (``MultimodalTask.run_encoder`` has the rest).
    """
    before, older = [place.fp32_precision for place in PLACES], None
    with suppress(RuntimeError):  # the two interfaces were mixed before
        older = torch.get_float32_matmul_precision()
    _compute(precision == "tf32", precision == "tf32")
    try:
        yield
    finally:
        _compute(before[0] == "tf32", before[1] == "tf32")
        if older is not None:
            torch.set_float32_matmul_precision(older)
        for place, value in zip(PLACES, before, strict=True):
            place.fp32_precision = value


def _compute(products: bool, convolutions: bool) -> None:
    """Set what is to be TF32 by both of torch's interfaces, the older one first.

    The older names are what Lightning reads, and reading them raises RuntimeError where the newer ones alone were set. Those in turn go
    further: what the older ones turn off may still be inherited from ``torch.backends.fp32_precision``.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Please use the new API settings")
        torch.set_float32_matmul_precision("highest")  # for products on the CPU too, which "high" would round
        torch.backends.cuda.matmul.allow_tf32 = products
        torch.backends.cudnn.allow_tf32 = convolutions
    for place, tf32 in zip(PLACES, (products, convolutions, convolutions), strict=False):
        place.fp32_precision = "tf32" if tf32 else "ieee"
