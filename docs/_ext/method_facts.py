"""What the code beside a method says of it: its arguments, what it can learn where theory knows the answer, what releases do."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from mmbench.arguments import tunables

ROOT = Path(__file__).parents[2]
PLANTED = ROOT / "tests/baselines/test_planted_answers.py"
RELEASED = ROOT / "docs/released_mechanisms.md"
TABLE = ROOT / "baselines/README.md"
GIVEN = ("self", "spec", "encoders", "recipe")
"""Parameters of a constructor that the suite gives."""
BOUNDS = {
    "ge": "at least {}",
    "gt": "above {}",
    "le": "at most {}",
    "lt": "below {}",
    "multiple_of": "a multiple of {}",
}


@dataclass(frozen=True)
class Argument:
    """An argument of a method: its name, type and default as code, and its bounds and the range of tuning in words."""

    name: str
    kind: str
    default: str
    bounds: str
    tuned: str


def arguments(method: type) -> list[Argument]:
    """What an experiment may say of a method."""
    hints = get_type_hints(method.__init__, include_extras=True)  # type: ignore[misc]
    tuned = tunables(method)
    found = []
    for name, parameter in inspect.signature(method).parameters.items():
        if name in GIVEN:
            continue
        range_ = f"{tuned[name].low:g} to {tuned[name].high:g}" if name in tuned else ""
        scale = ", drawn on a logarithmic scale" if name in tuned and tuned[name].log else ""
        default = parameter.default if not isinstance(parameter.default, float) else f"{parameter.default:.4g}"
        shown = default if isinstance(parameter.default, float) else repr(default)
        found.append(Argument(name, _kind(hints[name]), shown, ", ".join(_bounds(hints[name])), range_ + scale))
    return found


def _kind(hint: Any) -> str:
    """A type as one writes it."""
    if get_origin(hint) is Annotated:
        return _kind(get_args(hint)[0])
    if get_origin(hint) in (Union, UnionType):
        return " | ".join(_kind(part) for part in get_args(hint))
    if get_origin(hint) is Literal:
        return " | ".join(repr(value) for value in get_args(hint))
    return "None" if hint is NoneType else getattr(hint, "__name__", str(hint))


def _bounds(hint: Any) -> Iterator[str]:
    """The bounds that stand in an annotation, wherever in it."""
    for part in get_args(hint) if get_origin(hint) is not Literal else ():
        for constraint in getattr(part, "metadata", ()):
            yield from (
                text.format(f"{value:g}")
                for key, text in BOUNDS.items()
                if (value := getattr(constraint, key, None)) is not None
            )
        if (get_origin(part) is not None and not hasattr(part, "metadata")) or get_origin(part) is Annotated:
            yield from _bounds(part)


@dataclass(frozen=True)
class Planted:
    """What the tests expect of a method on data of which theory tells what can be learnt, and why."""

    xor: bool
    blind: tuple[str, ...]
    reason: str


def planted() -> dict[str, Planted]:
    """Method -> what the tests expect of it, read from their table, with the comments there."""
    text = PLANTED.read_text()
    lines = text.splitlines()
    table = next(
        node.value
        for node in ast.parse(text).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "EXPECTED"
    )
    assert isinstance(table, ast.Dict)
    found = {}
    for key, value in zip(table.keys, table.values, strict=True):
        assert isinstance(key, ast.Constant)
        said = {"ADDS_UP": "xor=False", "INTERACTS": "xor=True"}.get(code := ast.unparse(value), code)
        blind = next(
            (ast.literal_eval(word.value) for word in getattr(value, "keywords", ()) if word.arg == "blind"), ()
        )
        above = key.lineno - 2
        comments = [lines[value.end_lineno - 1].partition("  # ")[2]] if value.end_lineno else []
        while lines[above].strip().startswith("#"):
            comments.insert(0, lines[above].strip().removeprefix("# "))
            above -= 1
        found[str(key.value)] = Planted("xor=True" in said, tuple(blind), " ".join(filter(None, comments)))
    reasons = {name: one.reason for name, one in found.items()}
    return {name: Planted(one.xor, one.blind, _meant(name, reasons)) for name, one in found.items()}


def _meant(name: str, reasons: dict[str, str]) -> str:
    """A reason, with what "likewise" refers to: the method above it in the table."""
    names = list(reasons)
    if reasons[name].startswith("likewise") and names.index(name):
        before = names[names.index(name) - 1]
        return f"{reasons[name]} (as ``{before}``: {_meant(before, reasons)})"
    return reasons[name]


@dataclass(frozen=True)
class Mechanism:
    """A row of the page on what releases do: under which heading, what is meant, what the code does, and what this suite does."""

    heading: str
    meant: str
    does: str
    here: str


def mechanisms(method: str, name: str) -> list[Mechanism]:
    """The rows of that page of a method: those whose last cell begins with what it is registered as, or whose first with its name."""
    found, heading = [], ""
    for line in RELEASED.read_text().splitlines():
        if line.startswith("## "):
            heading = line.removeprefix("## ")
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == 5 and (
            f"`{method}`" in cells[4].partition(":")[0] or re.match(rf"{re.escape(name)}\b", cells[0])
        ):
            found.append(Mechanism(heading, cells[1], cells[2], cells[4]))
    return found


def groups() -> dict[str, dict[str, str]]:
    """What methods were made for -> method -> what it is, in the order of the table in ``baselines/README.md``."""
    found: dict[str, dict[str, str]] = {}
    heading, seen = "", set()
    for line in TABLE.read_text().splitlines():
        if line.startswith("## "):
            heading = line.removeprefix("## ")
        row = re.match(r"\| \[`(\w+)`\]\(\w+\.py\) \| .*? \| (.*?) \| .* \|$", line)
        if row and row[1] not in seen:
            seen.add(row[1])
            found.setdefault(heading, {})[row[1]] = row[2]
    return found
