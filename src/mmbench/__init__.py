"""mmbench: a benchmark suite for multimodal fusion, with complete and with missing modalities."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmbench.models.model import Model


def load_model(path: str | PathLike[str], device: str = "cpu") -> Model:
    """Read a trained model that ``mmbench run … --keep-models`` kept; nothing in its folder is executed.

    ``load_model("results/runs/<key>").predict({"image": "cat.png", "title": "a cat"})``: what a sample lacks is left out.

    Args:
        path: the folder with its ``model.json``; it may have been moved.
        device: where it computes: "cpu", "cuda".

    Raises:
        mmbench.errors.UsageError: there is no model, or it was tampered with.
    """
    from mmbench.models.model import load  # heavy: only who asks for a model waits for it

    return load(path, device)
