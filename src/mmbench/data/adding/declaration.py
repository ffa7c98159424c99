"""What ``dataset.yaml`` says of a data set: which columns and files are its modalities, labels and groups."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from mmbench.arguments import describe
from mmbench.errors import UsageError
from mmbench.missing import MOST_MODALITIES

Kind = Literal["picture", "sound", "video", "text", "features", "numbers"]
KINDS: tuple[str, ...] = get_args(Kind)
MEDIA = ("picture", "sound", "video")
SOURCES: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(MEDIA, ("file",)),
    "text": ("column",),
    "features": ("array", "file", "column", "columns"),
    "numbers": ("columns",),
}
"""Kind -> the keys of which one says where its values are."""
SETTINGS: Mapping[str, tuple[str, ...]] = {
    "picture": ("size", "pad", "flip"),
    "sound": ("seconds",),
    "video": ("size", "frames", "flip"),
    "text": (),
    "features": ("key", "standardise", "width"),
    "numbers": ("standardise", "width"),
}
"""Kind -> its other keys."""
ENCODERS: Mapping[str, str] = {
    "picture": "small_cnn",
    "sound": "small_cnn_audio",
    "video": "small_cnn_video",
    "text": "hashed_text",
    "features": "mlp",
    "numbers": "mlp",
}
"""Kind -> the encoder where nothing else is said: each is trained from scratch in minutes on a CPU."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
RESERVED = ("cache", "demo-raw", "hf-raw")
WIDEST = 1 << 20


def checked_name(name: str, what: str) -> str:
    """The name of a data set or a modality, which is also that of a file.

    Raises:
        ValueError: it has other characters than letters, digits, ``_`` and ``-``, or too many.
    """
    if name.casefold() in RESERVED:
        raise ValueError(f"'{name}' is what mmbench calls a folder of its own; choose another")
    if not NAME.fullmatch(name):
        raise ValueError(f"expected {what} of up to 40 letters, digits, '_' and '-', got {name[:60]!r}")
    return name


class Modality(BaseModel):
    """One modality: its kind, where its values are, and how they are prepared.

    Attributes:
        kind: what it is.
        file: the column with the path of a sample's file, below the folder of the table.
        column: the column with its text, or with its vector (a list of numbers).
        columns: those with its numbers.
        array: one file with the vectors of all samples, by row or by id.
        key: the name of the array in that file, where it holds several.
        size: side, in pixels, of pictures and frames as they are stored.
        pad: scale the whole picture to fit, and pad with white; if not, the middle is cut out.
        flip: mirror half of the pictures in training.
        seconds: of sound that are kept, from the beginning; silence is added to what is shorter.
        frames: of a video, evenly spread.
        standardise: less the mean, divided by the standard deviation of the training samples.
        width: of a vector; found when the data are added.
        encoder: in place of the kind's, as in an experiment's file.
    """

    model_config = ConfigDict(extra="forbid")

    kind: Kind
    file: str | None = None
    column: str | None = None
    columns: Annotated[list[str], Field(min_length=1)] | None = None
    array: str | None = None
    key: str | None = None
    size: Annotated[int, Field(ge=8, le=1024, strict=True)] = 64
    pad: bool = False
    flip: bool = True
    seconds: Annotated[float, Field(ge=0.1, le=60)] = 3.0
    frames: Annotated[int, Field(ge=1, le=64, strict=True)] = 3
    standardise: bool = False
    width: Annotated[int, Field(ge=1, le=WIDEST, strict=True)] | None = None
    encoder: str | dict[str, Any] | None = None

    @model_validator(mode="after")
    def _of_its_kind(self) -> Modality:
        places, own = SOURCES[self.kind], SETTINGS[self.kind]
        given = [key for key in ("file", "column", "columns", "array") if getattr(self, key) is not None]
        if len(given) != 1 or given[0] not in places:
            expected = f"one of the keys {', '.join(places)}" if len(places) > 1 else f"the key {places[0]}"
            raise ValueError(f"{self.kind}: expected {expected}, got {' and '.join(given) or 'none'}")
        others = {key for keys in SETTINGS.values() for key in keys} - set(own)
        if wrong := sorted(self.model_fields_set & others):
            raise ValueError(f"{self.kind} has no {wrong[0]}; expected {', '.join((*places, *own, 'encoder'))}")
        return self


class Declared(BaseModel):
    """``dataset.yaml``.

    Attributes:
        name: of the data set.
        metadata: the tables, paths below the folder; of several, the folder that each is in is its split.
        id: the column that names each sample; None: the number of its row.
        label: the column of the class.
        classes: in the order of their numbers.
        group: the column of what must not be in two splits; None: none was given.
        split: the column of a given split; None: none was given.
        modalities: name -> what it is.
        conditioning: the modality that conditions the others where a method is asymmetric.
        folds: into how many parts the whole set is cut; 1: it is not.
        distinct_texts: ``clean`` keeps equal texts, as it does equal files, within one split.
    """

    model_config = ConfigDict(extra="forbid")

    name: str
    metadata: Annotated[list[str], Field(min_length=1)]
    id: str | None = None
    label: str
    classes: Annotated[list[str], Field(min_length=2, max_length=32_767)]
    group: str | None = None
    split: str | None = None
    modalities: Annotated[dict[str, Modality], Field(min_length=1, max_length=MOST_MODALITIES)]
    conditioning: str
    folds: Annotated[int, Field(ge=1, le=100, strict=True)] = 5
    distinct_texts: bool = False

    @field_validator("name")
    @classmethod
    def _named(cls, name: str) -> str:
        return checked_name(name, "a name")

    @field_validator("classes", mode="before")
    @classmethod
    def _as_texts(cls, names: Any) -> Any:
        """Classes may be called by numbers, which YAML reads as such."""
        if not isinstance(names, list):
            return names
        texts = [str(name) if isinstance(name, int) and not isinstance(name, bool) else name for name in names]
        if len(set(map(str, texts))) < len(texts):
            raise ValueError("a class is given twice")
        return texts

    @field_validator("group", "split", "id", mode="before")
    @classmethod
    def _nothing(cls, column: Any) -> Any:
        """``none`` where YAML says ``null``."""
        return None if isinstance(column, str) and column.strip().casefold() in ("none", "null", "") else column

    @model_validator(mode="after")
    def _whole(self) -> Declared:
        for name in self.modalities:
            checked_name(name, f"modalities.{name}: a name")
        if self.conditioning not in self.modalities:
            raise ValueError(f"conditioning: expected one of {', '.join(self.modalities)}, got '{self.conditioning}'")
        if self.folds == 2:
            raise ValueError("folds: expected 1 (none) or at least 3: for training, validation and test")
        return self

    def of_kind(self, *kinds: str) -> list[str]:
        """The modalities of some kinds."""
        return [name for name, modality in self.modalities.items() if modality.kind in kinds]

    @property
    def several_tables(self) -> bool:
        """Whether each split has a table of its own."""
        return len(self.metadata) > 1


def declared(content: Any, where: str) -> Declared:
    """The declaration that a parsed file holds.

    Raises:
        UsageError: all of its mistakes, each with its key.
    """
    if not isinstance(content, dict):
        raise UsageError(f"{where}: expected a mapping with the keys name, metadata, label, classes and modalities")
    try:
        return Declared.model_validate(content)
    except ValidationError as error:
        lines = describe(error, known_keys)
        raise UsageError("\n  ".join([f"{where}:", *lines]) if len(lines) > 1 else f"{where}: {lines[0]}") from error


def known_keys(place: tuple[Any, ...]) -> list[str]:
    """The keys that the file may have where an unknown one was found."""
    return list(Modality.model_fields if place[0] == "modalities" and len(place) > 2 else Declared.model_fields)
