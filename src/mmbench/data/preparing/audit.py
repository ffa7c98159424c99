"""What the field gets wrong with data, checked: leaks between splits, duplicates, contradictory labels, wrong counts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING

from mmbench.data.prepared import SPLITS, PreparedDataModule
from mmbench.data.preparing.vouching import hash_lines

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 10  # skipped and doubtful samples, and classes of a split, that are named one by one


@dataclass
class Audit:
    """What an audit found.

    Attributes:
        facts: lines that describe the data.
        findings: lines on what a user should know of.
        violations: protocol -> what of the data breaks the protocol's promise.
    """

    facts: list[str] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    violations: dict[str, list[str]] = field(default_factory=lambda: {"clean": [], "legacy": []})


def audit(data: type[PreparedDataModule]) -> Audit:
    """Audit a prepared data set.

    ``clean`` promises that no group and no file is in two splits, nor any text where the data set says so, and that every class is in
    every one of the three splits; and of the parts that its folds test the same, but for the classes. Texts are compared by
    ``text_key``: they count as one if they are equal to the eye. ``legacy`` promises the published lists: their counts. What was
    published of a data set is not held against a variant with classes of its own.
    """
    manifest, table = data.read_manifest(), data.table()
    usable = table[table["skipped"] == ""]
    result = Audit()
    classes, variant = data.class_names(), "classes" in manifest
    result.facts.append(f"{len(usable)} samples, {len(classes)} classes, {usable['group'].nunique()} groups")
    if usable["group"].nunique() == len(usable):
        result.facts.append(
            "every sample is a group of its own: disjoint by group is no more than disjoint by sample here"
        )
    if variant:
        result.facts.append(
            f"a variant with classes of its own: what was published of that with {len(data.classes)} is not held against it"
        )
    for modality in data.modalities:
        absent = int((~usable[f"present_{modality}"].astype(bool)).sum())
        result.facts += [f"{absent} samples have no {modality}"] * (absent > 0)
    expected = None if variant else data.published.get("all", {}).get("samples")
    if expected and expected != len(usable):
        result.findings.append(f"samples: {len(usable)}, published {expected}")
    for sample, file, reason in manifest["skipped"][:SHOWN]:
        result.findings.append(f"skipped: {sample}: {file} {reason}".rstrip())
    if more := manifest["skipped"][SHOWN:]:
        result.findings.append(f"skipped: {len(more)} more, all in {data.folder() / 'manifest.json'}")
    doubts = manifest.get("doubts", [])
    result.findings += [f"doubtful: {sample}: {why}" for sample, why in doubts[:SHOWN]]
    if more := doubts[SHOWN:]:
        result.findings.append(f"doubtful: {len(more)} more, all in {data.folder() / 'manifest.json'}")
    if count := manifest["unlisted"]["files"]:
        some = ", ".join(manifest["unlisted"]["first"][:3])
        result.findings.append(f"on disk, but in no list: {count} files, such as {some}")
    result.findings += manifest["notes"]
    keys = [c for c in table if c.startswith(("sha256_", "text_"))]
    usable = usable.assign(**{key: usable[key].map(data.text_key) for key in keys if key.startswith("text_")})
    result.findings += [line for key in keys for line in conflicts(usable, key)]
    for protocol in ("clean", "legacy"):
        audit_protocol(data, protocol, variant, usable, keys, result)
    if data.folds > 1:
        audit_folds(data, table, usable, keys, result)
    if usable["clean"].equals(usable["legacy"]):
        result.findings.append(
            "legacy has the splits of clean: what differs is where the epoch is chosen, and nothing else"
        )
    return result


def audit_protocol(
    data: type[PreparedDataModule],
    protocol: str,
    variant: bool,
    usable: pd.DataFrame,
    keys: Iterable[str],
    result: Audit,
) -> None:
    """Add what there is to say of one protocol's splits."""
    classes = data.class_names()
    parts = {split: usable[usable[protocol] == split] for split in SPLITS}
    if all(part.empty for part in parts.values()):
        why = "the published lists are those of another variant" if variant else data.legacy_lists
        result.facts.append(f"{protocol}: no splits; {why}" if why else f"{protocol}: no splits")
        result.violations[protocol].append("there are no splits")
        return
    published = {} if variant else data.published.get(protocol, {})
    for split, part in parts.items():
        if split in published and published[split] != len(part):
            if protocol == "legacy" and (len(part) or split != "validation"):  # which legacy does not use
                result.violations["legacy"].append(f"{split} has {len(part)} samples, published {published[split]}")
            else:
                result.findings.append(f"{protocol} {split}: {len(part)} samples, published {published[split]}")
        if part.empty:
            if protocol == "clean":
                result.violations["clean"].append(f"there is no {split} split")
            continue
        counts = part["label"].value_counts()
        told = f" (published: {published[split]})" if split in published else ""
        ids = hash_lines(sorted(part["id"]))[:16]
        result.facts.append(f"{protocol} {split}: {len(part)} samples{told}, list {ids}: {by_class(part, classes)}")
        if protocol == "clean" and (gone := [n for i, n in enumerate(classes) if not counts.get(i, 0)]):
            result.violations["clean"].append(f"{split} has no sample of {', '.join(gone)}")
    if left_out := int((usable[protocol] == "").sum()):
        result.facts.append(f"{protocol}: {left_out} samples are in no split")
    for (one, first), (other, second) in combinations(parts.items(), 2):
        for key in ("group", *keys):
            there = set(first[key]) & set(second[key]) - {""}
            if there:
                count = int(second[key].isin(there).sum())
                what = key.removeprefix("sha256_").removeprefix("text_")
                line = f"{count} of {len(second)} {other} samples share their {what} with {one}"
                promised = protocol == "clean" and (data.distinct_texts or not key.startswith("text_"))
                if promised:
                    result.violations["clean"].append(line)
                else:
                    result.findings.append(f"{protocol}: {line}")


def audit_folds(
    data: type[PreparedDataModule], table: pd.DataFrame, usable: pd.DataFrame, keys: Iterable[str], result: Audit
) -> None:
    """Add what there is to say of the parts that the folds test: ``clean`` promises of them what it promises of its splits."""
    parts = data.parts(table)
    usable = usable.assign(part=parts.clean)
    hashes = ", ".join(f"{split} {parts.hash_of(split)[:16]}" for split in ("clean", "legacy"))
    result.facts.append(f"{data.folds} folds by {data.folded_by}, lists {hashes}")
    for fold in range(data.folds):
        tested = usable[usable["part"] == fold]
        result.facts.append(f"clean fold {fold}: tests {len(tested)} samples: {by_class(tested, data.class_names())}")
    if why := parts.lacks():
        result.violations["clean"].append(f"folds: {why}")
    for key in ("group", *keys):
        same = usable[usable[key] != ""].groupby(key)["part"]
        if crossing := int((same.transform("nunique") > 1).sum()):
            what = key.removeprefix("sha256_").removeprefix("text_")
            line = f"{crossing} samples share their {what} with a sample of another fold"
            if data.distinct_texts or not key.startswith("text_"):
                result.violations["clean"].append(line)
            else:
                result.findings.append(f"clean: {line}")


def by_class(part: pd.DataFrame, classes: Sequence[str]) -> str:
    """How many samples a part has of each class; of many classes, the least and the most."""
    counts = part["label"].value_counts()
    sizes = [counts.get(number, 0) for number in range(len(classes))]
    if len(sizes) > SHOWN:
        return f"{min(sizes)} to {max(sizes)} of a class"
    return ", ".join(f"{name} {size}" for name, size in zip(classes, sizes, strict=True))


def conflicts(usable: pd.DataFrame, key: str) -> list[str]:
    """Whether samples that are the same (of one file: the same clip of it) have different labels."""
    some = usable[usable[key] != ""]
    same = [key, "clip"] if key.startswith("sha256_") else [key]
    count = int((some.groupby(same)["label"].transform("nunique") > 1).sum())
    if not count:
        return []
    name = key.replace("sha256_", "file of ").replace("text_", "text of ")
    return [f"{count} samples share the {name} with a sample of another label"]
