"""The figures of a report."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from matplotlib.figure import Figure

from mmbench.report.cells import ARTEFACT_NOTE
from mmbench.report.collect import Results
from mmbench.report.figures.accuracy import draw
from mmbench.report.figures.base import methods_of
from mmbench.report.figures.classes import draw_confusion, draw_recall
from mmbench.report.figures.cost import draw_cost
from mmbench.report.figures.differences import draw_differences, draw_pairs
from mmbench.report.figures.epochs import draw_epochs, draw_gradients
from mmbench.report.figures.gap import draw_gap
from mmbench.report.figures.masked import draw_training
from mmbench.report.figures.ranks import draw_ranks
from mmbench.report.figures.rates import draw_curves, draw_rate_differences, draw_tuning
from mmbench.report.figures.reliability import draw_reliability
from mmbench.report.figures.surface import draw_surface

FIRST = "Of each data set the first protocol and way of training."

Drawn = tuple[str, Figure | None, str]
"""A figure's name, itself if there is anything to draw, and its caption."""


def figures(results: Results, published: bool = True) -> Iterator[tuple[str, tuple[Figure, str]]]:
    """The figures of a report and their captions, by name; only those that show something, and each drawn when it is asked for.

    ``figure`` shows the main table, ``differences`` and ``pairs`` which methods differ, and ``ranks``, of six data sets
    or more, which are ahead. Where training lacks modalities there are also
    ``robustness``, ``dropout`` (one for each way of dropping them), ``surface``, ``rate-differences``, and ``training`` for a modality
    that training alone lacks; where settings are tuned, ``tuning``. Of all there are ``curves`` and ``gradients`` by epoch,
    ``confusion`` (one a data set), ``recall``, ``reliability`` and ``cost``.

    Args:
        results: what to draw.
        published: leave out what differs from run to run: seconds and memory.
    """
    role = f" {ARTEFACT_NOTE}" if results.table.artefact.any() else ""
    elsewhere = " ‡: made elsewhere." if any(row.elsewhere for row in results.rows) else ""
    main = False
    for name, figure, caption in chain(_rates(results), _comparisons(results), _of_all(results, published)):
        if figure is None:
            continue
        note = elsewhere
        if name in ("matched", "training") and not main:
            note += role * (name == "training")
            name, main = "figure", True
        yield name, (figure, caption + note)
    if not main and any(row.seeds or row.records for row in results.rows):
        caption = "Accuracy with each modality alone and with all, and 95 % intervals."
        yield "figure", (draw(results), f"{caption}{role}{elsewhere}")


def _rates(results: Results) -> Iterator[Drawn]:
    """What depends on a missing rate or on the number of draws."""
    bands = "Bands: one standard deviation over seeds; grey: the other methods."
    if results.rates is not None:
        curves = draw_curves(results, "matched", "at each rate")
        yield "matched", curves, f"Trained and tested at the same rate. {bands}"
        curves = draw_curves(results, "robustness", "complete")
        yield "robustness", curves, f"Trained on complete data, tested at every rate. {bands}"
        matched = draw_rate_differences(results, "matched", "at each rate")
        how = "Trained and tested at the same rate" if matched else "Trained on complete data, tested at every rate"
        differences = matched or draw_rate_differences(results, "robustness", "complete")
        yield "rate-differences", differences, f"{how}: accuracy minus that of the reference. Bands: 95 % intervals."
        redrawn = dict.fromkeys(row.training for row in results.rows if row.missing and row.missing.redraw)
        for number, training in enumerate(redrawn):
            name = f"dropout-{number + 1}" if number else "dropout"
            curves = draw_curves(results, "robustness", training)
            yield name, curves, f"Trained with modality dropout ({training}), tested at every rate. {bands}"
        yield "surface", draw_surface(results), "Accuracy by training rate (down) and test rate (across)."
    caption = "One modality missing in training alone; the test split is complete."
    yield "training", draw_training(results), caption
    if results.tuning is not None:
        curves = draw_tuning(results.tuning, methods_of(results))
        yield "tuning", curves, "Best validation score that so many draws may be expected to have."


def _comparisons(results: Results) -> Iterator[Drawn]:
    """Which methods differ, and by how much."""
    yield (
        "differences",
        draw_differences(results),
        "Accuracy minus the reference's, of the same samples and seeds, with 95 % intervals. Filled: separable from it.",
    )
    yield "pairs", draw_pairs(results), "All pairs: accuracy of the row minus that of the column, in points."
    caption = (
        "Mean rank over data sets, the best on the left; a bar joins methods that Nemenyi's test does not separate."
    )
    yield "ranks", draw_ranks(results), caption


def _of_all(results: Results, published: bool) -> Iterator[Drawn]:
    """What is drawn of every experiment."""
    caption = "Losses and validation accuracy by epoch, mean over seeds and folds."
    yield "curves", draw_epochs(results), f"{caption} {FIRST}"
    for number, dataset in enumerate(results.modalities):
        name = f"confusion-{number + 1}" if number else "confusion"
        caption = f"{dataset}: which class is taken for which, in percent of the true class, with every modality."
        yield name, draw_confusion(results, dataset), caption
    yield "recall", draw_recall(results), f"How much of each class is found, with every modality. {FIRST}"
    caption = "Accuracy against confidence, by how many modalities are shown."
    yield "reliability", draw_reliability(results), f"{caption} {FIRST}"
    yield (
        "cost",
        draw_cost(results, published),
        f"Accuracy with every modality against what it costs; methods of one cost stand side by side. {FIRST}",
    )
    caption = "Mean log norm of each encoder's gradient by epoch: far apart, one modality learns and the others do not."
    yield "gradients", draw_gradients(results), f"{caption} {FIRST}"
    caption = "Features of the modalities of each method's first trial, in the plane in which they vary most; large: their means."
    yield "gap", draw_gap(results), caption
