"""Tables that a paper takes as they are: captions, labels, names as papers write them, widths; and that they compile."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from make_golden import GOLDEN, experiment
from test_escape import NASTY, named

from mmbench.baselines import METHODS as KNOWN
from mmbench.data import DATASETS
from mmbench.experiment.grid import Grid
from mmbench.report.cells import Cell, Section
from mmbench.report.collect import collect
from mmbench.report.latex import DATASET_NAMES, FIT, METHOD_NAMES, _table, names_of, to_latex
from mmbench.store import Store


@pytest.fixture(scope="module")
def paper() -> str:
    return to_latex(collect(experiment(), Store(GOLDEN / "runs"), GOLDEN / "reported"))


def test_each_table_has_a_caption_and_a_label_of_its_own(paper: str) -> None:
    assert paper.count(r"\begin{table}") == paper.count(r"\caption{") == paper.count(r"\end{table}") > 4
    labels = re.findall(r"\\label\{(.*)\}", paper)
    assert len(set(labels)) == len(labels) == paper.count(r"\caption{")
    assert labels[0] == "tab:golden-crema-d-clean"
    text = r"\caption{CREMA-D, clean. Accuracy in percent, mean $\pm$ standard deviation over n runs. Bold: the best, and every method "
    text += "that is not separable from it.}"
    assert text in paper
    assert r"\caption{CREMA-D, inflation.}" in paper, "nothing is ranked there"


def test_two_tables_of_one_title_have_two_labels() -> None:
    made = collect(experiment(), Store("nowhere"))
    made.experiment.unprepared = {"a b": "not here"}
    made.experiment.name = "How it"
    assert len(set(re.findall(r"\\label\{(.*)\}", to_latex(made)))) == to_latex(made).count(r"\label")


def test_seconds_are_in_no_table() -> None:
    section = Section("d, clean", [], ["method", "multi"], [[Cell("mla"), Cell("1.0")]], seconds=["123.4"])
    assert "123" not in "".join(_table(section, {}, "x"))


def test_methods_and_data_sets_are_named_as_papers_write_them(paper: str) -> None:
    assert re.findall(r"^(\w+) & ", paper, flags=re.MULTILINE)[1:4] == ["Concat", "Sum", "MLA"]
    assert "No paper's number beside Concat, MLA: " in paper, "in notes, too"
    assert set(METHOD_NAMES) <= set(KNOWN)
    assert set(DATASET_NAMES) <= set(DATASETS)


def test_labels_of_ones_own_stay_as_they_are() -> None:
    grid = Grid.model_validate(
        {
            "title": "",
            "seeds": [0],
            "datasets": {"crema_d": {"dataset": "openclipart"}, "openclipart": None},
            "methods": {
                "mla": {"method": "sum"},
                "ogm_ge": {"alpha": 0.1},
                "MLA, mine": {"method": "mla"},
                "unknown": None,
            },
        }
    )
    assert names_of(grid) == {"ogm_ge": "OGM-GE", "ogm_ge, tuned": "OGM-GE, tuned", "openclipart": "Open Clip Art"}


def table(header: Sequence[str], *rows: Sequence[str], notes: Sequence[str] = (), words: bool = False) -> str:
    """A section's LaTeX, of the experiment with methods of the known names."""
    section = Section(
        "d, clean", list(notes), list(header), [[Cell(text) for text in row] for row in rows], words=words
    )
    return "\n".join(_table(section, {m: METHOD_NAMES[m] for m in ("late_fusion", "mla", "sum")}, "x"))


def test_headings_cells_and_notes() -> None:
    made = table(
        ["method", "− late_fusion", "sum"],
        ["mla", "-1.5 [-3.0, +2.0]", "–"],
        ["a-1 -2", "2-3", "−4"],
        notes=["late_fusion is the control; the sum of mla and ogm_ge"],
    )
    assert r"method & $-$ Late fusion & Sum \\" in made
    assert r"MLA & $-$1.5 [$-$3.0, +2.0] & -- \\" in made
    assert r"a-1 -2 & 2-3 & $-$4 \\" in made
    assert r"Late fusion is the control; the sum of MLA and ogm\_ge\par" in made


def test_words_wrap_and_are_not_justified() -> None:
    made = table(["setting", "value"], ["code", "a " * 200], words=True)
    assert r"p{0.71\linewidth}" in made
    assert made.count(r"\raggedright\let\\\tabularnewline ") == 2
    assert r"\tabularnewline code & \raggedright" in made


def test_the_wider_a_table_the_smaller_its_type() -> None:
    def wide(columns: int) -> str:
        return table(["method", *("0.1" for _ in range(columns))], ["mla", *("47.4 ± 1.2" for _ in range(columns))])

    assert "size" not in wide(3)
    assert r"\small" in wide(5)
    assert r"\footnotesize" in wide(6)
    assert r"\scriptsize" in wide(7)
    assert FIT not in wide(7)
    assert FIT in wide(9)
    assert r"\fit{\begin{tabular}" in wide(9)


# With a LaTeX

LATEX = next(filter(None, map(shutil.which, ("pdflatex", "tectonic"))), None)


def compiled(folder: Path, body: str, packages: str = "booktabs") -> str:
    """The log of a paper with this body; it has to compile."""
    source = rf"\documentclass{{article}}\usepackage{{{packages}}}\begin{{document}}" + f"\n{body}\n\\end{{document}}\n"
    (folder / "paper.tex").write_text(source, encoding="utf-8")
    assert LATEX is not None
    options = ["-interaction=nonstopmode", "-halt-on-error"] if LATEX.endswith("pdflatex") else ["--keep-logs"]
    done = subprocess.run([LATEX, *options, "paper.tex"], cwd=folder, capture_output=True, text=True, errors="replace")
    log = (folder / "paper.log").read_text(errors="replace") + done.stdout + done.stderr
    assert done.returncode == 0, log[-3000:]
    return log


needs_latex = pytest.mark.skipif(LATEX is None, reason="neither pdflatex nor tectonic is here")


@needs_latex
@pytest.mark.slow
def test_reports_with_nasty_names_compile(tmp_path: Path) -> None:
    log = compiled(tmp_path, "\n\\clearpage\n".join(to_latex(named(name)) for name in NASTY))
    assert "Undefined" not in log
    assert "Missing character" not in log


@needs_latex
@pytest.mark.slow
@pytest.mark.parametrize("packages", ["booktabs", "booktabs,graphicx"])
def test_no_table_is_wider_than_the_line(tmp_path: Path, paper: str, packages: str) -> None:
    tables = [paper, *(
        table(["method", *(f"0.{i}" for i in range(n))], *[["late_fusion", *["47.4 ± 1.2"] * n]] * 9) for n in (3, 5, 6, 7, 12)
    )]  # fmt: skip
    wide = "graphicx" not in packages
    log = compiled(tmp_path, "\n".join(tables[: -1 if wide else None]), packages)
    assert not re.findall(r"Overfull \\hbox.*", log)
    assert "Output written" in log


@needs_latex
@pytest.mark.slow
def test_a_wide_table_compiles_without_graphicx_too(tmp_path: Path) -> None:
    assert "Overfull" in compiled(tmp_path, table(["m", *"x" * 20], ["late_fusion", *["47.4 ± 1.2"] * 20]))


@needs_latex
@pytest.mark.slow
def test_a_report_of_sixty_tables_compiles(tmp_path: Path) -> None:
    """TeX holds some fifty floats, and no text is between those of a report."""
    made = collect(experiment(), Store("nowhere"))
    made.modalities = {f"set {i}": made.modalities["crema_d"] for i in range(30)}
    made.rows = [replace(row, dataset=name) for name in made.modalities for row in made.rows]
    made.table = pd.concat([made.table.assign(dataset=name) for name in made.modalities])
    made.experiment.grid.datasets = dict.fromkeys(made.modalities, made.experiment.grid.datasets["crema_d"])
    body = to_latex(made)
    assert body.count(r"\begin{table}") > 60
    assert "Output written" in compiled(tmp_path, body)
