"""CAV-MAE: the audio branch of a contrastive audio-visual masked autoencoder."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mmbench.encoders.blocks import Blocks, refuse_tiny, sincos_grid
from mmbench.encoders.pretrained import Factor, Share, check_layout, find_weights, read_tensors, without_memory
from mmbench.errors import UsageError

SIZES = {"tiny": (64, 2, 4), "base": (768, 12, 12)}
"""Width, blocks (all but the last are the audio branch's own) and heads."""

FRAMES, MELS, PATCH = 1024, 128, 16
MEAN, STD = -5.081, 4.4849  # of AudioSet's log-mel energies

UNUSED = re.compile(
    r"(decoder_)?(modality|pos_embed)_[av]|patch_embed_v\.proj\.(weight|bias)|mask_token"
    r"|(blocks_[av]\.(\d|10)|blocks_u\.0|decoder_blocks\.[0-7])\.(norm[12](_[av])?|attn\.(qkv|proj)|mlp\.fc[12])\.(weight|bias)"
    r"|(norm(_v)?|decoder_(embed|norm|pred_[av])|mlp_head\.[01])\.(weight|bias)"
)


class CavMae(Blocks):
    """The audio branch of CAV-MAE (Gong et al., 2023, arXiv 2210.07839), as that paper's code runs it on audio alone.

    The spectrogram, standardised by AudioSet's mean and deviation, is laid on its side (128 × 1024) and cut into 8 × 64 patches of
    16 × 16, frequency by frequency; a learned embedding of their places, which starts as sines and cosines, and one of the modality;
    eleven blocks of the audio branch and the block that audio and video share, with its norms for audio. There is no class token; the
    feature is the mean over the patches. GELU is exact, norms have eps 1e-5. Loading is tested on files of the published layout, not on
    the published files. https://github.com/YuanGongND/cav-mae

    Args:
        size: ``base`` is the published model; ``tiny`` (64 wide, 2 blocks, 4 heads) is for trying things out.
        weights: a file in the weights folder, ``.pth`` as published, pretrained or fine-tuned; None: random weights.
        freeze: train nothing.
        lr_factor: of the recipe's learning rate.
        layer_decay: the learning rate of a block is this times that of the block above it.
        gradient_checkpointing: save memory at the price of a second forward pass.
    """

    def __init__(
        self,
        size: Literal["tiny", "base"] = "base",
        weights: str | None = None,
        freeze: bool = False,
        lr_factor: Factor = 1.0,
        layer_decay: Share = 1.0,
        gradient_checkpointing: bool = False,
    ) -> None:
        refuse_tiny(size, weights)
        width, depth, heads = SIZES[size]
        super().__init__(
            width,
            depth,
            heads,
            eps=1e-5,
            gelu="none",
            freeze=freeze,
            lr_factor=lr_factor,
            layer_decay=layer_decay,
            gradient_checkpointing=gradient_checkpointing,
        )
        self.patches = nn.Conv2d(1, width, PATCH, stride=PATCH)
        self.positions = nn.Parameter(sincos_grid(MELS // PATCH, FRAMES // PATCH, width)[None])
        self.modality = nn.Parameter(nn.init.normal_(torch.empty(1, 1, width), std=0.02))
        nn.init.xavier_uniform_(self.patches.weight.view(width, -1))
        self.initialise()
        if weights and not without_memory():
            self.load(weights)
        self.adapt()

    @classmethod
    def weight_files(cls, arguments: dict[str, Any]) -> list[Path]:
        """The checkpoint, if one is named."""
        return [cav_mae_weights(arguments["weights"])] if arguments.get("weights") else []

    def published(self) -> dict[str, str]:
        """The parameters by their names here: their names in the published weights."""
        last = f"blocks.{len(self.blocks) - 1}."
        inputs = {
            "patches": "patch_embed_a.proj",
            "positions": "pos_embed_a",
            "modality": "modality_a",
            "norm": "norm_a",
        }
        names = {}
        for ours in self.state_dict():
            if ours.startswith(last):
                names[ours] = re.sub(r"(norm\d)", r"\1_a", ours.replace(last, "blocks_u.0."))
            elif ours.startswith("blocks."):
                names[ours] = ours.replace("blocks.", "blocks_a.", 1)
            else:
                module, dot, kind = ours.partition(".")
                names[ours] = inputs[module] + dot + kind
        return names

    def load(self, weights: str) -> None:
        """Load published weights; every tensor of the branch is used, and the file may hold no others than the layout's."""
        path = cav_mae_weights(weights)
        found = {
            key.removeprefix("module."): value for key, value in read_tensors(path).items()
        }  # of parallel training
        names, own = self.published(), self.state_dict()
        check_layout(path, found, {theirs: tuple(own[ours].shape) for ours, theirs in names.items()}, UNUSED)
        self.load_state_dict({ours: found[theirs] for ours, theirs in names.items()})

    def forward(self, audio: Tensor) -> Tensor:
        """Encode log-mel energies (B, 1024, 128) float16 or float32, not standardised, as (B, D)."""
        if audio.shape[1:] != (FRAMES, MELS) or not audio.is_floating_point():
            raise UsageError(
                f"CAV-MAE takes log-mel energies (B, {FRAMES}, {MELS}) float, got {tuple(audio.shape)} "
                f"{str(audio.dtype).removeprefix('torch.')}"
            )
        normal = (audio.float() - MEAN) / STD
        patches = self.patches(normal.transpose(1, 2)[:, None])  # (B, D, 8, 64)
        return self.encode(patches.flatten(2).transpose(1, 2) + self.positions + self.modality).mean(dim=1)


def cav_mae_weights(name: str) -> Path:
    """The checkpoint of this name."""
    return find_weights(name, "CAV-MAE's weights, .pth as https://github.com/YuanGongND/cav-mae offers them")
