"""``mmbench new``: packages of one's own, as they are written for a user."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from mmbench import new
from mmbench.cli import main, parser

ROOT = Path(__file__).parents[1]
NAMES = {"method": "late_trust", "dataset": "noted_curves", "encoder": "way_around"}
EXPERIMENT = """\
title: all of one's own
datasets:
  noted_curves:
    encoders: {curve: {name: way_around, in_dim: 32, width: 8}}
    recipe: {epochs: 2, lr: 0.05, batch_size: 16}
methods: {late_trust: }
seeds: [0]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a package of every kind."""
    place = tmp_path_factory.mktemp("packages")
    for kind, name in NAMES.items():
        assert main(["new", kind, name, "--into", str(place)]) == 0
    return place


@pytest.mark.parametrize("kind", NAMES)
def test_a_package_has_its_own_names(folder: Path, kind: str) -> None:
    name, own_folder = NAMES[kind], folder / NAMES[kind]
    files = {str(path.relative_to(own_folder)): path.read_text() for path in own_folder.rglob("*") if path.is_file()}
    assert set(files) - {f"{name}.yaml"} == {"README.md", "pyproject.toml", f"src/{name}.py", f"test_{name}.py"}
    own = new.class_name(name)
    assert f'[project.entry-points."mmbench.{kind}s"]\n{name} = "{name}:{own}"\n' in files["pyproject.toml"]
    assert f"class {own}(" in files[f"src/{name}.py"]
    for file, text in files.items():
        assert not re.search(r"my_?(method|dataset|encoder)", text, re.IGNORECASE), file
    assert len(files["README.md"].splitlines()) <= 12


@pytest.mark.parametrize("kind", NAMES)
def test_the_commands_of_its_readme_parse(folder: Path, kind: str) -> None:
    text = (folder / NAMES[kind] / "README.md").read_text()
    commands = [line.split(" #")[0] for line in text.splitlines() if line.startswith("mmbench ")]
    assert commands
    for command in commands:
        parser().parse_args(shlex.split(command)[1:])


def test_packages_are_in_our_style(folder: Path) -> None:
    for command in (["check"], ["format", "--check"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--no-cache", "--config", str(ROOT / "pyproject.toml")]
        # `lint.per-file-ignores` are of the repository's paths; tests are named by what they hold, and need no docstring.
        ignored = ["--ignore", "D103"] if command == ["check"] else []
        done = subprocess.run([*ruff, *ignored, str(folder)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        ("method", "A", "method 'A': expected letters, lower case, digits"),
        ("method", "2fast", "expected letters, lower case"),
        ("method", "late__trust", "expected letters, lower case"),
        ("method", "../trust", "expected letters, lower case"),
        ("encoder", "größe", "expected letters, lower case"),
        ("method", "lambda", "a word of Python's own"),
        ("dataset", "match", "a word of Python's own"),
        ("method", "mla", "method 'mla' is there already (`mmbench list methods`)"),
        ("dataset", "openclipart", "data set 'openclipart' is there already (`mmbench list datasets`)"),
        ("encoder", "small-cnn", "encoder 'small_cnn' is there already"),
        ("method", "torch", "a module of this name is installed"),
        ("method", "statistics", "a module of this name is installed"),
        ("method", "tensor", "its class, Tensor, would hide what its code uses"),
        ("dataset", "split", "its class, Split, would hide what its code uses"),
    ],
)
def test_a_name_that_will_not_do_is_refused(
    tmp_path: Path, kind: str, name: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["new", kind, name, "--into", str(tmp_path)]) == 2
    assert expected in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_hyphen_becomes_an_underscore_and_nothing_is_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["new", "method", "late-trust", "--into", str(tmp_path / "new")]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert told.startswith("called late_trust: '-' cannot be in the name of a module\n")
    written = tmp_path / "new" / "late_trust" / "README.md"
    assert f"-m pytest {written.parent}\n" in told
    written.write_text("edited")
    assert main(command) == 2
    assert f"{written.parent} is there already" in capsys.readouterr().err
    assert written.read_text() == "edited"
    (tmp_path / "file").touch()
    assert main(["new", "method", "other_trust", "--into", str(tmp_path / "file")]) == 2
    assert "file is a file; expected a folder" in capsys.readouterr().err


@pytest.mark.slow
def test_packages_install_pass_their_tests_and_run(folder: Path, tmp_path: Path) -> None:
    """All three at once: one trial of the method on the data set, with the encoder."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MMBENCH", "WANDB"))}

    def told(*command: str) -> str:
        environment = {**kept, "PYTHONPATH": str(tmp_path / "installed")}
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    packages = [str(folder / name) for name in NAMES.values()]
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--target", str(tmp_path / "installed")]
    told("pip", "install", *options, *packages)
    assert "6 passed" in told("pytest", "-q", "-p", "no:cacheprovider", *packages)
    (tmp_path / "own.yaml").write_text(EXPERIMENT)
    report = told("mmbench", "run", "own.yaml", "--jobs", "1")
    assert re.search(r"^ +late_trust +\D*\d", report, re.MULTILINE)
    planned = told("mmbench", "run", str(folder / "noted_curves" / "noted_curves.yaml"), "--dry-run")
    assert "18 trials, 0 done, 18 to do" in planned
