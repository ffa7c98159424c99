"""What code ran: the hashes that a record keeps of it, and which results come from other code than what is here now."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from hashlib import sha256
from importlib.metadata import packages_distributions, version
from importlib.util import find_spec
from pathlib import Path
from types import FunctionType
from typing import Any

import mmbench.baselines
from mmbench.baselines import METHODS
from mmbench.data import DATASETS
from mmbench.encoders import ENCODERS
from mmbench.errors import UsageError
from mmbench.record import Code, Record
from mmbench.trial import Trial

CORE = ("mmbench.training", "mmbench.runner.child")
"""The core of mmbench is what these import; every trial runs it."""

TABLES = ("mmbench.baselines", "mmbench.data", "mmbench.encoders")
"""Tables of names: a new line in one changes no trial."""

FAMILIES = ("mmbench.data.prepared", "mmbench.encoders.pretrained")
"""Bases that only some trials have: they count with the classes that inherit from them, and are no part of the core."""

PREPARING = ("mmbench.data.preparing", "mmbench.data.demo")
"""What runs before trials and never in one: what it made is in the hash of the data."""

LIBRARIES = {
    *("torch", "torchvision", "torchmetrics", "pytorch_lightning", "lightning", "lightning_fabric"),
    *("timm", "transformers", "numpy", "scipy", "sklearn", "pandas", "pydantic"),
}
"""What classes may inherit from and a record knows by its version."""

UNREADABLE = "unreadable"


class Codes:
    """The code of trials as it is now, each module read once.

    A class's code is the modules of the class and of all that it inherits from, wherever they are installed, with the modules that
    these import of their own package or of mmbench. The core, the standard library and ``LIBRARIES`` are left out. A module's hash is
    that of its syntax tree without docstrings and comments; where it has no source that can be parsed, of its file's bytes (a compiled
    extension); where it has no file either (made by ``exec``), its edits cannot be seen, and ``unreadable`` names it.
    """

    def __init__(self) -> None:
        self._modules: dict[str, tuple[str, set[str]]] = {}  # module -> its hash, and what it imports that may count
        self._classes: dict[type, dict[str, str]] = {}
        core = self._reached(CORE, TABLES + FAMILIES + PREPARING)
        self._left_out = frozenset(core) | frozenset(TABLES)
        joined = "".join(f"{name} {self._module(name)[0]}\n" for name in sorted(core))
        self.core = sha256(joined.encode()).hexdigest()[:12]

    def of(self, trial: Trial) -> Code:
        """The code that a trial would run.

        Raises:
            UsageError: a name of the trial is not registered here, or cannot be imported.
        """
        return Code(
            core=self.core,
            method=self.of_class(METHODS[trial.method]),
            data=self.of_class(DATASETS[trial.dataset]),
            encoders={
                name: self.of_class(ENCODERS[name])
                for name in sorted({str(choice["name"]) for choice in trial.encoders.values()})
            },
        )

    def of_class(self, cls: type) -> dict[str, str]:
        """Module -> hash, of the code of a class."""
        if cls not in self._classes:
            own = {base.__module__ for base in cls.__mro__}
            counting = [name for name in own if not _is_library(name) and name not in self._left_out]
            reached = self._reached(counting, (*self._left_out, *PREPARING))
            self._classes[cls] = {name: self._module(name)[0] for name in sorted(reached)}
        return self._classes[cls]

    @property
    def unreadable(self) -> list[str]:
        """The modules that were met and whose edits cannot be seen."""
        return sorted(name for name, (digest, _) in self._modules.items() if digest == UNREADABLE)

    def _reached(self, roots: Iterable[str], without: Iterable[str]) -> set[str]:
        """The modules, and what they import, and so on."""
        without, reached, waiting = frozenset(without), set(), list(roots)
        while waiting:
            name = waiting.pop()
            if name not in reached and not without.intersection(_beginnings(name, PREPARING)):
                reached.add(name)
                waiting += self._module(name)[1]
        return reached

    def _module(self, name: str) -> tuple[str, set[str]]:
        if name not in self._modules:
            self._modules[name] = _read(name)
        return self._modules[name]


def _beginnings(name: str, packages: Iterable[str]) -> set[str]:
    """The module, and those of the packages that it lies in."""
    return {name} | {package for package in packages if name.startswith(f"{package}.")}


def _is_library(module: str) -> bool:
    top = module.partition(".")[0]
    return top in LIBRARIES or top in sys.stdlib_module_names


def _read(name: str) -> tuple[str, set[str]]:
    """A module's hash, and the modules that it imports of its own package or of mmbench."""
    module = sys.modules.get(name)
    spec = getattr(module, "__spec__", None) or (None if name == "__main__" else _find(name))
    file = getattr(module, "__file__", None) or getattr(spec, "origin", None)
    try:
        source = spec.loader.get_source(spec.name)  # type: ignore[union-attr]
        tree = ast.parse(source if source is not None else Path(str(file)).read_text(encoding="utf-8"))
    except (AttributeError, ImportError, OSError, SyntaxError, ValueError):
        try:
            return sha256(Path(str(file)).read_bytes()).hexdigest()[:12], set()
        except OSError:
            return UNREADABLE, set()
    _strip(tree)
    is_package = hasattr(module, "__path__") or getattr(spec, "submodule_search_locations", None)
    package = name if is_package else name.rpartition(".")[0]
    return sha256("\n".join(_flat(tree)).encode()).hexdigest()[:12], {
        target for target in _imports(tree, package) if _belongs(target, name)
    }


@cache
def _find(name: str) -> Any:
    """The spec of a module that need not be loaded; None if there is no such module."""
    try:
        return find_spec(name)
    except (ImportError, AttributeError, ValueError):
        return None


def _strip(tree: ast.AST) -> None:
    """Take out what does nothing when it runs: docstrings, and what only a type checker reads."""
    for node in ast.walk(tree):
        for block in ("body", "orelse", "finalbody"):
            statements = getattr(node, block, None)
            if isinstance(statements, list):
                setattr(node, block, [s for s in statements if not _does_nothing(s)])


def _does_nothing(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Constant)
    checked = statement.test if isinstance(statement, ast.If) and not statement.orelse else None
    return getattr(checked, "id", getattr(checked, "attr", None)) == "TYPE_CHECKING"


def _flat(node: Any) -> Iterator[str]:
    """A syntax tree as words; what is empty is left out, since later versions of Python add fields that are."""
    if isinstance(node, ast.AST):
        yield f"({type(node).__name__}"
        for field, value in ast.iter_fields(node):
            if value is not None and value != []:
                yield f".{field}"
                yield from _flat(value)
        yield ")"
    elif isinstance(node, list):
        yield "["
        for item in node:
            yield from _flat(item)
        yield "]"
    else:
        yield repr(node)


def _imports(tree: ast.AST, package: str) -> Iterator[str]:
    """The modules that a file of a package imports, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (_home(base, alias.name) for alias in node.names)


def _home(base: str, name: str) -> str:
    """The module that ``from base import name`` leads to: a module of this name, or where the function or class is defined."""
    inner = f"{base}.{name}"
    if inner in sys.modules or (not _is_library(base) and name != "*" and _find(inner) is not None):
        return inner
    thing = getattr(sys.modules.get(base), name, None)
    return thing.__module__ if isinstance(thing, type | FunctionType) else base


def _belongs(target: str, module: str) -> bool:
    """Whether an import counts: it is of mmbench, of the module's own package, or of one that came with it."""
    theirs, own = target.partition(".")[0], module.partition(".")[0]
    if theirs in ("mmbench", own):
        return True
    return not _is_library(target) and own != "mmbench" and _came_together(theirs, own)


@cache
def _came_together(one: str, other: str) -> bool:
    """Whether two top-level packages are of one distribution, or lie in one folder into which nothing is installed."""
    installed = _distributions()
    if one in installed or other in installed:
        return bool(set(installed.get(one, [])) & set(installed.get(other, [])))
    folders = {_folder(one), _folder(other)}
    return len(folders) == 1 and None not in folders


@cache
def _distributions() -> Mapping[str, list[str]]:
    return packages_distributions()


def _folder(top: str) -> Path | None:
    places = getattr(_find(top), "submodule_search_locations", None) or [getattr(_find(top), "origin", None) or ""]
    return Path(places[0]).parent if places[0] else None


# Results of other code


def why_stale(record: Record, codes: Codes) -> str | None:
    """Why a result does not hold for the code that is here, in words; None if it does, or if a name of it is not known here."""
    try:
        now = codes.of(record.trial)
    except UsageError:
        return None
    if record.code is None:
        return "made before code was recorded"
    parts: list[tuple[str, Mapping[str, str], Mapping[str, str]]] = [
        (f"method {record.trial.method}", record.code.method, now.method),
        (f"data set {record.trial.dataset}", record.code.data, now.data),
        *((f"encoder {name}", record.code.encoders.get(name, {}), code) for name, code in now.encoders.items()),
    ]
    changed = [
        f"code of {part} changed ({', '.join(m for m in sorted({*then, *this}) if then.get(m) != this.get(m))})"
        for part, then, this in parts
        if then != this
    ]
    return "; ".join(changed) or None


def grouped(reasons: Iterable[str], what: str) -> list[str]:
    """A line a reason: ``12 trials run again: code of method mla changed (mmbench.baselines.mla)``."""
    return [
        f"{count} {'trial' if count == 1 else 'trials'} {what}: {reason}" for reason, count in Counter(reasons).items()
    ]


# The repository


def source_state() -> dict[str, Any]:
    """What code this is: the version, and the commit if it is run from its repository."""
    here, files = Path(__file__).parent, source_files()
    state: dict[str, Any] = {"mmbench": version("mmbench")}

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")) != here.parent.parent:
            return state  # installed somewhere inside another repository
        changed = bool(git("status", "--porcelain", "--", *map(str, files)))
        return {**state, "commit": git("rev-parse", "--short=10", "HEAD"), "dirty": changed}
    except (OSError, subprocess.CalledProcessError):
        return state


def source_files() -> list[Path]:
    """The Python files of the package and its methods."""
    folders = [Path(__file__).parent, Path(mmbench.baselines.__file__).parent]
    return sorted({file for folder in folders for file in folder.rglob("*.py")})
