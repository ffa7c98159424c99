"""What the pages of ideas and footguns say of the committed reports, read from ``results``."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from mmbench.evidence.tuning import expected_best

RESULTS = Path(__file__).parents[2] / "results"
EVERYTHING = "image+title+tags"


@cache
def table(path: str) -> pd.DataFrame:
    """A CSV of ``results``; nobody may change it."""
    return pd.read_csv(RESULTS / path)


def accuracies(report: str, protocol: str = "clean") -> pd.DataFrame:
    """Method and pattern -> mean, std, ci_low, ci_high, in percent, of models that were trained on complete data."""
    rows = table(f"{report}/table.csv")
    rows = rows[(rows.metric == "accuracy") & (rows.protocol == protocol) & (rows.training == "complete")]
    return rows.set_index(["method", "pattern"])[["mean", "std", "ci_low", "ci_high"]]


def with_everything(report: str, protocol: str = "clean") -> pd.DataFrame:
    """The same by method, with every modality."""
    return accuracies(report, protocol).xs(EVERYTHING, level="pattern")


def habits() -> pd.DataFrame:
    """Method and part (leakage, peeking, inflation) -> mean, ci_low, ci_high: what two habits add to Table 1, with every modality."""
    rows = table("table1/inflation.csv")
    return rows[rows.pattern == EVERYTHING].set_index(["method", "part"])[["mean", "ci_low", "ci_high"]]


def pairs(report: str) -> pd.DataFrame:
    """The comparisons of a report under ``clean``, with every modality, a row a pair."""
    rows = table(f"{report}/comparisons.csv")
    return rows[(rows.protocol == "clean") & (rows.training == "complete") & (rows.pattern == EVERYTHING)]


def against_late_fusion() -> pd.DataFrame:
    """Method -> its difference to late fusion in Table 1, with ci_low, ci_high, p and p_holm."""
    rows = pairs("table1")
    ahead = rows[rows.other == "late_fusion"].set_index("method")
    behind = rows[rows.method == "late_fusion"].set_index("other")
    turned = behind.assign(difference=-behind.difference, ci_low=-behind.ci_high, ci_high=-behind.ci_low)
    return pd.concat([ahead, turned])[["difference", "ci_low", "ci_high", "p", "p_holm"]]


def what_tuning_adds() -> pd.DataFrame:
    """Method -> what the chosen draws add to the ``validation`` score, and on the ``test`` part, with ci_low, ci_high."""
    rows = pairs("tuned")
    rows = rows[rows.other == rows.method + ", tuned"].set_index("method")
    adds = pd.DataFrame({"test": -rows.difference, "ci_low": -rows.ci_high, "ci_high": -rows.ci_low})
    draws = table("tuned/tuning.csv")
    chosen, default = (d.groupby("method").score.mean() for d in (draws[draws.chosen], draws[draws.draw == 0]))
    return adds.assign(validation=chosen - default)


def expected_scores(method: str) -> np.ndarray:
    """The best validation score to be expected of 1, 2, … draws, mean over folds."""
    draws = table("tuned/tuning.csv")
    folds = draws[draws.method == method].sort_values("draw").groupby("fold").score
    return np.mean([expected_best(list(scores)) for _, scores in folds], axis=0)


def fold_accuracies(method: str) -> pd.DataFrame:
    """Fold -> ``accuracy``, mean over seeds, and ``samples``, of Table 1 under ``clean``."""
    rows = table("table1/trials.csv")
    return rows[(rows.protocol == "clean") & (rows.method == method)].groupby("fold")[["accuracy", "samples"]].mean()


def best_seed() -> pd.Series:
    """Method -> how far its best seed of Table 1 is above the mean of all, in points; a seed is all of its folds."""
    rows = table("table1/trials.csv")
    rows = rows[rows.protocol == "clean"].assign(right=lambda r: r.accuracy * r.samples)
    seeds = rows.groupby(["method", "seed"])[["right", "samples"]].sum()
    each = (seeds.right / seeds.samples).unstack()
    return each.max(axis=1) - each.mean(axis=1)


def trained_at_the_rate() -> pd.DataFrame:
    """Method and rate -> accuracy at that rate ``complete``, trained on complete data, and ``masked``, trained at the rate."""
    rows = table("missing_rates/rates.csv")
    rows = rows[rows.evaluation == "robustness"]
    masked = rows[(rows.rate > 0) & (rows.training == "anchor " + rows.rate.astype(str))]
    columns = {"complete": rows[rows.training == "complete"], "masked": masked}
    return pd.DataFrame({name: r.set_index(["method", "rate"])["mean"] for name, r in columns.items()}).dropna()


def one_mask_for_another() -> pd.Series:
    """Method and rate -> accuracy under the one mask that papers would draw minus the mean over 100, of models trained at the rate."""
    rows = table("missing_rates/rates.csv")
    one = rows[(rows.evaluation == "matched") & (rows.rate > 0)].set_index(["method", "rate"])["mean"]
    return (one - trained_at_the_rate().masked).dropna()
