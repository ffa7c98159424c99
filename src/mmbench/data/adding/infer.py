"""What a folder's table and files say of themselves: a first declaration, and the reason of every line of it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from mmbench.data.adding.decoding import ENDINGS
from mmbench.data.adding.metadata import Metadata, number
from mmbench.data.adding.samples import SPLIT_NAMES, classes_of, path_of
from mmbench.data.adding.vectors import ARRAYS, parse_list, read_array, read_vector
from mmbench.data.preparing.lists import find_files, is_left_behind
from mmbench.data.preparing.media import BadFile
from mmbench.data.preparing.texts import words
from mmbench.errors import UsageError

IDS = ("id", "sample_id", "sample", "uid", "uuid", "key", "utterance", "utterance_id", "item_id", "item", "name")
LABELS = (
    "label",
    "labels",
    "class",
    "category",
    "target",
    "y",
    "class_name",
    "label_name",
    "emotion",
    "genre",
    "sentiment",
)
GROUPS = (
    "group", "group_id", "groups", "subject", "subject_id", "speaker", "speaker_id", "actor", "actor_id", "patient", "patient_id",
    "participant", "participant_id", "person", "user", "user_id", "author", "author_id", "artist", "artist_id", "session", "session_id",
    "dialogue", "dialogue_id", "recording", "recording_id", "source", "site", "seller", "seller_id",
)  # fmt: skip
SPLITS = ("split", "set", "subset", "partition", "fold", "split_name")
"""What columns are called, the likeliest first."""
MOST = 0.8  # the share of a column's cells that decides what it is
LOOKED_AT = 16  # files that are opened to tell sizes and lengths
SMALL, PICTURE = 32, 64  # sides of pictures
FEW = 20  # different texts of a column that is rather a property than a text
WILD = 10.0  # root mean square of vectors beyond which, or below one part of which, they are standardised
FOLDS = 5


@dataclass
class Line:
    """One line of the table that is printed: what it is about, what was found, and why."""

    what: str
    found: str
    why: str


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


class Column:
    """A column of the table, and what it looks like."""

    def __init__(self, metadata: Metadata, name: str) -> None:
        import pyarrow as pa

        kind = metadata.table.column(name).type
        self.metadata, self.name = metadata, name
        self.nested = pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
        self.is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
        self.texts = [] if self.nested else metadata.texts(name)
        self.filled = [text for text in self.texts if text and text != "nan"]
        self.is_number = not self.nested and bool(self.filled) and all(not np.isnan(number(t)) for t in self.filled)
        kinds = [ending_of(text) for text in self.filled]
        self.media = next((k for k in ENDINGS if kinds.count(k) >= MOST * max(1, len(kinds))), None) if kinds else None
        if not self.nested and not self.is_number and self.media is None:
            lists = [isinstance(parse_list(text), list) for text in self.filled[:LOOKED_AT] if text.startswith("[")]
            self.is_list = len(lists) == len(self.filled[:LOOKED_AT]) > 0 and all(lists)

    @property
    def slug(self) -> str:
        """Its name in small letters, digits and underscores."""
        return slug(self.name)

    def counts(self) -> dict[str, int]:
        """How often each text is in it."""
        found: dict[str, int] = {}
        for text in self.texts:
            found[text] = found.get(text, 0) + 1
        return found

    def no_modality(self, label: Column | None) -> str:
        """Why the column is no modality, in words; "" if it may be one."""
        if self.is_list:
            return ""
        if self.nested:
            return "nested values or bytes; `mmbench data add --hf` reads those of Hugging Face data sets"
        if not self.filled:
            return "it is empty"
        different = set(self.filled)
        if len(different) == 1:
            return f"it is always '{self.filled[0][:30]}'"
        if self.media:
            return ""
        if label is not None and len(self.filled) == len(self.texts):
            pairs = set(zip(self.texts, label.texts, strict=True))
            if len(pairs) == len(different) <= max(2, len(self.texts) // 4) and len(different) >= len(set(label.texts)):
                return f"each of its values has one class: it would give '{label.name}' away"
        if self.is_number:
            if self.slug.startswith("unnamed") or self.slug in ("index", *IDS):
                return "it numbers the rows"
            return ""
        if sum(bool(re.match(r"(https?|s3|gs|ftp)://", text)) for text in self.filled) > MOST * len(self.filled):
            return "addresses; download the files, and give their paths"
        if sum(bool(re.fullmatch(r"\d{4}-\d\d-\d\d([ T].*)?", text)) for text in self.filled) > MOST * len(self.filled):
            return "dates"
        few = max(FEW, 0.05 * len(self.filled))
        if len(different) <= few and sum(" " in text for text in different) < MOST * len(different):
            return f"{len(different)} different words; {{kind: text, column: {self.name}}} in dataset.yaml takes them as texts"
        if self.slug in IDS or self.slug.endswith("_id"):
            return "called like an id"
        return ""

    def modality(self) -> tuple[dict[str, Any], Line]:
        """What modality it is, and the line that says so, with its name."""
        if self.is_list:
            return {"kind": "features", "column": self.name}, Line(
                self.slug, "features", f"'{self.name}': lists of numbers"
            )
        if self.media is None:
            lacking = len(self.texts) - len(self.filled)
            absent = f", {lacking} empty: absent" if lacking else ""
            return {"kind": "text", "column": self.name}, Line(
                self.slug, "text", f"'{self.name}': {len(set(self.filled))} different{absent}"
            )
        paths = [
            path_of(self.metadata.root, text, folder)
            for text, folder in zip(self.texts, self.metadata.folders, strict=True)
            if text
        ]
        there = [self.metadata.root / path for path in paths if (self.metadata.root / path).is_file()]
        lacking = len(self.texts) - len(self.filled)
        absent = f", {lacking} empty: absent" if lacking else ""
        settings, told = look_at(self.media, there[:LOOKED_AT])
        why = f"'{self.name}': {len(there)} of {len(paths)} files are there{absent}{told}"
        return {"kind": self.media, "file": self.name, **settings}, Line(
            name_of_media(self.slug, self.media), self.media, why
        )


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
    for column in like:
        different = len(set(column.texts))
        if role == "label" and (
            column.media or column.nested or different < 2 or different > max(2, len(column.texts) // 2)
        ):
            continue
        if role == "id" and (different < len(column.texts) or len(column.filled) < len(column.texts) or column.media):
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
    return None, {
        "id": "no column has names of samples: rows are numbered",
        "label": "no column is called like a label",
        "group": "no column is called like a group: clean will only be stratified",
        "split": "the folders of the tables"
        if len(next(iter(columns.values())).metadata.paths) > 1
        else "none given: cut here",
    }[role]


def numbers_of(metadata: Metadata, columns: Sequence[str]) -> list[tuple[dict[str, Any], Line]]:
    """Columns of numbers: those that are numbered, as vectors by the name that they share; the others as one modality."""
    families: dict[str, list[str]] = {}
    for column in columns:
        families.setdefault(family_of(column), []).append(column)
    alone = [members.pop() for members in families.values() if len(members) == 1]
    found = []
    for prefix, members in families.items():
        if not members:
            continue
        values = np.stack([metadata.numbers(c) for c in members], axis=1)
        told, standardise = scale_of(values)
        content = {"kind": "features", "columns": [f"{prefix}*"], **standardise}
        found.append((content, Line(slug(prefix) or "features", "features", f"{len(members)} columns {prefix}*{told}")))
    if alone:
        alone.sort(key=list(columns).index)
        content = {"kind": "numbers", "columns": alone, "standardise": True}
        found.append(
            (content, Line("numbers", "numbers", f"{', '.join(alone[:5])}{' …' * (len(alone) > 5)}; standardised"))
        )
    return found


def family_of(column: str) -> str:
    """What is before the number at the end of a column's name; the name itself where there is none."""
    match = re.fullmatch(r"(.*?)\d+", column)
    return match[1] if match else column


def arrays_of(
    metadata: Metadata, columns: Mapping[str, Column], id_column: str | None
) -> list[tuple[dict[str, Any], Line]]:
    """The files beside the table that hold a vector of every sample, by row or by id; and those that do not."""
    found: list[tuple[dict[str, Any], Line]] = []
    listed = {text for column in columns.values() if column.media == "features" for text in column.filled}
    ids = set(columns[id_column].texts) if id_column else set()
    files = sorted(p for ending in ARRAYS for p in find_files(metadata.root, ending) if not is_left_behind(p.name))
    for path in files:
        if path.name in listed:
            continue
        try:
            content = read_array(path)
        except UsageError as error:
            found.append(({}, Line(path.name, "not used", str(error).removeprefix(f"{path}: "))))
            continue
        if isinstance(content, dict):
            matching = len(ids & content.keys())
            if not matching:
                found.append(({}, Line(path.name, "not used", "its names are no ids of the table")))
                continue
            values = np.stack(
                [
                    vector
                    for name, vector in list(content.items())[:1000]
                    if len(vector) == len(next(iter(content.values())))
                ]
            )
            why = f"{path.name}: by id, {matching} of {len(metadata)} are there, {values.shape[1]} numbers each"
        elif len(content) != len(metadata):
            found.append(({}, Line(path.name, "not used", f"{len(content):,} rows, the table has {len(metadata):,}")))
            continue
        elif content.shape[1] == 1:
            found.append(({}, Line(path.name, "not used", "one number a sample: rather labels or ids")))
            continue
        else:
            values = content
            why = f"{path.name}: by row, {content.shape[1]} numbers each"
        told, standardise = scale_of(values)
        name = re.sub(r"_(features?|feats?|embeddings?|embs?|vectors?)$", "", slug(path.stem)) or slug(path.stem)
        found.append(({"kind": "features", "array": path.name, **standardise}, Line(name, "features", why + told)))
    return found


def scale_of(values: np.ndarray) -> tuple[str, dict[str, bool]]:
    """Whether vectors are to be standardised, and why, as the end of a line: those of a scale that no training bears."""
    some = np.asarray(values[:: max(1, len(values) // 1000)], np.float64)
    some = some[np.isfinite(some).all(axis=1)]
    if not len(some):
        return "", {}
    size = float(np.sqrt(np.square(some).mean()))
    if 1 / WILD <= size <= WILD or size == 0:
        return "", {}
    return f"; standardised (their root mean square is {size:.3g})", {"standardise": True}


def look_at(kind: str, files: Sequence[Path]) -> tuple[dict[str, Any], str]:
    """Sizes and lengths that suit some files, and what was seen, as the end of a line."""
    if kind == "picture":
        sides = [side for file in files if (side := side_of(file))]
        small = bool(sides) and max(sides) <= SMALL
        size = SMALL if small else PICTURE
        return {"size": size}, f"; stored as {size} × {size}"
    if kind == "sound":
        lengths = [seconds for file in files if (seconds := seconds_of(file))]
        seconds = float(min(10.0, max(0.5, np.ceil(2 * np.median(lengths)) / 2))) if lengths else 3.0
        return {"seconds": seconds}, f"; the first {seconds:g} s of each are kept"
    if kind == "video":
        return {"frames": 3, "size": PICTURE}, f"; 3 frames of {PICTURE} × {PICTURE}"
    widths = []
    for file in files:
        try:
            widths.append(len(read_vector(file, None)))
        except BadFile:
            continue
    return {}, f"; {max(widths, key=widths.count)} numbers each" if widths else ""


def side_of(path: Path) -> int:
    """The longer side of a picture, by its head; 0 if there is none."""
    from PIL import Image

    from mmbench.data.preparing.pictures import PICTURES

    try:
        with Image.open(path, formats=PICTURES) as picture:
            return max(picture.size)
    except Exception:  # it is told of when it is decoded
        return 0


def seconds_of(path: Path) -> float:
    """How long a recording lasts; 0 if that cannot be told."""
    from mmbench.data.preparing.sound import RATE, read_audio

    try:
        return len(read_audio(path)) / RATE
    except BadFile:
        return 0.0


def ending_of(text: str) -> str | None:
    """The kind of a file, by its name."""
    suffix = PurePosixPath(text.replace("\\", "/")).suffix.lower()
    return next((kind for kind, endings in ENDINGS.items() if suffix in endings), None)


def name_of_media(column: str, kind: str) -> str:
    """The modality that a column of paths is of: what is before ``_file_name`` and the like; else the kind."""
    name = re.sub(r"_?(file_?names?|file_?paths?|paths?|files?|filename|uri)$", "", column)
    return name or {"picture": "image", "sound": "audio"}.get(kind, kind)


def slug(text: str) -> str:
    """A name in small letters, digits and underscores."""
    return re.sub(r"[^a-z0-9]+", "_", text.strip().lower()).strip("_")[:40].strip("_")


def unique_name(name: str, taken: Mapping[str, Any]) -> str:
    """The name, numbered if it is taken."""
    name = name or "modality"
    return name if name not in taken else next(f"{name}_{n}" for n in range(2, 1000) if f"{name}_{n}" not in taken)
