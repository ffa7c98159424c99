"""Every two methods compared: the frame, the reference, and reports in which there is little to compare."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from make_golden import experiment, predictions, render

from mmbench.evidence.comparisons import difference, holm
from mmbench.experiment.grid import Grid
from mmbench.experiment.plan import Experiment
from mmbench.record import Record
from mmbench.report.collect import Results, collect
from mmbench.report.comparing import COMPARISON_COLUMNS
from mmbench.report.page import write
from mmbench.store import Store


@pytest.fixture(scope="module")
def golden() -> Results:
    return render()[0]


def report(
    folder: Path,
    methods: dict[str, dict | None],
    seeds: tuple[int, ...] = (0, 1),
    missed: tuple[tuple[str, int], ...] = (),
    **keys: object,
) -> Results:
    """A made-up experiment: concat and sum in turn are copied, each with luck of its own.

    Args:
        folder: for the store.
        methods: label -> what stands behind it.
        seeds: of the trials.
        missed: (method, seed) of those that were not run.
        keys: of the experiment's file.
    """
    like = {t.method: t for t in experiment().trials if t.protocol == "clean"}
    settings = {"title": "t", "datasets": {"crema_d": {}}, "methods": methods, "seeds": list(seeds), **keys}
    grid, store, trials, labels = Grid.model_validate(settings), Store(folder), [], {}
    for seed in seeds:
        for number, label in enumerate(methods):
            template = like["sum" if number % 2 else "concat"]
            change = {"seed": seed, "method": grid.method_of(label), "params": {"number": number}}
            trial = template.model_copy(update=change)
            trials.append(trial)
            labels[trial.key] = type(experiment().labels_of(trial))("crema_d", label)
            if (label, seed) not in missed:
                record = Record(
                    key=trial.key, trial=trial, status="done", started="", finished="", environment={}, seconds={"fit": 1.0}
                )  # fmt: skip
                store.write(record, predictions(template.model_copy(update={"seed": 100 * number + seed})))
    return collect(Experiment("t", grid, trials, labels=labels), store)


def lines(results: Results, **where: str) -> pd.DataFrame:
    found = results.comparisons
    for column, value in where.items():
        found = found[found[column] == value]
    return found


def test_a_line_a_pair_and_pattern(golden: Results) -> None:
    found = golden.comparisons
    assert list(found.columns) == [*COMPARISON_COLUMNS, "track"]
    assert list(found.pattern) == ["audio", "video", "audio+video", "mean"] * 2
    assert set(zip(found.method, found.other, strict=True)) == {("concat", "sum")}, "mla has no run"
    assert dict(zip(found.protocol, found.n, strict=True)) == {"clean": 1, "legacy": 2}, "a seed of sum failed"
    assert found.p_holm.isna().all(), "there is no late fusion"


def test_numbers_are_those_of_the_pair_alone(tmp_path: Path) -> None:
    made = report(tmp_path, dict.fromkeys(["concat", "sum", "late_fusion"]))
    like = {t.method: t for t in experiment().trials if t.protocol == "clean"}
    sides = [
        [predictions(like["concat"].model_copy(update={"seed": seed})) for seed in (0, 1)],
        [predictions(like["sum"].model_copy(update={"seed": 100 + seed})) for seed in (0, 1)],
    ]
    expected = difference(sides[0], sides[1], pattern=1)
    (line,) = lines(made, method="concat", other="sum", pattern="video").to_dict("records")
    assert [line[c] for c in ("difference", "ci_low", "ci_high")] == pytest.approx(
        [expected.mean, expected.low, expected.high]
    )


def test_the_reference_is_late_fusion_or_what_the_file_says(tmp_path: Path) -> None:
    methods = dict.fromkeys(["concat", "sum", "late_fusion", "mla"])
    made = report(tmp_path / "default", methods)
    compared = made.comparisons[made.comparisons.p_holm.notna()]
    assert {frozenset(pair) for pair in zip(compared.method, compared.other, strict=True)} == {
        frozenset({m, "late_fusion"}) for m in ("concat", "sum", "mla")
    }
    for _, family in compared.groupby("pattern"):
        np.testing.assert_allclose(family.p_holm, holm(family.p.to_numpy()))
    named = report(tmp_path / "named", methods, reference="sum")
    compared = named.comparisons[named.comparisons.p_holm.notna()]
    assert len(compared) == 3 * 4
    assert ((compared.method == "sum") | (compared.other == "sum")).all()


def test_a_reference_without_a_run_is_none(tmp_path: Path) -> None:
    missed = tuple(("late_fusion", seed) for seed in (0, 1))
    made = report(tmp_path, dict.fromkeys(["concat", "late_fusion", "sum"]), missed=missed)
    assert set(zip(made.comparisons.method, made.comparisons.other, strict=True)) == {("concat", "sum")}


def test_a_score_that_follows_from_a_role_is_told_and_not_tested(tmp_path: Path) -> None:
    made = report(tmp_path, dict.fromkeys(["film", "late_fusion", "sum"]))
    role = lines(made, artefact="role")
    assert set(role.pattern) == {"audio"}
    assert set(zip(role.method, role.other, strict=True)) == {("film", "late_fusion"), ("film", "sum")}
    assert role.p_holm.isna().all()
    rest = lines(made, pattern="audio", other="sum", method="late_fusion")
    np.testing.assert_allclose(rest.p_holm, rest.p, err_msg="a family of one")


@pytest.mark.parametrize(
    ("methods", "seeds", "missed", "expected"),
    [
        (["concat"], (0, 1), (), 0),
        (["concat", "late_fusion"], (0,), (), 4),
        (["concat", "sum"], (0, 1), (), 4),
        (["concat", "late_fusion"], (0, 1), (("concat", 0), ("late_fusion", 1)), 0),
        (["concat", "late_fusion"], (0,), (("concat", 0), ("late_fusion", 0)), 0),
    ],
    ids=["one method", "one seed", "no late fusion", "no common seed", "nothing at all"],
)
def test_reports_in_which_there_is_little_to_compare(
    tmp_path: Path, methods: list[str], seeds: tuple, missed: tuple, expected: int
) -> None:
    made = report(tmp_path / "store", dict.fromkeys(methods), seeds, missed)
    assert len(made.comparisons) == expected
    assert list(made.comparisons.columns) == [*COMPARISON_COLUMNS, "track"]
    files = {path.name for path in write(made, tmp_path / "report")}
    assert ("comparisons.csv" in files) == (expected > 0)


def test_the_file_has_the_frame(golden: Results, tmp_path: Path) -> None:
    write(golden, tmp_path)
    held = pd.read_csv(tmp_path / "comparisons.csv", keep_default_na=False, na_values=[""])
    assert list(held.columns) == list(golden.comparisons.columns)
    np.testing.assert_allclose(held.difference, golden.comparisons.difference, atol=1e-4)
