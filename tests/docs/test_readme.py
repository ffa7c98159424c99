"""README is short, and its numbers are those of the reports in git."""

import re
from pathlib import Path

import pandas as pd
import pytest

from mmbench.baselines import METHODS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
TEXT = " ".join(README.split())
EVERYTHING = "image+title+tags"


@pytest.fixture(scope="module")
def comparisons():
    """Differences under clean, of both directions of every pair."""
    found = pd.read_csv(ROOT / "results/table1/comparisons.csv").query("protocol == 'clean'")
    turned = found.rename(columns={"method": "other", "other": "method", "ci_low": "ci_high", "ci_high": "ci_low"})
    turned = turned.assign(**{column: -turned[column] for column in ("difference", "ci_low", "ci_high")})
    return pd.concat([found, turned]).set_index(["pattern", "method", "other"]).sort_index()


def told(row):
    return f"{row.difference:+.1f} points [{row.ci_low:+.1f}, {row.ci_high:+.1f}]"


def test_it_is_short_and_narrow():
    assert len(README.splitlines()) <= 120
    assert max((line.count("|") - 1 for line in README.splitlines() if line.startswith("|")), default=0) <= 5


def test_it_says_what_mmbench_is_not():
    assert "not MMBench, OpenCompass's benchmark of vision-language models" in TEXT


@pytest.mark.merged
def test_it_counts_the_methods():
    assert f"{len(METHODS)} methods" in TEXT


def test_what_the_protocols_add():
    parts = pd.read_csv(ROOT / "results/table1/inflation.csv").query("pattern == @EVERYTHING").groupby("part")["mean"]
    low, high = parts.min().map("{:.1f}".format), parts.max().map("{:.1f}".format)
    assert f"every method gains {low.inflation} to {high.inflation} points" in TEXT
    assert f"{low.leakage} to {high.leakage} by artists on both sides" in TEXT
    assert f"{low.peeking} to {high.peeking} by the choice of the epoch" in TEXT


def test_what_is_told_from_late_fusion(comparisons):
    everything = comparisons.loc[EVERYTHING]
    against = everything.xs("late_fusion", level="other")
    worse = against[against.ci_high < 0]
    assert not (against.ci_low > 0).any()
    assert f"MLA is {told(against.loc['mla'])} from it" in TEXT
    assert set(worse.index) == {"film", "bigated", "ogm_ge"}
    assert f"are worse by {-worse.difference.max():.1f} to {-worse.difference.min():.1f} points" in TEXT
    assert list(worse.index[worse.p_holm < 0.05]) == ["bigated"]
    apart = ((everything.ci_low > 0) | (everything.ci_high < 0)).sum() // 2
    assert f"Of {len(everything) // 2} pairs of methods {apart} can be told apart" in TEXT
    assert f"by tags alone Concat is {told(comparisons.loc['tags', 'concat', 'late_fusion'])} from late fusion" in TEXT


def test_what_was_tried_on_a_gpu():
    tried = (ROOT / "results/gpu/nvidia-h200.md").read_text()
    held, failed = re.search(r"(\d+) checks held, (\d+) failed", tried).groups()
    assert f"{held} checks held" in TEXT
    assert (failed, "one part failed" in TEXT) == ("1", True)
