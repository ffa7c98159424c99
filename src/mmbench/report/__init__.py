"""Reports: tables, figures and a page, from the store alone."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from mmbench.store import atomic_write

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from mmbench.report.collect import Results


def write(results: Results, folder: Path) -> list[Path]:
    """Write ``table.{md,csv,tex,html}`` and the figures, as SVG and PNG; for missing rates ``rates.csv`` and ``areas.csv`` too.

    Returns:
        The files.
    """
    from mmbench.report.figure import render
    from mmbench.report.tables import to_latex, to_markdown

    drawn = figures(results)
    svg = {name: render(figure, "svg") for name, figure in drawn.items()}
    content = {
        "table.md": to_markdown(results).encode(),
        "table.csv": _csv(results.table),
        "table.tex": to_latex(results).encode(),
        "table.html": to_html(results, [image.decode() for image in svg.values()]).encode(),
    }
    if results.rates is not None:
        content |= {"rates.csv": _csv(results.rates.curves), "areas.csv": _csv(results.rates.areas)}
    for name, figure in drawn.items():
        content |= {f"{name}.svg": svg[name], f"{name}.png": render(figure, "png")}
    for name, data in content.items():
        atomic_write(folder / name, data)
    return [folder / name for name in content]


def figures(results: Results) -> dict[str, Figure]:
    """The figures of a report by name: ``figure`` shows its main table; missing rates have ``robustness``, ``dropout``, ``surface``."""
    from mmbench.report.curves import draw_curves, draw_surface, draw_training
    from mmbench.report.figure import draw

    rates = results.rates
    if rates is None:
        return {"figure": draw_training(results) or draw(results)}
    redrawn = next((row.training for row in results.rows if row.missing and row.missing.redraw), "")
    drawn = {
        "figure": draw_curves(rates, "matched", "at each rate") or draw(results),
        "robustness": draw_curves(rates, "robustness", "complete"),
        "dropout": draw_curves(rates, "robustness", redrawn),
        "surface": draw_surface(rates),
    }
    return {name: figure for name, figure in drawn.items() if figure is not None}


def _csv(frame: pd.DataFrame) -> bytes:
    return frame.to_csv(index=False, float_format="%.4f").encode()


def to_html(results: Results, images: Sequence[str]) -> str:
    """A page that needs nothing else: the tables and the figures, each an SVG document."""
    from jinja2 import Environment

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
        figures=[image[image.index("<svg") :] for image in images],
        sections=sections(results),
        gaps=results.not_run,
        full=full,
    )
