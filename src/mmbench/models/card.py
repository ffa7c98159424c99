"""``model.json``: everything that building a trained model again takes, but for its numbers. And reading what may be tampered with."""

from __future__ import annotations

import json
import os
import stat
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mmbench.arguments import describe
from mmbench.data.split import DataSpec
from mmbench.errors import UsageError
from mmbench.files import over_long
from mmbench.missing import MOST_MODALITIES
from mmbench.record import sealed, unsealed
from mmbench.store import MOST_BYTES
from mmbench.trial import Trial

CARD, WEIGHTS, ENCODERS = "model.json", "model.safetensors", "encoders"
FORMAT = 1
"""Raised when the layout of a model's folder changes."""
MOST_NUMBERS = 2**28
"""Numbers in one modality of one sample: a minute of sound has a million, a clip of 60 frames of 512 × 512 has 47 million."""

WIDEST = 2**20
"""Tokens of a text."""

Size = Annotated[int, Field(ge=0, le=MOST_NUMBERS)]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Array(BaseModel):
    """What one sample of a modality is, as the data set gives it, before evaluation resizes it."""

    model_config = ConfigDict(extra="forbid")

    shape: Annotated[list[Size], Field(max_length=8)]
    dtype: Literal["uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64", "bool"]

    @model_validator(mode="after")
    def _holds(self) -> Array:
        numbers = 1
        for side in self.shape:
            numbers *= side
        if numbers > MOST_NUMBERS:
            raise ValueError(f"more than {MOST_NUMBERS:,} numbers in a sample")
        return self


class File(BaseModel):
    """What a file beside ``model.json`` has to be."""

    model_config = ConfigDict(extra="forbid")

    bytes: Annotated[int, Field(ge=0, le=2**40)]
    sha256: Digest


class Card(BaseModel):
    """``model.json``.

    Attributes:
        format: ``FORMAT``.
        key: of the trial.
        trial: method, encoders, recipe and data set, with all their arguments; also the hash of the data.
        spec: what the method was built for, with the training samples of each class, which are its prior.
        classes: their names, by number.
        texts: the modalities that are texts.
        inputs: modality -> what a sample is; of texts, the tensors by their names, as wide as the data set's longest text made them.
        sizes: modality -> the side to which evaluation resizes its pictures.
        standardised: modalities of which a mean is taken and by whose deviation is divided; the numbers are among the weights.
        cached: modalities whose frozen encoder ran before training, with the width of its features.
        declaration: of a data set that was added without code.
        data_version: of the code that prepares a data set that has code.
        extra: what the method puts into a checkpoint beside tensors.
        parameters: trainable ones.
        best_epoch: the epoch that was kept, counted from 0.
        accuracy: on the test split, in percent, by presence pattern.
        environment: versions, machine and threads of the training.
        files: name -> what is beside this file: the weights, and files of encoders.
    """

    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="constants")

    format: Literal[1]
    key: str
    trial: Trial
    spec: DataSpec
    classes: Annotated[list[str], Field(min_length=1)]
    texts: list[str]
    inputs: dict[str, Array | dict[str, Array]]
    sizes: dict[str, Annotated[int, Field(ge=1, le=2048)]] = {}
    standardised: list[str] = []
    cached: dict[str, Size] = {}
    declaration: dict[str, Any] | None = None
    data_version: int | None = None
    extra: Any = None
    parameters: int
    best_epoch: int
    accuracy: dict[str, float]
    environment: dict[str, Any]
    files: dict[str, File]

    @property
    def modalities(self) -> tuple[str, ...]:
        """Their names, in the order of the method's."""
        return self.spec.modalities

    @property
    def threads(self) -> int:
        """CPU threads of the training, with which predictions are the same to the last bit."""
        given = self.environment.get("threads")
        return given if isinstance(given, int) and 1 <= given <= 1024 else 1

    @model_validator(mode="after")
    def _agrees(self) -> Card:
        modalities, counts = self.spec.modalities, self.spec.class_counts
        if not 2 <= len(set(modalities)) == len(modalities) <= MOST_MODALITIES:
            raise ValueError(
                f"spec.modalities: expected 2 to {MOST_MODALITIES} different names, got {list(modalities)}"
            )
        for name, given in (("trial.encoders", self.trial.encoders), ("inputs", self.inputs)):
            if set(given) != set(modalities):
                raise ValueError(f"{name}: expected the modalities {', '.join(modalities)}, got {', '.join(given)}")
        for name, some in (
            ("texts", self.texts), ("sizes", self.sizes), ("standardised", self.standardised), ("cached", self.cached),
            ("spec.conditioning", [self.spec.conditioning]), ("spec.feature_dims", self.spec.feature_dims),
        ):  # fmt: skip
            if other := set(some) - set(modalities):
                raise ValueError(
                    f"{name}: {', '.join(sorted(other))} is none of the modalities {', '.join(modalities)}"
                )
        for modality in self.texts:
            tensors = self.inputs[modality]
            if not isinstance(tensors, dict) or any(
                len(a.shape) > 1 or max(a.shape, default=0) > WIDEST for a in tensors.values()
            ):
                raise ValueError(f"inputs.{modality}: expected the tensors of a text, at most {WIDEST:,} numbers each")
        for modality in self.sizes:
            picture = self.inputs[modality]
            if isinstance(picture, dict) or picture.dtype != "uint8" or len(picture.shape) < 3:
                raise ValueError(f"sizes.{modality}: expected a modality of pictures")
        if len(counts) != len(self.classes) or len(set(self.classes)) != len(self.classes):
            raise ValueError(f"expected a name of its own for each of {len(counts)} classes, got {len(self.classes)}")
        if min(counts) < 0 or not 0 < sum(counts) <= 10**9:
            raise ValueError("spec.class_counts: expected the training samples of each class, a billion at most")
        if not all(1 <= width <= MOST_NUMBERS for width in self.spec.feature_dims.values()):
            raise ValueError("spec.feature_dims: expected widths of feature vectors")
        for name in self.files:
            parts = name.split("/")
            if (
                (
                    name != WEIGHTS
                    and (parts[0] != ENCODERS or len(parts) < 3 or {"", ".", ".."} & set(parts) or "\\" in name)
                )
                or not name.isprintable()
                or over_long(name)
            ):
                raise ValueError(f"files: {name[:200]!r} is no file of a model")
        if WEIGHTS not in self.files:
            raise ValueError(f"files: {WEIGHTS} is missing")
        return self

    def to_bytes(self) -> bytes:
        """The card as JSON, with the checksum of its own text in the first line."""
        return sealed(self.model_dump_json(indent=1).encode())


def read_card(folder: Path) -> Card:
    """Read the ``model.json`` of a model's folder.

    Raises:
        UsageError: it is missing, damaged, changed, or says what no model is.
    """
    path = folder / CARD
    if not os.path.lexists(path):
        raise UsageError(
            f"{folder}: no {CARD}; expected the folder of a model that `mmbench run … --keep-models` keeps"
        )
    data = check_file(folder, CARD, MOST_BYTES[CARD]).read_bytes()
    try:
        content = unsealed(data)
        stated = json.loads(content).get("format")
    except (ValueError, AttributeError, RecursionError) as error:
        raise UsageError(f"{path}: {error}; keep the model again") from error
    if stated != FORMAT:
        raise UsageError(
            f"{path}: expected format {FORMAT}, got {str(stated)[:40]}: it was written by another version of mmbench"
        )
    try:
        card = Card.model_validate_json(content)
    except ValidationError as error:
        mistakes = describe(error, lambda _: Card.model_fields)
        raise UsageError(f"{path}: {'; '.join(mistakes[:5])}") from error
    if card.key != card.trial.key:
        raise UsageError(f"{path}: its settings are those of trial {card.trial.key}, and not of {card.key}")
    return card


def check_files(folder: Path, card: Card, hashes: bool = True) -> None:
    """Hold the files beside ``model.json`` to what it says of them.

    Args:
        folder: of the model.
        card: its card.
        hashes: look at their content, and not at their sizes alone.

    Raises:
        UsageError: one is missing, a link that leads out of the folder, or another than was written.
    """
    for name, stated in card.files.items():
        path = check_file(folder, name, stated.bytes)
        if (size := path.stat().st_size) != stated.bytes:
            raise UsageError(
                f"{path}: expected {stated.bytes:,} bytes, got {size:,}; it has changed since the model was kept"
            )
        if hashes and digest_of(path) != stated.sha256:
            raise UsageError(f"{path}: not the file that the model was kept with; copy the whole folder again")


def check_file(folder: Path, name: str, most: int) -> Path:
    """The file of this name in a model's folder.

    Raises:
        UsageError: it is missing, no file, a link that leads out of the folder, or larger than ``most`` bytes.
    """
    path = folder / name
    try:
        found = path.stat()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}; copy the whole folder of the model") from error
    if not Path(real := os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
        raise UsageError(f"{path} is a link to {real}; expected the file itself, or a link that stays in {folder}")
    if not stat.S_ISREG(found.st_mode):
        raise UsageError(f"{path}: expected a file")
    if found.st_size > most:
        raise UsageError(
            f"{path}: expected at most {most:,} bytes, got {found.st_size:,}; it has changed since the model was kept"
        )
    return path


def digest_of(path: Path) -> str:
    """The SHA-256 of a file."""
    digest = sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
