"""Where experiments and published results are found, from any folder: those of one's own here, and those that come with the package.

The repository has ``experiments/``, ``results/`` and ``templates/`` beside ``src/``; a wheel carries them in the package itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mmbench.errors import UsageError, did_you_mean
from mmbench.files import user_path

PACKAGE = Path(__file__).parent
EXPERIMENTS = Path("experiments")
"""Experiments of one's own, in the current folder."""
RESULTS = Path("results")
"""Where results are by default."""


def carried(name: str) -> Path:
    """What comes besides code, such as ``experiments``: in the package, if it was installed from a wheel; else in the repository."""
    inside = (PACKAGE / "experiments").is_dir()
    return (PACKAGE if inside else PACKAGE.parents[1]) / name


def own_results(results: Path) -> list[Path]:
    """Where published results of one's own are: the folder of results and, if it is elsewhere, the one beside ``experiments/``."""
    return [results] if results == RESULTS or not EXPERIMENTS.is_dir() else [results, RESULTS]


def results_folders(results: Path) -> list[Path]:
    """Where published results are looked for: one's own, then the package's."""
    own, package = own_results(results), carried("results")
    return own if any(_same(folder, package) for folder in own) else [*own, package]


def published(results: Path, name: str) -> Path:
    """A file or folder that is published among the results; where it is not among one's own, the package's."""
    return next((path for folder in results_folders(results) if (path := folder / name).exists()), results / name)


@dataclass(frozen=True)
class Found:
    """An experiment's file.

    Attributes:
        path: where it is.
        own: whether it is in ``experiments/`` of the current folder; else it comes with the package.
        other: the file of the same name in the other place, if there is one; one's own is what the name stands for.
    """

    path: Path
    own: bool
    other: Path | None = None

    @property
    def name(self) -> str:
        """What commands call it."""
        return self.path.stem


def experiments() -> list[Found]:
    """All experiments that have a name, by name; one's own before the package's. In the repository, its own are the package's."""
    package = {path.stem: path for path in carried("experiments").glob("*.yaml")}
    here = (
        {} if _same(EXPERIMENTS, carried("experiments")) else {path.stem: path for path in EXPERIMENTS.glob("*.yaml")}
    )
    found = [Found(path, True, package.get(name)) for name, path in here.items()]
    found += [Found(path, False, here.get(name)) for name, path in package.items()]
    return sorted(found, key=lambda one: (one.name, not one.own))


def experiment_path(name: str) -> Path:
    """The file of an experiment: what is at this path, else the one of this name in ``experiments/``, else the package's.

    Raises:
        UsageError: there is none.
    """
    path = user_path(name)
    if path.is_file():
        return path
    known = {one.name: one.path for one in reversed(experiments())}
    if path.suffix in (".yaml", ".yml") or path.parent != Path("."):
        hint = f"; without folder and ending, '{path.stem}' is {known[path.stem]}" if path.stem in known else ""
        raise UsageError(f"no such experiment file: {path}{hint}")
    if name not in known:
        raise UsageError(f"no experiment '{name}' in {EXPERIMENTS}/ or in mmbench: {did_you_mean(name, known)}")
    named = EXPERIMENTS / f"{name}.yaml"
    return named if named.is_file() else known[name]


def comes_with_package(file: Path) -> bool:
    """Whether an experiment's file is one of the package's, or says the same as the one of its name."""
    ours = carried("experiments") / f"{file.stem}.yaml"
    return ours.is_file() and (_same(file, ours) or file.read_bytes() == ours.read_bytes())


def published_table(name: str, file: Path, results: Path) -> Path | None:
    """The ``table.csv`` that a report of an experiment is compared with; None if there is none.

    It is one's own or, if the experiment is the package's as it is, the package's, which in the repository may have yet to come.

    Args:
        name: the experiment's, with what ``--set`` and ``--quick`` make of it.
        file: the experiment's.
        results: the folder of results.
    """
    for folder in own_results(results):
        if (table := folder / name / "table.csv").is_file():
            return table
    if name != file.stem or not comes_with_package(file):
        return None
    if (table := carried("results") / name / "table.csv").is_file():
        return table
    return results / name / "table.csv" if _same(results, carried("results")) else None


def bands_file(file: Path, results: Path, write: bool = False) -> Path:
    """The accuracy bands of an experiment: among one's own results or, of one of the package's as it is, the package's.

    Args:
        file: the experiment's.
        results: the folder of results.
        write: whether they will be written; the package's stay as they are.
    """
    own = results / "regression" / f"{file.stem}.csv"
    theirs = not (write or own.is_file()) and comes_with_package(file)
    return carried(f"results/regression/{file.stem}.csv") if theirs else own


def _same(one: Path, other: Path) -> bool:
    """Whether two paths are of the same file or folder; not if either is missing."""
    return one.exists() and other.exists() and one.samefile(other)
