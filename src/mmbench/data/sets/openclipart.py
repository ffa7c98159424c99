"""Open Clip Art: pictures with titles and keywords, shipped with the package."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from importlib.resources import files
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from mmbench.batch import Input
from mmbench.data.augment import RandomCropFlip, WordDropout
from mmbench.data.base import MultimodalDataModule
from mmbench.data.split import Loaded, Split

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

TRAIN, VALIDATION, TEST = 0, 1, 2  # the codes of the split arrays; -1: not used by the protocol


class OpenClipart(MultimodalDataModule):
    """Ten classes of clip art with the title and the keywords that its artists gave it.

    38 % of the pictures have no tags: no keyword is left once words that name the class are taken out.

    ``clean`` keeps every artist within one split. ``legacy`` splits at random, with as many training and test samples, and
    chooses the epoch on the test split. ``tools/build_openclipart.py`` makes the file from two Debian packages.

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
        return self.cut(
            data,
            {
                "image": torch.from_numpy(data["image"]).permute(0, 3, 1, 2).contiguous(),
                "title": self.tokenizers["title"](data["title"].tolist()),
                "tags": self.tokenizers["tags"](data["tags"].tolist()),
            },
        )

    def read(self) -> dict[str, np.ndarray]:
        """The shipped arrays; ``tools/build_openclipart.py`` describes them."""
        with self.file().open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            data = {name: arrays[name] for name in arrays.files}
        if tuple(data["classes"]) != self.classes:
            raise ValueError(f"{self.file()}: expected the classes {self.classes}, got {tuple(data['classes'])}")
        return data

    def rows(self, data: dict[str, np.ndarray], code: int) -> np.ndarray:
        """The numbers of the samples of one split of the protocol."""
        return np.flatnonzero(data[f"split_{self.protocol.split}"] == code)

    def cut(self, data: dict[str, np.ndarray], inputs: dict[str, Input]) -> Loaded:
        """The protocol's splits of inputs for all samples."""
        always = np.ones(len(data["tags"]), bool)
        whole = Split(
            inputs=inputs,
            present=torch.from_numpy(np.stack([always, always, data["tags"] != ""], axis=1)),
            label=torch.from_numpy(data["label"]),
            group=torch.from_numpy(np.unique(data["artist"], return_inverse=True)[1]),
        )
        train, validation, test = (whole.rows(self.rows(data, code)) for code in (TRAIN, VALIDATION, TEST))
        return Loaded(train, validation if len(validation) else None, test)
