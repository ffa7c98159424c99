"""Draws a method from a few lines of text, as an SVG that is as wide as a phone and takes its colours from the page.

A line is a row of boxes, or says what leads where:

    x1 in: image | x2 in: title          boxes: a name, a kind and the text; rows stand below each other, boxes beside each other
    e1: encoder  | e2: encoder           kinds: in, out, loss, kept (frozen, or a copy), note; none for a layer that learns
    x1 > e1 > z                          an arrow down; one that leaps over a row goes round at the side
    loss ..> e1: × k                     the special path of a gradient, dashed; what it does stands below the drawing
    -- stage two                         a line across, with its text
    encoders                             two modalities with an encoder each: x1 > e1 and x2 > e2
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise
from textwrap import wrap

WIDTH, SIDE, GAP = 360, 34, 14
"""Of the drawing, of the margin at each side where arrows go round, and between boxes of a row."""
LINE, SPACE, PAD = 16, 30, 8
"""Heights: of a line of text, between rows, and inside a box."""
LETTER = 6.9
"""The mean width of a letter."""
ENCODERS = """
    x1 in: modality 1 | x2 in: modality 2
    e1: encoder 1 | e2: encoder 2
    x1 > e1
    x2 > e2
"""
KINDS = ("in", "out", "loss", "kept", "note")
BOX = re.compile(r"(\w+)(?: (\w+))?: (.+)")
ARROWS = re.compile(r"\w+ (?:\.\.)?> ")


@dataclass
class Box:
    """A box: what kind it is of, its text, and where it stands."""

    kind: str
    lines: list[str]
    row: int
    x: float = 0
    y: float = 0
    width: float = 0
    height: float = 0

    @property
    def middle(self) -> float:
        """Its middle, from the left."""
        return self.x + self.width / 2


@dataclass
class Diagram:
    """What the text says: boxes by name, in rows; arrows; lines across, by the row that they stand above."""

    boxes: dict[str, Box] = field(default_factory=dict)
    rows: list[list[str]] = field(default_factory=list)
    arrows: list[tuple[str, str]] = field(default_factory=list)
    gradients: list[tuple[str, str, str]] = field(default_factory=list)
    stages: dict[int, str] = field(default_factory=dict)


def read(text: str) -> Diagram:
    """Read a description; a line that is neither boxes nor arrows, or an arrow from or to nothing, is refused."""
    found = Diagram()
    for line in filter(None, map(str.strip, re.sub("^encoders$", ENCODERS, text, flags=re.MULTILINE).splitlines())):
        if line.startswith("-- "):
            found.stages[len(found.rows)] = line.removeprefix("-- ")
        elif ARROWS.match(line):
            path, _, words = line.partition(": ")
            names = re.split(r" (?:\.\.)?> ", path)
            if missing := [name for name in names if name not in found.boxes]:
                raise ValueError(f"{line!r}: there is no box {missing[0]!r}")
            pairs = pairwise(names)
            if " ..> " in path:
                found.gradients += [(source, target, words) for source, target in pairs]
            else:
                found.arrows += pairs
        else:
            cells = [BOX.fullmatch(cell) for cell in re.split(r"\s+\| ", line)]
            if bad := [cell for cell in cells if cell is None or (cell[2] or "in") not in KINDS]:
                raise ValueError(
                    f"{line!r}: expected boxes, 'name kind: text | …', or arrows, 'one > other', got {bad}"
                )
            _add_row(found, [cell for cell in cells if cell])
    return found


def _add_row(found: Diagram, cells: list[re.Match[str]]) -> None:
    """Boxes beside each other, of equal width but for a lonely one, which is as wide as its text needs."""
    names = [cell[1] for cell in cells]
    most = (WIDTH - 2 * SIDE - GAP * (len(cells) - 1)) / len(cells)
    for cell in cells:
        lines = wrap(cell[3], int((most - 10) / LETTER), break_long_words=False)
        width = most if len(cells) > 1 else max(most * 0.55, min(most, max(map(len, lines)) * LETTER + 22))
        found.boxes[cell[1]] = Box(cell[2] or "layer", lines, len(found.rows), width=width)
    found.rows.append(names)


def draw(text: str, title: str) -> str:
    """The drawing of a description, as an ``svg`` element for a page of HTML."""
    diagram = read(text)
    height, across = _place(diagram)
    paths, notes = _paths(diagram)
    legend = [line for number, words in notes for line in _hanging(number, words)]
    shapes = [*paths, *across, *(_box(box) for box in diagram.boxes.values())]
    for i, line in enumerate(legend):
        shapes.append(f'<text x="4" y="{height + 14 + LINE * i}" class="d-legend">{line}</text>')
    height += LINE * len(legend) + (14 if legend else 0)
    return (
        f'<svg class="diagram" viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(title)}">'
        '<defs><marker id="d-head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z" class="d-tip"/></marker><marker id="d-back" viewBox="0 0 8 8" refX="7" refY="4" '
        'markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z" class="d-back"/></marker></defs>'
        f"{''.join(shapes)}</svg>"
    )


def _place(diagram: Diagram) -> tuple[float, list[str]]:
    """Give every box its place; the height of all, and the lines across."""
    y, across = 4.0, []
    for number, names in enumerate(diagram.rows):
        if number in diagram.stages:
            y += 4 if number else 8
            across.append(
                f'<path d="M0 {y}H{WIDTH}" class="d-rule"/>'
                f'<text x="{SIDE + 2}" y="{y + 14}" class="d-stage">{escape(diagram.stages[number])}</text>'
            )
            y += 26
        boxes = [diagram.boxes[name] for name in names]
        tall = max(len(box.lines) for box in boxes) * LINE + PAD
        x = (WIDTH - sum(box.width for box in boxes) - GAP * (len(boxes) - 1)) / 2
        for box in boxes:
            box.x, box.y, box.height = x, y, tall
            x += box.width + GAP
        y += tall + SPACE
    return y - SPACE + 4, across


def _paths(diagram: Diagram) -> tuple[list[str], list[tuple[int, str]]]:
    """All arrows, and what the dashed ones do, numbered; the same words have one number."""
    shapes, words = [], list(dict.fromkeys(words for *_, words in diagram.gradients))
    lanes = {"left": 0, "right": 0}
    for source, target in diagram.arrows:
        a, b = diagram.boxes[source], diagram.boxes[target]
        route = _down(a, b) if b.row == a.row + 1 else _round(a, b, lanes)[0]
        shapes.append(f'<path d="{route}" class="d-arrow" marker-end="url(#d-head)"/>')
    for source, target, said in diagram.gradients:
        route, (x, y) = _round(diagram.boxes[source], diagram.boxes[target], lanes)
        shapes.append(f'<path d="{route}" class="d-gradient" marker-end="url(#d-back)"/>')
        if said:
            shapes.append(f'<circle cx="{x}" cy="{y}" r="8" class="d-number"/>')
            shapes.append(f'<text x="{x}" y="{y + 4}" class="d-digit">{words.index(said) + 1}</text>')
    return shapes, [(i + 1, one) for i, one in enumerate(words) if one]


def _down(a: Box, b: Box) -> str:
    """From the bottom of a box to the top of one in the next row: to the place below it, where that box is wide enough."""
    x = min(max(a.middle, b.x + 12), b.x + b.width - 12) if b.width > a.width else b.middle
    start = a.middle if b.width > a.width else min(max(x, a.x + 12), a.x + a.width - 12)
    return f"M{start:.1f} {a.y + a.height}L{x:.1f} {b.y}"


def _round(a: Box, b: Box, lanes: dict[str, int]) -> tuple[str, tuple[float, float]]:
    """From the side of a box along the margin to the side of another, and a place on the way; each arrow has a lane of its own."""
    lean = (a.middle + b.middle) / 2 - WIDTH / 2
    side = ("right" if lean > 0 else "left") if abs(lean) > 1 else min(lanes, key=lambda one: lanes[one])
    out = 8 + 7 * (lanes[side] % 4)
    shift = 5 * (lanes[side] % 3) - 4
    lanes[side] += 1
    x = out if side == "left" else WIDTH - out
    edges = (a.x, b.x) if side == "left" else (a.x + a.width, b.x + b.width)
    start, end = a.y + a.height / 2 + shift, b.y + b.height / 2 + shift
    return f"M{edges[0]:.1f} {start}H{x}V{end}H{edges[1]:.1f}", (x, round((start + end) / 2, 1))


def _box(box: Box) -> str:
    """A box with its text in the middle."""
    corner = {"in": 14, "out": 14}.get(box.kind, 4)
    top = box.y + box.height / 2 - LINE * (len(box.lines) - 1) / 2 + 4.5
    lines = "".join(
        f'<text x="{box.middle:.1f}" y="{top + LINE * i:.1f}">{escape(t)}</text>' for i, t in enumerate(box.lines)
    )
    frame = f'<rect x="{box.x:.1f}" y="{box.y}" width="{box.width:.1f}" height="{box.height}" rx="{corner}"/>'
    return f'<g class="d-{box.kind}">{"" if box.kind == "note" else frame}{lines}</g>'


def _hanging(number: int, words: str) -> list[str]:
    """A note below the drawing, on as many lines as it needs."""
    lines = wrap(words, int((WIDTH - 30) / 6.3))
    return [f"{f'({number}) ' if i == 0 else '&#160;' * 6}{escape(line)}" for i, line in enumerate(lines)]
