"""What a column or a file looks like: which modality it may be, and why."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from mmbench.data.adding.decoding import ENDINGS
from mmbench.data.adding.metadata import Metadata, number
from mmbench.data.adding.samples import path_of
from mmbench.data.adding.vectors import ARRAYS, parse_list, read_array, read_file, read_vector
from mmbench.data.preparing.lists import find_files, is_left_behind
from mmbench.data.preparing.media import BadFile
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
    "participant", "participant_id", "person", "user", "user_id", "client_id", "author", "author_id", "artist", "artist_id",
    "session", "session_id", "dialogue", "dialogue_id", "recording", "recording_id", "source", "site", "seller", "seller_id",
    "sold_by", "vendor", "customer", "customer_id", "client", "brand", "uploader", "publisher",
)  # fmt: skip
SPLITS = ("split", "set", "subset", "partition", "fold", "split_name")
"""What columns are called, the likeliest first."""
MOST = 0.8  # the share of a column's cells that decides what it is
LOOKED_AT = 16  # files that are opened to tell sizes and lengths
SMALL, PICTURE = 32, 64  # sides of pictures
FEW = 20  # different texts of a column that is rather a property than a text
WILD = 10.0  # root mean square of vectors beyond which, or below one part of which, they are standardised


@dataclass
class Line:
    """One line of the table that is printed: what it is about, what was found, and why."""

    what: str
    found: str
    why: str

    def __post_init__(self) -> None:
        """Replace what does not print, as names in files of arrays may have it."""
        for name, text in vars(self).items():
            setattr(self, name, "".join(c if c.isprintable() else "\ufffd" for c in text))


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
            return f"it is always {self.filled[0][:30]!r}"
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
        written = sum(bool(re.fullmatch(r"[^\w\s-]?\s?[+-]?[\d.,\s]*\d\s?\W?", text)) for text in different)
        if written > MOST * len(different):
            return "numbers that are not written as such; write 12.5 for 12,5, and leave out signs of currencies"
        if len(different) == len(self.texts) and sum(
            " " not in text and bool(re.search(r"\d", text)) for text in different
        ) > MOST * len(different):
            return f"a code of its own for each sample; --id {self.name} takes it for their names"
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
        there = [self.metadata.root / path for path in paths if os.path.isfile(self.metadata.root / path)]
        lacking = len(self.texts) - len(self.filled)
        absent = f", {lacking} empty: absent" if lacking else ""
        settings, told = look_at(self.media, there[:LOOKED_AT])
        why = f"'{self.name}': {len(there)} of {len(paths)} files are there{absent}{told}"
        return {"kind": self.media, "file": self.name, **settings}, Line(
            name_of_media(self.slug, self.media), self.media, why
        )


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
    """The arrays in files beside the table that hold a vector of every sample, by row or by id; and those that do not."""
    found: list[tuple[dict[str, Any], Line]] = []
    listed = {text for column in columns.values() if column.media == "features" for text in column.filled}
    ids = set(columns[id_column].texts) if id_column else set()
    for path in array_files(metadata.root):
        if path.name in listed:
            continue
        for name, key in arrays_in(path, len(metadata)):
            what = path.name if key is None else f"{path.name}: {key}"
            try:
                content = read_array(path, key)
            except UsageError as error:
                found.append(({}, Line(what, "not used", str(error).removeprefix(f"{path}: "))))
                continue
            given: dict[str, Any] = {"array": path.name} if key is None else {"array": path.name, "key": key}
            found.append(judged(content, what, name, given, len(metadata), ids))
    return found


def array_files(root: Path) -> list[Path]:
    """The files of arrays in a folder."""
    return sorted(p for ending in ARRAYS for p in find_files(root, ending) if not is_left_behind(p.name))


def arrays_in(path: Path, rows: int) -> list[tuple[str, str | None]]:
    """(modality, name) of the arrays in a file: of several with a row a sample, each; otherwise the file is one."""
    try:
        content = read_file(path)
    except UsageError:  # told by who reads it next
        content = None
    if isinstance(content, Mapping) and len(content) > 1:
        tables = [name for name, value in content.items() if getattr(value, "ndim", 0) >= 1 and len(value) == rows]
        if any(content[name].ndim > 1 for name in tables):
            return [(slug(str(name)), str(name)) for name in content]
    name = re.sub(r"_(features?|feats?|embeddings?|embs?|vectors?)$", "", slug(path.stem)) or slug(path.stem)
    return [(name, None)]


def judged(
    content: np.ndarray | dict[str, np.ndarray], what: str, name: str, given: dict[str, Any], rows: int, ids: set[str]
) -> tuple[dict[str, Any], Line]:
    """Whether an array is a modality, and why not."""
    if isinstance(content, dict):
        if not (matching := len(ids & content.keys())):
            return {}, Line(what, "not used", "its names are no ids of the table")
        some = list(content.values())[:1000]
        values = np.stack([vector for vector in some if len(vector) == len(some[0])])
        why = f"{what}: by id, {matching} of {rows} are there, {values.shape[1]} numbers each"
    elif len(content) != rows:
        return {}, Line(what, "not used", f"{len(content):,} rows, the table has {rows:,}")
    elif content.shape[1] == 1:
        return {}, Line(what, "not used", "one number a sample: rather labels or ids")
    else:
        values, why = content, f"{what}: by row, {content.shape[1]} numbers each"
    told, standardise = scale_of(values)
    return {"kind": "features", **given, **standardise}, Line(name, "features", why + told)


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
