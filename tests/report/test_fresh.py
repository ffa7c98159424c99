"""``mmbench run`` with nothing to do leaves a report as it is, unless anything has changed that it was made of."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mmbench.cli import main
from mmbench.report.fresh import NOTE
from mmbench.store import Store
from mmbench.trial import Trial
from test_provenance import OURS, here, write  # noqa: F401  a fixture

FOLDER = Path("results/local/grid")


@pytest.fixture
def written(here: list[Trial], monkeypatch: pytest.MonkeyPatch) -> list[Path]:  # noqa: F811
    """The folder of each report that is written; of a report two files, without drawing."""
    folders: list[Path] = []

    def fake(results: object, folder: Path, runs: Path | None = None) -> list[Path]:
        folders.append(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("table.md", "figure.png"):
            (folder / name).write_text("whole")
        return [folder / "table.md", folder / "figure.png"]

    monkeypatch.setattr("mmbench.provenance.read_module", OURS)
    monkeypatch.setattr("mmbench.report.page.write", fake)
    assert main(["run", "grid.yaml"]) == 0
    assert folders == [FOLDER]
    folders.clear()
    return folders


def again(capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(["run", "grid.yaml"]) == 0
    return capsys.readouterr().err


def test_nothing_is_drawn_again_and_what_there_is_is_named(
    written: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert "report: results/local/grid/table.html, .md, .csv, .tex; figure.png" in again(capsys)
    assert written == []
    assert main(["report", "grid.yaml"]) == 0
    assert written == [FOLDER], "who asks for the report gets it"


def rewritten_record(trials: list[Trial]) -> None:
    path = Store("results/runs").folder(trials[0].key) / "record.json"
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data)


def features_come(trials: list[Trial]) -> None:
    (Store("results/runs").folder(trials[1].key) / "features.npz").write_bytes(b"")


def edited(_: list[Trial]) -> None:
    (FOLDER / "table.md").write_text("other")


def deleted(_: list[Trial]) -> None:
    (FOLDER / "figure.png").unlink()


def torn(_: list[Trial]) -> None:
    os.truncate(FOLDER / NOTE, 20)


def no_note(_: list[Trial]) -> None:
    (FOLDER / NOTE).write_text("null")


def added(_: list[Trial]) -> None:
    Path("results/elsewhere/x").mkdir(parents=True)


def papers(_: list[Trial]) -> None:
    Path("results/reported").mkdir()


CHANGES = (rewritten_record, features_come, edited, deleted, torn, no_note, added, papers)


def test_what_has_changed_is_reported_anew_once(
    here: list[Trial],  # noqa: F811
    written: list[Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    for count, change in enumerate(CHANGES, 1):
        change(here)
        again(capsys)
        assert len(written) == count, change.__name__
    again(capsys)
    assert written == [FOLDER] * len(CHANGES)


def test_other_code_and_other_libraries_draw_anew(
    written: list[Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "more.py").write_text("x = 1")
    monkeypatch.setattr("mmbench.report.fresh.source_files", lambda: [tmp_path / "more.py"])
    again(capsys)
    (tmp_path / "more.py").write_text("x = 2")
    again(capsys)
    monkeypatch.setattr("mmbench.report.fresh.installed_version", lambda name: "99")
    again(capsys)
    again(capsys)
    assert written == [FOLDER] * 3
