"""IEMOCAP: pairs of actors who play scenes, heard, seen and transcribed; one emotion an utterance. Gated, so not shipped."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from mmbench.data.prepared import PreparedDataModule
from mmbench.data.preparing.audio import SHIFT, WINDOW, fbank
from mmbench.data.preparing.frames import read_frames
from mmbench.data.preparing.lists import find_files, need, read_lines, within
from mmbench.data.preparing.raw import Info, Listing, Sample, Source, digest
from mmbench.data.preparing.sound import RATE, read_audio
from mmbench.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

RELEASE = "IEMOCAP_full_release"
EVALUATION, TRANSCRIPTIONS = "dialog/EmoEvaluation", "dialog/transcriptions"
SOUND, VIDEO = "sentences/wav", "dialog/avi/DivX"
FOLDERS = {
    EVALUATION: "the emotions",
    TRANSCRIPTIONS: "the texts",
    SOUND: "the utterances' sound",
    VIDEO: "the dialogues' videos, which the release without videos lacks",
}
LABELS = ("neu", "ang", "sad", "hap", "exc", "fru", "fea", "sur", "dis", "oth", "xxx")

DIALOGUE = re.compile(r"Ses0[1-5][FM]_[A-Za-z0-9_]+")
UTTERANCE = re.compile(rf"({DIALOGUE.pattern})_([FM])[A-Za-z0-9]+")  # nothing in it can lead to another folder
TIME = r"(\d+(?:\.\d+)?)"
RATED = re.compile(
    rf"\[{TIME} - {TIME}\]\s+(\S+)\s+(\S+)\s+\[.*\]"
)  # [6.29 - 8.24] Ses01F_impro01_F000 neu [2.5, 2.5, 2.5]
SAID = re.compile(r"(\S+)\s+\[[^\]]*\]:(.*)")  # Ses01F_impro01_F000 [006.29-008.24]: Excuse me.

WORDS = ("Neutral", "Angry", "Sad", "Happy")  # of MLA's lists
FRAMES = 1024
SAMPLES = 10 * RATE
REACH = ((FRAMES - 1) * SHIFT + WINDOW) / RATE  # seconds that the filter bank sees
NEAR = 0.05  # seconds around the middle: two or three frames of the 29.97 a second
HALF, SIZE = (480, 360), 256


def decode_audio(path: Path, sample: Sample) -> Mapping[str, np.ndarray]:
    """The filter bank, and the first ten seconds as they are."""
    sound = read_audio(path)
    waveform = np.zeros(SAMPLES, np.int16)
    waveform[: len(sound)] = (sound[:SAMPLES] * 2**15).round().clip(-(2**15), 2**15 - 1)
    return {"fbank": fbank(torch.from_numpy(sound), FRAMES).numpy(), "waveform": waveform}


def decode_image(path: Path, sample: Sample) -> Mapping[str, np.ndarray]:
    """The speaker, at the middle of the utterance."""
    middle = (sample.clip["start"] + sample.clip["end"]) / 2
    picture = read_frames(path, 1, HALF, (middle - NEAR, middle + NEAR), sample.clip["half"])[0]
    top, left = ((side - SIZE) // 2 for side in HALF)
    return {"frame": picture[top : top + SIZE, left : left + SIZE]}


class Iemocap(PreparedDataModule):
    """IEMOCAP (Busso et al., 2008) with four emotions: 5,531 utterances of ten actors in five sessions.

    The label is the one that EmoEvaluation's files give an utterance; happy includes excited. Utterances that they give another one
    are not in the set, and are counted. The text is the transcription as it is, with its remarks such as [LAUGHTER].

    ``clean`` trains on sessions 1 to 3, chooses the epoch on session 4 and tests on session 5, as ``iemocap_features`` does: no actor
    and no dialogue is in two splits. ``legacy`` is random by utterance as in the MLA paper, 60/20/20: actors and dialogues are on both
    sides; the middle part is not used. Where the raw folder holds MLA's lists of training and test, or others, legacy is theirs; else
    the splits are cut by the hashes of the utterances' names, as ``iemocap_features`` cuts them.

    Of five folds, the kth one (from 0) tests session k + 1 and chooses the epoch on the next one; of the fifth, that is session 1.

    Views of ``audio``: ``fbank`` (1024, 128), whose 10.255 s MLA's CAV-MAE sees; ``waveform`` (160000,), 16 kHz, for wav2vec 2.0: 10 s,
    with silence behind a shorter utterance. What is beyond is cut; preparing tells of how many utterances.

    Inputs: ``audio`` (B, 1024, 128) float16 or (B, 160000) int16; ``image`` (B, 3, 256, 256) uint8; ``text``. Groups are dialogues.

    Not verified here, where the recordings are not to be had: all that is said of the original's files.

    Departures:
        1. The videos show both actors side by side. The one with markers, whom the dialogue's name tells (F or M), is taken to be on
           the left. This is an assumption, which others' code that cuts these videos shares (AIM3-RUC/MEmoBert's, say).
        2. The papers cut out the face. No face is looked for here: the picture is the middle 256 × 256 of the speaker's half, of
           360 × 480. Above and below it that half is black, by where others' code looks for faces.
    """

    name = "iemocap"
    modalities = ("audio", "image", "text")
    text_modalities = ("text",)
    classes: ClassVar[tuple[str, ...]] = ("neutral", "angry", "sad", "happy")
    emotions: ClassVar[Mapping[str, int]] = {"neu": 0, "ang": 1, "sad": 2, "hap": 3, "exc": 3}
    conditioning = "audio"
    folds = 5
    folded_by = "session"
    encoders = {
        "audio": {"name": "cav_mae", "weights": "cav_mae.pth"},
        "image": {"name": "m3ae_image", "weights": "m3ae_base.pkl"},
        "text": {"name": "m3ae_text", "weights": "m3ae_base.pkl", "max_length": 256},
    }
    pictures = {"image": {}}
    sources = {
        "audio": Source(
            {"fbank": ((FRAMES, 128), "float16"), "waveform": ((SAMPLES,), "int16")},
            decode_audio,
            "fbank: 16 kHz, 128 mel, 1024 frames; waveform: 16 kHz, 10 s",
        ),
        "image": Source(
            {"frame": ((SIZE, SIZE, 3), "uint8")},
            decode_image,
            "the frame at the middle of the utterance, upright; the middle 256 × 256 of the speaker's half",
        ),
    }
    version = 2
    published = {
        "all": {"samples": 5531},
        "clean": {"train": 3259, "validation": 1031, "test": 1241},
        "legacy": {"train": 3318, "validation": 1106, "test": 1107},
    }
    info = Info(
        title="IEMOCAP: Interactive Emotional Dyadic Motion Capture Database",
        source="https://sail.usc.edu/iemocap/ (by request; the release with videos)",
        licence="for research, by agreement with USC; not to be passed on",
        layout=(
            (f"{RELEASE}/Session<1-5>/", "or these folders themselves; in each of them:"),
            (f"  {SOUND}/<dialogue>/<utterance>.wav", "10,039 recordings"),
            (f"  {VIDEO}/<dialogue>.avi", "151 videos"),
            (f"  {EVALUATION}/<dialogue>.txt", "lines [start - end] utterance emotion [V, A, D]"),
            (f"  {TRANSCRIPTIONS}/<dialogue>.txt", "lines utterance [start-end]: text"),
            (
                "lists/train.txt, lists/test.txt",
                "if you have them, for legacy: a name a line, such as Ses01F_impro01_F000",
            ),
            ("lists/dev.txt", "likewise; can be left out"),
            (
                "lists/my_train_iemo.txt, my_test_iemo.txt",
                "or MLA's lists: <utterance>.mp4 [split|sign] text [split|sign] Emotion",
            ),
        ),
        disk="prepared 0.8 MB an utterance",
    )

    @classmethod
    def scan(cls, raw: Path) -> Listing:
        """Every utterance that EmoEvaluation's files give one of the emotions is a sample."""
        listing, emotion_of = Listing([]), dict[str, str]()
        base = f"{RELEASE}/" if (raw / RELEASE).exists() else ""
        for session in range(1, 6):
            folder = f"{base}Session{session}"
            need(raw, folder, f"expected the five sessions of {RELEASE}")
            for part, what in FOLDERS.items():
                need(raw, f"{folder}/{part}", f"expected {what}")
            emotion_of |= cls.scan_session(raw, folder, listing)
            sounds = [p for p in find_files(raw / folder / SOUND, ".wav", deep=True) if p.name.startswith("Ses")]
            listing.unlisted += [str(path.relative_to(raw)) for path in sounds if path.stem not in emotion_of]
        listing.samples.sort(key=lambda sample: sample.id)
        counts = Counter(emotion for emotion in emotion_of.values() if emotion not in cls.emotions)
        if counts:
            others = ", ".join(f"{emotion} {count}" for emotion, count in counts.most_common())
            listing.notes.append(f"{counts.total()} utterances have other emotions and are not in the set: {others}")
        lengths = np.array([sample.clip["end"] - sample.clip["start"] for sample in listing.samples])
        longer = [(lengths > most).sum() for most in (SAMPLES / RATE, REACH)]
        if longer[0]:
            listing.notes.append(
                f"{longer[0]} utterances last longer than the waveform's 10 s, {longer[1]} than the fbank's {REACH} s "
                f"(the longest {lengths.max():.1f} s); the rest of them is cut off"
            )
        cls.add_legacy(raw, listing, emotion_of)
        return listing

    @classmethod
    def scan_session(cls, raw: Path, folder: str, listing: Listing) -> dict[str, str]:
        """Add a session's samples to the listing. Returns utterance -> emotion, of all that are rated."""
        emotion_of: dict[str, str] = {}
        evaluations = sorted((raw / folder / EVALUATION).glob("Ses*.txt"))
        if not evaluations:
            raise UsageError(
                f"{raw / folder / EVALUATION}: no file; expected <dialogue>.txt, such as Ses01F_impro01.txt"
            )
        for path in evaluations:
            dialogue = path.stem
            if not DIALOGUE.fullmatch(dialogue) or dialogue[4] != folder[-1]:
                raise UsageError(
                    f"{path}: expected the name of a dialogue of this session, such as Ses0{folder[-1]}F_impro01"
                )
            transcription = f"{folder}/{TRANSCRIPTIONS}/{dialogue}.txt"
            said = read_transcription(within(raw, transcription), listing.notes)
            rated = read_evaluation(within(raw, str(path.relative_to(raw))), listing.notes)
            for name, (start, end, emotion) in rated.items():
                emotion_of[name] = emotion
                if emotion not in cls.emotions:
                    continue
                if len(texts := said.get(name, [])) != 1:
                    listing.skipped.append((name, transcription, f"has {len(texts)} lines of it, expected one"))
                    continue
                speaker = name.rpartition("_")[2][0]
                files = {
                    "audio": f"{folder}/{SOUND}/{dialogue}/{name}.wav",
                    "image": f"{folder}/{VIDEO}/{dialogue}.avi",
                }
                clip = {"start": start, "end": end, "half": "left" if speaker == dialogue[5] else "right"}
                label = cls.emotions[emotion]
                listing.samples.append(Sample(name, label, dialogue, files, {"text": texts[0]}, clip=clip))
        return emotion_of

    @classmethod
    def add_legacy(cls, raw: Path, listing: Listing, emotion_of: Mapping[str, str]) -> None:
        """Give the samples their legacy split: by lists if there are any, otherwise at random by the hashes of their names."""
        splits = read_lists(raw, listing.notes)
        if not splits:
            listing.notes.append("no published lists; legacy is random by the hashes of the names, 60/20/20")
            names = sorted((sample.id for sample in listing.samples), key=digest)
            ends = len(names) * 6 // 10, len(names) * 8 // 10
            parts = {"train": names[: ends[0]], "validation": names[ends[0] : ends[1]], "test": names[ends[1] :]}
            splits = {name: (split, "") for split, part in parts.items() for name in part}
        listing.samples = [replace(sample, legacy=splits.get(sample.id, ("",))[0]) for sample in listing.samples]
        listing.unlisted += [sample.files["audio"] or "" for sample in listing.samples if not sample.legacy]
        usable = {sample.id for sample in listing.samples} | {name for name, _, _ in listing.skipped}
        for name, (_, where) in splits.items():
            if name not in usable:
                emotion = emotion_of.get(name)
                reason = f"has the emotion {emotion}, not in the set" if emotion else f"is in no file of {EVALUATION}"
                listing.skipped.append((name, where, reason))

    @classmethod
    def clean(cls, samples: pd.DataFrame) -> Sequence[str]:
        """By session."""
        return [{"4": "validation", "5": "test"}.get(dialogue[4], "train") for dialogue in samples["group"]]

    @classmethod
    def part_of(cls, samples: pd.DataFrame) -> Sequence[int]:
        """By session, counted from 0."""
        return [int(dialogue[4]) - 1 for dialogue in samples["group"]]


class Iemocap6(Iemocap):
    """IEMOCAP with six emotions, those of ``Iemocap`` and frustrated, happy and excited apart; otherwise the same.

    Papers count 7,433 utterances, 648 of them happy. EmoEvaluation's files can give 595 happy ones alone, since happy and the 1,041
    excited ones come to 1,636 where there are four emotions; so 7,380 are expected here. Where the other 53 come from is not known.
    """

    name = "iemocap6"
    classes = ("happy", "sad", "neutral", "angry", "excited", "frustrated")
    emotions = {"hap": 0, "sad": 1, "neu": 2, "ang": 3, "exc": 4, "fru": 5}
    published = {"all": {"samples": 7433}}
    info = replace(Iemocap.info, title=f"{Iemocap.info.title}, six emotions")

    @classmethod
    def scan(cls, raw: Path) -> Listing:
        """As for four emotions."""
        listing = super().scan(raw)
        listing.notes.append(
            "the published 7,433 hold 53 happy utterances more than these files give: 7,380 are expected"
        )
        return listing


def read_evaluation(path: Path, notes: list[str]) -> dict[str, tuple[float, float, str]]:
    """Utterance -> (start, end, emotion) of a dialogue, in seconds of its video; the single annotators' lines are left out."""
    found: dict[str, tuple[float, float, str]] = {}
    for where, line in read_lines(path, notes):
        if not line.startswith("["):
            continue
        if (rated := RATED.fullmatch(line)) is None:
            raise UsageError(f"{where}: expected [start - end] utterance emotion [V, A, D], got {line[:80]!r}")
        name, emotion = rated[3], rated[4]
        start, end = float(rated[1]), float(rated[2])
        utterance = UTTERANCE.fullmatch(name)
        if utterance is None or utterance[1] != path.stem:
            raise UsageError(
                f"{where}: '{name}' is no utterance of this dialogue; expected a name such as {path.stem}_F000"
            )
        if name in found:
            raise UsageError(f"{where}: utterance '{name}' is given twice, expected once")
        if emotion not in LABELS:
            raise UsageError(f"{where}: unknown emotion '{emotion}'; {did_you_mean(emotion, LABELS)}")
        if end <= start:
            raise UsageError(f"{where}: '{name}' ends at {end:g} s, expected after its start at {start:g} s")
        found[name] = start, end, emotion
    return found


def read_transcription(path: Path, notes: list[str]) -> dict[str, list[str]]:
    """Utterance -> the texts of its lines, of which there should be one; none if the file is missing. Asides are left out."""
    found: dict[str, list[str]] = {}
    for _, line in read_lines(path, notes) if path.exists() else ():
        if said := SAID.fullmatch(line):
            found.setdefault(said[1], []).append(said[2].strip())
    return found


def read_lists(raw: Path, notes: list[str]) -> dict[str, tuple[str, str]]:
    """Utterance -> (split, where it is listed); none if there are no lists."""
    found: dict[str, tuple[str, str]] = {}
    plain = {"train": "lists/train.txt", "validation": "lists/dev.txt", "test": "lists/test.txt"}
    release = {"train": "lists/my_train_iemo.txt", "test": "lists/my_test_iemo.txt"}
    kinds = [{split: within(raw, file) for split, file in files.items()} for files in (plain, release)]
    present = [{split: path for split, path in paths.items() if path.exists()} for paths in kinds]
    if all(present):
        raise UsageError(f"{raw / 'lists'} holds lists of names and of MLA; expected one kind")
    for paths, there in zip(kinds, present, strict=True):
        for split in ("train", "test"):
            if there and split not in there:
                raise UsageError(f"{paths[split]} is missing, but {next(iter(there.values()))} is there")
        for split, path in there.items():
            for where, line in read_lines(path, notes):
                name = read_name(line, where) if paths is kinds[1] else line
                if not UTTERANCE.fullmatch(name):
                    raise UsageError(
                        f"{where}: {name[:80]!r} is no utterance; expected a name such as Ses01F_impro01_F000"
                    )
                if name in found:
                    raise UsageError(f"{where}: utterance '{name}' is given twice, expected once in all lists")
                found[name] = split, where
    return found


def read_name(line: str, where: str) -> str:
    """The utterance of a line of MLA's lists; its text and emotion are those of the raw files."""
    parts = [part.strip() for part in line.split("[split|sign]")]
    if len(parts) != 3 or not parts[0].endswith(".mp4") or parts[2] not in WORDS:
        raise UsageError(
            f"{where}: expected '<utterance>.mp4 [split|sign] text [split|sign] emotion', one of {', '.join(WORDS)}, got {line[:80]!r}"
        )
    return parts[0].removesuffix(".mp4")
