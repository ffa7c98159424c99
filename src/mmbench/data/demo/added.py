"""A tiny made-up copy of a data set that was added without code: its columns and files, by its declaration."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np

from mmbench.data.adding.declaration import Declared, Modality
from mmbench.data.demo.media import picture, rng, sound, write_picture, write_sound, write_video

MOST_CLASSES = 12  # that have samples
EACH, SERIES = 20, 2  # samples of a class, and of a group
RATE = 16_000


def write(declared: Declared, raw: Path) -> None:
    """Write the copy into a folder: twenty samples of each class, in groups of two; the last one of each lacks the last modality."""
    classes = declared.classes[:MOST_CLASSES] if len(declared.classes) > MOST_CLASSES else declared.classes
    samples = [(label, name, i) for label, name in enumerate(classes) for i in range(EACH)]
    rows: list[dict[str, Any]] = []
    vectors: dict[str, list[np.ndarray]] = {}
    for number, (label, name, i) in enumerate(samples):
        row = {declared.label: name}
        if declared.id:
            row[declared.id] = f"made_up_{number:04}"
        if declared.group:
            row[declared.group] = f"group {number // SERIES}"
        if declared.split:
            row[declared.split] = ("train", "train", "train", "validation", "test")[i // SERIES % 5]
        for modality, one in declared.modalities.items():
            last = len(declared.modalities) > 1 and modality == list(declared.modalities)[-1]
            lacking = last and i == EACH - 1 and one.array is None
            if not lacking:
                row |= cells(raw, declared.name, modality, one, label, number, vectors)
        rows.append(row)
    for modality, given in vectors.items():
        array = declared.modalities[modality].array
        assert array is not None
        write_vectors(raw / array, np.stack(given), [row.get(declared.id or "", str(n)) for n, row in enumerate(rows)])
    parts = len(declared.metadata)
    for part, path in enumerate(declared.metadata):
        write_table(raw / path, [row for n, row in enumerate(rows) if (n % EACH) * parts // EACH == part])


def cells(
    raw: Path, dataset: str, name: str, one: Modality, label: int, number: int, vectors: dict[str, list[np.ndarray]]
) -> dict[str, Any]:
    """What a row has of one modality; its file is written, and its vector collected where one file holds all."""
    seed = f"{dataset}:{name}:{number}"
    if one.kind == "text":
        return {
            str(one.column): f"word{label} {rng('text', seed).choice(['old', 'new', 'small', 'large'])} number {number}"
        }
    if one.kind in ("features", "numbers") and one.file is None:
        vector = (
            rng("vector", seed).normal(size=one.width or 16) + np.eye(one.width or 16)[label % (one.width or 16)] * 2
        )
        if one.array is not None:
            vectors.setdefault(name, []).append(vector.astype(np.float32))
            return {}
        if one.column is not None:
            return {one.column: str([round(float(value), 4) for value in vector])}
        return dict(zip(column_names(one), vector.round(4).tolist(), strict=True))
    suffix = {"picture": ".png", "sound": ".wav", "video": ".mp4", "features": ".npy"}[one.kind]
    file = f"{name}/{number:04}{suffix}"
    path = raw / file
    path.parent.mkdir(parents=True, exist_ok=True)
    if one.kind == "picture":
        write_picture(path, picture(label, 40, 48, seed))
    elif one.kind == "sound":
        write_sound(path, sound(label, min(one.seconds, 1.0), RATE, seed), RATE)
    elif one.kind == "video":
        write_video(path, [picture(label, 48, 64, f"{seed}:{frame}") for frame in range(6)], 5, "mpeg4")
    else:
        np.save(path, rng("vector", seed).normal(size=one.width or 16).astype(np.float32))
    return {str(one.file): file}


def column_names(one: Modality) -> list[str]:
    """The columns of a vector, those that are numbered written out."""
    names = one.columns or []
    return [f"{names[0][:-1]}{i}" for i in range(one.width or 16)] if names[0].endswith("*") else names


def write_vectors(path: Path, values: np.ndarray, ids: list[str]) -> None:
    """Write (N, D) by row, in the format that the name says."""
    import torch
    from safetensors.numpy import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".safetensors":
        save_file(dict(zip(ids, values, strict=True)), path)
    else:
        torch.save(torch.from_numpy(values), path)


def write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows as CSV, TSV, JSON lines or Parquet."""
    import json

    import pandas as pd

    path.parent.mkdir(parents=True, exist_ok=True)
    names = list(dict.fromkeys(name for row in rows for name in row))
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".parquet":
        pd.DataFrame([{name: row.get(name) for name in names} for row in rows]).to_parquet(path, index=False)
    else:
        with path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, names, delimiter="\t" if path.suffix == ".tsv" else ",", restval="")
            writer.writeheader()
            writer.writerows(rows)
