"""A tiny CASIA-SURF: four subjects for training, numbered crops for validation and test; small JPEG files of uneven sizes."""

from __future__ import annotations

from pathlib import Path

from mmbench.data.demo.media import picture, rng, write_picture
from mmbench.data.sets.casia_surf import COLUMNS, LISTS

VIDEOS = {"real.rssdk": 1, "04_en_b.rssdk": 0, "05_enm_f.rssdk": 0, "06_enm_b.rssdk": 0}  # folder -> label, 1 for live


def write(raw: Path) -> None:
    """Write the copy into a folder."""
    lists: dict[str, list[str]] = {split: [] for split in LISTS}
    for subject in ("CLKJ_AS0005", "CLKJ_AS0137", "CLKJ_CS0110", "CLKJ_CS0121"):
        for video, live in VIDEOS.items():
            for frame in (1, 11):
                folder = f"Training/{'real' if live else 'fake'}_part/{subject}/{video}"
                lists["train"].append(
                    write_crops(raw, {kind: f"{folder}/{kind}/{frame}.jpg" for kind in COLUMNS.values()}, live)
                )
    for split, folder, count in (("validation", "Val", 10), ("test", "Testing", 14)):
        for i in range(count):
            number = i if i % 2 else 1000 + i  # in two folders
            stem = f"{folder}/{number // 1000:04}/{number:06}"
            lists[split].append(
                write_crops(raw, {kind: f"{stem}-{kind}.jpg" for kind in COLUMNS.values()}, int(i % 3 == 0))
            )
    for split, name in LISTS.items():
        (raw / name).write_text("".join(lists[split]))


def write_crops(raw: Path, files: dict[str, str], live: int) -> str:
    """Write one crop in all three modalities, those but colour grey, and return its line."""
    height, width = rng("casia_surf", files["color"]).integers(80, 130, 2).tolist()
    for kind, file in files.items():
        pixels = picture(live, height, width, file)
        write_picture(raw / file, pixels if kind == "color" else pixels[:, :, 0])
    return f"{' '.join(files.values())} {live}\n"
