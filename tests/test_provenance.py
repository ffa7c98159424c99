"""What a trial ran is known: edits of its method, encoders and data set are seen wherever they are installed, and nothing else is."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import mmbench.provenance
from mmbench.cli import main
from mmbench.data import DATASETS
from mmbench.encoders import ENCODERS
from mmbench.experiment.plan import load
from mmbench.provenance import Codes, Module, grouped, why_stale
from mmbench.record import Code, Predictions, Record
from mmbench.report.collect import collect
from mmbench.report.latex import to_latex
from mmbench.report.tables import to_markdown
from mmbench.store import Store
from mmbench.trial import Trial

FILES = {
    "fam_base/__init__.py": "",
    "fam_base/core.py": '"""Another package."""\nfrom fam_base.sums import plus\n\n'
    "class Base:\n    def answer(self): return plus(1, 1)\n",
    "fam_base/sums.py": "def plus(a, b):\n    return a + b\n",
    "fam_base/unrelated.py": "x = 1\n",
    "fam/__init__.py": "from fam.tools import shared\nfrom fam.unrelated import x\n",
    "fam/method.py": '"""A method."""\n\nfrom __future__ import annotations\nfrom typing import TYPE_CHECKING\n\n'
    "from fam_base.core import Base\nfrom fam import shared\nfrom . import near\nfrom .tools import *\n"
    "from mmbench.baselines.ae import Ae\n\n"
    "if TYPE_CHECKING:\n    from fam import only_types\n\n"
    'class Mine(Base):\n    """Doc."""\n\n    def late(self):\n        """Doc."""\n        from fam import late\n'
    "        return late.x\n",
    "fam/tools.py": "def shared():  # comment\n    return 1\n",
    "fam/near.py": "x = 1\n",
    "fam/late.py": "import fam_beside\nx = fam_beside.x\n",
    "fam/only_types.py": "class T: pass\n",
    "fam/unrelated.py": "x = 1\n",
    "fam_beside.py": "x = 1\n",
}
COUNTING = {
    "fam.method", "fam.tools", "fam.near", "fam.late", "fam_beside", "fam_base.core", "fam_base.sums", "mmbench.baselines.ae",
}  # fmt: skip
OURS = cache(mmbench.provenance.read_module)  # to spare time


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Packages of someone else's: a method whose base class is in another package, with helpers of all kinds."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    clear()
    read = mmbench.provenance.read_module
    monkeypatch.setattr(
        "mmbench.provenance.read_module", lambda name: OURS(name) if name.startswith("mmbench") else read(name)
    )
    yield tmp_path
    clear()


def clear() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0].startswith("fam")]:
        del sys.modules[name]
    clear_caches()


def clear_caches() -> None:
    mmbench.provenance.find.cache_clear()
    mmbench.provenance._came_together.cache_clear()


MINE = "fam.method:Mine"


def test_a_class_is_what_it_inherits_and_what_these_import_of_their_own(installed: Path) -> None:
    code = Codes().of_class(MINE)
    assert set(code) - {name for name in code if name.startswith("mmbench.")} == COUNTING - {"mmbench.baselines.ae"}
    assert "mmbench.baselines.ae" in code
    assert all(len(digest) == 12 for digest in code.values())


@pytest.mark.parametrize("module", sorted(COUNTING - {"mmbench.baselines.ae"}))
def test_an_edit_of_it_is_seen_and_named(installed: Path, module: str) -> None:
    """The plugin's own file, a helper's function, a base class of another package."""
    before = Codes().of_class(MINE)
    path = installed / (module.replace(".", "/") + ".py")
    path.write_text(path.read_text().replace("1", "2") + "\ny = 3\n")
    after = Codes().of_class(MINE)
    assert {name for name in before if before[name] != after[name]} == {module}


@pytest.mark.parametrize(
    "edit",
    [
        lambda root: (root / "fam/new_method.py").write_text("class New: pass\n"),
        lambda root: (root / "fam/unrelated.py").write_text("x = 2\n"),
        lambda root: (root / "fam_base/unrelated.py").write_text("x = 2\n"),
        lambda root: (root / "fam/only_types.py").write_text("x = 2\n"),
        lambda root: (root / "fam/__init__.py").write_text(FILES["fam/__init__.py"] + "from fam.near import x as z\n"),
        lambda root: rewrite(root / "fam/method.py", '"""Doc."""', '"""Other words,\n\n    on more lines."""'),
        lambda root: rewrite(root / "fam/method.py", '"""A method."""', "# A comment in its place\n"),
        lambda root: rewrite(root / "fam/tools.py", "  # comment\n    return 1", "\n\n    # another\n\n    return (1)"),
        lambda root: rewrite(root / "fam/near.py", "x = 1\n", "x = 1\n'''What x is.'''\n"),
    ],
    ids=["new file", "other file", "other file of the base's package", "for type checkers", "table", "docstring",
         "module docstring", "comments and form", "attribute docstring"],
)  # fmt: skip
def test_what_does_not_run_in_it_counts_for_nothing(installed: Path, edit: Callable[[Path], None]) -> None:
    before = Codes().of_class(MINE)
    edit(installed)
    assert Codes().of_class(MINE) == before


def rewrite(path: Path, old: str, new: str) -> None:
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_each_way_of_having_no_source_has_its_rule(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (installed / "fam/near.py").write_text("x = (\n")  # broken since it was imported
    (installed / "fam/late.py").write_bytes(b"x = '\xff'\n")
    with zipfile.ZipFile(installed / "fam_zip.zip", "w") as archive:
        archive.writestr("fam_zipped.py", "class Zipped: pass\n")
    monkeypatch.syspath_prepend(installed / "fam_zip.zip")
    sys.modules["fam_made"] = ModuleType("fam_made")
    (installed / "fam_uses.py").write_text(
        "from fam_zipped import Zipped\nimport fam_made\nclass U(Zipped, fam_made.Made): pass\n"
    )
    clear_caches()
    codes = Codes()
    one = codes.of_class(MINE)
    assert len(one["fam.near"]) == len(one["fam.late"]) == 12, "the bytes of the file"
    assert codes.unreadable == []
    other = codes.of_class("fam_uses:U")
    assert set(other) == {"fam_uses", "fam_zipped", "fam_made"}
    assert other["fam_made"] == "unreadable"
    assert codes.unreadable == ["fam_made"]
    assert len(mmbench.provenance.read_module("yaml._yaml").digest) == 12, "a compiled extension: its bytes"


@pytest.mark.parametrize(
    ("line", "base"),
    [
        ("import fam_base.core", "fam_base.core.Base"),
        ("import fam_base.core as c", "c.Base"),
        ("from fam_base import core", "core.Base"),
        ("from fam_base import core as c", "c.Base"),
        ("from fam_base.core import Base as B", "B"),
        ("from fam_base.core import Base as B", "Generic[B]"),
        ("from fam_base.core import Base as B", "make(B)"),
        ("from fam_base.core import *", "Base"),
        ("from fam import Again", "Again"),
        ("import fam", "fam.Again"),
    ],
)
def test_bases_are_found_however_they_are_imported(installed: Path, line: str, base: str) -> None:
    """From another folder, so that nothing but being inherited from makes them count."""
    (installed / "fam/__init__.py").write_text("from fam_base.core import Base as Again\n")
    (installed / "elsewhere").mkdir()
    (installed / "elsewhere/fam_far.py").write_text(f"import fam.unrelated\n{line}\nclass Far({base}):\n    pass\n")
    sys.path.insert(0, str(installed / "elsewhere"))
    clear_caches()
    try:
        assert set(Codes().of_class("fam_far:Far")) - {"fam"} == {"fam_far", "fam_base.core", "fam_base.sums"}
    finally:
        sys.path.remove(str(installed / "elsewhere"))


def test_imports_that_lead_nowhere_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fam_lost.py").write_text(
        "from ...... import far\nfrom . import sibling\nimport fam_lost.not_a_package\nfrom fam_nowhere import *\n"
        "from fam_nowhere.at_all import Base\nclass Lost(Base, unknown.Thing, Lost): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    clear()
    codes = Codes()
    assert list(codes.of_class("fam_lost:Lost")) == ["fam_lost"]
    assert codes.unreadable == []


def test_the_syntax_tree_tells_values_apart() -> None:
    import ast

    texts = ["x = 1", "x = 1.0", "x = True", "x = '1'", "x = b'1'", "x = [1]", "x = (1,)", "x = -1", "y = 1", "x: int = 1",
             "x += 1", "f(1)", "f(x=1)", "f(*x)", "f(**x)", "{**x}", "{None: x}", "x[1]", "x[1:]", "x[:1]", "def f(): pass",
             "def f():\n    return", "def f(a): pass", "def f(*, a): pass", "def f(a=1): pass", "async def f(): pass"]  # fmt: skip
    flat = ["\n".join(mmbench.provenance._flat(ast.parse(text))) for text in texts]
    assert len(set(flat)) == len(texts)


# Our own


def test_no_class_of_ours_has_the_core_in_it_and_each_has_its_own_file() -> None:
    from mmbench.baselines import METHODS

    codes = Codes()
    assert codes.unreadable == []
    for table in (METHODS, DATASETS, ENCODERS):
        for name in table:
            code = codes.of_class(table.target(name))
            inherited = {base.__module__ for base in table[name].__mro__ if base.__module__.startswith("mmbench")}
            assert inherited <= set(code) | codes._core, "what importing it says that it inherits from"
            assert not {"mmbench.task", "mmbench.training", "mmbench.data.base"} & set(code)
            assert not any("preparing" in module or "demo" in module for module in code)
    assert "mmbench.baselines.ae" in codes.of_class(METHODS.target("mmin")), "of which it takes a function"
    assert "mmbench.data.prepared" in codes.of_class(DATASETS.target("crema_d"))
    assert "mmbench.data.prepared" not in codes.of_class(DATASETS.target("openclipart"))


def changed_code(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    """As if these files had been edited."""

    def edited(name: str) -> Module:
        return replace(OURS(name), digest="0" * 12) if name in modules else OURS(name)

    monkeypatch.setattr("mmbench.provenance.read_module", edited)


def test_the_core_is_what_every_trial_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    changed_code(monkeypatch)
    before = Codes()
    inside = (
        "task training data.base data.split missing metrics recipe batch protocol curves encoders.building runner.child"
    )
    assert {f"mmbench.{name}" for name in inside.split()} <= before._core
    outside = (
        "report. evidence. baselines data.sets. data.prepared data.preparing. encoders.bert encoders.pretrained experiment. "
        "cli commands provenance runner.local regression"
    )
    assert not [name for name in before._core for part in outside.split() if name.startswith(f"mmbench.{part}")]
    assert {"mmbench.baselines", "mmbench.data", "mmbench.encoders"}.isdisjoint(before._core), "tables of names"
    changed_code(monkeypatch, "mmbench.task")
    assert Codes().core != before.core
    changed_code(monkeypatch, "mmbench.cli", "mmbench.baselines.mla", "mmbench.report.tables")
    assert Codes().core == before.core


# Results of other code

GRID = "title: t\ndatasets: {openclipart: }\nmethods: {sum: , mla: }\nseeds: [0, 1]\n"
GOLDEN = Path(__file__).parent / "report" / "golden"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Trial]:
    """A working folder in which a grid of four trials is done, with the code as it is."""
    monkeypatch.chdir(tmp_path)
    Path("grid.yaml").write_text(GRID)
    trials, codes = load("grid.yaml").trials, Codes()
    for trial in trials:
        write(trial, codes.of(trial))
    return trials


def write(trial: Trial, code: Code | None) -> None:
    predictions = Predictions.from_bytes(next((GOLDEN / "runs").glob("*/predictions.npz")).read_bytes())
    predictions.modalities = np.array(list(trial.encoders))
    predictions.predicted = np.zeros((7, len(predictions.label)), np.int16)
    predictions.log_probs = np.repeat(predictions.log_probs[:1], 7, axis=0)
    predictions.present = np.ones((len(predictions.label), 3), bool)
    common = {"key": trial.key, "trial": trial, "started": "", "finished": "", "environment": {}, "code": code}
    Store("results/runs").write(Record(**common, status="done", seconds={"fit": 1.0}), predictions)


def dry_run(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[str, list[str]]:
    """The last line of a dry run's answer, and what it says beside it."""
    capsys.readouterr()
    assert main(["run", "grid.yaml", "--dry-run", *options]) == 0
    answer = capsys.readouterr()
    return answer.out.splitlines()[-1], answer.err.splitlines()


@pytest.mark.usefixtures("here")
def test_results_of_this_code_are_not_spoken_of(capsys: pytest.CaptureFixture[str]) -> None:
    assert dry_run(capsys) == ("4 trials, 4 done, 0 to do", [])


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("module", "count", "why"),
    [
        ("mmbench.baselines.mla", 2, "code of method mla changed (mmbench.baselines.mla)"),
        ("mmbench.baselines.sum", 2, "code of method sum changed (mmbench.baselines.sum)"),
        ("mmbench.encoders.small_cnn", 4, "code of encoder small_cnn changed (mmbench.encoders.small_cnn)"),
        ("mmbench.data.sets.openclipart", 4, "code of data set openclipart changed (mmbench.data.sets.openclipart)"),
    ],
)
def test_trials_of_edited_code_run_again_and_it_is_said_why(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, module: str, count: int, why: str
) -> None:
    changed_code(monkeypatch, module)
    assert dry_run(capsys) == (f"4 trials, {4 - count} done, {count} to do", [f"{count} trials run again: {why}"])
    kept = f"{count} trials kept, of other code than this: {why}"
    assert dry_run(capsys, "--keep-stale") == ("4 trials, 4 done, 0 to do", [kept])
    assert main(["status", "grid.yaml"]) == 0
    done = f", {4 - count} done" if count < 4 else ""
    assert capsys.readouterr().out.splitlines() == [f"{count} trials stale: {why}", f"4 trials{done}, {count} stale"]


@pytest.mark.usefixtures("here")
def test_other_core_is_told_in_a_line_and_runs_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    changed_code(monkeypatch, "mmbench.task")
    last, (line,) = dry_run(capsys)
    assert last == "4 trials, 4 done, 0 to do"
    assert line.startswith("4 of the done trials ran with another core of mmbench than this")


def test_records_of_before_code_was_recorded_run_again(here: list[Trial], capsys: pytest.CaptureFixture[str]) -> None:
    write(here[0], None)
    assert dry_run(capsys) == ("4 trials, 3 done, 1 to do", ["1 trial run again: made before code was recorded"])


def test_the_report_says_what_other_code_produced(here: list[Trial], monkeypatch: pytest.MonkeyPatch) -> None:
    changed_code(monkeypatch, "mmbench.baselines.mla")
    experiment, store = load("grid.yaml"), Store("results/runs")
    note = "2 trials of other code than this: code of method mla changed (mmbench.baselines.mla)"
    results = collect(experiment, store, codes=Codes())
    assert results.stale == [note]
    assert f"Stale: {note}." in to_markdown(results)
    assert f"% Stale: {note}." in to_latex(results)
    assert collect(experiment, store).stale == []


def test_a_stale_result_is_forgotten_when_its_trial_starts_and_a_fresh_one_is_kept(here: list[Trial]) -> None:
    store, trial = Store("results/runs"), here[0]
    code = Codes().of(trial)
    store.discard(trial.key, code.model_copy(update={"core": "another"}))
    assert store.done(trial.key) is not None
    assert store.finished(trial.key, code)
    other = code.model_copy(update={"method": {**code.method, "mmbench.baselines.sum": "another"}})
    assert not store.finished(trial.key, other)
    store.discard(trial.key, other)
    assert store.record(trial.key) is None


def test_of_names_that_are_not_known_here_nothing_is_said(here: list[Trial]) -> None:
    record = Store("results/runs").record(here[0].key)
    assert record is not None
    unknown = record.model_copy(update={"trial": record.trial.model_copy(update={"method": "of_a_plugin"})})
    assert why_stale(unknown, Codes()) is None


def test_reasons_are_grouped() -> None:
    assert grouped(["a", "b", "a"], "run again") == ["2 trials run again: a", "1 trial run again: b"]
