"""A folder of nothing but arrays: those with one value a sample become its table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmbench.data.adding.guesses import LABELS, array_files, slug
from mmbench.data.adding.vectors import read_file
from mmbench.errors import UsageError

FILE = "metadata.csv"


def table_of_arrays(root: Path) -> tuple[dict[str, list[Any]], list[str]]:
    """The columns that the arrays of a folder have in them, and the names of their files.

    Only arrays with one whole number or text a sample are columns; they are called as their files, or as they are in them.

    Raises:
        UsageError: none of them is called like a label, or they are of different lengths.
    """
    columns: dict[str, list[Any]] = {}
    files: dict[str, str] = {}
    for path in array_files(root):
        try:
            content = read_file(path)
        except UsageError:  # told when the arrays are looked at as modalities
            continue
        for name, value in content.items() if isinstance(content, Mapping) else [(path.stem, content)]:
            if (values := one_each(value)) is not None:
                columns[str(name)], files[str(name)] = values, path.name
    if not any(slug(name) in LABELS for name in columns):
        raise UsageError(
            f"{root} has no table of samples, metadata.csv, and no array called labels with one whole number or text a sample; make "
            "either: a table has a row a sample, with its label"
        )
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        some = ", ".join(f"{name} {length:,}" for name, length in lengths.items())
        raise UsageError(f"{root}: arrays of one value a sample are of different lengths: {some}")
    return columns, sorted(set(files.values()))


def one_each(value: Any) -> list[Any] | None:
    """The values of an array (N,) or (N, 1) of whole numbers or texts; None if it is none."""
    if isinstance(value, torch.Tensor):
        value = value.numpy() if value.layout == torch.strided and not value.dtype.is_floating_point else None
    if isinstance(value, list):
        return value if len(value) > 1 and all(type(item) in (int, str) for item in value) else None
    if isinstance(value, np.ndarray) and value.ndim == 2 and value.shape[1] == 1:
        value = value[:, 0]
    if isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype.kind in "iuU" and len(value) > 1:
        return value.tolist()
    return None


def write_table(root: Path, columns: Mapping[str, list[Any]]) -> None:
    """Write the columns as a table."""
    import pandas as pd

    pd.DataFrame(columns).to_csv(root / FILE, index=False)
