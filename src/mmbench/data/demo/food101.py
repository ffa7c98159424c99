"""A tiny UPMC Food-101: four JPEG pictures of each of the 101 classes, titles in CSV, and lists as QMF's release has them.

``lists-mla`` holds lists as MLA's release has them, to be put in their place.
"""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

from mmbench.data.demo.media import picture, rng, write_picture
from mmbench.data.sets.food101 import Food101

TITLES = ("Easy {} recipe, {} edition", '{} | "{}" kitchen blog', "{}:\nhow {} cooks make it", "The best {} — {}'s way")


def write(raw: Path) -> None:
    """Write the copy into a folder."""
    rows: dict[str, list[tuple[str, str, str]]] = {"train": [], "test": []}
    for number, name in enumerate(Food101.classes):
        for i in range(4):
            words = rng("food101 title", name, i).choice(["Anna", "Bo", "Chao", "Dev", "Eva"], 2)
            title = TITLES[i].format(name.replace("_", " ").title(), f"{words[0]}'s {words[1]} {number}")
            rows["test" if i == 3 else "train"].append((f"{name}_{7 * i}.jpg", title, name))
    for i, title in ((0, rows["test"][0][1].upper()), (1, "")):  # one sample that leaks, one without a title
        rows["train"].append((f"waffles_{100 + i}.jpg", title, "waffles"))
    for split, table in rows.items():
        for name, _, label in table:
            pixels = picture(Food101.classes.index(label), 48, 64, f"{split}:{name}")
            write_picture(raw / f"images/{split}/{label}/{name}", pixels)
        path = raw / f"texts/{split}_titles.csv"
        path.parent.mkdir(exist_ok=True)
        encoding = {"train": "utf-8", "test": "utf-8-sig"}[split]
        with path.open("w", encoding=encoding, newline="") as stream:
            csv.writer(stream, lineterminator="\n").writerows(table)
    write_lists(raw / "lists", rows)


def write_lists(folder: Path, rows: dict[str, list[tuple[str, str, str]]]) -> None:
    """Lists in QMF's format, every third training sample for validation; and in MLA's, which has no validation list."""
    folder.mkdir()
    other = folder.with_name("lists-mla")
    other.mkdir()
    for split, table in rows.items():
        pairs = "".join(f"{name} {label}\n" for name, _, label in table)
        (other / f"my_{split}_food.txt").write_text(pairs)
    parts = {"train": [], "dev": rows["train"][::3], "test": rows["test"]}
    parts["train"] = [row for i, row in enumerate(rows["train"]) if i % 3]
    for part, table in parts.items():
        split = "test" if part == "test" else "train"
        lines = [
            {
                "id": f"{label}_{name}",
                "label": label,
                "text": re.sub(r"\W+", " ", title).lower(),
                "img": f"images/{split}/{label}/{name}",
            }
            for name, title, label in table
        ]
        (folder / f"{part}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
