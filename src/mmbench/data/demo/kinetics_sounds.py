"""A tiny Kinetics-Sounds: 31 classes of six clips, of five videos each; H.264 and AAC in MP4, as in the original, but for a second.

Its lists are in the two formats of OGM-GE's, lines ending as there; its classes are all in one line, as DMRNet's release has them.
"""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

from mmbench.data.demo.media import encode_sound, picture, rng, sound
from mmbench.data.preparing.raw import digest
from mmbench.data.sets.kinetics_sounds import KineticsSounds

RATE = 16_000


def write(raw: Path) -> None:
    """Write the copy into a folder. Of each class's six clips the last is in the list for testing, the others in that for training."""
    order = rng("kinetics_sounds classes").permutation(len(KineticsSounds.classes)).tolist()
    lists: dict[str, list[str]] = {"train": [], "test": []}
    for label, name in enumerate(KineticsSounds.classes):
        for i in range(6):
            video, start = (
                f"-{digest(f'{name}:{min(i, 4)}'):016x}"[:10] + "_",
                7 * i,
            )  # the fifth and sixth clip are of one video
            frames = [picture(label, 72, 96, f"{video}:{start}:{frame}") for frame in range(4)]
            path = raw / f"videos/{name}/{video}_{start:06}_{start + 10:06}.mp4"
            write_clip(path, frames, sound(label, 1, RATE, f"{video}:{start}"))
            clip = f"{video}_{start}" if i == 5 else f"{video}_{start:06}_{start + 10:06}"
            lists["test" if i == 5 else "train"].append(f"{clip},10,{order.index(label)}\r\n")
    (raw / "lists").mkdir()
    for split, lines in lists.items():
        (raw / f"lists/my_{split}.txt").write_bytes("".join(sorted(lines)).encode())
    names = [KineticsSounds.classes[label] for label in order]
    names = [name.replace(" ", "_") if i % 4 == 1 else name for i, name in enumerate(names)]
    (raw / "lists/class.txt").write_text(
        "".join(f"{',' if i % 5 == 4 else ', '}{n}" for i, n in enumerate(names)).strip(", ")
    )


def write_clip(path: Path, frames: list[np.ndarray], samples: np.ndarray) -> None:
    """Write four frames a second (H, W, 3) and sound (L,), encoded by the quickest settings: there are many clips."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=4, options={"preset": "ultrafast"})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        track = container.add_stream("aac", rate=RATE, layout="mono", options={"aac_coder": "fast"})
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
        encode_sound(container, track, samples, RATE, av)
