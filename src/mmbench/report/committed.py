"""The report that git keeps of an experiment: how a run of one's own compares with it, and what may take its place.

Two machines never agree to the last digit: sums are taken in another order, and training makes much of little. So numbers of a trial
that was made on another machine lie between those of the same seed, which are equal, and those of another. The latter is the measure:
two means, each over n runs of deviation s, differ by at most 2 · s · sqrt(2 / n) in 95 of 100 cells.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from mmbench.report.collect import Results

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
NAMED = 10


def compare(own: pd.DataFrame, committed: Path) -> list[str]:
    """How a run's accuracies compare with a committed table.

    A cell is a data set, protocol, way of training, method and pattern. Those are compared that both tables have, of as many runs. The
    deviation s is pooled over the methods and patterns of a data set, protocol and way of training: that of one cell is of few runs.
    Where all have a single run, it is ``ONE_RUN`` over the root of the number of test samples.

    Args:
        own: ``Results.table``.
        committed: a ``table.csv``; nothing is said where there is none.

    Returns:
        Sentences.
    """
    try:
        held = pd.read_csv(committed, usecols=[*CELL, "metric", "mean", "std", "n", "samples"])
    except FileNotFoundError:
        return []
    except ValueError as error:  # not a CSV file, or without these columns
        return [f"{committed} cannot be compared with: {error}"]
    run = own[(own.metric == "accuracy") & (own.n > 0)]
    both = run.merge(held[held.metric == "accuracy"], on=CELL, suffixes=("", "_held"))
    both = both[both.n == both.n_held]
    if both.empty:
        return [f"Nothing to compare with {committed}: it has no cell of this run, or of another number of runs."]
    pooled = (both.std_held**2).groupby([both[name] for name in POOL]).transform("mean") ** 0.5
    pooled = pooled.fillna(ONE_RUN / np.sqrt(both.samples))
    both["tolerance"] = np.maximum(2 * pooled * np.sqrt(2 / both.n), LEAST)
    both["difference"] = both["mean"] - both.mean_held
    return _sentences(both, len(run), committed)


def _sentences(both: pd.DataFrame, cells: int, committed: Path) -> list[str]:
    """What the differences of the cells come to."""
    size = both.difference.abs()
    outside = both[size > both.tolerance].sort_values("difference", key=abs, ascending=False)
    overall = both.difference.mean().round(2) + 0.0  # no −0.00
    agree = len(outside) <= MOST_OUTSIDE * len(both) and abs(overall) <= OVERALL
    lines = [
        f"Compared with {committed}: {len(both)} accuracies, {(size < 0.005).sum()} of them equal, {len(outside)} outside of their "
        f"tolerance (of 2 s sqrt(2 / n), at most {100 * MOST_OUTSIDE:.0f} % may be); mean difference {overall:+.2f} points (at most "
        f"{OVERALL:g}). " + ("The two agree." if agree else "The two do not agree: code, data or settings differ."),
    ]
    if size.max() >= 0.005:
        lines.append(f"Largest difference: {_cell(both.loc[size.idxmax()])}.")
    if not agree:
        lines += [f"outside: {_cell(line)}" for _, line in outside.head(NAMED).iterrows()]
        lines += [f"and {len(outside) - NAMED} more"] if len(outside) > NAMED else []
    if cells > len(both):
        lines.append(
            f"{cells - len(both)} accuracies of this run are not compared: not there, or of another number of runs."
        )
    return lines


def _cell(line: pd.Series) -> str:
    where = " ".join(line[name] for name in CELL if line[name] != "complete")
    return f"{where} {line['mean']:.1f}, there {line.mean_held:.1f} ({line.difference:+.1f}, tolerance {line.tolerance:.1f})"


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
