"""Reading an experiment's file, and changing what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from mmbench.errors import UsageError

MOST_BYTES = 100_000
"""Size of a file; those of this repository have less than a tenth of it."""
MOST_CHARACTERS = 200_000
"""What a file may say with its aliases written out: the characters of its texts and, for all other values, one each."""
DEEPEST = 30
"""Mappings and lists within each other."""
LARGEST = 2**63

PLAIN = (str, int, float, bool, type(None))


def read_yaml(path: Path, what: str = "experiment") -> Any:
    """Read a YAML file; a key given twice is an error, not the last one's victory.

    Raises:
        UsageError: the file is missing, not YAML, or larger than an experiment can be.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise UsageError(f"{path}: cannot be read: it has more than {MOST_BYTES:,} bytes, which no such file needs")
        return parse(data.decode("utf-8-sig"), str(path))
    except FileNotFoundError as error:
        raise UsageError(f"no such {what} file: {path}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: cannot be read: it is not UTF-8 ({error}); save it as UTF-8") from error
    except (OSError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


def parse(text: str, where: str) -> Any:
    """The plain values that YAML stands for, with its aliases written out.

    Raises:
        UsageError: it is not YAML, holds what is no plain value, or stands for more than an experiment can say.
    """
    try:
        return plain(yaml.load(text, Loader=_Loader), where)
    except yaml.YAMLError as error:
        raise UsageError(f"{where}: not valid YAML: {error}") from error
    except RecursionError as error:
        raise UsageError(f"{where}: not valid YAML: nested deeper than {DEEPEST} levels") from error


def plain(value: Any, where: str) -> Any:
    """A copy in which no mapping or list stands in two places, as YAML's anchors put it: a change of one would change the other.

    Raises:
        UsageError: it holds itself, something that is not text, a number, true, false, a list or a mapping, or too much.
    """
    left = MOST_CHARACTERS

    def copy(value: Any, depth: int, above: frozenset[int]) -> Any:
        nonlocal left
        left -= max(1, len(value)) if isinstance(value, str) else 1
        if left < 0:
            raise UsageError(
                f"{where}: its values, with aliases written out, have more than {MOST_CHARACTERS:,} characters"
            )
        if isinstance(value, dict | list):
            if id(value) in above:
                raise UsageError(f"{where}: an anchor holds itself; write its value out")
            if depth >= DEEPEST:
                raise UsageError(f"{where}: nested deeper than {DEEPEST} levels")
            above |= {id(value)}
            if isinstance(value, list):
                return [copy(v, depth + 1, above) for v in value]
            return {copy(k, depth + 1, above): copy(v, depth + 1, above) for k, v in value.items()}
        if not isinstance(value, PLAIN):
            raise UsageError(
                f"{where}: expected text, numbers, true, false, lists and mappings, got a {type(value).__name__}; "
                "write it in quotes if it is text"
            )
        if isinstance(value, int) and not -LARGEST <= value < LARGEST:
            raise UsageError(f"{where}: a whole number of more than 64 bits; write it in quotes if it is text")
        return value

    return copy(value, 0, frozenset())


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses duplicate keys, and says of every value that it trips over where it stands."""

    def construct_object(self, node: Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (yaml.YAMLError, RecursionError):
            raise
        except Exception as error:  # `!!bool perhaps` is a KeyError, `!!int ''` an IndexError
            kind = node.tag.removeprefix("tag:yaml.org,2002:")
            raise yaml.constructor.ConstructorError(None, None, f"not a valid {kind}", node.start_mark) from error

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            # `<<`, which merges other mappings, may be given more than once.
            text = isinstance(key_node, ScalarNode) and key_node.tag != "tag:yaml.org,2002:merge"
            key = key_node.value if text else None
            if key is not None and key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key '{key}' is given twice", key_node.start_mark)
            seen.add(key)
        return cast("dict[Any, Any]", super().construct_mapping(node, deep))

    def flatten_mapping(self, node: MappingNode) -> None:
        """Put merged mappings (`<<`) in their place; each merge copies all keys, so that a few lines could stand for billions."""
        merged = 0
        for key_node, value in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                sources = value.value if isinstance(value, SequenceNode) else [value]
                for source in sources:
                    if isinstance(source, MappingNode):
                        self.flatten_mapping(source)
                        merged += len(source.value)
                    if merged > MOST_BYTES:
                        message = f"merges stand for more than {MOST_BYTES:,} keys"
                        raise yaml.constructor.ConstructorError(None, None, message, key_node.start_mark)
        super().flatten_mapping(node)


def apply_setting(raw: Any, setting: str) -> None:
    """Change a value in a parsed file, in place.

    Raises:
        UsageError: the setting is not ``dotted.key=value``, or the key leads through something that is not a mapping.
    """
    key, equals, text = setting.partition("=")
    if not equals or not all(key.split(".")):
        raise UsageError(f"--set {setting}: expected key=value, such as datasets.openclipart.recipe.epochs=2")
    where = f"--set {setting[:100]}{' …' if len(setting) > 100 else ''}"
    set_value(raw, key, parse(text, where), where)


def set_value(raw: Any, key: str, value: Any, where: str) -> None:
    """Change the value at a dotted key of a parsed file, in place.

    Raises:
        UsageError: the key leads through something that is not a mapping; ``where`` says whose key it is.
    """
    *parents, last = key.split(".")
    if len(parents) >= DEEPEST:
        raise UsageError(f"{where}: nested deeper than {DEEPEST} levels")
    at = raw
    for part in parents:
        if isinstance(at, dict) and at.get(part) is None:
            at[part] = {}  # a name with nothing behind it; a name that does not exist is found by the validation
        at = at.get(part) if isinstance(at, dict) else None
    if not isinstance(at, dict):
        raise UsageError(f"{where}: '{'.'.join(parents)}' is not a mapping")
    at[last] = value
