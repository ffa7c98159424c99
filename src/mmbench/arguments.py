"""Validate keyword arguments against a constructor's signature, which holds the only defaults."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from math import inf
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, ValidationError, create_model

from mmbench.errors import did_you_mean

LARGEST = 1_000_000_000
"""The largest number that an argument of a method or an encoder may be; each of them may have a lower bound of its own."""
MOST_SHOWN = 200
"""Characters of a value that a message shows."""


def resolve_arguments(
    factory: Callable[..., Any], given: Mapping[str, Any], reserved: Collection[str] = ()
) -> tuple[dict[str, Any], list[str]]:
    """Check arguments and fill in the defaults.

    Args:
        factory: a class; its constructor's annotations are what values are checked against.
        given: the arguments by name.
        reserved: parameters that are not the user's to give.

    Returns:
        Every argument with its value, and the mistakes, each as ``name: what is wrong``; empty if there are none.
    """
    hints = get_type_hints(factory.__init__, include_extras=True)
    starred = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = {
        p.name: p
        for p in list(inspect.signature(factory.__init__).parameters.values())[1:]
        if p.name not in reserved and p.kind not in starred
    }
    fields: dict[str, Any] = {
        name: (hints.get(name, Any), ... if p.default is inspect.Parameter.empty else p.default)
        for name, p in parameters.items()
    }
    model = create_model(
        factory.__name__, __config__=ConfigDict(extra="forbid", protected_namespaces=(), allow_inf_nan=False), **fields
    )
    huge = [f"{shown(k)}: at most {LARGEST:,}, got {in_words(v)}" for k, v in given.items() if _is_huge(v)]
    if huge:
        return {}, huge
    try:
        checked = model.model_validate(dict(given))
    except ValidationError as error:
        return {}, describe(error, lambda _: parameters)
    return {name: getattr(checked, name) for name in parameters}, []


@dataclass(frozen=True)
class Tunable:
    """The range that tuning draws an argument from, if an experiment does not say otherwise.

    It stands in the argument's annotation: ``alpha: Annotated[float, Field(gt=0), Tunable(0.01, 1.0, log=True)] = 0.1``.

    Attributes:
        low: the smallest value, which the argument's bounds have to allow.
        high: the largest value, likewise.
        log: draw the logarithm uniformly, and not the value.
    """

    low: float
    high: float
    log: bool = False


def tunables(factory: Callable[..., Any]) -> dict[str, Tunable]:
    """The arguments of a class that say what tuning may draw them from."""
    hints = get_type_hints(factory.__init__, include_extras=True)
    found = {name: [part for part in get_args(hint) if isinstance(part, Tunable)] for name, hint in hints.items()}
    return {name: parts[0] for name, parts in found.items() if parts}


def number_type(hint: Any) -> type[int] | type[float] | None:
    """``int`` or ``float`` where an annotation, its constraints left aside, means such a number (or None); None for all others.

    >>> number_type(Annotated[int, "at least 1"] | None)
    <class 'int'>
    """
    if get_origin(hint) is Annotated:
        return number_type(get_args(hint)[0])
    if get_origin(hint) in (Union, UnionType):
        kinds = [part for part in get_args(hint) if part is not type(None)]
        return number_type(kinds[0]) if len(kinds) == 1 else None
    return hint if hint in (int, float) else None


def _is_huge(value: Any) -> bool:
    """Whether a number is more than any width, count or weight of a method or an encoder can be."""
    return isinstance(value, int | float) and LARGEST < abs(value) < inf


def describe(
    error: ValidationError, known: Callable[[tuple[Any, ...]], Collection[str]], under: tuple[str, ...] = ()
) -> list[str]:
    """The mistakes in a ValidationError, one line each.

    Args:
        error: what pydantic found.
        known: the keys that there may be at a place, for the nearest one to an unknown key.
        under: the place, in the file, of what was checked.
    """
    lines: dict[str, str] = {}  # by place: where a value may be one of several types, the first one's message is enough
    for mistake in error.errors():
        where = ".".join(shown(part) for part in (*under, *mistake["loc"]))
        at = f"{where}: " if where else ""
        if mistake["type"] == "extra_forbidden":
            lines[where] = f"{at}unknown key; {did_you_mean(mistake['loc'][-1], known(mistake['loc']))}"
        elif mistake["type"] == "missing":
            lines[where] = f"{at}missing"
        elif mistake["type"] in ("model_type", "dict_type"):
            lines.setdefault(where, f"{at}expected a mapping, key: value, got {in_words(mistake['input'])}")
        else:
            message = mistake["msg"].removeprefix("Value error, ")
            lines.setdefault(where, f"{at}{message[0].lower()}{message[1:]}, got {in_words(mistake['input'])}")
    return list(lines.values())


def shown(value: Any) -> str:
    """A value in a message: the beginning of its text."""
    text = str(value)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]} …"


def in_words(value: Any) -> str:
    """A value that was given, in a message."""
    return "nothing" if value is None else shown(repr(value))
