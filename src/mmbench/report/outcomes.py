"""What trials got right, by pattern: all that accuracies by missing rate need of their predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mmbench.evidence.accuracy import distinct_runs
from mmbench.evidence.rates import hits_of
from mmbench.missing import Missing, training_name
from mmbench.protocol import SELECTION_METRIC
from mmbench.record import Predictions, Record


@dataclass
class Outcomes:
    """What one method's trials, one a seed and fold, got right on the test split.

    Attributes:
        missing: what training lacked; None: nothing.
        seeds: of the trials.
        modalities: (M,) names.
        packed: the bits of ``hits``: those of all rows are kept at once.
        present: (N, M) bool, what the samples have by nature.
        group: (N,) group numbers from 0 on.
        data: the data set's own name; it decides the masks, with ``parts``.
        parts: name of the test split -> its size; of folds, each one's, in their order.
        unimodal: (S, M) accuracy of each modality alone where the epoch was chosen; NaN where the record does not have it.
        comparable: in the setting in which the papers' numbers were measured.
    """

    dataset: str
    protocol: str
    missing: Missing | None
    method: str
    seeds: list[int]
    modalities: list[str]
    packed: np.ndarray
    present: np.ndarray
    group: np.ndarray
    unimodal: np.ndarray
    data: str
    parts: Mapping[str, int]
    comparable: bool = True

    @classmethod
    def of(
        cls,
        dataset: str,
        protocol: str,
        missing: Missing | None,
        method: str,
        records: Sequence[Sequence[Record]],
        predictions: Sequence[Predictions],
        data: str,
        parts: Mapping[str, int],
    ) -> Outcomes:
        """From the records, by seed and fold, and the predictions, one a seed, of what is done."""
        if not predictions:
            empty = np.zeros(0)
            return cls(
                dataset, protocol, missing, method, [], [], np.zeros((0, 1, 0), np.uint8), empty, empty, empty, data, {}
            )
        first = predictions[0]
        names = first.modalities.tolist()
        runs = distinct_runs(predictions)
        alone = [np.mean([_alone_when_chosen(record, names) for record in records[i]], axis=0) for i in runs]
        return cls(
            dataset, protocol, missing, method,
            seeds=[folds[0].trial.seed for folds in records],
            modalities=names,
            packed=np.packbits(np.stack([hits_of(predictions[i]) for i in runs]), axis=-1),
            present=first.present,
            group=np.unique(first.group, return_inverse=True)[1],
            unimodal=np.array(alone),
            data=data,
            parts=parts,
        )  # fmt: skip

    @property
    def hits(self) -> np.ndarray:
        """(S, P + 1, N) bool of the S runs, by pattern; the last row is the answer to a sample that shows nothing.

        Seeds with identical predictions are one run.
        """
        return np.unpackbits(self.packed, axis=-1, count=len(self.group)).view(bool)

    @property
    def training(self) -> str:
        """What training lacked, in words."""
        return training_name(self.missing)

    @property
    def matched(self) -> Missing | None:
        """The mask that training and test share, if the test split is to lack modalities in the same way (the papers' protocol)."""
        return None if self.missing is None or self.missing.train_only else self.missing

    @property
    def best_alone(self) -> int | None:
        """The modality that is the best alone where epochs are chosen, by its mean over seeds; None where records do not say."""
        means = self.unimodal.mean(axis=0)
        return None if np.isnan(means).any() else int(means.argmax())


def _alone_when_chosen(record: Record, modalities: Sequence[str]) -> list[float]:
    """Accuracy of each modality alone in the epoch that was chosen; NaN where the record does not have it."""
    chosen = record.curves[record.best_epoch] if record.curves and record.best_epoch is not None else {}
    return [chosen.get(f"{SELECTION_METRIC}/{name}", np.nan) for name in modalities]
