"""What MLA's projection P leaves of the head's gradient: ``python benchmarks/projection.py``. About a minute on one core.

For SGD and Adam, on the embedded feature vectors (clean), by epoch, as means over three seeds:

1. |P∇W| / |∇W|, the Frobenius norms of the head's gradient after and before eq. 3, as a mean over the epoch's steps.
2. |ΔW| with the projection / |ΔW| without: how far the head moves in the epoch, from its place at the epoch's start, against a
   run of plain alternation.
3. The validation accuracy of both runs.
"""

from __future__ import annotations

import logging
from statistics import mean

import pytorch_lightning as pl
import torch

from mmbench.baselines.mla import Mla
from mmbench.data.sets.openclipart_features import OpenClipartFeatures
from mmbench.encoders.mlp import Mlp
from mmbench.recipe import Recipe

RECIPES = {
    "sgd": Recipe(epochs=30, lr=0.05, step_size=20),
    "adam": Recipe(epochs=30, lr=0.001, step_size=20, optimizer="adam"),
}
SEEDS = (0, 1, 2)
SHOWN = (1, 2, 3, 5, 10, 15, 20, 30)


class Watched(Mla):
    """MLA that notes the norms of its head's gradients."""

    ratios: list[float]

    def modify_head_gradient(self, mean: torch.Tensor, alpha: float) -> None:
        """Note what is left of the gradient."""
        gradient = self.head.weight.grad
        assert gradient is not None
        before = gradient.norm()
        super().modify_head_gradient(mean, alpha)
        self.ratios.append(float(self.head.weight.grad.norm() / before))  # type: ignore[union-attr]


class Epochs(pl.Callback):
    """What an epoch did: the mean ratio, the head's way, and the accuracy after it."""

    def __init__(self) -> None:
        self.ratios: list[float] = []
        self.ways: list[float] = []
        self.accuracies: list[float] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Watched) -> None:  # type: ignore[override]
        pl_module.ratios = []
        self.start = pl_module.head.weight.detach().clone()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Watched) -> None:  # type: ignore[override]
        self.ratios.append(sum(pl_module.ratios) / max(1, len(pl_module.ratios)))
        self.ways.append(float((pl_module.head.weight.detach() - self.start).norm()))
        self.accuracies.append(100 * float(trainer.callback_metrics["validation/accuracy"]))


def run(recipe: Recipe, projected: bool, seed: int) -> Epochs:
    """Train MLA with or without the projection."""
    pl.seed_everything(seed, verbose=False)
    data = OpenClipartFeatures(batch_size=recipe.batch_size, seed=seed)
    encoders = {m: Mlp(in_dim=width) for m, width in data.spec.feature_dims.items()}
    watch = Epochs()
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=recipe.epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[watch],
    )
    trainer.fit(Watched(data.spec, encoders, recipe, head_gradient_modification=projected), datamodule=data)
    return watch


def main() -> None:
    """Print all figures."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    for name, recipe in RECIPES.items():
        pairs = [(run(recipe, True, seed), run(recipe, False, seed)) for seed in SEEDS]
        print(f"{name}, lr {recipe.lr:g}: epoch, |P∇W| / |∇W|, |ΔW| with / without P, accuracy with and without")
        for epoch in SHOWN:
            i = epoch - 1
            left = mean(one.ratios[i] for one, _ in pairs)
            way = mean(one.ways[i] / other.ways[i] for one, other in pairs)
            accuracies = (mean(pair[side].accuracies[i] for pair in pairs) for side in (0, 1))
            print(f"{epoch:5d} {left:8.4f} {way:8.4f} {next(accuracies):7.1f} {next(accuracies):6.1f}")


if __name__ == "__main__":
    main()
