"""Tables for readers: the same cells in Markdown, LaTeX and HTML."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from mmbench.missing import pattern_name, patterns
from mmbench.protocol import PROTOCOLS
from mmbench.report.collect import Results, Row, gaps

DASH = "–"


@dataclass(frozen=True)
class Cell:
    """A table's cell: its text, and its rank in the column (1: best, 2: second, 0: neither)."""

    text: str
    rank: int = 0


@dataclass(frozen=True)
class Section:
    """A table with its title and the sentences that belong to it."""

    title: str
    notes: list[str]
    header: list[str]
    body: list[list[Cell]]


def columns(modalities: tuple[str, ...]) -> dict[str, str]:
    """The columns of a table for readers: pattern -> heading; each modality alone, then all."""
    return {**{m: m for m in modalities}, pattern_name(patterns(modalities)[-1]): "multi"}


def sections(results: Results) -> list[Section]:
    """One table of accuracies a data set and protocol, then one of the inflation a data set with both protocols."""
    accuracy = results.table[results.table.metric == "accuracy"].set_index(["dataset", "protocol", "method", "pattern"])
    made = []
    for dataset, modalities in results.modalities.items():
        rows = [row for row in results.rows if row.dataset == dataset]
        protocols = list(dict.fromkeys(row.protocol for row in rows))
        for protocol in protocols:
            made.append(_accuracies(results, accuracy, [r for r in rows if r.protocol == protocol], modalities))
        if {"clean", "legacy"} <= set(protocols):
            made.append(_inflation(accuracy, dataset, rows, modalities))
    return made


def _accuracies(results: Results, accuracy: pd.DataFrame, rows: list[Row], modalities: tuple[str, ...]) -> Section:
    dataset, protocol = rows[0].dataset, rows[0].protocol
    names = columns(modalities)
    means = {pattern: [accuracy.loc[(dataset, protocol, r.method, pattern), "mean"] for r in rows] for pattern in names}
    ranks = {pattern: _ranks(values) for pattern, values in means.items()}
    body = []
    for i, row in enumerate(rows):
        cells = [Cell(row.method)]
        for pattern in names:
            cells.append(Cell(_value(accuracy.loc[(dataset, protocol, row.method, pattern)]), ranks[pattern][i]))
        cells.append(Cell(str(len(row.records))))
        cells.append(Cell(f"{row.parameters:,}" if row.parameters is not None else DASH))
        cells.append(Cell(f"{row.seconds:.1f}" if row.records else DASH))
        body.append(cells)
    notes = [f"Protocol {protocol}: {PROTOCOLS[protocol].description}."]
    if test := results.tests.get((dataset, protocol)):
        notes.append(
            f"{test.size} test samples in {test.groups} groups; the most frequent class is {test.majority:.1f} % of them."
            + "".join(
                f" {100 * share:.0f} % have no {m}: alone, it answers with the class frequencies there."
                for m, share in test.absent.items()
            )
        )
    if accuracy.loc[(dataset, protocol)].reported.notna().any():
        notes.append("In brackets: the paper's number.")
    return Section(f"{dataset}, {protocol}", notes, ["method", *names.values(), "n", "parameters", "training, s"], body)


def _inflation(accuracy: pd.DataFrame, dataset: str, rows: list[Row], modalities: tuple[str, ...]) -> Section:
    names = columns(modalities)
    seeds = {(row.method, row.protocol): {r.trial.seed for r in row.records} for row in rows}
    body = []
    for method in dict.fromkeys(row.method for row in rows):
        cells = [Cell(method)]
        paired = bool(seeds[method, "clean"]) and seeds[method, "clean"] == seeds[method, "legacy"]
        for pattern in names:
            clean, legacy = (accuracy.loc[(dataset, p, method, pattern), "mean"] for p in ("clean", "legacy"))
            cells.append(Cell(f"{legacy - clean:+.1f}" if paired else DASH))
        body.append(cells)
    note = "Legacy minus clean, in points of accuracy: what a split that ignores groups and an epoch chosen on the test split add."
    return Section(f"{dataset}, inflation", [note], ["method", *names.values()], body)


def _value(line: pd.Series) -> str:
    if np.isnan(line["mean"]):
        text = DASH
    else:
        text = f"{line['mean']:.1f}" + ("" if np.isnan(line["std"]) else f" ± {line['std']:.1f}")
    return text if np.isnan(line["reported"]) else f"{text} ({line['reported']:.2f})"


def _ranks(values: list[float]) -> list[int]:
    """1 for the best, 2 for the second, 0 for the rest; equal values share a rank."""
    order = sorted({v for v in values if not np.isnan(v)}, reverse=True)[:2]
    return [order.index(v) + 1 if v in order else 0 for v in values]


def header_notes(results: Results) -> list[str]:
    """What holds for the whole report."""
    done = sum(len(row.records) for row in results.rows)
    seeds = ", ".join(map(str, results.experiment.grid.seeds))
    notes = [
        f"Accuracy in percent, mean ± standard deviation over n seeds (of {seeds}). Best bold, second underlined. "
        "Intervals, macro F1, calibration error and all patterns: table.csv.",
        f"{done} of {len(results.experiment.trials)} trials, commit {', '.join(results.commits) or DASH}.",
    ]
    if len(results.commits) > 1:
        notes.append("The trials come from more than one commit: delete results/runs to run them all with one.")
    return notes


def to_markdown(results: Results) -> str:
    """The report as Markdown."""
    lines = [f"# {_title(results)}", "", *_paragraphs(header_notes(results))]
    for section in sections(results):
        lines += [f"## {section.title}", "", *_paragraphs(section.notes)]
        lines += ["| " + " | ".join(section.header) + " |", "|" + " --- |" + " ---: |" * (len(section.header) - 1)]
        lines += ["| " + " | ".join(_mark(c, "**", "**", "<u>", "</u>") for c in row) + " |" for row in section.body]
        lines.append("")
    if missing := gaps(results.rows):
        lines += ["## Not run", "", *(f"- {line}" for line in missing), ""]
    return "\n".join(lines)


def to_latex(results: Results) -> str:
    """The tables for a paper that loads booktabs."""
    lines = [f"% {note}" for note in [_title(results), *header_notes(results)]]
    for section in sections(results):
        lines += ["", f"% {section.title}", *(f"% {note}" for note in section.notes)]
        lines += [r"\begin{tabular}{l" + "r" * (len(section.header) - 1) + "}", r"\toprule"]
        lines += [" & ".join(_tex(h) for h in section.header) + r" \\", r"\midrule"]
        for row in section.body:
            escaped = [Cell(_tex(c.text), c.rank) for c in row]
            lines.append(" & ".join(_mark(c, r"\textbf{", "}", r"\underline{", "}") for c in escaped) + r" \\")
        lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [f"% not run: {line}" for line in gaps(results.rows)]
    return "\n".join(lines) + "\n"


def _title(results: Results) -> str:
    return " ".join(results.experiment.grid.title.split())


def _paragraphs(notes: list[str]) -> list[str]:
    return [line for note in notes for line in (note, "")]


def _mark(cell: Cell, *marks: str) -> str:
    if cell.rank == 0:
        return cell.text
    before, after = marks[:2] if cell.rank == 1 else marks[2:]
    return f"{before}{cell.text}{after}"


def _tex(text: str) -> str:
    for plain, escaped in (("_", r"\_"), ("%", r"\%"), ("±", r"$\pm$"), ("–", "--")):
        text = text.replace(plain, escaped)
    return text
