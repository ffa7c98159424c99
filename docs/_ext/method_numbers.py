"""A method's numbers on the data that come with the package, from the reports in ``results/`` that git keeps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from mmbench.experiment.space import TUNED

ROOT = Path(__file__).parents[2]
REFERENCE = "late_fusion"
EMBEDDED = ("openclipart", "openclipart_features", "handwritten")
RATES = 4
"""Missing rates of an experiment that a page shows, beside complete data."""


@dataclass(frozen=True)
class Number:
    """A line: which experiments have it, under what label, on what data and how, the accuracy, and the difference to late fusion."""

    experiments: tuple[str, ...]
    label: str
    dataset: str
    how: str
    accuracy: str
    difference: str


@cache
def reports() -> dict[str, dict[str, Any]]:
    """The reports in git, by the name of their experiment: its file, and the tables of the report that it has."""
    found = {}
    for table in sorted((ROOT / "results").glob("*/table.csv"), key=lambda path: _order(path.parent.name)):
        name = table.parent.name
        file = ROOT / f"experiments/{name}.yaml"
        if not file.exists() or name == "local":
            continue
        rest = {one: table.with_name(f"{one}.csv") for one in ("comparisons", "rates", "trials")}
        read = {one: pd.read_csv(path, low_memory=False) for one, path in rest.items() if path.exists()}
        found[name] = {"experiment": yaml.safe_load(file.read_text()), "table": pd.read_csv(table), **read}
    return found


def _order(name: str) -> tuple[int, str]:
    """Table 1 first, then the tables by missing rate, then the others."""
    first = ["table1", "imbalance", "imbalance_tuned", "tuned", "grid", "missing_rates", "six_views"]
    return (first.index(name) if name in first else len(first), name)


def labels_of(method: str, experiment: dict[str, Any]) -> dict[str, str]:
    """What an experiment calls a method, tuned too -> what it calls the reference in the same state."""
    named = {label: (settings or {}).get("method", label) for label, settings in experiment["methods"].items()}
    labels = [label for label, stands_for in named.items() if stands_for == method]
    return {label + state: REFERENCE + state for label in labels for state in ("", TUNED)}


def numbers(method: str) -> list[Number]:
    """All lines of a method; where experiments share trials, one line."""
    found: dict[tuple[str, ...], Number] = {}
    for name, report in reports().items():
        for label, reference in labels_of(method, report["experiment"]).items():
            for line in [*_complete(report, label, reference), *_by_rate(report, label)]:
                shown = "" if label == method else label
                key = (line.dataset, line.how, line.accuracy)
                if (old := found.get(key)) is None:
                    found[key] = replace(line, experiments=(name,), label=shown)
                elif name not in old.experiments:
                    better = line.difference if old.difference == NONE else old.difference
                    found[key] = replace(old, experiments=(*old.experiments, name), difference=better)
    return list(found.values())


NONE = "–"


def _complete(report: dict[str, Any], label: str, reference: str) -> Iterator[Number]:
    """Accuracies with every modality, of models that were trained on complete data."""
    table = report["table"]
    rows = table[(table.method == label) & (table.metric == "accuracy") & (table.training == "complete")]
    for (dataset, protocol), cells in rows.groupby(["dataset", "protocol"], sort=False):
        if dataset not in EMBEDDED:
            continue
        everything = max((pattern for pattern in cells.pattern if pattern != "mean"), key=lambda one: one.count("+"))
        row = cells[cells.pattern == everything].iloc[0]
        spread = "" if pd.isna(row["std"]) else f" ± {row['std']:.1f}"
        pair = {"dataset": dataset, "protocol": protocol, "training": "complete", "pattern": everything}
        difference = _difference(report.get("comparisons"), pair, label, reference)
        yield Number((), "", dataset, f"{protocol}, complete", f"{row['mean']:.1f}{spread}", difference)


def _difference(table: pd.DataFrame | None, where: dict[str, Any], label: str, reference: str) -> str:
    """The difference to the reference with its interval, whichever of the two comes first in the table."""
    if table is None or label == reference:
        return NONE
    for column, value in where.items():
        table = table[table[column] == value]
    for one, other, sign in ((label, reference, 1), (reference, label, -1)):
        for _, row in table[(table.method == one) & (table.other == other)].iterrows():
            low, high = sorted((sign * row.ci_low, sign * row.ci_high))
            return interval(low, high, sign * row.difference)
    return NONE


def _by_rate(report: dict[str, Any], label: str) -> Iterator[Number]:
    """Accuracies of models that were trained and tested at a missing rate, at some of the rates."""
    if (table := report.get("rates")) is None or report["experiment"].get("reference", REFERENCE) != REFERENCE:
        return
    rows = table[(table.method == label) & (table.evaluation == "matched") & (table.rate > 0)]
    for (dataset, protocol), cells in rows.groupby(["dataset", "protocol"], sort=False):
        step = -(-len(cells) // RATES)
        for _, row in (cells.iloc[::step] if dataset in EMBEDDED else cells.iloc[:0]).iterrows():
            spread = "" if pd.isna(row["std"]) else f" ± {row['std']:.1f}"
            known = not pd.isna(row.difference)
            difference = interval(row.difference_low, row.difference_high, row.difference) if known else NONE
            yield Number((), "", dataset, f"{protocol}, {row.rate:g} missing", f"{row['mean']:.1f}{spread}", difference)


def interval(low: float, high: float, value: float) -> str:
    """A difference in points with its interval; bold where that leaves out zero."""
    text = f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"
    return f"**{text}**" if low > 0 or high < 0 else text


def parameters(method: str) -> str:
    """How many parameters a method has, in the first report that has it: a sentence, or nothing."""
    for name, report in reports().items():
        trials = report.get("trials")
        if trials is None or "parameters" not in trials:
            continue
        rows = trials[(trials.method == method) & trials.dataset.isin(EMBEDDED)].dropna(subset=["parameters"])
        if len(rows) and (row := rows.iloc[0]).parameters:
            return f"With its encoders it has {int(row.parameters):,} parameters on `{row.dataset}` (`{name}`)."
    return ""
