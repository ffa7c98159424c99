"""Reads the file of an offline run of W&B: records of protocol buffers in the format of LevelDB's log."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HEADER, BLOCK, FULL, LAST = 7, 32 * 1024, 1, 4


def records(path: Path) -> Iterator[Any]:
    """The records of a file, as far as it is written."""
    from wandb.proto import wandb_internal_pb2

    data, at, parts = path.read_bytes(), HEADER, b""
    while at + HEADER <= len(data):
        if BLOCK - at % BLOCK < HEADER:  # too little for a head: filled up
            at += BLOCK - at % BLOCK
            continue
        size, kind = struct.unpack("<HB", data[at + 4 : at + HEADER])
        if len(data) < at + HEADER + size or kind == 0:
            return
        parts += data[at + HEADER : at + HEADER + size]
        at += HEADER + size
        if kind in (FULL, LAST):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


def metrics(path: Path) -> tuple[str, set[str], set[str]]:
    """A run's name, and the names of what its history and its summary have."""
    name, history, summary = "", set(), set()
    for record in records(path):
        if record.HasField("run"):
            name = record.run.display_name
        history |= {item.key or ".".join(item.nested_key) for item in record.history.item}
        summary |= {item.key or ".".join(item.nested_key) for item in record.summary.update}
    return name, history, summary
