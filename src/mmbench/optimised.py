"""What a recipe makes of a method: how its layers begin, what classes weigh, and how a step is taken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmbench.checkpoint import Restorable
from mmbench.encoders.pretrained import Pretrained
from mmbench.errors import UsageError
from mmbench.recipe import Recipe, check_trainer


class Optimised(Restorable):
    """The base of methods that a recipe trains, in all of its settings; a setting that has no effect on a method is refused."""

    #: Whether the method makes all its layers by ``linear``, so that ``recipe.head_init`` holds for it.
    linear_heads: bool = False

    #: Whether the recipe's optimiser trains the method: its kind, its schedule, and the norm that it cuts gradients back to. A class
    #: that overrides ``configure_optimizers`` has to say so itself; if it does not, this is taken to be False.
    recipe_optimizer: bool = True

    #: Whether every cross-entropy of class labels goes through ``cross_entropy`` or ``weighted``, so that ``recipe.class_weights``
    #: holds. A class that overrides ``training_step`` has to say so itself; if it does not, this is taken to be False.
    weighted_classes: bool

    #: Attributes that hold encoders, modality -> encoder, which the method trains.
    trained_encoders: tuple[str, ...] = ("encoders",)

    pretraining_epochs: int
    class_weights: Tensor | None

    def follow(self, recipe: Recipe, class_counts: Sequence[int]) -> None:
        """Take up a recipe.

        Args:
            recipe: how to train.
            class_counts: (C,), how often each class occurs in the training split.

        Raises:
            UsageError: the recipe has a setting that the method does not honour.
        """
        self.recipe = recipe
        self._check_recipe()
        counts = torch.tensor(class_counts, dtype=torch.float)
        self.register_buffer("class_weights", self._balance(counts), persistent=False)  # (C,), or None

    def _check_recipe(self) -> None:
        """Raise a UsageError if the recipe has a setting that the method does not honour."""

        def promises(promise: str, hook: str) -> bool:
            """Whether the class that the hook is of, or one derived from it, makes the promise."""
            owner = next(c for c in type(self).__mro__ if promise in vars(c) or hook in vars(c))
            return bool(vars(owner).get(promise, False))

        recipe, name = self.recipe, type(self).__name__
        refused: dict[str, str] = {}  # setting -> why it has no effect
        if not self.linear_heads:
            refused["head_init"] = f"{name} initialises its layers in its own way"
        if not promises("weighted_classes", "training_step"):
            refused["class_weights"] = f"{name} does not weigh classes in what it learns by"
        if not promises("recipe_optimizer", "configure_optimizers"):
            settings = ("schedule", "warmup", "clip_norm", *(["optimizer"] if recipe.optimizer == "adamw" else []))
            refused |= dict.fromkeys(settings, f"{name} is not trained by the recipe's optimiser")
        mistakes = []
        for setting, why in refused.items():
            value, default = getattr(recipe, setting), Recipe.model_fields[setting].default
            if value != default:
                mistakes.append(
                    f"recipe.{setting} is {value!r}, but {why}; leave it out, or give the method a recipe of its own, in which it is "
                    f"{'null' if default is None else default}"
                )
        if mistakes:
            raise UsageError(". ".join(mistakes))

    def _balance(self, counts: Tensor) -> Tensor | None:
        """The weight of each class by the recipe (C,), given how often it occurs in the training split; None if all weigh the same.

        Balanced, the weight is N / (K n_c) for the n_c of N samples, K the number of classes that occur: over the split it is 1 on
        average. A class that does not occur weighs nothing.
        """
        if self.recipe.class_weights == "none":
            return None
        return torch.where(counts > 0, counts.sum() / ((counts > 0).sum() * counts.clamp(min=1)), 0.0)

    @property
    def is_pretraining(self) -> bool:
        """Whether the current epoch is one of pretraining."""
        return self.current_epoch < self.pretraining_epochs

    # What methods are made of

    def linear(self, in_dim: int, out_dim: int) -> nn.Linear:
        """A linear layer behind the encoders, initialised as the recipe says."""
        layer = nn.Linear(in_dim, out_dim)
        if self.recipe.head_init == "xavier":
            nn.init.xavier_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
        return layer

    def cross_entropy(self, logits: Tensor, label: Tensor) -> Tensor:
        """The mean cross-entropy of logits (B, C) and labels (B,); by the weights of their classes, where the recipe has some.

        Weighted, it is Σ w ℓ / Σ w over the samples, as in ``torch.nn.CrossEntropyLoss(weight)``.
        """
        return F.cross_entropy(logits, label, weight=self.class_weights)

    def weighted(self, losses: Tensor, label: Tensor, counted: Tensor) -> Tensor:
        """Losses of samples, such that their plain mean over what counts is the mean weighted by class, Σ w ℓ / Σ w.

        For losses that a method goes on to average, or to select from, by a rule of its own. What does not count comes out as zero.
        Without class weights the losses are returned as they are.

        Args:
            losses: (B,), or (B, M) of each modality.
            label: (B,).
            counted: bool of the shape of the losses: over which the method takes the mean, for each modality by itself.
        """
        if self.class_weights is None:
            return losses
        weights = counted * self.class_weights[label].view(-1, *[1] * (losses.dim() - 1))
        return losses * weights * counted.sum(dim=0) / weights.sum(dim=0).clamp(min=1e-12)

    # What Lightning asks for

    def on_fit_start(self) -> None:
        """Refuse a trainer, or a data module, that contradicts the recipe.

        Raises:
            UsageError: it does.
        """
        check_trainer(self.trainer, self.recipe)

    def configure_callbacks(self) -> list[Any]:
        """Early stopping, if the recipe has ``patience``."""
        if self.recipe.patience is None:
            return []
        from mmbench.patience import Patience

        return [Patience(self.recipe.patience)]

    def configure_optimizers(self) -> Any:
        """The recipe's optimiser, and its schedule by epochs.

        Lightning takes a step of the schedule at the end of an epoch. A method that optimises manually has to take it itself, as in
        ``on_train_epoch_end`` of ``Mla``.
        """
        recipe, parameters = self.recipe, self.parameter_groups()
        common: dict[str, Any] = {"lr": recipe.lr, "weight_decay": recipe.weight_decay}
        optimizer: torch.optim.Optimizer
        if recipe.optimizer == "sgd":
            optimizer = torch.optim.SGD(parameters, momentum=recipe.momentum, **common)
        else:  # fused: several times faster, but it does itself what mixed precision has to have done before a gradient is changed
            fused = self._trainer is None or "mixed" not in self.trainer.precision
            kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer]
            optimizer = kind(parameters, betas=(recipe.momentum, 0.999), fused=fused, **common)
        schedulers = torch.optim.lr_scheduler
        if recipe.schedule == "step" and not recipe.warmup:
            # The same factors, but multiplied up epoch by epoch: older results have its rounding.
            return [optimizer], [schedulers.StepLR(optimizer, recipe.step_size, recipe.gamma)]
        return [optimizer], [schedulers.LambdaLR(optimizer, recipe.lr_factor)]

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Cut the gradient back to the recipe's norm, or as the trainer says, after ``on_before_optimizer_step`` has changed it."""
        if self.recipe.clip_norm is not None:
            gradient_clip_val, gradient_clip_algorithm = self.recipe.clip_norm, "norm"
        if gradient_clip_val is not None:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Cut the gradient back where a method optimises manually: Lightning then leaves it to the method.

        Such a method changes gradients before it steps; if it does so in this hook, it calls this one last.
        """
        if self.recipe.clip_norm is not None and not self.automatic_optimization:
            self.clip_gradients(optimizer, self.recipe.clip_norm, "norm")

    def sets_of_encoders(self) -> list[nn.ModuleDict]:
        """The encoders that the method trains, modality -> encoder: its own, and sets of copies that learn beside them."""
        return [getattr(self, name) for name in self.trained_encoders]

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The trainable parameters as an optimiser takes them: those of each learning rate in a group of their own.

        The first group has the recipe's rate; the others are of encoders that give theirs (``encoders.pretrained``).
        """
        by_factor: dict[float, list[nn.Parameter]] = {1.0: []}
        elsewhere: set[int] = set()
        for encoder in [encoder for encoders in self.sets_of_encoders() for encoder in encoders.values()]:
            for factor, parameters in encoder.parameter_groups() if isinstance(encoder, Pretrained) else []:
                if factor != 1:
                    by_factor.setdefault(factor, []).extend(parameters)
                    elsewhere.update(map(id, parameters))
        by_factor[1.0] = [p for p in self.parameters() if p.requires_grad and id(p) not in elsewhere]
        return [{"params": ps, "lr": self.recipe.lr * factor} for factor, ps in by_factor.items() if ps]
