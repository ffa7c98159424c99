"""Reports: tables, a figure and a page, from the store alone."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from mmbench.store import atomic_write

if TYPE_CHECKING:
    from mmbench.report.collect import Results


def write(results: Results, folder: Path) -> list[Path]:
    """Write ``table.{md,csv,tex,html}`` and ``figure.{svg,png}`` into a folder.

    Returns:
        The files.
    """
    from mmbench.report.figure import draw, render
    from mmbench.report.tables import to_latex, to_markdown

    figure = draw(results)
    svg = render(figure, "svg")
    content = {
        "table.md": to_markdown(results).encode(),
        "table.csv": results.table.to_csv(index=False, float_format="%.4f").encode(),
        "table.tex": to_latex(results).encode(),
        "table.html": to_html(results, svg.decode()).encode(),
        "figure.svg": svg,
        "figure.png": render(figure, "png"),
    }
    for name, data in content.items():
        atomic_write(folder / name, data)
    return [folder / name for name in content]


def to_html(results: Results, svg: str) -> str:
    """A page that needs nothing else: the tables and the figure."""
    from jinja2 import Environment

    from mmbench.report.collect import gaps
    from mmbench.report.tables import DASH, header_notes, sections

    template = Environment(autoescape=True).from_string((files("mmbench.report") / "page.html").read_text())
    numbers = results.table.select_dtypes("number").columns
    full = results.table.copy()
    for column in numbers:
        digits = 0 if column == "n" else 2
        full[column] = [DASH if value != value else f"{value:.{digits}f}" for value in full[column]]
    return template.render(
        title=results.experiment.grid.title,
        notes=header_notes(results),
        svg=svg[svg.index("<svg") :],
        sections=sections(results),
        gaps=gaps(results.rows),
        full=full,
    )
