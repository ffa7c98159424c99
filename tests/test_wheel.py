"""The wheel, in a fresh environment and an empty folder: what it carries, and that everything works from there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PARTS = (
    "src",
    "baselines",
    "experiments",
    "results",
    "templates",
    "setup.cfg",
    "pyproject.toml",
    "README.md",
    "LICENSE",
)
TINY = ["--set", "datasets.openclipart.recipe.epochs=1", "datasets.openclipart.folds=null", "methods.late_trust={}"]
ONE = ["--filter", "dataset=openclipart", "protocol=clean", "method=late_trust", "seed=0"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built of a copy: building writes beside the sources."""
    copy, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    leave = shutil.ignore_patterns("local", "runs", "wandb", "*.png", "*.svg", "__pycache__", "*.egg-info")
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, copy / part, ignore=leave)
        else:
            shutil.copy(ROOT / part, copy)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-w",
        str(built),
        str(copy),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    (file,) = built.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that has the wheel, and sees what else is installed here, but not this mmbench."""
    place = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    install = ["-m", "pip", "--python", str(place / "bin" / "python"), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([sys.executable, *install], check=True, capture_output=True)
    packages = Path(sysconfig.get_path("purelib", "venv", {"base": str(place)}))
    # Folders on the path, of which .pth files are not read: so the editable install of mmbench does not come with them.
    (packages / "installed.pth").write_text(
        "\n".join(p for p in sys.path if p.endswith(("site-packages", "dist-packages")))
    )
    return place / "bin" / "python"


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder."""
    return tmp_path_factory.mktemp("here")


Told = Callable[..., str]


@pytest.fixture(scope="module")
def told(python: Path, here: Path) -> Told:
    """What ``mmbench …`` prints in the empty folder, or ``python …``."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MMBENCH", "PYTHON", "WANDB"))}

    def run(*arguments: str, code: int = 0) -> str:
        name, *rest = arguments if arguments[0] == "python" else ("mmbench", *arguments)
        command = [str(python.with_name(name)), *rest]
        done = subprocess.run(command, cwd=here, env=kept, capture_output=True, text=True, timeout=120)
        assert done.returncode == code, done.stdout[-2000:] + done.stderr[-3000:]
        return done.stdout

    return run


def test_the_wheel_carries_what_commands_look_for(wheel: Path) -> None:
    carried = set(zipfile.ZipFile(wheel).namelist())
    patterns = [
        "experiments/*.yaml",
        "results/README.md",
        "results/ledger.*",
        "results/reported/*.csv",
        "results/regression/*.csv",
        "results/*/table.csv",
        "templates/**/*.*",
    ]
    for pattern in patterns:
        files = [path.relative_to(ROOT).as_posix() for path in ROOT.glob(pattern)]
        assert files
        assert carried >= {f"mmbench/{name}" for name in files}
    code = ROOT / "src"
    names = {path.relative_to(code).as_posix() for path in code.rglob("mmbench/**/*") if path.is_file()}
    names |= {f"mmbench/{path.relative_to(ROOT)}" for path in (ROOT / "baselines").glob("*.py")}
    assert {name for name in names if "__pycache__" not in name} <= carried
    assert not [
        name for name in carried if name.startswith("mmbench/results/") and name.endswith((".png", ".svg", ".html"))
    ]


def test_from_an_empty_folder(told: Told, python: Path, here: Path) -> None:
    package = told("python", "-c", "import mmbench; print(mmbench.__file__)").strip().removesuffix("/__init__.py")
    assert package.startswith(str(python.parents[1])), "the wheel's, not the editable one"
    assert list(here.iterdir()) == []
    where = told("where")
    for line in (
        f" {package}\n",
        f" {package}/experiments\n",
        f" {package}/results\n",
        f" {here}/results\n",
        f" {here}/data\n",
    ):
        assert line in where
    told("new", "method", "late_trust")
    # Editable, as one is at work on it: a folder of the package's name, in the current one, must not be taken for its module.
    told("python", "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--no-index", "-e", "late_trust")
    ran = told("run", "table1", *TINY, *ONE)
    (report,) = (here / "results" / "local").glob("table1-*")
    assert {"table.html", "table.csv", "figure.png"} <= {path.name for path in report.iterdir()}
    accuracies = re.search(r"^ +late_trust +\d.*\d", ran, re.MULTILINE)[0].split()[:5]
    # Rows without a result are left out after --filter alone, and columns are as wide as what is in them.
    assert " ".join(accuracies) in " ".join(told("report", "table1", *TINY).split())
    assert "1 done" in told("status", "table1", *TINY)
    assert told("compare", str(report), "table1", code=1).startswith("Nothing to compare with")
    assert told("compare", "table1", "table1").startswith("Agrees with")
    assert "table1" in told("dashboard", "table1", "--print")
    copied = told("experiments", "copy", "table1")
    assert copied.startswith(f"experiments/table1.yaml is a copy of {package}/experiments/table1.yaml")
    assert (here / "experiments" / "table1.yaml").read_bytes() == (ROOT / "experiments" / "table1.yaml").read_bytes()
    assert "which says the same]" in told("list", "experiments")
    assert {path.name for path in here.iterdir()} == {"experiments", "results", "late_trust"}
