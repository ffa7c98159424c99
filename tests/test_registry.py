"""Registries: names without imports, entry points of other packages, and no silent replacement of a method."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmbench.baselines import METHODS
from mmbench.errors import UsageError
from mmbench.registry import Registry

PLUGIN = Path(__file__).parent / "plugin"


def package(folder: Path, entry_points: str) -> None:
    """A package as pip would leave it, of nothing but metadata."""
    info = folder / "elsewhere-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1\n")
    (info / "entry_points.txt").write_text(entry_points)


@pytest.fixture
def registry() -> Registry:
    return Registry("thing", "mmbench.testing.things", {"path": "pathlib:Path", "broken": "no_such_module:Thing"})


def test_an_entry_is_imported_on_look_up(registry: Registry) -> None:
    assert registry["path"] is Path
    with pytest.raises(UsageError, match="'broken', registered as no_such_module:Thing, cannot be imported"):
        registry["broken"]


def test_names_are_listed_and_asked_for_without_an_import(registry: Registry) -> None:
    assert list(registry) == ["path", "broken"]
    assert len(registry) == 2
    assert "broken" in registry
    assert "nothing" not in registry


@pytest.mark.parametrize(("name", "hint"), [("pth", "did you mean 'path'?"), ("zzz", "known: broken, path")])
def test_an_unknown_name_is_answered_with_the_nearest(registry: Registry, name: str, hint: str) -> None:
    with pytest.raises(UsageError) as error:
        registry[name]
    assert str(error.value) == f"unknown thing '{name}': {hint}"


def test_other_packages_add_entries(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(tmp_path, "[mmbench.testing.things]\nordered = collections:OrderedDict\n[other.group]\nmore = os:getcwd\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    from collections import OrderedDict

    assert list(registry) == ["path", "broken", "ordered"]
    assert registry["ordered"] is OrderedDict


def test_a_name_cannot_be_taken_twice(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(tmp_path, "[mmbench.testing.things]\npath = os:PathLike\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UsageError) as error:
        list(registry)
    for part in ("thing 'path' is registered twice", "pathlib:Path", "os:PathLike", "mmbench.testing.things", "rename"):
        assert part in str(error.value)


def test_the_same_entry_twice_is_no_conflict(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An editable install beside an older one shows the same entry point twice."""
    package(tmp_path, "[mmbench.testing.things]\npath = pathlib:Path\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert list(registry) == ["path", "broken"]


def test_every_method_is_in_the_file_of_its_name() -> None:
    for name, target in METHODS._own.items():
        assert target.startswith(f"mmbench.baselines.{name}:")


LIST_ALL = """
import json, sys
from mmbench.baselines import METHODS
from mmbench.data import DATASETS
from mmbench.encoders import ENCODERS
names = [list(METHODS), list(DATASETS), list(ENCODERS)]
heavy = [m for m in ("torch", "pandas", "numpy", "pytorch_lightning", "mmbench_testing") if m in sys.modules]
print(json.dumps([names, heavy]))
"""


def test_listing_imports_nothing_and_finds_the_plugin() -> None:
    answer = subprocess.run(
        [sys.executable, "-c", LIST_ALL],
        env={**os.environ, "PYTHONPATH": str(PLUGIN)},
        capture_output=True,
        text=True,
        check=True,
    )
    (methods, datasets, encoders), heavy = json.loads(answer.stdout)
    assert heavy == []
    assert {"mla", "late_fusion", "tiny_good", "tiny_killed"} <= set(methods)
    assert {"openclipart", "tiny"} <= set(datasets)
    assert {"small_cnn", "hashed_text", "tiny_linear"} <= set(encoders)


def test_the_plugin_is_not_in_this_process() -> None:
    """The contract tests run over METHODS; broken methods have no place there."""
    assert not [name for name in METHODS if name.startswith("tiny_")]
