"""wav2vec 2.0, through transformers."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from mmbench.encoders.pretrained import Factor, Share, in_layers
from mmbench.encoders.transformer import Transformer
from mmbench.errors import UsageError


class Wav2Vec2(Transformer):
    """wav2vec 2.0 (Baevski et al., 2020, arXiv 2006.11477) on waveforms: the mean of the last layer's output over time.

    Published: facebook/wav2vec2-base on the Hugging Face hub and others of its layout. Here, these have not been run.

    Departures:
        1. Published convolutions stay as they are, as in the paper's fine-tuning; random ones are trained.
        2. No time steps are masked and no layers are dropped in training, as the paper does.
        3. What pads a clip to the common length is part of it; transformers' feature extractor leaves it out of mean and variance.

    Args:
        weights: a folder in the weights folder with config.json and model.safetensors or pytorch_model.bin (of which only tensors are
            read); None: random.
        size: of random weights: wav2vec 2.0 base, or one for trying things out.
        freeze: train nothing.
        lr_factor: of the recipe's learning rate.
        layer_decay: the learning rate of a layer is this times that of the layer above it.
        gradient_checkpointing: compute the layers again in the backward pass.

    Raises:
        UsageError: the folder is missing, or holds something else.
    """

    model_types = ("wav2vec2",)
    weight_names = ("model.safetensors", "pytorch_model.bin")
    unused = ("quantizer.", "project_q.", "project_hid.", "lm_head.", "masked_spec_embed", "wav2vec2.masked_spec_embed")
    tiny = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "conv_dim": (16,) * 7,
        "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4,
    }  # fmt: skip

    def __init__(
        self,
        weights: str | None = "wav2vec2-base",
        size: Literal["tiny", "base"] = "base",
        freeze: bool = False,
        lr_factor: Factor = 1.0,
        layer_decay: Share = 1.0,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__(freeze, lr_factor, layer_decay, gradient_checkpointing)
        from transformers import Wav2Vec2Model

        unmasked = {"apply_spec_augment": False, "mask_time_prob": 0.0, "mask_feature_prob": 0.0, "layerdrop": 0.0}
        self.build(Wav2Vec2Model, weights, size, **unmasked)
        if weights is not None:
            self.model.freeze_feature_encoder()
        self.out_dim: int = self.model.config.hidden_size
        self.adapt()

    def layers(self) -> list[list[nn.Parameter]]:
        """The parameters before the layers, and of each layer."""
        encoder = self.model.encoder
        return in_layers(self, encoder.layers, [encoder.layer_norm] if self.model.config.do_stable_layer_norm else [])

    def forward(self, waveforms: Tensor) -> Tensor:
        """Encode (B, L) waveforms at 16 kHz, int16 or float, as (B, out_dim); each is brought to mean 0 and variance 1.

        Raises:
            UsageError: they are shorter than a time step.
        """
        if self.model._get_feat_extract_output_lengths(waveforms.shape[1]) < 1:
            raise UsageError(f"a waveform of {waveforms.shape[1]} samples is too short for a single time step")
        x = waveforms.float() / (1 if waveforms.is_floating_point() else 2**15)
        variance, mean = torch.var_mean(x, dim=1, correction=0, keepdim=True)
        x = (x - mean) / (variance + 1e-7).sqrt()
        return self.model(x).last_hidden_state.mean(dim=1)
