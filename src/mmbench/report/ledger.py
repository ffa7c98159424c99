"""The ledger: each number that papers report, and what this suite measured on the same data set, if it did.

It is computed from the numbers in ``results/reported`` and from the reports that git keeps, and from nothing else.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mmbench.baselines import METHODS
from mmbench.data import DATASETS
from mmbench.errors import DataError
from mmbench.missing import pattern_name, patterns
from mmbench.report.committed import KEPT
from mmbench.report.reported import ALL, MEAN_INCOMPLETE, METRICS, Number, Paper, read_numbers, read_papers

PROTOCOLS = ("clean", "peek", "legacy")
"""Of several committed numbers, which is put beside a paper's: the one that was made as it was, else the first of these."""


@dataclass(frozen=True)
class Ours:
    """A number in a committed report.

    Attributes:
        mean: in percent.
        low, high: its 95 % interval.
        runs: how many.
        report: the experiment.
        protocol: of its trials.
        reported: the paper's number that the report puts beside it, since its trials were made in the paper's setting; else None.
    """

    mean: float
    low: float
    high: float
    runs: int
    report: str
    protocol: str
    reported: float | None


@dataclass(frozen=True)
class Entry:
    """A line of the ledger.

    Attributes:
        number: what is reported.
        paper: by which paper.
        ours: what was measured here; None if nothing was.
        why: why nothing was; empty if something was.
    """

    number: Number
    paper: Paper
    ours: Ours | None
    why: str

    @property
    def own(self) -> bool:
        """Whether the paper reports it of a method of its own."""
        return self.number.method in self.paper.introduces

    @property
    def comparable(self) -> bool:
        """Whether ours was made in the paper's setting, as far as the suite can set it (``papers`` says which trials are)."""
        return self.ours is not None and self.ours.reported is not None

    def columns(self) -> dict[str, str]:
        """What ``ledger.csv`` has of it."""
        number, paper, ours = self.number, self.paper, self.ours
        told = {
            "dataset": number.dataset, "method": number.method, "variant": number.variant, "modalities": number.modalities,
            "missing_rate": _text(number.missing_rate, "g"), "metric": number.metric, "reported": _text(number.value),
            "reported_std": _text(number.std), "paper": number.paper, "own_method": "yes" if self.own else "no", "venue": paper.venue,
            "arxiv": paper.arxiv, "table": number.table, "row": number.row, "column": number.column, "read": paper.read,
            "setting": paper.setting, **dict.fromkeys(OURS, ""), "why_not_ours": self.why,
        }  # fmt: skip
        if ours is not None:
            told |= {
                "ours": _text(ours.mean), "ci_low": _text(ours.low), "ci_high": _text(ours.high), "n": str(ours.runs),
                "report": ours.report, "protocol": ours.protocol,
            }  # fmt: skip
            if self.comparable:
                bounds = {"difference": ours.mean, "difference_low": ours.low, "difference_high": ours.high}
                told |= {name: _text(bound - number.value, "+.2f") for name, bound in bounds.items()}
        return told


OURS = ("ours", "ci_low", "ci_high", "n", "report", "protocol", "difference", "difference_low", "difference_high")


@dataclass(frozen=True)
class Ledger:
    """All of it.

    Attributes:
        entries: by data set, then in the order of the files of reported numbers.
        papers: by name, those without a number too.
    """

    entries: list[Entry]
    papers: Mapping[str, Paper]


def ledger(results: Path, reported: Path) -> Ledger:
    """The ledger of a folder of results.

    Args:
        results: with the reports that git keeps.
        reported: the folder with the papers' numbers.

    Raises:
        DataError: a file in one of them is malformed.
    """
    papers, numbers = read_papers(reported), read_numbers(reported)
    measured = committed(results)
    entries = [_entry(number, papers[number.paper], measured) for number in numbers]
    order = list(DATASETS)
    return Ledger(sorted(entries, key=lambda entry: order.index(entry.number.dataset)), papers)


def _entry(number: Number, paper: Paper, measured: Mapping[tuple[object, ...], list[Ours]]) -> Entry:
    shown = number.modalities
    if shown == ALL:
        shown = pattern_name(patterns(DATASETS[number.dataset].modalities)[-1])
    found = measured.get((number.dataset, number.method, shown, number.missing_rate, number.metric), [])
    made_alike = [ours for ours in found if ours.reported is not None and abs(ours.reported - number.value) < 0.005]
    # What is reported beside another number, such as that of other encoders, was not made as this one was.
    rest = [Ours(**{**vars(ours), "reported": None}) for ours in found]
    best = sorted(made_alike or rest, key=lambda ours: (PROTOCOLS.index(ours.protocol), ours.report))
    if best:
        return Entry(number, paper, best[0], "")
    return Entry(number, paper, None, _why(number, measured))


def _why(number: Number, measured: Iterable[tuple[object, ...]]) -> str:
    """Why there is no number of ours."""
    if not any(key[0] == number.dataset for key in measured):
        return "no committed report has the data set"
    if number.method not in METHODS:
        return "the suite does not have the method"
    if number.modalities == MEAN_INCOMPLETE:
        return "reports have no mean over incomplete patterns alone"
    return "no committed report has the method on this data set in this way, with this metric"


def committed(results: Path) -> dict[tuple[object, ...], list[Ours]]:
    """What the committed reports measured, by data set, method, pattern, missing rate and metric.

    Models that were trained on complete data have no missing rate; others have that at which both training and test lack modalities.
    """
    found: dict[tuple[object, ...], list[Ours]] = {}
    for folder in sorted(path for path in results.glob("*") if path.name not in KEPT):
        for name, take in (("table.csv", _of_table), ("rates.csv", _of_rates)):
            if not (folder / name).is_file():
                continue
            with (folder / name).open(newline="", encoding="utf-8") as file:
                for row in csv.DictReader(file):
                    try:
                        key = take(row)
                        if key is not None and row["mean"] and int(row["n"]):
                            found.setdefault(key, []).append(_ours(row, folder.name))
                    except (KeyError, TypeError, ValueError) as error:
                        told = f"{folder / name} is not a report's {name} ({error}); `mmbench report` writes it anew"
                        raise DataError(told) from error
    return found


def _of_table(row: Mapping[str, str]) -> tuple[object, ...] | None:
    wanted = row["training"] == "complete" and row["metric"] in METRICS and not row["track"]
    return (row["dataset"], row["method"], row["pattern"], None, row["metric"]) if wanted else None


def _of_rates(row: Mapping[str, str]) -> tuple[object, ...] | None:
    if row["evaluation"] != "matched" or row["track"] or row["dataset"] not in DATASETS:
        return None
    every = pattern_name(patterns(DATASETS[row["dataset"]].modalities)[-1])
    return row["dataset"], row["method"], every, round(float(row["rate"]), 4), "accuracy"


def _ours(row: Mapping[str, str], report: str) -> Ours:
    if row["protocol"] not in PROTOCOLS:
        raise ValueError(f"protocol '{row['protocol']}'")
    mean, low, high = (float(row[name]) for name in ("mean", "ci_low", "ci_high"))
    return Ours(
        mean, low, high, int(row["n"]), report, row["protocol"], float(row["reported"]) if row["reported"] else None
    )


def to_csv(made: Ledger) -> str:
    """``ledger.csv``: a line a reported number."""
    text = io.StringIO()
    rows = [entry.columns() for entry in made.entries]
    writer = csv.DictWriter(text, list(rows[0]) if rows else ["dataset"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _text(value: float | None, form: str = ".2f") -> str:
    return "" if value is None else f"{value:{form}}"
