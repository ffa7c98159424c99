"""Methods are told apart in print, in grey and by the colour-blind."""

from itertools import pairwise

from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from mmbench.report.colours import COLOURS, palette

FORTY = [f"method {i}" for i in range(40)]


def test_forty_methods_differ_in_colour_and_dash_and_in_grey_by_dash_and_marker() -> None:
    styles = palette(FORTY).values()
    assert len({(s.colour, s.dash) for s in styles}) == 40
    assert len({(s.dash, s.marker) for s in styles}) == 40


def test_neighbours_which_share_a_panel_differ_in_all_three() -> None:
    for one, other in pairwise(palette(FORTY).values()):
        assert one.colour != other.colour
        assert one.dash != other.dash
        assert one.marker != other.marker


def test_a_method_keeps_its_style_when_others_come_after_it() -> None:
    assert list(palette(FORTY[:3]).items()) == list(palette(FORTY).items())[:3]
    assert palette(["a", "b", "a"]) == palette(["a", "b"])


def luminance(colour: str) -> float:
    """WCAG's relative luminance."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_text_is_readable_on_white_and_lines_are_seen() -> None:
    assert all(1.05 / (luminance(s.ink) + 0.05) > 4.5 for s in palette(FORTY).values())
    assert all(1.05 / (luminance(colour) + 0.05) > 2.1 for colour in COLOURS)


def test_matplotlib_draws_every_style() -> None:
    figure = Figure()
    axes = figure.subplots()
    for i, style in enumerate(palette(FORTY).values()):
        axes.plot([0, 1], [i, i], color=style.colour, ls=style.dash, marker=style.marker)
    figure.canvas.draw()
    assert len(axes.lines) == 40
