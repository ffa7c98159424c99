"""Features of frozen encoders, and others that take their time: made once, kept on disk, given to all trials that ask for the same."""

from __future__ import annotations

import fcntl
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from mmbench.batch import Batch
from mmbench.errors import DataError
from mmbench.files import atomic_write, data_root
from mmbench.precision import computing

if TYPE_CHECKING:
    from mmbench.data.split import Split

ROWS = 64  # a step of encoding


class Given(nn.Identity):
    """The encoder of a modality whose features have been computed already: (B, out_dim) as they are."""

    def __init__(self, out_dim: int) -> None:
        super().__init__()
        self.out_dim = out_dim


def path_of(key: str) -> Path:
    """Where vectors are kept that a key names: ``<MMBENCH_DATA>/cache/<hash>.npy``."""
    return data_root() / "cache" / f"{sha256(key.encode()).hexdigest()}.npy"


def read_or_make(path: Path, shape: tuple[int, int], make: Callable[[], Tensor]) -> Tensor:
    """Vectors (N, D) float32 from their file; they are made, and the file is written, where there is none or a damaged one.

    Raises:
        OSError: the folder cannot be made or locked.
        StoreError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:  # trials that start together wait for the first of them
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (stored := read(path, shape)) is not None:
            return stored
        vectors, content = make(), BytesIO()
        np.save(content, vectors.numpy())
        atomic_write(path, content.getvalue() + sha256(content.getvalue()).digest())
        return vectors


def read(path: Path, shape: tuple[int, int]) -> Tensor | None:
    """The vectors of a file; None if there is none, or it is not as it should be.

    The 32 bytes behind the array are the SHA-256 of what is before them.
    """
    try:
        content = path.read_bytes()
        if sha256(memoryview(content)[:-32]).digest() != content[-32:]:
            return None
        stored = np.lib.format.open_memmap(path, mode="r")  # refuses a shape that the file does not fill
    except Exception:  # none yet, or a damaged header, about which numpy's errors are of many kinds
        return None
    whole = stored.shape == shape and stored.dtype == np.float32 and np.isfinite(stored).all()
    return torch.from_numpy(np.array(stored)) if whole else None


class FeatureCache:
    """What a frozen encoder makes of the splits of one modality.

    Files are named after the key and all the encoder's values: another seed of a random encoder is another file. Features are of data
    that are not augmented.

    Args:
        encoder: any module with an ``out_dim``; it is put into evaluation mode.
        key: names the raw input, and everything about the encoder that is not among its parameters and buffers.
        device: where it runs: "cpu", "gpu" or "auto".
    """

    def __init__(self, encoder: nn.Module, key: str, device: str = "auto") -> None:
        self.encoder = encoder.eval().requires_grad_(False)
        self.width = int(encoder.out_dim)  # type: ignore[arg-type]
        gpu = device == "gpu" or (device == "auto" and torch.cuda.is_available())
        self.device = torch.device("cuda" if gpu else "cpu")
        digest = sha256(f"{key}\n{encoder!r}\n".encode())
        for name, value in encoder.state_dict().items():
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
        self.name = digest.hexdigest()

    def path(self, split: str, rows: int) -> Path:
        """The file of a split."""
        return path_of(f"{self.name} {split} {rows}")

    def read_or_encode(
        self, name: str, split: Split, modality: str, column: int, prepare: Callable[[Batch], Batch]
    ) -> Tensor:
        """The features (N, width) float32 of a split; zero where the modality is absent.

        Args:
            name: the split's.
            split: the samples.
            modality: whose input is encoded.
            column: its column in ``split.present``.
            prepare: what evaluation does to a batch first.

        Raises:
            DataError: a feature is not finite.
        """

        def make() -> Tensor:
            features = self.encode(split, modality, column, prepare)
            if not features.isfinite().all():
                raise DataError(f"the frozen encoder of {modality} gives features that are not finite ({name} split)")
            return features

        return read_or_make(self.path(name, len(split)), (len(split), self.width), make)

    @torch.no_grad()
    def encode(self, split: Split, modality: str, column: int, prepare: Callable[[Batch], Batch]) -> Tensor:
        """Run the encoder on the samples that have the modality, in float32: trials of any precision share the file.

        It leaves the device again.
        """
        encoder = self.encoder.to(self.device)
        features, split = torch.zeros(len(split), self.width), replace(split, inputs={modality: split.inputs[modality]})
        with computing("32-true"):
            for rows in split.present[:, column].nonzero().squeeze(1).split(ROWS):
                batch = prepare(split.__getitems__(rows).to(self.device))
                features[rows] = encoder(batch.inputs[modality]).float().cpu()
        encoder.to("cpu")
        return features
