"""Lists, texts and paths of raw downloads, whatever system wrote them: what of them can be read, and what leads elsewhere."""

from __future__ import annotations

import csv
import os
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from mmbench.errors import UsageError

# Files and folders that systems and archivers leave among the data, beside all whose names begin with a dot (macOS's ._x.wav, say).
LEFT_BEHIND = {"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir", "lost+found", "$recycle.bin"}
ALLOWED: ContextVar[tuple[Path, ...]] = ContextVar("ALLOWED", default=())


# Paths


@contextmanager
def links_into(folders: Sequence[Path]) -> Iterator[None]:
    """Let symbolic links of a raw folder lead into these folders too, while the context lasts.

    Raises:
        UsageError: there is no such folder.
    """
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(
                f"--also-from {folder}: no such folder; expected one that links of the raw folder lead into"
            )
    token = ALLOWED.set(tuple(folders))
    try:
        yield
    finally:
        ALLOWED.reset(token)


def within(root: Path, relative: str, where: str = "") -> Path:
    """The path below ``root``.

    Args:
        root: the raw folder.
        relative: a path that a list gives.
        where: the list and line, for the message.

    Raises:
        UsageError: it leads out of the folder: by ``..``, as an absolute path, or through a symbolic link to where ``links_into``
            does not allow.
    """
    return Below(root)(relative, where)


class Below:
    """``within`` for many paths below one folder: where their folders really are is looked up once each."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._allowed = [os.path.realpath(folder) for folder in (root, *ALLOWED.get())]
        self._real: dict[str, str] = {}

    def __call__(self, relative: str, where: str | Callable[[], str] = "") -> Path:
        """The path, as ``within`` gives it; ``where`` may be made only where it is needed."""
        return Path(self.check(relative, where))

    def check(self, relative: str, where: str | Callable[[], str] = "") -> str:
        """The same as a text, which takes less time."""
        path = os.path.normpath(os.path.join(self.root, relative))
        if os.path.isabs(relative) or ".." in relative.split("/") or "\0" in relative:
            raise UsageError(f"{told(where)}the path {relative!r} leads out of {self.root}; expected one below it")
        folder, name = os.path.split(path)
        if folder not in self._real:
            self._real[folder] = os.path.realpath(folder)
        real = os.path.realpath(path) if os.path.islink(path) else os.path.join(self._real[folder], name)
        if not any(real == allowed or real.startswith(allowed.rstrip("/") + "/") for allowed in self._allowed):
            raise UsageError(
                f"{told(where)}{path} is a link to {real}; expected a file in {self.root}, or the option `--also-from DIR` of the "
                "command to allow links into that folder"
            )
        return path


def told(where: str | Callable[[], str]) -> str:
    """Where a path was given, as the beginning of a message."""
    text = where if isinstance(where, str) else where()
    return f"{text}: " if text else ""


def need(root: Path, relative: str, what: str) -> Path:
    """A file or folder that a raw data set cannot do without.

    Raises:
        UsageError: it is not there.
    """
    path = within(root, relative)
    if not path.exists():
        raise UsageError(f"{path} is missing: {what}")
    return path


def plain(path: str) -> str:
    r"""A path of a list in the one way in which it is compared; what leads upwards stays, for ``within`` to refuse.

    >>> plain("./Training//real_part/1.jpg "), plain("Val\\\\0000\\\\1.jpg"), plain("/a/../b/")
    ('Training/real_part/1.jpg', 'Val/0000/1.jpg', '/a/../b')
    """
    path = path.strip().replace("\\", "/")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    return "/" * path.startswith("/") + "/".join(parts)


def is_left_behind(name: str) -> bool:
    """Whether a file or folder of this name is no part of any download, but left there by a system."""
    return name.startswith(".") or name.casefold() in LEFT_BEHIND


def find_files(folder: Path, ending: str | tuple[str, ...], deep: bool = False) -> list[Path]:
    """The files of a folder with this ending, or one of these, in small letters or capitals, sorted; without what systems leave behind.

    Args:
        folder: where to look.
        ending: such as ``.jpg``; or several.
        deep: look in the folders below too, through links to folders, but into each only once.
    """
    return sorted(map(Path, file_names(folder, ending, deep)))


def file_names(folder: Path, ending: str | tuple[str, ...], deep: bool = False) -> list[str]:
    """What ``find_files`` finds, as texts, which take less time; in no order."""
    found: list[str] = []
    seen: set[str] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        folders[:] = [name for name in folders if deep and real not in seen and not is_left_behind(name)]
        if real not in seen:
            found += [
                os.path.join(place, name)
                for name in files
                if name.lower().endswith(ending) and not is_left_behind(name)
            ]
        seen.add(real)
    return found


# Texts


def read_text(path: Path, notes: list[str]) -> str:
    """The text of a file in UTF-8, or in UTF-16 where its first bytes say so; line ends as newlines.

    Bytes that are not in this encoding become U+FFFD; a line of ``notes`` tells how many lines have such.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
    encoding = "utf-16" if content.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        text = content.decode(encoding, errors="replace")
        first = content[: error.start].replace(b"\r\n", b"\n").replace(b"\r", b"\n").count(b"\n") + 1
        count = sum("\ufffd" in line for line in text.splitlines())
        notes.append(
            f"{path}: {count} line{'s' * (count > 1)} with bytes that are not {encoding.removesuffix('-sig').upper()}, read as "
            f"\ufffd; the first is line {first}"
        )
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_lines(path: Path, notes: list[str]) -> Iterator[tuple[str, str]]:
    """The lines of a list that are not blank, each with where it stands, for messages. ``notes`` are those of ``read_text``."""
    for number, line in enumerate(read_text(path, notes).split("\n"), start=1):
        if line.strip():
            yield f"{path}, line {number}", line.strip()


def read_rows(path: Path, columns: int, notes: list[str], delimiter: str = ",") -> Iterator[tuple[str, list[str]]]:
    """The rows of a table without a header, a line each, with where it stands. ``notes`` are those of ``read_text``.

    Raises:
        UsageError: a row has another number of columns, or a quotation mark is not closed in its line.
    """
    for where, line in read_lines(path, notes):
        try:
            [row] = csv.reader([line], delimiter=delimiter, strict=True)
        except csv.Error as error:
            raise UsageError(f"{where}: {error}: {line[:80]!r}") from error
        if len(row) != columns:
            raise UsageError(f"{where}: expected {columns} columns, got {len(row)}: {delimiter.join(row)[:80]!r}")
        yield where, [cell.strip() for cell in row]
