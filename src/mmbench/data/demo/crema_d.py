"""A tiny CREMA-D: nine actors, six emotions; WAV of 16 bit at 16 kHz and Sorenson video in FLV, as in the original.

Its lists are OGM-GE's; ``lists-mla`` holds the same in the format of MLA's, to be put in their place.
"""

from __future__ import annotations

from pathlib import Path

from mmbench.data.demo.media import picture, rng, sound, write_sound, write_video
from mmbench.data.sets.crema_d import ACTORS, EMOTIONS, WORDS

CAST = [*ACTORS[:2], *ACTORS[18:20], *ACTORS[27::13]]  # two for testing, two for validation, and of every fold


def write(raw: Path) -> None:
    """Write the copy into a folder."""
    names = [f"{actor}_DFA_{emotion}_XX" for actor in CAST for emotion in EMOTIONS]
    for name in names:
        label = EMOTIONS[name.split("_")[2]]
        write_sound(raw / f"AudioWAV/{name}.wav", sound(label, 0.8, 16_000, name), 16_000)
        frames = [picture(label, 360, 480, f"{name}:{i}") for i in range(6)]
        write_video(raw / f"VideoFlash/{name}.flv", frames, 15, "flv1")
    order = rng("crema_d lists").permutation(len(names))
    for split, chosen in (("train", order[: len(names) * 8 // 10]), ("test", order[len(names) * 8 // 10 :])):
        names_of_split = [names[i] for i in sorted(chosen)]
        emotions = [name.split("_")[2] for name in names_of_split]
        rows = [f"{name},{emotion}\r\n" for name, emotion in zip(names_of_split, emotions, strict=True)]
        words = [list(WORDS)[EMOTIONS[emotion]] for emotion in emotions]
        lines = [f"{name}.flv {word}\n" for name, word in zip(names_of_split, words, strict=True)]
        for file, content in ((f"lists/{split}.csv", rows), (f"lists-mla/my_{split}_cre.txt", lines)):
            (raw / file).parent.mkdir(exist_ok=True)
            (raw / file).write_bytes("".join(content).encode())
