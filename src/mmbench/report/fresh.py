"""Whether a report's files are still those that would be written: then they need not be drawn again."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from mmbench.elsewhere.entries import Elsewhere
from mmbench.errors import StoreError
from mmbench.experiment.plan import Experiment
from mmbench.files import atomic_write
from mmbench.index import stamp_of
from mmbench.machine import installed_version
from mmbench.provenance import source_files
from mmbench.store import CorruptRecord, Store, read_file
from mmbench.trial import Trial

NOTE = ".made"
"""In a report's folder: what its files were made of, and their stamps (``index.stamp_of``)."""
LIBRARIES = ("jinja2", "matplotlib", "numpy", "pandas", "pillow", "scipy", "vl-convert-python")
"""What else decides what the files look like."""


def made_of(experiment: Experiment, trials: Iterable[Trial], store: Store, reported: Path | None) -> str:
    """A hash of what a report's files come from.

    That is the experiment, the trials' files, what other code predicted, what papers print, the code of mmbench, and libraries. Trials'
    files count by their stamps, as for the index of a store; to be asked before they are read.

    Args:
        experiment: what is reported.
        trials: all that the report has.
        store: where these are.
        reported: the folder with the papers' numbers.
    """
    names = ("record.json", "predictions.npz", "features.npz")
    stamps = [[trial.key, *(stamp_of(str(store.folder(trial.key) / name)) for name in names)] for trial in trials]
    package = Path(__file__).parent
    code = [*source_files(), *(path for path in package.iterdir() if path.suffix in (".html", ".css", ".js"))]
    told = [
        experiment.name, repr(experiment.content), experiment.changes, experiment.unprepared, str(store.root.absolute()), stamps,
        _stamps(Elsewhere.beside(store).root.rglob("*")), _stamps(reported.rglob("*") if reported else ()),
        [sha256(path.read_bytes()).hexdigest() for path in sorted(code)], [installed_version(name) for name in LIBRARIES], sys.version,
    ]  # fmt: skip
    return sha256(json.dumps(told).encode()).hexdigest()


def _stamps(paths: Iterable[Path]) -> list[list[object]]:
    return [[str(path), stamp_of(str(path))] for path in sorted(paths)]


def files_of(folder: Path, made: str) -> list[Path]:
    """The files of a report, if they were made of this and have not changed since; else none."""
    try:
        data = read_file(folder / NOTE, 2**20)
        note = json.loads(data) if data is not None else {}
        stamps = {folder / name: tuple(stamp) for name, stamp in note["files"].items()}
        same = note["made_of"] == made and all(stamp_of(str(path)) == stamp for path, stamp in stamps.items())
        return list(stamps) if same else []
    except (CorruptRecord, ValueError, TypeError, LookupError, AttributeError):
        return []


def note(folder: Path, files: Sequence[Path], made: str) -> None:
    """Keep in mind what the files of a report were made of."""
    stamps = {path.name: stamp_of(str(path)) for path in files}
    with suppress(StoreError):  # they are then drawn again
        atomic_write(folder / NOTE, json.dumps({"made_of": made, "files": stamps}, indent=1).encode())
