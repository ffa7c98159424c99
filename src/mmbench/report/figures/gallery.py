"""The figures of a report."""

from __future__ import annotations

from matplotlib.figure import Figure

from mmbench.report.cells import ARTEFACT_NOTE
from mmbench.report.collect import Results
from mmbench.report.figures.accuracy import draw
from mmbench.report.figures.gap import draw_gap
from mmbench.report.figures.masked import draw_training
from mmbench.report.figures.rates import draw_curves, draw_tuning
from mmbench.report.figures.surface import draw_surface


def figures(results: Results) -> dict[str, tuple[Figure, str]]:
    """The figures of a report and their captions, by name.

    ``figure`` shows the main table. Where training lacks modalities there are also ``robustness``, ``dropout`` (one for each way of
    dropping them), ``surface``, and ``training`` for a modality that training alone lacks. Where settings are
    tuned there is ``tuning``.
    """
    bands = "Bands: one standard deviation over seeds; dotted: the papers' numbers; grey: the other methods."
    drawn: dict[str, tuple[Figure | None, str]] = {}
    if (rates := results.rates) is not None:
        drawn["matched"] = (
            draw_curves(rates, "matched", "at each rate"),
            f"Trained and tested at the same rate. {bands}",
        )
        complete = draw_curves(rates, "robustness", "complete")
        drawn["robustness"] = (complete, f"Trained on complete data, tested at every rate. {bands}")
        redrawn = dict.fromkeys(row.training for row in results.rows if row.missing and row.missing.redraw)
        for number, training in enumerate(redrawn):
            caption = f"Trained with modality dropout ({training}), tested at every rate. {bands}"
            name = f"dropout-{number + 1}" if number else "dropout"
            drawn[name] = (draw_curves(rates, "robustness", training), caption)
        drawn["surface"] = (draw_surface(rates), "Accuracy by training rate (down) and test rate (across).")
    role = f" {ARTEFACT_NOTE}" if results.table.artefact.any() else ""
    caption = f"One modality missing in training alone; the test split is complete.{role}"
    drawn["training"] = (draw_training(results), caption)
    if results.tuning is not None:
        drawn["tuning"] = (
            draw_tuning(results.tuning),
            "Best validation score that so many draws may be expected to have.",
        )
    caption = "Features of the modalities of each method's first trial, in the plane in which they vary most; large: their means."
    drawn["gap"] = draw_gap(results), caption
    found = {name: (figure, caption) for name, (figure, caption) in drawn.items() if figure is not None}
    for main in ("matched", "training"):
        if main in found:
            return {"figure": found.pop(main), **found}
    caption = "Accuracy with each modality alone and with all, and 95 % intervals."
    return {"figure": (draw(results), f"{caption}{role}"), **found}
