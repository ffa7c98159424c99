"""Accuracy bands: what a small grid gave, how exactly it repeats itself, and whether it still gives the same."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from mmbench.errors import UsageError
from mmbench.experiment.plan import Experiment
from mmbench.files import atomic_write
from mmbench.record import Record

CELL = ["dataset", "protocol", "training", "method", "pattern"]
GRID = ["dataset", "protocol", "training"]
RUN = ["seed", "fold"]
COLUMNS = [*CELL, "n", "mean", "std", "low", "high"]
ERROR_RATE = 0.01
LEAST_SEEDS = 5
LEAST_HALF_WIDTH = 0.5
OTHER_SUMS = {"MKL_CBWR": "COMPATIBLE"}
"""Environment variables by which products of matrices are computed in another order, the one of the oldest processors."""
DIGITS = 4  # of the file; values are compared after rounding to them

EXPLANATION = f"""\
# Accuracy in percent of every method under every presence pattern: mean and standard deviation over n seeds, and the band that
# `mmbench check` holds the mean to when it runs the same seeds again.
# low, high = mean ∓ max({LEAST_HALF_WIDTH}, t · r / sqrt(n)). r is the measured noise of running a trial again, sums taken in another
# order (on 2 threads instead of 1, by routines for the oldest processors): the root mean square of the difference that it made to an
# accuracy, over all trials of the method, or over all accuracies under the pattern, whichever is larger: some methods repeat themselves
# worse than others. t is the quantile of Student's distribution at which all cells together stay inside with probability
# {1 - ERROR_RATE:.0%} or more.
# Written by `mmbench check --update`.
"""


def accuracies(records: Iterable[Record], experiment: Experiment) -> pd.DataFrame:
    """The accuracy of every finished trial under every pattern: ``CELL``, seed, fold (-1: none) and accuracy in percent."""
    rows = []
    for record in records:
        trial, labels = record.trial, experiment.labels_of(record.trial)
        where, run = (labels.dataset, trial.protocol, trial.training, labels.method), (trial.seed, trial.fold)
        rows += [(*where, pattern, *run, metrics["accuracy"]) for pattern, metrics in record.metrics.items()]
    return pd.DataFrame(rows, columns=[*CELL, *RUN, "accuracy"]).fillna({"fold": -1})


def bands(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Derive the bands from two runs of the same trials, as ``accuracies`` gives them.

    Returns:
        One row a cell, with the columns ``COLUMNS``; mean and standard deviation are the first run's.

    Raises:
        UsageError: there are too few seeds.
    """
    from scipy.stats import t as student

    both = first.merge(second, on=[*CELL, *RUN], suffixes=("", "_again"), validate="one_to_one")
    both["squared"] = (both.accuracy_again - both.accuracy) ** 2
    cells = both.groupby(CELL, sort=False).accuracy.agg(n="count", mean="mean", std="std").reset_index()
    if cells.n.min() < LEAST_SEEDS:
        raise UsageError(f"accuracy bands need at least {LEAST_SEEDS} seeds or folds, got {cells.n.min()}")
    noise = []
    for kind in ("method", "pattern"):
        pool = both.groupby([*GRID, kind]).squared.agg(variance="mean", freedom="count")
        pooled = cells.join(pool, on=[*GRID, kind])
        noise.append(student.ppf(1 - ERROR_RATE / (2 * len(cells)), pooled.freedom) * np.sqrt(pooled.variance))
    half = np.maximum(LEAST_HALF_WIDTH, np.maximum(*noise) / np.sqrt(cells.n))
    return cells.assign(low=cells["mean"] - half, high=cells["mean"] + half).round(DIGITS)[COLUMNS]


def violations(held: pd.DataFrame, measured: pd.DataFrame) -> list[str]:
    """Compare a run, as ``accuracies`` gives it, with the bands.

    Returns:
        A sentence a cell that left its band, was not measured, or has no band; empty if all is well.
    """
    means = measured.groupby(CELL).accuracy.mean().round(DIGITS)
    expected = held.set_index(CELL)
    lines = []
    for cell in sorted(set(means.index) | set(expected.index)):
        name = " ".join(cell)
        if cell not in expected.index:
            lines.append(f"{name}: has no band; run `mmbench check --update` on its experiment and commit the file")
        elif cell not in means.index:
            lines.append(f"{name}: was not measured; the experiment no longer has it")
        elif not expected.low[cell] <= means[cell] <= expected.high[cell]:
            side = "below" if means[cell] < expected.low[cell] else "above"
            lines.append(
                f"{name}: {means[cell]:.2f} is {side} its band [{expected.low[cell]:.2f}, {expected.high[cell]:.2f}]"
            )
    return lines


def read(path: Path) -> pd.DataFrame:
    """Read a file of bands.

    Raises:
        UsageError: it is missing, has other columns, a cell twice, or numbers that are not bands around their means.
    """
    try:
        held = pd.read_csv(path, comment="#")
    except FileNotFoundError as error:
        raise UsageError(f"no accuracy bands at {path}; `mmbench check --update` measures and writes them") from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {error}") from error
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    if list(held.columns) != COLUMNS:
        raise UsageError(f"{path}: expected the columns {', '.join(COLUMNS)}, got {', '.join(held.columns)}")
    if held.duplicated(CELL).any():
        raise UsageError(
            f"{path}: the same cell is given twice: {held[held.duplicated(CELL)][CELL].to_dict('records')[0]}"
        )
    numbers = held[COLUMNS[len(CELL) :]].apply(pd.to_numeric, errors="coerce")
    centre, tolerance = (numbers.low + numbers.high) / 2, 2 * 10**-DIGITS
    sound = (numbers.n >= LEAST_SEEDS) & (numbers["std"] >= 0) & ((centre - numbers["mean"]).abs() <= tolerance)
    sound &= numbers.high - numbers["mean"] >= LEAST_HALF_WIDTH - tolerance
    if not sound.all():
        row = held[~sound].iloc[0]
        raise UsageError(
            f"{path}: {' '.join(map(str, row[CELL]))}: {', '.join(f'{name} {row[name]}' for name in numbers)}: not a band around its "
            "mean; `mmbench check --update` measures and writes them anew"
        )
    return held


def write(path: Path, held: pd.DataFrame) -> None:
    """Write a file of bands, with what they mean at its head."""
    atomic_write(path, (EXPLANATION + held.to_csv(index=False, float_format=f"%.{DIGITS}f")).encode())
