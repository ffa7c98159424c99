"""A report's files: tables, figures and a page."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from mmbench.files import atomic_write

if TYPE_CHECKING:
    import pandas as pd

    from mmbench.report.collect import Results


def write(results: Results, folder: Path, runs: Path | None = None) -> list[Path]:
    """Write ``table.{md,csv,tex,html}``, what ``frames`` has as ``.csv``, and what ``figures`` has as ``.svg`` and ``.png``.

    Args:
        results: what is reported.
        folder: where to.
        runs: the store's folder, to whose records the page links; None: the report is for git to keep, so that the page names trials
            alone, and nothing has seconds or memory.

    Returns:
        The files.
    """
    from mmbench.report.figures.base import render
    from mmbench.report.figures.gallery import figures
    from mmbench.report.html import Picture, to_html
    from mmbench.report.latex import to_latex
    from mmbench.report.tables import to_markdown

    pictures = []
    with collected_by_hand() as collect_garbage:
        for name, (figure, caption) in figures(results, published=runs is None):
            pictures.append(Picture(name, caption, render(figure, "svg"), render(figure, "png")))
            del figure
            collect_garbage()
    pictures.sort(key=lambda picture: picture.name != "figure")  # which is drawn last, but stands first
    address = None if runs is None else quote(Path(os.path.relpath(runs, folder)).as_posix())
    content = {
        "table.md": to_markdown(results).encode(),
        "table.tex": to_latex(results).encode(),
        "table.html": to_html(results, pictures, address).encode(),
    }
    content |= {
        f"{name}.csv": frame.to_csv(index=False, float_format="%.4f").encode()
        for name, frame in frames(results, kept=runs is None).items()
    }
    for picture in pictures:
        content |= {f"{picture.name}.svg": picture.svg, f"{picture.name}.png": picture.png}
    for name, data in content.items():
        atomic_write(folder / name, data)
    return [folder / name for name in content]


@contextmanager
def collected_by_hand() -> Iterator[Callable[[], object]]:
    """Do without the search for garbage but when it is asked for, by what this gives: among what was made meanwhile.

    Drawing would set it off again and again, and each time it would look through all records; a figure is garbage that it alone finds.
    """
    enabled = gc.isenabled()
    gc.disable()
    gc.freeze()
    try:
        yield gc.collect
    finally:
        gc.unfreeze()
        if enabled:
            gc.enable()


def frames(results: Results, kept: bool = False) -> dict[str, pd.DataFrame]:
    """The tables for programs, by the name of their file; only those that hold something, if ``kept`` without seconds and memory."""
    from mmbench.report.trials import COST

    found = {
        "table": results.table,
        "trials": results.trials.drop(columns=list(COST) if kept else []),
        "rates": results.rates.curves if results.rates else None,
        "areas": results.rates.areas if results.rates else None,
        "comparisons": results.comparisons if len(results.comparisons) else None,
        "ranks": results.ranks,
        "diagnostics": results.diagnostics if len(results.diagnostics) else None,
        "inflation": results.inflation if len(results.inflation) else None,
        "tuning": results.tuning.draws if results.tuning else None,
    }
    return {name: frame for name, frame in found.items() if frame is not None}
