"""A colour, a dash and a marker for each method: its own in all panels and figures of a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#000000", "#56B4E9", "#882255")
"""Okabe and Ito's, told apart by colour-blind readers; for their yellow, which is pale on white, wine."""

DASHES = ((), (5.0, 2.0), (6.0, 1.5, 1.2, 1.5), (2.0, 1.2), (6.0, 1.3, 1.2, 1.3, 1.2, 1.3))
"""Lengths of strokes and gaps, in widths of the line; no dash is a solid line. Dots are left to the papers' numbers."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")


@dataclass(frozen=True)
class Style:
    """How a method is drawn.

    Attributes:
        colour: of its lines and marks, as ``#RRGGBB``.
        dash: of its lines, as matplotlib takes it: (0, lengths of strokes and gaps).
        marker: of its points, as matplotlib names it.
    """

    colour: str
    dash: tuple[float, tuple[float, ...]]
    marker: str

    @property
    def ink(self) -> str:
        """The colour a third darker, for text: the light ones are hard to read as letters."""
        return "#" + "".join(f"{int(self.colour[i : i + 2], 16) * 2 // 3:02X}" for i in (1, 3, 5))


def palette(methods: Sequence[str]) -> dict[str, Style]:
    """Method -> its style, by its place in the experiment.

    There are 8 colours, 5 dashes and 9 markers, and no two of these numbers share a divisor. So up to 40 methods differ in colour and
    dash together, and up to 45 in dash and marker, which is what remains of them in grey.
    """
    return {
        method: Style(COLOURS[i % len(COLOURS)], (0.0, DASHES[i % len(DASHES)]), MARKERS[i % len(MARKERS)])
        for i, method in enumerate(dict.fromkeys(methods))
    }
