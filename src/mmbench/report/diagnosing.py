"""Diagnostics of an experiment's rows: what each method makes of its modalities, and how sure it may be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from mmbench.data import DATASETS
from mmbench.evidence.accuracy import distinct_runs
from mmbench.evidence.calibration import expected_error, reliability, risk_coverage
from mmbench.evidence.diagnostics import Scores, equity, gradient_variation, lost, score
from mmbench.evidence.information import decompose, few_classes, joint_table
from mmbench.evidence.resampling import intervals, means
from mmbench.missing import shapley
from mmbench.record import Predictions
from mmbench.report.comparing import trained_alone
from mmbench.report.lean import rows_with
from mmbench.report.rates import Rates
from mmbench.report.rows import Key, Row, Run

COLUMNS = (
    "dataset",
    "protocol",
    "training",
    "method",
    "diagnostic",
    "of",
    "value",
    "ci_low",
    "ci_high",
    "n",
    "artefact",
)
RELIABILITY_COLUMNS = ("dataset", "protocol", "training", "method", "shown", "bin", "confidence", "accuracy", "share")
PARTS = {
    "pid_redundancy": "redundancy",
    "pid_unique_first": "first",
    "pid_unique_second": "second",
    "pid_synergy": "synergy",
}
"""Diagnostic -> the part of ``information.Decomposition``."""
MOST_TABLES = 100
"""Joint tables that are taken apart together: many at once are faster, and those of a large report would fill the memory."""

Line = tuple[str, str, float, float, float, int, str]
"""Diagnostic, of what, value, its interval, n, artefact."""


@dataclass
class Diagnosed:
    """The diagnostics of a report.

    Attributes:
        lines: one row a diagnostic, with the columns ``COLUMNS``. ``of`` is a modality, a pattern, a pair of modalities, a number of
            modalities that are shown, a class, a kind of mask, or empty. ``artefact`` is "role" where the score of a pattern enters
            that is an artefact of a modality's role in the method. Where there is no interval it is NaN.
        confusions: the (C, C) counts of each row, true × predicted class, with every modality, summed over runs.
        reliability: one row a number of modalities shown and bin of confidence that has answers, with the columns
            ``RELIABILITY_COLUMNS``: the answers' mean confidence, their accuracy, and their share, from 0 to 1, over all runs.
    """

    lines: pd.DataFrame
    confusions: dict[Key, np.ndarray]
    reliability: pd.DataFrame


@dataclass
class _Alone:
    """What a row's modalities get right alone: the hits of each group of samples (M, G) by seed, and the groups' sizes (G,)."""

    row: Row
    modalities: list[str]
    hits: dict[int, np.ndarray]
    sizes: np.ndarray


@dataclass
class _Pair:
    """The joint table of the predictions of two modalities alone and the class, of a row."""

    key: Key
    name: str
    runs: int
    artefact: str
    table: np.ndarray


class Diagnosing:
    """Diagnoses rows one after another; keeps counts, and no predictions."""

    def __init__(self) -> None:
        self._lines: dict[Key, list[Line]] = {}
        self._alone: dict[Key, _Alone] = {}
        self._confusions: dict[Key, np.ndarray] = {}
        self._bins: list[tuple] = []
        self._waiting: dict[int, list[_Pair]] = {}  # by number of classes

    def add(self, row: Row, runs: Sequence[Run]) -> None:
        """Diagnose a row by its runs, one a seed."""
        if not runs:
            return
        key = row.key
        every = [run.predictions for run in runs]
        counted = every if row.runs == len(every) else [every[i] for i in distinct_runs(every)]
        first, groups = every[0], _Groups(every[0].group)
        modalities = first.modalities.tolist()
        scores = [score(p.label, p.predicted, p.log_probs, p.log_prior) for p in counted]
        lines = _of_patterns(row, first, groups, scores)
        for shown, bins, answers in _by_shown(row, first, scores):
            lines += answers
            held = [(number, *of_bin) for number, of_bin in enumerate(bins) if of_bin[0]]
            self._bins += [(*key, shown, i, c / n, hit / n, n / bins[:, 0].sum()) for i, n, hit, c in held]
        lines += _of_training(row, modalities)
        if first.given[-1]:
            lines += _recall(row, counted, groups)
            classes = first.log_probs.shape[-1]
            pairs = [p.label * classes + p.predicted[-1] for p in counted]
            self._confusions[key] = np.bincount(np.concatenate(pairs), minlength=classes**2).reshape(classes, classes)
        self._lines[key] = lines
        small = np.min_scalar_type(int(groups.sizes.max()))  # they are kept for all rows at once
        alone = {
            r.seed: groups.sums(p.predicted[: len(modalities)] == p.label).astype(small)
            for r, p in zip(runs, every, strict=True)
        }
        self._alone[key] = _Alone(row, modalities, alone, groups.sizes)
        for pair in _pairs(row, key, counted):
            self._waiting.setdefault(len(pair.table), []).append(pair)
        for number in [number for number, waiting in self._waiting.items() if len(waiting) >= MOST_TABLES]:
            self._take_apart(number)

    def finish(self, rates: Rates | None) -> Diagnosed:
        """All diagnostics, with those that hold a method against models trained alone, or late fusion.

        Args:
            rates: accuracies by missing rate, where there are any.
        """
        for classes in list(self._waiting):
            self._take_apart(classes)
        for key, own in self._alone.items():
            label = trained_alone(own.row, {other[3] for other in self._alone if other[:3] == key[:3]})
            if label is not None:
                self._lines[key] += _laziness(own, self._alone[*key[:3], label])
        for key, line in _robustness(rates):
            self._lines[key].append(line)
        lines = [(*key, *line) for key, found in self._lines.items() for line in found]
        bins = pd.DataFrame(self._bins, columns=list(RELIABILITY_COLUMNS))
        return Diagnosed(pd.DataFrame(lines, columns=list(COLUMNS)), self._confusions, bins)

    def _take_apart(self, classes: int) -> None:
        waiting = self._waiting.pop(classes)
        found = decompose(np.stack([pair.table for pair in waiting]))
        for number, pair in enumerate(waiting):
            for name, part in PARTS.items():
                value = float(getattr(found, part)[number])
                self._lines[pair.key].append((name, pair.name, value, np.nan, np.nan, pair.runs, pair.artefact))


class _Groups:
    """Groups of N samples, in the order of their numbers."""

    def __init__(self, group: np.ndarray) -> None:
        self.sizes = np.unique(group, return_counts=True)[1]
        self._order = np.argsort(group, kind="stable")
        self._starts = np.cumsum(self.sizes) - self.sizes

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Of values (K, N), the sums over the samples of each group: (K, G)."""
        return np.add.reduceat(values[:, self._order].astype(float), self._starts, axis=1)


def _role(row: Row, names: Sequence[str]) -> str:
    """Whether the score of one of these patterns is an artefact."""
    return "role" if set(names) & set(row.artefacts) else ""


def _of_patterns(row: Row, p: Predictions, groups: _Groups, scores: Sequence[Scores]) -> list[Line]:
    """What is a mean over samples of how they are answered under the patterns, and equity, which follows from such means."""
    lines: list[Line] = []
    for name, of, sums in _sums(p, groups, scores):
        values, draws = means(sums, groups.sizes)
        for (what, names), value, (low, high) in zip(of.items(), values, intervals(draws).tolist(), strict=True):
            if not row.lacks(names):
                lines.append((name, what, float(value), low, high, len(scores), _role(row, names)))
        if name.startswith("contribution") and not row.lacks(p.pattern_names):
            even = float(equity(values)), *intervals(equity(draws)[None])[0].tolist()
            lines.append((name.replace("contribution", "equity"), "", *even, len(scores), _role(row, p.pattern_names)))
    return lines


def _sums(
    p: Predictions, groups: _Groups, scores: Sequence[Scores]
) -> Iterator[tuple[str, Mapping[str, Sequence[str]], np.ndarray]]:
    """Diagnostics that are means over samples: name, K things that they are of -> the patterns that enter, and sums (S, K, G)."""
    modalities, names = p.modalities.tolist(), p.pattern_names
    hits = np.stack([groups.sums(s.hits) for s in scores])  # (S, P + 1, G)
    surprise = np.stack([groups.sums(s.surprise) for s in scores])
    brier = np.stack([groups.sums(s.brier) for s in scores])
    informed = surprise[:, -1:] - surprise
    yield "information", {name: [name] for name in names}, informed[:, :-1]

    weights, everything = shapley(len(modalities)), dict.fromkeys(modalities, names)
    yield "contribution", everything, 100 * (weights @ hits)
    yield "contribution_information", everything, weights @ informed

    pairs = {f"{a}+{b}": [f"{a}+{b}", a, b] for a, b in combinations(modalities, 2)}
    both, first, second = np.array([[names.index(name) for name in pair] for pair in pairs.values()]).T
    yield "interaction", pairs, informed[:, both] - informed[:, first] - informed[:, second]

    wider = {
        name: [other for other, more in zip(names, p.patterns, strict=True) if set(pattern) <= set(more)]
        for name, pattern in zip(names[:-1], p.patterns, strict=False)
    }
    wasted = np.stack([groups.sums(lost(s.hits, len(modalities))) for s in scores])
    yield "consistency", {**wider, "": names}, 100 * np.delete(wasted, len(names) - 1, axis=1)

    sizes = np.array([len(pattern) for pattern in p.patterns])
    shown = [np.flatnonzero(sizes == k) for k in range(1, len(modalities) + 1)]
    by_shown = {str(k): [names[i] for i in here] for k, here in enumerate(shown, 1)}
    for name, values in (("nll", surprise), ("brier", brier)):
        yield name, by_shown, np.stack([values[:, here].mean(axis=1) for here in shown], axis=1)


def _by_shown(row: Row, p: Predictions, scores: Sequence[Scores]) -> Iterator[tuple[int, np.ndarray, list[Line]]]:
    """By how many modalities are shown: their number, the bins of confidence over all runs, and lines, which are means over runs."""
    for shown in range(1, len(p.modalities) + 1):
        here = [i for i, pattern in enumerate(p.patterns) if len(pattern) == shown]
        if not p.given[here].all():
            continue
        answers = [(s.confidence[here].ravel(), s.hits[here].ravel()) for s in scores]
        bins = [reliability(*answer) for answer in answers]
        values = {
            "ece": np.mean([expected_error(of_run) for of_run in bins]),
            "aurc": np.mean([risk_coverage(*answer) for answer in answers]),
        }
        rest = np.nan, np.nan, len(scores), _role(row, [p.pattern_names[i] for i in here])
        yield shown, np.sum(bins, axis=0), [(name, str(shown), float(v), *rest) for name, v in values.items()]


def _recall(row: Row, predictions: Sequence[Predictions], groups: _Groups) -> list[Line]:
    """The accuracy among the samples of each class that occurs, in percent, with every modality."""
    first = predictions[0]
    classes = first.log_probs.shape[-1]
    here = np.arange(classes)[:, None] == first.label  # (C, N)
    occurs = here.any(axis=1)
    hits = np.stack([groups.sums(here[occurs] & (p.predicted[-1] == p.label)) for p in predictions])
    values, draws = means(100 * hits, groups.sums(here[occurs]))
    known = DATASETS[row.data].classes if row.data in DATASETS else ()
    names = known if len(known) == classes else [str(c) for c in range(classes)]
    of = [name for name, there in zip(names, occurs, strict=True) if there]
    rest = len(predictions), ""
    ends = intervals(draws).tolist()
    return [("recall", c, float(v), *end, *rest) for c, v, end in zip(of, values, ends, strict=True)]


def _pairs(row: Row, key: Key, predictions: Sequence[Predictions]) -> Iterator[_Pair]:
    """The joint tables of all pairs of modalities, summed over runs; rare classes are taken together where they are many."""
    names = predictions[0].modalities.tolist()
    number = few_classes(predictions[0].label, predictions[0].log_probs.shape[-1])
    classes = int(number.max()) + 1
    for i, j in combinations(np.flatnonzero(predictions[0].given[: len(names)]), 2):
        tables = [
            joint_table(number[p.predicted[i]], number[p.predicted[j]], number[p.label], classes) for p in predictions
        ]
        yield _Pair(
            key, f"{names[i]}+{names[j]}", len(tables), _role(row, [names[i], names[j]]), np.sum(tables, axis=0)
        )


def _of_training(row: Row, modalities: Sequence[str]) -> list[Line]:
    """How unevenly the encoders were driven, and how far apart their features are: means over the trials whose records say so."""
    lines: list[Line] = []
    for diagnostic, ending in (("gradient_balance", ""), ("gradient_balance_modulated", "/modulated")):
        keys = [f"gradient/{m}{ending}" for m in modalities]
        logs = [rows_with(record, keys) for record in row.records]
        values = [gradient_variation(np.array(of_trial)) for of_trial in logs if of_trial]
        if values:
            lines.append((diagnostic, "", float(np.mean(values)), np.nan, np.nan, row.runs, ""))
    for pair in dict.fromkeys(pair for record in row.records for pair in record.gap):
        gaps = [record.gap[pair] for record in row.records if pair in record.gap]
        lines.append(("modality_gap", pair, float(np.mean(gaps)), np.nan, np.nan, row.runs, ""))
    return lines


def _laziness(own: _Alone, reference: _Alone) -> list[Line]:
    """How many points more a model of a modality that was trained alone has than what a method makes of it, on the same seeds.

    Not given where that is an artefact of the modality's role.
    """
    seeds = [seed for seed in own.hits if seed in reference.hits]
    if not seeds or not np.array_equal(own.sizes, reference.sizes):
        return []
    sums = np.stack([100 * (reference.hits[seed].astype(int) - own.hits[seed]) for seed in seeds])
    lines: list[Line] = []
    values, draws = means(sums, own.sizes)
    for modality, value, (low, high) in zip(own.modalities, values, intervals(draws).tolist(), strict=True):
        if own.row.lacks([modality]):
            continue
        artefact = _role(own.row, [modality])
        found = (np.nan,) * 3 if artefact else (float(value), low, high)
        lines.append(("laziness", modality, *found, len(seeds), artefact))
    return lines


def _robustness(rates: Rates | None) -> Iterator[tuple[Key, Line]]:
    """Effective robustness, by the kind of mask."""
    if rates is None:
        return
    for area in rates.areas[rates.areas.evaluation == "robustness"].dropna(subset="effective").itertuples():
        key = area.dataset, area.protocol, area.training, area.method
        line = "effective_robustness", area.mask, area.effective, area.effective_low, area.effective_high, area.n, ""
        yield key, line
