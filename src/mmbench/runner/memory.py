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

    Alike are those of one data set, method, encoders and batch size, in one precision. On a GPU it matters besides how many share out
    the batch. On the host each process has the imports and the data, so that what one takes is told whatever their number.
    """

    def __init__(self) -> None:
        self._host: dict[str, float] = {}  # of a process
        self._gpu: dict[tuple[str, int], float] = {}  # of each GPU, by how many there are

    def learn(self, record: Record) -> None:
        """Take in what a trial took that is done; of those of a kind, the most counts."""
        self.learn_of(record.trial, record)

    def learn_of(self, trial: Trial, found: Record | Summary) -> None:
        """The same, of a trial and what came of it."""
        if found.status != "done":
            return
        kind, devices = kind_of(trial), found.devices
        if found.memory_mb:  # of all its processes together
            self._host[kind] = max(found.memory_mb / devices, self._host.get(kind, 0.0))
        if found.gpu_memory_mb:
            self._gpu[kind, devices] = max(found.gpu_memory_mb, self._gpu.get((kind, devices), 0.0))

    def of_host(self, trial: Trial) -> float | None:
        """The MB of the machine's memory to set aside for each process of a trial; None before one of its kind is done."""
        measured = self._host.get(kind_of(trial))
        return None if measured is None else MARGIN * measured

    def of_gpu(self, trial: Trial, devices: int = 1) -> float | None:
        """Likewise of each GPU's, where a trial has so many."""
        measured = self._gpu.get((kind_of(trial), devices))
        return None if measured is None else MARGIN * measured + CONTEXT_MB


def kind_of(trial: Trial) -> str:
    """What trials have in common that take the same memory."""
    recipe = trial.recipe
    return json.dumps(
        [trial.dataset, trial.method, trial.encoders, trial.cached, trial.views, recipe.batch_size, recipe.precision],
        sort_keys=True,
    )
