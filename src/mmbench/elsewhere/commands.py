"""``mmbench add-predictions``: what other code predicted becomes a row of reports; what there is of it; forgetting it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from mmbench.errors import DataError, UsageError, printable
from mmbench.files import check_folder
from mmbench.options import given_path
from mmbench.protocol import PROTOCOLS

if TYPE_CHECKING:
    from mmbench.elsewhere.checking import Checked
    from mmbench.elsewhere.entries import Elsewhere, Entry

MOST_LETTERS = 60
"""Of a label, which has to fit into tables."""


def add_options(sub: argparse.ArgumentParser) -> None:
    """The options of the command."""
    sub.add_argument(
        "file",
        type=given_path,
        nargs="?",
        metavar="FILE",
        help="csv or parquet: columns id, pattern, fold (where there are folds) and one of probabilities a class; or an .npz with the "
        "arrays id, pattern, fold, probabilities and classes",
    )
    sub.add_argument("--dataset", metavar="N", help="the data set")
    sub.add_argument(
        "--protocol", choices=list(PROTOCOLS), metavar="P", help="the protocol that was followed (default: clean)"
    )
    sub.add_argument("--method", metavar="LABEL", help="what reports are to call the method")
    sub.add_argument("--seed", type=int, metavar="S", help="which of several runs it is (default: 0)")
    sub.add_argument(
        "--replace", action="store_true", help="put the file in place of what there is of this label and seed"
    )
    sub.add_argument("--list", action="store_true", help="list what was added")
    sub.add_argument(
        "--remove",
        metavar="LABEL",
        help="forget what was added by this label or key; of --dataset, --protocol or --seed alone, if given",
    )


def add_predictions(arguments: argparse.Namespace) -> int:
    """``mmbench add-predictions``."""
    from mmbench.elsewhere.entries import FOLDER, Elsewhere

    asked = [arguments.file is not None, arguments.list, arguments.remove is not None]
    if sum(asked) != 1:
        raise UsageError("add-predictions: expected one of FILE, --list and --remove LABEL")
    check_folder(arguments.results / FOLDER, "results folder", write=not arguments.list)
    elsewhere = Elsewhere(arguments.results / FOLDER)
    if arguments.list:
        return list_entries(elsewhere)
    if arguments.remove is not None:
        return remove(elsewhere, arguments)
    return add(elsewhere, arguments)


def add(elsewhere: Elsewhere, arguments: argparse.Namespace) -> int:
    """Check a file and keep what it holds."""
    from mmbench.arguments import shown
    from mmbench.data import DATASETS
    from mmbench.elsewhere.checking import check
    from mmbench.elsewhere.entries import LARGEST_SEED, Entry

    if missing := [f"--{name}" for name in ("dataset", "method") if getattr(arguments, name) is None]:
        raise UsageError(f"add-predictions: {' and '.join(missing)}: expected with a file")
    label, seed = checked_label(arguments.method), arguments.seed or 0
    if not 0 <= seed <= LARGEST_SEED:
        raise UsageError(f"--seed {shown(seed)}: expected 0 to 2^32 − 1, as of trials")
    data = DATASETS[arguments.dataset]
    if (unprepared := data.prepared()) is not None:
        raise UsageError(
            f"{arguments.dataset}: predictions are held to its splits, so the data have to be here; {unprepared}"
        )
    protocol = arguments.protocol or "clean"
    entry = Entry(label=label, dataset=arguments.dataset, data=data.manifest(), protocol=protocol, seed=seed, parts=[])
    parts = check(arguments.file, data, protocol)
    with elsewhere.lock(entry.key):
        there = None if arguments.replace else elsewhere.entry(entry.key)
        store_parts(elsewhere, entry, there, parts, arguments.file)
    tell(entry, parts, data.folds)
    return 0


def checked_label(text: str) -> str:
    """A label that reports can show beside those of methods.

    Raises:
        UsageError: it is a method's, or no label.
    """
    from mmbench.baselines import METHODS

    label = text.strip()
    if not label or not label.isprintable() or len(label) > MOST_LETTERS or "‡" in label:
        raise UsageError(
            f"--method {text[:100]!r}: expected 1 to {MOST_LETTERS} printable letters without ‡, which marks what was made elsewhere"
        )
    if label in METHODS:
        raise UsageError(
            f"--method {label}: is a method of mmbench, whose rows it would be taken for; choose another label"
        )
    return label


def store_parts(
    elsewhere: Elsewhere, entry: Entry, there: Entry | None, parts: Sequence[Checked], source: Path
) -> None:
    """Keep parts beside those that are there already.

    Raises:
        DataError: some of them are there, or those that are there were made for other data.
    """
    from mmbench.elsewhere.entries import Part

    if there is not None:
        known = [part.name for part in there.parts if part.fold in {new.fold for new in parts}]
        if known:
            raise DataError(f"{there}: {', '.join(known)} is there already; --replace puts the file in its place")
        if there.data != entry.data:
            raise DataError(
                f"{there}: what is there was made for other data than there are now; --replace puts the file in its place"
            )
        entry.parts += there.parts
    digest, now = sha256(source.read_bytes()).hexdigest(), datetime.now(UTC).isoformat(timespec="seconds")
    files = {}
    for part in parts:
        content = part.predictions.to_bytes()
        kept = Part(
            fold=part.fold,
            split_sha256=part.split_sha256,
            predictions_sha256=sha256(content).hexdigest(),
            patterns=part.patterns,
            source=source.name,
            source_sha256=digest,
            added=now,
        )
        files[kept.file] = content
        entry.parts.append(kept)
    entry.parts.sort(key=lambda part: -1 if part.fold is None else part.fold)
    elsewhere.write(entry, files)


def tell(entry: Entry, parts: Sequence[Checked], folds: int) -> None:
    """Print what was added, and how it does."""
    names = parts[0].predictions.pattern_names
    for part in parts:
        p, name = part.predictions, "one split" if part.fold is None else f"fold {part.fold}"
        told = [
            f"{pattern} {100 * float((p.predicted[i] == p.label).mean()):.1f} %"
            for i, pattern in enumerate(p.pattern_names)
            if p.given[i]
        ]
        print(f"{name}: {len(p.label)} test samples; accuracy {', '.join(told)}")
    if lacking := [name for name in names if any(name not in part.patterns for part in parts)]:
        print(f"not given, so – in reports: {', '.join(lacking)}")
    held = {part.fold for part in entry.parts} - {None}
    if held and (open_yet := sorted(set(range(folds)) - held)):
        print(
            f"{'fold' if len(open_yet) == 1 else 'folds'} {', '.join(map(str, open_yet))} "
            f"{'is' if len(open_yet) == 1 else 'are'} not there yet; until then, reports have no number over all folds"
        )
    print(f"added: {entry} ({entry.key}); every report over {entry.dataset}, {entry.protocol} now has its row")


def list_entries(elsewhere: Elsewhere) -> int:
    """Print what was added, a line each."""
    entries, damaged = elsewhere.entries()
    for entry in entries:
        every = [part.patterns for part in entry.parts]
        shared = [name for name in every[0] if all(name in own for own in every)] if every else []
        where = ", ".join(part.name for part in entry.parts)
        files = ", ".join(dict.fromkeys(part.source for part in entry.parts))
        patterns = ", ".join(shared) or "no pattern in all of them"
        print(printable(f"{entry.key}  {entry}: {where}; {patterns}; from {files}"))
    for line in damaged:
        print(f"damaged: {printable(line)}")
    if not entries and not damaged:
        print(f"no predictions made elsewhere in {elsewhere.root}")
    return 1 if damaged else 0


def remove(elsewhere: Elsewhere, arguments: argparse.Namespace) -> int:
    """Forget entries of a label, or one by its key, also if it is damaged."""
    entries, keys = elsewhere.entries()[0], elsewhere.keys()
    wanted = {name: getattr(arguments, name) for name in ("dataset", "protocol", "seed")}
    wanted = {name: value for name, value in wanted.items() if value is not None}
    found = [
        entry.key
        for entry in entries
        if arguments.remove in (entry.label, entry.key)
        and all(getattr(entry, name) == value for name, value in wanted.items())
    ]
    found = found or ([arguments.remove] if arguments.remove in keys and not wanted else [])
    if not found:
        known = sorted({entry.label for entry in entries})
        raise UsageError(f"--remove {arguments.remove}: nothing of it; there is {', '.join(known) or 'nothing'}")
    for key in found:
        elsewhere.remove(key)
        print(f"removed {printable(next((str(entry) for entry in entries if entry.key == key), key))}", file=sys.stderr)
    return 0
