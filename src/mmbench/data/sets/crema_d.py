"""CREMA-D: actors who say sentences with an emotion, heard and seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from mmbench.data.prepared import PreparedDataModule
from mmbench.data.preparing.audio import fbank, log_spectrogram
from mmbench.data.preparing.lists import find_files, need, read_lines, read_rows
from mmbench.data.preparing.raw import Info, Listing, Sample, Source, digest
from mmbench.data.preparing.sound import RATE, read_audio_at
from mmbench.data.preparing.video import VIDEO
from mmbench.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

EMOTIONS = {"NEU": 0, "HAP": 1, "SAD": 2, "FEA": 3, "DIS": 4, "ANG": 5}  # the order of OGM-GE's release
WORDS = {"Neutral": 0, "Happy": 1, "Sad": 2, "Fear": 3, "Disgust": 4, "Anger": 5}  # of MLA's release, in the same order
LABELS = EMOTIONS | WORDS | {str(number): number for number in EMOTIONS.values()}
ACTORS = sorted(range(1001, 1092), key=lambda actor: digest(f"crema_d:{actor}"))
TEST, VALIDATION = frozenset(ACTORS[:18]), frozenset(ACTORS[18:27])
FOLDS = 5
PARTS = {actor: min(number // len(TEST), FOLDS - 1) for number, actor in enumerate(ACTORS)}  # fold 0 tests TEST


def decode_audio(path: Path, sample: Sample) -> Mapping[str, np.ndarray]:
    """The filter bank of MLA's release and the spectrogram of OGM-GE's."""
    sound, fine = map(torch.from_numpy, read_audio_at(path, [RATE, 22_050]))
    return {"fbank": fbank(sound).numpy(), "spectrogram": log_spectrogram(fine).numpy()}


class CremaD(PreparedDataModule):
    """CREMA-D (Cao et al., 2014): 7,442 clips of 91 actors, 12 sentences, six emotions.

    ``clean`` keeps every actor within one split: 18 actors are for testing and 9 for validation, the first ones in the order of the
    hashes of their numbers. Of five folds, the first one tests those 18, and the others the next 18, 18, 18 and 19. ``legacy`` takes a
    published list (OGM-GE's, which DMRNet uses too, or MLA's): all 91 actors are on both sides.

    Views of ``audio``: ``fbank`` (1024, 128), as in MLA's release; ``spectrogram`` (257, 188), as in OGM-GE's.

    Inputs: ``audio`` (B, …) float16; ``video`` (B, 3, 3, 256, 342) uint8, before it is cropped. Groups are actors.

    Departures:
        1. Frames are those at 0, 1/3 and 2/3 of the clip. MLA's release takes them from frames extracted at 1 fps, in the order of a
           directory listing; OGM-GE's takes the first one listed.
        2. The frames of a clip are cropped and mirrored alike; both releases draw anew for each frame.
    """

    name = "crema_d"
    modalities = ("audio", "video")
    classes = ("neutral", "happy", "sad", "fear", "disgust", "anger")
    conditioning = "audio"
    folds = FOLDS
    folded_by = "actor"
    encoders = {"audio": "resnet18_audio", "video": "resnet18"}
    pictures = {"video": {}}
    sources = {
        "audio": Source(
            {"fbank": ((1024, 128), "float16"), "spectrogram": ((257, 188), "float16")},
            decode_audio,
            "fbank: 16 kHz, 128 mel, 1024 frames; spectrogram: 22,050 Hz, 3 s, STFT 512 / 353, log",
        ),
        "video": VIDEO,
    }
    version = 2
    published = {"all": {"samples": 7442}, "legacy": {"train": 6698, "test": 744}}
    legacy_lists: ClassVar[str] = "the legacy protocol needs lists/train.csv and lists/test.csv in the raw folder"
    info = Info(
        title="CREMA-D: Crowd-sourced Emotional Multimodal Actors Dataset",
        source="https://github.com/CheyneyComputerScience/CREMA-D (git-lfs)",
        licence="Open Database License 1.0, contents Database Contents License 1.0 (as data-set cards say)",
        layout=(
            ("AudioWAV/<actor>_<sentence>_<emotion>_<level>.wav", "7,442 recordings"),
            ("VideoFlash/<actor>_<sentence>_<emotion>_<level>.flv", "7,442 videos"),
            (
                "lists/train.csv, lists/test.csv",
                "for legacy: OGM-GE's lists (name,EMO; data/CREMAD in its repository), or",
            ),
            ("lists/my_train_cre.txt, lists/my_test_cre.txt", "MLA's lists (name.flv Emotion; data in its repository)"),
        ),
        disk="raw 4 GB, prepared 9 GB",
    )

    @classmethod
    def scan(cls, raw: Path) -> Listing:
        """Every recording is a sample; its name tells actor and emotion."""
        sound, video = (need(raw, f, "expected the folder of the download") for f in ("AudioWAV", "VideoFlash"))
        listing = Listing([])
        splits = read_lists(raw / "lists", listing.notes)
        sounds, videos = (
            {path.stem: path.name for path in find_files(folder, ending)}
            for folder, ending in ((sound, ".wav"), (video, ".flv"))
        )
        for name in sorted(sounds.keys() | videos.keys() | splits.keys()):
            actor, label = parse(name, str(raw))
            files = {
                "audio": f"AudioWAV/{sounds.get(name, f'{name}.wav')}",
                "video": f"VideoFlash/{videos.get(name, f'{name}.flv')}",
            }
            split, given = splits.get(name, ("", label))
            if given != label:
                listing.skipped.append((name, files["audio"], f"has emotion {label} by its name, {given} by the list"))
                continue
            listing.samples.append(Sample(name, label, str(actor), files, legacy=split))
            if splits and name not in splits:
                listing.unlisted.append(files["audio"])
        return listing

    @classmethod
    def clean(cls, samples: pd.DataFrame) -> Sequence[str]:
        """By actor."""
        actors = samples["group"].astype(int)
        return ["test" if a in TEST else "validation" if a in VALIDATION else "train" for a in actors]

    @classmethod
    def part_of(cls, samples: pd.DataFrame) -> Sequence[int]:
        """By actor."""
        return [PARTS[actor] for actor in samples["group"].astype(int)]


def parse(name: str, where: str) -> tuple[int, int]:
    """Actor and class of a clip's name, ``1001_DFA_ANG_XX``."""
    parts = name.split("_")
    if len(parts) != 4 or parts[0] not in map(str, ACTORS):
        raise UsageError(
            f"{where}: '{name}' is no clip; expected actor_sentence_emotion_level, such as 1001_DFA_ANG_XX"
        )
    if parts[2] not in EMOTIONS:
        raise UsageError(f"{where}: '{name}' has the unknown emotion '{parts[2]}'; {did_you_mean(parts[2], EMOTIONS)}")
    return int(parts[0]), EMOTIONS[parts[2]]


def read_lists(folder: Path, notes: list[str]) -> dict[str, tuple[str, int]]:
    """Clip -> (split, class) of the published lists; where there are none, ``notes`` say so."""
    found: dict[str, tuple[str, int]] = {}
    pairs = {split: (folder / f"{split}.csv", folder / f"my_{split}_cre.txt") for split in ("train", "test")}
    for one, other in zip(*pairs.values(), strict=True):
        if one.exists() != other.exists():
            raise UsageError(
                f"{one if other.exists() else other} is missing, but {other if other.exists() else one} is there"
            )
    if all(path.exists() for path in pairs["train"]):
        raise UsageError(f"{folder} holds the lists of OGM-GE and of MLA; expected those of one release")
    for split, (csv, text) in pairs.items():
        if csv.exists():
            rows = read_rows(csv, 2, notes)
        elif text.exists():
            rows = ((where, line.split()) for where, line in read_lines(text, notes))
        else:
            notes.append("no published lists, so no legacy protocol")
            return {}
        for where, row in rows:
            if len(row) != 2:
                raise UsageError(f"{where}: expected a name and a label, got {' '.join(row)[:80]!r}")
            name, label = row[0].removesuffix(".flv"), row[1]
            number = LABELS.get(label)
            if number is None:
                raise UsageError(
                    f"{where}: unknown label '{label}'; expected 0 to 5, or one of {', '.join([*EMOTIONS, *WORDS])}"
                )
            if name in found:
                raise UsageError(f"{where}: clip '{name}' is given twice, expected once in all lists")
            parse(name, where)
            found[name] = (split, number)
    return found
