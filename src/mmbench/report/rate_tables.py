"""Accuracy by missing rate, as tables."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from mmbench.evidence.rates import DRAWS
from mmbench.missing import Missing
from mmbench.report.cells import DASH, Cell, Section, interval_text, paper_notes, run_notes, value_text
from mmbench.report.collect import Results
from mmbench.report.computed import device_notes
from mmbench.report.elsewhere import notes as elsewhere_notes
from mmbench.report.rates import Rates
from mmbench.report.rows import Row


def by_rate(results: Results, rates: Rates) -> list[Section]:
    """Accuracies by missing rate: trained at the rate; then trained otherwise and tested at every rate."""
    missing = {row.training: row.missing for row in results.rows}
    # Trained at one rate and tested at others: that is the surface, in rates.csv.
    curves = rates.curves[(rates.curves.evaluation == "matched") | ~(rates.curves.training_rate > 0)]
    made = []
    for key, curve in curves.groupby(["dataset", "protocol", "evaluation", "mask", "training"], sort=False):
        dataset, protocol, evaluation, mask, training = key
        areas = rates.areas
        for name, value in zip(curve.columns, key, strict=False):
            areas = areas[areas[name] == value]
        how = "matched" if evaluation == "matched" else f"robustness, {_trained(missing[training])}"
        title = f"{dataset}, {protocol}{results.mark(dataset)}, missing rates ({mask}), {how}"
        here = [r for r in results.rows if (r.dataset, r.protocol) == (dataset, protocol)]
        if evaluation == "matched":
            rows = [r for r in here if r.missing and not r.missing.train_only and r.missing.family == mask]
        else:
            rows = [r for r in here if r.training == training]
        header, body = _cells(curve, areas.set_index("method"))
        records = [[r for row in rows if row.method == line[0].text for r in row.records] for line in body]
        made.append(Section(title, _notes(curve, how, rows), header, body, records=records))
    return made


def _cells(curve: pd.DataFrame, areas: pd.DataFrame) -> tuple[list[str], list[list[Cell]]]:
    """Header and rows: a method's accuracy by rate, the area under it if there are several, its gain and n."""
    points, methods = sorted(set(curve.rate)), list(dict.fromkeys(curve.method))
    cells = curve.set_index(["method", "rate"])
    header = ["method", *(f"{rate:g}" for rate in points)]
    body = [
        [Cell(m), *(_value(cells.loc[m, r]) if (m, r) in cells.index else Cell(DASH) for r in points)] for m in methods
    ]
    if len(areas):
        header.append("area")
        for i, m in enumerate(methods):
            body[i].append(Cell(interval_text(areas.loc[m], "area"), int(areas.best[m])))
    header += ["gain", "n"]
    last = points[-1]
    for i, m in enumerate(methods):
        gain = areas.loc[m] if len(areas) else cells.loc[m, last] if (m, last) in cells.index else None
        body[i].append(Cell(DASH if gain is None else interval_text(gain, "gain", "+.1f")))
        body[i].append(Cell(str(min(curve[curve.method == m].n))))
    return header, body


def _value(line: pd.Series) -> Cell:
    return Cell(value_text(line), int(line.best))


def _trained(missing: Missing | None) -> str:
    if missing is None:
        return "trained on complete data"
    return f"trained with modality dropout ({missing})" if missing.redraw else f"trained on {missing}"


def _notes(curve: pd.DataFrame, how: str, rows: Sequence[Row]) -> list[str]:
    at = curve.drop_duplicates("rate").sort_values("rate")
    at = at[at.rate > 0]
    if how == "matched":
        notes = ["Trained, epoch chosen and tested at the same nominal missing rate, under one fixed test mask."]
        if at.masked.notna().all():
            notes.append(
                f"Of the test split's cells, {_percent(at.masked)} % are masked; with those missing by nature, it is "
                f"{_percent(at.missing)} %."
                + (
                    f" Nothing is left of {_percent(at['empty'])} % of the samples: they are answered by the class frequencies."
                    if (at["empty"] > 0).any()
                    else ""
                )
            )
    else:
        notes = [
            f"{how.removeprefix('robustness, ').capitalize()}, tested at every rate: mean over {DRAWS} masks, from stored predictions."
        ]
    notes.append(
        "Bold: the best at a rate, and every method that is not separable from it, over groups of test samples and seeds."
    )
    if len(at) > 1:
        low, high = at.rate.min(), at.rate.max()
        notes.append(f"area: under the curve from {low:g} to {high:g}, divided by its width.")
    alone = sorted(set(curve.best_alone.dropna()))
    notes.append(
        f"gain: over the best modality alone ({', '.join(alone)}) under the same masks, "
        + ("in area. " if len(at) > 1 else "at the highest rate. ")
        + "That is late fusion's own answer to the modality, trained likewise, its epoch chosen by the fused accuracy and the modality "
        "where epochs are chosen."
        if alone
        else "gain: none, without late_fusion there is no unimodal model to compare with."
    )
    notes.append(
        "In square brackets: 95 % intervals over seeds and groups of test samples; they do not cover the draw of the mask."
    )
    notes += [*elsewhere_notes(rows), *run_notes(rows), *device_notes(rows)]
    return notes + (paper_notes(rows, bool(curve.reported.notna().any())) if how == "matched" else [])


def _percent(shares: pd.Series) -> str:
    return ", ".join(f"{100 * share:.1f}" for share in shares)
