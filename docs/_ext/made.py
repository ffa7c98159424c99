"""Writes the pages that the code knows enough to write, before Sphinx reads any: methods, data sets, the reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

import dataset_pages
import finding_pages
import idea_pictures
import method_index
import reference_pages
import start_table

WRITERS: list[Callable[[], Mapping[str, str]]] = [
    dataset_pages.pages,
    idea_pictures.pictures,
    finding_pages.pages,
    method_index.pages,
    reference_pages.pages,
    start_table.pages,
]
"""Each gives pages: their path in ``docs`` -> their text."""


def write(docs: Path) -> None:
    """Write all pages that have changed, and remove those that no writer makes any more."""
    pages = {path: text for writer in WRITERS for path, text in writer().items()}
    listing = docs / "_build/made.txt"
    before = listing.read_text().splitlines() if listing.exists() else []
    for path in set(before) - set(pages):
        (docs / path).unlink(missing_ok=True)
    for path, text in pages.items():
        file = docs / path
        if not file.exists() or file.read_text() != text:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
    for old in (docs / "examples").glob("[a-z]*.rst"):  # of a script that is gone, or has another name now
        if old.stem not in ("index", "sg_execution_times") and not (docs / f"gallery/{old.stem}.py").exists():
            old.unlink()
    listing.parent.mkdir(parents=True, exist_ok=True)
    listing.write_text("".join(f"{path}\n" for path in sorted(pages)))


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("builder-inited", lambda app: write(Path(app.srcdir)))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
