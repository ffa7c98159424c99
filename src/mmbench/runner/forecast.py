"""How long trials take, by those that have ended, and when all will have."""

from __future__ import annotations

import heapq
import json
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mmbench.trial import Trial

ROUNDS = 5
"""How often each effect is estimated anew, from what the others leave."""
RECENT = 10
"""For how fast the machine is now, a trial counts half as much as one that ended so many trials later."""


class Kind(NamedTuple):
    """What makes trials alike in how long they take."""

    epochs: int
    data: str
    cell: str
    method: str
    missing: str
    tuning: bool

    @classmethod
    def of(cls, trial: Trial) -> Kind:
        """The kind of a trial."""
        encoders = json.dumps([trial.encoders, trial.cached, trial.recipe.batch_size], sort_keys=True)
        cell = f"{trial.dataset} {trial.recipe.epochs} {encoders}"
        return cls(trial.recipe.epochs, trial.dataset, cell, trial.method, trial.training, trial.tuning)

    @property
    def effects(self) -> tuple[str, ...]:
        """What has an effect on the time of an epoch, in the order of ``SHRINK``."""
        return self.data, self.method, self.cell, self.missing, f"tuning {self.tuning}", self.pair

    @property
    def pair(self) -> str:
        """The method on the data with the encoders."""
        return f"{self.method} {self.cell}"


SHRINK = (0.05, 0.05, 0.5, 5.0, 5.0, 5.0)
"""How many trials without an effect each is averaged with: one trial says little of those that others explain as well."""


class Progress(NamedTuple):
    """How far a running trial is.

    Attributes:
        kind: of which kind it is.
        elapsed: for how many seconds it has run.
        epochs: how many of its epochs have ended.
        measured: for how many seconds it had run when the last of these ended.
    """

    kind: Kind
    elapsed: float
    epochs: int = 0
    measured: float = 0.0

    @property
    def own(self) -> float | None:
        """Seconds that the trial takes if its epochs go on as they did; None before the first has ended."""
        return self.measured * max(1.0, self.kind.epochs / self.epochs) if self.epochs else None


class Forecast:
    """Learns from trials that end how long others will take.

    The logarithm of the seconds that an epoch takes is a sum of effects: of the data, the method, the encoders, and so on. Each is what
    the trials that share it have in common beyond the other effects, so a method is foreseen on data on which it has not run yet. How
    fast the machine is now comes on top, as a factor: what the last trials took, compared with what their effects say.
    """

    def __init__(self) -> None:
        self._kinds: list[Kind] = []
        self._seconds: list[float] = []
        self._pairs: set[str] = set()
        self._effects: list[dict[str, float]] | None = None
        self._mean = self._pace = 0.0

    def learn(self, kind: Kind, seconds: float) -> None:
        """Take note of how long a trial took."""
        self._kinds.append(kind)
        self._seconds.append(max(seconds, 0.01))
        self._pairs.add(kind.pair)
        self._effects = None

    def expected(self, kind: Kind) -> float | None:
        """Seconds that a trial will take; None while nothing is known."""
        if not self._kinds:
            return None
        values = self._effects if self._effects is not None else self._fit()
        size = self._mean + sum(effect.get(name, 0.0) for effect, name in zip(values, kind.effects, strict=True))
        return self._pace * kind.epochs * math.exp(size)

    def total(self, progress: Progress) -> float | None:
        """Seconds that a running trial will have taken, at least those so far.

        By others, and the more epochs are done, by these; by these alone where its method has not ended on its data before.
        """
        expected = self.expected(progress.kind)
        if (own := progress.own) is not None:
            share = min(1.0, progress.epochs / progress.kind.epochs) if progress.kind.pair in self._pairs else 1.0
            expected = own if expected is None else (1 - share) * expected + share * own
        return None if expected is None else max(expected, progress.elapsed)

    def left(self, running: Sequence[Progress], waiting: Sequence[Kind], slots: int) -> float | None:
        """Seconds until all trials have ended, where each slot takes the next one when it is free; None while nothing is known."""
        totals = [self.total(progress) for progress in running]
        known = [total for total in totals if total is not None]
        if not known and not self._kinds:
            return None if running or waiting else 0.0
        usual = (
            sum(known) / len(known) if known else 0.0
        )  # of those of which nothing is known, before any trial has ended
        free = [0.0] * max(0 if running else 1, slots - len(running))
        for progress, total in zip(running, totals, strict=True):
            free.append(max(0.0, (usual if total is None else total) - progress.elapsed))
        heapq.heapify(free)
        first = {p.kind.pair: own for p in running if (own := p.own) is not None and p.kind.pair not in self._pairs}
        for kind in waiting:
            expected = first.get(kind.pair, self.expected(kind))
            heapq.heapreplace(free, free[0] + (usual if expected is None else expected))
        return max(free)

    def _fit(self) -> list[dict[str, float]]:
        """Estimate the effects: each in turn, from what the others leave of the logarithms."""
        seconds = np.array(self._seconds) / [kind.epochs for kind in self._kinds]
        rest = np.log(seconds)
        self._mean = float(rest.mean())
        rest -= self._mean
        names: list[dict[str, int]] = [{} for _ in SHRINK]
        index = np.array(
            [
                [numbers.setdefault(name, len(numbers)) for numbers, name in zip(names, kind.effects, strict=True)]
                for kind in self._kinds
            ]
        )
        values = [np.zeros(len(numbers)) for numbers in names]
        for _ in range(ROUNDS):
            for number, shrink in enumerate(SHRINK):
                rest += values[number][index[:, number]]
                values[number] = np.bincount(index[:, number], rest) / (np.bincount(index[:, number]) + shrink)
                rest -= values[number][index[:, number]]
        weight = 0.5 ** (np.arange(len(seconds))[::-1] / RECENT) * seconds / np.exp(rest)  # of what the effects say
        self._pace = float(weight @ np.exp(rest) / weight.sum())
        self._effects = [dict(zip(numbers, v.tolist(), strict=True)) for numbers, v in zip(names, values, strict=True)]
        return self._effects
