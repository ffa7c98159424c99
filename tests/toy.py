"""A small data set whose files are numbers in text files: what preparing does, without the time that decoding takes."""

import json
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd

from mmbench.data.prepared import PreparedDataModule
from mmbench.data.preparing.lists import read_rows
from mmbench.data.preparing.media import BadFile
from mmbench.data.preparing.raw import Info, Listing, Sample, Source
from mmbench.data.preparing.vouching import hash_manifest, hash_table

PAUSE = float(os.environ.get("TOY_PAUSE", "0"))


def decode(path: Path, sample: Sample):
    """What the file says: a number, or what is to happen."""
    if not path.exists():
        raise BadFile("is missing")
    text = path.read_text()
    time.sleep(PAUSE)
    if text == "bad":
        raise BadFile("is bad")
    if text == "bug":
        return {"big": {}["nothing"]}
    if text == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    value = np.full((2, 3), float(text), np.float32)
    wrong = {"-1": {}, "-2": {"big": value[0], "small": value}, "-3": {"big": value, "small": np.ones(4, np.int64)}}
    return wrong.get(text, {"big": value, "small": np.full(4, float(text) % 200, np.uint8)})


class Toy(PreparedDataModule):
    """Two classes; ``text`` in the table, and a number in a file."""

    name = "toy"
    modalities = ("number", "text")
    text_modalities = ("text",)
    classes = ("even", "odd")
    conditioning = "number"
    encoders = {}
    sources = {"number": Source({"big": ((2, 3), "float32"), "small": ((4,), "uint8")}, decode, "as it is")}
    published = {"all": {"samples": 100}, "legacy": {"train": 60, "test": 40}}
    legacy_lists = "the legacy protocol needs lists"
    info = Info("A toy", "here", "none", (("list.csv", "id, label, group, split, file, text"),), "nothing")

    @classmethod
    def scan(cls, raw):
        rows = [row for _, row in read_rows(raw / "list.csv", 6, [])]
        return Listing(
            [Sample(i, int(y), g, {"number": f or None}, {"text": t}, legacy=s) for i, y, g, s, f, t in sorted(rows)]
        )

    @classmethod
    def clean(cls, samples):
        return [("train", "train", "train", "validation", "test")[int(g) % 5] for g in samples["group"]]


class FoldedToy(Toy):
    """The same data in five folds of two groups."""

    folds = 5
    folded_by = "ten"

    @classmethod
    def part_of(cls, samples):
        return [int(group) % 5 for group in samples["group"]]


def write_toy(raw: Path, count: int = 100) -> None:
    """Write ``count`` samples in ten groups, each number once."""
    raw.mkdir(parents=True)
    lines = []
    for i in range(count):
        (raw / f"{i:03}.txt").write_text(str(i))
        lines.append(f"s{i:03},{i % 2},{i // 10},{'train' if i % 10 < 6 else 'test'},{i:03}.txt,text {i}\n")
    (raw / "list.csv").write_text("".join(lines))


def change(raw: Path, number: int, **columns: object) -> None:
    """Change a sample's columns in the list."""
    names = ("id", "label", "group", "legacy", "file", "text")
    lines = (raw / "list.csv").read_text().splitlines()
    row = SimpleNamespace(**dict(zip(names, lines[number].split(","), strict=True)))
    vars(row).update(columns)
    lines[number] = ",".join(str(getattr(row, name)) for name in names)
    (raw / "list.csv").write_text("\n".join(lines) + "\n")


def reseal(folder: Path, table: pd.DataFrame | None = None, **changes: object) -> None:
    """Write another table and other entries of the manifest (None: no such entry), with the hashes that vouch for them."""
    path = folder / "manifest.json"
    manifest = {k: v for k, v in {**json.loads(path.read_text()), **changes}.items() if v is not None}
    if table is not None:
        table.to_parquet(folder / "samples.parquet", index=False)
        manifest["table"] = hash_table(table)
    path.write_text(json.dumps({**manifest, "sha256": hash_manifest(manifest)}))
