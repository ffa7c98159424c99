"""What a trained method leaves, so that it can be built again without data and without the files that its encoders began with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmbench.batch import Input
from mmbench.checkpoint import KEY
from mmbench.data.base import MultimodalDataModule
from mmbench.data.prepared import PreparedDataModule
from mmbench.encoders import ENCODERS
from mmbench.encoders.pretrained import Pretrained
from mmbench.errors import UsageError
from mmbench.files import atomic_write
from mmbench.models.card import CARD, FORMAT, WEIGHTS, Array, Card, File, digest_of
from mmbench.models.card import ENCODERS as FOLDER
from mmbench.packing import NotPlain, packed
from mmbench.trial import Trial

PLAIN_FILES = (".json", ".txt")
"""What of an encoder's files goes along: its configuration and its vocabulary. Its weights are among those of the model."""
MOST_PLAIN = 64 * 2**20


@dataclass
class Kept:
    """A trained model, on its way to a folder.

    Attributes:
        tensors: name -> every number of it.
        content: the fields of its card, but for what the tensors and the files come to and how the trial went.
        plain: name in the folder -> a file of an encoder.
    """

    tensors: dict[str, Tensor]
    content: dict[str, Any]
    plain: dict[str, Path]

    def write(self, folder: Path, **told: Any) -> str:
        """Write the model, its card last.

        Args:
            folder: of the trial.
            told: what else the card says: ``parameters``, ``best_epoch``, ``accuracy``, ``environment``.

        Returns:
            The SHA-256 of its card, which vouches for the other files.

        Raises:
            StoreError: the disk is full or not writable.
        """
        from safetensors.torch import save

        for name, source in self.plain.items():
            atomic_write(folder / name, source.read_bytes())
        atomic_write(folder / WEIGHTS, save({name: value.cpu().contiguous() for name, value in self.tensors.items()}))
        paths = {name: folder / name for name in (WEIGHTS, *self.plain)}
        files = {name: File(bytes=path.stat().st_size, sha256=digest_of(path)) for name, path in paths.items()}
        card = Card(**self.content, **told, files=files).to_bytes()
        atomic_write(folder / CARD, card)
        return sha256(card).hexdigest()


def check_keepable(data: MultimodalDataModule) -> None:
    """Refuse, before it is trained, a model that could not be asked afterwards.

    Raises:
        UsageError: evaluation does something to the data set's inputs that cannot be written down.
    """
    for modality, transform in data.resizing.items():
        if type(transform).__name__ != "Resize" or not isinstance(getattr(transform, "size", None), int):
            raise UsageError(
                f"a model of {data.name} cannot be kept: what evaluation does to {modality}, {type(transform).__name__}, is told of "
                "augment.Resize alone; run without --keep-models"
            )


def keep(trial: Trial, data: MultimodalDataModule, checkpoint: Mapping[str, Any]) -> Kept:
    """Take what is needed of a trained method.

    Args:
        trial: what was run.
        data: its data, loaded.
        checkpoint: of the method, as ``best_epoch.BestEpoch`` has it.

    Raises:
        UsageError: the method puts something into a checkpoint that is neither a tensor nor a plain value.
    """
    rest = {name: value for name, value in checkpoint.items() if name not in ("state_dict", KEY)}
    state = checkpoint["state_dict"]
    tensors = {f"state/{name}": value for name, value in state.items() if isinstance(value, Tensor)}
    rest["state_dict"] = {name: value for name, value in state.items() if not isinstance(value, Tensor)}
    try:
        extra = packed(rest, "extra", tensors)
    except NotPlain as error:
        raise UsageError(
            f"a model cannot be kept: the method puts {error}, into its checkpoint; expected tensors and plain values"
        ) from error
    for modality, cache in data.features.items():
        tensors |= {f"frozen/{modality}/{name}": value.clone() for name, value in cache.encoder.state_dict().items()}
    for modality, (mean, scale) in data.statistics.items():
        tensors |= {f"mean/{modality}": torch.from_numpy(mean), f"scale/{modality}": torch.from_numpy(scale)}
    content = {
        "format": FORMAT,
        "key": trial.key,
        "trial": trial,
        "spec": data.spec,
        "classes": list(data.classes),
        "texts": list(data.text_modalities),
        "inputs": {modality: described(data.example[modality]) for modality in data.modalities},
        "sizes": {modality: int(transform.size) for modality, transform in data.evaluation.items()},  # type: ignore[attr-defined]
        "standardised": list(data.statistics),
        "cached": {modality: cache.width for modality, cache in data.features.items()},
        "declaration": data.declaration() if isinstance(data, PreparedDataModule) else None,
        "data_version": getattr(data, "version", None),
        "extra": extra,
    }
    return Kept(tensors, content, plain_files(trial))


def described(sample: Input) -> Array | dict[str, Array]:
    """What a sample is, given as a batch of one."""
    if isinstance(sample, dict):
        return {name: array_of(value) for name, value in sample.items()}
    return array_of(sample)


def array_of(value: Tensor) -> Array:
    """The shape and the type of a batch's samples."""
    return Array(shape=list(value.shape[1:]), dtype=str(value.dtype).removeprefix("torch."))


def plain_files(trial: Trial) -> dict[str, Path]:
    """Name in the model's folder, such as ``encoders/title/minilm/vocab.txt`` -> configuration or vocabulary that an encoder reads."""
    found: dict[str, Path] = {}
    for modality, choice in trial.encoders.items():
        encoder = ENCODERS[choice["name"]]
        if not issubclass(encoder, Pretrained):
            continue
        for file in encoder.weight_files(choice):
            if file.suffix in PLAIN_FILES and file.stat().st_size <= MOST_PLAIN:
                found[f"{FOLDER}/{modality}/{file.parent.name}/{file.name}"] = file
    return found
