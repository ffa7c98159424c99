"""A page for each data set, written from its class, ``docs/about/datasets.yaml`` and, where they come with mmbench, the data."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import yaml

from dataset_facts import KINDS, audited, cuts, is_embedded, shipped, stored
from mmbench.data import DATASETS
from mmbench.data.base import MultimodalDataModule
from mmbench.data.prepared import PreparedDataModule
from mmbench.data.preparing.telling import encoders_of
from mmbench.places import carried

ABOUT = Path(__file__).parents[1] / "about/datasets.yaml"
ABSENT = """\
:::{warning}
The original was not at hand where this was written. What is said here of its files comes from papers and their releases; the reader is
proved on made-up copies in the real layout and codecs. Counts and hashes are told once you have prepared it.
:::"""


def pages() -> dict[str, str]:
    """Path below ``docs`` -> the text of the page."""
    about = yaml.safe_load(ABOUT.read_text(encoding="utf-8"))
    told_of = [name for name in shipped() if name in about]  # a new one has no entry yet; `make checklist` asks for it
    made = {f"datasets/{name}.md": page(name, about[name]) for name in told_of}
    return made | {"datasets/table.txt": overview(about)}


def page(name: str, about: Mapping[str, Any]) -> str:
    """The page of a data set."""
    data = DATASETS[name]
    parts = [f"# {name}", about["for"], *described(data, about)]
    parts += [*getting(data, about), *contents(data), *splits(data, about), *audit_of(data)]
    parts += ["## What to know", bullets(about["know"]), *used(name), *citation(about)]
    return "\n\n".join(parts) + "\n"


def described(data: type[MultimodalDataModule], about: Mapping[str, Any]) -> Iterator[str]:
    """What it is, and whether it was at hand."""
    if home := getattr(data, "home", None):
        yield from (home / "README.md").read_text(encoding="utf-8").split("\n\n")[1:2]
    else:
        yield doc_of(data)[0]
    if "state" in about:
        yield f":::{{note}}\n{about['state']}\n:::"
    elif not is_embedded(data):
        yield ABSENT


def doc_of(data: type[MultimodalDataModule]) -> list[str]:
    """The paragraphs of a class's docstring, as Markdown."""
    text = inspect.cleandoc(data.__doc__ or "").replace("``", "`")
    text = re.sub(r"^Departures:", "Departures from the originals:\n", text, flags=re.MULTILINE)
    text = re.sub(r"^ {4}(?=\d+\. | {3}\S)", "", text, flags=re.MULTILINE)
    return [part for part in text.split("\n\n") if not part.endswith("::") and not part.startswith("    ")]


def is_of_splits(text: str) -> bool:
    """Whether a paragraph says how the data are cut."""
    return not text.startswith(("Inputs:", "Views ")) and re.search("`clean`|`legacy`|folds", text) is not None


def getting(data: type[MultimodalDataModule], about: Mapping[str, Any]) -> Iterator[str]:
    """What to request or download, from whom, on what terms, and where it goes."""
    yield "## Get it"
    told = about.get("terms")
    if (home := getattr(data, "home", None)) is not None:
        told = {
            "source": "comes with the package",
            "licence": "CC BY 4.0",
            "disk": f"{sum(file.stat().st_size for file in home.iterdir()) / 1e6:.0f} MB",
        }
    elif told is None:
        assert issubclass(data, PreparedDataModule)
        told = {key: getattr(data.info, key) for key in ("source", "licence", "disk")}
    yield table(("", ""), ((f"**{key}**", linked(value)) for key, value in told.items()))
    if "get" in about:
        yield bullets(about["get"])
    if is_embedded(data):
        yield f"Nothing has to be done: it is ready.\n\n{commands(data)}"
        return
    yield (
        "### The raw folder"
        if "layout" not in about
        else "### The folder\n\nBelow `data`, or what `MMBENCH_DATA` names:"
    )
    layout = tree(data.info.layout) if issubclass(data, PreparedDataModule) else about["layout"]
    yield f"```text\n{layout.rstrip()}\n```"
    yield f"### Commands\n\n{commands(data)}"
    yield "The whole way, and what to do if files are missing or broken: [gated data](../how_to/gated_data.md)."


def tree(layout: Iterable[tuple[str, str]]) -> str:
    """The layout of a raw folder, each path above what it is, so that lines are short."""
    return "\n".join(f"{path}\n    {what}" if path else f"    {what}" for path, what in layout)


def commands(data: type[MultimodalDataModule]) -> str:
    """What to type."""
    lines = [f"mmbench data info {data.name}"]
    if issubclass(data, PreparedDataModule) and not is_embedded(data):
        lines += [
            f"mmbench data demo {data.name} --data-dir /tmp/demo   # first, on a made-up copy",
            f"mmbench data prepare {data.name} --raw RAW_FOLDER",
            f"mmbench data verify {data.name}",
        ]
    lines += [f"mmbench data audit {data.name}", f"mmbench data split {data.name} -o split.csv"]
    return "```\n" + "\n".join(lines) + "\n```"


def contents(data: type[MultimodalDataModule]) -> Iterator[str]:
    """Classes, modalities, encoders."""
    yield "## Classes and modalities"
    yield f"{len(data.classes)} classes: {', '.join(data.classes)}."
    rows = ((f"`{m}`", stored(data, m), f"`{e}`", ", ".join(files) or "–") for m, e, files in encoders_of(data))
    yield table(("modality", "a sample, as stored", "encoder", "reads weights"), rows)
    yield "The encoder is what an experiment gets that names no other; – trains from scratch."
    if getattr(data, "home", None) is None:
        yield from (text for text in doc_of(data)[1:] if not is_of_splits(text))


def splits(data: type[MultimodalDataModule], about: Mapping[str, Any]) -> Iterator[str]:
    """How it is cut, with counts and hashes where the data are there."""
    yield "## Splits"
    yield "[Protocols](../ideas/protocols.md) and [folds](../ideas/folds.md) have pages of their own. `peek` has clean's splits."
    if getattr(data, "home", None) is None:
        yield from (text for text in doc_of(data)[1:] if is_of_splits(text))
    else:
        yield "`clean` and `legacy` are both cut by class; `clean` keeps together what shares a vector."
    if not is_embedded(data):
        yield from expected(data, about)
        return
    if same := about.get("splits"):
        yield f"Counts and hashes are those of [{same}]({same}.md)."
        return
    made = cuts(data)
    yield "### Counts\n\nTraining / validation / test; `legacy` has no validation."
    rows = [(name, *(made.whole[kind].of_class(n) for kind in KINDS)) for n, name in enumerate(data.classes)]
    yield table(("class", *KINDS), [*rows, ("**all**", *(made.whole[kind].sizes() for kind in KINDS))])
    if made.folds:
        yield f"Of the {data.folds} folds, by {data.folded_by.split(',')[0]}:"
        pairs = enumerate(zip(*(made.folds[kind] for kind in KINDS), strict=True))
        rows = [(str(n), clean.sizes(), str(clean.groups), legacy.sizes()) for n, (clean, legacy) in pairs]
        yield table(("fold", "clean", "groups tested", "legacy"), rows)
    yield "### Hashes\n\nSHA-256 of the sorted lines `<sample> <split>`; of folds `<sample> <part>`."
    yield "```text\n" + "\n".join(f"{what}:\n  {digest}" for what, digest in made.digests.items()) + "\n```"


def expected(data: type[MultimodalDataModule], about: Mapping[str, Any]) -> Iterator[str]:
    """The counts that the code expects, of data that were not at hand, and what of the lists is known before."""
    yield "### Counts to expect"
    if published := getattr(data, "published", {}):
        rows = ((kind, ", ".join(f"{s} {n:,}" for s, n in counts.items())) for kind, counts in published.items())
        yield table(("", "samples"), rows)
        yield f"Source: {about['counts']}. `mmbench data audit` compares."
    else:
        yield "None are declared; `mmbench data audit` counts."
    if data.name == "crema_d":
        from mmbench.data.sets.crema_d import PARTS, TEST, VALIDATION

        yield "The actors of `clean`'s one split, and of the folds' parts (part *k* is what fold *k* tests):"
        of_part = {f"part {part}": {a for a, own in PARTS.items() if own == part} for part in range(data.folds)}
        named = {"test": TEST, "validation": VALIDATION} | of_part
        lines = (f"{what}:\n{listed(map(str, sorted(actors)))}" for what, actors in named.items())
        yield "```text\n" + "\n".join(lines) + "\n```"


def listed(words: Iterable[str]) -> str:
    """Words on lines that a page has room for."""
    return fill(" ".join(words), 80, initial_indent="  ", subsequent_indent="  ")


def audit_of(data: type[MultimodalDataModule]) -> Iterator[str]:
    """What the audit finds, where it can be run."""
    if not is_embedded(data):
        return
    yield "## Audit"
    yield "From `mmbench data audit`, run when this page was built. Look-alikes are found by a perceptual hash, which may err."
    told = list(audited(data))
    if not any("is broken" in line for line in told):
        yield "`clean` and `legacy` hold what they promise. Besides:"
    yield bullets(told)
    yield f"`mmbench data audit {data.name} --pairs pairs.csv` writes the pairs of samples."


def used(name: str) -> Iterator[str]:
    """The experiments that have it."""
    having = []
    for path in sorted(carried("experiments").glob("*.yaml")):
        sets = yaml.safe_load(path.read_text(encoding="utf-8")).get("datasets", {})
        if any(name in (label, (options or {}).get("dataset")) for label, options in sets.items()):
            having.append(f"`{path.stem}`")
    yield "## Experiments"
    yield f"In {', '.join(having)}." if having else "None of those that come with mmbench."
    yield f"Any other one: `mmbench run table1 --dataset {name}`."


def citation(about: Mapping[str, Any]) -> Iterator[str]:
    """What to cite."""
    yield "## Cite"
    cite = about["cite"].rstrip()
    yield f"```bibtex\n{cite}\n```" if cite.startswith("@") else cite


def overview(about: Mapping[str, Any]) -> str:
    """The table of all of them."""
    rows = []
    for name in (name for name in shipped() if name in about):
        data = DATASETS[name]
        folds = f"{data.folds}, by {data.folded_by.split(',')[0]}" if data.folds > 1 else "–"
        state = "in the package" if is_embedded(data) else "to download" if name == "tuxpaint" else "not at hand"
        rows.append((f"[{name}]({name}.md)", state, str(len(data.classes)), ", ".join(data.modalities), folds))
    return table(("data set", "state", "classes", "modalities", "folds"), rows) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines)


def bullets(lines: Iterable[str]) -> str:
    """A Markdown list."""
    return "\n".join(f"- {line.strip()}" for line in lines)


def linked(text: str) -> str:
    """The text with its addresses as links."""
    return re.sub(r"https?://[^\s,;)]*[^\s,;:.)]", r"<\g<0>>", text)
