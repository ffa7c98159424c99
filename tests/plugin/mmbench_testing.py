"""A tiny data set, and methods that go wrong in every way that a runner has to survive.

Environment variables steer them, so that the same trial can behave differently when it is run again:

    MMBENCH_TESTING_MARKER      tiny_killed_once kills its process unless this file exists, and creates it
    MMBENCH_TESTING_SLEEP       seconds that tiny_sleeps sleeps in every step (default: 60)
                                beside it, in a file whose name ends with "-errno", is what the system answers tiny_unwritable when it
                                writes: ENOSPC, …; or "limit", for files of at most 100 bytes
    MMBENCH_TESTING_BREAK_MLA   if set, MLA's fusion forgets which modalities are present
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mmbench.baselines.concat import Concat
from mmbench.batch import Batch
from mmbench.data.base import MultimodalDataModule
from mmbench.data.split import DataSpec, Loaded, Mapped, Split
from mmbench.recipe import Recipe


class Tiny(MultimodalDataModule):
    """Three classes seen by two vectors: ``left`` tells them well, ``right`` badly; some samples have no ``right``."""

    name = "tiny"
    modalities = ("left", "right")
    classes = ("a", "b", "c")
    conditioning = "left"
    encoders = {"left": "tiny_linear", "right": "tiny_linear"}

    @classmethod
    def manifest(cls) -> str:
        return os.environ.get("MMBENCH_TESTING_MANIFEST", "tiny-1")

    @staticmethod
    def whole() -> Split:
        """All 120 samples, in twelve groups."""
        rng = np.random.default_rng(7)
        label = np.arange(120) % 3
        group = np.arange(120) // 10
        truth = np.eye(4, dtype=np.float32)[label]
        return Split(
            inputs={
                "left": torch.from_numpy(2 * truth + rng.normal(0, 0.7, (120, 4)).astype(np.float32)),
                "right": torch.from_numpy(truth + rng.normal(0, 1.2, (120, 4)).astype(np.float32)),
            },
            present=torch.from_numpy(np.stack([np.ones(120, bool), np.arange(120) % 10 > 0], axis=1)),
            label=torch.from_numpy(label),
            group=torch.from_numpy(group),
        )

    def load(self) -> Loaded:
        whole = self.whole()
        group = whole.group.numpy()
        if self.protocol.split == "clean":
            cuts = np.flatnonzero(group < 6), np.flatnonzero((group == 6) | (group == 7)), np.flatnonzero(group >= 8)
            return Loaded(*(whole.rows(rows) for rows in cuts))
        order = np.random.default_rng(8).permutation(120)
        return Loaded(whole.rows(order[:60]), None, whole.rows(order[80:]))


class Spoof(Tiny):
    """The same vectors as presentation attacks: class a is bona fide, b and c are two types of attack."""

    name = "spoof"
    classes = ("live", "attack")

    def load(self) -> Loaded:
        parts = super().load()

        def detect(split: Split) -> Split:
            return replace(split, label=(split.label > 0).long(), attack=split.label)

        return Loaded(detect(parts.train), parts.validation and detect(parts.validation), detect(parts.test))


class Folded(Tiny):
    """The same data in three folds of four groups."""

    name = "folded"
    folds = 3
    folded_by = "group"

    def load(self) -> Loaded:
        if self.fold is None:
            return super().load()
        whole = self.whole()
        part = (whole.group.numpy() if self.protocol.split == "clean" else np.arange(120)) % 3
        test, validation, train = (np.flatnonzero(part == (self.fold + shift) % 3) for shift in range(3))
        return Loaded(
            whole.rows(train), whole.rows(validation) if self.protocol.split == "clean" else None, whole.rows(test)
        )


class Untouchable(Mapped):
    """Rows on disk that nobody may read."""

    def __getitem__(self, index: Tensor) -> Tensor:
        raise AssertionError("the test split was touched")


class Trapped(Tiny):
    """The same data as rows on disk, of which those of the test split are not to be read."""

    name = "trapped"

    def load(self) -> Loaded:
        parts = super().load()

        def on_disk(split: Split, kind: type[Mapped]) -> Split:
            return replace(split, inputs={m: kind(v.numpy(), np.arange(len(v))) for m, v in split.inputs.items()})

        return Loaded(
            on_disk(parts.train, Mapped),
            parts.validation and on_disk(parts.validation, Mapped),
            on_disk(parts.test, Untouchable),
        )


class TinyLinear(nn.Module):
    """One linear layer."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.layer = nn.Linear(4, width)
        self.out_dim = width

    def forward(self, vector: Tensor) -> Tensor:
        return self.layer(vector)


class Good(Concat):
    """A method that works, and tells the log how many threads it has."""

    def on_fit_start(self) -> None:
        print(f"torch uses {torch.get_num_threads()} threads", flush=True)


class Raises(Concat):
    """A method with a bug."""

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        raise ValueError("broken on purpose:\n<b>two lines</b>")


class NotANumber(Concat):
    """A method that diverges in its second epoch."""

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        return loss * float("nan") if self.current_epoch else loss


class Touchy(Concat):
    """A method that diverges at learning rates above 1, and from 0.2 on where it is not tuned."""

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        tunes = self.trainer.datamodule.tuning  # type: ignore[attr-defined]
        loss = super().training_step(batch, batch_idx)
        return loss * float("nan") if self.recipe.lr > (1 if tunes else 0.2) else loss


class OneRank(Concat):
    """A method that has a bug on the second of several devices alone, in the second epoch."""

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        if self.global_rank and self.current_epoch:
            raise ValueError("broken on one device")
        return super().training_step(batch, batch_idx)


class OneRankKilled(Concat):
    """A method whose second process the system kills the first time."""

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        marker = Path(os.environ["MMBENCH_TESTING_MARKER"] + "-rank")
        if self.global_rank and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().training_step(batch, batch_idx)


class Hungry(Concat):
    """A method that asks for an exbibyte."""

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        torch.empty(2**60, dtype=torch.uint8)
        raise AssertionError("this machine has an exbibyte of memory")


class Killed(Concat):
    """A method whose process the system always kills."""

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        print("about to be killed", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("survived SIGKILL")


class KilledOnce(Concat):
    """A method whose process the system kills the first time."""

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        marker = Path(os.environ["MMBENCH_TESTING_MARKER"])
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().training_step(batch, batch_idx)


class NeedsLightning(Concat):
    """A method that asks for something of Lightning's when it is built."""

    def __init__(self, spec: DataSpec, encoders: Mapping[str, nn.Module], recipe: Recipe | None = None) -> None:
        super().__init__(spec, encoders, recipe)
        self.example_input_array = self.automatic_optimization and self.hparams and None


class Sleeps(Concat):
    """A method that takes as long as the environment says."""

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        print("asleep", flush=True)
        time.sleep(float(os.environ.get("MMBENCH_TESTING_SLEEP", "60")))
        return super().training_step(batch, batch_idx)


class Noted(Sleeps):
    """A method that adds its seed to a list, beside the marker, when its training has ended."""

    def on_fit_end(self) -> None:
        with open(os.environ["MMBENCH_TESTING_MARKER"] + "-noted", "a") as file:
            file.write(f"{torch.initial_seed()}\n")


class Unwritable(Concat):
    """A method that makes files impossible to write, from its first step on."""

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        name = Path(os.environ["MMBENCH_TESTING_MARKER"] + "-errno").read_text()
        if name == "limit":
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
            return super().training_step(batch, batch_idx)
        number = getattr(errno, name)

        def refuse(*_: object) -> None:
            raise OSError(number, os.strerror(number))

        os.fsync = os.replace = refuse  # type: ignore[assignment]
        if number == errno.ENOSPC:
            refuse()
        return super().training_step(batch, batch_idx)


class BreaksItsServer(Concat):
    """A method that kills the process that it was forked from, the first time, and goes on."""

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        marker = Path(os.environ["MMBENCH_TESTING_MARKER"] + "-server")
        if not marker.exists():
            marker.touch()
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(1)
        return super().training_step(batch, batch_idx)


if "MMBENCH_TESTING_BREAK_MLA" in os.environ:
    from mmbench.baselines.mla import Mla

    _fuse = Mla.fuse
    Mla.fuse = lambda self, features, present: _fuse(self, features, torch.ones_like(present))  # type: ignore[method-assign]
