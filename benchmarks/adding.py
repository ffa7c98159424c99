"""Adding data without code: preparing against bare decoding, as ratios in one run, and what 100,000 rows of features take.

    python benchmarks/adding.py [pictures] [rows]

Pictures are JPEGs of 500 × 375, decoded and scaled by the same function in one process each, by processor time; 1 would be no
overhead. The goal is 0.8. Adding features is measured as the process that a user starts: processor seconds and peak memory, with
imports.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from mmbench.data.adding.declaration import declared
from mmbench.data.preparing.pictures import read_image
from mmbench.data.preparing.prepare import prepare
from mmbench.data.sets.added import added_class

SIDE = 64
WIDTHS = {"audio": 128, "image": 512, "text": 300}


def write_pictures(root: Path, count: int) -> None:
    """JPEG files of noise in large blocks, and their table."""
    random = np.random.default_rng(0)
    lines = ["image_file_name,label"]
    for number in range(count):
        small = random.integers(0, 255, (15, 20, 3), np.uint8)
        Image.fromarray(small).resize((500, 375)).save(root / f"{number}.jpg", quality=90)
        lines.append(f"{number}.jpg,{'ab'[number % 2]}")
    (root / "metadata.csv").write_text("\n".join(lines) + "\n")


def pictures(count: int) -> None:
    """Print how fast preparing is, as a share of bare decoding, of three pairs."""
    content = {
        "name": "bench", "metadata": ["metadata.csv"], "label": "label", "classes": ["a", "b"],
        "modalities": {"image": {"kind": "picture", "file": "image_file_name", "size": SIDE}}, "conditioning": "image",
    }  # fmt: skip
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        os.environ["MMBENCH_DATA"] = str(root / "data")
        (root / "raw").mkdir()
        write_pictures(root / "raw", count)
        files = sorted((root / "raw").glob("*.jpg"))
        data = added_class(declared(content, "bench"))
        for _ in range(3):
            started = time.process_time()
            for file in files:
                read_image(file, (SIDE, SIDE))
            alone = time.process_time() - started
            started = time.process_time()
            prepare(data, root / "raw", 1, say=lambda text: None)
            ratios.append(alone / (time.process_time() - started))
    told = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    print(f"{count} pictures: preparing reaches {sorted(ratios)[1]:.2f} of bare decoding ({told})")


def features(rows: int) -> None:
    """Print what ``mmbench data add`` takes for arrays beside a table."""
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw"
        raw.mkdir()
        for name, width in WIDTHS.items():
            np.save(raw / f"{name}.npy", random.normal(size=(rows, width)).astype(np.float32))
        lines = (f"s{i},class{i % 10},speaker{i % 500}\n" for i in range(rows))
        (raw / "metadata.csv").write_text("id,label,speaker\n" + "".join(lines))
        command = [sys.executable, "-m", "mmbench", "data", "add", str(raw), "--data-dir", f"{folder}/data"]
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        print(
            json.dumps(
                {
                    "rows": rows,
                    "numbers a row": sum(WIDTHS.values()),
                    "seconds": round(time.perf_counter() - started, 1),
                    "processor seconds": round(used.ru_utime + used.ru_stime, 1),
                    "peak MB": round(used.ru_maxrss / 1024),
                }
            )
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=int, nargs="?", default=4000)
    parser.add_argument("rows", type=int, nargs="?", default=100_000)
    arguments = parser.parse_args()
    features(arguments.rows)  # first: peak memory is that of the largest child
    pictures(arguments.pictures)
