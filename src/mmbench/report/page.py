"""A report's files: tables, figures and a page."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from mmbench.files import atomic_write

if TYPE_CHECKING:
    import pandas as pd

    from mmbench.report.collect import Results


def write(results: Results, folder: Path) -> list[Path]:
    """Write ``table.{md,csv,tex,html}``, what ``frames`` has as ``.csv``, and what ``figures`` has as ``.svg`` and ``.png``.

    Returns:
        The files.
    """
    from mmbench.report.figures.base import render
    from mmbench.report.figures.gallery import figures
    from mmbench.report.tables import to_latex, to_markdown

    drawn = figures(results)
    svg = {name: render(figure, "svg") for name, (figure, _) in drawn.items()}
    content = {
        "table.md": to_markdown(results).encode(),
        "table.tex": to_latex(results).encode(),
        "table.html": to_html(
            results, [(svg[name].decode(), caption) for name, (_, caption) in drawn.items()]
        ).encode(),
    }
    content |= {
        f"{name}.csv": frame.to_csv(index=False, float_format="%.4f").encode()
        for name, frame in frames(results).items()
    }
    for name, (figure, _) in drawn.items():
        content |= {f"{name}.svg": svg[name], f"{name}.png": render(figure, "png")}
    for name, data in content.items():
        atomic_write(folder / name, data)
    return [folder / name for name in content]


def frames(results: Results) -> dict[str, pd.DataFrame]:
    """The tables for programs, by the name of their file; only those that hold something."""
    found = {
        "table": results.table,
        "rates": results.rates.curves if results.rates else None,
        "areas": results.rates.areas if results.rates else None,
        "inflation": results.inflation if len(results.inflation) else None,
        "tuning": results.tuning.draws if results.tuning else None,
    }
    return {name: frame for name, frame in found.items() if frame is not None}


def to_html(results: Results, images: Sequence[tuple[str, str]]) -> str:
    """A page that needs nothing else: the tables and the figures, each an SVG document and its caption."""
    from jinja2 import Environment

    from mmbench.report.cells import DASH
    from mmbench.report.tables import header_notes, sections

    template = Environment(autoescape=True).from_string((files("mmbench.report") / "page.html").read_text())
    numbers = results.table.select_dtypes("number").columns
    full = results.table.copy()
    for column in numbers:
        digits = 0 if column in ("n", "samples") else 2
        full[column] = [DASH if value != value else f"{value:.{digits}f}" for value in full[column]]
    return template.render(
        title=results.experiment.grid.title,
        notes=header_notes(results),
        figures=[(image[image.index("<svg") :], caption) for image, caption in images],
        sections=sections(results),
        gaps=results.not_run,
        full=full,
    )
