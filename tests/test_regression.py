"""Accuracy bands: the formula, the file, and that breaking a method trips the check."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mmbench import cli, regression, running
from mmbench.baselines import METHODS, mla
from mmbench.errors import UsageError
from mmbench.experiment.plan import expand, load
from mmbench.record import Failure, Record
from mmbench.training import run as trial_run

ROOT = Path(__file__).parents[1]
PLUGIN = Path(__file__).parent / "plugin"
ENTROPY = mla.entropy


def run(cells: dict[tuple[str, str], list[float]]) -> pd.DataFrame:
    """A run of a grid: by method and pattern, the accuracies of seeds 0, 1, …"""
    rows = [
        ("toy", "clean", "complete", m, p, seed, value)
        for (m, p), values in cells.items()
        for seed, value in enumerate(values)
    ]
    return pd.DataFrame(rows, columns=[*regression.CELL, "seed", "accuracy"]).assign(fold=-1)


CELLS = {
    ("sum", "image"): [50.0, 51.0, 49.0, 50.5, 49.5],
    ("sum", "image+text"): [70.0, 70.0, 70.0, 70.0, 70.0],
    ("mla", "image"): [60.0, 63.0, 57.0, 61.0, 59.0],
    ("mla", "image+text"): [80.0, 82.0, 78.0, 81.0, 79.0],
}
AGAIN = {
    ("sum", "image"): [52.0, 51.0, 49.0, 48.5, 49.5],
    ("sum", "image+text"): [70.0, 70.1, 70.0, 70.0, 70.0],
    ("mla", "image"): [60.0, 66.0, 57.0, 61.0, 58.0],
    ("mla", "image+text"): [80.0, 82.0, 78.1, 81.0, 79.0],
}


def flat(cells: dict[tuple[str, str], float], n: int = 5) -> pd.DataFrame:
    """A run in which every seed has the same accuracy."""
    return run({cell: [value] * n for cell, value in cells.items()})


# The bands


def test_bands_are_those_of_the_explanation() -> None:
    """mean ∓ max(0.5, t · r / sqrt(n)), r the root mean square difference between the runs, of the method or the pattern."""
    held = regression.bands(run(CELLS), run(AGAIN)).set_index(["method", "pattern"])
    assert len(held) == 4
    for (method, pattern), first in CELLS.items():
        noise = []
        for part in (0, 1):
            squares = [
                (a - b) ** 2
                for cell in CELLS
                if cell[part] == (method, pattern)[part]
                for a, b in zip(CELLS[cell], AGAIN[cell], strict=True)
            ]
            # Bonferroni: all four cells, both sides, together 1 %.
            t = stats.t.isf(0.01 / 4 / 2, df=len(squares))
            noise.append(t * (sum(squares) / len(squares)) ** 0.5)
        half = max(0.5, max(noise) / len(first) ** 0.5)
        row = held.loc[(method, pattern)]
        mean = sum(first) / len(first)
        assert row["low"] == pytest.approx(mean - half, abs=1e-4)
        assert row["high"] == pytest.approx(mean + half, abs=1e-4)
        assert (row["mean"], row["n"]) == (pytest.approx(mean), len(first))
        assert row["std"] == pytest.approx(np.std(first, ddof=1), abs=1e-4)
    widths = held["high"] - held["low"]
    exact = regression.bands(run(CELLS), run(CELLS))
    assert (exact.high - exact.low).tolist() == pytest.approx([1.0] * 4), "the least width"
    assert widths["sum", "image"] > 2


def test_the_runs_are_compared_trial_by_trial() -> None:
    shuffled = run(AGAIN).sample(frac=1, random_state=0)
    assert regression.bands(run(CELLS), shuffled).equals(regression.bands(run(CELLS), run(AGAIN)))


def test_bands_hold_what_they_promise() -> None:
    """Three runs of the same seeds, two for the bands: about one in a hundred has any cell outside."""
    rng = np.random.default_rng(0)
    cells = [(f"method{m}", f"pattern{p}") for m in range(4) for p in range(3)]
    repeats, alarms = 200, 0
    for _ in range(repeats):
        seeds = rng.normal(60, 3, (len(cells), 5))
        runs = [run({c: list(seeds[i] + rng.normal(0, 1, 5)) for i, c in enumerate(cells)}) for _ in range(3)]
        alarms += bool(regression.violations(regression.bands(*runs[:2]), runs[2]))
    assert alarms / repeats < 0.03


def test_folds_are_trials_of_their_own_and_labels_name_the_cells() -> None:
    experiment = expand(
        {
            "title": "folds",
            "datasets": {"clip art": {"dataset": "openclipart", "folds": "all"}},
            "methods": {"mine": {"method": "mla"}},
            "seeds": [0, 1],
        }
    )
    common = {"status": "done", "started": "", "finished": "", "environment": {}}
    metrics = [{"image": {"accuracy": 40.0 + i}} for i in range(10)]
    records = [Record(key=t.key, trial=t, metrics=m, **common) for t, m in zip(experiment.trials, metrics, strict=True)]
    measured = regression.accuracies(records, experiment)
    assert len(measured) == 10
    assert sorted(zip(measured.seed, measured.fold, strict=True)) == [(s, f) for s in (0, 1) for f in range(5)]
    (band,) = regression.bands(measured, measured).itertuples()
    assert (band.dataset, band.method, band.n, band.mean) == ("clip art", "mine", 10, 44.5)


def test_too_few_seeds_are_refused() -> None:
    table = flat({("sum", "image"): 50.0}, n=4)
    with pytest.raises(UsageError, match="at least 5 seeds or folds, got 4"):
        regression.bands(table, table)


def test_a_value_of_many_digits_passes_after_a_trip_through_the_file(tmp_path: Path) -> None:
    table = flat({("sum", "image"): 100 / 3})
    regression.write(tmp_path / "bands.csv", regression.bands(table, table))
    assert regression.violations(regression.read(tmp_path / "bands.csv"), table) == []


# The file


def test_a_flipped_bit_of_a_band_is_noticed(tmp_path: Path) -> None:
    """Of its mean and of its limits, which the file holds thrice as it were: they lie around it."""
    path = tmp_path / "bands.csv"
    line = "d,clean,complete,m,a+b,5,26.5248,0.8086,24.1594,28.8902"
    path.write_text(f"{','.join(regression.COLUMNS)}\n{line}\n")
    held = regression.read(path).iloc[0]
    fields = line.split(",")
    for column in (6, 8, 9):
        for position, digit in enumerate(fields[column]):
            for bit in range(8):
                changed = chr(ord(digit) ^ 1 << bit)
                number = fields[column][:position] + changed + fields[column][position + 1 :]
                row = ",".join([*fields[:column], number, *fields[column + 1 :]])
                path.write_text(f"{','.join(regression.COLUMNS)}\n{row}\n", encoding="latin-1")
                try:
                    band = regression.read(path).iloc[0]
                except UsageError:
                    continue
                assert max(abs(band[name] - held[name]) for name in ("mean", "low", "high")) < 5e-4, row


@pytest.mark.parametrize("content", [b"\xff\xfe", b"dataset,protocol"])
def test_a_file_of_bands_that_cannot_be_read_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bands.csv").write_bytes(content)
    with pytest.raises(UsageError, match=r"bands\.csv"):
        regression.read(tmp_path / "bands.csv")
    with pytest.raises(UsageError, match=r"cannot read .*: Is a directory"):
        regression.read(tmp_path)


def test_the_file_explains_itself_and_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "regression" / "grid.csv"
    held = regression.bands(run(CELLS), run(AGAIN))
    regression.write(path, held)
    text = path.read_text()
    for part in ("low, high = mean ∓ max(0.5, t · r / sqrt(n))", "99%", "mmbench check --update"):
        assert part in text[: text.index("dataset,")]
    pd.testing.assert_frame_equal(regression.read(path), held)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "no accuracy bands at .*bands.csv; `mmbench check --update` measures and writes them"),
        ("a,b\n1,2\n", "expected the columns dataset, protocol, .*, got a, b"),
        ('dataset,method\n"unclosed', "bands.csv"),
        ("", "bands.csv"),
        ("# only the explanation\n", "bands.csv"),
        (",".join(regression.COLUMNS) + "\n" + "a,b,c,d,5,1,1,0,2\n" * 2, "the same cell is given twice"),
    ],
)
def test_a_file_that_is_no_table_of_bands_is_refused(tmp_path: Path, text: str | None, expected: str) -> None:
    path = tmp_path / "bands.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match=expected):
        regression.read(path)


# Violations


HELD = regression.bands(run(CELLS), run(AGAIN))
MEANS = {cell: sum(values) / len(values) for cell, values in CELLS.items()}


def test_the_run_that_made_the_bands_is_inside() -> None:
    assert regression.violations(HELD, run(CELLS)) == []


@pytest.mark.parametrize(("shift", "side"), [(-1, "below"), (1, "above")])
def test_a_mean_outside_is_named_with_value_and_band(shift: int, side: str) -> None:
    row = HELD.set_index(["method", "pattern"]).loc[("mla", "image")]
    edge = row["low"] if shift < 0 else row["high"]
    inside, outside = edge - 0.01 * shift, edge + 0.01 * shift
    assert regression.violations(HELD, flat({**MEANS, ("mla", "image"): inside})) == []
    assert regression.violations(HELD, flat({**MEANS, ("mla", "image"): outside})) == [
        f"toy clean complete mla image: {outside:.2f} is {side} its band [{row['low']:.2f}, {row['high']:.2f}]"
    ]


def test_a_cell_that_was_not_measured_is_a_violation() -> None:
    (line,) = regression.violations(HELD, flat({c: v for c, v in MEANS.items() if c != ("mla", "image")}))
    assert line.startswith("toy clean complete mla image: was not measured")


def test_a_new_cell_is_a_violation_that_tells_the_remedy() -> None:
    (line,) = regression.violations(HELD, flat({**MEANS, ("qmf", "image"): 1.0}))
    assert line.startswith("toy clean complete qmf image: has no band; run `mmbench check --update`")


# The command

GRID = """\
title: a grid for the check
datasets:
  tiny:
    recipe: {epochs: 3, lr: 0.1, batch_size: 16}
methods: {concat: , mla: }
seeds: [0, 1, 2, 3, 4]
"""


def check(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(PLUGIN), **variables}
    return subprocess.run(
        [sys.executable, "-m", "mmbench", "check", "grid", "--jobs", "2", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def checks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, subprocess.CompletedProcess[str]]]:
    """Bands written, held, and tripped by an MLA whose fusion forgets which modalities are present."""
    folder = tmp_path_factory.mktemp("check")
    (folder / "experiments").mkdir()
    (folder / "experiments" / "grid.yaml").write_text(GRID)
    return folder, {
        "update": check(folder, "--update"),
        "check": check(folder),
        "broken": check(folder, MMBENCH_TESTING_BREAK_MLA="1"),
    }


def test_update_writes_bands_of_every_method_and_pattern(
    checks: tuple[Path, dict[str, subprocess.CompletedProcess[str]]],
) -> None:
    folder, answers = checks
    assert answers["update"].returncode == 0, answers["update"].stderr
    held = regression.read(folder / "results" / "regression" / "grid.csv")
    assert len(held) == 2 * 3
    assert set(held.n) == {5}
    assert sorted(p.name for p in (folder / "results").iterdir()) == ["regression"], "results of a check are not kept"


def test_the_same_code_stays_inside(checks: tuple[Path, dict[str, subprocess.CompletedProcess[str]]]) -> None:
    answer = checks[1]["check"]
    assert answer.returncode == 0, answer.stdout
    assert answer.stdout.splitlines()[-1].endswith("6 accuracy bands, 0 violated")
    assert "10/10 trials" in answer.stderr, "all trials ran anew"


def test_a_broken_fusion_trips_the_check(checks: tuple[Path, dict[str, subprocess.CompletedProcess[str]]]) -> None:
    """A modality alone then has the accuracy of both. Concat does not move."""
    folder, answers = checks
    answer = answers["broken"]
    assert answer.returncode == 1
    violated = re.findall(
        r"^tiny clean complete (\w+) (\S+): (\d+\.\d\d) is (above|below) its band \[(\d+\.\d\d), (\d+\.\d\d)\]$",
        answer.stdout,
        re.MULTILINE,
    )
    assert ("mla", "right") in [cell[:2] for cell in violated]
    assert {cell[0] for cell in violated} == {"mla"}
    for method, pattern, value, side, low, high in violated:
        row = (
            regression.read(folder / "results" / "regression" / "grid.csv")
            .set_index(["method", "pattern"])
            .loc[(method, pattern)]
        )
        assert (float(low), float(high)) == pytest.approx((row["low"], row["high"]), abs=0.006)
        assert float(value) > float(high) if side == "above" else float(value) < float(low)
    assert answer.stdout.splitlines()[-1].endswith(f"6 accuracy bands, {len(violated)} violated")


def test_a_trial_that_fails_fails_the_check_and_is_shown_in_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its log is gone with the check's store, so the traceback is printed; no bands are written of half a grid."""
    trial = load(ROOT / "experiments" / "regression.yaml").trials[0]
    failure = Failure(kind="exception", message="ValueError: broken", traceback="Traceback: line 7")
    record = Record(
        key=trial.key, trial=trial, status="failed", started="", finished="", environment={}, failure=failure
    )
    monkeypatch.setattr("mmbench.runner.local.start_server", lambda: None)
    monkeypatch.setattr(running, "run_all", lambda *_: [record])
    path = str(ROOT / "experiments" / "regression.yaml")
    assert cli.main(["--results", str(tmp_path), "check", path, "--update"]) == 1
    told = capsys.readouterr().err
    assert f"failed: {trial.label}: ValueError: broken" in told
    assert "Traceback: line 7" in told
    assert not list(tmp_path.rglob("*.csv"))


# The committed bands


def measure_mla() -> pd.DataFrame:
    """MLA's trials of the regression grid, run in this process."""
    rows = []
    for trial in load(ROOT / "experiments" / "regression.yaml").trials:
        if trial.method != "mla":
            continue
        predictions = trial_run(trial, device="cpu").predictions
        for i, pattern in enumerate(predictions.pattern_names):
            accuracy = 100 * float((predictions.predicted[i] == predictions.label).mean())
            rows.append((trial.dataset, trial.protocol, trial.training, "mla", pattern, trial.seed, accuracy))
    return pd.DataFrame(rows, columns=[*regression.CELL, "seed", "accuracy"]).assign(fold=-1)


@pytest.mark.merged
def test_every_method_has_committed_bands() -> None:
    held = [
        regression.read(ROOT / "results/regression" / f"{grid}.csv")
        for grid in ("regression", "regression_missing", "regression_imbalance")
    ]
    assert set(METHODS) == {method for table in held for method in table.method}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("broken", [False, True])
def test_answering_with_the_least_certain_modality_leaves_the_committed_bands(
    monkeypatch: pytest.MonkeyPatch, broken: bool
) -> None:
    """On the shipped data, with the bands that CI holds: MLA stays inside, and does not if its fusion listens to the least certain."""
    held = regression.read(ROOT / "results" / "regression" / "regression.csv")
    if broken:
        monkeypatch.setattr(mla, "entropy", lambda logits: -20 * ENTROPY(logits))
    violated = regression.violations(held[held.method == "mla"], measure_mla())
    assert bool(violated) == broken, violated
    assert all(re.match(r"openclipart clean complete mla \S+\+", line) for line in violated), (
        "a single modality is not fused"
    )
