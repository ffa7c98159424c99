"""Two results beside each other, such as a run of one's own and the report that git keeps; and what may take the latter's place.

Two machines never agree to the last digit: sums are taken in another order, and training makes much of little. So numbers of a trial
that was made on another machine lie between those of the same seed, which are equal, and those of another. The latter is the measure:
two means, each over n runs of deviation s, differ by at most 2 · s · sqrt(2 / n) in 95 of 100 cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from mmbench.errors import DataError, UsageError, did_you_mean
from mmbench.files import user_path
from mmbench.report.collect import Results
from mmbench.report.elsewhere import is_elsewhere

LOCAL = "local"
"""The folder, among the results, of the reports of one's own runs; git ignores it."""
KEPT = (LOCAL, "regression", "reported", "runs", "wandb")
"""Folders among the results that are not a report."""
CELL = ["dataset", "protocol", "training", "method", "pattern"]
POOL = ["dataset", "protocol", "training"]
ONE_RUN = 35.0
"""Deviation of an accuracy, in percent, times the root of the number of samples, where one run alone does not tell it: two runs are
right where the other is wrong on a quarter of the samples, sqrt(2) · 35 % = sqrt(0.25)."""
LEAST = 0.5
"""Points of accuracy that any cell may differ by."""
OVERALL = 1.0
"""Points that the mean over all cells may differ by."""
MOST_OUTSIDE = 0.05
"""Share of the cells that may differ by more than their tolerance."""
NAMED = 3
"""Cells outside of their tolerance that the line names."""
NUMBERS = ["mean", "std", "n", "samples"]
COLUMNS = [*CELL, "metric", *NUMBERS]


@dataclass(frozen=True)
class Agreement:
    """Whether two results agree, and a line that says so."""

    agrees: bool
    line: str


def table_of(name: str, folders: Sequence[Path]) -> Path:
    """The ``table.csv`` that a name stands for: the file itself, one in the folder of a report, or that of a committed experiment.

    Args:
        name: as it was given.
        folders: of results, in which the committed experiment is looked for, the first one first.

    Raises:
        UsageError: there is none.
    """
    path = user_path(name)
    for table in (path, path / "table.csv", *(results / name / "table.csv" for results in folders)):
        if table.is_file():
            return table
    known = {table.parent.name for results in folders for table in results.glob("*/table.csv")}
    places = " or ".join(dict.fromkeys(map(str, folders)))
    raise UsageError(
        f"no results '{name}': expected a table.csv, the folder of a report that has one (results/{LOCAL}/table1), or the name of an "
        f"experiment whose report is in {places}: {did_you_mean(name, known)}"
    )


def read_table(path: Path) -> pd.DataFrame:
    """A ``table.csv``.

    Empty cells are refused where they are needed: what names a cell, and the mean of an accuracy that was run here. Other metrics may
    be without a value, such as an error rate of attacks where a test split has none; so may what was made elsewhere, of which
    predictions are not given under every pattern.

    Raises:
        DataError: it is none, cannot be read, lacks a column or a value, or has a cell twice.
    """
    try:
        text = pd.read_csv(path, dtype=str, keep_default_na=False).reset_index(drop=True)
    except OSError as error:
        raise DataError(f"{path} cannot be compared: it cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # what pandas says of it is about its own reader
        raise _damaged(path, "it is not a CSV file, or was cut off") from error
    if lacking := [name for name in COLUMNS if name not in text]:
        raise _damaged(path, f"it has no column {', '.join(lacking)}")
    text = text[COLUMNS].fillna("")  # a line may have too few cells
    table = text.assign(**{name: pd.to_numeric(text[name].astype(object), errors="coerce") for name in NUMBERS})
    needed = (table.metric == "accuracy") & (table.n > 0) & ~table.method.map(is_elsewhere).astype(bool)
    for name in COLUMNS:
        wrong, expected = text[name] == "", "a name"
        if name in ("n", "samples"):
            wrong, expected = ~((table[name] >= 0) & (table[name] % 1 == 0)), "a whole number"
        elif name in NUMBERS:
            required = needed & (table.n > (1 if name == "std" else 0))  # one run has no deviation
            wrong, expected = ~np.isfinite(table[name]) & (required | (text[name] != "")), "a number"
        if wrong.any():
            row = int(wrong.to_numpy().argmax())
            raise _damaged(
                path, f"{name} in row {row + 1} below the header is '{text[name][row]}', expected {expected}"
            )
    if len(twice := table[table.duplicated([*CELL, "metric"])]):
        raise DataError(f"{path} cannot be compared: it has '{' '.join(twice.iloc[0][CELL])}' twice")
    return table


def _damaged(path: Path, found: str) -> DataError:
    return DataError(
        f"{path} cannot be compared: expected a report's table.csv, but {found}; `mmbench report` writes it anew"
    )


def compare(one: pd.DataFrame, other: pd.DataFrame, name: str) -> Agreement:
    """How accuracies compare with those of another table.

    A cell is a data set, protocol, way of training, method and pattern. Those are compared that both tables have, of as many runs
    and test samples. The deviation s is pooled over the methods and patterns of a data set, protocol and way of training: that of one
    cell is of few runs. Where all have a single run, it is ``ONE_RUN`` over the root of the number of test samples.

    Args:
        one: with the columns of ``Results.table``.
        other: what it is held to, whose deviations count.
        name: what that is called.
    """
    mine, held = (table[(table.metric == "accuracy") & (table.n > 0) & table["mean"].notna()] for table in (one, other))
    both = mine.merge(held, on=CELL, suffixes=("", "_held"))
    both = both[(both.n == both.n_held) & (both.samples == both.samples_held)]
    if both.empty:
        return Agreement(
            False, f"Nothing to compare with {name}: no accuracy is in both, of as many runs and test samples."
        )
    pooled = (both.std_held**2).groupby([both[column] for column in POOL]).transform("mean") ** 0.5
    pooled = pooled.fillna(ONE_RUN / np.sqrt(both.samples))
    both["tolerance"] = np.maximum(2 * pooled * np.sqrt(2 / both.n), LEAST)
    both["difference"] = both["mean"] - both.mean_held
    return _agreement(both, (len(mine) - len(both), len(held) - len(both)), name)


def _agreement(both: pd.DataFrame, left: tuple[int, int], name: str) -> Agreement:
    """What the differences of the cells come to, with so many of either side left out."""
    size, low, high = both.difference.abs(), both.tolerance.min(), both.tolerance.max()
    outside = both[size > both.tolerance].sort_values("difference", key=abs, ascending=False)
    overall = both.difference.mean().round(2) + 0.0  # no −0.00
    agrees = len(outside) <= MOST_OUTSIDE * len(both) and abs(overall) <= OVERALL
    within = f"{low:.1f}" if f"{low:.1f}" == f"{high:.1f}" else f"{low:.1f} to {high:.1f}"
    inside, equal, verdict = len(both) - len(outside), (size < 0.005).sum(), "Agrees" if agrees else "Does not agree"
    parts = [
        f"{verdict} with {name}: {inside} of {len(both)} accuracies are within {within} points (2 s sqrt(2 / n); {equal} are equal), "
        f"mean difference {overall:+.2f} (at most {OVERALL:g})"
    ]
    if len(outside):
        more = f" and {len(outside) - NAMED} more" if len(outside) > NAMED else ""
        parts.append(f"not {', '.join(_cell(line) for _, line in outside.head(NAMED).iterrows())}{more}")
    if any(left):
        parts.append(
            f"not compared, since not in both or of other numbers of runs or test samples: {left[0]} of this, {left[1]} of that"
        )
    return Agreement(agrees, "; ".join(parts) + ".")


def _cell(line: pd.Series) -> str:
    where = " ".join(line[name] for name in CELL if line[name] != "complete")
    return f"{where} {line['mean']:.1f} (there {line.mean_held:.1f}, tolerance {line.tolerance:.1f})"


def unfit(results: Results) -> list[str]:
    """Why a report may not take the place of the one that git keeps; nothing, if it may."""
    reasons = []
    if results.experiment.name in KEPT:
        reasons.append(f"results/{results.experiment.name} is not a report's folder; rename the experiment's file")
    if any(row.made_up for row in results.rows):
        reasons.append("the data are made up")
    if missing := results.not_run:
        reasons.append(f"{len(missing)} trials are missing: {missing[0]}{' …' if len(missing) > 1 else ''}")
    if changed := [commit for commit in results.commits if commit.endswith("+changes")]:
        reasons.append(
            f"trials ran with code that was not committed ({', '.join(changed)}); commit it and run them again"
        )
    if len(results.commits) > 1:
        reasons.append(
            f"trials are of several commits ({', '.join(results.commits)}); delete results/runs and run them again"
        )
    return reasons + results.stale
