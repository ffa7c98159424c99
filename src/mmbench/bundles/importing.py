"""``mmbench import``: a bundle that others made, checked before anything of it is kept."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from hashlib import sha256
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import ValidationError

from mmbench.bundles.agreeing import Agreement
from mmbench.bundles.layout import EXPERIMENT, MOST_RATIO, SMALL, Bundle, DatasetFacts, Manifest
from mmbench.data import DATASETS
from mmbench.errors import DataError, StoreError, UsageError, counted
from mmbench.experiment.settings import parse
from mmbench.files import atomic_write
from mmbench.metrics import summary
from mmbench.missing import pattern_name
from mmbench.npz import read_npz
from mmbench.record import Arrays, Features, Predictions, Record
from mmbench.store import MOST_BYTES, CorruptRecord, Store

FOLDER = "imported"
"""Among the results: the experiments of bundles, and what their manifests say."""
KNOWN = ".bundle.json"
"""The end of the name of a bundle's manifest, beside its experiment."""
MOST_UNPACKED = 8 * 2**30
"""Bytes of the arrays of one trial."""
NEARLY = 1e-3
"""Percent that a metric may differ from what its predictions give, for sums that are taken in another order."""

Conflict = Literal["refuse", "keep", "replace"]


@dataclass
class Imported:
    """What became of the trials of a bundle: their keys."""

    added: list[str] = field(default_factory=list)
    there: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)


def bring_in(bundle: Bundle, store: Store, results: Path, conflict: Conflict) -> tuple[Imported, Path]:
    """Check all of a bundle, then keep its trials and its experiment.

    Args:
        bundle: it.
        store: where its trials go.
        results: where its experiment goes.
        conflict: what to do with trials that are done here with other predictions.

    Returns:
        What became of the trials, and the experiment's file.

    Raises:
        DataError: the bundle is damaged, or there are conflicts to be refused; nothing has been changed then.
        StoreError: there is no room, or no right to write.
    """
    try:
        free = shutil.disk_usage(next(p for p in (store.root, *store.root.absolute().parents) if p.exists())).free
    except OSError as error:
        raise StoreError(f"cannot write {store.root}: {error.strerror}") from error
    if bundle.size > free:
        raise StoreError(
            f"{bundle.path}: takes {bundle.size:,} bytes, there are {free:,} left for {store.root}; free some space"
        )
    parse(_text(bundle), f"{bundle.path}: {EXPERIMENT}")
    plan = Imported()
    for key in bundle.trials:
        record = checked_record(bundle, key)
        held = _held(store, key)
        if held is None:
            plan.added.append(key)
        elif (held.status, held.predictions_sha256) == (record.status, record.predictions_sha256):
            plan.there.append(key)
        else:
            (plan.replaced if conflict == "replace" else plan.kept).append(key)
    if plan.kept and conflict == "refuse":
        told = f"{counted(len(plan.kept), 'trial')} {'is' if len(plan.kept) == 1 else 'are'}"
        raise DataError(
            f"{bundle.path}: {told} done here with other predictions, the first of them {plan.kept[0]}; nothing "
            "was imported. --keep leaves those as they are, --replace puts the bundle's in their place; or name another --results"
        )
    check_agreement(bundle, store, set(store.keys()) - {*plan.replaced, *plan.there})
    target = results / FOLDER / f"{bundle.manifest.experiment}.yaml"
    _keep_experiment(bundle, target, conflict)
    for key in (*plan.added, *plan.replaced):
        _keep(bundle, store, key)
    return plan, target


def check_agreement(bundle: Bundle, store: Store, own: Collection[str]) -> None:
    """Refuse trials that say other things of one split than others of the bundle, or of the store's ``own``, do.

    Raises:
        DataError: two of them contradict each other.
    """
    agreement = Agreement()
    for key, names in bundle.trials.items():
        if "predictions.npz" in names:
            record = Record.from_bytes(bundle.read(f"runs/{key}/record.json"))
            predictions = Predictions.from_bytes(bundle.read(f"runs/{key}/predictions.npz"))  # looked at before
            agreement.hold(record.trial, predictions, f"in {bundle.path}")
    agreement.hold_to(store, sorted(own))


def _text(bundle: Bundle) -> str:
    try:
        return bundle.read(EXPERIMENT).decode()
    except UnicodeDecodeError as error:
        raise bundle.damaged(f"{EXPERIMENT} is not UTF-8") from error


def _held(store: Store, key: str) -> Record | None:
    """The outcome that is here already; what is damaged or has failed in another way gives way."""
    try:
        record = store.record(key)
        if record is not None and record.status == "done":
            return store.done(key)
        return record if record and record.failure and record.failure.kind == "diverged" else None
    except CorruptRecord:
        return None


def checked_record(bundle: Bundle, key: str) -> Record:
    """The record of a trial, once it and its files are found to be what they say.

    Raises:
        DataError: they are not.
    """
    where = f"runs/{key}"
    try:
        record = Record.from_bytes(bundle.read(f"{where}/record.json"))
    except ValidationError as error:
        raise bundle.damaged(f"{where}/record.json: {error.errors()[0]['msg']}") from error
    except ValueError as error:
        raise bundle.damaged(f"{where}/record.json: {error}") from error
    if record.key != key or record.trial.key != key:
        raise bundle.damaged(f"{where}/record.json: it is of trial {record.trial.key}")
    if record.model_sha256 is not None:
        raise bundle.damaged(f"{where}/record.json: it names a model, which no bundle has")
    diverged = record.failure is not None and record.failure.kind == "diverged"
    if record.status != "done" and not diverged:
        raise bundle.damaged(f"{where}/record.json: the trial is not done")
    tested = record.status == "done" and not record.trial.tuning
    digests = {"predictions.npz": record.predictions_sha256, "features.npz": record.features_sha256}
    if (digests["predictions.npz"] is not None) != tested:
        raise bundle.damaged(f"{where}: {'no predictions' if tested else 'predictions of a trial that has none'}")
    for name, digest in digests.items():
        if (digest is not None) != (name in bundle.trials[key]):
            raise bundle.damaged(f"{where}/{name}: its record {'misses it' if digest else 'does not name it'}")
        if digest is not None:
            data = bundle.read(f"{where}/{name}")
            if sha256(data).hexdigest() != digest:
                raise bundle.damaged(f"{where}/{name}: not the file that its record was written with")
            try:
                check_arrays(data, record)
            except ValueError as error:
                raise bundle.damaged(f"{where}/{name}: {error}") from error
    return record


def check_arrays(data: bytes, record: Record) -> None:
    """Whether a file holds predictions, or features, that can be those of a record.

    Raises:
        ValueError: it does not.
    """
    arrays = read_npz(data, min(max(SMALL, MOST_RATIO * len(data)), MOST_UNPACKED))
    kind: type[Arrays] = Features if "points" in arrays else Predictions
    if set(arrays) != {f.name for f in fields(kind)}:  # type: ignore[arg-type]
        raise ValueError(f"it holds the arrays {', '.join(sorted(arrays))[:200]}")
    modalities = list(record.trial.encoders)
    if [str(name) for name in arrays["modalities"].ravel()] != modalities:
        raise ValueError("its modalities are not those of the trial")
    if kind is Predictions:
        _check_predictions(Predictions(**arrays), record)
    elif arrays["points"].ndim != 3 or arrays["points"].shape[::2] != (len(modalities), 2):
        raise ValueError(f"points have the shape {arrays['points'].shape}")


def _check_predictions(p: Predictions, record: Record) -> None:
    p.check()
    if np.isnan(p.log_probs).any():
        raise ValueError("log_probs have NaN")
    for number, name in enumerate(pattern_name(pattern) for pattern in p.patterns):
        found = summary(p.label, p.predicted[number], p.log_probs[number], p.attack)
        told = record.metrics.get(name, {})
        if any(
            metric not in told or not np.isclose(told[metric], value, 0, NEARLY, equal_nan=True)
            for metric, value in found.items()
        ):
            raise ValueError(f"its record's metrics under {name} are not those of these predictions")


def _keep(bundle: Bundle, store: Store, key: str) -> None:
    """Write a trial's files, the record last."""
    with store.lock(key):
        folder = store.folder(key)
        store.clear(key)
        for name in ("predictions.npz", "features.npz", "record.json"):
            if name in bundle.trials[key]:
                atomic_write(folder / name, bundle.read(f"runs/{key}/{name}"))


def _keep_experiment(bundle: Bundle, target: Path, conflict: Conflict) -> None:
    """Write the experiment's file, and what is known of its data sets beside it."""
    files = {target: bundle.read(EXPERIMENT), target.with_name(target.stem + KNOWN): bundle.manifest.to_bytes()}
    for path, data in files.items():
        if path.exists() and path.read_bytes() != data and conflict == "refuse" and path == target:
            raise DataError(
                f"{path}: another experiment of this name was imported; --replace puts the bundle's in its place"
            )
    if conflict == "keep" and target.exists() and target.read_bytes() != files[target]:
        return
    for path, data in files.items():
        atomic_write(path, data)


def known_of(file: Path) -> Mapping[str, DatasetFacts]:
    """What a bundle told of the data sets of an experiment, by label, if the experiment was imported; nothing otherwise.

    Raises:
        DataError: that cannot be read.
        UsageError: the code here does not know one of them: it was added without code, or is of a package.
    """
    path = file.with_name(file.stem + KNOWN)
    try:
        if not path.is_file() or path.stat().st_size > MOST_BYTES["record.json"]:
            return {}
        found = Manifest.from_bytes(path.read_bytes()).datasets
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); import the bundle anew") from error
    for name in sorted({facts.dataset for facts in found.values()} - set(DATASETS)):
        raise UsageError(
            f"{file}: was imported, and its data set {name} is not known here: if it was added without code, `mmbench data add` of its "
            f"folder makes it known (under this name); else the package does that it is of"
        )
    return found
