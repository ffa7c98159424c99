"""UPMC Food-101: pictures of dishes from the web, with the titles of their pages."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mmbench.data.prepared import PreparedDataModule
from mmbench.data.preparing.lists import find_files, need, plain, read_lines
from mmbench.data.preparing.raw import Info, Listing, Sample, carve, digest
from mmbench.data.preparing.texts import ENCODERS, IMAGE, read_lists, twins
from mmbench.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

COUNTS = {  # what the splits of a release hold
    "": {"train": 67_972, "test": 22_716},
    "QMF": {"validation": 5_000, "test": 22_714},
    "MLA": {"test": 22_714},
}
BEGIN = re.compile(r'"?[^",]*\.(jpe?g|png|gif|bmp|webp)"?,', re.IGNORECASE)  # of a row: its picture
ROW = re.compile(r'"?([^",]*)"?,(.*),"?([^",\n]*?)"?', re.DOTALL)
VALIDATION = 5_000 / 67_972  # the share of the training samples that MMBT and QMF take


class Food101(PreparedDataModule):
    """UPMC Food-101 (Wang et al., 2015): pictures that a search engine gave for 101 dishes, and the titles of the pages they are on.

    ``clean`` keeps the official test split. A training sample whose title or picture is in it too is in no split; of the others 7.4 %
    are for validation (5,000 of 67,972, as MMBT and QMF take), equal titles and equal pictures being kept together. Titles are equal
    but for case and punctuation.
    ``legacy`` takes the official splits, or those of QMF's or MLA's lists where the user has put them into the raw folder.

    Inputs: ``text``, as the encoder's tokenizer gives it; ``image`` (B, 3, 256, 256) uint8, before it is cropped. The text comes first,
    since MLA's release gives it the audio's place. Groups are equal titles.

    Departures:
        1. Training crops with bilinear interpolation and without colour jitter, where MLA's release has bicubic and jitter;
           crops are of the middle 256 × 256 of a picture whose shorter side was scaled to that, there of the whole.
        2. Titles are those of the tables. QMF's lists carry a copy in lower case and without punctuation, which is not read.

    Not verified on the files: the counts of the official splits, and whether the tables have a header line (one is accepted).
    """

    name = "food101"
    modalities = ("text", "image")
    text_modalities = ("text",)
    classes = (
        "apple_pie", "baby_back_ribs", "baklava", "beef_carpaccio", "beef_tartare", "beet_salad", "beignets", "bibimbap",
        "bread_pudding", "breakfast_burrito", "bruschetta", "caesar_salad", "cannoli", "caprese_salad", "carrot_cake", "ceviche",
        "cheese_plate", "cheesecake", "chicken_curry", "chicken_quesadilla", "chicken_wings", "chocolate_cake", "chocolate_mousse",
        "churros", "clam_chowder", "club_sandwich", "crab_cakes", "creme_brulee", "croque_madame", "cup_cakes", "deviled_eggs",
        "donuts", "dumplings", "edamame", "eggs_benedict", "escargots", "falafel", "filet_mignon", "fish_and_chips", "foie_gras",
        "french_fries", "french_onion_soup", "french_toast", "fried_calamari", "fried_rice", "frozen_yogurt", "garlic_bread",
        "gnocchi", "greek_salad", "grilled_cheese_sandwich", "grilled_salmon", "guacamole", "gyoza", "hamburger",
        "hot_and_sour_soup", "hot_dog", "huevos_rancheros", "hummus", "ice_cream", "lasagna", "lobster_bisque",
        "lobster_roll_sandwich", "macaroni_and_cheese", "macarons", "miso_soup", "mussels", "nachos", "omelette", "onion_rings",
        "oysters", "pad_thai", "paella", "pancakes", "panna_cotta", "peking_duck", "pho", "pizza", "pork_chop", "poutine",
        "prime_rib", "pulled_pork_sandwich", "ramen", "ravioli", "red_velvet_cake", "risotto", "samosa", "sashimi", "scallops",
        "seaweed_salad", "shrimp_and_grits", "spaghetti_bolognese", "spaghetti_carbonara", "spring_rolls", "steak",
        "strawberry_shortcake", "sushi", "tacos", "takoyaki", "tiramisu", "tuna_tartare", "waffles",
    )  # fmt: skip
    conditioning = "text"
    encoders = ENCODERS
    pictures = {"image": {}}
    sources = {"image": IMAGE}
    published = {"all": {"samples": 67_972 + 22_716}}
    distinct_texts = True
    version = 2
    info = Info(
        title="UPMC Food-101",
        source="https://www.kaggle.com/datasets/gianmarco96/upmcfood101",
        licence="not stated; the pictures are from web pages",
        layout=(
            ("images/train/<class>/<class>_<number>.jpg", "67,972 pictures"),
            ("images/test/<class>/<class>_<number>.jpg", "22,716 pictures"),
            ("texts/train_titles.csv, test_titles.csv", "their titles: lines picture,title,class"),
            (
                "lists/train.jsonl, dev.jsonl, test.jsonl",
                "for legacy, if wanted: QMF's lists ({id, label, text, img} a line), or",
            ),
            ("lists/my_train_food.txt, my_test_food.txt", "MLA's lists (picture and class a line)"),
        ),
        disk="prepared 18 GB",
    )

    @classmethod
    def scan(cls, raw: Path) -> Listing:
        """Every row of the tables is a sample."""
        listing, samples, numbers = Listing([]), dict[str, Sample](), {name: i for i, name in enumerate(cls.classes)}
        for split in ("train", "test"):
            need(raw, f"images/{split}", "expected the folder of the download")
            titles = need(raw, f"texts/{split}_titles.csv", "expected the table of titles")
            for where, row in read_titles(titles, listing.notes):
                if isinstance(row, str):
                    listing.skipped.append((where, "", f"is not picture,title,class: {row[:80]!r}"))
                    continue
                name, title, label = row
                if label not in numbers:
                    raise UsageError(f"{where}: unknown class '{label}'; {did_you_mean(label, numbers)}")
                if not name or "/" in name:
                    raise UsageError(f"{where}: expected the name of a picture, such as {label}_0.jpg, got '{name}'")
                path = f"images/{split}/{label}/{name}"
                if path in samples:
                    listing.skipped.append((where, path, "is given a second time; the first title is taken"))
                    continue
                identity = path.removeprefix("images/")
                key = cls.text_key(title)
                group = f"{digest(key):016x}" if key else identity
                samples[path] = Sample(identity, numbers[label], group, {"image": path}, {"text": title}, legacy=split)
        listing.samples = [samples[path] for path in sorted(samples)]
        listing.unlisted = [
            path
            for path in (p.relative_to(raw).as_posix() for p in find_files(raw / "images", ".jpg", deep=True))
            if path not in samples
        ]
        listed = lambda name, label, split: f"images/{split}/{label}/{name}"  # noqa: E731
        lists = read_lists(raw, "food", cls.classes, listed, listing.notes)
        if lists.release:
            lists.split(raw, listing, cls.classes)
        splits = f"the splits of {lists.release}'s lists" if lists.release else "the official splits"
        listing.notes.append(f"legacy: {splits}")
        counts = Counter(sample.legacy for sample in listing.samples)
        for split, published in COUNTS[lists.release].items():
            if counts[split] != published:
                listing.notes.append(f"legacy {split}: {counts[split]} samples, published {published}")
        return listing

    @classmethod
    def clean(cls, samples: pd.DataFrame) -> Sequence[str]:
        """The official test split, and a part of what is not in it too."""
        split = np.where(samples["id"].str.startswith("test/"), "test", "train").astype(object)
        test = samples[split == "test"]
        leaking = samples["group"].isin(test["group"]) | samples["sha256_image"].isin(test["sha256_image"])
        split[(split == "train") & leaking.to_numpy()] = ""
        train = samples[split == "train"]
        share = max(VALIDATION, min(0.5, 1 / train["label"].value_counts().min()))  # at least one of each class
        split[train.index[carve(twins(train), train["label"].tolist(), share, "food101")]] = "validation"
        return split.tolist()


def read_titles(path: Path, notes: list[str]) -> Iterator[tuple[str, tuple[str, str, str] | str]]:
    """The rows of a table of titles, (file name, title, class), each with where it begins; the text of what is no such row.

    The tables are not quite CSV: quotation marks in titles are not always doubled, nor closed. So a row goes from its picture's name at
    the beginning of a line to its class at the end of one, and only a title that is quoted properly loses its quotation marks. Lines
    that do not begin with a picture belong to the row before: a title may have line breaks. ``notes`` are those of ``read_text``.

    Raises:
        UsageError: the table does not begin with a row, nor with a header and one.
    """
    begun = text = ""
    for where, line in read_lines(path, notes):
        if not begun and not BEGIN.match(line):
            if line.replace('"', "").casefold().endswith(",label"):  # a header
                continue
            raise UsageError(f"{where}: expected picture,title,class, got {line[:80]!r}")
        if begun and BEGIN.match(line):
            yield begun, parse_row(text)
            begun = ""
        begun, text = (begun, f"{text}\n{line}") if begun else (where, line)
    if begun:
        yield begun, parse_row(text)


def parse_row(text: str) -> tuple[str, str, str] | str:
    """Picture, title and class of a row, blanks in the title made single; the text as it is if it has not three columns.

    >>> parse_row('sushi_0.jpg,"A ""big"" roll, at home",sushi'), parse_row('sushi_1.jpg,"Sushi at home,sushi')
    (('sushi_0.jpg', 'A "big" roll, at home', 'sushi'), ('sushi_1.jpg', '"Sushi at home', 'sushi'))
    """
    if not (row := ROW.fullmatch(text)):
        return text
    name, title, label = row.groups()
    title = title.strip()
    inside = title[1:-1].replace('""', "")
    if len(title) > 1 and title[0] == title[-1] == '"' and '"' not in inside:
        title = title[1:-1].replace('""', '"')
    return plain(name), " ".join(title.split()), label.strip()
