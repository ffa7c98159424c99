"""A method's docstring as its page has it: what is in it, part by part, as Markdown. No line is lost."""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from textwrap import dedent, wrap

HEADINGS = ("Departures", "Args", "Raises")
ITEM = re.compile(r"(\d+)\. ")
NAMED = re.compile(r"(\w+): ")
RELEASED = re.compile(r"(What of the release does nothing:|In the release, )")
"""How a paragraph begins that tells what of a release has no effect."""
LABEL = re.compile(r"(?P<lead> *)(?P<label>eq\. \S+ +|\d\. |\w+ epochs +|stage \w+: |)")
"""What may stand before an equation."""
COLUMN = 88
"""Letters of a line of code on a wide screen: what is longer would be cut off there."""


@dataclass
class Docstring:
    """The parts of a method's docstring, each as it stands there.

    Attributes:
        summary: the first line, or lines.
        body: what follows, block by block: prose, and equations, which are indented.
        cost: of a step; empty if nothing is said.
        departures: from paper and release, in the order of their numbers.
        released: paragraphs on what does nothing in the release.
        notes: paragraphs that follow the departures.
        arguments: name -> what it is.
        raises: error -> when.
    """

    summary: str = ""
    body: list[str] = field(default_factory=list)
    cost: str = ""
    departures: list[str] = field(default_factory=list)
    released: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    arguments: dict[str, str] = field(default_factory=dict)
    raises: dict[str, str] = field(default_factory=dict)


def parse(method: type) -> Docstring:
    """Read a class's docstring."""
    found = Docstring()
    blocks = _blocks(inspect.getdoc(method) or "")
    found.summary = blocks.pop(0) if blocks else ""
    for block in blocks:
        head, _, rest = block.partition("\n")
        if head.rstrip(":") in HEADINGS and head.endswith(":"):
            items = _items(dedent(rest), ITEM if head == "Departures:" else NAMED)
            if head == "Departures:":
                found.departures = [text for _, text in items]
            else:
                (found.arguments if head == "Args:" else found.raises).update(items)
        elif block.startswith("Cost: "):
            found.cost = block.removeprefix("Cost: ")
        elif RELEASED.match(block):
            found.released.append(block)
        else:
            (found.notes if found.departures else found.body).append(block)
    return found


def _blocks(text: str) -> list[str]:
    """Paragraphs, sections with all that is indented below their heading, and equations, whose blank lines stay in them."""
    blocks: list[list[str]] = []
    for line in text.splitlines():
        if not line.strip():
            if blocks and blocks[-1] and not blocks[-1][0].startswith(" "):
                blocks.append([])
            elif blocks and blocks[-1]:
                blocks[-1].append("")
        elif not blocks or (blocks[-1] and _parts(blocks[-1][0], line)):
            blocks.append([line])
        else:
            blocks[-1].append(line)
    return ["\n".join(block).rstrip() for block in blocks if block]


def _parts(first: str, line: str) -> bool:
    """Whether a line begins a new block after one that begins with ``first``: equations begin and end where the indent does."""
    if first.rstrip(":") in HEADINGS:
        return not line.startswith(" ")
    return first.startswith(" ") != line.startswith(" ")


def _items(text: str, start: re.Pattern[str]) -> list[tuple[str, str]]:
    """Numbered or named items, with the lines that are indented below them."""
    found: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if (match := start.match(line)) is not None:
            found.append((match[1], [line[match.end() :]]))
        elif found:
            found[-1][1].append(line.strip())
    return [(name, "\n".join(lines)) for name, lines in found]


def markdown(block: str, methods: Collection[str] = (), classes: dict[str, str] | None = None) -> str:
    """A block as Markdown: equations as a block of code; in prose, names in double backquotes as code, and methods' as links.

    Args:
        block: prose or equations, as ``parse`` gives them.
        methods: names that have a page beside this one.
        classes: the names of their classes -> theirs.
    """
    if block.startswith(" "):
        return "\n".join(["```text", *(fitted(line) for line in dedent(block).splitlines()), "```"])
    pieces = re.split(r"``(.+?)``", block, flags=re.DOTALL)
    prose = [_escaped(piece) if i % 2 == 0 else _code(piece, methods, classes or {}) for i, piece in enumerate(pieces)]
    return "".join(prose)


def fitted(line: str) -> str:
    """A line of equations without markup, broken where it is too long: if it can be, between parts that wide gaps separate."""
    line = line.replace("``", "")
    if len(line) <= COLUMN or (start := LABEL.match(line)) is None:
        return line
    begin = start.end()
    gaps = [gap.end() for gap in re.finditer(r"\S {3,}(?=\S)", line) if begin < gap.end() <= COLUMN * 0.55]
    below = gaps[0] if gaps else begin if start["label"] or begin > 12 else begin + 4
    parts = [
        part if len(part) > COLUMN - below else part.replace(" ", "\0") for part in re.split(r" {2,}", line.strip())
    ]
    lines = wrap(
        "  ".join(parts),
        COLUMN,
        initial_indent=start["lead"],
        subsequent_indent=" " * below,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(lines).replace("\0", " ")


def _code(name: str, methods: Collection[str], classes: dict[str, str]) -> str:
    """A name in the text, linked if it is that of another method."""
    target = classes.get(name, name)
    return f"[`{name}`]({target}.md)" if target in methods else f"`{name}`"


def _escaped(text: str) -> str:
    """Prose in which addresses and numbers of papers are links and nothing else is taken for Markdown but emphasis that is meant."""
    links = re.split(r"(https?://[^\s,;)]+[\w/]|arXiv \d{4}\.\d{4,5})", text)
    return "".join(_plain(part) if i % 2 == 0 else _link(part) for i, part in enumerate(links))


def _link(text: str) -> str:
    """An address, or the number of a paper, as a link."""
    if text.startswith("arXiv "):
        return f"[{text}](https://arxiv.org/abs/{text.removeprefix('arXiv ')})"
    return f"<{text}>"


def _plain(text: str) -> str:
    """Text with what Markdown would take for markup escaped, but for emphasis: ``*word*`` and ``**words**`` on their own."""
    text = re.sub(r"([\\<>\[\]_|`])", r"\\\1", text)
    kept = re.split(r"((?<!\w)\*{1,2}\w[^*]*\w\*{1,2}(?!\w))", text)
    return "".join(part.replace("*", r"\*") if i % 2 == 0 else part for i, part in enumerate(kept))
