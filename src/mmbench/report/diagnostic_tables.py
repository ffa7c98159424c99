"""Diagnostics as tables: what each modality gives, what they give together, and how sure a method may be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from mmbench.evidence.information import MOST_CLASSES
from mmbench.missing import pattern_name
from mmbench.report.cells import ARTEFACT, DASH, STAR, Cell, Section
from mmbench.report.collect import Results
from mmbench.report.comparing import trained_alone
from mmbench.report.computed import device_notes
from mmbench.report.elsewhere import notes as elsewhere_notes
from mmbench.report.rates import REFERENCE
from mmbench.report.rows import Row

MOST_PAIRS = 3
"""Of modalities, in a table; beyond, they are in ``diagnostics.csv``."""
MOST_INTERVALS = 4
"""Columns of a kind that have their intervals, in a table; beyond, a star says what they say."""

Found = dict[tuple[str, str, str], Any]
"""(method, diagnostic, of what) -> a line of ``Results.diagnostics``."""


def of_diagnostics(results: Results) -> list[Section]:
    """Two tables for each data set: of its first protocol, by models that were trained on complete data where there are any."""
    made = []
    for dataset, modalities in results.modalities.items():
        here = [row for row in results.rows if row.dataset == dataset]
        first = next((row for row in here if row.missing is None), here[0])
        rows = [row for row in here if (row.protocol, row.training) == (first.protocol, first.training)]
        lines = results.diagnostics
        lines = lines[
            (lines.dataset == dataset) & (lines.protocol == first.protocol) & (lines.training == first.training)
        ]
        found: Found = {(line.method, line.diagnostic, line.of): line for line in lines.itertuples()}
        if found:
            trained = "" if first.missing is None else f", trained {first.training}"
            where = f"{dataset}, {first.protocol}{results.mark(dataset)}{trained}"
            made += [_apart(where, rows, modalities, found), _together(results, where, rows, modalities, found)]
    return made


def _apart(where: str, rows: Sequence[Row], modalities: tuple[str, ...], found: Found) -> Section:
    """What each modality gives."""
    every = pattern_name(modalities)
    columns = {"information": [_value(found.get((r.method, "information", every)), ".2f", True) for r in rows]}
    for m in modalities:
        columns[f"{m} adds"] = [_value(found.get((r.method, "contribution", m)), ".1f") for r in rows]
    columns["equity"] = [_value(found.get((r.method, "equity", "")), ".2f") for r in rows]
    notes = [
        "information: nats by which the answer with every modality is better than the class frequencies of training, with its 95 % "
        "interval; below zero, a method is so sure of wrong answers that it is worse than knowing nothing.",
        "adds: points of accuracy that a modality contributes, the mean over all orders in which they may be added (Shapley); they "
        "sum to the accuracy minus that of always answering with training's most frequent class. equity: 1 if all contribute alike, "
        "0 if one does all.",
    ]
    if any(diagnostic == "laziness" for _, diagnostic, _ in found):
        room = len(modalities) <= MOST_INTERVALS
        for m in modalities:
            lines = [found.get((r.method, "laziness", m)) for r in rows]
            columns[f"{m} lazy"] = [_value(line, "+.1f", room) + _star(line) * (not room) for line in lines]
        untuned = next((row for row in rows if not row.tuned), rows[0])
        alone = trained_alone(untuned, {row.method for row in rows}) or untuned.method
        tuned = ", tuned where the method is" if any(row.tuned for row in rows) else ""
        intervals = "with 95 % intervals" if room else f"{STAR}: its 95 % interval leaves out zero"
        notes.append(
            f"lazy: points by which {alone}'s model of that modality, trained alone{tuned}, beats what the method makes of "
            f"the modality alone, paired, {intervals}. Above zero, training them jointly left it behind."
        )
    notes += _artefact_note(found)
    return _section(f"{where}, what each modality gives", notes, rows, columns)


def _together(results: Results, where: str, rows: Sequence[Row], modalities: tuple[str, ...], found: Found) -> Section:
    """What modalities give together, and how sure a method may be."""
    columns: dict[str, list[str]] = {}
    notes = []
    pairs = [f"{a}+{b}" for a, b in combinations(modalities, 2)]
    if len(pairs) <= MOST_PAIRS:
        for pair in pairs:
            parts = [
                [_value(found.get((r.method, f"pid_{part}", pair)), ".2f") for part in ("synergy", "redundancy")]
                for r in rows
            ]
            columns[pair] = [DASH if DASH in both else " / ".join(both) for both in parts]
        note = (
            f"{', '.join(pairs)}: synergy / redundancy, in nats, of the predictions from one modality each: what only both together "
            "tell of the class, and what either tells (Bertschinger et al. 2014). Counts overstate synergy, the more the fewer "
            "samples: compare methods, not with zero."
        )
        if results.tests[rows[0].dataset, rows[0].protocol].classes > MOST_CLASSES:
            note += f" All classes but the {MOST_CLASSES - 1} most frequent ones are taken as one."
        notes.append(note)
    columns["lost"] = [_value(found.get((r.method, "consistency", "")), ".1f", True) for r in rows]
    for heading, shown in (("ECE of one", "1"), ("ECE", str(len(modalities)))):
        columns[heading] = [_value(found.get((r.method, "ece", shown)), ".1f") for r in rows]
    columns["risk"] = [_value(found.get((r.method, "aurc", str(len(modalities)))), ".1f") for r in rows]
    notes.append(
        "lost: percent of the samples that are right with some modalities and wrong with more, with its 95 % interval. ECE: "
        "calibration error in points, with every modality, and with any single one; risk: area under risk and coverage in percent, "
        "the error to expect where the surest samples are answered first. The lower, the better."
    )
    for heading, column, note in _where_measured(rows, pairs, found):
        columns[heading] = column
        notes.append(note)
    notes += _artefact_note(found)
    return _section(f"{where}, together, and how sure", notes, rows, columns)


def _where_measured(rows: Sequence[Row], pairs: Sequence[str], found: Found) -> Iterator[tuple[str, list[str], str]]:
    """Columns that not every experiment has: heading, cells, and how to read them."""
    masks = list(dict.fromkeys(of for _, diagnostic, of in found if diagnostic == "effective_robustness"))
    for mask in masks[:1]:
        note = (
            f"robust: effective robustness, points of accuracy over {REFERENCE}'s as modalities go missing ({mask} masks), beyond "
            "the lead where none does, summed over the rates. Who starts low has less to lose: read it beside the accuracy."
        )
        yield "robust", [_value(found.get((r.method, "effective_robustness", mask)), "+.1f", True) for r in rows], note
    if any(diagnostic == "gradient_balance" for _, diagnostic, _ in found):
        note = (
            "gradients: how unevenly encoders are driven, the coefficient of variation of their gradients' norms, mean over epochs; "
            "0: all alike. After the arrow: once the method has modulated them."
        )
        kinds = "gradient_balance", "gradient_balance_modulated"
        both = [[_value(found.get((r.method, kind, "")), ".2f") for kind in kinds] for r in rows]
        yield "gradients", [" → ".join(v for v in values if v != DASH) or DASH for values in both], note
    if any(diagnostic == "modality_gap" for _, diagnostic, _ in found):
        note = (
            "gap: distance between the mean features of two modalities, of length one each, on the test split (Liang et al. 2022)"
            + (", mean over pairs." if len(pairs) > 1 else ".")
        )
        gaps = [[line.value for pair in pairs if (line := found.get((r.method, "modality_gap", pair)))] for r in rows]
        yield "gap", [f"{np.mean(values):.2f}" if values else DASH for values in gaps], note


def _section(title: str, notes: list[str], rows: Sequence[Row], columns: dict[str, list[str]]) -> Section:
    body = [[Cell(row.method), *(Cell(column[i]) for column in columns.values())] for i, row in enumerate(rows)]
    notes = [
        *notes,
        *elsewhere_notes(rows),
        *device_notes(rows),
        "All of them, and under every protocol: diagnostics.csv.",
    ]
    return Section(title, notes, ["method", *columns], body, records=[row.records for row in rows])


def _value(line: Any, form: str, interval: bool = False) -> str:
    """A value, with its interval if asked, marked where an artefact enters; a dash where there is none."""
    mark = f" {ARTEFACT}" if line is not None and line.artefact else ""
    if line is None or np.isnan(line.value):
        return f"{DASH}{mark}"
    between = f" [{line.ci_low:{form}}, {line.ci_high:{form}}]" if interval else ""
    return f"{line.value:{form}}{between}{mark}"


def _star(line: Any) -> str:
    """A star where the interval of a value leaves out zero."""
    return f" {STAR}" * (line is not None and (line.ci_low > 0 or line.ci_high < 0))


def _artefact_note(found: Found) -> list[str]:
    if not any(line.artefact for line in found.values()):
        return []
    return [
        f"{ARTEFACT}: the score of a modality alone enters that is an artefact of its role in the method. It says nothing of "
        "laziness, which is not given there."
    ]
