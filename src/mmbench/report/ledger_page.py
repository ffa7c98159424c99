"""The page of the ledger, in Markdown: by data set, methods against the papers that report them, and what was measured here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from mmbench.data import DATASETS
from mmbench.report.cells import DASH
from mmbench.report.escape import markdown
from mmbench.report.ledger import Entry, Ledger
from mmbench.report.reported import ALL, READ, Paper

METRIC_NAMES = {
    "accuracy": "accuracy", "macro_f1": "macro F1", "unweighted_accuracy": "unweighted accuracy (the mean of the classes' recalls)",
    "acer": "ACER (of attacks; less is better)",
}  # fmt: skip
SECOND_HAND = "°"
HEAD = f"""# What papers report, and what was measured here

For readers who wonder which number of a method is its own: the same method on the same data set has as many numbers as there are
papers that ran it. Here each stands under the paper that prints it ([ledger.csv](ledger.csv) says where in it), and ours beside
it, if a committed report has the method on the data set.

Numbers are in percent, with two decimals whatever the paper has, and its deviation. **Bold**: the paper's own method.
{SECOND_HAND}: quoted by others, since the paper could not be read. In round brackets, what sets a number apart from others of its
paper; in square ones, the 95 % interval of ours.

Numbers under different papers are **not** comparable: encoders, splits and the choice of the epoch differ, [as far as that is
known](#papers). Ours are of the protocol `clean` where there are several: no group is in training and in test, and the epoch is
chosen on a validation part. A difference to ours is given only where the trials were made in the paper's setting, as far as the
suite can set it, and its interval covers the uncertainty of ours alone.

To add a number: a line in [reported/others.csv](reported/others.csv), its paper in [reported/papers.csv](reported/papers.csv)
([columns](reported/README.md)), then `mmbench ledger`, which writes this page and the file anew; neither is edited by hand. Enter
what you have read, not what you remember.
"""


def to_markdown(made: Ledger) -> str:
    """``ledger.md``."""
    parts = [HEAD]
    for dataset in DATASETS:
        entries = [entry for entry in made.entries if entry.number.dataset == dataset]
        if entries:
            parts.append("\n\n".join(_data_set(dataset, entries)) + "\n")
    parts.append("\n\n".join(_papers(made)) + "\n")
    return "\n".join(parts)


def _data_set(dataset: str, entries: list[Entry]) -> Iterator[str]:
    yield f"## {dataset}"
    ours = sum(entry.ours is not None for entry in entries)
    reasons = dict.fromkeys(entry.why for entry in entries if entry.why)
    without = f"; without ours: {', '.join(reasons)}" if reasons else ""
    counted = len({entry.number.paper for entry in entries})
    papers = "a paper" if counted == 1 else f"{counted} papers"
    yield f"{len(entries)} numbers of {papers}, {ours} with ours{without}."
    for metric in dict.fromkeys(entry.number.metric for entry in entries):
        of_metric = [entry for entry in entries if entry.number.metric == metric]
        complete = [entry for entry in of_metric if entry.number.missing_rate is None]
        every = [entry for entry in complete if entry.number.modalities == ALL]
        parts = [entry for entry in complete if entry.number.modalities != ALL]
        rates = [entry for entry in of_metric if entry.number.missing_rate is not None]
        name = METRIC_NAMES[metric][0].upper() + METRIC_NAMES[metric][1:]
        if every:
            yield f"**{name}, every modality**"
            yield _table(["method", *_columns(every, _paper), "ours"], _by_paper(every))
        if parts:
            yield f"**{name}, fewer modalities**"
            shown = _columns(parts, lambda entry: entry.number.modalities)
            yield _table(["method", "paper", *shown], _by(parts, shown, lambda entry: entry.number.modalities))
        if rates:
            yield f"**{name}, by the rate at which modalities are missing, in training and test**"
            found = sorted({entry.number.missing_rate or 0.0 for entry in rates})
            shown = [f"{rate:g}" for rate in found]
            yield _table(["method", "paper", *shown], _by(rates, shown, lambda entry: f"{entry.number.missing_rate:g}"))
    if any(entry.comparable for entry in entries):
        yield "**Ours, made as the paper's were**"
        yield _table(["method", "shown", "paper", "ours minus the paper's"], _differences(entries))


def _paper(entry: Entry) -> str:
    return entry.number.paper


def _columns(entries: list[Entry], of: Callable[[Entry], str]) -> list[str]:
    return list(dict.fromkeys(of(entry) for entry in entries))


def _methods(entries: list[Entry]) -> list[str]:
    """Methods in the order in which the papers list them: what is compared with comes first."""
    return _columns(entries, lambda entry: entry.number.method)


def _by_paper(entries: list[Entry]) -> Iterator[list[str]]:
    """A row a method, a column a paper, and ours."""
    papers = _columns(entries, _paper)
    for method in _methods(entries):
        own = [entry for entry in entries if entry.number.method == method]
        cells = [_cells(entry for entry in own if entry.number.paper == paper) for paper in papers]
        yield [method, *cells, _ours(own)]


def _by(entries: list[Entry], shown: Sequence[str], of: Callable[[Entry], str]) -> Iterator[list[str]]:
    """A row a method and paper, and one of ours where there is one; a column a pattern or rate."""
    for method in _methods(entries):
        own = [entry for entry in entries if entry.number.method == method]
        for paper in _columns(own, _paper):
            rows = [entry for entry in own if entry.number.paper == paper]
            yield [method, paper, *(_cells(entry for entry in rows if of(entry) == column) for column in shown)]
        if any(entry.ours for entry in own):
            yield [method, "ours", *(_ours([entry for entry in own if of(entry) == column]) for column in shown)]


def _cells(entries: Iterator[Entry]) -> str:
    return ", ".join(map(_reported, entries)) or DASH


def _reported(entry: Entry) -> str:
    number = entry.number
    text = f"{number.value:.2f}" + (f" ± {number.std:.2f}" if number.std is not None else "")
    text += SECOND_HAND * (entry.paper.read == "quoted")
    text = f"**{text}**" if entry.own else text
    return f"{text} ({markdown(number.variant)})" if number.variant else text


def _ours(entries: Sequence[Entry]) -> str:
    ours = next((entry.ours for entry in entries if entry.ours is not None), None)
    return f"{ours.mean:.2f} [{ours.low:.2f}, {ours.high:.2f}]" if ours is not None else DASH


def _differences(entries: list[Entry]) -> Iterator[list[str]]:
    for entry in entries:
        if entry.comparable:
            told = entry.columns()
            interval = f"[{told['difference_low']}, {told['difference_high']}]"
            yield [entry.number.method, entry.number.modalities, entry.number.paper, f"{told['difference']} {interval}"]


def _papers(made: Ledger) -> Iterator[str]:
    yield "## Papers"
    used = {entry.number.paper for entry in made.entries}
    rows = [
        [name, _source(paper), f"{READ[paper.read]}: {markdown(paper.seen)}", markdown(paper.setting)]
        for name, paper in made.papers.items()
        if name in used
    ]
    yield _table(
        ["paper", "what", "its numbers were read", "how they were made, where that is known to differ from here"], rows
    )
    yield "## Papers without a number here"
    yield (
        "A number that could not be read is not entered, whatever one may remember of it; nor is one from notes or reviews that a "
        "program wrote."
    )
    none = [[name, _source(paper), markdown(paper.seen)] for name, paper in made.papers.items() if name not in used]
    yield _table(["paper", "what", "why"], none)


def _source(paper: Paper) -> str:
    link = f", [{paper.arxiv}](https://arxiv.org/abs/{paper.arxiv})" if paper.arxiv else ""
    return f"{markdown(paper.title)}, {markdown(paper.venue)}{link}"


def _table(header: Sequence[str], rows: Iterator[list[str]] | list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
