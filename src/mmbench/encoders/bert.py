"""BERT and its relatives, through transformers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from mmbench.encoders.pretrained import Factor, Share, in_layers
from mmbench.encoders.transformer import TextTransformer
from mmbench.errors import UsageError


class Bert(TextTransformer):
    """BERT (Devlin et al., 2019, arXiv 1810.04805) without its pooler; padding has no effect on the feature.

    Published: google-bert/bert-base-uncased on the Hugging Face hub, and every other model there of the type bert, such as
    sentence-transformers/all-MiniLM-L6-v2 (with ``pool: mean``), the one that has been run here.

    Args:
        weights: a folder in the weights folder with config.json, model.safetensors and the tokenizer's files; None: random.
        pool: the last layer's output at the first token, or its mean over all tokens, special ones included.
        max_length: tokens of a text, special ones included, that are kept.
        tokenizer: a folder with the tokenizer's files; None: that of the weights.
        size: of random weights: BERT-base, or one for trying things out.
        freeze: train nothing.
        lr_factor: of the recipe's learning rate.
        layer_decay: the learning rate of a layer is this times that of the layer above it.
        gradient_checkpointing: compute the layers again in the backward pass.

    Raises:
        UsageError: the folder is missing, or holds something else.
    """

    model_types = ("bert",)
    unused = ("cls.", "bert.pooler.", "pooler.", "bert.embeddings.position_ids", "embeddings.position_ids")
    tiny = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    tokenizer_class = "BertTokenizer"
    vocabulary = ("vocab.txt",)

    def __init__(
        self,
        weights: str | None = "bert-base-uncased",
        pool: Literal["cls", "mean"] = "cls",
        max_length: Annotated[int, Field(ge=3)] = 128,
        tokenizer: str | None = None,
        size: Literal["tiny", "base"] = "base",
        freeze: bool = False,
        lr_factor: Factor = 1.0,
        layer_decay: Share = 1.0,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__(freeze, lr_factor, layer_decay, gradient_checkpointing)
        from transformers import BertModel

        self.tokenizer_folder = self.choose_tokenizer(weights, tokenizer)
        self.build(BertModel, weights, size)
        self.model.pooler = None
        longest = self.model.config.max_position_embeddings
        if max_length > longest:
            raise UsageError(f"max_length is {max_length}, the model takes {longest} tokens at most")
        self.pool = pool
        self.max_length = max_length
        self.out_dim: int = self.model.config.hidden_size
        self.adapt()

    def layers(self) -> list[list[nn.Parameter]]:
        """The parameters of the embeddings and of each layer."""
        return in_layers(self, self.model.encoder.layer)

    def forward(self, text: dict[str, Tensor]) -> Tensor:
        """Encode ``{"token": (B, L), "mask": (B, L)}`` as (B, out_dim)."""
        mask = text["mask"]
        states = self.model(input_ids=text["token"], attention_mask=mask).last_hidden_state  # (B, L, D)
        if self.pool == "cls":
            return states[:, 0]
        here = mask.unsqueeze(-1).to(states.dtype)
        return (states * here).sum(dim=1) / here.sum(dim=1)
