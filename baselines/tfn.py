"""TFN: a network on the outer product of all features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from mmbench.arguments import Tunable
from mmbench.data.split import DataSpec
from mmbench.errors import UsageError
from mmbench.recipe import Recipe
from mmbench.task import MultimodalTask

USUAL_CELLS = 2**14
"""What the tensor of a sample has at most, in numbers, if no width is given."""
MOST_CELLS = 2**18
"""What it may have: 34 MB of weights behind it, and 67 MB of tensors for a batch of 64."""


class Tfn(MultimodalTask):
    """Tensor fusion network (Zadeh et al., EMNLP 2017, arXiv 1707.07250).

    Authors' code: https://github.com/Justin1904/TensorFusionNetworks (MIT, of an author of ``lmf``; ``model.py`` at 5fc1719,
    ``train.py`` at b6ded67).

        z_m = P_m h_m + p_m, a vector of d numbers; zero if m is absent
        T = [z_1; 1] ⊗ … ⊗ [z_M; 1],  (d + 1)^M numbers: every product of at most one number a modality, and the 1
        z = V_3 ReLU(V_2 ReLU(V_1 T + v_1) + v_2) + v_3,

    trained by the cross-entropy of z. Where a modality is absent, [0; 1], the products with its numbers are zero and the others stay.

    Departures:
        1. d is the same for all modalities, by default the largest of which T has no more than 16,384 numbers: 127, 24, 10, 5 and 4
           for M = 2 to 6. The release has 32 for sound, 32 for pictures and 64 for text, together 70,785, and is for these three.
        2. The release's networks of each modality (three layers with ReLU, an LSTM and a linear layer for text) are the encoders
           here, and P_m their last layer. It has no ReLU, as that of the text has none: of a few numbers the signs matter.
        3. The hidden layers have ReLU. The release's three layers have nothing in between, so that together they are one linear layer
           on T.
        4. The release is a regression, 6 V_3(…) − 3. The sigmoid that its comment promises, to bound it, is not there.
        5. The paper has no missing modalities. Nothing is hidden in training but what is missing there: trained on complete samples,
           it may well answer by products alone, and know little from one modality. A sample that has nothing trains what follows the
           tensor's own 1.

    Cost: one forward and one backward pass of the encoders; (d + 1)^M · ``hidden`` multiplications a sample, and as many weights.

    Args:
        width: d.
        hidden: the width of the two hidden layers; 32 and dropout of 0.3 are the release's.
        dropout: of the numbers of T.

    Raises:
        UsageError: T would have more than 262,144 numbers.
    """

    linear_heads = True

    def __init__(
        self,
        spec: DataSpec,
        encoders: Mapping[str, nn.Module],
        recipe: Recipe | None = None,
        *,
        width: Annotated[int, Field(ge=1)] | None = None,
        hidden: Annotated[int, Field(ge=1)] = 32,
        dropout: Annotated[float, Field(ge=0, lt=1), Tunable(0.0, 0.5)] = 0.3,
    ) -> None:
        super().__init__(spec, encoders, recipe)
        count = len(self.modalities)
        width = width or largest_width(count, USUAL_CELLS)
        cells = (width + 1) ** count
        if cells > MOST_CELLS:
            raise UsageError(
                f"width is {width}: the tensor of {count} modalities would have ({width} + 1)^{count} = {cells:,} numbers a sample, "
                f"expected at most {MOST_CELLS:,}; lower width to {largest_width(count, MOST_CELLS)} or less"
            )
        self.project = nn.ModuleDict({m: self.linear(d, width) for m, d in self.dims.items()})
        self.network = nn.Sequential(
            nn.Dropout(dropout),
            self.linear(cells, hidden),
            nn.ReLU(),
            self.linear(hidden, hidden),
            nn.ReLU(),
            self.linear(hidden, spec.num_classes),
        )

    def tensor(self, features: dict[str, Tensor], present: Tensor) -> Tensor:
        """The outer product T of what is present, its numbers in a row: (B, (d + 1)^M)."""
        shown = self.zero_absent({m: self.project[m](features[m]) for m in self.modalities}, present)
        first, *others = [F.pad(shown[m], (0, 1), value=1.0) for m in self.modalities]  # of (B, d + 1)
        for other in others:
            first = (first.unsqueeze(2) * other.unsqueeze(1)).flatten(1)
        return first

    def fuse(self, features: dict[str, Tensor], present: Tensor) -> Tensor:
        """Classify the outer product: (B, C)."""
        return self.network(self.tensor(features, present))


def largest_width(modalities: int, cells: int) -> int:
    """The largest d, or else 1, of which (d + 1)^M is no more than so many.

    >>> [largest_width(count, 2**14) for count in (2, 3, 4, 5, 6, 16)]
    [127, 24, 10, 5, 4, 1]
    """
    width = 1
    while (width + 2) ** modalities <= cells:
        width += 1
    return width
