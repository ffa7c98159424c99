"""A tiny MVSA-Single: 60 tweets in UTF-8 and in GB18030 with JPEG pictures, and lists as QMF's release has them.

``lists-mla`` holds lists as MLA's release has them, to be put in their place.
"""

from __future__ import annotations

import json
from pathlib import Path

from mmbench.data.demo.media import picture, rng, write_picture
from mmbench.data.sets.mvsa import Mvsa

SAID = {
    "negative": "awful rainy gloomy broken",
    "neutral": "bus station map report",
    "positive": "happy sunny lovely friends",
}
OTHER = {"negative": "neutral", "neutral": "positive", "positive": "negative"}


def write(raw: Path) -> None:
    """Write the copy into a folder."""
    labels, texts = dict[int, tuple[str, str]](), dict[int, str]()
    for i in range(60):
        number, label = 3 * i + 1, Mvsa.classes[i % 3]
        labels[number] = (label, OTHER[label] if i >= 45 else label)  # of the last 15, a third contradict each other
        random = rng("mvsa", i)
        said = " ".join(random.permutation(SAID[label].split())[:3])
        texts[number] = (
            f"RT @user{i}: {said}… “{' '.join(random.choice(list('abcdefgh'), 6))}” #day{i} http://t.co/{i} "
        )
    texts[10] = (
        f"RT @again: {texts[1].removeprefix('RT @user0: ').replace('t.co/0', 't.co/again')}"  # the same, another link
    )
    labels[10] = labels[1]
    for number, text in texts.items():
        shown = Mvsa.classes.index(labels[number][1])
        write_picture(raw / f"data/{number}.jpg", picture(shown, 48, 64, f"mvsa:{number}"))
        (raw / f"data/{number}.txt").write_bytes(text.encode("gb18030" if number % 2 else "utf-8"))
    rows = "".join(f"{number}\t{text},{image}\r\n" for number, (text, image) in labels.items())
    (raw / "labelResultAll.txt").write_bytes(f"ID\ttext,image\r\n{rows}".encode())
    (raw / "lists").mkdir()
    (raw / "lists-mla").mkdir()
    equal = [number for number, (text, image) in labels.items() if text == image]
    order = rng("mvsa lists").permutation(equal).tolist()
    for part, chosen in (("train", order[:27]), ("dev", order[27:36]), ("test", order[36:])):
        lines = [
            {
                "id": str(number),
                "label": labels[number][0],
                "text": texts[number].encode("gb18030").decode("latin-1"),
                "img": f"data/{number}.jpg",
            }
            for number in chosen
        ]
        (raw / f"lists/{part}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        if part != "dev":  # MLA's has no validation list
            pairs = "".join(f"{number}.jpg {labels[number][0]}\n" for number in chosen)
            (raw / f"lists-mla/my_{part}_mvsa.txt").write_text(pairs)
