"""The whole way of every data set that is prepared: a made-up raw copy, preparing, auditing, methods, the report."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from mmbench.baselines import METHODS
from mmbench.data import DATASETS
from mmbench.data.prepared import PreparedDataModule

EXPERIMENT = Path(__file__).parents[2] / "experiments" / "made_up.yaml"
GRID = yaml.safe_load(EXPERIMENT.read_text())
NAMES = [name for name in DATASETS.registered if issubclass(DATASETS[name], PreparedDataModule)]  # of a raw download


@pytest.mark.merged
def test_the_experiment_names_every_method_and_data_set() -> None:
    assert set(GRID["methods"]) == set(METHODS)
    variants = {"iemocap6", "mvsa_merged"}  # the same raw data, other labels
    assert set(GRID["datasets"]) == set(NAMES) - variants


def mmbench(*arguments: object, data: Path) -> subprocess.CompletedProcess:
    """The command line in a process of its own: the server that trials come from keeps the environment it was started in."""
    environment = {**os.environ, "MMBENCH_DATA": str(data)}
    command = [sys.executable, "-m", "mmbench", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "name"), list(enumerate(GRID["datasets"])))
def test_from_raw_files_to_a_report(number: int, name: str, tmp_path: Path) -> None:
    """With every sixth method, others for the next data set, so that each meets one or two; `mmbench run made_up` runs all."""
    methods = dict(list(GRID["methods"].items())[number % 6 :: 6])
    data, results = tmp_path / "data", tmp_path / "results"
    made = mmbench("data", "demo", name, "--jobs", 1, data=data)
    assert made.returncode == 0, made.stderr
    assert "protocol clean holds" in made.stdout
    assert mmbench("data", "verify", name, data=data).returncode == 0
    path = tmp_path / "made_up.yaml"
    path.write_text(yaml.safe_dump({**GRID, "datasets": {name: GRID["datasets"][name]}, "methods": methods}))
    done = mmbench("--results", results, "run", path, data=data)
    assert done.returncode == 0, done.stderr
    table = (results / "local" / "made_up" / "table.md").read_text()
    assert f"{name}, clean, MADE UP" in table
    assert "Not run" not in table
    rows = [line for line in table.splitlines() if line.startswith("| ")]
    assert {row.split(" | ")[0].removeprefix("| ") for row in rows} >= set(methods)


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


def to_decode(told: str) -> int:
    return int(re.search(r"([0-9]+) to decode", told)[1])


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_preparing_goes_on_after_a_signal(number: signal.Signals, tmp_path: Path) -> None:
    raw, data = tmp_path / "raw", tmp_path / "data"
    DATASETS["crema_d"].write_demo(raw)
    command = [sys.executable, "-m", "mmbench", "data", "prepare", "crema_d", "--raw", str(raw), "--jobs", "2"]
    environment = {**os.environ, "MMBENCH_DATA": str(data)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))  # fmt: skip
    progress = data / "crema_d.partial" / "progress.jsonl"
    while process.poll() is None and not (progress.exists() and progress.read_text()):
        time.sleep(0.002)
    process.send_signal(number)
    told = process.communicate(timeout=60)[1]
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number), told
    assert "Traceback" not in told
    assert not (data / "crema_d").exists()
    again = mmbench("data", "prepare", "crema_d", "--raw", raw, "--jobs", 2, data=data)
    assert again.returncode == 0, again.stderr
    assert to_decode(again.stderr) < to_decode(told)  # none, if both processes had told all when the signal came
    assert mmbench("data", "verify", "crema_d", data=data).returncode == 0
