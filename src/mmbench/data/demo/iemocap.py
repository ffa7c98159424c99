"""A tiny IEMOCAP: ten dialogues in turns of 0.2 s; WAV of 16 bit at 16 kHz and DivX video in AVI, as in the original.

``lists-mla`` holds lists as MLA's release has them, to be put in the place of the plain ones in ``lists``.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from mmbench.data.demo.media import picture, rng, sound, write_sound
from mmbench.data.preparing.raw import Sample
from mmbench.data.sets.iemocap import EVALUATION, RELEASE, SOUND, TRANSCRIPTIONS, VIDEO, Iemocap
from mmbench.data.sets.iemocap import WORDS as MLA

EMOTIONS = ("neu", "ang", "sad", "hap", "exc", "fru")
CUES = ("I see.", "Stop it!", "[SOBBING]", "I like that.", "We did it! [LAUGHTER]", "Not again.", "Hm.")
WORDS = ("about", "before", "form", "letter", "Monday", "nobody", "table", "think", "where", "window", "would")
TURN, FRAMES = Fraction(6 * 1001, 30_000), 6  # seconds and frames from a turn to the next


def write(raw: Path, data: type[Iemocap] = Iemocap) -> None:
    """Write the copy into a folder, with the published lists of this variant."""
    for session in range(1, 6):
        for number, dialogue in enumerate((f"Ses0{session}F_impro01", f"Ses0{session}M_script01_1")):
            write_dialogue(raw / RELEASE / f"Session{session}", dialogue, turn=session + number)
    samples = {sample.id: sample for sample in data.scan(raw).samples}
    names = rng("iemocap lists").permutation(list(samples))
    ends = len(names) * 6 // 10, len(names) * 8 // 10
    (raw / "lists").mkdir(exist_ok=True)
    for split, part in zip(("train", "dev", "test"), np.split(names, ends), strict=True):
        (raw / f"lists/{split}.txt").write_text("".join(f"{name}\n" for name in sorted(part)))
    (raw / "lists-mla").mkdir(exist_ok=True)
    for split, part in (("train", names[: ends[0]]), ("test", names[ends[1] :])):
        lines = [mla_line(samples[name], data) for name in sorted(part)]
        (raw / f"lists-mla/my_{split}_iemo.txt").write_text("".join(lines), encoding="utf-8")


def mla_line(sample: Sample, data: type[Iemocap]) -> str:
    """A line of MLA's lists; they have four emotions, and so no line of another one."""
    emotion = data.classes[sample.label].capitalize()
    return f"{sample.id}.mp4 [split|sign] {sample.text['text']} [split|sign] {emotion}\n" if emotion in MLA else ""


def write_dialogue(session: Path, dialogue: str, turn: int) -> None:
    """Six turns, one of each emotion, the actors by turns; improvised ones have a seventh, on which the annotators do not agree."""
    emotions = [*EMOTIONS[turn % 6 :], *EMOTIONS[: turn % 6], *["xxx"] * ("impro" in dialogue)]
    rated, said, stills = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"], [], []
    rest = np.full((240, 360, 3), 128, np.uint8)
    for i, emotion in enumerate(emotions):
        speaker = "FM"[i % 2]
        name = f"{dialogue}_{speaker}{i // 2:03}"
        label = EMOTIONS.index(emotion) if emotion in EMOTIONS else 6
        start, end = float(i * TURN), float((i + 1) * TURN) - 0.02
        rated.append(f"[{start:.4f} - {end:.4f}]\t{name}\t{emotion}\t[2.5000, 2.5000, 2.5000]\nC-E2:\tNeutral;\t()\n\n")
        text = f"{CUES[label]} {' '.join(rng(name).choice(WORDS, 4))}."
        said.append(f"{name} [{start:08.4f}-{end:08.4f}]: {text}\n{speaker}: [BREATHING]\n")
        write_sound(session / SOUND / dialogue / f"{name}.wav", sound(label, end - start, 16_000, name), 16_000)
        halves = [picture(label, 240, 360, name), rest]
        both = np.hstack(halves if speaker == dialogue[5] else halves[::-1])
        stills.append(np.pad(both, ((120, 120), (0, 0), (0, 0))))
    for folder, lines in ((EVALUATION, rated), (TRANSCRIPTIONS, said)):
        (session / folder).mkdir(parents=True, exist_ok=True)
        (session / folder / f"{dialogue}.txt").write_text("".join(lines))
    write_divx(session / VIDEO / f"{dialogue}.avi", stills)


def write_divx(path: Path, stills: Sequence[np.ndarray]) -> None:
    """Show each picture (H, W, 3) for the length of a turn."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(30_000, 1001), options={"g": "300"})
        stream.codec_context.codec_tag = "DX50"
        stream.height, stream.width = stills[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for number, pixels in enumerate(stills):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")
            for i in range(FRAMES):
                frame.pts, frame.time_base = number * FRAMES + i, Fraction(1001, 30_000)
                container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
