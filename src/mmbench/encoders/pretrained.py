"""What encoders with published weights share: where the weights lie, how they are read, and how much of the encoder is trained."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from mmap import ACCESS_READ, mmap
from pathlib import Path
from pickle import UnpicklingError
from typing import Annotated, Any, Self
from zipfile import ZipFile

import torch
from pydantic import Field
from torch import Tensor, nn

from mmbench.encoders.rebuilt import Rebuildable
from mmbench.errors import UsageError
from mmbench.files import user_path

Share = Annotated[float, Field(gt=0, le=1)]
Factor = Annotated[float, Field(gt=0)]


def weights_folder() -> Path:
    """Where published weights lie: the folder that the environment variable MMBENCH_WEIGHTS names (default: ``weights``)."""
    return user_path(os.environ.get("MMBENCH_WEIGHTS") or "weights")


def weights_path(name: str) -> Path:
    """Where the file or folder of this name is to be, in the weights folder.

    Raises:
        UsageError: the name leads elsewhere.
    """
    if name in ("", ".", "..") or Path(name).name != name:
        raise UsageError(f"weights '{name}': expected the bare name of a file or folder in {weights_folder()}")
    return weights_folder() / name


def find_weights(name: str, hint: str) -> Path:
    """The file or folder of this name in the weights folder.

    Args:
        name: of a file or a folder; a bare name, never a path.
        hint: what it is and where it is to be had, for the message if it is missing.

    Raises:
        UsageError: it is not there, or the name leads elsewhere.
    """
    path = weights_path(name)
    if not path.exists():
        raise UsageError(
            f"weights '{name}' are missing; expected in {weights_folder()} (or where MMBENCH_WEIGHTS says): {hint}"
        )
    return path


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a ``.safetensors`` file, or of what ``torch.save`` wrote of a state dict; nothing in it is executed.

    Raises:
        UsageError: it is neither, or its tensors are larger than the file.
    """
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":  # its tensors fill the file without gaps or overlaps, or it is refused
            return load_file(path)
        refuse_expansion(path)
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:  # torch's message says how to have it executed
        raise UsageError(
            f"{path}: expected a state dict by torch.save; it is damaged, or holds other things than tensors"
        ) from error
    except Exception as error:  # a damaged file fails in many ways
        reason = str(error).partition("\n")[0]
        raise UsageError(f"{path}: expected a .safetensors file, or a state dict by torch.save; {reason}") from error
    if not isinstance(tensors, Mapping) or not all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in tensors.items()
    ):
        raise UsageError(f"{path}: expected a state dict, which maps names to tensors and holds nothing else")
    storages = {}
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or not tensor.is_cpu or tensor.is_quantized or tensor.is_nested:
            raise UsageError(f"{path}: '{name}' is no plain tensor of numbers")
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        if tensor.nbytes > storage.nbytes():
            raise UsageError(f"{path}: '{name}' repeats the {storage.nbytes():,} bytes it has as {tuple(tensor.shape)}")
    if (held := sum(storages.values())) > path.stat().st_size:
        raise UsageError(f"{path}: its tensors have {held:,} bytes, more than the file")
    return dict(tensors)


def refuse_expansion(path: Path) -> None:
    """Refuse a file by torch.save that would become larger than it is: torch.save compresses nothing.

    Raises:
        ValueError: it is compressed, or has an array made of a length alone.
    """
    if not (size := path.stat().st_size):
        return
    with path.open("rb") as stream, mmap(stream.fileno(), 0, access=ACCESS_READ) as content:
        if content[:2] == b"PK":
            with ZipFile(stream) as archive:
                if (unpacked := sum(entry.file_size for entry in archive.infolist())) > size:
                    raise ValueError(f"it unpacks to {unpacked:,} bytes from {size:,}, torch.save compresses nothing")
        if content.find(b"\nbytearray\n") >= 0:  # torch.load allows it, of any length
            raise ValueError("it makes a bytearray, of which no state dict has need")


def load_strictly(module: nn.Module, tensors: Mapping[str, Tensor], source: Path) -> None:
    """Fill a module by a state dict that fits it exactly.

    Raises:
        UsageError: a key is missing, is not of the module, or has another shape; the message names them.
    """
    counters = ".num_batches_tracked"  # old files lack these; they have no effect
    own = module.state_dict().items()
    check_layout(source, tensors, {n: value.shape for n, value in own if n in tensors or not n.endswith(counters)})
    module.load_state_dict(tensors, strict=False)


def check_layout(
    source: Path,
    given: Mapping[str, Tensor],
    expected: Mapping[str, Sequence[int]],
    unused: re.Pattern[str] | None = None,
) -> None:
    """Refuse tensors of another layout.

    Args:
        source: their file.
        given: tensors by name.
        expected: the shapes of those that an encoder needs.
        unused: matches the names of the layout's other tensors; None: it has no others.

    Raises:
        UsageError: a tensor is missing, is not of this layout, or has another shape; the message names them.
    """
    known = [name for name in given if name in expected or (unused and unused.fullmatch(name))]
    refuse_misfits(
        source,
        missing=[name for name in expected if name not in given],
        unknown=[name for name in given if name not in known],
        misshapen=[(n, given[n].shape, s) for n, s in expected.items() if n in given and given[n].shape != tuple(s)],
    )


def refuse_misfits(
    source: Path,
    missing: Sequence[str],
    unknown: Sequence[str],
    misshapen: Sequence[tuple[str, Sequence[int], Sequence[int]]],
) -> None:
    """Raise a UsageError that names the keys of a file that do not fit a model, if there are any.

    Args:
        source: the file.
        missing: keys that it lacks.
        unknown: keys that the model does not have.
        misshapen: keys with the shape in the file and the shape expected.
    """
    mistakes = [
        *(f"{name} is missing" for name in missing),
        *(f"{name} is not of this model" for name in unknown),
        *(f"{name} is of shape {tuple(got)}, expected {tuple(expected)}" for name, got, expected in misshapen),
    ]
    if mistakes:
        shown, more = mistakes[:6], len(mistakes) - 6
        rest = f", and {more} more" if more > 0 else ""
        raise UsageError(f"{source} does not hold the weights of this model: {', '.join(shown)}{rest}")


def fingerprint(paths: Sequence[Path]) -> str:
    """A SHA-256 of files, and of all files in folders, with their names."""
    digest = sha256()
    for path in paths:
        for file in files_in(path) if path.is_dir() else [path]:
            with file.open("rb") as stream:
                content = sha256()
                while chunk := stream.read(1 << 20):
                    content.update(chunk)
            digest.update(f"{file.relative_to(path.parent)}\0{content.hexdigest()}\n".encode())
    return digest.hexdigest()


def files_in(folder: Path) -> list[Path]:
    """All files in a folder, sorted; of folders that links lead to as well, each folder once."""
    seen, files = set(), []
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if os.path.realpath(Path(place, name)) not in seen)
        seen |= {os.path.realpath(Path(place, name)) for name in folders}
        files += [path for name in names if (path := Path(place, name)).is_file()]
    return sorted(files)


def without_memory() -> bool:
    """Whether modules are being built on the meta device, where there are no values to load."""
    return torch.get_default_device().type == "meta"


def normalise(pictures: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Pictures (…, C, H, W) of 0 to 255 as floats of 0 to 1, minus the mean (C,), over the standard deviation (C,) of a channel."""
    return (pictures.to(mean.dtype) / 255 - mean[:, None, None]) / std[:, None, None]


def mean_over_frames(encode: Callable[[Tensor], Tensor], pictures: Tensor) -> Tensor:
    """Encode pictures (B, C, H, W), or the T frames of clips (B, T, C, H, W), whose features are averaged: (B, D)."""
    if pictures.dim() == 4:
        return encode(pictures)
    size, frames = pictures.shape[:2]
    return encode(pictures.flatten(0, 1)).unflatten(0, (size, frames)).mean(dim=1)


def in_layers(
    module: nn.Module, blocks: Iterable[nn.Module], top: Sequence[nn.Module] = ()
) -> list[list[nn.Parameter]]:
    """The parameters before the blocks, those of each block, and those of what comes after them, for ``Pretrained.layers``."""
    later = [list(block.parameters()) for block in blocks]
    later += [[p for last in top for p in last.parameters()]]
    known = {id(p) for layer in later for p in layer}
    layers = [[p for p in module.parameters() if id(p) not in known], *later]
    return [layer for layer in layers if layer]


class Pretrained(Rebuildable, nn.Module):
    """An encoder of which all, a part or nothing is trained.

    A subclass builds its modules, loads its weights unless ``without_memory()``, and calls ``self.adapt()`` last.

    Args:
        freeze: train nothing; the encoder stays in evaluation mode.
        lr_factor: of the recipe's learning rate.
        layer_decay: the learning rate of a layer is this times that of the layer above it (1: the same).
        gradient_checkpointing: keep only the inputs of the blocks for the backward pass, and compute the rest again.
    """

    out_dim: int

    def __init__(
        self,
        freeze: bool = False,
        lr_factor: float = 1.0,
        layer_decay: float = 1.0,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.freeze = freeze
        self.lr_factor = lr_factor
        self.layer_decay = layer_decay
        self.gradient_checkpointing = gradient_checkpointing

    @classmethod
    def weight_files(cls, arguments: dict[str, Any]) -> list[Path]:
        """The files and folders that an encoder with these arguments reads; their content is part of what a result depends on.

        Raises:
            UsageError: one of them is missing.
        """
        raise NotImplementedError

    def layers(self) -> list[list[nn.Parameter]]:
        """The parameters from the input to the output, those of one layer together; ``layer_decay`` counts from the end."""
        return [list(self.parameters())]

    def adapt(self) -> None:
        """Freeze what is to be frozen, and set the mode: what loads published weights may leave any, and Lightning keeps it."""
        if self.freeze:
            self.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> Self:
        """Set the mode; a frozen encoder stays in evaluation mode."""
        return super().train(mode and not self.freeze)

    def parameter_groups(self) -> list[tuple[float, list[nn.Parameter]]]:
        """Trainable parameters with the factor of their learning rate, input first."""
        layers = self.layers()
        groups = [
            (self.lr_factor * self.layer_decay**above, [p for p in layer if p.requires_grad])
            for above, layer in zip(range(len(layers) - 1, -1, -1), layers, strict=True)
        ]
        return [(factor, parameters) for factor, parameters in groups if parameters]
