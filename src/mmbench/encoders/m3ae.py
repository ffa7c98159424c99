"""M3AE: a masked autoencoder's encoder of pictures or of texts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from mmbench.encoders.blocks import Blocks, refuse_tiny, sincos, sincos_grid
from mmbench.encoders.checkpoints import load_m3ae
from mmbench.encoders.pretrained import (
    Factor,
    Share,
    check_layout,
    find_weights,
    mean_over_frames,
    normalise,
    weights_path,
    without_memory,
)
from mmbench.errors import UsageError

Size = Literal["tiny", "small", "base", "large"]
SIZES = {"tiny": (64, 2, 4), "small": (384, 12, 6), "base": (768, 12, 12), "large": (1024, 24, 16)}
"""Width, blocks and heads."""

PATCH, IMAGE_SIZE = 16, 256
MEAN, STD = (0.5762, 0.5503, 0.5213), (0.3207, 0.3169, 0.3307)  # of the pictures of CC12M
VOCABULARY = 30522  # of bert-base-uncased
TOKENIZER = "bert-base-uncased"

MODULES = {
    "norm1": "LayerNorm_0",
    "attn.qkv": "Attention_0/Dense_0",
    "attn.proj": "Attention_0/Dense_1",
    "norm2": "LayerNorm_1",
    "mlp.fc1": "TransformerMLP_0/fc1",
    "mlp.fc2": "TransformerMLP_0/fc2",
}
"""The modules of a block by their names here: their names in the published weights."""

UNUSED = re.compile(
    r"decoder[/_].+|(image|text)_mask_embedding|encoder_(image|text)_type_embedding"
    r"|image_embedding/(kernel|bias)|text_embedding/embedding"
)


class M3AE(Blocks):
    """What M3AE's encoders of pictures and of texts share."""

    modality: ClassVar[str]
    inputs: ClassVar[dict[str, str]]
    """The parameters that make the tokens by their names here: their names in the published weights."""
    positions: Tensor

    def __init__(self, size: Size, weights: str | None, **pretrained: Any) -> None:
        refuse_tiny(size, weights)
        width, depth, heads = SIZES[size]
        super().__init__(width, depth, heads, eps=1e-6, gelu="tanh", **pretrained)
        self.cls_token = nn.Parameter(nn.init.normal_(torch.empty(1, 1, width), std=0.02))
        self.type_embedding = nn.Parameter(nn.init.normal_(torch.empty(1, 1, width), std=0.02))

    @classmethod
    def weight_files(cls, arguments: dict[str, Any]) -> list[Path]:
        """The checkpoint, if one is named."""
        return [m3ae_weights(arguments["weights"])] if arguments.get("weights") else []

    def published(self) -> dict[str, str]:
        """The parameters by their names here: their paths in the published tree."""
        names = {
            "cls_token": "cls_token",
            "type_embedding": f"encoder_{self.modality}_type_embedding",
            **self.inputs,
            "norm.weight": "encoder/LayerNorm_0/scale",
            "norm.bias": "encoder/LayerNorm_0/bias",
        }
        for i in range(len(self.blocks)):
            for ours, theirs in MODULES.items():
                weight = "scale" if "Norm" in theirs else "kernel"
                names[f"blocks.{i}.{ours}.weight"] = f"encoder/Block_{i}/{theirs}/{weight}"
                names[f"blocks.{i}.{ours}.bias"] = f"encoder/Block_{i}/{theirs}/bias"
        return names

    def load(self, weights: str) -> None:
        """Load published weights; every tensor of the encoder is used, and the file may hold no others than the layout's."""
        path = m3ae_weights(weights)
        found = load_m3ae(path)
        names = self.published()
        shapes = {
            names[ours]: tuple(p.shape)[::-1]
            if names[ours].endswith("kernel")
            else tuple(p.shape)  # Dense is x @ kernel
            for ours, p in self.named_parameters()
        }
        width = found["cls_token"].shape[-1] if "cls_token" in found else self.out_dim
        if width != self.out_dim and (fits := [size for size in SIZES if SIZES[size][0] == width]):
            raise UsageError(f"{path}: 'cls_token' is {width} wide, expected {self.out_dim}; set size: {fits[0]}")
        check_layout(path, found, shapes, UNUSED)
        self.load_state_dict(
            {ours: found[theirs].T if theirs.endswith("kernel") else found[theirs] for ours, theirs in names.items()}
        )


class M3AEImage(M3AE):
    """The M3AE encoder (Geng et al., 2022, arXiv 2205.14204) of pictures alone.

    Patches of 16 × 16 pixels, a sine-cosine embedding of their places and a learned type embedding; a class token before them; GELU
    in its tanh approximation and norms with eps 1e-6, as in flax. The feature is the mean over all output tokens, the class token among
    them, as in the MLA paper's code. Loading is tested on files of the published layout, not on the published files.
    https://github.com/young-geng/m3ae_public

    Departures:
        1. Pictures are normalised as M3AE was trained, by CC12M's statistics; the MLA paper's code takes ImageNet's.

    Args:
        size: of the published models; ``tiny`` (64 wide, 2 blocks, 4 heads) is for trying things out and has no published weights.
        weights: a file in the weights folder, ``.pkl`` as published or ``.safetensors`` as converted; None: random weights.
        freeze: train nothing.
        lr_factor: of the recipe's learning rate.
        layer_decay: the learning rate of a block is this times that of the block above it.
        gradient_checkpointing: save memory at the price of a second forward pass.
    """

    modality = "image"
    inputs = {"patches.weight": "image_embedding/kernel", "patches.bias": "image_embedding/bias"}
    image_size = IMAGE_SIZE
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        size: Size = "base",
        weights: str | None = None,
        freeze: bool = False,
        lr_factor: Factor = 1.0,
        layer_decay: Share = 1.0,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__(
            size,
            weights,
            freeze=freeze,
            lr_factor=lr_factor,
            layer_decay=layer_decay,
            gradient_checkpointing=gradient_checkpointing,
        )
        side = IMAGE_SIZE // PATCH
        self.patches = nn.Linear(PATCH * PATCH * 3, self.out_dim)
        self.register_buffer("positions", sincos_grid(side, side, self.out_dim), persistent=False)
        self.register_buffer("mean", torch.tensor(MEAN), persistent=False)
        self.register_buffer("std", torch.tensor(STD), persistent=False)
        self.initialise()
        if weights and not without_memory():
            self.load(weights)
        self.adapt()

    def forward(self, image: Tensor) -> Tensor:
        """Encode pictures (B, 3, 256, 256) uint8 as (B, D); of frames (B, T, 3, 256, 256) the features are averaged."""
        if image.shape[-3:] != (3, IMAGE_SIZE, IMAGE_SIZE) or image.dim() not in (4, 5) or image.dtype != torch.uint8:
            raise UsageError(
                f"M3AE takes pictures (B, 3, {IMAGE_SIZE}, {IMAGE_SIZE}) uint8, or frames (B, T, 3, {IMAGE_SIZE}, {IMAGE_SIZE}), "
                f"got {tuple(image.shape)} {str(image.dtype).removeprefix('torch.')}"
            )
        return mean_over_frames(self.encode_pictures, image)

    def encode_pictures(self, image: Tensor) -> Tensor:
        """Encode pictures (B, 3, 256, 256) as (B, D)."""
        normal = normalise(image, self.mean, self.std)
        grid = normal.unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH)  # (B, 3, rows, columns, y, x)
        patches = grid.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)  # (B, N, 768), in a patch y, x, channel
        tokens = self.patches(patches) + self.positions + self.type_embedding
        cls = self.cls_token.expand(len(image), -1, -1)
        return self.encode(torch.cat([cls, tokens], dim=1)).mean(dim=1)


class M3AEText(M3AE):
    """The M3AE encoder (Geng et al., 2022, arXiv 2205.14204) of texts alone.

    Word pieces of bert-base-uncased without its special tokens, a sine-cosine embedding of their places and a learned type embedding;
    a class token before them; blocks as in ``M3AEImage``. The feature is the mean over the output tokens of the class token and of the
    text; a text without word pieces is the class token alone.

    Departures:
        1. Padding is neither attended to nor averaged: a text's feature does not depend on its batch. The MLA paper's code averages
           over the padding too.

    Args:
        size: as ``M3AEImage``.
        weights: as ``M3AEImage``.
        tokenizer: a folder in the weights folder with ``vocab.txt``, the vocabulary of bert-base-uncased.
        max_length: what is left of longer texts, in word pieces; M3AE was trained with 64, the MLA paper's code takes 256.
        freeze: as ``M3AEImage``.
        lr_factor: as ``M3AEImage``.
        layer_decay: as ``M3AEImage``.
        gradient_checkpointing: as ``M3AEImage``.
    """

    modality = "text"
    inputs = {"embedding.weight": "text_embedding/embedding"}

    def __init__(
        self,
        size: Size = "base",
        weights: str | None = None,
        tokenizer: str = TOKENIZER,
        max_length: Annotated[int, Field(gt=0)] = 64,
        freeze: bool = False,
        lr_factor: Factor = 1.0,
        layer_decay: Share = 1.0,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__(
            size,
            weights,
            freeze=freeze,
            lr_factor=lr_factor,
            layer_decay=layer_decay,
            gradient_checkpointing=gradient_checkpointing,
        )
        self.vocabulary = tokenizer
        self.max_length = max_length
        self.embedding = nn.Embedding(VOCABULARY, self.out_dim)
        self.register_buffer("positions", sincos(torch.arange(max_length), self.out_dim), persistent=False)
        self.initialise()
        if weights and not without_memory():
            self.load(weights)
        self.adapt()

    @classmethod
    def weight_files(cls, arguments: dict[str, Any]) -> list[Path]:
        """The checkpoint, if one is named, and the vocabulary."""
        return [*super().weight_files(arguments), vocabulary_file(arguments.get("tokenizer", TOKENIZER))]

    @cached_property
    def word_pieces(self) -> Any:
        """The tokenizer, read when it is first used: building an encoder needs no vocabulary."""
        from transformers import BertTokenizer

        path = vocabulary_file(self.vocabulary)
        try:
            tokenizer = BertTokenizer(vocab=str(path))
        except Exception as error:
            raise UsageError(f"{path}: expected a vocabulary, one word piece a line in UTF-8 ({error})") from error
        if len(tokenizer) != VOCABULARY:
            raise UsageError(
                f"{path}: expected the {VOCABULARY} word pieces of bert-base-uncased, got {len(tokenizer)} (special tokens included)"
            )
        return tokenizer

    def tokenize(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Cut the texts into word pieces.

        Returns:
            ``token`` (N, L) int32, padded with 0, L the length of the longest text and at least 1; ``mask`` (N, L) int32, 1 where
            there is a token.

        Raises:
            UsageError: the vocabulary is missing or another.
        """
        cut = {"add_special_tokens": False, "truncation": True, "max_length": self.max_length}
        pieces = self.word_pieces(list(texts), **cut)["input_ids"] if texts else []
        lengths = torch.tensor([len(row) for row in pieces])
        longest = max(1, int(lengths.max())) if pieces else 1
        filled = torch.arange(longest) < lengths[:, None]  # (N, L)
        token = torch.zeros(len(pieces), longest, dtype=torch.int32)
        token[filled] = torch.tensor([piece for row in pieces for piece in row], dtype=torch.int32)
        return {"token": token, "mask": filled.int()}

    def forward(self, text: dict[str, Tensor]) -> Tensor:
        """Encode ``{"token": (B, L), "mask": (B, L)}`` as (B, D)."""
        token = text["token"]
        tokens = self.embedding(token) + self.positions[: token.shape[1]] + self.type_embedding
        cls = self.cls_token.expand(len(token), -1, -1)
        real = torch.cat([torch.ones_like(token[:, :1]), text["mask"]], dim=1).bool()  # (B, 1 + L)
        out = self.encode(torch.cat([cls, tokens], dim=1), real[:, None, None])
        return (out * real[..., None]).sum(dim=1) / real.sum(dim=1, keepdim=True)


def m3ae_weights(name: str) -> Path:
    """The checkpoint of this name; of a ``.pkl`` that is not there, what it was converted to."""
    converted = weights_path(name).with_suffix(".safetensors")
    chosen = converted.name if converted.exists() and not weights_path(name).exists() else name
    hint = "M3AE's weights, .pkl as https://github.com/young-geng/m3ae_public offers them or converted"
    return find_weights(chosen, hint)


def vocabulary_file(folder: str) -> Path:
    """The vocabulary in the folder of this name."""
    hint = "the folder with vocab.txt, the vocabulary of bert-base-uncased"
    path = find_weights(folder, hint) / "vocab.txt"
    if not path.is_file():
        raise UsageError(f"{path} is missing; expected {hint}")
    return path
