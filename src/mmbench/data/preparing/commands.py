"""``mmbench data …``: what there is, how to get it, preparing, checking."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmbench.data.preparing.splitting import one_or_all, write_split
from mmbench.data.preparing.telling import info, is_real, list_data
from mmbench.errors import UsageError
from mmbench.files import check_folder, data_root
from mmbench.machine import cores
from mmbench.options import given_path, places, positive
from mmbench.protocol import PROTOCOLS

if TYPE_CHECKING:
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
    add.add_argument(
        "--replace", action="store_true", help="put it in the place of a data set of this name, of another folder"
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
        own = "" if data.declaration() is None else ", and the folder that it was added from in place of its name"
        raise UsageError(
            f"{data.folder()} holds the real {data.name}; name another folder for the demo: --data-dir DIR{own}"
        )
    raw = data_root() / "demo-raw" / str(data.name)
    with locked(raw):
        shutil.rmtree(raw, ignore_errors=True)
        data.write_demo(raw)
        (raw / MADE_UP).write_text("A made-up copy, to try things out.\n")
        print(f"wrote a made-up copy of {data.name} to {raw}", file=sys.stderr)
        prepare(data, raw, arguments.jobs)
    return audit_data(argparse.Namespace(name=data.name, protocol="clean", pairs=None))
