"""Open Clip Art: pictures with titles and keywords, shipped with the package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from importlib.resources import files
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from mmbench.batch import Input
from mmbench.data.augment import RandomCropFlip, WordDropout
from mmbench.data.base import MultimodalDataModule
from mmbench.data.folds import Parts, balanced
from mmbench.data.split import Loaded, Split

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

SPLIT_CODES = (0, 1, 2)  # of training, validation and test in the split arrays; -1: not used by the protocol


class OpenClipart(MultimodalDataModule):
    """Ten classes of clip art with the title and the keywords that its artists gave it.

    38 % of the pictures have no tags: no keyword is left once words that name the class are taken out.

    ``clean`` keeps every artist within one split, and within one of five folds. ``legacy`` splits at random, with as many training and
    test samples, and chooses the epoch on the test split. ``tools/build_openclipart.py`` makes the file from two Debian packages.

    Inputs: ``image`` (B, 3, 32, 32) uint8; ``title`` and ``tags`` as the encoders' tokenizers give them. Groups are artists.
    """

    name = "openclipart"
    modalities = ("image", "title", "tags")
    text_modalities: ClassVar[tuple[str, ...]] = ("title", "tags")
    classes = (
        "animals", "computer", "food", "office", "people",
        "recreation", "shapes", "signs_and_symbols", "tools", "transportation",
    )  # fmt: skip
    conditioning = "title"
    folds = 5
    folded_by = "artist"
    encoders = {"image": "small_cnn", "title": "hashed_text", "tags": "hashed_text"}
    input_shapes: ClassVar[Mapping[str, tuple[tuple[int, ...], str]]] = {"image": ((3, 32, 32), "uint8")}
    augmentations = {"image": RandomCropFlip(padding=3), "title": WordDropout(0.2), "tags": WordDropout(0.2)}

    @staticmethod
    def file() -> Traversable:
        """The shipped arrays."""
        return files("mmbench.data.sets") / "openclipart.npz"

    @classmethod
    def manifest(cls) -> str:
        """SHA-256 of the shipped file."""
        return sha256(cls.file().read_bytes()).hexdigest()

    def load(self) -> Loaded:
        """Read the arrays and cut them into the protocol's splits."""
        data = self.read()
        inputs: dict[str, Input] = {m: self.tokenizers[m](data[m].tolist()) for m in self.text_modalities}
        if "image" in self.modalities:
            inputs["image"] = torch.from_numpy(data["image"]).permute(0, 3, 1, 2).contiguous()
        return self.cut(data, inputs, self.rows(data))

    @classmethod
    def read(cls) -> dict[str, np.ndarray]:
        """The shipped arrays; ``tools/build_openclipart.py`` describes them."""
        with cls.file().open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            data = {name: arrays[name] for name in arrays.files}
        if tuple(data["classes"]) != cls.classes:
            raise ValueError(f"{cls.file()}: expected the classes {cls.classes}, got {tuple(data['classes'])}")
        return data

    @classmethod
    def parts(cls, data: dict[str, np.ndarray] | None = None) -> Parts:
        """Whole artists."""
        data = cls.read() if data is None else data
        clean = balanced(data["artist"].tolist(), data["label"].tolist(), cls.folds, "openclipart folds")
        return Parts.of(data["source"].tolist(), clean, cls.folds, "openclipart folds")

    def rows(self, data: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The numbers of the samples of training, validation (none under ``legacy``) and test."""
        if self.fold is not None:
            return self.parts(data).rows(self.protocol.split, self.fold)
        codes = data[f"split_{self.protocol.split}"]
        train, validation, test = (np.flatnonzero(codes == code) for code in SPLIT_CODES)
        return train, validation, test

    def cut(self, data: dict[str, np.ndarray], inputs: dict[str, Input], rows: Sequence[np.ndarray]) -> Loaded:
        """The splits of inputs for all samples, of these rows."""
        always = np.ones(len(data["tags"]), bool)
        whole = Split(
            inputs=inputs,
            present=torch.from_numpy(np.stack([always, always, data["tags"] != ""], axis=1)),
            label=torch.from_numpy(data["label"]),
            group=torch.from_numpy(np.unique(data["artist"], return_inverse=True)[1]),
        )
        train, validation, test = map(whole.rows, rows)
        return Loaded(train, validation if len(validation) else None, test)
