"""What code ran: the hashes that a record keeps of it, and which results come from other code than what is here now."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from functools import cache, cached_property
from hashlib import sha256
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any

import mmbench.baselines
from mmbench.baselines import METHODS
from mmbench.data import DATASETS
from mmbench.encoders import ENCODERS
from mmbench.errors import UsageError
from mmbench.index import Summary
from mmbench.record import Code, Record
from mmbench.trial import Parts, Trial

CORE = ("mmbench.training", "mmbench.runner.child")
"""The core of mmbench is what these import; every trial runs it."""

TABLES = ("mmbench.baselines", "mmbench.data", "mmbench.data.found", "mmbench.encoders")
"""Tables of names: a new line in one changes no trial."""

FAMILIES = ("mmbench.data.prepared", "mmbench.encoders.pretrained")
"""Bases that only some trials have: they count with the classes that inherit from them, and are no part of the core."""

PREPARING = ("mmbench.data.preparing.", "mmbench.data.demo.", "mmbench.data.adding.")
"""What runs before trials and never in one: what it made is in the hash of the data."""

LIBRARIES = {
    *("torch", "torchvision", "torchmetrics", "pytorch_lightning", "lightning", "lightning_fabric"),
    *("timm", "transformers", "numpy", "scipy", "sklearn", "pandas", "pydantic"),
}
"""What classes may inherit from and a record knows by its version."""

UNREADABLE = "unreadable"


class Codes:
    """The code of trials as it is now, read from files, each once; nothing is imported.

    A class's code is its module, the modules of all that it inherits from, wherever they are installed, and what these import of their
    own package or of mmbench. The core, the standard library and ``LIBRARIES`` are left out. A module's hash is that of its syntax tree
    without docstrings and comments; where it has no source that can be parsed, of its file's bytes (a compiled extension); where it has
    no file either (made by ``exec``), its edits cannot be seen, and ``unreadable`` names it.
    """

    def __init__(self) -> None:
        self._modules: dict[str, Module] = {}
        self._classes: dict[str, dict[str, str]] = {}
        self._codes: dict[Parts, Code] = {}

    @cached_property
    def core(self) -> str:
        """The hash of mmbench's core."""
        joined = "".join(f"{name} {digest}\n" for name, digest in self.core_modules.items())
        return sha256(joined.encode()).hexdigest()[:12]

    @property
    def core_modules(self) -> dict[str, str]:
        """Module -> hash, of mmbench's core."""
        return {name: self._module(name).digest for name in sorted(self._core)}

    @cached_property
    def _core(self) -> set[str]:
        return self._reached(CORE, {*TABLES, *FAMILIES})

    def of(self, trial: Trial) -> Code:
        """The code that a trial would run.

        Raises:
            UsageError: a name of the trial is not registered here.
        """
        return self.of_parts(trial.parts)

    def of_parts(self, parts: Parts) -> Code:
        """The code of a method, a data set and encoders; as ``of``."""
        if parts not in self._codes:
            self._codes[parts] = Code(
                core=self.core,
                method=self.of_class(METHODS.target(parts.method)),
                data=self.of_class(DATASETS.target(parts.dataset)),
                encoders={name: self.of_class(ENCODERS.target(name)) for name in parts.encoders},
            )
        return self._codes[parts]

    def of_class(self, target: str) -> dict[str, str]:
        """Module -> hash, of the code of a class that is given as ``"module:Class"``."""
        if target not in self._classes:
            module, _, name = target.partition(":")
            reached = self._reached([self._home(module, name)], self._core | set(TABLES))
            self._classes[target] = {name: self._module(name).digest for name in sorted(reached)}
        return self._classes[target]

    @property
    def unreadable(self) -> list[str]:
        """The modules that count and whose edits cannot be seen."""
        met = (item for code in self._classes.values() for item in code.items())
        return sorted({name for name, digest in met if digest == UNREADABLE})

    def modules(self, trials: Iterable[Trial]) -> dict[str, str]:
        """Module -> hash, of all that trials run: the core, their methods, data sets and encoders."""
        found = self.core_modules
        for code in map(self.of, trials):
            for part in (code.method, code.data, *code.encoders.values()):
                found |= part
        return found

    def differing(self, modules: Mapping[str, str]) -> list[str]:
        """Which modules, given with their hashes elsewhere, differ from those here, or are missing here."""
        return sorted(name for name, digest in modules.items() if self._module(name).digest != digest)

    def _module(self, name: str) -> Module:
        if name not in self._modules:
            self._modules[name] = read_module(name)
        return self._modules[name]

    def _reached(self, roots: Iterable[str], without: Set[str]) -> set[str]:
        """The modules, what they import that counts, and so on."""
        reached: set[str] = set()
        waiting = list(roots)
        while waiting:
            name = waiting.pop()
            there = name in sys.modules or find(name) is not None  # not so an import that is only tried
            if there and name not in reached | without and not f"{name}.".startswith(PREPARING):
                reached.add(name)
                waiting += self._counting(name)
        return reached

    def _counting(self, importer: str) -> Iterator[str]:
        """What of a module's imports counts: what is of mmbench, of its own package, or what a class of it inherits from."""
        module = self._module(importer)
        for bound, (base, name) in module.imports:
            target = self._home(base, name)
            everything = bound == "*" and module.inherited and not is_library(target)
            if everything or belongs(target, importer):
                yield target
            for inherited in module.inherited:
                root, _, attribute = inherited.removeprefix(bound).partition(".")
                if inherited.startswith(bound) and not root:
                    home = self._home(target, attribute.partition(".")[0]) if attribute else target
                    yield from [] if is_library(home) else [home]

    def _home(self, base: str, name: str) -> str:
        """The module that ``from base import name`` leads to: the one of this name, or where the name is defined."""
        seen = set()
        while name and (base, name) not in seen and not is_library(base):
            seen.add((base, name))
            if find(f"{base}.{name}") is not None:
                return f"{base}.{name}"
            leads = dict(self._module(base).imports)
            if name not in leads:
                break
            base, name = leads[name]
        return base


@dataclass(frozen=True)
class Module:
    """What a module's file says.

    Attributes:
        digest: its hash.
        imports: the name that each import binds, and the (module, name in it or "") that it leads to.
        inherited: what its classes inherit from, as written: ``Base``, ``package.Base``.
    """

    digest: str
    imports: tuple[tuple[str, tuple[str, str]], ...] = ()
    inherited: frozenset[str] = frozenset()


def is_library(module: str) -> bool:
    """Whether a module is the standard library's or of a package whose version is recorded."""
    top = module.partition(".")[0]
    return top in LIBRARIES or top in sys.stdlib_module_names


def belongs(target: str, module: str) -> bool:
    """Whether a module is of mmbench, of another's own package, or of one that came with it."""
    theirs, own = target.partition(".")[0], module.partition(".")[0]
    if theirs in ("mmbench", own):
        return True
    return not is_library(target) and own != "mmbench" and _came_together(theirs, own)


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
    spec = find(top)
    places = [*(getattr(spec, "submodule_search_locations", None) or []), getattr(spec, "origin", None)]
    return Path(places[0]).parent if places[0] else None


@cache
def find(name: str) -> Any:
    """The spec of a module, without importing it or the packages that it lies in; None if there is no such module."""
    if not all(name.split(".")):
        return None
    if name in sys.modules:
        return getattr(sys.modules[name], "__spec__", None)
    parent = name.rpartition(".")[0]
    places = getattr(find(parent), "submodule_search_locations", None) if parent else None
    if parent and places is None:
        return None
    specs = (finder.find_spec(name, places) for finder in sys.meta_path if hasattr(finder, "find_spec"))
    return next((spec for spec in specs if spec is not None), None)


def read_module(name: str) -> Module:
    """Read a module's source, or what there is of it."""
    spec = find(name)
    file = getattr(spec, "origin", None) or getattr(sys.modules.get(name), "__file__", None)
    try:
        source = spec.loader.get_source(spec.name)
        tree = ast.parse(source if source is not None else "")
        if source is None:
            raise ImportError("no source")
    except (AttributeError, ImportError, OSError, SyntaxError, ValueError):
        try:
            return Module(sha256(Path(str(file)).read_bytes()).hexdigest()[:12])
        except OSError:
            return Module(UNREADABLE)
    _strip(tree)
    package = name if spec.submodule_search_locations is not None else name.rpartition(".")[0]
    inherited = {
        ast.unparse(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        for base in node.bases
        for part in ast.walk(base)
        if isinstance(part, ast.Name | ast.Attribute)
    }
    digest = sha256("\n".join(_flat(tree)).encode()).hexdigest()[:12]
    return Module(digest, tuple(_imports(tree, package)), frozenset(inherited))


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


def _imports(tree: ast.AST, package: str) -> Iterator[tuple[str, tuple[str, str]]]:
    """The name that each import of a file binds, wherever in it, and the (module, name in it or "") that it leads to."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.asname or alias.name, (alias.name, "")
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            above = parts[: len(parts) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                yield alias.asname or alias.name, (base, "" if alias.name == "*" else alias.name)


# Results of other code


def why_stale(record: Record | Summary, codes: Codes) -> str | None:
    """Why a result does not hold for the code that is here, in words; None if it does, or if a name of it is not known here."""
    ran = record.parts
    try:
        now = codes.of_parts(ran)
    except UsageError:
        return None
    if record.code is None:
        return "made before code was recorded"
    parts: list[tuple[str, Mapping[str, str], Mapping[str, str]]] = [
        (f"method {ran.method}", record.code.method, now.method),
        (f"data set {ran.dataset}", record.code.data, now.data),
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
