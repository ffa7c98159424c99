"""How Open Clip Art's pictures and words are prepared: those that are shipped, and those that a model is asked about."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mmbench.data.preparing.media import BadFile
from mmbench.data.preparing.pictures import opened
from mmbench.data.preparing.raw import Sample, Source

if TYPE_CHECKING:
    from PIL import Image

SIZE = 32  # pixels a side


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Words that say "this is clip art" or name a program or collection: gone from titles and tags.
GENERIC_TITLE_WORDS = _words(
    "clipart cliparts openclipart icon icons iconset svg png ai eps jpg wmf inkscape sodipodi illustrator"
)
# Further words that tags lose: generic, left over from an upload program, or a folder's name in other words.
GENERIC_TAG_WORDS = GENERIC_TITLE_WORDS | _words(
    "and the of clip art image images media unsorted hash magick theme themes misc picture pictures graphic graphics "
    "drawing vector collection various other transport appicon appicons mapsym networksym musicsym weathersym "
    "musicstuff sym symbol arrowshape signalflag usholiday religholiday latinamerica mimetype mime type types flag "
    "lemon etiquette flat"
)

# What a Perl script of the library printed instead of a name or keywords. It differs by upload: a hidden series.
PERL_HASH = re.compile(r"HASH\(0x[0-9a-f]+\)", re.IGNORECASE)
_MAIL_ADDRESS = re.compile(r"(mailto:)?\S+@\S+")


class LeftOut(BadFile):
    """A picture that does not qualify; the message is the reason it is counted under."""


# --- words -----------------------------------------------------------------------------------------------------------


def split_words(text: str) -> list[str]:
    """Split into lower-case words of letters and digits; mail addresses go, being nobody's business.

    Example:
        >>> split_words("Stop-Sign_01, Café")
        ['stop', 'sign', '01', 'café']
    """
    return re.findall(r"[^\W_]+", _MAIL_ADDRESS.sub(" ", unicodedata.normalize("NFKC", text)).lower())


def variants(word: str) -> set[str]:
    """Return a word with its possible singulars and plurals (some of them no real words, which does no harm)."""
    forms = {word, word + "s", word + "es"}
    if word.endswith("y"):
        forms |= {word[:-1] + "ies", word[:-2] + "ies"}
    if word.endswith("ies"):
        forms |= {word[:-3] + end for end in ("y", "ie", "ey")}
    if word.endswith("es"):
        forms.add(word[:-2])
    if word.endswith("s"):
        forms.add(word[:-1])
    if word.endswith("men"):
        forms.add(word[:-3] + "man")
    return forms


def clean_title(title: str, names: frozenset[str]) -> str:
    """Lower-case a title and drop the generic words and the artist's name, with the "by" that led to it."""
    words = split_words(title)
    kept = []
    for i, word in enumerate(words):
        leads_to_name = word == "by" and i + 1 < len(words) and words[i + 1] in names
        if word not in names and word not in GENERIC_TITLE_WORDS and not leads_to_name:
            kept.append(word)
    return " ".join(kept)


def clean_tags(keywords: Iterable[str], names: frozenset[str], folders: frozenset[str]) -> str:
    """Lower-case the keywords' words, each once, and drop generic words, folders' names and the artist's name."""
    dropped = names | folders | GENERIC_TAG_WORDS
    words = dict.fromkeys(word for keyword in keywords for word in split_words(PERL_HASH.sub("", keyword)))
    return " ".join(word for word in words if word not in dropped)


def folder_forms(words: Iterable[str]) -> frozenset[str]:
    """Words of folders' names, in singular and plural."""
    return frozenset(form for word in words for form in variants(word))


FOLDERS = folder_forms(
    _words(
        "00 00strawberryborder 01 01giftcertificate action actions africa aiga aigasymbols alcohol america amphibian "
        "and animals applications apps arrows art asia astronomy australia awards battery bears belgium beverages big "
        "bigcats birds boating bodypart books border bordered breads breadsandcarbs bugs buildings bulb buttons "
        "callouts canada carbs cardbacks cards cats cd cdplayer certificate chess china christianity christmas clocks "
        "clothing computer connectors containers dairy decorations denmark desserts device devices diagrams dice "
        "dinosaurs disability dogs duplicates easter education eggs electronics emblems etiquette etiquettetheme europe "
        "evergreen examples fantasy filesystems finland fish flags flat flattheme flowchart flowers folders food france "
        "fruit furniture games generic geography germany gift gradients hardware hats hazard historic holiday homes "
        "horses housecats hummers icons italy jewelry jigsaw kingdom led lemon lemontheme logos mammals map mapsymbols "
        "meats meatsandeggs medicine melanesia micronesia mimetypes miscellany money music navy network new newzealand "
        "norway oceania office ornamental pantyhose party patterns penguin people pirates plants player polynesia "
        "recreation religion roadsigns science semaphore shapes signs signsandsymbols simple smilies spain special "
        "sports stars states stickmen stock strawberry symbols telephone thanksgiving theme tools toys transportation "
        "trees united unitedkingdom unitedstates unsorted valentines vegetables vehicles weapons weather white zealand"
    )
)
"""The words of all folders of the Debian package openclipart-png 0.18+dfsg-19, in singular and plural."""


# --- pictures --------------------------------------------------------------------------------------------------------


def square(picture: Image.Image, tolerance: int = 10) -> Image.Image:
    """Composite on white, crop to the content and pad with white to a square.

    Args:
        picture: Any mode, with or without transparency.
        tolerance: How far from white, in one channel of 255, still is background.

    Raises:
        LeftOut: If nothing is left to see on white.
    """
    from PIL import Image, ImageChops

    rgba = picture.convert("RGBA")
    white = Image.new("RGBA", rgba.size, "white")
    flat = Image.alpha_composite(white, rgba).convert("RGB")
    darkest = ImageChops.invert(flat)
    far = np.asarray(darkest).max(axis=2) > tolerance
    if not far.any():
        raise LeftOut("picture is blank on white")
    rows, columns = np.flatnonzero(far.any(axis=1)), np.flatnonzero(far.any(axis=0))
    content = flat.crop((int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1))
    side = max(content.size)
    padded = Image.new("RGB", (side, side), "white")
    padded.paste(content, ((side - content.width) // 2, (side - content.height) // 2))
    return padded


def shrink(padded: Image.Image) -> np.ndarray:
    """The pixels (SIZE, SIZE, 3) uint8 of a square picture."""
    from PIL import Image

    return np.asarray(padded.resize((SIZE, SIZE), Image.Resampling.LANCZOS))


# --- new samples -----------------------------------------------------------------------------------------------------


def decode(path: Path, sample: Sample) -> Mapping[str, np.ndarray]:
    """A picture as the data set would have it; one of 32 × 32 pixels without transparency is taken for one of the data set's own."""
    with opened(path) as picture:
        own = picture.size == (SIZE, SIZE) and picture.mode == "RGB"
        return {"pixels": np.array(picture) if own else shrink(square(picture))}


SOURCES = {
    "image": Source(
        {"pixels": ((SIZE, SIZE, 3), "uint8")}, decode, "on white, cut to its content, padded to a square, 32 × 32"
    )
}
TEXTS: Mapping[str, Callable[[str], str]] = {
    "title": lambda title: clean_title(title, frozenset()),
    "tags": lambda tags: clean_tags([tags], frozenset(), FOLDERS),
}
"""What is made of the words of a picture whose artist is not known. Words that are as the data set has them stay as they are."""
