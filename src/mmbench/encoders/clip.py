"""CLIP's two towers, through transformers."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mmbench.encoders.pretrained import Factor, Share, in_layers, mean_over_frames, normalise
from mmbench.encoders.transformer import TextTransformer, Transformer
from mmbench.errors import UsageError

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
TINY = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "projection_dim": 32,
}


class ClipImage(Transformer):
    """CLIP's picture tower (Radford et al., 2021, arXiv 2103.00020) up to its projection, not normalised to unit length.

    Published: openai/clip-vit-base-patch32 on the Hugging Face hub and others of its layout. Here, these have not been run.

    Args:
        weights: a folder in the weights folder with config.json and model.safetensors; None: random.
        size: of random weights: ViT-B/32, or one for trying things out.
        freeze: train nothing.
        lr_factor: of the recipe's learning rate.
        layer_decay: the learning rate of a layer is this times that of the layer above it.
        gradient_checkpointing: compute the layers again in the backward pass.

    Raises:
        UsageError: the folder is missing, or holds something else.
    """

    model_types = ("clip", "clip_vision_model")
    unused = ("text_model.", "text_projection.", "logit_scale", "vision_model.embeddings.position_ids")
    tiny = {**TINY, "image_size": 32, "patch_size": 16}

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        weights: str | None = "clip-vit-base-patch32",
        size: Literal["tiny", "base"] = "base",
        freeze: bool = False,
        lr_factor: Factor = 1.0,
        layer_decay: Share = 1.0,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__(freeze, lr_factor, layer_decay, gradient_checkpointing)
        from transformers import CLIPVisionModelWithProjection

        self.build(CLIPVisionModelWithProjection, weights, size)
        self.image_size: int = self.model.config.image_size
        self.out_dim: int = self.model.config.projection_dim
        self.register_buffer("mean", torch.tensor(MEAN), persistent=False)
        self.register_buffer("std", torch.tensor(STD), persistent=False)
        self.adapt()

    def layers(self) -> list[list[nn.Parameter]]:
        """The parameters of the embeddings, of each layer and of the projection."""
        tower = self.model.vision_model
        return in_layers(self, tower.encoder.layers, [tower.post_layernorm, self.model.visual_projection])

    def forward(self, pictures: Tensor) -> Tensor:
        """Encode (B, 3, S, S) uint8 pictures, S the ``image_size``, as (B, out_dim); clips (B, T, 3, S, S) as the mean over frames.

        Raises:
            UsageError: the pictures are of another size.
        """
        if pictures.shape[-2:] != (self.image_size, self.image_size):
            raise UsageError(
                f"expected pictures of {self.image_size} × {self.image_size}, got {pictures.shape[-2]} × {pictures.shape[-1]}"
            )
        return mean_over_frames(lambda p: self.model(normalise(p, self.mean, self.std)).image_embeds, pictures)


class ClipText(TextTransformer):
    """CLIP's text tower (Radford et al., 2021, arXiv 2103.00020) up to its projection, not normalised to unit length.

    Published: openai/clip-vit-base-patch32 on the Hugging Face hub and others of its layout. Here, these have not been run.

    Args:
        weights: a folder in the weights folder with config.json, model.safetensors and the tokenizer's files; None: random.
        tokenizer: a folder with the tokenizer's files; None: that of the weights.
        size: of random weights: as of ViT-B/32, or one for trying things out.
        freeze: train nothing.
        lr_factor: of the recipe's learning rate.
        layer_decay: the learning rate of a layer is this times that of the layer above it.
        gradient_checkpointing: compute the layers again in the backward pass.

    Raises:
        UsageError: the folder is missing, or holds something else.
    """

    model_types = ("clip", "clip_text_model")
    unused = ("vision_model.", "visual_projection.", "logit_scale", "text_model.embeddings.position_ids")
    tiny = TINY
    tokenizer_class = "CLIPTokenizer"
    vocabulary = ("vocab.json", "merges.txt")

    def __init__(
        self,
        weights: str | None = "clip-vit-base-patch32",
        tokenizer: str | None = None,
        size: Literal["tiny", "base"] = "base",
        freeze: bool = False,
        lr_factor: Factor = 1.0,
        layer_decay: Share = 1.0,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__(freeze, lr_factor, layer_decay, gradient_checkpointing)
        from transformers import CLIPTextModelWithProjection

        self.tokenizer_folder = self.choose_tokenizer(weights, tokenizer)
        self.build(CLIPTextModelWithProjection, weights, size)
        self.max_length: int = self.model.config.max_position_embeddings
        self.out_dim: int = self.model.config.projection_dim
        self.adapt()

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer; its end of text has to be the model's, since the feature is read there."""
        tokenizer, end = super().tokenizer, self.model.config.eos_token_id
        if end not in (2, tokenizer.eos_token_id):  # 2: old configurations, where the end is the highest number
            raise UsageError(
                f"weights '{self.tokenizer_folder}': the tokenizer ends texts with {tokenizer.eos_token_id}, the model with {end}"
            )
        return tokenizer

    def layers(self) -> list[list[nn.Parameter]]:
        """The parameters of the embeddings, of each layer and of the projection."""
        tower = self.model.text_model
        return in_layers(self, tower.encoder.layers, [tower.final_layer_norm, self.model.text_projection])

    def forward(self, text: dict[str, Tensor]) -> Tensor:
        """Encode ``{"token": (B, L), "mask": (B, L)}`` as (B, out_dim)."""
        return self.model(input_ids=text["token"], attention_mask=text["mask"]).text_embeds
