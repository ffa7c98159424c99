"""The whole way of every data set that is prepared: a made-up raw copy, preparing, auditing, every method, the report."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mmbench.data import DATASETS
from mmbench.data.prepared import PreparedDataModule
from mmbench.registry import methods

EXPERIMENT = Path(__file__).parents[2] / "experiments" / "demo.yaml"
GRID = yaml.safe_load(EXPERIMENT.read_text())
NAMES = [name for name in DATASETS if issubclass(DATASETS[name], PreparedDataModule)]


def test_the_experiment_names_every_method_and_data_set() -> None:
    assert set(GRID["methods"]) == set(methods())
    variants = {"iemocap6", "mvsa_merged"}  # the same raw data, other labels
    assert set(GRID["datasets"]) == set(NAMES) - variants


def mmbench(*arguments: object, data: Path) -> subprocess.CompletedProcess:
    """The command line in a process of its own: the server that trials come from keeps the environment it was started in."""
    environment = {**os.environ, "MMBENCH_DATA": str(data)}
    command = [sys.executable, "-m", "mmbench", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", GRID["datasets"])
def test_from_raw_files_to_a_report(name: str, tmp_path: Path) -> None:
    data, results = tmp_path / "data", tmp_path / "results"
    made = mmbench("data", "demo", name, "--jobs", 1, data=data)
    assert made.returncode == 0, made.stderr
    assert "protocol clean holds" in made.stdout
    assert mmbench("data", "verify", name, data=data).returncode == 0
    path = tmp_path / "demo.yaml"
    path.write_text(yaml.safe_dump({**GRID, "datasets": {name: GRID["datasets"][name]}}))
    done = mmbench("--results", results, "run", path, data=data)
    assert done.returncode == 0, done.stderr
    table = (results / "demo" / "table.md").read_text()
    assert f"{name}, clean, MADE UP" in table
    assert "Not run" not in table
    rows = [line for line in table.splitlines() if line.startswith("| ")]
    assert {row.split(" | ")[0].removeprefix("| ") for row in rows} >= set(methods())


@pytest.mark.slow
def test_table_1_leaves_out_what_is_not_prepared_and_says_so(tmp_path: Path) -> None:
    table1 = EXPERIMENT.with_name("table1.yaml")
    changes = ["--set", "datasets.openclipart.recipe.epochs=1", "seeds=[0]", "methods={sum: {}}"]
    command = ["--results", tmp_path / "results", "run", table1, *changes]
    done = mmbench(*command, data=tmp_path / "data")
    assert done.returncode == 0, done.stderr
    for name in ("crema_d", "kinetics_sounds", "food101", "mvsa", "iemocap"):
        assert f"–, not prepared: mmbench data info {name}" in done.stdout
    assert mmbench(*command, "--strict", data=tmp_path / "data").returncode == 1
