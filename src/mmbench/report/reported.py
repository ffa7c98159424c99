"""All numbers that papers print, as one list.

``results/reported`` has the tables of MLA and DMRNet in files of their own, whose numbers stand beside trials (``papers``), and every
other number in ``others.csv``, a line each. ``papers.csv`` says what a paper is, and where it was read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mmbench.data import DATASETS
from mmbench.evidence.accuracy import MEAN
from mmbench.missing import pattern_name, patterns
from mmbench.report.csv_lines import Line, lines_of

ALL = "multi"
"""What was shown to a model: every modality of the data set."""
MEAN_INCOMPLETE = "mean incomplete"
"""What was shown: the mean over all patterns but the one that has everything."""
METRICS = ("accuracy", "macro_f1", "unweighted_accuracy", "acer")
READ = {
    "text": "in a copy of the paper's text",
    "release": "in the README of the authors' code",
    "quoted": "quoted by others, the paper could not be read",
    "none": "no number of it could be found and checked",
}
"""How a paper's numbers were read."""
PAPER_COLUMNS = ("paper", "title", "venue", "arxiv", "introduces", "read", "seen", "setting")
NUMBER_COLUMNS = (
    "paper", "dataset", "method", "variant", "modalities", "missing_rate", "metric", "value", "std", "table", "row", "column",
)  # fmt: skip


@dataclass(frozen=True)
class Paper:
    """A paper.

    Attributes:
        paper: what the files call it.
        title: its title.
        venue: where it appeared, with the year.
        arxiv: its number there, if it has one.
        introduces: the methods that are its own, as the suite calls them.
        read: how its numbers were read, one of ``READ``.
        seen: where; of a paper without numbers, why there are none.
        setting: how its numbers were made, as far as that is known to differ from trials made here.
    """

    paper: str
    title: str
    venue: str
    arxiv: str
    introduces: tuple[str, ...]
    read: str
    seen: str
    setting: str


@dataclass(frozen=True)
class Number:
    """A number that a paper prints.

    Attributes:
        paper: who prints it.
        dataset: as the suite calls it.
        method: as the suite calls it, or would; it need not have it.
        variant: what sets it apart from other numbers of the same method there, such as the encoders; may be empty.
        modalities: what was shown: ``ALL``, ``MEAN``, ``MEAN_INCOMPLETE``, or a pattern such as "audio" or "audio+text".
        missing_rate: at which modalities were missing, in training and test; None if they were complete.
        metric: one of ``METRICS``.
        value: in percent.
        std: as printed; None if there is none.
        table: of the paper.
        row: of the table, as printed.
        column: of the table, as printed.
    """

    paper: str
    dataset: str
    method: str
    variant: str
    modalities: str
    missing_rate: float | None
    metric: str
    value: float
    std: float | None
    table: str
    row: str
    column: str


def read_papers(folder: Path) -> dict[str, Paper]:
    """The papers of ``papers.csv``, by name.

    Raises:
        DataError: the file is malformed, or has a paper twice.
    """
    papers: dict[str, Paper] = {}
    for line in lines_of(folder / "papers.csv", PAPER_COLUMNS):
        name = line.name("paper", line.text("paper"))
        if name in papers:
            raise line.error("paper", "each paper once")
        papers[name] = Paper(
            paper=name,
            title=line.text("title"),
            venue=line.text("venue"),
            arxiv=line.cells["arxiv"],
            introduces=tuple(line.name("introduces", method) for method in line.cells["introduces"].split()),
            read=line.one_of("read", READ),
            seen=line.text("seen"),
            setting=line.cells["setting"] if line.cells["read"] == "none" else line.text("setting"),
        )
        if papers[name].arxiv and not re.fullmatch(r"\d{4}\.\d{4,5}", papers[name].arxiv):
            raise line.error("arxiv", "a number such as 2311.10707, or nothing")
    return papers


def read_numbers(folder: Path) -> list[Number]:
    """Every number of a folder: those of the papers' own files first, then those of ``others.csv``.

    Raises:
        DataError: a file is malformed, or has a number twice.
    """
    papers = read_papers(folder)
    numbers = [read(line) for name, (columns, read) in TABLES.items() for line in lines_of(folder / name, columns)]
    seen: set[tuple[object, ...]] = set()
    for line in lines_of(folder / "others.csv", NUMBER_COLUMNS):
        number = _other(line, papers)
        place = (
            number.paper,
            number.dataset,
            number.method,
            number.variant,
            number.modalities,
            number.missing_rate,
            number.metric,
        )
        if place in seen:
            raise line.error("variant", "what sets this number apart from the one above it that is of the same")
        seen.add(place)
        numbers.append(number)
    return numbers


def _other(line: Line, papers: Mapping[str, Paper]) -> Number:
    """A line of ``others.csv``."""
    paper = line.one_of("paper", papers)
    if papers[paper].read == "none":
        raise line.error("paper", "a paper that was read (papers.csv says read: none)")
    dataset = line.one_of("dataset", DATASETS)
    modalities = DATASETS[dataset].modalities
    shown = [ALL, MEAN, MEAN_INCOMPLETE, *(pattern_name(one) for one in patterns(modalities)[:-1])]
    return Number(
        paper=paper,
        dataset=dataset,
        method=line.name("method", line.text("method")),
        variant=line.cells["variant"],
        modalities=line.one_of("modalities", shown),
        missing_rate=line.optional("missing_rate", 0, 1, "a share from 0 to 1, such as 0.3"),
        metric=line.one_of("metric", METRICS),
        value=line.between("value", 0, 100, "a number in percent, such as 61.9"),
        std=line.optional("std", 0, 100, "a number in points, such as 1.08"),
        table=line.text("table"),
        row=line.text("row"),
        column=line.text("column"),
    )


def _plain(paper: str, line: Line, table: str, **more: str) -> Number:
    """A line of a file of one paper's table, in which a cell is an accuracy."""
    cells = {
        "variant": "",
        "modalities": ALL,
        "missing_rate": "",
        "std": "",
        "metric": "accuracy",
        **line.cells,
        **more,
    }
    rate = line.optional("missing_rate", 0, 1, "a share from 0 to 1") if "missing_rate" in line.cells else None
    return Number(
        paper=paper,
        dataset=cells["dataset"] if rate is None else f"{cells['dataset']}_features",
        method=cells["method"],
        variant=cells["variant"],
        modalities=cells["modalities"],
        missing_rate=rate,
        metric=cells["metric"],
        value=line.between("value" if "value" in cells else "accuracy", 0, 100, "a number in percent"),
        std=line.optional("std", 0, 100, "a number in points") if cells["std"] else None,
        table=table,
        row=cells["method"],
        column=cells["modalities"] if rate is None else f"rate {rate:g}",
    )


def _derived(line: Line) -> Number:
    """A line of DMRNet's summary, which has a number that its text implies and does not print."""
    return _plain("dmrnet", line, "text", modalities=MEAN, variant="derived" if "derived" in line.cells["note"] else "")


TABLES: Mapping[str, tuple[tuple[str, ...], Callable[[Line], Number]]] = {
    "mla_table5.csv": (
        ("dataset", "method", "modalities", "accuracy", "std"),
        lambda line: _plain("mla", line, "Tables 1 and 5"),
    ),
    "mla_table7.csv": (
        ("dataset", "method", "encoder", "modalities", "accuracy", "std"),
        lambda line: _plain("mla", line, "Tables 4 and 7", variant=line.cells["encoder"]),
    ),
    "mla_table6.csv": (
        ("dataset", "method", "missing_rate", "accuracy", "std"),
        lambda line: _plain("mla", line, "Tables 2 and 6"),
    ),
    "dmrnet_summary.csv": (("dataset", "method", "metric", "value", "note"), _derived),
}
"""The files of MLA and DMRNet: their columns, and what a line of them is. Table 3 of MLA, an ablation, is left to ``papers``."""
