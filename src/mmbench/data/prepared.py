"""Data sets that are prepared from a raw download: memory-mapped arrays, a table of samples and a manifest."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import nn

from mmbench.data.augment import RandomResizedCrop, Resize, SpecAugment
from mmbench.data.base import MultimodalDataModule
from mmbench.data.folds import Parts
from mmbench.data.preparing.raw import Info, Listing, Source
from mmbench.data.preparing.texts import words
from mmbench.data.preparing.vouching import mistake, table_mistake
from mmbench.data.split import Loaded, Mapped, Split, is_picture
from mmbench.errors import UsageError, did_you_mean
from mmbench.files import data_root
from mmbench.protocol import PROTOCOLS

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 2
"""Raised when the layout of prepared folders changes."""
SPLITS = ("train", "validation", "test")
MADE_UP = "MADE-UP"
"""A file of this name in a raw folder says that it is a demo copy; the hashes of what is prepared from it begin with it."""


class PreparedDataModule(MultimodalDataModule):
    """A data set that ``mmbench data prepare`` makes from a raw download. Its class declares the attributes below, and ``scan``.

    The prepared folder, ``<MMBENCH_DATA>/<name>``, holds ``manifest.json``, ``samples.parquet`` and ``<field>.npy``, (N, …) in the
    order of the table's rows. Texts are in the table; the encoder's tokenizer reads them when a trial starts. Where the raw folder
    named classes of its own (``Listing.classes``), an instance's ``classes`` are those; ``class_names`` tells them without one.

    Args:
        views: modality -> the field it is read from, where that is not the first one of its source.
        image_sizes: modality -> the side, in pixels, of the pictures that its encoder gets; training crops to it, evaluation resizes.
        spec_augment: modality -> the arguments of ``SpecAugment``, which training then applies to its filter bank.
        **arguments: of ``MultimodalDataModule``.
    """

    info: ClassVar[Info]
    sources: ClassVar[Mapping[str, Source]]
    pictures: ClassVar[
        Mapping[str, Mapping[str, Any]]
    ] = {}  # modality -> the arguments of RandomResizedCrop, but for the size
    sides: ClassVar[Mapping[str, int]] = {}  # modality -> the side of pictures, for encoders that take any
    version: ClassVar[int] = 1  # raised when scan or a transform changes
    published: ClassVar[
        Mapping[str, Mapping[str, int]]
    ] = {}  # protocol or "all" -> split or "samples" -> the published count
    distinct_texts: ClassVar[bool] = False  # clean keeps equal texts, as it does equal files, within one split
    legacy_lists: ClassVar[str] = ""  # what has to be where for the legacy protocol

    def __init__(
        self,
        *arguments: Any,
        views: Mapping[str, str] | None = None,
        image_sizes: Mapping[str, int] | None = None,
        spec_augment: Mapping[str, Mapping[str, int]] | None = None,
        **others: Any,
    ) -> None:
        super().__init__(*arguments, **others)
        self.classes = self.class_names()  # type: ignore[misc]  # those of the class, but for a variant
        self.views = {m: view for m, view in self.default_views().items() if m in self.modalities}
        for modality in {**(views or {}), **(image_sizes or {}), **(spec_augment or {})}:
            if self._declared and modality in self._declared and modality not in self.modalities:
                raise UsageError(
                    f"{self.name}: a setting of {modality}, which is left out of the modalities; leave it out too"
                )
        sizes = image_sizes or {}
        crops = {m: RandomResizedCrop(sizes[m], **options) for m, options in self.pictures.items() if m in sizes}
        self.augmentations = {**self.augmentations, **crops}
        self.resizing = {m: Resize(sizes[m]) for m in crops}
        for modality, view in (views or {}).items():
            self.check_view(modality, view)
            self.views[modality] = view
        for modality, limits in (spec_augment or {}).items():
            self.check_spec_augment(modality, self.views.get(modality), limits)
            self.augmentations[modality] = SpecAugment(**limits)

    @classmethod
    def default_views(cls) -> dict[str, str]:
        """Modality -> the first field of its source."""
        return {modality: next(iter(source.fields)) for modality, source in cls.sources.items()}

    @classmethod
    def sample_shape(cls, modality: str, view: str | None, encoder: nn.Module) -> tuple[tuple[int, ...], str] | None:
        """The shape and the dtype in which an encoder gets a sample of a modality; None for texts."""
        if view is None or modality not in cls.sources or view not in cls.sources[modality].fields:
            return None
        shape, kind = cls.sources[modality].fields[view]
        if not is_picture(len(shape) + 1, shape[-1], np.dtype(kind)):
            return shape, kind
        *frames, height, width, channels = shape
        side = picture_sizes(cls, {modality: encoder}).get(modality) if modality in cls.pictures else None
        return (*frames, channels, side or height, side or width), kind

    @classmethod
    def check_view(cls, modality: str, view: str) -> None:
        """Raise a UsageError if the modality cannot be read from this field."""
        if modality not in cls.sources:
            raise UsageError(f"{cls.name}: no views of '{modality}'; {did_you_mean(modality, cls.sources)}")
        if view not in cls.sources[modality].fields:
            raise UsageError(
                f"{cls.name}: unknown view '{view}' of {modality}; {did_you_mean(view, cls.sources[modality].fields)}"
            )

    @classmethod
    def check_spec_augment(cls, modality: str, view: str | None, limits: Mapping[str, Any]) -> None:
        """Raise a UsageError if the modality is no filter bank, or has fewer frames or bins than SpecAugment may hide."""
        banks = {m: f for m, source in cls.sources.items() for f in source.fields if f.endswith("fbank")}
        if modality not in banks:
            raise UsageError(f"{cls.name}: no filter bank of '{modality}'; {did_you_mean(modality, banks)}")
        if view != (bank := banks[modality]):
            raise UsageError(f"{cls.name}: {modality} is read as '{view}'; only parts of '{bank}' can be hidden")
        shape = dict(zip(("time", "frequency"), cls.sources[modality].fields[bank][0], strict=True))
        for name, limit in limits.items():
            if isinstance(limit, int) and limit > shape.get(name, limit):
                raise UsageError(f"{cls.name}: {modality}.{name} is {limit}, the filter bank has only {shape[name]}")

    # What a data set's own class says

    @classmethod
    def scan(cls, raw: Path) -> Listing:
        """List the samples of a raw folder, without decoding anything.

        Raises:
            UsageError: the folder is not laid out as ``info.layout`` says, or a list is not in its format.
        """
        raise NotImplementedError

    @classmethod
    def clean(cls, samples: pd.DataFrame) -> Sequence[str]:
        """The split of each usable sample under ``clean``: "train", "validation", "test", or "" for none.

        Args:
            samples: columns id, label, group, legacy, attack, ``text_<modality>`` and ``sha256_<modality>``.
        """
        raise NotImplementedError

    @classmethod
    def part_of(cls, samples: pd.DataFrame) -> Sequence[int]:
        """The part, 0 to ``folds`` − 1, of each usable sample, for a data set that declares several folds.

        Args:
            samples: as in ``clean``, in any order, and with the columns ``clean`` and ``present_<modality>``.
        """
        raise NotImplementedError

    @classmethod
    def declaration(cls) -> dict[str, Any] | None:
        """What is to stand in the manifest of a class that is made of it; None of those whose code says all."""
        return None

    @classmethod
    def text_key(cls, text: str) -> str:
        """What two texts are compared by, in the audit and in what ``clean`` keeps together; "" is equal to nothing."""
        return words(text)

    @classmethod
    def write_demo(cls, raw: Path) -> None:
        """Write a tiny copy in the raw layout: ``write`` of the module of the data set's name in ``mmbench.data.demo``."""
        import_module(f"mmbench.data.demo.{cls.name}").write(raw)

    # The prepared folder

    @classmethod
    def folder(cls) -> Path:
        """Where the prepared data lie."""
        return data_root() / str(cls.name)

    @classmethod
    def read_manifest(cls) -> dict[str, Any]:
        """The manifest.

        Raises:
            UsageError: the data set is not prepared, or by another version of its code, or the file has changed.
        """
        path, anew = cls.folder() / "manifest.json", f"prepare the data anew: mmbench data info {cls.name}"
        try:
            manifest = json.loads(path.read_bytes())
        except OSError as error:
            raise UsageError(f"mmbench data info {cls.name}") from error
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{path} is damaged; {anew}") from error
        if not isinstance(manifest, dict) or not {"format", "version"} <= manifest.keys():
            raise UsageError(f"{path} is damaged; {anew}")
        if (manifest["format"], manifest["version"]) != (FORMAT, cls.version):
            raise UsageError(f"{path} was made by another version of mmbench; {anew}")
        if wrong := mistake(manifest):
            raise UsageError(f"{path} {wrong}; {anew}")
        return manifest

    @classmethod
    def class_names(cls) -> tuple[str, ...]:
        """The classes by number: those that the raw folder named, where it did and is prepared; the data set's otherwise."""
        try:
            return tuple(cls.read_manifest().get("classes", cls.classes))
        except UsageError:
            return cls.classes

    @classmethod
    def prepared(cls) -> str | None:
        """What to do if there is no usable prepared folder."""
        try:
            manifest = cls.read_manifest()
            for source in cls.sources.values():
                for name in source.fields:
                    cls.array(name, manifest)
        except UsageError as error:
            return str(error)
        return None

    @classmethod
    def lacks(cls, protocol: str) -> str | None:
        """Why there is no split to train, to test or to choose the epoch on under a protocol; None if there is each."""
        manifest, kind, selection = cls.read_manifest(), PROTOCOLS[protocol].split, PROTOCOLS[protocol].selection
        parts = manifest["splits"].get(kind, {}).keys()
        if {"train", "test", selection} <= parts:
            return None
        if {"train", "test"} <= parts:
            return f"there is no {selection} split, on which the best epoch is chosen; prepare it with more groups, or use peek"
        if kind == "legacy" and "classes" in manifest:
            return "the published lists are those of another variant"
        return (cls.legacy_lists or "it has no published lists") if kind == "legacy" else "too few samples"

    @classmethod
    def lacks_folds(cls) -> str | None:
        """Why a part is empty, with which not all folds can be tested; None if none is."""
        return cls.parts().lacks()

    @classmethod
    def parts(cls, table: pd.DataFrame | None = None) -> Parts:
        """The parts of the usable samples, in the order of the table.

        Args:
            table: ``cls.table()``, where that is read already.
        """
        table = cls.table() if table is None else table
        usable = table[table["skipped"] == ""].reset_index(drop=True)
        return Parts.of(usable["id"].tolist(), cls.part_of(usable), cls.folds, f"{cls.name} folds")

    @classmethod
    def split_ids(cls, protocol: str = "clean", fold: int | None = None) -> dict[str, list[str]]:
        """Split -> the ids of its usable samples, in the order of the table."""
        table = cls.table()
        split = cls.textless(protocol, fold).split_names(table)
        return {name: table["id"][split == name].tolist() for name in SPLITS if (split == name).any()}

    @classmethod
    def manifest(cls) -> str:
        """A hash of what was prepared: samples, splits, arrays and classes of the raw folder's own, whatever decoded them."""
        manifest = cls.read_manifest()
        own = [key for key in ("classes", "declaration") if key in manifest]
        content = {key: manifest[key] for key in ("format", "version", "arrays", "table", *own)}
        digest = sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        return f"{MADE_UP}-{digest}" if manifest["made_up"] else digest

    @classmethod
    def array(cls, name: str, manifest: Mapping[str, Any]) -> np.ndarray:
        """A field, memory-mapped: (N, …).

        Raises:
            UsageError: the file is missing or is not what the manifest says.
        """
        path, expected = cls.folder() / f"{name}.npy", manifest["arrays"].get(name)
        if expected is None:
            raise UsageError(f"{path} is not in the manifest; prepare the data anew: mmbench data info {cls.name}")
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise UsageError(
                f"{path} cannot be read ({error}); prepare the data anew: mmbench data info {cls.name}"
            ) from error
        if (list(array.shape), str(array.dtype)) != (expected["shape"], expected["dtype"]):
            raise UsageError(
                f"{path}: expected {expected['dtype']} of shape {expected['shape']}, got {array.dtype} of shape {list(array.shape)}; "
                f"prepare the data anew: mmbench data info {cls.name}"
            )
        return array

    @classmethod
    def table(cls) -> pd.DataFrame:
        """``samples.parquet``: one row a sample, also those that were skipped.

        Raises:
            UsageError: the file is missing or is not what the manifest says.
        """
        import pandas as pd

        path, anew = cls.folder() / "samples.parquet", f"prepare the data anew: mmbench data info {cls.name}"
        manifest = cls.read_manifest()
        fields = [f"sha256_{m}" for m in cls.sources] + [f"text_{m}" for m in cls.text_modalities]
        kinds = dict.fromkeys(["id", "group", "legacy", "clean", "clip", "skipped", *fields], "text")
        kinds |= {"label": "int", "attack": "int"} | {f"present_{m}": "bool" for m in cls.modalities}
        try:
            table = pd.read_parquet(path)
            wrong = table_mistake(table, manifest, kinds)
        except Exception as error:  # of a damaged file, pyarrow's and pandas' errors are of many kinds
            raise UsageError(f"{path} cannot be read ({error}); {anew}") from error
        if wrong:
            raise UsageError(f"{path} {wrong}; {anew}")
        return table

    def load(self) -> Loaded:
        """Cut the splits of the protocol and the fold; rows are read from the maps when a batch asks for them."""
        manifest, table = self.read_manifest(), self.table()
        split = self.split_names(table)
        arrays = {m: self.array(view, manifest) for m, view in self.views.items()}
        texts = {m: self.tokenizers[m](table[f"text_{m}"].tolist()) for m in self.text_modalities}
        group = np.unique(table["group"].astype(str), return_inverse=True)[1]
        present = torch.from_numpy(np.array(table[[f"present_{m}" for m in self.modalities]], bool))

        def part(name: str) -> Split:
            rows = np.flatnonzero(split == name)
            index = torch.from_numpy(rows)
            inputs: dict[str, Any] = {
                m: Mapped(arrays[m], rows) if m in arrays else {k: v[index] for k, v in texts[m].items()}
                for m in self.modalities
            }
            attack = torch.from_numpy(table["attack"].to_numpy(np.int64)[rows]) if table["attack"].any() else None
            label = torch.from_numpy(table["label"].to_numpy(np.int64)[rows])
            return Split(inputs, present[index], label, torch.from_numpy(group[rows]), attack)

        return Loaded(part("train"), part("validation") if (split == "validation").any() else None, part("test"))

    def split_names(self, table: pd.DataFrame) -> np.ndarray:
        """The split of each row of the table: "train", "validation", "test" or ""."""
        if self.fold is None:
            if why := self.lacks(self.protocol.name):
                raise UsageError(f"{self.name}: no {self.protocol.split} splits; {why} (mmbench data info {self.name})")
            return table[self.protocol.split].where(table["skipped"] == "", "").to_numpy(object)
        usable, split = np.flatnonzero(table["skipped"] == ""), np.full(len(table), "", object)
        parts = self.parts(table)
        if why := parts.lacks():
            raise UsageError(f"{self.name}: no folds; {why} (mmbench data info {self.name})")
        for name, rows in zip(SPLITS, parts.rows(self.protocol.split, self.fold), strict=True):
            split[usable[rows]] = name
        return split


def picture_sizes(data: type[PreparedDataModule], encoders: Mapping[str, nn.Module]) -> dict[str, int]:
    """Modality -> the side, in pixels, of the pictures that its encoder gets."""
    sizes: dict[str, Any] = {m: e.image_size for m, e in encoders.items() if hasattr(e, "image_size")}
    any_size = [m for m in sizes if not getattr(encoders[m], "fixed_size", True)]
    return sizes | {m: data.sides[m] for m in any_size if m in data.sides}
