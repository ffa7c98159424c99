"""A report in the terminal."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmbench.errors import DataError
from mmbench.report.cells import DASH, Cell
from mmbench.report.escape import one_line

if TYPE_CHECKING:
    from mmbench.report.collect import Results


def print_report(results: Results, committed: Path | None = None, unselected: Collection[str] = ()) -> None:
    """Print the tables, and how they compare with the ``table.csv`` that git keeps, or that there is none.

    What was not selected to be run is counted and not listed, by its line among ``Results.not_run``; rows and tables that hold nothing
    else are not shown.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from mmbench.report.tables import header_notes, sections

    console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = 200  # a file has no width to fit in
    left_out = set(unselected) & set(results.not_run)
    listed = [gap for gap in results.not_run if gap not in left_out]
    for section in sorted(sections(results), key=lambda section: not section.words):  # what is looked for stands last
        whole = section.words or not left_out
        shown = [(i, row) for i, row in enumerate(section.body) if whole or not _is_blank(row, listed)]
        if not shown:
            continue
        title = Text(one_line(section.title), style="bold")
        table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
        for i, head in enumerate([*section.header, *(["training, s"] if section.seconds else [])]):
            numbers = i > 0 and not section.words
            table.add_column(Text(one_line(head)), justify="right" if numbers else "left", no_wrap=i == 0 or numbers)
        for i, row in shown:
            cells = [Text(one_line(cell.text), style="bold" if cell.rank else "") for cell in row]
            table.add_row(*cells, *section.seconds[i : i + 1])
        console.print(table)
        for note in section.notes:
            console.print(one_line(note))
        console.print()
    gaps = [f"–: {gap}" for gap in listed]
    if left_out:
        hidden = "rows and tables with nothing else are not shown here"
        gaps.append(f"–: {len(left_out)} trials that --filter leaves out: not run; {hidden}")
    for note in [*header_notes(results), *gaps]:
        console.print(one_line(note))
    if committed is not None:
        console.print()
        console.print(one_line(_compared(results, committed)))


def _is_blank(row: Sequence[Cell], listed: Sequence[str]) -> bool:
    """Whether nothing was measured of a row, and no gap that is listed tells why."""
    return all(cell.text in (DASH, "0") for cell in row[1:]) and not any(f" {row[0].text} " in gap for gap in listed)


def _compared(results: Results, committed: Path) -> str:
    """The line on how the report compares with the one in git; or on why it cannot be."""
    from mmbench.report.committed import compare, read_table

    if not committed.is_file():
        return f"Nothing to compare with: there is no {committed}."
    try:
        return compare(results.table, read_table(committed), str(committed)).line
    except DataError as error:
        return str(error)
