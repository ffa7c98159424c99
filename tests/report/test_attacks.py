"""Presentation attacks, the whole way: a data set that says which samples are attacks, a trial, its record, the table of ACER."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmbench.data import DATASETS
from mmbench.encoders import ENCODERS
from mmbench.experiment.plan import Experiment, expand
from mmbench.record import Predictions
from mmbench.report.collect import Results, collect
from mmbench.report.page import write
from mmbench.report.tables import sections
from mmbench.runner.child import Job, execute
from mmbench.store import Store

GRID = {
    "title": "attacks",
    "datasets": {"spoof": {"recipe": {"epochs": 3, "lr": 0.1, "batch_size": 16}}},
    "methods": {"concat": None, "late_fusion": None},
    "seeds": [0, 1],
    "patterns": "all",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Experiment, Store, Results]:
    """Both of concat's trials are run, none of late fusion's."""
    store = Store(tmp_path_factory.mktemp("store"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(DATASETS._targets, "spoof", "plugin.mmbench_testing:Spoof")
        patch.setitem(ENCODERS._targets, "tiny_linear", "plugin.mmbench_testing:TinyLinear")
        # A trial's process changes it.
        patch.setattr("torch.utils.deterministic.fill_uninitialized_memory", True)
        planned = expand(GRID)
        grid, trials = planned.grid, planned.trials
        for trial in trials:
            if trial.method == "concat":
                store.folder(trial.key).mkdir(parents=True)
                assert execute(Job(trial, str(store.root), 1, "cpu"), store).status == "done"
    plan = Experiment("attacks", grid, trials)
    return plan, store, collect(plan, store)


def by_hand(p: Predictions, pattern: int) -> tuple[float, float]:
    """APCER of the worst type of attack, and BPCER."""
    shares = []
    for kind in (0, 1, 2):
        rows = [i for i in range(len(p.label)) if p.attack[i] == kind]
        taken_for_the_other = [(p.predicted[pattern][i] == 0) != (kind == 0) for i in rows]
        shares.append(100 * sum(taken_for_the_other) / len(rows))
    return max(shares[1:]), shares[0]


def test_acer_is_that_of_the_stored_predictions(made: tuple[Experiment, Store, Results]) -> None:
    plan, store, results = made
    stored = [store.predictions(r) for t in plan.trials if (r := store.done(t.key)) is not None]
    assert len(stored) == 2
    assert set(stored[0].attack) == {0, 1, 2}
    for number, pattern in enumerate(["left", "right", "left+right"]):
        expected = np.array([by_hand(p, number) for p in stored])
        table = results.table[(results.table.method == "concat") & (results.table.pattern == pattern)].set_index(
            "metric"
        )
        assert table["mean"]["apcer"] == pytest.approx(expected[:, 0].mean())
        assert table["mean"]["bpcer"] == pytest.approx(expected[:, 1].mean())
        assert table["mean"]["acer"] == pytest.approx(expected.mean())
        assert table.ci_low["acer"] <= table["mean"]["acer"] <= table.ci_high["acer"]
    means = results.table[(results.table.method == "concat") & (results.table.metric == "acer")].set_index("pattern")
    three = means["mean"][["left", "right", "left+right"]]
    assert means["mean"]["mean"] == pytest.approx(three.mean())


def test_the_report_has_a_table_of_acer_in_which_the_lowest_is_best(
    made: tuple[Experiment, Store, Results], tmp_path: Path
) -> None:
    accuracy, acer, *_ = sections(made[2])
    assert (accuracy.title, acer.title) == ("spoof, clean", "spoof, clean, ACER")
    assert acer.header == ["method", "left", "right", "multi", "mean", "n", "parameters"]
    assert [row[0].text for row in acer.body] == ["concat", "late_fusion"]
    assert acer.body[0][1].rank == 1
    assert [cell.text for cell in acer.body[1][1:5]] == ["–"] * 4, "late fusion was not run"
    write(made[2], tmp_path)
    assert "ACER in percent, the lower the better" in (tmp_path / "table.md").read_text()


def test_the_record_has_the_errors_too(made: tuple[Experiment, Store, Results]) -> None:
    plan, store, _ = made
    record = store.done(plan.trials[0].key)
    assert record is not None
    metrics = record.metrics["left+right"]
    assert metrics["acer"] == pytest.approx((metrics["apcer"] + metrics["bpcer"]) / 2)
