"""CCA: correlated projections in closed form, and a linear classifier on them."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.linalg import cholesky, solve_triangular

from mmbench.arguments import Tunable
from mmbench.data.split import DataSpec
from mmbench.fixed import Centring, FixedFeatureTask, LinearSvm
from mmbench.recipe import Recipe


class Cca(FixedFeatureTask):
    """Canonical correlation analysis (Hotelling, Biometrika 1936) of every pair of modalities, and a linear support vector machine.

    As a baseline for missing modalities in GCNet's release (Lian et al., TPAMI 2023, arXiv 2203.02177;
    https://github.com/zeroQiaoba/GCNet, ``baseline-cca``). With x_m centred, and zero where absent, for each pair of modalities

        S_11 = X_1ᵀX_1 / (N − 1) + r I,   S_22 likewise,   S_12 = X_1ᵀX_2 / (N − 1)
        T = S_11^(−1/2) S_12 S_22^(−1/2) = U Σ Vᵀ,   A_1 = S_11^(−1/2) U_n,   A_2 = S_22^(−1/2) V_n

    with the n leading singular vectors. The M (M − 1) projections A_mᵀx_m are concatenated and classified by a linear SVM. The loss
    that is logged is minus the sum of the canonical correlations, n a pair.

    Cost: no gradient. One pass over the training split, then decompositions of D × D matrices and an SVM.

    Departures:
        1. A missing view is imputed by the mean over the training samples that have it, and over nothing else; the release takes
           the mean over all splits, which leaks validation and test data. As views are centred, the imputed ones are zero.
        2. n: the release searches 2…20 per data set. Here it is 20, or the width of the narrowest modality where that is less. The
           number of samples sets no limit, as r keeps the covariances regular.
        3. r = 1e-4 and the SVM's C = 0.01 as released; its other variant, which normalises the features first, is left out.
        4. S^(−1/2) is an inverse Cholesky factor instead of the symmetric root, which turns T, but changes neither Σ nor A where
           singular values differ. Where no sample has both views, T is zero and A is the first n whitened coordinates of each view: at
           the highest anchor rate this is no CCA.
        5. The SVM's one-against-rest decision values are the logits (for two classes, minus and plus the one that there is). They
           rank the classes; their softmax is not calibrated. A class that does not occur in training gets the logit −10⁴.
        6. Nothing is learned step by step: one epoch is enough, and after it training stops.
        7. Samples without any view are left out of training.

    Args:
        components: n.
        regularisation: r.
        svm_c: C of the SVM.
    """

    projections: Tensor

    def __init__(
        self,
        spec: DataSpec,
        encoders: Mapping[str, nn.Module],
        recipe: Recipe | None = None,
        *,
        components: Annotated[int, Field(ge=1)] = 20,
        regularisation: Annotated[float, Field(gt=0), Tunable(1e-6, 1e-2, log=True)] = 1e-4,
        svm_c: Annotated[float, Field(gt=0), Tunable(1e-4, 1.0, log=True)] = 0.01,
    ) -> None:
        super().__init__(spec, encoders, recipe)
        self.components = min(components, *self.dims.values())
        self.regularisation = regularisation
        width = (len(self.modalities) - 1) * self.components  # (M − 1) n, of one modality's projections
        self.centring = Centring(self.dims)
        self.register_buffer("projections", torch.zeros(sum(self.dims.values()), width))  # A_m, one below the other
        self.svm = LinearSvm(len(self.modalities) * width, spec.num_classes, svm_c)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """An optimiser that moves nothing: Lightning counts its steps, and writes no checkpoint before the first."""
        return torch.optim.SGD([self.svm.weight])

    def project(self, features: dict[str, Tensor], present: Tensor) -> Tensor:
        """The projections of every modality for each of the others, (B, M (M − 1) n); zero where absent."""
        centred = self.centring(features, present)
        parts = self.projections.split(list(self.dims.values()))
        return torch.cat([centred[m] @ part for m, part in zip(self.modalities, parts, strict=True)], dim=1)

    def fuse(self, features: dict[str, Tensor], present: Tensor) -> Tensor:
        """Classify the projections: (B, C)."""
        return self.svm(self.project(features, present))

    @torch.no_grad()
    def learn(self, features: dict[str, Tensor], present: Tensor, label: Tensor, index: Tensor) -> Tensor:
        """Means, projections and classifier in closed form; returns minus the sum of the correlations."""
        self.centring.fit(features, present)
        centred = {m: f.double() for m, f in self.centring(features, present).items()}
        found: dict[str, list[Tensor]] = {m: [] for m in self.modalities}
        total = torch.zeros((), dtype=torch.double, device=label.device)
        for one, other in combinations(self.modalities, 2):
            with self.factorising():
                matrix, root, other_root = whiten(centred[one], centred[other], self.regularisation)
                u, sigma, vh = torch.linalg.svd(matrix, full_matrices=False)
            found[one].append(solve_triangular(root.T, u[:, : self.components], upper=True))  # (D, n)
            found[other].append(solve_triangular(other_root.T, vh[: self.components].T, upper=True))
            total += sigma[: self.components].sum()
        self.projections.copy_(torch.cat([torch.cat(found[m], dim=1) for m in self.modalities]))
        self.svm.fit(self.project(features, present), label)
        self.optimizers().step()  # type: ignore[union-attr]
        self.trainer.should_stop = True
        return -total


def whiten(one: Tensor, other: Tensor, regularisation: float) -> tuple[Tensor, Tensor, Tensor]:
    """The matrix whose singular values are the canonical correlations.

    Args:
        one: centred rows (N, D).
        other: centred rows (N, E) of the same samples.
        regularisation: r, added to the diagonals of both covariances.

    Returns:
        T (D, E), and the lower Cholesky factors L (D, D) and K (E, E) of the covariances, T = L^(−1) S_12 K^(−ᵀ).
    """
    count = max(1, len(one) - 1)

    def root(rows: Tensor) -> Tensor:
        return cholesky(
            rows.T @ rows / count + regularisation * torch.eye(rows.shape[1], dtype=rows.dtype, device=rows.device)
        )

    left, right = root(one), root(other)
    half = solve_triangular(left, one.T @ other / count, upper=False)  # (D, E)
    return solve_triangular(right, half.T, upper=False).T, left, right
