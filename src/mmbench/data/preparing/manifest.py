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


SILENT = 2**-13  # the peak of sound that is called silent: four steps of 16 bit
APART, APART_SECONDS = (
    0.2,
    0.5,
)  # lengths of a sample's sound and video that are further apart are told: share of the longer, seconds


def tabulate(
    data: type[PreparedDataModule],
    samples: Sequence[Sample],
    rows: Sequence[Mapping[str, Any]],
    vectors: Mapping[str, np.ndarray],
) -> pd.DataFrame:
    """The table of samples, splits included; ``vectors`` says, by modality, which of them have one, (N,) bool."""
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
            frame[f"present_{modality}"] = vectors.get(modality, frame[f"sha256_{modality}"] != "")
    usable = frame["skipped"] == ""
    frame["clean"] = ""
    frame.loc[usable, "clean"] = np.asarray(data.clean(frame[usable].reset_index(drop=True)), dtype=object)
    if unknown := set(frame["clean"]) - {"", *SPLITS}:
        raise ValueError(f"{data.name}: unknown splits {sorted(unknown)}")
    return frame


def doubts_of(samples: Sequence[Sample], rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """(sample, reason) of what was decoded well, yet is probably not as it should be: silence, and modalities of different lengths."""
    doubts = []
    for sample, row in zip(samples, rows, strict=True):
        if row["error"]:
            continue
        noted = row["noted"]
        for modality, facts in noted.items():
            if facts.get("peak", 1) < SILENT:
                doubts.append((sample.id, f"{modality} is silent: its peak is {facts['peak']:.1g} of full scale"))
        lengths = sorted((facts["seconds"], modality) for modality, facts in noted.items() if "seconds" in facts)
        if len(lengths) > 1 and lengths[-1][0] - lengths[0][0] > max(APART_SECONDS, APART * lengths[-1][0]):
            each = " and ".join(f"{modality} {seconds:.2f} s" for seconds, modality in lengths)
            doubts.append((sample.id, f"lengths differ: {each}"))
    return doubts


def describe(
    data: type[PreparedDataModule],
    partial: Path,
    frame: pd.DataFrame,
    listing: Listing,
    skipped: Sequence[Sequence[str]],
    made_up: bool,
    doubts: Sequence[Sequence[str]],
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
        "doubts": [list(doubt) for doubt in doubts],
        "unlisted": {"files": len(listing.unlisted), "first": listing.unlisted[:20]},
        "notes": listing.notes,
    }
    if listing.classes is not None:
        manifest["classes"] = list(listing.classes)
    if (declaration := data.declaration()) is not None:
        manifest["declaration"] = declaration
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
