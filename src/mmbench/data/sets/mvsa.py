"""MVSA-Single: tweets with a picture, and the sentiment that an annotator saw in the text and in the picture."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mmbench.data.prepared import PreparedDataModule
from mmbench.data.preparing.lists import find_files, need, read_lines, within
from mmbench.data.preparing.raw import Info, Listing, Sample, carve, digest
from mmbench.data.preparing.texts import ENCODERS, IMAGE, read_lists, twins, words
from mmbench.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

ROW = re.compile(r"([0-9]+)\s+(\w+),\s*(\w+)")
LINKS = re.compile(
    r"^(RT @\w+:?\s*)+|https?:\S*|\S*…\s*$"
)  # what differs between copies of a tweet: who, links, the word cut off


class Mvsa(PreparedDataModule):
    """MVSA-Single (Niu et al., 2016), the 2,592 of 4,869 tweets whose text and picture have the same label, as in QMF's release.

    ``clean`` splits at random, 60/20/20, stratified by class; tweets with equal texts or equal pictures are in one split. Texts are
    equal but for case, punctuation, links, "RT @…:" and a last word cut off. ``legacy`` takes QMF's lists or MLA's; MLA's test list
    holds 32 samples of QMF's validation list.

    Inputs: ``text``, as the encoder's tokenizer gives it; ``image`` (B, 3, 256, 256) uint8, before it is cropped. The text comes first,
    since MLA's release gives it the audio's place. Groups are equal texts.

    Departures:
        1. Texts are read from ``data/<ID>.txt`` as UTF-8 or else as GB18030: QMF's lists carry them as Latin-1 reads them, "¡­" for "…"
           and so on, which are the bytes of GB18030. What neither can read becomes U+FFFD, and the audit counts it.
        2. Training crops with bilinear interpolation and without colour jitter, where MLA's release has bicubic and jitter;
           crops are of the middle 256 × 256 of a picture whose shorter side was scaled to that, there of the whole.
    """

    name = "mvsa"
    modalities = ("text", "image")
    text_modalities = ("text",)
    classes = ("negative", "neutral", "positive")
    conditioning = "text"
    encoders = ENCODERS
    pictures = {"image": {}}
    sources = {"image": IMAGE}
    published = {"all": {"samples": 2_592}, "legacy": {"train": 1_555, "validation": 518, "test": 519}}
    legacy_lists = "the legacy protocol needs QMF's or MLA's lists in the folder lists of the raw folder"
    distinct_texts = True
    version = 2
    info = Info(
        title="MVSA-Single, equal labels: Multi-View Sentiment Analysis",
        source="https://mcrlab.net/research/mvsa-sentiment-analysis-on-multi-view-social-data/",
        licence="not stated; tweets belong to their authors",
        layout=(
            ("labelResultAll.txt", "ID<tab>label of the text,label of the picture; 4,869 lines and a header"),
            ("data/<ID>.jpg, data/<ID>.txt", "4,869 pictures and tweets"),
            ("lists/train.jsonl, dev.jsonl, test.jsonl", "for legacy: QMF's lists ({id, label, text, img} a line), or"),
            ("lists/my_train_mvsa.txt, my_test_mvsa.txt", "MLA's lists (picture and class a line)"),
        ),
        disk="prepared 0.5 GB",
    )

    @staticmethod
    def combine(text: str, image: str) -> str:
        """The class of a tweet with these labels; "" if it is not part of the data set."""
        return text if text == image else ""

    @classmethod
    def text_key(cls, text: str) -> str:
        """Without what differs between copies of a tweet, unless nothing is left then."""
        return words(LINKS.sub("", text).strip()) or words(text)

    @classmethod
    def scan(cls, raw: Path) -> Listing:
        """Every line of the labels that ``combine`` gives a class is a sample."""
        need(raw, "data", "expected the folder of the download")
        listing, encodings = Listing([]), dict[str, list[str]]()
        table = need(raw, "labelResultAll.txt", "expected the labels of the download")
        labels = read_labels(table, cls.classes, listing.notes)
        pictures = {path.stem: path.name for path in find_files(raw / "data", ".jpg")}
        for number in sorted(labels, key=int):
            label = cls.combine(*labels[number])
            if not label:
                continue
            try:
                text, encoding = read_tweet(within(raw, f"data/{number}.txt", f"sample '{number}'"))
            except OSError as error:
                listing.skipped.append((number, f"data/{number}.txt", f"cannot be read ({error.strerror})"))
                continue
            encodings.setdefault(encoding, []).append(number)
            key = cls.text_key(text)
            group = f"{digest(key):016x}" if key else number
            files = {"image": f"data/{pictures.get(number, f'{number}.jpg')}"}
            listing.samples.append(Sample(number, cls.classes.index(label), group, files, {"text": text}))
        listing.unlisted = [f"data/{name}" for stem, name in pictures.items() if stem not in labels]
        left = sum(not cls.combine(*pair) for pair in labels.values())
        listing.notes.append(f"{left} of {len(labels)} tweets are left out for their labels of text and picture")
        for encoding, numbers in sorted(encodings.items()):
            if encoding != "UTF-8":
                listing.notes.append(f"{len(numbers)} texts are {encoding}, such as those of {', '.join(numbers[:5])}")
        if cls.legacy_lists:
            lists = read_lists(raw, "mvsa", cls.classes, lambda name, label, split: f"data/{name}", listing.notes)
            lists.split(raw, listing, cls.classes)
            listing.notes.append(
                f"legacy: {lists.release}'s lists" if lists.release else "no published lists, so no legacy protocol"
            )
        return listing

    @classmethod
    def clean(cls, samples: pd.DataFrame) -> Sequence[str]:
        """By the hashes of the names."""
        split, group, label = (
            np.full(len(samples), "train", object),
            np.asarray(twins(samples)),
            samples["label"].to_numpy(),
        )
        for name, share in (("test", 0.2), ("validation", 0.25)):  # a quarter of what is not for testing
            rest = np.flatnonzero(split == "train")
            split[rest[carve(group[rest].tolist(), label[rest].tolist(), share, f"mvsa:{name}")]] = name
        return split.tolist()


class MvsaMerged(Mvsa):
    """MVSA-Single with 4,511 tweets: where one label is neutral the other one counts; a positive and a negative one exclude the tweet.

    It is ``Mvsa`` in everything else, but there are no published lists of it.
    """

    name = "mvsa_merged"
    published = {"all": {"samples": 4_511}}
    legacy_lists = ""
    info = replace(
        Mvsa.info,
        title="MVSA-Single, merged labels: Multi-View Sentiment Analysis",
        layout=Mvsa.info.layout[:2],
        disk="prepared 0.9 GB",
    )

    @staticmethod
    def combine(text: str, image: str) -> str:
        """The label that is not neutral, if there is one only."""
        found = {text, image} - {"neutral"} or {"neutral"}
        return found.pop() if len(found) == 1 else ""


def read_labels(path: Path, classes: Sequence[str], notes: list[str]) -> dict[str, tuple[str, str]]:
    """ID -> the labels of text and picture.

    Raises:
        UsageError: a line is not in the format, or an ID is given twice.
    """
    labels: dict[str, tuple[str, str]] = {}
    for where, line in read_lines(path, notes):
        if not labels and line.casefold().split() == ["id", "text,image"]:
            continue
        row = ROW.fullmatch(line)
        if row is None:
            raise UsageError(
                f"{where}: expected 'ID<tab>label,label' (MVSA-Multiple has more labels), got {line[:80]!r}"
            )
        number, *pair = row.groups()
        for label in pair:
            if label not in classes:
                raise UsageError(f"{where}: unknown label '{label}'; {did_you_mean(label, classes)}")
        if number in labels:
            raise UsageError(f"{where}: ID {number} is given twice, expected once")
        labels[number] = (pair[0], pair[1])
    return labels


def read_tweet(path: Path) -> tuple[str, str]:
    """The text of a tweet, with single spaces, and the encoding it is in."""
    content = path.read_bytes()
    for name, encoding in (("UTF-8", "utf-8-sig"), ("GB18030", "gb18030")):
        try:
            return " ".join(content.decode(encoding).split()), name
        except UnicodeDecodeError:
            continue
    return " ".join(content.decode("gb18030", errors="replace").split()), "neither UTF-8 nor GB18030"
