"""Where experiments and published results are found from a folder of one's own, and the commands that tell."""

from __future__ import annotations

import os
import re
from importlib.metadata import version
from pathlib import Path

import pytest

from mmbench import where
from mmbench.cli import main
from mmbench.encoders.pretrained import weights_folder
from mmbench.errors import UsageError
from mmbench.files import data_root
from mmbench.options import places as options
from mmbench.places import bands_file, carried, comes_with_package, experiment_path, published, published_table

REPOSITORY = Path(__file__).parents[1]
TABLE1 = REPOSITORY / "experiments" / "table1.yaml"
OWN = "title: my own table\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is the current one."""
    monkeypatch.chdir(tmp_path)
    for name in ("MMBENCH_RESULTS", "MMBENCH_DATA", "MMBENCH_WEIGHTS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def hide_table1() -> Path:
    own = Path("experiments", "table1.yaml")
    own.parent.mkdir(exist_ok=True)
    own.write_text(OWN)
    return own


# Experiments


def test_an_experiment_is_a_path_then_one_of_this_folder_then_the_packages(here: Path) -> None:
    assert experiment_path("table1") == TABLE1
    own = hide_table1()
    assert experiment_path("table1") == own
    assert experiment_path("tuned") == TABLE1.with_name("tuned.yaml")
    Path("table1").write_text(OWN)
    assert experiment_path("table1") == Path("table1")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tabel1", "no experiment 'tabel1' in experiments/ or in mmbench: did you mean 'table1'?"),
        ("experiments/table1.yaml", f"experiments/table1.yaml; without folder and ending, 'table1' is {TABLE1}"),
        ("table1.yaml", "without folder and ending, 'table1' is"),
        ("other.yaml", "no such experiment file: other.yaml"),
    ],
)
def test_one_that_is_not_there_is_told_with_the_nearest(here: Path, name: str, expected: str) -> None:
    with pytest.raises(UsageError, match=re.escape(expected)):
        experiment_path(name)


def test_the_list_tells_which_hides_which(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "experiments"]) == 0
    names = [path.stem for path in sorted(TABLE1.parent.glob("*.yaml"))]
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()] == [[n, "mmbench"] for n in names]
    hide_table1()
    assert main(["experiments", "list"]) == 0
    first, second = (line for line in capsys.readouterr().out.splitlines() if line.startswith("table1 "))
    assert first.split(maxsplit=2)[1:] == ["experiments/", "my own table [hides the one of mmbench]"]
    assert second.endswith("[hidden by experiments/table1.yaml]")


def test_in_the_repository_nothing_hides_itself(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(REPOSITORY)
    assert main(["list", "experiments"]) == 0
    listed = capsys.readouterr().out
    assert len(re.findall(r"^table1 +mmbench ", listed, re.MULTILINE)) == 1
    assert "hid" not in listed
    assert experiment_path("table1") == Path("experiments/table1.yaml")


def test_copy_gives_the_file_and_overwrites_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["experiments", "copy", "table1"]) == 0
    assert (
        capsys.readouterr().out == f"experiments/table1.yaml is a copy of {TABLE1}; edit it, and `mmbench run table1`\n"
    )
    copy = Path("experiments/table1.yaml")
    assert copy.read_bytes() == TABLE1.read_bytes()
    copy.write_text(OWN)
    for target in ([], ["experiments"], ["experiments/table1.yaml"]):
        assert main(["experiments", "copy", "table1", *target]) == 2
        assert "experiments/table1.yaml is there already; name another" in capsys.readouterr().err
    assert copy.read_text() == OWN
    assert main(["experiments", "copy", "tuned", "new/mine.yaml"]) == 0
    assert capsys.readouterr().out.endswith("edit it, and `mmbench run new/mine.yaml`\n")
    assert Path("new/mine.yaml").read_bytes() == TABLE1.with_name("tuned.yaml").read_bytes()
    Path("file").touch()
    assert main(["experiments", "copy", "tuned", "file"]) == 2
    assert "folder file: file is a file; expected a folder" in capsys.readouterr().err


def test_show_prints_the_file(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["experiments", "show", "table1"]) == 0
    assert capsys.readouterr().out == TABLE1.read_text()


# Published results


def test_the_report_that_one_is_compared_with(here: Path) -> None:
    published_one = REPOSITORY / "results" / "table1" / "table.csv"
    assert published_table("table1", TABLE1, Path("results")) == published_one
    assert published_table("table1-0123abcd", TABLE1, Path("results")) is None, "of changed settings"
    demo = TABLE1.with_name("demo.yaml")
    assert published_table("demo", demo, Path("results")) is None, "it has no published report"
    assert published_table("demo", demo, REPOSITORY / "results") == REPOSITORY / "results" / "demo" / "table.csv"
    same = here / "table1.yaml"
    same.write_bytes(TABLE1.read_bytes())
    assert published_table("table1", same, Path("results")) == published_one
    own = hide_table1()
    assert not comes_with_package(own)
    assert published_table("table1", own, Path("results")) is None
    for folder in ("results", "elsewhere"):  # one's own, beside experiments/ or where results are, comes first
        table = Path(folder, "table1", "table.csv")
        table.parent.mkdir(parents=True)
        table.touch()
        assert published_table("table1", own, Path("elsewhere")) == table


def test_papers_numbers_and_bands_come_with_the_package_unless_there_are_own(here: Path) -> None:
    results, regression = Path("results"), REPOSITORY / "experiments" / "regression.yaml"
    assert published(results, "reported") == REPOSITORY / "results" / "reported"
    assert bands_file(regression, results) == REPOSITORY / "results" / "regression" / "regression.csv"
    own = results / "regression" / "regression.csv"
    assert bands_file(regression, results, write=True) == own
    hidden = hide_table1().rename("experiments/regression.yaml")
    assert bands_file(hidden, results) == own, "bands of another grid hold for nothing"
    (results / "reported").mkdir(parents=True)
    own.parent.mkdir()
    own.touch()
    assert published(results, "reported") == results / "reported"
    assert bands_file(regression, results) == own


def test_a_run_of_ones_own_file_by_a_published_name_is_not_compared_and_says_so(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from argparse import Namespace

    from mmbench.experiment.plan import Experiment
    from mmbench.report_commands import compared_with

    experiment = Experiment.__new__(Experiment)
    experiment.name = "table1"
    arguments = Namespace(experiment="table1", results=Path("results"))
    assert compared_with(experiment, arguments) == carried("results") / "table1" / "table.csv"
    assert capsys.readouterr().err == ""
    hide_table1()
    assert compared_with(experiment, arguments) is None
    assert capsys.readouterr().err == (
        "experiments/table1.yaml is not the table1 that comes with mmbench: not compared with its report\n"
    )


# mmbench where


def told(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> dict[str, str]:
    """What ``mmbench where`` says, by the word that its lines begin with."""
    assert main([*arguments, "where"]) == code
    parts = re.split(r"^(?=\w)", capsys.readouterr().out, flags=re.MULTILINE)[1:]
    return {part.split()[0]: " ".join(part.split()) for part in parts}


def test_where_tells_folders_reasons_and_state(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = told(capsys)
    assert list(lines) == ["mmbench", "experiments", "published", "results", "data", "weights"]
    assert lines["mmbench"].startswith(f"mmbench {version('mmbench')} {REPOSITORY}/src/mmbench Python 3.")
    assert lines["experiments"].startswith(f"experiments {REPOSITORY}/experiments ")
    assert f"{here}/experiments where those of your own would be; not there" in lines["experiments"]
    for name in where.FOLDERS:
        assert re.fullmatch(rf"{name} {here}/{name} by default; not there yet, writable, [\d.]+ GiB free", lines[name])
    hide_table1()
    monkeypatch.setenv("MMBENCH_RESULTS", str(here / "r"))
    monkeypatch.setenv("MMBENCH_WEIGHTS", str(here / "w"))
    monkeypatch.setenv("MMBENCH_DATA", str(here))
    lines = told(capsys)
    assert f"{here}/experiments 1 of your own, which come first" in lines["experiments"]
    assert lines["results"].startswith(f"results {here}/r by MMBENCH_RESULTS; not there yet")
    assert lines["weights"].startswith(f"weights {here}/w by MMBENCH_WEIGHTS; not there yet")
    assert lines["data"].startswith(f"data {here} by MMBENCH_DATA; there, ")
    lines = told(capsys, "--results", "other", "--data-dir", "experiments")
    assert lines["results"].startswith(f"results {here}/other by --results; not there yet")
    assert lines["data"].startswith(f"data {here}/experiments by --data-dir; there")


def test_where_tells_what_cannot_be_used(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "results").touch()
    monkeypatch.setenv("MMBENCH_WEIGHTS", "~nobody-of-this-name/x")
    lines = told(capsys, code=1)
    assert (
        lines["results"]
        == "results cannot be used, by default: results folder results: results is a file; expected a folder"
    )
    assert lines["weights"].startswith(
        "weights cannot be used, by MMBENCH_WEIGHTS: ~nobody-of-this-name/x: there is no home"
    )


def test_its_folders_are_those_that_commands_use(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def in_use() -> dict[str, Path]:
        results = options(top=True).parse_args([]).results
        return {"results": results, "data": data_root(), "weights": weights_folder()}

    assert in_use() == {name: Path(name) for name in where.FOLDERS}
    for variable in where.FOLDERS.values():
        monkeypatch.setenv(variable, f"/{variable}")
    assert in_use() == {name: Path(f"/{variable}") for name, variable in where.FOLDERS.items()}
    assert os.environ["MMBENCH_DATA"] == "/MMBENCH_DATA"
