"""Accuracy by missing rate, from stored predictions: no model is run.

A test sample under a mask is a look-up: the prediction that was stored for the pattern that the mask leaves of it. So one trial answers
for every mask of every rate, and what a curve costs is counting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, cast

import numpy as np
import pandas as pd

from mmbench.evidence.comparisons import best
from mmbench.evidence.diagnostics import effective_robustness
from mmbench.evidence.rates import DRAWS, accuracy, interval, masks_of_test, mean_height, shown
from mmbench.evidence.resampling import summarise
from mmbench.missing import Missing, patterns, realised
from mmbench.report.outcomes import Outcomes

REFERENCE = "late_fusion"
"""Its modalities are trained alone: their own predictions are the unimodal models that others are held against."""

Evaluation = Literal["matched", "robustness"]

KEY = ("dataset", "protocol", "evaluation", "mask", "training", "method")
CURVE_COLUMNS = (
    *KEY, "training_rate", "rate", "masked", "missing", "empty", "mean", "std", "ci_low", "ci_high", "gain", "gain_low", "gain_high",
    "best_alone", "difference", "difference_low", "difference_high", "n", "reported", "best",
)  # fmt: skip
AREA_COLUMNS = (
    *KEY, "area", "area_low", "area_high", "gain", "gain_low", "gain_high", "effective", "effective_low", "effective_high", "n",
    "reported", "best",
)  # fmt: skip


@dataclass
class Rates:
    """Accuracies by missing rate.

    Attributes:
        curves: one row a curve and rate, with ``CURVE_COLUMNS``. ``evaluation`` is "matched" (trained and tested at the rate, one
            fixed test mask) or "robustness" (trained as ``training`` says, tested at every rate, mean over 100 masks). ``masked``,
            ``missing`` and ``empty`` are what these masks come to (``missing.realised``); ``gain`` is over the modality
            ``best_alone``; ``difference`` is to the experiment's reference, trained and tested alike, and NaN for itself;
            ``best`` says whether it is the best of those evaluated and trained alike at the rate, or not separable from it.
        areas: one row a curve, with ``AREA_COLUMNS``: the area under it over its rates above zero, divided by their range, so a mean
            accuracy in percent; and the effective robustness, in points, where late fusion was trained in the same way.
            ``best`` is as for curves.
    """

    curves: pd.DataFrame
    areas: pd.DataFrame


def collect_rates(
    outcomes: Sequence[Outcomes],
    test_rates: Sequence[float] = (),
    printed: Mapping[tuple[str, str, float], float] | None = None,
    reference: str = REFERENCE,
) -> Rates | None:
    """The curves of an experiment; None if it names no missing rate that a test split could have.

    Args:
        outcomes: one a data set, protocol, way of training and method.
        test_rates: rates of anchor masks to test at, beside those of training.
        printed: the papers' numbers, (data set, method, rate) -> accuracy.
        reference: the method whose curves the others' differences are to.
    """
    curves: list[tuple] = []
    areas: list[tuple] = []
    for dataset, protocol in dict.fromkeys((o.dataset, o.protocol) for o in outcomes):
        here = [o for o in outcomes if (o.dataset, o.protocol) == (dataset, protocol)]
        modalities = next((o.modalities for o in here if o.modalities), [])
        families: dict[str, dict[float, Missing]] = {}
        if test_rates:
            families["anchor"] = {rate: Missing(rate=rate) for rate in test_rates if rate > 0}
        for missing in dict.fromkeys(o.matched for o in here):
            if missing is not None:
                families.setdefault(missing.family, {})[missing.share(len(modalities))] = missing
        for name, family in families.items():
            _Family(here, name, dict(sorted(family.items())), reference).add_to(curves, areas, printed or {})
    if not curves:
        return None
    return Rates(
        pd.DataFrame(curves, columns=list(CURVE_COLUMNS)).astype({"reported": float, "training_rate": float}),
        pd.DataFrame(areas, columns=list(AREA_COLUMNS)).astype({"reported": float}),
    )


@dataclass
class _Point:
    """Accuracy at one rate: of each run (S,), the bootstrap's draws (R,), and the gain over the best modality alone, likewise."""

    seeds: list[int]
    accuracy: np.ndarray
    draws: np.ndarray
    gain: float = float("nan")
    gain_draws: np.ndarray | None = None
    best_alone: str | None = None


class _Family:
    """The masks of one kind and mask seed by rate, on one data set under one protocol, and what was trained for them."""

    def __init__(self, outcomes: Sequence[Outcomes], name: str, masks: Mapping[float, Missing], reference: str) -> None:
        self.name, self.masks = name, masks
        self.rates = [0.0, *masks]
        # Trained at a rate of this family; trained otherwise, for a test under any mask.
        self.rate_of = {m: rate for rate, m in masks.items()}
        self.outcomes = [o for o in outcomes if o.matched is None or o.matched in self.rate_of]
        self.references = {o.missing: o for o in outcomes if o.method == REFERENCE and o.seeds}
        self.compared = {o.missing: o for o in outcomes if o.method == reference and o.seeds}
        self.example = next((o for o in self.outcomes if o.seeds), None)
        self.share = cache(self._share)
        self.realised = cache(self._realised)
        self.alone = cache(self._alone)
        self.of_compared = cache(
            lambda missing, evaluation, rate: self._point(self.compared[missing], evaluation, rate)
        )
        # Evaluation, training and rate (None: the area) -> the mean and the draws of each method that has them.
        self.columns: dict[tuple, dict[str, tuple[float, np.ndarray]]] = {}
        self.of_reference = cache(lambda missing, rate: self._point(self.references[missing], "robustness", rate))

    def add_to(self, curves: list[tuple], areas: list[tuple], printed: Mapping) -> None:
        """Append the rows of all curves."""
        own_curves: list[tuple] = []
        own_areas: list[tuple] = []
        for method in dict.fromkeys(o.method for o in self.outcomes):
            own = [o for o in self.outcomes if o.method == method]
            at = {self._training_rate(o): o for o in own if o.missing is None or o.matched}
            comparable = all(o.comparable for o in own if o.matched)
            paper = {rate: printed.get((own[0].dataset, method, rate)) for rate in self.masks if comparable}
            if any(o.matched for o in own):
                trained = {rate: at[rate] for rate in self.rates if rate in at}
                self._curve(own_curves, own_areas, "matched", "at each rate", trained, paper)
            for o in own:
                self._curve(own_curves, own_areas, "robustness", o.training, dict.fromkeys(self.rates, o), {})
        chosen = self._best()
        place = [KEY.index(name) for name in ("evaluation", "training", "method")]
        rate = CURVE_COLUMNS.index("rate")
        curves += [(*row, (*(row[i] for i in place), row[rate]) in chosen) for row in own_curves]
        areas += [(*row, (*(row[i] for i in place), None) in chosen) for row in own_areas]

    def _best(self) -> set[tuple]:
        """Evaluation, training, method and rate of what is the best of its column, or not separable from it."""
        found = set()
        for (evaluation, training, rate), methods in self.columns.items():
            flags = best([mean for mean, _ in methods.values()], [draws for _, draws in methods.values()])
            found |= {(evaluation, training, m, rate) for m, flag in zip(methods, flags, strict=True) if flag}
        return found

    def _training_rate(self, o: Outcomes) -> float:
        """The rate of this family that a model was trained at; NaN where it was trained in another way."""
        return 0.0 if o.missing is None else self.rate_of.get(o.missing, np.nan)

    def _curve(
        self,
        curves: list[tuple],
        areas: list[tuple],
        evaluation: Evaluation,
        training: str,
        trained: Mapping[float, Outcomes],
        paper: Mapping[float, float | None],
    ) -> None:
        first = next(iter(trained.values()))
        key = (first.dataset, first.protocol, evaluation, self.name, training, first.method)
        points = {rate: self._point(o, evaluation, rate) for rate, o in trained.items()}
        for rate, point in points.items():
            if point.seeds:
                column = self.columns.setdefault((evaluation, training, rate), {})
                column[first.method] = float(point.accuracy.mean()), point.draws
            values = summarise(point.accuracy, point.draws) if point.seeds else (np.nan,) * 4
            gain = (point.gain, *interval(point.gain_draws))
            row = (self._training_rate(trained[rate]), rate, *self.realised(evaluation, rate), *values, *gain)
            difference = self._difference(trained[rate], point, evaluation, rate)
            curves.append((*key, *row, point.best_alone, *difference, len(point.accuracy), paper.get(rate)))
        if len(self.masks) > 1:
            area, runs, draws = self._area([points.get(rate) for rate in self.masks])
            if draws is not None:
                self.columns.setdefault((evaluation, training, None), {})[first.method] = area[0], draws
            effective = self._effective(first, points) if evaluation == "robustness" else (np.nan,) * 3
            areas.append((*key, *area, *effective, runs, self._printed_area(paper)))

    def _point(self, o: Outcomes, evaluation: Evaluation, rate: float) -> _Point:
        if not o.seeds:
            return _Point([], np.zeros(0), np.zeros(0))
        point = _Point(o.seeds, *accuracy(o.hits, o.group, self.share(evaluation, rate)))
        reference = self.references.get(o.missing)
        if reference is not None and reference.seeds == o.seeds and reference.best_alone is not None:
            point.best_alone = reference.modalities[reference.best_alone]
            alone, draws = self.alone(o.missing, evaluation, rate)
            point.gain, point.gain_draws = float(point.accuracy.mean() - alone.mean()), point.draws - draws
        return point

    def _alone(self, missing: Missing | None, evaluation: Evaluation, rate: float) -> tuple[np.ndarray, np.ndarray]:
        """Accuracy and draws of the best modality alone of models trained in this way: what they answer to that modality, if shown."""
        reference = self.references[missing]
        alone_best = cast(int, reference.best_alone)
        share = self.share(evaluation, rate)
        sees = np.array([reference.modalities[alone_best] in p for p in patterns(reference.modalities)] + [False])
        alone = np.zeros_like(share)
        alone[alone_best], alone[-1] = share[sees].sum(axis=0), share[~sees].sum(axis=0)
        return accuracy(reference.hits, reference.group, alone)

    def _difference(
        self, o: Outcomes, point: _Point, evaluation: Evaluation, rate: float
    ) -> tuple[float, float, float]:
        """The accuracy minus that of the reference, of the same seeds and under the same masks, with its interval."""
        other = self.compared.get(o.missing)
        if other is None or other is o or other.seeds != o.seeds:
            return (np.nan,) * 3
        beside = self.of_compared(o.missing, evaluation, rate)
        return float(point.accuracy.mean() - beside.accuracy.mean()), *interval(point.draws - beside.draws)

    def _effective(self, o: Outcomes, points: Mapping[float, _Point]) -> tuple[float, float, float]:
        """What a model keeps over late fusion as modalities go missing, beyond its lead where none does; NaN for late fusion itself."""
        reference = self.references.get(o.missing)
        if reference is None or reference is o or reference.seeds != o.seeds:
            return (np.nan,) * 3
        others = [self.of_reference(o.missing, rate) for rate in self.rates]
        own = [points[rate] for rate in self.rates]
        value = effective_robustness(*(np.array([p.accuracy.mean() for p in side]) for side in (own, others)))
        draws = effective_robustness(*(np.stack([p.draws for p in side]) for side in (own, others)))
        return float(value), *interval(draws)

    def _area(self, points: Sequence[_Point | None]) -> tuple[tuple, int, np.ndarray | None]:
        """Area and gain with their intervals, n, and the area's draws; NaN where a rate was not run, or not with the same seeds."""
        done = [p for p in points if p is not None and p.seeds]
        if len(done) < len(points) or any(p.seeds != done[0].seeds for p in done):
            return (np.nan,) * 6, 0, None
        x = np.array(list(self.masks))
        area = float(mean_height(x, np.array([p.accuracy.mean() for p in done])))
        gains = [p.gain_draws for p in done if p.gain_draws is not None]
        gain = float(mean_height(x, np.array([p.gain for p in done])))
        gain_draws = mean_height(x, np.stack(gains)) if len(gains) == len(done) else None
        draws = mean_height(x, np.stack([p.draws for p in done]))
        return (area, *interval(draws), gain, *interval(gain_draws)), min(len(p.accuracy) for p in done), draws

    def _printed_area(self, paper: Mapping[float, float | None]) -> float | None:
        values = [value for rate in self.masks if (value := paper.get(rate)) is not None]
        return (
            float(mean_height(np.array(list(self.masks)), np.array(values))) if len(values) == len(self.masks) else None
        )

    def _share(self, evaluation: Evaluation, rate: float) -> np.ndarray:
        """How often each test sample shows each pattern, (P + 1, N): under the fixed mask, or over many."""
        example = cast(Outcomes, self.example)
        if rate == 0:
            return shown(np.ones((1, *example.present.shape), bool))
        return shown(self._masks(example, rate, 1 if evaluation == "matched" else DRAWS))

    def _masks(self, example: Outcomes, rate: float, draws: int) -> np.ndarray:
        """Masks (draws, N, M) of the test split at a rate."""
        return masks_of_test(example.data, example.modalities, example.parts, self.masks[rate], draws)

    def _realised(self, evaluation: Evaluation, rate: float) -> tuple[float, float, float]:
        """Shares of masked and of missing cells, and of samples with nothing left: under the fixed test mask, or over many."""
        if self.example is None:
            return (np.nan,) * 3
        present = self.example.present
        masks = np.ones((1, *present.shape), bool)
        if rate > 0:
            masks = self._masks(self.example, rate, 1 if evaluation == "matched" else DRAWS)
        shares = [realised(keep, present) for keep in masks]
        masked, missing, empty = (float(np.mean([s[name] for s in shares])) for name in ("masked", "missing", "empty"))
        return masked, missing, empty
