"""What the loop of a run is given beside trials: a view that it tells of them, and times. And a trial's turn, as it waits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from mmbench.durations import CHECKPOINT_EVERY
from mmbench.record import Record
from mmbench.trial import Trial


class View(Protocol):
    """What a runner tells about its progress."""

    def started(self, trial: Trial) -> None:
        """A process has begun on the trial."""

    def retried(self, trial: Trial, reason: str) -> None:
        """Its process was killed, and it will be started again."""

    def finished(self, trial: Trial, record: Record) -> None:
        """The trial is done or has failed."""

    def elsewhere(self, trial: Trial, record: Record | None) -> None:
        """Another runner is at the trial, or has run it: then there is a record."""

    def stops(self, reason: str) -> None:
        """No more trials are started, and those that run were asked to end."""

    def tick(self) -> None:
        """Time has passed; this comes about twice a second."""


@dataclass(frozen=True)
class Times:
    """How long things may take.

    Attributes:
        checkpoint_every: seconds between two checkpoints of a trial; 0: there are none.
        trial: seconds that a trial may take; None: as many as it needs.
        until: when the run stops, on the monotonic clock; None: when everything has run.
    """

    checkpoint_every: float = CHECKPOINT_EVERY
    trial: float | None = None
    until: float | None = None


@dataclass(frozen=True)
class Turn:
    """A trial that waits.

    Attributes:
        trial: which.
        attempt: which start of it that will be, of those since it has got on.
        alone: it is to run without neighbours.
        epochs: of its checkpoint, when it was last looked at.
        verdict: the record of its failure, if it was given up while a process still had its lock.
    """

    trial: Trial
    attempt: int = 1
    alone: bool = False
    epochs: int = 0
    verdict: Record | None = None
