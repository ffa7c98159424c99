"""Encoders of pictures through the package timm, and ResNet-18 for pictures and for spectrograms."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from mmbench.encoders.pretrained import (
    Factor,
    Pretrained,
    Share,
    find_weights,
    load_strictly,
    mean_over_frames,
    normalise,
    read_tensors,
    without_memory,
)
from mmbench.errors import UsageError, did_you_mean

HINT = "a .safetensors file as the model's page on the Hugging Face hub has it, or a state dict by torch.save"
Count = Annotated[int, Field(ge=1)]


class TimmImage(Pretrained):
    """A model of timm without its classifier; a clip's feature is the mean over its frames.

    Pictures are normalised by the mean and the standard deviation that timm gives for the model. timm fetches nothing: published
    weights are a local file with timm's names, all of which have to fit but the classifier's. For another number of channels than
    the file's, timm adapts the first convolution (one channel: the sum over red, green and blue).

    Args:
        model: a name that timm knows.
        weights: a file in the weights folder; None: random.
        in_channels: C; for other than three, the channels' means and deviations are averaged.
        frames: how many of a clip's first frames are encoded; None: all.
        freeze: train nothing.
        lr_factor: of the recipe's learning rate.
        layer_decay: the learning rate of a layer, as timm groups them, is this times that of the layer above it.
        gradient_checkpointing: compute blocks again in the backward pass; refused for models with batch normalisation, whose running
            statistics that would move twice a step.

    Raises:
        UsageError: timm does not know the model, cannot build it so, or the file does not fit it.
    """

    model: Any
    mean: Tensor
    std: Tensor
    options: ClassVar[dict[str, Any]] = {}  # of the model, beyond what all models have

    def __init__(
        self,
        model: str = "resnet18",
        weights: str | None = None,
        in_channels: Count = 3,
        frames: Count | None = None,
        freeze: bool = False,
        lr_factor: Factor = 1.0,
        layer_decay: Share = 1.0,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__(freeze, lr_factor, layer_decay, gradient_checkpointing)
        import timm

        if not timm.is_model(model) or ":" in model:  # with a colon, timm looks for it elsewhere
            raise UsageError(f"timm has no model '{model}': {near(model, timm.list_models())}")
        try:
            self.model = timm.create_model(model, pretrained=False, num_classes=0, in_chans=in_channels, **self.options)
        except Exception as error:  # not every model has every option
            raise UsageError(f"timm cannot build {model} with {in_channels} channels as an encoder: {error}") from error
        config = self.model.pretrained_cfg
        self.out_dim: int = self.model.num_features
        self.image_size: int = config["input_size"][-1]
        self.fixed_size: bool = config.get("fixed_input_size", False)
        self.in_channels = in_channels
        self.frames = frames
        for name in ("mean", "std"):
            values = torch.tensor(config[name])
            values = values if len(values) == in_channels else values.mean().expand(in_channels).clone()
            self.register_buffer(name, values, persistent=False)  # (C,)
        if gradient_checkpointing:
            self.checkpoint_blocks(model)
        if weights is not None and not without_memory():
            self.load(find_weights(weights, HINT))
        self.adapt()

    @classmethod
    def weight_files(cls, arguments: dict[str, Any]) -> list[Path]:
        """The file of the weights, if there is one."""
        weights = arguments.get("weights")
        return [] if weights is None else [find_weights(weights, HINT)]

    def checkpoint_blocks(self, name: str) -> None:
        """Have the model's blocks computed again in the backward pass."""
        if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in self.model.modules()):
            raise UsageError(
                f"gradient_checkpointing would move the running statistics of {name}'s batch normalisation twice a step; leave it out"
            )
        try:
            self.model.set_grad_checkpointing(True)
        except (AssertionError, AttributeError) as error:
            raise UsageError(f"timm's {name} has no gradient_checkpointing; leave it out") from error

    def load(self, path: Path) -> None:
        """Load the weights without the classifier's."""
        from timm.models import adapt_input_conv

        config = self.model.pretrained_cfg
        classifiers = tuple(f"{name}." for name in names_of(config.get("classifier")))
        tensors = {name: value for name, value in read_tensors(path).items() if not name.startswith(classifiers)}
        for name in (f"{name}.weight" for name in names_of(config.get("first_conv"))):
            if name in tensors and tensors[name].dim() == 4 and tensors[name].shape[1] != self.in_channels:
                tensors[name] = adapt_input_conv(self.in_channels, tensors[name])
        load_strictly(self.model, tensors, path)

    def layers(self) -> list[list[nn.Parameter]]:
        """The parameters by timm's layers."""
        from timm.models import group_parameters

        parameters = dict(self.model.named_parameters())
        groups = group_parameters(self.model, self.model.group_matcher(coarse=False))
        return [[parameters[name] for name in groups[number]] for number in sorted(groups)]

    def forward(self, pictures: Tensor) -> Tensor:
        """Encode (B, C, H, W) or (B, T, C, H, W) uint8 pictures as (B, out_dim).

        Raises:
            UsageError: there are fewer frames than ``frames``, or the model takes pictures of ``image_size`` alone and gets others.
        """
        if self.frames is not None:
            given = pictures.shape[1] if pictures.dim() == 5 else 1
            if given < self.frames:
                raise UsageError(f"frames is {self.frames}, the data have {given} a sample")
            pictures = pictures[:, : self.frames] if pictures.dim() == 5 else pictures
        if self.fixed_size and pictures.shape[-2:] != (self.image_size, self.image_size):
            raise UsageError(
                f"expected pictures of {self.image_size} × {self.image_size}, got {pictures.shape[-2]} × {pictures.shape[-1]}"
            )
        return mean_over_frames(lambda p: self.model(normalise(p, self.mean, self.std)), pictures)


class ResNet18(TimmImage):
    """The papers' encoder of pictures: ResNet-18 (He et al., 2016), by default from scratch.

    MLA's and OGM-GE's releases draw the convolutions from Kaiming's normal distribution by their outputs and begin batch normalisation
    at scale 1 and shift 0. That is timm's initialisation but for the last scale of every block, which timm would begin at 0.
    Frames are averaged as features; as each is first averaged over its places, that is the releases' average over both.

    Args:
        in_channels: of the pictures.
        frames: how many of a clip's first frames are encoded; None: all.
        weights: a file in the weights folder, with the names that timm and torchvision share; None: random, as in the papers.
        freeze: train nothing.
        lr_factor: of the recipe's learning rate.
        layer_decay: the learning rate of a block is this times that of the block above it.
    """

    options = {"zero_init_last": False}

    def __init__(
        self,
        in_channels: Count = 3,
        frames: Count | None = None,
        weights: str | None = None,
        freeze: bool = False,
        lr_factor: Factor = 1.0,
        layer_decay: Share = 1.0,
    ) -> None:
        super().__init__("resnet18", weights, in_channels, frames, freeze, lr_factor, layer_decay)


class ResNet18Audio(ResNet18):
    """The papers' encoder of sounds: the same network on a spectrogram, as a picture of one channel.

    Args:
        standardise: ``sample``: every spectrogram minus its mean, over its standard deviation, as in DMRNet's release; ``none``: as it
            is, like the filter banks in MLA's.
        weights: as of ``ResNet18``; the first convolution is summed over red, green and blue.
        freeze: train nothing.
        lr_factor: of the recipe's learning rate.
        layer_decay: the learning rate of a block is this times that of the block above it.
    """

    def __init__(
        self,
        standardise: Literal["none", "sample"] = "none",
        weights: str | None = None,
        freeze: bool = False,
        lr_factor: Factor = 1.0,
        layer_decay: Share = 1.0,
    ) -> None:
        super().__init__(1, None, weights, freeze, lr_factor, layer_decay)
        self.standardise = standardise

    def forward(self, spectrograms: Tensor) -> Tensor:
        """Encode (B, F, T) float spectrograms, or (B, T, F) filter banks, as (B, out_dim)."""
        x = spectrograms.to(self.mean.dtype)
        if self.standardise == "sample":
            std, mean = torch.std_mean(x, dim=(1, 2), correction=0, keepdim=True)
            x = (x - mean) / std.clamp(min=1e-6)  # silence stays zero
        return self.model(x.unsqueeze(1))


def names_of(entry: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """The module names in an entry of timm's configuration, which holds one, several or none."""
    return (entry,) if isinstance(entry, str) else entry or ()


def near(name: str, known: list[str]) -> str:
    """The nearest name; where none is near, how to list them, as there are more than a thousand."""
    hint = did_you_mean(name, known)
    return hint if hint.startswith("did") else "timm.list_models() lists them"
