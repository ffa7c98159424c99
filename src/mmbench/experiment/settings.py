"""Reading an experiment's file, and changing what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import yaml

from mmbench.errors import UsageError


def unshared(value: Any, above: frozenset[int] = frozenset()) -> Any:
    """A copy in which no mapping or list stands in two places, as YAML's anchors put it: a change of one would change the other."""
    if not isinstance(value, dict | list):
        return value
    if id(value) in above:
        raise UsageError("an anchor holds itself; write its value out")
    above |= {id(value)}
    if isinstance(value, dict):
        return {k: unshared(v, above) for k, v in value.items()}
    return [unshared(v, above) for v in value]


def read_yaml(path: Path) -> Any:
    """Read a YAML file; a key given twice is an error, not the last one's victory.

    Raises:
        UsageError: the file is missing, or not YAML.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)
    except FileNotFoundError as error:
        raise UsageError(f"no such experiment file: {path}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that does not exist, say
        raise UsageError(f"{path}: not valid YAML: {error}") from error


class _UniqueKeyLoader(yaml.SafeLoader):
    """SafeLoader that refuses duplicate keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            # `<<`, which merges other mappings, may be given more than once.
            plain = isinstance(key_node, yaml.ScalarNode) and key_node.tag != "tag:yaml.org,2002:merge"
            key = key_node.value if plain else None
            if key is not None and key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key '{key}' is given twice", key_node.start_mark)
            seen.add(key)
        return cast("dict[Any, Any]", super().construct_mapping(node, deep))


def apply_setting(raw: Any, setting: str) -> None:
    """Change a value in a parsed file, in place.

    Raises:
        UsageError: the setting is not ``dotted.key=value``, or the key leads through something that is not a mapping.
    """
    key, equals, text = setting.partition("=")
    if not equals or not all(key.split(".")):
        raise UsageError(f"--set {setting}: expected key=value, such as datasets.openclipart.recipe.epochs=2")
    try:
        value = yaml.load(text, Loader=_UniqueKeyLoader)
    except (yaml.YAMLError, ValueError) as error:
        raise UsageError(f"--set {setting}: the value is not valid YAML") from error
    set_value(raw, key, value, where=f"--set {setting}")


def set_value(raw: Any, key: str, value: Any, where: str) -> None:
    """Change the value at a dotted key of a parsed file, in place.

    Raises:
        UsageError: the key leads through something that is not a mapping; ``where`` says whose key it is.
    """
    *parents, last = key.split(".")
    at = raw
    for part in parents:
        if isinstance(at, dict) and at.get(part) is None:
            at[part] = {}  # a name with nothing behind it; a name that does not exist is found by the validation
        at = at.get(part) if isinstance(at, dict) else None
    if not isinstance(at, dict):
        raise UsageError(f"{where}: '{'.'.join(parents)}' is not a mapping")
    at[last] = value
