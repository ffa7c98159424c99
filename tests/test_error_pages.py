"""Errors name the page that explains them, and every page that code names is there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import reference_pages
from mmbench import pages
from mmbench.cli import main
from mmbench.errors import UsageError
from mmbench.experiment.plan import page_of_lack
from mmbench.guide import PAGES
from mmbench.opening import lacks

ROOT = Path(__file__).parents[1]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is the current one."""
    monkeypatch.chdir(tmp_path)
    for name in ("MMBENCH_RESULTS", "MMBENCH_DATA", "MMBENCH_WEIGHTS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("command", "page"),
    [
        (["run", "table1", "--set", "methods.summ="], "reference/experiment"),
        (["run", "table1", "--set", "datasets.openclipard="], "reference/experiment"),
        (["run", "table1", "--set", "sedes=[1]"], "reference/experiment"),
        (["run", "tabel1"], "reference/experiment"),
        (["run", "casia_surf"], "how_to/gated_data"),
        (["run", "table1", "--dry-run", "--devices", "7"], "how_to/many_gpus"),
        (["run", "table1", "--backend", "slurm"], "how_to/many_gpus"),
        (["data", "add", "nowhere"], "how_to/my_data"),
        (["data", "verify", "crema_d"], "how_to/gated_data"),
        (["add-predictions", "nowhere.csv"], "how_to/my_predictions"),
        (["add-predictions", "nowhere.csv", "--dataset", "openclipart", "--method", "x"], "how_to/my_predictions"),
        (["predict", "0123", "nowhere.csv"], "how_to/models"),
        (["report", "table1"], "how_to/paper_tables"),
        (["new", "method", "9"], "how_to/my_method"),
        (["convert", "nowhere.pkl", "x.safetensors"], "how_to/offline"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_names_its_page(
    here: Path, command: list[str], page: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command) in (1, 2)
    first, *_, last = capsys.readouterr().err.splitlines()
    assert last.startswith("more: ")
    assert page in last
    assert not first.startswith("more: ")


def test_what_is_left_out_is_followed_by_its_page(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "table1", "--dry-run"]) == 0
    lines = capsys.readouterr().err.splitlines()
    names = "crema_d, kinetics_sounds, food101, mvsa, iemocap"
    assert lines[0] == f"left out, not prepared: {names}; `mmbench data info NAME` tells how"
    assert "how_to/gated_data" in lines[-1]
    assert len(lines) == 2
    assert list(lacks({"a": "mmbench data info a", "b": "weights x are missing", "c": "it is broken"})) == [
        "left out, not prepared: a; `mmbench data info a` tells how",
        "left out: b, weights x are missing",
        "left out: c, not prepared: it is broken",
    ]
    assert page_of_lack({"a": "weights x are missing"}) == pages.NO_WEIGHTS
    assert page_of_lack({"a": "weights x are missing", "b": "no such folder"}) == pages.NOT_HERE


def test_in_a_checkout_it_is_a_file_as_seen_from_the_current_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def more() -> str:
        return pages.more(pages.page_of(UsageError("x"), "data"))

    monkeypatch.chdir(ROOT)
    assert more() == "more: docs/how_to/my_data.md"
    monkeypatch.chdir(ROOT / "docs")
    assert more() == "more: how_to/my_data.md"
    monkeypatch.chdir(ROOT / "experiments")
    assert more() == f"more: {ROOT}/docs/how_to/my_data.md"
    assert os.path.exists(more().removeprefix("more: "))


def test_of_a_wheel_it_is_a_page_of_the_documentation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "PACKAGE", tmp_path / "site-packages" / "mmbench")
    assert pages.more(pages.page_of(UsageError("x"), "data")) == "more: the page how_to/my_data of the documentation"


def test_every_page_that_code_names_is_written_or_made() -> None:
    made = reference_pages.pages()
    named = {PAGES, *pages.ORIGINS.values(), *pages.COMMANDS.values(), pages.ANY, pages.NOT_HERE, pages.NO_WEIGHTS}
    assert [
        page for page in sorted(named) if f"{page}.md" not in made and not (ROOT / "docs" / f"{page}.md").is_file()
    ] == []


def test_every_module_and_command_that_has_a_page_is_there() -> None:
    for module in pages.ORIGINS:
        path = ROOT / "src" / module.replace(".", "/")
        assert path.is_dir() or path.with_suffix(".py").is_file(), module
    from mmbench.guide import EXAMPLES

    assert set(pages.COMMANDS) <= set(EXAMPLES)
