"""What every data set shares: splits held as tensors, batches cut from them, augmentation of whole batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import fields, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from mmbench.batch import Batch, Input
from mmbench.data.cache import FeatureCache
from mmbench.data.checks import Declaration, check_declaration, checked
from mmbench.data.folds import Parts, checked_fold
from mmbench.data.split import EVALUATION_BATCH, Batches, DataSpec, Loaded, Shares, Split, as_is, narrowed, subset
from mmbench.errors import UsageError, did_you_mean
from mmbench.lightning import LightningDataModule
from mmbench.missing import Missing, realised, split_name
from mmbench.presence import on_host, placed
from mmbench.protocol import PROTOCOLS, Protocol
from mmbench.ranks import OwnGenerator

Tokenizer = Callable[[Sequence[str]], dict[str, Tensor]]
Augmentation = Callable[[Input], Input]


class MultimodalDataModule(LightningDataModule):
    """A data set under one protocol. A data set's own class declares the attributes below and ``load``.

    Args:
        protocol: a key of ``PROTOCOLS``; it decides the splits and on which of them the best epoch is chosen.
        batch_size: training samples a step.
        seed: of the order of the training samples; the splits do not depend on it.
        tokenizers: text modality -> the tokenizer of the encoder that will read it.
        missing: what to take away in training, and where the epoch is chosen. The test split is kept whole: predictions under every
            pattern answer for any mask.
        fold: which of the data set's ``folds`` is tested; None: its one split, where it has such folds or not.
        modalities: the subset, of two at least, that there is to be; None: all. All that hangs on ``modalities`` is of the subset then.
        tuning: a setting is to be chosen, so once the splits are checked the test split is let go of: nothing can read it.

    Raises:
        UsageError: the protocol or a modality is unknown, there is no such fold, the protocol chooses by the test split while tuning,
            a text modality has no tokenizer, or the data set cannot realise the missing rate.
    """

    modalities: ClassVar[tuple[str, ...]]
    text_modalities: ClassVar[tuple[str, ...]] = ()
    classes: ClassVar[tuple[str, ...]]
    conditioning: ClassVar[str]
    # modality -> the encoder that is used if an experiment names none: a name, or {name: …, and arguments}
    encoders: ClassVar[Mapping[str, str | Mapping[str, Any]]]
    augmentations: Mapping[str, Augmentation] = {}
    resizing: Mapping[str, Augmentation] = {}  # what evaluation does where training augments
    feature_dims: ClassVar[Mapping[str, int]] = {}  # modality -> width, where the raw input is a feature vector
    input_shapes: ClassVar[
        Mapping[str, tuple[tuple[int, ...], str]]
    ] = {}  # modality -> (shape, dtype) of a sample, if fixed
    folds: ClassVar[int] = 1  # how many there are; 1: nothing but its one split
    folded_by: ClassVar[str] = ""  # what a fold's parts are made of, such as "artist"

    def __init__(
        self,
        protocol: str = "clean",
        batch_size: int = 64,
        seed: int = 0,
        tokenizers: Mapping[str, Tokenizer] | None = None,
        missing: Missing | None = None,
        fold: int | None = None,
        modalities: Sequence[str] | None = None,
        tuning: bool = False,
    ) -> None:
        super().__init__()
        if protocol not in PROTOCOLS:
            raise UsageError(f"unknown protocol '{protocol}': {did_you_mean(protocol, PROTOCOLS)}")
        if tuning and PROTOCOLS[protocol].selection == "test":
            raise UsageError(
                f"tuning needs a validation split, but protocol '{protocol}' chooses by the test split; use clean"
            )
        self.tuning = tuning
        self._protocol, self._protocol_asked = PROTOCOLS[protocol], False
        self._fold, self._fold_asked = checked_fold(self.name, self.folds, fold), False
        self._declared: tuple[str, ...] | None = None  # all modalities, where only a subset of them is taken
        self.tokenizers = dict(tokenizers or {})
        if modalities is not None:
            self._take(modalities)
        self.batch_size = batch_size
        self.seed = seed
        if untold := set(self.text_modalities) - set(self.tokenizers):
            raise UsageError(
                f"{self.name}: no tokenizer for {', '.join(sorted(untold))}; pass tokenizers={{modality: encoder.tokenize}}"
            )
        self.missing = missing
        if missing is not None:
            missing.check(self.modalities)
        self.realised: dict[str, dict[str, float]] = {}
        self.features: dict[str, FeatureCache] = {}  # modality -> its encoder, where that has run once and for all
        self.statistics: dict[
            str, tuple[np.ndarray, np.ndarray]
        ] = {}  # modality -> (D,) mean and divisor, if standardised
        self._redraws = np.random.default_rng(seed)
        self.own_generator = OwnGenerator("augmentation")  # of one of several devices, which augments its share
        self._loaded: Loaded | None = None

    @property
    def protocol(self) -> Protocol:
        """The protocol that decides the splits; it is noted that a data set asks for it."""
        self._protocol_asked = True
        return self._protocol

    @property
    def fold(self) -> int | None:
        """Which part of the data is tested, None for the one split; it is noted that a data set asks for it."""
        self._fold_asked = True
        return self._fold

    def _take(self, modalities: Sequence[str]) -> None:
        """Be a data set of these modalities alone, in the order in which the class declares them."""
        declared = self.modalities
        kept = subset(self.name, declared, modalities)
        if kept == tuple(declared):
            return
        self._declared = declared
        self.tokenizers |= {m: unread for m in self.text_modalities if m not in kept}
        of_subset: dict[str, Any] = {
            "modalities": kept,
            "text_modalities": tuple(m for m in self.text_modalities if m in kept),
            "conditioning": self.conditioning if self.conditioning in kept else kept[0],
        }
        for name in ("augmentations", "resizing", "feature_dims", "input_shapes"):
            of_subset[name] = {m: value for m, value in getattr(self, name).items() if m in kept}
        for name, value in of_subset.items():
            setattr(self, name, value)

    @classmethod
    def check_view(cls, modality: str, view: str) -> None:
        """Raise a UsageError if there is no such view of the modality; only data sets that are prepared have any."""
        raise UsageError(f"{cls.name} has no views; of {modality} there is one kind of input")

    @classmethod
    def check_spec_augment(cls, modality: str, view: str | None, limits: Mapping[str, Any]) -> None:
        """Raise a UsageError if the modality is no filter bank, or has fewer frames or bins than SpecAugment may hide."""
        raise UsageError(f"{cls.name} has no filter bank that SpecAugment could hide a part of")

    @classmethod
    def lacks(cls, protocol: str) -> str | None:
        """What is missing for the splits of a protocol, where the data themselves are prepared; None if nothing is."""
        return None

    @classmethod
    def lacks_folds(cls) -> str | None:
        """What is missing for the folds, where the data themselves are prepared; None if nothing is."""
        return None

    @classmethod
    def parts(cls) -> Parts | None:
        """The parts that its folds test, of data that are prepared; None where there is one split, or the class does not tell."""
        return None

    @classmethod
    def textless(cls, protocol: str = "clean", fold: int | None = None) -> Self:
        """A data module that needs no tokenizers, since nobody reads its texts: to ask which samples are in its splits."""
        return cls(protocol, fold=fold, tokenizers=dict.fromkeys(cls.text_modalities, unread))

    @classmethod
    def split_ids(cls, protocol: str = "clean", fold: int | None = None) -> dict[str, list[str]]:
        """Split -> the ids of its samples, in the order of ``load``: by them a split is published (``mmbench data split``).

        As it stands, it answers for classes whose ``parts`` have names and whose ``rows(read())`` are the numbers of the samples of
        training, validation and test.

        Raises:
            UsageError: the class is another, and does not override this; or there is no such split.
        """
        data, parts = cls.textless(protocol, fold), cls.parts()
        if parts is None or not hasattr(data, "rows") or not hasattr(data, "read"):
            raise UsageError(
                f"{cls.name} does not tell the ids of its samples: its class, {cls.__module__}:{cls.__qualname__}, has to override "
                "split_ids(protocol, fold) -> {split: ids}, in the order of load()"
            )
        rows = zip(("train", "validation", "test"), data.rows(data.read()), strict=True)
        return {split: [parts.names[row] for row in own] for split, own in rows if len(own)}

    @classmethod
    def default_views(cls) -> dict[str, str]:
        """Modality -> the field it is read from, for data sets that are prepared."""
        return {}

    @classmethod
    def sample_shape(cls, modality: str, view: str | None, encoder: nn.Module) -> tuple[tuple[int, ...], str] | None:
        """The shape and the dtype in which an encoder gets a sample of a modality; None where they are not declared (texts)."""
        if modality in cls.feature_dims:
            return (cls.feature_dims[modality],), "float32"
        return cls.input_shapes.get(modality)

    @classmethod
    def prepared(cls) -> str | None:
        """None if the data can be loaded; otherwise a sentence that says what is missing and what to put where."""
        return None

    @classmethod
    def manifest(cls) -> str:
        """The hash of the data; a trial's key holds it, so that changed data never meets old results."""
        raise NotImplementedError

    def load(self) -> Loaded:
        """Read the splits of ``self.protocol`` and, where the class has several, of ``self.fold``.

        Inputs and columns of ``present`` are of ``self.modalities``; those of modalities that are left out may be there too.
        """
        raise NotImplementedError

    def setup(self, stage: str | None = None) -> None:
        """Load the data once, whatever the stage, hold them to what the class declares, and take away what is to be missing.

        Raises:
            UsageError: a declaration, a split or a value is not as ``data.checks`` says, or ``load`` never asks for the protocol or
                the fold that it is to follow.
        """
        if self._loaded is not None:
            return
        declared = Declaration(**{f.name: getattr(self, f.name, None) for f in fields(Declaration)})
        check_declaration(declared)
        loaded = self.load()
        if not self._protocol.disjoint and not self._protocol_asked:
            raise UsageError(
                f"{self.name}: load() does not look at self.protocol, so that '{self._protocol.name}' would be 'clean' under another "
                "name; cut the splits by self.protocol.split, or leave this protocol out"
            )
        if self._fold is not None and not self._fold_asked:
            raise UsageError(
                f"{self.name}: load() does not look at self.fold, so that all of its {self.folds} folds would be one; cut the splits "
                "by self.fold, or declare no folds"
            )
        if self._declared is not None and isinstance(loaded, Loaded):
            parts = (narrowed(getattr(loaded, f.name), self._declared, self.modalities) for f in fields(Loaded))
            loaded = Loaded(*parts)
        loaded = checked(declared, self._protocol, loaded)
        if self.tuning:
            loaded = replace(loaded, test=None)
        if self.batch_size > (size := len(loaded.train)):
            print(
                f"{self.name}: batch_size is {self.batch_size}, but there are {size} training samples: every epoch is a single step. "
                "A smaller batch_size gives more of them",
                flush=True,
            )
        self._first, self.evaluation = loaded.train.rows(np.zeros(1, np.int64)), dict(self.resizing)
        for modality, cache in self.features.items():
            column = self.modalities.index(modality)
            for name in ("train", "validation", "test"):
                if (split := getattr(loaded, name)) is not None:
                    vectors = cache.read_or_encode(name, split, modality, column, self.evaluated)
                    loaded = replace(loaded, **{name: replace(split, inputs={**split.inputs, modality: vectors})})
            self.augmentations, self.resizing = (
                {m: f for m, f in t.items() if m != modality} for t in (self.augmentations, self.resizing)
            )
        validation = loaded.validation and self.masked("validation", loaded.validation)
        self._loaded = replace(loaded, train=self.masked("train", loaded.train), validation=validation)

    def encode_once(self, modality: str, encoder: nn.Module, key: str, device: str = "auto") -> None:
        """Give a frozen encoder's features in place of the raw input; they are kept for other trials.

        Args:
            modality: whose input it is.
            encoder: in evaluation mode from now on.
            key: names the raw input (data, how it is split, view) and the encoder's settings and files.
            device: "cpu", "gpu" or "auto".
        """
        self.features[modality] = FeatureCache(encoder, key, device)

    def masked(self, name: str, split: Split) -> Split:
        """The split with its fixed mask, as it is where it has none. Notes what the mask comes to."""
        if self.missing is None or self.missing.redraw or (self.missing.train_only and name != "train"):
            return split
        present = split.present.numpy()
        keep = self.missing.mask(str(self.name), split_name(name, self._fold), self.modalities, len(split))
        self.realised[name] = realised(keep, present)
        return replace(split, present=torch.from_numpy(keep & present))

    @property
    def splits(self) -> Loaded:
        """The splits; loads them where that has not happened yet."""
        self.setup()
        assert self._loaded is not None
        return self._loaded

    @property
    def example(self) -> dict[str, Input]:
        """The first training sample's inputs, (1, …), as encoders get them that are not cached; read when it is asked for."""
        self.setup()
        return self._first[0].inputs

    @property
    def spec(self) -> DataSpec:
        """The description that methods are built from."""
        counts = torch.bincount(self.splits.train.label, minlength=len(self.classes))
        widths = {**self.feature_dims, **{m: cache.width for m, cache in self.features.items()}}
        return DataSpec(self.modalities, tuple(counts.tolist()), self.conditioning, widths)

    @property
    def selection_split(self) -> Split:
        """The split on which the best epoch is chosen: by the protocol, the validation or the test split."""
        split = getattr(self.splits, self._protocol.selection)
        return self.masked("test", split) if self._protocol.selection == "test" else split

    @property
    def gathers_ahead(self) -> bool:
        """Whether a thread gathers the next batch while a step is computed: for a GPU, which else would wait for every batch."""
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"

    def loader(self, split: Split, batch_size: int, generator: torch.Generator | None = None) -> Batches | Shares:
        """The batches of a split, in an order that the generator draws, or in its own; on one of several devices, the share of each."""
        batches = Batches(
            split, batch_size=batch_size, shuffle=generator is not None, generator=generator, collate_fn=as_is
        )
        batches.ahead = self.gathers_ahead
        if self.trainer is None or self.trainer.world_size == 1:
            return batches
        whole = {*self.feature_dims, *self.features}
        return Shares(batches, self.trainer.global_rank, self.trainer.world_size, whole)

    def train_dataloader(self) -> Batches | Shares:
        """Shuffled training batches; the seed decides the order of every epoch of a run."""
        return self.loader(self.splits.train, self.batch_size, torch.Generator().manual_seed(self.seed))

    def val_dataloader(self) -> Batches | Shares:
        """The split on which the epoch is chosen."""
        return self.loader(self.selection_split, EVALUATION_BATCH)

    def test_dataloader(self) -> Batches | Shares:
        """The test split, in order.

        Raises:
            UsageError: a setting is tuned, for which there is none.
        """
        if (test := self.splits.test) is None:
            raise UsageError(
                f"{self.name}: no test split while a setting is tuned; build the data module with tuning=False"
            )
        return self.loader(test, EVALUATION_BATCH)

    predict_dataloader = test_dataloader

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augment training batches, on the device they are on; modality dropout draws their mask."""
        if self.trainer is None or not self.trainer.training:
            return self.evaluated(batch)
        if self.missing is not None and self.missing.redraw:
            keep = self.missing.draw(self.modalities, len(batch), self._redraws)
            batch.present = placed(on_host(batch.present) & torch.from_numpy(keep), batch.present.device)
        with self.own_generator.drawn_from(batch.present.device) if batch.shares else nullcontext():
            batch.inputs = transformed(batch.inputs, self.augmentations)
        return batch

    def keeps(self, modality: str) -> bool:
        """Whether the input of a sample is the same in all epochs of training, as far as is known: it is not augmented."""
        plain = type(self).on_after_batch_transfer is MultimodalDataModule.on_after_batch_transfer
        return plain and modality not in self.augmentations

    def evaluated(self, batch: Batch) -> Batch:
        """The batch as it is evaluated: not augmented, and of the size that the encoders take."""
        batch.inputs = transformed(batch.inputs, self.resizing)
        return batch


def unread(texts: Sequence[str]) -> dict[str, Tensor]:
    """What stands for the texts of a modality that is left out, for which there is no tokenizer."""
    return {"token": torch.zeros(len(texts), 1, dtype=torch.int64)}


def transformed(inputs: Mapping[str, Input], transforms: Mapping[str, Augmentation]) -> dict[str, Input]:
    """The inputs of a batch, those that have a transform transformed."""
    return {name: transforms[name](value) if name in transforms else value for name, value in inputs.items()}
