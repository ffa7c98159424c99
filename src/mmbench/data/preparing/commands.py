"""``mmbench data …``: what there is, how to get it, preparing, checking."""

from __future__ import annotations

import argparse
import csv
import inspect
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmbench.data.preparing.splitting import one_or_all, write_split
from mmbench.errors import UsageError
from mmbench.files import check_folder, data_root
from mmbench.machine import cores
from mmbench.options import given_path, places, positive
from mmbench.protocol import PROTOCOLS

if TYPE_CHECKING:
    from mmbench.data.base import MultimodalDataModule
    from mmbench.data.prepared import PreparedDataModule

OK, FAILED = 0, 1


def add_commands(data: argparse.ArgumentParser) -> None:
    """The commands and their options."""
    commands = data.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, function: Any, text: str, named: bool = True) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", parents=[places()])
        sub.set_defaults(command=run, function=function)
        if named:
            sub.add_argument("name", metavar="NAME", help="a data set of `mmbench data list`")
        return sub

    def decoding(sub: argparse.ArgumentParser) -> None:
        sub.add_argument(
            "--jobs",
            type=positive,
            default=cores(),
            metavar="N",
            help="processes that decode (default: a core each)",
        )

    command("list", list_data, "list the data sets, and which are prepared", named=False)
    command("info", info, "tell what to request or download, where it goes, its terms and the disk it needs")
    prepare = command(
        "prepare", prepare_data, "decode a raw download once; the same command goes on after an interruption"
    )
    prepare.add_argument("--raw", type=given_path, required=True, metavar="DIR", help="the raw download")

    def options_of_preparing(sub: argparse.ArgumentParser) -> None:
        sub.add_argument(
            "--allow-bad", action="store_true", help="accept more than 1 %% of samples that cannot be used"
        )
        sub.add_argument(
            "--also-from",
            type=given_path,
            action="append",
            default=[],
            metavar="DIR",
            help="let symbolic links of the raw folder lead into this folder too (may be given more than once)",
        )
        decoding(sub)

    options_of_preparing(prepare)
    add = command("add", add_data, "make a data set of a folder: a table of samples, and their files", named=False)
    add.add_argument(
        "folder", type=given_path, metavar="DIR", help="a folder with metadata.csv (.tsv, .jsonl, .parquet)"
    )
    add.add_argument(
        "--hf", action="store_true", help="DIR is what dataset.save_to_disk(DIR) of Hugging Face's datasets wrote"
    )
    add.add_argument("--name", metavar="N", help="what experiments call it (default: the folder's name)")
    for role, text in ROLES.items():
        add.add_argument(
            f"--{role}", metavar="COLUMN", help=f"the column of {text}, where that is not inferred rightly"
        )
    add.add_argument(
        "--metadata",
        action="append",
        default=[],
        metavar="FILE",
        help="the table, below DIR; more than once for a table a split",
    )
    add.add_argument("--dry-run", action="store_true", help="print what is inferred, and do no more")
    options_of_preparing(add)
    command("verify", verify_data, "compare a prepared data set with its checksums")
    audit = command("audit", audit_data, "look for leaks, duplicates, contradictory labels and wrong counts")
    audit.add_argument(
        "--protocol", choices=["clean", "legacy"], default="clean", help="whose promises to hold (default: clean)"
    )
    audit.add_argument(
        "--pairs",
        type=given_path,
        metavar="FILE",
        help="write all pairs of samples of which lines name the first, as CSV",
    )
    splits = command("split", write_split, "write the ids of each split, for those who train with code of their own")
    splits.add_argument("--protocol", choices=list(PROTOCOLS), default="clean", help="which splits (default: clean)")
    splits.add_argument(
        "--fold", type=one_or_all, metavar="K|all", help="which fold, or all (default: the data set's one split)"
    )
    splits.add_argument("-o", "--output", type=given_path, metavar="FILE", help="a file to write (default: print it)")
    demo = command("demo", demo_data, "write a tiny made-up copy in the real layout, prepare and audit it", named=False)
    demo.add_argument(
        "name", metavar="NAME|DIR", help="a data set of `mmbench data list`, or a folder with dataset.yaml"
    )
    decoding(demo)


ROLES = {
    "label": "the class",
    "group": "what must not be in two splits",
    "split": "a given split",
    "id": "the samples' names",
}


def run(arguments: argparse.Namespace) -> int:
    """Run a command, if there is a data folder, or can be."""
    check_folder(data_root(), "data folder", write="jobs" in arguments)
    return arguments.function(arguments)


def add_data(arguments: argparse.Namespace) -> int:
    """``mmbench data add``."""
    from mmbench.data.adding.commands import add_data

    return add_data(arguments)


def find(name: str) -> type[PreparedDataModule]:
    """A data set that can be prepared.

    Raises:
        UsageError: there is none of this name, or it needs no preparing.
    """
    from mmbench.data import DATASETS
    from mmbench.data.prepared import PreparedDataModule

    data = DATASETS[name]
    if not issubclass(data, PreparedDataModule):
        reason = data.prepared()
        raise UsageError(f"{name} is not prepared by this command; " + (reason or "it is ready to be used"))
    return data


def find_declared(name: str) -> type[PreparedDataModule] | None:
    """The class of a data set whose folder, with its ``dataset.yaml``, is named; None if it is no such folder."""
    from mmbench.data.adding.commands import FILE, declared_in
    from mmbench.data.sets.added import added_class

    return added_class(declared_in(given_path(name))) if (given_path(name) / FILE).is_file() else None


def is_demo(data: type[MultimodalDataModule]) -> bool:
    """Whether what is prepared is a made-up copy."""
    from mmbench.data.prepared import PreparedDataModule

    return issubclass(data, PreparedDataModule) and bool(peek(data.folder() / "manifest.json", "made_up"))


def is_real(data: type[PreparedDataModule]) -> bool:
    """Whether there are prepared data, or the beginning of them, that are not known to be a made-up copy."""
    begun = peek(data.folder().with_name(f"{data.name}.partial") / "plan.json", "made_up") is False
    return begun or (data.folder().exists() and not is_demo(data))


def peek(path: Path, key: str) -> Any:
    """A value of a JSON file, None if there is none, whatever state the file is in."""
    try:
        return json.loads(path.read_bytes())[key]
    except (OSError, ValueError, LookupError, TypeError):
        return None


def list_data(arguments: argparse.Namespace) -> int:
    """``mmbench data list``."""
    from mmbench.data import DATASETS
    from mmbench.data.prepared import PreparedDataModule

    width = max(map(len, DATASETS))
    for name in DATASETS:
        try:
            data = DATASETS[name]
        except UsageError as error:
            print(f"{name:{width}}  {error}")
            continue
        state = "ready: a made-up demo copy" if is_demo(data) else "ready"
        if data.prepared() is not None:
            state = f"not prepared: mmbench data info {name}"
        count = len(data.class_names() if issubclass(data, PreparedDataModule) else data.classes)
        folds = f"{data.folds} folds" if data.folds > 1 else "1 split"
        print(f"{name:{width}} {count:4} classes  {folds:7}  {', '.join(data.modalities):22}  {state}")
    return OK


def info(arguments: argparse.Namespace) -> int:
    """``mmbench data info``."""
    from mmbench.data import DATASETS
    from mmbench.data.prepared import PreparedDataModule

    data = DATASETS[arguments.name]
    prepared = issubclass(data, PreparedDataModule)
    if home := getattr(data, "home", None):
        print((home / "README.md").read_text(encoding="utf-8").rstrip())
    elif prepared:
        print_source(data)
    else:
        print(inspect.cleandoc(data.__doc__ or ""))
    classes = data.class_names() if prepared else data.classes
    print(f"\nclasses ({len(classes)}): {', '.join(classes)}")
    for protocol, counts in getattr(data, "published", {}).items():
        print(f"published, {protocol}: {', '.join(f'{split} {count}' for split, count in counts.items())}")
    print_folds(data)
    print_encoders(data)
    if prepared:
        if home:
            print(f"\nit comes with mmbench, in {home}")
        else:
            how = f"prepare {data.name} --raw <raw folder>" if data.declaration() is None else "add <raw folder>"
            print(f"\nmmbench data {how}\nputs it into {data.folder()}")
    state, done = data.prepared(), "prepared" if prepared else "ready"
    print(f"It is {done}{', as a made-up demo copy' * is_demo(data)}." if state is None else f"It is not {done}.")
    if state and (not prepared or (data.folder() / "manifest.json").exists()):
        print(state)
    return OK


def print_source(data: type[PreparedDataModule]) -> None:
    """Print where a data set that is prepared comes from, and its layout."""
    from mmbench.data.preparing.media import FRAME_PIXELS
    from mmbench.data.preparing.pictures import PIXELS
    from mmbench.data.preparing.sound import CHANNELS, LONGEST

    text = data.info
    print(f"{text.title}\n\nsource   {text.source}\nlicence  {text.licence}\ndisk     {text.disk}\n\nraw folder:")
    width = max(len(path) for path, _ in text.layout)
    for path, what in text.layout:
        print(f"  {path:{width}}  {what}")
    print(
        "Links may lead to files elsewhere, if `--also-from DIR` names the folder that holds them. Files whose names begin with a dot "
        "are left out, and so are Thumbs.db, desktop.ini and __MACOSX.\n"
        f"Not decoded, and counted as files that cannot be used: pictures of more than {PIXELS / 1e6:.0f} million pixels, videos with "
        f"frames of more than {FRAME_PIXELS / 1e6:.0f} million, sound of more than {LONGEST / 60:.0f} minutes or {CHANNELS} channels."
    )


def print_folds(data: type[MultimodalDataModule]) -> None:
    """Print how many folds a data set has, and by which hash they are published."""
    if data.folds == 1:
        print("folds: none, it has one split")
        return
    ready = data.prepared() is None
    print(
        f"folds: {data.folds}, by {data.folded_by}{'' if ready else '; the hash of their lists is told once the data are there'}"
    )
    if ready and (parts := data.parts()):
        for split in ("clean", "legacy"):
            print(f"  {split}: SHA-256 {parts.hash_of(split)} of the sorted lines '<sample> <part>'")


def print_encoders(data: type[MultimodalDataModule]) -> None:
    """Print the encoders of a data set, and the files that they read."""
    from mmbench.arguments import resolve_arguments
    from mmbench.encoders import ENCODERS

    print("encoders, unless an experiment names others, and what they read from the folder of weights:")
    for modality, choice in data.encoders.items():
        given = {"name": choice} if isinstance(choice, str) else dict(choice)
        name = given.pop("name")
        resolved = resolve_arguments(ENCODERS[name], given)[0]
        files = [str(resolved[key]) for key in ("weights", "tokenizer") if resolved.get(key)]
        print(f"  {modality}: {name}, {' and '.join(files) or 'nothing: trained from scratch'}")


def prepare_data(arguments: argparse.Namespace) -> int:
    """``mmbench data prepare``."""
    from mmbench.data.preparing.prepare import prepare

    prepare(find(arguments.name), arguments.raw, arguments.jobs, arguments.allow_bad, also_from=arguments.also_from)
    where = f" --data-dir {arguments.data_dir}" if arguments.data_dir else ""
    print(f"now look at it: mmbench data audit {arguments.name}{where}", file=sys.stderr)
    return OK


def find_prepared(name: str) -> type[PreparedDataModule]:
    """The class of a data set that is prepared.

    Raises:
        UsageError: there is none of this name, or it is not prepared.
    """
    data = find(name)
    if not (data.folder() / "manifest.json").exists():
        raise UsageError(f"{data.folder()}: {name} is not prepared; mmbench data info {name} tells how")
    return data


def verify_data(arguments: argparse.Namespace) -> int:
    """``mmbench data verify``."""
    from mmbench.data.preparing.manifest import verify

    wrong = verify(find_prepared(arguments.name))
    for line in wrong:
        print(line)
    print(
        f"{arguments.name}: " + (f"{len(wrong)} difference{'s' * (len(wrong) > 1)}" if wrong else "as it was prepared")
    )
    return FAILED if wrong else OK


def audit_data(arguments: argparse.Namespace) -> int:
    """``mmbench data audit``."""
    from mmbench.data import DATASETS
    from mmbench.data.prepared import PreparedDataModule
    from mmbench.data.preparing.audit import audit

    data = DATASETS[arguments.name]
    if issubclass(data, PreparedDataModule):
        data = find_prepared(arguments.name)
    elif why := data.prepared():
        raise UsageError(why)
    found = audit(data)
    for line in found.facts:
        print(line)
    for line in found.findings:
        print(f"note: {line}")
    for protocol, lines in found.violations.items():
        for line in lines:
            print(f"{'VIOLATION' if protocol == arguments.protocol else 'note'}: {protocol}: {line}")
    broken = found.violations[arguments.protocol]
    print(
        f"{arguments.name}: protocol {arguments.protocol} "
        + (f"is broken in {len(broken)} way{'s' * (len(broken) > 1)}" if broken else "holds")
    )
    if arguments.pairs:
        write_pairs(arguments.pairs, found.pairs)
    elif found.pairs:
        print(f"{len(found.pairs)} pairs of samples in all: --pairs FILE.csv writes them", file=sys.stderr)
    return FAILED if broken else OK


def write_pairs(path: Path, pairs: Sequence[tuple[str, str, str]]) -> None:
    """Write the pairs of samples that an audit tells of.

    Raises:
        UsageError: the file cannot be written.
    """
    try:
        with path.open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows([("what", "sample", "other"), *pairs])
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; name another file with --pairs") from error


def demo_data(arguments: argparse.Namespace) -> int:
    """``mmbench data demo``."""
    import shutil

    from mmbench.data.prepared import MADE_UP
    from mmbench.data.preparing.prepare import locked, prepare

    data = find_declared(arguments.name) or find(arguments.name)
    if getattr(data, "home", None):
        raise UsageError(f"{data.name} comes with mmbench, ready to be used; it needs no demo")
    if is_real(data):
        raise UsageError(
            f"{data.folder()} holds the real {data.name}; name another folder for the demo: --data-dir DIR"
        )
    raw = data_root() / "demo-raw" / str(data.name)
    with locked(raw):
        shutil.rmtree(raw, ignore_errors=True)
        data.write_demo(raw)
        (raw / MADE_UP).write_text("A made-up copy, to try things out.\n")
        print(f"wrote a made-up copy of {data.name} to {raw}", file=sys.stderr)
        prepare(data, raw, arguments.jobs)
    return audit_data(argparse.Namespace(name=data.name, protocol="clean", pairs=None))
