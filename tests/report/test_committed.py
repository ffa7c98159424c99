"""A run of one's own beside the report in git: where each is written, how they compare, what may be published."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from make_golden import METHODS, experiment, predictions, write_store

from mmbench.cli import main, parser
from mmbench.errors import DataError, UsageError
from mmbench.experiment.plan import Experiment
from mmbench.provenance import Codes
from mmbench.record import Record
from mmbench.report.collect import collect
from mmbench.report.committed import compare, read_table, unfit
from mmbench.report.terminal import print_report
from mmbench.report_commands import write_report
from mmbench.store import Store

CODES = Codes()
REPOSITORY = Path(__file__).parents[2]
CELLS = [(protocol, method, pattern) for protocol in ("clean", "legacy") for method in ("a", "b") for pattern in "xyz"]


def table(mean: float = 50.0, std: float = 3.0, n: int = 3, shift: dict[int, float] | None = None) -> pd.DataFrame:
    """Twelve accuracies, and as many calibration errors that nobody compares."""
    rows = [
        {
            "dataset": "d", "protocol": protocol, "training": "complete", "method": method, "pattern": pattern, "metric": metric,
            "mean": mean + i + (shift or {}).get(i, 0.0) if metric == "accuracy" else 0.0, "std": std, "n": n, "samples": 400,
        }
        for metric in ("accuracy", "ece")
        for i, (protocol, method, pattern) in enumerate(CELLS)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def compared(own: pd.DataFrame, held: pd.DataFrame) -> str:
    return compare(own, held, "that").line


def test_equal_tables_agree() -> None:
    found = compare(table(), table(), "results/d/table.csv")
    assert found.agrees
    assert found.line == (
        "Agrees with results/d/table.csv: 12 of 12 accuracies are within 4.9 points (2 s sqrt(2 / n); 12 are equal), "
        "mean difference +0.00 (at most 1)."
    )


def test_the_tolerance_of_a_single_run_is_that_of_runs_that_disagree_on_a_quarter() -> None:
    """2 · sqrt(0.25 / 400) is 5 points; 35 is sqrt(0.25 / 2) in percent, rounded."""
    single = {"std": np.nan, "n": 1}
    assert "12 of 12 accuracies" in compared(table(**single, shift={0: 4.9, 1: -4.9}), table(**single))
    told = compared(table(**single, shift={0: 5.0, 1: -4.9}), table(**single))
    assert "11 of 12 accuracies" in told
    assert "tolerance 4.9" in told


def test_the_tolerance_is_that_of_other_seeds() -> None:
    """2 · 3 · sqrt(2 / 3) = 4.9 points, in one direction as in the other."""
    within = compared(table(shift={0: 4.8, 1: -4.8}), table())
    assert within.startswith(
        "Agrees with that: 12 of 12 accuracies are within 4.9 points (2 s sqrt(2 / n); 10 are equal)"
    )
    one = compare(table(shift={0: 5.0, 1: -4.8}), table(), "that")
    assert not one.agrees, "of 12 cells, 5 % are none"
    assert one.line.startswith("Does not agree with that: 11 of 12 accuracies")
    assert one.line.endswith("; not d clean a x 55.0 (there 50.0, tolerance 4.9).")


def test_the_deviation_is_pooled_over_methods_and_patterns() -> None:
    held = table()
    held["std"] = [0.0, 6.0] * 12  # s = sqrt((0 + 36) / 2) = 4.24; 2 · 4.24 · sqrt(2 / 3) = 6.9
    assert "12 of 12 accuracies are within 6.9" in compared(table(shift={0: 6.8}), held)
    held["std"] = 0.0
    assert "11 of 12" in compared(table(shift={0: 0.6}), held)
    assert "12 of 12" in compared(table(shift={0: 0.4}), held), "half a point is always within"
    held.loc[held.protocol == "legacy", "std"] = 3.0
    assert "within 0.5 to 4.9 points" in compared(table(), held)


def test_a_shift_of_all_cells_is_no_agreement() -> None:
    found = compare(table(mean=51.2), table(), "that")
    assert not found.agrees
    assert "12 of 12 accuracies" in found.line
    assert "mean difference +1.20 (at most 1)" in found.line


def test_the_line_names_three_cells_and_counts_the_rest() -> None:
    told = compared(table(shift={i: 20.0 + i for i in range(6)}), table())
    assert "not d clean b z 80.0 (there 55.0" in told, "the farthest first"
    assert told.count("there") == 3
    assert told.endswith(" and 3 more.")


def test_only_cells_of_as_many_runs_are_compared() -> None:
    own = table()
    own.loc[0, "n"] = 1
    own.loc[1, ["n", "mean"]] = 0, np.nan
    told = compared(own, table())
    assert "10 of 10 accuracies" in told
    assert told.endswith(
        "; not compared, since not in both or of other numbers of runs or test samples: 1 of this, 2 of that."
    )
    nothing = compare(table(n=1), table(), "that")
    assert not nothing.agrees
    assert nothing.line == "Nothing to compare with that: no accuracy is in both, of as many runs and test samples."
    of_one_fold = compare(table().assign(samples=80), table(), "that")
    assert of_one_fold.line.startswith("Nothing to compare"), "other samples may be easier"


def test_what_is_no_table_of_ours_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    for text, found in {
        "": "it is not a CSV file",
        "a,b\n1,2\n": "it has no column dataset, protocol",
        '"': "it is not a CSV file",
        table().assign(n="many").to_csv(): "n in row 1 below the header is 'many', expected a whole number",
        table().to_csv().replace("52.0", "fifty"): "mean in row 3 below the header is 'fifty', expected a number",
    }.items():
        path.write_text(text)
        with pytest.raises(DataError) as refused:
            read_table(path)
        assert f"{path} cannot be compared: expected a report's table.csv, but {found}" in str(refused.value)
        assert "`mmbench report` writes it anew" in str(refused.value)
    pd.concat([table(), table()]).to_csv(path)
    with pytest.raises(DataError, match="it has 'd clean complete a x' twice"):
        read_table(path)


@pytest.mark.parametrize(
    "column", ["dataset", "protocol", "training", "method", "pattern", "metric", "mean", "std", "n"]
)
def test_an_empty_cell_is_refused_where_it_is_needed(tmp_path: Path, column: str) -> None:
    path = tmp_path / "table.csv"
    damaged = table().astype(object)
    damaged.loc[4, column] = ""
    damaged.to_csv(path, index=False)
    with pytest.raises(DataError, match=rf"table\.csv, but {column} in row 5 below the header is ''"):
        read_table(path)


def test_empty_cells_of_what_was_not_run_or_is_not_compared_are_read(tmp_path: Path) -> None:
    path, held = tmp_path / "table.csv", table()
    held.loc[0, ["mean", "std", "n"]] = np.nan, np.nan, 0  # not run
    held.loc[12:, ["mean", "std"]] = np.nan  # not accuracies
    held["method"] = held.method.replace("a", "NA")
    held.to_csv(path, index=False)
    assert "11 of 11 accuracies" in compared(read_table(path), read_table(path))
    held.loc[1, "mean"] = np.inf
    held.to_csv(path, index=False)
    with pytest.raises(DataError, match="mean in row 2 below the header is 'inf', expected a number"):
        read_table(path)


# The command


def test_two_results_are_compared_by_folder_file_and_name(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for name, shift in (("one", {}), ("two", {0: 1.0}), ("far", {i: 9.0 for i in range(12)})):
        (tmp_path / name).mkdir()
        table(shift=shift).to_csv(tmp_path / name / "table.csv", index=False)

    def answer(one: str, other: str) -> tuple[int, str]:
        code = main(["--results", str(tmp_path), "compare", one, other])
        told = capsys.readouterr()
        return code, told.out + told.err

    for one in ("one", f"{tmp_path}/one", f"{tmp_path}/one/table.csv"):
        code, told = answer(one, "two")
        assert code == 0
        assert told.startswith(f"Agrees with {tmp_path}/two/table.csv: 12 of 12")
        assert told.count("\n") == 1
    assert answer("far", "one")[0] == 1
    code, told = answer("onne", "two")
    assert code == 2
    assert "no results 'onne': expected a table.csv, the folder of a report" in told
    assert "did you mean 'one'?" in told
    (tmp_path / "two" / "table.csv").write_text("a,b\n1,2\n")
    assert answer("one", "two")[0] == 2, "1 is that they differ"


def test_what_git_keeps_is_found_from_results_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("elsewhere/local/kept", "results/kept", "experiments"):
        (tmp_path / folder).mkdir(parents=True)
    table().to_csv("elsewhere/local/kept/table.csv", index=False)
    table().to_csv("results/kept/table.csv", index=False)
    command = ["--results", "elsewhere", "compare", "elsewhere/local/kept"]
    assert main([*command, "kept"]) == 0
    assert capsys.readouterr().out.startswith("Agrees with results/kept/table.csv")
    assert main([*command, "kep"]) == 2
    assert (
        f"whose report is in elsewhere or results or {REPOSITORY}/results: did you mean 'kept'?"
        in capsys.readouterr().err
    )
    assert main([*command, "table1"]) == 1
    assert capsys.readouterr().out.startswith(f"Nothing to compare with {REPOSITORY}/results/table1/table.csv")


def test_a_damaged_report_in_git_does_not_hide_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    results = collect(experiment(), Store(tmp_path / "runs"))
    print_report(results)
    assert "compare with" not in capsys.readouterr().out
    print_report(results, tmp_path / "none.csv")
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"Nothing to compare with: there is no {tmp_path}/none.csv."
    (tmp_path / "table.csv").write_text("")
    print_report(results, tmp_path / "table.csv")
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"{tmp_path}/table.csv cannot be compared: ")


def test_rows_that_a_filter_leaves_out_are_not_shown_and_others_without_a_result_are(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    results = collect(experiment(), Store(tmp_path / "runs"))
    mla = [gap for gap in results.not_run if " mla " in gap]
    for unselected, rows in ((), {"sum", "mla"}), (mla, {"sum"}), (results.not_run, set()):
        print_report(results, unselected=unselected)
        shown = capsys.readouterr().out
        assert set(re.findall(r"^  (sum|mla) ", shown, re.MULTILINE)) == rows
        assert (f"{len(unselected)} trials that --filter leaves out" in shown) == bool(unselected)
        assert ("crema_d, clean" in shown) == bool(rows)


# Where reports are written


def folders(results: Path) -> set[str]:
    return {str(p.parent.relative_to(results)) for p in results.rglob("table.md")}


def complete(folder: Path, commit: str = "0123456789", dirty: bool = False) -> tuple[Experiment, Store]:
    """The golden experiment, all of its trials done."""
    plan, store = experiment(), Store(folder / "runs")
    for trial in plan.trials:
        record = Record(
            key=trial.key, trial=trial, status="done", started="", finished="", seconds={"fit": 7.25},
            environment={"commit": commit, "dirty": dirty}, code=CODES.of(trial),
        )  # fmt: skip
        store.write(record, predictions(trial.model_copy(update={"method": "sum"} if trial.method == "mla" else {})))
    return plan, store


def test_a_report_of_ones_own_leaves_that_in_git_alone(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    plan, store = complete(tmp_path)
    write_report(plan, store, tmp_path, CODES)
    assert folders(tmp_path) == {"local/golden"}
    write_report(plan, store, tmp_path, CODES, publish=True)
    assert folders(tmp_path) == {"local/golden", "golden"}
    published = {p.name: p.read_bytes() for p in (tmp_path / "golden").iterdir()}
    other = complete(tmp_path, commit="another")
    made = write_report(*other, tmp_path, CODES)
    assert {p.name: p.read_bytes() for p in (tmp_path / "golden").iterdir()} == published
    capsys.readouterr()
    print_report(made, tmp_path / "golden" / "table.csv")
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(f"Agrees with {tmp_path}/golden/table.csv: 24 of 24 accuracies"), "one line, and the last"


def test_wall_times_are_in_the_terminal_and_in_no_file(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    made = write_report(*complete(tmp_path), tmp_path, CODES, publish=True)
    print_report(made)
    shown = capsys.readouterr().out
    assert "training, s" in shown
    assert shown.count(" 7.2 ") + shown.count(" 7.2\n") >= 2 * len(METHODS)
    for path in (tmp_path / "golden").iterdir():
        if path.suffix != ".png":
            assert not re.search("training, s|seconds/|memory_mb", path.read_text()), path.name
    write_report(plan := experiment(), Store(tmp_path / "runs"), tmp_path, CODES)
    assert plan.name == "golden"
    assert pd.read_csv(tmp_path / "local/golden/trials.csv")["seconds/fit"].eq(7.25).all()
    before = {p.name: p.read_bytes() for p in (tmp_path / "golden").iterdir()}
    plan, store = complete(tmp_path)
    for trial in plan.trials:
        record = store.record(trial.key)
        assert record is not None
        store.write(record.model_copy(update={"seconds": {"fit": 99.0}, "started": "later"}), store.predictions(record))
    write_report(plan, store, tmp_path, CODES, publish=True)
    assert {p.name: p.read_bytes() for p in (tmp_path / "golden").iterdir()} == before


# What may be published


def test_what_is_not_whole_or_not_of_one_commit_is_not_published(tmp_path: Path) -> None:
    store = Store(tmp_path / "gaps" / "runs")
    write_store(store)
    with pytest.raises(UsageError, match="5 trials are missing: crema_d clean sum seed 1: failed"):
        write_report(experiment(), store, tmp_path / "gaps", CODES, publish=True)
    assert folders(tmp_path / "gaps") == set(), "nothing was written"
    plan, store = complete(tmp_path / "dirty", dirty=True)
    assert unfit(collect(plan, store)) == [
        "trials ran with code that was not committed (0123456789+changes); commit it and run them again"
    ]
    plan, store = complete(tmp_path / "two")
    record = store.record(plan.trials[0].key)
    assert record is not None
    record.environment["commit"] = "another"
    store.write(record, store.predictions(record))
    (reason,) = unfit(collect(plan, store))
    assert reason.startswith("trials are of several commits (0123456789, another)")


def test_what_other_code_made_is_not_published(tmp_path: Path) -> None:
    plan, store = complete(tmp_path)
    record = store.record(plan.trials[0].key)
    assert record is not None
    assert record.code is not None
    record.code.method["mmbench.baselines.concat"] = "of yesterday"
    store.write(record, store.predictions(record))
    with pytest.raises(UsageError, match="1 trial of other code than this: code of method concat changed"):
        write_report(plan, store, tmp_path, CODES, publish=True)


@pytest.mark.parametrize("name", ["runs", "regression", "local"])
def test_a_report_never_takes_the_place_of_another_folder(tmp_path: Path, name: str) -> None:
    plan, store = complete(tmp_path)
    (reason,) = unfit(collect(Experiment(name, plan.grid, plan.trials), store))
    assert f"results/{name} is not a report's folder" in reason


def test_made_up_data_are_not_published(tmp_path: Path) -> None:
    plan, store = complete(tmp_path)
    for i, trial in enumerate(plan.trials):
        record = store.record(trial.key)
        assert record is not None
        made_up = trial.model_copy(update={"data": "MADE-UP-0"})
        store.write(record.model_copy(update={"key": made_up.key, "trial": made_up}), store.predictions(record))
        plan.trials[i] = made_up
    assert "the data are made up" in unfit(collect(plan, store))


def test_a_changed_experiment_is_not_published(capsys: pytest.CaptureFixture) -> None:
    for changes in (["--set", "seeds=[0]"], ["--quick"]):
        assert main(["report", "table1", "--publish", *changes]) == 2
        assert "--publish is of the experiment as its file says" in capsys.readouterr().err
    assert parser().parse_args(["report", "table1"]).publish is False


def test_the_reports_in_git_are_not_where_ones_own_go() -> None:
    ignored = (REPOSITORY / ".gitignore").read_text().splitlines()
    assert "results/local/" in ignored
