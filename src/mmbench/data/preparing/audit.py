"""What the field gets wrong with data, checked: leaks, duplicates, contradictory labels, giveaways, broken values, wrong counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from mmbench.data.prepared import SPLITS, PreparedDataModule
from mmbench.data.preparing.auditing.duplicates import clipped, conflicts, crossing, near_partners, partners, within
from mmbench.data.preparing.auditing.giveaways import absence, spoken
from mmbench.data.preparing.auditing.keys import Key, different, keys_of
from mmbench.data.preparing.auditing.material import Material, listed, of_prepared, of_protocol, part_of
from mmbench.data.preparing.auditing.values import Seen, look, told
from mmbench.data.preparing.vouching import hash_lines
from mmbench.errors import UsageError

if TYPE_CHECKING:
    from mmbench.data.base import MultimodalDataModule

SHOWN = 10  # skipped and doubtful samples, and classes of a split, that are named one by one
FEW = 2  # pairs of samples that a line names
SCARCE = 5  # training samples of a class, of which fewer are told


@dataclass
class Audit:
    """What an audit found.

    Attributes:
        facts: lines that describe the data.
        findings: lines on what a user should know of.
        violations: protocol -> what of the data breaks the protocol's promise.
        pairs: (line, sample, sample it is paired with) of what the lines tell of pairs, all of them.
    """

    facts: list[str] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    violations: dict[str, list[str]] = field(default_factory=lambda: {"clean": [], "legacy": []})
    pairs: list[tuple[str, str, str]] = field(default_factory=list)

    def breaks(self, protocol: str, promised: bool, line: str) -> None:
        """Add what is in two splits: a violation of ``clean``, where it promises that it is not, a finding otherwise."""
        if protocol == "clean" and promised:
            self.violations["clean"].append(line)
        else:
            self.findings.append(f"{protocol}: {line}")

    def paired(self, line: str, material: Material, rows: np.ndarray, others: np.ndarray, where: str = "") -> str:
        """The line with the first few pairs of samples, and how many more there are; all of them are noted, and of which protocol."""
        unordered: dict[tuple[int, int], tuple[int, int]] = {}
        for pair in zip(rows.tolist(), others.tolist(), strict=True):
            unordered.setdefault((min(pair), max(pair)), pair)
        named = [(str(material.ids[a]), str(material.ids[b])) for a, b in unordered.values()]
        self.pairs += [(f"{where}{line}", *pair) for pair in named]
        first = ", ".join(f"{one} and {other}" for one, other in named[:FEW])
        return f"{line}: {first}" + (f"; {len(named) - FEW} more" if len(named) > FEW else "")


def audit(data: type[MultimodalDataModule]) -> Audit:
    """Audit a data set, whatever its class: one that is prepared by its table and arrays, any other one by the splits that it loads.

    ``clean`` promises that no group and no file is in two splits, nor any text where the data set says so, nor a sample all of which is
    equal, and that every class is in every one of the three splits; and of the parts that its folds test the same, but for the classes.
    Texts are compared by ``text_key``: they count as one if they are equal to the eye. ``legacy`` promises the published lists: their
    counts. What was published of a data set is not held against a variant with classes of its own. NaN and infinite values break both.

    All else is told, and breaks nothing: feature vectors that are equal in two splits (as those of equal texts are), pictures that
    look alike (the hash may err), modalities whose absence gives the class away, columns without variation, and so on.
    """
    return audit_prepared(data) if issubclass(data, PreparedDataModule) else audit_loaded(data)


def audit_prepared(data: type[PreparedDataModule]) -> Audit:
    """Audit a prepared data set: of its table, what was skipped too."""
    manifest, table = data.read_manifest(), data.table()
    usable = table[table["skipped"] == ""].reset_index(drop=True)
    result, variant, material = Audit(), "classes" in manifest, of_prepared(data, manifest, table)
    describe(material, result)
    if variant:
        result.facts.append(
            f"a variant with classes of its own: what was published of that with {len(data.classes)} is not held against it"
        )
    published = {} if variant else data.published
    if (expected := published.get("all", {}).get("samples")) and expected != len(usable):
        result.findings.append(f"samples: {len(usable)}, published {expected}")
    where = f"all in {data.folder() / 'manifest.json'}"
    skipped = [f"{sample}: {file} {reason}".rstrip() for sample, file, reason in manifest["skipped"]]
    doubts = [f"{sample}: {why}" for sample, why in manifest.get("doubts", [])]
    for kind, lines in (("skipped", skipped), ("doubtful", doubts)):
        result.findings += [f"{kind}: {line}" for line in lines[:SHOWN]]
        if more := len(lines[SHOWN:]):
            result.findings.append(f"{kind}: {more} more, {where}")
    if count := manifest["unlisted"]["files"]:
        some = ", ".join(manifest["unlisted"]["first"][:3])
        result.findings.append(f"on disk, but in no list: {count} files, such as {some}")
    result.findings += manifest["notes"]
    splits = {protocol: usable[protocol].to_numpy(object) for protocol in ("clean", "legacy")}
    learnt = next((split for split in splits.values() if (split == "train").any()), splits["clean"])
    seen = look_at(material, learnt == "train")
    audit_content(material, seen, result)
    keys = keys_of(data, material, seen)
    same = bool((splits["clean"] == splits["legacy"]).all())
    for protocol, split in splits.items():
        folds_alone = protocol == "clean" and data.folds > 1 and not (split != "").any()
        if folds_alone:
            result.facts.append(f"clean: no one split, but {data.folds} folds; {data.lacks(protocol)}")
            continue
        audit_counts(protocol, material, split, keys, published.get(protocol, {}), data.lacks(protocol) or "", result)
        if protocol == "clean" or not same:
            audit_splits(protocol, material, split, keys, seen, result)
    if data.folds > 1:
        parts = data.parts(table)
        hashes = ", ".join(f"{split} {parts.hash_of(split)[:16]}" for split in ("clean", "legacy"))
        result.facts.append(f"{data.folds} folds by {data.folded_by}, lists {hashes}")
        audit_folds(material, parts.clean, data.folds, keys, seen, result)
        if lacking := parts.lacks():
            result.violations["clean"].append(f"folds: {lacking}")
    if same:
        result.findings.append(
            "legacy has the splits of clean: what differs is where the epoch is chosen, and nothing else"
        )
    return result


def audit_loaded(data: type[MultimodalDataModule]) -> Audit:
    """Audit a data set of any class by what its ``load`` returns.

    Samples are named as ``split_ids`` does, otherwise by split and position, such as train[17].
    """
    result, audited = Audit(), False
    for protocol in result.violations:
        try:
            material, split, notes = of_protocol(data, protocol)
        except UsageError as error:
            result.violations[protocol].append(f"refused: {error}")
            continue
        seen = look_at(material, split == "train")
        keys, published = keys_of(data, material, seen), getattr(data, "published", {}).get(protocol, {})
        if not audited:
            describe(material, result)
            result.findings += notes
            audit_content(material, seen, result)
        audit_counts(protocol, material, split, keys, published, "", result)
        audit_splits(protocol, material, split, keys, seen, result)
        if not audited and data.folds > 1:
            if (part := part_of(data, material)) is None:
                result.findings.append(
                    "folds are not looked at: the class does not tell them by sample (parts, split_ids)"
                )
            else:
                result.facts.append(f"{data.folds} folds by {data.folded_by}")
                audit_folds(material, part, data.folds, keys, seen, result)
        audited = True
    return result


def look_at(material: Material, train: np.ndarray) -> dict[str, Seen]:
    """What there is to see of each modality's arrays; the samples ``train`` (N,) bool are those whose columns are judged."""
    return {modality: look(material, modality, train) for modality in material.values}


def describe(material: Material, result: Audit) -> None:
    """Add how many samples, classes and groups there are, and what is absent."""
    groups = len(set(material.group.tolist()))
    result.facts.append(f"{len(material.ids)} samples, {len(material.classes)} classes, {groups} groups")
    if groups == len(material.ids):
        result.facts.append(
            "every sample is a group of its own: disjoint by group is no more than disjoint by sample here"
        )
    for modality, there in material.present.items():
        if absent := int((~there).sum()):
            result.facts.append(f"{absent} samples have no {modality}")


def audit_content(material: Material, seen: Mapping[str, Seen], result: Audit) -> None:
    """Add what there is to say of the samples whatever the split that they are in."""
    notes, broken = told(material, seen)
    giveaways = absence(material.present, material.label, material.classes)
    giveaways += spoken(material.texts, material.label, material.classes)
    result.findings += notes + giveaways
    for lines in result.violations.values():
        lines += broken


def audit_counts(
    protocol: str,
    material: Material,
    split: np.ndarray,
    keys: Sequence[Key],
    published: Mapping[str, int],
    why_none: str,
    result: Audit,
) -> None:
    """Add how many samples the splits of a protocol have, of which classes, and what is wrong with that."""
    if not (split != "").any():
        result.facts.append(f"{protocol}: no splits; {why_none}" if why_none else f"{protocol}: no splits")
        result.violations[protocol].append("there are no splits")
        return
    for name in SPLITS:
        audit_count(protocol, name, material, np.flatnonzero(split == name), published, result)
    trained = split == "train"
    if unseen := [m for m, there in material.present.items() if trained.any() and not there[trained].any()]:
        result.findings.append(f"{protocol}: no training sample has {', '.join(unseen)}")
    left_out, taken = np.flatnonzero(split == ""), np.flatnonzero(split != "")
    if len(left_out):
        same = np.unique(np.concatenate([partners(key.values, taken, left_out)[0] for key in keys] or [left_out[:0]]))
        share = f"; {len(same)} of them share a file, text or vector with one that is" if len(same) else ""
        result.facts.append(f"{protocol}: {len(left_out)} samples are in no split{share}")


def audit_splits(
    protocol: str, material: Material, split: np.ndarray, keys: Sequence[Key], seen: Mapping[str, Seen], result: Audit
) -> None:
    """Add what is on two sides of a protocol's splits; for ``clean``, also what is the same within one."""
    line, (rows, _) = crossing(split, partial(partners, material.group), "share their group", "with")
    if line:
        groups = listed(list(dict.fromkeys(material.group[rows].tolist())))
        result.breaks(protocol, True, f"{line}: {groups}")
    for key in keys:
        line, pairs = crossing(split, partial(partners, key.values), f"share their {key.name}", "with")
        if line:
            result.breaks(protocol, key.promised, result.paired(line, material, *pairs, f"{protocol}: "))
    for modality, near in different(seen, keys).items():
        line, pairs = crossing(split, partial(near_partners, near), f"have a look-alike ({modality})", "in")
        if line:
            result.breaks(protocol, False, result.paired(line, material, *pairs, f"{protocol}: "))
        if protocol == "clean":
            inside = near[(split[near[:, 0]] == split[near[:, 1]]) & (split[near[:, 0]] != "")]
            audit_inside(modality, inside, material, result)
    if protocol == "clean":
        for key in keys:
            audit_same(key, material, split, result)


def audit_count(
    protocol: str, name: str, material: Material, rows: np.ndarray, published: Mapping[str, int], result: Audit
) -> None:
    """Add how many samples a split has, of which classes, and what is wrong with that."""
    if name in published and published[name] != len(rows):
        if protocol == "legacy" and (len(rows) or name != "validation"):  # which legacy does not use
            result.violations["legacy"].append(f"{name} has {len(rows)} samples, published {published[name]}")
        else:
            result.findings.append(f"{protocol} {name}: {len(rows)} samples, published {published[name]}")
    if not len(rows):
        if protocol == "clean":
            result.violations["clean"].append(f"there is no {name} split")
        return
    classes = material.classes
    counts = np.bincount(material.label[rows], minlength=len(classes))
    told = f" (published: {published[name]})" if name in published else ""
    ids = f", list {hash_lines(sorted(map(str, material.ids[rows])))[:16]}" if material.own_ids else ""
    result.facts.append(f"{protocol} {name}: {len(rows)} samples{told}{ids}: {by_class(counts, classes)}")
    if gone := [classes[number] for number in np.flatnonzero(counts == 0).tolist()]:
        line = f"{name} has no sample of {listed(gone, SHOWN)}"
        if protocol == "clean":
            result.violations["clean"].append(line)
        elif name == "train":
            result.findings.append(f"{protocol}: {line}")
    scarce = np.flatnonzero((counts > 0) & (counts < SCARCE)).tolist()
    if name == "train" and scarce:
        few = listed([f"{classes[number]} {counts[number]}" for number in scarce])
        result.findings.append(f"{protocol}: {len(scarce)} classes have fewer than {SCARCE} training samples: {few}")


def audit_inside(modality: str, pairs: np.ndarray, material: Material, result: Audit) -> None:
    """Add which samples look like another one of their split: pairs (P, 2)."""
    if len(pairs):
        line = f"{len(np.unique(pairs))} samples have a look-alike ({modality}) in their own split (clean)"
        result.findings.append(result.paired(line, material, pairs[:, 0], pairs[:, 1]))


def audit_same(key: Key, material: Material, split: np.ndarray, result: Audit) -> None:
    """Add which samples, of one file: the same clip of it, are the same as another one of their split, or of another label."""
    values = clipped(key.values, material.clips)
    rows, first = within(values, split)
    if len(rows):
        line = f"{len(rows)} samples share the {key.kind} with another one of their split (clean)"
        result.findings.append(result.paired(line, material, rows, first))
    rows, other = conflicts(values, material.label)
    if len(rows):
        line = f"{len(rows)} samples share the {key.kind} with a sample of another label"
        result.findings.append(result.paired(line, material, rows, other))


def audit_folds(
    material: Material,
    part: np.ndarray,
    folds: int,
    keys: Sequence[Key],
    seen: Mapping[str, Seen],
    result: Audit,
) -> None:
    """Add what there is to say of the parts (N,) that the folds test: ``clean`` promises of them what it promises of its splits."""
    classes = material.classes
    for fold in range(folds):
        tested, trained = part == fold, (part != fold) & (part != (fold + 1) % folds)
        counts, learnt = (
            np.bincount(material.label[rows], minlength=len(material.classes)) for rows in (tested, trained)
        )
        tests = f"tests {int(tested.sum())} samples: {by_class(counts, classes)}"
        result.facts.append(f"clean fold {fold}: {tests}")
        if gone := [classes[number] for number in np.flatnonzero(learnt == 0).tolist()]:
            result.findings.append(f"clean fold {fold}: train has no sample of {listed(gone, SHOWN)}")
    rows, _ = conflicts(material.group, part)
    if len(rows):
        groups = listed(list(dict.fromkeys(material.group[rows].tolist())))
        result.breaks("clean", True, f"{len(rows)} samples share their group with a sample of another fold: {groups}")
    for key in keys:
        rows, other = conflicts(key.values, part)
        if len(rows):
            line = f"{len(rows)} samples share their {key.name} with a sample of another fold"
            result.breaks("clean", key.promised, result.paired(line, material, rows, other, "clean: "))
    for modality, pairs in different(seen, keys).items():
        apart = pairs[part[pairs[:, 0]] != part[pairs[:, 1]]]
        if len(apart):
            line = f"{len(np.unique(apart))} samples have a look-alike ({modality}) in another fold"
            result.breaks("clean", False, result.paired(line, material, apart[:, 0], apart[:, 1], "clean: "))


def by_class(counts: np.ndarray, classes: Sequence[str]) -> str:
    """How many samples a part has of each class; of many classes, the least and the most."""
    if len(counts) > SHOWN:
        return f"{counts.min()} to {counts.max()} of a class"
    return ", ".join(f"{name} {size}" for name, size in zip(classes, counts, strict=True))
