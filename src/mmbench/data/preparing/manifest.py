"""The table and the manifest of a prepared data set, and whether it still is what they say."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmbench.data.prepared import FORMAT, SPLITS, PreparedDataModule
from mmbench.data.preparing.media import decoders
from mmbench.data.preparing.raw import Listing, Sample
from mmbench.data.preparing.vouching import hash_file, hash_lines, hash_manifest, hash_table
from mmbench.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd


def tabulate(
    data: type[PreparedDataModule], samples: Sequence[Sample], rows: Sequence[Mapping[str, Any]]
) -> pd.DataFrame:
    """The table of samples, splits included."""
    import pandas as pd

    frame = pd.DataFrame(
        {
            "id": [s.id for s in samples],
            "label": [s.label for s in samples],
            "group": [s.group for s in samples],
            "attack": [s.attack for s in samples],
            "legacy": [s.legacy for s in samples],
            "clip": [json.dumps(dict(s.clip), sort_keys=True) if s.clip else "" for s in samples],
            "skipped": [row["error"] for row in rows],
        }
    )
    for modality in data.modalities:
        if modality in data.text_modalities:
            frame[f"text_{modality}"] = [s.text.get(modality, "") for s in samples]
            frame[f"present_{modality}"] = frame[f"text_{modality}"].str.strip() != ""
        else:
            frame[f"sha256_{modality}"] = [row["sha256"].get(modality, "") for row in rows]
            frame[f"present_{modality}"] = frame[f"sha256_{modality}"] != ""
    usable = frame["skipped"] == ""
    frame["clean"] = ""
    frame.loc[usable, "clean"] = np.asarray(data.clean(frame[usable].reset_index(drop=True)), dtype=object)
    if unknown := set(frame["clean"]) - {"", *SPLITS}:
        raise ValueError(f"{data.name}: unknown splits {sorted(unknown)}")
    return frame


def describe(
    data: type[PreparedDataModule],
    partial: Path,
    frame: pd.DataFrame,
    listing: Listing,
    skipped: Sequence[Sequence[str]],
    made_up: bool,
) -> dict[str, Any]:
    """The manifest."""
    usable = frame[frame["skipped"] == ""]
    hashes = frame[[c for c in frame if c.startswith("sha256_")]].to_numpy().ravel()
    splits: dict[str, Any] = {}
    for protocol in ("clean", "legacy"):
        for split in SPLITS:
            ids = sorted(usable["id"][usable[protocol] == split])
            if ids:
                splits.setdefault(protocol, {})[split] = {"samples": len(ids), "sha256": hash_lines(ids)}
    manifest = {
        "format": FORMAT,
        "version": data.version,
        "dataset": data.name,
        "made_up": made_up,
        "samples": len(usable),
        "splits": splits,
        "arrays": {
            name: {"shape": [len(frame), *shape], "dtype": str(dtype), "sha256": hash_file(partial / f"{name}.npy")}
            for name, (shape, dtype) in data_fields(data).items()
        },
        "table": hash_table(frame),
        "sources": {"files": int((hashes != "").sum()), "sha256": hash_lines(sorted(h for h in hashes if h))},
        "transform": {m: source.transform for m, source in data.sources.items()},
        "decoders": decoders(),
        "skipped": [list(s) for s in skipped],
        "unlisted": {"files": len(listing.unlisted), "first": listing.unlisted[:20]},
        "notes": listing.notes,
    }
    if listing.classes is not None:
        manifest["classes"] = list(listing.classes)
    return {**manifest, "sha256": hash_manifest(manifest)}


def verify(data: type[PreparedDataModule]) -> list[str]:
    """What of a prepared folder is not as its manifest says: a line each; none if all is well."""
    try:
        manifest, wrong = data.read_manifest(), list[str]()
    except UsageError as error:
        return [str(error)]
    for name, expected in manifest["arrays"].items():
        try:
            data.array(name, manifest)
        except UsageError as error:
            wrong.append(str(error))
            continue
        if hash_file(data.folder() / f"{name}.npy") != expected["sha256"]:
            wrong.append(f"{data.folder() / name}.npy has changed since it was prepared")
    try:
        data.table()
    except UsageError as error:
        wrong.append(str(error))
    return wrong


def data_fields(data: type[PreparedDataModule]) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """The arrays of a data set: name -> (shape of a sample, type)."""
    return {
        name: (shape, np.dtype(kind))
        for source in data.sources.values()
        for name, (shape, kind) in source.fields.items()
    }
