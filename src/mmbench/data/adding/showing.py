"""What ``mmbench data add`` prints of a folder, and the ``dataset.yaml`` that it writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmbench.data.adding.declaration import Declared
from mmbench.data.adding.guesses import Line
from mmbench.data.adding.infer import Inferred
from mmbench.errors import StoreError, UsageError
from mmbench.files import atomic_write

ROLES = ("id", "label", "group", "split")


def show(found: Inferred) -> list[str]:
    """The table of what was inferred, and of what was not."""
    lines = [*table("what", "is", "why", found.lines)]
    if found.unused:
        lines += ["", *table("column or file", "", "why", found.unused)]
    return [*lines, *(f"NOT INFERRED: {line}" for line in found.open)]


def table(*cells: Any) -> list[str]:
    """Lines of three columns, below a header."""
    *head, lines = cells
    rows = [tuple(head), *((line.what, line.found, line.why) for line in lines)]
    widths = [min(32, max(len(row[i]) for row in rows)) for i in range(2)]
    return [f"{row[0]:{widths[0]}}  {row[1]:{widths[1]}}  {row[2]}".rstrip() for row in rows]


def lines_of(content: Declared) -> list[str]:
    """The same table of what a file declares."""
    roles = [Line(role, getattr(content, role) or "–", "") for role in ROLES]
    kinds = [
        Line(name, one.kind, str(one.array or one.file or one.column or ", ".join(one.columns or ())))
        for name, one in content.modalities.items()
    ]
    rest = [
        Line("classes", str(len(content.classes)), ", ".join(content.classes[:8]) + " …" * (len(content.classes) > 8)),
        Line("conditioning", content.conditioning, ""),
        Line("folds", str(content.folds), ""),
    ]
    return table("what", "is", "from", [*roles, *rest[:1], *kinds, *rest[1:]])


NOTES = {
    "name": "what experiments call it",
    "metadata": "a row a sample; of several tables, the folder that each is in is its split",
    "id": "the column that names each sample; null: the number of its row",
    "label": "the column of the class",
    "classes": "in the order of tables",
    "group": "the column of what must not be in two splits (speaker, patient, author); null: none was given, so\n"
    "# that clean is only stratified by class",
    "split": "the column of a given split (train, validation, test); null: none was given, splits are cut here",
    "modalities": "kinds: picture (file, size, pad, flip), sound (file, seconds), video (file, frames, size, flip),\n"
    "# text (column), features (array, file, column or columns; standardise), numbers (columns; standardise).\n"
    "# encoder: names one in place of the kind's own; pretrained ones want larger pictures, size: 256.\n"
    "# An empty cell is a modality that is absent.",
    "conditioning": "the modality that conditions the others where a method is asymmetric (FiLM, BiGated)",
    "folds": "parts that the whole set is cut into, of whole groups; 1: none",
    "distinct_texts": "equal texts are kept within one split, as equal files are",
}


def write_declaration(path: Path, found: Inferred) -> None:
    """Write ``dataset.yaml``, each key with what it means.

    Raises:
        UsageError: the folder cannot be written to.
    """
    import yaml

    parts = ["# How mmbench reads this folder; written by `mmbench data add`, to be changed where it is wrong.\n"]
    for key, value in found.content.items():
        if key == "modalities":
            inner = (
                f"  {yaml.safe_dump(name).removesuffix('...' + chr(10)).strip()}: "
                + yaml.safe_dump(one, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10_000)
                for name, one in value.items()
            )
            text = "modalities:\n" + "".join(inner)
        else:
            flow = isinstance(value, list)
            text = yaml.safe_dump(
                {key: value}, allow_unicode=True, sort_keys=False, width=120, default_flow_style=None if flow else False
            )
        parts.append(f"\n# {NOTES[key]}\n{text}")
    try:
        atomic_write(path, "".join(parts).encode())
    except StoreError as error:
        raise UsageError(f"{error}; the folder has to be one that can be written to: copy the table there") from error
