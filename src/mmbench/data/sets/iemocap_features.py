"""IEMOCAP as feature vectors: the data on which the MLA paper's table of missing rates is computed. Gated, so not shipped."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch

from mmbench.batch import Input
from mmbench.data.base import MultimodalDataModule
from mmbench.data.folds import Parts
from mmbench.data.split import Loaded, Split
from mmbench.errors import UsageError, did_you_mean
from mmbench.files import data_root

WIDTHS = {"audio": 512, "image": 1024, "text": 1024}
UTTERANCE = re.compile(r"Ses0[1-5][A-Za-z0-9_-]*_[A-Za-z0-9-]+")  # nothing in it can lead to another folder
VERSION = 1
"""Raised when samples, splits or inputs change while the files do not."""


@contextmanager
def readable() -> Iterator[None]:
    """Turn the system's error about a file into one that is printed as a message."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"{error.filename}: expected a readable file, got '{error.strerror}'") from error


class IemocapFeatures(MultimodalDataModule):
    """Utterances of ten actors in five sessions, with four emotions; a feature vector for each modality.

    The user lays out, in the folder that the environment variable MMBENCH_DATA names (default: ``data``)::

        iemocap_features/labels.csv             columns utterance,label; happy includes excited; 5,531 rows
        iemocap_features/audio/<utterance>.npy  (512,) float; the papers take wav2vec
        iemocap_features/image/<utterance>.npy  (1024,) float; MA-Net
        iemocap_features/text/<utterance>.npy   (1024,) float; DeBERTa

    ``clean`` trains on sessions 1 to 3, chooses the epoch on session 4 and tests on session 5: no actor and no dialogue is in two
    splits. ``legacy`` splits the utterances at random, 60/20/20 as the MLA paper's code does; it leaves the middle part out.
    Of five folds, the kth one (from 0) tests session k + 1 and chooses the epoch on the next one; of the fifth, that is session 1.
    Every dimension is standardised by the training split's mean and standard deviation (1 where it is constant there).

    Inputs: (B, width) float32, never absent. Groups are dialogues.
    """

    name = "iemocap_features"
    modalities = tuple(WIDTHS)
    classes = ("neutral", "angry", "sad", "happy")
    conditioning = "audio"
    folds = 5
    folded_by = "session"
    encoders = {modality: {"name": "mlp", "in_dim": width, "dropout": 0.5} for modality, width in WIDTHS.items()}
    feature_dims = WIDTHS

    @staticmethod
    def folder() -> Path:
        """Where the user puts the files."""
        return data_root() / "iemocap_features"

    @classmethod
    def prepared(cls) -> str | None:
        """What is wrong with the labels or missing of the files; what the features hold is for ``load`` to check."""
        try:
            cls.index()
        except UsageError as error:
            return str(error)
        return None

    @classmethod
    @readable()
    def manifest(cls) -> str:
        """The version, and a SHA-256 of labels.csv and of its utterances' features in the order of their names."""
        labels, folder = cls.index()[0], cls.folder()
        files = [folder / "labels.csv", *(folder / m / f"{utterance}.npy" for m in WIDTHS for utterance in labels)]
        return f"{VERSION}-{sha256(b''.join(sha256(path.read_bytes()).digest() for path in files)).hexdigest()}"

    @classmethod
    @readable()
    def index(cls) -> tuple[dict[str, int], int]:
        """Utterance -> number of its class, sorted; and how many feature files no label belongs to. Raises UsageError."""
        folder, table = cls.folder(), cls.folder() / "labels.csv"
        if not confined(table, folder).is_file():
            layout = ", ".join(f"{modality}/<utterance>.npy ({width} floats)" for modality, width in WIDTHS.items())
            raise UsageError(
                f"{table} is missing; IEMOCAP is gated: extract its features, and put labels.csv (columns utterance,label), "
                f"{layout} into {folder}, or set MMBENCH_DATA to the folder that holds iemocap_features"
            )
        labels, missing, unused = read_labels(table, cls.classes), [], 0
        for modality in WIDTHS:
            files = confined(folder / modality, folder).glob("*.npy")
            found = {path.stem for path in files if confined(path, folder).is_file()}
            missing += [f"{modality}/{utterance}.npy" for utterance in labels if utterance not in found]
            unused += len(found - labels.keys())
        if missing:
            raise UsageError(
                f"{folder}: {len(missing)} feature files of utterances in labels.csv are missing, the first of them {missing[0]}; "
                "delete the row or extract the feature"
            )
        return labels, unused

    @classmethod
    def parts(cls, names: Sequence[str] | None = None) -> Parts:
        """The sessions."""
        names = list(cls.index()[0]) if names is None else names
        return Parts.of(names, [int(name[4]) - 1 for name in names], cls.folds, "iemocap folds")

    @classmethod
    def split_ids(cls, protocol: str = "clean", fold: int | None = None) -> dict[str, list[str]]:
        """Split -> its utterances, sorted; those of ``legacy`` where they are drawn, in the order of their hashes."""
        names = list(cls.index()[0])
        rows = zip(("train", "validation", "test"), cls(protocol, fold=fold).cut(names), strict=True)
        return {split: [names[row] for row in own] for split, own in rows if len(own)}

    def load(self) -> Loaded:
        """Read every feature, standardise it and cut the protocol's splits."""
        labels, unused = self.index()
        if unused:
            print(f"{self.name}: {unused} feature files of utterances without a label (not used)")
        names = list(labels)
        train, validation, test = self.cut(names)
        inputs: dict[str, Input] = {}
        for modality in self.modalities:
            files = (self.folder() / modality / f"{name}.npy" for name in names)
            vectors = np.stack([read_vector(file, WIDTHS[modality]) for file in files])
            self.statistics[modality] = mean, scale = moments(vectors[train])
            inputs[modality] = torch.from_numpy(((vectors - mean) / scale).astype(np.float32))
        dialogue = np.unique([name.rpartition("_")[0] for name in names], return_inverse=True)[1]
        present = torch.ones(len(names), len(WIDTHS), dtype=torch.bool)
        whole = Split(inputs, present, torch.tensor(list(labels.values())), torch.from_numpy(dialogue))
        return Loaded(whole.rows(train), whole.rows(validation) if len(validation) else None, whole.rows(test))

    def cut(self, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The numbers of the samples of training, validation (none under ``legacy``) and test."""
        if self.fold is not None:
            return self.parts(names).rows(self.protocol.split, self.fold)
        if self.protocol.split == "legacy":  # at random, yet the same with every version of numpy: by the names' hashes
            order = np.array(sorted(range(len(names)), key=lambda row: sha256(names[row].encode()).digest()))
            return order[: len(names) * 6 // 10], order[:0], order[len(names) * 8 // 10 :]
        session = np.array([int(name[4]) for name in names])
        return np.flatnonzero(session <= 3), np.flatnonzero(session == 4), np.flatnonzero(session == 5)


def confined(path: Path, folder: Path) -> Path:
    """The path, unless it is a symbolic link that leads out of the folder."""
    if path.is_symlink() and not Path(target := os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
        raise UsageError(f"{path} is a link to {target}; expected the file itself, or a link that stays in {folder}")
    return path


def read_labels(path: Path, classes: Sequence[str]) -> dict[str, int]:
    """Utterance -> the number of its class, sorted by utterance."""
    try:
        # A row is a line, whatever quotation marks are in it: one that is not closed must not swallow the next row.
        text = path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
        rows = [(n, next(csv.reader([line]))) for n, line in enumerate(text.split("\n"), start=1) if line.strip()]
        names = rows[0][1] if rows else []
        if not {"utterance", "label"} <= set(names):
            raise UsageError(f"{path}: expected the columns utterance,label, got {names or 'an empty file'}")
        labels: dict[str, int] = {}
        for number, row in rows[1:]:
            cells = dict(zip(names, row, strict=False))
            where, utterance, label = f"{path}, line {number}", cells.get("utterance", ""), cells.get("label", "")
            if not UTTERANCE.fullmatch(utterance):
                raise UsageError(
                    f"{where}: no session can be read from the utterance {utterance!r}; expected a name such as "
                    "Ses01F_impro01_F000: Ses01 to Ses05, then letters, digits, '_' and '-'"
                )
            if utterance in labels:
                raise UsageError(f"{where}: utterance '{utterance}' is given twice, expected one row for each")
            if label not in classes:
                raise UsageError(f"{where}: unknown label '{label}': {did_you_mean(label, classes)}")
            labels[utterance] = classes.index(label)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path}: expected comma-separated values in UTF-8 ({error})") from error
    if empty := sorted({1, 2, 3, 4, 5} - {int(utterance[4]) for utterance in labels}):
        raise UsageError(f"{path}: no utterance of session {empty[0]}; expected all five, so that no split is empty")
    return dict(sorted(labels.items()))


def read_vector(path: Path, width: int) -> np.ndarray:
    """The vector (width,) float32 of a file that holds it as (width,) or (1, width)."""
    expected = f"expected {width} floats as np.save writes them"
    try:
        array = np.lib.format.open_memmap(path, mode="r")  # refuses a shape that the file does not fill
    except Exception as error:  # numpy's errors about a damaged header are of many kinds
        raise UsageError(f"{path}: {expected}, got no such array ({error})") from error
    if array.ndim == 2 and array.shape[0] > 1 and array.shape[1] == width:
        raise UsageError(f"{path}: {expected}, got {array.shape[0]} steps of {width}; average over time first")
    if array.shape not in ((width,), (1, width)) or not np.issubdtype(array.dtype, np.floating):
        raise UsageError(f"{path}: {expected}, got {array.dtype} of shape {array.shape}")
    with np.errstate(over="ignore"):
        vector = array.reshape(width).astype(np.float32)
    if not np.isfinite(vector).all():
        raise UsageError(f"{path}: {expected}, got NaN or an infinite value")
    return vector


def moments(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean and the standard deviation (D,) float64 of vectors (N, D); the deviation is 1 where they do not differ."""
    fitted = vectors.astype(np.float64)
    return fitted.mean(axis=0), np.where(np.ptp(fitted, axis=0) == 0, 1, fitted.std(axis=0))
