"""The gallery: every script says what it is and for whom, has its place, and runs anywhere without leaving anything."""

import ast
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from gallery_order import ORDER, Order

ROOT = Path(__file__).parents[2]
GALLERY = ROOT / "docs/gallery"
SCRIPTS = sorted(path.name for path in GALLERY.glob("*.py"))


def test_every_script_has_its_place():
    assert sorted(ORDER) == SCRIPTS
    assert sorted(SCRIPTS, key=Order("gallery")) == list(ORDER)


@pytest.mark.parametrize("name", SCRIPTS)
def test_it_says_what_it_is_and_for_whom(name):
    source = (GALLERY / name).read_text()
    title, line, _, *words = ast.get_docstring(ast.parse(source)).split("\n")
    assert title
    assert line == "=" * len(title)
    assert words[0].startswith("For whoever ")
    assert words[-1].endswith(".")
    assert source.count("\n# %%\n") >= 3


@pytest.mark.slow
@pytest.mark.parametrize("name", ORDER)
def test_it_runs_from_any_folder_and_leaves_nothing(name, tmp_path, request):
    here = tmp_path / "here"
    here.mkdir()
    temporary = tempfile.mkdtemp()  # short: the sockets of processes lie in it, and the path of one has 107 bytes
    environment = {n: v for n, v in os.environ.items() if not n.startswith("MMBENCH_")}
    environment |= {"TMPDIR": temporary, "MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"}
    before = sorted(GALLERY.iterdir())
    request.addfinalizer(lambda: shutil.rmtree(temporary))
    done = subprocess.run(
        [sys.executable, "-W", "ignore:FigureCanvasAgg", GALLERY / name],
        cwd=here,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
    told = [line for line in done.stderr.splitlines() if "Warning" in line or "rank_zero" in line]
    assert told == []
    assert list(here.iterdir()) == []
    assert sorted(GALLERY.iterdir()) == before
