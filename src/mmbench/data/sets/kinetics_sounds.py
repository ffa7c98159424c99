"""Kinetics-Sounds: clips of YouTube videos whose action is seen and heard."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from mmbench.data.prepared import PreparedDataModule
from mmbench.data.preparing.audio import fbank, log_spectrogram
from mmbench.data.preparing.lists import is_left_behind, need, read_lines, read_rows
from mmbench.data.preparing.raw import Info, Listing, Sample, Source, carve, merge
from mmbench.data.preparing.sound import RATE, read_audio
from mmbench.data.preparing.video import VIDEO
from mmbench.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

FILE = re.compile(r"([A-Za-z0-9_-]{11})_([0-9]+)_([0-9]+)\.mp4", re.IGNORECASE)
CLIP = re.compile(r"([A-Za-z0-9_-]{11})_([0-9]+)(?:_([0-9]+))?")
CLASS_FILES = ("classes.txt", "class.txt")  # one's own, and that of DMRNet's release
VARIANTS = (
    "other variants of the data set have 32 (CrissCross), 33 (DMRNet) or 34 classes (the original); this one has the 31 that "
    "`mmbench data info kinetics_sounds` lists; remove what is of another class, or name the classes in lists/classes.txt"
)


def decode_audio(path: Path, sample: Sample) -> Mapping[str, np.ndarray]:
    """The filter bank of CAV-MAE's kind, and the spectrogram of OGM-GE's release."""
    waveform = torch.from_numpy(read_audio(path))
    spectrogram = log_spectrogram(waveform, n_fft=256, hop=128, length=5 * RATE)
    return {"fbank": fbank(waveform).numpy(), "spectrogram": spectrogram.numpy()}


class KineticsSounds(PreparedDataModule):
    """Kinetics-Sounds (Arandjelović and Zisserman, 2017): ten-second clips of Kinetics, of actions that can be heard; 31 classes.

    There is no canonical list; this is the variant of 31 classes whose split OGM-GE published. The folder that a clip is in tells its
    class. ``clean`` keeps the clips of one YouTube video, and clips whose files are equal, within one split: 80 / 10 / 10 of every
    class by the hashes of the videos' names. ``legacy`` takes OGM-GE's lists.

    For another variant, ``lists/classes.txt`` in the raw folder names its classes, a line each, numbered in this order; folders that
    it does not name are left out. The data's hash tells it from the 31, as nothing that was published of them holds for it.

    Views of ``audio``: ``fbank`` (1024, 128), log-mel at 16 kHz; ``spectrogram`` (129, 626), as in OGM-GE's release.

    Inputs: ``audio`` (B, …) float16; ``video`` (B, 3, 3, 256, 342) uint8, before it is cropped. Groups are YouTube videos. Who uploaded
    a video is not known, so even ``clean`` may have one uploader's videos on both sides.

    Departures:
        1. Frames are those at 0, 1/3 and 2/3 of the clip. OGM-GE's release takes the first ones of those extracted at 1 fps.
        2. The spectrogram is that of the first 5 s. OGM-GE's release takes 5 s at random, anew in every epoch.
        3. Frames are scaled to cover 256 × 342 and the middle is kept: a clip in portrait loses its upper and lower parts.
        4. The frames of a clip are cropped and mirrored alike; the releases draw anew for each frame.
    """

    name = "kinetics_sounds"
    modalities = ("audio", "video")
    classes = (
        "blowing nose",
        "blowing out candles",
        "bowling",
        "chopping wood",
        "dribbling basketball",
        "laughing",
        "mowing lawn",
        "playing accordion",
        "playing bagpipes",
        "playing bass guitar",
        "playing clarinet",
        "playing drums",
        "playing guitar",
        "playing harmonica",
        "playing keyboard",
        "playing organ",
        "playing piano",
        "playing saxophone",
        "playing trombone",
        "playing trumpet",
        "playing violin",
        "playing xylophone",
        "ripping paper",
        "shoveling snow",
        "shuffling cards",
        "singing",
        "stomping grapes",
        "tap dancing",
        "tapping guitar",
        "tapping pen",
        "tickling",
    )
    conditioning = "audio"
    encoders = {"audio": "resnet18_audio", "video": "resnet18"}
    pictures = {"video": {}}
    sources = {
        "audio": Source(
            {"fbank": ((1024, 128), "float16"), "spectrogram": ((129, 626), "float16")},
            decode_audio,
            "fbank: 16 kHz, 128 mel, 1024 frames; spectrogram: 16 kHz, first 5 s, STFT 256 / 128, log",
        ),
        "video": VIDEO,
    }
    version = 2
    published = {"legacy": {"train": 14_799, "test": 2_597}}
    legacy_lists: ClassVar[str] = (
        "the legacy protocol needs lists/my_train.txt, lists/my_test.txt and lists/classes.txt in the raw folder"
    )
    info = Info(
        title="Kinetics-Sounds: 31 classes of Kinetics that can be heard",
        source="https://github.com/cvdfoundation/kinetics-dataset, the clips of 31 classes (train and val)",
        licence="annotations CC BY 4.0 (not verified); the videos belong to those who uploaded them",
        layout=(
            (
                "videos/<class>/<YouTube id>_<start>_<end>.mp4",
                "clips with sound, named as Kinetics' downloaders do, such as",
            ),
            ("", "playing guitar/0a1B2c3D4e5_000012_000022.mp4 (or playing_guitar/)"),
            (
                "lists/my_train.txt, lists/my_test.txt",
                "for legacy: OGM-GE's lists (id_start_end,10,number and id_start,10,number), data/KineticSound there",
            ),
            ("lists/classes.txt", "for legacy: the 31 names, a line each, in the order of the lists' numbers 0 to 30,"),
            ("", "which OGM-GE did not publish: the folders of a few listed clips tell them;"),
            ("", "for another variant (32, 33 or 34 classes, say): its names, a line each, numbered in this order;"),
            ("", "folders of videos/ that it does not name are left out. Commas may part names, and _ be a blank,"),
            ("", "as in DMRNet's file, which may keep its name: lists/class.txt"),
        ),
        disk="raw about 30 GB, prepared 22 GB",
    )

    @classmethod
    def scan(cls, raw: Path) -> Listing:
        """Every file in a class's folder is a sample; lists say no more than its split."""
        videos = need(raw, "videos", "expected a folder with one folder for each class")
        notes: list[str] = []
        numbered = read_classes(raw / "lists", videos, notes)
        variant = numbered is not None and set(numbered) != set(cls.classes)
        classes = numbered if numbered is not None and variant else cls.classes
        listed = read_lists(raw, classes, numbered, notes)
        has_lists, listing = bool(listed), Listing([], notes=notes, classes=classes if variant else None)
        seen, folders, left_out = dict[str, str](), dict[int, str](), list[str]()
        for folder in entries(videos):
            if variant and spoken(folder.name) not in classes and folder.is_dir():
                left_out.append(folder.name)
                continue
            label = class_number(folder.name, classes, str(folder))
            folders[label] = folder.name
            for path in entries(folder):
                file = f"videos/{folder.name}/{path.name}"
                if not (match := FILE.fullmatch(path.name)):
                    listing.skipped.append(
                        (path.stem, file, "is not named <YouTube id of 11 characters>_<start>_<end>.mp4")
                    )
                    continue
                clip = f"{match[1]}_{int(match[2])}"
                if clip in seen:
                    raise UsageError(
                        f"{path}: clip '{clip}' is in {seen[clip]} too, expected it once; remove one of them"
                    )
                seen[clip] = file
                if has_lists and clip not in listed:
                    listing.unlisted.append(file)
                split, given, _ = listed.pop(clip, ("", label, ""))
                if given != label:
                    listing.skipped.append((clip, file, f"is '{classes[given]}' by the list and lists/classes.txt"))
                    continue
                listing.samples.append(Sample(clip, label, match[1], {"audio": file, "video": file}, legacy=split))
        for clip, (split, label, name) in listed.items():  # those that have no file
            file = f"videos/{folders.get(label, classes[label])}/{name}"
            listing.samples.append(Sample(clip, label, clip[:11], {"audio": file, "video": file}, legacy=split))
        listing.samples.sort(key=lambda sample: sample.id)
        if variant:
            notes.append(f"a variant of {len(classes)} classes, by lists/classes.txt")
        if left_out:
            some = ", ".join(left_out[:3]).encode(errors="replace").decode()
            notes.append(
                f"left out: {len(left_out)} folders of videos/ that lists/classes.txt does not name, such as {some}"
            )
        return listing

    @classmethod
    def clean(cls, samples: pd.DataFrame) -> Sequence[str]:
        """By YouTube video."""
        linked = np.asarray(merge(samples["group"], samples["sha256_video"]))
        group = samples["group"].groupby(linked).transform("min").tolist()
        label = samples["label"].to_numpy()
        test = carve(group, label, 0.1, "kinetics_sounds test")
        rest = np.flatnonzero(~test)
        split = np.where(test, "test", "train").astype(object)
        split[rest[carve([group[i] for i in rest], label[rest], 1 / 9, "kinetics_sounds validation")]] = "validation"
        return split.tolist()


def entries(folder: Path) -> list[Path]:
    """What a folder holds but for what systems leave behind, by name.

    Raises:
        UsageError: it is no folder.
    """
    try:
        return sorted(path for path in folder.iterdir() if not is_left_behind(path.name))
    except OSError as error:
        raise UsageError(f"{folder}: expected a folder ({error.strerror})") from error


def spoken(name: str) -> str:
    """A class's name as Kinetics gives it; folders may have _ for its blanks."""
    return name.replace("_", " ")


def class_number(name: str, classes: Sequence[str], where: str) -> int:
    """The number of a class by its name, in which _ may stand for blanks."""
    plain = spoken(name)
    if plain not in classes:
        near = did_you_mean(plain, classes)
        hint = f"{near} " if near.startswith("did") else ""
        raise UsageError(f"{where}: '{name}' is none of the classes; {hint}{VARIANTS}")
    return classes.index(plain)


def read_classes(lists: Path, videos: Path, notes: list[str]) -> tuple[str, ...] | None:
    """The classes by the numbers that lists give them; None if there is no file of them.

    Names are parted by line ends, by commas, or by both.

    Raises:
        UsageError: a class is given twice, or there is only one; or they are not the 31, and one has no folder; or there are two files.
    """
    there = [lists / name for name in CLASS_FILES if (lists / name).exists()]
    if not there:
        return None
    if len(there) > 1:
        raise UsageError(f"{lists} holds {' and '.join(CLASS_FILES)}; expected one of them")
    [path] = there
    lines = [
        (where, spoken(name.strip()))
        for where, line in read_lines(path, notes)
        for name in line.split(",")
        if name.strip()
    ]
    names = tuple(name for _, name in lines)
    for i, (where, name) in enumerate(lines):
        if name in names[:i]:
            raise UsageError(f"{where}: '{name}' is given twice, expected every class once")
    if len(names) < 2:
        raise UsageError(f"{path}: expected the names of the classes, a line each, got {len(names)}")
    folders = {spoken(folder.name) for folder in entries(videos)}
    for where, name in lines if set(names) != set(KineticsSounds.classes) else []:
        if name not in folders:
            near = did_you_mean(name, folders)
            hint = f"; {near}" if near.startswith("did") else ""
            raise UsageError(
                f"{where}: '{name}' has no folder in {videos}{hint} (with other classes than the 31, every name is a folder's)"
            )
    return names


def read_lists(
    raw: Path, classes: Sequence[str], numbered: Sequence[str] | None, notes: list[str]
) -> dict[str, tuple[str, int, str]]:
    """Clip -> (split, class, file name) of OGM-GE's lists.

    Args:
        raw: the raw folder.
        classes: of the data set.
        numbered: the same in the order of the lists' numbers.
        notes: take a line where there are no lists, and those of ``read_text``.
    """
    paths = {split: raw / f"lists/my_{split}.txt" for split in ("train", "test")}
    there = [path for path in paths.values() if path.exists()]
    if not there:
        notes.append("no published lists, so no legacy protocol")
        return {}
    for path in paths.values():
        if path not in there:
            raise UsageError(f"{path} is missing, but {there[0]} is there")
    if numbered is None:
        raise UsageError(
            f"{there[0]} gives classes as numbers, whose order is not published, and {raw / 'lists/classes.txt'} is missing; write "
            "the 31 names into it, a line each, in the order of the numbers (the folders of a few listed clips tell them), or remove "
            "the lists and do without the legacy protocol"
        )
    found: dict[str, tuple[str, int, str]] = {}
    for split, path in paths.items():
        for where, clip, name, number in read_list(path, len(numbered), notes):
            if clip in found:
                raise UsageError(f"{where}: clip '{clip}' is given twice, expected once in both lists")
            found[clip] = (split, classes.index(numbered[number]), name)
    return found


def read_list(path: Path, classes: int, notes: list[str]) -> Iterator[tuple[str, str, str, int]]:
    """Where it stands, clip, file name and number of each line.

    OGM-GE's two lists differ: ``0a1B2c3D4e5_000012_000022,10,3`` (start and end) is a line of that for training,
    ``0a1B2c3D4e5_12,10,3`` (start alone; 10 seconds) of that for testing. Either is taken in both.
    """
    for where, (clip, seconds, number) in read_rows(path, 3, notes):
        if not (match := CLIP.fullmatch(clip)):
            raise UsageError(
                f"{where}: expected a YouTube id of 11 characters, _ and the second of the clip's start (or start_end), got '{clip}'"
            )
        if not (seconds.isdecimal() and number.isdecimal()):
            raise UsageError(
                f"{where}: expected the clip's seconds and the class's number, got '{seconds}' and '{number}'"
            )
        if int(number) >= classes:
            raise UsageError(f"{where}: unknown class number {number}, expected 0 to {classes - 1}; {VARIANTS}")
        start = int(match[2])
        end = int(match[3]) if match[3] else start + int(seconds)
        yield where, f"{match[1]}_{start}", f"{match[1]}_{start:06}_{end:06}.mp4", int(number)
