"""What trials take of memory, by those that have ended."""

from __future__ import annotations

import json

from mmbench.index import Summary
from mmbench.record import Record
from mmbench.trial import Trial

MARGIN = 1.1
"""How much more than what was measured is set aside: other seeds, and other folds, take a little more or less."""
CONTEXT_MB = 600.0
"""What a process takes of a GPU beside its tensors: CUDA's own context."""


class Memory:
    """Learns from records what trials of a kind take at their peak.

    Alike are those of one data set, method, encoders and batch size, in one precision.
    """

    def __init__(self) -> None:
        self._host: dict[str, float] = {}
        self._gpu: dict[str, float] = {}

    def learn(self, record: Record) -> None:
        """Take in what a trial took that is done; of those of a kind, the most counts."""
        self.learn_of(record.trial, record)

    def learn_of(self, trial: Trial, found: Record | Summary) -> None:
        """The same, of a trial and what came of it."""
        if found.status != "done":
            return
        for known, measured in ((self._host, found.memory_mb), (self._gpu, found.gpu_memory_mb)):
            if measured:
                kind = kind_of(trial)
                known[kind] = max(measured, known.get(kind, 0.0))

    def of_host(self, trial: Trial) -> float | None:
        """The MB of the machine's memory to set aside for a trial; None before one of its kind is done."""
        measured = self._host.get(kind_of(trial))
        return None if measured is None else MARGIN * measured

    def of_gpu(self, trial: Trial) -> float | None:
        """Likewise of a GPU's."""
        measured = self._gpu.get(kind_of(trial))
        return None if measured is None else MARGIN * measured + CONTEXT_MB


def kind_of(trial: Trial) -> str:
    """What trials have in common that take the same memory."""
    recipe = trial.recipe
    return json.dumps(
        [trial.dataset, trial.method, trial.encoders, trial.cached, trial.views, recipe.batch_size, recipe.precision],
        sort_keys=True,
    )
