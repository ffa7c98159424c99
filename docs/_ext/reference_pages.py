"""The reference: every key of an experiment's file, from the models, and every command, from the parser."""

from __future__ import annotations

import re
from pathlib import Path

import api_pages
from command_entries import commands_page
from experiment_keys import Block, blocks, default, in_words, meaning, prose

ROOT = Path(__file__).parents[2]
HERE = ROOT / "docs/reference"
TOP = "The file"
EXPERIMENT = """# Experiment files: every key

For whoever writes or changes an experiment's YAML file; made from the models that check it.

An experiment is every combination of its data sets, protocols, folds, seeds, methods and ways of training with missing modalities;
each is a *trial*, one training. In the places below, `<…>` is a name: registered, or your own. `--set` takes the same places:
`mmbench run table1 --set datasets.openclipart.recipe.epochs=2`. An unknown key is refused, and the nearest known one told.

This file says most of what can be said:

{example}

This one the rest, of data sets that are prepared and encoders with weights (left out, with a line, where they are not on the machine):

{media}

"""
REPORTS = """# Reports: files and columns

For whoever reads a report's files, or computes with them; this is `results/README.md`.
"""
NOTES = {
    "": "Modalities, protocols, folds: [Ideas](../ideas/index.md).",
    "datasets.<data set>": "Names: [Data sets](../datasets/index.md).",
    "methods.<method>": "Names, and the arguments of each: [Methods](../methods/index.md).",
    "tune": "What tuning does: [Tuning](../ideas/tuning.md).",
    "missing.<name>": "Masks in pictures: [Missing modalities](../ideas/missing.md).",
}
"""Place of a block -> where to read on."""


def pages() -> dict[str, str]:
    """The pages."""
    return {
        "reference/experiment.md": experiment_page(),
        "reference/commands.md": commands_page(),
        "reference/reports.md": reports_page(),
        **api_pages.pages(),
    }


def reports_page() -> str:
    """What ``results/README.md`` tells of reports; its links lead to files of the repository, so they are text here."""
    text = (ROOT / "results/README.md").read_text().removeprefix("# Results\n")
    return REPORTS + re.sub(r"\[([^\]]+)\]\((?!http)[^)]+\)", r"\1", text)


def experiment_page() -> str:
    """Every key of an experiment's file."""
    examples = {
        name: f"```yaml\n{(HERE / file).read_text()}```"
        for name, file in (("example", "example.yaml"), ("media", "example_media.yaml"))
    }
    text, seen = EXPERIMENT.format(**examples), dict[type, str]()
    for block in blocks():
        text += block_entry(block, seen.get(block.model))
        seen.setdefault(block.model, block.place)
    return text


def block_entry(block: Block, told: str | None) -> str:
    """The section of a block; where its keys are those of an earlier one, a line that leads there."""
    heading = f"({anchor(block.place, 'block')})=\n## {f'`{block.place}`' if block.place else TOP}\n\n"
    if told is not None:
        return f"{heading}The keys of [`{told}`](#{anchor(told, 'block')}).\n\n"
    note = f"\n\n{NOTES[block.place]}" if block.place in NOTES else ""
    return f"{heading}{prose(block.model)}{note}\n\n" + "".join(
        f"[`{name}`]{{#{anchor(f'{block.place}.{name}')}}}\n"
        f": {values(block, name)}\n\n  {meaning(block.model, name).replace('->', '→')}\n\n"
        for name in block.fields
    )


def values(block: Block, name: str) -> str:
    """What a key takes, and what holds without it; a block leads to its section."""
    field = block.fields[name]
    words = in_words(field.annotation, tuple(field.metadata))
    below = next((b.place for b in blocks() if b.place.startswith(f"{block.place}.{name}".strip("."))), None)
    if below is not None:
        words = re.sub(r"a block|any value", f"[a block](#{anchor(below, 'block')})", words)
    return "; ".join(f"*{part}*" for part in (words, default(block.model, name, field)) if part)


def anchor(place: str, of: str = "key") -> str:
    """The name, within the page, of a key or a block."""
    return "-".join([of, *place.replace("<", "").replace(">", "").replace(" ", "-").strip(".").split(".")]).strip("-")
