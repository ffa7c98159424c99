"""Accuracy bands: what a small grid gave, how much noise that had, and whether it still gives the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from mmbench.errors import UsageError
from mmbench.store import atomic_write

CELL = ["dataset", "protocol", "method", "pattern"]
COLUMNS = [*CELL, "n", "mean", "std", "low", "high"]
ERROR_RATE = 0.01
LEAST_SEEDS = 5

EXPLANATION = f"""\
# Accuracy in percent of every method under every presence pattern, over n seeds, and the band that `mmbench check` holds it to.
# low, high = mean ∓ t · s · sqrt(2 / n): where the mean of n other seeds would fall. s is the larger of the cell's own standard
# deviation and the root mean square of all methods' under the same pattern; t is the quantile of Student's distribution, with the
# degrees of freedom of the latter, at which all cells together stay inside with probability {1 - ERROR_RATE:.0%}.
# Written by `mmbench check --update`.
"""


def bands(table: pd.DataFrame) -> pd.DataFrame:
    """Derive the bands from an experiment's tidy table.

    Returns:
        One row a cell, with the columns ``COLUMNS``.

    Raises:
        UsageError: there are too few seeds to know the noise.
    """
    from scipy.stats import t as student

    cells = table[table.metric == "accuracy"][[*CELL, "n", "mean", "std"]].reset_index(drop=True)
    if cells.n.min() < LEAST_SEEDS:
        raise UsageError(
            f"accuracy bands need at least {LEAST_SEEDS} finished seeds in every cell, got {cells.n.min()}"
        )
    pool = cells.groupby(["dataset", "protocol", "pattern"])
    pooled = pool["std"].transform(lambda s: np.sqrt((s**2).mean()))
    freedom = pool["n"].transform(lambda n: (n - 1).sum())
    quantile = student.ppf(1 - ERROR_RATE / (2 * len(cells)), freedom)
    half = quantile * np.maximum(cells["std"], pooled) * np.sqrt(2 / cells.n)
    return cells.assign(low=cells["mean"] - half, high=cells["mean"] + half)[COLUMNS]


def violations(held: pd.DataFrame, table: pd.DataFrame) -> list[str]:
    """Compare an experiment's tidy table with the bands.

    Returns:
        A sentence a cell that left its band, is missing, or has no band; empty if all is well.
    """
    measured = table[table.metric == "accuracy"].set_index(CELL)["mean"]
    expected = held.set_index(CELL)
    lines = []
    for cell in sorted(set(measured.index) | set(expected.index)):
        name = " ".join(cell)
        value = measured.get(cell, np.nan)
        if cell not in expected.index:
            lines.append(f"{name}: has no band; run `mmbench check --update` and commit the file")
        elif np.isnan(value):
            lines.append(f"{name}: was not measured (its trials failed, or the experiment no longer has them)")
        elif not expected.low[cell] <= value <= expected.high[cell]:
            side = "below" if value < expected.low[cell] else "above"
            lines.append(
                f"{name}: {value:.2f} is {side} its band [{expected.low[cell]:.2f}, {expected.high[cell]:.2f}]"
            )
    return lines


def read(path: Path) -> pd.DataFrame:
    """Read a file of bands.

    Raises:
        UsageError: it is missing or has other columns.
    """
    try:
        held = pd.read_csv(path, comment="#")
    except FileNotFoundError as error:
        raise UsageError(f"no accuracy bands at {path}; `mmbench check --update` measures and writes them") from error
    except pd.errors.ParserError as error:
        raise UsageError(f"{path}: {error}") from error
    if list(held.columns) != COLUMNS:
        raise UsageError(f"{path}: expected the columns {', '.join(COLUMNS)}, got {', '.join(held.columns)}")
    return held


def write(path: Path, held: pd.DataFrame) -> None:
    """Write a file of bands, with what they mean at its head."""
    atomic_write(path, (EXPLANATION + held.to_csv(index=False, float_format="%.4f")).encode())
