"""LMF: one linear layer on the outer product of all features, its weights a sum of a few outer products."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from mmbench.arguments import Tunable
from mmbench.data.split import DataSpec
from mmbench.recipe import Recipe
from mmbench.task import MultimodalTask


class Lmf(MultimodalTask):
    """Low-rank multimodal fusion (Liu, Shen et al., ACL 2018, arXiv 1806.00064).

    Authors' code: https://github.com/Justin1904/Low-rank-Multimodal-Fusion (MIT; ``model.py`` at f8e1222). A linear layer on the
    tensor that ``tfn`` makes, W · ⊗_m [h_m; 1], whose weights are a sum of R outer products of one vector a modality. Then the tensor
    need not be made. With w_mr (D_m + 1, C) the factor of modality m,

        z = Σ_r Π_m w_mrᵀ [h_m; 1],   the product element by element,

    trained by the cross-entropy of z. An absent modality is [0; 1]: what is left of its factor is the row of the 1.

    Departures:
        1. The rows of features start as the weights of Concat's one linear layer (PyTorch's, for Σ_m D_m inputs), the row of the 1
           from ones: at first z is, up to products, the sum of R Concats, for any number of modalities and classes. The release draws
           all factors from Xavier's normal distribution, computed for the tensor (R, D_m + 1, C), of variance 2 / (C (D_m + 1 + R)):
           for features of variance 1 the product of M has a variance of about (2 / C)^M. (C is 2 for IEMOCAP, 1 for MOSI and 16 for
           POM.) And a 1 whose weight is negative turns round what the other modalities say where its own is absent.
        2. The sum over r is the paper's. The release weighs it, Σ_r a_r Π_m …, and adds a bias. Its scripts train neither: of the
           model's parameters they give the optimiser ``[:3]`` and ``[5:]``, and a and the bias are numbers 3 and 4
           (``train_iemocap.py`` at 196c454). Factors can take up the one, and their rows of the 1 the other.
        3. The release's networks of each modality (batch normalisation and three layers, an LSTM for text) are the encoders here. Its
           dropout after the fusion is made and never applied, so there is none. Its factors have a learning rate of their own.
        4. The papers have no missing modalities. Nothing is hidden in training but what is missing there; a sample that has nothing
           trains the rows of the 1.

    Cost: one forward and one backward pass of the encoders; R · Σ_m D_m · C multiplications a sample.

    Args:
        rank: R; the release searches 1, 4, 8 and 16. From these first weights, 1 is not enough to learn XOR in the planted tests.
    """

    def __init__(
        self,
        spec: DataSpec,
        encoders: Mapping[str, nn.Module],
        recipe: Recipe | None = None,
        *,
        rank: Annotated[int, Field(ge=1, le=1000), Tunable(2, 16, log=True)] = 4,
    ) -> None:
        super().__init__(spec, encoders, recipe)
        bound = sum(self.dims.values()) ** -0.5
        self.factors = nn.ParameterDict()
        for modality, width in self.dims.items():
            factor = torch.empty(rank, width + 1, spec.num_classes).uniform_(-bound, bound)
            factor[:, -1] = 1.0
            self.factors[modality] = nn.Parameter(factor)  # (R, D_m + 1, C)

    def fuse(self, features: dict[str, Tensor], present: Tensor) -> Tensor:
        """Multiply what the modalities' factors make of them, and add up over the ranks: (B, C)."""
        shown = self.zero_absent(features, present)
        made = [F.pad(shown[m], (0, 1), value=1.0) @ self.factors[m] for m in self.modalities]  # of (R, B, C)
        return reduce(torch.mul, made).sum(dim=0)
