"""``mmbench export``: the results of an experiment as one file."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import yaml

from mmbench.bundles.layout import EXPERIMENT, MANIFEST, MOST, NAME, DatasetFacts, Entry, Manifest, write_entry
from mmbench.bundles.scrubbing import check_settings, scrub, scrubbed
from mmbench.data import DATASETS
from mmbench.data.found import EMBEDDED, folder_of
from mmbench.data.preparing.splitting import split_hash
from mmbench.elsewhere.entries import Elsewhere
from mmbench.errors import DataError, StoreError, UsageError
from mmbench.experiment.plan import Experiment
from mmbench.machine import host
from mmbench.provenance import source_state
from mmbench.record import Record
from mmbench.store import CorruptRecord, Store
from mmbench.trial import Trial
from mmbench.tuning import choose, distinct, is_outcome, tuning_trials


def export(experiment: Experiment, store: Store, target: Path) -> Manifest:
    """Write the bundle of an experiment: its trials that are done, and those of tuning that diverged, which a choice rests on.

    The same results give the same bytes, on any machine.

    Raises:
        DataError: nothing is done, a result is damaged, or the settings of a trial name a folder of this machine.
        UsageError: the experiment's name is none that a file can have on every machine.
        StoreError: the file cannot be written.
    """
    if not NAME.fullmatch(experiment.name):
        raise UsageError(
            f"experiment '{experiment.name}': expected a name of letters, digits, '_', '-', '.' and '+'; rename its file"
        )
    finals = [trial for search in experiment.searches for trial in choose(search, store).finals]
    planned = distinct([*experiment.trials, *tuning_trials(experiment.searches), *finals])
    records = [record for trial in planned if (record := _outcome(store, trial)) is not None]
    if not any(record.status == "done" for record in records):
        raise DataError(f"nothing of {experiment.name} is done in {store.root}, so there is nothing to export")
    check_settings([record.trial for record in records])
    content = yaml.safe_dump(experiment.content, sort_keys=False, allow_unicode=True)
    texts = {EXPERIMENT: content.encode()}
    texts |= {f"runs/{record.key}/record.json": scrub(record).to_bytes() for record in records}
    entries = {name: Entry(size=len(data), sha256=sha256(data).hexdigest()) for name, data in texts.items()}
    arrays = dict(sorted(_arrays(store, records).items()))
    for name, (path, digest) in arrays.items():
        entries[name] = Entry(size=path.stat().st_size, sha256=digest)
        if entries[name].size > MOST[path.name]:
            raise DataError(
                f"{path}: {entries[name].size:,} bytes are more than a bundle's entry may have ({MOST[path.name]:,})"
            )
    manifest = Manifest(
        experiment=experiment.name,
        mmbench=scrubbed(source_state()),
        datasets=facts_of(experiment),
        done=sum(record.status == "done" for record in records),
        planned=len(planned),
        entries=dict(sorted(entries.items())),
    )
    _write(target, manifest, texts, {name: path for name, (path, _) in arrays.items()})
    return manifest


def _outcome(store: Store, trial: Trial) -> Record | None:
    """The record of a trial that is done, or that diverged while it tuned or was to be chosen; None of any other."""
    try:
        record = store.record(trial.key)
        if record is not None and record.status == "done":
            return store.done(trial.key)
        return record if is_outcome(record) else None
    except CorruptRecord as error:
        raise DataError(f"{trial.label}: {error}; run it again, then export") from error


def _arrays(store: Store, records: Sequence[Record]) -> dict[str, tuple[Path, str]]:
    """Entries of predictions and features -> their files, and the hashes that the records have of them."""
    found = {}
    for record in records:
        for name, digest in (("predictions.npz", record.predictions_sha256), ("features.npz", record.features_sha256)):
            if digest is not None:
                found[f"runs/{record.key}/{name}"] = store.folder(record.key) / name, digest
    return found


def left_elsewhere(experiment: Experiment, store: Store) -> int:
    """How many rows of an experiment's reports were made elsewhere; a bundle has none of them."""
    entries, _ = Elsewhere.beside(store).entries()
    cells = {(trial.dataset, trial.protocol) for trial in experiment.trials}
    return len({(e.dataset, e.protocol, e.label) for e in entries if (e.dataset, e.protocol) in cells})


def added_of(experiment: Experiment) -> list[str]:
    """The data sets of an experiment that were added without code, and do not come with the package."""
    folders = {trial.dataset: folder_of(trial.dataset) for trial in experiment.trials}
    return [name for name, folder in folders.items() if folder is not None and folder.parent != EMBEDDED]


def facts_of(experiment: Experiment) -> dict[str, DatasetFacts]:
    """What the report of an experiment needs to know of its data sets where they are not there."""
    found = {}
    for label in dict.fromkeys(experiment.labels_of(trial).dataset for trial in experiment.trials):
        trials = [trial for trial in experiment.trials if experiment.labels_of(trial).dataset == label]
        protocols, folds = (list(dict.fromkeys(getattr(t, name) for t in trials)) for name in ("protocol", "fold"))
        splits = {}
        for protocol in protocols:
            for fold in folds:
                with suppress(UsageError):  # a class of another package may not tell its ids
                    ids = DATASETS[trials[0].dataset].split_ids(protocol, fold)
                    splits[protocol if fold is None else f"{protocol} fold {fold}"] = split_hash(ids)
        found[label] = DatasetFacts(
            dataset=trials[0].dataset,
            data=trials[0].data,
            weights=trials[0].weights,
            protocols=protocols,
            folds=folds,
            splits=splits,
        )
    return found


def _write(target: Path, manifest: Manifest, texts: dict[str, bytes], arrays: dict[str, Path]) -> None:
    """Write the file, whole or not at all."""
    temporary = target.with_name(f".{target.name}.{host()}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(temporary, "w") as archive:
            write_entry(archive, MANIFEST, manifest.to_bytes())
            for name, entry in manifest.entries.items():
                data = texts[name] if name in texts else arrays[name].read_bytes()
                if sha256(data).hexdigest() != entry.sha256:
                    raise DataError(f"{arrays[name]}: has changed while it was exported; export again")
                write_entry(archive, name, data)
        os.replace(temporary, target)
    except OSError as error:
        raise StoreError(f"cannot write {target}: {error.strerror}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
