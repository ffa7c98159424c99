"""Small pictures as SVG: on white, so that they can be read on a dark page too, and with no font of their own."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

INK, PALE, GREY, GRID = "#222222", "#666666", "#bbbbbb", "#dddddd"
WHITE = "#ffffff"


class Drawing:
    """An SVG that grows by shapes.

    Args:
        width: in pixels; at most 520, so that letters can be read on a phone.
        height: in pixels.
        title: what is seen, for those who cannot see it.
    """

    def __init__(self, width: int, height: int, title: str) -> None:
        self.width, self.height, self.title = width, height, title
        self.parts: list[str] = []

    def box(self, x: float, y: float, width: float, height: float, fill: str, stroke: str = "none") -> None:
        """A rectangle, by its upper left corner."""
        size = f'width="{width:.1f}" height="{height:.1f}"'
        self.parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" {size} fill="{fill}" stroke="{stroke}"/>')

    def words(self, x: float, y: float, text: str, anchor: str = "start", fill: str = INK, size: int = 13) -> None:
        """A line of text; ``anchor``: start, middle or end of it is at x."""
        place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{fill}"'
        self.parts.append(f"<text {place}>{escape(text)}</text>")

    def line(self, start: tuple[float, float], end: tuple[float, float], colour: str, width: float = 1) -> None:
        """A straight line between two points."""
        ends = f'x1="{start[0]:.1f}" y1="{start[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}"'
        self.parts.append(f'<line {ends} stroke="{colour}" stroke-width="{width}"/>')

    def dot(self, x: float, y: float, colour: str, filled: bool = True) -> None:
        """A round mark, filled or open."""
        self.parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour if filled else WHITE}" stroke="{colour}"/>'
        )

    def key(self, x: float, y: float, entries: Sequence[tuple[str, str]]) -> None:
        """What colours mean: (colour, word), side by side."""
        for colour, word in entries:
            self.box(x, y - 10, 11, 11, colour, GREY if colour == WHITE else "none")
            self.words(x + 16, y, word)
            x += 30 + 7 * len(word)

    def __str__(self) -> str:
        """The file."""
        head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{self.width}" height="{self.height}"'
        view = f'viewBox="0 0 {self.width} {self.height}" font-family="sans-serif" role="img"'
        paper = f'<rect width="{self.width}" height="{self.height}" rx="6" fill="{WHITE}"/>'
        return "\n".join([f"{head} {view}>", f"<title>{escape(self.title)}</title>", paper, *self.parts, "</svg>\n"])
