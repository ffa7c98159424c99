"""The lists of every release, as the tiny copies have them: whichever are in the folder, legacy takes their splits."""

import shutil
from pathlib import Path

import pytest

from mmbench.data import DATASETS
from mmbench.errors import UsageError

TWO = [
    "crema_d",
    "food101",
    "mvsa",
    "iemocap",
    "iemocap6",
]  # data sets of which two releases have lists, in formats of their own


@pytest.fixture(scope="module")
def copies(tmp_path_factory) -> dict[str, Path]:
    """The tiny copies."""
    root = tmp_path_factory.mktemp("copies")
    for name in TWO:
        DATASETS[name].write_demo(root / name)
    return {name: root / name for name in TWO}


@pytest.mark.parametrize("name", TWO)
def test_the_lists_of_either_release_give_the_splits(copies, name, tmp_path):
    data, raw = DATASETS[name], tmp_path / "raw"
    raw.mkdir()
    for path in copies[name].iterdir():
        (shutil.copytree if path.is_dir() else shutil.copy)(path, raw / path.name)
    one = data.scan(raw)
    shutil.rmtree(raw / "lists")
    (raw / "lists-mla").rename(raw / "lists")
    other = data.scan(raw)
    test = {s.id for s in one.samples if s.legacy == "test"}
    if name == "iemocap6":  # MLA's lists are of four emotions
        assert {s.id for s in other.samples if s.legacy == "test"} < test
    else:
        assert {s.id for s in other.samples if s.legacy == "test"} == test
        assert sum(s.legacy == "train" for s in other.samples) >= sum(s.legacy == "train" for s in one.samples) > 0
    assert not other.skipped
    for path in copies[name].glob("lists/*"):
        shutil.copy(path, raw / "lists")
    with pytest.raises(UsageError, match=r"expected (those of )?one"):
        data.scan(raw)
