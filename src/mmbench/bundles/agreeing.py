"""Trials of one split have to agree on what was tested: labels, groups, who has which modality, and the training split's classes."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

import numpy as np

from mmbench.errors import DataError
from mmbench.record import Predictions, Record
from mmbench.store import CorruptRecord, Store
from mmbench.trial import Trial

Fact = tuple[object, ...]
NEARLY = 1e-5
"""By which frequencies of classes may differ, for logarithms that another machine takes."""


def split_of(trial: Trial) -> Fact:
    """What trials share that test the same samples."""
    return trial.dataset, trial.data, trial.protocol, trial.fold


def told(trial: Trial, p: Predictions) -> dict[Fact, np.ndarray]:
    """What predictions say of their split, which other trials' have to equal: hashes, and the frequencies of classes."""
    split = split_of(trial)
    facts = {(*split, "labels"): digest(p.label.astype(np.int64)), (*split, "groups"): digest(p.group.astype(np.int64))}
    for column, modality in enumerate(p.modalities.tolist()):
        facts[*split, f"presence of {modality}"] = digest(p.present[:, column])
    facts[*split, trial.training, "class frequencies of training"] = np.exp(p.log_prior.astype(np.float64))
    return facts


def digest(array: np.ndarray) -> np.ndarray:
    """(32,) the SHA-256 of an array's numbers."""
    return np.frombuffer(sha256(np.ascontiguousarray(array).tobytes()).digest(), np.uint8)


class Agreement:
    """Compares what trials say, one after the other."""

    def __init__(self) -> None:
        self._first: dict[Fact, tuple[np.ndarray, str]] = {}
        self._splits: set[Fact] = set()

    def hold(self, trial: Trial, p: Predictions, where: str) -> None:
        """Hold a trial's predictions to those of the trials before.

        Args:
            trial: it.
            p: its predictions.
            where: what the trial is of, for the message.

        Raises:
            DataError: they are of other samples, or of the same with other labels; the message names both trials.
        """
        self._splits.add(split_of(trial))
        own = f"{trial.key} ({where})"
        for fact, found in told(trial, p).items():
            first, other = self._first.setdefault(fact, (found, own))
            if first.shape != found.shape or not np.allclose(first, found, rtol=0, atol=NEARLY):
                fold = "" if trial.fold is None else f", fold {trial.fold}"
                raise DataError(
                    f"{own} and {other} contradict each other: both are of {trial.dataset}, {trial.protocol}{fold}, of the same data, "
                    f"but their {fact[-1]} differ; one of them is wrong. Nothing was imported"
                )

    def hold_to(self, store: Store, keys: Iterable[str]) -> None:
        """Hold what was seen to a store's own trials of the same splits.

        Raises:
            DataError: one of them contradicts it.
        """
        for key in keys:
            try:
                record = store.record(key)
                if record is None or not is_tested(record) or split_of(record.trial) not in self._splits:
                    continue
                p = store.predictions(record)
                p.check()
            except (CorruptRecord, ValueError):  # what is damaged says nothing
                continue
            self.hold(record.trial, p, f"in {store.root}")


def is_tested(record: Record) -> bool:
    """Whether a record has predictions of a test split."""
    return record.status == "done" and record.predictions_sha256 is not None
