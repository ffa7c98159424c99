"""Tux Paint stamps: pictures for children, each with a description and someone who says it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

import numpy as np
import torch

from mmbench.data.augment import RandomResizedCrop
from mmbench.data.folds import balanced
from mmbench.data.prepared import PreparedDataModule
from mmbench.data.preparing.audio import SHIFT, WINDOW, fbank
from mmbench.data.preparing.lists import find_files, need, read_text, within
from mmbench.data.preparing.pictures import read_image
from mmbench.data.preparing.raw import Info, Listing, Sample, Source, carve, merge
from mmbench.data.preparing.sound import read_audio
from mmbench.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

ROOTS = ("usr/share/tuxpaint/stamps", "stamps", ".")  # where the categories may be, below the raw folder
SIZE = (128, 128)
SCALE = (0.5, 1.0)  # of crops; a smaller box may hold nothing but white
FRAMES = 256
SAMPLES = WINDOW + (FRAMES - 1) * SHIFT  # what the frames are made of: 2.575 s
TEST, VALIDATION = 0.2, 0.1  # shares of the samples


def decode_image(path: Path, sample: Sample) -> Mapping[str, np.ndarray]:
    """The whole stamp on white."""
    return {"pixels": read_image(path, SIZE, pad=True)}


def decode_audio(path: Path, sample: Sample) -> Mapping[str, np.ndarray]:
    """The filter bank and the waveform of the beginning; a recording beyond full scale is brought down to it, not clipped."""
    sound = read_audio(path)
    sound = sound / max(1.0, float(np.abs(sound).max()))
    waveform = np.zeros(SAMPLES, np.int16)
    waveform[: len(sound)] = np.round(sound[:SAMPLES] * 32767)
    return {"fbank": fbank(torch.from_numpy(sound), FRAMES).numpy(), "waveform": waveform}


class Tuxpaint(PreparedDataModule):
    """Tux Paint's stamps (version 2022.06.04): 703 pictures of eight categories, described in English and spoken in French.

    13 stamps have no speech: missing by nature, not by a mask. All have a description, its first line.

    Stamps come in series, which ``clean`` keeps within one split: stamps of one folder whose names begin with the same word, digits
    and single letters aside (``dreydl``, ``dreydl-hay``; ``flower1``, ``flower2``), and all that share a description, a recording or a
    picture. The largest is the English alphabet, 104 letters. About 70 % of the samples are for training, 10 % for validation, 20 % for
    testing, in every class as nearly as whole series allow. Five folds are of whole series too. ``legacy`` splits at
    random, 80 to 20 %: the same recordings and descriptions are on both sides.

    Descriptions stay as they are, since what is spoken could not be cut alike. Three name their category ("A thyme plant."); "letter",
    "sign", "coin" or "number" is in 175 of 247 symbols, and in 4 other stamps.

    Views of ``audio``: ``fbank`` (256, 128); ``waveform`` (41200,), the same 2.575 s at 16 kHz. 44 of the 690 recordings are longer, up
    to 11.5 s, and lose the rest; 40 go beyond full scale, by up to 20 %, and are brought down to it.

    Inputs: ``image`` (B, 3, 128, 128) uint8; ``text`` as the encoder's tokenizer gives it; ``audio`` (B, …) float16 or int16.
    Groups are series. Pictures are enlarged for an encoder that takes another size alone.

    Departures:
        1. Pictures drawn in SVG are left out: Pillow does not read them. That is 96 stamps of these categories, and leaves clothes
           (19 of 48) and people (6 of 30) with fewer than 30; both are left out, as are the six categories that have fewer anyway.
    """

    name = "tuxpaint"
    modalities = ("image", "text", "audio")
    text_modalities = ("text",)
    classes = ("animals", "food", "household", "plants", "seasonal", "symbols", "town", "vehicles")
    conditioning = "text"
    folds = 5
    folded_by = "series"
    encoders = {"image": "resnet18", "text": {"name": "hashed_text", "out_dim": 512}, "audio": "resnet18_audio"}
    augmentations = {"image": RandomResizedCrop(SIZE[0], scale=SCALE)}
    pictures = {"image": {"scale": SCALE}}
    sides = {"image": SIZE[0]}
    sources = {
        "image": Source(
            {"pixels": ((*SIZE, 3), "uint8")},
            decode_image,
            "upright, on white, scaled to fit into 128 × 128, padded with white",
        ),
        "audio": Source(
            {"fbank": ((FRAMES, 128), "float16"), "waveform": ((SAMPLES,), "int16")},
            decode_audio,
            "16 kHz, peak at most 1, first 2.575 s; fbank: 128 mel, 256 frames",
        ),
    }
    version = 2
    published = {"all": {"samples": 703}}
    distinct_texts = True
    info = Info(
        title="Tux Paint stamps",
        source="Debian package tuxpaint-stamps-default 2022.06.04-1 (apt-get download, dpkg -x; or the folder of an installed one)",
        licence="GPL-2; nothing made from it is shipped with mmbench",
        layout=(
            ("usr/share/tuxpaint/stamps/<category>/…", "or stamps/<category>/…, or <category>/…; there:"),
            ("<stamp>.png", "the picture; <stamp>_mirror.png is the same stamp, not read"),
            ("<stamp>.txt", "descriptions; the first line is English"),
            ("<stamp>_desc_fr.ogg", "the description spoken in French"),
        ),
        disk="raw 0.2 GB, prepared 0.14 GB",
    )

    @classmethod
    def scan(cls, raw: Path) -> Listing:
        """Every PNG picture of the categories is a sample, but for mirrored variants."""
        root = find_root(raw)
        listing, undrawn = Listing([]), 0
        for label, category in enumerate(cls.classes):
            folder = need(raw, str(root / category), "expected the folder of a category of stamps")
            pngs, svgs, oggs = (find_files(folder, ending, deep=True) for ending in (".png", ".svg", "_desc_fr.ogg"))
            stamps = [p.relative_to(raw) for p in pngs if not is_variant(p)]
            listing.samples += [read_stamp(raw, stamp, root, label, listing.notes) for stamp in stamps]
            drawn = {p.relative_to(raw).with_suffix("") for p in svgs if not is_variant(p)}
            pictures = {stamp.with_suffix("") for stamp in stamps}
            undrawn += len(drawn - pictures)
            spoken = (p.relative_to(raw) for p in oggs)
            listing.unlisted += [
                str(p) for p in spoken if p.with_name(p.name.removesuffix("_desc_fr.ogg")) not in pictures | drawn
            ]
        if undrawn:
            listing.notes.append(f"{undrawn} stamps are drawn in SVG only, which is not read: left out")
        listing.samples = group_and_split(sorted(listing.samples, key=lambda sample: sample.id))
        return listing

    @classmethod
    def clean(cls, samples: pd.DataFrame) -> Sequence[str]:
        """Whole series, equal recordings and pictures together."""
        groups, labels = linked(samples), samples["label"].tolist()
        test = carve(groups, labels, TEST, "tuxpaint test")
        rest = np.flatnonzero(~test)
        chosen = carve(
            [groups[i] for i in rest], [labels[i] for i in rest], VALIDATION / (1 - TEST), "tuxpaint validation"
        )
        split = np.where(test, "test", "train").astype(object)
        split[rest[chosen]] = "validation"
        return split.tolist()

    @classmethod
    def part_of(cls, samples: pd.DataFrame) -> Sequence[int]:
        """As ``clean``, but that linked series are called by the least of their names, whatever the order of the samples."""
        groups = samples["group"].groupby(np.asarray(linked(samples))).transform("min").tolist()
        return balanced(groups, samples["label"].tolist(), cls.folds, "tuxpaint folds").tolist()


def find_root(raw: Path) -> PurePath:
    """Where the categories are, relative to the raw folder."""
    for root in ROOTS:
        if within(raw, f"{root}/animals").is_dir():
            return PurePath(root)
    raise UsageError(
        f"{raw} holds no stamps; expected the folder usr/share/tuxpaint/stamps, stamps, or animals with the other categories"
    )


def is_variant(path: Path) -> bool:
    """Whether a picture is what Tux Paint shows instead of mirroring a stamp by itself."""
    return path.stem.endswith(("_mirror", "_flip", "_mirrorflip"))


def read_stamp(raw: Path, stamp: Path, root: PurePath, label: int, notes: list[str]) -> Sample:
    """The sample of a picture, given relative to the raw folder, its series as its group."""
    speech, description = stamp.with_name(f"{stamp.stem}_desc_fr.ogg"), within(raw, str(stamp.with_suffix(".txt")))
    text = read_text(description, notes).split("\n", maxsplit=1)[0].strip() if description.exists() else ""
    name = stamp.relative_to(root).with_suffix("")
    files = {"image": str(stamp), "audio": str(speech) if (raw / speech).exists() else None}
    return Sample(str(name), label, series(name), files, {"text": text})


def series(name: PurePath) -> str:
    """The folder of a stamp, and the first word of its name that has more than one letter, digits aside.

    >>> series(PurePath("seasonal/halloween/grave-a")), series(PurePath("symbols/alphabets/A_filled"))
    ('seasonal/halloween/grave', 'symbols/alphabets/filled')
    """
    words = re.split(r"[-_ ]+", re.sub(r"\d", "", name.name.casefold()))
    return str(name.parent / next((word for word in words if len(word) > 1), ""))


def link(names: Sequence[str], *keys: Iterable[str]) -> list[str]:
    """One group for all that share a key, called by the name of its first member."""
    return [names[int(first)] for first in merge(*keys)]


def linked(samples: pd.DataFrame) -> list[str]:
    """Series that share a recording or a picture as one group, called by the series of its first member."""
    names = samples["group"].tolist()
    return link(names, names, samples["sha256_image"], samples["sha256_audio"])


def group_and_split(samples: Sequence[Sample]) -> list[Sample]:
    """The samples with their groups, series and equal descriptions linked, and with the random split."""
    ids, labels = [s.id for s in samples], [s.label for s in samples]
    groups = link(ids, (s.group for s in samples), (Tuxpaint.text_key(s.text["text"]) for s in samples))
    tested = carve(ids, labels, TEST, "tuxpaint legacy")
    return [
        Sample(s.id, s.label, group, s.files, s.text, "test" if test else "train")
        for s, group, test in zip(samples, groups, tested, strict=True)
    ]
