"""Reading published weights. Nothing in a file is executed: whatever a pickle names becomes an inert object."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmbench.encoders.inert import Held, read_inert
from mmbench.encoders.pretrained import read_tensors
from mmbench.errors import UsageError
from mmbench.files import atomic_write

FLOATS = {order + code for order in "<>" for code in ("f2", "f4", "f8")}

DEEPEST = 500
"""Characters of the names that lead to an array; the published ones have some fifty."""


def load_m3ae_pickle(path: Path) -> dict[str, np.ndarray]:
    """The weights of an M3AE checkpoint: a pickled ``{"state": …}`` with the weights at ``state.params["params"]``.

    Returns:
        float32 arrays by their path in the tree, such as ``encoder/Block_0/LayerNorm_0/scale``.

    Raises:
        UsageError: the file cannot be read, or has another layout.
    """
    try:
        tree = read_inert(path)
        for key in ("state", "params", "params"):
            tree = fields(tree)
            if key not in tree:
                raise UsageError(f"{path}: expected the weights of M3AE at state.params['params'], there is no '{key}'")
            tree = tree[key]
        arrays: dict[str, np.ndarray] = {}
        left = (
            2 * path.stat().st_size
        )  # float16 becomes float32; the same array, named many times, would fill the memory
        for key, leaf in leaves(tree):
            arrays[key] = to_array(leaf, f"{path}: '{key}'")
            if (left := left - arrays[key].nbytes - 1) < 0:
                raise UsageError(f"{path}: its arrays are larger than the file, as it names the same ones many times")
        return arrays
    except UsageError:
        raise
    except Exception as error:  # damaged and hostile pickles fail in many ways
        raise UsageError(f"{path}: expected a pickled M3AE checkpoint ({type(error).__name__}: {error})") from error


def to_array(held: Any, where: str) -> np.ndarray:
    """The float32 array that a leaf stands for: ``_frombuffer`` (pickle protocol 5) or ``_reconstruct`` (those before)."""
    try:
        if (kind := held.name if isinstance(held, Held) else type(held).__name__) == "_frombuffer":
            content, dtype, shape, order = held.args
        elif kind == "_reconstruct":
            _, shape, dtype, fortran, content = held.state
            order = "F" if fortran else "C"
        else:
            raise UsageError(f"{where}: expected an array of floats, got {kind}")
        code = f"{dtype.state[1]}{dtype.args[0]}"
        if code not in FLOATS:
            raise UsageError(f"{where}: expected an array of floats, got one of '{code}'")
        return np.ascontiguousarray(np.frombuffer(content, code).reshape(shape, order=order), np.float32)
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{where}: expected an array of floats ({error})") from error


def fields(value: Any) -> dict[Any, Any]:
    """What a dictionary, an object (its attributes) or a FrozenDict (the dictionary that it was made of) holds."""
    candidates = [value, value.state, *value.args[:1]] if isinstance(value, Held) else [value]
    return next((c for c in candidates if isinstance(c, dict)), {})


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested dictionaries with their paths."""
    if len(path) > DEEPEST:
        raise ValueError(f"names of arrays have at most {DEEPEST} characters, got '{path[:60]}…'")
    branches = fields(tree)
    if not branches:
        yield path, tree
    for key, branch in branches.items():
        yield from leaves(branch, f"{path}/{key}" if path else str(key))


def to_safetensors(source: Path, target: Path) -> None:
    """Write the weights of a pickled M3AE checkpoint, under the same names, as a safetensors file.

    Raises:
        UsageError: the source has no such layout, or the target exists or is named otherwise.
    """
    from safetensors.numpy import save

    if target.suffix != ".safetensors":
        raise UsageError(f"{target}: expected a name that ends in .safetensors")
    if target.exists():
        raise UsageError(f"{target} exists; delete it or choose another name")
    atomic_write(target, save(load_m3ae_pickle(source)))


def load_m3ae(path: Path) -> dict[str, Tensor]:
    """The weights of an M3AE checkpoint as published (``.pkl``) or converted (``.safetensors``), float32."""
    if path.suffix == ".pkl":
        return {key: torch.tensor(array) for key, array in load_m3ae_pickle(path).items()}
    if path.suffix != ".safetensors":
        raise UsageError(f"{path}: expected M3AE's weights as .pkl or, converted, .safetensors")
    return {key: tensor.float() for key, tensor in read_tensors(path).items()}
