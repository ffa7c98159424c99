"""A tiny set of Tux Paint stamps: PNG with a transparent ground and stereo Vorbis at 44.1 kHz, as in the original."""

from __future__ import annotations

from pathlib import Path
from shutil import copyfile

import numpy as np

from mmbench.data.demo.media import picture, rng, sound, write_picture
from mmbench.data.sets.tuxpaint import Tuxpaint

RATE = 44_100
FOLDERS = {
    "animals": "birds", "food": "fruit", "household": "tools", "plants": "trees",
    "seasonal": "winter", "symbols": "math", "town": "houses/cartoon", "vehicles": "auto",
}  # fmt: skip
WORDS = ("long", "round", "small", "old", "new")


def write(raw: Path) -> None:
    """Write the copy into a folder: six stamps of each category, two of them of one series, and what real folders hold besides."""
    root = raw / "usr/share/tuxpaint/stamps"
    for label, category in enumerate(Tuxpaint.classes):
        for word in WORDS:
            write_stamp(
                root / category / FOLDERS[category] / f"{word}_{category[:4]}", label, f"A {word} {category[:4]}."
            )
        write_stamp(
            root / category / FOLDERS[category] / f"{WORDS[0]}_{category[:4]}2", label, f"Another {category[:4]}."
        )
    birds, auto, winter = (root / c / FOLDERS[c] for c in ("animals", "vehicles", "seasonal"))
    (birds / "old_anim_desc_fr.ogg").unlink()  # a stamp without speech
    (auto / "old_vehi.txt").unlink()  # and one without a description
    write_svg(birds / "ant.svg")
    (birds / "ant.txt").write_text("An ant.\n")
    write_svg(birds / "long_anim.svg")  # of a stamp that has a PNG too
    write_picture(auto / "long_vehi_mirror.png", stamp(7, 30, 40, "mirror"))
    for name in ("snow", "snow_vehi"):  # one description and one recording for stamps of two categories
        write_stamp((winter if name == "snow" else auto) / name, 4 if name == "snow" else 7, "Snow!")
    copyfile(winter / "snow_desc_fr.ogg", auto / "snow_vehi_desc_fr.ogg")
    copyfile(winter / "snow_desc_fr.ogg", winter / "gift_desc_fr.ogg")  # speech without a picture
    write_stamp(root / "space/moon", 0, "The moon.")  # a category that is too small to be a class


def write_stamp(path: Path, label: int, text: str) -> None:
    """Write a stamp's picture, description, speech and flags."""
    random = rng("stamp", path.name)
    height, width = random.integers(24, 96, 2)
    write_picture(path.with_name(f"{path.name}.png"), stamp(label, height, width, path.name))
    path.with_name(f"{path.name}.txt").write_text(
        f"{text}\nfr.utf8=Le {path.name}…\nru.utf8=Штамп.\n", encoding="utf-8"
    )
    path.with_name(f"{path.name}.dat").write_text("noflip\n")
    write_speech(path.with_name(f"{path.name}_desc_fr.ogg"), sound(label, random.uniform(0.3, 0.6), RATE, path.name))


def stamp(label: int, height: int, width: int, seed: object) -> np.ndarray:
    """An ellipse cut out of the class's stripes, transparent around it: (H, W, 4) uint8."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    opaque = np.where(x**2 + y**2 <= 1, 255, 0).astype(np.uint8)
    return np.dstack([picture(label, height, width, seed), opaque])


def write_svg(path: Path) -> None:
    """Write a drawing."""
    path.write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><circle cx="4" cy="4" r="4"/></svg>\n'
    )


def write_speech(path: Path, samples: np.ndarray) -> None:
    """Write (L,) float on both channels of an Ogg Vorbis file."""
    import av

    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as container:  # else the stream gets a random number
        stream = container.add_stream("vorbis", rate=RATE, layout="stereo", options={"strict": "experimental"})
        frame = av.AudioFrame.from_ndarray(np.stack([samples, samples]), format="fltp", layout="stereo")
        frame.rate, frame.pts = RATE, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
