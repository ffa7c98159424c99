"""Text that others wrote (names of methods, titles, error messages), so that it reads as itself in Markdown and in LaTeX."""

from __future__ import annotations

import re
import unicodedata

GREEK = [
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu", "xi", "pi", "rho",
    "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega",
]  # fmt: skip
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
    "−": "$-$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "≈": r"$\approx$",
    "∞": r"$\infty$",
    "∅": r"$\emptyset$",
    "→": r"$\rightarrow$",
    "†": r"$^\dagger$",
    "‡": r"$^\ddagger$",
    "°": r"$^\circ$",
    "µ": r"$\mu$",
    "Δ": r"$\Delta$",
    "Σ": r"$\Sigma$",
    "…": r"\ldots{}",
    "‘": "`",
    "’": "'",
    "“": "``",
    "”": "''",
    **{
        c: rf"\{name}{{}}"
        for c, name in {"ß": "ss", "æ": "ae", "Æ": "AE", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L"}.items()
    },
    **{c: rf"$\{name}$" for c, name in zip("αβγδεζηθικλμνξπρστυφχψω", GREEK, strict=True)},
}
ACCENTS = dict(
    zip("\u0300\u0301\u0302\u0303\u0308\u030a\u030c\u0306\u0304\u0307\u030b\u0327", "`'^~\"rvu=.Hc", strict=True)
)
"""Combining accent -> the command that sets it."""


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
    """LaTeX that prints the text, in a table's cell; loads no package, and compiles with any engine.

    Of letters beyond ASCII those with accents and the Greek ones are set; another character stands as its number, such as U+4E2D.
    """
    escaped = "".join(map(_tex, unicodedata.normalize("NFC", one_line(text))))
    escaped = re.sub("-(?=-)", "-{}", escaped).replace("–", "--").replace("—", "---")  # TeX makes one dash of two
    # A row that begins with these would be an argument of the line break before it.
    return f"{{{escaped[0]}}}{escaped[1:]}" if escaped[:1] in ("[", "*") else escaped


def _tex(character: str) -> str:
    """One character."""
    if character in TEX:
        return TEX[character]
    if character.isascii() or character in "–—":
        return character
    parts = unicodedata.normalize("NFD", character)
    letter, accent = parts[0], parts[1:]
    if letter.isascii() and letter.isalpha() and accent in ACCENTS:
        return rf"\{ACCENTS[accent]}{{{letter}}}"
    return f"U+{ord(character):04X}"
