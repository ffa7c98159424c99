"""All methods on one page, by what they were made for, and how to choose; and every page of the section."""

from __future__ import annotations

from method_facts import groups, planted
from method_pages import name_of, own, page

INTRODUCTION = """For whoever looks for a method, or wants to know what one of those in a table does. Every page has the idea,
a drawing, the equations, each departure from the paper, the arguments, and what came of it on the data that come with the package."""
CHOICE = """- **Begin with the controls.** [Late fusion](late_fusion.md) and [the best single modality](unimodal.md): what does not beat
  them gains nothing by fusion. Reports compare with late fusion.
- **One modality learns, the others stay behind**: the second group. [Multi-loss](multi_loss.md) is its plain control.
- **Samples lack modalities**: the third group. Every method of the others runs there too; late fusion leaves out what is missing.
- **The class depends on how modalities go together**, as in XOR: a sum over modalities cannot learn it. These can: {interact}.
- **Cost**: each page tells it. A method of two stages shares the experiment's epochs out between them."""
TREE = "```{{toctree}}\n:hidden:\n\n{}\n```"


def pages() -> dict[str, str]:
    """Path below ``docs`` -> text, of the index and of every method."""
    return {"methods/index.md": index(), **{f"methods/{name}.md": page(name) for name in own()}}


def index() -> str:
    """The index, grouped as in ``baselines/README.md``."""
    rows = groups()
    other = [name for name in own() if not any(name in group for group in rows.values())]
    rows |= {"Others": dict.fromkeys(other, "")} if other else {}
    interact = [f"[{name_of(name)}]({name}.md)" for name, one in planted().items() if one.xor and name in own()]
    parts = ["# Methods", INTRODUCTION, "## How to choose", CHOICE.format(interact=", ".join(interact))]
    for heading, methods in rows.items():
        listed = [name for name in methods if name in own()]
        lines = [f"| [{name_of(name)}]({name}.md) | {methods[name]} |" for name in listed]
        parts += [f"## {heading}", "\n".join(["| method | what it is |", "| --- | --- |", *lines])]
        parts.append(TREE.format("\n".join(listed)))
    parts.append(
        "What of released code does nothing, or something else: [released mechanisms](../released_mechanisms.md)."
    )
    parts.append(TREE.format("../released_mechanisms"))
    return "\n\n".join(parts) + "\n"
