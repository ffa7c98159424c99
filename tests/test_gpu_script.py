"""``make gpu``: a part that breaks off or hangs is a row and not the end; the exit code tells of checks; it runs without a GPU."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks"))

import gpu  # noqa: E402
from gpu import Machine, Part, Row  # noqa: E402

from mmbench.baselines import METHODS  # noqa: E402

# Parts


def answers(machine: Machine) -> Iterator[Row]:
    yield Row("one", f"on {machine.device}", ok=True)
    yield Row("two", "a timing")


def raises(machine: Machine) -> Iterator[Row]:
    yield Row("before", "fine")
    raise RuntimeError("no kernel image\nand more")


def breaks_off(machine: Machine) -> Iterator[Row]:
    yield Row("before", "fine")
    os._exit(7)


def hangs(machine: Machine) -> Iterator[Row]:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
    yield Row("child", str(child.pid))
    time.sleep(100)


def hangs_with_a_run(machine: Machine) -> Iterator[Row]:
    from gpu_trials import experiment

    with experiment(Machine("cpu", tiny=True), 1, 1) as runs:
        child = runs.start([sys.executable, "-c", "import time; time.sleep(100)"])
        yield Row("child", str(child.pid))
        time.sleep(100)


def rows_of(function: str, seconds: float = 60, checks: bool = True) -> Iterator[Row]:
    part = Part(f"test_gpu_script:{function}", seconds, checks)
    return gpu.run("part", part, Machine("cuda"), seconds, get_context("spawn"))


def test_the_rows_of_a_part_come_out_of_its_process() -> None:
    assert list(rows_of("answers")) == [
        Row("one", "on cuda", ok=True, part="part"),
        Row("two", "a timing", part="part"),
    ]


def test_an_error_is_a_row_and_fails() -> None:
    assert list(rows_of("raises"))[1:] == [Row("raises", "RuntimeError: no kernel image", ok=False, part="part")]


@pytest.mark.parametrize(("checks", "ok"), [(True, False), (False, None)])
def test_a_part_that_breaks_off_fails_if_it_checks_anything(checks: bool, ok: bool | None) -> None:
    assert list(rows_of("breaks_off", checks=checks))[1:] == [
        Row("part", "broke off with exit code 7", ok=ok, part="part")
    ]


@pytest.mark.parametrize("function", ["hangs", "hangs_with_a_run"])
def test_a_part_that_hangs_is_ended_with_what_it_started(function: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_of(function)
    first = next(rows)
    monkeypatch.setattr(gpu, "time", SimpleNamespace(monotonic=lambda: math.inf))
    assert list(rows) == [Row("part", "not over after 60 s", ok=False, part="part")]
    until = time.monotonic() + 10
    while is_running(int(first.figure)):
        assert time.monotonic() < until, "its child lives on"
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    """Whether there is such a process, and it is not one that nobody has taken note of yet."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_what_there_is_no_time_for_is_told() -> None:
    (row,) = rows_of("answers", 0)
    assert (row.figure, row.ok) == ("not run: 350 s are over", False)


# The table and the exit code


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Row]]:
    """Part -> the rows that it is to have."""
    made: dict[str, list[Row]] = {
        "card": [Row("GPU", "NVIDIA H100 80GB HBM3")],
        "methods": [Row("a|b", "1", "1", True)],
    }
    monkeypatch.setattr(gpu, "PARTS", {name: Part("", 1) for name in made})
    monkeypatch.setattr(gpu, "run", lambda name, *_: iter([gpu.replace(row, part=name) for row in made[name]]))
    return made


def test_the_table_is_written_by_the_name_of_the_card(
    parts: dict[str, list[Row]], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert gpu.main(["--out", str(tmp_path)]) == 0
    (path,) = tmp_path.iterdir()
    assert path.name == "nvidia-h100-80gb-hbm3.md"
    assert "# NVIDIA H100 80GB HBM3\n" in path.read_text()
    assert "| methods | a\\|b | 1 | 1 | ok |" in path.read_text()
    assert "1 checks held, 0 failed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("row", "code"),
    [(Row("", "", ok=False), 1), (Row("", "80 %", "at least 95 %"), 0), (Row("", "", ok=True), 0)],
)
def test_a_failed_check_is_an_exit_code_and_a_timing_is_none(
    parts: dict[str, list[Row]], row: Row, code: int, tmp_path: Path
) -> None:
    parts["methods"].append(row)
    assert gpu.main(["--out", str(tmp_path)]) == code


def test_without_a_gpu_it_says_so_and_runs_nothing_more(
    parts: dict[str, list[Row]], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    parts["card"] = [gpu.NO_GPU]
    assert gpu.main(["--out", str(tmp_path)]) == 2
    assert "methods" not in capsys.readouterr().out
    assert not any(tmp_path.iterdir())


def test_every_part_is_there_and_their_names_are_their_functions_modules() -> None:
    for part in gpu.PARTS.values():
        module, _, name = part.function.partition(":")
        assert f"def {name}(machine: Machine) -> Iterator[Row]:" in (ROOT / f"benchmarks/{module}.py").read_text()


def test_the_readme_links_what_was_measured_or_says_that_nothing_was() -> None:
    text, measured = (ROOT / "README.md").read_text(), sorted((ROOT / "results/gpu").glob("*.md"))
    assert all(f"(results/gpu/{path.name})" in text for path in measured)
    assert ("No GPU was at hand" in text) is not bool(measured)


# The whole


@pytest.mark.slow
def test_all_of_it_runs_on_a_cpu(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks/gpu.py"), "--device", "cpu", "--tiny", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    table = (tmp_path / "cpu-no-gpu.md").read_text()
    assert "0 failed" in table
    for part in gpu.PARTS:
        assert f"\n| {part} | " in table, part
    assert f"| {len(METHODS)} of {len(METHODS)} | {len(METHODS)} | ok |" in table
