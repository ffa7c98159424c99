"""A report's tables as a paper takes them: with captions and labels, methods and data sets named as papers write them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from mmbench.experiment.grid import Grid
from mmbench.experiment.space import TUNED
from mmbench.report.cells import BEST, Cell, Section, marked
from mmbench.report.collect import Results
from mmbench.report.escape import latex, one_line
from mmbench.report.tables import header_notes, sections

METHOD_NAMES = {
    "sum": "Sum",
    "concat": "Concat",
    "late_fusion": "Late fusion",
    "unimodal": "Best single modality",
    "film": "FiLM",
    "bigated": "BiGated",
    "ogm_ge": "OGM-GE",
    "qmf": "QMF",
    "mla": "MLA",
    "cca": "CCA",
    "dcca": "DCCA",
    "dccae": "DCCAE",
    "ae": "AE",
    "cra": "CRA",
    "mmin": "MMIN",
    "if_mmin": "IF-MMIN",
    "cpm_net": "CPM-Net",
    "tate": "TATE",
    "dmrnet": "DMRNet",
    "shaspec": "ShaSpec",
    "lmf": "LMF",
    "masked_transformer": "Masked Transformer",
    "pattern_prompts": "Pattern prompts",
    "tfn": "TFN",
    "simmlm": "SimMLM",
    "multi_loss": "Multi-loss",
    "agm": "AGM",
    "arl": "ARL",
    "g_blending": "G-Blending",
    "dgl": "DGL",
    "umt": "UMT",
    "mmpareto": "MMPareto",
    "pmr": "PMR",
    "reconboost": "ReconBoost",
    "imder": "IMDer",
}
"""Methods as their papers write them; one without a name here, and a variant with a label of its own, stand as the file has them."""
DATASET_NAMES = {
    "openclipart": "Open Clip Art",
    "openclipart_features": "Open Clip Art features",
    "crema_d": "CREMA-D",
    "kinetics_sounds": "Kinetics-Sounds",
    "food101": "Food-101",
    "mvsa": "MVSA-Single",
    "mvsa_merged": "MVSA-Single (merged)",
    "iemocap": "IEMOCAP",
    "iemocap6": "IEMOCAP (six classes)",
    "iemocap_features": "IEMOCAP features",
    "casia_surf": "CASIA-SURF",
    "tuxpaint": "Tux Paint",
}
WIDTH = 345.0
"""Of a line, in points: article's, which is the narrowest of the usual ones with a single column."""
SIZES: tuple[tuple[Sequence[str], float, float], ...] = (
    ([], 5.0, 6.0),
    ([r"\small"], 4.6, 6.0),
    ([r"\footnotesize", r"\setlength{\tabcolsep}{4pt}"], 4.2, 4.0),
    ([r"\scriptsize", r"\setlength{\tabcolsep}{3pt}"], 3.7, 3.0),
)
"""Commands that set a size of type; the mean width of a character in it, and half the space between columns, in points."""
FIT = r"\ifdefined\resizebox\def\fit{\resizebox{\linewidth}{!}}\else\def\fit{}\fi"
"""For a table that is too wide in any size: shrink it to the line, if the paper loads graphicx."""
MINUS = "− "
"""What the heading of a column of differences begins with, before the method."""
MOST = 20
"""Tables in a row."""
MARKS = (r"\textbf{", "}")
WORDS = ("sum", "film", "ae")
HEAD = "For a paper that loads booktabs; and graphicx, if a table is to be shrunk to the line. What is of all tables is in comments."


def to_latex(results: Results) -> str:
    """The tables for a paper that loads booktabs; what is of the whole report stands in comments."""
    names = names_of(results.experiment.grid)
    lines = [f"% {one_line(note)}" for note in [results.experiment.grid.title, *header_notes(results), HEAD]]
    labels: dict[str, int] = {}
    for number, section in enumerate(sections(results)):
        lines += ["", r"\clearpage % TeX holds no more of them at a time"] if number and number % MOST == 0 else []
        label = slug(f"{results.experiment.name} {section.title}")
        labels[label] = labels.get(label, 0) + 1
        lines += ["", *_table(section, names, label if labels[label] == 1 else f"{label}-{labels[label]}")]
    lines += [f"% not run: {one_line(line)}" for line in results.not_run]
    return "\n".join(lines) + "\n"


def names_of(grid: Grid) -> dict[str, str]:
    """Label -> how papers write it, of the experiment's methods and data sets that are called by their own names."""
    methods = {m: METHOD_NAMES[m] for m in grid.methods if m in METHOD_NAMES and grid.method_of(m) == m}
    datasets = {d: DATASET_NAMES[d] for d in grid.datasets if d in DATASET_NAMES and grid.dataset_of(d) == d}
    return {**methods, **{method + TUNED: name + TUNED for method, name in methods.items()}, **datasets}


def slug(text: str) -> str:
    """A label's name: letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _table(section: Section, names: Mapping[str, str], label: str) -> list[str]:
    """A section as a ``table``, its notes below it."""
    header = [names.get(head.removeprefix(MINUS), head.removeprefix(MINUS)) for head in section.header]
    header = [MINUS * old.startswith(MINUS) + new for old, new in zip(section.header, header, strict=True)]
    body = [[Cell(names.get(cell.text, cell.text), cell.rank) for cell in row] for row in section.body]
    rows = [
        " & ".join(marked(Cell(_cell(cell.text, i, section.words), cell.rank), *MARKS) for i, cell in enumerate(row))
        for row in body
    ]
    columns, fitting = "l" + "r" * (len(header) - 1), _fitting([header, *([cell.text for cell in row] for row in body)])
    if section.words:
        columns, fitting = r"p{0.21\linewidth}p{0.71\linewidth}", [r"\footnotesize"]
    before, after = (r"\fit{", "}") if FIT in fitting else ("", "")
    notes = [rf"{latex(_prose(note, names))}\par" for note in section.notes]
    notes = [r"\par\smallskip{\footnotesize\raggedright", *notes, "}"] if notes else []
    return [
        r"\begin{table}[htbp]",
        r"\centering",
        rf"\caption{{{latex(_caption(section, names))}}}",
        rf"\label{{tab:{label}}}",
        r"\smallskip",
        *fitting,
        rf"{before}\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        " & ".join(map(latex, header)) + r" \\",
        r"\midrule",
        *(rf"{row} \\" for row in rows),
        r"\bottomrule",
        rf"\end{{tabular}}{after}",
        *notes,
        r"\end{table}",
    ]


def _caption(section: Section, names: Mapping[str, str]) -> str:
    """What the table is of, what its numbers are, and what its marks mean."""
    dataset, comma, rest = section.title.partition(",")
    best = BEST if any(cell.rank for row in section.body for cell in row) else ""
    return " ".join(filter(None, [f"{names.get(dataset, dataset)}{comma}{rest}.", section.caption, best]))


def _fitting(rows: Sequence[Sequence[str]]) -> list[str]:
    """The largest type in which a table fits a line, by the lengths of its cells; if none is small enough, the smallest, shrunk."""
    characters = sum(max(map(len, column)) for column in zip(*rows, strict=True))
    fits = [size for size, character, gap in SIZES if characters * character + 2 * gap * len(rows[0]) <= WIDTH]
    return [*fits[0]] if fits else [*SIZES[-1][0], FIT]


def _cell(text: str, column: int, words: bool) -> str:
    """A cell: words, which are not justified; or numbers, in which a hyphen before one is a minus."""
    if words:
        return (
            rf"\raggedright\let\\\tabularnewline {latex(text)}"  # \raggedright makes another command of the row's end
        )
    return re.sub(r"(?<![\w.}-])-(?=\d)", "$-$", latex(text)) if column else latex(text)


def _prose(note: str, names: Mapping[str, str]) -> str:
    """A note in which methods are named as papers write them, but for those whose labels are words."""
    labels = sorted((label for label in names if label in METHOD_NAMES and label not in WORDS), key=len, reverse=True)
    pattern = rf"(?<!\w)({'|'.join(map(re.escape, labels))})(?!\w)"
    return re.sub(pattern, lambda found: names[found[1]], note) if labels else note
