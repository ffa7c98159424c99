"""``mmbench completion``: the script works in a real bash, and every positional argument that names something is completed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mmbench.cli import main, parser
from mmbench.completion import SHELLS, completed_by
from mmbench.guide import parsers

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
FREE = {"show KEY", "new NAME"}
"""Arguments that nothing can know."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where someone works: the script, an experiment and a file of their own, and ``mmbench`` on the path."""
    here = tmp_path_factory.mktemp("here")
    (here / "experiments").mkdir()
    (here / "experiments" / "mine.yaml").write_text("title: mine\n")
    (here / "bundle.zip").touch()
    script = subprocess.run([sys.executable, "-m", "mmbench", "completion", "bash"], capture_output=True, check=True)
    (here / "script").write_bytes(script.stdout)
    (here / "bin").mkdir()
    (here / "bin" / "mmbench").write_text(f'#!/bin/sh\nexec {sys.executable} -m mmbench "$@"\n')
    (here / "bin" / "mmbench").chmod(0o755)
    return here


def offered(folder: Path, line: str) -> set[str]:
    """What bash offers where the tabulator is pressed at the end of a line."""
    words = line.split(" ")
    asked = " ".join(f"'{word}'" for word in words)
    code = f"""source ./script
        COMP_WORDS=({asked}); COMP_CWORD={len(words) - 1}; COMP_LINE='{line}'; COMP_POINT={len(line)}
        function=$(complete -p mmbench | sed 's/.*-F \\([^ ]*\\).*/\\1/')
        $function mmbench "${{COMP_WORDS[COMP_CWORD]}}" "${{COMP_WORDS[COMP_CWORD-1]}}"
        printf '%s\\n' "${{COMPREPLY[@]}}" """
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    answer = subprocess.run(
        ["bash", "--norc", "-c", code],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    return {word.strip() for word in answer.stdout.split()}


def test_bash_can_read_the_script(folder: Path) -> None:
    subprocess.run(["bash", "-n", folder / "script"], check=True)


@pytest.mark.parametrize(
    ("line", "among", "others"),
    [
        ("mmbench exp", {"export", "experiments"}, {"run"}),
        ("mmbench data ver", {"verify"}, {"audit"}),
        ("mmbench run --dry", {"--dry-run"}, {"--strict"}),
        ("mmbench run ta", {"table1"}, {"tuned"}),
        ("mmbench run mi", {"mine"}, {"table1"}),
        ("mmbench run experiments/m", {"experiments/mine.yaml"}, set()),
        ("mmbench data info crema", {"crema_d"}, {"food101"}),
        ("mmbench import b", {"bundle.zip"}, {"script"}),
        ("mmbench run table1 --backend s", {"slurm"}, {"local"}),
    ],
)
def test_bash_completes(folder: Path, line: str, among: set[str], others: set[str]) -> None:
    found = offered(folder, line)
    assert among <= found
    assert not others & found


@pytest.mark.parametrize("shell", SHELLS)
def test_there_is_a_script_for_every_shell(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "mmbench" in script.splitlines()[0] or "AUTOMATICALLY GENERATED" in script
    assert "add-predictions" in script
    assert "list experiments --names" in script or "_mmbench_experiments" in script


def test_every_argument_that_is_no_option_is_completed_or_free() -> None:
    left = set()
    for command, sub in parsers(parser()):
        for action in sub._get_positional_actions():
            if action.choices is None and completed_by(command, action) is None:
                left.add(f"{command} {action.metavar}")
    assert left == FREE
