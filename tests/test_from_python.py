"""``mmbench.run``: what the command does, from a script."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

import mmbench
from mmbench import from_python
from mmbench.errors import RunnerError, UsageError
from mmbench.experiment.plan import load
from mmbench.places import experiment_path
from mmbench.runner import local
from mmbench.store import Store

DIGITS = {
    "title": "Digits in two views",
    "datasets": {"handwritten": {"modalities": ["fourier", "profile"], "recipe": {"epochs": 1}}},
    "methods": {"sum": {}},
    "seeds": [0],
}
SCRIPT = """
import mmbench
print("this script runs")
results = mmbench.run({digits}, "store")
print(results.trials[["method", "status"]].to_string(header=False, index=False))
print(results.table.query("metric == 'accuracy'").pattern.tolist())
"""


@pytest.fixture
def ran(monkeypatch):
    """The runs that began; none trains anything."""
    found = []

    class Running(from_python.Running):
        def run(self):
            found.append(self)
            return False

    monkeypatch.setattr(from_python, "Running", Running)
    return found


def test_a_mapping_is_an_experiment(ran, tmp_path):
    results = mmbench.run(DIGITS, tmp_path / "mine", keep_models=True, jobs=3)
    (run,) = ran
    assert [trial.method for trial in run.first] == ["sum"]
    assert run.store.root == tmp_path / "mine/runs"
    assert run.keeps
    assert run.backend.capacity().jobs == 3
    assert results.not_run
    assert results.trials.status.tolist() == ["not run"]


def test_a_name_is_what_it_is_for_the_command(ran, tmp_path, monkeypatch):
    monkeypatch.setenv("MMBENCH_RESULTS", str(tmp_path / "told"))
    mmbench.run("six_views")
    (run,) = ran
    assert [t.key for t in run.first] == [t.key for t in load(experiment_path("six_views")).trials]
    assert run.store.root == tmp_path / "told/runs"
    assert not run.keeps


def test_mistakes_are_errors(tmp_path):
    with pytest.raises(UsageError, match="unknown method; did you mean 'sum'"):
        mmbench.run({**DIGITS, "methods": {"summ": {}}}, tmp_path)
    with pytest.raises(UsageError, match="no experiment 'table2'"):
        mmbench.run("table2", tmp_path)


def test_what_failed_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(from_python.Running, "run", lambda self: True)
    with pytest.raises(RunnerError, match="not every trial of python"):
        mmbench.run(DIGITS, tmp_path)


@pytest.mark.slow
def test_a_script_needs_no_guard(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT.format(digits=DIGITS))
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "this script runs",
        "sum done",
        "['fourier', 'profile', 'fourier+profile', 'mean']",
    ]
    store = Store(tmp_path / "store/runs")
    (key,) = store.keys()
    log = store.log(key).read_text()
    assert "handwritten clean sum" in log
    assert "this script runs" not in log


def test_trials_do_not_see_the_callers_script(monkeypatch):
    from multiprocessing.spawn import get_preparation_data

    script = SimpleNamespace(__name__="__main__", __spec__=None, __file__="/somewhere/script.py")
    monkeypatch.setitem(sys.modules, "__main__", script)
    assert "init_main_from_path" in get_preparation_data("trial")
    with local.without_main():
        assert "init_main_from_path" not in get_preparation_data("trial")
    assert sys.modules["__main__"] is script
