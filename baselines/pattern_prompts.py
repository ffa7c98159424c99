"""Pattern prompts: learned tokens that tell a masked Transformer which modalities it sees."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from mmbench.arguments import Tunable
from mmbench.baselines.masked_transformer import MaskedTransformer
from mmbench.data.split import DataSpec
from mmbench.recipe import Recipe


class PatternPrompts(MaskedTransformer):
    """Missing-aware prompts (Lee, Tsai, Chiu, Lee, CVPR 2023, arXiv 2303.03369), before the tokens of the masked Transformer.

    Authors' code: https://github.com/YiLunLee/missing_aware_prompts (``vilt/modules/vilt_missing_aware_prompt_module.py`` at
    4da8cc7). Each presence pattern r has k learned tokens P_r. A sample's sequence begins with those of the pattern that it shows,
    and all attend to them; s is the start token, z_m the token of modality m, as in ``MaskedTransformer``:

        X^0 = [s, P_r, z_1, …, z_M],  X^l = layer_l(X^{l−1}),  logits = W x^L_s + w,  loss = CE(logits)

    This is the paper's input-level prompt, which is the release's default; its other one adds tokens to keys and values alone.

    Departures:
        1. The backbone is the masked Transformer, trained together with prompts and encoders. In the paper it is ViLT, pretrained and
           frozen, and prompts and the last layers are all that is trained: its claim, little training, is not tried here.
        2. Absent modalities are not attended to. The release has dummies in their place, an empty text and a white picture.
        3. Prompts enter once, before the first layer of two; in the release before each of the first six of twelve, 16 at a time.
        4. A pattern that no training sample shows keeps the prompts that it began with, but for weight decay, and is answered with
           them at test; so it is in the release. On data with few gaps, or none, ``drop_visible`` has each sample show one of the
           non-empty subsets of what it has, drawn uniformly, so that all patterns are learnt. This is the release's
           ``simulate_missing``, off there too: its experiments have the gaps of the test in training.
        5. All patterns begin with the same k tokens, from N(0, 0.02²). In the release tokens are zeros, but for one of ones, whose
           place tells the pattern. Attention knows no places, and a constant vector does not pass the normalisation before each
           part of a layer: there too prompts of all patterns begin alike, and all k of a layer as one, parted by dropout alone.
        6. A sample that shows nothing has the first pattern's prompts, which has no effect: it takes no part in training, and at
           test it is answered by the class frequencies.

    Cost: one forward and one backward pass of the encoders, of what is visible.

    Args:
        prompts: k.
        width: of tokens.
        layers: L.
        dropout: as in ``MaskedTransformer``.
        drop_visible: whether to hide modalities in training.
    """

    def __init__(
        self,
        spec: DataSpec,
        encoders: Mapping[str, nn.Module],
        recipe: Recipe | None = None,
        *,
        prompts: Annotated[int, Field(ge=1), Tunable(1, 16, log=True)] = 4,
        width: Annotated[int, Field(ge=8, multiple_of=8)] = 128,
        layers: Annotated[int, Field(ge=1), Tunable(1, 4)] = 2,
        dropout: Annotated[float, Field(ge=0, lt=1), Tunable(0.0, 0.5)] = 0.2,
        drop_visible: bool = False,
    ) -> None:
        super().__init__(spec, encoders, recipe, width=width, layers=layers, dropout=dropout, drop_visible=drop_visible)
        alike = 0.02 * torch.randn(prompts, width)
        self.prompts = nn.Parameter(alike.repeat(len(self.pattern_masks), 1, 1))  # (P, k, D), as in missing.patterns

    def sequence(self, features: dict[str, Tensor], present: Tensor) -> tuple[Tensor, Tensor]:
        """The start token, the prompts of each sample's pattern and its modalities' tokens, and which of them are attended to."""
        tokens, attended = super().sequence(features, present)
        pattern = (present.unsqueeze(1) == self.pattern_masks).all(dim=2).int().argmax(dim=1)  # (B,)
        prompts = self.prompts[pattern]  # (B, k, D)
        return (
            torch.cat([tokens[:, :1], prompts, tokens[:, 1:]], dim=1),
            torch.cat([attended.new_ones(prompts.shape[:2]), attended], dim=1),
        )
