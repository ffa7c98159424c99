"""What vouches for a prepared folder: hashes of its files, and whether its manifest is whole."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from hashlib import file_digest, sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

if TYPE_CHECKING:
    import pandas as pd

Count = Annotated[int, Field(ge=0)]


class Part(BaseModel):
    """A split: how many samples it has, and the hash of their sorted names."""

    model_config = ConfigDict(extra="forbid", strict=True)

    samples: Count
    sha256: str


class ArrayFile(BaseModel):
    """An array on disk."""

    model_config = ConfigDict(extra="forbid", strict=True)

    shape: list[Count]
    dtype: str
    sha256: str


class Unlisted(BaseModel):
    """Files that no list names."""

    model_config = ConfigDict(extra="forbid", strict=True)

    files: Count
    first: list[str]


class Manifest(BaseModel):
    """``manifest.json``, as ``preparing.manifest.describe`` writes it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    format: int
    version: int
    dataset: str
    made_up: bool
    samples: Count
    splits: dict[str, dict[str, Part]]
    arrays: dict[str, ArrayFile]
    table: str
    sources: dict[str, int | str]
    transform: dict[str, str]
    decoders: dict[str, Any]
    skipped: list[tuple[str, str, str]]
    doubts: list[tuple[str, str]] = []
    unlisted: Unlisted
    notes: list[str]
    classes: Annotated[list[str], Field(min_length=2)] = []
    declaration: dict[str, Any] = {}
    sha256: str


def mistake(manifest: Mapping[str, Any]) -> str | None:
    """What is wrong with a manifest, as the end of a sentence; None if it is what was written."""
    if hash_manifest(manifest) != manifest.get("sha256"):
        return "has changed since it was prepared"
    try:
        Manifest.model_validate_json(json.dumps(manifest))
    except ValidationError as error:
        first = error.errors()[0]
        return f"is damaged ({'.'.join(map(str, first['loc']))}: {first['msg'].lower()})"
    return None


def table_mistake(frame: pd.DataFrame, manifest: Mapping[str, Any], kinds: Mapping[str, str]) -> str | None:
    """What is wrong with a table of samples, as the end of a sentence; None if it is what was written.

    Args:
        frame: the table.
        manifest: of the same folder.
        kinds: column -> "text", "int" or "bool".
    """
    if hash_table(frame) != manifest["table"]:
        return "has changed since it was prepared"
    is_kind = {"int": lambda column: column.dtype.kind == "i", "bool": lambda column: column.dtype.kind == "b"}
    for name, kind in kinds.items():
        texts = kind == "text"
        if name not in frame or not (
            all(isinstance(v, str) for v in frame[name]) if texts else is_kind[kind](frame[name])
        ):
            return f"is damaged (expected the column {name}, of type {kind})"
    if wrong := [name for name, array in manifest["arrays"].items() if array["shape"][:1] != [len(frame)]]:
        return f"is damaged (it has {len(frame)} rows, {wrong[0]}.npy has the shape {manifest['arrays'][wrong[0]]['shape']})"
    return None


def hash_file(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as stream:
        return file_digest(stream, sha256).hexdigest()


def hash_lines(lines: Iterable[str]) -> str:
    """The SHA-256 of lines."""
    return sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


def hash_manifest(manifest: Mapping[str, Any]) -> str:
    """The SHA-256 of all of a manifest but itself."""
    content = {key: value for key, value in manifest.items() if key != "sha256"}
    return hash_lines([json.dumps(content, sort_keys=True)])


def hash_table(frame: pd.DataFrame) -> str:
    """The SHA-256 of a table's values, whatever its file looks like: of a line a row, each a JSON list of its values as texts."""
    columns: list[Sequence[str]] = [[str(value) for value in frame[name].tolist()] for name in frame]
    rows = zip(*columns, strict=True)
    encode = json.JSONEncoder(ensure_ascii=False).encode
    return hash_lines(map(encode, [list(frame), *rows]))
