"""Tables for readers: the sections of a report, and a report in Markdown."""

from __future__ import annotations

import numpy as np
import pandas as pd

from mmbench.data import DATASETS
from mmbench.errors import counted
from mmbench.evidence.accuracy import MEAN
from mmbench.evidence.comparisons import Difference
from mmbench.experiment.plan import left_out
from mmbench.missing import pattern_name, patterns
from mmbench.protocol import PROTOCOLS
from mmbench.report.cells import (
    ARTEFACT_NOTE,
    BEST,
    DASH,
    STAR,
    Cell,
    Section,
    columns,
    difference_text,
    folds_of,
    marked,
    paper_notes,
    run_notes,
    value_text,
)
from mmbench.report.collect import Results
from mmbench.report.comparison_tables import Pairs, few_groups, to_reference, told_apart
from mmbench.report.computed import device_notes
from mmbench.report.diagnostic_tables import of_diagnostics
from mmbench.report.elsewhere import NOTE
from mmbench.report.elsewhere import notes as elsewhere_notes
from mmbench.report.escape import markdown
from mmbench.report.inflation import INFLATION
from mmbench.report.ranking_tables import of_ranks, too_few
from mmbench.report.rate_tables import by_rate
from mmbench.report.rows import Row
from mmbench.report.trained import of_training
from mmbench.report.tuning_tables import of_tuning

UNBALANCED = 3.0
"""How many times as large as the smallest the largest class is, at most, where accuracy alone is enough."""
INFLATION_NOTES = {
    "leakage": "leakage: legacy minus peek, what a split that ignores groups adds",
    "peeking": "peeking: peek minus clean, what choosing the epoch on the test split adds",
    "inflation": "inflation: legacy minus clean, both together",
}


def sections(results: Results) -> list[Section]:
    """For each data set: accuracies by pattern, one table a protocol; what its protocols differ by; accuracies by missing rate."""
    if results.table.empty:
        return _unprepared(results)
    table = results.table.set_index(["metric", "dataset", "protocol", "training", "method", "pattern"]).sort_index()
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
        made += _inflation(results, dataset, [r for r in rows if r.missing is None and not r.tuned])
    made += of_ranks(results)
    made += of_tuning(results, results.tuning) if results.tuning else []
    made += by_rate(results, results.rates) if results.rates else []
    return [*made, *of_diagnostics(results), *_unprepared(results), *of_training(results)]


def _unprepared(results: Results) -> list[Section]:
    reasons = {name: why.partition(";")[0] for name, why in results.experiment.unprepared.items()}  # without the remedy
    rows = [[Cell(name), Cell(f"{DASH}, {left_out(why)}")] for name, why in reasons.items()]
    return [Section("Not run for want of data or weights", [], ["data set", "accuracy"], rows)] if rows else []


def _by_pattern(
    results: Results, values: pd.DataFrame, rows: list[Row], names: dict[str, str], metric: str = "accuracy"
) -> Section:
    """A table of a metric, one row a method and way of training, one column a pattern."""
    dataset, protocol = rows[0].dataset, rows[0].protocol
    trained = len({row.training for row in rows}) > 1
    nothing = pd.Series({"mean": np.nan, "std": np.nan, "reported": np.nan})
    keys = [[(dataset, protocol, r.training, r.method, pattern) for pattern in names] for r in rows]
    cells = [[values.loc[key] if key in values.index else nothing for key in line] for line in keys]
    marked = [[pattern in row.artefacts for pattern in names] for row in rows]
    pairs, every = Pairs(results, dataset, protocol), list(names)[-1 if MEAN not in names else -2]
    best = []
    for j, pattern in enumerate(names):
        means = [np.nan if marked[i][j] else line[j]["mean"] for i, line in enumerate(cells)]
        best.append(
            pairs.best(rows, means, pattern)
            if metric == "accuracy"
            else [m == np.nanmin([np.inf, *means]) for m in means]
        )
    body = [
        [
            Cell(row.method),
            *([Cell(row.training)] if trained else []),
            *(Cell(value_text(value, marked[i][j]), int(best[j][i])) for j, value in enumerate(cells[i])),
            Cell(str(row.runs)),
            Cell(f"{row.parameters:,}" if row.parameters is not None else DASH),
        ]
        for i, row in enumerate(rows)
    ]
    header = ["method", *(["training"] if trained else []), *names.values(), "n", "parameters"]
    notes = _pattern_notes(results, rows, metric)
    if MEAN in names:
        notes.append("mean: over all patterns.")
        if len(names) < (count := len(patterns(results.modalities[dataset]))):
            notes.append(
                f"Of the {count} patterns, only those that show one modality, lack one or show all have a column."
            )
    if metric == "accuracy":
        notes += told_apart(pairs, rows, every)
        if column := to_reference(pairs, rows, results.experiment.grid.reference, every):
            header.insert(-2, column[0])
            for line, cell in zip(body, column[1], strict=True):
                line.insert(-2, cell)
            notes.append(column[2])
        elif any(row.method == (reference := results.experiment.grid.reference) and not row.seeds for row in rows):
            notes.append(f"Nothing is whole of {reference}, so there are no differences to it.")
    notes += [ARTEFACT_NOTE] if any(map(any, marked)) else []
    notes += [*elsewhere_notes(rows), *run_notes(rows), *device_notes(rows)]
    notes += paper_notes(rows, bool(values.loc[(dataset, protocol)].reported.notna().any()))
    if metric == "accuracy" and (test := results.tests.get((dataset, protocol))) and test.imbalance > UNBALANCED:
        header.insert(-2, "macro F1")
        for line, cell in zip(body, _macro_f1(results, rows), strict=True):
            line.insert(-2, cell)
        notes.append(
            f"macro F1: with every modality, in percent, not ranked. The largest class has {test.imbalance:.1f} times as many test "
            "samples as the smallest, of which accuracy says little."
        )
    title = f"{dataset}, {protocol}{results.mark(dataset)}" + ("" if metric == "accuracy" else ", ACER")
    seconds = [f"{row.seconds:.1f}" if row.records else DASH for row in rows]
    return Section(
        title, notes, header, body, seconds, records=[row.records for row in rows], caption=_caption(rows, metric)
    )


def _macro_f1(results: Results, rows: list[Row]) -> list[Cell]:
    """Macro F1 with every modality, a row."""
    every = pattern_name(patterns(results.modalities[rows[0].dataset])[-1])
    table = results.table[(results.table.metric == "macro_f1") & (results.table.pattern == every)]
    found = table.set_index(["dataset", "protocol", "training", "method"])
    return [Cell(value_text(found.loc[(r.dataset, r.protocol, r.training, r.method)])) for r in rows]


def _caption(rows: list[Row], metric: str) -> str:
    """What the numbers of a table are, for a paper."""
    what = "Accuracy" if metric == "accuracy" else "ACER"
    return f"{what} in percent" + (", mean ± standard deviation over n runs." if any(r.runs > 1 for r in rows) else ".")


def _pattern_notes(results: Results, rows: list[Row], metric: str) -> list[str]:
    """What the protocol, the test split and the data are."""
    dataset, protocol = rows[0].dataset, rows[0].protocol
    notes = [f"Protocol {protocol}: {PROTOCOLS[protocol].description}."]
    if metric == "acer":
        notes.append(
            "ACER in percent, the lower the better: the mean of the worst attack's APCER and of BPCER. The lowest is bold."
        )
    if test := results.tests.get((dataset, protocol)):
        notes.append(
            f"{counted(test.size, 'test sample')} in {counted(test.groups, 'group')}, {test.largest:.0f} % of them in the two largest; "
            f"the most frequent class is {test.majority:.1f} % of them."
            + "".join(
                f" {100 * share:.0f} % have no {m}: alone, it answers with the class frequencies there."
                for m, share in test.absent.items()
            )
        )
        notes += few_groups(test.groups)
        if rows[0].folds:
            notes.append(
                f"{rows[0].folds} of {folds_of(rows[0].data)} folds, each tested by models that have not seen it; those of a seed are "
                "one prediction of all that was tested."
            )
        if PROTOCOLS[protocol].disjoint and test.groups == test.size:
            notes.append(
                "Every test sample is a group of its own, as where no groups are given: disjoint by group is no more than disjoint by "
                "sample here, and clean is only stratified by class."
            )
        if protocol == "legacy" and not rows[0].folds and _same_test(results, dataset):
            notes.append("Its test samples are those of clean.")
        published = None if rows[0].folds else _published_test(rows[0].data, protocol, test.classes)
        if published not in (None, test.size) and not rows[0].made_up:
            notes.append(
                f"Not the published split: that has {published} test samples; mmbench data audit {rows[0].data} tells which miss."
            )
    if rows[0].made_up:
        notes.append("The data are a made-up copy: the numbers say that the code runs, and nothing else.")
    if results.experiment.grid.datasets[dataset].cached:
        notes.append(
            "A track of its own: frozen encoders, whose features were computed once, on data that were not augmented."
        )
    return notes


def _published_test(dataset: str, protocol: str, classes: int) -> int | None:
    """How many test samples the published split of a data set has, if that is known and is of as many classes."""
    if dataset not in DATASETS or len(DATASETS[dataset].classes) != classes:
        return None
    return getattr(DATASETS[dataset], "published", {}).get(protocol, {}).get("test")


def _same_test(results: Results, dataset: str) -> bool:
    """Whether both protocols test on the same samples."""
    facts = [results.tests.get((dataset, protocol)) for protocol in ("clean", "legacy")]
    return facts[0] is not None and facts[1] is not None and facts[0].samples == facts[1].samples


def _inflation(results: Results, dataset: str, rows: list[Row]) -> list[Section]:
    """What leaking splits and peeking at the test split add, with every modality, for methods of which the same seeds are done."""
    protocols = {row.protocol for row in rows}
    parts = [part for part, both in INFLATION.items() if protocols.issuperset(both)]
    if not parts:
        return []
    every = pattern_name(patterns(results.modalities[dataset])[-1])
    table = results.inflation[(results.inflation.dataset == dataset) & (results.inflation.pattern == every)]
    values = {(t.method, t.part): Difference(t.mean, t.ci_low, t.ci_high) for t in table.itertuples()}
    rows = [row for row in rows if not row.elsewhere or [r.method for r in rows].count(row.method) > 1]
    predicted = {(row.method, row.protocol): row.predicted for row in rows}
    body, same = [], []
    for method in dict.fromkeys(row.method for row in rows):
        found = [values.get((method, part)) for part in parts]
        body.append([Cell(method), *(Cell(DASH if d is None else difference_text(d, d.separable)) for d in found)])
        runs = [predicted.get((method, protocol), []) for protocol in {p for part in parts for p in INFLATION[part]}]
        same += [method] * (bool(runs[0]) and all(run == runs[0] for run in runs))
    notes = [
        f"In points of accuracy with every modality, with 95 % intervals; {'; '.join(INFLATION_NOTES[p] for p in parts)}. "
        f"{STAR}: the interval leaves out zero."
    ]
    unpaired = [part for part in parts if not table[table.part == part].paired.all()]
    if unpaired:
        notes.append(f"Of other test samples, so not paired and with wide intervals: {', '.join(unpaired)}.")
    elif len(table):
        notes.append("All are differences on the same test samples, which the intervals make use of.")
    if len(table) and any(len(row.seeds) > table.n.min() for row in rows):
        notes.append(
            f"Over the seeds that both protocols have (n: {numbers(table.n)}); the tables of the protocols, whose means are over "
            "all of their seeds, differ by something else."
        )
    notes += device_notes(rows)
    if same:
        notes.append(
            f"The protocols gave identical predictions, so there is nothing to compare: {', '.join(same)}. Where that is every method, "
            "they are one under several names."
        )
    return [Section(f"{dataset}{results.mark(dataset)}, inflation", notes, ["method", *parts], body)]


def numbers(counts: pd.Series) -> str:
    """The different ones of some counts, in order: ``1, 3``."""
    return ", ".join(str(count) for count in sorted(set(counts)))


def header_notes(results: Results) -> list[str]:
    """What holds for the whole report."""
    done = len({record.key for row in results.rows for record in row.records})
    seeds = ", ".join(map(str, sorted({trial.seed for trial in results.experiment.trials})))
    of_folds = ", each of all folds that were run" if any(row.folds for row in results.rows) else ""
    notes = [
        f"Accuracy in percent, mean ± standard deviation over n runs, one a seed (of {seeds}){of_folds}. {BEST} "
        "Intervals, calibration error and all patterns: table.csv; by seed and fold: trials.csv.",
        f"{done} of {results.planned} trials, commit {', '.join(results.commits) or DASH}.",
    ]
    if len(results.commits) > 1:
        notes.append("The trials come from more than one commit: delete results/runs to run them all with one.")
    notes += [NOTE] if any(row.elsewhere for row in results.rows) else []
    return notes + too_few(results) + [f"Stale: {line}." for line in results.stale]


def to_markdown(results: Results) -> str:
    """The report as Markdown."""
    lines = [f"# {markdown(results.experiment.grid.title)}", "", *_paragraphs(header_notes(results))]
    for section in sections(results):
        lines += [f"## {markdown(section.title)}", "", *_paragraphs(section.notes)]
        lines += ["| " + " | ".join(map(markdown, section.header)) + " |"]
        lines += ["|" + " --- |" + (" --- |" if section.words else " ---: |") * (len(section.header) - 1)]
        for row in section.body:
            escaped = [Cell(markdown(cell.text), cell.rank) for cell in row]
            lines.append("| " + " | ".join(marked(cell, "**", "**") for cell in escaped) + " |")
        lines.append("")
    if missing := results.not_run:
        lines += ["## Not run", "", *(f"- {markdown(line)}" for line in missing), ""]
    return "\n".join(lines)


def _paragraphs(notes: list[str]) -> list[str]:
    return [line for note in notes for line in (markdown(note), "")]
