"""Build the embedded data set (Open Clip Art: picture, title, tags) from its two Debian packages.

Run it in a folder with both packages, of exactly the version named by `VERSION`:

    apt-get download openclipart-png openclipart-svg
    python tools/build_openclipart.py --debs .

`openclipart-png` holds the pictures; the SVG of the same relative name in `openclipart-svg` holds what their artists
wrote about them. Building twice gives byte-identical files: nothing depends on the order of files, on the clock, or on
a process-wide seed. Every picture that is left out is counted under one reason, the first that applies.

What was decided, and why:

* **Label.** The top folder that holds the file itself. Symbolic links repeat a picture in other folders; they are
  skipped.
* **Tags** lose every word of a folder's name (singular and plural) and the generic words: they came with the filing and
  give the label away.
* **Titles** are what people really wrote. They keep class nouns ("computer", "sign", "fruit") and lose only words that
  say nothing about the picture ("clipart", "icon", "svg"). A title that more than three pictures share names a
  collection, not a picture; those pictures are left out.
* **Artist's name.** Its words go from title and tags, else a model could learn who drew a picture and from that its
  class.
* **Groups.** Spelling variants of a name (case, accents, white space, mail addresses, a few aliases) are one artist.
  Pictures without a usable name share the one group "unknown": one group a picture would let an artist's series cross
  the splits. Works signed by two artists are left out, since no group is right for them.
* **General audience.** Excluded words and the reviewed list `openclipart_excluded.csv` leave out weapons, drugs, sexual
  content, hate symbols, trademarks and recognisable people.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import html
import io
import itertools
import re
import subprocess
import sys
import tempfile
import unicodedata
import warnings
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree
from xml.parsers import expat

import numpy as np

from mmbench.data.preparing.clipart import (
    PERL_HASH,
    LeftOut,
    clean_tags,
    clean_title,
    folder_forms,
    shrink,
    split_words,
    square,
)

if TYPE_CHECKING:
    from PIL import Image

PACKAGES = ("openclipart-png", "openclipart-svg")
VERSION = "1:0.18+dfsg-19"
CLASSES = (
    "animals",
    "computer",
    "food",
    "office",
    "people",
    "recreation",
    "shapes",
    "signs_and_symbols",
    "tools",
    "transportation",
)
CAP = 250  # pictures a class
MAX_SAME_TITLE = 3
THUMBNAIL = 12  # pixels a side
# Difference of two thumbnails, as a share of their ink, up to which the pictures count as the same. (A share, since any
# two thin drawings hardly differ in absolute terms.)
NEAR_DUPLICATE = 0.05
FOLDS = 5  # one for test, one for validation, three for training
SPLIT_TRIALS = 50
SEED = 0

HERE = Path(__file__).parent
DEFAULT_OUT = HERE.parent / "src/mmbench/data/sets/openclipart.npz"
EXCLUDED_CSV = HERE / "openclipart_excluded.csv"

# Both spellings mean the same dedication; everything else, the empty string included, is not clearly public domain.
PUBLIC_DOMAIN = frozenset(
    {"http://web.resource.org/cc/PublicDomain", "http://creativecommons.org/licenses/publicdomain"}
)


# A word of the path, the title or the tags that leaves the picture out -> the reason.
EXCLUDED_WORDS: Mapping[str, str] = {
    word: reason
    for reason, words in {
        "weapon": "weapon weapons gun guns gunshot pistol rifle revolver bullet bullethole grenade bomb missile cannon "
        "m16 ak47 handgun shotgun machinegun",
        "drugs or tobacco": "cigarette cigarettes cigar tobacco marijuana cannabis syringe drugs",
        "sexual or nude": "sexy nude naked pantyhose lingerie erotic condom",
        "hate symbol": "nazi swastika confederate",
        "trademark": "tux linux debian ubuntu firefox mozilla thunderbird openoffice microsoft macintosh "
        "hummer hummers chevrolet ipod iphone coca cola pepsi",
    }.items()
    for word in words.split()
}

# The same person under different names, after `fold_name`. Artists wrongly joined cost little; parted, they leak.
ALIASES: Mapping[str, str] = {
    "rollandin francesco": "architetto francesco rollandin",
    "francesco rollandin": "architetto francesco rollandin",
    "andrew fitzsimon": "andy fitzsimon",
    "andrew dunhan": "andrew duhan",
    "a j ashton": "aj ashton",
    "josue alcalde gonzalez": "josue alcalde",
    "bryce w harrington": "bryce harrington",
    "jonadab": "nathan eady",
    "jonadab the unsightly one": "nathan eady",
    "nathan eady et al": "nathan eady",
    "galion public library": "nathan eady",
    "galion gbc": "nathan eady",
    "john c meuser": "john meuser",
    "jose fco hevia": "jose hevia",
    "nurbldoff ksc": "nurbldoff",
    "nubldoff": "nurbldoff",
    "ralf ark in berlin de": "ralf stephan",
    "mailto ralf ark in berlin de": "ralf stephan",
    "rgolan superconcentrated com": "ron golan",
    "jurgen": "jurgen gaeremyn",
    "jean maurice le clec h": "jean maurice le clech",
    "fco andrade": "francisco andrade",
    "clipart convert made by jarno vasamaa": "jarno vasamaa",
}
UNKNOWN = "unknown"
_UNKNOWN_NAMES = frozenset({"", "unknown", "anonymous", "none", "me", "u", "as", "open sourced gem clipart"})


class BuildError(Exception):
    """The data set cannot be built; the message says what to do."""


@dataclass(frozen=True)
class Metadata:
    """What an SVG file says about itself, as written."""

    title: str
    keywords: tuple[str, ...]
    creator: str
    licences: tuple[str, ...]


@dataclass(frozen=True)
class Text:
    """What the data set keeps of a picture's words, and all words of path and metadata (`written`)."""

    title: str
    tags: str
    artist: str
    written: frozenset[str]


@dataclass(frozen=True)
class Picture:
    """One picture that qualifies."""

    source: str
    label: int
    title: str
    tags: str
    artist: str
    pixels: np.ndarray  # (SIZE, SIZE, 3) uint8
    thumbnail: np.ndarray  # (THUMBNAIL, THUMBNAIL, 3) uint8


# --- the packages ----------------------------------------------------------------------------------------------------


def find_debs(folder: Path) -> list[Path]:
    """Return the two packages in `folder`, checked by the name and version that they state themselves.

    Raises:
        BuildError: If one is missing or has another version.
    """
    found = []
    for package in PACKAGES:
        versions = {}
        for path in sorted(folder.glob(f"{package}_*.deb")):
            fields = _run(["dpkg-deb", "--show", "--showformat=${Package} ${Version}", str(path)]).split()
            versions[tuple(fields)] = path
        if (package, VERSION) not in versions:
            others = ", ".join(version for _, version in versions) or "none"
            raise BuildError(
                f"{folder} holds no package {package} of version {VERSION} (found: {others}).\n"
                f"Get both with `apt-get download {' '.join(PACKAGES)}` in that folder, "
                f"on a Debian that carries this version."
            )
        found.append(versions[package, VERSION])
    return found


def unpack(debs: Iterable[Path], into: Path) -> Path:
    """Unpack the packages and return the folder that holds `png` and `svg`."""
    for deb in debs:
        _run(["dpkg", "-x", str(deb), str(into)])
    return into / "usr/share/openclipart"


def _run(command: list[str]) -> str:
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout
    except FileNotFoundError as error:
        raise BuildError(f"`{command[0]}` is not installed; it is part of Debian's package dpkg.") from error
    except subprocess.CalledProcessError as error:
        raise BuildError(f"`{' '.join(command)}` failed: {error.stderr.strip()}") from error


# --- metadata --------------------------------------------------------------------------------------------------------


def read_metadata(svg: bytes) -> Metadata:
    """Parse an SVG file's `<metadata>`.

    Args:
        svg: The file's bytes, not trusted.

    Raises:
        LeftOut: If the file is no well-formed XML, declares entities, or describes no work.
    """
    _refuse_entities(svg)
    try:
        root = ElementTree.fromstring(svg)
    except ElementTree.ParseError as error:
        raise LeftOut("malformed SVG") from error
    works = [element for element in root.iter() if _local(element) == "Work"]
    if not works:
        raise LeftOut("no metadata")
    # A picture assembled from others lists their works after its own: the first describes it, but all licences bind it.
    work = works[0]
    return Metadata(
        title=_text(_child(work, "title")),
        keywords=tuple(_text(item) for item in _descendants(_child(work, "subject"), "li")),
        creator=_text(_child(work, "creator")),
        licences=tuple(_resource(licence) for each in works for licence in each if _local(licence) == "license"),
    )


def _refuse_entities(svg: bytes) -> None:
    """Stop at an entity declaration: nested ones expand to any size ("billion laughs"), external ones read other files.

    A few honest files abbreviate namespaces in this way. Leaving them out is cheaper than telling them from an attack.
    """

    class _RootReached(Exception):
        pass

    def refuse(*_: object) -> None:
        raise LeftOut("SVG declares XML entities")

    def stop(*_: object) -> None:
        raise _RootReached

    parser = expat.ParserCreate()
    parser.EntityDeclHandler = refuse
    parser.StartElementHandler = stop  # declarations come before the first element, so there is no need to read on
    try:
        parser.Parse(svg, True)
    except _RootReached:
        return
    except expat.ExpatError as error:
        raise LeftOut("malformed SVG") from error


def _local(element: ElementTree.Element) -> str:
    """Return a tag without its namespace, of which the files use several spellings."""
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def _child(element: ElementTree.Element, name: str) -> ElementTree.Element | None:
    return next((child for child in element if _local(child) == name), None)


def _descendants(element: ElementTree.Element | None, name: str) -> list[ElementTree.Element]:
    return [] if element is None else [child for child in element.iter() if _local(child) == name]


def _text(element: ElementTree.Element | None) -> str:
    return "" if element is None else " ".join(repair("".join(element.itertext())).split())


def _resource(element: ElementTree.Element) -> str:
    return next((value for key, value in element.attrib.items() if key.rpartition("}")[2] == "resource"), "").rstrip(
        "/"
    )


def repair(text: str) -> str:
    """Undo HTML escapes and UTF-8 that was once read as Latin-1 (`L&Atilde;&copy;zard` -> `Lézard`)."""
    text = html.unescape(text)
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text  # it was fine as it stood


def check_licence(licences: Sequence[str]) -> None:
    """Let pass only what states the Public Domain, and nothing else.

    Raises:
        LeftOut: Otherwise.
    """
    if not licences or any(licence not in PUBLIC_DOMAIN for licence in licences):
        raise LeftOut("licence is not stated as Public Domain")


# --- words -----------------------------------------------------------------------------------------------------------


def folder_words(root: Path) -> frozenset[str]:
    """Return the words of all folders below `root`, in singular and plural."""
    names = [split_words(folder.name) for folder in root.rglob("*") if folder.is_dir()]
    words = {word for name in names for word in [*name, "".join(name)]}  # "united_states" also as "unitedstates"
    return folder_forms(words)


def fold_name(name: str) -> str:
    """Reduce a name to lower-case words; accents, addresses and bracketed remarks go, unless nothing else is there."""
    name = PERL_HASH.sub("", name)
    plain = "".join(mark for mark in unicodedata.normalize("NFKD", name) if not unicodedata.combining(mark))
    bare = re.sub(r"\([^)]*\)|\[[^\]]*\]|<[^>]*>|https?://\S+", " ", plain)
    words = split_words(bare) or re.findall(r"[^\W_]+", plain.lower())
    return " ".join(words)


def artist_group(creator: str) -> str:
    """Return the artist as a group: the folded name, known aliases joined, nameless ones together.

    Raises:
        LeftOut: If two artists sign.
    """
    name = fold_name(creator)
    name = ALIASES.get(name, name)
    if name in _UNKNOWN_NAMES:
        return UNKNOWN
    if re.search(r"\w (and|und|et) \w", name) or "based on" in creator.lower():
        raise LeftOut("work of two artists")
    return name


def name_words(creator: str, artist: str) -> frozenset[str]:
    """Return the words by which a text could name the artist."""
    if artist == UNKNOWN:
        return frozenset()
    return (
        frozenset(re.findall(r"[^\W_]+", creator.lower()))
        | frozenset(fold_name(creator).split())
        | frozenset(artist.split())
    )


def check_words(written: Iterable[str]) -> None:
    """Let pass only pictures about which no excluded word was written.

    Raises:
        LeftOut: Otherwise.
    """
    for word in sorted(written):
        if word in EXCLUDED_WORDS:
            raise LeftOut(f"excluded word: {EXCLUDED_WORDS[word]}")


# --- pictures --------------------------------------------------------------------------------------------------------


def load_picture(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return a picture's pixels (SIZE × SIZE) and its thumbnail for the search of duplicates, both uint8.

    Raises:
        LeftOut: If the file is no readable picture, or a blank one.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as file:
                padded = square(file)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise LeftOut("picture too large to open safely") from error
    except (OSError, ValueError) as error:
        raise LeftOut("unreadable PNG") from error
    thumbnail = padded.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    return shrink(padded), np.asarray(thumbnail)


# --- selection -------------------------------------------------------------------------------------------------------


def path_hash(source: str) -> str:
    """Order paths in a way that is fixed, yet blind to folders and artists."""
    return hashlib.sha256(source.encode()).hexdigest()


def find_sources(root: Path, left_out: Counter[str]) -> list[str]:
    """List the PNG files of the ten classes below `root/png`, links left out and counted."""
    sources = []
    for label in CLASSES:
        for path in sorted((root / "png" / label).rglob("*.png")):
            if path.is_symlink():
                left_out["link to a picture elsewhere"] += 1
            else:
                sources.append(path.relative_to(root / "png").as_posix())
    return sorted(sources)


def read_pictures(root: Path, excluded: Mapping[str, str], left_out: Counter[str]) -> list[Picture]:
    """Read all pictures that qualify one by one: by metadata, licence, words and pixels.

    Args:
        root: The folder with `png` and `svg`.
        excluded: Source -> reason, of the pictures that a person left out.
        left_out: Reason -> count, added to.
    """
    folders = folder_words(root / "png")
    texts = {}
    for source in find_sources(root, left_out):
        try:
            texts[source] = read_text(root, source, folders)
        except LeftOut as reason:
            left_out[str(reason)] += 1
    # Counted before the exclusions: what marks a collection's title is how often people used it.
    uses = Counter(text.title for text in texts.values())
    pictures = []
    for source, text in texts.items():
        try:
            if uses[text.title] > MAX_SAME_TITLE:
                raise LeftOut(f"title used more than {MAX_SAME_TITLE} times")
            if source in excluded:
                raise LeftOut(f"reviewed: {excluded[source]}")
            check_words(text.written)
            pixels, thumbnail = load_picture(root / "png" / source)
        except LeftOut as reason:
            left_out[str(reason)] += 1
            continue
        label = CLASSES.index(source.partition("/")[0])
        pictures.append(Picture(source, label, text.title, text.tags, text.artist, pixels, thumbnail))
    return pictures


def read_text(root: Path, source: str, folders: frozenset[str]) -> Text:
    """Read what was written about a picture.

    Args:
        root: The folder with `png` and `svg`.
        source: The picture's path below `png`.
        folders: The words of all folders' names.

    Raises:
        LeftOut: If there is no readable metadata, licence, title or single artist.
    """
    svg = (root / "svg" / source).with_suffix(".svg")
    if not svg.is_file():
        raise LeftOut("no SVG of that name")
    metadata = read_metadata(svg.read_bytes())
    check_licence(metadata.licences)
    artist = artist_group(metadata.creator)
    names = name_words(metadata.creator, artist)
    title = clean_title(metadata.title, names)
    if not title:
        raise LeftOut("no title")
    tags = clean_tags(metadata.keywords, names, folders)
    return Text(title, tags, artist, frozenset(split_words(" ".join([source, metadata.title, *metadata.keywords]))))


def drop_near_duplicates(pictures: Sequence[Picture], left_out: Counter[str]) -> list[Picture]:
    """Keep one of each set of near-identical pictures, and none of those that are filed under two classes."""
    ordered = sorted(pictures, key=lambda picture: path_hash(picture.source))
    # Ink, not light: white paper around a drawing says nothing.
    ink = np.array([255 - picture.thumbnail.astype(np.int32) for picture in ordered]).reshape(len(ordered), -1)
    total = ink.sum(axis=1)
    kept: list[int] = []
    ambiguous: set[int] = set()
    for i, picture in enumerate(ordered):
        difference = np.abs(ink[kept] - ink[i]).sum(axis=1)
        same = 2 * difference <= NEAR_DUPLICATE * (total[kept] + total[i])
        twins = [kept[j] for j in np.flatnonzero(same)]
        if not twins:
            kept.append(i)
            continue
        left_out["near-duplicate"] += 1
        ambiguous.update(j for j in twins if ordered[j].label != picture.label)
    left_out["near-duplicate filed under another class"] += len(ambiguous)
    return [ordered[i] for i in kept if i not in ambiguous]


def cap_classes(pictures: Iterable[Picture], left_out: Counter[str], cap: int = CAP) -> list[Picture]:
    """Keep at most `cap` pictures a class, chosen by their paths' hashes, and sort by source."""
    by_label: dict[int, list[Picture]] = defaultdict(list)
    for picture in pictures:
        by_label[picture.label].append(picture)
    kept = []
    for group in by_label.values():
        group.sort(key=lambda picture: path_hash(picture.source))
        kept += group[:cap]
        left_out[f"above the cap of {cap} a class"] += len(group[cap:])
    return sorted(kept, key=lambda picture: picture.source)


# --- splits ----------------------------------------------------------------------------------------------------------


def split_by_artist(label: np.ndarray, artist: np.ndarray) -> np.ndarray:
    """Split so that no artist is on two sides: 0 train, 1 validation, 2 test, about 60/20/20 in every class.

    Groups are uneven (one artist drew a third of the food), so no single draw of folds is balanced. Of `SPLIT_TRIALS`
    draws and all choices of two folds to hold out, the one closest to the wanted shares is taken.

    Args:
        label: Class numbers, shape (N,).
        artist: Groups, shape (N,).

    Returns:
        Sides, shape (N,), int8.

    Raises:
        BuildError: If no draw has every class on all three sides.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    present = np.unique(label)
    counts = np.array([(label == each).sum() for each in present])
    best, best_cost = None, np.inf
    for seed in range(SPLIT_TRIALS):
        folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed).split(label, label, artist)
        fold = np.zeros(len(label), dtype=np.int64)
        for i, (_, held_out) in enumerate(folds):
            fold[held_out] = i
        share = (
            np.array([[(fold[label == each] == i).sum() for i in range(FOLDS)] for each in present]) / counts[:, None]
        )
        for test, validation in itertools.permutations(range(FOLDS), 2):
            held_out = share[:, [validation, test]]
            train = 1 - held_out.sum(axis=1)
            # Squared, since one class without test pictures is worse than all classes a little off.
            cost = ((held_out - 1 / FOLDS) ** 2).sum() + ((train - 1 + 2 / FOLDS) ** 2).sum()
            if held_out.min() > 0 and train.min() > 0 and cost < best_cost - 1e-12:
                best_cost = cost
                best = np.select([fold == validation, fold == test], [1, 2], 0).astype(np.int8)
    if best is None:
        raise BuildError(
            "no artist-disjoint split has every class on all three sides: a class needs artists enough for three"
        )
    return best


def split_at_random(label: np.ndarray, train: int, test: int, seed: int = SEED) -> np.ndarray:
    """Split at random, stratified by class, with exactly the given sizes: 0 train, 2 test, -1 left out."""
    from sklearn.model_selection import train_test_split

    indices = np.arange(len(label))
    chosen = train_test_split(indices, train_size=train, test_size=test, random_state=seed, stratify=label)
    split = np.full(len(label), -1, dtype=np.int8)
    split[chosen[0]], split[chosen[1]] = 0, 2
    return split


# --- output ----------------------------------------------------------------------------------------------------------


def to_arrays(pictures: Sequence[Picture]) -> dict[str, np.ndarray]:
    """Return the arrays that are stored, splits included."""
    label = np.array([picture.label for picture in pictures], dtype=np.int64)
    artist = np.array([picture.artist for picture in pictures])
    clean = split_by_artist(label, artist)
    return {
        "image": np.stack([picture.pixels for picture in pictures]),
        "title": np.array([picture.title for picture in pictures]),
        "tags": np.array([picture.tags for picture in pictures]),
        "label": label,
        "classes": np.array(CLASSES),
        "artist": artist,
        "source": np.array([picture.source for picture in pictures]),
        "split_clean": clean,
        "split_legacy": split_at_random(label, train=int((clean == 0).sum()), test=int((clean == 2).sum())),
    }


def save_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an `.npz` without time stamps, so that the same arrays give the same bytes."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.ascontiguousarray(array), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, buffer.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=9)


def contact_sheet(images: np.ndarray, columns: int = 25, scale: int = 2, gap: int = 2) -> Image.Image:
    """Lay pictures (N, S, S, 3) out in a grid on white, each enlarged `scale` times."""
    from PIL import Image

    cell = images.shape[1] * scale + gap
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * cell + gap, rows * cell + gap), "white")
    for i, image in enumerate(images):
        large = Image.fromarray(image.repeat(scale, axis=0).repeat(scale, axis=1))
        sheet.paste(large, (gap + i % columns * cell, gap + i // columns * cell))
    return sheet


def save_contact_sheets(folder: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write one sheet a class."""
    folder.mkdir(parents=True, exist_ok=True)
    for label, name in enumerate(arrays["classes"]):
        contact_sheet(arrays["image"][arrays["label"] == label]).save(folder / f"{name}.png", optimize=True)


def read_excluded(path: Path) -> dict[str, str]:
    """Read the reviewed list, source -> reason."""
    with path.open(newline="", encoding="utf-8") as file:
        return {row["source"]: row["reason"] for row in csv.DictReader(file)}


def account(arrays: Mapping[str, np.ndarray], left_out: Mapping[str, int]) -> str:
    """Describe the result in a few lines."""
    total = len(arrays["label"])
    lines = [
        f"{total + sum(left_out.values())} pictures seen, {total} kept by {len(set(arrays['artist'].tolist()))} artists"
    ]
    lines += [
        f"  left out {count:5d}  {reason}" for reason, count in sorted(left_out.items(), key=lambda x: (-x[1], x[0]))
    ]
    clean, legacy = arrays["split_clean"], arrays["split_legacy"]
    lines.append(f"  {'class':18} {'all':>5} | clean: train   val  test | legacy: train  test | no tags")
    masks = [(str(name), arrays["label"] == i) for i, name in enumerate(arrays["classes"])]
    for name, of in [*masks, ("all", np.ones(total, dtype=bool))]:
        sides = [int((clean[of] == side).sum()) for side in range(3)]
        randoms = [int((legacy[of] == side).sum()) for side in (0, 2)]
        empty = int((arrays["tags"][of] == "").sum())
        lines.append(
            f"  {name:18} {int(of.sum()):5d} | {sides[0]:12d} {sides[1]:5d} {sides[2]:5d} "
            f"| {randoms[0]:13d} {randoms[1]:5d} | {empty:7d}"
        )
    return "\n".join(lines)


def build(root: Path, excluded: Mapping[str, str]) -> tuple[dict[str, np.ndarray], Counter[str]]:
    """Build the arrays from the unpacked packages.

    Returns:
        The arrays, and how many pictures were left out for which reason.
    """
    left_out: Counter[str] = Counter()
    pictures = read_pictures(root, excluded, left_out)
    pictures = cap_classes(drop_near_duplicates(pictures, left_out), left_out)
    return to_arrays(pictures), +left_out


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python tools/build_openclipart.py", description=__doc__.partition("\n")[0])
    parser.add_argument("--debs", type=Path, required=True, help=f"folder with the packages {' and '.join(PACKAGES)}")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="the .npz to write (default: %(default)s)")
    parser.add_argument("--contact-sheets", type=Path, metavar="DIR", help="also write one contact sheet a class here")
    args = parser.parse_args(argv)
    try:
        excluded = read_excluded(EXCLUDED_CSV)
        with tempfile.TemporaryDirectory() as folder:
            root = unpack(find_debs(args.debs), Path(folder))
            stale = [source for source in excluded if not (root / "png" / source).is_file()]
            if stale:
                raise BuildError(f"{EXCLUDED_CSV.name} names pictures that do not exist: {', '.join(stale)}")
            arrays, left_out = build(root, excluded)
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    save_npz(args.out, arrays)
    print(account(arrays, left_out))
    print(f"{args.out}: {args.out.stat().st_size} bytes, sha256 {hashlib.sha256(args.out.read_bytes()).hexdigest()}")
    if args.contact_sheets:
        save_contact_sheets(args.contact_sheets, arrays)
    return 0


if __name__ == "__main__":
    sys.exit(main())
