"""``mmbench export`` and ``mmbench import``."""

from __future__ import annotations

import argparse
import sys

from mmbench.errors import counted, printable
from mmbench.opening import load_experiment, open_store
from mmbench.options import given_path


def add_export(sub: argparse.ArgumentParser) -> None:
    """The options of ``export``, beside the experiment."""
    sub.add_argument("-o", "--output", type=given_path, metavar="FILE", help="the bundle (default: EXPERIMENT.zip)")


def add_import(sub: argparse.ArgumentParser) -> None:
    """The options of ``import``."""
    sub.add_argument("bundle", type=given_path, metavar="BUNDLE", help="a file of `mmbench export`")
    which = sub.add_mutually_exclusive_group()
    which.add_argument(
        "--keep", action="store_true", help="leave trials as they are that are done here with other predictions"
    )
    which.add_argument("--replace", action="store_true", help="put the bundle's trials in the place of such")


def export_experiment(arguments: argparse.Namespace) -> int:
    """``mmbench export``."""
    from pathlib import Path

    from mmbench.bundles.exporting import added_of, export, left_elsewhere

    experiment, store = load_experiment(arguments, imported=True), open_store(arguments)
    target = arguments.output or Path(f"{experiment.name}.zip")
    manifest = export(experiment, store, target)
    print(
        f"{target}: {manifest.done} of {counted(manifest.planned, 'trial')} done; {target.stat().st_size / 1e6:.1f} MB"
    )
    print(
        "in it: records, predictions, features, the experiment, hashes of data and splits; no logs, models or paths",
        file=sys.stderr,
    )
    if count := left_elsewhere(experiment, store):
        what = "1 row that was" if count == 1 else f"{count} rows that were"
        print(
            f"not in it: {what} made elsewhere; `mmbench add-predictions` adds them there too, from their own files",
            file=sys.stderr,
        )
    for name in added_of(experiment):
        print(
            f"{name} was added without code: a report elsewhere needs the data set there too, by `mmbench data add` of its folder",
            file=sys.stderr,
        )
    return 0


def import_bundle(arguments: argparse.Namespace) -> int:
    """``mmbench import``."""
    from mmbench.bundles.importing import Conflict, bring_in
    from mmbench.bundles.layout import opened
    from mmbench.data import DATASETS

    store = open_store(arguments, write=True)
    conflict: Conflict = "keep" if arguments.keep else "replace" if arguments.replace else "refuse"
    with opened(arguments.bundle) as bundle:
        done, file = bring_in(bundle, store, arguments.results, conflict)
        manifest = bundle.manifest
    told = {"added": done.added, "there already": done.there, "left as they were": done.kept, "replaced": done.replaced}
    print(
        f"{manifest.experiment}: "
        + ", ".join(f"{counted(len(keys), 'trial')} {what}" for what, keys in told.items() if keys)
    )
    print(f"now: mmbench report {file} --results {arguments.results}")
    for unknown in sorted({facts.dataset for facts in manifest.datasets.values()} - set(DATASETS)):
        name = printable(" ".join(unknown.split()))
        print(
            f"but first: data set {name} is not known here, which a report needs; `mmbench data add` or its package brings it"
        )
    return 0
