"""Diagnostics of rows against loops over stored predictions."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from mmbench.evidence.accuracy import fingerprint
from mmbench.evidence.information import MOST_CLASSES, decompose
from mmbench.evidence.resampling import resamples
from mmbench.missing import patterns
from mmbench.record import Predictions
from mmbench.report.diagnosing import Diagnosed, Diagnosing
from mmbench.report.rows import Row, Run

SIZE, GROUPS = 90, 9


def predictions(seed: int, modalities: str = "abc", classes: int = 4, skill: float = 0.6) -> Predictions:
    """Made-up predictions; label and group are the same for every seed."""
    shared, own = np.random.default_rng(classes), np.random.default_rng(seed)
    label = shared.integers(0, classes, SIZE)
    count = 2 ** len(modalities) - 1
    scores = own.normal(size=(count, SIZE, classes))
    right = own.random((count, SIZE)) < skill
    np.put_along_axis(scores, np.where(right, label, (label + 1) % classes)[..., None], 3.0, axis=2)
    log_probs = (scores - np.log(np.exp(scores).sum(axis=-1, keepdims=True))).astype(np.float16)
    return Predictions(
        modalities=np.array(list(modalities)),
        label=label,
        group=shared.integers(0, GROUPS, SIZE),
        present=np.ones((SIZE, len(modalities)), bool),
        predicted=log_probs.argmax(axis=-1).astype(np.int16),
        log_probs=log_probs,
        log_prior=np.log(shared.dirichlet(np.full(classes, 5.0))).astype(np.float32),
        attack=np.empty(0, np.int16),
    )


def add(diagnosing: Diagnosing, method: str, made: dict[int, Predictions], **row: object) -> None:
    """Diagnose a method by its predictions by seed."""
    made_row = Row("own", "clean", None, method, "of_mine", **row)  # type: ignore[arg-type]
    made_row.runs = len({fingerprint(p) for p in made.values()})
    diagnosing.add(made_row, [Run(seed, [], p, {}) for seed, p in made.items()])


@pytest.fixture(scope="module")
def made() -> dict[str, dict[int, Predictions]]:
    return {
        "late_fusion": {seed: predictions(seed, skill=0.7) for seed in (0, 1)},
        "joint": {seed: predictions(10 + seed) for seed in (0, 1)},
        "steered": {seed: predictions(20 + seed) for seed in (1, 2)},
    }


@pytest.fixture(scope="module")
def found(made: dict[str, dict[int, Predictions]]) -> Diagnosed:
    diagnosing = Diagnosing()
    for method, by_seed in made.items():
        add(diagnosing, method, by_seed, artefacts=("b",) if method == "steered" else ())
    return diagnosing.finish(None)


def line(found: Diagnosed, method: str, diagnostic: str, of: str = "") -> pd.Series:
    table = found.lines
    (number,) = np.flatnonzero((table.method == method) & (table.diagnostic == diagnostic) & (table.of == of))
    return table.iloc[number]


def interval(made: dict[int, Predictions], of_sample: list[np.ndarray]) -> tuple[float, float]:
    """Of a mean over samples (N,), a list by seed: resampled as everything is, but sample by sample."""
    weights, chosen = resamples(GROUPS, len(of_sample))
    group = next(iter(made.values())).group
    draws = [
        share @ [np.average(values, weights=weight[group]) for values in of_sample]
        for weight, share in zip(weights, chosen, strict=True)
    ]
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def surprise(p: Predictions, pattern: int) -> np.ndarray:
    if pattern == -1:
        return np.array([-p.log_prior[y] for y in p.label])
    return np.array([-float(p.log_probs[pattern, n, y]) for n, y in enumerate(p.label)])


def test_information_is_what_surprise_falls_by(made: dict, found: Diagnosed) -> None:
    for number, name in enumerate(["a", "b", "c", "a+b", "a+c", "b+c", "a+b+c"]):
        of_sample = [surprise(p, -1) - surprise(p, number) for p in made["joint"].values()]
        got = line(found, "joint", "information", name)
        assert got.value == pytest.approx(np.mean(of_sample), abs=1e-4)
        assert (got.ci_low, got.ci_high) == pytest.approx(interval(made["joint"], of_sample), abs=1e-4)
        assert got.n == 2


def test_contributions_add_up_and_equity_follows(made: dict, found: Diagnosed) -> None:
    parts = np.array([line(found, "joint", "contribution", m).value for m in "abc"])
    whole = np.mean([p.predicted[-1] == p.label for p in made["joint"].values()])
    nothing = np.mean([p.log_prior.argmax() == p.label for p in made["joint"].values()])
    assert parts.sum() == pytest.approx(100 * (whole - nothing))
    informed = [line(found, "joint", "contribution_information", m).value for m in "abc"]
    assert sum(informed) == pytest.approx(line(found, "joint", "information", "a+b+c").value)
    shares = parts / parts.sum()
    assert line(found, "joint", "equity").value == pytest.approx(-(shares * np.log(shares)).sum() / np.log(3))


def test_interaction_is_what_both_tell_beyond_each(found: Diagnosed) -> None:
    both, a, c = (line(found, "joint", "information", name).value for name in ("a+c", "a", "c"))
    assert line(found, "joint", "interaction", "a+c").value == pytest.approx(both - a - c)


def test_laziness_is_paired_over_the_seeds_that_both_have(made: dict, found: Diagnosed) -> None:
    for method, seeds in (("joint", (0, 1)), ("steered", (1,))):
        of_sample = [
            100.0 * (made["late_fusion"][s].predicted[2] == made["late_fusion"][s].label)
            - 100.0 * (made[method][s].predicted[2] == made[method][s].label)
            for s in seeds
        ]
        got = line(found, method, "laziness", "c")
        assert got.value == pytest.approx(np.mean(of_sample))
        assert (got.ci_low, got.ci_high) == pytest.approx(interval(made[method], of_sample))
        assert got.n == len(seeds)
    assert not (found.lines[found.lines.method == "late_fusion"].diagnostic == "laziness").any()


def test_the_control_takes_late_fusions_place_as_what_was_trained_alone(made: dict, found: Diagnosed) -> None:
    diagnosing = Diagnosing()
    for method, by_seed in {**made, "unimodal": made["late_fusion"], "late_fusion": made["joint"]}.items():
        add(diagnosing, method, by_seed)
    table = diagnosing.finish(None)
    for method in ("joint", "late_fusion"):
        assert line(table, method, "laziness", "c").value == line(found, "joint", "laziness", "c").value
    assert not (table.lines[table.lines.method == "unimodal"].diagnostic == "laziness").any()


def test_what_is_tuned_is_held_against_late_fusion_tuned(made: dict) -> None:
    diagnosing = Diagnosing()
    for method, by_seed in made.items():
        add(diagnosing, method, by_seed)
    tuned = {"late_fusion": made["joint"], "joint": made["late_fusion"]}
    for method, by_seed in tuned.items():
        add(diagnosing, f"{method}, tuned", by_seed, tuned=True)
    table = diagnosing.finish(None)
    got, other = (line(table, method, "laziness", "c").value for method in ("joint, tuned", "joint"))
    assert got == pytest.approx(-other)
    assert not (table.lines[table.lines.method == "late_fusion, tuned"].diagnostic == "laziness").any()


def test_what_an_artefact_enters_is_marked_and_its_laziness_is_not_given(found: Diagnosed) -> None:
    table = found.lines
    got = line(found, "steered", "laziness", "b")
    assert np.isnan([got.value, got.ci_low, got.ci_high]).all()
    assert got.artefact == "role"
    marked = {(r.diagnostic, r.of) for r in table[table.artefact == "role"].itertuples()}
    assert {
        ("information", "b"),
        ("interaction", "a+b"),
        ("pid_synergy", "b+c"),
        ("consistency", ""),
        ("nll", "1"),
    } <= marked
    assert {("contribution", "a"), ("equity", "")} <= marked, "an average over orders takes in every pattern"
    unmarked = {("information", "a+b"), ("interaction", "a+c"), ("laziness", "a"), ("consistency", "a"), ("nll", "2")}
    assert not unmarked & marked
    assert (table[table.method != "steered"].artefact == "").all()


def test_consistency_counts_what_more_modalities_lose(made: dict, found: Diagnosed) -> None:
    names = patterns(list("abc"))
    of_sample = []
    for p in made["joint"].values():
        hits = p.predicted == p.label
        pairs = [(i, j) for i, s in enumerate(names) for j, t in enumerate(names) if set(s) < set(t)]
        of_sample.append(100.0 * np.array([any(hits[i, n] and not hits[j, n] for i, j in pairs) for n in range(SIZE)]))
    got = line(found, "joint", "consistency")
    assert got.value == pytest.approx(np.mean(of_sample))
    assert (got.ci_low, got.ci_high) == pytest.approx(interval(made["joint"], of_sample))


def test_calibration_is_over_all_patterns_that_show_as_many(made: dict, found: Diagnosed) -> None:
    runs = made["joint"].values()
    for shown, here in (("1", [0, 1, 2]), ("2", [3, 4, 5]), ("3", [6])):
        nll = np.mean([surprise(p, i) for p in runs for i in here])
        assert line(found, "joint", "nll", shown).value == pytest.approx(nll, abs=1e-4)
        probabilities = [(np.exp(p.log_probs[i].astype(float)), p.label) for p in runs for i in here]
        brier = np.mean([((q - np.eye(4)[label]) ** 2).sum(axis=1) for q, label in probabilities])
        assert line(found, "joint", "brier", shown).value == pytest.approx(brier, abs=1e-4)
        bins = found.reliability[(found.reliability.method == "joint") & (found.reliability.shown == int(shown))]
        assert bins.share.sum() == pytest.approx(1)
        right = np.mean([p.predicted[i] == p.label for p in runs for i in here])
        assert (bins.share * bins.accuracy).sum() == pytest.approx(right)
        sure = np.mean([q.max(axis=1) for q, _ in probabilities])
        assert (bins.share * bins.confidence).sum() == pytest.approx(sure, abs=1e-4)
        assert ((bins.confidence > bins.bin / 15 - 1e-6) & (bins.confidence <= (bins.bin + 1) / 15 + 1e-6)).all()
        pooled = 100 * (bins.share * (bins.accuracy - bins.confidence).abs()).sum()
        assert line(found, "joint", "ece", shown).value >= pooled - 1e-9, "the mean over runs, each by itself"


def test_confusions_and_recall_are_those_of_loops(made: dict, found: Diagnosed) -> None:
    expected = np.zeros((4, 4), int)
    for p in made["joint"].values():
        for y, guess in zip(p.label, p.predicted[-1], strict=True):
            expected[y, guess] += 1
    np.testing.assert_array_equal(found.confusions["own", "clean", "complete", "joint"], expected)
    for c in range(4):
        got = line(found, "joint", "recall", str(c))
        assert got.value == pytest.approx(100 * expected[c, c] / expected[c].sum())
        assert got.ci_low <= got.value <= got.ci_high


def test_pairs_are_taken_apart_over_all_runs(made: dict, found: Diagnosed) -> None:
    table = np.zeros((1, 4, 4, 4))
    for p in made["joint"].values():
        np.add.at(table[0], (p.predicted[0], p.predicted[2], p.label), 1)
    parts = decompose(table)
    for name, value in (("redundancy", parts.redundancy), ("unique_second", parts.second), ("synergy", parts.synergy)):
        assert line(found, "joint", f"pid_{name}", "a+c").value == pytest.approx(value[0], abs=1e-4)


def test_one_seed_one_method_and_many_classes() -> None:
    diagnosing = Diagnosing()
    add(diagnosing, "alone", {0: predictions(0, "ab", classes=101)})
    found = diagnosing.finish(None)
    assert found.confusions["own", "clean", "complete", "alone"].shape == (101, 101)
    assert found.lines.diagnostic.isin(["recall"]).sum() == len(np.unique(predictions(0, "ab", 101).label))
    assert not found.lines.diagnostic.isin(["laziness", "effective_robustness"]).any(), "there is no late fusion"
    values = found.lines[found.lines.diagnostic.str.startswith("pid")]
    assert len(values) == 4
    assert values.value.sum() <= np.log(MOST_CLASSES), "rare classes are one"
    assert found.lines.value.notna().all()


def test_seeds_that_change_nothing_are_one_run() -> None:
    diagnosing = Diagnosing()
    add(diagnosing, "fixed", dict.fromkeys((0, 1, 2), predictions(0)))
    found = diagnosing.finish(None)
    assert (found.lines.n == 1).all()
    assert found.confusions["own", "clean", "complete", "fixed"].sum() == SIZE


def test_a_row_of_which_nothing_is_done_has_no_diagnostics() -> None:
    diagnosing = Diagnosing()
    add(diagnosing, "failed", {})
    found = diagnosing.finish(None)
    assert found.lines.empty
    assert found.reliability.empty
    assert not found.confusions
    assert list(found.lines)[-1] == "artefact"


def test_tables_are_taken_apart_in_batches_alike(monkeypatch: pytest.MonkeyPatch, made: dict, found: Diagnosed) -> None:
    monkeypatch.setattr("mmbench.report.diagnosing.MOST_TABLES", 2)
    diagnosing = Diagnosing()
    add(diagnosing, "joint", made["joint"])
    again = diagnosing.finish(None)
    for name in ("pid_redundancy", "pid_synergy"):
        assert line(again, "joint", name, "b+c").value == pytest.approx(
            line(found, "joint", name, "b+c").value, abs=1e-4
        )


def test_what_training_recorded_is_a_mean_over_trials() -> None:
    logs = [(1.0, 3.0), (2.0, 2.0)]  # norms of two encoders in two epochs
    epochs = [{f"gradient/{m}": float(np.log(n)) for m, n in zip("ab", norms, strict=True)} for norms in logs]
    epochs += [{"train/loss": 1.0}]  # an epoch of pretraining
    even = [{**e, **{f"gradient/{m}/modulated": 0.0 for m in "ab"}} for e in epochs]
    row = Row("own", "clean", None, "m", "of_mine", runs=1)
    row.records = [SimpleNamespace(curves=curves, gap={"a+b": gap}) for curves, gap in ((even, 0.5), (epochs, 1.5))]  # type: ignore[misc]
    diagnosing = Diagnosing()
    diagnosing.add(row, [Run(0, [], predictions(0, "ab"), {})])
    found = diagnosing.finish(None)
    assert line(found, "m", "gradient_balance").value == pytest.approx((0.5 + 0) / 2)
    assert line(found, "m", "gradient_balance_modulated").value == 0, "the trial that has it"
    assert line(found, "m", "modality_gap", "a+b").value == 1
    row.records = [SimpleNamespace(curves=[{"train/loss": 1.0}], gap={})]  # type: ignore[list-item]
    older = Diagnosing()
    older.add(row, [Run(0, [], predictions(0, "ab"), {})])
    assert not older.finish(None).lines.diagnostic.isin(["gradient_balance", "modality_gap"]).any()
