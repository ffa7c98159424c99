"""What a trial leaves: its predictions, and the record that vouches for them. Descriptions, without folders."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass, fields
from hashlib import sha256
from typing import Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict

from mmbench.missing import MOST_MODALITIES, Pattern, pattern_name, patterns
from mmbench.npz import array_of
from mmbench.protocol import SELECTION_METRIC
from mmbench.trial import Parts, Trial


class Arrays:
    """A dataclass of arrays, as a file."""

    def to_bytes(self) -> bytes:
        """The arrays as a compressed ``.npz``; equal arrays give equal bytes."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **{f.name: getattr(self, f.name) for f in fields(self)})  # type: ignore[arg-type]
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read what ``to_bytes`` wrote; nothing in it is ever executed."""
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return cls(**{f.name: array_of(archive.read(f"{f.name}.npy"), f.name) for f in fields(cls)})  # type: ignore[arg-type]


@dataclass
class Predictions(Arrays):
    """What a trial predicted for the N test samples under each of the P = 2^M − 1 presence patterns.

    Attributes:
        modalities: (M,) names; they give the patterns and their order (``missing.patterns``).
        label: (N,) int64 true classes.
        group: (N,) int64; samples of one group are resampled together in confidence intervals.
        present: (N, M) bool, the modalities that each sample has.
        predicted: (P, N) int16 classes, from the full-precision logits.
        log_probs: (P, N, C) float16.
        log_prior: (C,) float32, log class frequencies of the training split: the answer where a mask leaves nothing to see.
        attack: (N,) int16, where the task is to detect presentation attacks: 0 for bona fide, k for an attack of type k. Empty (0,)
            where it is not.
    """

    modalities: np.ndarray
    label: np.ndarray
    group: np.ndarray
    present: np.ndarray
    predicted: np.ndarray
    log_probs: np.ndarray
    log_prior: np.ndarray
    attack: np.ndarray

    @property
    def patterns(self) -> list[Pattern]:
        """The patterns, in the order of the first axis of ``predicted`` and ``log_probs``."""
        return patterns(self.modalities.tolist())

    @property
    def pattern_names(self) -> list[str]:
        """The patterns' names, in the same order."""
        return [pattern_name(p) for p in self.patterns]

    @property
    def given(self) -> np.ndarray:
        """(P,) bool: whether a pattern has predictions. A trial has them all; of what was made elsewhere, some may be NaN."""
        return ~np.isnan(self.log_probs[:, :, 0]).any(axis=1)

    def check(self) -> None:
        """Whether the arrays can be predictions: their shapes and types go together, classes are numbers of classes.

        Raises:
            ValueError: they are none; the message says which array.
        """
        if (
            self.modalities.ndim != 1
            or self.modalities.dtype.kind != "U"
            or not 0 < self.modalities.size <= MOST_MODALITIES
        ):
            raise ValueError(f"modalities are {self.modalities.dtype} of shape {self.modalities.shape}, expected names")
        count, samples = len(self.patterns), self.label.size
        classes = self.log_probs.shape[-1] if self.log_probs.ndim else 0
        expected = {
            "label": ((samples,), "i"),
            "group": ((samples,), "i"),
            "present": ((samples, len(self.modalities)), "b"),
            "predicted": ((count, samples), "i"),
            "log_probs": ((count, samples, classes), "f"),
            "log_prior": ((classes,), "f"),
        }
        for name, (shape, kind) in expected.items():
            array = getattr(self, name)
            if array.shape != shape or array.dtype.kind != kind:
                raise ValueError(f"{name} is {array.dtype} of shape {array.shape}, expected the shape {shape}")
        if self.attack.shape not in ((0,), (samples,)) or self.attack.dtype.kind != "i" or not samples or not classes:
            raise ValueError(f"attack is {self.attack.dtype} of shape {self.attack.shape}, of {samples} samples")
        for name, array in (("label", self.label), ("predicted", self.predicted[self.given])):
            if not ((array >= 0) & (array < classes)).all():
                raise ValueError(f"{name} is not from 0 to {classes - 1}")


@dataclass
class Features(Arrays):
    """Where the encoders' features of up to 500 test samples lie, as a plane can show it.

    Attributes:
        modalities: (M,) names.
        points: (M, n, 2) float32, the features, scaled to length 1, in the plane of their first two principal components; NaN where a
            sample lacks the modality.
    """

    modalities: np.ndarray
    points: np.ndarray


class Failure(BaseModel):
    """Why a trial failed."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["exception", "diverged", "out_of_memory", "killed", "time_limit"]
    message: str
    traceback: str = ""


class Resumed(BaseModel):
    """Where a trial went on from its checkpoint, after an end that was not its own.

    Attributes:
        epoch: the first one that came then, counted from 0.
        host: the machine's name.
        when: in UTC.
    """

    model_config = ConfigDict(extra="forbid")

    epoch: int
    host: str
    when: str


class Code(BaseModel):
    """What code a trial ran: a hash of mmbench's core, and module -> hash of its method, its data set and each of its encoders."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    core: str
    method: dict[str, str]
    data: dict[str, str]
    encoders: dict[str, dict[str, str]]

    def gives_the_same(self, other: Code | None) -> bool:
        """Whether a result of the other code holds for this one. The core may differ."""
        return other is not None and self.model_copy(update={"core": other.core}) == other


HEAD = b'{"checksum": "%s",\n'
"""The first line of a record's file; what follows it has this SHA-256."""


def sealed(text: bytes) -> bytes:
    """A JSON object, as pydantic writes it over several lines, with the checksum of its own text in the first line."""
    rest = text.removeprefix(b"{\n")
    return HEAD % sha256(rest).hexdigest().encode() + rest


def unsealed(data: bytes) -> bytes:
    """The JSON object that ``sealed`` was given.

    Raises:
        ValueError: it is not what was written.
    """
    first, _, rest = data.partition(b"\n")
    if first + b"\n" != HEAD % sha256(rest).hexdigest().encode():
        raise ValueError("its checksum is wrong: it is not what was written")
    return b"{" + rest


class Record(BaseModel):
    """``record.json``: a trial and what came of it. Only a record that says ``done`` is a result."""

    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="constants")

    key: str
    trial: Trial
    status: Literal["done", "failed"]
    started: str
    finished: str
    environment: dict[str, Any]
    code: Code | None = None
    seconds: dict[str, float] = {}
    memory_mb: float | None = None
    gpu_memory_mb: float | None = None  # the peak that it took of its GPU (``gpus.peak_memory``)
    gpu_allocated_mb: float | None = None  # what tensors needed of that
    parameters: int | None = None
    best_epoch: int | None = None
    stages: dict[str, int] = {}
    stopped_epoch: int | None = None  # after which patience ended training, counted from 0; None: it did not
    realised: dict[str, dict[str, float]] = {}
    metrics: dict[str, dict[str, float]] = {}
    curves: list[dict[str, float]] = []
    gap: dict[str, float] = {}  # "image+title" -> distance of the two modalities' mean features (``watch.Gap``)
    predictions_sha256: str | None = None
    features_sha256: str | None = None
    model_sha256: str | None = None  # of model.json, which vouches for the model's other files; None: none was kept
    failure: Failure | None = None
    resumed: list[Resumed] = []

    @property
    def parts(self) -> Parts:
        """The names of what its trial ran."""
        return self.trial.parts

    @property
    def epochs(self) -> int:
        """How many were trained."""
        return len(self.curves)

    @property
    def devices(self) -> int:
        """How many trained it together; 1 where its environment does not say, as of trials on one."""
        devices = self.environment.get("devices")
        return devices if isinstance(devices, int) and devices > 0 else 1

    @property
    def validation(self) -> list[float]:
        """What the epoch is chosen by, of each epoch after those of pretraining."""
        return [row[SELECTION_METRIC] for row in self.curves[self.stages.get("pretraining", 0) :]]

    def to_bytes(self) -> bytes:
        """The record as JSON, with the checksum of its own text in the first line."""
        later = ("model_sha256", "gpu_memory_mb", "gpu_allocated_mb", "resumed")
        without = {name for name in later if getattr(self, name) in (None, [])}
        return sealed(self.model_dump_json(indent=1, exclude=without).encode())

    @classmethod
    def from_bytes(cls, data: bytes) -> Record:
        """Read what ``to_bytes`` wrote. A record without a checksum was written before there was one, and is read without.

        Raises:
            ValueError: it is not what was written, or not a record.
        """
        if not data.startswith(HEAD.partition(b"%")[0]):
            return cls.model_validate_json(data)
        return cls.model_validate_json(unsealed(data))
