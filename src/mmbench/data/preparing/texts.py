"""What the data sets of pictures with texts share: the lists of two releases, and what makes two texts equal."""

from __future__ import annotations

import html
import json
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmbench.data.preparing.lists import plain, read_lines, within
from mmbench.data.preparing.pictures import read_image
from mmbench.data.preparing.raw import Listing, Sample, Source, merge
from mmbench.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

SIZE = (256, 256)  # what M3AE takes
UNSEEN = "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0" + "".join(
    map(chr, [*range(0xFE00, 0xFE10), *range(0x180B, 0x1810)])
)
"""Fillers and variation selectors: nothing is seen of them, yet Unicode does not count them among its format characters."""
ENCODERS: Mapping[str, Mapping[str, Any]] = {
    "text": {"name": "m3ae_text", "weights": "m3ae_base.pkl", "max_length": 256},
    "image": {"name": "m3ae_image", "weights": "m3ae_base.pkl"},
}
RELEASES = {
    "QMF": {"train": "train.jsonl", "validation": "dev.jsonl", "test": "test.jsonl"},
    "MLA": {"train": "my_train_{}.txt", "test": "my_test_{}.txt"},
}


def decode_image(path: Path, sample: Sample) -> Mapping[str, np.ndarray]:
    """The picture."""
    return {"picture": read_image(path, SIZE)}


IMAGE = Source({"picture": ((*SIZE, 3), "uint8")}, decode_image, "upright, scaled and cut to 256 × 256")


def words(text: str) -> str:
    """What texts are compared by: equal for texts that are equal to the eye, whatever their case and punctuation.

    HTML entities are read, also where they were escaped twice; composed and decomposed letters, ligatures, full-width letters and all
    kinds of blanks are made alike (Unicode's NFKC and case folding); characters that are not seen (soft hyphens, zero-width blanks,
    directions) are dropped. A text without any word keeps its signs; one of which nothing is seen is "".

    >>> words("Grandma's Apple-Pie!"), words("???"), words("Cafe\u0301 &amp;amp; Stra\u00dfe"), words("\u200b")
    ('grandma s apple pie', '???', 'caf\u00e9 strasse', '')
    """
    while (plain := html.unescape(text)) != text:
        text = plain
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    text = "".join(c for c in text if unicodedata.category(c) != "Cf" and c not in UNSEEN)
    return " ".join(re.findall(r"\w+", text)) or " ".join(text.split())


def twins(samples: pd.DataFrame) -> list[str]:
    """One name for all samples that are linked by an equal group (that is, text) or an equal picture: that of the first of them."""
    return [samples["id"].iloc[int(first)] for first in merge(samples["group"], samples["sha256_image"])]


@dataclass
class Lists:
    """The published lists that a user has put into the raw folder.

    Attributes:
        release: a key of ``RELEASES``; "" if there are none.
        entries: path of the picture -> (split, class, where it is given).
        repeated: lines that say once more what another line says.
    """

    release: str = ""
    entries: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    repeated: int = 0

    def split(self, raw: Path, listing: Listing, classes: Sequence[str]) -> None:
        """Give the samples the splits of the lists; what the lists and the data set do not agree on is skipped.

        Raises:
            UsageError: a list's path leads out of the raw folder.
        """
        known, kept = {str(sample.files["image"]) for sample in listing.samples}, []
        for sample in listing.samples:
            path, own = str(sample.files["image"]), classes[sample.label]
            split, label, where = self.entries.get(path, ("", own, ""))
            if label == own:
                kept.append(replace(sample, legacy=split))
            else:
                listing.skipped.append((sample.id, path, f"is {own} by the data set, {label} by {where}"))
        for path, (_, _, where) in self.entries.items():
            if path not in known:
                within(raw, path, where)
                listing.skipped.append((where, path, "is in the list, but is no sample of the data set"))
        listing.samples = kept
        if self.repeated:
            listing.notes.append(f"{self.release}'s lists repeat {self.repeated} lines")


def read_lists(
    raw: Path, name: str, classes: Sequence[str], path_of: Callable[[str, str, str], str], notes: list[str]
) -> Lists:
    """Read the lists in ``<raw>/lists``: QMF's, one JSON object {id, label, text, img} a line, or MLA's, "<file> <class>" a line.

    Args:
        raw: the raw folder.
        name: the data set's in the names of MLA's lists.
        classes: the names that labels may have.
        path_of: (file name, class, split) -> path below the raw folder, for MLA's lists.
        notes: those of ``read_text``.

    Raises:
        UsageError: a list is missing, both releases' are there, a line is not in the format, or two lines contradict each other.
    """
    names = {
        release: {s: raw / "lists" / f.format(name) for s, f in files.items()} for release, files in RELEASES.items()
    }
    given = [release for release, files in names.items() if any(path.exists() for path in files.values())]
    if len(given) > 1:
        raise UsageError(f"{raw / 'lists'} holds the lists of {' and of '.join(given)}; expected those of one release")
    lists = Lists(given[0] if given else "")
    for split, file in names[lists.release].items() if given else ():
        if not file.exists():
            raise UsageError(f"{file} is missing, but another list of {lists.release}'s is there")
        for where, line in read_lines(file, notes):
            path, label = (
                parse_object(where, line) if file.suffix == ".jsonl" else parse_pair(where, line, split, path_of)
            )
            if label not in classes:
                raise UsageError(f"{where}: unknown class '{label}'; {did_you_mean(label, classes)}")
            if path not in lists.entries:
                lists.entries[path] = (split, label, where)
            elif lists.entries[path][:2] == (split, label):
                lists.repeated += 1
            else:
                raise UsageError(
                    f"{where}: {path} is given as {label} for {split}, otherwise by {lists.entries[path][2]}"
                )
    return lists


def parse_object(where: str, line: str) -> tuple[str, str]:
    """Path and class of a line of QMF's lists; its text is not used."""
    try:
        row = json.loads(line)
        path, label = row["img"], row["label"]
    except (ValueError, KeyError, TypeError, RecursionError):
        path = label = None
    if not (isinstance(path, str) and isinstance(label, str) and path.isprintable()):
        raise UsageError(f"{where}: expected a JSON object with the texts 'img' and 'label', got {line[:80]!r}")
    return plain(path), label


def parse_pair(where: str, line: str, split: str, path_of: Callable[[str, str, str], str]) -> tuple[str, str]:
    """Path and class of a line of MLA's lists."""
    parts = line.split()
    if len(parts) != 2 or not line.isprintable():
        raise UsageError(f"{where}: expected a file's name and its class, got {line[:80]!r}")
    return path_of(plain(parts[0]), parts[1], split), parts[1]
