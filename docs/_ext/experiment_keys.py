"""What the models say of a file's keys: type, bounds, default and meaning, in plain words."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import AfterValidator, BaseModel, BeforeValidator
from pydantic.fields import FieldInfo

from mmbench.experiment.grid import Grid, MethodGrid, MissingGrid, distinct, distinct_seeds
from mmbench.experiment.space import Dimension
from mmbench.missing import Missing
from mmbench.recipe import Recipe

PLAIN = {str: "text", int: "whole number", float: "number", bool: "`true` or `false`", Any: "any value"}
RULES = {distinct: "none twice", distinct_seeds: "each from 0 to 2³² − 1, none twice"}
BOUNDS = ((Ge, "ge", "at least"), (Gt, "gt", "above"), (Le, "le", "at most"), (Lt, "lt", "below"))
NAMED = {
    "datasets": ("<data set>",),
    "methods": ("<method>",),
    "missing": ("<name>",),
    "tune.recipe": ("<key>",),
    "tune.methods": ("<method>", "<argument>"),
}
"""Place of a mapping whose keys are the writer's to name -> what they are, from the outside in."""
FREE: dict[type, dict[str, type]] = {MethodGrid: {"recipe": Recipe}}
"""Keys that a model leaves open -> the model that is checked later."""
REQUIRED: dict[type, tuple[str, ...]] = {Dimension: ("low", "high")}
"""Keys that have a default in the model, and that its validation asks for all the same."""


@dataclass(frozen=True)
class Block:
    """A mapping in the file.

    Attributes:
        place: its dotted key; what is the writer's to name is in angle brackets: ``datasets.<data set>.recipe``.
        model: says its keys.
        fields: the keys.
    """

    place: str
    model: type[BaseModel]
    fields: Mapping[str, FieldInfo]


def blocks(model: type[BaseModel] = Grid, place: str = "") -> Iterator[Block]:
    """The blocks of a file, each before those within it."""
    fields = fields_of(model)
    yield Block(place, model, fields)
    for name, field in fields.items():
        here = f"{place}.{name}".lstrip(".")
        for inner in models_in(FREE.get(model, {}).get(name, field.annotation)):
            yield from blocks(inner, ".".join([here, *NAMED.get(here, ())]))


def fields_of(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The keys of a block."""
    if model is MissingGrid:  # the rates may be lists; all other keys are for Missing to check
        return {name: MissingGrid.model_fields.get(name, field) for name, field in Missing.model_fields.items()}
    if model is Dimension:  # a list of values stands in its place
        return {name: field for name, field in Dimension.model_fields.items() if name != "choices"}
    return dict(model.model_fields)


def models_in(kind: Any) -> Iterator[type[BaseModel]]:
    """The models that a value may be of."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind
    for part in get_args(kind):
        yield from models_in(part)


def meaning(model: type[BaseModel], name: str) -> str:
    """What a key means: by its field, else by the section ``Attributes`` of its model's docstring; empty if neither says it."""
    owner = Missing if model is MissingGrid and name not in MissingGrid.model_fields else model
    field = owner.model_fields[name]
    return field.description or attributes(owner).get(name, "")


def attributes(model: type) -> dict[str, str]:
    """The section ``Attributes`` of a docstring: name -> text."""
    _, _, section = (inspect.getdoc(model) or "").partition("\nAttributes:\n")
    entries = re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", section.split("\n\n")[0], flags=re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}


def prose(model: type[BaseModel]) -> str:
    """A model's docstring as Markdown, without its sections."""
    text = (inspect.getdoc(Missing if model is MissingGrid else model) or "").partition("\nAttributes:\n")[0]
    if model is MissingGrid:
        text = f"{inspect.getdoc(model)}\n\n{text}"
    return text.replace("::\n", ":\n").replace("``", "`").strip()


def default(model: type[BaseModel], name: str, field: FieldInfo) -> str:
    """What holds where a key is left out; empty where that is nothing."""
    if field.is_required() or name in REQUIRED.get(model, ()):
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel) or value is None or value in ({}, []):
        return ""
    if isinstance(value, dict):
        return f"default `{{{', '.join(f'{key}: ' for key in value)}}}`"
    if isinstance(value, list):
        return f"default `[{', '.join(map(str, value))}]`"
    return f"default `{str(value).lower() if isinstance(value, bool) else value}`"


def in_words(kind: Any, rules: tuple[Any, ...] = ()) -> str:
    """A type in plain words, with its bounds."""
    kind, rules = bare(kind, rules)
    origin, parts = get_origin(kind), get_args(kind)
    bounds = ", ".join(line for rule in rules for line in rule_in_words(rule))
    tail = f" ({bounds})" if bounds else ""
    if origin is Literal:
        return "one of " + ", ".join(f"`{part}`" for part in parts) if len(parts) > 1 else f"`{parts[0]}`"
    if origin in (Union, UnionType):
        some = [part for part in parts if part is not type(None)]
        return in_words(some[0], rules) if len(some) == 1 else ", or ".join(map(in_words, some)) + tail
    if origin is list:
        return f"list of {several(parts[0])}{tail}"
    if origin is dict:
        names = " and ".join(f"`{part}`" for part in get_args(parts[0])) or "names"
        return f"mapping of {names} to {in_words(parts[1])}{tail}"
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return "a block"
    return PLAIN[kind] + tail


def bare(kind: Any, rules: tuple[Any, ...] = ()) -> tuple[Any, tuple[Any, ...]]:
    """A type without its constraints, and these."""
    return (get_args(kind)[0], (*rules, *get_args(kind)[1:])) if get_origin(kind) is Annotated else (kind, rules)


def several(kind: Any) -> str:
    """Several values of a type, in words."""
    kind, rules = bare(kind)
    bounds = ", ".join(line for rule in rules for line in rule_in_words(rule))
    return f"{PLAIN[kind]}s".replace("any values", "values") + (f", each {bounds}" if bounds else "")


def rule_in_words(rule: Any) -> Iterator[str]:
    """What a constraint of a type says."""
    if isinstance(rule, FieldInfo):
        for one in rule.metadata:
            yield from rule_in_words(one)
    elif isinstance(rule, AfterValidator):
        yield RULES[rule.func]
    elif isinstance(rule, MinLen):
        yield f"{rule.min_length} or more"
    elif isinstance(rule, MaxLen):
        yield f"up to {rule.max_length}"
    elif not isinstance(rule, BeforeValidator):
        for kind, attribute, words in BOUNDS:
            if isinstance(rule, kind):
                yield f"{words} {number(getattr(rule, attribute))}"


def number(value: float) -> str:
    """A bound: 2³² and large numbers readably."""
    return "2³²" if value == 2**32 else f"{value:,}" if isinstance(value, int) else f"{value:g}"
