"""The pictures of the pages of ideas, drawn from committed reports and by the suite's own masks and folds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from drawing import GREY, GRID, INK, PALE, WHITE, Drawing
from idea_numbers import (
    accuracies,
    against_late_fusion,
    fold_accuracies,
    habits,
    what_tuning_adds,
    with_everything,
)
from mmbench.data.folds import Parts
from mmbench.missing import Missing, mask_generator, pattern_matrix, pattern_name, patterns, realised

BLUE, ORANGE, GREEN, SAND = "#0072B2", "#D55E00", "#009E73", "#f4c7a8"
MODALITIES = ("image", "title", "tags")
WIDTH = 500
SAMPLES = 24


def pictures() -> dict[str, str]:
    """Path below ``docs`` -> SVG."""
    draw: dict[str, Callable[[], Drawing]] = {
        "patterns": draw_patterns,
        "protocols": draw_protocols,
        "folds": draw_folds,
        "masks": draw_masks,
        "nested": draw_nested,
        "intervals": draw_intervals,
        "tuning": draw_tuning,
    }
    return {f"ideas/made/{name}.svg": str(function()) for name, function in draw.items()}


def draw_patterns() -> Drawing:
    """The seven patterns of three modalities, and what two methods of Table 1 make of each."""
    methods, scores = ("late_fusion", "ogm_ge"), accuracies("table1")["mean"]
    drawing = Drawing(
        WIDTH, 196, "Accuracy of two methods under each of the seven presence patterns of three modalities"
    )
    left, step = 112, 55
    for row, modality in enumerate(MODALITIES):
        drawing.words(left - 14, 35 + 30 * row, modality, "end")
    for row, method in enumerate(methods):
        drawing.words(left - 14, 134 + 24 * row, method, "end", (BLUE, ORANGE)[row])
    for column, (pattern, shown) in enumerate(zip(patterns(MODALITIES), pattern_matrix(MODALITIES), strict=True)):
        x = left + step * column
        for row, there in enumerate(shown):
            drawing.box(x, 18 + 30 * row, 42, 24, GREEN if there else WHITE, GREEN if there else GREY)
        for row, method in enumerate(methods):
            value = f"{scores[method, pattern_name(pattern)]:.1f}"
            drawing.words(x + 21, 134 + 24 * row, value, "middle", (BLUE, ORANGE)[row])
    drawing.key(left, 186, [(GREEN, "the model sees it"), (WHITE, "hidden; below: accuracy in %")])
    return drawing


def draw_protocols() -> Drawing:
    """Table 1 with everything, of the seeds that all protocols have: clean accuracy, and what peeking and leakage add to it."""
    legacy, adds = with_everything("table1", "legacy")["mean"], habits()["mean"]
    drawing = Drawing(
        WIDTH, 46 + 26 * len(legacy), "Accuracy of eight methods: clean, and what peeking and leakage add"
    )
    left, scale = 100, 5.0
    for row, (method, total) in enumerate(legacy.items()):
        x, y = float(left), 14 + 26 * row
        drawing.words(left - 8, y + 14, str(method), "end")
        clean = total - adds[method, "inflation"]
        for part, colour in ((clean, BLUE), (adds[method, "peeking"], ORANGE), (adds[method, "leakage"], GREY)):
            drawing.box(x, y, scale * part, 19, colour)
            x += scale * part
            if part > 10:
                drawing.words(x - 5, y + 14, f"{part:.1f}", "end", WHITE if colour == BLUE else INK)
        drawing.words(x + 5, y + 14, f"{total:.1f}")
    drawing.key(left, 36 + 26 * len(legacy), [(BLUE, "clean"), (ORANGE, "+ peeking"), (GREY, "+ leakage = legacy")])
    return drawing


def draw_folds() -> Drawing:
    """Which part of the embedded set each fold tests, chooses its epoch on and trains on; parts as wide as they are large."""
    sizes = fold_accuracies("late_fusion").samples.astype(int)
    parts = Parts.of([str(i) for i in range(sizes.sum())], np.repeat(np.arange(len(sizes)), sizes), len(sizes), "")
    drawing = Drawing(WIDTH, 60 + 28 * len(sizes), "Five folds: each part is tested once")
    left, scale = 66, 420 / sizes.sum()
    ends = np.cumsum(sizes) * scale + left
    for part, size in sizes.items():
        drawing.words(ends[part] - size * scale / 2, 20, f"{size}", "middle", PALE)
    for fold in range(len(sizes)):
        train, validation, test = (set(parts.clean[rows].tolist()) for rows in parts.rows("clean", fold))
        drawing.words(left - 8, 44 + 28 * fold, f"fold {fold}", "end")
        for part, size in sizes.items():
            colour = ORANGE if part in test else BLUE if part in validation else GRID
            assert (part in train) == (colour == GRID)
            drawing.box(ends[part] - size * scale + 1, 30 + 28 * fold, size * scale - 2, 20, colour)
    drawing.key(
        left,
        50 + 28 * len(sizes),
        [(ORANGE, "test"), (BLUE, "validation"), (GRID, "training; above: pictures in the part")],
    )
    return drawing


def draw_masks() -> Drawing:
    """The three kinds of masks at one rate."""
    kinds = (Missing(rate=0.5), Missing(kind="bernoulli", rate=0.5), Missing(kind="per_modality", rates={"title": 0.5}))
    return masked("Three kinds of masks on 24 samples", kinds)


def draw_nested() -> Drawing:
    """One kind of mask at rising rates."""
    return masked("Anchor masks of 24 samples at three rates", [Missing(rate=rate) for rate in (0.2, 0.4, 0.6)])


def masked(title: str, settings: list[Missing] | tuple[Missing, ...]) -> Drawing:
    """A grid for each mask, a column a sample and a row a modality, with what it comes to."""
    drawing, left, cell = Drawing(WIDTH, 24 + 92 * len(settings), title), 60, 17
    for number, missing in enumerate(settings):
        mask = missing.draw(MODALITIES, SAMPLES, mask_generator("a data set", "test", missing.seed))  # (N, M)
        comes_to, top = realised(mask, np.ones_like(mask)), 14 + 92 * number
        empty = round(comes_to["empty"] * SAMPLES)
        lost = f"; {empty} samples have nothing left" if empty else ""
        drawing.words(left, top + 10, f"{missing}: {comes_to['masked']:.0%} of the cells are missing{lost}")
        for row, modality in enumerate(MODALITIES):
            drawing.words(left - 8, top + 32 + cell * row, modality, "end")
            for column, kept in enumerate(mask[:, row]):
                colour = GREEN if kept else WHITE if mask[column].any() else SAND
                drawing.box(
                    left + cell * column, top + 20 + cell * row, cell - 2, cell - 2, colour, GREEN if kept else GREY
                )
    drawing.key(left, 12 + 92 * len(settings), [(GREEN, "there"), (WHITE, "missing"), (SAND, "nothing is left")])
    return drawing


def axis(drawing: Drawing, left: float, scale: float, ticks: range, bottom: float, sign: str = "") -> None:
    """Vertical lines at the ticks, with their numbers below."""
    for tick in ticks:
        x = left + scale * (tick - ticks[0])
        drawing.line((x, 24), (x, bottom), INK if sign and tick == 0 else GRID)
        drawing.words(x, bottom + 14, f"{tick:{sign}}" if tick else "0", "middle", PALE, 11)


def draw_intervals() -> Drawing:
    """Table 1 with everything: the interval of each accuracy, and of each difference to late fusion."""
    scores, differences = with_everything("table1"), against_late_fusion()
    bottom = 34 + 24 * len(scores)
    drawing = Drawing(WIDTH, bottom + 24, "Intervals of eight accuracies, and of their differences to late fusion")
    left, right, scale = 96, 306, 6.0
    drawing.words(left, 16, "accuracy, %", fill=PALE)
    drawing.words(right, 16, "minus late_fusion, points", fill=PALE)
    axis(drawing, left, scale, range(30, 61, 10), bottom)
    axis(drawing, right, scale, range(-15, 11, 5), bottom, "+")
    for row, (method, score) in enumerate(scores.iterrows()):
        y = 40 + 24 * row
        drawing.words(left - 8, y + 4, str(method), "end")
        drawing.line((left + scale * (score.ci_low - 30), y), (left + scale * (score.ci_high - 30), y), BLUE, 2)
        drawing.dot(left + scale * (score["mean"] - 30), y, BLUE)
        if method in differences.index:
            d = differences.loc[method]
            colour = ORANGE if d.p_holm < 0.05 else BLUE
            drawing.line((right + scale * (d.ci_low + 15), y), (right + scale * (d.ci_high + 15), y), colour, 2)
            drawing.dot(right + scale * (d.difference + 15), y, colour)
            if colour == ORANGE:
                drawing.words(right + scale * (d.ci_high + 15) + 6, y + 5, "*", fill=ORANGE)
    return drawing


def draw_tuning() -> Drawing:
    """What tuning adds to each method's score on validation, and to its accuracy on the test part."""
    adds = what_tuning_adds()
    bottom = 34 + 24 * len(adds)
    drawing = Drawing(WIDTH, bottom + 44, "What tuning adds on the validation and on the test part")
    left, scale = 130, 41.0
    drawing.words(left, 16, "tuned minus default, points", fill=PALE)
    axis(drawing, left, scale, range(-4, 5, 2), bottom, "+")
    for row, (method, line) in enumerate(adds.iterrows()):
        y = 40 + 24 * row
        drawing.words(left - 14, y + 4, str(method), "end")
        drawing.line((left + scale * (line.ci_low + 4), y), (left + scale * (line.ci_high + 4), y), BLUE, 2)
        drawing.dot(left + scale * (line.test + 4), y, BLUE)
        drawing.dot(left + scale * (line.validation + 4), y, ORANGE, filled=False)
    drawing.key(left - 30, bottom + 36, [(BLUE, "test, with 95 % interval"), (ORANGE, "validation (open)")])
    return drawing
