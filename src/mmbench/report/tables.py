"""Tables for readers: the same cells in Markdown, LaTeX and HTML."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from mmbench.missing import pattern_name, patterns
from mmbench.protocol import PROTOCOLS
from mmbench.report.collect import MEAN, Results, Row
from mmbench.report.rates import DRAWS, Rates

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


def columns(modalities: tuple[str, ...], shown: str = "single") -> dict[str, str]:
    """The columns of a table for readers: pattern -> heading; each modality alone, then all; or every pattern and their mean."""
    every = [pattern_name(p) for p in patterns(modalities)]
    if shown == "all":
        return {**{name: name for name in every[:-1]}, every[-1]: "multi", MEAN: MEAN}
    return {**{m: m for m in modalities}, every[-1]: "multi"}


def sections(results: Results) -> list[Section]:
    """For each data set: accuracies by pattern, one table a protocol; what its protocols differ by; accuracies by missing rate."""
    table = results.table.set_index(["metric", "dataset", "protocol", "training", "method", "pattern"])
    accuracy = table.loc["accuracy"]
    made = []
    for dataset, modalities in results.modalities.items():
        names = columns(modalities, results.experiment.grid.patterns)
        # What is trained at a rate for a test at that rate has a table by rate; its patterns are in table.csv.
        rows = [r for r in results.rows if r.dataset == dataset and (r.missing is None or r.missing.train_only)]
        protocols = list(dict.fromkeys(row.protocol for row in rows))
        for protocol in protocols:
            here = [r for r in rows if r.protocol == protocol]
            made.append(_by_pattern(results, accuracy, here, names))
            if "acer" in table.index and (dataset, protocol) in table.loc["acer"].index:
                made.append(_by_pattern(results, table.loc["acer"], here, names, "acer"))
        if {"clean", "legacy"} <= set(protocols):
            made.append(_inflation(accuracy, dataset, [r for r in rows if r.missing is None], names))
    return made + (_by_rate(results, results.rates) if results.rates else [])


def _by_pattern(
    results: Results, values: pd.DataFrame, rows: list[Row], names: dict[str, str], metric: str = "accuracy"
) -> Section:
    dataset, protocol = rows[0].dataset, rows[0].protocol
    trained = len({row.training for row in rows}) > 1
    cells = [[values.loc[(dataset, protocol, r.training, r.method, pattern)] for pattern in names] for r in rows]
    sign = 1 if metric == "accuracy" else -1
    ranks = [_ranks([sign * line[i]["mean"] for line in cells]) for i in range(len(names))]
    body = []
    for i, row in enumerate(rows):
        body.append(
            [
                Cell(row.method),
                *([Cell(row.training)] if trained else []),
                *(Cell(_value(value), ranks[j][i]) for j, value in enumerate(cells[i])),
                Cell(str(len(row.records))),
                Cell(f"{row.parameters:,}" if row.parameters is not None else DASH),
                Cell(f"{row.seconds:.1f}" if row.records else DASH),
            ]
        )
    notes = [f"Protocol {protocol}: {PROTOCOLS[protocol].description}."]
    if metric == "acer":
        notes.append("ACER in percent, the lower the better: the mean of the worst attack's APCER and of BPCER.")
    if test := results.tests.get((dataset, protocol)):
        notes.append(
            f"{test.size} test samples in {test.groups} groups; the most frequent class is {test.majority:.1f} % of them."
            + "".join(
                f" {100 * share:.0f} % have no {m}: alone, it answers with the class frequencies there."
                for m, share in test.absent.items()
            )
        )
    if MEAN in names:
        notes.append("mean: over all patterns.")
    if values.loc[(dataset, protocol)].reported.notna().any():
        notes.append("In brackets: the paper's number.")
    header = ["method", *(["training"] if trained else []), *names.values(), "n", "parameters", "training, s"]
    title = f"{dataset}, {protocol}" + ("" if metric == "accuracy" else ", ACER")
    return Section(title, notes, header, body)


def _inflation(accuracy: pd.DataFrame, dataset: str, rows: list[Row], names: dict[str, str]) -> Section:
    seeds = {(row.method, row.protocol): {r.trial.seed for r in row.records} for row in rows}
    body = []
    for method in dict.fromkeys(row.method for row in rows):
        cells = [Cell(method)]
        paired = bool(seeds[method, "clean"]) and seeds[method, "clean"] == seeds[method, "legacy"]
        for pattern in names:
            clean, legacy = (
                accuracy.loc[(dataset, p, "complete", method, pattern), "mean"] for p in ("clean", "legacy")
            )
            cells.append(Cell(f"{legacy - clean:+.1f}" if paired else DASH))
        body.append(cells)
    note = "Legacy minus clean, in points of accuracy: what a split that ignores groups and an epoch chosen on the test split add."
    return Section(f"{dataset}, inflation", [note], ["method", *names.values()], body)


TRAININGS = {"complete": "trained on complete data"}


def _by_rate(results: Results, rates: Rates) -> list[Section]:
    """Accuracies by missing rate: trained at the rate; then trained otherwise and tested at every rate."""
    made = []
    matched_at = {row.training for row in results.rows if row.missing and not row.missing.train_only}
    curves = rates.curves[~rates.curves.training.isin(matched_at)]  # the others are the surface, in rates.csv
    for key, curve in curves.groupby(["dataset", "protocol", "evaluation", "training"], sort=False):
        dataset, protocol, evaluation, training = key
        chosen = np.logical_and.reduce([rates.areas[c] == v for c, v in zip(curve.columns, key, strict=False)])
        areas = rates.areas[chosen].set_index("method")
        points = sorted(set(curve.rate))
        cells = curve.set_index(["method", "rate"])
        methods = list(dict.fromkeys(curve.method))
        means = [[cells["mean"].get((m, rate), np.nan) for m in methods] for rate in points] + [list(areas.area)]
        ranks = [_ranks(column) for column in means]
        body = []
        for i, m in enumerate(methods):
            line = [Cell(m)]
            for j, rate in enumerate(points):
                line.append(Cell(_value(cells.loc[(m, rate)]) if (m, rate) in cells.index else DASH, ranks[j][i]))
            line.append(Cell(_interval(areas.loc[m], "area"), ranks[-1][i]))
            line.append(Cell(_interval(areas.loc[m], "gain", "+.1f")))
            line.append(Cell(str(min(curve[curve.method == m].n))))
            body.append(line)
        head = ["method", *(f"{rate:g}" for rate in points), "area", "gain", "n"]
        title = f"{dataset}, {protocol}, missing rates, " + (
            "matched" if evaluation == "matched" else f"robustness, {TRAININGS.get(training, training)}"
        )
        made.append(Section(title, _rate_notes(results, rates, key, curve), head, body))
    return made


def _rate_notes(results: Results, rates: Rates, key: tuple, curve: pd.DataFrame) -> list[str]:
    dataset, _, evaluation, training = key
    low, high = (f"{r:g}" for r in (min(curve.rate[curve.rate > 0]), max(curve.rate)))
    if evaluation == "matched":
        notes = [
            f"Trained, epochs chosen and tested at the same missing rate, under one fixed mask. {_realised(rates, dataset)}"
        ]
    else:
        how = "complete data" if training == "complete" else f"modality dropout ({training})"
        notes = [f"Trained on {how}, tested at every rate: mean over {DRAWS} masks, from stored predictions."]
    notes.append(
        f"area: under the curve from {low} to {high}, divided by its width, with its 95 % interval. gain: the area over that of the "
        "best modality alone (of late fusion trained likewise, chosen on the split on which epochs are) under the same masks."
    )
    if curve.reported.notna().any():
        notes.append("In brackets: the paper's number.")
    return notes


def _realised(rates: Rates, dataset: str) -> str:
    """What the fixed test masks come to, rate by rate."""
    shares = {rate: share for (name, rate), share in rates.tests.items() if name == dataset and rate > 0}

    def across(name: str) -> str:
        return ", ".join(f"{100 * share[name]:.1f}" for share in shares.values())

    return (
        f"Of the test split's cells, {across('masked')} % are masked, {across('missing')} % missing with those that are so by nature. "
        f"Nothing is left of {across('empty')} % of the samples: they are answered by the class frequencies."
    )


def _interval(line: pd.Series, name: str, form: str = ".1f") -> str:
    if np.isnan(line[name]):
        text = DASH
    else:
        text = f"{line[name]:{form}} [{line[f'{name}_low']:{form}}, {line[f'{name}_high']:{form}}]"
    return f"{text} ({line['reported']:.2f})" if name == "area" and not np.isnan(line["reported"]) else text


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
    if missing := results.not_run:
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
    lines += [f"% not run: {line}" for line in results.not_run]
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
