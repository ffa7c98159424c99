"""The table that the page Start reads with a newcomer: some columns of Table 1's committed report."""

from __future__ import annotations

from pathlib import Path

REPORT = Path(__file__).parents[2] / "results/table1/table.md"
HEADING = "## openclipart, clean"
COLUMNS = ("method", "image", "title", "multi", "− late_fusion")


def pages() -> dict[str, str]:
    """The table, which the page includes; no page of its own, so its name does not end in ``.md``."""
    rows = table(REPORT.read_text(), HEADING)
    places = [rows[0].index(column) for column in COLUMNS]
    lines = [" | ".join(row[place] for place in places) for row in rows]
    return {"start/table1.txt": "".join(f"| {line} |\n" for line in lines)}


def table(report: str, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading of a report, its head and its rule included."""
    _, _, below = report.partition(f"{heading}\n")
    lines = below.split("\n|", 1)[1].split("\n\n", 1)[0].splitlines()
    return [[cell.strip() for cell in line.strip().strip("|").split(" | ")] for line in lines]
