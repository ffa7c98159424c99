"""What a model is asked about, prepared as what it was trained on."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmbench.batch import Input
from mmbench.data import DATASETS
from mmbench.data.adding.vectors import read_vector
from mmbench.data.base import MultimodalDataModule, Tokenizer
from mmbench.data.prepared import PreparedDataModule
from mmbench.data.preparing import clipart
from mmbench.data.preparing.decoding import decode
from mmbench.data.preparing.media import BadFile
from mmbench.data.preparing.raw import Sample, Source
from mmbench.data.split import Split, is_picture
from mmbench.errors import UsageError, did_you_mean
from mmbench.files import user_path
from mmbench.models.card import CARD, Array
from mmbench.models.loading import Restored
from mmbench.models.values import Sound, as_sound, is_absent, is_number, kind_of, wav

FILLER = "a b c d"
CLIP = "clip"
"""What a decoder has to know beside a file, such as times, as a mapping."""

SURROGATE = re.compile("[\ud800-\udfff]")
"""What is left of a letter where a text was not read as what it is written in."""

PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16")

Where = Callable[[int, str], str]


class Inputs:
    """Makes batches of raw samples.

    Args:
        model: what they are for.
    """

    def __init__(self, model: Restored) -> None:
        self.model, self.card = model, model.card
        self.texts = clipart.TEXTS if self.card.trial.dataset == "openclipart" else {}

    @cached_property
    def sources(self) -> Mapping[str, Source]:
        """Modality -> how its files become arrays; of pictures, sound and video.

        Raises:
            UsageError: the data set's code is not here, or is of another version than the one that the model was trained with.
        """
        card, data = self.card, self.data
        if card.trial.dataset == "openclipart":
            return clipart.SOURCES
        if not issubclass(data, PreparedDataModule):
            return {}
        if data.version != card.data_version:
            raise UsageError(
                f"the model was trained on {card.trial.dataset} as version {card.data_version} of its code prepares it, which here is "
                f"version {data.version}: train it again"
            )
        return {modality: source for modality, source in data.sources.items() if modality not in data.feature_dims}

    @cached_property
    def data(self) -> type[MultimodalDataModule]:
        """The class of the data set; of one that was added without code, made of what the model knows of it.

        Of a data set whose package is not installed here it is the base of all, which knows of no files: arrays can be given.
        """
        if self.card.declaration is None:
            if self.card.trial.dataset not in DATASETS:
                return MultimodalDataModule
            return DATASETS[self.card.trial.dataset]
        from mmbench.data.adding.declaration import declared
        from mmbench.data.sets.added import added_class

        where = f"{self.model.folder / CARD}: declaration"
        content = declared(self.card.declaration, where)
        if lacking := set(self.card.modalities) - set(content.modalities):
            raise UsageError(f"{where}: says nothing of {', '.join(sorted(lacking))}")
        return added_class(content)

    def split(self, samples: Sequence[Mapping[str, Any]], where: Where) -> Split:
        """The samples as a split; files are read when a batch asks for them, so that there may be more than the memory holds.

        Args:
            samples: modality -> raw value; what is left out, None or "" is absent.
            where: (number of a sample, modality) -> where the value was given, for messages.

        Raises:
            UsageError: a value is not what the modality is.
        """
        known = {*self.card.modalities, CLIP}
        for number, sample in enumerate(samples):
            for name in sample.keys() - known:
                raise UsageError(f"{where(number, name)}: unknown modality; {did_you_mean(name, self.card.modalities)}")
        inputs: dict[str, Input] = {}
        present = torch.zeros(len(samples), len(self.card.modalities), dtype=torch.bool)
        for column, modality in enumerate(self.card.modalities):
            values = [None if is_absent(value := sample.get(modality)) else value for sample in samples]

            def at(number: int, modality: str = modality) -> str:
                return where(number, modality)

            if modality in self.card.texts:
                values, inputs[modality] = self.tokens(modality, values, at)
            elif modality in self.sources:
                clips = [sample.get(CLIP) or {} for sample in samples]
                inputs[modality] = self.files(modality, values, clips, at)  # type: ignore[assignment]
            else:
                inputs[modality] = self.arrays(modality, values, at)
            present[:, column] = torch.tensor([value is not None for value in values], dtype=torch.bool)
        nothing = torch.zeros(len(samples), dtype=torch.int64)
        return Split(inputs, present, nothing, nothing)

    # Texts

    def tokens(self, modality: str, values: list[Any], at: Callable[[int], str]) -> tuple[list[Any], dict[str, Tensor]]:
        """The texts, None for those of which nothing is left, and their tokens, as wide as those of training or wider."""
        clean = self.texts.get(modality, str)
        for number, value in enumerate(values):
            if value is not None and not isinstance(value, str):
                raise UsageError(f"{at(number)}: expected a text, got {kind_of(value)}")
            if value is not None and (lone := SURROGATE.search(value)):
                raise UsageError(
                    f"{at(number)}: expected a text, got half a letter, {lone[0]!r}, at character {lone.start() + 1}; read the text as "
                    "what it is written in, such as UTF-8"
                )
        texts = ["" if value is None else clean(value) for value in values]
        tokenize: Tokenizer = self.model.tokenizers[modality]
        trained = self.card.inputs[modality]
        assert isinstance(trained, dict)
        padding = {name: value[0, -1] for name, value in tokenize(["", FILLER]).items() if value.dim() == 2}
        tokens = dict(tokenize(texts))
        for name, value in tokens.items():
            missing = trained[name].shape[0] - value.shape[1] if name in padding and name in trained else 0
            if missing > 0:  # the last bits of a sum depend on how many addends there are, zeros among them
                tokens[name] = torch.cat([value, padding[name].to(value).expand(len(value), missing)], dim=1)
        return [text if text.strip() else None for text in texts], tokens

    # Vectors and other arrays

    def arrays(self, modality: str, values: list[Any], at: Callable[[int], str]) -> Tensor:
        """Values that are arrays of the shape of training's, standardised where these were."""
        array = self.array_of(modality)
        rows = torch.zeros(len(values), *array.shape, dtype=dtype_of(array))
        for number, value in enumerate(values):
            if value is not None:
                rows[number] = torch.from_numpy(self.vector(modality, value, array, at(number)))
        if modality in self.model.moments:
            mean, scale = self.model.moments[modality]
            rows = torch.from_numpy(((rows.numpy() - mean) / scale).astype(np.float32))
        return rows

    def vector(self, modality: str, value: Any, array: Array, where: str) -> np.ndarray:
        """A value as an array of the shape and the type of training's."""
        expected = f"{where}: expected {array.dtype} of shape {tuple(array.shape)}"
        if isinstance(value, str) and is_number(value):
            value = float(value)
        if isinstance(value, str | os.PathLike):
            path = user_path(value)
            try:
                value, expected = read_vector(path, None), f"{expected}, in {path}"
            except BadFile as error:
                raise UsageError(f"{where}: {path} {error}") from error
        try:
            found = np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value)
        except (TypeError, ValueError) as error:
            raise UsageError(f"{expected}, got {kind_of(value)}") from error
        alone = found.shape[:1] in ((1,), ())  # a batch of one, or a plain number
        found = found.reshape(array.shape) if found.size == np.prod(array.shape) and alone else found
        if found.shape != tuple(array.shape) or found.dtype.kind not in "buif":
            raise UsageError(f"{expected}, got {found.dtype} of shape {found.shape}")
        with np.errstate(over="ignore"):
            found = found.astype(array.dtype)
        if not np.isfinite(found).all():
            raise UsageError(f"{expected}, got NaN or an infinite value")
        return found

    def array_of(self, modality: str) -> Array:
        """What a sample of a modality that is no text is."""
        array = self.card.inputs[modality]
        if isinstance(array, dict):
            raise UsageError(
                f"{modality}: the model takes several tensors of it, {', '.join(array)}, which cannot be given"
            )
        return array

    # Files

    def files(
        self, modality: str, values: list[Any], clips: list[Mapping[str, Any]], at: Callable[[int], str]
    ) -> Decoded:
        """Values that are files, or pictures and arrays in their place; decoded when a batch asks for them."""
        source, card = self.sources[modality], self.card
        field = card.trial.views.get(modality, next(iter(source.fields)))
        if field not in source.fields:
            raise UsageError(
                f"{self.model.folder / CARD}: trial.views.{modality}: {did_you_mean(field, source.fields)}"
            )
        shape, kind = source.fields[field]
        owner: Any = SimpleNamespace(name=card.trial.dataset, sources=self.sources)

        def read(number: int) -> np.ndarray:
            value = values[number]
            given = stored(value, shape, kind)
            if given is not None:
                return given
            with TemporaryDirectory() as folder:
                path = as_file(as_sound(value), shape, Path(folder), at(number))
                sample = Sample(str(number), 0, "", {modality: str(path)}, clip=clips[number])
                try:
                    return decode(owner, modality, path, sample)[field]
                except BadFile as error:
                    hint = (
                        f"; give '{CLIP}' too, the times of it"
                        if "KeyError" in str(error) and not clips[number]
                        else ""
                    )
                    raise UsageError(
                        f"{at(number)}: {path if isinstance(value, str | os.PathLike) else 'it'} {error}{hint}"
                    ) from error

        return Decoded(values, read, shape, kind, contiguous=card.trial.dataset == "openclipart")


class Decoded:
    """Rows that are decoded when they are asked for, as ``data.split.Mapped`` reads them.

    Args:
        values: one a row; None where there is none.
        read: number of a row -> its array.
        shape: of an array.
        kind: its type.
        contiguous: give pictures in the order of their axes in memory, too.
    """

    def __init__(
        self,
        values: Sequence[Any],
        read: Callable[[int], np.ndarray],
        shape: Sequence[int],
        kind: str,
        contiguous: bool,
    ) -> None:
        self.values, self.read, self.shape, self.kind = values, read, tuple(shape), np.dtype(kind)
        self.pictures = is_picture(len(shape) + 1, shape[-1], self.kind)
        self.contiguous = contiguous

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: Tensor) -> Tensor:
        """Decode rows: (B, …); pictures (B, …, 3, H, W). Zero where there is nothing."""
        rows = np.zeros((len(index), *self.shape), self.kind)
        for row, number in enumerate(index.tolist()):
            if self.values[number] is not None:
                rows[row] = self.read(number)
        found = torch.from_numpy(rows)
        found = found.movedim(-1, -3) if self.pictures else found
        return found.contiguous() if self.contiguous else found


def stored(value: Any, shape: Sequence[int], kind: str) -> np.ndarray | None:
    """An array that is prepared already, by its shape, also with a picture's channels first; None if it is none."""
    if not isinstance(value, np.ndarray | Tensor):
        return None
    found = np.asarray(value.detach().cpu()) if isinstance(value, Tensor) else value
    if found.shape != tuple(shape) and found.ndim >= 3 and found.shape == (*shape[:-3], shape[-1], *shape[-3:-1]):
        found = np.moveaxis(found, -3, -1)
    same = found.shape == tuple(shape) and np.can_cast(found.dtype, kind, "same_kind")
    return found.astype(kind) if same and np.isfinite(found).all() else None


def as_file(value: Any, shape: Sequence[int], folder: Path, where: str) -> Path:
    """The file that a value names; a picture or sound is written to one, without loss.

    Raises:
        UsageError: it is neither a path, nor a picture, nor sound.
    """
    if isinstance(value, str | os.PathLike):
        return user_path(value)
    if isinstance(value, Sound) and len(shape) <= 2:
        (folder / "sound.wav").write_bytes(wav(value, where))
        return folder / "sound.wav"
    from PIL import Image

    channels = value.shape[2:] if isinstance(value, np.ndarray) and value.ndim in (2, 3) else None
    if isinstance(value, np.ndarray) and value.dtype == np.uint8 and channels in ((), (3,), (4,)) and len(shape) == 3:
        value = Image.fromarray(value)
    if not isinstance(value, Image.Image) or len(shape) != 3:
        what = {3: "a path, a picture of PIL", 4: "a path"}.get(
            len(shape), "a path, a waveform with its rate, (array, rate)"
        )
        raise UsageError(f"{where}: expected {what}, or an array of shape {tuple(shape)}, got {kind_of(value)}")
    held = value if value.mode in PNG_MODES else value.convert("RGB")
    held.save(folder / "picture.png", exif=value.getexif())  # which may say how the camera was held
    return folder / "picture.png"


def dtype_of(array: Array) -> torch.dtype:
    """The type of a tensor."""
    return getattr(torch, array.dtype)
