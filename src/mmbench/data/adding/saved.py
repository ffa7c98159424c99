"""Folders that ``save_to_disk`` of Hugging Face's datasets wrote, read as what they are: JSON and Arrow. Nothing in them is executed.

``datasets.load_from_disk`` would open whatever files the JSON names and make objects of what it calls features; neither is needed here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from struct import unpack_from
from typing import TYPE_CHECKING, Any

from mmbench.data.adding.tables import MOST_ROWS
from mmbench.data.preparing.lists import within
from mmbench.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

DICT, STATE, INFO = "dataset_dict.json", "state.json", "dataset_info.json"
END = b"\xff\xff\xff\xff\0\0\0\0"
"""How a whole file of Arrow's stream format ends; without it, it may have been cut off between two batches."""
MOST_JSON = 1 << 26
"""Bytes of a JSON file that are read: enough for a million names of classes."""
ANEW = "save the data set again: dataset.save_to_disk(DIR)"


@dataclass(frozen=True)
class Part:
    """A Dataset of a folder, or one of those of a DatasetDict.

    Attributes:
        split: what it is called; "" for the only one.
        folder: where it lies.
        shards: its Arrow files, in their order.
        features: column -> what the data set says of it, as JSON has it; {} where it says nothing.
        schema: of its tables.
        rows: how many it has.
    """

    split: str
    folder: Path
    shards: tuple[Path, ...]
    features: dict[str, Any]
    schema: pa.Schema
    rows: int

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Its rows, in the batches that were written; of a batch's bytes only those are read that are looked at.

        Raises:
            UsageError: a batch is damaged.
        """
        for shard in self.shards:
            for batch in read_batches(shard):
                try:
                    batch.validate(full=True)
                except Exception as error:  # pyarrow's are of many kinds
                    raise UsageError(f"{shard} is damaged ({brief(error)}); {ANEW}") from error
                yield batch


def read_parts(folder: Path) -> list[Part]:
    """What a folder holds.

    Raises:
        UsageError: ``save_to_disk`` did not write it, it names files outside of it, or a file is missing or damaged.
    """
    if not folder.is_dir():
        raise UsageError(f"--hf {folder}: no such folder; expected one that dataset.save_to_disk(DIR) wrote")
    if (folder / STATE).is_file() and (folder / INFO).is_file():
        return [read_part("", folder)]
    if not (folder / DICT).is_file():
        raise UsageError(f"--hf {folder}: {what_else(folder)}")
    splits = read_json(folder / DICT).get("splits")
    if not isinstance(splits, list) or not splits or not all(isinstance(name, str) for name in splits):
        raise UsageError(f"{folder / DICT}: expected the names of splits, got {str(splits)[:80]}; {ANEW}")
    if wrong := [name for name in splits if not re.fullmatch(r"\w[\w.-]{0,99}", name)]:
        raise UsageError(f"{folder / DICT}: expected names of splits, which are folders here, got {wrong[0][:80]!r}")
    if len(set(splits)) < len(splits):
        raise UsageError(f"{folder / DICT}: a split is given twice: {', '.join(splits)[:80]}")
    parts = [read_part(name, within(folder, name, str(folder / DICT))) for name in splits]
    for part in parts[1:]:
        check_equal(parts[0], part)
    return parts


def what_else(folder: Path) -> str:
    """What a folder is that ``save_to_disk`` did not write, and what to do."""
    save = "datasets.load_dataset(…).save_to_disk(DIR)"
    names = {path.name for path in folder.iterdir()}
    if names & {"blobs", "refs", "snapshots"} or any(name.startswith(("datasets--", "models--")) for name in names):
        return f"it is a cache of the Hugging Face hub; expected what {save} writes"
    if INFO in names:
        return f"it has {INFO} but no {STATE}, as a cache of load_dataset; expected what {save} writes"
    if any(name.endswith(".py") for name in names):
        return f"it is a data set by a script, which is never executed here; expected what {save} writes"
    if {"data", "README.md"} <= names or any(name.endswith((".parquet", ".arrow")) for name in names):
        return f"it has no {DICT} or {STATE}; expected what {save} writes (a table with files: mmbench data add DIR)"
    return f"expected what {save} writes: {DICT}, or {STATE} and {INFO}; a folder with a table of samples is added without --hf"


def read_part(split: str, folder: Path) -> Part:
    """One Dataset."""
    for name in (STATE, INFO):
        if not (folder / name).is_file():
            raise UsageError(f"{folder / name} is missing; {ANEW}")
    state, info = read_json(folder / STATE), read_json(folder / INFO)
    files, features = state.get("_data_files"), info.get("features") or {}
    if not isinstance(files, list) or not all(
        isinstance(f, dict) and isinstance(f.get("filename"), str) for f in files
    ):
        raise UsageError(f"{folder / STATE}: expected the names of its Arrow files in _data_files; {ANEW}")
    if not files:
        raise UsageError(f"{folder / STATE}: names no Arrow file; expected one at least")
    if state.get("_indices_data_files"):
        raise UsageError(
            f"{folder / STATE}: the rows were chosen by an index (datasets 1.x); load it there, and {ANEW}"
        )
    if not isinstance(features, dict):
        raise UsageError(f"{folder / INFO}: expected the features by column, got {str(features)[:80]}; {ANEW}")
    shards = tuple(within(folder, file["filename"], str(folder / STATE)) for file in files)
    schemas, rows = [], 0
    for shard in shards:
        schema, count = measure(shard)
        schemas.append(schema)
        rows += count
    if rows > MOST_ROWS:
        raise UsageError(f"{folder}: has {rows:,} rows, expected at most {MOST_ROWS:,}")
    for shard, schema in zip(shards, schemas, strict=True):
        if not schema.equals(schemas[0]):
            raise UsageError(f"{shard}: its columns are not those of {shards[0]}; {ANEW}")
    names = schemas[0].names
    if len(set(names)) < len(names):
        raise UsageError(f"{shards[0]}: two columns have one name: {', '.join(names)[:200]}")
    if features and features.keys() != set(names):
        other = sorted(features.keys() ^ set(names))
        raise UsageError(f"{folder / INFO}: its columns are not those of {shards[0]}: {', '.join(other)[:200]}; {ANEW}")
    return Part(split, folder, shards, features, schemas[0], rows)


def check_equal(one: Part, other: Part) -> None:
    """Refuse parts whose columns differ, with the names of those that do."""
    if differing := sorted(set(one.schema.names) ^ set(other.schema.names)):
        raise UsageError(
            f"{other.folder}: its columns are not those of {one.folder}: {', '.join(differing)[:200]}; expected the same in every "
            "split: add or remove them (add_column, remove_columns)"
        )
    for name in one.schema.names:
        kinds = [
            (part.schema.field(name).type, {k: v for k, v in as_dict(part.features.get(name)).items() if k != "id"})
            for part in (one, other)
        ]
        if kinds[0] != kinds[1]:
            raise UsageError(
                f"{other.folder}: column '{name}' is another one than in {one.folder}: {brief_kind(*kinds[1])}, there "
                f"{brief_kind(*kinds[0])}; make them one (cast_column)"
            )


def as_dict(feature: Any) -> dict[str, Any]:
    """What a data set says of a column, as a dictionary; of nested columns, which are not used, {}."""
    return feature if isinstance(feature, dict) else {}


def brief_kind(kind: pa.DataType, feature: dict[str, Any]) -> str:
    """The type of a column, in a few words."""
    names = feature.get("names")
    told = f" of {', '.join(map(str, names))}" if isinstance(names, list) else ""
    return f"{feature.get('_type', '')} ({kind}){told}"[:200].strip()


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object.

    Raises:
        UsageError: it holds something else, or is too large.
    """
    if (size := path.stat().st_size) > MOST_JSON:
        raise UsageError(f"{path}: has {size:,} bytes, expected at most {MOST_JSON:,}")
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} is damaged ({brief(error)}); {ANEW}") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path}: expected a JSON object, got {str(content)[:80]}; {ANEW}")
    return content


def measure(shard: Path) -> tuple[pa.Schema, int]:
    """The schema and the number of rows of an Arrow file, which is looked through by its heads alone.

    Raises:
        UsageError: it is missing, damaged or cut off.
    """
    if not shard.is_file():
        raise UsageError(f"{shard} is missing; copy the whole folder, or {ANEW}")
    with shard.open("rb") as file:
        file.seek(max(0, shard.stat().st_size - len(END)))
        if file.read() != END:
            raise UsageError(f"{shard} is cut off or damaged: it does not end as an Arrow stream does; {ANEW}")
    check_uncompressed(shard)
    rows, schema = 0, None
    for batch in read_batches(shard):
        rows, schema = rows + batch.num_rows, batch.schema
    if schema is None:  # a split without rows has a head all the same
        import pyarrow as pa

        with pa.memory_map(str(shard)) as source, pa.ipc.open_stream(source) as stream:
            schema = stream.schema
    return schema.remove_metadata(), rows


def check_uncompressed(shard: Path) -> None:
    """Refuse compressed batches, which ``save_to_disk`` does not write: a small file could ask for all memory there is."""
    import pyarrow as pa

    try:
        with pa.memory_map(str(shard)) as source:
            messages = pa.ipc.MessageReader.open_stream(source)
            found = any(is_compressed(message.metadata.to_pybytes()) for message in messages)
    except Exception as error:  # pyarrow's are of many kinds
        raise UsageError(f"{shard} is damaged ({brief(error)}); {ANEW}") from error
    if found:
        raise UsageError(f"{shard} is compressed, which save_to_disk does not do; {ANEW}")


def is_compressed(message: bytes) -> bool:
    """Whether the head of an Arrow message says that its body is compressed: a flatbuffer, ``Message.fbs`` in Arrow's format."""

    def inner(table: int, number: int) -> int:
        """Where the table begins that is a field of another; 0 if the field is left out."""
        (back,) = unpack_from("<i", message, table)
        (size,) = unpack_from("<H", message, table - back)
        offset = unpack_from("<H", message, table - back + 4 + 2 * number)[0] if 4 + 2 * number < size else 0
        return table + offset + unpack_from("<I", message, table + offset)[0] if offset else 0

    (root,) = unpack_from("<I", message)
    (back,) = unpack_from("<i", message, root)
    kind = message[root + unpack_from("<H", message, root - back + 6)[0]]
    batch = inner(root, 2)
    if kind == 2:  # of a dictionary
        batch = inner(batch, 1)
    return kind in (2, 3) and inner(batch, 3) != 0


def read_batches(shard: Path) -> Iterator[pa.RecordBatch]:
    """The batches of an Arrow file, which stays on the disk."""
    import pyarrow as pa

    try:
        with pa.memory_map(str(shard)) as source, pa.ipc.open_stream(source) as stream:
            yield from stream
    except Exception as error:  # pyarrow's are of many kinds
        raise UsageError(f"{shard} is damaged ({brief(error)}); {ANEW}") from error


def brief(error: Exception) -> str:
    """The first line of an error's message."""
    return str(error).partition("\n")[0][:200]
