"""CASIA-SURF: faces, and printed photographs of faces, before a camera for colour, depth and infrared light."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from mmbench.data.prepared import PreparedDataModule
from mmbench.data.preparing.lists import find_files, need, plain, read_lines, within
from mmbench.data.preparing.pictures import read_image
from mmbench.data.preparing.raw import Info, Listing, Sample, Source
from mmbench.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

LISTS = {"train": "train_list.txt", "validation": "val_private_list.txt", "test": "test_private_list.txt"}
# Modality -> what paths call it, in the order of the lists' columns.
COLUMNS = {"rgb": "color", "depth": "depth", "ir": "ir"}
CLASSES = ("live", "spoof")
SIZE = (144, 144)
SIDE = 112
SHARE = (SIDE / SIZE[0]) ** 2  # of a crop's area, what training cuts out of it
KIND = re.compile(r"[/-](color|depth|ir)[/.]")
NOTE = "only training's paths tell the subject; groups of validation and test are folders, which mix subjects"
TOLD = re.compile(r"(?:^|/)(real|fake)_part/([^/]+)/(?:0([1-6])_)?")  # class, subject and type of attack


def source(modality: str) -> Source:
    """How a picture of this modality becomes an array of its name."""

    def decode(path: Path, sample: Sample) -> Mapping[str, np.ndarray]:
        return {modality: read_image(path, SIZE)}

    return Source({modality: ((*SIZE, 3), "uint8")}, decode, "upright, scaled and cut to 144 × 144")


class CasiaSurf(PreparedDataModule):
    """CASIA-SURF (Zhang et al., 2019): 96,584 crops of live and of photographed faces, each in colour, depth and infrared.

    The three lists of the challenge are ``clean``'s splits: their subjects differ, as the organisers say. Training and validation
    samples that share a file or a group with a later split are left out of ``clean``. ``legacy`` takes the lists as they are and
    chooses the epoch on the test list.

    What a label of the lists means differs between releases: the folders real_part and fake_part of the training list tell it.

    Inputs: ``rgb``, ``depth`` and ``ir`` (B, 3, 144, 144) uint8, before they are cropped. Groups are subjects in training. Of
    validation and test nothing tells the subject or the type of attack: groups are the folders there (Val/0007), blocks of crops that
    mix subjects, and all attacks are of type 1, so APCER is over all of them, as in the papers. In training the types are 4 to 6.

    Departures:
        1. Crops are scaled to cover 144 × 144 and cut; DMRNet's release squashes them.
        2. Training cuts 112 × 112 out of 144 × 144 and mirrors, as DMRNet's release, but for each modality on its own, and it does not
           rotate (there by up to 30°, and all three alike).
        3. An encoder that takes pictures of one size alone gets 112 × 112 enlarged to it.
        4. The papers' encoder is a ResNet-18 with squeeze-and-excitation whose middle is fused.
    """

    name = "casia_surf"
    modalities = tuple(COLUMNS)
    classes = CLASSES
    conditioning = "rgb"
    encoders = {modality: "resnet18" for modality in COLUMNS}
    pictures = {modality: {"scale": (SHARE, SHARE), "ratio": (1, 1)} for modality in COLUMNS}
    sides = dict.fromkeys(COLUMNS, SIDE)
    sources = {modality: source(modality) for modality in COLUMNS}
    version = 2
    published = {
        "all": {"samples": 96_584},
        "clean": {"train": 29_266, "validation": 9_608, "test": 57_710},
        "legacy": {"train": 29_266, "validation": 9_608, "test": 57_710},
    }
    info = Info(
        title="CASIA-SURF: multi-modal face anti-spoofing",
        source="https://sites.google.com/qq.com/face-anti-spoofing: a signed request to the organisers",
        licence="for research, by the signed agreement (not verified)",
        layout=(
            (
                "train_list.txt",
                "29,266 lines, color depth ir label: Training/real_part/<subject>/<video>/color/1.jpg … 1",
            ),
            ("val_private_list.txt", "9,608 lines: Val/0000/000000-color.jpg Val/0000/000000-depth.jpg … 0"),
            ("test_private_list.txt", "57,710 lines: Testing/0000/000000-color.jpg …"),
            ("Training/, Val/, Testing/", "the pictures, where the lists say"),
        ),
        disk="raw a few GB, prepared 18 GB",
    )

    @classmethod
    def scan(cls, raw: Path) -> Listing:
        """Every line of the three lists is a sample, named by its colour picture."""
        notes = [NOTE]
        lines: dict[str, list[Line]] = {}
        places: dict[str, str] = {}
        for split, name in LISTS.items():
            lines[split] = []
            for line in read_list(raw, need(raw, name, "expected the challenge's list, labels included"), notes):
                file = line.files["rgb"]
                if (first := places.setdefault(file, line.where)) != line.where:
                    raise UsageError(f"{line.where}: {file} is in {first} too, expected it once in all lists")
                lines[split].append(line)
        live = live_label(raw, lines)
        listing = Listing([], notes=notes)
        for split, part in lines.items():
            for line in part:
                label, attack = (0, 0) if line.label == live else (1, line.attack)
                sample = Sample(line.files["rgb"], label, line.group, line.files, legacy=split, attack=attack)
                listing.samples.append(sample)
        listing.samples.sort(key=lambda sample: sample.id)
        listed = {file for sample in listing.samples for file in sample.files.values()}
        for top in sorted({PurePosixPath(file).parts[0] for file in places}):
            pictures = find_files(raw / top, ".jpg", deep=True)
            listing.unlisted += sorted({path.relative_to(raw).as_posix() for path in pictures} - listed)
        return listing

    @classmethod
    def clean(cls, samples: pd.DataFrame) -> Sequence[str]:
        """By list, without what a later split holds too."""
        split = samples["legacy"].to_numpy(object).copy()
        for early, late in (("train", "test"), ("validation", "test"), ("train", "validation")):
            for key in ("group", *(f"sha256_{modality}" for modality in COLUMNS)):
                split[(split == early) & samples[key].isin(set(samples[key][split == late]))] = ""
        return split.tolist()


@dataclass(frozen=True)
class Line:
    """A line of a list.

    Attributes:
        where: list and line, for messages.
        files: modality -> path.
        label: 0 or 1, whatever that means.
        live: whether the face is live; None where the path does not tell.
        group: the subject, or the folder.
        attack: 1 to 6; 1 where the path does not tell.
    """

    where: str
    files: Mapping[str, str]
    label: int
    live: bool | None
    group: str
    attack: int


def read_list(raw: Path, path: Path, notes: list[str]) -> Iterator[Line]:
    """The lines of a list.

    Raises:
        UsageError: a line is not ``color depth ir label``, or a path leads out of the raw folder.
    """
    checked = set()
    for where, line in read_lines(path, notes):
        *files, label = line.split()
        files = [plain(file) for file in files]
        if len(files) != len(COLUMNS) or label not in ("0", "1"):
            raise UsageError(
                f"{where}: expected three paths and the label 0 or 1 (lists named 'public' have none), got {line[:100]!r}"
            )
        for file, kind in zip(files, COLUMNS.values(), strict=True):
            if (told := KIND.search(file)) and told[1] != kind:
                raise UsageError(
                    f"{where}: expected a picture of {kind}, got {file}; the columns are color, depth, ir, label"
                )
            if (folder := str(PurePosixPath(file).parent)) not in checked:  # ``prepare`` looks at each file
                within(raw, folder, where)
                checked.add(folder)
        told = TOLD.search(files[0])
        yield Line(
            where,
            dict(zip(COLUMNS, files, strict=True)),
            int(label),
            told[1] == "real" if told else None,
            told[2] if told else str(PurePosixPath(files[0]).parent),
            int(told[3] or 1) if told else 1,
        )


def live_label(raw: Path, lines: Mapping[str, Sequence[Line]]) -> int:
    """The label that means live in all lists.

    Raises:
        UsageError: no path tells, paths contradict each other, or more faces of a list would be live than not (about 30 % are).
    """
    says: dict[int, str] = {}
    for line in (line for part in lines.values() for line in part if line.live is not None):
        says.setdefault(line.label if line.live else 1 - line.label, line.where)
    if not says:
        raise UsageError(
            f"{raw / LISTS['train']}: cannot tell which label is live; expected paths with real_part and fake_part"
        )
    if len(says) > 1:
        raise UsageError(
            f"by the folder, 1 is live in {says[1]}, but 0 is in {says[0]}; expected one meaning in all lists"
        )
    live = next(iter(says))
    for split, part in lines.items():
        count = sum(line.label == live for line in part)
        if 2 * count > len(part):
            raise UsageError(
                f"{raw / LISTS[split]}: {count} of {len(part)} faces would be live, expected about 30 %; {live} is live in "
                f"{says[live]}, so this list seems to be of another release; take all three from one"
            )
    return live
