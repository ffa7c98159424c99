"""What a folder's table and files say of themselves: a first declaration, and the reason of every line of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mmbench.data.adding.guesses import (
    GROUPS,
    IDS,
    LABELS,
    MOST,
    SPLITS,
    Column,
    Line,
    arrays_of,
    family_of,
    numbers_of,
)
from mmbench.data.adding.metadata import Metadata
from mmbench.data.adding.samples import SPLIT_NAMES, classes_of
from mmbench.data.preparing.texts import words

FOLDS = 5


@dataclass
class Inferred:
    """What was found.

    Attributes:
        content: of ``dataset.yaml``.
        lines: what was inferred.
        unused: the columns and files that are not used, and why.
        open: what could not be inferred, and what to do.
    """

    content: dict[str, Any]
    lines: list[Line] = field(default_factory=list)
    unused: list[Line] = field(default_factory=list)
    open: list[str] = field(default_factory=list)


def infer(
    name: str, metadata: Metadata, given: Mapping[str, str | None], known: Mapping[str, Any] | None = None
) -> Inferred:
    """A declaration for a folder.

    Args:
        name: of the data set.
        metadata: its tables.
        given: the columns of label, group, split and id that the user named.
        known: what else says the same, and ``classes``; the user's word is before it.

    Raises:
        UsageError: a column that was named is not there, or the label column holds no labels.
    """
    columns = {column: Column(metadata, column) for column in metadata.columns}
    for key, column in given.items():
        if column is not None:
            metadata.need(column, f"--{key}")
    result = Inferred({"name": name, "metadata": metadata.paths})
    roles: dict[str, str | None] = dict.fromkeys(("id", "label", "group", "split"))
    known = known or {}
    for role in ("label", "split", "group", "id"):
        named = given.get(role) or known.get(role)
        roles[role], why = find_role(role, columns, named, {c for c in roles.values() if c})
        why = why if given.get(role) or role not in known else "as the data set says"
        result.lines.append(Line(role, roles[role] or "–", why))
    label = roles["label"]
    modalities: dict[str, dict[str, Any]] = {}
    if label is None:
        result.open.append("the column of the label: name it with --label COLUMN")
        result.content |= {**roles, "classes": []}
    else:
        names = known["classes"] if label == known.get("label") else classes_of(metadata, label)
        counts = columns[label].counts()
        some = ", ".join(f"{one} {counts.get(one, 0)}" for one in names[:6]) + (" …" if len(names) > 6 else "")
        result.lines.append(Line("classes", str(len(names)), some))
        result.content |= {**roles, "classes": names}
    numeric: list[str] = []
    families = Counter(family_of(one.name) for one in columns.values() if one.is_number)
    for one in (column for column in columns.values() if column.name not in roles.values()):
        if one.is_number and one.name != (family := family_of(one.name)) and families[family] > 1:
            numeric.append(one.name)
        elif why := one.no_modality(columns[label] if label else None):
            result.unused.append(Line(one.name, "not used", why))
        elif one.is_number:
            numeric.append(one.name)
        else:
            found, line = one.modality()
            modalities[unique_name(line.what, modalities)] = found
            result.lines.append(line)
    for found, line in [*numbers_of(metadata, numeric), *arrays_of(metadata, columns, roles["id"])]:
        if found:
            line.what = unique_name(line.what, modalities)
            modalities[line.what] = found
            result.lines.append(line)
        else:
            result.unused.append(line)
    if not modalities:
        result.open.append(
            "a modality: no column holds paths, texts or numbers, and no file beside the table holds vectors"
        )
    finish(result, metadata, columns, roles, modalities)
    return result


def finish(
    result: Inferred,
    metadata: Metadata,
    columns: Mapping[str, Column],
    roles: Mapping[str, str | None],
    modalities: dict[str, dict[str, Any]],
) -> None:
    """Add what follows from the modalities and the roles."""
    texts = [name for name, one in modalities.items() if one["kind"] == "text"]
    conditioning = next(iter(texts or modalities), "")
    result.lines.append(Line("conditioning", conditioning or "–", "the first text" if texts else "the first modality"))
    groups = len(set(columns[roles["group"]].texts)) if roles["group"] else len(metadata)
    if roles["split"] or len(metadata.paths) > 1:
        folds, why = 1, "a split was given; a number of folds cuts all samples anew"
    else:
        folds = FOLDS if groups >= FOLDS else groups if groups >= 3 else 1
        why = f"of whole {'groups' if roles['group'] else 'samples'}"
    result.lines.append(Line("folds", str(folds), why))
    distinct = [columns[modalities[name]["column"]] for name in texts]
    keys = [key for column in distinct for key in map(words, column.texts) if key]
    unlike = len(set(keys)) / max(1, len(keys))
    if texts:
        verb = "are kept within a split" if unlike > MOST else "may be in several splits"
        result.lines.append(Line("equal texts", verb, f"{unlike:.0%} of the texts are different"))
    result.content |= {
        "modalities": modalities, "conditioning": conditioning, "folds": folds, "distinct_texts": bool(texts) and unlike > MOST,
    }  # fmt: skip


def find_role(role: str, columns: Mapping[str, Column], given: str | None, taken: set[str]) -> tuple[str | None, str]:
    """The column of a role, and why it is that."""
    if given is not None:
        return given, "as you say"
    names = {"id": IDS, "label": LABELS, "group": GROUPS, "split": SPLITS}[role]
    like = [c for name in names for c in columns.values() if c.slug == name and c.name not in taken and c.filled]
    if role == "label":
        like += [
            c
            for c in columns.values()
            if c.slug.endswith(("_label", "_class")) and c.name not in taken and c not in like
        ]
    why = {
        "id": "no column has names of samples: rows are numbered",
        "label": "no column is called like a label",
        "group": "no column is called like a group: clean will only be stratified",
        "split": "the folders of the tables"
        if len(next(iter(columns.values())).metadata.paths) > 1
        else "none given: cut here",
    }[role]
    for column in like:
        different = len(set(column.texts))
        if role == "label" and (
            column.media or column.nested or different < 2 or different > max(2, len(column.texts) // 2)
        ):
            why = (
                f"'{column.name}' is called like one, but has {different} different values in {len(column.texts)} rows"
            )
            continue
        if role == "id" and (different < len(column.texts) or len(column.filled) < len(column.texts) or column.media):
            if not column.media and different > 0.5 * len(column.texts):
                twice = next((text for text, count in column.counts().items() if count > 1), "")
                why = f"'{column.name}' is called like one, but has '{twice[:30]}' twice: rows are numbered"
            continue
        if role == "group" and (different in (1, len(column.texts)) or column.media or column.nested):
            continue
        if (
            role == "split"
            and column.slug != "split"
            and not {t.casefold() for t in column.texts} <= SPLIT_NAMES.keys()
        ):
            continue
        told = {"group": f"; {different} groups", "split": f"; {', '.join(sorted(set(column.texts))[:4])}"}.get(
            role, ""
        )
        return column.name, f"called '{column.name}'{told}"
    return None, why


def unique_name(name: str, taken: Mapping[str, Any]) -> str:
    """The name, numbered if it is taken."""
    name = name or "modality"
    return name if name not in taken else next(f"{name}_{n}" for n in range(2, 1000) if f"{name}_{n}" not in taken)
