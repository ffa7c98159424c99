"""Tables for readers: the same cells in Markdown, LaTeX and HTML."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from mmbench.evidence.accuracy import MEAN
from mmbench.evidence.rates import DRAWS
from mmbench.experiment.plan import left_out
from mmbench.missing import Missing, pattern_name, patterns
from mmbench.protocol import PROTOCOLS
from mmbench.report.collect import Results, Row
from mmbench.report.rates import Rates

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
    if results.table.empty:
        return _unprepared(results)
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
        complete = [r for r in rows if r.missing is None]
        if {"clean", "legacy"} <= {r.protocol for r in complete}:
            made.append(_inflation(results, accuracy, dataset, complete, names))
    return made + (_by_rate(results, results.rates) if results.rates else []) + _unprepared(results)


def _published_test(dataset: str, protocol: str, classes: int) -> int | None:
    """How many test samples the published split of a data set has, if that is known and is of as many classes."""
    from mmbench.data import DATASETS

    if dataset not in DATASETS or len(DATASETS[dataset].classes) != classes:
        return None
    return getattr(DATASETS[dataset], "published", {}).get(protocol, {}).get("test")


def _unprepared(results: Results) -> list[Section]:
    reasons = {name: why.partition(";")[0] for name, why in results.experiment.unprepared.items()}  # without the remedy
    rows = [[Cell(name), Cell(f"{DASH}, {left_out(why)}")] for name, why in reasons.items()]
    return [Section("Not run for want of data or weights", [], ["data set", "accuracy"], rows)] if rows else []


def _by_pattern(
    results: Results, values: pd.DataFrame, rows: list[Row], names: dict[str, str], metric: str = "accuracy"
) -> Section:
    dataset, protocol = rows[0].dataset, rows[0].protocol
    trained = len({row.training for row in rows}) > 1
    nothing = pd.Series({"mean": np.nan, "std": np.nan, "reported": np.nan})
    keys = [[(dataset, protocol, r.training, r.method, pattern) for pattern in names] for r in rows]
    cells = [[values.loc[key] if key in values.index else nothing for key in line] for line in keys]
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
            f"{test.size} test samples in {test.groups} groups, {test.largest:.0f} % of them in the two largest; the most frequent "
            f"class is {test.majority:.1f} % of them."
            + "".join(
                f" {100 * share:.0f} % have no {m}: alone, it answers with the class frequencies there."
                for m, share in test.absent.items()
            )
        )
        published = _published_test(dataset, protocol, test.classes)
        if published not in (None, test.size) and not rows[0].made_up:
            notes.append(
                f"Not the published split: that has {published} test samples. mmbench data audit {dataset} tells which are missing."
            )
    if rows[0].made_up:
        notes.append("The data are a made-up copy: the numbers say that the code runs, and nothing else.")
    if MEAN in names:
        notes.append("mean: over all patterns.")
    if results.experiment.grid.datasets[dataset].cached:
        notes.append(
            "A track of its own: frozen encoders, whose features were computed once, on data that were not augmented."
        )
    if values.loc[(dataset, protocol)].reported.notna().any():
        notes.append("In brackets: the paper's number.")
    header = ["method", *(["training"] if trained else []), *names.values(), "n", "parameters", "training, s"]
    title = f"{dataset}, {protocol}{results.mark(dataset)}" + ("" if metric == "accuracy" else ", ACER")
    return Section(title, notes, header, body)


def _inflation(
    results: Results, accuracy: pd.DataFrame, dataset: str, rows: list[Row], names: dict[str, str]
) -> Section:
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
    return Section(f"{dataset}{results.mark(dataset)}, inflation", [note], ["method", *names.values()], body)


def _by_rate(results: Results, rates: Rates) -> list[Section]:
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
        areas = areas.set_index("method")
        points, methods = sorted(set(curve.rate)), list(dict.fromkeys(curve.method))
        cells = curve.set_index(["method", "rate"])
        ranks = [_ranks([cells["mean"].get((m, rate), np.nan) for m in methods]) for rate in points]
        header = ["method", *(f"{rate:g}" for rate in points)]
        body = [
            [Cell(m)]
            + [
                Cell(_value(cells.loc[m, r]) if (m, r) in cells.index else DASH, ranks[j][i])
                for j, r in enumerate(points)
            ]
            for i, m in enumerate(methods)
        ]
        if len(areas):
            header.append("area")
            rank = _ranks([areas.area[m] for m in methods])
            for i, m in enumerate(methods):
                body[i].append(Cell(_interval(areas.loc[m], "area"), rank[i]))
        header += ["gain", "n"]
        last = points[-1]
        for i, m in enumerate(methods):
            gain = areas.loc[m] if len(areas) else cells.loc[m, last] if (m, last) in cells.index else None
            body[i].append(Cell(DASH if gain is None else _interval(gain, "gain", "+.1f")))
            body[i].append(Cell(str(min(curve[curve.method == m].n))))
        how = "matched" if evaluation == "matched" else f"robustness, {_trained(missing[training])}"
        title = f"{dataset}, {protocol}{results.mark(dataset)}, missing rates ({mask}), {how}"
        made.append(Section(title, _rate_notes(curve, how), header, body))
    return made


def _trained(missing: Missing | None) -> str:
    if missing is None:
        return "trained on complete data"
    return f"trained with modality dropout ({missing})" if missing.redraw else f"trained on {missing}"


def _rate_notes(curve: pd.DataFrame, how: str) -> list[str]:
    at = curve.drop_duplicates("rate").sort_values("rate")
    at = at[at.rate > 0]
    if how == "matched":
        notes = ["Trained, epoch chosen and tested at the same nominal missing rate, under one fixed test mask."]
        if at.masked.notna().all():
            notes.append(
                f"Of the test split's cells, {_percent(at.masked)} % are masked; with those missing by nature, it is "
                f"{_percent(at.missing)} %. Nothing is left of {_percent(at['empty'])} % of the samples: they are answered by the "
                "class frequencies."
            )
    else:
        notes = [
            f"{how.removeprefix('robustness, ').capitalize()}, tested at every rate: mean over {DRAWS} masks, from stored predictions."
        ]
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
    if curve.reported.notna().any():
        notes.append("In brackets: the paper's number.")
    return notes


def _percent(shares: pd.Series) -> str:
    return ", ".join(f"{100 * share:.1f}" for share in shares)


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
