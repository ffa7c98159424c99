"""From stored predictions to numbers: a tidy table with confidence intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from mmbench.elsewhere.entries import Elsewhere
from mmbench.evidence.accuracy import SplitFacts, describe_test, estimate
from mmbench.evidence.comparisons import Difference, difference
from mmbench.experiment.plan import Experiment, Labels
from mmbench.experiment.space import TUNED
from mmbench.missing import Missing, pattern_name, patterns
from mmbench.provenance import Codes, grouped, why_stale
from mmbench.record import Features, Predictions
from mmbench.report.comparing import compare_rows, hits_of_runs
from mmbench.report.diagnosing import Diagnosing
from mmbench.report.elsewhere import Made, add_track, made_elsewhere
from mmbench.report.inflation import INFLATION_COLUMNS, inflation_of
from mmbench.report.lean import Lean
from mmbench.report.outcomes import Outcomes
from mmbench.report.papers import Printed, differences, read_printed, setting
from mmbench.report.ranking import rank_methods
from mmbench.report.rates import Rates, collect_rates
from mmbench.report.rows import Key, Row, Run, commit_of, gaps, read_features, read_row
from mmbench.report.trials import trials_of
from mmbench.report.tuning import Cell, Tuning, cell_of, collect_tuning
from mmbench.store import Store
from mmbench.trial import Trial
from mmbench.tuning import Choice, Outcome, choose

COLUMNS = (
    "dataset", "protocol", "training", "method", "pattern", "metric", "mean", "std", "ci_low", "ci_high", "n", "samples",
    "reported", "track", "artefact",
)  # fmt: skip


@dataclass
class Results:
    """An experiment's numbers.

    Attributes:
        table: one row a data set, protocol, way of training, method, pattern and metric, with the columns ``COLUMNS``; values in
            percent, NaN where nothing was run. The pattern "mean" is the mean over all patterns. The track is "made up" where the data
            are a demo copy, "cached features" where frozen encoders ran once, "made elsewhere" where other code predicted; several are
            parted by commas; else it is empty. The artefact is "role" where the score follows from the modality's role in the method,
            else empty.
        rates: accuracy by missing rate, where the experiment trains at missing rates.
        inflation: what leaking splits and peeking at the test split add, with the columns ``INFLATION_COLUMNS``, where there are trials
            under several protocols.
        rows: one a data set, protocol, way of training and method.
        modalities: by data set.
        tests: the test split of a (data set, protocol) of which anything was run.
        commits: of the code that produced the trials.
        stale: how many of the trials other code produced, and which; empty where that was not asked.
        comparisons: accuracy of a method minus that of another, in points, one row a pattern and two methods of a data set, protocol
            and way of training that have a seed in common, the earlier in the table first; the columns are ``COMPARISON_COLUMNS``, and
            the track. ``p_better`` is the probability that the difference is above zero, ``p_equivalent`` that it is at most one point
            either way, ``p`` that of a two-sided test, adjusted in ``p_holm`` for the number of methods that are compared with the
            reference (NaN for other pairs), ``n`` how many seeds it is over. The artefact is "role" where either score is one.
        ranks: every two methods over the data sets of a protocol, where there are six or more (``ranking.rank_methods``).
        diagnostics: what each method makes of its modalities (``diagnosing.Diagnosed.lines``).
        confusions: true × predicted classes of each row (``diagnosing.Diagnosed``).
        reliability: accuracy by confidence (``diagnosing.Diagnosed``).
        points: where features of each row's first trial lie, where the experiment asks for them and modalities have the same width.
        tuning: what tuning came to, where the experiment tunes.
        damaged: what of the predictions made elsewhere cannot be read, a line each.
    """

    experiment: Experiment
    table: pd.DataFrame
    rates: Rates | None
    inflation: pd.DataFrame
    rows: list[Row]
    modalities: dict[str, tuple[str, ...]]
    tests: dict[tuple[str, str], SplitFacts]
    commits: list[str]
    stale: list[str]
    comparisons: pd.DataFrame
    ranks: pd.DataFrame | None
    diagnostics: pd.DataFrame
    confusions: dict[Key, np.ndarray]
    reliability: pd.DataFrame
    points: dict[Key, Features]
    tuning: Tuning | None = None
    damaged: Sequence[str] = ()

    def mark(self, dataset: str) -> str:
        """What every title has to say of where a data set's numbers come from: ``", MADE UP"`` or nothing, for one."""
        return "".join(
            f", {track.replace('made up', 'MADE UP')}" for track in _tracks(self.experiment, self.rows, dataset)
        )

    @property
    def planned(self) -> int:
        """How many trials the rows stand for: those of the default settings, and those of what was or will be chosen."""
        choices = self.tuning.choices if self.tuning else []
        finals = [trial for choice in choices for trial in choice.finals]
        open_yet = sum(len(choice.search.seeds) for choice in choices if choice.chosen is None)
        return len({trial.key for trial in (*self.experiment.trials, *finals)}) + open_yet

    @property
    def trials(self) -> pd.DataFrame:
        """One line a trial, with the columns of ``report.trials.trials_of`` and the track; the only one with seconds and memory."""
        frame = trials_of(self.rows)
        frame["track"] = [", ".join(_tracks(self.experiment, self.rows, dataset)) for dataset in frame.dataset]
        add_track(frame)
        return frame

    @property
    def not_run(self) -> list[str]:
        """What trials are missing and why, a line each."""
        return [*gaps(self.rows), *self.damaged]


@threadpool_limits.wrap(limits=1)  # small matrices: more threads only get in each other's way
def collect(
    experiment: Experiment,
    store: Store,
    reported: Path | None = None,
    codes: Codes | None = None,
    elsewhere: bool = True,
) -> Results:
    """Read an experiment's trials from the store and compute its table.

    Intervals are 95 % percentile intervals of a hierarchical bootstrap: seeds are resampled, and groups of test samples. Within a
    data set and protocol all methods see the same resamples of the groups.

    Args:
        experiment: what to report; trials that are not in the store leave gaps, with reasons.
        store: the results.
        reported: a folder with the papers' numbers.
        codes: the code that is here; what came from other code is then noted.
        elsewhere: predictions made elsewhere, beside the store, have rows as well.
    """
    printed, store = read_printed(reported), Lean(store.root)
    by_cell: dict[tuple[Labels, str, Missing | None], list[Trial]] = {}
    for trial in experiment.trials:
        by_cell.setdefault((experiment.labels_of(trial), trial.protocol, trial.missing), []).append(trial)
    choices: dict[tuple[Labels, str, Missing | None], list[Choice]] = {}
    for search in experiment.searches:
        cell = Labels(search.dataset, search.method), search.like.protocol, search.like.missing
        choices.setdefault(cell, []).append(choose(search, store, lambda record: _holds(record, codes)))
    protocols = {labels: {p for own, p, m in by_cell if own == labels and m is None} for labels, _, _ in by_cell}
    rows, lines, modalities, tests, outcomes, hits = [], [], {}, {}, [], []
    complete: dict[
        Labels, dict[str, tuple[Row, Callable[[], list[Run]]]]
    ] = {}  # runs are read again when their turn comes
    gains: dict[Cell, Difference] = {}
    diagnosing = Diagnosing()
    for (labels, protocol, missing), trials in by_cell.items():
        row, runs = read_row(labels, trials, trials, store)
        predictions = [run.predictions for run in runs]
        rows.append(row)
        hits.append(hits_of_runs(runs))
        diagnosing.add(row, runs)
        modalities[row.dataset] = tuple(trials[0].encoders)
        if predictions:
            tests[row.dataset, row.protocol] = describe_test(predictions[0])
        unlike = differences(trials[0], predictions[0].log_probs.shape[-1] if predictions else None)
        if printed.has(trials[0]) and not row.made_up:
            row.unlike = unlike
        comparable = not (row.made_up or unlike)
        lines += _lines(row, trials[0], predictions, printed if comparable else Printed())
        outcomes.append(replace(_outcomes(row, runs), comparable=comparable))
        if missing is None and len(protocols[labels]) > 1:
            complete.setdefault(labels, {})[protocol] = row, partial(_runs_again, labels, trials, store)
        if found := choices.get((labels, protocol, missing)):
            finals = [trial for choice in found for trial in choice.finals]
            tuned, tuned_runs = read_row(Labels(labels.dataset, labels.method + TUNED), trials, finals, store)
            tuned.tuned = True
            tuned.gaps += [f"{choice.search.fold} {choice.gap}" for choice in found if choice.gap]
            rows.append(tuned)
            hits.append(hits_of_runs(tuned_runs))
            diagnosing.add(tuned, tuned_runs)
            lines += _lines(tuned, trials[0], [run.predictions for run in tuned_runs], Printed())
            outcomes.append(_outcomes(tuned, tuned_runs))
            if row.seeds and row.seeds == tuned.seeds:
                gains[cell_of(found[0])] = difference([r.predictions for r in tuned_runs], predictions)
    made = made_elsewhere(experiment, Elsewhere.beside(store)) if elsewhere else Made([], [], [])
    for (row, runs), beside in zip(made.rows, made.trials, strict=True):
        predictions = [run.predictions for run in runs]
        rows.append(row)
        hits.append(hits_of_runs(runs))
        diagnosing.add(row, runs)
        lines += _lines(row, beside, predictions, Printed())
        if not row.not_given:
            outcomes.append(_outcomes(row, runs))
        if predictions:
            tests.setdefault((row.dataset, row.protocol), describe_test(predictions[0]))
        complete.setdefault(Labels(row.dataset, row.method), {})[row.protocol] = row, partial(list, runs)
    table = pd.DataFrame(lines, columns=list(COLUMNS)).astype({"reported": float})
    tuning = collect_tuning([choice for found in choices.values() for choice in found], gains)
    records = [*(r for row in rows for r in row.records), *(tuning.records if tuning else ())]
    records = list({record.key: record for record in records}.values())  # a default that was chosen is in two rows
    commits = sorted({commit_of(record) for record in records})
    rates = collect_rates(outcomes, experiment.grid.test_rates, printed.rates, experiment.grid.reference)
    comparisons = compare_rows(rows, hits, experiment.grid.reference)
    for frame in (
        table,
        comparisons,
        *((rates.curves, rates.areas) if rates else ()),
        *(tuning.frames if tuning else ()),
    ):
        frame["track"] = [", ".join(_tracks(experiment, rows, dataset)) for dataset in frame.dataset]
        add_track(frame)
    inflation = pd.DataFrame(
        [
            line
            for cells in complete.values()
            if len(cells) > 1
            for line in inflation_of({protocol: (row, runs()) for protocol, (row, runs) in cells.items()}, tests)
        ],
        columns=list(INFLATION_COLUMNS),
    )
    reasons = [why_stale(record, codes) for record in records] if codes else []
    stale = grouped(filter(None, reasons), "of other code than this")
    diagnosed = diagnosing.finish(rates)
    asked = rows if experiment.grid.draw_features else []
    points = {row.key: features for row in asked if (features := read_features(row, store))}
    return Results(
        experiment, table, rates, inflation, rows, modalities, tests, commits, stale, comparisons,
        rank_methods(table, rows, modalities),
        diagnosed.lines, diagnosed.confusions, diagnosed.reliability, points, tuning, made.damaged,
    )  # fmt: skip


def _runs_again(labels: Labels, trials: Sequence[Trial], store: Store) -> list[Run]:
    """The runs of a row, read once more: to keep them all would take the memory of all predictions."""
    return read_row(labels, trials, trials, store)[1]


def _holds(record: Outcome, codes: Codes | None) -> bool:
    """Whether it still counts that a trial diverged: by the code that is here, if that was asked."""
    return codes is None or why_stale(record, codes) is None


def _outcomes(row: Row, runs: Sequence[Run]) -> Outcomes:
    """What curves by missing rate are made of."""
    where = row.dataset, row.protocol, row.missing, row.method
    parts = runs[0].parts if runs else {}
    return Outcomes.of(*where, [run.records for run in runs], [run.predictions for run in runs], row.data, parts)


def _lines(row: Row, trial: Trial, predictions: Sequence[Predictions], printed: Printed) -> list[tuple]:
    """The table's lines of a row, with the columns ``COLUMNS``; the track is still empty."""
    names = [pattern_name(p) for p in patterns(tuple(trial.encoders))]
    size = len(predictions[0].label) if predictions else 0
    lines = []
    for (name, metric), values in estimate(predictions, names).items():
        artefact = name in row.artefacts
        alias = "multi" if name == names[-1] else name  # as the papers call it
        value = None
        if row.missing is None and not artefact:  # the papers scored what is an artefact here in another way
            value = printed.complete.get((trial.dataset, setting(trial), trial.method, alias, metric))
        line = (row.dataset, row.protocol, row.training, row.method, name, metric)
        lines.append((*line, *values, row.runs, size, value, "", "role" if artefact else ""))
    return lines


def _tracks(experiment: Experiment, rows: Sequence[Row], dataset: str) -> list[str]:
    made_up = any(row.made_up for row in rows if row.dataset == dataset)
    cached = experiment.grid.datasets[dataset].cached
    return ["made up"] * made_up + ["cached features"] * cached
