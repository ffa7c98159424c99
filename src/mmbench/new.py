"""``mmbench new``: a package of one's own, with a method, a data set or an encoder that works and a test that passes."""

from __future__ import annotations

import argparse
import io
import keyword
import re
import sys
import tokenize
from collections.abc import Container
from importlib.machinery import PathFinder
from pathlib import Path

from mmbench.errors import UsageError
from mmbench.files import check_folder
from mmbench.options import given_path
from mmbench.places import carried

KINDS = {"method": "method", "dataset": "data set", "encoder": "encoder"}
"""What there are templates of -> in words. A template's own name is ``my_<kind>``, which a package's takes the place of."""
NAME = re.compile(r"[a-z][a-z0-9_]*[a-z0-9]")


def add_options(command: argparse.ArgumentParser) -> None:
    """The options of the command."""
    command.add_argument("kind", choices=list(KINDS), metavar="|".join(KINDS), help="what the package is to have")
    command.add_argument(
        "name", metavar="NAME", help="of the package, and what experiments will call it, e.g. my_fusion"
    )
    command.add_argument(
        "--into", type=given_path, default=Path("."), metavar="DIR", help="where its folder NAME goes (default: here)"
    )


def new(arguments: argparse.Namespace) -> int:
    """Write the package, and say what comes next."""
    kind, name = arguments.kind, arguments.name
    if "-" in name:
        name = name.replace("-", "_")
        print(f"called {name}: '-' cannot be in the name of a module")
    check_name(kind, name)
    files = rendered(kind, name)
    folder = write(files, arguments.into / name)
    print(f"{folder} has {', '.join(files)}; in mmbench's environment:")
    print(f"  {sys.executable} -m pip install -e {folder}\n  {sys.executable} -m pytest {folder}")
    return 0


def check_name(kind: str, name: str) -> None:
    """Refuse what cannot be the name of a module that registers, or would hide another module.

    Raises:
        UsageError: it says why.
    """
    if not NAME.fullmatch(name) or "__" in name:
        raise UsageError(
            f"{KINDS[kind]} '{name}': expected letters, lower case, digits and single '_', a letter first, such as my_fusion"
        )
    if keyword.iskeyword(name) or keyword.issoftkeyword(name):
        raise UsageError(f"{KINDS[kind]} '{name}': that is a word of Python's own; choose another name")
    if name in registered(kind):
        raise UsageError(f"{KINDS[kind]} '{name}' is there already (`mmbench list {kind}s`); choose another name")
    if name in sys.stdlib_module_names or PathFinder.find_spec(name, sys.path[1:]) is not None:
        raise UsageError(
            f"{KINDS[kind]} '{name}': a module of this name is installed, which yours would hide; choose another name"
        )
    if class_name(name) in words(kind):
        raise UsageError(
            f"{KINDS[kind]} '{name}': its class, {class_name(name)}, would hide what its code uses; choose another name"
        )


def registered(kind: str) -> Container[str]:
    """The registry of a kind, in which names can be looked up."""
    from mmbench.baselines import METHODS
    from mmbench.data import DATASETS
    from mmbench.encoders import ENCODERS

    return {"method": METHODS, "dataset": DATASETS, "encoder": ENCODERS}[kind]


def class_name(name: str) -> str:
    """The name of a package's class.

    >>> class_name("late_fusion2")
    'LateFusion2'
    """
    return "".join(part.capitalize() for part in name.split("_"))


def template(kind: str) -> dict[str, str]:
    """A template's files: path in its folder -> text."""
    folder = carried(f"templates/{kind}")
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".pyc")
    return {path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8") for path in files}


def words(kind: str) -> set[str]:
    """Every name that a template's code has."""
    code = "".join(text for name, text in template(kind).items() if name.endswith(".py"))
    return {
        token.string for token in tokenize.generate_tokens(io.StringIO(code).readline) if token.type == tokenize.NAME
    }


def rendered(kind: str, name: str) -> dict[str, str]:
    """The files of a package: path in its folder -> text."""
    names = {f"my_{kind}": name, class_name(f"my_{kind}"): class_name(name)}
    pattern = re.compile("|".join(names))

    def put(text: str) -> str:
        return pattern.sub(lambda found: names[found[0]], text)

    return {put(file): put(text) for file, text in template(kind).items()}


def write(files: dict[str, str], folder: Path) -> Path:
    """Write the files into a folder of their own.

    Raises:
        UsageError: something is there already, or it cannot be written.
    """
    check_folder(folder.parent, "folder", write=True)
    try:
        folder.mkdir(parents=True)
        for name, text in files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
    except FileExistsError as error:
        raise UsageError(
            f"{folder} is there already; move it away, choose another name, or name another place with --into"
        ) from error
    except OSError as error:
        raise UsageError(f"cannot write {error.filename or folder}: {error.strerror}") from error
    return folder
