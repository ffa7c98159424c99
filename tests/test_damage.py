"""Whatever has become of a record: every command names it, and goes on with the others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mmbench.cli import main
from mmbench.experiment.plan import load
from mmbench.provenance import Codes
from mmbench.report.collect import collect
from mmbench.store import Store
from mmbench.trial import Trial
from test_provenance import here, write  # noqa: F401  a fixture


def folder(path: Path) -> None:
    path.unlink()
    (path / "in it").mkdir(parents=True)


def circle(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def huge(path: Path) -> None:
    with path.open("r+b") as handle:
        handle.truncate(2**40)


HARMS: list[Callable[[Path], object]] = [
    folder,
    circle,
    huge,
    lambda path: path.write_bytes(b""),
    lambda path: path.write_bytes(path.read_bytes()[:-40]),
    lambda path: path.write_bytes(path.read_bytes().replace(b"sum", b"mla")),
]


@pytest.mark.parametrize("harm", HARMS)
def test_every_command_names_a_damaged_record_and_goes_on(
    here: list[Trial],  # noqa: F811
    capsys: pytest.CaptureFixture[str],
    harm: Callable[[Path], object],
) -> None:
    key, store = here[0].key, Store("results/runs")
    path = store.folder(key) / "record.json"
    harm(path)
    capsys.readouterr()
    assert main(["status", "grid.yaml"]) == 1
    named, counted = capsys.readouterr().out.splitlines()
    assert named.startswith(f"damaged: {path}: ")
    assert counted == "4 trials, 1 damaged, 3 done"
    assert main(["status"]) == 1
    assert f"damaged: {path}: " in capsys.readouterr().out
    assert main(["run", "grid.yaml", "--dry-run"]) == 0
    answer = capsys.readouterr()
    assert answer.out.splitlines()[-1] == "4 trials, 3 done, 1 to do"
    assert answer.err.startswith(f"damaged, will be run again: {path}: ")
    assert main(["show", key]) == 1
    assert capsys.readouterr().err.startswith(f"damaged: {path}: ")
    results = collect(load("grid.yaml"), store, codes=Codes())
    (gap,) = results.not_run
    assert f"seed 0: damaged ({path}: " in gap
    store.discard(key)
    assert store.record(key) is None, "what stood there is out of the way of the next record"
    write(here[0], Codes().of(here[0]))
    assert store.done(key) is not None
