"""A trial goes on where it was: its state at the end of an epoch, in a file, from which a later process continues bit by bit.

On several devices all ranks read the file, and rank 0 alone writes and removes it. Whether they go on, begin anew, write or stop, they
decide together: a rank that did something else than the others would wait for them for ever.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import pytorch_lightning as pl
import torch
from pydantic import Field, TypeAdapter, ValidationError
from pytorch_lightning.loops.fit_loop import _FitLoop

from mmbench.curves import CurveLogger, rows_of
from mmbench.durations import CHECKPOINT_EVERY, in_words
from mmbench.errors import Stopped, StoreError
from mmbench.machine import host
from mmbench.packing import Damaged, NotPlain, read_head, read_state, write_state
from mmbench.ranks import is_first, of_all_ranks
from mmbench.record import Resumed
from mmbench.training_state import attributes, most_bytes, restore_training, set_generators, state_of_training

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class OutOfTime(RuntimeError):
    """The trial has used up the time that it may take; its state is kept."""


class Unusable(RuntimeError):
    """The state in a checkpoint does not fit the trial; the message says why."""


@contextmanager
def fitting() -> Iterator[None]:
    """Say of whatever error a state leads to, on any rank, that it does not fit, but for a lack of memory.

    Raises:
        Unusable: in the place of the error, on all ranks.
    """
    own, found = "", None
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:
        own, found = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}", error
    if reason := next(filter(None, of_all_ranks(own)), ""):
        raise Unusable(f"its state does not fit the trial: {reason}") from found


@dataclass
class Checkpoint:
    """The file of a trial's state, what it is of, and when it is written.

    Attributes:
        path: of the file.
        of: what it has to be of: the trial's key, the code, the versions of what it runs on, as plain values.
        every: seconds between two writings, which come at the end of an epoch; 0: it is never written.
        limit: seconds that the trial may take in all; None: as many as it needs.
        asked: whether the trial has been asked to end.
        training: whether it trains, so that it is to end with its epoch: from the first one on, if checkpoints are written.
        started: when this process began.
        first: when the first one did that had a part in the trial; empty: it is this one.
        seconds: stage -> what earlier processes have spent on it.
        resumed: how often it has gone on.
    """

    path: Path
    of: Mapping[str, Any]
    every: float = CHECKPOINT_EVERY
    limit: float | None = None
    asked: bool = False
    training: bool = False
    started: str = ""
    first: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    resumed: list[Resumed] = field(default_factory=list)

    @property
    def told(self) -> dict[str, Any]:
        """What the trial's record says of its processes."""
        return {"started": self.first or self.started, "resumed": self.resumed}

    def read(self, most: float) -> dict[str, Any] | None:
        """The state to go on from; None if there is none. One that cannot be used is told and removed.

        All ranks read at the same time, and all get a state or none does.

        Args:
            most: bytes that its tensors may have.

        Raises:
            StoreError: it cannot be read, for now at least, so that it is no reason to begin anew; on all ranks if any cannot.
        """
        state, epochs, damage, number = None, None, "", 0
        try:
            if (found := self._read(most)) is not None:
                state, epochs = found
        except OSError as error:
            number = error.errno or errno.EIO
        except (Damaged, KeyError, ValidationError) as error:
            damage = str(error) if isinstance(error, Damaged) else "its head is none of a checkpoint"
        ranks = of_all_ranks((epochs, damage, number))
        if number := next((number for *_, number in ranks if number), 0):
            raise StoreError(f"cannot read {self.path}: {os.strerror(number)}") from OSError(
                number, os.strerror(number)
            )
        if damage := ranks[0][1]:
            self.forget(damage)
            return None
        if any(rank != ranks[0] for rank in ranks):
            stale = OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            raise StoreError(f"cannot read {self.path}: not all processes of the trial see the same there") from stale
        return state

    def _read(self, most: float) -> tuple[dict[str, Any], int] | None:
        """The state in the file and how many epochs it is after; None if there is none.

        Raises:
            OSError: it cannot be read.
            Damaged, KeyError, ValidationError: it is none of this trial.
        """
        if (head := read_head(self.path)) is None:
            return None
        for name, own in self.of.items():
            if head.get(name) != own:
                raise Damaged(f"it has another {name} than this trial")
        state = TypeAdapter(dict[str, Any]).validate_python(read_state(self.path, most))
        self.first = TypeAdapter(str).validate_python(head["started"])
        self.seconds = TypeAdapter(dict[str, Seconds]).validate_python(head["seconds"])
        self.resumed = TypeAdapter(list[Resumed]).validate_python(head["resumed"])
        return state, TypeAdapter(int).validate_python(head["epochs"])

    def forget(self, reason: str) -> None:
        """Say that the file cannot be used, and remove it; the trial begins anew. All ranks are told at the same time."""
        print(f"{self.path} is not used: {reason}; the trial begins anew", flush=True)
        self.first, self.seconds, self.resumed = "", {}, []
        if is_first():
            self.remove()
        of_all_ranks(None)  # no rank looks for the file before it is gone

    def goes_on(self, epochs: int, planned: int | None) -> None:
        """Note that the trial goes on here and now, after so many epochs."""
        self.resumed.append(Resumed(epoch=epochs, host=host(), when=datetime.now(UTC).isoformat(timespec="seconds")))
        print(f"goes on from its checkpoint after {epochs} of {planned} epochs", flush=True)

    def remove(self) -> None:
        """Remove the file, if it is there, or what was put in its place."""
        if self.path.is_dir() and not self.path.is_symlink():
            shutil.rmtree(self.path)
        else:
            self.path.unlink(missing_ok=True)

    def write(self, epochs: int, seconds: Mapping[str, float], state: Mapping[str, Any], most: float) -> None:
        """Write the state after so many epochs; a method whose state cannot be written is told, and goes on without.

        Raises:
            StoreError: the disk is full or not writable.
        """
        head = {
            **self.of,
            "epochs": epochs,
            "started": self.told["started"],
            "seconds": dict(seconds),
            "resumed": [r.model_dump() for r in self.resumed],
        }
        try:
            write_state(self.path, head, state, most)
        except NotPlain as error:
            print(f"no checkpoint of this trial: its state has {error}; expected tensors and plain values", flush=True)
            self.every = 0.0


class ResumableFit(_FitLoop):
    """Lightning's loop over epochs, which goes on from a state, and leaves its own in a file from time to time.

    Args:
        trainer: whose loop over epochs it becomes.
        checkpoint: the file.
        curves: rows of metrics, which are part of the state.
        spent: stage -> seconds before training, of this process and of earlier ones.
        state: to go on from; None: from the beginning.
    """

    def __init__(
        self,
        trainer: pl.Trainer,
        checkpoint: Checkpoint,
        curves: CurveLogger,
        spent: Mapping[str, float],
        state: Mapping[str, Any] | None,
    ) -> None:
        super().__init__(trainer, max_epochs=trainer.max_epochs)
        self.epoch_loop = trainer.fit_loop.epoch_loop
        self.checkpoint, self.curves, self.spent, self._state = checkpoint, curves, spent, state
        self._generators: Mapping[str, Any] | None = None
        self._began = self._written = time.perf_counter()

    @property
    def epochs(self) -> int:
        """How many have been trained."""
        return self.epoch_progress.current.processed  # type: ignore[attr-defined]

    @property
    def seconds(self) -> dict[str, float]:
        """Stage -> seconds spent on it by now, in all processes."""
        return {**self.spent, "fit": self.checkpoint.seconds.get("fit", 0.0) + time.perf_counter() - self._began}

    def run(self) -> None:
        """Train from the state on.

        Raises:
            Unusable: it does not fit what is trained, which is half restored by now.
            Stopped, OutOfTime: before there is anything to do.
        """
        self.built = deepcopy(attributes(self.trainer.lightning_module))
        if self._state is not None:
            with fitting():
                restore_training(self.trainer, self._state)
                self.curves.rows[:] = rows_of(self._state["curves"])
                self._generators, self._state = self._state["generators"], None
            self.checkpoint.goes_on(self.epochs, self.max_epochs)
        self._end_if_asked(written=True)
        self.checkpoint.training = bool(self.checkpoint.every)
        super().run()

    def on_run_start(self) -> None:
        """Bring random generators to where they were, after all that is done when training starts."""
        super().on_run_start()
        if self._generators is not None:
            with fitting():
                set_generators(self.trainer, self._generators)
            self._generators = None

    def on_advance_end(self) -> None:
        """End the epoch; write the state, if it is time, and stop, if that was asked for."""
        super().on_advance_end()
        now = time.perf_counter()
        every = self.checkpoint.every
        due = self.trainer.strategy.broadcast(bool(every) and now - self._written >= every)
        if due:
            self.save()
        self._end_if_asked(written=due)

    @property
    def _epochs_left(self) -> bool:
        assert self.max_epochs is not None
        return self.epochs < self.max_epochs and not self.trainer.should_stop

    def _end_if_asked(self, written: bool) -> None:
        """Stop if that was asked for, or if there is no more time and the trial would need some.

        Raises:
            Stopped, OutOfTime: with the state written.
        """
        limit, epochs = self.checkpoint.limit, self.epochs
        begun = epochs > 0  # so that a trial gets on, whatever the limit
        late = begun and limit is not None and sum(self.seconds.values()) >= limit and self._epochs_left
        writes = not written and bool(self.checkpoint.every)
        asked, late, writes = self.trainer.strategy.broadcast((self.checkpoint.asked, late, writes))
        if not (asked or late):
            return
        if writes:
            self.save()
        if asked:
            print(f"stopped after {epochs} of {self.max_epochs} epochs, as it was asked to", flush=True)
            raise Stopped
        assert limit is not None
        kept = "a larger limit goes on from there" if self.checkpoint.path.exists() else "there is no checkpoint"
        raise OutOfTime(
            f"the time limit of {in_words(limit)} has passed after {epochs} of {self.max_epochs} epochs; {kept}"
        )

    def save(self) -> None:
        """Write the state, which all ranks take together."""
        state = state_of_training(self.trainer, self.curves.rows, self.built)
        if self.trainer.is_global_zero:
            self.checkpoint.write(self.epochs, self.seconds, state, most_bytes(self.trainer.lightning_module))
        self._written = time.perf_counter()
