"""``mmbench data add``: a folder becomes a data set, without code."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from mmbench.arguments import resolve_arguments
from mmbench.data.adding.arrays import FILE as TABLE
from mmbench.data.adding.arrays import table_of_arrays, write_table
from mmbench.data.adding.declaration import Declared, checked_name, declared
from mmbench.data.adding.guesses import Line, array_files, slug
from mmbench.data.adding.huggingface import Exported, export
from mmbench.data.adding.infer import Inferred, infer
from mmbench.data.adding.metadata import Metadata, find_tables, has_table, read_metadata
from mmbench.data.adding.samples import files_of, ids_of, read_samples
from mmbench.data.adding.showing import ROLES, lines_of, show, write_declaration
from mmbench.data.adding.vectors import read_vector, read_vectors
from mmbench.data.preparing.lists import links_into
from mmbench.data.preparing.media import BadFile
from mmbench.encoders import ENCODERS
from mmbench.errors import UsageError, did_you_mean
from mmbench.experiment.settings import read_yaml
from mmbench.files import atomic_write, data_root

if TYPE_CHECKING:
    from mmbench.data.sets.added import AddedDataModule

FILE = "dataset.yaml"
ORIGIN = "added-from.txt"
"""In a prepared folder: the folder that it was made of."""
LOOKED_AT = 64  # files of vectors whose widths are looked at


def add_data(arguments: argparse.Namespace) -> int:
    """``mmbench data add``."""
    from mmbench.data.preparing.prepare import prepare
    from mmbench.data.sets.added import added_class

    with links_into(arguments.also_from), raw_folder(arguments) as (root, tables, exported):
        path = root / FILE
        if path.exists():
            content = as_declared(path, arguments)
            print(f"as {path} says:\n")
            lines = lines_of(content)
        else:
            found = infer_folder(root, tables, arguments, exported.declaration)
            found.unused += [Line(column, "not used", why) for column, why in exported.unused]
            lines = show(found)
            if found.open:
                print("\n".join(lines))
                raise UsageError(f"{root}: could not be inferred: " + "; ".join(found.open))
            content = declared(found.content, f"what was inferred of {root}")
        check_name(content.name)
        check_origin(content.name, arguments)
        check_encoders(content)
        print("\n".join(lines))
        listing = read_samples(content, root)
        content = with_widths(content, root)
        notes = [*exported.notes, *(listing.notes if arguments.dry_run else [])]  # else preparing tells them
        print(f"\n{len(listing.samples):,} samples" + "".join(f"\nnote: {note}" for note in notes))
        if arguments.dry_run:
            made = raw_root(arguments) if arguments.hf else path
            told = "the data would be prepared" if made.exists() else f"{made} would be, and the data prepared"
            print(f"\nnothing was written (--dry-run); without it, {told}")
            return 0
        if not path.exists():
            write_declaration(path, found)
            print(f"\nwrote {path}: change what is wrong in it, and give the same command again\n")
        data = added_class(content)
        prepare(data, root, arguments.jobs, arguments.allow_bad, also_from=arguments.also_from)
        atomic_write(data.folder() / ORIGIN, f"{arguments.folder.resolve()}\n".encode())
    where = f" --data-dir {arguments.data_dir}" if arguments.data_dir else ""
    print(f"now look at it:  mmbench data audit {content.name}{where}", file=sys.stderr)
    if why := why_not(data):
        print(f"{content.name}: {why}", file=sys.stderr)
    if len(content.modalities) > 1:
        print(f"and run:         mmbench run table1 --dataset {content.name}{where}", file=sys.stderr)
    return 0


def why_not(data: type[AddedDataModule]) -> str:
    """Why no trial of ``clean`` could run on a data set, or how it could; "" if all is well."""
    parts = data.parts() if data.folds > 1 else None
    if parts is not None and (why := parts.lacks()):
        return f"its folds cannot be run: {why}"
    if (why := data.lacks("clean")) and parts is None:
        return f"clean cannot be run: {why}"
    table = data.table()
    alone = table.groupby("label")["group"].nunique()
    lonely = [data.classes[number] for number in alone[alone == 1].index]
    if lonely and table["group"].nunique() < len(table):
        some = ", ".join(lonely[:5]) + " …" * (len(lonely) > 5)
        return (
            f"all samples of a class are in one group ({some}): clean then trains without that class, or never tests it"
        )
    return ""


def check_origin(name: str, arguments: argparse.Namespace) -> None:
    """Refuse to put the data of another folder in the place of a data set that was added.

    Raises:
        UsageError: the name is taken, and ``--replace`` was not given.
    """
    folder, origin = data_root() / name, arguments.folder.resolve()
    try:
        before = (folder / ORIGIN).read_text().strip()
    except (OSError, ValueError):
        before = ""
    other = [
        path.name for path in data_root().glob("*") if path.name.casefold() == name.casefold() and path.name != name
    ]
    if other:
        raise UsageError(
            f"name: '{name}' differs from the data set '{other[0]}' by capitals alone; choose another (--name)"
        )
    if folder.exists() and before != str(origin) and not arguments.replace:
        whose = f"{before}, another folder" if before else "another folder, or an earlier version of mmbench"
        raise UsageError(
            f"{folder}: there is a data set '{name}' already, added from {whose}; choose another name (--name, or name: in {FILE}), or "
            "say --replace"
        )


def check_encoders(content: Declared) -> None:
    """Refuse encoders that there are not, or that do not take the arguments that are given.

    Raises:
        UsageError: the first such encoder.
    """
    for name, modality in content.modalities.items():
        if modality.encoder is None:
            continue
        choice = {"name": modality.encoder} if isinstance(modality.encoder, str) else dict(modality.encoder)
        chosen = str(choice.pop("name", ""))
        if chosen not in ENCODERS:
            raise UsageError(f"modalities.{name}.encoder: unknown encoder '{chosen}'; {did_you_mean(chosen, ENCODERS)}")
        if mistakes := resolve_arguments(ENCODERS[chosen], choice)[1]:
            raise UsageError(f"modalities.{name}.encoder: {'; '.join(mistakes)}")


@contextmanager
def raw_folder(arguments: argparse.Namespace) -> Iterator[tuple[Path, list[str], Exported]]:
    """The folder of a data set, the names of its tables, and what was found out when it was written, if that is done here.

    Raises:
        UsageError: there is no such folder, or it cannot be taken as it is.
    """
    if not arguments.hf:
        root, tables = place(arguments.folder, arguments.metadata)
        yield root, tables, Exported({}, [], [])
        return
    if arguments.metadata:
        raise UsageError("--metadata: a data set of Hugging Face has no table of its own; leave it out")
    into = raw_root(arguments)
    check_name(into.name)
    check_origin(into.name, arguments)
    if arguments.dry_run:
        with TemporaryDirectory(prefix="mmbench-") as temporary:
            trial = Path(temporary) / into.name
            try:
                yield trial, [], export(arguments.folder, trial, arguments.label, most=LOOKED_AT)
            except UsageError as error:
                raise UsageError(str(error).replace(str(trial), str(into))) from error
    else:
        yield into, [], export(arguments.folder, into, arguments.label)


def raw_root(arguments: argparse.Namespace) -> Path:
    """Where the raw folder of a data set of Hugging Face is written."""
    return data_root() / "hf-raw" / named(arguments, arguments.folder)


def place(given: Path, tables: Sequence[str]) -> tuple[Path, list[str]]:
    """The folder of a data set, and the names of the tables that were asked for; a table may stand for its folder.

    Raises:
        UsageError: there is no such folder.
    """
    if given.is_file():
        return given.parent, [given.name]
    if not given.is_dir():
        raise UsageError(f"{given}: no such folder; expected one with a table of samples, metadata.csv")
    return given, list(tables)


def as_declared(path: Path, arguments: argparse.Namespace) -> Declared:
    """What ``dataset.yaml`` says, if the options do not contradict it."""
    content = declared(read_yaml(path, "declaration"), str(path))
    for key in ("name", *ROLES):
        asked = getattr(arguments, key)
        if asked is not None and asked != getattr(content, key):
            raise UsageError(
                f"--{key} {asked}: {path} says {key}: {getattr(content, key)}; change it there, or take that file away to have all "
                "inferred anew"
            )
    return content


def declared_in(root: Path) -> Declared:
    """What a folder's ``dataset.yaml`` says, though its data may not be there: widths that it leaves open are 16."""
    content = declared(read_yaml(root / FILE, "declaration"), str(root / FILE))
    open_yet = {name for name in content.of_kind("features", "numbers") if content.modalities[name].width is None}
    modalities = {
        name: one.model_copy(update={"width": len(one.columns) if one.kind == "numbers" and one.columns else 16})
        if name in open_yet
        else one
        for name, one in content.modalities.items()
    }
    return content.model_copy(update={"modalities": modalities})


def infer_folder(
    root: Path, tables: Sequence[str], arguments: argparse.Namespace, known: Mapping[str, Any]
) -> Inferred:
    """A first declaration of a folder."""
    if not tables and not has_table(root) and array_files(root):
        columns, files = table_of_arrays(root)
        made = f"{root / TABLE} of {', '.join(files)}: columns {', '.join(columns)}"
        if arguments.dry_run:
            raise UsageError(f"there is no table; without --dry-run, this would be written first: {made}")
        write_table(root, columns)
        print(f"wrote {made}\n")
    metadata = read_metadata(root, list(tables) or find_tables(root))
    return infer(named(arguments, root), metadata, {role: getattr(arguments, role) for role in ROLES}, known)


def named(arguments: argparse.Namespace, folder: Path) -> str:
    """What a data set is called: as the user says, or like its folder.

    Raises:
        UsageError: that is no name.
    """
    name = arguments.name or slug(folder.resolve().name)
    try:
        return checked_name(name, "a name")
    except ValueError as error:
        hint = "" if arguments.name else f"; the folder {folder} gives none, so name the data set with --name N"
        raise UsageError(f"--name: {error}{hint}") from error


def check_name(name: str) -> None:
    """Refuse the name of a data set that is written by hand, or comes with the package."""
    from mmbench.data import DATASETS
    from mmbench.data.found import EMBEDDED

    if name in DATASETS.registered or (EMBEDDED / name).exists():
        raise UsageError(
            f"name: '{name}' is one of mmbench's own data sets; choose another (--name, or name: in {FILE})"
        )


def with_widths(content: Declared, root: Path) -> Declared:
    """The declaration with the width of every modality of vectors.

    Raises:
        UsageError: no file of a modality holds a vector.
    """
    wanted = [name for name in content.of_kind("features", "numbers") if content.modalities[name].width is None]
    if not wanted:
        return content
    metadata = read_metadata(root, content.metadata)
    ids = ids_of(metadata, content.id)
    modalities = dict(content.modalities)
    for name in wanted:
        one = modalities[name]
        width = (
            width_of_files(metadata, name, content)
            if one.file is not None
            else read_vectors(name, one, metadata, ids).width
        )
        modalities[name] = one.model_copy(update={"width": width})
    return content.model_copy(update={"modalities": modalities})


def width_of_files(metadata: Metadata, name: str, content: Declared) -> int:
    """The width that most of a modality's first files have."""
    paths = [path for path in files_of(metadata, name, content.modalities[name]) if path]
    widths: list[int] = []
    reason = ""
    for path in paths[:LOOKED_AT]:
        try:
            widths.append(len(read_vector(metadata.root / path, None)))
        except BadFile as error:
            reason = f"{path} {error}"
    if not widths:
        raise UsageError(f"modalities.{name}: none of its first {len(paths[:LOOKED_AT])} files can be read: {reason}")
    return max(widths, key=widths.count)
