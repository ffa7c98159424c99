"""Text that others wrote (names of methods, titles, error messages), so that it reads as itself in Markdown and in LaTeX."""

from __future__ import annotations

import re

TEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "_": r"\_",
    "%": r"\%",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "`": r"\textasciigrave{}",
    "±": r"$\pm$",
    "†": r"$^\dagger$",
}


def one_line(text: str) -> str:
    """The text on one line, without characters that a terminal would act upon."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(text.split()))


def markdown(text: str) -> str:
    """Markdown that shows the text: in a paragraph, a heading, a list or a table's cell.

    Only what Markdown would take for markup is escaped, so that a name such as late_fusion and an interval in brackets stay readable.
    """
    text = re.sub(r"[\\`*|<~$#]", r"\\\g<0>", one_line(text))
    text = re.sub(r"&(?=#?\w+;)", "&amp;", text)  # an entity
    text = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\_", text)  # within a word, it is no emphasis
    text = re.sub(r"\](?=[(\[:])", r"\]", text)  # a link
    # What a line may not begin with: a quotation, a rule, a list, a box to tick.
    text = re.sub(r"^(?=>|=|--|[+\-](?:\s|$)|\[[ xX]\])", r"\\", text)
    return re.sub(r"^(\d+)([.)])(?=\s|$)", r"\1\\\2", text)  # a numbered list


def latex(text: str) -> str:
    """LaTeX that prints the text, in a table's cell; loads no package."""
    escaped = "".join(TEX.get(c, c) for c in one_line(text))
    escaped = re.sub("-(?=-)", "-{}", escaped).replace("–", "--")  # TeX makes one dash of two
    # A row that begins with these would be an argument of the line break before it.
    return f"{{{escaped[0]}}}{escaped[1:]}" if escaped[:1] in ("[", "*") else escaped
