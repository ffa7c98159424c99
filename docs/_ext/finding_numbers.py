"""What findings read from committed reports, and how they say it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

RESULTS = Path(__file__).parents[2] / "results"
EVERYTHING = "image+title+tags"
"""The presence pattern in which the embedded pictures have all their modalities."""
REFERENCE = "late_fusion"


def accuracies(experiment: str, protocol: Sequence[str]) -> pd.DataFrame:
    """Accuracy with everything: a row a method, a column a protocol."""
    rows = pd.read_csv(RESULTS / experiment / "table.csv")
    rows = rows[(rows.dataset == "openclipart") & (rows.pattern == EVERYTHING) & (rows.metric == "accuracy")]
    return rows[rows.protocol.isin(protocol)].pivot(index="method", columns="protocol", values="mean")


def against(experiment: str, dataset: str, reference: str = REFERENCE) -> pd.DataFrame:
    """Accuracy with everything under ``clean``, minus a reference's: a row a method."""
    rows = comparisons(experiment, dataset)
    rows = rows[rows.pattern == EVERYTHING]
    turned = rows[rows.method == reference]
    turned = turned.assign(
        method=turned.other, difference=-turned.difference, ci_low=-turned.ci_high, ci_high=-turned.ci_low
    )
    return pd.concat([rows[rows.other == reference], turned]).set_index("method")


def matched(rows: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """The rows of a report on missing rates that were tested at the rate at which they were trained."""
    return rows[(rows.dataset == dataset) & (rows.protocol == "clean") & (rows.evaluation == "matched")]


def comparisons(experiment: str, dataset: str) -> pd.DataFrame:
    """The paired differences of an experiment under ``clean`` on complete data."""
    rows = pd.read_csv(RESULTS / experiment / "comparisons.csv")
    return rows[(rows.dataset == dataset) & (rows.protocol == "clean") & (rows.training == "complete")]


def gained(experiment: str, dataset: str) -> pd.DataFrame:
    """What tuning adds to each method."""
    rows = comparisons(experiment, dataset)
    rows = rows[(rows.pattern == EVERYTHING) & (rows.other == rows.method + ", tuned")]
    return rows.assign(difference=-rows.difference, ci_low=-rows.ci_high, ci_high=-rows.ci_low)


def written_and_released() -> pd.DataFrame:
    """The differences between a method as written and as released, with its name."""
    rows = comparisons("released", "openclipart")
    names = rows.method.str.removesuffix(", as written")
    return rows[rows.method.str.endswith(", as written") & (rows.other == names + ", as released")].assign(name=names)


def interval(row: Mapping[str, float] | pd.Series, value: str) -> str:
    """A number with its interval."""
    return f"{row[value]:+.1f} [{row['ci_low']:+.1f}, {row['ci_high']:+.1f}]"


def clear(rows: pd.DataFrame) -> int:
    """How many intervals leave out zero."""
    return int(((rows.ci_low > 0) | (rows.ci_high < 0)).sum())


def counted(some: int, of: int) -> str:
    """How many of how many."""
    return f"all {of}" if some == of else f"{some} of {of}"


def code(name: str) -> str:
    """A registered name, as code."""
    return f"`{name}`"


def listed(names: Iterable[str]) -> str:
    """Names, as code."""
    return ", ".join(map(code, names))


def agreement(one: pd.Index, other: pd.Index) -> str:
    """What the two orders have to do with each other."""
    moved = sum(a != b for a, b in zip(one, other, strict=True))
    return f"{moved} of {len(one)} methods change places"


def verdict(better: list[str]) -> str:
    """The title's end."""
    return "nothing beats Late Fusion for certain" if not better else f"{len(better)} methods beat Late Fusion"


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A table."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def again(csv: str, command: str) -> str:
    """How to compute a page again."""
    return f"""
## Compute it again

`make docs` writes this page, numbers and sentences, from `results/{csv}`. The trials behind it:

```
{command}
```
"""
